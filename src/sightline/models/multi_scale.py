"""One network at several input sizes, its maps averaged: for findings of many sizes (scale pyramids, Adelson 1984)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sightline.errors import RecipeError
from sightline.evidence import Evidence
from sightline.models.class_maps import ClassMapModel
from sightline.models.global_pooling import GlobalPooling


@dataclass(frozen=True)
class MultiScale:
    """Trained as it is; at test time its maps and logits are means over scaled inputs.

    Attributes:
        model: the network.
        scales: factors on the input's sides; maps are brought to the grid of the first.
    """

    model: ClassMapModel | GlobalPooling = field(default_factory=ClassMapModel)
    scales: tuple[float, ...] = (1.0, 0.75, 1.25)

    def __post_init__(self) -> None:
        """Refuse factors that are none."""
        if not self.scales or not all(0.1 <= scale <= 4.0 for scale in self.scales):
            raise RecipeError(f"Scales are factors from 0.1 to 4; got {self.scales}.", "Try (1.0, 0.75, 1.25).")

    def without_weights(self) -> MultiScale:
        """The same architecture with nothing to load."""
        return replace(self, model=self.model.without_weights())

    def build(self, n_classes: int) -> MultiScaleNetwork:
        """The network."""
        return MultiScaleNetwork(self.model.build(n_classes), self.scales)


class MultiScaleNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])`: Evidence of the network, in evaluation averaged over scales."""

    def __init__(self, network: nn.Module, scales: tuple[float, ...]) -> None:
        """Wrap a network whose Evidence has maps of the whole image."""
        super().__init__()
        self.network = network
        self.scales = scales

    def forward(self, images: Tensor) -> Evidence:
        """In training the network as it is; else logits, maps and attention as means over scales."""
        if self.training:
            plain: Evidence = self.network(images)
            return plain
        seen = [self.network(self._at(images, scale)) for scale in self.scales]
        assert all(evidence.maps is not None for evidence in seen)
        grid = seen[0].maps.shape[2:]
        maps = torch.stack([_to(evidence.maps, grid) for evidence in seen]).mean(dim=0)
        # shares sum to the logit, so growing a grid must not grow their sum
        shares = [_to(e.extras["attention"], grid) for e in seen]
        totals = [e.extras["attention"].flatten(2).sum(-1) for e in seen]
        attention = torch.stack(
            [
                s + ((t - s.flatten(2).sum(-1)) / grid.numel())[..., None, None]
                for s, t in zip(shares, totals, strict=True)
            ]
        ).mean(dim=0)
        logits = torch.stack([evidence.logits for evidence in seen]).mean(dim=0)
        return Evidence(logits=logits, maps=maps, extras={"attention": attention})

    def _at(self, images: Tensor, scale: float) -> Tensor:
        if scale == 1.0:
            return images
        size = [max(32, round(n * scale)) for n in images.shape[2:]]
        return interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def _to(maps: Tensor, grid: torch.Size) -> Tensor:
    return interpolate(maps, size=tuple(grid), mode="bilinear", align_corners=False)
