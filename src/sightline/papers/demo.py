"""The demo: a phantom cohort whose marker lies in training, unguided and guided trainings, a table and a report."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sightline.case import Cohort
from sightline.cohorts import folder
from sightline.cohorts.phantom.cohort import write_radiographs
from sightline.lab.engine import Engine
from sightline.lab.progress import progress
from sightline.lab.run import write_text
from sightline.lab.run_table import run_table
from sightline.lab.table import Row, Table
from sightline.lab.table_report import write_table
from sightline.papers import demo_recipes
from sightline.papers.catalogue import CATALOGUE

STUDIES = 260
SHORTCUT = 0.9


def table() -> Table:
    """The same network, budget, schedule and seeds, unguided and guided."""
    return Table(
        "demo",
        "Phantom wrists: does guidance keep a network off the marker?",
        (
            Row("unguided", demo_recipes.unguided(), group="baseline"),
            Row("guided", demo_recipes.guided(), "unguided", group="mask", weight_label="1"),
        ),
        f"A marker agrees with the label in {SHORTCUT:.0%} of training and validation studies and never stands in a "
        "test image. Both rows share cohort, network, budget, schedule and seeds; guided also pools by softmax.",
    )


def run_demo(out: Path, *, seeds: int = 3, parallel: int = 2, engine: Engine | None = None) -> str:
    """Write the cohort, train every row with every seed, and write table and report; returns what to print."""
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:4.0f} s] {line}", file=sys.stderr, flush=True)

    cohort = _cohort(out / "cohort", say)
    result = run_table(table(), cohort, out, CATALOGUE, seeds=range(seeds), engine=engine, parallel=parallel, say=say)
    say("measuring and drawing")
    text = write_table(result, out)
    minutes = (time.monotonic() - begun) / 60
    write_text(out / "demo.json", json.dumps({"minutes": round(minutes, 2), "seeds": seeds}) + "\n")
    return f"{text}\n\n{minutes:.1f} minutes. Open {out / 'report.html'}"


def _cohort(place: Path, say: Callable[[str], None]) -> Cohort:
    if (place / "cohort.json").is_file():
        return folder.read(place)
    say(f"drawing a phantom cohort of {STUDIES} studies into {place}")
    with progress("draw", STUDIES) as advance:
        return write_radiographs(
            place, studies=STUDIES, shortcut=SHORTCUT, seed=0, workers=2, progress=lambda done, total: advance(1)
        )
