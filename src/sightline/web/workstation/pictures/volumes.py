"""Slices of volumes by plain indexing; a few volumes stay in memory."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.data.lru_cache import LRUCache
from sightline.errors import GeometryError, UnreadableFile
from sightline.io.volume import Volume

# centre and width in Hounsfield units
WINDOWS = (
    {"name": "bone", "centre": 300.0, "width": 1500.0},
    {"name": "soft tissue", "centre": 40.0, "width": 400.0},
    {"name": "lung", "centre": -600.0, "width": 1500.0},
    {"name": "brain", "centre": 40.0, "width": 80.0},
    {"name": "spine", "centre": 50.0, "width": 300.0},
)
_KEPT_BYTES = 300 * 1024 * 1024
_kept: LRUCache[tuple[str, int], Volume] = LRUCache(_KEPT_BYTES, lambda volume: int(volume.values.nbytes))
_lock = Lock()


def open_volume(path: Path) -> Volume:
    """A volume, from memory where it was read lately.

    Raises:
        UnreadableFile: it does not decode.
    """
    from sightline.io.nifti import read_volume

    try:
        key = (str(path), path.stat().st_mtime_ns)
    except OSError as error:
        raise UnreadableFile(
            f"The volume cannot be opened ({error.strerror}).", "Ask the lead to restore it."
        ) from None
    with _lock:
        return _kept.get(key, lambda: read_volume(path))


def read_volume_facts(path: Path) -> dict[str, Any]:
    """Shape, spacing, orientation and centre of a volume."""
    volume = open_volume(path)
    return {
        "shape": list(volume.values.shape),
        "spacing_mm": list(volume.spacing_mm),
        "orientation": list(volume.orientation),
        "centre": [n / 2.0 for n in volume.values.shape],
    }


def read_slices(path: Path, axis: int, index: int, count: int) -> NDArray[np.int16]:
    """Slices `index` to `index + count` across an axis, int16: [rows, columns] of one, [count, rows, columns] of more.

    Numbers with fractions are rounded, and those beyond int16 are clipped.

    Raises:
        GeometryError: there is no such slice.
    """
    values = open_volume(path).values
    if not index >= 0 or index + count > values.shape[axis]:
        raise GeometryError(f"Slices {index} to {index + count - 1} are not among {values.shape[axis]}.", "")
    part = np.moveaxis(values, axis, 0)[index : index + count]
    whole = part if part.dtype == np.int16 else np.rint(np.clip(part, -32768, 32767)).astype(np.int16)
    return np.ascontiguousarray(whole[0] if count == 1 else whole)
