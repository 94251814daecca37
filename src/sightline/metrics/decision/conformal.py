"""A promised rate of misses, kept at other sites: conformal risk control (Angelopoulos et al. 2022).

A threshold t is chosen on n calibration patients so that a patient who comes next, exchangeable with them, is lost with
probability at most alpha: `(sum of losses at t + 1) / (n + 1) <= alpha`, losses from 0 to 1 that fall with t. It is a
promise over calibration sets: a single one may lie above. It needs no assumption on the network, and about 1 / alpha
patients. After a shift the promise holds again when the threshold is chosen on local patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import CohortError, RunError
from sightline.metrics.decision.operating_points import OperatingPoint
from sightline.metrics.estimate import Estimate, FloatArray
from sightline.metrics.predictions import Predictions
from sightline.structures.notation import Notation, write_fields

Of = Literal["positives", "all"]


def choose_risk_threshold(scores: FloatArray, share: FloatArray, units: int, alpha: float) -> float | None:
    """The largest threshold with which the promised rate holds; None where there are too few units.

    Args:
        scores: [n]; a row is lost where its score lies below the threshold.
        share: [n], what the loss of a row adds to the loss of its unit (patient); those of a unit sum to at most 1.
        units: number of exchangeable units, also those without a row.
        alpha: promised rate.

    Source:
        Angelopoulos et al. 2022, eq. 4, with B = 1.
    """
    allowed = alpha * (units + 1) - 1.0
    if allowed < -1e-12:
        return None
    order = np.argsort(scores, kind="stable")
    ordered, lost = scores[order], np.cumsum(share[order])
    # with a threshold at ordered[i] all scores strictly below it are lost
    below = np.searchsorted(ordered, ordered, side="left")
    losses = np.where(below > 0, lost[np.maximum(below - 1, 0)], 0.0)
    fine = np.flatnonzero(losses <= allowed + 1e-12)
    if fine.size == ordered.size and (lost[-1] if lost.size else 0.0) <= allowed + 1e-12:
        return math.inf
    return float(ordered[fine[-1]]) if fine.size else None


def choose_miss_rate_point(
    calibration: Predictions,
    alpha: float,
    *,
    positive: str | None = None,
    of: Of = "positives",
    where: str = "val",
) -> OperatingPoint:
    """A threshold with a promised rate of misses, study by study.

    Args:
        calibration: predictions that no part of the network was trained on; images are put together into studies.
        alpha: promised rate, e.g. 0.05.
        positive: the class that must not be missed; None: the last one.
        of: `positives`, missed share of the positive studies of a patient who has some; `all`, missed share of all
            studies of any patient, which depends on the prevalence.
        where: name of the calibration set.

    Raises:
        RunError: a rate that is no share between 0 and 1.
        CohortError: too few patients for this rate; says how many are needed.
    """
    if not 0.0 < alpha < 1.0:
        raise RunError(f"A miss rate lies between 0 and 1; got {alpha}.")
    table = calibration if calibration.unit == "study" else calibration.study_wise()
    index = table.class_index(positive)
    truth = table.labels == index
    names, patient = np.unique(np.asarray(table.patient_ids, dtype=str), return_inverse=True)
    counted = truth if of == "positives" else np.ones(len(table), dtype=bool)
    of_patient = np.bincount(patient[counted], minlength=names.size)
    units = int((of_patient > 0).sum())
    needed = math.ceil(1.0 / alpha - 1.0 - 1e-9)
    if units < needed:
        what = f"patients with {table.classes[index]}" if of == "positives" else "patients"
        raise CohortError(
            f"A miss rate of {alpha:g} cannot be promised from {where}: {units} {what}, {needed} needed.",
            f"Add local studies, or promise {1.0 / (units + 1):.3g} or more.",
        )
    scores = table.probabilities[truth, index]
    share = 1.0 / of_patient[patient[truth]]
    found = choose_risk_threshold(scores, share, units, alpha)
    largest = float(np.nextafter(table.probabilities[:, index].max(), np.inf))
    threshold = 0.0 if found is None else min(found, largest)
    called = table.probabilities[:, index] >= threshold
    reached = {
        "split": where,
        "unit": "study",
        **table.counts(),
        "patients_counted": units,
        "of": of,
        "sensitivity": float(called[truth].mean()) if truth.any() else None,
        "called": float(called.mean()),
    }
    return OperatingPoint(table.classes[index], threshold, "miss rate", alpha, reached)


def estimate_misses(predictions: Predictions, point: OperatingPoint, of: Of = "positives") -> Estimate:
    """The rate of misses of a fixed threshold, a patient's mean first, beside what was promised.

    Its interval is Clopper-Pearson's over patients, exact where every patient has one study.
    """
    from scipy.stats import beta

    table = predictions if predictions.unit == "study" else predictions.study_wise()
    index = table.class_index(point.positive)
    truth = table.labels == index
    missed = truth & (table.probabilities[:, index] < point.threshold)
    counted = truth if of == "positives" else np.ones(len(table), dtype=bool)
    names, patient = np.unique(np.asarray(table.patient_ids, dtype=str), return_inverse=True)
    studies = np.bincount(patient[counted], minlength=names.size)
    name = f"missed share of {'positive' if of == 'positives' else 'all'} studies at {point.name}"
    n = {**table.counts(), "counted_patients": int((studies > 0).sum())}
    if not (studies > 0).any():
        return Estimate(name, None, n=n, method="no rate", why=f"not defined: no study of {point.positive}")
    losses = np.bincount(patient[missed], minlength=names.size)[studies > 0] / studies[studies > 0]
    k, m = float(losses.sum()), len(losses)
    low = float(beta.ppf(0.025, k, m - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(0.975, k + 1, m - k)) if k < m else 1.0
    return Estimate(name, k / m, low, high, n, "mean over patients, Clopper-Pearson over patients")


@dataclass(frozen=True)
class PredictionSets:
    """Sets of classes that hold the true one with a promised probability.

    Attributes:
        classes: names.
        thresholds: a class is in the set where its probability reaches its threshold.
        alpha: promised rate of sets without the true class.
        by_class: the promise holds for each class by itself.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    alpha: float
    by_class: bool

    def notation(self) -> Notation:
        """What the UIDs of results hold of them."""
        return write_fields(
            "PredictionSets",
            classes=self.classes,
            thresholds=self.thresholds,
            alpha=self.alpha,
            by_class=self.by_class,
        )

    def members(self, probabilities: FloatArray) -> NDArray[np.bool_]:
        """Which classes are in the set, bool [n, k] of probabilities [n, k]; a set may be empty."""
        return np.asarray(probabilities >= np.asarray(self.thresholds))

    def estimates(self, predictions: Predictions) -> list[Estimate]:
        """How often sets hold the true class (over patients), and their mean size."""
        # who predicts does without
        from sightline.metrics.statistics.comparison import average_resampled, estimate_over_patients

        table = predictions if predictions.unit == "study" else predictions.study_wise()
        sets = self.members(table.probabilities)
        holds = sets[np.arange(len(table)), table.labels].astype(np.float64)
        size = sets.sum(axis=1).astype(np.float64)
        names, patient = np.unique(np.asarray(table.patient_ids, dtype=str), return_inverse=True)
        of_patient = np.bincount(patient, weights=holds, minlength=names.size) / np.bincount(patient)
        what = f"conformal, promised {1 - self.alpha:.0%}"
        found = []
        for name, values, ids, most in (
            ("share of prediction sets that hold the true class", of_patient, names.tolist(), 1.0),
            ("mean size of prediction sets", size, table.patient_ids, float(len(self.classes))),
            ("share of prediction sets with one class", (size == 1.0).astype(np.float64), table.patient_ids, 1.0),
        ):
            number = average_resampled(values)
            found.append(estimate_over_patients(name, number, ids, table.counts(), what=what, bounds=(0.0, most)))
        return found


