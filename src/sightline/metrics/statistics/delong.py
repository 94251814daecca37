"""The paired test of two AUCs on the same cases, with or without regard for cases of one patient."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm, rankdata

from sightline.errors import count_noun
from sightline.metrics.estimate import BoolArray, Comparison, FloatArray
from sightline.metrics.predictions import Predictions, align
from sightline.metrics.statistics.bootstrap import CONFIDENCE, FEWEST_OF_A_CLASS, explain_undefined


def delong(
    predictions_a: Predictions, predictions_b: Predictions, *, positive: str | None = None, by_patient: bool = True
) -> Comparison:
    """The difference of two AUCs on the same cases (DeLong, DeLong & Clarke-Pearson 1988), normal approximation.

    DeLong's test takes every case as independent. Two images of one patient are not, which makes its interval too
    short; by default the variance is therefore summed over patients (Obuchowski 1997). With one case a patient both
    are the same. Neither knows of the chance in training: use `comparison.paired_bootstrap` over seeds for that. With
    two positive patients the normal approximation claims a difference that is not there in 12 of 100 studies instead
    of 5, so that fewer than four patients of a class give no p.

    Args:
        predictions_a: of method a.
        predictions_b: of method b, on the same cases.
        positive: the positive class against all others; None: the last one.
        by_patient: group cases by patient; False is the test of 1988.

    Raises:
        RunError: the tables are not over the same cases.
        CohortError: no such class.
    """
    a, b = align([predictions_a, predictions_b])
    index = a.class_index(positive)
    truth = a.labels == index
    name, n = f"AUC of {a.classes[index]}", a.counts()
    if truth.all() or not truth.any():
        return Comparison(name, None, None, None, n=n, method="no test", why=explain_undefined(a))
    placed = [compute_placements(run.probabilities[:, index], truth) for run in (a, b)]
    area_a, area_b = (float(v10.mean()) for v10, _ in placed)
    groups = np.unique(np.asarray(a.patient_ids if by_patient else a.case_ids), return_inverse=True)[1]
    method = "DeLong, clustered by patient (Obuchowski 1997)" if by_patient else "DeLong, images as if independent"
    difference = area_a - area_b
    fewest, side = min((np.unique(groups[kept]).size, word) for kept, word in ((truth, "with"), (~truth, "without")))
    if fewest < FEWEST_OF_A_CLASS:
        counted = count_noun(fewest, "patient" if by_patient else "case")
        why = f"no p: {counted} {side} {a.classes[index]}, at least {FEWEST_OF_A_CLASS} needed"
        return Comparison(name, area_a, area_b, difference, n=n, method=method, why=why)
    # the placement values are linear, so the variance of a difference is that of the differences of placements
    variance = _compute_variance(placed[0][0] - placed[1][0], placed[0][1] - placed[1][1], truth, groups)
    if variance <= 1e-24:
        why = "no p: the two methods rank all cases alike"
        if abs(difference) > 1e-12:
            # perfect against worst: no case varies, though the difference is as large as can be
            why = (
                f"no p: within each class all ranks differ alike (AUC {area_a:.3f} against {area_b:.3f}), so that "
                "DeLong's variance is 0; the test by swapped patients has a p"
            )
        return Comparison(name, area_a, area_b, difference, n=n, method=method, why=why)
    error = math.sqrt(variance)
    reach = float(ndtri((1 + CONFIDENCE) / 2)) * error
    p_value = float(2.0 * norm.sf(abs(difference) / error))
    return Comparison(name, area_a, area_b, difference, difference - reach, difference + reach, p_value, n, method)


def compute_placements(scores: FloatArray, truth: BoolArray) -> tuple[FloatArray, FloatArray]:
    """For each positive case the share of negatives below it, for each negative the share of positives above it."""
    positives, negatives = scores[truth], scores[~truth]
    m, n = positives.size, negatives.size
    ranks = np.asarray(rankdata(np.concatenate([positives, negatives])))
    v10 = (ranks[:m] - np.asarray(rankdata(positives))) / n
    v01 = 1.0 - (ranks[m:] - np.asarray(rankdata(negatives))) / m
    return np.asarray(v10), np.asarray(v01)


def _compute_variance(v10: FloatArray, v01: FloatArray, truth: BoolArray, groups: np.ndarray) -> float:
    """Variance of the mean placement from sums over groups, two of each side or more (Obuchowski 1997, eq. 3 to 5)."""
    m, n, area = v10.size, v01.size, float(v10.mean())
    size = int(groups.max()) + 1
    off_10 = np.bincount(groups[truth], weights=v10 - area, minlength=size)
    off_01 = np.bincount(groups[~truth], weights=v01 - area, minlength=size)
    with_10, with_01 = np.unique(groups[truth]).size, np.unique(groups[~truth]).size
    s10 = with_10 / (with_10 - 1) / m * float((off_10**2).sum())
    s01 = with_01 / (with_01 - 1) / n * float((off_01**2).sum())
    s11 = size / (size - 1) * float((off_10 * off_01).sum())
    # the three sums are estimated over different groups, so a tiny negative total can arise; it means none
    return max(0.0, s10 / m + s01 / n + 2.0 * s11 / (m * n))
