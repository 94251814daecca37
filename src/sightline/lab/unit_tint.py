"""Where a unit is above its threshold, drawn over a grey picture: a translucent colour and a contour."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import patheffects
from numpy.typing import NDArray
from skimage.measure import find_contours

from sightline.lab.overlay import HEAT, Pixels

CONTOUR = "#ffe600"
# opacity of the colour at a unit's threshold and at its highest: the bone must stay readable through it
TINT = (0.16, 0.42)


def tinted(grey: Pixels, level: NDArray[np.float64], above: NDArray[np.bool_]) -> Pixels:
    """A grey picture [h, w] in colour where a unit is above its threshold, the higher the stronger: RGB [h, w, 3]."""
    low, high = TINT
    opacity = np.where(above, low + (high - low) * level, 0.0)[..., None]
    colour = HEAT(0.35 + 0.65 * level)[..., :3]
    return np.asarray((1.0 - opacity) * grey[..., None] + opacity * colour, dtype=np.float32)


def contours(above: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Outlines [n, 2] of an area, (row, column) from the corner of pixel (0, 0)."""
    # one pixel of padding, and contour coordinates are pixel centres: minus one, plus a half
    return [line - 0.5 for line in find_contours(np.pad(above.astype(np.float32), 1), 0.5)]


def draw_contour(axes: Any, above: NDArray[Any], width_pt: float = 1.2) -> None:
    """The outline of an area [h, w] on axes made by `show`."""
    halo = [patheffects.Stroke(linewidth=2 * width_pt, foreground="black", alpha=0.7), patheffects.Normal()]
    for line in contours(np.asarray(above, dtype=bool)):
        axes.plot(
            line[:, 1], line[:, 0], color=CONTOUR, linewidth=width_pt, path_effects=halo, scalex=False, scaley=False
        )
