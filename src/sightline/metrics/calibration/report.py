"""How far probabilities are from what happens: slope, intercept, and the curve with its intervals.

Slope and intercept are those of a logistic regression of the outcome on the log odds said (Cox 1958): slope 1 and
intercept 0 are perfect, a slope below 1 is overconfident, an intercept (with the slope held at 1) below 0 says too much
disease. Errors are over patients (sandwich, Liang & Zeger 1986). With several classes each is taken against the rest,
and one slope is common to all: the inverse of the temperature that would be fitted here (on log probabilities; of
independent classes on log odds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from scipy.stats import t as student

from sightline.errors import RunError, count_noun
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.scores import Prevalence
from sightline.metrics.estimate import Estimate, FloatArray
from sightline.metrics.predictions import Predictions

EDGE = 1e-9
FEWEST_PATIENTS = 5
_STEPS = 100


@dataclass(frozen=True)
class CurvePoint:
    """One point of a calibration curve.

    Attributes:
        said: mean probability of its cases.
        lowest: least probability of its cases.
        highest: largest.
        observed: share of positive cases with its interval.
    """

    said: float
    lowest: float
    highest: float
    observed: Estimate


def compute_calibration_estimates(predictions: Predictions, *, positive: str | None = None) -> list[Estimate]:
    """Slope, intercept and mean said less observed, of the positive class or of every class.

    Args:
        predictions: image-wise or study-wise.
        positive: the positive class of two; None: the last one.

    Raises:
        CohortError: no such class.
    """
    k = len(predictions.classes)
    chosen = [predictions.class_index(positive)] if k == 2 else list(range(k))
    found = []
    for index in chosen:
        name = predictions.classes[index]
        found += [_estimate_slope(predictions, index, name), _estimate_intercept(predictions, index, name)]
        found.append(_estimate_in_the_large(predictions, index, name))
    if k > 2:
        found.append(_estimate_common_slope(predictions))
    return found


def compute_calibration_curve(
    predictions: Predictions,
    *,
    positive: str | None = None,
    points: int = 10,
) -> list[CurvePoint]:
    """Observed share against the probability said, in groups of about as many cases; equal probabilities stay together.

    Args:
        predictions: image-wise or study-wise.
        positive: the class; None: the last one.
        points: number of groups asked for; fewer where there are few cases (ten a group at least).

    Raises:
        RunError: fewer than one point.
        CohortError: no such class.
    """
    if points < 1:
        raise RunError(f"A calibration curve needs at least one point; got {points}.")
    index = predictions.class_index(positive)
    probabilities = predictions.probabilities[:, index]
    groups = max(1, min(points, len(probabilities) // 10))
    limits = np.unique(np.quantile(probabilities, np.linspace(0, 1, groups + 1)[1:-1]))
    place = np.searchsorted(limits, probabilities, side="left")
    curve = []
    for g in np.unique(place):
        inside = place == g
        table = predictions.select(inside)
        name = f"observed share of {predictions.classes[index]} at a predicted {probabilities[inside].mean():.3f}"
        observed = estimate_score([table], Prevalence(index, name))
        curve.append(
            CurvePoint(
                float(probabilities[inside].mean()),
                float(probabilities[inside].min()),
                float(probabilities[inside].max()),
                observed,
            )
        )
    return curve


def find_largest_gap(curve: Sequence[CurvePoint]) -> Estimate:
    """The largest distance of the curve from the diagonal, whose interval is that of its point."""
    worst = max(curve, key=lambda point: abs(_get_observed(point) - point.said))
    gap = _get_observed(worst) - worst.said
    ends = (worst.observed.low, worst.observed.high)
    name = f"largest gap of the calibration curve, at a predicted {worst.said:.3f}"
    moved = (None, None) if ends[0] is None or ends[1] is None else (ends[0] - worst.said, ends[1] - worst.said)
    return replace(worst.observed, name=name, value=gap, low=moved[0], high=moved[1])


def _get_observed(point: CurvePoint) -> float:
    return point.said if point.observed.value is None else point.observed.value


def _estimate_slope(predictions: Predictions, index: int, name: str) -> Estimate:
    odds = logit(predictions.probabilities[:, index].clip(EDGE, 1 - EDGE))
    design = np.stack([np.ones_like(odds), odds], axis=1)
    return _estimate_coefficient(f"calibration slope of {name}", predictions, index, design, np.zeros_like(odds), 1)


def _estimate_intercept(predictions: Predictions, index: int, name: str) -> Estimate:
    odds = logit(predictions.probabilities[:, index].clip(EDGE, 1 - EDGE))
    return _estimate_coefficient(
        f"calibration intercept of {name}", predictions, index, np.ones((len(odds), 1)), odds, 0
    )


def _estimate_in_the_large(predictions: Predictions, index: int, name: str) -> Estimate:
    truth = (predictions.labels == index).astype(np.float64)
    gap = predictions.probabilities[:, index] - truth
    value = float(gap.mean())
    method = "mean said less observed share, over patients, t quantile"
    what = f"mean probability of {name} said less observed"
    patients = len(set(predictions.patient_ids))
    if patients < FEWEST_PATIENTS:
        why = f"no interval: {count_noun(patients, 'patient')}, {FEWEST_PATIENTS} needed"
        return Estimate(what, value, n=predictions.counts(), method=method, why=why)
    sums = _sum_by_patient((gap - value)[:, None], predictions.patient_ids)[:, 0] / len(gap)
    error = math.sqrt(float((sums**2).sum()) * patients / (patients - 1))
    half = float(student.ppf(0.975, patients - 1)) * error
    return Estimate(what, value, value - half, value + half, predictions.counts(), method)


def _estimate_coefficient(
    what: str, predictions: Predictions, index: int, design: FloatArray, offset: FloatArray, which: int
) -> Estimate:
    """One coefficient of a logistic regression with its interval over patients."""
    truth = predictions.labels == index
    n, method = predictions.counts(), "logistic regression (Cox 1958), sandwich over patients, t quantile"
    if truth.all() or not truth.any():
        return Estimate(what, None, n=n, method=method, why="not defined: one class is missing")
    if design.shape[1] == 2 and np.ptp(design[:, 1]) < 1e-9:
        return Estimate(what, None, n=n, method=method, why="not defined: all cases have the same probability")
    beta = _fit_newton(design, truth.astype(np.float64), offset)
    if beta is None:
        return Estimate(
            what, None, n=n, method=method, why="not defined: the probabilities part the classes completely"
        )
    p = expit(design @ beta + offset)
    bread = np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)
    sums = _sum_by_patient(design * (truth - p)[:, None], predictions.patient_ids)
    value = float(beta[which])
    return _add_interval(what, value, sums, bread, which, predictions, truth, method)


def _estimate_common_slope(predictions: Predictions) -> Estimate:
    """The factor with the least log loss: softmax(slope * log p); of independent classes sigmoid(slope * log odds)."""
    what, n = "calibration slope of all classes (1 / temperature)", predictions.counts()
    kind = "logistic" if predictions.independent else "multinomial"
    method = f"{kind} regression with one slope, sandwich over patients, t quantile"
    if predictions.independent:
        z = logit(predictions.probabilities.clip(EDGE, 1 - EDGE))
    else:
        z = np.log(predictions.probabilities.clip(EDGE, 1.0))
        z = z - z.mean(axis=1, keepdims=True)
    spread = math.sqrt(float((z**2).mean()))
    if spread < EDGE:
        return Estimate(what, None, n=n, method=method, why="not defined: all classes have the same probability")
    # as in _fit_newton: what hardly differs makes slopes of any size
    fit = _fit_factor(z / spread, predictions.labels, independent=predictions.independent)
    if isinstance(fit, str):
        return Estimate(what, None, n=n, method=method, why=fit)
    slope, score, total = fit
    sums = _sum_by_patient(score[:, None], predictions.patient_ids) * spread
    everybody = np.ones(len(z), dtype=bool)
    bread = np.array([[1.0 / (total * spread**2)]])
    return _add_interval(what, slope / spread, sums, bread, 0, predictions, everybody, method)


def _fit_factor(
    z: FloatArray, labels: NDArray[np.int64], *, independent: bool
) -> tuple[float, FloatArray, float] | str:
    """The factor on logits [n, k] with the least log loss, score [n] and information there; or why there is none."""
    truth = labels[:, None] == np.arange(z.shape[1])
    factor, low, high = 0.0, -math.inf, math.inf
    for _ in range(_STEPS):
        if independent:
            p = expit(factor * z)
            curvature = (p * (1 - p) * z**2).sum(axis=1)
        else:
            p = softmax(factor * z, axis=1)
            curvature = (p * z**2).sum(axis=1) - (p * z).sum(axis=1) ** 2
        score, total = ((truth - p) * z).sum(axis=1), float(curvature.sum())
        if total < 1e-9 or abs(factor) > 1e3:
            return "not defined: the probabilities part the classes"
        step = float(score.sum()) / total
        if abs(step) < 1e-10:
            return factor, score, total
        # the score falls as the factor grows: its sign says on which side the answer lies
        low, high = (factor, high) if step > 0 else (low, factor)
        limit = 2.0 * max(1.0, abs(factor))
        factor += max(-limit, min(limit, step))
        if not low < factor < high:
            factor = (low + high) / 2
    return f"not defined: the fit did not settle in {_STEPS} steps"


def _add_interval(
    what: str,
    value: float,
    sums: FloatArray,
    bread: FloatArray,
    which: int,
    predictions: Predictions,
    truth: np.ndarray,
    method: str,
) -> Estimate:
    ids = np.asarray(predictions.patient_ids, dtype=str)
    sides = [side for side in (truth, ~truth) if side.any()]
    smaller = min(len(set(ids[side].tolist())) for side in sides)
    if smaller < FEWEST_PATIENTS:
        why = f"no interval: {count_noun(smaller, 'patient')} of the smaller class, {FEWEST_PATIENTS} needed"
        return Estimate(what, value, n=predictions.counts(), method=method, why=why)
    groups = len(sums)
    covariance = bread @ (sums.T @ sums) @ bread * groups / (groups - 1)
    half = float(student.ppf(0.975, smaller - 1)) * math.sqrt(float(covariance[which, which]))
    return Estimate(what, value, value - half, value + half, predictions.counts(), method)


def _fit_newton(design: FloatArray, truth: FloatArray, offset: FloatArray) -> FloatArray | None:
    """Maximum likelihood of a logistic regression; None where it does not exist (complete separation)."""
    spread = design.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    # log odds that hardly differ make slopes of any size: solved with columns of spread 1
    design = design / scale
    beta = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        p = expit(design @ beta + offset)
        information = (design * (p * (1 - p))[:, None]).T @ design
        if np.linalg.cond(information) > 1e14:
            return None
        step = np.linalg.solve(information, design.T @ (truth - p))
        size = float(np.abs(step).max())
        beta = beta + step * min(1.0, 2.0 / max(size, 1e-300))
        if float(np.abs(beta).max()) > 1e3:
            return None
        if size < 1e-10:
            return np.asarray(beta / scale)
    return None


def _sum_by_patient(rows: FloatArray, patient_ids: Sequence[str]) -> FloatArray:
    names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    sums = np.zeros((names.size, rows.shape[1]))
    np.add.at(sums, patient, rows)
    return sums
