"""The demo: a phantom cohort whose marker lies in training, unguided and guided trainings, a table and a report."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.data.views.image_view import View
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.io.files import write_text
from sightline.io.progress import progress
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import MeanPool
from sightline.papers import liao2022
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Cohort
from sightline.training.engine import Engine
from sightline.training.optimization import AdamW, CosineDecay
from sightline.training.recipe import Recipe

STUDIES = 260
SHORTCUT = 0.9


def table() -> Table:
    """The same network, budget, schedule and seeds, unguided and guided."""
    return Table(
        "demo",
        "Phantom wrists: does guidance keep a network off the marker?",
        (
            Row("unguided", unguided(), group="baseline"),
            Row("guided", guided(), "unguided", group="mask", weight_label="1"),
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
        return read_cohort(place)
    say(f"drawing a phantom cohort of {STUDIES} studies into {place}")
    with progress("draw", STUDIES) as advance:
        return write_radiographs(
            place, studies=STUDIES, shortcut=SHORTCUT, seed=0, workers=2, progress=lambda done, total: advance(1)
        )


def unguided() -> Recipe:
    """A ResNet of 0.4 million weights, from random ones, at 192 px with output stride 16, mean pooling."""
    return Recipe(
        title="unguided",
        model=ClassMapModel(backbone=Backbone(name="test_resnet", output_stride=16), pool=MeanPool()),
        view=View(size=192, crop_area=(0.8, 1.0), rotation_deg=15.0, contrast=0.2, brightness=0.1),
        optimiser=AdamW(weight_decay=1e-2),
        schedule=CosineDecay(3e-3),
        epochs=12,
        batch_size=16,
    )


def guided(weight: float = 1.0) -> Recipe:
    """The same with softmax pooling, guided by the bone's mask."""
    return replace(liao2022.guided(unguided(), weight, "mask"), title=f"guided {weight:g}")
