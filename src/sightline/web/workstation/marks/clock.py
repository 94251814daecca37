"""How long a reader worked on a study, from the events of the page.

Active time is the time in which the page was visible and had the focus, and the last input (pointer, wheel or key) was
less than 30 s old; after 30 s without input the clock stops, and the 30 s count. Wall time runs from the picture being
painted to the submission, by the server's clock. Both are kept apart from the events, which stay, so that another rule
can be computed later.

Times of a page come from `performance.now()`, which nobody can set back; it may stand still while a computer sleeps, in
which case nothing is counted, or run on, in which case the rule of 30 s ends the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IDLE_MS = 30_000.0
# active time cannot be longer than wall time; more than this says that a clock was changed
_SLACK_MS = 2_000.0
RULE = (
    "Active: page visible and in focus, last input (pointer, wheel, key) less than 30 s old; the 30 s count. "
    "Wall: from the painted picture to the submission, by the server's clock. Reopening adds."
)


@dataclass(frozen=True)
class ReadTime:
    """Times of one read, in seconds.

    Attributes:
        active_s: of work.
        wall_s: from picture to submission, or None where it was not submitted.
        first_mark_s: active time to the first mark, or None without one.
        marking_s: with the pen down.
        looking_s: the rest of the active time.
        unsure: the clocks contradict each other; left out of means, and counted.
    """

    active_s: float
    wall_s: float | None
    first_mark_s: float | None
    marking_s: float
    looking_s: float
    unsure: bool


@dataclass
class _Page:
    """One page load, followed event by event; times in ms of its own clock."""

    now: float
    visible: bool = True
    focused: bool = True
    last_input: float = 0.0
    pen_since: float | None = None
    active: float = 0.0
    marking: float = 0.0
    first_mark: float | None = None

    def advance(self, to: float) -> None:
        """Count what lies between the last event and this one."""
        if to <= self.now:
            return
        if self.visible and self.focused:
            until = min(to, self.last_input + IDLE_MS)
            self.active += max(0.0, until - self.now)
            if self.pen_since is not None:
                self.marking += max(0.0, until - max(self.now, self.pen_since))
        self.now = to


def read_time(events: Iterable[Mapping[str, Any]], submissions: Sequence[float]) -> ReadTime:
    """Times of a read.

    Args:
        events: rows with client, n, kind, mono_ms, server_ms and body (a mapping), in any order.
        submissions: server_ms of each submit operation, in order.

    Returns:
        The times by the rule above.
    """
    pages: dict[str, list[Mapping[str, Any]]] = {}
    for one in events:
        pages.setdefault(one["client"], []).append(one)
    starts = {client: min(one["server_ms"] for one in ones) for client, ones in pages.items()}
    active = marking = 0.0
    first_mark: float | None = None
    ready: list[float] = []
    for client in sorted(pages, key=lambda c: starts[c]):
        ones = sorted(pages[client], key=lambda one: one["n"])
        page = _follow(ones)
        if first_mark is None and page.first_mark is not None:
            first_mark = active + page.first_mark
        active, marking = active + page.active, marking + page.marking
        ready += [one["server_ms"] for one in ones if one["kind"] == "ready"]
    wall = _measure_wall(sorted(ready), submissions)
    unsure = wall is not None and active > wall + _SLACK_MS
    return ReadTime(
        active_s=active / 1000.0,
        wall_s=None if wall is None else wall / 1000.0,
        first_mark_s=None if first_mark is None else first_mark / 1000.0,
        marking_s=marking / 1000.0,
        looking_s=(active - marking) / 1000.0,
        unsure=unsure,
    )


def _follow(events: Sequence[Mapping[str, Any]]) -> _Page:
    """The state of a page after its events; the clock starts when the picture is painted."""
    first = events[0]
    page = _Page(now=first["mono_ms"], last_input=first["mono_ms"])
    counting = False
    for one in events:
        kind, body, at = one["kind"], one["body"], float(one["mono_ms"])
        last = body.get("last_input_ms")
        if isinstance(last, (int, float)):
            # an input between two events is told by the later one: first count up to it, then from it
            heard = min(float(last), at)
            if heard > page.last_input:
                page.advance(min(heard, page.last_input + IDLE_MS))
                page.now = max(page.now, heard) if heard > page.last_input + IDLE_MS else page.now
                page.last_input = heard
        if kind == "open":
            page.visible, page.focused = bool(body.get("visible", True)), bool(body.get("focused", True))
        if kind == "ready" and not counting:
            # opening a study is an input of its reader; what the machine needed before is not the reader's time
            page.now, page.last_input, counting = max(at, page.now), max(at, page.last_input), True
            page.active = page.marking = 0.0
            continue
        page.advance(at)
        if kind in ("input", "wake", "first_mark", "pen_down", "pen_up"):
            page.last_input = max(page.last_input, at if kind != "input" or last is None else float(last))
        if kind in ("hidden", "shown"):
            page.visible = kind == "shown"
        if kind in ("blur", "focus"):
            page.focused = kind == "focus"
        if kind in ("shown", "focus", "wake"):
            # coming back is an input
            page.last_input = max(page.last_input, at)
        if kind == "first_mark" and page.first_mark is None:
            page.first_mark = page.active
        if kind == "pen_down":
            page.pen_since = at
        if kind in ("pen_up", "hidden", "blur", "close"):
            page.pen_since = None
        if kind in ("submit", "close"):
            page.visible = page.visible and kind != "close"
            if kind == "submit":
                page.focused = False
    if not counting:
        page.active = page.marking = 0.0
        page.first_mark = None
    return page


def _measure_wall(ready: Sequence[float], submissions: Sequence[float]) -> float | None:
    """From the first picture painted to each submission; a reopened read counts from its next picture."""
    if not submissions:
        return None
    total, since = 0.0, 0.0
    for end in submissions:
        opened = [at for at in ready if since <= at <= end]
        if not opened:
            continue
        total, since = total + end - opened[0], end
    return total if since else None
