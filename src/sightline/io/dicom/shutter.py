"""Display shutters: what a DICOM image says is not to be shown, the border around the X-ray field (PS3.3, C.7.6.11)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import UnreadableFile
from sightline.io.dicom.greyscale import read_numbers

Open = NDArray[np.bool_]
SHUTTER = (
    "ShutterShape",
    "ShutterLeftVerticalEdge",
    "ShutterRightVerticalEdge",
    "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge",
    "CenterOfCircularShutter",
    "RadiusOfCircularShutter",
    "VerticesOfThePolygonalShutter",
)
_EDGES = SHUTTER[1:5]
# a shutter that leaves less was written wrongly: it would hide what the picture was taken for
LEAST_OPEN = 0.01


def find_shutter(header: Any, file: Path, shape: tuple[int, int], aspect: float) -> tuple[Open | None, tuple[str, ...]]:
    """Where the display shutters of an image leave it open, all of them together, and remarks.

    Args:
        header: the pydicom Dataset.
        file: for errors.
        shape: rows and columns of the picture.
        aspect: height of a pixel over its width.

    Returns:
        bool [h, w], None where nothing is hidden; what was hidden, or stated and not heeded, in words.
    """
    stated = header.get("ShutterShape") or ()
    names = [stated] if isinstance(stated, str) else [str(name) for name in stated]
    shown = np.ones(shape, dtype=np.bool_)
    applied, remarks = [], []
    for name in names:
        try:
            part = _draw_shutter(name, header, file, shape, aspect)
        except UnreadableFile:
            part = None
        if part is None:
            remarks.append(f"the display shutter {name} is not whole or of no known shape and was not heeded")
        else:
            shown &= part
            applied.append(name)
    share = float(shown.mean())
    if not applied or share == 1.0:
        return None, tuple(remarks)
    words = f"the display shutter ({', '.join(applied)})"
    if share < LEAST_OPEN:
        return None, (*remarks, f"{words} would leave {share:.1%} of the picture and was not heeded")
    return shown, (*remarks, f"{words} hides {1.0 - share:.1%} of the picture: black, as on a display")


def _draw_shutter(name: str, header: Any, file: Path, shape: tuple[int, int], aspect: float) -> Open | None:
    """Where one shutter is open; None where it is not whole. Rows and columns count from 1; edges are still shown."""
    row, column = np.ogrid[1 : shape[0] + 1, 1 : shape[1] + 1]
    if name == "RECTANGULAR":
        edges = [read_numbers(header, keyword, file) for keyword in _EDGES]
        if not all(len(edge) == 1 and math.isfinite(edge[0]) for edge in edges):
            return None
        left, right, upper, lower = (edge[0] for edge in edges)
        return (row >= upper) & (row <= lower) & (column >= left) & (column <= right)
    if name == "CIRCULAR":
        centre = read_numbers(header, "CenterOfCircularShutter", file)
        radius = read_numbers(header, "RadiusOfCircularShutter", file)
        if len(centre) != 2 or len(radius) != 1 or not math.isfinite(sum((*centre, *radius))) or radius[0] <= 0:
            return None
        # the radius counts pixels along a row
        inside: Open = ((row - centre[0]) * aspect) ** 2 + (column - centre[1]) ** 2 <= radius[0] ** 2
        return inside
    if name == "POLYGONAL":
        numbers = read_numbers(header, "VerticesOfThePolygonalShutter", file)
        if len(numbers) < 6 or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
            return None
        from skimage.draw import polygon2mask

        filled: Open = polygon2mask(shape, np.reshape(numbers, (-1, 2)) - 1.0)
        return filled
    return None
