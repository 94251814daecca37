"""What lies on a radiograph besides the patient: lead letters, the shortcut's arrow, burnt-in text, implants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sightline.data.phantoms.radiographs.anatomy import LimbPose
from sightline.data.phantoms.radiographs.xray import STEEL_PER_MM, fill_ring
from sightline.structures.frame import FloatArray

Rect = tuple[float, float, float, float]
LEAD = 3.0


def draw_letter(text: str, height_px: int, *, turn_deg: float = 0.0, plaque: bool = False) -> FloatArray:
    """A lead letter [h, w], 0 to 1; `plaque` adds the faint plastic holder around it."""
    font = ImageFont.load_default(size=height_px)
    left, top, right, bottom = font.getbbox(text, stroke_width=1)
    pad = max(3, height_px // 4)
    tile = Image.new("L", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), 22 if plaque else 0)
    ImageDraw.Draw(tile).text((pad - left, pad - top), text, fill=255, font=font, stroke_width=1, stroke_fill=255)
    return np.asarray(tile.rotate(turn_deg, Image.Resampling.BILINEAR, expand=True), dtype=float) / 255.0


def draw_arrow(length_px: int, turn_deg: float) -> FloatArray:
    """A lead arrow [n, n], 0 to 1: the shortcut's marker."""
    n = length_px
    tile = Image.new("L", (n, n), 0)
    pen = ImageDraw.Draw(tile)
    pen.polygon([(n * 0.5, 0), (n * 0.86, n * 0.46), (n * 0.14, n * 0.46)], fill=255)
    pen.rectangle([n * 0.38, n * 0.4, n * 0.62, n * 0.96], fill=255)
    return np.asarray(tile.rotate(turn_deg, Image.Resampling.BILINEAR), dtype=float) / 255.0


def find_place(
    size: tuple[int, int],
    taken: NDArray[np.bool_],
    field: Rect | None,
    rng: Generator,
    *,
    must: bool = False,
) -> tuple[int, int] | None:
    """The (row, column) of a free corner or edge of the field for a tile of `size`.

    `taken` [H, W] is what must stay clear: the target bone and earlier furniture. Where no place is free, the answer
    is None, or with `must` the place that covers least of it.
    """
    shape = taken.shape
    top, left, bottom, right = field if field is not None else (0.0, 0.0, float(shape[0]), float(shape[1]))
    # inside a turned field the corners are cut off by up to a twelfth of the other side
    inset_row, inset_column = 6 + (right - left) * 0.045, 6 + (bottom - top) * 0.045
    rows = [top + inset_row, (top + bottom - size[0]) / 2, bottom - inset_row - size[0]]
    columns = [left + inset_column, right - inset_column - size[1]]
    places = [(row, column) for row in rows for column in columns]
    best, least = None, math.inf
    for index in rng.permutation(len(places)):
        row, column = (int(x) for x in places[index] + rng.uniform(-4, 4, 2))
        if row < 0 or column < 0 or row + size[0] > shape[0] or column + size[1] > shape[1]:
            continue
        covered = int(taken[max(row - 4, 0) : row + size[0] + 4, max(column - 4, 0) : column + size[1] + 4].sum())
        if covered < least:
            best, least = (row, column), covered
    return best if must or least == 0 else None


def place_tile(canvas: FloatArray, taken: NDArray[np.bool_], tile: FloatArray, place: tuple[int, int]) -> None:
    """Lay a tile on the lead canvas [H, W] and mark its pixels as taken [H, W]; changes both."""
    (r, c), (h, w) = place, tile.shape
    canvas[r : r + h, c : c + w] += LEAD * tile
    taken[r : r + h, c : c + w] = True


def burn(picture: FloatArray, text: str, place: tuple[int, int], height_px: int, level: float) -> None:
    """Write text into the finished picture, as a viewer or digitiser burns it in; changes `picture`."""
    font = ImageFont.load_default(size=height_px)
    tile = Image.new("L", measure_text(text, height_px)[::-1], 0)
    ImageDraw.Draw(tile).text((0, 0), text, fill=255, font=font)
    ink = np.asarray(tile, dtype=float) / 255.0
    (r, c), (h, w) = place, ink.shape
    part = picture[r : r + h, c : c + w]
    part += (level - part) * ink[: part.shape[0], : part.shape[1]]


