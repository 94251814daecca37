"""The small picture beside each series' masks, as VerSe has one: the spine from the side and from the front."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WINDOW = (-300.0, 1000.0)
_COLOURS = np.array([(230, 80, 70), (240, 180, 60), (120, 200, 90), (70, 170, 220), (160, 110, 220)], dtype=np.float64)


def preview(ct: NDArray[Any], labels: NDArray[Any], spacing_mm: tuple[float, float, float]) -> bytes:
    """PNG of a sagittal and a coronal slice, labels in colour.

    Args:
        ct: Hounsfield units [x, y, z], x to the right, y to the front, z to the head.
        labels: VerSe's numbers on the same grid.
        spacing_mm: of its voxels.
    """
    inside = np.argwhere(labels > 0)
    x, y = np.median(inside[:, 0]).astype(int), int(np.percentile(inside[:, 1], 70))
    shown = [
        _panel(ct[x], labels[x], (spacing_mm[1], spacing_mm[2])),
        _panel(ct[:, y], labels[:, y], (spacing_mm[0], spacing_mm[2])),
    ]
    file = BytesIO()
    Image.fromarray(np.concatenate(shown, axis=1)).save(file, format="PNG")
    return file.getvalue()


def _panel(slab: NDArray[Any], labels: NDArray[Any], spacing_mm: tuple[float, float]) -> NDArray[np.uint8]:
    """One slice [across, up] as a picture [rows, columns, 3], a pixel a millimetre, the head at the top."""
    low, high = _WINDOW
    grey = np.clip((slab.astype(np.float64) - low) / (high - low), 0.0, 1.0)[..., None] * np.full(3, 255.0)
    tinted = np.where(labels[..., None] > 0, 0.6 * grey + 0.4 * _COLOURS[labels % len(_COLOURS)], grey)
    rows, columns = (round(n * mm) for n, mm in zip(slab.shape[::-1], spacing_mm[::-1], strict=True))
    picture = Image.fromarray(np.ascontiguousarray(tinted.transpose(1, 0, 2)[::-1]).astype(np.uint8))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR))
