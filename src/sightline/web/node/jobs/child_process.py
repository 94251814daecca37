"""A child process as its parent sees it: started, asked, waited for within bounds, and ended."""

from __future__ import annotations

import json
import select as io_select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sightline.errors import SightlineError
from sightline.web.node.jobs.child import START_CPU_S

# a child that has nothing to do gives its memory back
IDLE_S = 300.0
# wall-clock seconds for each second of processor time: a busy machine is no reason to kill a job
PATIENCE = 10.0


class ChildDied(SightlineError):
    """A child process ended, or had to be ended, before it answered."""


class ChildNotReady(ChildDied):
    """A child process ended, or had to be ended, before it had opened its runs: no job had a part in it."""


class Child:
    """One child process, started when it is first needed.

    Args:
        command: what starts it; memory and processor seconds are added.
        memory: bytes of address space.
        cpu_s: processor seconds a job.
        runs: folder, codes.yaml or None, and engine of each run that it opens at its start.
    """

    def __init__(
        self, command: Sequence[str], memory: int, cpu_s: float, runs: Sequence[tuple[str, str | None, str]] = ()
    ) -> None:
        self.command, self.memory, self.cpu_s, self.runs = tuple(command), memory, cpu_s, tuple(runs)
        self.used = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._ready = False
        self.trouble = ""

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The child's answer.

        Raises:
            ChildNotReady: it was not ready for any job.
            ChildDied: saying by which signal or bound.
        """
        process = self._start_if_needed()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._build_death("before the job") from None
        self.used = time.monotonic()
        return self._read_line(PATIENCE * self.cpu_s, "at the job")

    def wake(self) -> None:
        """Start the process where none runs, and do not wait for it: a study that settles now will need it."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            command = [*self.command, str(self.memory), str(self.cpu_s), json.dumps(self.runs)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self.used, self._ready = time.monotonic(), False

    def look(self) -> str | None:
        """What keeps a process that was woken from judging: None while it starts, an empty text once it can judge.

        Raises:
            ChildNotReady: it ended before it could.
        """
        process = self._process
        if process is None or process.stdout is None:
            return None
        if not self._ready:
            if not io_select.select([process.stdout], [], [], 0.0)[0]:
                return None
            self._begin()
        return self.trouble

    def _begin(self) -> None:
        """Read what a process says once it has opened its runs; its own bound is processor time (`child.py`)."""
        try:
            greeting = self._read_line(PATIENCE * START_CPU_S, "at its start")
        except ChildDied as error:
            raise ChildNotReady(error.message, error.remedy) from None
        self.trouble = str(greeting.get("trouble", ""))
        self._ready = True

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def stop_if_idle(self) -> None:
        """End a process that had nothing to do for long."""
        if self._process is not None and time.monotonic() - self.used > IDLE_S:
            self.stop()

    def _start_if_needed(self) -> subprocess.Popen[str]:
        self.wake()
        if not self._ready:
            self._begin()
        assert self._process is not None
        return self._process

    def _read_line(self, patience_s: float, when: str) -> Mapping[str, Any]:
        process = self._process
        assert process is not None and process.stdout is not None
        ready, _, _ = io_select.select([process.stdout], [], [], patience_s)
        if not ready:
            self.stop()
            raise ChildDied(f"The child process gave no answer {when} in {patience_s:.0f} s and was ended.", "")
        line = process.stdout.readline()
        try:
            answer: Mapping[str, Any] = json.loads(line)
            return answer
        except ValueError:
            raise self._build_death(when) from None

    def _build_death(self, when: str) -> ChildDied:
        process = self._process
        code = process.wait() if process is not None else 0
        self.stop()
        name = signal.Signals(-code).name if code < 0 else f"status {code}"
        why = {"SIGXCPU": ", its processor time", "SIGKILL": ", memory or a person"}.get(name, "")
        return ChildDied(f"The child process ended {when} ({name}{why}).", "")
