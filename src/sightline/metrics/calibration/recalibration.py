"""Maps from the probabilities a network says to probabilities that mean what they say, fitted on validation.

Temperature scaling (Guo et al. 2017) divides log probabilities by one number: it never changes which class comes first
of a case and, of two classes, nor the order of cases. Isotonic regression (Zadrozny & Elkan 2002) bends each class's
probability freely but rising; it needs some hundred cases of each class and ties neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from scipy.optimize import minimize_scalar

from sightline.errors import CohortError, RunError, counted
from sightline.metrics.estimate import FloatArray, IntArray
from sightline.metrics.predictions import Predictions
from sightline.structures.notation import Notation, write_fields

Method = Literal["temperature", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "isotonic")
EDGE = 1e-12
FOLDS = 5
_WIDEST = math.log(100.0)


class Recalibration(Protocol):
    """A map of probabilities [n, k] to probabilities [n, k]."""

    @property
    def method(self) -> Method:
        """Its word."""

    def apply(self, probabilities: FloatArray, *, independent: bool = False) -> FloatArray:
        """Probabilities [n, k] as they should be; rows sum to 1 unless classes are independent."""

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON."""

    def notation(self) -> Notation:
        """What the UIDs of results hold of it."""


@dataclass(frozen=True)
class Temperature:
    """Log probabilities (log odds of independent classes) divided by a temperature.

    Attributes:
        temperature: above 1 makes probabilities less extreme.

    Raises:
        RunError: a temperature that is no number above 0.
    """

    temperature: float

    def __post_init__(self) -> None:
        """Refuse what is no temperature."""
        if not math.isfinite(self.temperature) or self.temperature <= 0:
            raise RunError(f"A temperature is a number above 0; got {self.temperature}.")

    @property
    def method(self) -> Method:
        """`temperature`."""
        return "temperature"

    def apply(self, probabilities: FloatArray, *, independent: bool = False) -> FloatArray:
        """Softmax (sigmoid) of the logits over the temperature.

        Example:
            >>> Temperature(2.0).apply(np.array([[0.9, 0.1]])).round(3).tolist()
            [[0.75, 0.25]]
        """
        return np.asarray(_scaled(np.asarray(probabilities, dtype=np.float64), 1.0 / self.temperature, independent))

    def notation(self) -> Notation:
        """`Temperature(temperature=...)`."""
        return write_fields("Temperature", temperature=self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Method and temperature."""
        return {"method": self.method, "temperature": self.temperature}


@dataclass(frozen=True)
class Isotonic:
    """A rising line of straight pieces for each class.

    Attributes:
        said: for each class, probabilities at the corners, rising; two classes have the last one's alone.
        meant: for each class, what is meant there.

    Raises:
        RunError: corners that do not rise or are no probabilities.
    """

    said: tuple[tuple[float, ...], ...]
    meant: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Refuse corners that are no rising line of probabilities."""
        for x, y in zip(self.said, self.meant, strict=True):
            rises = len(x) == len(y) >= 1 and np.all(np.diff(x) > 0) and np.all(np.diff(y) >= 0)
            if not rises or not 0.0 <= min(y) <= max(y) <= 1.0:
                raise RunError("An isotonic calibration has corners that do not rise from 0 to 1.")

    @property
    def method(self) -> Method:
        """`isotonic`."""
        return "isotonic"

    def apply(self, probabilities: FloatArray, *, independent: bool = False) -> FloatArray:
        """Each class's line; of three classes and more that are not independent, divided by the sum."""
        given = np.asarray(probabilities, dtype=np.float64)
        if len(self.said) == 1:
            p = np.interp(given[:, -1], self.said[0], self.meant[0])
            return np.stack([1.0 - p, p], axis=1)
        if given.shape[1] != len(self.said):
            raise RunError(f"This calibration is of {len(self.said)} classes; got {given.shape[1]}.")
        lines = zip(given.T, self.said, self.meant, strict=True)
        each = np.stack([np.interp(column, x, y) for column, x, y in lines], axis=1)
        if independent:
            return each
        total = each.sum(axis=1, keepdims=True)
        return np.divide(each, total, out=np.full_like(each, 1.0 / given.shape[1]), where=total > 0)

    def notation(self) -> Notation:
        """`Isotonic(said=..., meant=...)`."""
        return write_fields("Isotonic", said=self.said, meant=self.meant)

    def to_dict(self) -> dict[str, Any]:
        """Method and corners."""
        return {"method": self.method, **{name: [list(x) for x in part] for name, part in asdict(self).items()}}


@dataclass(frozen=True)
class Fitted:
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

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON."""
        return {
            **self.recalibration.to_dict(),
            "fitted_on": dict(self.fitted_on),
            "log_loss": dict(self.log_loss),
            "why": self.why,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Fitted:
        """What `to_dict` gave.

        Raises:
            RunError: fields that are no calibration.
        """
        try:
            made: Recalibration
            if fields["method"] == "temperature":
                made = Temperature(float(fields["temperature"]))
            elif fields["method"] == "isotonic":
                said, meant = (
                    tuple(tuple(float(x) for x in part) for part in fields[key]) for key in ("said", "meant")
                )
                made = Isotonic(said, meant)
            else:
                raise RunError(f"There is no calibration by {fields['method']!r}; expected {' or '.join(METHODS)}.")
            return cls(made, dict(fields["fitted_on"]), dict(fields["log_loss"]), str(fields["why"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"This is no saved calibration ({error}).", "Calibrate the run again.") from None


def recalibrate(predictions: Predictions, recalibration: Recalibration) -> Predictions:
    """The same table with recalibrated probabilities."""
    fixed = recalibration.apply(predictions.probabilities, independent=predictions.independent)
    return replace(predictions, probabilities=fixed)


def fit_recalibration(
    validation: Predictions, method: Method | Literal["auto"] = "temperature", *, where: str = "val", seed: int = 0
) -> Fitted:
    """Fit on validation predictions; `auto` takes the method with the least log loss on patients it has not seen.

    Args:
        validation: predictions that the network was not trained on.
        method: `temperature`, `isotonic` or `auto`.
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
            f"A calibration needs ten patients and cases of every class; {where} has {counted(patients, 'patient')}, "
            f"{each}.",
            "Calibrate on more predictions.",
        )
    losses = {"as said": log_loss(validation.labels, validation.probabilities), **_unseen(validation, seed)}
    chosen: Method = min(METHODS, key=losses.__getitem__) if method == "auto" else method
    made = _fit(chosen, validation)
    why = []
    if losses[chosen] >= losses["as said"]:
        why.append("on patients it has not seen it is no better than the probabilities as they were")
    if isinstance(made, Temperature) and abs(math.log(made.temperature)) > 0.99 * _WIDEST:
        why.append("the temperature lies at the edge of what is tried (0.01 to 100)")
    if chosen == "isotonic" and counts.min() < 100:
        why.append(f"isotonic regression on {int(counts.min())} cases of the rarest class follows chance")
    fitted_on = {"split": where, "unit": validation.unit, **validation.counts()}
    return Fitted(made, fitted_on, losses, "; ".join(why))


