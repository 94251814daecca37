"""A volume as a radiologist looks at it: three planes in a bone window, head up, the patient's right on the left.

Cubes are turned so that their axes run from head to feet, front to back and right to left. Then every plane is a slice
as it is: sagittal with the front to the left, coronal and axial with the patient's right to the left (as if looked at
from the front and from the feet).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.data.views.volume_view import VolumeView
from sightline.errors import GeometryError
from sightline.io.volume import Volume
from sightline.structures.case import Case
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Region
from sightline.structures.tag import Role

# window 1500, level 300: trabeculae and cortex both show
BONE_HU = (-450.0, 1050.0)
# directions of the turned axes in RAS+: to the feet, to the back, to the left
_WANTED = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
# an axis within 60 degrees of where a patch's axis should point: the patch is tilted with its vertebra, not turned
_TILTED = 0.5


@dataclass(frozen=True)
class Plane:
    """A family of slices.

    Attributes:
        name: as radiologists call it.
        normal: the axis of a turned cube that the slice stands on; rows and columns are the two others in order.
        letters: what lies at the upper and at the left edge: H head, A front, R the patient's right.
    """

    name: str
    normal: int
    letters: tuple[str, str]


SAGITTAL = Plane("sagittal", 2, ("H", "A"))
CORONAL = Plane("coronal", 1, ("H", "R"))
AXIAL = Plane("axial", 0, ("A", "R"))
PLANES = (SAGITTAL, CORONAL, AXIAL)


@dataclass(frozen=True)
class Facing:
    """How an array's axes are reordered and flipped to run from head to feet, front to back and right to left.

    Attributes:
        axes: the array's axis that becomes the first, second and third.
        flipped: which of the new axes are reversed.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    def turn_array(self, values: NDArray[Any]) -> NDArray[Any]:
        """The last three axes of an array, turned (a view)."""
        lead = values.ndim - 3
        moved = np.transpose(values, (*range(lead), *(lead + axis for axis in self.axes)))
        for axis, flip in enumerate(self.flipped):
            if flip:
                moved = np.flip(moved, lead + axis)
        return moved

    def turn_back(self, values: NDArray[Any]) -> NDArray[Any]:
        """What `turned` undoes."""
        for axis, flip in enumerate(self.flipped):
            if flip:
                values = np.flip(values, axis)
        return np.transpose(values, np.argsort(self.axes))

    def frame(self, frame: Frame) -> Frame:
        """The frame of the turned grid, in the same source coordinates."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for new, old in enumerate(self.axes):
            matrix[old, new] = -1.0 if self.flipped[new] else 1.0
            matrix[old, 3] = frame.shape[old] if self.flipped[new] else 0.0
        return frame.then(matrix, [frame.shape[old] for old in self.axes])


def find_facing(affine: ArrayLike) -> Facing:
    """How a volume with an affine (voxel indices to mm, RAS+) is turned.

    A patch that is merely tilted, as its vertebra is, stays as it is.
    """
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    directions = linear / np.linalg.norm(linear, axis=0)
    along = _WANTED @ directions
    if (np.diag(along) > _TILTED).all():
        return Facing()
    from scipy.optimize import linear_sum_assignment

    _, chosen = linear_sum_assignment(-np.abs(along))
    a, b, c = (int(axis) for axis in chosen)
    return Facing((a, b, c), (bool(along[0, a] < 0), bool(along[1, b] < 0), bool(along[2, c] < 0)))


@dataclass(frozen=True, eq=False)
class Cube:
    """What a network was shown of a volume, turned for the eye.

    Attributes:
        grey: float32 [d, h, w] in 0..1, in the bone window.
        frame: of the turned grid, in voxels of the case's file.
        facing: how the network's grid was turned.
        side_mm: size of a voxel of the grid along its axes; ones where the file does not say.
    """

    grey: NDArray[np.float32]
    frame: Frame
    facing: Facing
    side_mm: tuple[float, float, float]

    @property
    def centre(self) -> tuple[int, int, int]:
        """The middle voxel."""
        a, b, c = (n // 2 for n in self.grey.shape)
        return a, b, c


def apply_bone_window(values_hu: ArrayLike) -> NDArray[np.float32]:
    """Hounsfield units as grey values in 0..1."""
    low, high = BONE_HU
    return np.asarray(np.clip((np.asarray(values_hu, dtype=np.float32) - low) / (high - low), 0.0, 1.0))


def build_cube(case: Case, view: VolumeView) -> Cube:
    """A case as the network sees it at test time, turned and in the bone window."""
    from sightline.io.nifti import read_volume

    volume = read_volume(case.image)
    planes, frame = view.test(volume.values)
    return turn_cube(planes, Frame(frame.shape, frame.to_source, volume.spacing_mm), find_facing(volume.affine), view)


def turn_cube(planes: NDArray[np.float32], frame: Frame, facing: Facing, view: VolumeView) -> Cube:
    """What a network was given, turned.

    Args:
        planes: float32 [1, d, h, w] in 0..1, as `VolumeView.test` gives it.
        frame: its frame.
        facing: of the volume.
        view: whose window the numbers are in.
    """
    low, high = view.window_hu
    grey = apply_bone_window(facing.turn_array(planes[0]) * (high - low) + low)
    turned = facing.frame(frame)
    linear = turned.to_source[:3, :3] * np.array(turned.spacing_mm or (1.0, 1.0, 1.0))[:, None]
    a, b, c = np.linalg.norm(linear, axis=0).tolist()
    return Cube(np.ascontiguousarray(grey), turned, facing, (a, b, c))


def build_whole_cube(volume: Volume) -> Cube:
    """A whole volume in Hounsfield units, turned and in the bone window."""
    facing = find_facing(volume.affine)
    grey = np.ascontiguousarray(apply_bone_window(facing.turn_array(volume.values)))
    a, b, c = (volume.spacing_mm[axis] for axis in facing.axes)
    return Cube(grey, facing.frame(volume.frame), facing, (a, b, c))


def cut_plane(values: NDArray[Any], plane: Plane, through: tuple[int, int, int]) -> NDArray[Any]:
    """The slice [rows, columns] of a turned cube [..., d, h, w] that holds a voxel."""
    lead = values.ndim - 3
    return np.asarray(np.take(values, through[plane.normal], axis=lead + plane.normal))


def measure_cut_side_mm(side_mm: tuple[float, float, float], plane: Plane) -> tuple[float, float]:
    """Height and width in millimetres of a pixel of a plane."""
    rows, columns = (side for axis, side in enumerate(side_mm) if axis != plane.normal)
    return rows, columns


def cut_regions(
    regions: tuple[Region, ...], frame: Frame, plane: Plane, through: tuple[int, int, int], roles: tuple[Role, ...]
) -> tuple[Region, ...]:
    """Marks in a volume as masks of one slice, on the slice's own grid; those the slice misses are left out."""
    slab = _cut_slab(frame, plane, through)
    found = []
    for region in regions:
        if region.tag.role in roles and isinstance(region, Mask | Box):
            inside = cut_plane(region.draw(slab), plane, (0, 0, 0)) > 0
            if inside.any():
                found.append(Mask(inside, region.tag))
    return tuple(found)


def _cut_slab(frame: Frame, plane: Plane, through: tuple[int, int, int]) -> Frame:
    """The frame of one slice of a grid, still with three axes."""
    if frame.ndim != 3:
        raise GeometryError(f"Planes are cut from three axes; got {frame.ndim}.")
    start, shape = [0, 0, 0], list(frame.shape)
    start[plane.normal], shape[plane.normal] = through[plane.normal], 1
    return frame.crop(start, shape)
