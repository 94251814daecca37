"""Geometry of boxes, vectorised: float64 [n, 4] = row_start, column_start, row_stop, column_stop.

Coordinates are source pixels with the origin at the corner of pixel (0, 0). A box without area meets nothing: every
share of it is 0. Boxes that are not finite or end before they start are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def check_boxes(boxes: ArrayLike, what: str = "boxes") -> FloatArray:
    """Boxes as float64 [n, 4], checked; an empty list gives [0, 4].

    Args:
        boxes: [n, 4] corners.
        what: what they are, for messages.

    Raises:
        GeometryError: another shape, numbers that are not finite, or a box that ends before it starts.
    """
    corners = np.array(boxes, dtype=np.float64)
    if corners.size == 0 and corners.ndim <= 2:
        corners = corners.reshape(0, 4)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise GeometryError(f"The {what} must be [n, 4] (two corners); got shape {corners.shape}.")
    # NaN fails every comparison, and what is infinite has no finite sum
    fair = (corners[:, 0] <= corners[:, 2]) & (corners[:, 1] <= corners[:, 3]) & np.isfinite(corners @ np.ones(4))
    if not fair.all():
        wrong = np.flatnonzero(~fair)
        raise GeometryError(
            f"Row {wrong[0]} of the {what} is {corners[wrong[0]].tolist()}; expected finite row_start, column_start, "
            f"row_stop, column_stop with stop not before start ({wrong.size} such rows)."
        )
    return corners


def compute_area(boxes: ArrayLike) -> FloatArray:
    """Areas [n] in square pixels."""
    return _measure_areas(check_boxes(boxes))


def compute_intersection(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Common area [n, m] of boxes a [n, 4] and b [m, 4]."""
    return _intersect(check_boxes(a), check_boxes(b))


@dataclass(frozen=True, eq=False)
class Shares:
    """What found boxes [f, 4] and true boxes [t, 4] share, each [f, t].

    Attributes:
        iou: intersection over union.
        iobb: intersection over the area of the found box.
        covered: intersection over the area of the true box.
        centre_inside: whether the centre of the found box lies in the true one; a box holds its start, not its stop,
            and a found box without area lies in none.
        step: from the true box's centre to the found one's, (row, column) in pixels [f, t, 2].
    """

    iou: FloatArray
    iobb: FloatArray
    covered: FloatArray
    centre_inside: BoolArray
    step: FloatArray


def compute_shares(found: ArrayLike, truth: ArrayLike) -> Shares:
    """Every share of found and true boxes, each box checked once; 0 where there is nothing to divide by."""
    first, second = check_boxes(found), check_boxes(truth)
    common = _intersect(first, second)
    of_found, of_truth = _measure_areas(first)[:, None], _measure_areas(second)[None]
    return Shares(
        _divide_shares(common, of_found + of_truth - common),
        _divide_shares(common, of_found),
        _divide_shares(common, of_truth),
        _hold(second, first),
        _find_centres(first)[:, None] - _find_centres(second)[None],
    )


def iou(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Intersection over union [n, m]; 0 where neither box has an area."""
    return compute_shares(a, b).iou


def iobb(found: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Intersection over the area of the found box [f, t] (IoBB, Wang 2017, ChestX-ray8, section 4.2).

    A small box inside a large finding has 1: it is not punished for its scale.
    """
    return compute_shares(found, truth).iobb


def compute_truth_coverage(found: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Intersection over the area of the truth [f, t]: how much of a finding a box holds; the whole image has 1."""
    return compute_shares(found, truth).covered


def compute_centres(boxes: ArrayLike) -> FloatArray:
    """Centres [n, 2], row and column."""
    return _find_centres(check_boxes(boxes))


def compute_centre_distance(a: ArrayLike, b: ArrayLike, spacing_mm: tuple[float, float] | None = None) -> FloatArray:
    """Distance between centres [n, m], in pixels, or in mm where the (row, column) spacing is given."""
    step = (compute_centres(a)[:, None] - compute_centres(b)[None]) * np.asarray(
        (1.0, 1.0) if spacing_mm is None else spacing_mm
    )
    return np.asarray(np.hypot(step[..., 0], step[..., 1]))


def is_centre_inside(found: ArrayLike, truth: ArrayLike) -> BoolArray:
    """Whether the centre of a found box lies in a true one, bool [f, t]; a box holds its start and not its stop.

    A found box without area lies in none.
    """
    return _hold(check_boxes(truth), check_boxes(found))


def clip_boxes(boxes: ArrayLike, image_shape: tuple[int, int]) -> FloatArray:
    """The part of boxes [n, 4] inside an image of (rows, columns); one wholly outside keeps no area."""
    limit = np.asarray([*image_shape, *image_shape], dtype=np.float64)
    return np.asarray(check_boxes(boxes).clip(0.0, limit))


def to_fractions(boxes: ArrayLike, image_shape: tuple[int, int]) -> FloatArray:
    """Corners [n, 4] as fractions of the image."""
    return np.asarray(check_boxes(boxes) / np.asarray([*image_shape, *image_shape], dtype=np.float64))


def convert_fractions(boxes: ArrayLike, image_shape: tuple[int, int]) -> FloatArray:
    """Corners [n, 4] given as fractions of the image, in pixels."""
    return np.asarray(check_boxes(boxes) * np.asarray([*image_shape, *image_shape], dtype=np.float64))


def _measure_areas(corners: FloatArray) -> FloatArray:
    sides = corners[:, 2:] - corners[:, :2]
    return np.asarray(sides[:, 0] * sides[:, 1])


def _find_centres(corners: FloatArray) -> FloatArray:
    return np.asarray((corners[:, :2] + corners[:, 2:]) / 2)


def _intersect(a: FloatArray, b: FloatArray) -> FloatArray:
    first, second = a[:, None], b[None]
    height, width = (
        (np.minimum(first[..., axis + 2], second[..., axis + 2]) - np.maximum(first[..., axis], second[..., axis]))
        for axis in range(2)
    )
    return np.asarray(height.clip(min=0.0) * width.clip(min=0.0))


def _hold(boxes: FloatArray, found: FloatArray) -> BoolArray:
    """Whether boxes [t, 4] hold the centres of found ones [f, 4] that have an area: [f, t]."""
    point, box = _find_centres(found)[:, None], boxes[None]
    row, column = point[..., 0], point[..., 1]
    in_rows = (row >= box[..., 0]) & (row < box[..., 2])
    inside = in_rows & (column >= box[..., 1]) & (column < box[..., 3])
    return np.asarray(inside & (_measure_areas(found) > 0)[:, None])


def _divide_shares(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Part over whole, 0 where the whole is nothing; rounding never makes it more than 1."""
    share: FloatArray = np.zeros(part.shape)
    np.divide(part, whole, out=share, where=np.broadcast_to(whole > 0, part.shape))
    return share.clip(0.0, 1.0)
