"""A number that carries its interval, its counts and how it was made; and the comparison of two such numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Score(Protocol):
    """A number computed from labels, probabilities and case weights."""

    @property
    def name(self) -> str:
        """What the score is called in tables."""

    def __call__(self, labels: IntArray, probabilities: FloatArray, weights: FloatArray) -> FloatArray:
        """Labels [n], probabilities [n, k], weights [r, n] to values [r], NaN where not defined."""


@dataclass(frozen=True)
class Estimate:
    """One measured number.

    Attributes:
        name: what was measured, e.g. `AUC`.
        value: the number, or None where it is not defined; then `why` says so.
        low: lower end of the 95% interval, or None where there is no interval; then `why` may say so.
        high: upper end of the 95% interval, or None together with `low`.
        n: what was counted, e.g. `{"images": 450, "studies": 150, "patients": 148}`.
        method: how value and interval were made, in words.
        why: why the value or the interval is missing; empty where nothing is.

    Raises:
        RunError: a value that is not finite, half an interval, or a missing value without a reason.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: Mapping[str, int] = field(default_factory=dict)
    method: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        """Refuse silent NaN, half intervals and missing values without a reason."""
        _require_finite(self.name, value=self.value, low=self.low, high=self.high)
        _require_interval(self.name, self.low, self.high)
        if self.value is None and not self.why:
            raise RunError(f"Estimate {self.name!r} has no value and does not say why.", "Give `why`.")
        if self.value is None and self.low is not None:
            raise RunError(f"Estimate {self.name!r} has an interval but no value.", "Drop the interval.")

    def text(self, digits: int = 3) -> str:
        """The number as it stands in a table: `0.812 (0.741–0.873)`, `0.812`, or `undefined`."""
        if self.value is None:
            return "undefined"
        return f"{self.value:.{digits}f}{_format_interval(self.low, self.high, digits)}"

    def __str__(self) -> str:
        """Name and number."""
        return f"{self.name} {self.text()}"

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON; `from_dict` gives an equal estimate."""
        return {**asdict(self), "n": dict(self.n)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Estimate:
        """The estimate that `to_dict` wrote.

        Raises:
            RunError: a field is missing or unknown.
        """
        return cls(**_select_known_fields("estimate", fields, cls.__dataclass_fields__))


@dataclass(frozen=True)
class Comparison:
    """The difference of one metric between two methods on the same cases.

    Attributes:
        name: what was compared.
        value_a: the metric of method a, or None where undefined.
        value_b: the metric of method b, or None where undefined.
        difference: `value_a - value_b`, or None; positive means that a has the larger metric.
        low: lower end of the 95% interval of the difference, or None.
        high: upper end of the 95% interval of the difference, or None.
        p_value: two-sided p-value of "no difference", or None; then `why` says why.
        n: what was counted (images, studies, patients, seeds of each method).
        method: which test, in words.
        why: why something is missing, or what the reader must bear in mind.

    Raises:
        RunError: numbers that are not finite, half an interval, a missing p-value or difference without a reason.
    """

    name: str
    value_a: float | None
    value_b: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    n: Mapping[str, int] = field(default_factory=dict)
    method: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        """Refuse silent NaN, half intervals and missing results without a reason."""
        _require_finite(self.name, value_a=self.value_a, value_b=self.value_b, difference=self.difference)
        _require_finite(self.name, low=self.low, high=self.high, p_value=self.p_value)
        _require_interval(self.name, self.low, self.high)
        if (self.difference is None or self.p_value is None) and not self.why:
            raise RunError(f"Comparison {self.name!r} lacks a result and does not say why.", "Give `why`.")
        if self.p_value is not None and not 0.0 <= self.p_value <= 1.0:
            raise RunError(f"Comparison {self.name!r} has a p-value of {self.p_value}, outside 0 to 1.")

    def text(self, digits: int = 3) -> str:
        """The difference as it stands in a table: `+0.051 (+0.012–+0.090), p = 0.011`."""
        if self.difference is None:
            return "undefined"
        interval = _format_interval(self.low, self.high, digits, sign="+")
        return f"{self.difference:+.{digits}f}{interval}, {format_p_text(self.p_value)}"

    def __str__(self) -> str:
        """Name and difference."""
        return f"{self.name} {self.text()}"

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON; `from_dict` gives an equal comparison."""
        return {**asdict(self), "n": dict(self.n)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Comparison:
        """The comparison that `to_dict` wrote.

        Raises:
            RunError: a field is missing or unknown.
        """
        return cls(**_select_known_fields("comparison", fields, cls.__dataclass_fields__))


def format_p_cell(p_value: float | None) -> str:
    """A p-value in a column of its own: `0.021`, `< 0.001`, or a dash."""
    return "–" if p_value is None else format_p_text(p_value).removeprefix("p ").removeprefix("= ")


def format_p_text(p_value: float | None) -> str:
    """A p-value in print: `p = 0.021`, `p < 0.001`, or `no p`."""
    if p_value is None:
        return "no p"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _format_interval(low: float | None, high: float | None, digits: int, sign: str = "") -> str:
    return "" if low is None or high is None else f" ({low:{sign}.{digits}f}–{high:{sign}.{digits}f})"


def _require_finite(name: str, **values: float | None) -> None:
    for key, value in values.items():
        if value is not None and not math.isfinite(value):
            raise RunError(f"{name!r} has {key} = {value}; expected a finite number or None with a reason.")


def _require_interval(name: str, low: float | None, high: float | None) -> None:
    if (low is None) != (high is None):
        raise RunError(f"{name!r} has half an interval: low {low}, high {high}.")
    if low is not None and high is not None and low > high:
        raise RunError(f"{name!r} has an interval from {low} down to {high}.")


def _select_known_fields(what: str, fields: Mapping[str, Any], known: Mapping[str, object]) -> dict[str, Any]:
    strange, lacking = sorted(set(fields) - set(known)), sorted(set(known) - set(fields))
    if strange or lacking:
        raise RunError(
            f"This is no saved {what}: unknown fields {strange}, missing fields {lacking}.",
            "Measure again from the saved predictions.",
        )
    return dict(fields)
