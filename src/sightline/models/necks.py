"""Attention modules between features and class maps, shape-preserving (the comparison rows of Liao 2022, Table III).

Liao et al. adapted the published modules and released none of them; the definitions here are the ones in
`docs/models.md`. Each config's `build(channels)` gives a module [b, c, h, w] -> [b, c, h, w].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from sightline.errors import RecipeError
from sightline.models.backbones import Trunk


@dataclass(frozen=True)
class ResidualAttention:
    """Residual attention (Wang 2017): out = (1 + mask) * trunk. Bottlenecks are channels / divisor wide."""

    divisor: int = 4

    def build(self, channels: int) -> nn.Module:
        """The module for features of that many channels."""
        return ResidualAttentionModule(channels, _width(channels, self.divisor))


@dataclass(frozen=True)
class SelfAttention:
    """Self-attention (Zhang 2019, SAGAN): out = x + gamma * attention(x), gamma 0 at first.

    Queries and keys have channels / divisor channels, values channels / value_divisor.
    """

    divisor: int = 8
    value_divisor: int = 1

    def build(self, channels: int) -> nn.Module:
        """The module for features of that many channels."""
        return SelfAttentionModule(channels, _width(channels, self.divisor), _width(channels, self.value_divisor))


@dataclass(frozen=True)
class PyramidAttention:
    """Feature pyramid attention (Li 2018, PAN): out = pyramid(x) * main(x) + pooled(x).

    The pyramid's convolutions are channels / divisor wide.
    """

    divisor: int = 16

    def build(self, channels: int) -> nn.Module:
        """The module for features of that many channels."""
        return PyramidAttentionModule(channels, _width(channels, self.divisor))


class ResidualAttentionModule(nn.Module):
    """Two pre-activation bottlenecks as trunk; a half-resolution branch beside them makes the mask."""

    def __init__(self, channels: int, width: int) -> None:
        """For features of `channels` channels."""
        super().__init__()
        self.trunk = nn.Sequential(_Bottleneck(channels, width), _Bottleneck(channels, width))
        self.coarse = nn.Sequential(_Bottleneck(channels, width), _Bottleneck(channels, width))
        self.mask = nn.Sequential(_norm_act_conv(channels, channels), _norm_act_conv(channels, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(1 + mask(x)) * trunk(x)."""
        trunk = cast(Tensor, self.trunk(x))
        coarse = self.coarse(max_pool2d(x, 3, stride=2, padding=1))
        mask = self.mask(_grow(coarse, x) + trunk)
        return (1.0 + mask) * trunk


class SelfAttentionModule(nn.Module):
    """Every cell attends to every cell, softmax over keys, without the 1/sqrt(d) that SAGAN does not have."""

    def __init__(self, channels: int, width: int, value_width: int) -> None:
        """For features of `channels` channels."""
        super().__init__()
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, value_width, 1)
        self.back = nn.Identity() if value_width == channels else nn.Conv2d(value_width, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The sum x + gamma * sum over keys of softmax(q k) v."""
        # written out rather than fused: explainers differentiate through it twice
        query, key, value = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
        weight = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        attended = (value @ weight.transpose(1, 2).to(value.dtype)).reshape(*value.shape[:2], *x.shape[2:])
        return cast(Tensor, x + self.gamma * self.back(attended))


class PyramidAttentionModule(nn.Module):
    """7x7, 5x5 and 3x3 convolutions of stride 2, merged from coarse to fine, weigh a 1x1 branch."""

    kernels = (7, 5, 3)

    def __init__(self, channels: int, width: int) -> None:
        """For features of `channels` channels."""
        super().__init__()
        self.main = _conv_norm(channels, channels, 1)
        # no batch norm here: a pooled cell of a single image has no variance
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True))
        inputs = (channels, width, width)
        self.down = nn.ModuleList(_conv_norm_act(c, width, k, 2) for c, k in zip(inputs, self.kernels, strict=True))
        self.same = nn.ModuleList(_conv_norm_act(width, width, k, 1) for k in self.kernels)
        self.back = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """pyramid(x) * main(x) + pooled(x); a level whose grid would shrink to a single row or column is left out."""
        main = cast(Tensor, self.main(x))
        levels: list[Tensor] = []
        grids: list[Tensor] = []
        fine = x
        for down, same in zip(self.down, self.same, strict=True):
            if min(fine.shape[2:]) < 3:
                break
            fine = down(fine)
            grids.append(fine)
            levels.append(same(fine))
        if levels:
            merged = levels[-1]
            for level in reversed(levels[:-1]):
                merged = _grow(merged, level) + level
            main = main * self.back(_grow(merged, x))
        return cast(Tensor, main + self.pooled(x))


class _Bottleneck(nn.Module):
    """x + 1x1, 3x3, 1x1, each after batch norm and ReLU (He 2016, pre-activation)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _norm_act_conv(channels, width), _norm_act_conv(width, width, 3), _norm_act_conv(width, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.body(x))


def _norm_act_conv(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    # the ReLU is not in place: its input is also the shortcut's
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _conv_norm_act(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return _conv_norm(inputs, outputs, kernel, stride).append(nn.ReLU(inplace=True))


def _grow(small: Tensor, like: Tensor) -> Tensor:
    return interpolate(small, size=like.shape[2:], mode="bilinear", align_corners=False)


def _width(channels: int, divisor: int) -> int:
    if divisor < 1:
        raise RecipeError(f"A channel divisor is 1 or more; got {divisor}.")
    return max(channels // divisor, 1)


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
