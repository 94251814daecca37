"""A volume: numbers on a grid of voxels, and where that grid lies in the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.structures.frame import FloatArray, Frame


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT, a patch of one, or a label map, in the axis order of its file.

    Attributes:
        values: [i, j, k]; Hounsfield units (int16 or float32) or labels (unsigned integers).
        affine: [4, 4], from voxel indices to millimetres in the patient, RAS+ (x to the right, y to the front, z to the
            head). As in NIfTI, whole indices are the centres of voxels; a Frame's coordinates have their origin at the
            corner, so that the centre of voxel (0, 0, 0) is at (0.5, 0.5, 0.5).
        facts: what the file says besides, by name.
    """

    values: NDArray[Any]
    affine: FloatArray
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no volume in space."""
        affine = np.asarray(self.affine, dtype=np.float64).copy()
        if self.values.ndim != 3:
            raise GeometryError(f"A volume has three axes; got {self.values.ndim} ({self.values.shape}).")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise GeometryError("The affine of a volume must be a finite, invertible 4 x 4 matrix.")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis of the array."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return i, j, k

    @property
    def frame(self) -> Frame:
        """The frame of the volume itself: source coordinates are its own voxels."""
        return Frame.of_image(self.values.shape, self.spacing_mm)

    @property
    def orientation(self) -> tuple[str, str, str]:
        """The direction in which each index grows, e.g. ("P", "I", "R"): to the back, to the feet, to the right."""
        from nibabel.orientations import aff2axcodes

        a, b, c = aff2axcodes(self.affine)
        return a, b, c

    def world_of(self, points: ArrayLike) -> FloatArray:
        """Frame coordinates [..., 3] (origin at the corner) to millimetres in the patient [..., 3]."""
        return (np.asarray(points, dtype=np.float64) - 0.5) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def place_of(self, world_mm: ArrayLike) -> FloatArray:
        """Millimetres in the patient [..., 3] to frame coordinates [..., 3] (origin at the corner)."""
        offset = np.asarray(world_mm, dtype=np.float64) - self.affine[:3, 3]
        return offset @ np.linalg.inv(self.affine[:3, :3]).T + 0.5


def compute_affine_within(frame: Frame, affine: ArrayLike) -> FloatArray:
    """The affine, from voxel indices to millimetres, of a grid laid over a volume.

    Args:
        frame: the grid; its source coordinates are the volume's voxels.
        affine: of the volume.
    """
    half = np.eye(4)
    half[:3, 3] = 0.5
    return np.asarray(affine, dtype=np.float64) @ np.linalg.inv(half) @ frame.to_source @ half


def compute_frame_between(inner: Volume, outer: Volume) -> Frame:
    """The frame of one volume's grid in the voxels of another: what `compute_affine_within` undoes."""
    half = np.eye(4)
    half[:3, 3] = 0.5
    to_source = half @ np.linalg.inv(outer.affine) @ inner.affine @ np.linalg.inv(half)
    return Frame(inner.values.shape, to_source, outer.spacing_mm)
