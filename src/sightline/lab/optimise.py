"""Optimisers and learning-rate schedules as plain settings; the rate is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sightline.errors import RecipeError


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent (Liao 2022, section V: momentum 0.9, weight decay 5e-4)."""

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

    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over parameter groups."""
        return torch.optim.AdamW(groups, lr=0.0, weight_decay=self.weight_decay, betas=self.betas)


@dataclass(frozen=True)
class Adagrad:
    """Adagrad (Duchi 2011), as in Table V of Jimenez-Sanchez 2018."""

    weight_decay: float = 0.0

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over parameter groups."""
        return torch.optim.Adagrad(groups, lr=0.0, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class LinearDecay:
    """From `start` to `end` in a straight line over the training (Liao 2022: 1e-3 to 1e-5)."""

    start: float = 1e-3
    end: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        _require_rates(start=self.start, end=self.end)

    def rate(self, step: int, steps: int, steps_per_epoch: int) -> float:
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

    def rate(self, step: int, steps: int, steps_per_epoch: int) -> float:
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

    def rate(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0."""
        return float(self.start * self.factor ** (step // steps_per_epoch // self.every_epochs))


@dataclass(frozen=True)
class LayerRates:
    """Learning-rate factors by the start of a parameter's name; the longest match wins, 1 where none matches."""

    factors: Mapping[str, float] = field(default_factory=dict)

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups, each with its `factor`; frozen parameters are left out."""
        members: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                members.setdefault(self._factor(name), []).append(parameter)
        if not members:
            raise RecipeError("The model has no parameter to train.", "Unfreeze some of its stages.")
        unused = [start for start in self.factors if not any(n.startswith(start) for n, _ in model.named_parameters())]
        if unused:
            raise RecipeError(f"No parameter's name starts with {', '.join(unused)}.", "Mend rates.factors.")
        return [{"params": parameters, "factor": factor} for factor, parameters in members.items()]

    def _factor(self, name: str) -> float:
        starts = [start for start in self.factors if name.startswith(start)]
        return float(self.factors[max(starts, key=len)]) if starts else 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its rate: the schedule's times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def class_weights(labels: Iterable[int], n_classes: int) -> torch.Tensor:
    """Inverse class frequency, scaled so that the mean weight over the samples is 1: float [k].

    A class without a sample gets weight 0: it never occurs in the loss.
    """
    counts = torch.bincount(torch.as_tensor(list(labels), dtype=torch.int64), minlength=n_classes).double()
    present = counts > 0
    weights = torch.zeros(n_classes, dtype=torch.float64)
    weights[present] = counts.sum() / (counts[present] * int(present.sum()))
    return weights.float()


def _require_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0.0 <= rate < math.inf:
            raise RecipeError(f"A schedule's {name} must be a finite number of at least 0; got {rate}.", "Try 1e-3.")
