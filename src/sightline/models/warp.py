"""Sampling a window of an image: the warp of spatial transformers, differentiable in image and window."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sightline.errors import GeometryError


def crop_windows(images: Tensor, window: Tensor, size: tuple[int, int]) -> Tensor:
    """The windows of images on a grid of `size`, bilinear, zero outside (Jaderberg 2015; Jimenez-Sanchez 2018, eq. 4).

    Differentiable in both. The identity window gives the image resized (half-pixel centres, no smoothing).

    Args:
        images: [b, c, h, w].
        window: [b, 2, 3], affine from fractions of the grid to fractions of the image (`Evidence.window`).
        size: rows and columns to sample.

    Raises:
        GeometryError: shapes that do not belong together.
    """
    if images.ndim != 4 or window.shape != (len(images), 2, 3):
        raise GeometryError(
            f"Windows [b, 2, 3] of images [b, c, h, w] are needed; got {tuple(window.shape)} and {tuple(images.shape)}."
        )
    with torch.autocast(images.device.type, enabled=False):
        grid = functional.affine_grid(
            _as_torch(window.float() if window.dtype != torch.float64 else window),
            [len(images), 1, *size],
            align_corners=False,
        )
        grid = grid.to(images.dtype)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _as_torch(window: Tensor) -> Tensor:
    """Torch's theta, between -1 and 1 and (x, y), of a window between 0 and 1 and (row, column)."""
    linear = window[:, :, :2]
    # fraction = (t + 1) / 2 on both sides: t_out = linear t_in + (linear 1 + 2 shift - 1)
    shift = linear.sum(dim=2) + 2.0 * window[:, :, 2] - 1.0
    theta = torch.cat([linear, shift.unsqueeze(-1)], dim=2)
    return theta[:, [1, 0]][:, :, [1, 0, 2]]
