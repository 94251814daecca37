"""What was fitted on validation, kept with a run: recalibration, operating points, abstention, prediction sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import RunError
from sightline.metrics.calibration.recalibration import FittedRecalibration, recalibrate
from sightline.metrics.decision.abstention import Abstention
from sightline.metrics.decision.conformal import PredictionSets
from sightline.metrics.decision.operating_points import OperatingPoint
from sightline.metrics.estimate import FloatArray
from sightline.metrics.predictions import Predictions
from sightline.structures.notation import Notation, write_fields

FILE = "calibration.json"


@dataclass(frozen=True)
class CalibrationRecord:
    """All that validation decided after a training.

    Attributes:
        run: identity of the run it belongs to.
        classes: names, in the order of the logits.
        fitted: how probabilities are mapped, or None where they stay as said.
        points: thresholds, on studies.
        abstention: below which confidence no answer is given, or None.
        sets: prediction sets, or None.
        about: cohort, command and time, in words.
    """

    run: str
    classes: tuple[str, ...]
    fitted: FittedRecalibration | None = None
    points: tuple[OperatingPoint, ...] = ()
    abstention: Abstention | None = None
    sets: PredictionSets | None = None
    about: Mapping[str, Any] | None = None

    def probabilities(self, probabilities: FloatArray, *, independent: bool = False) -> FloatArray:
        """Probabilities [n, k] as they should be, of those that were said."""
        if self.fitted is None:
            return probabilities
        return self.fitted.recalibration.apply(probabilities, independent=independent)

    def apply(self, predictions: Predictions) -> Predictions:
        """The table with recalibrated probabilities.

        Raises:
            RunError: a table of other classes.
        """
        if predictions.classes != self.classes:
            raise RunError(f"This calibration is of {list(self.classes)}; got {list(predictions.classes)}.")
        return predictions if self.fitted is None else recalibrate(predictions, self.fitted.recalibration)

    def notation(self) -> Notation:
        """What the UIDs of results in DICOM hold of a calibration."""
        return write_fields(
            "CalibrationRecord",
            run=self.run,
            classes=self.classes,
            fitted=None if self.fitted is None else self.fitted.notation(),
            points=tuple(point.notation() for point in self.points),
            abstention=None if self.abstention is None else self.abstention.notation(),
            sets=None if self.sets is None else self.sets.notation(),
            about=self.about,
        )

    def write(self, folder: Path) -> Path:
        """Write `calibration.json`."""
        path = folder / FILE
        fields = {
            "run": self.run,
            "classes": list(self.classes),
            "fitted": None if self.fitted is None else self.fitted.to_dict(),
            "points": [point.to_dict() for point in self.points],
            "abstention": None if self.abstention is None else self.abstention.to_dict(),
            "sets": None if self.sets is None else _require_finite(asdict(self.sets)),
            "about": dict(self.about or {}),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
        return path

    @classmethod
    def read(cls, folder: Path, run: str | None = None) -> CalibrationRecord | None:
        """The record of a run folder; None where there is none.

        Args:
            folder: the run's.
            run: identity that it must belong to.

        Raises:
            RunError: a damaged record, or that of another run.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            sets = fields["sets"]
            record = cls(
                str(fields["run"]),
                tuple(str(name) for name in fields["classes"]),
                None if fields["fitted"] is None else FittedRecalibration.from_dict(fields["fitted"]),
                tuple(OperatingPoint.from_dict(point) for point in fields["points"]),
                None if fields["abstention"] is None else Abstention.from_dict(fields["abstention"]),
                None if sets is None else _read_sets(sets),
                dict(fields["about"]),
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise RunError(f"{path} is damaged ({error}).", "Delete it, or calibrate the run again.") from None
        if run is not None and record.run != run:
            raise RunError(
                f"{path} belongs to run {record.run}; this is run {run}.", "Delete it, and calibrate this run."
            )
        return record


def _require_finite(fields: dict[str, Any]) -> dict[str, Any]:
    # a threshold that nothing reaches: JSON knows no infinity
    return {**fields, "thresholds": [t if np.isfinite(t) else None for t in fields["thresholds"]]}


def _read_sets(fields: Mapping[str, Any]) -> PredictionSets:
    thresholds = tuple(float("inf") if t is None else float(t) for t in fields["thresholds"])
    return PredictionSets(tuple(fields["classes"]), thresholds, float(fields["alpha"]), bool(fields["by_class"]))
