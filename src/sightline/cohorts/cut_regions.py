"""Regions of a picture that is cut into columns: what lies in a part of it, in the part's own coordinates."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from sightline.region import Box, Gaze, Mask, Points, Polygon, Region, Scribble


def cut_region(region: Region, start: int, stop: int) -> Region | None:
    """A region on the part of its picture from column `start` to column `stop`; None where nothing of it lies there.

    Args:
        region: a two-axis region, in pixels of the whole picture.
        start: first column of the part.
        stop: one past its last column.
    """
    if isinstance(region, Mask):
        pixels = region.pixels()[:, start:stop].copy()
        return replace(region, source=pixels) if pixels.any() else None
    if isinstance(region, Gaze):
        # what was looked at beside the part still casts its density into it
        return replace(region, places=region.places - np.array([0.0, float(start)]))
    if isinstance(region, Box):
        low, high = max(region.start[1], start), min(region.stop[1], stop)
        if low >= high:
            return None
        return replace(region, start=(region.start[0], low - start), stop=(region.stop[0], high - start))
    if isinstance(region, Polygon):
        parts = tuple(cut for part in region.parts if len(cut := _cut_ring(part, start, stop)) >= 3)
        return replace(region, parts=parts) if parts else None
    lines = tuple(piece for line in region.lines for piece in _cut_line(line, start, stop))
    return Scribble(lines, region.stroke_px, region.tag) if lines else None


def _cut_ring(ring: Points, start: int, stop: int) -> Points:
    """A ring clipped at two columns (Sutherland and Hodgman 1974); empty where no area is left."""
    for edge, sign in ((float(start), 1.0), (float(stop), -1.0)):
        kept: list[tuple[float, float]] = []
        for a, b in pairwise([*ring, *ring[:1]]):
            inside_a, inside_b = sign * (a[1] - edge) >= 0.0, sign * (b[1] - edge) >= 0.0
            if inside_a:
                kept.append(a)
            if inside_a != inside_b:
                kept.append(_at(a, b, edge))
        ring = tuple(kept)
    if max((p[1] for p in ring), default=0.0) <= min((p[1] for p in ring), default=0.0):
        return ()
    return tuple((row, column - start) for row, column in ring)


def _cut_line(line: Points, start: int, stop: int) -> list[Points]:
    """The pieces of a polyline between two columns."""
    pieces: list[list[tuple[float, float]]] = [[]]
    if len(line) == 1:
        return [((line[0][0], line[0][1] - start),)] if start <= line[0][1] <= stop else []
    for a, b in pairwise(line):
        # the share of the segment that lies between the columns
        span = b[1] - a[1]
        if span == 0.0:
            low, high = (0.0, 1.0) if start <= a[1] <= stop else (1.0, 0.0)
        else:
            ends = sorted(((start - a[1]) / span, (stop - a[1]) / span))
            low, high = max(0.0, ends[0]), min(1.0, ends[1])
        if low >= high:
            pieces.append([])
            continue
        first, last = (tuple(p + t * (q - p) for p, q in zip(a, b, strict=True)) for t in (low, high))
        if low > 0.0 or not pieces[-1]:
            pieces.append([(first[0], first[1])])
        pieces[-1].append((last[0], last[1]))
        if high < 1.0:
            pieces.append([])
    return [tuple((row, column - start) for row, column in piece) for piece in pieces if piece]


def _at(a: tuple[float, float], b: tuple[float, float], column: float) -> tuple[float, float]:
    """Where a segment crosses a column."""
    return a[0] + (column - a[1]) / (b[1] - a[1]) * (b[0] - a[0]), column
