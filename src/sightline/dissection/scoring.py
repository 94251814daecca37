"""The numbers of a dissection, computed from its readings: ranks, what chance gives, agreement, calls compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.dissection.results import CallRow, UnitAgreementRow, UnitRow
from sightline.dissection.top_cases import CaseCalls
from sightline.errors import LayoutError
from sightline.explainers.units.readings import Readings
from sightline.explainers.units.thresholds import Thresholds
from sightline.metrics.units.agreement import Null, UnitAgreement, measure_unit_agreement
from sightline.metrics.units.permutation import iterate_label_permutations
from sightline.metrics.units.scores import Over, UnitDraws, UnitScores, compute_unit_scores
from sightline.structures.case import Cohort

NULLS: tuple[Null, ...] = ("masks", "shifts")
# fewer calls on a side are described, not tested
FEW = 10
BAND_PERMUTATIONS = 2000
SEED = 0


def score_units(readings: Readings, called: CaseCalls, over: Over, cohort: Cohort) -> UnitScores:
    """The scores of every unit; labels of a patient's cases are permuted together."""
    return compute_unit_scores(
        readings.enabled,
        called.truth,
        called=called.called,
        over=over,
        strength=readings.strength,
        peak=readings.peak,
        patients=_require_patients(cohort),
        draws=UnitDraws(top=readings.above.shape[1], seed=SEED),
    )


def build_unit_rows(scores: UnitScores, thresholds: Thresholds) -> tuple[UnitRow, ...]:
    """A row a unit, by number; p is held together over all units by the largest contrast of each permutation."""
    contrast, auc = scores.contrast, scores.auc_strength
    rows = []
    for unit in range(len(scores.c)):
        interval = scores.intervals.get(unit)
        rows.append(
            UnitRow(
                unit=unit,
                threshold=float(thresholds.values[unit]),
                dead=bool(thresholds.dead[unit]),
                c=float(scores.c[unit]),
                contrast=None if contrast is None else float(contrast.difference[unit]),
                p=None if contrast is None else float(contrast.p_max[unit]),
                rank=int(scores.rank[unit]),
                n_pos=scores.n[scores.over],
                ties=int(scores.ties[unit]),
                auc=None if auc is None else float(auc[unit]),
                contrast_low=None if interval is None else interval.low,
                contrast_high=None if interval is None else interval.high,
            )
        )
    return tuple(rows)


@dataclass(frozen=True, eq=False)
class Band:
    """What c stays within 95 times in 100 when labels are shuffled: float64 [u], by unit."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def compute_null_band(readings: Readings, called: CaseCalls, over: Over, cohort: Cohort) -> Band | None:
    """The band of chance about c, or None where there is nothing to hold c against."""
    of = called.group(over)
    against = ~called.truth & ~of
    among = of | against
    if not against.any() or not of.any():
        return None
    enabled = readings.enabled[among].astype(np.float64)
    patients = [case.patient_id for case, keep in zip(cohort, among, strict=True) if keep]
    drawn = [
        labels @ enabled / labels.sum(axis=1, keepdims=True)
        for labels in iterate_label_permutations(of[among], patients, BAND_PERMUTATIONS, SEED)
    ]
    low, high = np.percentile(np.concatenate(drawn), (2.5, 97.5), axis=0)
    return Band(low, high)


def call_rows(scores: UnitScores) -> tuple[CallRow, ...]:
    """A row a unit: true calls against false alarms; empty where a side has no case, p only where both have enough."""
    if scores.calls is None:
        return ()
    enough = min(scores.calls.n_of, scores.calls.n_against) >= FEW
    return tuple(
        CallRow(unit, float(of), float(against), float(p) if enough else None)
        for unit, (of, against, p) in enumerate(
            zip(scores.calls.of, scores.calls.against, scores.calls.p_max, strict=True)
        )
    )


def measure_agreement(readings: Readings, folder: Path, cohort: Cohort) -> dict[Null, UnitAgreement]:
    """Agreement of every unit with every mask, against both kinds of chance; kept beside the readings.

    Args:
        readings: of a cohort.
        folder: where they lie.
        cohort: the cases that were read; masks of a patient's cases stay together.
    """
    if readings.maps is None or not any(np.any(voxels) for voxels in readings.mask_voxels.values()):
        return {}
    found: dict[Null, UnitAgreement] = {}
    for null in NULLS:
        path = folder / f"agreement_{null}.csv"
        kept = _read_kept_agreement(path)
        if kept is None:
            kept = measure_unit_agreement(readings, patients=_require_patients(cohort), null=null, seed=SEED)
            kept.write(path)
        found[null] = kept
    return found


def _read_kept_agreement(path: Path) -> UnitAgreement | None:
    """What an earlier call wrote; None where there is nothing, or where it took a patient's cases as independent."""
    try:
        kept = UnitAgreement.read(path) if path.is_file() else None
    except LayoutError:
        return None
    return None if kept is None or kept.patients is None else kept


def build_agreement_rows(found: Mapping[Null, UnitAgreement]) -> tuple[UnitAgreementRow, ...]:
    """A row a unit and mask; empty without masks."""
    if not found:
        return ()
    one, moved = found["masks"], found["shifts"]
    return tuple(
        UnitAgreementRow(
            unit=int(unit),
            mask=mask,
            cases=int(one.cases[k]),
            iou=float(one.iou[t, k]),
            iou_cells=float(one.iou_cells[t, k]),
            inside=float(one.inside[t, k]),
            chance=float(one.chance[k]),
            shuffled_95=float(one.null_high[t, k]),
            p_shuffled=float(one.p_max[t, k]),
            moved_95=float(moved.null_high[t, k]),
            p_moved=float(moved.p_max[t, k]),
        )
        for t, unit in enumerate(one.units)
        for k, mask in enumerate(one.masks)
    )


def _require_patients(cohort: Cohort) -> Sequence[str]:
    return [case.patient_id for case in cohort]
