"""A layer's maps on the image grid: voxels above a threshold after enlargement, and the share of a cell in a mask.

Enlarging every unit of every case in full (NetDissect, Bau 2017) costs more than the network: 512 units on 64 x 64 x 64
voxels are 134 million values a case. Between neighbouring cell centres the enlarged map lies between the values of the
cells around, so that only blocks with a cell above the threshold can hold a voxel above it. Only those are enlarged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_VALUES_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Marks:
    """k masks on each of b images, and the voxels that are marked.

    Attributes:
        shape: b and k.
        masks: bool [b k, voxels].
        mask, voxel: int64 [p], mask and flat place of each marked voxel.
    """

    shape: tuple[int, int]
    masks: Tensor
    mask: Tensor
    voxel: Tensor

    @classmethod
    def from_masks(cls, masks: Tensor) -> Marks:
        """From masks bool [b, k, *s]."""
        flat = masks.flatten(2).flatten(0, 1)
        if flat.device.type == "cpu":
            # several times faster than torch's where little is marked
            at = torch.from_numpy(np.flatnonzero(flat.numpy()))
        else:
            at = torch.nonzero(flat.flatten())[:, 0]
        voxels = max(1, flat.shape[1])
        return cls((int(masks.shape[0]), int(masks.shape[1])), flat, at // voxels, at % voxels)

    @property
    def voxels(self) -> Tensor:
        """Marked voxels of each mask, int64 [b, k]."""
        return torch.bincount(self.mask, minlength=len(self.masks)).view(self.shape)


@dataclass(frozen=True)
class _Axis:
    """One axis of m cells and s voxels: m + 1 blocks between centres, of up to p voxels each.

    Attributes:
        padded: int64 [m + 2], cell of each place once the outermost are repeated.
        voxel: int64 [m + 1, p], voxel of each place in a block; 0 where there is none.
        there: bool [m + 1, p], whether there is one.
        weight: float32 [m + 1, p], share of the upper cell.
    """

    padded: Tensor
    voxel: Tensor
    there: Tensor
    weight: Tensor

    @classmethod
    def from_sizes(cls, m: int, s: int, device: torch.device) -> _Axis:
        # half-pixel centres, as torch's interpolate with align_corners=False
        source = (torch.arange(s, dtype=torch.float64) + 0.5) * m / s - 0.5
        lower = source.floor()
        block = (lower + 1).long()
        p = int(torch.bincount(block, minlength=m + 1).max())
        rank = torch.arange(s) - torch.searchsorted(block, block)
        voxel, weight = torch.zeros(m + 1, p, dtype=torch.int64), torch.zeros(m + 1, p)
        there = torch.zeros(m + 1, p, dtype=torch.bool)
        voxel[block, rank] = torch.arange(s)
        weight[block, rank] = (source - lower).float()
        there[block, rank] = True
        padded = torch.arange(-1, m + 1).clamp(0, m - 1)
        return cls(*(t.to(device) for t in (padded, voxel, there, weight)))


class EnlargedMaps:
    """Maps [b, u, *m] enlarged to `shape` (linear on every axis, align_corners=False) and held against thresholds.

    Args:
        cells: *m, one to three axes.
        shape: *s.
        device: of the maps.
    """

    def __init__(self, cells: tuple[int, ...], shape: tuple[int, ...], device: torch.device) -> None:
        self.cells, self.shape = cells, shape
        self._axes = [_Axis.from_sizes(m, s, device) for m, s in zip(cells, shape, strict=True)]
        self._blocks = tuple(m + 1 for m in cells)
        # voxel (flat) and presence of every place of every block: [blocks, places]
        at, there = (
            torch.zeros(1, 1, dtype=torch.int64, device=device),
            torch.ones(1, 1, dtype=torch.bool, device=device),
        )
        for axis, s in zip(self._axes, shape, strict=True):
            at = _join_outer(at * s, axis.voxel, torch.add)
            there = _join_outer(there, axis.there, torch.logical_and)
        self._voxel, self._there = at, there
        # and the block of every voxel
        self._block_of = torch.zeros(count_voxels(shape), dtype=torch.int64, device=device)
        places = torch.arange(len(at), device=device)[:, None].expand_as(at)
        self._block_of[at[there]] = places[there]
        # corners of a block on the padded grid, first axis slowest
        corner = torch.zeros(1, dtype=torch.int64, device=device)
        for m in cells:
            corner = (corner[:, None] * (m + 2) + torch.arange(2, device=device)).flatten()
        self._corner = corner

    def counts(self, maps: Tensor, thresholds: Tensor, marks: Marks) -> tuple[Tensor, Tensor]:
        """Voxels above threshold, int64 [b, u], and those of them within each mask, int64 [b, u, k].

        Args:
            maps: float32 [b, u, *m].
            thresholds: float32 [u].
            marks: k masks on *s, of each image.
        """
        (b, k), u = marks.shape, len(thresholds)
        padded = maps.flatten(0, 1)
        for i, axis in enumerate(self._axes):
            padded = padded.index_select(i + 1, axis.padded)
        most = padded
        for i, m in enumerate(self.cells):
            most = torch.maximum(most.narrow(i + 1, 0, m + 1), most.narrow(i + 1, 1, m + 1))
        # image and unit as one number: row
        limit = thresholds.repeat(b)
        hot = torch.nonzero(most > limit.view(-1, *[1] * len(self.cells)))
        row_of, inside = self._find_marked(marks)
        whole = torch.zeros(b * u, dtype=torch.int64, device=maps.device)
        shared = torch.zeros(b * u * k, dtype=torch.int64, device=maps.device)
        flat = padded.flatten(1)
        step = max(1, _VALUES_AT_ONCE // self._voxel.shape[1])
        for part in torch.split(hot, step) if len(hot) else ():
            row = part[:, 0]
            block, above = self._enlarge_blocks(part, flat, limit)
            whole.index_add_(0, row, above.sum(dim=1))
            marked = row_of[row // u, :, block]
            for at, mask in zip(
                *(torch.split(t, step) for t in torch.nonzero(marked >= 0, as_tuple=True)), strict=True
            ):
                hits = (above[at] & inside[marked[at, mask]]).sum(dim=1)
                shared.index_add_(0, row[at] * k + mask, hits)
        return whole.view(b, u), shared.view(b, u, k)

    def _find_marked(self, marks: Marks) -> tuple[Tensor, Tensor]:
        """Row of a mask and a block, -1 where they do not meet, [b, k, blocks]; what is marked, [rows, places]."""
        row_of = torch.full((len(marks.masks), len(self._voxel)), -1, dtype=torch.int64, device=marks.mask.device)
        row_of[marks.mask, self._block_of[marks.voxel]] = 0
        mask, block = torch.nonzero(row_of == 0, as_tuple=True)
        row_of[mask, block] = torch.arange(len(mask), device=mask.device)
        inside = marks.masks[mask[:, None], self._voxel[block]] & self._there[block]
        return row_of.view(*marks.shape, len(self._voxel)), inside

    def _enlarge_blocks(self, hot: Tensor, padded: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks (row and place on each axis) to their flat number [n] and to bool [n, places], above threshold."""
        row = hot[:, 0]
        start, block = torch.zeros_like(row), torch.zeros_like(row)
        for i, (m, blocks) in enumerate(zip(self.cells, self._blocks, strict=True)):
            start = start * (m + 2) + hot[:, i + 1]
            block = block * blocks + hot[:, i + 1]
        values = padded[row[:, None], start[:, None] + self._corner][:, :, None]
        for i in reversed(range(len(self.cells))):
            low, high = values.view(len(hot), 2**i, 2, 1, -1).unbind(dim=2)
            weight = self._axes[i].weight[hot[:, i + 1]][:, None, :, None]
            values = torch.addcmul(low, high - low, weight).flatten(2)
        return block, (values[:, 0] > limit[row][:, None]) & self._there[block]


