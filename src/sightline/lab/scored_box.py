"""A box that a network found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ScoredBox:
    """One box of one picture.

    Attributes:
        label: class it speaks for.
        score: how sure the network is, 0..1.
        corners: row_start, column_start, row_stop, column_stop in source pixels.
    """

    label: str
    score: float
    corners: tuple[float, float, float, float]


def scored_boxes(label: str, corners: Sequence[ArrayLike] | ArrayLike, scores: ArrayLike) -> tuple[ScoredBox, ...]:
    """Boxes of one class from corners [f, 4] and scores [f], surest first; of equal ones the given order stays."""
    places, sure = np.asarray(corners, dtype=np.float64).reshape(-1, 4), np.asarray(scores, dtype=np.float64)
    found = []
    for i in np.argsort(-sure, kind="stable"):
        top, left, bottom, right = (float(x) for x in places[i])
        found.append(ScoredBox(label, float(sure[i]), (top, left, bottom, right)))
    return tuple(found)
