"""One picture with several maps side by side, each under its name, and what is wrong with a map below it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from sightline.frame import Frame
from sightline.lab.overlay import blend_heat, checked_pixels, outline, show
from sightline.lab.panel_case import DISCLAIMER
from sightline.lab.sheet import Sheet
from sightline.region import Region

PANEL = 2.6
GAP = 0.15
WARNING = "#b00020"


@dataclass(frozen=True, eq=False)
class ShownMap:
    """A map to show.

    Attributes:
        name: what it is called.
        cells: float [h, w].
        wrong: what pre-flight found wrong with it, or empty.
        window: [2, 3], where it lies; None: over all of the picture.
    """

    name: str
    cells: NDArray[np.floating]
    wrong: str = ""
    window: NDArray[np.float64] | None = None


def draw_map_row(
    pixels: ArrayLike, frame: Frame, regions: Sequence[Region], maps: Sequence[ShownMap], caption: str
) -> bytes:
    """A PNG: the picture, then every map over it.

    Maps of single pixels (gradients) are smoothed by a hundredth of the picture for the eye; `scores` see them as they
    are.

    Args:
        pixels: float [h, w] or [h, w, 3] in 0..1 on the grid of `frame`.
        frame: of the picture.
        regions: an expert's, outlined on the picture.
        maps: what to show.
        caption: one line.
    """
    picture = checked_pixels(pixels, frame)
    tall = PANEL * frame.shape[0] / frame.shape[1]
    notes = max((len(wrapped(m.wrong)) for m in maps), default=0)
    sheet = Sheet(GAP + (PANEL + GAP) * (1 + len(maps)), 0.75 + tall + 0.16 * notes + 0.3)
    sheet.text(GAP, 0.25, caption, size=11, weight="bold")
    for n, shown in enumerate([None, *maps]):
        left = GAP + n * (PANEL + GAP)
        axes = sheet.axes(left, 0.6, PANEL, tall)
        if shown is None:
            show(axes, picture)
            outline(axes, regions, frame)
            sheet.text(left, 0.52, "picture", size=10)
            continue
        show(axes, blend_heat(picture, _for_the_eye(shown.cells, frame), shown.window))
        sheet.text(left, 0.52, shown.name, size=10)
        for k, line in enumerate(wrapped(shown.wrong)):
            sheet.text(left, 0.6 + tall + 0.17 + 0.16 * k, line, size=8, color=WARNING)
    sheet.text(GAP, sheet.height - 0.1, DISCLAIMER, size=8, color="#444444")
    return sheet.png()


def wrapped(words: str) -> list[str]:
    """What is wrong with a map, in at most six short lines."""
    return textwrap.wrap(f"WRONG: {words}", 44)[:6] if words else []


def _for_the_eye(cells: NDArray[np.floating], frame: Frame) -> NDArray[np.float64]:
    values = np.asarray(cells, dtype=np.float64)
    if values.shape != tuple(frame.shape):
        return values
    smoothed: NDArray[np.float64] = gaussian_filter(values, 0.01 * max(frame.shape))
    return smoothed
