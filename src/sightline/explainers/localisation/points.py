"""Where maps point: boxes, points, and maps on a finer grid.

The words of a protocol are in `protocols`, the work in `boxes` and `connected_components`, and choosing a protocol on
validation maps in `tuning`; all of it is reached from here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.explainers.localisation.boxes import (
    Floats,
    FoundBoxes,
    check_maps,
    find_boxes_of_maps,
    refuse_non_finite,
)
from sightline.explainers.localisation.protocols import PROTOCOLS, MapBoxes
from sightline.explainers.localisation.tuning import choose_oracle_boxes, list_candidates, tune
from sightline.structures.resampling import resample

__all__ = [
    "PROTOCOLS",
    "FoundBoxes",
    "MapBoxes",
    "choose_oracle_boxes",
    "find_boxes_of_maps",
    "find_points",
    "list_candidates",
    "tune",
    "upsample_maps",
]


def find_points(maps: ArrayLike) -> Floats:
    """Where each of maps [n, h, w] is greatest: the centre of a cell, float64 [n, 2].

    Of several cells with the greatest value, as on a plateau, the one nearest to their common centre is taken, the
    first in reading order of equally near ones; so a flat map points at its middle, not at its first cell.
    """
    array = check_maps(maps)
    points = np.empty((len(array), 2))
    for point, field in zip(points, array, strict=True):
        greatest = field.max()
        refuse_non_finite(greatest + field.min())
        cells = np.argwhere(field == greatest)
        away = ((cells - cells.mean(axis=0)) ** 2).sum(axis=1)
        point[:] = cells[int(away.argmin())] + 0.5
    return points


def upsample_maps(maps: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Maps [n, h, w] on a grid of `shape`, bilinear with half-pixel centres: float32 [n, *shape].

    Cells beyond the outermost centres repeat them. A map is made smaller by the same sampling, without smoothing.
    """
    cells = np.asarray(check_maps(maps), dtype=np.float32)
    if len(cells) == 0:
        return np.zeros((0, *shape), dtype=np.float32)
    grid: NDArray[np.float32] = resample(cells, shape, "linear")
    return grid
