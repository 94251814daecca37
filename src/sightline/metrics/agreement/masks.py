"""Agreement on masks: overlap, and how far two rims lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.metrics.estimate import FloatArray

BoolArray = NDArray[np.bool_]


def dice(first: ArrayLike, second: ArrayLike) -> float:
    """Dice's coefficient of two masks: 1 where both are empty, 0 where one is (Dice 1945).

    Example:
        >>> dice([[True, True]], [[True, False]])
        0.6666666666666666
    """
    a, b = _check_pair(first, second)
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def iou(first: ArrayLike, second: ArrayLike) -> float:
    """Intersection over union of two masks: 1 where both are empty, 0 where one is (Jaccard 1901).

    Example:
        >>> iou([[True, True]], [[True, False]])
        0.5
    """
    a, b = _check_pair(first, second)
    either = int((a | b).sum())
    return 1.0 if either == 0 else int((a & b).sum()) / either


@dataclass(frozen=True)
class RimDistances:
    """How far the rims of two masks lie apart, in the unit of the spacing; NaN where a mask is empty.

    Attributes:
        hausdorff: the farthest that any rim pixel of one lies from the other's rim.
        hausdorff_95: 95th percentile of the distances, both ways, the larger of the two.
        mean: mean over the rim pixels of both.
    """

    hausdorff: float
    hausdorff_95: float
    mean: float


def measure_rim_distances(first: ArrayLike, second: ArrayLike, spacing: Sequence[float] | None = None) -> RimDistances:
    """Distances between the rims of two masks of any number of axes.

    A rim pixel is inside and has a neighbour along an axis that is outside (the array's edge is outside); distances run
    between pixel centres. The percentile is taken of each direction and the larger one given, as MONAI does; the mean
    is over both directions' pixels together (average symmetric surface distance).

    Args:
        first: one mask.
        second: the other, of the same shape.
        spacing: size of a pixel along each axis; None: 1.

    Raises:
        GeometryError: masks of other shapes, or a spacing that does not fit.
    """
    a, b = _check_pair(first, second)
    if spacing is not None and (len(spacing) != a.ndim or min(spacing) <= 0.0):
        raise GeometryError(f"A spacing of {spacing} does not fit masks of {a.ndim} axes.")
    if not (a.any() and b.any()):
        return RimDistances(float("nan"), float("nan"), float("nan"))
    there, back = _measure_directed(a, b, spacing), _measure_directed(b, a, spacing)
    return RimDistances(
        hausdorff=float(max(there.max(), back.max())),
        hausdorff_95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        mean=float((there.sum() + back.sum()) / (there.size + back.size)),
    )


def _measure_directed(a: BoolArray, b: BoolArray, spacing: Sequence[float] | None) -> FloatArray:
    from scipy.ndimage import distance_transform_edt

    # only the part that holds both masks: distances between their rims do not leave it
    corner = [_find_span(a | b, axis) for axis in range(a.ndim)]
    window = tuple(slice(*span) for span in corner)
    rim_a, rim_b = find_rim(a[window]), find_rim(b[window])
    away = distance_transform_edt(~rim_b, sampling=spacing)
    return np.asarray(away[rim_a], dtype=np.float64)


def find_rim(mask: BoolArray) -> BoolArray:
    """Inside pixels with an outside neighbour along an axis."""
    padded = np.pad(mask, 1)
    inside = np.ones(mask.shape, dtype=bool)
    for axis in range(mask.ndim):
        for step in (-1, 1):
            moved = np.roll(padded, step, axis=axis)
            inside &= moved[tuple(slice(1, -1) for _ in range(mask.ndim))]
    return np.asarray(mask & ~inside)


def _find_span(mask: BoolArray, axis: int) -> tuple[int, int]:
    found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
    return int(found[0]), int(found[-1]) + 1


def _check_pair(first: ArrayLike, second: ArrayLike) -> tuple[BoolArray, BoolArray]:
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim == 0:
        raise GeometryError(f"Two masks of one picture have one shape; got {a.shape} and {b.shape}.")
    return a, b


def measure_line_distance(
    first: ArrayLike, second: ArrayLike, *, near: float = 5.0, step: float = 1.0
) -> tuple[float, float]:
    """How far two polylines lie apart, and how much of them runs beside the other.

    Args:
        first: [n, d] points.
        second: [m, d] points.
        near: distance up to which a place counts as beside.
        step: places are taken this far apart along the lines.

    Returns:
        Mean distance from places of each line to the other, both ways together; and the share of places within `near`.

    Raises:
        GeometryError: a line without a point.
    """
    from scipy.spatial import cKDTree

    a, b = (_sample_along(np.asarray(line, dtype=np.float64), step) for line in (first, second))
    away = np.concatenate([cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]])
    return float(away.mean()), float((away <= near).mean())


def _sample_along(points: FloatArray, step: float) -> FloatArray:
    if points.ndim != 2 or len(points) == 0:
        raise GeometryError(f"A line has points [n, axes]; got shape {points.shape}.")
    pieces = [points[:1]]
    for start, stop in pairwise(points):
        many = max(1, int(np.ceil(float(np.linalg.norm(stop - start)) / step)))
        pieces.append(start + (stop - start) * (np.arange(1, many + 1) / many)[:, None])
    return np.concatenate(pieces)
