"""Fit a map of probabilities on validation, and say what it gains on patients it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax

from sightline.errors import CohortError, RunError, count_noun
from sightline.metrics.calibration.scaling import (
    EDGE,
    METHODS,
    Isotonic,
    Method,
    NoRecalibration,
    PlattScaling,
    Recalibration,
    Temperature,
    log_odds,
    read_recalibration,
    scale_logits,
)
from sightline.metrics.estimate import FloatArray, IntArray
from sightline.metrics.predictions import Predictions
from sightline.structures.notation import Notation, write_fields

FOLDS = 5
_WIDEST = math.log(100.0)
# how saved records call what no map changes
_WORDS = {"none": "as said"}


@dataclass(frozen=True)
class FittedRecalibration:
    """A recalibration, with what it was fitted on and what it gains on cases it has not seen.

    Attributes:
        recalibration: the map.
        fitted_on: cohort, split and counts, in words and numbers.
        log_loss: mean log loss by method (`as said` before), each from folds of patients that the map had not seen.
        why: what a reader must bear in mind; empty where nothing.
    """

    recalibration: Recalibration
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    log_loss: Mapping[str, float] = field(default_factory=dict)
    why: str = ""

    def notation(self) -> Notation:
        """What the UIDs of results hold of it."""
        return write_fields(
            "Fitted",
            recalibration=self.recalibration.notation(),
            fitted_on=self.fitted_on,
            log_loss=self.log_loss,
            why=self.why,
        )

    def describe_losses(self, digits: int) -> str:
        """The log losses in words: `uncalibrated 0.6123, temperature 0.5871`."""
        words = {_WORDS["none"]: "uncalibrated"}
        return ", ".join(f"{words.get(name, name)} {x:.{digits}f}" for name, x in self.log_loss.items())

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON."""
        return {
            **self.recalibration.to_dict(),
            "fitted_on": dict(self.fitted_on),
            "log_loss": dict(self.log_loss),
            "why": self.why,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FittedRecalibration:
        """What `to_dict` gave.

        Raises:
            RunError: fields that are no calibration.
        """
        try:
            given = dict(fields["fitted_on"]), dict(fields["log_loss"]), str(fields["why"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"This is no saved calibration ({error}).", "Calibrate the run again.") from None
        return cls(read_recalibration(fields), *given)


def recalibrate(predictions: Predictions, recalibration: Recalibration) -> Predictions:
    """The same table with recalibrated probabilities."""
    fixed = recalibration.apply(predictions.probabilities, independent=predictions.independent)
    return replace(predictions, probabilities=fixed)


def fit_recalibration(
    validation: Predictions, method: Method | Literal["auto"] = "temperature", *, where: str = "val", seed: int = 0
) -> FittedRecalibration:
    """Fit on validation predictions.

    `auto` takes the simplest method (none, temperature, platt, isotonic) whose log loss on patients it has not seen is
    within one standard error of the least (Breiman et al. 1984): where no map clearly helps, probabilities stay.

    Args:
        validation: predictions that the network was not trained on.
        method: `none`, `temperature`, `platt`, `isotonic` or `auto`.
        where: name of what it is fitted on, kept with it.
        seed: of the folds that the log losses come from.

    Raises:
        CohortError: fewer than ten patients, or a class without a case.
        RunError: an unknown method.
    """
    if method not in (*METHODS, "auto"):
        raise RunError(f"There is no calibration by {method!r}; expected one of {', '.join(METHODS)}, auto.")
    counts = np.bincount(validation.labels, minlength=len(validation.classes))
    patients = len(set(validation.patient_ids))
    if patients < 10 or counts.min() == 0:
        each = ", ".join(f"{n} {name}" for name, n in zip(validation.classes, counts, strict=True))
        raise CohortError(
            f"A calibration needs ten patients and cases of every class; {where} has "
            f"{count_noun(patients, 'patient')}, "
            f"{each}.",
            "Calibrate on more predictions.",
        )
    unseen = _cross_validate(validation, seed)
    losses = {_WORDS.get(name, name): float(each.mean()) for name, each in unseen.items()}
    chosen: Method = _choose_simplest(unseen, validation.patient_ids) if method == "auto" else method
    made = _fit(chosen, validation)
    why = []
    if method == "auto" and chosen == "none":
        why.append("no map is clearly better on patients it has not seen: probabilities stay as they are")
    elif chosen != "none" and losses[chosen] >= losses["as said"]:
        why.append("on patients it has not seen it is no better than the probabilities as they were")
    if isinstance(made, Temperature) and abs(math.log(made.temperature)) > 0.99 * _WIDEST:
        why.append("the temperature lies at the edge of what is tried (0.01 to 100)")
    if chosen == "isotonic" and counts.min() < 100:
        why.append(f"isotonic regression on {count_noun(int(counts.min()), 'case')} of the rarest class follows chance")
    fitted_on = {"split": where, "unit": validation.unit, **validation.counts()}
    return FittedRecalibration(made, fitted_on, losses, "; ".join(why))


def log_loss(labels: IntArray, probabilities: FloatArray, *, independent: bool = False) -> float:
    """Mean of -log p of the true class; of independent classes the sum over classes of -log p of what is so.

    Probabilities are kept at least 1e-12 away from 0.
    """
    return float(_compute_losses(labels, probabilities, independent).mean())


def _compute_losses(labels: IntArray, probabilities: FloatArray, independent: bool) -> FloatArray:
    """Log loss of each case."""
    if independent:
        truth = labels[:, None] == np.arange(probabilities.shape[1])
        right = np.where(truth, probabilities, 1.0 - probabilities)
        return np.asarray(-np.log(right.clip(EDGE, 1.0)).sum(axis=1))
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(own.clip(EDGE, 1.0)))


def _choose_simplest(unseen: Mapping[Method, FloatArray], patient_ids: Sequence[str]) -> Method:
    """The simplest method whose loss is within one standard error of the least (Breiman et al. 1984).

    The error is that of the paired difference, over patients.
    """
    best = min(METHODS, key=lambda method: float(unseen[method].mean()))
    names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    for method in METHODS[: METHODS.index(best)]:
        difference = unseen[method] - unseen[best]
        sums = np.bincount(patient, weights=difference - difference.mean(), minlength=names.size)
        error = math.sqrt(float((sums**2).sum()) * names.size / (names.size - 1)) / len(difference)
        if float(difference.mean()) <= error:
            return method
    return best


def _fit(method: Method, table: Predictions) -> Recalibration:
    if method == "none":
        return NoRecalibration()
    if method == "platt":
        return _fit_platt(table)
    return _fit_temperature(table) if method == "temperature" else _fit_isotonic(table)


def _fit_temperature(table: Predictions) -> Temperature:
    def compute_loss(log_temperature: float) -> float:
        p = scale_logits(table.probabilities, math.exp(-log_temperature), table.independent)
        return log_loss(table.labels, p, independent=table.independent)

    found = minimize_scalar(compute_loss, bounds=(-_WIDEST, _WIDEST), method="bounded", options={"xatol": 1e-7})
    return Temperature(float(math.exp(found.x)))


def _fit_platt(table: Predictions) -> PlattScaling:
    """Least log loss against Platt's targets, a little less than sure, so that classes that part have a line too.

    The target of the true class is (n + 1) / (n + k), n cases of it and k classes (of independent ones: k = 2, each by
    itself); the others share the rest. For two classes these are Platt's (1999, section 2.2).
    """
    k = len(table.classes)
    if table.independent:
        lines = [_fit_line(log_odds(table.probabilities[:, i]), table.labels == i) for i in range(k)]
        return PlattScaling(tuple(a for a, _ in lines), tuple(b for _, b in lines))
    if k == 2:
        slope, intercept = _fit_line(log_odds(table.probabilities[:, 1]), table.labels == 1)
        return PlattScaling((slope,), (intercept,))
    z = np.log(table.probabilities.clip(EDGE, 1.0))
    counts = np.bincount(table.labels, minlength=k)[table.labels]
    target = np.where(table.labels[:, None] == np.arange(k), counts[:, None] + 1.0, 1.0) / (counts[:, None] + k)

    def compute_loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        slopes, intercepts = parameters[:k], np.append(parameters[k:], 0.0)
        logs = log_softmax(slopes * z + intercepts, axis=1)
        pull = np.exp(logs) - target
        gradient = np.concatenate([(pull * z).mean(axis=0), pull.mean(axis=0)[:-1]])
        return float(-(target * logs).sum(axis=1).mean()), gradient

    start = np.concatenate([np.ones(k), np.zeros(k - 1)])
    bounds = [(1.0 / math.exp(_WIDEST), math.exp(_WIDEST))] * k + [(None, None)] * (k - 1)
    found = minimize(
        compute_loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-9}
    )
    return PlattScaling(tuple(float(x) for x in found.x[:k]), (*(float(x) for x in found.x[k:]), 0.0))