def log_loss(labels: IntArray, probabilities: FloatArray) -> float:
    """Mean of -log p of the true class; probabilities are kept at least 1e-12 away from 0."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return float(-np.log(own.clip(EDGE, 1.0)).mean())


def _fit(method: Method, table: Predictions) -> Recalibration:
    return _fit_temperature(table) if method == "temperature" else _fit_isotonic(table)


def _fit_temperature(table: Predictions) -> Temperature:
    truth = table.labels[:, None] == np.arange(len(table.classes))

    def loss(log_temperature: float) -> float:
        p = _scaled(table.probabilities, math.exp(-log_temperature), table.independent).clip(EDGE, 1.0 - EDGE)
        if table.independent:
            return float(-np.where(truth, np.log(p), np.log1p(-p)).sum(axis=1).mean())
        return float(-np.log(p[truth]).mean())

    found = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded", options={"xatol": 1e-7})
    return Temperature(float(math.exp(found.x)))


def _fit_isotonic(table: Predictions) -> Isotonic:
    k, n = len(table.classes), len(table)
    columns = [k - 1] if k == 2 and not table.independent else list(range(k))
    # rates of 0 and 1 are what was seen, not what is meant: half a case of doubt
    edge = 0.5 / (n + 1.0)
    said, meant = [], []
    for column in columns:
        from sklearn.isotonic import IsotonicRegression

        line = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip")
        line.fit(table.probabilities[:, column], (table.labels == column).astype(np.float64))
        said.append(tuple(float(x) for x in line.X_thresholds_))
        meant.append(tuple(float(y) for y in line.y_thresholds_))
    return Isotonic(tuple(said), tuple(meant))


def _unseen(table: Predictions, seed: int) -> dict[str, float]:
    """Log loss of each method on folds of patients, each mapped by what the other folds taught."""
    names, patient = np.unique(np.asarray(table.patient_ids, dtype=str), return_inverse=True)
    fold = np.random.default_rng(seed).permutation(names.size) % FOLDS
    losses: dict[str, float] = {}
    for method in METHODS:
        mapped = table.probabilities.copy()
        for f in range(FOLDS):
            inside = fold[patient] == f
            others = table.select(~inside)
            if inside.any() and np.bincount(others.labels, minlength=len(table.classes)).min() > 0:
                made = _fit(method, others)
                mapped[inside] = made.apply(table.probabilities[inside], independent=table.independent)
        losses[method] = log_loss(table.labels, mapped)
    return losses


def _scaled(probabilities: FloatArray, factor: float, independent: bool) -> FloatArray:
    """Logits times a factor, as probabilities."""
    p = probabilities.clip(EDGE, 1.0)
    if independent:
        p = p.clip(EDGE, 1.0 - 1e-12)
        return np.asarray(1.0 / (1.0 + np.exp(-factor * (np.log(p) - np.log1p(-p)))))
    logits = factor * np.log(p)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
