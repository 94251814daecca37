"""Learning-rate schedules as plain settings: the rate is a function of the step, and of the epochs measured, alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sightline.errors import RecipeError

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class LinearDecay:
    """From `start` to `end` in a straight line over the training (Liao 2022: 1e-3 to 1e-5)."""

    start: float = 1e-3
    end: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        _require_rates(start=self.start, end=self.end)

    def rate(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> float:
        """Learning rate of a step, counted from 0."""
        return self.start + (self.end - self.start) * min(1.0, step / max(1, steps - 1))


@dataclass(frozen=True)
class CosineDecay:
    """Linear warm-up over a share of the training, then half a cosine down to `end`."""

    start: float = 1e-3
    end: float = 0.0
    warm_up: float = 0.05

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        _require_rates(start=self.start, end=self.end)

    def rate(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> float:
        """Learning rate of a step, counted from 0."""
        warm = max(1, round(self.warm_up * steps))
        if step < warm:
            return self.start * (step + 1) / warm
        turn = (step - warm) / max(1, steps - warm)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * turn))


@dataclass(frozen=True)
class StepDecay:
    """Multiply by `factor` every `every_epochs` (the code released with Liao 2022: 0.1 every 30 epochs)."""

    start: float = 1e-3
    factor: float = 0.1
    every_epochs: int = 30

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        _require_rates(start=self.start, factor=self.factor)

    def rate(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> float:
        """Learning rate of a step, counted from 0."""
        return float(self.start * self.factor ** (step // steps_per_epoch // self.every_epochs))


@dataclass(frozen=True)
class TriangularCycles:
    """Up and down between `peak` * `low` and `peak`, the height halved each cycle ("triangular2", Smith 2017).

    The code behind Watanabe 2022 multiplies its rate by a cycle that begins at that same rate: `low` = `peak`, so that
    training starts at the rate's square, 8.2e-5 for 0.0090552.

    Attributes:
        peak: highest rate.
        low: lowest share of it; None takes `peak` itself, as that code does.
        half_cycle_epochs: epochs from lowest to highest; the rate changes once an epoch.
    """

    peak: float = 0.0090552
    low: float | None = None
    half_cycle_epochs: int = 2

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        _require_rates(peak=self.peak, low=self.low or 0.0)
        if self.half_cycle_epochs < 1:
            raise RecipeError(f"half_cycle_epochs must be 1 or more; got {self.half_cycle_epochs}.", "Try 2.")

    def rate(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> float:
        """Learning rate of a step, counted from 0."""
        low = self.peak if self.low is None else self.low
        cycle, within = divmod(step // steps_per_epoch, 2 * self.half_cycle_epochs)
        height = 1.0 - abs(within / self.half_cycle_epochs - 1.0)
        return float(self.peak * (low + (1.0 - low) * height / 2.0**cycle))


@dataclass(frozen=True)
class ReduceOnPlateau:
    """Multiply by `factor` after `patience` epochs without a better value, and stop where nothing is to be hoped for.

    Zhu 2022 watches the total validation loss. With learned weights that falls by itself as the weights move (its
    equation 11), so that the recommended profile watches the cross-entropy.

    Attributes:
        start: first rate.
        factor: of each reduction.
        patience: epochs.
        watch: column of the history, less is better.
        least: rate below which training stops.
        give_up: epochs without a better value after which training stops; None: 2 `patience` + 3.
    """

    start: float = 1e-3
    factor: float = 0.1
    patience: int = 30
    watch: str = "val_loss"
    least: float = 1e-8
    give_up: int | None = None

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        _require_rates(start=self.start, factor=self.factor, least=self.least)
        if self.patience < 1 or self.factor >= 1.0:
            raise RecipeError(f"A plateau needs patience >= 1 and factor < 1; got {self.patience}, {self.factor}.")

    def rate(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> float:
        """Learning rate of a step, counted from 0, after the epochs in `history`."""
        return float(self.start * self.factor ** self._reductions(history)[0])

    def stops(self, history: History) -> bool:
        """Whether training is over."""
        reductions, waited = self._reductions(history)
        most = 2 * self.patience + 3 if self.give_up is None else self.give_up
        return self.start * self.factor**reductions < self.least or waited >= most

    def _reductions(self, history: History) -> tuple[int, int]:
        """How often the rate was reduced, and for how many epochs nothing has been better.

        Raises:
            RecipeError: the history has no such column.
        """
        reductions, waited, since, best = 0, 0, 0, math.inf
        for row in history:
            value = row.get(self.watch)
            if value is None:
                raise RecipeError(
                    f"ReduceOnPlateau watches {self.watch!r}, which this training does not measure.",
                    "It needs a validation split, and a column of history.csv.",
                )
            if float(value) < best:
                best, waited, since = float(value), 0, 0
                continue
            waited, since = waited + 1, since + 1
            if since > self.patience:
                reductions, since = reductions + 1, 0
        return reductions, waited


@dataclass(frozen=True)
class Steady:
    """One rate throughout, and an end after `patience` epochs without a better value (Engstler 2022: 50, on F1).

    Attributes:
        start: the rate.
        patience: epochs; None trains to the end.
        watch: column of the history.
        better: whether `more` or `less` of it is better.
    """

    start: float = 1e-3
    patience: int | None = None
    watch: str = "val_f1"
    better: Literal["more", "less"] = "more"

    def __post_init__(self) -> None:
        """Refuse rates and patience that are none."""
        _require_rates(start=self.start)
        if self.patience is not None and self.patience < 1:
            raise RecipeError(f"patience must be 1 or more, or null; got {self.patience}.", "Try 50.")

    def rate(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> float:
        """The rate, whatever the step."""
        return self.start

    def stops(self, history: History) -> bool:
        """Whether `patience` epochs have passed since the best one.

        Raises:
            RecipeError: the history has no such column.
        """
        if self.patience is None or not history:
            return False
        values = [row.get(self.watch) for row in history]
        if any(value is None for value in values):
            raise RecipeError(
                f"Steady watches {self.watch!r}, which this training does not measure.",
                "It needs a validation split, and a column of history.csv.",
            )
        signed = [float(value) if self.better == "more" else -float(value) for value in values if value is not None]
        return len(signed) - 1 - signed.index(max(signed)) >= self.patience


def _require_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0.0 <= rate < math.inf:
            raise RecipeError(f"A schedule's {name} must be a finite number of at least 0; got {rate}.", "Try 1e-3.")
