"""One volume with several maps side by side in three planes, and what is wrong with a map below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sightline.frame import Frame
from sightline.lab.map_row import WARNING, ShownMap, wrapped
from sightline.lab.overlay import enlarge, heat_over, outline
from sightline.lab.panel_case import DISCLAIMER
from sightline.lab.planes import PLANES, Cube, cut, cut_regions
from sightline.lab.sheet import Sheet
from sightline.lab.volume_panels import MARKED, draw_slice, peak_of, physical
from sightline.region import Region

PANEL = 2.1
GAP = 0.15


def draw_volume_map_row(cube: Cube, regions: Sequence[Region], maps: Sequence[ShownMap], caption: str) -> bytes:
    """A PNG: a column for the volume and each map, a row for each plane through the first map's greatest cell.

    Args:
        cube: the volume, turned for the eye.
        regions: an expert's, outlined on the first column.
        maps: float [md, mh, mw] in the array order of the network's grid; turned here as the cube is.
        caption: one line.
    """
    grown = [_for_the_eye(cube.facing.turned(np.asarray(m.cells, dtype=np.float64)), cube) for m in maps]
    told = [cells for cells in grown if np.ptp(cells) > 0]
    through = peak_of(told[0], cube.grey.shape) if told else cube.centre
    sizes = physical(cube, PANEL)
    notes = max((len(wrapped(m.wrong)) for m in maps), default=0)
    tall = sum(sizes[plane.name][0] + GAP for plane in PLANES)
    sheet = Sheet(max(0.3 + GAP + (PANEL + GAP) * (1 + len(maps)), 6.4), 0.65 + tall + 0.16 * notes + 0.3)
    sheet.text(GAP, 0.25, caption[: int(sheet.width / 0.09)], size=11, weight="bold")
    for n, values in enumerate([None, *grown]):
        left = 0.3 + GAP + n * (PANEL + GAP)
        sheet.text(left, 0.52, "bone window" if values is None else maps[n - 1].name, size=10)
        top = 0.6
        for plane in PLANES:
            high, wide = sizes[plane.name]
            grey = cut(cube.grey, plane, through)
            shown = grey if values is None else heat_over(grey, cut(_level(values), plane, through))
            axes = sheet.axes(left + (PANEL - wide) / 2, top, wide, high)
            draw_slice(axes, shown, plane, through, letters=n == 0, ticks=n == 0)
            if n == 0:
                marks = cut_regions(tuple(regions), cube.frame, plane, through, MARKED)
                outline(axes, marks, Frame.of_image(grey.shape))
                sheet.text(0.25, top + high / 2, plane.name, size=10, rotation=90, ha="center", va="center")
            top += high + GAP
        for k, line in enumerate(wrapped(maps[n - 1].wrong) if n else ()):
            sheet.text(left, top + 0.05 + 0.16 * k, line, size=7, color=WARNING)
    sheet.text(GAP, sheet.height - 0.1, DISCLAIMER, size=8, color="#444444")
    return sheet.png()


def _level(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _for_the_eye(cells: NDArray[np.float64], cube: Cube) -> NDArray[np.float64]:
    """Maps of single voxels (gradients) are smoothed by a hundredth of the volume."""
    if cells.shape == cube.grey.shape:
        return np.asarray(gaussian_filter(cells, 0.01 * max(cells.shape)))
    return enlarge(cells, cube.grey.shape)
