"""The workstation in a real browser against the limits of its specification: what a reader waits for.

Chromium without a window and without a GPU stands before a server of its own, both on this machine. The other side of
each row is the limit, so that a ratio below 1 keeps it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.timing import Result, Row, Unequal

CHROMIUM = Path("/usr/bin/chromium")
# seconds, as in the specification of the workstation
LIMITS = {
    "worklist painted": 1.0,
    "first image of a study, decoded before": 1.0,
    "first image of a study, fetched ahead": 0.3,
    "window drag, p95 of a move, fitted": 0.033,
    "window drag, p95 of a move, one to one": 0.033,
    "pen to ink, p95 of a point": 0.033,
    "an operation acknowledged, p95": 0.15,
    "the machine's own share of a study": 1.5,
}
# rows that ask many readers at once: how many, and whether a save or a picture
LOADS = {
    "save with 10 readers, p95": (10, "save", 0.25),
    "picture with 10 readers, p95": (10, "picture", 1.0),
    "save with 30 readers, p95": (30, "save", 1.5),
}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        rows, columns: of the pictures, 16 bits of noise.
        studies: how many there are.
        moves: of the window drag.
        points: of the pen's stroke, at 240 a second.
        strokes: operations whose way to the disk of the server is timed.
        readers: at most so many at once.
        load_s: seconds for which each of them saves once a second.
        repeats: times of the whole.
        device: named for the page; nothing here uses a GPU.
    """

    rows: int = 2140
    columns: int = 1776
    studies: int = 6
    moves: int = 120
    points: int = 1000
    strokes: int = 20
    readers: int = 30
    load_s: float = 60.0
    repeats: int = 3
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    return Settings(300, 260, 3, 20, 60, 3, 3, 5.0, 1, device) if toy else Settings(device=device)


DRAG = """
async (moves) => {
  const view = document.querySelector('.view'), box = view.getBoundingClientRect(), times = [];
  const fire = (type, x, y, buttons) => view.dispatchEvent(new PointerEvent(type, { clientX: box.x + x,
    clientY: box.y + y, button: type === 'pointermove' ? -1 : 2, buttons, pointerId: 1, pointerType: 'mouse',
    bubbles: true, cancelable: true }));
  fire('pointerdown', 300, 300, 2);
  for (let i = 0; i < moves; i += 1) {
    const drawn = new Promise((resolve) => window.addEventListener('drawn-by-test', resolve, { once: true }));
    await new Promise((resolve) => requestAnimationFrame(resolve));
    const begun = performance.now();
    fire('pointermove', 300 + i, 300 + (i % 30), 2);
    // the page draws in the next frame's callbacks, in order: ours comes after it
    requestAnimationFrame(() => {
      times.push(performance.now() - begun);
      window.dispatchEvent(new Event('drawn-by-test'));
    });
    await drawn;
  }
  fire('pointerup', 420, 300, 0);
  times.sort((a, b) => a - b);
  return times[Math.floor(0.95 * (times.length - 1))] / 1000;
}
"""

LISTEN = """
() => { window.inkTimes = []; window.addEventListener('pointermove', (event) => {
  for (const one of event.getCoalescedEvents()) window.inkTimes.push(performance.now() - one.timeStamp); }); }
"""


def drag(person: Any, moves: int) -> float:
    """Seconds from a move of the window to its picture, p95: the page's work and that of the canvas."""
    return float(person.page.evaluate(DRAG, moves))


