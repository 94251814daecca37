"""How alike two maps are to the eye, which sees neither their scale nor their offset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

# a map whose values spread less than this share of their size is rounding, not a picture (float32 keeps 1e-7)
FLAT = 1e-6


@dataclass(frozen=True)
class Blankness:
    """Shares, 0 to 1, of maps that show nothing.

    Attributes:
        zero: zero everywhere.
        constant: the same value everywhere, not zero.
        not_finite: with NaN or infinity somewhere.
    """

    zero: float
    constant: float
    not_finite: float

    @property
    def total(self) -> float:
        """Share that shows nothing, whatever the reason."""
        return self.zero + self.constant + self.not_finite


def measure_blankness(maps: Array) -> Blankness:
    """Of maps [b, cells]."""
    finite = np.asarray(np.isfinite(maps).all(axis=1))
    zero = (maps == 0).all(axis=1)
    constant = ~is_informative(maps) & finite & ~zero
    return Blankness(float(zero.mean()), float(constant.mean()), float((~finite).mean()))


def is_informative(maps: Array) -> NDArray[np.bool_]:
    """Which of maps [b, cells] show anything: finite, and not the same everywhere."""
    finite = np.asarray(np.isfinite(maps).all(axis=1))
    values = np.where(finite[:, None], maps, 0.0)
    return np.asarray(finite & (np.ptp(values, axis=1) > FLAT * np.abs(values).max(axis=1)))


def correlate(first: Array, second: Array) -> Array:
    """Pearson's correlation of each of maps [b, cells] with its partner: [b].

    0 where only one of the two shows anything; NaN where neither does.
    """
    return _correlate_known(first, second, _compute_pearson)


def compute_rank_correlation(first: Array, second: Array) -> Array:
    """Spearman's correlation, as `correlate`; blind to gamma, clipping and other increasing curves."""
    return _correlate_known(first, second, lambda a, b: _compute_pearson(rankdata(a, axis=1), rankdata(b, axis=1)))


def _correlate_known(first: Array, second: Array, how: Callable[[Array, Array], Array]) -> Array:
    one: NDArray[np.bool_] = is_informative(first)
    other: NDArray[np.bool_] = is_informative(second)
    r: Array = np.full(len(first), np.nan)
    np.copyto(r, 0.0, where=one | other)
    both = np.flatnonzero(one & other)
    if both.size:
        r[both] = how(first[both], second[both])
    return r


def compute_relative_difference(first: Array, second: Array) -> Array:
    """|a - b| over the mean of |a| and |b|, per map [b]: 0 the same, 2 opposite; NaN where both are zero."""
    size = (np.linalg.norm(first, axis=1) + np.linalg.norm(second, axis=1)) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.linalg.norm(first - second, axis=1) / size)


def average_known(values: Array) -> float:
    """The mean of what is known; NaN when nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _compute_pearson(first: Array, second: Array) -> Array:
    return np.asarray((_normalise_rows(first) * _normalise_rows(second)).sum(axis=1))


def _normalise_rows(maps: Array) -> Array:
    # scaled first, so that maps of 1e-30 or 1e+30 square without loss
    centred = maps / np.abs(maps).max(axis=1, keepdims=True)
    centred = centred - centred.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True))
