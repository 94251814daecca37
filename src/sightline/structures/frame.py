"""The place of a pixel grid in the source image, tracked through every geometric transform.

Coordinates are continuous (row, column[, ...]) with the origin at the corner of pixel (0, 0): the centre of
pixel (i, j) is (i + 0.5, j + 0.5). A Frame maps grid coordinates to source coordinates by one affine matrix, so
crops, pads, resizes, flips and rotations compose exactly, by matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError

FloatArray = NDArray[np.float64]


# of an electron microscope, and of a survey from the air: what lies beyond was written wrongly
PIXEL_RANGE_MM = (1e-6, 1e4)


def is_pixel_size(length_mm: float) -> bool:
    """Whether a number can be the size of a pixel or voxel in mm: positive, finite, and of a kind that images have.

    Example:
        >>> is_pixel_size(0.144), is_pixel_size(-0.1), is_pixel_size(1e300)
        (True, False, False)
    """
    return PIXEL_RANGE_MM[0] <= length_mm <= PIXEL_RANGE_MM[1]


@dataclass(frozen=True, eq=False)
class Frame:
    """A pixel grid and its place in a source image.

    Attributes:
        shape: grid size per axis, in grid pixels.
        to_source: homogeneous affine [d + 1, d + 1] from grid coordinates to source-pixel coordinates.
        spacing_mm: size of a source pixel along each source axis in mm, or None if the file does not state it.
        aspect: height of a source pixel over its width: from the spacing if that is known, else from the file.

    Example:
        >>> frame = Frame.of_image((100, 80)).resize((50, 40))
        >>> frame.map_points([25.0, 20.0]).tolist()
        [50.0, 40.0]
    """

    shape: tuple[int, ...]
    to_source: FloatArray
    spacing_mm: tuple[float, ...] | None = None
    aspect: float = 1.0

    def __post_init__(self) -> None:
        """Refuse empty grids, singular affines and spacings that are not positive."""
        shape = tuple(int(n) for n in self.shape)
        matrix = np.asarray(self.to_source, dtype=np.float64)
        d = len(shape)
        if d == 0 or any(n < 1 for n in shape):
            raise GeometryError(f"A frame needs a grid of at least one pixel per axis; got shape {shape}.")
        if matrix.shape != (d + 1, d + 1):
            raise GeometryError(f"A {d}-axis frame needs a {d + 1} x {d + 1} affine; got {matrix.shape}.")
        if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:d, :d])) < 1e-12:
            raise GeometryError("The affine of a frame must be finite and invertible.")
        if self.spacing_mm is not None:
            spacing = tuple(float(s) for s in self.spacing_mm)
            if len(spacing) != d or not all(math.isfinite(s) and s > 0 for s in spacing):
                raise GeometryError(f"Spacing must be {d} positive lengths in mm; got {self.spacing_mm}.")
            object.__setattr__(self, "spacing_mm", spacing)
            if d == 2:
                object.__setattr__(self, "aspect", spacing[0] / spacing[1])
        if not (math.isfinite(self.aspect) and self.aspect > 0):
            raise GeometryError(f"The aspect of a pixel is a positive number; got {self.aspect}.")
        matrix = matrix.copy()
        matrix.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "to_source", matrix)

    @classmethod
    def of_image(cls, shape: Sequence[int], spacing_mm: Sequence[float] | None = None, aspect: float = 1.0) -> Frame:
        """The frame of the source image itself: the identity transform."""
        return cls(tuple(shape), np.eye(len(shape) + 1), None if spacing_mm is None else tuple(spacing_mm), aspect)

    @property
    def ndim(self) -> int:
        """Number of grid axes."""
        return len(self.shape)

    def __eq__(self, other: object) -> bool:
        """Equal shape, affine and spacing."""
        return (
            isinstance(other, Frame)
            and self.shape == other.shape
            and self.spacing_mm == other.spacing_mm
            and self.aspect == other.aspect
            and np.array_equal(self.to_source, other.to_source)
        )

    def __hash__(self) -> int:
        """Hash of shape, affine and spacing."""
        return hash((self.shape, self.to_source.tobytes(), self.spacing_mm))

    # -- points ---------------------------------------------------------------------------------------------------

    def map_points(self, points: ArrayLike) -> FloatArray:
        """Grid coordinates [..., d] to source coordinates [..., d]."""
        return _apply(self.to_source, points)

    def unmap_points(self, points: ArrayLike) -> FloatArray:
        """Source coordinates [..., d] to grid coordinates [..., d]."""
        inverse: FloatArray = np.linalg.inv(self.to_source).astype(np.float64)
        return _apply(inverse, points)

    @property
    def scale(self) -> float:
        """Source pixels per grid pixel (geometric mean over axes)."""
        d = self.ndim
        return float(abs(np.linalg.det(self.to_source[:d, :d])) ** (1.0 / d))

    # -- geometric steps: each returns the frame of the new grid ----------------------------------------------------

    def then(self, new_to_grid: ArrayLike, shape: Sequence[int]) -> Frame:
        """The frame of a new grid, given the affine from the new grid to this one."""
        return replace(self, shape=tuple(shape), to_source=self.to_source @ np.asarray(new_to_grid, dtype=np.float64))

    def crop(self, start: Sequence[float], shape: Sequence[int]) -> Frame:
        """Crop `shape` pixels from `start`; where this reaches outside the grid, it pads."""
        return self.then(_build_translation(start), shape)

    def pad(self, before: Sequence[int], after: Sequence[int]) -> Frame:
        """Add pixels before and after each axis."""
        shape = [n + b + a for n, b, a in zip(self.shape, before, after, strict=True)]
        return self.crop([-float(b) for b in before], shape)

    def pad_to_square(self) -> Frame:
        """Pad every axis, centred, to the longest (Liao 2022, section V-A)."""
        longest = max(self.shape)
        before = [(longest - n) // 2 for n in self.shape]
        after = [longest - n - b for n, b in zip(self.shape, before, strict=True)]
        return self.pad(before, after)

    def square_pixels(self) -> Frame:
        """Resample to square pixels; unchanged if they are square already (within 1%).

        The finer axis keeps its resolution.
        """
        if self.ndim != 2 or abs(self.aspect - 1.0) < 0.01:
            return self
        rows, columns = self.shape
        if self.aspect > 1.0:
            return self.resize((max(1, round(rows * self.aspect)), columns))
        return self.resize((rows, max(1, round(columns / self.aspect))))

    def resize(self, shape: Sequence[int]) -> Frame:
        """Resize: cover the same area with another number of pixels."""
        matrix = np.eye(self.ndim + 1)
        for axis, (old, new) in enumerate(zip(self.shape, shape, strict=True)):
            if new < 1:
                raise GeometryError(f"A frame needs a grid of at least one pixel per axis; got shape {tuple(shape)}.")
            matrix[axis, axis] = old / new
        return self.then(matrix, shape)

    def within(self, window: ArrayLike, shape: Sequence[int]) -> Frame:
        """The frame of a new grid of `shape` over a window of this grid.

        Args:
            window: affine [d, d + 1] from fractions of the new grid to fractions of this one (`Evidence.window`).
            shape: size of the new grid per axis.
        """
        d = self.ndim
        affine = np.eye(d + 1)
        affine[:d] = np.asarray(window, dtype=np.float64)
        to_fractions = np.diag([*(1.0 / n for n in shape), 1.0])
        return self.then(np.diag([*map(float, self.shape), 1.0]) @ affine @ to_fractions, shape)

    def flip(self, axis: int) -> Frame:
        """Mirror one axis."""
        matrix = np.eye(self.ndim + 1)
        matrix[axis, axis] = -1.0
        matrix[axis, -1] = self.shape[axis]
        return self.then(matrix, self.shape)

    def rotate(self, angle_deg: float, axes: tuple[int, int] = (0, 1)) -> Frame:
        """Rotate the content by `angle_deg` about the grid's centre, from the first axis towards the second."""
        a, b = axes
        theta = math.radians(angle_deg)
        turn = np.eye(self.ndim + 1)
        # new grid -> old grid is the inverse turn
        turn[a, a] = turn[b, b] = math.cos(theta)
        turn[a, b], turn[b, a] = math.sin(theta), -math.sin(theta)
        centre = [n / 2.0 for n in self.shape]
        matrix = _build_translation(centre) @ turn @ _build_translation([-c for c in centre])
        return self.then(matrix, self.shape)


