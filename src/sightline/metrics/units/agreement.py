"""Whether a unit responds where something is marked: intersection over union, against chance (Bau 2017).

The IoU of a unit and a mask sums intersections and unions over the cohort, on the image grid, of maps that are enlarged
and then held against T_k, as NetDissect does. A large mask is met by anything, and masks of centred patches lie alike
in all cases, so that every IoU comes with what chance gives: masks exchanged between the cases that have one, or moved
to other places (`unit_exchange`). That is computed on the layer's own cells, where a mask is the share of a cell it
covers; the IoU on cells stands beside it and is what p is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn
from scipy.sparse import csr_array, vstack

from sightline.errors import LayoutError, RunError, count_noun
from sightline.metrics.estimate import FloatArray, IntArray
from sightline.metrics.units.table import UnitColumns, write_columns

PERMUTATIONS = 1000
_BYTES_AT_ONCE = 32 * 1024**2
_NUMBERS = ("iou", "iou_mean", "inside", "iou_cells", "null_mean", "null_high", "p", "p_max")
_PER_MASK = ("cases", "chance")


class Overlaps(Protocol):
    """What is known of n cases, u units and masks by name; `explain`'s readings of units are."""

    @property
    def cells(self) -> tuple[int, ...]:
        """The layer's grid."""

    @property
    def image_voxels(self) -> int:
        """Voxels of an image."""

    @property
    def maps(self) -> NDArray[np.uint8] | None:
        """Cells above T_k, [n, u, bytes], by numpy.packbits."""

    @property
    def map_voxels(self) -> NDArray[np.int32] | None:
        """Voxels above T_k after enlargement, [n, u]."""

    @property
    def mask_voxels(self) -> Mapping[str, NDArray[np.int32]]:
        """Voxels of a mask, [n] by name."""

    @property
    def cover(self) -> Mapping[str, NDArray[np.floating[Any]]]:
        """Share of each cell that a mask covers, [n, cells] by name."""

    @property
    def shared(self) -> Mapping[str, NDArray[np.int32]]:
        """Voxels in mask and enlarged map, [n, u] by name."""


@dataclass(frozen=True, eq=False)
class UnitAgreement:
    """Agreement of units with masks; arrays are [units, masks].

    Attributes:
        units: int [t], unit numbers.
        masks: names.
        cases: int [k], cases that have the mask.
        chance: float64 [k], share of the image that the mask takes up, over those cases.
        iou: intersection over union on the image grid, both summed over all cases (Bau 2017).
        iou_mean: mean IoU of the cases that have the mask.
        inside: share of what is above T_k that lies in the mask, over the cases that have it; to be held against
            `chance`. 0 where nothing is above.
        iou_cells: intersection over union on cells, summed over the cases that have the mask.
        null_mean, null_high: mean and 95th percentile of `iou_cells` under the null.
        p: share of draws with at least this `iou_cells`, never 0: at least 1 / (permutations + 1).
        p_max: adjusted over units (largest standardised intersection of a draw) and masks (Bonferroni).
        null: `masks` or `shifts`, see `unit_exchange.Exchange`.
        permutations, seed: of the draws.
        patients: number of patients whose masks were kept together in the draws, or None: cases were independent.
    """

    units: IntArray
    masks: tuple[str, ...]
    cases: IntArray
    chance: FloatArray
    iou: FloatArray
    iou_mean: FloatArray
    inside: FloatArray
    iou_cells: FloatArray
    null_mean: FloatArray
    null_high: FloatArray
    p: FloatArray
    p_max: FloatArray
    null: Null
    permutations: int
    seed: int
    patients: int | None = None

    def best(self, mask: str) -> IntArray:
        """Unit numbers by `iou` with a mask, greatest first; of equal ones the lower number."""
        return self.units[np.argsort(-self.iou[:, self.masks.index(mask)], kind="stable")]

    def write(self, path: Path) -> None:
        """Write as CSV, one row a unit and mask, full precision; `read` gives it back."""
        t, k = len(self.units), len(self.masks)
        columns: dict[str, Any] = {"unit": np.repeat(self.units, k), "mask": list(self.masks) * t}
        columns |= {name: np.tile(getattr(self, name), t) for name in _PER_MASK}
        columns |= {name: getattr(self, name).ravel() for name in _NUMBERS}
        columns |= {"null": self.null, "permutations": self.permutations, "seed": self.seed}
        columns |= {"patients": 0 if self.patients is None else self.patients}
        write_columns(path, columns)

    @classmethod
    def read(cls, path: Path) -> UnitAgreement:
        """Read what `write` wrote.

        Raises:
            UnreadableFile, LayoutError: missing or damaged.
        """
        table = UnitColumns(path, "agreement of units")
        every = table.integers("unit")
        k = int((every == every[0]).sum())
        masks, units, null = table.text("mask")[:k], every[::k], table.one("null")
        whole = np.array_equal(np.repeat(units, k)[: len(every)], every) and len(set(units)) * k == len(every)
        if not whole or table.text("mask") != masks * len(units) or null not in ("masks", "shifts"):
            raise LayoutError(f"{path}: no row for every unit and mask.", "Dissect the run again.")
        numbers: dict[str, Any] = {name: table.floats(name).reshape(-1, k) for name in _NUMBERS}
        numbers |= {"cases": table.integers("cases")[:k], "chance": table.floats("chance")[:k], "null": null}
        numbers |= {"patients": table.whole("patients") or None}
        return cls(units, masks, permutations=table.whole("permutations"), seed=table.whole("seed"), **numbers)