def measure_text(text: str, height_px: int) -> tuple[int, int]:
    """(rows, columns) that a burnt-in text takes."""
    _, _, right, bottom = ImageFont.load_default(size=height_px).getbbox(text)
    return int(bottom) + 2, int(right) + 2


def draw_wrist_hardware(kind: str, pose: LimbPose, rng: Generator) -> FloatArray:
    """Attenuation [H, W] of `plate` (on the distal radius), `wires` (through it) or `bracelet`."""
    canvas = np.zeros(pose.shape)
    if kind == "plate":
        _draw_stroke(canvas, pose, [(4.5, -60), (5.0, -9)], 7.5, 1.4)
        _draw_stroke(canvas, pose, [(-5, -9), (15, -5)], 8.0, 1.4)
        for x, y in [(-3, -8), (3, -7), (9, -6), (14, -5), (5, -20), (4.7, -30), (4.6, -42)]:
            _draw_stroke(canvas, pose, [(x, y), (x + rng.normal(0, 0.6), y + rng.uniform(1.0, 3.0))], 3.0, 2.6)
    elif kind == "wires":
        for _ in range(2):
            start = (rng.uniform(18, 22), rng.uniform(4, 9))
            _draw_stroke(canvas, pose, [start, (rng.uniform(-4, 2), rng.uniform(-45, -30))], 1.5, 1.5)
    elif kind == "bracelet":
        height_mm, slant = rng.uniform(-25, -18), rng.normal(0, 2.0)
        along = np.linspace(-40, 38, 40)
        for bulge in (1.0, -1.0):
            curve = height_mm + slant * along / 40 + bulge * 2.6 * np.sqrt(np.maximum(1 - (along / 41) ** 2, 0))
            _draw_stroke(canvas, pose, list(zip(along.tolist(), curve.tolist(), strict=True)), 1.8, 4.0)
    return canvas


def draw_hip_hardware(kind: str, pose: LimbPose, rng: Generator) -> FloatArray:
    """Attenuation [H, W] of `hip screw` (sliding screw with side plate) or `nail`."""
    canvas = np.zeros(pose.shape)
    tip = (-43 + rng.normal(0, 2), 49 + rng.normal(0, 2))
    if kind == "hip screw":
        _draw_stroke(canvas, pose, [tip, (18, 2)], 7.0, 3.0)
        _draw_stroke(canvas, pose, [(19, 8), (17.5, -20), (17.5, -75)], 5.5, 3.0)
        for y in (-30, -46, -62):
            _draw_stroke(canvas, pose, [(19, y), (-15, y)], 4.0, 1.8)
    elif kind == "nail":
        _draw_stroke(canvas, pose, [(12, 48), (1, 0), (0.5, -120)], 10.0, 2.6)
        _draw_stroke(canvas, pose, [tip, (20, 3)], 8.0, 3.0)
    return canvas


def _draw_stroke(
    canvas: FloatArray, pose: LimbPose, line: Sequence[tuple[float, float]], width_mm: float, thickness_mm: float
) -> None:
    """A metal strip along a line in mm; strips overlap without adding up (max)."""
    points = np.array(line, dtype=float)
    inside = np.zeros(canvas.shape, dtype=bool)
    for a, b in itertools.pairwise(points):
        ahead = (b - a) / max(float(np.linalg.norm(b - a)), 1e-9)
        side = np.array([-ahead[1], ahead[0]]) * width_mm / 2.0
        grow = ahead * 0.25 * min(width_mm, 2.0)
        ring = pose.place([a - grow + side, b + grow + side, b + grow - side, a - grow - side])
        inside |= fill_ring(ring, (canvas.shape[0], canvas.shape[1]))
    np.maximum(canvas, inside * (STEEL_PER_MM * thickness_mm), out=canvas)


def draw_corner_turn(rng: Generator) -> float:
    """A marker's careless turn in degrees; markers are sometimes mirrored by a quarter turn."""
    return float(rng.normal(0.0, 6.0) + (90.0 if rng.random() < 0.06 else 0.0)) % 360.0


def point_towards(place: tuple[int, int], target: tuple[float, float]) -> float:
    """The turn in degrees (counter-clockwise, 0 is up) that points an arrow at `place` to a target (row, column)."""
    return math.degrees(math.atan2(-(target[1] - place[1]), -(target[0] - place[0])))