def _join_outer(a: Tensor, b: Tensor, join: object) -> Tensor:
    """[n, p] and [m, q] joined to [n m, p q], the second fastest."""
    joined: Tensor = join(a[:, None, :, None], b[None, :, None, :])  # type: ignore[operator]
    return joined.reshape(a.shape[0] * b.shape[0], a.shape[1] * b.shape[1])


class Cover:
    """The share of each cell [*m] that masks cover, exactly, whatever the sizes."""

    def __init__(self, cells: tuple[int, ...], shape: tuple[int, ...], device: torch.device) -> None:
        self.cells, self.shape = cells, shape
        self._shares: list[Tensor] = []
        self._cell_of: Tensor | None = None
        if all(s % m == 0 for m, s in zip(cells, shape, strict=True)):
            cell = torch.zeros(1, dtype=torch.int64)
            for m, s in zip(cells, shape, strict=True):
                cell = (cell[:, None] * m + torch.arange(s) // (s // m)).flatten()
            self._cell_of = cell.to(device)
        else:
            self._shares = [_compute_overlap(m, s).to(device) for m, s in zip(cells, shape, strict=True)]

    def __call__(self, marks: Marks) -> Tensor:
        """Float32 [b, k, *m], 0 to 1, of masks on *s."""
        if self._cell_of is not None:
            # whole voxels in a cell: marked ones are few, and counted
            cells = count_voxels(self.cells)
            counts = torch.bincount(marks.mask * cells + self._cell_of[marks.voxel], minlength=len(marks.masks) * cells)
            return (counts.double() * (cells / count_voxels(self.shape))).float().view(*marks.shape, *self.cells)
        found = marks.masks.float().view(len(marks.masks), *self.shape)
        for i, share in enumerate(self._shares):
            found = torch.movedim(torch.tensordot(found, share, dims=([i + 1], [1])), -1, i + 1)
        return found.clamp(0.0, 1.0).view(*marks.shape, *self.cells)


def _compute_overlap(m: int, s: int) -> Tensor:
    """Share of cell i that lies in voxel x: float32 [m, s]."""
    lower, upper = torch.arange(m, dtype=torch.float64) * s / m, torch.arange(1, m + 1, dtype=torch.float64) * s / m
    x = torch.arange(s, dtype=torch.float64)
    length = (torch.minimum(upper[:, None], x + 1) - torch.maximum(lower[:, None], x)).clamp(min=0.0)
    return (length * m / s).float()


def count_voxels(shape: tuple[int, ...]) -> int:
    """How many voxels a grid has."""
    return math.prod(shape)
