"""Contact sheets of a cohort: what it holds at a glance, with the experts' regions drawn over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sightline.case import Case
from sightline.io.image import read_image
from sightline.region import Box, Mask, Polygon, Region, Scribble

INK = {"mask": (80, 170, 255), "box": (0, 220, 220), "scribble": (120, 255, 80), "finding": (255, 210, 0)}


def contact_sheet(
    cases: Sequence[Case],
    *,
    columns: int = 4,
    cell_px: int = 240,
    regions: bool = True,
    caption: Callable[[Case], str] = lambda case: f"{case.case_id} {case.label}",
) -> Image.Image:
    """Cases side by side, each scaled into a square cell with a caption above it.

    Masks are drawn as blue contours, focus boxes in cyan, scribbles in green, findings in yellow.
    """
    rows, head = -(-len(cases) // columns), 18
    sheet = Image.new("RGB", (columns * cell_px, rows * (cell_px + head)), (16, 16, 20))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, case in enumerate(cases):
        corner = ((number % columns) * cell_px, (number // columns) * (cell_px + head))
        tile = _tile(case, cell_px - 4, regions)
        sheet.paste(tile, (corner[0] + (cell_px - tile.width) // 2, corner[1] + head))
        pen.text((corner[0] + 4, corner[1] + 2), caption(case), fill=(230, 230, 230), font=font)
    return sheet


def _tile(case: Case, size_px: int, regions: bool) -> Image.Image:
    pixels = read_image(case.image).pixels
    grey = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    picture = Image.fromarray(grey).convert("RGB")
    scale = size_px / max(picture.size)
    tile = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.LANCZOS
    )
    if regions:
        pen = ImageDraw.Draw(tile)
        for region in case.regions:
            _outline(pen, region, scale, tile)
    return tile


def _outline(pen: ImageDraw.ImageDraw, region: Region, scale: float, tile: Image.Image) -> None:
    finding = region.tag.role == "finding"
    if isinstance(region, Box):
        corners = [(c * scale, r * scale) for r, c in (region.start, region.stop)]
        pen.rectangle([corners[0], corners[1]], outline=INK["finding" if finding else "box"])
    elif isinstance(region, Scribble):
        for line in region.lines:
            pen.line([(c * scale, r * scale) for r, c in line], fill=INK["scribble"], width=2)
    elif isinstance(region, Polygon):
        for part in region.parts:
            pen.polygon([(c * scale, r * scale) for r, c in part], outline=INK["mask"])
    elif isinstance(region, Mask):
        inside = Image.fromarray(region.pixels().astype(np.uint8) * np.uint8(255)).resize(tile.size)
        filled = np.asarray(inside) > 127
        padded = np.pad(filled, 1)
        rim = filled & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
        for row, column in np.argwhere(rim):
            tile.putpixel((int(column), int(row)), INK["mask"])
