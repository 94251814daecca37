"""Regions become pixels: areas, strokes and rims drawn on a grid, any-hit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError
from sightline.structures.frame import FloatArray, Frame

Points = tuple[tuple[float, float], ...]
Drawing = NDArray[np.float32]


def _find_span(pixels: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and one past the last index along an axis that holds a true pixel; (0, 0) when none does."""
    found = np.flatnonzero(pixels.any(axis=tuple(other for other in range(pixels.ndim) if other != axis)))
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)


def _find_rim(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Inside pixels with an outside neighbour along an axis (the array's edge is outside)."""
    interior = pixels.copy()
    for axis in range(pixels.ndim):
        lines = np.moveaxis(pixels, axis, 0)
        neighbours = np.zeros_like(lines)
        if lines.shape[0] > 2:
            neighbours[1:-1] = lines[:-2] & lines[2:]
        interior &= np.moveaxis(neighbours, 0, axis)
    rim: NDArray[np.bool_] = pixels & ~interior
    return rim


def _draw_parts(parts: Sequence[Points], frame: Frame) -> Drawing:
    """Union of filled rings, every cell that a ring touches included."""
    from skimage.draw import polygon as fill

    if frame.ndim != 2:
        raise GeometryError(f"Polygons and scribbles are drawn on two axes; got a {frame.ndim}-axis frame.")
    drawing = np.zeros(frame.shape, dtype=np.float32)
    for part in parts:
        ring = frame.unmap_points(np.array(part))
        rows, columns = fill(ring[:, 0] - 0.5, ring[:, 1] - 0.5, shape=frame.shape)
        drawing[rows, columns] = 1.0
        _touch(drawing, ring, closed=True)
    return drawing


def _touch(drawing: Drawing, line: FloatArray, *, closed: bool) -> None:
    """Set every cell that a polyline in grid coordinates passes through (exact grid traversal).

    A piece that runs along the line between two cells sets both, so that it is not lost; a ring's does not, because
    the ring's inside is filled and its neighbour is not touched (as for boxes). Both treat the two sides alike:
    a flipped drawing is the drawing of the flip.
    """
    line = np.round(line, 9)
    ends = np.roll(line, -1, axis=0) if closed else line[1:]
    segments = list(zip(line, ends, strict=False)) or [(line[0], line[0])]
    pieces = []
    for a, b in segments:
        crossings = [0.0, 1.0]
        for p, q, size in zip(a, b, drawing.shape, strict=True):
            if p != q:
                # of the grid alone: a piece beyond its edge sets no cell, and a stroke may be as wide as it says
                lines = np.arange(max(math.ceil(min(p, q)), 0), min(math.floor(max(p, q)), size) + 1)
                crossings += list((lines - p) / (q - p))
        # rounded: a corner that is crossed on both axes at once is one crossing, not two close ones
        t = np.unique(np.round(np.clip(crossings, 0.0, 1.0), 12))
        middles = (t[:-1] + t[1:]) / 2.0
        pieces.append(a + (b - a) * middles[:, None])
    points = np.concatenate(pieces)
    if closed and _compute_area(line) > 0.0:
        points = points[(points != np.floor(points)).all(axis=1)]
    low, high = np.ceil(points).astype(np.int64) - 1, np.floor(points).astype(np.int64)
    for cells in (low, high, np.stack([low[:, 0], high[:, 1]], 1), np.stack([high[:, 0], low[:, 1]], 1)):
        keep = ((cells >= 0) & (cells < np.array(drawing.shape))).all(axis=-1)
        drawing[tuple(cells[keep].T)] = 1.0


def _compute_area(ring: FloatArray) -> float:
    """Area of a ring by the shoelace formula."""
    after = np.roll(ring, -1, axis=0)
    return float(abs((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum()) / 2.0)


def _build_disc(centre: tuple[float, float], radius: float, sides: int = 16) -> Points:
    turns = [2.0 * math.pi * k / sides for k in range(sides)]
    return tuple((centre[0] + radius * math.sin(t), centre[1] + radius * math.cos(t)) for t in turns)


def _build_quad(a: tuple[float, float], b: tuple[float, float], radius: float) -> Points | None:
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    if length == 0.0:
        return None
    n_row, n_col = (b[1] - a[1]) / length * radius, -(b[0] - a[0]) / length * radius
    return (
        (a[0] + n_row, a[1] + n_col),
        (b[0] + n_row, b[1] + n_col),
        (b[0] - n_row, b[1] - n_col),
        (a[0] - n_row, a[1] - n_col),
    )
