"""One picture with several maps side by side, each under its name, and what is wrong with a map below it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from sightline.errors import GeometryError
from sightline.plots.canvas import Sheet
from sightline.plots.overlay import (
    blend_heat,
    blend_heat_over,
    check_pixels,
    draw_boxes,
    draw_window,
    outline_regions,
    show,
)
from sightline.plots.panels import DISCLAIMER
from sightline.plots.planes import PLANES, Cube, cut_plane, cut_regions
from sightline.plots.volume_panels import MARKED, draw_slice, find_peak, measure_physical
from sightline.structures.frame import Frame
from sightline.structures.regions import Region, ScoredBox
from sightline.structures.resampling import upsample_map

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
    pixels: ArrayLike,
    frame: Frame,
    regions: Sequence[Region],
    maps: Sequence[ShownMap],
    caption: str,
    foot: str = DISCLAIMER,
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
        foot: one line below.
    """
    picture = check_pixels(pixels, frame)
    tall = PANEL * frame.shape[0] / frame.shape[1]
    notes = max((len(wrap_words(m.wrong)) for m in maps), default=0)
    sheet = Sheet(GAP + (PANEL + GAP) * (1 + len(maps)), 0.75 + tall + 0.16 * notes + 0.3)
    sheet.text(GAP, 0.25, caption, size=11, weight="bold")
    for n, shown in enumerate([None, *maps]):
        left = GAP + n * (PANEL + GAP)
        axes = sheet.axes(left, 0.6, PANEL, tall)
        if shown is None:
            show(axes, picture)
            outline_regions(axes, regions, frame)
            sheet.text(left, 0.52, "picture", size=10)
            continue
        show(axes, blend_heat(picture, _smooth_for_display(shown.cells, frame), shown.window))
        sheet.text(left, 0.52, shown.name, size=10)
        for k, line in enumerate(wrap_words(shown.wrong)):
            sheet.text(left, 0.6 + tall + 0.17 + 0.16 * k, line, size=8, color=WARNING)
    sheet.text(GAP, sheet.height - 0.1, foot, size=8, color="#444444")
    return sheet.png()


@dataclass(frozen=True, eq=False)
class MethodCell:
    """What one method made of a picture.

    Attributes:
        cells: float [h, w], the map to lay over the picture; None shows the picture alone.
        words: one line below.
        window: [2, 3], where the map lies; None: over all of the picture.
        found: the method's boxes, in source pixels.
    """

    cells: NDArray[np.floating] | None
    words: str = ""
    window: NDArray[np.float64] | None = None
    found: tuple[ScoredBox, ...] = ()


@dataclass(frozen=True, eq=False)
class MethodRow:
    """One picture, and a cell a method.

    Attributes:
        name: at the left.
        pixels: float [h, w] or [h, w, 3] in 0..1 on the grid of `frame`.
        frame: of the picture.
        regions: an expert's, outlined.
        cells: in the order of the columns.
    """

    name: str
    pixels: NDArray[np.float32]
    frame: Frame
    regions: tuple[Region, ...]
    cells: tuple[MethodCell, ...]


GRID_PANEL = 1.75


def draw_method_grid(rows: Sequence[MethodRow], columns: Sequence[str], title: str) -> bytes:
    """A PNG: a line a picture, first as it is with what an expert marked, then as each method saw it.

    Args:
        rows: at least one, each with a cell a column.
        columns: names of the methods.
        title: above.

    Raises:
        GeometryError: no row, or another number of cells than columns.
    """
    if not rows or any(len(row.cells) != len(columns) for row in rows):
        raise GeometryError(f"A grid of {len(columns)} methods needs rows of as many cells; got {len(rows)} rows.")
    heads = [textwrap.wrap(name, 20)[:2] or [""] for name in columns]
    tall = [GRID_PANEL * row.frame.shape[0] / row.frame.shape[1] for row in rows]
    left = 0.32
    sheet = Sheet(left + (GRID_PANEL + GAP) * (1 + len(columns)) + GAP, 0.95 + sum(h + 0.38 for h in tall) + 0.5)
    sheet.text(GAP, 0.25, title, size=12, weight="bold")
    for n, lines in enumerate([["picture"], *heads]):
        for k, line in enumerate(reversed(lines)):
            sheet.text(left + n * (GRID_PANEL + GAP), 0.72 - 0.16 * k, line, size=10, weight="bold")
    top = 0.8
    for row, high in zip(rows, tall, strict=True):
        picture = check_pixels(row.pixels, row.frame)
        sheet.text(0.22, top + high / 2, row.name, size=10, weight="bold", rotation=90, ha="center", va="center")
        bare = MethodCell(None)
        for n, cell in enumerate((bare, *row.cells)):
            place = left + n * (GRID_PANEL + GAP)
            axes = sheet.axes(place, top, GRID_PANEL, high)
            if cell.cells is None:
                show(axes, picture)
            else:
                show(axes, blend_heat(picture, _smooth_for_display(cell.cells, row.frame), cell.window))
            outline_regions(axes, row.regions, row.frame, over_map=cell.cells is not None)
            draw_window(axes, cell.window, row.frame)
            draw_boxes(axes, cell.found, row.frame, size=6.5)
            sheet.text(place, top + high + 0.16, cell.words, size=8.5)
        top += high + 0.38
    every = [cell for row in rows for cell in row.cells]
    marks = [region for row in rows for region in row.regions]
    found, seen = any(cell.found for cell in every), any(cell.window is not None for cell in every)
    sheet.legend(GAP, sheet.height - 0.34, marks, found=found, window=seen)
    sheet.text(GAP, sheet.height - 0.1, DISCLAIMER, size=8, color="#444444")
    return sheet.png()


