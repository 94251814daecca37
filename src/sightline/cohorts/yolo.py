"""Boxes in YOLO's layout: a text file an image, a line a box: class, centre x, centre y, width, height (fractions)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import LayoutError
from sightline.region import Box

# written with six digits, a box at the edge may lead out of the picture by as much
_SLACK = 1e-3


def read_boxes(path: Path, shape: tuple[int, int], names: Sequence[str]) -> tuple[tuple[str, Box], ...]:
    """The boxes of one image, in its pixels, each with the name of its class.

    Args:
        path: the text file; an empty one says that nothing is marked.
        shape: (rows, columns) of the image.
        names: of the classes, by number.

    Raises:
        LayoutError: a line that is no box of a known class inside the picture.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path}: no text file ({error}).", "Restore the file.") from None
    return tuple(_box(path, number, line, shape, names) for number, line in enumerate(lines, start=1) if line.strip())


def _box(path: Path, number: int, line: str, shape: tuple[int, int], names: Sequence[str]) -> tuple[str, Box]:
    rows, columns = shape
    try:
        word, *numbers = line.split()
        x, y, width, height = map(float, numbers)
        name = names[int(word)] if int(word) >= 0 else None
    except (ValueError, IndexError):
        name = None
    if name is None:
        raise LayoutError(
            f"{path}: line {number} is {line.strip()!r}; a class from 0 to {len(names) - 1} and four numbers were "
            "expected.",
            "Mend this line.",
        )
    edges = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
    inside = all(math.isfinite(edge) and -_SLACK <= edge <= 1.0 + _SLACK for edge in edges)
    if not inside or width <= 0.0 or height <= 0.0:
        raise LayoutError(
            f"{path}: line {number} is {line.strip()!r}, which is no box inside the picture.",
            "Centres and sides are fractions of the picture's width and height.",
        )
    top, left, bottom, right = (min(max(edge, 0.0), 1.0) for edge in edges)
    return name, Box((top * rows, left * columns), (bottom * rows, right * columns))
