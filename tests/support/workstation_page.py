"""A real workstation in a process of its own, and Debian's chromium before it."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from argon2 import PasswordHasher
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.web.workstation.accounts import passwords
from sightline.web.workstation.accounts.readers import add_reader, start_session
from sightline.web.workstation.reading.plans import Plan, deal
from sightline.web.workstation.reading.tasks import add_task, build_spec
from sightline.web.workstation.service import Workstation, WorkstationOptions
from tests.support.workstation import small_cohort

CHROMIUM = Path("/usr/bin/chromium")
# the same engine without a window, which opens a page in half the time
SHELL = Path("/usr/bin/chromium-headless-shell")
BROWSER = SHELL if SHELL.exists() else CHROMIUM
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
    "--disable-component-update", "--no-first-run", "--mute-audio",
)  # fmt: skip
PASSWORD = "four words of nonsense {}"
# a limit of a test in seconds: shared machines are slow, states are waited for, never times
PATIENCE = 60.0


def require_chromium(browser: Path = BROWSER) -> None:
    """Skip where there is no chromium; where the continuous integration runs, its absence is a failure."""
    if not browser.exists():
        if os.environ.get("CI"):
            pytest.fail("chromium is absent: .ci/run installs it")
        pytest.skip("Debian's chromium is not installed")


def until(check, what: str, patience: float = PATIENCE):
    """Ask until the answer is true, and give it back."""
    end = time.monotonic() + patience
    answer = None
    while time.monotonic() < end:
        answer = check()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{what}: still {answer!r} after {patience:g} s")


@dataclass
class Station:
    """A workstation that runs.

    Attributes:
        cohort: folder of the cohort.
        keep: folder of its store.
        address: where it answers.
        process: the server.
        ids: of accounts, by name.
        tasks: ids of tasks, by name.
    """

    cohort: Path
    keep: Path
    more: tuple[str, ...] = ()
    address: str = ""
    port: int = 0
    process: subprocess.Popen | None = None
    ids: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    signed: dict[str, dict] = field(default_factory=dict)

    def prepare(self, people: dict[str, str], tasks: dict[str, dict]) -> None:
        """Accounts by name and role, signed in, and tasks by name: readers dealt to, and what is asked."""
        desk = Workstation(read_cohort(self.cohort), WorkstationOptions(self.keep))
        # half a second a hash is for people, at the server's own door; see test_people.py
        quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        try:
            with mock.patch.object(passwords, "_HASHER", quick), desk.database.writing() as connection:
                for name, role in people.items():
                    word = PASSWORD.format(name)
                    self.ids[name] = add_reader(
                        connection, name, display=name.title(), role=role, password=word, who="test"
                    )
                    token = start_session(connection, self.ids[name], address="127.0.0.1", agent="test")
                    cookie = {"name": "sightline", "value": token, "domain": "127.0.0.1", "path": "/", "expires": -1}
                    cookie |= {"httpOnly": True, "secure": False, "sameSite": "Strict"}
                    self.signed[name] = {"cookies": [cookie], "origins": []}
                for name, given in tasks.items():
                    stated = dict(given)
                    readers, order = stated.pop("readers"), stated.pop("order", "given")
                    made = add_task(connection, name, "mark", build_spec(stated, desk.cohort.classes), who="test")
                    self.tasks[name] = made
                    deal(connection, made, Plan([self.ids[r] for r in readers], 1, order, 0, 0), who="test")
        finally:
            desk.close()

    def start(self) -> str:
        """Start the server; on the same port again after a kill."""
        command = [sys.executable, "-m", "sightline.web.workstation", str(self.cohort), "--keep", str(self.keep)]
        command += ["--port", str(self.port), "--quiet", *self.more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        if not line:
            raise AssertionError(f"the workstation did not start: {' '.join(command)}")
        self.address = line.split("/?")[0].rstrip("/")
        self.port = int(self.address.rsplit(":", 1)[1])
        until(self.answers, "the workstation answers")
        return line

    def answers(self) -> bool:
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self, *, kill: bool = False) -> None:
        """End the server."""
        if self.process is None:
            return
        self.process.kill() if kill else self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(15)
        self.process.stdout.close()
        self.process = None


@contextlib.contextmanager
def running(place: Path, people: dict[str, str], tasks: dict[str, dict], cohort: Path | None = None, more=()):
    """A workstation on a small cohort, or the one given, ended whatever happens."""
    require_chromium()
    if cohort is None:
        cohort = place / "cohort"
        write_cohort(small_cohort(cohort, size=(240, 200)), cohort)
    station = Station(cohort, place / "keep", tuple(more))
    if people:
        station.prepare(people, tasks)
    try:
        station.start()
        yield station
    finally:
        station.stop()


@dataclass
class Person:
    """Somebody before the page.

    Attributes:
        station: the workstation.
        page: of playwright.
        heard: console errors, page errors and CSP reports so far.
        expected: words of those that a test makes happen itself; the browser may report them at any time.
    """

    station: Station
    page: object
    heard: list[str]
    expected: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What was heard and not expected."""
        return [fault for fault in self.heard if not any(word in fault for word in self.expected)]

    def api(self, path: str, method: str = "GET", body=None):
        """Ask the server as this person: with their cookies, yet past the browser, whose answers may be gone unread."""
        cookies = "; ".join(f"{one['name']}={one['value']}" for one in self.page.context.cookies(self.station.address))
        headers = {"X-Sightline": "1", "Origin": self.station.address, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(
            f"{self.station.address}/api/v1{path}", data, {**headers, "Cookie": cookies}, method=method
        )
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                said, kind = answer.read(), answer.headers.get("Content-Type", "")
        except urllib.error.HTTPError as error:
            raise AssertionError((method, path, error.code, error.read()[:500])) from error
        return json.loads(said) if said and "json" in kind else None

    def open(self, path: str) -> None:
        """Go to a screen of the page."""
        self.page.goto(f"{self.station.address}/#/{path}")

    def open_read(self, number: int = 0, task: str = "") -> dict:
        """Open a read of the queue and wait until its picture stands there."""
        query = f"?task={self.station.tasks[task]}&limit=200" if task else "?limit=200"
        row = self.api(f"/worklist{query}")["rows"][number]
        self.open(f"read/{row['read']}")
        self.ready(row["read"])
        return row

    def ready(self, read: str | None = None) -> None:
        """Wait until a study stands there with all its views, keys and focus.

        Name it where another study was open: that one stays until it is let go.
        """
        which = f'[data-read="{read}"]' if read else ""
        self.page.locator(f'.screen.read[data-ready="yes"][data-settled="yes"]{which}').wait_for(
            timeout=PATIENCE * 1000
        )

    def show(self, screen: str) -> None:
        """Open a screen and wait until all that comes by itself has come."""
        self.open(screen)
        self.page.locator(f'.screen.{screen}[data-settled="yes"]').wait_for(timeout=PATIENCE * 1000)

    def saved(self) -> None:
        """Wait until the page says that all is saved."""
        until(lambda: self.page.evaluate("document.documentElement.dataset.saving") == "saved", "saved")

    def saying(self) -> str:
        """What the page says of saving."""
        return self.page.locator(".head .saving").inner_text()

    def ops(self, read: str) -> list[dict]:
        """What the server holds of a read."""
        return self.api(f"/reads/{read}/ops?after=0")["ops"]

    def marks(self, read: str) -> list[dict]:
        """Marks of a read as the server folds them."""
        return self.api(f"/reads/{read}")["state_of_marks"]["marks"]

    def view(self, number: int = 0) -> dict:
        """Where a view stands on the screen."""
        return self.page.locator(".view").nth(number).bounding_box()

    def at(self, x: float, y: float, number: int = 0) -> tuple[float, float]:
        """A place in a view by its share of width and height."""
        box = self.view(number)
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, places, number: int = 0, **more) -> None:
        """Draw with the mouse through places of a view."""
        mouse = self.page.mouse
        mouse.move(*self.at(*places[0], number))
        mouse.down(**more)
        for place in places[1:]:
            mouse.move(*self.at(*place, number), steps=4)
        mouse.up(**more)

    def key(self, *chords: str) -> None:
        """Press keys."""
        for chord in chords:
            self.page.keyboard.press(chord)

    def toast(self) -> str:
        """The word that the page just said."""
        return self.page.locator(".toast").inner_text()


