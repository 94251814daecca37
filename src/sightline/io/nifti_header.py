"""Where a NIfTI file says its voxels lie, and when that cannot be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError, UnreadableFile
from sightline.structures.frame import FloatArray, measure_forms_apart_mm

SPACING_RANGE_MM = (0.05, 20.0)
# cosine between two axes: half a degree is what rounding never makes and a tilted gantry always does
MAX_COSINE = 0.01
_CODES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI", 5: "template"}
# NIfTI's code of the unit of length; unknown (0) means mm by wide custom
_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 0.001}


def choose_affine(nifti: Any, shape: tuple[int, int, int], path: Path) -> tuple[FloatArray, str]:
    """The affine of a NIfTI header, and which of its two ways of saying it was taken.

    Args:
        nifti: nibabel's header.
        shape: of the volume, to weigh a contradiction by what it moves.
        path: named in errors.

    Returns:
        affine [4, 4] in mm, RAS+; and e.g. `sform (scanner)`.

    Raises:
        UnreadableFile: neither form is set, they contradict each other, absurd spacing, or a sheared grid.
    """
    unit_mm = _UNITS_MM.get(int(nifti["xyzt_units"]) & 7, 1.0)
    s_code, q_code = int(nifti["sform_code"]), int(nifti["qform_code"])
    if s_code <= 0 and q_code <= 0:
        raise UnreadableFile(
            f"{path}: orientation unknown: the codes of sform and qform are both 0, so nothing says which end is the "
            "head and which side is left.",
            "Convert the original DICOM series again (dcm2niix sets both), or set the orientation by hand.",
        )
    sform = _convert_to_mm(nifti.get_sform(), unit_mm) if s_code > 0 else None
    with np.errstate(all="ignore"):  # what overflows here is refused below
        qform = _convert_to_mm(nifti.get_qform(), unit_mm) if q_code > 0 else None
    name = f"sform ({_CODES.get(s_code, s_code)})" if s_code > 0 else f"qform ({_CODES.get(q_code, q_code)})"
    affine: FloatArray = sform if sform is not None else qform  # type: ignore[assignment]
    require_sane_affine(affine, path)
    zooms = np.asarray(nifti.get_zooms()[:3], dtype=np.float64) * unit_mm
    if sform is not None and qform is not None:
        _require_agreement(sform, qform, shape, path)
    elif sform is not None and np.isfinite(zooms).all() and (zooms > 0).all():
        _require_zooms(sform, zooms, path)
    return affine, name


def require_sane_affine(affine: FloatArray, path: Path) -> None:
    """Refuse spacing outside SPACING_RANGE_MM, numbers that are none, and sheared grids.

    Raises:
        UnreadableFile: with the numbers.
    """
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_RANGE_MM
    if not np.isfinite(affine).all() or not ((spacing >= low) & (spacing <= high)).all():
        raise UnreadableFile(
            f"{path}: the spacing is stated as {_format_mm(spacing)} mm; {low} to {high:g} mm along each axis were "
            "expected.",
            "Convert the original again, or fix the header where you know the true spacing.",
        )
    cosines = _compute_cosines(affine)
    if cosines.max() > MAX_COSINE:
        off = np.degrees(np.arcsin(min(1.0, cosines.max())))
        raise UnreadableFile(
            f"{path}: the axes of the grid are not at right angles (off by {off:.1f} degrees), as from a tilted "
            "gantry or an affine registration.",
            "Resample it to a right-angled grid (3D Slicer: Resample Scalar Volume; dcm2niix corrects tilt), its masks "
            "with it; centroids that count its voxels have to be placed anew.",
        )


def is_sheared(affine: FloatArray) -> bool:
    """Whether the axes are not at right angles (beyond rounding), so that no quaternion describes them."""
    return bool(_compute_cosines(affine).max() > 1e-4)


def _compute_cosines(affine: FloatArray) -> NDArray[np.float64]:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.abs((axes.T @ axes)[[0, 0, 1], [1, 2, 2]])


def _convert_to_mm(affine: Any, unit_mm: float) -> FloatArray:
    scaled = np.asarray(affine, dtype=np.float64).copy()
    scaled[:3] *= unit_mm
    return scaled


def _require_agreement(sform: FloatArray, qform: FloatArray, shape: tuple[int, int, int], path: Path) -> None:
    """Refuse forms that turn or scale the volume differently; where its corner stands may differ (another origin)."""
    moved = measure_forms_apart_mm(sform, qform, shape)
    voxel = float(np.linalg.norm(sform[:3, :3], axis=0).max())
    if not moved <= voxel:
        with np.errstate(all="ignore"):
            spacing_s, spacing_q = (np.linalg.norm(form[:3, :3], axis=0) for form in (sform, qform))
        raise UnreadableFile(
            f"{path}: sform and qform contradict each other by up to {moved:.1f} mm within the volume "
            f"({_format_axes(sform)} {_format_mm(spacing_s)} mm against "
            f"{_format_axes(qform)} {_format_mm(spacing_q)} mm).",
            "Find out which is right and set both to it, or convert the original DICOM series again.",
        )


def _require_zooms(sform: FloatArray, zooms: NDArray[np.float64], path: Path) -> None:
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    if (np.abs(spacing - zooms) > 0.02 * spacing).any():
        raise UnreadableFile(
            f"{path}: the sform states a spacing of {_format_mm(spacing)} mm, the header's pixdim "
            f"{_format_mm(zooms)} mm.",
            "Find out which is right and set both to it, or convert the original DICOM series again.",
        )


def _format_axes(affine: FloatArray) -> str:
    from nibabel.orientations import aff2axcodes

    if not np.isfinite(affine).all():
        return "???"
    return "".join(code or "?" for code in aff2axcodes(affine))


def _format_mm(spacing: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in spacing)


_KEPT = ("uint8", "int16", "uint16", "int32", "float32")


@np.errstate(over="ignore")  # who reads them refuses what is infinite
def scale_numbers(voxels: NDArray[Any], slope: float, inter: float, path: Path) -> NDArray[Any]:
    """Scaled numbers [i, j, k]: int16 where all are whole and fit, else float32.

    Raises:
        UnreadableFile: some are no finite numbers.
    """
    if voxels.dtype == np.int16 and (slope, inter) == (1.0, 0.0):
        return voxels
    whole = voxels.dtype.kind in "iu" and slope.is_integer() and inter.is_integer()
    if not whole:
        require_finite(voxels, path)
        if (slope, inter) != (1.0, 0.0):
            # a slab at a time, so that the double-precision copy stays small
            scaled = np.empty(voxels.shape, dtype=np.float32, order="F")
            for k in range(voxels.shape[2]):
                scaled[..., k] = voxels[..., k].astype(np.float64) * slope + inter
            voxels = scaled
        if not all(_is_whole(voxels[..., k]) for k in range(voxels.shape[2])):
            return voxels.astype(np.float32, copy=False)
        slope, inter = 1.0, 0.0
    ends = [float(end) * slope + inter for end in (voxels.min(), voxels.max())]
    if min(ends) < -(2**15) or max(ends) >= 2**15 or max(abs(slope), abs(inter)) >= 2**31:
        return voxels.astype(np.float32) * np.float32(slope) + np.float32(inter)
    # modulo 2 ** 16 this is exact whatever the stored type is
    return (
        voxels.astype(np.int64, copy=False).astype(np.int16)
        if (slope, inter) == (1.0, 0.0)
        else (voxels.astype(np.int32) * np.int32(slope) + np.int32(inter)).astype(np.int16)
    )


def convert_to_labels(voxels: NDArray[Any], slope: float, inter: float, path: Path) -> NDArray[Any]:
    """Labels [i, j, k], uint8 or uint16.

    Raises:
        UnreadableFile: negative numbers, fractions, or numbers beyond 65535.
    """
    require_finite(voxels, path)
    if (slope, inter) != (1.0, 0.0):
        voxels = voxels.astype(np.float64) * slope + inter
    low, high = float(voxels.min()), float(voxels.max())
    if low < 0 or high > 65535 or not _is_whole(voxels):
        raise UnreadableFile(
            f"{path}: values from {low:g} to {high:g}{'' if _is_whole(voxels) else ' with fractions'}; a label map "
            "holds whole numbers from 0 to 65535.",
            "Give the label map, resampled with nearest neighbours if at all.",
        )
    return voxels.astype(np.uint8 if high < 256 else np.uint16)


def _is_whole(voxels: NDArray[Any]) -> bool:
    return voxels.dtype.kind in "iu" or bool((voxels == np.rint(voxels)).all())


def require_finite(
    voxels: NDArray[Any], path: Path, remedy: str = "Fill them (air in CT is -1000) or convert the original again."
) -> None:
    """Refuse numbers that are none.

    Raises:
        UnreadableFile: infinite numbers, or such as are no numbers.
    """
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = int((~np.isfinite(voxels)).sum())
        raise UnreadableFile(
            f"{path}: {count} of {voxels.size} voxels are not finite numbers.",
            remedy,
        )


def convert_to_stored(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """The same numbers in a type that NIfTI viewers read.

    Raises:
        GeometryError: whole numbers beyond 32 bits.
    """
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    if values.dtype.name in _KEPT:
        return values
    for name in _KEPT[:-1]:
        info = np.iinfo(name)
        if values.dtype.kind in "iu" and (not values.size or (values.min() >= info.min and values.max() <= info.max)):
            return values.astype(name)
    raise GeometryError(f"{path}: {values.dtype} values do not fit a NIfTI file that viewers read.", "Scale them.")
