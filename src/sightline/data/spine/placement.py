"""Where a patch lies in its CT: points and numbers there and back, exactly, rigid or straightened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from sightline.data.spine.curve import SpineCurve
from sightline.data.spine.vertebrae import Vertebra
from sightline.errors import GeometryError, LayoutError
from sightline.io.volume import Volume, compute_affine_within
from sightline.structures.case import Case
from sightline.structures.frame import FloatArray, Frame

Mode = Literal["rigid", "straightened"]
SPINES = "spines"
# voxels of a CT that are mapped at once
_SLAB_VOXELS = 2_000_000


@dataclass(frozen=True, eq=False)
class Placement:
    """One patch in its CT.

    The vertebra's centre is the centre of voxel `side // 2` of every axis. All points are frame coordinates: origin at
    the corner, the centre of voxel 0 at 0.5.

    Attributes:
        side: of the patch in voxels.
        spacing_mm: of the patch.
        at_mm: place of the vertebra along the curve.
        curve: of the spine.
        mode: `rigid`: the axes at the vertebra hold for the whole patch; `straightened`: axis 0 follows the curve.
        ct_affine: [4, 4], voxel indices of the CT to millimetres (RAS+).
        ct_shape: of the CT.
    """

    side: int
    spacing_mm: float
    at_mm: float
    curve: SpineCurve
    mode: Mode
    ct_affine: FloatArray
    ct_shape: tuple[int, int, int]

    @property
    def affine(self) -> FloatArray:
        """[4, 4], patch voxel indices to millimetres (RAS+); of a straightened patch, as it is at the vertebra."""
        affine = np.eye(4)
        affine[:3, :3] = self.curve.axes(self.at_mm) * self.spacing_mm
        affine[:3, 3] = self.curve.point(self.at_mm) - affine[:3, :3] @ np.full(3, self.side // 2)
        return affine

    @property
    def frame(self) -> Frame:
        """The patch in voxels of the CT: the whole truth of a rigid patch, of a straightened one as at the vertebra."""
        half = np.eye(4)
        half[:3, 3] = 0.5
        to_ct = half @ np.linalg.inv(self.ct_affine) @ self.affine @ np.linalg.inv(half)
        i, j, k = np.linalg.norm(self.ct_affine[:3, :3], axis=0).tolist()
        return Frame((self.side,) * 3, to_ct, (i, j, k))

    def world_of(self, points: ArrayLike) -> FloatArray:
        """Points of the patch [..., 3] to millimetres in the patient [..., 3]."""
        away = (np.asarray(points, dtype=np.float64) - (self.side // 2 + 0.5)) * self.spacing_mm
        if self.mode == "rigid":
            return self.curve.point(self.at_mm) + away @ self.curve.axes(self.at_mm).T
        along = self.at_mm + away[..., 0]
        axes = self.curve.axes(along)
        return self.curve.point(along) + away[..., 1:2] * axes[..., 1] + away[..., 2:3] * axes[..., 2]

    def place_of(self, world_mm: ArrayLike) -> FloatArray:
        """Millimetres in the patient [..., 3] to points of the patch [..., 3], which may lie outside its grid.

        Of a straightened patch the nearest place of the curve counts: where the curve bends more sharply than a point
        is far from it, several points of the patch show the same place, and one of them comes back.
        """
        world = np.asarray(world_mm, dtype=np.float64)
        if self.mode == "rigid":
            away = (world - self.curve.point(self.at_mm)) @ self.curve.axes(self.at_mm)
        else:
            reach = self.side * self.spacing_mm
            along = self.curve.nearest(world.reshape(-1, 3), self.at_mm - reach, self.at_mm + reach)
            along = along.reshape(world.shape[:-1])
            axes = self.curve.axes(along)
            offset = world - self.curve.point(along)
            across = [(offset * axes[..., axis]).sum(axis=-1) for axis in (1, 2)]
            away = np.stack([along - self.at_mm, *across], axis=-1)
        return away / self.spacing_mm + (self.side // 2 + 0.5)

    def slices(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of every slice along axis 0, in millimetres [side, 3]: the centre of its first voxel, and its two steps."""
        middle = self.side // 2
        away = (np.arange(self.side) - middle) * self.spacing_mm
        if self.mode == "rigid":
            axes = np.broadcast_to(self.curve.axes(self.at_mm), (self.side, 3, 3))
            points = self.curve.point(self.at_mm) + away[:, None] * axes[:, :, 0]
        else:
            axes = self.curve.axes(self.at_mm + away)
            points = self.curve.point(self.at_mm + away)
        back, left = axes[..., 1] * self.spacing_mm, axes[..., 2] * self.spacing_mm
        return points - middle * (back + left), back, left

    def to_ct(self, points: ArrayLike) -> FloatArray:
        """Points of the patch [..., 3] to points of the CT [..., 3]."""
        linear = np.linalg.inv(self.ct_affine[:3, :3])
        return (self.world_of(points) - self.ct_affine[:3, 3]) @ linear.T + 0.5

    def from_ct(self, points: ArrayLike) -> FloatArray:
        """Points of the CT [..., 3] to points of the patch [..., 3]."""
        voxels = np.asarray(points, dtype=np.float64) - 0.5
        return self.place_of(voxels @ self.ct_affine[:3, :3].T + self.ct_affine[:3, 3])

    def outside(self, stride: int = 4) -> float:
        """Share of the patch that lies outside the CT, from every `stride`-th voxel along each axis."""
        steps = np.arange(stride // 2, self.side, stride) + 0.5
        places = self.to_ct(np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1))
        return float(((places < 0) | (places > np.array(self.ct_shape))).any(axis=-1).mean())


