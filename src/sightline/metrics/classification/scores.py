"""Scores of class probabilities, computed for many weightings of the cases at once.

A score takes labels [n], probabilities [n, k] and weights [r, n], and gives values [r]; weight 2 counts a case twice.
A bootstrap of 2000 replicates is thus one call with 2000 rows of weights, the cases sorted once. NaN marks a weighting
for which the score is not defined (a class it needs has no weight); `Estimate` turns that into None with a reason.
Every score here equals scikit-learn's of the same name where all classes occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.metrics.estimate import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Accuracy:
    """Share of cases whose most probable class is the label; the lower class index wins a tie."""

    name: str = "accuracy"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Weighted share of hits."""
        return _divide(weights @ (probabilities.argmax(axis=1) == labels), weights.sum(axis=1))


@dataclass(frozen=True)
class BalancedAccuracy:
    """Mean over classes of the share of that class's cases that are named right; needs every class."""

    name: str = "balanced accuracy"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Mean recall over classes."""
        truth = _encode_one_hot(labels, probabilities.shape[1])
        hits = (probabilities.argmax(axis=1) == labels)[:, None] * truth
        recall: FloatArray = _divide(weights @ hits, weights @ truth).mean(axis=1)
        return recall


@dataclass(frozen=True)
class AUC:
    """Area under the ROC curve of one class against the rest, from ranks; ties count half (Hanley & McNeil 1982)."""

    positive: int
    name: str = "AUC"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Chance that a positive case scores above a negative one."""
        return compute_auc(probabilities[:, self.positive], labels == self.positive, weights)


@dataclass(frozen=True)
class OneVsRestAUC:
    """Unweighted mean over classes of the AUC of that class against the rest; needs every class."""

    name: str = "AUC one-vs-rest"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Mean over classes."""
        each = [compute_auc(probabilities[:, c], labels == c, weights) for c in range(probabilities.shape[1])]
        mean: FloatArray = np.mean(each, axis=0)
        return mean


@dataclass(frozen=True)
class HandTillAUC:
    """Multi-class AUC: mean over class pairs of (A(i|j) + A(j|i)) / 2 (Hand & Till 2001, eq. 7); needs every class."""

    name: str = "AUC Hand & Till"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Mean over ordered class pairs, each on the cases of the two classes alone."""
        each = []
        for i in range(probabilities.shape[1]):
            for j in range(probabilities.shape[1]):
                if i != j:
                    pair = (labels == i) | (labels == j)
                    each.append(compute_auc(probabilities[pair, i], labels[pair] == i, weights[:, pair]))
        mean: FloatArray = np.mean(each, axis=0)
        return mean


@dataclass(frozen=True)
class PairAUC:
    """How well two classes are told apart: (A(i|j) + A(j|i)) / 2 on their cases alone (Hand & Till 2001, section 3).

    A(i|j) is the chance that a case of i has a larger p(i) than a case of j; ties count half. With rows that sum to one
    and two classes both are the ordinary AUC; with more classes, or independent ones, they differ.
    """

    first: int
    second: int
    name: str = "AUC of a pair"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Mean of both directions, NaN where either class has no weight."""
        pair = (labels == self.first) | (labels == self.second)
        side, kept = labels[pair] == self.first, weights[:, pair]
        forth = compute_auc(probabilities[pair, self.first], side, kept)
        back = compute_auc(probabilities[pair, self.second], ~side, kept)
        mean: FloatArray = (forth + back) / 2.0
        return mean


@dataclass(frozen=True)
class AveragePrecision:
    """Precision averaged over the steps of recall, without interpolation; mean over classes if none is positive."""

    positive: int | None = None
    name: str = "average precision"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Average precision of the positive class, or the mean over classes."""
        classes = range(probabilities.shape[1]) if self.positive is None else (self.positive,)
        each = [compute_average_precision(probabilities[:, c], labels == c, weights) for c in classes]
        mean: FloatArray = np.mean(each, axis=0)
        return mean


@dataclass(frozen=True)
class F1:
    """2 TP / (2 TP + FP + FN) of the positive class, or averaged over classes.

    Attributes:
        average: `positive` for one class; `macro` for the plain mean (needs every class); `weighted` for the mean
            weighted by how often a class occurs.
        positive: class index for `positive`.
        threshold: a case is called positive from this probability on; None: where it is the most probable class.
        name: what the score is called in tables.
    """

    average: Literal["positive", "macro", "weighted"] = "macro"
    positive: int = -1
    threshold: float | None = None
    name: str = "F1"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """The F1 score per weighting."""
        k = probabilities.shape[1]
        if self.average == "positive":
            positive = self.positive % k
            truth = (labels == positive)[:, None]
            called = predict_positive(probabilities, positive, self.threshold)[:, None]
        else:
            truth, called = _encode_one_hot(labels, k), _encode_one_hot(probabilities.argmax(axis=1), k)
        support = weights @ truth
        score = _divide(2.0 * (weights @ (truth & called)), support + weights @ called)
        if self.average == "weighted":
            return weigh_by_support(score, support)
        mean: FloatArray = np.where(support > 0, score, np.nan).mean(axis=1)
        return mean


@dataclass(frozen=True)
class Sensitivity:
    """Share of the positive cases that are called positive."""

    positive: int
    threshold: float | None = None
    name: str = "sensitivity"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """True positives over positives."""
        truth = labels == self.positive
        called = predict_positive(probabilities, self.positive, self.threshold)
        return _divide(weights @ (truth & called), weights @ truth)


