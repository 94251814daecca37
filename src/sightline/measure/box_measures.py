"""The numbers that are computed from the boxes of many images, by the word that asks for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sightline.errors import RunError
from sightline.measure.box_ranking import FROC, RATES, BoxPrecision, Hit
from sightline.measure.box_score import IOU_THRESHOLDS, BoxScore
from sightline.measure.box_scores import BoxCase
from sightline.measure.boxes import FloatArray
from sightline.measure.intervals import Resample
from sightline.measure.resampled import mean_of


class BoxMeasure(Protocol):
    """A number computed from the boxes of many images."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    def counted(self, case: BoxCase) -> bool:
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

    def counted(self, case: BoxCase) -> bool:
        """Images with findings; a distance needs a box too, and one in mm the spacing."""
        return case.score is not None and self._of(case.score) is not None

    def values(self, cases: Sequence[BoxCase], resample: Resample) -> FloatArray:
        """The mean of every replicate [r]."""
        return mean_of(self.each(cases))(resample)

    def each(self, cases: Sequence[BoxCase]) -> FloatArray:
        """The score of every image [n]; NaN on an image that is not counted."""
        scores = [case.chance if self.of_chance else case.score for case in cases]
        values = [None if score is None else self._of(score) for score in scores]
        return np.array([math.nan if value is None else value for value in values])

    def _of(self, score: BoxScore) -> float | None:
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


def box_measure(measure: str | BoxMeasure) -> BoxMeasure:
    """The measure of a word.

    Raises:
        RunError: no such word.
    """
    if not isinstance(measure, str):
        return measure
    if measure not in BOX_MEASURES:
        raise RunError(f"There is no box measure {measure!r}; expected one of {', '.join(BOX_MEASURES)}.")
    return BOX_MEASURES[measure]
