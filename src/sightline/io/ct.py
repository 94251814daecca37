"""A CT from a NIfTI file or a DICOM series, in Hounsfield units that have been looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import UnreadableFile
from sightline.io.dicom.series import read_series
from sightline.io.nifti import read_volume
from sightline.io.picture import has_dicom_mark
from sightline.io.volume import Volume

AIR_HU = -1024
# fat, lung, bowel gas or the room: any CT of a trunk holds voxels below this, if only by noise
LOW_HU = -200
BONE_HU = 200
HIGHEST_HU = 32767
# scanners and resamplings overshoot air a little; what lies lower is padding, or no Hounsfield units
FAR_BELOW_AIR_HU = -1200
_FEW = 1e-5
# shares of a volume: more than this below all air is no padding, and more than this above cortical bone is no bone
_MUCH_BELOW, _MUCH_DENSE = 0.1, 0.05


def read_ct(path: Path, *, series: str | None = None) -> Volume:
    """Read a CT and make sure that its numbers are Hounsfield units.

    Args:
        path: a NIfTI file, the folder of a DICOM series, or one Enhanced CT (all slices in one file).
        series: which, where a folder holds several series (its SeriesInstanceUID, or the end of it).

    Returns:
        int16 Hounsfield units in the axis order of the file; below air (padding, overshoot of a resampling) they are
        raised to AIR_HU, and `facts["padded_voxels"]` counts those; fractions are rounded.

    Raises:
        UnreadableFile: as `read_volume` and `read_series`, or numbers that cannot be Hounsfield units of a body.
    """
    path = Path(path)
    if path.is_dir() or _is_dicom(path):
        volume = read_series(path, series=series)
    else:
        volume = read_volume(path)
    require_hounsfield(volume.values, path)
    values, facts = volume.values, dict(volume.facts)
    padded = int((values < AIR_HU).sum())
    if padded:
        facts["padded_voxels"] = str(padded)
    if values.dtype != np.int16:
        values = np.rint(np.clip(values, AIR_HU, HIGHEST_HU)).astype(np.int16)
    elif padded:
        values = np.maximum(values, np.int16(AIR_HU))
    return replace(volume, values=values, facts=facts)


def require_hounsfield(values: NDArray[Any], path: Path) -> None:
    """Refuse numbers that are not Hounsfield units of a trunk: no air, fat or lung, or no bone.

    Raises:
        UnreadableFile: saying what the numbers look like, and how to mend it.
    """
    low, high = float(values.min()), float(values.max())
    held = f"{path}: values from {low:g} to {high:g}"
    few = max(1.0, _FEW * values.size)
    if high > HIGHEST_HU:
        raise UnreadableFile(
            f"{held}; Hounsfield units do not go beyond {HIGHEST_HU}.", "Convert the original DICOM series again."
        )
    if high - low <= 2.5:
        raise UnreadableFile(
            f"{held}, as after a normalisation; Hounsfield units were expected (air -1000, water 0, bone above 200).",
            "Give the CT before it was normalised.",
        )
    if low >= 0 and high <= 255:
        raise UnreadableFile(
            f"{held}: a grey-scale picture of a display window; Hounsfield units were expected.",
            "Give the CT itself; its Hounsfield units cannot be recovered from a window.",
        )
    # padding stands apart from the numbers of a body and must not hide them
    padded = values < FAR_BELOW_AIR_HU
    _require_padding(values[padded], values.size, held)
    if low >= 0 or not ((values < 0) & (values > low) & ~padded).any():
        apart = " but padding" if low < 0 else ""
        raise UnreadableFile(
            f"{held} and none below 0{apart}: stored values whose rescale intercept (usually -1024) was not applied.",
            "Convert the DICOM series again, or add the intercept (set scl_inter to -1024 in the NIfTI header).",
        )
    if int((values < LOW_HU).sum()) < few:
        raise UnreadableFile(
            f"{held}, nothing below {LOW_HU}: no air, fat or lung, so these are hardly Hounsfield units.",
            "Give the CT without a window; if it was windowed, its numbers cannot be recovered.",
        )
    if int((values > BONE_HU).sum()) < few:
        raise UnreadableFile(
            f"{held}, nothing above {BONE_HU}: no bone, so this is no CT of a spine in Hounsfield units.",
            "Give the CT without a window, or check the rescale slope.",
        )
    dense, airy = float((values > 700).mean()), float((values < -500).mean())
    if dense > max(_MUCH_DENSE, 3 * airy):
        raise UnreadableFile(
            f"{held}: {dense:.0%} of the voxels are denser than any bone (700) and {airy:.0%} are air or lung (-500), "
            "as when dark and bright are exchanged.",
            "Check the sign of the rescale slope, or convert the DICOM series again.",
        )


def _require_padding(below: NDArray[Any], size: int, held: str) -> None:
    """Refuse many different numbers below all air: padding is one number or a few."""
    if len(below) <= _MUCH_BELOW * size:
        return
    counts = np.unique(below[:: max(1, len(below) // 1_000_000)], return_counts=True)[1]
    other = 1.0 - float(np.sort(counts)[-3:].sum() / counts.sum())
    if other * len(below) > _MUCH_BELOW * size:
        raise UnreadableFile(
            f"{held}: {len(below) / size:.0%} of the voxels lie below {FAR_BELOW_AIR_HU}, and not on one padding "
            "value; air is -1000.",
            "Check the rescale slope, or convert the DICOM series again.",
        )


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return has_dicom_mark(stream.read(132))
    except OSError:
        return False  # what is wrong with the file, its reader says
