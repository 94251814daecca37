"""Every number of a table of boxes: with its interval, over several trainings, and against another method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sightline.errors import RunError
from sightline.metrics.boxes.best_box import IOU_THRESHOLDS, BoxScore
from sightline.metrics.boxes.detection import FROC, RATES, BoxPrecision
from sightline.metrics.boxes.geometry import FloatArray
from sightline.metrics.boxes.table import BoxCase, BoxScores, Hit, align_boxes
from sightline.metrics.estimate import Comparison, Estimate
from sightline.metrics.statistics.bootstrap import Resample
from sightline.metrics.statistics.comparison import (
    Resampled,
    average_resampled,
    compare_resampled,
    estimate_over_patients,
    estimate_over_seeds,
)
from sightline.metrics.statistics.paired_tests import Draws

_REPORTED = (
    *("ap", "ap_50", "ap_10", "ap_50_all_points", "froc_50", "froc_10", "froc_centre"),
    *(f"froc_centre_at_{rate:g}" for rate in RATES),
)


def compute_box_value(scores: BoxScores, measure: str | BoxMeasure) -> float | None:
    """The number of one table without an interval, None where it is not defined."""
    chosen = find_box_measure(measure)
    cases = [case for case in scores.cases if chosen.is_counted(case)]
    value = float(_resample_number(chosen, cases)(_draw_once(cases))[0]) if cases else math.nan
    return None if math.isnan(value) else value


def compute_box_chance(scores: BoxScores, measure: str | BoxMeasure) -> float | None:
    """What boxes of the same sizes get at random places; None for measures that rank all boxes, or not defined."""
    chosen = find_box_measure(measure)
    return compute_box_value(scores, replace(chosen, of_chance=True)) if isinstance(chosen, BestBox) else None


def compute_box_estimates(scores: BoxScores) -> list[Estimate]:
    """Every reported number of one training with its interval over patients.

    For each score of the best box: its mean over the images with findings, its chance, and the gain over chance; then
    average precision and FROC over all images.
    """
    found = []
    for measure in BEST_BOX.values():
        own = [case for case in scores.cases if measure.is_counted(case)]
        chance = replace(measure, of_chance=True)
        gain = "minus chance" if measure.column.startswith("distance") else "above chance"
        columns = (measure.each(own), chance.each(own))
        names = (measure.name, f"{measure.name}, chance", f"{measure.name}, {gain}")
        largest = _find_bounds(measure)
        bounds = (largest, largest, (-largest[1], largest[1]))
        for name, values, ends in zip(names, (*columns, columns[0] - columns[1]), bounds, strict=True):
            found.append(_estimate(name, average_resampled(values), measure, scores, own, ends))
    for key in _REPORTED:
        ranked = RANKED[key]
        found.append(
            _estimate(ranked.name, _resample_number(ranked, scores.cases), ranked, scores, scores.cases, (0.0, 1.0))
        )
    return found


def estimate_boxes_over_seeds(scores_per_seed: Sequence[BoxScores], measure: str | BoxMeasure) -> Estimate:
    """The mean of a number over several trainings of one method, with an interval over patients and trainings.

    Args:
        scores_per_seed: boxes on the same images, one table a training.
        measure: a word of `BOX_MEASURES`, or a measure.

    Raises:
        RunError: an unknown measure, no runs, or runs over different images.
    """
    chosen = find_box_measure(measure)
    kept = _select_counted_in_all(chosen, align_boxes(scores_per_seed))
    if kept is None:
        n = {**scores_per_seed[0].counts(), "seeds": len(scores_per_seed)}
        return Estimate(
            chosen.name, None, n=n, method="no interval", why=_explain_undefined(chosen, scores_per_seed[0])
        )
    return estimate_over_seeds(
        chosen.name,
        [_resample_number(chosen, run.cases) for run in kept],
        [case.patient_id for case in kept[0].cases],
        _list_counts(kept[0]),
        what=_describe_mean(
            chosen, [case for run in kept for case in run.cases], len(scores_per_seed[0]) - len(kept[0])
        ),
        undefined=_explain_undefined(chosen, scores_per_seed[0]),
        bounds=_find_bounds(chosen),
    )


def compute_box_seed_values(scores_per_seed: Sequence[BoxScores], measure: str | BoxMeasure) -> list[float]:
    """The number of each training, over the images that have it in every training; none where no image has.

    Args as in `estimate_boxes_over_seeds`, whose value is their mean.
    """
    kept = _select_counted_in_all(find_box_measure(measure), align_boxes(scores_per_seed))
    values = [compute_box_value(run, measure) for run in kept or ()]
    return [value for value in values if value is not None] if None not in values else []


def compute_box_seed_chance(scores_per_seed: Sequence[BoxScores], measure: str | BoxMeasure) -> float | None:
    """The mean of `compute_box_chance` over trainings, over the images that have the number in every training.

    Args as in `estimate_boxes_over_seeds`.
    """
    kept = _select_counted_in_all(find_box_measure(measure), align_boxes(scores_per_seed))
    chances = [chance for run in kept or () if (chance := compute_box_chance(run, measure)) is not None]
    return float(np.mean(chances)) if chances else None


def compare_boxes(
    scores_a_per_seed: Sequence[BoxScores],
    scores_b_per_seed: Sequence[BoxScores],
    measure: str | BoxMeasure,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """The difference of a number between two methods on the same images, over patients and trainings.

    Images on which any training has no defined score (a distance without a box) are left out of all, and counted.

    Raises:
        RunError: an unknown measure, no runs, or runs over different images or true boxes.
    """
    chosen = find_box_measure(measure)
    if not scores_a_per_seed or not scores_b_per_seed:
        raise RunError("A comparison needs boxes of both methods.")
    runs = align_boxes([*scores_a_per_seed, *scores_b_per_seed])
    split, undefined = len(scores_a_per_seed), _explain_undefined(chosen, runs[0])
    kept = _select_counted_in_all(chosen, runs)
    if kept is None:
        n = {**_list_counts(runs[0]), "seeds_a": split, "seeds_b": len(runs) - split}
        return Comparison(chosen.name, None, None, None, n=n, method="no test", why=undefined)
    numbers = [_resample_number(chosen, run.cases) for run in kept]
    found = compare_resampled(
        chosen.name,
        numbers[:split],
        numbers[split:],
        [case.patient_id for case in kept[0].cases],
        _list_counts(kept[0]),
        draws=Draws(replicates, seed),
        undefined=undefined,
        mixed=lambda i, j: _resample_number(chosen, [*kept[i].cases, *kept[split + j].cases]),
    )
    own = sum(any(chosen.is_counted(run.cases[i]) for run in runs) for i in range(len(runs[0])))
    if own == len(kept[0]):
        return found
    left_out = f"{own - len(kept[0])} images left out: not defined in every run"
    return replace(found, why="; ".join(w for w in (found.why, left_out) if w))


def _resample_number(measure: BoxMeasure, cases: Sequence[BoxCase]) -> Resampled:
    if isinstance(measure, BestBox):
        return average_resampled(measure.each(cases))
    return lambda resample: measure.values(cases, resample)


def _find_bounds(measure: BoxMeasure) -> tuple[float, float]:
    """The smallest and the largest possible value."""
    return (0.0, math.inf) if isinstance(measure, BestBox) and measure.column.startswith("distance") else (0.0, 1.0)


def _draw_once(cases: Sequence[BoxCase]) -> Resample:
    return Resample.draw_once([case.patient_id for case in cases])


def _list_counts(scores: BoxScores) -> dict[str, int]:
    """Counts that do not depend on the method."""
    counts = scores.counts()
    counts.pop("boxes")
    return counts


def _select_counted_in_all(measure: BoxMeasure, runs: Sequence[BoxScores]) -> list[BoxScores] | None:
    if isinstance(measure, BoxPrecision | FROC):
        # what ranks all boxes is about every image
        keep = [True] * len(runs[0])
    else:
        keep = [all(map(measure.is_counted, cases)) for cases in zip(*(run.cases for run in runs), strict=True)]
    if all(keep):
        return list(runs)
    if not any(keep):
        return None
    return [
        BoxScores(tuple(case for case, kept in zip(run.cases, keep, strict=True) if kept), run.method) for run in runs
    ]


def _estimate(
    name: str,
    number: Resampled,
    measure: BoxMeasure,
    scores: BoxScores,
    cases: Sequence[BoxCase],
    bounds: tuple[float, float],
) -> Estimate:
    if not cases:
        return Estimate(name, None, n=scores.counts(), method="no interval", why=_explain_undefined(measure, scores))
    return estimate_over_patients(
        name,
        number,
        [case.patient_id for case in cases],
        BoxScores(tuple(cases), scores.method).counts(),
        what=_describe_mean(measure, cases, len(scores) - len(cases)),
        undefined=_explain_undefined(measure, scores),
        bounds=bounds,
    )


def _describe_mean(measure: BoxMeasure, cases: Sequence[BoxCase], left_out: int) -> str:
    """What the number is a mean over, and what stands for nothing in it."""
    if not isinstance(measure, BestBox):
        return "all boxes ranked by score"
    without = sum(case.best is None for case in cases)
    words = "mean over images with findings"
    words += f", {without} without a box score 0" if without else ""
    return words + (f", {left_out} other images left out" if left_out else "")


def _explain_undefined(measure: BoxMeasure, scores: BoxScores) -> str:
    """Why a number is not defined on a table."""
    with_findings = [case for case in scores.cases if len(case.truth)]
    if not with_findings:
        return "not defined: no image has a true box"
    if not any(len(case.found) for case in with_findings):
        return "not defined: no image with findings has a found box in every run"
    if isinstance(measure, BestBox) and measure.column == "distance_mm":
        return "not defined: no image with findings has a found box and a known spacing"
    return "not defined: no image has this score in every run"


class BoxMeasure(Protocol):
    """A number computed from the boxes of many images."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    def is_counted(self, case: BoxCase) -> bool:
        """Whether the number is about this image, and defined on it."""

    def values(self, cases: Sequence[BoxCase], resample: Resample) -> FloatArray:
        """Counted images [n] and their patients drawn in r replicates to values [r], NaN where not defined."""


