"""Selective prediction: what the error becomes when the least sure cases are handed to a reader.

A risk-coverage curve keeps the surest cases; its mean is the AURC (Geifman 2019), here a `Score`, so that the bootstrap
over patients and the paired comparison apply. Cases of equal confidence are kept in random order, in expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import digamma

from sightline.errors import RunError
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.estimate import Estimate, FloatArray, IntArray, Score
from sightline.metrics.predictions import Predictions

Confidence = Literal["top", "doctor"]


def compute_confidence(probabilities: FloatArray, kind: Confidence = "doctor") -> FloatArray:
    """How sure a prediction is, [n] of probabilities [n, k]; larger is surer.

    Args:
        probabilities: rows that do not sum to one (independent classes) are divided by their sum first.
        kind: `top`, the largest probability; `doctor`, the sum of squares: DOCTOR (Granese 2021) rejects where
            1 - sum p² is large against it. For two classes both give the same order.

    Raises:
        RunError: an unknown kind.
    """
    total = probabilities.sum(axis=1, keepdims=True)
    shares = np.divide(
        probabilities, total, out=np.full_like(probabilities, 1 / probabilities.shape[1]), where=total > 0
    )
    if kind == "top":
        return np.asarray(shares.max(axis=1))
    if kind == "doctor":
        return np.asarray((shares**2).sum(axis=1).round(12))  # the order of classes makes no difference
    raise RunError(f"There is no confidence {kind!r}; expected one of top, doctor.")


@dataclass(frozen=True)
class AURC:
    """Mean error over all coverages, the surest cases first; less is better.

    Attributes:
        by: what orders the cases: a confidence; `random`, which gives the error rate; `oracle`, errors last, the least
            that this error rate allows.
        excess: less the oracle's: what the confidence alone loses (E-AURC).
        name: what the score is called in tables.
    """

    by: Literal["top", "doctor", "random", "oracle"] = "doctor"
    excess: bool = False
    name: str = "AURC"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Area under the risk-coverage curve per weighting."""
        wrong = probabilities.argmax(axis=1) != labels
        least = _compute_mean_risk(~wrong, wrong, weights)
        if self.by == "oracle":
            return least
        sure = np.zeros(len(labels)) if self.by == "random" else compute_confidence(probabilities, self.by)
        found = _compute_mean_risk(sure, wrong, weights)
        return found - least if self.excess else found


@dataclass(frozen=True)
class SelectiveAccuracy:
    """Accuracy of the surest share of the cases, the others rejected.

    Attributes:
        coverage: share kept, more than 0 up to 1.
        by: what orders the cases.
        name: what the score is called in tables.
    """

    coverage: float = 0.8
    by: Confidence = "doctor"
    name: str = "accuracy of the surest"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Share of hits among the kept, of a group of equal confidence at the limit in expectation."""
        kept, wrong = _group_ties(
            compute_confidence(probabilities, self.by), probabilities.argmax(axis=1) != labels, weights
        )
        limit = self.coverage * kept.sum(axis=1, keepdims=True)
        before = np.cumsum(kept, axis=1) - kept
        taken = np.clip(limit - before, 0.0, kept)
        share = np.divide(taken, kept, out=np.zeros_like(kept), where=kept > 0)
        total = limit[:, 0]
        risk = np.divide((share * wrong).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
        return np.asarray(1.0 - risk)


def compute_risk_coverage(predictions: Predictions, by: Confidence = "doctor") -> tuple[FloatArray, FloatArray]:
    """Points of the curve: share of the cases kept and their error rate, one point a confidence that occurs."""
    wrong = predictions.probabilities.argmax(axis=1) != predictions.labels
    sure = compute_confidence(predictions.probabilities, by)
    kept, errors = _group_ties(sure, wrong, np.ones((1, len(predictions))))
    total = np.cumsum(kept[0])
    return total / total[-1], np.cumsum(errors[0]) / total


def compute_rejection_report(predictions: Predictions, *, coverages: Sequence[float] = (0.8, 0.9)) -> list[Estimate]:
    """AURC by both confidences beside chance and the least possible, the excess, and accuracy at some coverages.

    Raises:
        RunError: a coverage that is no share.
    """
    if any(not 0.0 < coverage <= 1.0 for coverage in coverages):
        raise RunError(f"A coverage is more than 0 and at most 1; got {list(coverages)}.")
    scores: list[Score] = [
        AURC("doctor", name="AURC, DOCTOR"),
        AURC("top", name="AURC, largest probability"),
        AURC("random", name="AURC, chance (the error rate)"),
        AURC("oracle", name="AURC, least possible"),
        AURC("doctor", excess=True, name="excess AURC, DOCTOR"),
    ]
    scores += [SelectiveAccuracy(c, name=f"accuracy of the surest {c:.0%}") for c in coverages]
    return [estimate_score([predictions], score) for score in scores]


def _group_ties(sure: FloatArray | IntArray, wrong: IntArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weight and weight of errors per group of equal confidence, both [r, groups], the surest first."""
    order = np.argsort(-sure.astype(np.float64), kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(sure[order].astype(np.float64)) != 0])
    ordered = weights[:, order]
    return np.add.reduceat(ordered, starts, axis=1), np.add.reduceat(ordered * wrong[order], starts, axis=1)


def _compute_mean_risk(sure: FloatArray | IntArray, wrong: IntArray, weights: FloatArray) -> FloatArray:
    """Mean over n = 1 .. W of the expected error rate of the n surest, of total weight W.

    Within a group of weight w and error rate e after W' cases with E' errors, the n-th has (E' + n e) / (W' + n), which
    sums to w e + (E' - e W') (H(W' + w) - H(W')), H the harmonic number; it equals counting copies for whole weights.
    """
    weight, errors = _group_ties(sure, wrong, weights)
    rate = np.divide(errors, weight, out=np.zeros_like(weight), where=weight > 0)
    before, errors_before = np.cumsum(weight, axis=1) - weight, np.cumsum(errors, axis=1) - errors
    harmonic = digamma(before + weight + 1.0) - digamma(before + 1.0)
    total = weight.sum(axis=1)
    summed = (errors + (errors_before - rate * before) * harmonic).sum(axis=1)
    return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
