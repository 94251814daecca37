"""What a unit's maps share with masks that are not theirs: the chance that agreement is held against.

Cells are taken as they are: a mask is the share of each cell that it covers, so that what a map and a mask share is the
number of image voxels in both, once the map's cells are drawn as blocks. Maps above a threshold are nearly empty, and
only their few cells are multiplied.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn
from scipy.sparse import csr_array

from sightline.measure.classification import FloatArray, IntArray

Null = Literal["masks", "shifts"]
_CELLS_AT_ONCE = 2_000_000


class Exchange:
    """Draws of which mask, or which place of the own mask, each of n maps is held against.

    Args:
        cover: [n, cells], share of each cell that the mask of a case covers.
        cells: the grid *m.
        null: `masks`: masks change places between cases, and keep their own place in the image; agreement beyond it
            follows the case. `shifts`: each mask is moved round the grid by a random number of cells on every axis;
            agreement beyond it follows the place.
        permutations: number of draws.
        seed: of the draws.
    """

    def __init__(
        self, cover: NDArray[np.floating], cells: tuple[int, ...], null: Null, permutations: int, seed: int
    ) -> None:
        self.cover, self.cells, self.null = np.asarray(cover, dtype=np.float64), cells, null
        random = np.random.default_rng(seed)
        n = len(self.cover)
        if null == "masks":
            self.draws = random.permuted(np.tile(np.arange(n, dtype=np.int32), (permutations, 1)), axis=1)
            self._columns = np.ascontiguousarray(self.cover.T)
        else:
            self.draws = random.integers(0, math.prod(cells), (permutations, n), dtype=np.int32)

    def shared(self, maps: NDArray[np.bool_]) -> tuple[float, FloatArray]:
        """Cells that maps [n, cells] share with their own masks, and with those of each draw [permutations]."""
        case, cell = np.nonzero(maps)
        own = float(self.cover[case, cell].sum())
        drawn = np.zeros(len(self.draws))
        active, counts = np.unique(case, return_counts=True)
        ends = np.concatenate([[0], np.cumsum(counts)])
        width = len(self.cover) if self.null == "masks" else self.cover.shape[1]
        step = max(1, _CELLS_AT_ONCE // max(len(drawn), width))
        for i in range(0, len(active), step):
            rows = active[i : i + step]
            bounds = ends[i : i + len(rows) + 1]
            table = self._table(rows, cell[bounds[0] : bounds[-1]], bounds - bounds[0])
            places = self.draws[:, rows].astype(np.int64) + np.arange(len(rows)) * width
            drawn += table.ravel().take(places).sum(axis=1)
        return own, drawn

    def _table(self, rows: IntArray, cell: IntArray, bounds: IntArray) -> FloatArray:
        """What each map shares with every mask, [rows, n], or with its own at every place, [rows, cells]."""
        above = csr_array((np.ones(len(cell)), cell, bounds), shape=(len(rows), self.cover.shape[1]))
        if self.null == "masks":
            return np.asarray(above @ self._columns)
        axes = tuple(range(1, len(self.cells) + 1))
        grid = (len(rows), *self.cells)
        moved = np.conj(rfftn(above.toarray().reshape(grid), axes=axes))
        moved *= rfftn(self.cover[rows].reshape(grid), axes=axes)
        return np.asarray(irfftn(moved, s=self.cells, axes=axes)).reshape(len(rows), -1)
