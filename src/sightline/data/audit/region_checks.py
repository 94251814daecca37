"""Marks that cannot be what they say: outside their image, empty, everywhere, unreadable, of another class, twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline.errors import SightlineError
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Mask, Polygon, Region, Scribble

TOLERANCE_PX = 0.5
# an opaque mask, or one whose background is nearly black, marks all of a picture: every map is right about it
EVERYTHING = 0.95
WIDEST_PX = 1e6


def compute_region_bounds(region: Region) -> tuple[tuple[float, float], tuple[float, float]]:
    """The smallest (row, column) box around a two-axis region: start and stop.

    Raises:
        SightlineError: an unreadable mask.
    """
    if isinstance(region, Box):
        return (region.start[0], region.start[1]), (region.stop[0], region.stop[1])
    if isinstance(region, Mask):
        inside = np.argwhere(region.pixels())
        if not len(inside):
            return (0.0, 0.0), (0.0, 0.0)
        points = np.concatenate([inside, inside + 1]).astype(np.float64)
    elif isinstance(region, Gaze):
        if not len(region):
            return (0.0, 0.0), (0.0, 0.0)
        points = region.places
    else:
        lines = region.parts if isinstance(region, Polygon) else region.lines
        points = np.array([point for line in lines for point in line])
    (r0, c0), (r1, c1) = points.min(axis=0) - _get_half_width(region), points.max(axis=0) + _get_half_width(region)
    return (float(r0), float(c0)), (float(r1), float(c1))


def _get_half_width(region: Region) -> float:
    """How far a region reaches beyond its lines; no wider than any picture, that sums stay numbers."""
    return min(region.stroke_px / 2.0, WIDEST_PX) if isinstance(region, Scribble) else 0.0


def compute_share_outside(region: Region, shape: tuple[int, int]) -> float:
    """Share of a region's drawn pixels that lies outside an image of `shape`; 0 within half a pixel of its edge.

    A stroke along a line in the image may reach over the edge, as a brush does.
    """
    (r0, c0), (r1, c1) = compute_region_bounds(region)
    t = TOLERANCE_PX + _get_half_width(region)
    if r0 >= -t and c0 >= -t and r1 <= shape[0] + t and c1 <= shape[1] + t:
        return 0.0
    # draw on the image's grid, extended to hold the whole region; coarser where the region is absurdly large
    start = (min(0, math.floor(r0) - 2), min(0, math.floor(c0) - 2))
    stop = (max(shape[0], math.ceil(r1) + 2), max(shape[1], math.ceil(c1) + 2))
    size = (stop[0] - start[0], stop[1] - start[1])
    cell = max(1, math.ceil(max(size) / 2048))
    frame = Frame.of_image(shape).crop(start, size)
    grid = frame.resize([math.ceil(n / cell) for n in size])
    drawn = region.draw(grid) > 0
    drawn_cells = np.argwhere(drawn)
    centres = grid.map_points(drawn_cells + 0.5)
    inside = ((centres >= 0) & (centres <= np.array(shape))).all(axis=1)
    return 1.0 - float(np.mean(inside)) if len(drawn_cells) else 1.0


def compute_share_marked(region: Region, shape: tuple[int, ...]) -> float:
    """Share of an image of `shape` that a region marks; 0 where its bounds alone cover too little to matter."""
    if isinstance(region, Mask):
        return float(region.pixels().mean())
    if isinstance(region, Gaze) or len(shape) != 2:
        return 0.0
    (r0, c0), (r1, c1) = compute_region_bounds(region)
    bounded = max(0.0, min(r1, shape[0]) - max(r0, 0.0)) * max(0.0, min(c1, shape[1]) - max(c0, 0.0))
    share = bounded / (shape[0] * shape[1])
    if isinstance(region, Box) or share < EVERYTHING:
        return share
    grid = Frame.of_image((shape[0], shape[1])).resize([min(n, 256) for n in shape])
    return float(region.draw(grid).mean())


def find_repeated_regions(regions: Sequence[Region]) -> list[str]:
    """What stands among the marks of one image more than once, place, meaning and reader alike; gaze is passed over."""
    seen: set[object] = set()
    twice = []
    for region in regions:
        if isinstance(region, Gaze) or (isinstance(region, Mask) and not isinstance(region.source, Path)):
            continue
        own = (region.source, region.value, region.tag) if isinstance(region, Mask) else region
        if own in seen:
            twice.append(f"a {type(region).__name__.lower()} is there twice")
        seen.add(own)
    return twice


def find_fault(region: Region, shape: tuple[int, ...] | None, classes: tuple[str, ...], label: str) -> tuple[str, str]:
    """(kind, what) of the first thing wrong with a region, or two empty texts.

    Args:
        region: a mark on the image.
        shape: (rows, columns) of the image, or the axes of a volume; None when it is not known.
        classes: of the cohort.
        label: of the case.
    """
    if region.tag.label is not None and region.tag.label not in classes:
        return "region-label", f"is labelled {region.tag.label!r}, which is not a class of the cohort"
    if isinstance(region, Gaze):
        return "", ""  # eyes may leave the picture
    flat = not isinstance(region, Box) or len(region.start) == 2
    if not isinstance(region, Mask) and shape is not None and not (flat and len(shape) == 2):
        return _find_fault_in_volume(region, shape)
    if isinstance(region, Mask):
        try:
            pixels = region.pixels()
        except SightlineError as error:
            return "region-unreadable", error.message
        if not pixels.any():
            return "region-empty", "a mask without a pixel inside"
        if shape is not None and pixels.shape != shape:
            return "region-size", f"a mask of shape {pixels.shape} on an image of {shape}"
    elif shape is not None and (share := compute_share_outside(region, (shape[0], shape[1]))) > 0:
        where = "region-outside" if share >= 1.0 else "region-partly-outside"
        return where, f"{100 * share:.1f}% of a {type(region).__name__.lower()} lies outside {shape[0]} x {shape[1]}"
    if region.tag.role == "finding" and region.tag.label not in (None, label):
        return "region-other-class", f"a finding of {region.tag.label!r} on an image labelled {label!r}"
    if isinstance(region, Box) and min(b - a for a, b in zip(region.start, region.stop, strict=True)) < 1.0:
        high, wide = (b - a for a, b in zip(region.start, region.stop, strict=True))
        return "region-tiny", f"a box of {high:.3g} x {wide:.3g} pixels"
    share = (
        compute_share_marked(region, shape) if shape is not None and region.tag.role in ("finding", "focus") else 0.0
    )
    if share >= EVERYTHING:
        return "region-everything", f"a {type(region).__name__.lower()} marks {100 * share:.0f}% of the image"
    return "", ""


def _find_fault_in_volume(region: Region, shape: tuple[int, ...]) -> tuple[str, str]:
    """A box of three axes may mark a volume; flat marks do not, nor does such a box mark a picture."""
    axes = " x ".join(map(str, shape))
    if not isinstance(region, Box) or len(region.start) != len(shape):
        own = len(region.start) if isinstance(region, Box) else 2
        return "region-size", f"a {type(region).__name__.lower()} of {own} axes on an image of {axes}"
    limit, t = np.array(shape), TOLERANCE_PX
    start, stop = np.array(region.start), np.array(region.stop)
    if (start >= -t).all() and (stop <= limit + t).all():
        return "", ""
    kept = np.clip(np.minimum(stop, limit) - np.maximum(start, 0.0), 0.0, None)
    share = 1.0 - float(np.prod(kept / (stop - start)))
    where = "region-outside" if share >= 1.0 else "region-partly-outside"
    return where, f"{100 * share:.1f}% of a box lies outside {axes}"
