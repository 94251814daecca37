"""One process that reads many inputs, one after another, under limits, and says what came of each."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.kinds import KINDS, Wrong, make_input

MEMORY = 2 * 2**30
PROCESSOR_S = 10.0
OUTCOMES = ("read", "refused", "wrong", "traceback", "memory", "time", "written outside", "crashed")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")


class TooLong(BaseException):
    """An input took more processor time than it may."""


class Watch:
    """Notes every file that this process opens for writing, makes, moves or removes outside one folder."""

    def __init__(self, allowed: Path) -> None:
        self.allowed = os.path.realpath(allowed) + os.sep
        self.outside: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(given[2], int) and given[2] & _WRITING:
            self._note(given[0])
        elif event in _CHANGING:
            for path in given[: 2 if event in ("os.rename", "os.symlink", "os.link") else 1]:
                self._note(path)

    def _note(self, path: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):
            full = os.path.realpath(os.fsdecode(path))
            if not (full + os.sep).startswith(self.allowed) and not full.startswith("/dev/"):
                self.outside.append(full)


def try_input(name: str, folder: Path, out: Path, watch: Watch | None = None) -> tuple[str, str]:
    """What comes of reading an input: the outcome, and in words why."""
    from sightline.errors import SightlineError

    if watch is not None:
        watch.outside.clear()
        watch.on = True
    try:
        with warnings.catch_warnings(), _processor_limit(PROCESSOR_S):
            warnings.simplefilter("ignore")
            KINDS[name].read(folder, out)
        outcome, why = "read", ""
    except SightlineError as error:
        outcome, why = "refused", type(error).__name__
        if not error.message.strip() or "\n\n" in error.message:
            outcome, why = "wrong", f"a refusal without words: {error.message!r}"
        try:
            str(error).encode()
        except UnicodeEncodeError:
            outcome, why = "wrong", f"a refusal that no terminal can print: {error.message!r}"
    except Wrong as error:
        outcome, why = "wrong", str(error)
    except MemoryError:
        outcome, why = "memory", traceback.format_exc()
    except TooLong:
        outcome, why = "time", traceback.format_exc()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, why = "traceback", traceback.format_exc()
    finally:
        if watch is not None:
            watch.on = False
    if watch is not None and watch.outside:
        outcome, why = "written outside", "; ".join(watch.outside[:5])
    return outcome, why


@contextmanager
def _processor_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def write_input(files: dict[str, bytes], folder: Path) -> None:
    """The files of an input on disk."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def peak_bytes() -> int:
    """The most memory that was resident since it was asked last (Linux)."""
    peak = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            peak = int(line.split()[1]) * 1024
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak


def main() -> None:
    """Read pieces of work (name, start, stop, seed) from stdin, a line each; answer a line an input on stdout."""
    scratch = Path(sys.argv[1])
    os.chdir(scratch)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder, out = scratch / "input", scratch / "out"
    watch = Watch(scratch)
    for line in sys.stdin:
        task = json.loads(line)
        for number in range(task["start"], task["stop"]):
            for place in (folder, out):
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
            files = make_input(task["name"], number, task["seed"])
            write_input(files, folder)
            _say({"begun": number})
            peak_bytes()
            begun = time.process_time()
            outcome, why = try_input(task["name"], folder, out, watch)
            spent, peak = time.process_time() - begun, peak_bytes()
            if peak > MEMORY:
                outcome, why = "memory", f"{peak / 2**20:.0f} MiB"
            _say({"number": number, "outcome": outcome, "why": why, "seconds": spent, "peak": peak})
        _say({"done": True})


def _say(what: dict[str, Any]) -> None:
    sys.__stdout__.write(json.dumps(what) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
