"""Maps are brought onto the grid of a picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform
from torch.nn import functional

from sightline.errors import GeometryError
from sightline.structures.frame import Frame


def place_on_grid(cells: ArrayLike, window: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A map of a window on the grid of the whole view: float64 [h, w], NaN outside the window (bilinear).

    Args:
        cells: [mh, mw].
        window: [2, 3], affine from map fractions to fractions of the view (`Evidence.window`).
        shape: (h, w) of the view's grid.
    """
    values = np.asarray(cells, dtype=np.float64)
    grid = Frame.of_image(shape)
    # the grid's pixel centres in map cells: both at + 0.5, which the interpolation counts from 0
    to_cells = np.linalg.inv(grid.within(window, (values.shape[0], values.shape[1])).to_source)
    linear = to_cells[:2, :2]
    offset = linear @ np.array([0.5, 0.5]) + to_cells[:2, 2] - 0.5
    laid = affine_transform(values, linear, offset, output_shape=shape, order=1, mode="nearest")
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    at = linear @ np.stack([rows.ravel(), columns.ravel()]) + offset[:, None] + 0.5
    inside = ((at >= 0) & (at <= np.array(values.shape)[:, None])).all(axis=0).reshape(shape)
    return np.where(inside, laid, np.nan)


def check_maps(maps: ArrayLike, what: str, ndim: int) -> NDArray[np.float64]:
    """Maps as float64 with `ndim` axes, none of them empty.

    Raises:
        GeometryError: another number of axes, no map or no cell, or a value that is not finite.
    """
    array = np.asarray(maps, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise GeometryError(f"{what} must have {ndim} axes and at least one cell; got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise GeometryError(
            f"{what} holds {int((~np.isfinite(array)).sum())} values that are not finite.",
            "A diverged training leaves such maps: look at its history.",
        )
    return array


def upsample_map(cells: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Bicubic g of Liao 2022 (section IV-A): a map [mh, mw] on the input grid [h, w]; of three axes, trilinear.

    Half-pixel centres (the first cell's centre is not the first pixel's). Clipped to the range of the cells: the
    cubic's overshoot beside a hot cell would otherwise be drawn as evidence against the class.
    """
    array = check_maps(cells, "A map", len(shape))
    low, high = float(array.min()), float(array.max())
    # scaled before interpolating, so that clipping is to exactly 0 and 1 and a flat map stays flat
    unit = (array - low) / (high - low) if high > low else np.zeros_like(array)
    shrinks = array.ndim == 2 and any(new < old for new, old in zip(shape, array.shape, strict=True))
    mode = "bicubic" if array.ndim == 2 else "trilinear"
    grid = functional.interpolate(
        torch.from_numpy(unit)[None, None], size=shape, mode=mode, align_corners=False, antialias=shrinks
    )
    enlarged: NDArray[np.float64] = low + (high - low) * grid[0, 0].clamp(0.0, 1.0).numpy()
    return enlarged