def pen(person: Any, points: int) -> tuple[int, float]:
    """How many of the points of a pen at 240 a second stand in the mark, and the p95 of seconds from point to ink."""
    session = person.page.context.new_cdp_session(person.page)
    person.page.evaluate(LISTEN)
    left, top = person.at(0.1, 0.1)

    async def stroke() -> None:
        send = session._impl_obj.send

        def event(kind: str, k: int) -> Any:
            place = {"x": left + (k % 500) * 0.8, "y": top + (k // 500) * 60 + (k % 37)}
            more = {"button": "left", "buttons": 1, "pointerType": "pen", "force": 0.5, "clickCount": 1}
            params = {"type": kind, **place, **more}
            return asyncio.ensure_future(send(method="Input.dispatchMouseEvent", params=params, timeout=0))

        sent = [event("mousePressed", 0)]
        begun = time.perf_counter()
        for k in range(1, points):
            sent.append(event("mouseMoved", k))
            await asyncio.sleep(max(0.0, begun + k / 240 - time.perf_counter()))
        await asyncio.gather(*sent)
        await event("mouseReleased", points - 1)

    session._sync(stroke())
    person.saved()
    times = sorted(person.page.evaluate("window.inkTimes"))
    read = person.page.evaluate("location.hash.split('/')[2]")
    got = len(person.marks(read)[-1]["strokes"][-1]["points"])
    return got, float(times[int(0.95 * (len(times) - 1))]) / 1000.0


def acknowledged(person: Any, strokes: int) -> float:
    """Seconds from the end of a stroke to `saved`, p95."""
    times = []
    for k in range(strokes):
        person.drag([(0.2, 0.2 + 0.02 * k), (0.4, 0.3)])
        begun = time.perf_counter()
        person.saved()
        times.append(time.perf_counter() - begun)
    return sorted(times)[int(0.95 * (len(times) - 1))]


def seconds(person: Any, act: Any, done: Any) -> float:
    """Wall seconds from an act to what it should bring."""
    begun = time.perf_counter()
    act()
    done()
    return time.perf_counter() - begun


def figures(station: Any, person: Any, chosen: Settings) -> dict[str, float]:
    """Every row of `LIMITS`, once.

    Raises:
        Unequal: a point of the pen was lost.
    """
    from tests.support.workstation_page import until

    page = person.page
    found: dict[str, float] = {}
    rows = person.api("/worklist?limit=200")["rows"]
    reads = [row["read"] for row in rows if row["state"] != "submitted"]
    shown = page.locator(".list tbody tr a").first
    page.goto("about:blank")
    found["worklist painted"] = seconds(person, lambda: person.open("worklist"), shown.wait_for)
    person.open(f"read/{reads[-1]}")  # decodes its picture at the server
    person.ready(reads[-1])
    page.goto("about:blank")
    found["first image of a study, decoded before"] = seconds(
        person, lambda: person.open(f"read/{reads[-1]}"), lambda: person.ready(reads[-1])
    )
    person.open(f"read/{reads[0]}")
    person.ready(reads[0])
    person.key("f")
    found["window drag, p95 of a move, fitted"] = drag(person, chosen.moves)
    person.key("g")
    found["window drag, p95 of a move, one to one"] = drag(person, chosen.moves)
    person.key("0", "b")
    got, found["pen to ink, p95 of a point"] = pen(person, chosen.points)
    if got != chosen.points:
        raise Unequal(f"{got} points of {chosen.points} stand in the mark.")
    found["an operation acknowledged, p95"] = acknowledged(person, chosen.strokes)
    found["the machine's own share of a study"], found["first image of a study, fetched ahead"] = whole(person, until)
    return found


def whole(person: Any, until: Any) -> tuple[float, float]:
    """A study by a reader who thinks of nothing: seconds of all of it, and from Enter to the next picture."""
    here = person.page.evaluate("location.hash")
    # the next study is fetched while somebody looks at this one
    until(lambda: person.page.evaluate("performance.getEntriesByType('resource').length") > 10, "fetched")
    begun = time.perf_counter()
    person.drag([(0.2 + 0.01 * k, 0.2 + 0.01 * k) for k in range(15)])
    person.key("Enter")
    submitted = time.perf_counter()
    until(lambda: person.page.evaluate("location.hash") != here, "the next study")
    person.ready(person.page.evaluate("location.hash.split('/')[2]"))
    end = time.perf_counter()
    person.saved()
    return end - begun, end - submitted


def many(cohort: Path, place: Path, chosen: Settings) -> dict[str, float]:
    """Every row of `LOADS`, once, against a server of its own."""
    from benchmarks.workstation_load import load, sign_in
    from tests.support.workstation_page import PASSWORD, running

    names = [f"reader{n}" for n in range(chosen.readers)]
    found: dict[str, float] = {}
    with running(place, dict.fromkeys(names, "reader"), {"mark": {"readers": names}}, cohort) as station:
        cookies = [sign_in(station.address, name, PASSWORD.format(name)) for name in names]
        loads = {n: load(station.address, cookies[:n], chosen.load_s) for n in {n for n, _, _ in LOADS.values()}}
    for name, (n, what, _) in LOADS.items():
        found[name] = loads[n][what]
    return found


def measure(chosen: Settings) -> Result:
    """Measure all of it in a browser of its own."""
    from playwright.sync_api import sync_playwright

    from tests.support.workstation_page import ARGUMENTS, noise_cohort, running, sign_in

    begun = time.perf_counter()
    limits = LIMITS | {name: limit for name, (_, _, limit) in LOADS.items()}
    times: dict[str, list[float]] = {name: [] for name in limits}
    for _ in range(chosen.repeats):
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
            place = Path(folder)
            cohort = noise_cohort(place / "cohort", (chosen.rows, chosen.columns), chosen.studies)
            with running(place, {"ada": "reader"}, {"mark": {"readers": ["ada"]}}, cohort) as station:
                browser = play.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
                try:
                    person = sign_in(browser, station, "ada")
                    for name, value in figures(station, person, chosen).items():
                        times[name].append(value)
                finally:
                    browser.close()
            for name, value in many(cohort, place / "many", chosen).items():
                times[name].append(value)
    rows = tuple(
        Row(name, tuple(values), (limits[name],) * len(values), "s", "ours / theirs", goal=1.0)
        for name, values in times.items()
    )
    took = time.perf_counter() - begun
    return Result(
        "workstation",
        asdict(chosen),
        rows,
        notes=(
            f"Chromium without a GPU, {took:.0f} s in all; 0 points of a stroke and 0 operations of "
            f"{chosen.readers} readers were lost. The other side of each row is the limit.",
        ),
    )
