"""Where the slices of a DICOM series lie, and whether together they make a right-angled grid without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.errors import UnreadableFile, count_noun
from sightline.structures.frame import FloatArray

# a position rounded to 0.1 mm is off by half of that; more than this is no rounding
TOLERANCE_MM = 0.06
MAX_TILT_DEG = 0.5


@dataclass(frozen=True, eq=False)
class SlicePlace:
    """What one slice says of its place.

    Attributes:
        file: where it was read from.
        position: [3], centre of its first pixel in mm, LPS+.
        cosines: [2, 3], the direction along a row (growing column) and along a column (growing row).
        spacing_mm: (between rows, between columns), as PixelSpacing.
        shape: (rows, columns).
        uid: SOPInstanceUID.
    """

    file: Path
    position: NDArray[np.float64]
    cosines: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]
    uid: str

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector out of the image plane."""
        cross = np.cross(self.cosines[0], self.cosines[1])
        return np.asarray(cross / max(float(np.linalg.norm(cross)), 1e-12))

    @property
    def along_normal(self) -> float:
        """Distance of the plane from the origin along its normal, in mm."""
        return float(self.position @ self.normal)


def compute_affine_of_slices(folder: Path, slices: Sequence[SlicePlace]) -> FloatArray:
    """The affine [4, 4] of [column, row, slice] indices to mm, RAS+.

    Args:
        folder: named in errors.
        slices: in order along the normal.

    Raises:
        UnreadableFile: fewer than two slices, mixed sizes, spacings or directions, two slices at one place, missing
            or unevenly spaced slices, or a stack that is not at right angles to its slices (a tilted gantry).
    """
    if len(slices) < 2:
        raise UnreadableFile(
            f"{folder}: a series of {len(slices)} slice; at least two are needed for a volume.",
            "Give the whole series.",
        )
    first = slices[0]
    for other in slices[1:]:
        _require_alike(first, other)
    _require_right_angles(first)
    step = _require_even_step(folder, slices)
    affine = np.eye(4)
    affine[:3, 0] = first.cosines[0] * first.spacing_mm[1]
    affine[:3, 1] = first.cosines[1] * first.spacing_mm[0]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = first.position
    # DICOM's x and y grow to the left and to the back, NIfTI's to the right and to the front
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _require_alike(first: SlicePlace, other: SlicePlace) -> None:
    if other.shape != first.shape:
        _refuse_mixture(first, other, f"{first.shape} pixels", f"{other.shape}")
    if not np.allclose(other.spacing_mm, first.spacing_mm, rtol=1e-3, atol=0):
        _refuse_mixture(first, other, f"a pixel spacing of {first.spacing_mm} mm", f"{other.spacing_mm} mm")
    if not np.allclose(other.cosines, first.cosines, rtol=0, atol=1e-3):
        _refuse_mixture(first, other, f"the directions {first.cosines.tolist()}", f"{other.cosines.tolist()}")


def _refuse_mixture(first: SlicePlace, other: SlicePlace, expected: str, got: str) -> None:
    raise UnreadableFile(
        f"{other.file}: {got}, where {first.file.name} of the same series has {expected}.",
        "The series mixes several stacks; give a folder with one of them.",
    )


def _require_right_angles(first: SlicePlace) -> None:
    lengths = np.linalg.norm(first.cosines, axis=1)
    if not np.allclose(lengths, 1.0, atol=1e-2) or not abs(float(first.cosines[0] @ first.cosines[1])) < 1e-2:
        raise UnreadableFile(
            f"{first.file}: ImageOrientationPatient {first.cosines.ravel().tolist()} is not two unit vectors at right "
            "angles.",
            "Export the series again from its source.",
        )


def _require_even_step(folder: Path, slices: Sequence[SlicePlace]) -> float:
    """The distance between neighbouring slices in mm, once it is the same for all."""
    normal = slices[0].normal
    positions = np.array([one.position for one in slices])
    along = positions @ normal
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    twins = np.flatnonzero(gaps < max(1e-3, 0.02 * usual))
    if len(twins):
        one, other = slices[twins[0]], slices[twins[0] + 1]
        copy = one.uid and one.uid == other.uid
        same = "the same SOPInstanceUID: a copy" if copy else "copies, or two acquisitions or reconstructions"
        raise UnreadableFile(
            f"{folder}: {count_noun(len(twins), 'slice stands', 'slices stand')} where another stands already, "
            f"e.g. {one.file.name} and "
            f"{other.file.name} ({same}).",
            "Give a folder with one slice at each place.",
        )
    tolerance = max(TOLERANCE_MM, 0.02 * usual)
    missing = np.flatnonzero(gaps > 1.5 * usual)
    if len(missing):
        at = int(missing[0])
        count = int(np.rint(gaps[missing] / usual - 1).sum())
        raise UnreadableFile(
            f"{folder}: {count_noun(count, 'slice is', 'slices are')} missing: "
            f"the distance from {slices[at].file.name} to "
            f"{slices[at + 1].file.name} is {gaps[at]:.2f} mm, elsewhere {usual:.2f} mm.",
            "Copy the series again, all slices of it.",
        )
    step = float(along[-1] - along[0]) / (len(slices) - 1)
    off = np.abs(along - (along[0] + step * np.arange(len(slices)))).max()
    if off > 2 * tolerance:
        raise UnreadableFile(
            f"{folder}: the slices are unevenly spaced: from {gaps.min():.2f} to {gaps.max():.2f} mm apart.",
            "Give a reconstruction with even spacing, or resample the series (3D Slicer, dcm2niix).",
        )
    sideways = positions - positions[0] - np.outer(along - along[0], normal)
    drift = np.linalg.norm(sideways, axis=1)
    tilt = float(np.degrees(np.arctan2(drift[-1], along[-1] - along[0])))
    if tilt > MAX_TILT_DEG or drift.max() > max(1.0, 2 * tolerance):
        raise UnreadableFile(
            f"{folder}: the slices shift sideways by {drift.max():.1f} mm over {along[-1] - along[0]:.0f} mm: a gantry "
            f"tilted by {tilt:.1f} degrees.",
            "Resample the series to a right-angled grid (dcm2niix corrects tilt) and give the NIfTI file.",
        )
    return step
