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
# a long scribble is tens of thousands of rings: so many at a time keep the arrays small
LINES_AT_ONCE = 4096


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
    rings = [frame.unmap_points(np.array(part)) for part in parts]
    for ring in rings:
        rows, columns = fill(ring[:, 0] - 0.5, ring[:, 1] - 0.5, shape=frame.shape)
        drawing[rows, columns] = 1.0
    _touch(drawing, rings, closed=True)
    return drawing


def _touch(drawing: Drawing, lines: Sequence[FloatArray], *, closed: bool) -> None:
    """Set every cell that polylines in grid coordinates pass through (exact grid traversal).

    A piece that runs along the line between two cells sets both, so that it is not lost; a ring's does not, because
    the ring's inside is filled and its neighbour is not touched (as for boxes). Both treat the two sides alike:
    a flipped drawing is the drawing of the flip.
    """
    for first in range(0, len(lines), LINES_AT_ONCE):
        some = [np.round(line, 9) for line in lines[first : first + LINES_AT_ONCE]]
        # a stroke of one point is a piece from the point to itself
        ends = [_turn_ring(line) if closed else line[1:] if len(line) > 1 else line for line in some]
        a = np.concatenate([line[: len(end)] for line, end in zip(some, ends, strict=True)])
        b = np.concatenate(ends)
        pieces, t = _cross_grid(a, b, drawing.shape)
        inner = pieces[:-1] == pieces[1:]
        pieces, middles = pieces[:-1][inner], ((t[:-1] + t[1:]) / 2.0)[inner]
        points = a[pieces] + (b - a)[pieces] * middles[:, None]
        if closed:
            filled = np.repeat([_compute_area(line) > 0.0 for line in some], [len(end) for end in ends])
            points = points[~filled[pieces] | (points != np.floor(points)).all(axis=1)]
        low, high = np.ceil(points).astype(np.int64) - 1, np.floor(points).astype(np.int64)
        for cells in (low, high, np.stack([low[:, 0], high[:, 1]], 1), np.stack([high[:, 0], low[:, 1]], 1)):
            keep = ((cells >= 0) & (cells < np.array(drawing.shape))).all(axis=-1)
            drawing[tuple(cells[keep].T)] = 1.0


def _cross_grid(a: FloatArray, b: FloatArray, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], FloatArray]:
    """Where pieces a to b cross the lines of the grid, their ends included: index of the piece, and t from 0 to 1,
    sorted by both and each once.
    """
    every = np.arange(len(a))
    pieces, crossings = [every, every], [np.zeros(len(a)), np.ones(len(a))]
    for p, q, size in zip(a.T, b.T, shape, strict=True):
        # of the grid alone: a piece beyond its edge sets no cell, and a stroke may be as wide as it says
        lowest = np.maximum(np.ceil(np.minimum(p, q)), 0.0)
        count = np.minimum(np.floor(np.maximum(p, q)), float(size)) - lowest + 1.0
        count = np.where(p != q, np.maximum(count, 0.0), 0.0).astype(np.int64)
        of = np.repeat(every, count)
        lines = lowest[of] + (np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count))
        pieces.append(of)
        crossings.append((lines - p[of]) / (q - p)[of])
    # rounded: a corner that is crossed on both axes at once is one crossing, not two close ones
    of, t = np.concatenate(pieces), np.round(np.clip(np.concatenate(crossings), 0.0, 1.0), 12)
    order = np.lexsort((t, of))
    of, t = of[order], t[order]
    once = np.append(True, (of[1:] != of[:-1]) | (t[1:] != t[:-1]))
    return of[once], t[once]


def _turn_ring(ring: FloatArray) -> FloatArray:
    """The point after each point of a ring."""
    return np.concatenate([ring[1:], ring[:1]])


def _compute_area(ring: FloatArray) -> float:
    """Area of a ring by the shoelace formula."""
    after = _turn_ring(ring)
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
