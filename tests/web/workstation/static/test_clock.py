"""The clock's events as the page makes them, by a clock that the test turns: what the server counts from them."""

import pytest

from tests.support.workstation_page import PATIENCE, until

SCRIPTS = {
    # seconds: work, then what happens, then work again; and what should be counted as active
    "work": ([("work", 20)], 20),
    "idle ten minutes": ([("work", 10), ("still", 600), ("work", 10)], 10 + 30 + 10),
    "hidden": ([("work", 10), ("hide", 0), ("still", 120), ("show", 0), ("work", 10)], 20),
    "another window": ([("work", 10), ("blur", 0), ("still", 60), ("focus", 0), ("work", 5)], 15),
    "hidden while idle": ([("work", 5), ("still", 100), ("hide", 0), ("still", 50), ("show", 0), ("work", 5)], 40),
    "short pauses": ([("work", 5), ("still", 25), ("work", 5), ("still", 29), ("work", 5)], 69),
}


# what each of the others does is part of these, and is counted by the server's own tests
QUICK = ("work", "short pauses", "hidden while idle")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SCRIPTS]
)
def test_active_time_is_that_of_the_script(enter, name):
    script, wanted = SCRIPTS[name]
    ada = enter("ada")
    number = list(SCRIPTS).index(name)
    rows = ada.api("/worklist?limit=200")["rows"]
    read = rows[number % len(rows)]["read"]
    page = ada.page
    sent = []

    def answer(route):
        sent.extend(route.request.post_data_json["events"])
        route.fulfill(json={"saved": 1, "highest": 1})

    page.route("**/api/v1/reads/*/events", answer)
    page.clock.install(time=1_800_000_000)
    ada.open(f"read/{read}")
    ada.ready(read)
    page.clock.pause_at(1_800_000_600)
    base = page.evaluate("performance.now()")
    ada.page.mouse.move(*ada.at(0.5, 0.5))
    for what, seconds in script:
        if what == "work":
            for k in range(seconds):
                ada.page.mouse.move(*ada.at(0.3 + 0.3 * (k % 2), 0.5))
                page.clock.run_for(1000)
            ada.page.mouse.move(*ada.at(0.52, 0.5))
        elif what == "still":
            page.clock.run_for(seconds * 1000)
        elif what in ("hide", "show"):
            page.evaluate(
                """(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
                document.dispatchEvent(new Event('visibilitychange')); }""",
                what == "hide",
            )
        else:
            page.evaluate("(name) => window.dispatchEvent(new Event(name))", what)
    end = page.evaluate("performance.now()")
    # events go in the order they were made: the pause that begins behind the script closes it
    page.clock.run_for(31_000)

    def closed():
        page.clock.run_for(5000)
        return any(event["kind"] == "idle" and event["mono_ms"] >= end for event in sent)

    until(closed, "events are sent")
    assert active_of(sent, base, end) == pytest.approx(wanted, abs=max(0.2, 0.01 * wanted))
    numbers = [event["n"] for event in sent]
    assert len(set(numbers)) == max(numbers)


def test_a_study_that_is_left_before_its_picture_came_is_closed_and_not_answered(enter, station):
    ben = enter("ben")
    read = ben.api(f"/worklist?task={station.tasks['mark']}")["rows"][2]["read"]
    sent, held = [], []

    def hear(route):
        sent.extend(event["kind"] for event in route.request.post_data_json["events"])
        route.continue_()

    ben.page.route(f"**/api/v1/reads/{read}/events", hear)
    ben.page.route("**/pixels*", lambda route: held.append(route))
    ben.open(f"read/{read}")
    ben.page.locator(".panel").wait_for(timeout=PATIENCE * 1000)
    ben.key("y", "Enter")
    until(lambda: "picture" in ben.toast(), "why it is not submitted")
    ben.show("worklist")
    until(lambda: ben.page.evaluate("1") and "close" in sent, "its clock stands")
    ben.open(f"read/{read}")
    ben.page.locator(".panel").wait_for(timeout=PATIENCE * 1000)
    for route in held:
        route.continue_()
    ben.page.unroute("**/pixels*")
    ben.ready(read)
    # no other window has it
    assert ben.page.locator(".banner").is_hidden()
    ben.saved()
    assert [op["kind"] for op in ben.ops(read)] == ["nothing"]
    ben.key("Enter")
    until(lambda: ben.api(f"/reads/{read}")["state"] == "submitted", "submitted")


def active_of(events, base, end):
    """The rule said again, slowly: every tenth of a second is looked at for itself."""
    inputs = sorted(
        {event["body"]["last_input_ms"] for event in events if "last_input_ms" in event.get("body", {})}
        | {event["mono_ms"] for event in events if event["kind"] in ("input", "wake")}
    )
    visible = focused = True
    changes = sorted((e["mono_ms"], e["kind"]) for e in events if e["kind"] in ("hidden", "shown", "blur", "focus"))
    total, step, now = 0.0, 50.0, base
    while now < end:
        while changes and changes[0][0] <= now:
            kind = changes.pop(0)[1]
            visible = kind == "shown" if kind in ("hidden", "shown") else visible
            focused = kind == "focus" if kind in ("blur", "focus") else focused
        last = max((t for t in inputs if t <= now), default=-1e12)
        total += step if visible and focused and now - last < 30_000.0 else 0.0
        now += step
    return total / 1000.0
