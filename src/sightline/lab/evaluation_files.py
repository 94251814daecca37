"""An evaluation as files: the next one reads them, unless another run or cohort made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sightline.errors import SightlineError
from sightline.lab.evaluation import Evaluation
from sightline.lab.predict import Maps, read_shown, write_shown
from sightline.lab.run import write_text
from sightline.measure.box_scores import BoxScores
from sightline.measure.gaze_scores import GazeScores
from sightline.measure.localisation import MapScores
from sightline.measure.predictions import Predictions

T = TypeVar("T")


class EvaluationFiles:
    """The files of an evaluation: each is made from predictions, maps and boxes, and read instead of made again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.stamp = folder / f"{name}.json"
        self.predictions = folder / f"{name}.csv"
        self.maps = folder / f"{name}_maps.npz"
        self.map_scores = folder / f"{name}_map_scores.csv"
        self.boxes = folder / f"{name}_said_boxes.csv"
        self.box_scores = folder / f"{name}_boxes.csv"
        self.printed_box_scores = folder / f"{name}_boxes_as_recipe.csv"
        self.shown = folder / f"{name}_shown.npz"
        self.gaze_scores = folder / f"{name}_gaze_scores.csv"

    @property
    def made(self) -> tuple[Path, ...]:
        """Every file but the stamp."""
        return (
            self.predictions, self.maps, self.map_scores, self.boxes, self.box_scores, self.printed_box_scores,
            self.shown, self.gaze_scores,
        )  # fmt: skip

    def write(self, evaluation: Evaluation, stamp: Mapping[str, object]) -> None:
        """Write what there is; the stamp last, so that its presence says that all is there."""
        for old in (self.stamp, *self.made):
            old.unlink(missing_ok=True)
        evaluation.predictions.write(self.predictions)
        if evaluation.boxes is not None:
            np.savetxt(self.boxes, evaluation.boxes, fmt="%.17g", delimiter=",", header="row,column,height,width",
                       comments="")  # fmt: skip
        for path, part in (
            (self.maps, evaluation.maps),
            (self.map_scores, evaluation.map_scores),
            (self.box_scores, evaluation.box_scores),
            (self.printed_box_scores, evaluation.printed_box_scores),
            (self.gaze_scores, evaluation.gaze_scores),
        ):
            if part is not None:
                part.write(path)
        if evaluation.shown:
            write_shown(evaluation.shown, self.shown)
        files = [path.name for path in self.made if path.is_file()]
        write_text(self.stamp, json.dumps({**stamp, "files": files}) + "\n")

    def read(self, stamp: Mapping[str, object]) -> Evaluation | None:
        """The evaluation as saved, or None: another run or cohort made it, or a file is missing or damaged."""
        try:
            old = json.loads(self.stamp.read_text(encoding="utf-8"))
            names = old.pop("files")
            if old != dict(stamp) or not all((self.stamp.parent / name).is_file() for name in names):
                return None

            def kept(path: Path, reader: Callable[[Path], T]) -> T | None:
                return reader(path) if path.name in names else None

            return Evaluation(
                predictions=Predictions.read(self.predictions),
                maps=kept(self.maps, Maps.read),
                map_scores=kept(self.map_scores, MapScores.read),
                box_scores=kept(self.box_scores, BoxScores.read),
                printed_box_scores=kept(self.printed_box_scores, BoxScores.read),
                boxes=kept(self.boxes, _read_boxes),
                shown=kept(self.shown, read_shown) or {},
                gaze_scores=kept(self.gaze_scores, GazeScores.read),
            )
        except (OSError, ValueError, TypeError, AttributeError, KeyError, SightlineError):
            return None


def _read_boxes(path: Path) -> NDArray[np.float64]:
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
