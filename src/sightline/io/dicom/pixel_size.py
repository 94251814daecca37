"""The size and shape of a pixel as a DICOM header states them, and what of it is no size and is not heeded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sightline.errors import UnreadableFile
from sightline.io.dicom.greyscale import read_numbers

# specimen radiography resolves some 5 um, and a scintigram has pixels of up to some 10 mm: what lies beyond a margin
# around both was written wrongly, or in other units
PIXEL_RANGE_MM = (1e-3, 20.0)
# a pixel ten times as high as wide is a slip of a decimal point, no detector
ASPECT_RANGE = (0.1, 10.0)
# in the patient, at the detector, of a scanned film: the first that is one counts (PS3.3, 10.7)
SIZES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_RATIO = "PixelAspectRatio"


def find_pixel_size(header: Any, file: Path) -> tuple[tuple[float, float] | None, str]:
    """(height, width) of a pixel in mm and the element that states it; None and nothing where none states a size.

    Args:
        header: the pydicom Dataset.
        file: for errors.
    """
    for keyword in SIZES:
        pair, _ = _read_pair(header, keyword, file)
        if pair is not None:
            return pair, keyword
    return None, ""


def read_aspect_ratio(header: Any, file: Path) -> float:
    """Height of a pixel over its width: by its size, else as it is stated alone, else 1."""
    pair = find_pixel_size(header, file)[0] or _read_pair(header, _RATIO, file)[0]
    return 1.0 if pair is None else pair[0] / pair[1]


def collect_size_remarks(header: Any, file: Path) -> list[str]:
    """What is stated of pixels and is no size or shape of one, or does not go together; the first kind is taken.

    Args:
        header: the pydicom Dataset.
        file: for errors.
    """
    stated: dict[str, float] = {}
    remarks = []
    for keyword in (*SIZES, _RATIO):
        pair, fault = _read_pair(header, keyword, file)
        if fault:
            remarks.append(f"{keyword} {fault} and was not heeded")
        elif pair is None:
            continue
        elif stated and abs(pair[0] / pair[1] / next(iter(stated.values())) - 1.0) > 0.01:
            first = next(iter(stated))
            remarks.append(
                f"{keyword} makes a pixel {pair[0] / pair[1]:.3g} times as high as wide, {first} {stated[first]:.3g}; "
                f"{first} was taken"
            )
        else:
            stated[keyword] = pair[0] / pair[1]
    return remarks


def _read_pair(header: Any, keyword: str, file: Path) -> tuple[tuple[float, float] | None, str]:
    """The two numbers of an element, None where it is absent or empty; and what is wrong with them."""
    try:
        values = read_numbers(header, keyword, file)
    except UnreadableFile:
        return None, "holds no number"
    if not values:
        return None, ""
    words = "\\".join(f"{value:g}" for value in values[:3])
    if len(values) != 2:
        return None, f"{words} is not two numbers"
    low, high = PIXEL_RANGE_MM if keyword != _RATIO else (0.0, math.inf)
    if not all(math.isfinite(value) and value > 0.0 and low <= value <= high for value in values):
        what = f"size of a pixel ({low:g} to {high:g} mm)" if keyword != _RATIO else "shape of a pixel"
        return None, f"{words} is no {what}"
    if not ASPECT_RANGE[0] <= values[0] / values[1] <= ASPECT_RANGE[1]:
        return None, f"{words} is no shape of a pixel"
    return (values[0], values[1]), ""
