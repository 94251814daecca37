"""Where a unit responds, on the grid of what the network saw: activations enlarged, held against their threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from sightline.errors import GeometryError
from sightline.lab.overlay import checked_maps
from sightline.lab.views import laid_over

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, eq=False)
class Response:
    """A unit's response to one case.

    Attributes:
        level: float64 [*s], 0 where the unit is not above its threshold, up to 1 at its highest.
        above: bool [*s], where it is above.
    """

    level: NDArray[np.float64]
    above: NDArray[np.bool_]

    @property
    def peak(self) -> tuple[int, ...]:
        """The pixel or voxel of highest response."""
        return tuple(int(i) for i in np.unravel_index(int(self.level.argmax()), self.level.shape))

    def slice_along(self, axis: int) -> int:
        """The slice across an axis in which this unit responds most (sum of its level)."""
        others = tuple(a for a in range(self.level.ndim) if a != axis)
        return int(self.level.sum(axis=others).argmax())

    def through(self) -> tuple[int, ...]:
        """The voxel in which the slices of greatest response meet."""
        return tuple(self.slice_along(axis) for axis in range(self.level.ndim))


def response(
    cells: ArrayLike, threshold: float, shape: tuple[int, ...], window: NDArray[np.float64] | None = None
) -> Response:
    """A unit's activation on the input grid: enlarged (linear on every axis), then held against its threshold.

    Enlarging may take a lone cell below the threshold that it is above at the layer's own resolution; that cell's own
    pixels count then.

    Args:
        cells: [*m], activation at the layer's resolution.
        threshold: T_k.
        shape: of the input grid [*s].
        window: [2, 3], the part of a picture that the layer sees (`Evidence.window`); None: all of it.
    """
    array = checked_maps(cells, "An activation", len(shape))
    grown = np.nan_to_num(laid_over(array, window, shape), nan=-np.inf) if window is not None else _grown(array, shape)  # type: ignore[arg-type]
    above = grown > threshold
    lone = array > threshold
    if not above.any() and lone.any():
        grown = _nearest(array, shape) if window is None else grown
        above = _nearest(lone, shape) > 0 if window is None else grown >= grown.max()
    # heights are counted from the threshold where that is below zero, else from zero: r_k sums what is above
    floor = min(0.0, threshold)
    level = np.where(above, np.where(np.isfinite(grown), grown, floor) - floor, 0.0)
    top = float(level.max())
    return Response(level / top if top > 0 else level, above)


def _grown(cells: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Half-pixel centres, linear between cells, constant beyond the outermost."""
    if cells.ndim not in _MODES:
        raise GeometryError(f"Activations have one to three axes; got {cells.ndim}.")
    grid = functional.interpolate(
        torch.from_numpy(cells)[None, None], size=shape, mode=_MODES[cells.ndim], align_corners=False
    )
    return np.asarray(grid[0, 0].numpy())


def _nearest(cells: NDArray[np.float64] | NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.float64]:
    index = [np.minimum((np.arange(n) * m) // n, m - 1) for n, m in zip(shape, cells.shape, strict=True)]
    return np.asarray(cells[np.ix_(*index)], dtype=np.float64)