@dataclass(frozen=True)
class BestBox:
    """Mean over the images with findings of a score of the surest box.

    Attributes:
        column: field of `BoxScore`, or `above_T` for an entry of its `above`.
        name: what it is called in tables.
        of_chance: the expected score at a random place instead.
    """

    column: str
    name: str
    of_chance: bool = False

    def is_counted(self, case: BoxCase) -> bool:
        """Images with findings; a distance needs a box too, and one in mm the spacing."""
        if not self.column.startswith("distance"):
            return len(case.truth) > 0
        placed = len(case.truth) > 0 and len(case.found) > 0
        return placed and (self.column != "distance_mm" or case.spacing_mm is not None)

    def values(self, cases: Sequence[BoxCase], resample: Resample) -> FloatArray:
        """The mean of every replicate [r]."""
        return average_resampled(self.each(cases))(resample)

    def each(self, cases: Sequence[BoxCase]) -> FloatArray:
        """The score of every image [n]; NaN on an image that is not counted."""
        scores = [case.chance if self.of_chance else case.score for case in cases]
        values = [None if score is None else self._get_score(score) for score in scores]
        return np.array([math.nan if value is None else value for value in values])

    def _get_score(self, score: BoxScore) -> float | None:
        if self.column.startswith("above_"):
            return score.above[IOU_THRESHOLDS.index(float(self.column.removeprefix("above_")))]
        value: float | None = getattr(score, self.column)
        return value


