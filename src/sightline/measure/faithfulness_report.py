"""Faithfulness of maps over a whole split, beside chance, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.errors import RunError
from sightline.measure.estimate import Estimate
from sightline.measure.faithfulness import Faithfulness
from sightline.measure.resampled import mean_of, over_patients


@dataclass(frozen=True)
class FaithfulnessRow:
    """One map's faithfulness on one case.

    Attributes:
        case_id: the image.
        study_id: its study.
        patient_id: its patient.
        found: the number and its chance.
    """

    case_id: str
    study_id: str
    patient_id: str
    found: Faithfulness


def faithfulness_report(rows: Sequence[FaithfulnessRow], *, replicates: int = 2000, seed: int = 0) -> list[Estimate]:
    """Mean value, chance, centred Gaussian and gain of every measure, with intervals over patients.

    Raises:
        RunError: no row.
    """
    if not rows:
        raise RunError("There is no faithfulness to report; expected at least one row.")
    report = []
    for name in dict.fromkeys(row.found.name for row in rows):
        kept = [row for row in rows if row.found.name == name]
        images, studies, patients = ({getattr(r, key) for r in kept} for key in ("case_id", "study_id", "patient_id"))
        counts = {"maps": len(kept), "images": len(images), "studies": len(studies), "patients": len(patients)}
        for label, column in (
            (name, "value"),
            (f"{name}, random order", "chance"),
            (f"{name}, centred Gaussian", "centre"),
            (f"{name}, better than a random order by", "gain"),
        ):
            values = np.array([getattr(row.found, column) for row in kept], dtype=np.float64)
            ids = [row.patient_id for row in kept]
            found = over_patients(
                label, mean_of(values), ids, counts, replicates=replicates, seed=seed, what="mean over maps"
            )
            report.append(found)
    return report