def sign_in(browser, station: Station, name: str, **context) -> Person:
    """A person signed in, in a browser context of their own."""
    held = station.signed.get(name)
    # colours that are on their way between two themes are no colours of the page
    look = {"viewport": {"width": 1366, "height": 768}, "locale": "en-US", "reduced_motion": "reduce", **context}
    made = browser.new_context(storage_state=held, **look)
    page = made.new_page()
    faults = listen(page)
    if held is None:
        answer = page.request.post(
            f"{station.address}/api/v1/session", headers={"X-Sightline": "1", "Origin": station.address},
            data={"name": name, "password": PASSWORD.format(name)},
        )  # fmt: skip
        assert answer.ok, answer.text()
        station.signed[name] = made.storage_state()
    return Person(station, page, faults)


def listen(page) -> list[str]:
    """Everything that a console would show as a fault."""
    faults: list[str] = []

    def hear(said):
        # that a canvas is read often is the tests' own doing
        if said.type in ("error", "warning") and "willReadFrequently" not in said.text:
            faults.append(said.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: faults.append(str(error)))
    return faults


def noise_cohort(place: Path, size: tuple[int, int], studies: int = 2) -> Path:
    """Studies of one 16-bit picture."""
    from sightline.structures.case import Case, Cohort

    rng = np.random.default_rng(3)
    (place / "images").mkdir(parents=True)
    cases = []
    for s in range(studies):
        path = place / "images" / f"S{s}.png"
        Image.fromarray(rng.integers(0, 65536, size, dtype=np.uint16)).save(path)
        cases.append(Case(f"S{s}", f"S{s}", f"P{s}", path, ("a", "b")[s % 2], (), None, "PA", size))
    write_cohort(Cohort("noise", ("a", "b"), tuple(cases), place), place)
    return place


def new_id() -> str:
    """A uuid as the page makes it."""
    return str(uuid.uuid4())
