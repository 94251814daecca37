"""Boxes that have not looked: the whole image, and the place where training boxes usually are. Rows of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sightline.errors import CohortError, GeometryError
from sightline.metrics.boxes.geometry import FloatArray, check_boxes, convert_fractions, to_fractions
from sightline.metrics.boxes.table import BoxScores

WHOLE_IMAGE = "whole image"
CENTRE_PRIOR = "centre prior"


def box_whole_image(scores: BoxScores) -> BoxScores:
    """The table in which every image has one box, itself, with score 1: an unmoved spatial transformer."""
    return _repeat_box(scores, np.array([0.0, 0.0, 1.0, 1.0]), WHOLE_IMAGE)


def box_centre_prior(scores: BoxScores, mean_box: ArrayLike) -> BoxScores:
    """The table in which every image has the mean training box, with score 1.

    Args:
        scores: any table over the images.
        mean_box: [4] row_start, column_start, row_stop, column_stop as fractions of the image, of `compute_mean_box`.

    Raises:
        GeometryError: no box within 0 to 1.
    """
    box = check_boxes(np.asarray(mean_box, dtype=np.float64)[None], "mean boxes")[0]
    if (box < 0).any() or (box > 1).any():
        raise GeometryError(f"A mean box must lie within fractions 0 to 1; got {box.tolist()}.")
    return _repeat_box(scores, box, CENTRE_PRIOR)


def compute_mean_box(boxes: Sequence[ArrayLike], image_shapes: Sequence[tuple[int, int]]) -> FloatArray:
    """The mean corners [4] of training boxes as fractions of their images; every box counts the same.

    Args:
        boxes: one array [t, 4] an image, in source pixels.
        image_shapes: (rows, columns), one an image.

    Raises:
        CohortError: no box at all.
    """
    fractions = [to_fractions(box, shape).clip(0.0, 1.0) for box, shape in zip(boxes, image_shapes, strict=True)]
    every = np.concatenate([np.zeros((0, 4)), *fractions])
    if not len(every):
        raise CohortError("There is no training box to take the mean of.", "Leave out the centre prior.")
    return np.asarray(every.mean(axis=0))


def _repeat_box(scores: BoxScores, box: FloatArray, method: str) -> BoxScores:
    one = np.ones(1)
    cases = (replace(case, found=convert_fractions(box[None], case.image_shape), scores=one) for case in scores.cases)
    return BoxScores(tuple(cases), method)