def place_on_ct(
    values: NDArray[Any],
    placement: Placement,
    *,
    grid: Frame | None = None,
    nearest: bool = False,
    outside: float = 0.0,
    whole: bool = False,
) -> Volume:
    """Put numbers that lie on a patch onto the CT's own voxels.

    Args:
        values: [i, j, k], on the patch's grid or a part or reduction of it.
        placement: of the patch.
        grid: frame of `values` in the patch's voxels, where they do not lie on the patch itself: a crop, or an
            activation of 8 x 8 x 8 laid over it.
        nearest: take the nearest number (labels, thresholded maps) instead of the trilinear mean.
        outside: number of voxels that the grid does not reach.
        whole: all voxels of the CT; else the smallest box of them that holds the grid.

    Returns:
        float32, or the type of `values` where `nearest`; the affine is that of the CT, or of the box within it.

    Raises:
        GeometryError: values of another shape than their grid, or a grid wholly outside the CT.
    """
    grid = grid or Frame.of_image((placement.side,) * 3)
    if values.shape != grid.shape:
        raise GeometryError(f"Values of shape {values.shape} do not lie on a grid of {grid.shape}.", "Give their grid.")
    low, high = _find_box(grid, placement)
    numbers = values if nearest else values.astype(np.float32, copy=False)
    result = np.full(placement.ct_shape if whole else tuple(high - low), outside, dtype=numbers.dtype)
    reached = result[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] if whole else result
    thick = max(1, _SLAB_VOXELS // int(np.prod(reached.shape[1:])))
    for start in range(0, len(reached), thick):
        slab = reached[start : start + thick]
        centres = np.moveaxis(np.indices(slab.shape), 0, -1) + (low + 0.5) + np.array([start, 0, 0])
        at = grid.unmap_points(placement.from_ct(centres))
        inside = ((at >= 0) & (at <= np.array(grid.shape))).all(axis=-1)
        slab[inside] = map_coordinates(numbers, at[inside].T - 0.5, order=0 if nearest else 1, mode="nearest")
    if whole:
        return Volume(result, placement.ct_affine)
    box = Frame.of_image(placement.ct_shape).crop(low.tolist(), result.shape)
    return Volume(result, compute_affine_within(box, placement.ct_affine))


def _find_box(grid: Frame, placement: Placement) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and stop of the CT's voxels that a grid reaches."""
    if placement.mode == "rigid":
        edges = np.array(list(product(*[(0.0, float(n)) for n in grid.shape])))
    else:
        # the sides of a straightened patch are curved: all of its surface is looked at, not its corners alone
        steps = [np.linspace(0.0, n, 49) for n in grid.shape]
        edges = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    reached = placement.to_ct(grid.map_points(edges))
    low = np.clip(np.floor(reached.min(axis=0)) - 1, 0, placement.ct_shape).astype(np.int64)
    high = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, placement.ct_shape).astype(np.int64)
    if (high <= low).any():
        raise GeometryError("The grid lies wholly outside its CT.", "Check the vertebra's centre.")
    return low, high


