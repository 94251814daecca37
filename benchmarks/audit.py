"""Time and memory of `sightline cohort check` on small pictures drawn here: alike by chance only, or all identical.

One process a cohort; the peak is the largest sum of the resident memory of the command and of its readers, looked at
four times a second (pages that they share count in each, so it is an upper bound).
"""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
SIZES = (100, 1_000, 10_000, 100_000)
HEAD = """| pictures | of them identical | seconds | processor seconds | peak memory, all processes | pairs found |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Check:
    """One cohort, checked."""

    pictures: int
    identical: int
    seconds: float
    processor_s: float
    peak_mib: float
    pairs: int

    def __str__(self) -> str:
        """A row of the table."""
        numbers = f"{self.seconds:.1f} | {self.processor_s:.1f} | {self.peak_mib:,.0f} MiB | {self.pairs:,}"
        return f"| {self.pictures:,} | {self.identical:,} | {numbers} |"


def measure(largest: int = SIZES[-1], seed: int = 0) -> Iterator[Check]:
    """Check cohorts of each size up to `largest`: once with 1% of copies, up to 10,000 also with copies alone."""
    for n in SIZES:
        for identical in (n // 100, n):
            if n <= largest and (identical < n or n <= 10_000):
                with tempfile.TemporaryDirectory() as folder:
                    draw_cohort(Path(folder), n, identical, seed)
                    yield check(Path(folder), n, identical)


def draw_cohort(folder: Path, n: int, identical: int, seed: int) -> None:
    """A cohort in our layout: smooth random shades, the last `identical` of them copies of one picture."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir()
    shown = None
    with (
        (folder / "images.csv").open("w", newline="") as images,
        (folder / "studies.csv").open("w", newline="") as rows,
    ):
        image_rows, study_rows = csv.writer(images), csv.writer(rows)
        image_rows.writerow(["image_id", "study_id", "view", "path"])
        study_rows.writerow(["study_id", "patient_id", "label", "split"])
        for i in range(n):
            path = folder / "images" / f"{i}.png"
            if shown is None or i < n - identical + 1:
                shown = path
                shades = Image.fromarray(random.integers(0, 256, (10, 10)).astype(np.uint8))
                shades.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, compress_level=1)
            else:
                shutil.copyfile(shown, path)
            image_rows.writerow([f"i{i}", f"s{i}", "", f"images/{i}.png"])
            study_rows.writerow(
                [f"s{i}", f"p{i // 2}", ("a", "b")[i // 2 % 2], ("train", "train", "val", "test")[i // 2 % 4]]
            )
    head = {"layout": "sightline folder", "version": 1, "name": "drawn", "classes": ["a", "b"], "about": {}}
    (folder / "cohort.json").write_text(json.dumps(head))


def check(folder: Path, n: int, identical: int) -> Check:
    """Run the command and watch its processes."""
    begun, used = time.perf_counter(), _processor_s()
    command = [sys.executable, "-c", "from sightline.cli.main import main; main()", "cohort", "check", str(folder)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL, env=os.environ)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(resident_mib(pid) for pid in tree(process.pid)))
            time.sleep(0.25)
        seconds = time.perf_counter() - begun
        said.seek(0)
        lines = said.read().splitlines()
    if process.returncode not in (0, 1):
        raise RuntimeError(f"cohort check ended with {process.returncode}")
    pairs = sum(int(line.split(": ")[2].split()[0]) for line in lines if "pairs of near-identical" in line)
    return Check(n, identical, seconds, _processor_s() - used, peak, pairs)


def _processor_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in tree(int(child)))]


def resident_mib(pid: int) -> float:
    """Resident memory of a process; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0