def measure_unit_agreement(
    overlaps: Overlaps,
    *,
    patients: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
    null: Null = "masks",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> UnitAgreement:
    """Agreement of units with every mask that any case has.

    Args:
        overlaps: readings of units with masks.
        patients: [n], of each case; masks of a patient stay together. None: cases are independent, which several cases
            a patient are not.
        units: which; None takes all.
        null: what chance is (`unit_exchange.Exchange`).
        permutations: number of draws, the same for all units.
        seed: of the draws.

    Raises:
        RunError: readings without masks, a unit that is not there, no permutation.
    """
    maps, map_voxels = overlaps.maps, overlaps.map_voxels
    names = tuple(name for name, voxels in overlaps.mask_voxels.items() if np.any(voxels))
    if maps is None or map_voxels is None or not names:
        raise RunError("No case has a mask on the image grid.", "Read the units with masks.")
    if permutations < 1:
        raise RunError(f"A permutation test needs at least one permutation; got {permutations}.")
    chosen = np.arange(maps.shape[1]) if units is None else np.asarray(units, dtype=np.int64)
    if chosen.ndim != 1 or not len(chosen) or chosen.min() < 0 or chosen.max() >= maps.shape[1]:
        raise RunError(f"Units run from 0 to {maps.shape[1] - 1}; got {chosen.tolist()[:5]}.")
    if patients is not None and len(patients) != len(maps):
        raise RunError(f"There are {count_noun(len(maps), 'case')} and {len(patients)} patient ids.")
    groups = None if patients is None else np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    columns, cases, chance = [], [], []
    for name in names:
        marked = np.flatnonzero(overlaps.mask_voxels[name])
        cases.append(len(marked))
        chance.append(float(overlaps.mask_voxels[name].mean(where=overlaps.mask_voxels[name] > 0)))
        of_marked = None if groups is None else groups[marked]
        drawn = Exchange(overlaps.cover[name][marked], overlaps.cells, null, permutations, seed, of_marked)
        columns.append(
            _measure_on_image(overlaps, map_voxels, name, marked, chosen)
            | _compare_with_chance(drawn, maps, marked, chosen, len(names))
        )
    return UnitAgreement(
        units=chosen,
        masks=names,
        cases=np.array(cases, dtype=np.int64),
        chance=np.array(chance) / overlaps.image_voxels,
        **{name: np.stack([column[name] for column in columns], axis=1) for name in _NUMBERS},
        null=null,
        permutations=permutations,
        seed=seed,
        patients=None if groups is None else int(groups.max()) + 1,
    )


def _measure_on_image(
    overlaps: Overlaps, map_voxels: NDArray[np.int32], name: str, marked: IntArray, units: IntArray
) -> dict[str, FloatArray]:
    mask = overlaps.mask_voxels[name][marked].astype(np.int64)[:, None]
    both = overlaps.shared[name][marked][:, units].astype(np.int64)
    above = map_voxels[marked][:, units].astype(np.int64)
    everywhere = map_voxels.sum(axis=0, dtype=np.int64)[units]
    hits, inside = both.sum(axis=0), above.sum(axis=0)
    return {
        "iou": hits / (everywhere + mask.sum() - hits),
        "iou_mean": (both / (above + mask - both)).mean(axis=0),
        "inside": np.divide(hits, inside, out=np.zeros(len(units)), where=inside > 0),
    }


def _compare_with_chance(
    exchange: Exchange, maps: NDArray[np.uint8], marked: IntArray, units: IntArray, families: int
) -> dict[str, FloatArray]:
    """IoU on cells of each unit, its null, and p; a block of units at a time."""
    found = {name: np.zeros(len(units)) for name in ("iou_cells", "null_mean", "null_high", "p", "p_max")}
    standing, largest = np.zeros(len(units)), np.zeros(len(exchange.draws))
    step = max(1, _BYTES_AT_ONCE // (len(marked) * exchange.width))
    for i in range(0, len(units), step):
        for j, (case, cell) in enumerate(_group_by_unit(maps, marked, units[i : i + step], exchange.width)):
            own, drawn = exchange.count_shared(case, cell)
            total = exchange.covered + len(cell)
            # masks of other patients may be more or larger: what of the own total gives the same IoU
            drawn = drawn * (total / (exchange.covered_in_draws + len(cell)))
            slack = 1e-9 * max(1.0, own)
            null = drawn / (total - drawn)
            found["iou_cells"][i + j] = own / (total - own)
            found["null_mean"][i + j], found["null_high"][i + j] = null.mean(), np.quantile(null, 0.95)
            found["p"][i + j] = (1 + (drawn >= own - slack).sum()) / (1 + len(drawn))
            spread = float(drawn.std())
            # rounding of equal sums is no spread
            if spread > slack:
                standing[i + j] = (own - slack - drawn.mean()) / spread
                np.maximum(largest, (drawn - drawn.mean()) / spread, out=largest)
            else:
                standing[i + j] = -np.inf
    reached = len(largest) - np.searchsorted(np.sort(largest), standing, side="left")
    found["p_max"] = np.minimum(1.0, np.maximum(families * (1 + reached) / (1 + len(largest)), found["p"]))
    return found


def _group_by_unit(
    maps: NDArray[np.uint8], marked: IntArray, units: IntArray, cells: int
) -> list[tuple[IntArray, IntArray]]:
    """Case (place in `marked`, ascending) and cell of all that is above threshold, by unit; some cases at a time."""
    found: list[list[tuple[IntArray, IntArray]]] = [[] for _ in units]
    step = max(1, _BYTES_AT_ONCE // (len(units) * cells))
    for i in range(0, len(marked), step):
        packed = maps[marked[i : i + step, None], units[None]]
        bits = np.unpackbits(packed, axis=-1, count=cells)
        for j, pairs in enumerate(found):
            case, cell = np.nonzero(bits[:, j])
            pairs.append((case + i, cell))
    return [(np.concatenate([c for c, _ in pairs]), np.concatenate([c for _, c in pairs])) for pairs in found]


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
        patients: [n], number of each case's patient, or None. Cases of a patient are alike: their masks then go to
            another patient together, first to first, from the beginning again where he has more cases; and they move
            round the grid together.
    """

    def __init__(
        self,
        cover: NDArray[np.floating[Any]],
        cells: tuple[int, ...],
        null: Null,
        permutations: int,
        seed: int,
        patients: IntArray | None = None,
    ) -> None:
        self.cells, self.null = cells, null
        n, self.width = cover.shape
        # masks are small, and may come from a file larger than the memory
        step = max(1, _CELLS_AT_ONCE // self.width)
        self._cover = vstack([csr_array(cover[i : i + step].astype(np.float64)) for i in range(0, n, step)], "csr")
        self._by_cell = self._cover.T.tocsr()
        self.covered = float(self._cover.sum())
        random = np.random.default_rng(seed)
        self.covered_in_draws: FloatArray = np.full(permutations, self.covered)
        kept = np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1]
        several = int(kept.max()) + 1
        if null == "shifts":
            self.draws = random.integers(0, self.width, (permutations, several), dtype=np.int32)[:, kept]
            return
        exchanged = random.permuted(np.tile(np.arange(several, dtype=np.int32), (permutations, 1)), axis=1)
        order = np.argsort(kept, kind="stable")
        size = np.bincount(kept)
        first = np.cumsum(size) - size
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n) - first[kept[order]]
        other = exchanged[:, kept]
        self.draws = order[first[other] + place % size[other]].astype(np.int32)
        self.covered_in_draws = np.asarray(self._cover.sum(axis=1)).ravel()[self.draws].sum(axis=1)

    def count_shared(self, case: IntArray, cell: IntArray) -> tuple[float, FloatArray]:
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
            table = self._tabulate_shared(rows, cell[bounds[0] : bounds[-1]], bounds - bounds[0])
            own += float(table[np.arange(len(rows)), rows if self.null == "masks" else 0].sum())
            places = self.draws[:, rows].astype(np.int64) + np.arange(len(rows)) * columns
            drawn += table.ravel().take(places).sum(axis=1)
        return own, drawn

    def _tabulate_shared(self, rows: IntArray, cell: IntArray, bounds: IntArray) -> FloatArray:
        """What each map shares with every mask, [rows, n], or with its own at every place, [rows, cells]."""
        above = csr_array((np.ones(len(cell)), cell, bounds), shape=(len(rows), self.width))
        if self.null == "masks":
            return np.asarray((above @ self._by_cell).toarray())
        axes = tuple(range(1, len(self.cells) + 1))
        grid = (len(rows), *self.cells)
        moved = np.conj(rfftn(above.toarray().reshape(grid), axes=axes))
        moved *= rfftn(self._cover[rows].toarray().reshape(grid), axes=axes)
        return np.asarray(irfftn(moved, s=self.cells, axes=axes)).reshape(len(rows), -1)
