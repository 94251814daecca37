"""Thresholds that are fixed on validation and carried, as they are, to the test set and to other sites.

A case is called positive from the threshold on. Thresholds lie halfway between two neighbouring probabilities, so that
rounding does not decide a call. Likelihood ratios and predictive values have intervals on the log scale over patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sightline.errors import CohortError, RunError, count_noun
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.scores import Sensitivity, Specificity
from sightline.metrics.decision.influence import (
    FEWEST_PATIENTS,
    Linearisation,
    compute_logit,
    compute_reach,
    linearise_share,
)
from sightline.metrics.estimate import Estimate
from sightline.metrics.predictions import Predictions
from sightline.structures.notation import Notation, write_fields

FloatArray = NDArray[np.float64]
Rule = Literal["youden", "sensitivity", "specificity", "stated", "miss rate"]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and where it comes from.

    Attributes:
        positive: name of the class that is called.
        threshold: a case is called from this probability on.
        rule: how it was chosen.
        target: what was asked for (a sensitivity, say), or None.
        chosen_on: what it was chosen on, in words and numbers (cohort, split, patients, what was reached there).

    Raises:
        RunError: a threshold that is no number.
    """

    positive: str
    threshold: float
    rule: Rule
    target: float | None = None
    chosen_on: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a threshold that is no number."""
        if not math.isfinite(self.threshold):
            raise RunError(f"An operating point has the threshold {self.threshold}; expected a finite number.")

    @property
    def name(self) -> str:
        """What it is called in tables: `Youden`, `sensitivity 0.95`, `miss rate 0.05`."""
        if self.rule == "youden":
            return "Youden"
        return f"{self.rule} {self.threshold if self.target is None else self.target:g}"

    def notation(self) -> Notation:
        """What the UIDs of results hold of it."""
        return write_fields(
            "OperatingPoint",
            positive=self.positive,
            threshold=self.threshold,
            rule=self.rule,
            target=self.target,
            chosen_on=self.chosen_on,
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON."""
        return {**asdict(self), "chosen_on": dict(self.chosen_on)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> OperatingPoint:
        """What `to_dict` gave.

        Raises:
            RunError: fields that are no operating point.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise RunError(f"This is no saved operating point ({error}).", "Calibrate the run again.") from None


def choose_point(
    validation: Predictions, rule: Rule, target: float | None = None, *, positive: str | None = None, where: str = "val"
) -> OperatingPoint:
    """Choose a threshold on validation predictions.

    Args:
        validation: where the threshold is chosen; study-wise where studies are what is called.
        rule: `youden`, the largest sensitivity + specificity - 1 (Youden 1950; of equals the more sensitive);
            `sensitivity` or `specificity`, the threshold that reaches at least `target` and gives most of the other;
            `stated`, the threshold `target` itself.
        target: what is to be reached.
        positive: the class that is called; None: the last one.
        where: name of the validation set, kept with the point.

    Raises:
        RunError: a target that is no share, or none where one is needed.
        CohortError: validation holds one class only.
    """
    index = validation.class_index(positive)
    name = validation.classes[index]
    if rule != "youden" and (target is None or not 0.0 < target <= 1.0):
        raise RunError(f"An operating point by {rule} needs a number above 0 up to 1; got {target}.")
    truth = validation.labels == index
    if truth.all() or not truth.any():
        raise CohortError(
            f"No operating point can be chosen on {where}: {int(truth.sum())} of {len(validation)} cases are {name}.",
            "Choose it on predictions that hold both classes.",
        )
    scores = validation.probabilities[:, index]
    if rule == "stated":
        threshold = float(target or 0.0)
    else:
        thresholds, sensitivity, specificity = _compute_curve(scores, truth)
        if rule == "youden":
            gain = sensitivity + specificity
            best = np.flatnonzero(gain >= gain.max() - 1e-12)[0]
        elif rule == "sensitivity":
            best = np.flatnonzero(sensitivity >= float(target or 0.0) - 1e-12)[-1]
        else:
            best = np.flatnonzero(specificity >= float(target or 0.0) - 1e-12)[0]
        threshold = float(thresholds[best])
    called = scores >= threshold
    reached = {
        "split": where,
        "unit": validation.unit,
        **validation.counts(),
        "sensitivity": float(called[truth].mean()),
        "specificity": float((~called[~truth]).mean()),
    }
    return OperatingPoint(name, threshold, rule, target, reached)


def _compute_curve(scores: FloatArray, truth: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Thresholds that part the scores, rising, with sensitivity and specificity at each."""
    values = np.unique(scores)
    # below the least, between neighbours, above the largest
    above = np.nextafter(values[-1], np.inf)
    thresholds = np.concatenate([[values[0]], (values[:-1] + values[1:]) / 2.0, [above]])
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    sensitivity = 1.0 - np.searchsorted(positives, thresholds, side="left") / positives.size
    specificity = np.searchsorted(negatives, thresholds, side="left") / negatives.size
    return thresholds, sensitivity, specificity


def compute_point_estimates(
    predictions: Predictions,
    point: OperatingPoint,
    *,
    prevalences: tuple[float, ...] = (),
) -> list[Estimate]:
    """What a fixed threshold does on other predictions.

    Sensitivity, specificity, both likelihood ratios, and PPV and NPV at the prevalence of these cases and at each
    stated one. A ratio with an empty cell has no value, and says why.

    Args:
        predictions: of the test set, or of another site.
        point: chosen elsewhere.
        prevalences: shares of positive cases to state PPV and NPV for.

    Raises:
        CohortError: no such class.
        RunError: a prevalence that is no share between 0 and 1.
    """
    if any(not 0.0 < prevalence < 1.0 for prevalence in prevalences):
        raise RunError(f"A prevalence lies between 0 and 1; got {list(prevalences)}.")
    index = predictions.class_index(point.positive)
    truth = predictions.labels == index
    called = predictions.probabilities[:, index] >= point.threshold
    at = f"at {point.name} (threshold {point.threshold:.4g})"
    n = {**predictions.counts(), "true_positives": int((truth & called).sum())}
    n |= {"false_negatives": int((truth & ~called).sum()), "false_positives": int((~truth & called).sum())}
    n |= {"true_negatives": int((~truth & ~called).sum())}
    found = [
        estimate_score([predictions], score, n=n)
        for score in (
            Sensitivity(index, point.threshold, f"sensitivity {at}"),
            Specificity(index, point.threshold, f"specificity {at}"),
        )
    ]
    ids = predictions.patient_ids
    sensitive = linearise_share(called.astype(np.float64), truth, ids)
    specific = linearise_share((~called).astype(np.float64), ~truth, ids)
    plus = sensitive.logarithm() - specific.complement().logarithm()
    minus = sensitive.complement().logarithm() - specific.logarithm()
    found.append(_estimate_ratio(f"positive likelihood ratio {at}", plus, ids, n))
    found.append(_estimate_ratio(f"negative likelihood ratio {at}", minus, ids, n))
    here = float(truth.mean())
    for prevalence, words in ((here, "of these cases"), *((p, "as stated") for p in prevalences)):
        if not 0.0 < prevalence < 1.0:
            continue
        with_prevalence = f"at prevalence {prevalence:.3g} {words}, {at}"
        odds = compute_logit(prevalence)
        found.append(_estimate_predictive_value(f"PPV {with_prevalence}", plus, odds, 1.0, ids, n))
        found.append(_estimate_predictive_value(f"NPV {with_prevalence}", minus, -odds, -1.0, ids, n))
    return found


def _estimate_ratio(name: str, ratio: Linearisation, ids: tuple[str, ...], n: Mapping[str, int]) -> Estimate:
    if not math.isfinite(ratio.value):
        return Estimate(name, None, n=n, method="no ratio", why=_EMPTY)
    low, high, method, why = _compute_ends(ratio, ids)
    value = math.exp(ratio.value)
    if low is None or high is None:
        return Estimate(name, value, n=n, method=method, why=why)
    return Estimate(name, value, math.exp(low), math.exp(high), n, method, why)


def _estimate_predictive_value(
    name: str, ratio: Linearisation, odds: float, sign: float, ids: tuple[str, ...], n: Mapping[str, int]
) -> Estimate:
    """A predictive value: log odds of the disease plus (NPV: less) the log likelihood ratio (Bayes)."""
    if not math.isfinite(ratio.value):
        return Estimate(name, None, n=n, method="no ratio", why=_EMPTY)
    low, high, method, why = _compute_ends(ratio, ids)
    value = float(expit(odds + sign * ratio.value))
    if low is None or high is None:
        return Estimate(name, value, n=n, method=method, why=why)
    ends = sorted(float(expit(odds + sign * end)) for end in (low, high))
    return Estimate(name, value, ends[0], ends[1], n, method, why)


_EMPTY = "not defined: a cell of the fourfold table is empty, or one class is missing"


def _compute_ends(ratio: Linearisation, ids: tuple[str, ...]) -> tuple[float | None, float | None, str, str]:
    method = "log scale, delta method over patients (Simel 1991), t quantile"
    if ratio.patients < FEWEST_PATIENTS:
        return (
            None,
            None,
            method,
            f"no interval: {count_noun(ratio.patients, 'patient')} of a class, {FEWEST_PATIENTS} needed",
        )
    half = compute_reach(ratio.error(ids), ratio.freedom)
    return ratio.value - half, ratio.value + half, method, ""
