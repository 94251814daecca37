"""What a network marks on a picture: boxes with their scores, and the part of the picture that its maps cover.

Colour and dash both differ from an expert's outlines, and every line has a dark rim, so that it is seen on white bone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from numpy.typing import ArrayLike

from sightline.frame import Frame
from sightline.lab.scored_box import ScoredBox

FOUND = ("#ff5ce1", (0, (5, 1.4, 1.2, 1.4)))
WINDOW = ("#ffffff", (0, (1, 1.3)))
_CORNERS = np.array([(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)])


def draw_window(axes: Any, window: ArrayLike | None, frame: Frame) -> None:
    """Outline the part of a picture that maps cover (`Evidence.window`, [2, 3]); nothing where they cover all of it."""
    if window is None:
        return
    affine = np.asarray(window, dtype=np.float64)
    _line(axes, (_CORNERS @ affine[:, :2].T + affine[:, 2]) * np.array(frame.shape), WINDOW, 1.3)


def draw_boxes(axes: Any, boxes: Sequence[ScoredBox], frame: Frame, *, size: float = 8.0) -> None:
    """Draw boxes on axes made by `show`, each with its score at its upper left corner.

    Args:
        axes: whose data coordinates are (column, row) on the grid of `frame`.
        boxes: in source pixels.
        frame: of the grid.
        size: of the scores, in points.
    """
    # the surest last, on top
    for box in reversed(boxes):
        low, high = np.array(box.corners[:2]), np.array(box.corners[2:])
        corners = frame.unmap_points(low + _CORNERS * (high - low))
        _line(axes, corners, FOUND, 1.6 if size >= 8 else 1.2)
        top, left = corners.min(axis=0)
        # above the box, or inside it where the picture ends
        room = top > 0.06 * frame.shape[0]
        text = axes.annotate(
            f"{box.score:.2f}", (max(left, 0.0), max(top, 0.0)), (1.0, 1.5 if room else -1.5),
            textcoords="offset points", color=FOUND[0], fontsize=size, fontweight="bold",
            va="bottom" if room else "top", ha="left", annotation_clip=True,
        )  # fmt: skip
        text.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="black")])


def _line(axes: Any, corners: Any, style: tuple[str, Any], width_pt: float) -> None:
    colour, dashes = style
    points = np.asarray(corners)
    # a whole dark line below, so that the gaps of the dashes are dark too
    for stroke, pattern, width in (("black", "solid", width_pt + 1.3), (colour, dashes, width_pt)):
        axes.plot(
            points[:, 1], points[:, 0], color=stroke, linestyle=pattern, linewidth=width,
            dash_capstyle="butt", scalex=False, scaley=False, alpha=0.8 if stroke == "black" else 1.0,
        )  # fmt: skip