def fit_prediction_sets(calibration: Predictions, alpha: float, *, by_class: bool = False) -> PredictionSets:
    """Sets that miss the true class with probability at most alpha (Sadinle et al. 2019, as risk control).

    Args:
        calibration: predictions that no part of the network was trained on.
        alpha: promised rate.
        by_class: promise it for each class by itself (label-conditional; more patients are needed).

    Raises:
        RunError: a rate that is no share between 0 and 1.
        CohortError: too few patients (of a class).
    """
    if not 0.0 < alpha < 1.0:
        raise RunError(f"A rate lies between 0 and 1; got {alpha}.")
    table = calibration if calibration.unit == "study" else calibration.study_wise()
    own = table.probabilities[np.arange(len(table)), table.labels]
    ids = np.asarray(table.patient_ids, dtype=str)
    thresholds = []
    groups = [table.labels == k for k in range(len(table.classes))] if by_class else [np.ones(len(table), dtype=bool)]
    for k, chosen in enumerate(groups):
        names, patient = np.unique(ids[chosen], return_inverse=True)
        share = 1.0 / np.bincount(patient, minlength=max(1, names.size))[patient] if names.size else np.zeros(0)
        found = choose_risk_threshold(own[chosen], share, names.size, alpha)
        if found is None:
            what = f"patients of {table.classes[k]}" if by_class else "patients"
            raise CohortError(
                f"Prediction sets at {alpha:g} need {math.ceil(1 / alpha - 1)} {what}; got {names.size}.",
                "Calibrate on more studies, or promise less.",
            )
        thresholds.append(found)
    each = thresholds if by_class else thresholds * len(table.classes)
    return PredictionSets(table.classes, tuple(each), alpha, by_class)
