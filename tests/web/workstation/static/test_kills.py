"""SIGKILL of server, browser and both, and a network that comes and goes: nothing kept is lost or doubled."""

import contextlib
import os
import random
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support.workstation_page import (
    ARGUMENTS,
    BROWSER,
    Person,
    listen,
    require_chromium,
    running,
    sign_in,
    until,
)

KEPT = """() => new Promise((resolve) => { const open = indexedDB.open('sightline'); open.onsuccess = () => {
  const all = open.result.transaction('ops').objectStore('ops').getAll();
  all.onsuccess = () => { open.result.close(); resolve(all.result.map((one) => one.id)); }; }; })"""


def processes_of(profile: Path) -> list[int]:
    """Processes of the browser that has this profile."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--user-data-dir={profile}".encode() in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


class Reader:
    """Somebody whose browser can be killed: its profile stays."""

    def __init__(self, play, station, profile: Path, cookies):
        self.play, self.station, self.profile, self.cookies = play, station, profile, cookies
        self.known: set[str] = set()
        self.open()

    def open(self):
        self.context = self.play.chromium.launch_persistent_context(
            str(self.profile),
            executable_path=str(BROWSER),
            args=list(ARGUMENTS),
            viewport={"width": 900, "height": 700},
        )
        self.context.add_cookies(self.cookies)
        page = self.context.pages[0] if self.context.pages else self.context.new_page()
        self.person = Person(self.station, page, listen(page))

    def draw(self, rng):
        x, y = rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.7)
        self.person.drag([(x, y), (x + 0.1, y + 0.05), (x + 0.15, y + 0.2)])

    def remember(self):
        """What lies on the disk of this computer, or at the server, may never be lost; one stroke at least has come."""

        def look():
            self.known |= set(self.person.page.evaluate(KEPT))
            if not self.known and self.station.process is not None:
                self.known |= {op["id"] for op in self.checker.ops(self.read)}
            return self.known

        until(look, "a stroke is kept")

    def kill(self):
        for pid in processes_of(self.profile):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        until(lambda: not processes_of(self.profile), "the browser is dead")
        with contextlib.suppress(Exception):  # there is nothing left to close
            self.context.close()
        for name in ("SingletonLock", "SingletonCookie", "SingletonSocket"):
            (self.profile / name).unlink(missing_ok=True)

    def close(self):
        try:
            self.context.close()
        finally:
            for pid in processes_of(self.profile):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def reader(chromium, tmp_path):
    require_chromium()
    with running(tmp_path, {"ada": "reader"}, {"mark": {"readers": ["ada"]}}) as station:
        ada = sign_in(chromium, station, "ada")
        read = ada.api("/worklist")["rows"][0]["read"]
        cookies = ada.page.context.cookies()
        made = Reader.__new__(Reader)
        # the sync driver of the session's browser serves the second browser too
        made.__init__(play_of(chromium), station, tmp_path / "profile", cookies)
        made.read, made.checker = read, ada
        try:
            yield made
        finally:
            made.close()
            ada.page.context.close()


def play_of(browser):
    """The playwright that a browser belongs to."""

    class Play:
        chromium = browser.browser_type

    return Play


def check(reader):
    """After all that happened: every kept operation is at the server, once, and its file is whole."""
    reader.person.open(f"read/{reader.read}")
    reader.person.ready(reader.read)
    reader.person.saved()
    ids = [op["id"] for op in reader.checker.ops(reader.read)]
    assert len(ids) == len(set(ids)) and reader.known <= set(ids)
    store = next(reader.station.keep.glob("*.db"))
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    return ids


def session(reader, rng, what, times):
    """Draw while things are killed."""
    person = reader.person
    person.open(f"read/{reader.read}")
    person.ready(reader.read)
    for _ in range(times):
        for _ in range(rng.randint(1, 3)):
            reader.draw(rng)
        if what == "network":
            person.page.context.set_offline(True)
            reader.draw(rng)
            reader.draw(rng)
            until(lambda: "kept on this computer" in reader.person.saying(), "kept")
            reader.remember()
            person.page.context.set_offline(False)
            continue
        if what == "server":
            reader.station.stop(kill=True)
            reader.draw(rng)
        reader.remember()
        if what == "both":
            reader.station.stop(kill=True)
        if what in ("browser", "both"):
            reader.kill()
        if what in ("server", "both"):
            reader.station.start()
        if what in ("browser", "both"):
            reader.open()
            person = reader.person
            person.open(f"read/{reader.read}")
            person.ready(reader.read)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("server", marks=pytest.mark.slow),
        "browser",
        pytest.param("both", marks=pytest.mark.slow),
        pytest.param("network", marks=pytest.mark.slow),
    ],
)
def test_one_kill_loses_nothing(reader, what):
    rng = random.Random(1)
    session(reader, rng, what, 1)
    assert len(check(reader)) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("what", "times"), [("server", 50), ("browser", 50), ("both", 20), ("network", 20)])
def test_many_kills_lose_nothing(reader, what, times):
    rng = random.Random(times)
    session(reader, rng, what, times)
    assert len(check(reader)) >= times
