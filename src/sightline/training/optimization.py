"""Optimisers as plain settings, factors of the learning rate by layer, and weights of classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import nn

from sightline.errors import RecipeError

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent (Liao 2022, section V: momentum 0.9, weight decay 5e-4)."""

    clip_value: ClassVar[float | None] = None

    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over parameter groups."""
        return torch.optim.SGD(
            groups, lr=0.0, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    clip_value: ClassVar[float | None] = None

    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over parameter groups."""
        return torch.optim.AdamW(groups, lr=0.0, weight_decay=self.weight_decay, betas=self.betas)


@dataclass(frozen=True)
class Adagrad:
    """Adagrad (Duchi 2011), as in Table V of Jimenez-Sanchez 2018."""

    clip_value: ClassVar[float | None] = None

    weight_decay: float = 0.0

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over parameter groups."""
        return torch.optim.Adagrad(groups, lr=0.0, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), as in Zhu 2022 and Watanabe 2022.

    Attributes:
        weight_decay: added to the gradient.
        betas: decay of the two moments.
        clip_value: every number of a gradient is held within this of zero (0.1 in Watanabe 2022), or None.
    """

    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_value: float | None = None

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over parameter groups."""
        return torch.optim.Adam(groups, lr=0.0, weight_decay=self.weight_decay, betas=self.betas)


class LayerSchedule(Protocol):
    """A schedule of some layers alone: the rate of a step, as `ScheduleConfig` has it."""

    def rate(  # noqa: D102
        self, step: int, steps: int, steps_per_epoch: int, history: History = ()
    ) -> float: ...


@dataclass(frozen=True)
class LayerRates:
    """Learning rates by the start of a parameter's name; the longest match wins, the recipe's own where none matches.

    Attributes:
        factors: of the recipe's rate.
        schedules: in its place: rates that run their own course (Jimenez-Sanchez 2018, Table I: the localisation
            network's halves every 25 epochs, the classifier's every 10).
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    schedules: Mapping[str, LayerSchedule] | None = field(default=None, metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse a start that has two rates, and schedules that are none."""
        own = self.schedules or {}
        twice = sorted(own.keys() & self.factors.keys())
        if twice:
            raise RecipeError(f"rates: {', '.join(twice)} has a factor and a schedule.", "Keep one of them.")
        for start, factor in self.factors.items():
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0.0 <= factor < math.inf:
                raise RecipeError(f"rates.factors: {start!r} has {factor!r}; expected 0 or more.", "Write e.g. 0.1.")
        odd = [start for start, schedule in own.items() if not hasattr(schedule, "rate")]
        if odd:
            raise RecipeError(f"rates.schedules: {', '.join(odd)} has no schedule.", "Write e.g. a step_decay.")

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups, each with its `factor` or the start of its `schedule`; frozen parameters are left out."""
        members: dict[tuple[float, str], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                members.setdefault(self._find_rule(name), []).append(parameter)
        if not members:
            raise RecipeError("The model has no parameter to train.", "Unfreeze some of its stages.")
        starts = (*self.factors, *(self.schedules or {}))
        unused = [start for start in starts if not any(n.startswith(start) for n, _ in model.named_parameters())]
        if unused:
            raise RecipeError(f"No parameter's name starts with {', '.join(unused)}.", "Fix rates.")
        return [{"params": group, "factor": rule[0], "schedule": rule[1]} for rule, group in members.items()]

    def own(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> dict[str, float]:
        """The rates of a step that do not follow the recipe's, by the start of their parameters' names."""
        return {
            start: schedule.rate(step, steps, steps_per_epoch, history)
            for start, schedule in (self.schedules or {}).items()
        }

    def _find_rule(self, name: str) -> tuple[float, str]:
        """Factor, and the start whose schedule is followed, or nothing."""
        own = self.schedules or {}
        start = max((start for start in (*self.factors, *own) if name.startswith(start)), key=len, default=None)
        if start is None:
            return 1.0, ""
        return (1.0, start) if start in own else (float(self.factors[start]), "")


def set_rate(optimizer: torch.optim.Optimizer, rate: float, own: Mapping[str, float] | None = None) -> None:
    """Give every group its rate: the schedule's times the group's factor, or that of its own schedule."""
    for group in optimizer.param_groups:
        start = group.get("schedule", "")
        group["lr"] = (own or {})[start] if start else rate * group.get("factor", 1.0)


def compute_class_weights(labels: Iterable[int], n_classes: int) -> torch.Tensor:
    """Inverse class frequency, scaled so that the mean weight over the samples is 1: float [k].

    A class without a sample gets weight 0: it never occurs in the loss.
    """
    counts = torch.bincount(torch.as_tensor(list(labels), dtype=torch.int64), minlength=n_classes).double()
    present = counts > 0
    weights = torch.zeros(n_classes, dtype=torch.float64)
    weights[present] = counts.sum() / (counts[present] * int(present.sum()))
    return weights.float()


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
        """Refuse rates that are none, and a warm-up longer than the training."""
        _require_rates(start=self.start, end=self.end)
        if not 0.0 <= self.warm_up <= 1.0:
            raise RecipeError(f"warm_up is a share of the training, in 0..1; got {self.warm_up}.", "Try 0.05.")

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
        """Refuse rates and epochs that are none."""
        _require_rates(start=self.start, factor=self.factor)
        if self.every_epochs < 1:
            raise RecipeError(f"every_epochs must be 1 or more; got {self.every_epochs}.", "Try 30.")

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
    equation 11): `watch="val_cross_entropy"` does not.

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
        if self.start < self.least or (self.give_up is not None and self.give_up < 1):
            raise RecipeError(
                f"This plateau stops before its first step: start {self.start}, least {self.least}, "
                f"give_up {self.give_up}.",
                "Set start above least, and give_up to 1 or more, or null.",
            )

    def rate(self, step: int, steps: int, steps_per_epoch: int, history: History = ()) -> float:
        """Learning rate of a step, counted from 0, after the epochs in `history`."""
        return float(self.start * self.factor ** self._count_reductions(history)[0])

    def stops(self, history: History) -> bool:
        """Whether training is over."""
        reductions, waited = self._count_reductions(history)
        most = 2 * self.patience + 3 if self.give_up is None else self.give_up
        return self.start * self.factor**reductions < self.least or waited >= most

    def _count_reductions(self, history: History) -> tuple[int, int]:
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


@dataclass(frozen=True)
class WeightRelease:
    """The guidance weight strong first and then released: a curriculum that shows where to look, then lets go.

    The factor of the weight is 1 for a share `hold` of the steps, falls to `end` in half a cosine over a share `fall`,
    and stays there. (Curriculum, Bengio 2009; Zhu 2022 begins with gaze alone by its first sigma, 1e-9.)

    Attributes:
        hold: share of the steps at full weight.
        fall: share of the steps in which it falls; 0 drops it at once.
        end: factor at the end.

    Example:
        >>> [round(WeightRelease(0.5, 0.25, 0.1).factor(step, 100), 2) for step in (0, 49, 62, 75, 99)]
        [1.0, 1.0, 0.56, 0.1, 0.1]
    """

    hold: float = 0.5
    fall: float = 0.25
    end: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not (0.0 <= self.hold <= 1.0 and 0.0 <= self.fall <= 1.0 and self.hold + self.fall <= 1.0 + 1e-9):
            raise RecipeError(f"hold and fall are shares of the steps, 1 at most in all; got {self.hold}, {self.fall}.")
        if not 0.0 <= self.end < math.inf:
            raise RecipeError(f"end is a factor of 0 or more; got {self.end}.")

    def factor(self, step: int, steps: int) -> float:
        """Of the guidance weight, for a step counted from 0."""
        past = step / max(1, steps) - self.hold
        if past <= 0.0:
            return 1.0
        if past >= self.fall:
            return self.end
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + math.cos(math.pi * past / self.fall))


def _require_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0.0 <= rate < math.inf:
            raise RecipeError(f"A schedule's {name} must be a finite number of at least 0; got {rate}.", "Try 1e-3.")