def place_vertebrae(
    vertebrae: Sequence[Vertebra],
    ct_affine: FloatArray,
    ct_shape: tuple[int, ...],
    *,
    side: int = 96,
    spacing_mm: float = 1.0,
    mode: Mode = "rigid",
) -> dict[str, Placement]:
    """The placement of every vertebra of a CT, by level; the curve goes through all that are given.

    Args:
        vertebrae: from head to feet, also those of the neck and those that are not looked at.
        ct_affine: [4, 4], voxel indices of the CT to millimetres (RAS+).
        ct_shape: of the CT.
        side: of the patches in voxels.
        spacing_mm: of the patches.
        mode: rigid or straightened.

    Raises:
        GeometryError: patches of no size, or centres that no spine could have.
    """
    if side < 2 or not 0.0 < spacing_mm < 1e3:
        raise GeometryError(f"A patch of {side} voxels of {spacing_mm} mm cannot be cut.", "Usual are 96 of 1 mm.")
    centres = np.array([vertebra.centre for vertebra in vertebrae]).reshape(-1, 3)
    curve = SpineCurve((centres - 0.5) @ ct_affine[:3, :3].T + ct_affine[:3, 3])
    i, j, k = ct_shape
    return {
        vertebra.level: Placement(side, spacing_mm, float(at), curve, mode, ct_affine, (i, j, k))
        for vertebra, at in zip(vertebrae, curve.knots_at_mm, strict=True)
    }


# -- kept beside the patches -------------------------------------------------------------------------------------------


def parse_placements(document: Mapping[str, Any]) -> dict[str, Placement]:
    """The placement of every vertebra, by level, from the content of `spines/SERIES.json`."""
    curve = SpineCurve(np.array(document["curve"]["knots_mm"]))
    i, j, k = document["ct"]["shape"]
    affine = np.array(document["ct"]["affine"])
    cut = document["cut"]
    return {
        one["level"]: Placement(cut["side"], cut["spacing_mm"], one["at_mm"], curve, cut["mode"], affine, (i, j, k))
        for one in document["vertebrae"]
    }


def read_placements(path: Path) -> dict[str, Placement]:
    """The placement of every vertebra of a series, by level.

    Args:
        path: `spines/SERIES.json` of a cohort folder.

    Raises:
        LayoutError: no such file, or not one that `cut` wrote.
    """
    try:
        return parse_placements(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise LayoutError(
            f"{path}: no record of patches ({type(error).__name__}).", "Import the cohort again: it writes the record."
        ) from error


def read_placement(case: Case) -> Placement:
    """The placement of a case of a spine cohort, from the record beside its patch.

    Raises:
        LayoutError: the case is no patch that `cut` wrote, or its record is gone.
    """
    series = case.image.parent
    path = series.parent.parent / SPINES / f"{series.name}.json"
    found = read_placements(path).get(case.image.stem)
    if found is None:
        raise LayoutError(f"{path} does not hold {case.image.name}.", "Import the cohort again.")
    return found
