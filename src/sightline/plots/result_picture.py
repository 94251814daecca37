"""One radiograph with what a network says of it burnt in, for a PACS: drawn by Pillow alone, fast and without torch.

The picture is the radiograph itself (not the network's view), at most 1,024 pixels a side, under its map and boxes. The
words stand in a band below, so that they hide nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sightline.errors import GeometryError
from sightline.io.picture import resample_to_pixels

LONG_SIDE = 1024
BANNER = "AI RESEARCH - NOT FOR DIAGNOSIS"
# purple over red to orange, as overlays elsewhere: neither black nor white, which would look like bone or air
_HEAT = np.array([(95, 19, 110), (150, 38, 103), (203, 65, 73), (238, 105, 37), (251, 155, 6)], dtype=np.float32)
_MOST_OPAQUE, _RISE = 0.6, 1.5
_BOX, _INK, _WARNING = (0, 220, 255), (235, 235, 235), (255, 190, 60)
_LEAST_WIDTH = 360


def draw_result(
    pixels: NDArray[Any],
    lines: Sequence[str],
    *,
    heat: NDArray[np.floating[Any]] | None = None,
    to_source: NDArray[np.float64] | None = None,
    boxes: Sequence[tuple[tuple[float, float, float, float], str]] = (),
) -> NDArray[np.uint8]:
    """The picture with its words: uint8 [h, w, 3].

    Args:
        pixels: uint8 or uint16 [h, w] or [h, w, 3], brighter is denser; the dtype's greatest value is white.
        lines: words below, after the banner.
        heat: [mh, mw], a map to lay over, or None.
        to_source: [3, 3], from cells of the map to pixels, (row, column) from the corner.
        boxes: corners (row_start, column_start, row_stop, column_stop) in pixels, and their words.

    Raises:
        GeometryError: no grey or colour picture, or a map without its place.
    """
    if pixels.ndim not in (2, 3) or pixels.dtype not in (np.uint8, np.uint16):
        raise GeometryError(f"A picture is uint8 or uint16 [h, w] or [h, w, 3]; got {pixels.dtype} {pixels.shape}.")
    if heat is not None and to_source is None:
        raise GeometryError("A map needs its place on the picture.")
    grey = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    scale = min(1.0, LONG_SIDE / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    picture = Image.fromarray(np.ascontiguousarray(grey)).convert("RGB")
    if scale < 1.0:
        picture = picture.resize(size, Image.Resampling.BOX)
    if heat is not None and to_source is not None:
        picture = _blend_heat(picture, np.asarray(heat, dtype=np.float32), to_source, scale)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(12, round(max(size) / 60)))
    width = max(2, round(max(size) / 400))
    for (top, left, bottom, right), words in boxes:
        corners = [left * scale, top * scale, max(left + 1, right) * scale, max(top + 1, bottom) * scale]
        pen.rectangle(corners, outline=_BOX, width=width)
        place = (corners[0] + width + 2, max(0.0, corners[1] - 1.4 * font.size))  # type: ignore[union-attr]
        pen.text(place, words, fill=_BOX, font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    return _add_band(picture, lines)


def _blend_heat(
    picture: Image.Image, heat: NDArray[np.float32], to_source: NDArray[np.float64], scale: float
) -> Image.Image:
    low, high = float(heat.min()), float(heat.max())
    if not high > low:
        return picture  # a flat map has nothing to show
    shape = (picture.height, picture.width)
    resampled, covered = resample_to_pixels(heat, np.diag([scale, scale, 1.0]) @ to_source, shape, smooth=True)
    level = np.where(covered, np.rint((resampled - low) * (255.0 / (high - low))), 0.0).astype(np.uint8)
    colour, opacity = _build_tables()
    return Image.composite(Image.fromarray(colour[level]), picture, Image.fromarray(opacity[level]))


@lru_cache(maxsize=1)
def _build_tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colour [256, 3] and opacity [256] of each level of a map."""
    level = np.linspace(0.0, 1.0, 256)
    anchors = np.linspace(0.0, 1.0, len(_HEAT))
    colour = np.stack([np.interp(level, anchors, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    return np.rint(colour).astype(np.uint8), np.rint(255.0 * _MOST_OPAQUE * level**_RISE).astype(np.uint8)


def _add_band(picture: Image.Image, lines: Sequence[str]) -> NDArray[np.uint8]:
    width = max(picture.width, _LEAST_WIDTH)
    size = max(12, round(width / 52))
    font, strong = ImageFont.load_default(size=size), ImageFont.load_default(size=round(1.2 * size))
    letters = max(20, int(width / (0.56 * size)))
    wrapped = [part for line in lines for part in textwrap.wrap(line, letters) or [""]]
    step = round(1.35 * size)
    whole = Image.new("RGB", (width, picture.height + round(1.9 * size) + step * len(wrapped) + size // 2))
    whole.paste(picture, ((width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(whole)
    pen.text((size // 2, picture.height + size // 4), BANNER, fill=_WARNING, font=strong)
    for n, line in enumerate(wrapped):
        pen.text((size // 2, picture.height + round(1.8 * size) + n * step), line, fill=_INK, font=font)
    return np.asarray(whole)
