"""Long work: a bar with the time left on a terminal, plain lines in a log; processor time; processes that share it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import Any, Protocol

from sightline.errors import RunError, count_noun

LINE_EVERY_S = 15.0
# processes a core: more only wait for each other, each with the whole software in memory
MOST_PER_CORE = 4
# so many are allowed on any machine
ALWAYS_ALLOWED = 16


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


def count_allowed_processes() -> int:
    """How many processes a person may ask for on this machine."""
    return max(ALWAYS_ALLOWED, MOST_PER_CORE * (os.cpu_count() or 1))


def require_processes(name: str, number: int, least: int = 0) -> None:
    """Refuse a number of processes that this machine cannot bear, before the first of them starts.

    Args:
        name: of the option: `workers`, `parallel`, `devices`.
        number: that was asked for.
        least: that makes sense.

    Raises:
        RunError: no whole number, below `least`, or above four a core (sixteen on small machines).
    """
    if isinstance(number, bool) or not isinstance(number, int):
        raise RunError(f"{name} is {number!r}; expected a whole number.", f"Give for example {name}={max(least, 1)}.")
    cores, most = os.cpu_count() or 1, count_allowed_processes()
    if not least <= number <= most:
        raise RunError(
            f"{name} must be {least} or more, and at most {most} on a machine of {count_noun(cores, 'core')}; got "
            f"{number}.",
            f"Each is a process of its own; one a core is usually best: --{name} {cores}.",
        )


@contextmanager
def open_process_pool(
    workers: int, start: str = "spawn", initialise: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that Ctrl-C ends at once and without a word: this process alone hears it, and says so.

    A terminal sends Ctrl-C to every process of a command. Each of a plain pool prints a traceback of its own, and the
    command waits until what they have begun is done, which for a training is hours. A process whose command was killed
    would wait for its next job for ever; here it ends with it.

    Args:
        workers: number of processes.
        start: how they start: `spawn` (a fresh interpreter), `fork`, or `forkserver`.
        initialise: called in each process first.
        arguments: of that call.

    Raises:
        RunError: more processes than this machine can bear, or one was ended from outside.
    """
    require_processes("workers", workers, 1)
    before = set(active_children())
    pool = _ShieldedPool(workers, get_context(start), _begin_worker, (initialise, arguments))
    try:
        yield pool
    except BaseException as error:
        for process in set(active_children()) - before:
            process.terminate()
        pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise RunError(
                "A process of this command was ended from outside, most likely for want of memory.",
                "Give the same command again with fewer processes, or on a machine with more memory.",
            ) from None
        raise
    pool.shutdown()


def _begin_worker(initialise: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    """First act of a process of a pool: end when the process that started it does."""
    Thread(target=_end_with_parent, daemon=True).start()
    if initialise is not None:
        initialise(*arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _ShieldedPool(ProcessPoolExecutor):
    """Processes start while a job is handed in; they inherit that Ctrl-C is held back."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand in a job."""
        with hold_back_interrupt():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def hold_back_interrupt() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that start within it never hear it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
