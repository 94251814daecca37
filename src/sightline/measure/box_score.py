"""How well one box lies on the findings of one image, beside what the same box gets at a random place.

Each score takes the true box that suits it best (largest share, smallest distance), so that an image with several
findings asks for one of them; `box_ranking` asks for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.measure.box_place import places, share_above
from sightline.measure.boxes import FloatArray, centre_distance, centre_inside, covered, iobb, iou

IOU_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The thresholds of Jimenez-Sanchez 2018, section III."""


@dataclass(frozen=True)
class BoxScore:
    """The scores of one box (or their expected values) on an image with findings.

    Attributes:
        iou: intersection over union with the best-matching finding.
        iobb: intersection over the area of the box (Wang 2017).
        covered: intersection over the area of the finding.
        centre_inside: 1 if the centre of the box lies in a finding, else 0: the pointing game of a box.
        distance_px: distance to the centre of the nearest finding, or None without a box.
        distance_mm: the same in mm, or None without a box or without a known spacing.
        above: for each of `IOU_THRESHOLDS`, 1 if the IoU is larger, else 0.
    """

    iou: float = 0.0
    iobb: float = 0.0
    covered: float = 0.0
    centre_inside: float = 0.0
    distance_px: float | None = None
    distance_mm: float | None = None
    above: tuple[float, ...] = (0.0,) * len(IOU_THRESHOLDS)

    @property
    def printed_map(self) -> float:
        """Mean of `above`: the image's part in the mAP that Jimenez-Sanchez 2018 prints."""
        return float(np.mean(self.above))


def score_box(box: FloatArray | None, truth: FloatArray, spacing_mm: tuple[float, float] | None = None) -> BoxScore:
    """Score one box [4] against the findings [t, 4] of its image, t >= 1; no box scores 0 and has no distance."""
    if box is None:
        return BoxScore()
    shares = {name: float(v[0]) for name, v in _best(box[None], truth, spacing_mm).items()}
    above = tuple(float(shares["iou"] > threshold) for threshold in IOU_THRESHOLDS)
    return BoxScore(
        iou=shares["iou"],
        iobb=shares["iobb"],
        covered=shares["covered"],
        centre_inside=shares["centre_inside"],
        distance_px=shares["distance_px"],
        distance_mm=shares.get("distance_mm"),
        above=above,
    )


def expected_score(
    box: FloatArray | None,
    truth: FloatArray,
    image_shape: tuple[int, int],
    spacing_mm: tuple[float, float] | None = None,
) -> BoxScore:
    """Chance: the expected scores of a box of the same size, put anywhere inside the image with equal chance.

    It is computed, not drawn (`box_place`). A box as large as the image has one place, and its own scores as chance.
    """
    if box is None:
        return BoxScore()
    sides = (float(box[2] - box[0]), float(box[3] - box[1]))
    moved, weights = places(sides, truth, image_shape)
    shares = {name: float(weights @ v) for name, v in _best(moved, truth, spacing_mm).items()}
    above = tuple(share_above(threshold, sides, truth, image_shape) for threshold in IOU_THRESHOLDS)
    return BoxScore(
        iou=shares["iou"],
        iobb=shares["iobb"],
        covered=shares["covered"],
        centre_inside=shares["centre_inside"],
        distance_px=shares["distance_px"],
        distance_mm=shares.get("distance_mm"),
        above=above,
    )


def _best(boxes: FloatArray, truth: FloatArray, spacing_mm: tuple[float, float] | None) -> dict[str, FloatArray]:
    """Every score of boxes [n, 4], each [n] at the finding that suits it best."""
    found = {
        "iou": iou(boxes, truth).max(axis=1),
        "iobb": iobb(boxes, truth).max(axis=1),
        "covered": covered(boxes, truth).max(axis=1),
        "centre_inside": centre_inside(boxes, truth).any(axis=1).astype(np.float64),
        "distance_px": centre_distance(boxes, truth).min(axis=1),
    }
    if spacing_mm is not None:
        found["distance_mm"] = centre_distance(boxes, truth, spacing_mm).min(axis=1)
    return found