def _fit_line(odds: FloatArray, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of one logistic regression on log odds with Platt's targets."""
    sick, well = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (sick + 1.0) / (sick + 2.0), 1.0 / (well + 2.0))

    def compute_loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        z = parameters[0] * odds + parameters[1]
        pull = expit(z) - target
        return float((np.logaddexp(0.0, z) - target * z).mean()), np.array([(pull * odds).mean(), pull.mean()])

    bounds = [(1.0 / math.exp(_WIDEST), math.exp(_WIDEST)), (None, None)]
    found = minimize(compute_loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds,
                     options={"ftol": 1e-13, "gtol": 1e-9})  # fmt: skip
    return float(found.x[0]), float(found.x[1])


def _fit_isotonic(table: Predictions) -> Isotonic:
    k, n = len(table.classes), len(table)
    columns = [k - 1] if k == 2 and not table.independent else list(range(k))
    # rates of 0 and 1 are what was seen, not what is meant: half a case of doubt
    edge = 0.5 / (n + 1.0)
    scores, meant = [], []
    for column in columns:
        from sklearn.isotonic import IsotonicRegression

        line = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip")
        line.fit(table.probabilities[:, column], (table.labels == column).astype(np.float64))
        scores.append(tuple(float(x) for x in line.X_thresholds_))
        meant.append(tuple(float(y) for y in line.y_thresholds_))
    return Isotonic(tuple(scores), tuple(meant))


def _cross_validate(table: Predictions, seed: int) -> dict[Method, FloatArray]:
    """Log losses of each case by method, on folds of patients, each mapped by what the other folds taught."""
    names, patient = np.unique(np.asarray(table.patient_ids, dtype=str), return_inverse=True)
    fold = np.random.default_rng(seed).permutation(names.size) % FOLDS
    losses: dict[Method, FloatArray] = {}
    for method in METHODS:
        mapped = table.probabilities.copy()
        for f in range(FOLDS):
            inside = fold[patient] == f
            others = table.select(~inside)
            if inside.any() and np.bincount(others.labels, minlength=len(table.classes)).min() > 0:
                made = _fit(method, others)
                mapped[inside] = made.apply(table.probabilities[inside], independent=table.independent)
        losses[method] = _compute_losses(table.labels, mapped, table.independent)
    return losses