def wrap_words(words: str) -> list[str]:
    """What is wrong with a map, in at most six short lines."""
    return textwrap.wrap(f"WRONG: {words}", 44)[:6] if words else []


def _smooth_for_display(cells: NDArray[np.floating], frame: Frame) -> NDArray[np.float64]:
    values = np.asarray(cells, dtype=np.float64)
    if values.shape != tuple(frame.shape):
        return values
    smoothed: NDArray[np.float64] = gaussian_filter(values, 0.01 * max(frame.shape))
    return smoothed


VOLUME_PANEL = 2.1


def draw_volume_map_row(cube: Cube, regions: Sequence[Region], maps: Sequence[ShownMap], caption: str) -> bytes:
    """A PNG: a column for the volume and each map, a row for each plane through the first map's greatest cell.

    Args:
        cube: the volume, turned for the eye.
        regions: an expert's, outlined on the first column.
        maps: float [md, mh, mw] in the array order of the network's grid; turned here as the cube is.
        caption: one line.
    """
    grown = [
        _smooth_volume_for_display(cube.facing.turn_array(np.asarray(m.cells, dtype=np.float64)), cube) for m in maps
    ]
    informative = [cells for cells in grown if np.ptp(cells) > 0]
    through = find_peak(informative[0], cube.grey.shape) if informative else cube.centre
    sizes = measure_physical(cube, VOLUME_PANEL)
    notes = max((len(wrap_words(m.wrong)) for m in maps), default=0)
    tall = sum(sizes[plane.name][0] + GAP for plane in PLANES)
    sheet = Sheet(max(0.3 + GAP + (VOLUME_PANEL + GAP) * (1 + len(maps)), 6.4), 0.65 + tall + 0.16 * notes + 0.3)
    sheet.text(GAP, 0.25, caption[: int(sheet.width / 0.09)], size=11, weight="bold")
    for n, values in enumerate([None, *grown]):
        left = 0.3 + GAP + n * (VOLUME_PANEL + GAP)
        sheet.text(left, 0.52, "bone window" if values is None else maps[n - 1].name, size=10)
        top = 0.6
        for plane in PLANES:
            high, wide = sizes[plane.name]
            grey = cut_plane(cube.grey, plane, through)
            shown = grey if values is None else blend_heat_over(grey, cut_plane(_scale_level(values), plane, through))
            axes = sheet.axes(left + (VOLUME_PANEL - wide) / 2, top, wide, high)
            draw_slice(axes, shown, plane, through, letters=n == 0, ticks=n == 0)
            if n == 0:
                marks = cut_regions(tuple(regions), cube.frame, plane, through, MARKED)
                outline_regions(axes, marks, Frame.of_image(grey.shape))
                sheet.text(0.25, top + high / 2, plane.name, size=10, rotation=90, ha="center", va="center")
            top += high + GAP
        for k, line in enumerate(wrap_words(maps[n - 1].wrong) if n else ()):
            sheet.text(left, top + 0.05 + 0.16 * k, line, size=7, color=WARNING)
    sheet.text(GAP, sheet.height - 0.1, DISCLAIMER, size=8, color="#444444")
    return sheet.png()


def _scale_level(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _smooth_volume_for_display(cells: NDArray[np.float64], cube: Cube) -> NDArray[np.float64]:
    """Maps of single voxels (gradients) are smoothed by a hundredth of the volume."""
    if cells.shape == cube.grey.shape:
        return np.asarray(gaussian_filter(cells, 0.01 * max(cells.shape)))
    return upsample_map(cells, cube.grey.shape)
