"""Between features and class maps: attention modules that keep the shape, and finer maps from earlier stages.

The attention modules are the comparison rows of Liao 2022, Table III, who adapted the published ones and released
none; the definitions here are those of `docs/models.md`. Each config's `build(channels)` gives a module
[b, c, h, w] -> [b, c, h, w]. `Fusion` and `Pylon` join the stages of a trunk: their `build(trunk)` gives a module of
the last features and all stages.
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
        return ResidualAttentionModule(channels, _round_width(channels, self.divisor))


@dataclass(frozen=True)
class SelfAttention:
    """Self-attention (Zhang 2019, SAGAN): out = x + gamma * attention(x), gamma 0 at first.

    Queries and keys have channels / divisor channels, values channels / value_divisor.
    """

    divisor: int = 8
    value_divisor: int = 1

    def build(self, channels: int) -> nn.Module:
        """The module for features of that many channels."""
        return SelfAttentionModule(
            channels, _round_width(channels, self.divisor), _round_width(channels, self.value_divisor)
        )


@dataclass(frozen=True)
class PyramidAttention:
    """Feature pyramid attention (Li 2018, PAN): out = pyramid(x) * main(x) + pooled(x).

    The pyramid's convolutions are channels / divisor wide.
    """

    divisor: int = 16

    def build(self, channels: int) -> nn.Module:
        """The module for features of that many channels."""
        return PyramidAttentionModule(channels, _round_width(channels, self.divisor))


class ResidualAttentionModule(nn.Module):
    """Two pre-activation bottlenecks as trunk; a half-resolution branch beside them makes the mask."""

    def __init__(self, channels: int, width: int) -> None:
        """For features of `channels` channels."""
        super().__init__()
        self.trunk = nn.Sequential(_Bottleneck(channels, width), _Bottleneck(channels, width))
        self.coarse = nn.Sequential(_Bottleneck(channels, width), _Bottleneck(channels, width))
        self.mask = nn.Sequential(
            _build_norm_act_conv(channels, channels), _build_norm_act_conv(channels, channels), nn.Sigmoid()
        )

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
        self.main = _build_conv_norm(channels, channels, 1)
        # no batch norm here: a pooled cell of a single image has no variance
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True))
        inputs = (channels, width, width)
        self.down = nn.ModuleList(
            _build_conv_norm_act(c, width, k, 2) for c, k in zip(inputs, self.kernels, strict=True)
        )
        self.same = nn.ModuleList(_build_conv_norm_act(width, width, k, 1) for k in self.kernels)
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
            _build_norm_act_conv(channels, width),
            _build_norm_act_conv(width, width, 3),
            _build_norm_act_conv(width, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.body(x))


def _build_norm_act_conv(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    # the ReLU is not in place: its input is also the shortcut's
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


def _build_conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _build_conv_norm_act(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return _build_conv_norm(inputs, outputs, kernel, stride).append(nn.ReLU(inplace=True))


def _grow(small: Tensor, like: Tensor) -> Tensor:
    return interpolate(small, size=like.shape[2:], mode="bilinear", align_corners=False)


def _round_width(channels: int, divisor: int) -> int:
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
        return FeaturePyramid(trunk.channels_out, _select_stages_down_to(trunk, self.stride), self)


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


@dataclass(frozen=True)
class Pylon:
    """The decoder of PYLON (Preechakul 2022): pyramid attention on the last features, then a block a stage.

    The network as published has it with `MaxPool`, image labels alone, and stride 4.

    Attributes:
        stride: image pixels per map cell: 2, 4, 8 or 16.
        channels: width of everything after the encoder.
    """

    stride: int = 4
    channels: int = 128

    def __post_init__(self) -> None:
        """Refuse strides that are no power of two and empty features."""
        Fusion(self.stride, self.channels)

    def build(self, trunk: Trunk) -> PylonDecoder:
        """The module for a trunk, whose stages are found by a dry run.

        Raises:
            RecipeError: the trunk has no stage between its own stride and the one asked for.
        """
        return PylonDecoder(trunk.channels_out, _select_stages_down_to(trunk, self.stride), self)


class PylonDecoder(nn.Module):
    """Deepest features through `pyramid`, grown stage by stage; each stage is added after two 1x1 convolutions."""

    def __init__(self, channels_in: int, laterals: dict[int, int], config: Pylon) -> None:
        """`laterals` maps the index of each joined stage to its channels, coarse to fine."""
        super().__init__()
        self.stride = config.stride
        self.channels_out = config.channels
        self.chosen = tuple(laterals)
        self.pyramid = SpatialPyramidAttention(channels_in, config.channels)
        self.laterals = nn.ModuleList(
            nn.Sequential(_build_conv_norm_act(c, c, 1, 1), _build_conv_norm_act(c, config.channels, 1, 1))
            for c in laterals.values()
        )

    def forward(self, features: Tensor, stages: list[Tensor]) -> Tensor:
        """Fine features [b, channels, h, w] from the last features and all stages of the trunk."""
        fine = cast(Tensor, self.pyramid(features))
        for index, lateral in zip(self.chosen, self.laterals, strict=True):
            fine = _grow_by_corners(fine, stages[index]) + lateral(stages[index])
        return fine


class SpatialPyramidAttention(nn.Module):
    """One attention map for all channels, from three scales: out = up(a1 + up(a2 + up(a3))) * conv1x1(x).

    Each scale halves the last one (max pooling) and is one channel wide: kernels 7, 5 and 3 on the way down, and once
    more on the way up. A scale that would be empty is left out, and without any the attention is 1.
    """

    kernels = (7, 5, 3)

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """From features of `channels_in` channels to `channels_out`."""
        super().__init__()
        self.main = _build_conv_norm_act(channels_in, channels_out, 1, 1)
        inputs = (channels_in, 1, 1)
        self.down = nn.ModuleList(_build_conv_norm_act(c, 1, k, 1) for c, k in zip(inputs, self.kernels, strict=True))
        self.up = nn.ModuleList(_build_conv_norm_act(1, 1, k, 1) for k in self.kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Features [b, channels_out, h, w] of [b, channels_in, h, w]."""
        scales: list[Tensor] = []
        grids = [x]
        for down, up in zip(self.down, self.up, strict=True):
            if min(grids[-1].shape[2:]) < 2:
                break
            grids.append(down(max_pool2d(grids[-1], 2)))
            scales.append(up(grids[-1]))
        main = cast(Tensor, self.main(x))
        if not scales:
            return main
        attention = scales.pop()
        for scale in reversed(scales):
            attention = _grow_by_corners(attention, scale) + scale
        return _grow_by_corners(attention, x) * main


