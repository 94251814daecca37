"""Two sides timed by turns, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch


class Unequal(AssertionError):
    """The two sides of a benchmark do not compute the same thing: their ratio would mean nothing."""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: what was compared.
        ours, theirs: one value a pair, in `unit`.
        unit: `s`, `images/s` or `MiB`.
        form: `ours / theirs` or `theirs / ours`.
        goal: bound on the median ratio, or None where there is none.
        better: whether a good ratio is `low` or `high`.
    """

    what: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    unit: str
    form: Literal["ours / theirs", "theirs / ours"]
    goal: float | None = None
    better: Literal["low", "high"] = "low"

    @property
    def ratios(self) -> tuple[float, ...]:
        """One ratio a pair."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return tuple(a / b if self.form == "ours / theirs" else b / a for a, b in pairs)

    @property
    def median(self) -> float:
        """Median of the paired ratios."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, or None without one."""
        if self.goal is None:
            return None
        return self.median <= self.goal if self.better == "low" else self.median >= self.goal


@dataclass(frozen=True)
class Part:
    """One part of our side, alone.

    Attributes:
        what: the part.
        seconds: one value a repetition.
        share: median seconds over the median seconds of the whole it is compared with.
    """

    what: str
    seconds: tuple[float, ...]
    share: float


@dataclass(frozen=True)
class Result:
    """What one benchmark measured, with the settings it was measured at."""

    name: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Result:
        """From JSON data."""
        rows = tuple(Row(**{**r, "ours": tuple(r["ours"]), "theirs": tuple(r["theirs"])}) for r in data["rows"])
        parts = tuple(Part(**{**p, "seconds": tuple(p["seconds"])}) for p in data["parts"])
        return cls(data["name"], data["settings"], rows, parts, tuple(data["notes"]))


def stopwatch(call: Callable[[], object], device: str) -> float:
    """Seconds of one call, the device idle before and after."""
    _wait(device)
    begun = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - begun


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], *, pairs: int, warm_up: int, device: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of both sides, taken A B A B ... after `warm_up` pairs that do not count."""
    for _ in range(warm_up):
        ours()
        theirs()
    a, b = [], []
    # what lives by now is looked at no more, so that collecting is quick
    gc.collect()
    gc.freeze()
    for _ in range(pairs):
        # garbage of one side must not be collected on the other's time
        gc.collect()
        a.append(stopwatch(ours, device))
        gc.collect()
        b.append(stopwatch(theirs, device))
    gc.unfreeze()
    return tuple(a), tuple(b)


def repeat(call: Callable[[], object], *, times: int, warm_up: int, device: str) -> tuple[float, ...]:
    """Seconds of one call, several times."""
    for _ in range(warm_up):
        call()
    return tuple(stopwatch(call, device) for _ in range(times))


def share(seconds: Sequence[float], whole: Sequence[float]) -> float:
    """Median over median."""
    return statistics.median(seconds) / statistics.median(whole)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