def _apply(matrix: FloatArray, points: ArrayLike) -> FloatArray:
    d = matrix.shape[0] - 1
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-1:] != (d,):
        raise GeometryError(f"Points of a {d}-axis frame need {d} coordinates in the last axis; got {array.shape}.")
    mapped: FloatArray = array @ matrix[:d, :d].T + matrix[:d, d]
    return mapped


def _build_translation(offset: Sequence[float]) -> FloatArray:
    matrix = np.eye(len(offset) + 1)
    matrix[:-1, -1] = offset
    return matrix


def measure_forms_apart_mm(sform: FloatArray, qform: FloatArray, shape: Sequence[int]) -> float:
    """The largest distance in mm between the voxel positions of two affines of a volume, apart from the origin.

    NIfTI files may state both (sform and qform); programs differ in which one they use.

    Args:
        sform: [4, 4], voxels to millimetres.
        qform: [4, 4].
        shape: of the volume.

    Example:
        >>> measure_forms_apart_mm(np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0]), (5, 5, 5))
        8.0
    """
    corners = np.array(list(product(*((0.0, n - 1.0) for n in shape))))
    with np.errstate(all="ignore"):  # a form of no numbers is no agreement either
        return float(np.linalg.norm(corners @ (sform[:3, :3] - qform[:3, :3]).T, axis=1).max())
