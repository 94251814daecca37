"""Between the map grid and the image grid: separable interpolation as matrices, and reduction of marks."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d, interpolate

Interpolation = Literal["bicubic", "bilinear"]
Shrink = Literal["any_hit", "nearest"]


@lru_cache(maxsize=64)
def interpolation_matrix(old: int, new: int, mode: Interpolation, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A [new, old] such that A x is torch's interpolation of x along one axis (corners not aligned).

    As matrices, interpolation is deterministic on every device, differentiable any number of times, and its adjoint
    is at hand.
    """
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(old, dtype=torch.float64)[None, None]
        matrix = interpolate(identity, size=(new, old), mode=mode, align_corners=False)[0, 0]
        return matrix.to(dtype=dtype, device=device)


def enlarge(maps: Tensor, size: tuple[int, ...], mode: Interpolation) -> Tensor:
    """Maps [b, k, *m] on a grid of `size`."""
    for axis, new in enumerate(size, start=2):
        maps = _along(maps, interpolation_matrix(maps.shape[axis], new, mode, maps.dtype, maps.device), axis)
    return maps


def gather_back(targets: Tensor, size: tuple[int, ...], mode: Interpolation) -> Tensor:
    """The adjoint of `enlarge`: sum(enlarge(m) * s) == sum(m * gather_back(s))."""
    for axis, old in enumerate(size, start=2):
        matrix = interpolation_matrix(old, targets.shape[axis], mode, targets.dtype, targets.device)
        targets = _along(targets, matrix.T, axis)
    return targets


def reduce_marks(targets: Tensor, size: tuple[int, ...], how: Shrink) -> Tensor:
    """Marks [b, k, *s] (0 or 1, floating) on a coarser grid.

    `any_hit` sets a cell that any marked pixel reaches into, so no mark is lost; `nearest` looks at one pixel a cell,
    as the code released with Liao 2022 does, and loses a one-pixel line at stride 32 in 31 rows of 32.
    """
    if tuple(targets.shape[2:]) == size:
        return targets
    if how == "nearest":
        return interpolate(targets, size=size, mode="nearest")
    pools = {1: adaptive_max_pool1d, 2: adaptive_max_pool2d, 3: adaptive_max_pool3d}
    pooled: Tensor = pools[len(size)](targets, size)
    return pooled


def _along(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if axis == tensor.ndim - 1:
        return tensor @ matrix.T
    if axis == tensor.ndim - 2:
        return matrix @ tensor
    return torch.movedim(torch.movedim(tensor, axis, -1) @ matrix.T, -1, axis)
