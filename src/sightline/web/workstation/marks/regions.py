"""Marks of the page as regions of the library, and back; coordinates to the last digit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.structures.rasterize import Points
from sightline.structures.regions import Box, Mask, Polygon, Region, Scribble
from sightline.structures.tag import Tag


def build_region(mark: Mapping[str, Any], reader: str = "") -> Region:
    """The region that a mark is.

    Args:
        mark: as the page stores it.
        reader: whose it is.

    Example:
        >>> build_region({"kind": "box", "start": [1, 2], "stop": [3, 4], "role": "focus", "label": None}).start
        (1.0, 2.0)
    """
    tag = Tag(mark.get("role", "focus"), mark.get("label"), reader, mark.get("name", ""))
    if mark["kind"] == "box":
        return Box(_convert_to_floats(mark["start"]), _convert_to_floats(mark["stop"]), tag)
    if mark["kind"] == "polygon":
        return Polygon(tuple(_build_points(part) for part in mark["parts"]), tag)
    if mark["kind"] == "scribble":
        return Scribble(tuple(_build_points(line) for line in mark["lines"]), float(mark["stroke_px"]), tag)
    return Mask(decode_runs(mark["size"], mark["counts"]), tag)


def build_mark(region: Region, mark_id: str, source: str = "imported") -> dict[str, Any]:
    """The mark that a region is; the opposite of `build_region`.

    Args:
        region: a box, polygon, scribble or mask.
        mark_id: a new uuid.
        source: where it comes from.
    """
    tag = region.tag
    mark: dict[str, Any] = {"id": mark_id, "role": tag.role, "label": tag.label, "source": source}
    if tag.name:
        mark["name"] = tag.name
    if isinstance(region, Box):
        return mark | {"kind": "box", "start": list(region.start), "stop": list(region.stop)}
    if isinstance(region, Polygon):
        return mark | {"kind": "polygon", "parts": [[list(p) for p in part] for part in region.parts]}
    if isinstance(region, Scribble):
        lines = [[list(p) for p in line] for line in region.lines]
        return mark | {"kind": "scribble", "lines": lines, "stroke_px": region.stroke_px}
    if isinstance(region, Mask):
        size, counts = encode_runs(region.pixels())
        return mark | {"kind": "mask", "size": size, "counts": counts}
    raise TypeError("gaze is no mark")


def decode_runs(size: Sequence[int], counts: Sequence[int]) -> NDArray[np.bool_]:
    """A mask from run lengths in column order (the first axis runs fastest), the first run outside.

    Args:
        size: of the mask, two or three axes.
        counts: run lengths that fill it.
    """
    runs = np.asarray(counts, dtype=np.int64)
    if int(runs.sum()) != math.prod(size):
        raise ValueError(f"run lengths add up to {int(runs.sum())}, expected {math.prod(size)}")
    values = np.zeros(len(runs), dtype=bool)
    values[1::2] = True
    return np.repeat(values, runs).reshape(tuple(size), order="F")


def encode_runs(mask: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Size and run lengths of a mask, in column order, the first run outside (it may be 0)."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(ends).tolist()
    return [int(n) for n in mask.shape], ([0, *counts] if flat.size and flat[0] else counts)


def _convert_to_floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _build_points(values: Sequence[Sequence[float]]) -> Points:
    return tuple((float(row), float(column)) for row, column in values)
