"""Signed distances of bone-like solids, evaluated on the part of a grid that they can reach.

A grid is axis-aligned in millimetres (x to the right, y to the front, z to the head). Distances are negative inside and
true to about a tenth near the surface: enough for a shell of bone and for partial volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sightline.structures.frame import FloatArray

Floats = NDArray[np.float32]
Part = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres along x, y and z, millimetres, evenly spaced and growing."""

    x: Floats
    y: Floats
    z: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        return len(self.x), len(self.y), len(self.z)

    @property
    def spacing_mm(self) -> FloatArray:
        """Size of a voxel along x, y, z."""
        return np.array([float(axis[-1] - axis[0]) / max(len(axis) - 1, 1) for axis in (self.x, self.y, self.z)])

    def part(self, low: FloatArray, high: FloatArray) -> Part | None:
        """The voxels between two corners, or None where there are none."""
        slices = []
        for axis, a, b in zip((self.x, self.y, self.z), low, high, strict=True):
            start, stop = int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b, side="right"))
            if stop <= start:
                return None
            slices.append(slice(start, stop))
        return slices[0], slices[1], slices[2]

    def axes(self, part: Part) -> tuple[Floats, Floats, Floats]:
        """x, y, z of a part, shaped to broadcast."""
        return self.x[part[0]][:, None, None], self.y[part[1]][None, :, None], self.z[part[2]][None, None, :]


@dataclass(frozen=True, eq=False)
class VertebraPose:
    """Where a vertebra is: its own axes (to the right, front, head) as columns, and its origin, mm."""

    turn: FloatArray
    origin: FloatArray

    def place(self, points: FloatArray) -> FloatArray:
        """Its own coordinates [..., 3] to the grid's."""
        placed: FloatArray = np.asarray(points, dtype=float) @ self.turn.T + self.origin
        return placed

    def reach(self, grid: Grid, low: FloatArray, high: FloatArray) -> Part | None:
        """The part of a grid that holds a box given in the vertebra's own coordinates."""
        corners = self.place(np.array(list(product(*zip(low, high, strict=True)))))
        return grid.part(corners.min(axis=0), corners.max(axis=0))

    def own(self, grid: Grid, part: Part) -> tuple[Floats, Floats, Floats]:
        """The vertebra's own x, y, z at the voxels of a part."""
        axes = grid.axes(part)
        offset = -self.origin @ self.turn
        own = []
        for column in range(3):
            a, b, c = (np.float32(self.turn[row, column]) for row in range(3))
            own.append((a * axes[0] + (b * axes[1] + np.float32(offset[column]))) + c * axes[2])
        return own[0], own[1], own[2]


@dataclass(frozen=True, eq=False)
class EllipticBar:
    """A bar of elliptic section between two points, with rounded ends.

    Attributes:
        start, stop: its ends.
        radii: at its start, across and along `up` (mm).
        end_radii: the same at its stop.
        up: a direction; the second radius lies along its part across the bar.
    """

    start: FloatArray
    stop: FloatArray
    radii: tuple[float, float]
    end_radii: tuple[float, float]
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def corners(self, margin: float) -> tuple[FloatArray, FloatArray]:
        """A box that holds it."""
        reach = max(*self.radii, *self.end_radii) + margin
        ends = np.array([self.start, self.stop])
        return ends.min(axis=0) - reach, ends.max(axis=0) + reach

    def distance(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Signed distance at points, mm."""
        along = np.asarray(self.stop, dtype=float) - self.start
        length = float(np.linalg.norm(along))
        along = along / length
        up = np.asarray(self.up, dtype=float)
        up = up - (up @ along) * along
        up /= np.linalg.norm(up)
        across = np.cross(along, up)
        p, q, r = x - np.float32(self.start[0]), y - np.float32(self.start[1]), z - np.float32(self.start[2])

        def project(axis: FloatArray) -> Floats:
            a, b, c = axis.astype(np.float32)
            return a * p + b * q + c * r

        way = project(along)
        share = np.clip(way / np.float32(length), 0.0, 1.0)
        beyond = way - share * np.float32(length)
        wide = np.float32(self.radii[0]) + share * np.float32(self.end_radii[0] - self.radii[0])
        high = np.float32(self.radii[1]) + share * np.float32(self.end_radii[1] - self.radii[1])
        least = np.minimum(wide, high)
        u, v = project(across) / wide, project(up) / high
        w = beyond / least
        size = np.sqrt(u * u + v * v + w * w)
        # divided by the length of its gradient, so that flat bars have walls of the right thickness
        slope = np.sqrt((u / wide) ** 2 + (v / high) ** 2 + (w / least) ** 2)
        return np.asarray(np.where(size > 0.3, (size - 1.0) * size / np.maximum(slope, 1e-3), -0.7 * least), np.float32)


def blend_solids(a: Floats, b: Floats, blend_mm: float) -> Floats:
    """Union of two solids, its inner edges rounded over about `blend_mm`."""
    k = np.float32(blend_mm)
    return np.minimum(a, b) - np.maximum(k - np.abs(a - b), 0.0) ** 2 / (4.0 * k)


def intersect_solids(a: Floats, b: Floats, blend_mm: float) -> Floats:
    """Intersection of two solids, its edges rounded over about `blend_mm`."""
    k = np.float32(blend_mm)
    return np.maximum(a, b) + np.maximum(k - np.abs(a - b), 0.0) ** 2 / (4.0 * k)


def compute_partial_volume(distance: Floats, voxel_mm: float) -> Floats:
    """Share of a voxel that lies inside: partial volume."""
    return np.clip(np.float32(0.5) - distance / np.float32(voxel_mm), 0.0, 1.0)
