"""What is done to a heatmap and to gaze before they are compared pixel by pixel (Watanabe 2022; spec 4.5)."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torchvision.transforms.v2.functional import gaussian_blur

Encoding = Literal["linear", "viridis_gray"]


def on_grid(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [b, 1, h, w] on another grid: means over cells, or bilinear where the grid is finer."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    if maps.shape[-2] >= size[0] and maps.shape[-1] >= size[1]:
        return adaptive_avg_pool2d(maps, size)
    return interpolate(maps, size=size, mode="bilinear", align_corners=False)


def smoothed(maps: Tensor, sigma_px: float | None) -> Tensor:
    """Maps [b, 1, h, w] under a Gaussian of that standard deviation in cells of their own grid; None: as they are.

    It reaches to three standard deviations, or to the map's side, and mirrors at the edges.
    """
    if sigma_px is None:
        return maps
    # torchvision mirrors at the edges, which needs less than half a kernel's width there
    reach = [max(0, min(round(3.0 * sigma_px), side - 1)) for side in (maps.shape[-1], maps.shape[-2])]
    return gaussian_blur(maps, kernel_size=[2 * r + 1 for r in reach], sigma=[sigma_px, sigma_px])


def min_max(maps: Tensor) -> Tensor:
    """Maps [b, 1, h, w] each from 0 to 1. Gradients pass the values, not minimum and maximum.

    A map that is the same everywhere has no scale and becomes 0; see `lively`.
    """
    low = maps.detach().flatten(1).amin(1).view(-1, 1, 1, 1)
    high = maps.detach().flatten(1).amax(1).view(-1, 1, 1, 1)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    return (maps - low) / span


def lively(maps: Tensor) -> Tensor:
    """Which maps [b, 1, h, w] are not the same everywhere: bool [b]. A map of NaN counts, so that it is noticed."""
    flat = maps.detach().flatten(1)
    return ~(flat.amax(1) <= flat.amin(1))


def encoded(gaze: Tensor, how: Encoding) -> Tensor:
    """Gaze in 0..1 as the target of a binary cross-entropy.

    `viridis_gray` is what remains of a map saved in matplotlib's colours and read as grey, as the code behind
    Watanabe 2022 does: from 0.118 to 0.845 (spec 4.2), so that "nothing was looked at here" is never quite said.
    """
    if how == "linear":
        return gaze
    # matplotlib's own step: 256 colours over 0..1
    steps = (gaze * 256).floor().long().clamp(0, 255)
    return torch.tensor(_viridis_gray(), dtype=gaze.dtype, device=gaze.device)[steps]


@cache
def _viridis_gray() -> tuple[float, ...]:
    """Luminance of matplotlib's viridis at its 256 steps, rounded to 8 bits as Pillow does (ITU-R 601), in 0..1."""
    # only who asks for its colours pays for importing it
    from matplotlib import colormaps

    colours = colormaps["viridis"](range(256), bytes=True)[:, :3].astype(int)
    red, green, blue = colours.T
    return tuple(int(v) / 255 for v in (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)
