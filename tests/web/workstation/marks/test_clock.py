"""Twelve scripts of a reader: each says how long it worked, the rule must find it within 0.2 s or 1 %."""

import random

import pytest

from sightline.web.workstation.marks.clock import read_time

DAY = 86_400_000.0


class Reader:
    """A page followed second by second, as a browser would send its events."""

    def __init__(self, client="a", start_ms=1000.0, wall_ms=1.0e12):
        self.client, self.mono, self.wall, self.n = client, start_ms, wall_ms, 0
        self.events, self.true, self.last_input, self.last_sent = [], 0.0, None, -1e9
        self.visible = self.focused = True
        self.idle, self.ready = False, False

    def event(self, kind, mono=None, **body):
        self.n += 1
        at = self.mono if mono is None else mono
        if kind in ("hidden", "blur", "idle", "submit", "close", "input") and self.last_input is not None:
            body["last_input_ms"] = self.last_input
        server = self.wall - (self.mono - at)
        self.events.append(
            {"client": self.client, "n": self.n, "kind": kind, "mono_ms": at, "server_ms": server, "body": body}
        )

    def open(self):
        self.event("open", visible=True, focused=True)
        self.pass_time(700)
        self.last_input, self.ready = self.mono, True
        self.event("ready")
        return self

    def pass_time(self, ms):
        """Time in which nothing is pressed; the idle timer fires by itself, late where the computer slept."""
        if self.ready and self.visible and self.focused and not self.idle:
            left = self.last_input + 30_000 - self.mono
            self.true += max(0.0, min(ms, left))
        self.mono, self.wall = self.mono + ms, self.wall + ms
        due = self.last_input is not None and self.mono - self.last_input >= 30_000
        if self.ready and self.visible and self.focused and not self.idle and due:
            self.event("idle", self.last_input + 30_000)
            self.idle = True
        return self

    def press(self):
        if self.idle:
            self.event("wake")
            self.idle = False
        self.last_input = self.mono
        if self.mono - self.last_sent >= 2000:
            self.event("input")
            self.last_sent = self.mono
        return self

    def work(self, ms, every=173):
        """Input after input."""
        end = self.mono + ms
        while self.mono + every < end:
            self.pass_time(every).press()
        self.pass_time(end - self.mono)
        return self.press()

    def leave(self, ms, kind=("hidden", "shown")):
        self.event(kind[0])
        self.visible, self.focused = kind[0] != "hidden", kind[0] != "blur"
        self.pass_time(ms)
        self.visible = self.focused = True
        self.event(kind[1])
        self.last_input, self.idle = self.mono, False
        return self

    def sleep(self, ms, clock_runs):
        """The lid is closed: the wall clock goes on, the page's own may stand still."""
        if clock_runs:
            return self.pass_time(ms)
        self.wall += ms
        return self

    def submit(self):
        self.event("submit")
        return self.wall


def straight(r):
    return r.work(24_100)


def idle_ten_minutes(r):
    return r.work(12_000).pass_time(600_000).press().work(8_000)


def hidden_tab(r):
    return r.work(9_000).leave(300_000).work(5_000)


def other_window(r):
    return r.work(9_000).leave(45_000, ("blur", "focus")).work(5_000)


def lid_with_a_clock_that_stops(r):
    return r.work(20_000).sleep(3_600_000, clock_runs=False).press().work(4_000)


def lid_with_a_clock_that_runs(r):
    return r.work(20_000).sleep(3_600_000, clock_runs=True).press().work(4_000)


def over_midnight(r):
    r.wall = 20_000 * DAY - 6_000
    return r.work(15_000)


def clock_set_back(r):
    r.work(10_000)
    # the computer's clock; the page's own does not care
    return r.work(10_000)


def short_pauses(r):
    for ms in (5_000, 29_000, 31_000, 12_000, 30_000, 61_000):
        r.pass_time(ms).press().work(2_000)
    return r


def looks_and_submits_at_once(r):
    return r.pass_time(900).press()


def looks_for_two_minutes(r):
    return r.pass_time(120_000).press()


def hidden_while_idle(r):
    return r.work(3_000).pass_time(40_000).leave(20_000).work(6_000)


SCRIPTS = [
    straight, idle_ten_minutes, hidden_tab, other_window, lid_with_a_clock_that_stops, lid_with_a_clock_that_runs,
    over_midnight, clock_set_back, short_pauses, looks_and_submits_at_once, looks_for_two_minutes, hidden_while_idle,
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda f: f.__name__)
def test_active_time_is_what_the_reader_worked(script):
    reader = Reader().open()
    script(reader)
    end = reader.submit()
    random.Random(0).shuffle(reader.events)  # batches may come in any order
    found = read_time(reader.events, [end])
    assert found.active_s * 1000 == pytest.approx(reader.true, abs=max(200.0, 0.01 * reader.true))
    assert not found.unsure
    ready = next(e["server_ms"] for e in reader.events if e["kind"] == "ready")
    assert found.wall_s == pytest.approx((end - ready) / 1000.0)
    assert found.looking_s + found.marking_s == pytest.approx(found.active_s)


def test_the_scripts_have_different_true_times():
    """A rule that gave one number for all could not pass."""
    truths = set()
    for script in SCRIPTS:
        reader = Reader().open()
        script(reader)
        truths.add(round(reader.true))
    assert len(truths) >= 10


def test_a_reload_in_the_middle_adds_both_pages():
    first = Reader("a").open().work(10_000)
    second = Reader("b", start_ms=50.0, wall_ms=first.wall + 60_000).open().work(7_000)
    end = second.submit()
    found = read_time(first.events + second.events, [end])
    # the first page never said goodbye: at most the two seconds between inputs are lost
    assert found.active_s * 1000 == pytest.approx(first.true + second.true, abs=2_200.0)
    assert found.wall_s > 60.0


def test_reopening_adds_and_does_not_count_the_night():
    first = Reader("a").open().work(20_000)
    end = first.submit()
    second = Reader("b", wall_ms=end + DAY).open().work(5_000)
    again = second.submit()
    found = read_time(first.events + second.events, [end, again])
    assert found.active_s * 1000 == pytest.approx(first.true + second.true, abs=260.0)
    assert found.wall_s == pytest.approx((20_000 + 5_000) / 1000.0, abs=0.1)


def test_more_active_than_wall_time_is_unsure():
    reader = Reader().open().work(20_000)
    reader.submit()
    ready = next(e["server_ms"] for e in reader.events if e["kind"] == "ready")
    assert read_time(reader.events, [ready + 10_000]).unsure
    assert not read_time(reader.events, [ready + 19_000]).unsure


def test_first_mark_and_marking_time():
    reader = Reader().open().work(4_000)
    reader.event("first_mark")
    reader.event("pen_down")
    reader.pass_time(3_000)
    reader.press()
    reader.event("pen_up")
    reader.work(1_000)
    found = read_time(reader.events, [reader.submit()])
    assert found.first_mark_s == pytest.approx(4.0, abs=0.2)
    assert found.marking_s == pytest.approx(3.0, abs=0.01)
    assert found.looking_s == pytest.approx(5.0, abs=0.2)


def test_nothing_counts_before_the_picture_is_there():
    reader = Reader()
    reader.event("open", visible=True, focused=True)
    reader.pass_time(20_000)
    found = read_time(reader.events, [])
    assert found.active_s == 0.0
    assert found.wall_s is None