@dataclass(frozen=True)
class Specificity:
    """Share of the other cases that are not called positive."""

    positive: int
    threshold: float | None = None
    name: str = "specificity"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """True negatives over negatives."""
        truth = labels != self.positive
        called = predict_positive(probabilities, self.positive, self.threshold)
        return _divide(weights @ (truth & ~called), weights @ truth)


@dataclass(frozen=True)
class Precision:
    """Share of the cases called positive that are; NaN where none is called."""

    positive: int
    threshold: float | None = None
    name: str = "precision"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """True positives over all called positive."""
        called = predict_positive(probabilities, self.positive, self.threshold)
        return _divide(weights @ (called & (labels == self.positive)), weights @ called)


@dataclass(frozen=True)
class Prevalence:
    """Share of the positive cases: what precision, average precision and accuracy are to be read against."""

    positive: int
    name: str = "prevalence"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Positive cases over all."""
        return _divide(weights @ (labels == self.positive), weights.sum(axis=1))


@dataclass(frozen=True)
class Brier:
    """Mean squared distance of the probability vector from the label's (Brier 1950), halved for two classes."""

    name: str = "Brier score"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Lower is better; 0.25 is what 50:50 says of two classes."""
        k = probabilities.shape[1]
        distance = ((probabilities - _encode_one_hot(labels, k)) ** 2).sum(axis=1) / (2.0 if k == 2 else 1.0)
        return _divide(weights @ distance, weights.sum(axis=1))


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error of the named class in equally wide bins of confidence (Guo 2017, eq. 3).

    It is biased upwards in small samples, more so with more bins; read it beside what a perfectly calibrated model
    would print (`estimates.simulate_perfect_calibration`).
    """

    bins: int = 10
    name: str = "calibration error"

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Sum over bins of the absolute gap between hits and confidence, over all cases."""
        confidence = probabilities.max(axis=1)
        index = self.bin_of(confidence)
        gap = (probabilities.argmax(axis=1) == labels) - confidence
        per_bin = weights @ (gap[:, None] * _encode_one_hot(index, self.bins))
        return _divide(np.abs(per_bin).sum(axis=1), weights.sum(axis=1))

    def bin_of(self, confidence: FloatArray) -> IntArray:
        """The bin of each confidence [n]; one on a bin's upper edge belongs to that bin, as in the paper."""
        return np.clip(np.ceil(confidence * self.bins).astype(np.int64) - 1, 0, self.bins - 1)


def weigh_by_support(values: FloatArray, support: FloatArray) -> FloatArray:
    """Mean of values [r, k] of k classes weighted by their support [r, k]: "Avg." of Jimenez-Sanchez 2018, table II.

    A class without support has no part in it, whatever its value, NaN included.
    """
    return _divide(np.where(support > 0, values * support, 0.0).sum(axis=1), support.sum(axis=1))


def predict_positive(probabilities: FloatArray, positive: int, threshold: float | None) -> BoolArray:
    """Cases called positive, bool [n]: from the threshold on, or where the class is the most probable one."""
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=1) == positive)
    return np.asarray(probabilities[:, positive] >= threshold)


def compute_auc(scores: FloatArray, positive: BoolArray, weights: FloatArray) -> FloatArray:
    """Weighted Mann-Whitney statistic: scores [n], positive [n], weights [r, n] to AUC [r], NaN without both sides."""
    gains, losses = _group_ties(scores, positive, weights)
    below = np.cumsum(losses, axis=1) - losses
    area = (gains * (below + losses / 2.0)).sum(axis=1)
    return _divide(area, gains.sum(axis=1) * losses.sum(axis=1))


def compute_average_precision(scores: FloatArray, positive: BoolArray, weights: FloatArray) -> FloatArray:
    """Average precision: scores [n], positive [n], weights [r, n] to values [r], NaN without a positive case."""
    gains, losses = _group_ties(-scores, positive, weights)
    hits = np.cumsum(gains, axis=1)
    precision = _divide(hits, hits + np.cumsum(losses, axis=1))
    return _divide(np.where(gains > 0, gains * precision, 0.0).sum(axis=1), gains.sum(axis=1))


def _group_ties(scores: FloatArray, positive: BoolArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weight of positive and of negative cases per group of equal scores, both [r, groups], scores ascending."""
    if scores.size == 0:
        empty = np.zeros((weights.shape[0], 0))
        return empty, empty
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    ordered, side = weights[:, order], positive[order]
    if starts.size == scores.size:
        # no two are equal: every group is a case
        return np.asarray(ordered * side), np.asarray(ordered * ~side)
    return np.add.reduceat(ordered * side, starts, axis=1), np.add.reduceat(ordered * ~side, starts, axis=1)


def _encode_one_hot(index: IntArray, k: int) -> BoolArray:
    return np.asarray(index[:, None] == np.arange(k))


def _divide(a: NDArray[np.generic], b: NDArray[np.generic]) -> FloatArray:
    """Quotient of a and b, NaN where b is zero."""
    quotient: FloatArray = np.full(np.broadcast(a, b).shape, np.nan)
    np.divide(a, b, out=quotient, where=np.asarray(b) > 0)
    return quotient
