"""What stored numbers of a NIfTI file mean, and how numbers are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError, UnreadableFile

_KEPT = ("uint8", "int16", "uint16", "int32", "float32")


def as_numbers(voxels: NDArray[Any], slope: float, inter: float, path: Path) -> NDArray[Any]:
    """Scaled numbers [i, j, k]: int16 where all are whole and fit, else float32.

    Raises:
        UnreadableFile: some are no finite numbers.
    """
    if voxels.dtype == np.int16 and (slope, inter) == (1.0, 0.0):
        return voxels
    whole = voxels.dtype.kind in "iu" and slope.is_integer() and inter.is_integer()
    if not whole:
        _require_finite(voxels, path)
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
    if min(ends) < -(2**15) or max(ends) >= 2**15:
        return voxels.astype(np.float32) * np.float32(slope) + np.float32(inter)
    # modulo 2 ** 16 this is exact whatever the stored type is
    return (
        voxels.astype(np.int64, copy=False).astype(np.int16)
        if (slope, inter) == (1.0, 0.0)
        else (voxels.astype(np.int32) * np.int32(slope) + np.int32(inter)).astype(np.int16)
    )


def as_labels(voxels: NDArray[Any], slope: float, inter: float, path: Path) -> NDArray[Any]:
    """Labels [i, j, k], uint8 or uint16.

    Raises:
        UnreadableFile: negative numbers, fractions, or numbers beyond 65535.
    """
    _require_finite(voxels, path)
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


def _require_finite(voxels: NDArray[Any], path: Path) -> None:
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = int((~np.isfinite(voxels)).sum())
        raise UnreadableFile(
            f"{path}: {count} of {voxels.size} voxels are not finite numbers.",
            "Fill them (air in CT is -1000) or convert the original again.",
        )


def as_stored(values: NDArray[Any], path: Path) -> NDArray[Any]:
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
