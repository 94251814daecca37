"""Figures of merit of readers, and how they vary together because all read the same cases.

Covariances of Obuchowski & Rockette 1995, averaged as in Hillis 2007: `error`, the variance of one reader's figure in
one modality; `cov1`, same reader, other modality; `cov2`, other reader, same modality; `cov3`, both others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sightline.errors import RunError
from sightline.metrics.readers.study import ReaderStudy

FloatArray = NDArray[np.float64]
Figure = Literal["auc", "sensitivity", "specificity"]
Covariance = Literal["delong", "jackknife"]


def compute_placements(study: ReaderStudy) -> tuple[FloatArray, FloatArray]:
    """For each positive case the share of negatives rated lower, and the reverse: [t, r, m] and [t, r, n].

    Ties count half (DeLong, DeLong & Clarke-Pearson 1988).
    """
    positives, negatives = study.ratings[..., study.positive], study.ratings[..., ~study.positive]
    m, n = positives.shape[-1], negatives.shape[-1]
    ranks = rankdata(np.concatenate([positives, negatives], axis=-1), axis=-1)
    v10 = (ranks[..., :m] - rankdata(positives, axis=-1)) / n
    v01 = 1.0 - (ranks[..., m:] - rankdata(negatives, axis=-1)) / m
    return v10, v01


def compute_figures(study: ReaderStudy, figure: Figure = "auc") -> FloatArray:
    """The figure of merit of each reader in each modality, [t, r].

    Args:
        study: ratings; for sensitivity and specificity they are 0 or 1 (`ReaderStudy.above`).
        figure: empirical AUC, or the share of positive (negative) cases called right.

    Raises:
        RunError: ratings that are no calls where a share is asked for.
    """
    if figure == "auc":
        return np.asarray(compute_placements(study)[0].mean(axis=-1))
    return np.asarray(_mark_right_calls(study, figure).mean(axis=-1))


def jackknife(study: ReaderStudy, figure: Figure = "auc") -> FloatArray:
    """The figure of merit without each case in turn, [t, r, n cases]."""
    if figure == "auc":
        v10, v01 = compute_placements(study)
        m, n = v10.shape[-1], v01.shape[-1]
        area = v10.mean(axis=-1, keepdims=True)
        out = np.empty(study.ratings.shape)
        # a pair statistic: without a case, its pairs go
        out[..., study.positive] = (m * area - v10) / (m - 1)
        out[..., ~study.positive] = (n * area - v01) / (n - 1)
        return out
    right = _mark_right_calls(study, figure)
    k = right.shape[-1]
    share = right.mean(axis=-1, keepdims=True)
    out = np.repeat(share, study.ratings.shape[-1], axis=-1)
    out[..., study.positive if figure == "sensitivity" else ~study.positive] = (k * share - right) / (k - 1)
    return out


@dataclass(frozen=True)
class ErrorCovariances:
    """Variance and covariances of figures of merit over cases.

    Attributes:
        error, cov1, cov2, cov3: averaged over readers and modalities (see the module).
        error_of, cov2_of: [t], of each modality by itself.
        full: [t, r, t, r], every covariance.
    """

    error: float
    cov1: float
    cov2: float
    cov3: float
    error_of: FloatArray
    cov2_of: FloatArray
    full: FloatArray


def estimate_error_covariances(
    study: ReaderStudy, figure: Figure = "auc", method: Covariance = "delong"
) -> ErrorCovariances:
    """Covariances over cases by DeLong's formula (AUC and shares), or by leaving out a case at a time.

    Raises:
        RunError: ratings that are no calls where a share is asked for.
    """
    estimate: Callable[[ReaderStudy, Figure], FloatArray] = (
        _estimate_by_formula if method == "delong" else _estimate_by_jackknife
    )
    t, r = study.ratings.shape[:2]
    full = estimate(study, figure).reshape(t, r, t, r)
    same_t = np.eye(t, dtype=bool)[:, None, :, None] & np.ones((1, r, 1, r), dtype=bool)
    same_r = np.eye(r, dtype=bool)[None, :, None, :] & np.ones((t, 1, t, 1), dtype=bool)

    def average(where: NDArray[np.bool_]) -> float:
        return float(full[where].mean()) if where.any() else 0.0

    each = [full[i, :, i, :] for i in range(t)]
    off = ~np.eye(r, dtype=bool)
    return ErrorCovariances(
        error=average(same_t & same_r),
        cov1=average(~same_t & same_r),
        cov2=average(same_t & ~same_r),
        cov3=average(~same_t & ~same_r),
        error_of=np.array([np.diag(one).mean() for one in each]),
        cov2_of=np.array([one[off].mean() if r > 1 else 0.0 for one in each]),
        full=full,
    )


def _estimate_by_formula(study: ReaderStudy, figure: Figure) -> FloatArray:
    if figure != "auc":
        right = _mark_right_calls(study, figure).reshape(-1, int(_select_side(study, figure).sum()))
        return np.atleast_2d(np.cov(right)) / right.shape[1]
    v10, v01 = compute_placements(study)
    pairs = v10.shape[0] * v10.shape[1]
    s10, s01 = (np.atleast_2d(np.cov(v.reshape(pairs, -1))) for v in (v10, v01))
    return np.asarray(s10 / v10.shape[-1] + s01 / v01.shape[-1])


def _estimate_by_jackknife(study: ReaderStudy, figure: Figure) -> FloatArray:
    without = jackknife(study, figure)
    if figure != "auc":
        # only the cases that the share counts can be left out
        without = without[..., _select_side(study, figure)]
    k = without.shape[-1]
    flat = without.reshape(-1, k)
    return np.atleast_2d(np.cov(flat)) * (k - 1) ** 2 / k


def _select_side(study: ReaderStudy, figure: Figure) -> NDArray[np.bool_]:
    return study.positive if figure == "sensitivity" else ~study.positive


def _mark_right_calls(study: ReaderStudy, figure: Figure) -> FloatArray:
    """1 where a call of the counted side is right, [t, r, k]."""
    if not np.isin(study.ratings, (0.0, 1.0)).all():
        raise RunError(
            f"The {figure} of readers needs calls of 0 or 1; got ratings from {study.ratings.min():g} to "
            f"{study.ratings.max():g}.",
            "State from which rating on a case is called positive (ReaderStudy.above).",
        )
    calls = study.ratings[..., _select_side(study, figure)]
    return calls if figure == "sensitivity" else 1.0 - calls
