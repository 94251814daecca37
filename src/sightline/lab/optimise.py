"""Optimisers as plain settings, factors of the learning rate by layer, and weights of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from sightline.errors import RecipeError


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
