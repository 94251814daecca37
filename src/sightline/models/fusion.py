"""Finer features without dilation: earlier stages are added to the last one from coarse to fine.

After feature pyramid networks (Lin 2017) and their use for class maps in radiographs (Preechakul 2022, PYLON).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sightline.errors import RecipeError
from sightline.models.backbones import Trunk


@dataclass(frozen=True)
class Fusion:
    """Feature maps at `stride` image pixels per cell with `channels` channels."""

    stride: int = 8
    channels: int = 128

    def __post_init__(self) -> None:
        """Refuse strides that are no power of two and empty features."""
        if self.stride not in (2, 4, 8, 16):
            raise RecipeError(f"Fusion goes to stride 2, 4, 8 or 16; got {self.stride}.")
        if self.channels < 1:
            raise RecipeError(f"Fusion needs at least one channel; got {self.channels}.")

    def build(self, trunk: Trunk) -> FeaturePyramid:
        """The module for a trunk, whose stages are found by a dry run.

        Raises:
            RecipeError: the trunk has no stage between its own stride and the one asked for.
        """
        if trunk.stride <= self.stride:
            raise RecipeError(
                f"The backbone already has stride {trunk.stride}; fusion to {self.stride} adds nothing.",
                "Leave fusion out or ask for a smaller stride.",
            )
        size, training = 128, trunk.training
        with torch.no_grad():
            _, stages = trunk.eval().levels(torch.zeros(1, trunk.channels, size, size))
        trunk.train(training)
        strides = [size // stage.shape[-1] for stage in stages]
        # the deepest stage at each stride, coarse to fine
        chosen = [
            max(i for i, s in enumerate(strides) if s == stride)
            for stride in sorted(set(strides), reverse=True)
            if self.stride <= stride < trunk.stride
        ]
        if not chosen or strides[chosen[-1]] != self.stride:
            raise RecipeError(f"The backbone has stages at strides {strides}; none gives {self.stride}.")
        return FeaturePyramid(trunk.channels_out, {i: stages[i].shape[1] for i in chosen}, self)


class FeaturePyramid(nn.Module):
    """1x1 laterals to one width, bilinear growth, addition, batch norm and ReLU, from coarse to fine."""

    def __init__(self, channels_in: int, laterals: dict[int, int], config: Fusion) -> None:
        """`laterals` maps the index of each joined stage to its channels, coarse to fine."""
        super().__init__()
        self.stride = config.stride
        self.channels_out = config.channels
        self.chosen = tuple(laterals)
        self.top = nn.Conv2d(channels_in, config.channels, 1)
        self.laterals = nn.ModuleList(nn.Conv2d(c, config.channels, 1, bias=False) for c in laterals.values())
        self.joins = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(config.channels), nn.ReLU(inplace=True)) for _ in laterals
        )

    def forward(self, features: Tensor, stages: list[Tensor]) -> Tensor:
        """Fine features [b, channels, h, w] from the last features and all stages of the trunk."""
        fine = cast(Tensor, self.top(features))
        for index, lateral, join in zip(self.chosen, self.laterals, self.joins, strict=True):
            stage = stages[index]
            fine = join(interpolate(fine, size=stage.shape[2:], mode="bilinear", align_corners=False) + lateral(stage))
        return fine
