"""Which cases of an evaluation lie outside what the run was trained on, by the features check of its gate."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.evaluation.result import Evaluation
from sightline.inference.gate.features import FeatureLimits, name_scope
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.score_intervals import compute_proportion_interval


@dataclass(frozen=True)
class CaseScopes:
    """Scores of cases, above 1 outside.

    Attributes:
        scores: float64 [n].
        patients: n ids, whose cases belong together.
    """

    scores: NDArray[np.float64]
    patients: tuple[str, ...]

    @property
    def outside(self) -> int:
        """How many lie outside."""
        return int((self.scores > 1.0).sum())

    def words(self, split: str) -> str:
        """A line for a report, with an interval by patients."""
        n = len(self.scores)
        patient = np.unique(np.array(self.patients), return_inverse=True)[1]
        low, high = compute_proportion_interval(self.scores > 1.0, patient)
        share = self.outside / n
        return (
            f"Scope: {self.outside} of {n} cases ({share:.1%}, 95% {low:.1%} to {high:.1%}) of {split} look unlike the "
            "training pictures to the gate's features check, which leaves 99.5% of good ones inside."
        )

    def write_beside(self, predictions: Predictions, path: Path) -> None:
        """The table of predictions with two more columns, `scope` and `scope_score`."""
        predictions.write(path)
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = list(csv.reader(file))
        lines = [[*head, "scope", "scope_score"]]
        lines += [[*row, name_scope(float(x)), f"{x:.4f}"] for row, x in zip(rows, self.scores, strict=True)]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)


def score_scopes(evaluation: Evaluation, limits: FeatureLimits | None) -> CaseScopes | None:
    """Scores of the cases of an evaluation; None without a features check, or of one whose features were not kept."""
    if limits is None or evaluation.features is None or evaluation.energies is None:
        return None
    return CaseScopes(limits.score(evaluation.features, evaluation.energies), evaluation.predictions.patient_ids)


def write_report_scope(evaluation: Evaluation, limits: FeatureLimits | None, split: str, out: Path) -> str:
    """Write `scope.csv` (predictions with the columns `scope` and `scope_score`) and say it in a line.

    Args:
        evaluation: of the cases.
        limits: features check of the run's gate, or None.
        split: what the cases are called.
        out: folder to write.
    """
    found = score_scopes(evaluation, limits)
    if found is None:
        why = "the run has no features check" if limits is None else "the evaluation was saved without features"
        remedy = "sightline gate RUN --cohort DIR makes it" if limits is None else "delete its predictions and repeat"
        return f"Scope: not asked, {why} ({remedy})."
    found.write_beside(evaluation.predictions, out / "scope.csv")
    return found.words(split)
