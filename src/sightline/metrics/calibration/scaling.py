"""Maps from the probabilities a network says to probabilities that mean what they say.

Temperature scaling (Guo et al. 2017) divides log probabilities by one number: it never changes which class comes first
of a case and, of two classes, nor the order of cases. Platt scaling (Platt 1999) shifts them too, which mends a network
that says too much or too little disease throughout. Isotonic regression (Zadrozny & Elkan 2002) bends each class's
probability freely but rising; it needs some hundred cases of each class and ties neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from scipy.special import expit, softmax

from sightline.errors import RunError, count_noun
from sightline.metrics.estimate import FloatArray
from sightline.structures.notation import Notation, write_fields

Method = Literal["none", "temperature", "platt", "isotonic"]
# the simplest first
METHODS: tuple[Method, ...] = ("none", "temperature", "platt", "isotonic")
EDGE = 1e-12


def log_odds(probabilities: FloatArray) -> FloatArray:
    """log(p / (1 - p)), p kept 1e-12 away from 0 and 1."""
    p = probabilities.clip(EDGE, 1.0 - EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


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
class NoRecalibration:
    """Probabilities left as they are: chosen by `auto` where no map helps."""

    @property
    def method(self) -> Method:
        """`none`."""
        return "none"

    def apply(self, probabilities: FloatArray, *, independent: bool = False) -> FloatArray:
        """The same probabilities."""
        return np.asarray(probabilities, dtype=np.float64)

    def notation(self) -> Notation:
        """`NoRecalibration()`."""
        return write_fields("AsSaid")

    def to_dict(self) -> dict[str, Any]:
        """Method alone."""
        return {"method": self.method}


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
        return np.asarray(
            scale_logits(np.asarray(probabilities, dtype=np.float64), 1.0 / self.temperature, independent)
        )

    def notation(self) -> Notation:
        """`Temperature(temperature=...)`."""
        return write_fields("Temperature", temperature=self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Method and temperature."""
        return {"method": self.method, "temperature": self.temperature}


@dataclass(frozen=True)
class PlattScaling:
    """A straight line on the log odds: `slope * logit p + intercept` (Platt 1999); unlike a temperature it can shift.

    With three or more classes that exclude one another a line on each log probability before the softmax (vector
    scaling, Guo et al. 2017); of independent classes a line each.

    Attributes:
        slopes: one a class, above 0, so that no order of cases is turned round; two classes have the last one's alone.
        intercepts: likewise.

    Raises:
        RunError: slopes or intercepts that are no such numbers.
    """

    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what is no line that rises."""
        if len(self.slopes) != len(self.intercepts) or not self.slopes:
            raise RunError("Platt scaling has one slope and one intercept a class.")
        if not all(math.isfinite(x) for x in (*self.slopes, *self.intercepts)) or min(self.slopes) <= 0:
            raise RunError("Platt scaling has slopes above 0 and intercepts that are numbers.")

    @property
    def method(self) -> Method:
        """`platt`."""
        return "platt"

    def apply(self, probabilities: FloatArray, *, independent: bool = False) -> FloatArray:
        """Sigmoid or softmax of the lines.

        Example:
            >>> PlattScaling((1.0,), (np.log(3.0),)).apply(np.array([[0.5, 0.5]])).round(3).tolist()
            [[0.25, 0.75]]
        """
        given = np.asarray(probabilities, dtype=np.float64)
        slopes, intercepts = np.asarray(self.slopes), np.asarray(self.intercepts)
        if slopes.size == 1:
            p = expit(slopes[0] * log_odds(given[:, -1]) + intercepts[0])
            return np.stack([1.0 - p, p], axis=1)
        if given.shape[1] != slopes.size:
            raise RunError(
                f"This calibration is of {count_noun(slopes.size, 'class', 'classes')}; got {given.shape[1]}."
            )
        if independent:
            return np.asarray(expit(slopes * log_odds(given) + intercepts))
        return np.asarray(softmax(slopes * np.log(given.clip(EDGE, 1.0)) + intercepts, axis=1))

    def notation(self) -> Notation:
        """`PlattScaling(slopes=..., intercepts=...)`."""
        return write_fields("PlattScaling", slopes=self.slopes, intercepts=self.intercepts)

    def to_dict(self) -> dict[str, Any]:
        """Method, slopes and intercepts."""
        return {"method": self.method, "slopes": list(self.slopes), "intercepts": list(self.intercepts)}


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
            raise RunError(
                f"This calibration is of {count_noun(len(self.said), 'class', 'classes')}; got {given.shape[1]}."
            )
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


def read_recalibration(fields: Mapping[str, Any]) -> Recalibration:
    """The map that `to_dict` of any of them gave.

    Raises:
        RunError: an unknown method, or fields that are no such map.
    """
    try:
        method = fields["method"]
        if method == "none":
            return NoRecalibration()
        if method == "temperature":
            return Temperature(float(fields["temperature"]))
        if method == "platt":
            slopes, intercepts = (tuple(float(x) for x in fields[key]) for key in ("slopes", "intercepts"))
            return PlattScaling(slopes, intercepts)
        if method == "isotonic":
            steps = (tuple(tuple(float(x) for x in part) for part in fields[key]) for key in ("said", "meant"))
            return Isotonic(*steps)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"This is no saved calibration ({error}).", "Calibrate the run again.") from None
    raise RunError(f"There is no calibration by {method!r}; expected one of {', '.join(METHODS)}.")


def scale_logits(probabilities: FloatArray, factor: float, independent: bool) -> FloatArray:
    """Logits times a factor, as probabilities."""
    if independent:
        return np.asarray(expit(factor * log_odds(probabilities)))
    return np.asarray(softmax(factor * np.log(probabilities.clip(EDGE, 1.0)), axis=1))
