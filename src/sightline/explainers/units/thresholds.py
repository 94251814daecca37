"""T_k, the activation that a unit exceeds on a given share of all positions of a cohort (Bau 2017), exactly.

The quantile needs only the largest values of each unit: with n positions and the share q, the m = n - floor((n - 1)
(1 - q)) largest. They are kept in a buffer of fixed size while the cohort streams by: exact, not a sketch, and in
memory that stays within a budget. Where the buffers of all units would exceed it, units are taken in groups, one pass
a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.errors import CohortError, GeometryError, RecipeError, RunError, count_noun
from sightline.explainers.units.layer import UnitLayer
from sightline.structures.evidence import Batch

TOP = 0.005
BUDGET_BYTES = 256 * 1024**2
_BYTES = 4


@dataclass(frozen=True, eq=False)
class Thresholds:
    """What the units of a layer exceed on the share `top` of all positions.

    Attributes:
        layer: name of the layer.
        top: the share q.
        values: float64 [u], T_k: `numpy.quantile(a_k, 1 - top)` of all activations in double precision.
        dead: bool [u], T_k is the unit's least value (0 after ReLU): it is silent on more than 1 - top of all
            positions, and any positive activation is "above".
        above: int64 [u], positions with a_k > T_k. Without ties that is top x voxels, within one; 0: never above.
        least, largest: float32 [u].
        voxels: n, positions a unit, all cases together.
        cases: how many.
        cells: grid of the layer's maps.
        passes: passes through the cohort.
    """

    layer: str
    top: float
    values: NDArray[np.float64]
    dead: NDArray[np.bool_]
    above: NDArray[np.int64]
    least: NDArray[np.float32]
    largest: NDArray[np.float32]
    voxels: int
    cases: int
    cells: tuple[int, ...]
    passes: int = 1

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.values)

    @property
    def in_single(self) -> NDArray[np.float32]:
        """The largest float32 at most T_k, [u]: a float32 is above it if and only if it is above T_k."""
        return round_down(self.values)


def compute_unit_thresholds(
    layer: UnitLayer,
    batches: Callable[[], Iterator[Batch]],
    *,
    top: float = TOP,
    cases: int | None = None,
    budget_bytes: int = BUDGET_BYTES,
    advance: Callable[[int], None] | None = None,
) -> Thresholds:
    """The thresholds of all units over all cases.

    Args:
        layer: of a network.
        batches: gives the cohort's batches from the start; called once a pass, with the same cases each time.
        top: share of positions above the threshold. 0.005 is published (Bau 2017, Engstler 2022); the released code
            of Engstler 2022 uses 0.01.
        cases: number of cases; None counts them by reading the batches once more.
        budget_bytes: memory for the largest values of the units.
        advance: told the number of cases after each batch.

    Raises:
        RecipeError: `top` is no share, or the budget does not hold one unit.
        CohortError: no case, or another number than `cases`.
        GeometryError: maps of different sizes.
        RunError: an activation that is not finite.
    """
    if not 0.0 < top < 1.0:
        raise RecipeError(f"top is a share between 0 and 1; got {top}.", "Published: 0.005.")
    if cases is None:
        cases = sum(len(batch) for batch in batches())
    if cases < 1:
        raise CohortError("There is no case to take thresholds from.", "Choose another split.")
    stream: _Stream | None = None
    found: list[TopValues] = []
    done, passes = 0, 0
    while stream is None or done < stream.units:
        kept: TopValues | None = None
        seen = 0
        for batch in batches():
            _, activations = layer(batch.images)
            if stream is None:
                stream = _Stream.from_activations(activations, cases, top, budget_bytes)
            stream.require(activations, batch, layer.name)
            if kept is None:
                kept = TopValues(min(stream.group, stream.units - done), stream.keep)
            part = activations[:, done : done + kept.units]
            seen += len(batch)
            if seen > cases:
                break
            kept.add(part.transpose(0, 1).flatten(1))
            if advance is not None:
                advance(len(batch))
        if kept is None or seen != cases:
            raise CohortError(
                f"{'More than ' if seen > cases else ''}{count_noun(min(seen, cases), 'case', 'cases')} "
                f"came by; expected {cases}.",
                "Give the same cases in every pass, each once.",
            )
        found.append(kept)
        done, passes = done + kept.units, passes + 1
    assert stream is not None  # the loop has run
    return stream.thresholds(layer.name, top, found, cases, passes)


class TopValues:
    """The m largest values of each of u units, of a stream of any length.

    A row holds up to twice m values; a full row is cut back to its m largest. From then on only what exceeds the least
    of these is taken in.

    Attributes:
        least, largest: float32 [u], of all that came by.
    """

    def __init__(self, units: int, m: int) -> None:
        self.units, self.m = units, m
        self.capacity = 2 * m
        self._rows = np.empty((units, self.capacity), dtype=np.float32)
        self._filled = np.zeros(units, dtype=np.int64)
        self._bound = np.full(units, -np.inf, dtype=np.float32)
        self.least = np.full(units, np.inf, dtype=np.float32)
        self.largest = np.full(units, -np.inf, dtype=np.float32)

    @staticmethod
    def bytes_of(m: int) -> int:
        """Memory of one unit."""
        return 2 * m * _BYTES

    def add(self, values: Tensor) -> None:
        """Take in finite values [u, c], float32."""
        low, high = torch.aminmax(values, dim=1)
        np.minimum(self.least, low.cpu().numpy(), out=self.least)
        highest = high.cpu().numpy()
        np.maximum(self.largest, highest, out=self.largest)
        bound = torch.from_numpy(self._bound).to(values.device)
        # units without news are left out at once: there are many after the first batches
        active = torch.nonzero(high > bound)[:, 0]
        if not len(active):
            return
        chosen = values if len(active) == self.units else values[active]
        fresh = chosen > bound[active, None]
        counts = fresh.sum(dim=1).cpu().numpy()
        entering = chosen[fresh].cpu().numpy()
        rows = active.cpu().numpy()
        ends = np.cumsum(counts)
        room = self._filled[rows] + counts <= self.capacity
        self._append(rows[room], counts[room], entering[np.repeat(room, counts)])
        for i in np.flatnonzero(~room):
            row = rows[i]
            joined = np.concatenate([self._rows[row, : self._filled[row]], entering[ends[i] - counts[i] : ends[i]]])
            joined.partition(len(joined) - self.m)
            self._rows[row, : self.m] = joined[len(joined) - self.m :]
            self._filled[row], self._bound[row] = self.m, joined[len(joined) - self.m]

    def _append(self, rows: NDArray[np.int64], counts: NDArray[np.int64], entering: NDArray[np.float32]) -> None:
        starts = np.cumsum(counts) - counts
        columns = np.repeat(self._filled[rows] - starts, counts) + np.arange(len(entering))
        self._rows[np.repeat(rows, counts), columns] = entering
        self._filled[rows] += counts

    def values(self, unit: int) -> NDArray[np.float32]:
        """The m largest values of a unit, ascending (all of them where fewer came by)."""
        row = np.sort(self._rows[unit, : self._filled[unit]])
        return row[max(0, len(row) - self.m) :]


@dataclass(frozen=True)
class _Stream:
    """Sizes of the stream: units, map grid, positions a unit, values to keep a unit, units a pass."""

    units: int
    cells: tuple[int, ...]
    voxels: int
    keep: int
    group: int

    @classmethod
    def from_activations(cls, activations: Tensor, cases: int, top: float, budget_bytes: int) -> _Stream:
        cells = tuple(int(n) for n in activations.shape[2:])
        voxels = cases * math.prod(cells)
        # from the lower neighbour of the quantile (numpy's linear method) to the largest value
        keep = voxels - math.floor(compute_quantile_rank(voxels, top))
        group = budget_bytes // TopValues.bytes_of(keep)
        if group < 1:
            needed = TopValues.bytes_of(keep)
            raise RecipeError(
                f"The largest {top:.3%} of {voxels} values take {needed} bytes a unit; the budget is {budget_bytes}.",
                "Raise the budget, or dissect a later layer: its maps are smaller.",
            )
        return cls(int(activations.shape[1]), cells, voxels, keep, min(group, int(activations.shape[1])))

    def require(self, activations: Tensor, batch: Batch, layer: str) -> None:
        if tuple(activations.shape[1:]) != (self.units, *self.cells):
            raise GeometryError(
                f"Layer {layer!r} gives {list(activations.shape[1:])} for case {batch.case_ids[0]!r}, and "
                f"{[self.units, *self.cells]} for those before.",
                "Use a view of fixed size.",
            )
        require_finite_activations(activations, batch, layer)

    def thresholds(self, layer: str, top: float, found: list[TopValues], cases: int, passes: int) -> Thresholds:
        share = compute_quantile_rank(self.voxels, top) % 1.0
        values, above = np.empty(self.units), np.empty(self.units, dtype=np.int64)
        unit = 0
        for kept in found:
            for row in range(kept.units):
                largest = kept.values(row).astype(np.float64)
                values[unit] = np.quantile(largest[:2], share)
                above[unit] = (largest > values[unit]).sum()
                unit += 1
        least = np.concatenate([kept.least for kept in found])
        most = np.concatenate([kept.largest for kept in found])
        dead = values <= least
        return Thresholds(layer, top, values, dead, above, least, most, self.voxels, cases, self.cells, passes)


def compute_quantile_rank(voxels: int, top: float) -> float:
    """Where the quantile stands among n sorted values, from 0, as numpy's linear method has it (Hyndman & Fan 7)."""
    return (voxels - 1) * (1 - top)


def round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 at most each value."""
    single = values.astype(np.float32)
    return np.where(single > values, np.nextafter(single, np.float32(-np.inf)), single).astype(np.float32)


def require_finite_activations(activations: Tensor, batch: Batch, layer: str) -> None:
    """Refuse activations [b, u, *m] that are not all finite.

    Raises:
        RunError: naming case and unit.
    """
    # a finite sum has finite terms: one pass without a temporary of the map's size; a sum may overflow by itself
    if bool(torch.isfinite(activations.sum())):
        return
    wrong = ~torch.isfinite(activations.flatten(2)).all(dim=2)
    if not bool(wrong.any()):
        return
    image, unit = (int(i) for i in torch.nonzero(wrong)[0])
    raise RunError(
        f"Unit {unit} of layer {layer!r} is not finite for case {batch.case_ids[image]!r}.",
        "The weights or the image are damaged; in 16 bits, dissect the network in single precision.",
    )
