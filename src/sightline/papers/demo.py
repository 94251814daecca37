"""The demo: a phantom cohort whose marker lies in training, unguided and guided trainings, a table and a report."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from sightline.data.phantoms.radiographs.cohort import write_radiographs
from sightline.data.views.image_view import View
from sightline.errors import count_noun
from sightline.evaluation.tables.engines.local import LocalEngine
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.io.files import write_text
from sightline.io.progress import measure_cpu_seconds
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import MeanPool
from sightline.papers import liao2022
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Cohort
from sightline.training.engine import Engine
from sightline.training.optimization import AdamW, CosineDecay
from sightline.training.recipe import Recipe

STUDIES = 230
SHORTCUT = 0.9
# pixels of a drawn picture's long side and of what the network sees: as small as still shows the bone
DRAWN_PX = 224
SEEN_PX = 144
# 0.2 million weights; a step takes half as long as test_resnet's at as many cells
NETWORK = "test_byobnet"
EPOCHS = 8
# a run that says nothing for longer looks dead
LINE_EVERY_S = 15.0


def build_table() -> Table:
    """The same network, budget, schedule and seeds, unguided and guided."""
    return Table(
        "demo",
        "Phantom wrists: does guidance keep a network off the marker?",
        (
            Row("unguided", shorten_recipe(build_unguided_recipe()), group="baseline"),
            Row("guided", shorten_recipe(build_guided_recipe()), "unguided", group="mask", weight_label="1"),
        ),
        f"A marker agrees with the label in {SHORTCUT:.0%} of training and validation studies and never stands in a "
        "test image. Both rows share cohort, network, budget, schedule and seeds; guided also pools by softmax.",
    )


def shorten_recipe(recipe: Recipe) -> Recipe:
    """A small recipe with the demo's network, size and length, validated once, at its end."""
    assert isinstance(recipe.model, ClassMapModel)
    model = replace(recipe.model, backbone=Backbone(name=NETWORK, output_stride=16))
    return replace(recipe, model=model, view=replace(recipe.view, size=SEEN_PX), epochs=EPOCHS, validate="end")


class Log:
    """Lines with the seconds since the start, on standard error and in a file; one at least every `LINE_EVERY_S`.

    Attributes:
        path: the file; a demo that goes on writes on.
        state: says what is being done while nothing else is said.
        quiet: write to the file only.
    """

    def __init__(self, path: Path, state: Callable[[], str], *, quiet: bool = False) -> None:
        self.path, self.state, self.quiet = path, state, quiet
        self.begun = self.said = time.monotonic()
        self._over = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch; what went wrong stands in the file too."""
        self._over.set()
        self._thread.join()
        if error is not None:
            self.say(f"stopped: {type(error).__name__} {error}".rstrip())

    def say(self, line: str) -> None:
        """Write a line."""
        with self._one_at_a_time:
            self.said = time.monotonic()
            text = f"[{self.said - self.begun:4.0f} s] {line}"
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
            if not self.quiet:
                print(text, file=sys.stderr, flush=True)

    def _repeat(self) -> None:
        while not self._over.wait(max(0.1, self.said + LINE_EVERY_S - time.monotonic())):
            if time.monotonic() - self.said >= LINE_EVERY_S:
                self.say(self.state())


def run_demo(out: Path, *, seeds: int = 3, parallel: int = 2, engine: Engine | None = None) -> str:
    """Write the cohort, train every row with every seed, and write table, report and `demo.log`; returns the end."""
    engine = engine or Engine()
    doing = "beginning"
    begun, cpu = time.monotonic(), measure_cpu_seconds()

    def describe_state() -> str:
        return f"{doing}{count_trainings(out / 'runs', seeds * len(build_table().rows)) if doing == 'training' else ''}"

    with Log(out / "demo.log", describe_state, quiet=engine.quiet) as log:

        def log_drawn(done: int, total: int) -> None:
            nonlocal doing
            doing = f"drawing: {done} of {total} studies"

        log.say(f"a phantom cohort of {STUDIES} studies is drawn into {out / 'cohort'}")
        cohort = _draw_cohort(out / "cohort", log_drawn)
        doing = "training"
        log.say(f"{count_noun(seeds, 'training')} of each of {len(build_table().rows)} rows, {parallel} at a time")
        # the lines of the log say how far it is
        result = run_table(
            build_table(), cohort, out, CATALOGUE, seeds=range(seeds), engine=replace(engine, quiet=True),
            runs_on=LocalEngine(parallel),
            say=log.say,
        )  # fmt: skip
        doing = "measuring and drawing pictures"
        log.say(doing)
        text = write_table(result, out)
        minutes, cpu_minutes = (time.monotonic() - begun) / 60, (measure_cpu_seconds() - cpu) / 60
        facts = {"minutes": round(minutes, 2), "cpu_minutes": round(cpu_minutes, 2), "seeds": seeds}
        write_text(out / "demo.json", json.dumps(facts) + "\n")
        end = f"{minutes:.1f} minutes, {cpu_minutes:.1f} CPU-minutes. Open {out / 'report.html'}"
        log.say(end)
    return f"{text}\n\n{end}"


def count_trainings(runs: Path, total: int) -> str:
    """How far the trainings are, by what lies on disk: runs that are done, and the epochs of the others."""
    done = sum(1 for _ in runs.glob("*/DONE"))
    others = [folder for folder in sorted(runs.glob("*")) if not (folder / "DONE").is_file()]
    histories = [folder / "history.csv" for folder in others]
    epochs = [len(path.read_text().splitlines()) - 1 if path.is_file() else 0 for path in histories]
    under_way = ", ".join(f"{count} of {EPOCHS} epochs" for count in epochs)
    return f": {done} of {total} done" + (f", under way: {under_way}" if under_way else "")


def _draw_cohort(place: Path, progress: Callable[[int, int], None]) -> Cohort:
    # one that lies there already is read back
    return write_radiographs(
        place, studies=STUDIES, shortcut=SHORTCUT, seed=0, size_px=DRAWN_PX, workers=2, progress=progress
    )


def build_unguided_recipe() -> Recipe:
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


def build_guided_recipe(weight: float = 1.0) -> Recipe:
    """The same with softmax pooling, guided by the bone's mask."""
    return replace(liao2022.build_guided_recipe(build_unguided_recipe(), weight, "mask"), title=f"guided {weight:g}")
