"""Progress of long work: a bar with the time left on a terminal, plain lines in a log; processor time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY_S = 15.0


class Advance(Protocol):
    """Say how many steps were done and, optionally, a short state to show."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...  # noqa: D102


def measure_cpu_seconds() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def show_progress(title: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Advance]:
    """A bar (terminal) or a line every fifteen seconds and at the end (log).

    Args:
        title: what is being done.
        total: number of steps in all.
        done: steps already done, as when a run is resumed.
        quiet: show nothing.
    """
    if quiet:
        yield lambda steps=1, note="": None
    elif sys.stderr.isatty():
        yield from _show_bar(title, total, done)
    else:
        yield from _print_lines(title, total, done)


def _show_bar(title: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.advance(task, steps)
            if note:
                bar.update(task, note=note)

        yield advance


def _print_lines(title: str, total: int, done: int) -> Iterator[Advance]:
    started = last_line = time.monotonic()
    count = done
    shown = ""

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal count, last_line, shown
        count += steps
        shown = note or shown
        now = time.monotonic()
        if now - last_line >= LINE_EVERY_S or count >= total:
            last_line = now
            left_s = (now - started) / max(1, count - done) * max(0, total - count)
            print(f"{title}: {count}/{total}, {left_s:.0f} s left {shown}".rstrip(), file=sys.stderr, flush=True)

    yield advance
