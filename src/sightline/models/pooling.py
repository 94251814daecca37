"""From class maps [b, k, *m] to logits [b, k]: one formula a pooling, in any number of map axes.

`pool(maps)` is the logit; `pool.share(maps)` is the part of it that each cell contributes (the M'_c of Liao 2022,
eq. 5): it has the shape of the maps and sums to the logit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sightline.errors import RecipeError


class Pool(Protocol):
    """What turns a map into a logit."""

    def __call__(self, maps: Tensor) -> Tensor:
        """Logits [b, k] of maps [b, k, *m]."""
        ...

    def share(self, maps: Tensor) -> Tensor:
        """What each cell contributes: [b, k, *m], summing to the logits."""
        ...


@dataclass(frozen=True)
class MeanPool:
    """z = mean(M): global average pooling before the linear layer, written after it (Zhou 2016; Liao 2022, eq. 3)."""

    def __call__(self, maps: Tensor) -> Tensor:
        """Logits [b, k]."""
        return maps.flatten(2).mean(-1)

    def share(self, maps: Tensor) -> Tensor:
        """M / n."""
        return maps / math.prod(maps.shape[2:])


@dataclass(frozen=True)
class SoftmaxPool:
    """z = sum(softmax(M / T) * M): spatial self-attention pooling (Liao 2022, eq. 5, where T = 1)."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive."""
        if not self.temperature > 0:
            raise RecipeError(f"temperature must be positive; got {self.temperature}.")

    def __call__(self, maps: Tensor) -> Tensor:
        """Logits [b, k]."""
        return self.share(maps).flatten(2).sum(-1)

    def share(self, maps: Tensor) -> Tensor:
        """softmax(M / T) * M."""
        flat = maps.flatten(2)
        return (torch.softmax(flat / self.temperature, dim=-1) * flat).view_as(maps)


@dataclass(frozen=True)
class MaxPool:
    """z = max(M) (Oquab 2015)."""

    def __call__(self, maps: Tensor) -> Tensor:
        """Logits [b, k]."""
        return maps.flatten(2).amax(-1)

    def share(self, maps: Tensor) -> Tensor:
        """M at its (first) highest cell, 0 elsewhere."""
        flat = maps.flatten(2)
        best = flat.argmax(-1, keepdim=True)
        return torch.zeros_like(flat).scatter(-1, best, flat.gather(-1, best)).view_as(maps)


@dataclass(frozen=True)
class LogSumExpPool:
    """z = x* + (1/r) log mean exp(r (M - x*)), x* = max M: between mean (r -> 0) and max (Pinheiro 2015; Wang 2017)."""

    r: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a sharpness that is not positive."""
        if not self.r > 0:
            raise RecipeError(f"r must be positive; got {self.r}.")

    def __call__(self, maps: Tensor) -> Tensor:
        """Logits [b, k]."""
        flat = maps.flatten(2)
        # torch.logsumexp is the max-shifted form
        return (torch.logsumexp(self.r * flat, dim=-1) - math.log(flat.shape[-1])) / self.r

    def share(self, maps: Tensor) -> Tensor:
        """softmax(r M) * z: with w = softmax(r M), z = sum w (M - log(n w) / r), and every bracket equals z."""
        weight = torch.softmax(self.r * maps.flatten(2), dim=-1)
        return (weight * self(maps).unsqueeze(-1)).view_as(maps)


@dataclass(frozen=True)
class TopPool:
    """z = mean of the highest cells of M: between mean (`share_kept` 1) and max, for findings that are small.

    A finding that covers a percent of the picture fills the top percent of the cells, whatever lies elsewhere, and no
    single cell decides: multiple-instance learning with the k highest instances (Kraus 2016; Durand 2017, WILDCAT,
    without its lowest cells).

    Attributes:
        share_kept: share of the cells that are averaged; at least one is.
    """

    share_kept: float = 0.02

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0.0 < self.share_kept <= 1.0:
            raise RecipeError(f"share_kept lies above 0 and up to 1; got {self.share_kept}.", "Try 0.02.")

    def __call__(self, maps: Tensor) -> Tensor:
        """Logits [b, k]."""
        return self._find_highest(maps).values.mean(-1)

    def share(self, maps: Tensor) -> Tensor:
        """M / k at its k highest cells, 0 elsewhere."""
        values, cells = self._find_highest(maps)
        flat = torch.zeros_like(maps.flatten(2))
        return flat.scatter(-1, cells, values / cells.shape[-1]).view_as(maps)

    def _find_highest(self, maps: Tensor) -> torch.return_types.topk:
        flat = maps.flatten(2)
        return flat.topk(max(1, round(self.share_kept * flat.shape[-1])), dim=-1)


# below it softplus(x) is exp(x) to the last digit of 64 bits
EXPONENTIAL_BELOW = -40.0


@dataclass(frozen=True)
class NoisyOrPool:
    """z = logit(1 - prod(1 - p)) with p = sigmoid(M + logit(prior)): a finding in any cell, each judged by itself.

    Multiple-instance learning by noisy-or (Maron 1998; Zhang 2006), with z in closed form: with S = sum(-log(1 - p)),
    z = S + log(1 - exp(-S)).

    Attributes:
        prior: probability of a cell whose map is 0. Of n such cells the picture's is 1 - (1 - prior)^n: with 2,000
            to 10,000 cells about a half at the default.
    """

    prior: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse a probability that is none."""
        if not 0.0 < self.prior < 1.0:
            raise RecipeError(f"prior lies between 0 and 1; got {self.prior}.", "Try 0.0001.")

    def __call__(self, maps: Tensor) -> Tensor:
        """Logits [b, k]."""
        surprise, raised = self._take_surprise(maps)
        total = surprise.flatten(2).sum(-1)
        return total + torch.log(-torch.expm1(-total)) - raised

    def share(self, maps: Tensor) -> Tensor:
        """Each cell's part of S, of z."""
        surprise, _ = self._take_surprise(maps)
        flat = surprise.flatten(2)
        return (flat / flat.sum(-1, keepdim=True) * self(maps).unsqueeze(-1)).view_as(maps)

    def _take_surprise(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """-log(1 - p) of each cell, and by how much, [b, k], log odds were raised so that no sum of it underflows.

        Where any are, every softplus is an exp: z is less by as much, and each cell's part stays.
        """
        odds = maps + math.log(self.prior / (1.0 - self.prior))
        raised = (EXPONENTIAL_BELOW - odds.detach().flatten(2).amax(-1)).clamp(min=0.0)
        return softplus(odds + raised.view(*raised.shape, *[1] * (maps.ndim - 2))), raised


Pooling = MeanPool | SoftmaxPool | MaxPool | LogSumExpPool | TopPool | NoisyOrPool
