"""COCO run-length masks: runs of 0 and 1 in column order, as a list or as the compressed text of the COCO tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode(record: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask [h, w] of `{"size": [h, w], "counts": list or text}`.

    Raises:
        KeyError, TypeError, ValueError: fields that are missing, or runs that do not fill the size.
    """
    height, width = (int(n) for n in record["size"])
    counts = record["counts"]
    runs = _inflate(counts) if isinstance(counts, str) else [int(n) for n in counts]
    if height < 1 or width < 1 or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"run lengths add up to {sum(runs)}, expected {height} x {width}")
    values = np.zeros(len(runs), dtype=bool)
    values[1::2] = True  # the first run is outside
    return np.repeat(values, runs).reshape((height, width), order="F")


def _inflate(text: str) -> Sequence[int]:
    """Runs from text: five bits a character from '0' on, lowest first, bit 32 says that more follow.

    The last character carries the sign; from the fourth run on each is the difference from the run two before.
    """
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position == len(text):
                raise ValueError("compressed run lengths end inside a number")
            code = ord(text[position]) - 48
            if not 0 <= code < 64:
                raise ValueError(f"compressed run lengths hold the character {text[position]!r}")
            value |= (code & 0x1F) << shift
            more, shift, position = bool(code & 0x20), shift + 5, position + 1
            if not more and code & 0x10:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