def _grow_by_corners(small: Tensor, like: Tensor) -> Tensor:
    # PYLON lays corner cells on corner cells
    return interpolate(small, size=like.shape[2:], mode="bilinear", align_corners=True)


def _select_stages_down_to(trunk: Trunk, stride: int) -> dict[int, int]:
    """The deepest stage at each stride finer than the trunk's, coarse to fine: its channels by its index.

    Raises:
        RecipeError: the trunk has no stage between its own stride and the one asked for.
    """
    if trunk.stride <= stride:
        raise RecipeError(
            f"The backbone already has stride {trunk.stride}; fusion to {stride} adds nothing.",
            "Leave fusion out or ask for a smaller stride.",
        )
    size, training = trunk.fixed_px or 128, trunk.training
    with torch.no_grad():
        last, stages = trunk.eval().levels(torch.zeros(1, trunk.channels, size, size))
    trunk.train(training)
    if last.shape[1] != trunk.channels_out:
        raise RecipeError(
            f"The stages of {trunk.name!r} end in {last.shape[1]} channels; its last features, which a layer of its "
            f"own makes of them, have {trunk.channels_out}.",
            f"Leave that layer out (set stages to {len(stages)}), or leave fusion out.",
        )
    strides = [size // stage.shape[-1] for stage in stages]
    chosen = [
        max(i for i, s in enumerate(strides) if s == found)
        for found in sorted(set(strides), reverse=True)
        if stride <= found < trunk.stride
    ]
    if not chosen or strides[chosen[-1]] != stride:
        raise RecipeError(f"The backbone has stages at strides {strides}; none gives {stride}.")
    return {i: stages[i].shape[1] for i in chosen}
