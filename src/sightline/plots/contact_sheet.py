"""One class's map over a picture with a caption: large, or many of them on a sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.plots.canvas import Sheet
from sightline.plots.overlay import Pixels, blend_heat, check_pixels, draw_boxes, draw_window, outline_regions, show
from sightline.plots.panels import DISCLAIMER, clip_words
from sightline.structures.frame import Frame
from sightline.structures.regions import Region, ScoredBox


@dataclass(frozen=True)
class Overlay:
    """One picture of a contact sheet: arguments as in `draw_overlay`."""

    pixels: Pixels
    map: NDArray[np.float64] | None
    regions: tuple[Region, ...]
    frame: Frame
    caption: str
    found: tuple[ScoredBox, ...] = ()
    window: NDArray[np.float64] | None = None


def draw_overlay(
    pixels: ArrayLike,
    map: ArrayLike | None,
    regions: Sequence[Region],
    frame: Frame,
    caption: str,
    *,
    found: Sequence[ScoredBox] = (),
    window: ArrayLike | None = None,
) -> bytes:
    """A PNG for one prediction: the picture under the predicted class's map, a colour bar, the caption below.

    Args:
        pixels: float [h, w] or [h, w, 3] in 0..1 on the grid of `frame`.
        map: float [mh, mw], of the class that the caption names; None for a network without maps.
        regions: an expert's, drawn where there are any.
        frame: of the picture.
        caption: the class and its probability, in words.
        found: boxes of the network, in source pixels.
        window: [2, 3], the part of the grid that the map covers; None: all of it.

    Raises:
        GeometryError: sizes that do not fit, or values that are not finite.
    """
    picture = check_pixels(pixels, frame)
    scale = min(6.4 / frame.shape[1], 7.0 / frame.shape[0])
    width, height = frame.shape[1] * scale, frame.shape[0] * scale
    column = max(width, 3.6)
    lines = textwrap.wrap(caption, max(int(column / 0.095), 20)) or [""]
    text_top = 0.15 + height + 0.3
    marked = bool(found) or window is not None
    sheet = Sheet(column + 1.3, text_top + 0.23 * len(lines) + (0.5 if regions or marked else 0.22))
    axes = sheet.axes(0.15, 0.15, width, height)
    show(axes, picture if map is None else blend_heat(picture, map, window))
    outline_regions(axes, regions, frame, over_map=True)
    draw_window(axes, window, frame)
    draw_boxes(axes, found, frame)
    if map is not None:
        ends = ("most for\nthe class", "least for\nthe class")
        sheet.bar(0.15 + width + 0.15, 0.15, min(height, 3.2), signed=False, ends=ends)
    for n, line in enumerate(lines):
        sheet.text(0.15, text_top + 0.23 * n, line, size=11, weight="bold")
    foot = text_top + 0.23 * len(lines)
    sheet.legend(0.15, foot + 0.05, regions, found=bool(found), window=window is not None)
    sheet.text(0.15, sheet.height - 0.15, DISCLAIMER, size=9, color="#444444")
    return sheet.png()


def draw_contact_sheet(items: Sequence[Overlay], columns: int = 5) -> bytes:
    """A PNG: many small overlays in reading order, captions of at most three lines below each.

    Raises:
        GeometryError: nothing to draw, fewer than one column, sizes that do not fit, or values that are not finite.
    """
    if not items or columns < 1:
        raise GeometryError(f"A contact sheet needs pictures and columns; got {len(items)} and {columns}.")
    columns = min(columns, len(items))
    cell, gap, captions = 2.0, 0.14, 0.62
    n_rows = -(-len(items) // columns)
    # as wide as the words below
    sheet = Sheet(max(gap + columns * (cell + gap), 6.3), gap + n_rows * (cell + captions) + 0.5)
    for n, item in enumerate(items):
        left = gap + (n % columns) * (cell + gap)
        top = gap + (n // columns) * (cell + captions)
        # one cell size for all: a long picture is fitted into it
        scale = cell / max(item.frame.shape)
        height, width = item.frame.shape[0] * scale, item.frame.shape[1] * scale
        axes = sheet.axes(left + (cell - width) / 2, top + (cell - height) / 2, width, height)
        picture = check_pixels(item.pixels, item.frame)
        show(axes, picture if item.map is None else blend_heat(picture, item.map, item.window))
        outline_regions(axes, item.regions, item.frame, over_map=True)
        draw_window(axes, item.window, item.frame)
        draw_boxes(axes, item.found, item.frame, size=6.5)
        lines = [line for part in item.caption.splitlines() for line in textwrap.wrap(part, 27)]
        if len(lines) > 3:
            lines = [*lines[:2], clip_words(lines[2] + " " + lines[3], 27)]
        for line_number, line in enumerate(lines):
            sheet.text(left, top + cell + 0.14 + 0.155 * line_number, line, size=8.5)
    regions = [region for item in items for region in item.regions]
    found, windows = any(item.found for item in items), any(item.window is not None for item in items)
    sheet.legend(gap, sheet.height - 0.36, regions, found=found, window=windows)
    coloured = "Orange: most for the class. " if any(item.map is not None for item in items) else ""
    sheet.text(gap, sheet.height - 0.13, coloured + DISCLAIMER, size=9, color="#444444")
    return sheet.png()