BEST_BOX: Mapping[str, BestBox] = {
    measure.column: measure
    for measure in (
        BestBox("iou", "IoU of the best box"),
        BestBox("iobb", "IoBB of the best box"),
        BestBox("covered", "share of the finding covered"),
        BestBox("centre_inside", "pointing game of the box"),
        BestBox("distance_px", "centre distance in px"),
        BestBox("distance_mm", "centre distance in mm"),
        *(BestBox(f"above_{t:g}", f"accuracy at IoU {t:g}") for t in IOU_THRESHOLDS),
        BestBox("printed_map", "printed mAP (share of images above each IoU)"),
    )
}

_HITS: Mapping[str, tuple[Hit, str]] = {
    "50": (0.5, "IoU 0.5"),
    "10": (0.1, "IoU 0.1"),
    "centre": ("centre", "centre inside"),
}

RANKED: Mapping[str, BoxPrecision | FROC] = {
    "ap": BoxPrecision(),
    "ap_50": BoxPrecision((0.5,), name="AP at IoU 0.5"),
    "ap_10": BoxPrecision((0.1,), name="AP at IoU 0.1"),
    "ap_50_all_points": BoxPrecision((0.5,), "all", "AP at IoU 0.5, all points"),
    **{f"froc_{key}": FROC(hit, name=f"FROC, {words}") for key, (hit, words) in _HITS.items()},
    **{
        f"froc_{key}_at_{rate:g}": FROC(hit, (rate,), f"sensitivity at {rate:g} false positives an image, {words}")
        for key, (hit, words) in _HITS.items()
        for rate in RATES
    },
}

BOX_MEASURES: Mapping[str, BoxMeasure] = {**BEST_BOX, **RANKED}
"""Every measure by the word that asks for it."""

BOX_NAMES: Mapping[str, str] = {key: measure.name for key, measure in BOX_MEASURES.items()}


def find_box_measure(measure: str | BoxMeasure) -> BoxMeasure:
    """The measure of a word.

    Raises:
        RunError: no such word.
    """
    if not isinstance(measure, str):
        return measure
    if measure not in BOX_MEASURES:
        raise RunError(f"There is no box measure {measure!r}; expected one of {', '.join(BOX_MEASURES)}.")
    return BOX_MEASURES[measure]
