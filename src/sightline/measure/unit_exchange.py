"""What a unit's maps share with masks that are not theirs: the chance that agreement is held against.

Cells are taken as they are: a mask is the share of each cell that it covers, so that what a map and a mask share is the
number of image voxels in both, once the map's cells are drawn as blocks. Maps above a threshold are nearly empty, and
only their few cells are multiplied.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn
from scipy.sparse import csr_array, vstack

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
        self, cover: NDArray[np.floating[Any]], cells: tuple[int, ...], null: Null, permutations: int, seed: int
    ) -> None:
        self.cells, self.null = cells, null
        n, self.width = cover.shape
        # masks are small, and may come from a file larger than the memory
        step = max(1, _CELLS_AT_ONCE // self.width)
        self._cover = vstack([csr_array(cover[i : i + step].astype(np.float64)) for i in range(0, n, step)], "csr")
        self._by_cell = self._cover.T.tocsr()
        self.covered = float(self._cover.sum())
        random = np.random.default_rng(seed)
        if null == "masks":
            self.draws = random.permuted(np.tile(np.arange(n, dtype=np.int32), (permutations, 1)), axis=1)
        else:
            self.draws = random.integers(0, self.width, (permutations, n), dtype=np.int32)

    def shared(self, case: IntArray, cell: IntArray) -> tuple[float, FloatArray]:
        """Cells that maps share with their own masks, and with those of each draw [permutations].

        Args:
            case: case of each cell above the threshold, ascending.
            cell: its flat place on the grid.
        """
        own, drawn = 0.0, np.zeros(len(self.draws))
        active, counts = np.unique(case, return_counts=True)
        ends = np.concatenate([[0], np.cumsum(counts)])
        columns = self._cover.shape[0] if self.null == "masks" else self.width
        step = max(1, _CELLS_AT_ONCE // max(len(drawn), columns))
        for i in range(0, len(active), step):
            rows = active[i : i + step]
            bounds = ends[i : i + len(rows) + 1]
            table = self._table(rows, cell[bounds[0] : bounds[-1]], bounds - bounds[0])
            own += float(table[np.arange(len(rows)), rows if self.null == "masks" else 0].sum())
            places = self.draws[:, rows].astype(np.int64) + np.arange(len(rows)) * columns
            drawn += table.ravel().take(places).sum(axis=1)
        return own, drawn

    def _table(self, rows: IntArray, cell: IntArray, bounds: IntArray) -> FloatArray:
        """What each map shares with every mask, [rows, n], or with its own at every place, [rows, cells]."""
        above = csr_array((np.ones(len(cell)), cell, bounds), shape=(len(rows), self.width))
        if self.null == "masks":
            return np.asarray((above @ self._by_cell).toarray())
        axes = tuple(range(1, len(self.cells) + 1))
        grid = (len(rows), *self.cells)
        moved = np.conj(rfftn(above.toarray().reshape(grid), axes=axes))
        moved *= rfftn(self._cover[rows].toarray().reshape(grid), axes=axes)
        return np.asarray(irfftn(moved, s=self.cells, axes=axes)).reshape(len(rows), -1)
