"""Which cases of an evaluation look unlike those of the training to the features and layout checks of a run's gate."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.evaluation.result import Evaluation
from sightline.inference.gate.features import name_scope
from sightline.inference.gate.scope import ScopeChecks
from sightline.inference.radiographs import read_radiograph
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.score_intervals import compute_proportion_interval
from sightline.structures.case import Cohort


@dataclass(frozen=True)
class CaseScopes:
    """Scores of cases, above 1 outside.

    Attributes:
        by_check: float64 [n] for each check of the gate that was asked.
        patients: n ids, whose cases belong together.
    """

    by_check: Mapping[str, NDArray[np.float64]]
    patients: tuple[str, ...]

    @property
    def scores(self) -> NDArray[np.float64]:
        """The greatest of each case's scores."""
        return np.max(list(self.by_check.values()), axis=0)

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
        names = " and ".join(self.by_check)
        checks = f"{names} check{'s' * (len(self.by_check) > 1)}"
        which = "each of which" if len(self.by_check) > 1 else "which"
        parts = ", ".join(f"{int((scores > 1.0).sum())} by {name}" for name, scores in self.by_check.items())
        return (
            f"Scope: {self.outside} of {n} cases ({share:.1%}, 95% {low:.1%} to {high:.1%}) of {split} look unlike the "
            f"training pictures to the gate's {checks} ({parts}), {which} leaves "
            "99.5% of good ones inside."
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


def score_scopes(evaluation: Evaluation, checks: ScopeChecks, cohort: Cohort) -> CaseScopes | None:
    """Scores of the cases of an evaluation; None without a check, or of one whose features were not kept."""
    predictions = evaluation.predictions
    if not checks.names or (
        checks.features is not None and (evaluation.features is None or evaluation.energies is None)
    ):
        return None
    images = {case.case_id: case.image for case in cohort}
    pictures = (read_radiograph(images[case]) for case in predictions.case_ids)
    return CaseScopes(checks.score_each(pictures, evaluation.features, evaluation.energies), predictions.patient_ids)


def write_report_scope(evaluation: Evaluation, checks: ScopeChecks, cohort: Cohort, split: str, out: Path) -> str:
    """Write `scope.csv` (predictions with the columns `scope` and `scope_score`) and say it in a line.

    Args:
        evaluation: of the cases.
        checks: of the run's gate.
        cohort: the cases; their pictures are read again for the layout check.
        split: what the cases are called.
        out: folder to write.
    """
    found = score_scopes(evaluation, checks, cohort)
    if found is None:
        none = not checks.names
        why = "the run's gate has no features or layout check" if none else "the evaluation was saved without features"
        remedy = "sightline gate RUN --cohort DIR makes it" if none else "delete its predictions and repeat"
        return f"Scope: not asked, {why} ({remedy})."
    found.write_beside(evaluation.predictions, out / "scope.csv")
    return found.words(split)
