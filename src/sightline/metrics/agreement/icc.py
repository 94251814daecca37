"""Agreement on numbers: intraclass correlations of Shrout and Fleiss (1979), with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtri

from sightline.errors import GeometryError

Form = Literal["ICC(1,1)", "ICC(2,1)", "ICC(3,1)"]
FORMS: tuple[Form, ...] = ("ICC(1,1)", "ICC(2,1)", "ICC(3,1)")


@dataclass(frozen=True)
class Correlation:
    """An intraclass correlation.

    Attributes:
        value: NaN where it is not defined.
        low: lower end of the interval.
        high: upper end.
        targets: number of targets.
        readers: number of readers.
        why: why it is not defined.
    """

    value: float
    low: float
    high: float
    targets: int
    readers: int
    why: str = ""


# a share of all squares: what lies below is the rounding of numbers that are one
_NEGLIGIBLE = 1e-12


def intraclass_correlation(ratings: ArrayLike, form: Form = "ICC(2,1)", confidence: float = 0.95) -> Correlation:
    """One reader's reliability.

    ICC(1,1): each target has readers of its own. ICC(2,1): the same readers, drawn from many, rate all targets (their
    levels count as disagreement). ICC(3,1): these readers alone are of interest (their levels do not).

    Args:
        ratings: [targets, readers], none missing.
        form: which.
        confidence: of the interval, by the F distribution as in Shrout and Fleiss 1979 (2,1: their equation for
            rho_2 after Satterthwaite).

    Raises:
        GeometryError: fewer than two targets or readers, or a number that is missing.

    Example:
        >>> round(intraclass_correlation([[1, 1], [2, 2], [3, 4]], "ICC(3,1)").value, 3)
        0.931
    """
    x = np.asarray(ratings, dtype=np.float64)
    if form not in FORMS:
        raise GeometryError(f"{form!r} is no form of intraclass correlation.", f"Known: {', '.join(FORMS)}.")
    if x.ndim != 2 or min(x.shape) < 2:
        raise GeometryError(f"An intraclass correlation needs two targets and two readers; got shape {x.shape}.")
    if not np.isfinite(x).all():
        raise GeometryError("An intraclass correlation needs a number of every reader for every target.")
    n, k = x.shape
    grand = x.mean()
    between = k * float(((x.mean(axis=1) - grand) ** 2).sum()) / (n - 1)
    readers = n * float(((x.mean(axis=0) - grand) ** 2).sum()) / (k - 1)
    within = float(((x - x.mean(axis=1, keepdims=True)) ** 2).sum()) / (n * (k - 1))
    error = max(0.0, (within * n * (k - 1) - readers * (k - 1)) / ((n - 1) * (k - 1)))
    total, nan = float(((x - grand) ** 2).sum()), float("nan")
    if total <= _NEGLIGIBLE**2 * float((x**2).sum()):
        return Correlation(nan, nan, nan, n, k, "all numbers are one")
    between, readers, within, error = _drop_rounding((between, readers, within, error), n, k, total)
    value = _divide_variances(form, between, readers, within, error, n, k)
    if math.isnan(value):
        return Correlation(nan, nan, nan, n, k, "targets do not differ, so that readers have nothing to agree on")
    tail = 1.0 - (1.0 - confidence) / 2.0
    if form == "ICC(1,1)":
        low, high = _compute_one_way_interval(between, within, n, k, tail, (n - 1, n * (k - 1)))
    elif form == "ICC(3,1)":
        low, high = _compute_one_way_interval(between, error, n, k, tail, (n - 1, (n - 1) * (k - 1)))
    else:
        low, high = _compute_two_way_interval(between, readers, error, value, (n, k), tail)
    return Correlation(value, low, high, n, k)


def collect_patient_sums(ratings: ArrayLike, patients: Sequence[str]) -> NDArray[np.float64]:
    """What an intraclass correlation needs of each patient's targets: [patients, 3 + readers], in order of appearance.

    Columns: number of targets, sum of squares, sum of the targets' squared sums, and the sum of each reader. They add
    up, so that a bootstrap over patients needs no target again. Numbers are taken from their mean, which no
    intraclass correlation depends on.

    Args:
        ratings: [targets, readers], none missing.
        patients: of each target.
    """
    x = np.asarray(ratings, dtype=np.float64)
    x = x - x.mean()
    index = np.unique(np.asarray(patients), return_inverse=True)[1]
    first = np.unique(index, return_index=True)[1]
    rank = np.argsort(np.argsort(first))[index]
    parts = np.column_stack([np.ones(len(x)), (x**2).sum(axis=1), x.sum(axis=1) ** 2, x])
    sums = np.zeros((len(first), parts.shape[1]))
    np.add.at(sums, rank, parts)
    return sums


def compute_correlation_of_sums(sums: NDArray[np.float64], form: Form) -> float:
    """The correlation of `intraclass_correlation` from the total [3 + readers] of `collect_patient_sums`, or NaN."""
    n, squares, of_targets, of_readers = float(sums[0]), float(sums[1]), float(sums[2]), sums[3:]
    k = len(of_readers)
    if n < 2.0:
        return math.nan
    middle = float(of_readers.sum()) ** 2 / (n * k)
    rows, columns = of_targets / k - middle, float((of_readers**2).sum()) / n - middle
    within = max(0.0, squares - of_targets / k) / (n * (k - 1))
    between, readers = max(0.0, rows) / (n - 1), max(0.0, columns) / (k - 1)
    error = max(0.0, squares - of_targets / k - columns) / ((n - 1) * (k - 1))
    between, readers, within, error = _drop_rounding((between, readers, within, error), n, k, squares)
    return _divide_variances(form, between, readers, within, error, n, k)


def _drop_rounding(
    squares: tuple[float, float, float, float], n: float, k: int, total: float
) -> tuple[float, float, float, float]:
    """Mean squares between targets, of readers, within targets and of error; 0 where they are but rounding."""
    degrees = (n - 1, k - 1, n * (k - 1), (n - 1) * (k - 1))
    between, readers, within, error = (
        0.0 if mean * degree <= _NEGLIGIBLE * total else mean for mean, degree in zip(squares, degrees, strict=True)
    )
    return between, readers, within, error


def _divide_variances(
    form: Form, between: float, readers: float, within: float, error: float, n: float, k: int
) -> float:
    """The correlation from mean squares; NaN where there is no variance to share out.

    That is so where targets do not differ: for ICC(3,1) if readers differ by their level alone, for ICC(2,1) if they
    do not differ by their level (of two targets and two readers).
    """
    if form == "ICC(1,1)":
        shared, whole = between - within, between + (k - 1) * within
    else:
        shared, whole = between - error, between + (k - 1) * error
    if form == "ICC(2,1)":
        whole += k * (readers - error) / n
    return shared / whole if whole > 0.0 else math.nan


def _compute_one_way_interval(
    between: float, noise: float, n: int, k: int, tail: float, degrees: tuple[int, int]
) -> tuple[float, float]:
    if noise == 0.0:
        return 1.0, 1.0
    ratio = between / noise
    low = ratio / float(fdtri(degrees[0], degrees[1], tail))
    high = ratio * float(fdtri(degrees[1], degrees[0], tail))
    return (low - 1.0) / (low + k - 1.0), (high - 1.0) / (high + k - 1.0)


def _compute_two_way_interval(
    between: float, readers: float, error: float, value: float, size: tuple[int, int], tail: float
) -> tuple[float, float]:
    n, k = size
    if error == 0.0 and readers == 0.0:
        return 1.0, 1.0
    a = k * value / (n * (1.0 - value)) if value < 1.0 else math.inf
    b = 1.0 + k * value * (n - 1.0) / (n * (1.0 - value)) if value < 1.0 else math.inf
    if not math.isfinite(a):
        return 1.0, 1.0
    above = (a * readers + b * error) ** 2
    below = (a * readers) ** 2 / (k - 1.0) + (b * error) ** 2 / ((n - 1.0) * (k - 1.0))
    degrees = above / below if below > 0.0 else (n - 1.0) * (k - 1.0)
    upper, lower = float(fdtri(n - 1, degrees, tail)), float(fdtri(degrees, n - 1, tail))
    spread = k * readers + (k * n - k - n) * error
    low = n * (between - upper * error) / (upper * spread + n * between)
    high = n * (lower * between - error) / (spread + n * lower * between)
    return low, high
