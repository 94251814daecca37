"""The 95% interval of an AUC over patients and trainings: it holds the truth near 1 and with few patients of a class.

The bootstrap's percentile interval is too short there and lies above the truth. This one is a score interval
(`score_intervals`) with the variance of the binormal model for rows in groups of a patient: chances that two pairs of
a positive and a negative row are both in order depend on whether the pairs share a row or a patient. The observed
variance (Obuchowski 1997) scales it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri, owens_t
from scipy.stats import rankdata

from sightline.metrics.estimate import BoolArray, FloatArray, IntArray
from sightline.metrics.statistics.delong import compute_placements
from sightline.metrics.statistics.patient_variance import Spread
from sightline.metrics.statistics.score_intervals import Model, compute_score_interval


def compute_auc_interval(scores: FloatArray, truth: BoolArray, patient: IntArray) -> tuple[float, float]:
    """The 95% interval of the mean AUC of t trainings.

    Args:
        scores: [t, n], score of each row by each training; larger is more positive.
        truth: [n], whether the row is positive; both kinds must occur in at least two patients.
        patient: [n], number of the row's patient.

    Returns:
        Both ends.

    Example:
        >>> import numpy as np
        >>> low, high = compute_auc_interval(np.arange(20.0)[None], np.arange(20) > 9, np.arange(20))
        >>> bool(0.7 < low < 0.9), high
        (True, 1.0)
    """
    return compute_score_interval(
        compute_auc_spread(scores, truth, patient), fit_binormal_model(scores, truth, patient)
    )


def compute_auc_spread(scores: FloatArray, truth: BoolArray, patient: IntArray) -> Spread:
    """Variance and covariance of the trainings' AUCs over patients (Obuchowski 1997, eq. 3 to 5).

    Args as in `compute_auc_interval`.
    """
    size = int(patient.max()) + 1
    on_positive, on_negative, points = [], [], []
    for each in scores:
        v10, v01 = compute_placements(each, truth)
        area = float(v10.mean())
        points.append(area)
        on_positive.append(np.bincount(patient[truth], weights=v10 - area, minlength=size) / v10.size)
        on_negative.append(np.bincount(patient[~truth], weights=v01 - area, minlength=size) / v01.size)
    positive, negative = np.stack(on_positive), np.stack(on_negative)
    with_positive, with_negative = (np.unique(patient[side]).size for side in (truth, ~truth))
    every = np.unique(patient).size
    cross = positive @ negative.T
    covariance = (
        with_positive / (with_positive - 1) * (positive @ positive.T)
        + with_negative / (with_negative - 1) * (negative @ negative.T)
        + every / (every - 1) * (cross + cross.T)
    )
    influence = (positive + negative).mean(axis=0)
    return Spread.from_points(np.array(points), covariance, influence, min(with_positive, with_negative))


def fit_binormal_model(scores: FloatArray, truth: BoolArray, patient: IntArray) -> Model:
    """The variance of an AUC of a given value, for these rows of these patients.

    Positive and negative scores are taken as normal with one variance, rows of a patient as correlated by what the
    scores themselves show (`estimate_patient_correlation`). Two pairs of rows are then both in order with the chance
    that two
    normal variables of correlation (r+ + r-) / 2 both exceed 0, r 1 for the same row, the patients' correlation for
    rows of one patient, 0 for others.
    """
    correlation = float(np.mean([estimate_patient_correlation(each, truth, patient) for each in scores]))
    shares = []
    for side in (truth, ~truth):
        m = np.bincount(patient[side]).astype(np.float64)
        rows = m.sum()
        same_row, same_patient = 1.0 / rows, float((m * (m - 1.0)).sum()) / rows**2
        shares.append(((1.0, same_row), (correlation, same_patient), (0.0, 1.0 - same_row - same_patient)))

    def compute_variance(values: FloatArray) -> FloatArray:
        at = ndtri(values)
        both: dict[float, FloatArray] = {}
        total = np.zeros(values.shape)
        for r_positive, share_positive in shares[0]:
            for r_negative, share_negative in shares[1]:
                r = (r_positive + r_negative) / 2.0
                if r not in both:
                    both[r] = values - 2.0 * owens_t(at, math.sqrt((1.0 - r) / (1.0 + r)))
                total += share_positive * share_negative * (both[r] - values**2)
        return total

    return compute_variance


def estimate_patient_correlation(scores: FloatArray, truth: BoolArray, patient: IntArray) -> float:
    """Correlation of two rows of one patient and class: one-way analysis of variance of the scores' normal ranks.

    Args:
        scores: [n].
        truth: [n].
        patient: [n].

    Returns:
        From 0 to 1; 0 where no patient has two rows of a class.
    """
    normal = np.zeros(scores.shape)
    for side in (truth, ~truth):
        ranks = np.asarray(rankdata(scores[side]))
        normal[side] = ndtri((ranks - 0.375) / (ranks.size + 0.25))
        normal[side] -= normal[side].mean()
    group = np.unique(np.stack([patient, truth.astype(np.int64)]), axis=1, return_inverse=True)[1].ravel()
    m = np.bincount(group).astype(np.float64)
    rows, groups = m.sum(), m.size
    if rows - groups < 1 or groups < 3:
        return 0.0
    means = np.bincount(group, weights=normal) / m
    between = float((m * means**2).sum()) / (groups - 2)
    within = float(((normal - means[group]) ** 2).sum()) / (rows - groups)
    typical = (rows - float((m**2).sum()) / rows) / (groups - 1)
    whole = between + (typical - 1.0) * within
    return min(max((between - within) / whole, 0.0), 1.0) if whole > 0 else 0.0
