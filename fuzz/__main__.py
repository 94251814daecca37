"""`python -m fuzz [--inputs N] [--seed S] [--workers W]`: spoilt inputs against every reader; see docs/fuzz.md."""

from __future__ import annotations

import json
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import tyro

from fuzz.kinds import KINDS, make_input
from fuzz.worker import OUTCOMES, write_input

GOOD = ("read", "refused")
CHUNK = 500
SILENCE_S = 180.0  # a worker that says nothing for so long hangs outside of Python
PACKAGES = ("pydicom", "pylibjpeg", "pillow", "nibabel", "numpy", "safetensors", "python-multipart")


@dataclass(frozen=True)
class Fuzz:
    """Read spoilt inputs of every kind; each must be refused clearly or read rightly."""

    inputs: int = 100_000
    """Inputs in all, dealt over the kinds."""
    seed: int = 0
    """The same seed gives the same inputs."""
    workers: int = 2
    """Processes that read."""
    kinds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KIND")] = ()
    """Only these; all when none is named."""
    failures: Path = Path("fuzz_failures")
    """Folder that inputs which went wrong are kept in."""

    def run(self) -> int:
        """Run; 1 where anything went wrong."""
        names = self.kinds or tuple(KINDS)
        if strange := sorted(set(names) - set(KINDS)):
            print(f"no kind {strange[0]!r}; the kinds are {', '.join(KINDS)}", file=sys.stderr)
            return 2
        begun = time.monotonic()
        tallies = run_all(deal(names, self.inputs, self.seed), self.workers, self.failures)
        print(table(tallies))
        bad = sum(n for tally in tallies.values() for word, n in tally.outcomes.items() if word not in GOOD)
        total = sum(tally.outcomes.total() for tally in tallies.values())
        print(
            f"\n{total:,} inputs, seed {self.seed}, {time.monotonic() - begun:.0f} s, {self.workers} workers; "
            + versions()
        )
        print(f"{bad} went wrong" + (f"; see {self.failures}" if bad else ""))
        return 1 if bad else 0


@dataclass
class Tally:
    """What came of the inputs of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_s: float = 0.0
    peak_mib: float = 0.0


def deal(names: tuple[str, ...], inputs: int, seed: int) -> list[dict[str, Any]]:
    """The work in pieces; every kind has its share of the inputs."""
    whole = sum(KINDS[name].share for name in names)
    pieces = []
    for name in names:
        n = round(inputs * KINDS[name].share / whole)
        pieces += [
            {"name": name, "start": start, "stop": min(n, start + CHUNK), "seed": seed} for start in range(0, n, CHUNK)
        ]
    return pieces


def run_all(pieces: list[dict[str, Any]], workers: int, failures: Path) -> dict[str, Tally]:
    """Every piece by one of some workers."""
    tallies = {piece["name"]: Tally() for piece in pieces}
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for piece in pieces:
        tasks.put(piece)
    threads = [threading.Thread(target=_serve, args=(tasks, tallies, failures)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tallies


def _serve(tasks: queue.SimpleQueue[dict[str, Any]], tallies: dict[str, Tally], failures: Path) -> None:
    worker: Worker | None = None
    try:
        while not tasks.empty():
            try:
                piece = tasks.get_nowait()
            except queue.Empty:
                break
            tally = tallies[piece["name"]]
            while piece["start"] < piece["stop"]:
                worker = worker or Worker()
                ended = worker.work(piece, tally, failures)
                if ended is None:
                    break
                # killed, or silent for too long, in the middle of one input: the next worker goes on behind it
                words = worker.last_words()
                worker.close()
                worker = None
                _keep(piece, ended, "crashed", f"the process ended or hung: {words}", tally, failures)
                piece = piece | {"start": ended + 1}
    finally:
        if worker is not None:
            worker.close()


def _keep(piece: Mapping[str, Any], number: int, outcome: str, why: str, tally: Tally, failures: Path) -> None:
    tally.outcomes[outcome] += 1
    if tally.outcomes[outcome] <= 40:
        folder = failures / f"{piece['name'].replace(' ', '_')}_{piece['seed']}_{number}"
        write_input(make_input(piece["name"], number, piece["seed"]), folder / "input")
        (folder / "why.txt").write_text(f"{outcome}\n{why}\n", encoding="utf-8", errors="backslashreplace")
        print(f"{outcome}: {folder}: {(why.strip().splitlines() or [''])[-1][:160]}", file=sys.stderr, flush=True)


class Worker:
    """A process that reads inputs, with a folder of its own."""

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *(p for p in sys.path if p)])
        environment = os.environ | {"TMPDIR": self._scratch.name, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", self._scratch.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment, text=True,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def work(self, piece: Mapping[str, Any], tally: Tally, failures: Path) -> int | None:
        """Read a piece; the input at which the process ended, or None where it came to the end."""
        assert self._process.stdin is not None
        current = int(piece["start"])
        try:
            self._process.stdin.write(json.dumps(piece) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return current
        while True:
            try:
                line = self._lines.get(timeout=SILENCE_S)
            except queue.Empty:
                return current
            if not line:
                return current
            said = json.loads(line)
            if "done" in said:
                return None
            if "begun" in said:
                current = said["begun"]
                continue
            tally.seconds += said["seconds"]
            tally.slowest_s = max(tally.slowest_s, said["seconds"])
            tally.peak_mib = max(tally.peak_mib, said["peak"] / 2**20)
            if said["outcome"] in GOOD:
                tally.outcomes[said["outcome"]] += 1
            else:
                _keep(piece, said["number"], said["outcome"], said["why"], tally, failures)

    def last_words(self) -> str:
        """How the process ended, and the end of what it wrote to stderr."""
        self._process.poll()
        self._said.seek(max(0, self._said.seek(0, 2) - 2000))
        return f"exit {self._process.returncode}\n{self._said.read().decode(errors='replace')}"

    def close(self) -> None:
        """End the process and remove its folder."""
        self._process.kill()
        self._process.wait()
        self._said.close()
        self._scratch.cleanup()


def table(tallies: Mapping[str, Tally]) -> str:
    """Counts by kind and outcome, as Markdown."""
    columns = [word for word in OUTCOMES if word in GOOD or any(t.outcomes[word] for t in tallies.values())]
    lines = [f"| input | inputs | {' | '.join(columns)} | ms each | slowest, s | peak memory |"]
    lines.append("|---" * (len(columns) + 5) + "|")
    for name, tally in tallies.items():
        n = tally.outcomes.total()
        counts = " | ".join(f"{tally.outcomes[word]:,}" for word in columns)
        times = f"{1000 * tally.seconds / max(1, n):.1f} | {tally.slowest_s:.2f} | {tally.peak_mib:.0f} MiB"
        lines.append(f"| {name} | {n:,} | {counts} | {times} |")
    return "\n".join(lines)


def versions() -> str:
    """What the counts depend on besides the code."""
    named = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, {named}"


if __name__ == "__main__":
    sys.exit(tyro.cli(Fuzz, prog="python -m fuzz").run())
