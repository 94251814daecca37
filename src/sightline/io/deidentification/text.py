"""Words in the pixels of a picture, found by optical character recognition, for a person to look at.

Nothing here claims that all words are found: what is found is listed, and a picture with words is not written until
somebody has seen it. Single letters and digits are marks of the side or the technician, no names.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MARK = re.compile(r"[\W_]*\w?[\W_]*")
# smaller pictures are enlarged: recognition expects letters of about 20 px
_LEAST_SIDE, _MOST_SIDE = 700, 2200
_SURE = 0.5
# grey levels of 255 by which pictures differ on whose words nothing depends
_SAME = 4
_TIMEOUT_S = 120
Boxes = list[tuple[str, tuple[int, int, int, int]]]


@dataclass(frozen=True)
class FoundText:
    """One line of words.

    Attributes:
        text: as it was read.
        box: row_start, column_start, row_stop, column_stop in pixels.
    """

    text: str
    box: tuple[int, int, int, int]


def choose_text_finder() -> str:
    """Which program looks for words: `rapidocr`, `tesseract`, or empty where none is installed."""
    if _load_rapidocr() is not None:
        return "rapidocr"
    return "tesseract" if shutil.which("tesseract") else ""


def find_text(pixels: NDArray[Any]) -> list[FoundText]:
    """Words in a picture and in its negative, those of single letters left out.

    Args:
        pixels: uint8 or uint16 [h, w], or uint8 [h, w, 3]; brighter is brighter.
    """
    finder = choose_text_finder()
    if not finder:
        return []
    read: Callable[[NDArray[np.uint8]], Boxes] = _find_by_rapidocr if finder == "rapidocr" else _find_by_tesseract
    grey = _scale_grey(pixels)
    scale = max(1.0, _LEAST_SIDE / max(1, max(grey.shape)))
    scale = min(scale, _MOST_SIDE / max(grey.shape))
    if scale != 1.0:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))
    found: list[FoundText] = []
    for picture in (grey, np.asarray(255 - grey, dtype=np.uint8)):
        for text, (top, left, bottom, right) in read(picture):
            if _MARK.fullmatch(text.strip()):
                continue
            box = (int(top / scale), int(left / scale), int(np.ceil(bottom / scale)), int(np.ceil(right / scale)))
            if not any(_compute_overlap(box, other.box) > 0.5 for other in found):
                found.append(FoundText(text.strip(), box))
    return found


def search_pictures(pictures: Sequence[NDArray[Any]]) -> list[tuple[FoundText, NDArray[Any]]]:
    """Words in pictures of one size, each with the picture that it was read in.

    A picture that looks like an earlier one or its negative is not searched, and a place is listed once.
    """
    searched: list[NDArray[np.uint8]] = []
    found: list[tuple[FoundText, NDArray[Any]]] = []
    for pixels in pictures:
        grey = _scale_grey(pixels)
        if any(_are_alike(grey, other) or _are_alike(255 - grey, other) for other in searched):
            continue
        searched.append(grey)
        for text in find_text(pixels):
            if not any(_compute_overlap(text.box, other.box) > 0.5 for other, _ in found):
                found.append((text, pixels))
    return found


def _are_alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    return a.shape == b.shape and int(np.abs(a.astype(np.int16) - b).max(initial=0)) <= _SAME


def _scale_grey(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    values = np.asarray(pixels)
    if values.ndim == 3:
        values = values.mean(axis=2)
    low, high = np.percentile(values, [0.0, 100.0])
    # the whole range: white letters are often brighter than any bone
    return np.asarray(np.rint((values - low) * (255.0 / max(high - low, 1e-9))), dtype=np.uint8)


@lru_cache(maxsize=1)
def _load_rapidocr() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        return None
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)


def _find_by_rapidocr(picture: NDArray[np.uint8]) -> Boxes:
    result, _ = _load_rapidocr()(np.stack([picture] * 3, axis=-1))
    boxes: Boxes = []
    for corners, text, sure in result or []:
        points = np.asarray(corners, dtype=np.float64)
        if float(sure) >= _SURE:
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            boxes.append((str(text), (int(top), int(left), int(bottom), int(right))))
    return boxes


def _find_by_tesseract(picture: NDArray[np.uint8]) -> Boxes:
    stream = BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    command = ["tesseract", "stdin", "stdout", "--psm", "11", "tsv"]
    done = subprocess.run(command, input=stream.getvalue(), capture_output=True, timeout=_TIMEOUT_S, check=False)
    boxes: Boxes = []
    for line in done.stdout.decode("utf-8", "replace").splitlines()[1:]:
        cells = line.split("\t")
        if len(cells) == 12 and cells[11].strip() and float(cells[10]) >= 100 * _SURE:
            left, top, width, height = map(int, cells[6:10])
            boxes.append((cells[11], (top, left, top + height, left + width)))
    return boxes


def _compute_overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    rows = min(a[2], b[2]) - max(a[0], b[0])
    columns = min(a[3], b[3]) - max(a[1], b[1])
    least = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(rows, 0) * max(columns, 0) / max(least, 1)
