"""One annotation style from another: what an expert drew once serves every row of Liao et al. 2022.

mask, polygon -> box        the tight box
mask, polygon, box -> scribble   the longest path through the skeleton of each connected part (Liao 2022, III-B:
                            ankle scribbles are skeletons of the fibula masks)
polygon, box, scribble -> mask   drawn on the image's own grid
scribble -> box             the tight box around the strokes

Where one reader describes one thing in several styles, one description of it is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.rasterize import Points
from sightline.structures.regions import (
    Box,
    Mask,
    Polygon,
    Region,
    Scribble,
    Style,
    bound_region,
    find_style,
    is_volume,
)

_CLOSEST = ("scribble", "mask", "box", "gaze")
# cells of the grid on which places are compared, and the least side of the box around a region
_CELLS, _LEAST_PX = 48, 0.01
# eight neighbours of a pixel, straight ones first
_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def convert_style(region: Region, style: Style, shape: tuple[int, int], stroke_px: float = 3.0) -> Region:
    """The region in another style, with the same tag; itself where it has the style already.

    Polygons count as masks; asked for `mask` they become one.

    Args:
        region: a two-axis region.
        style: `scribble`, `box` or `mask`.
        shape: (rows, columns) of the image.
        stroke_px: width of a new scribble in source pixels.

    Raises:
        GeometryError: nothing of the region lies in the image, a mask of another size, or an unknown style.
    """
    if style not in ("scribble", "box", "mask"):
        raise GeometryError(f"Style is {style!r}, expected 'scribble', 'box' or 'mask'.", "")
    if find_style(region) == style and not isinstance(region, Polygon):
        return region
    if style == "box" and isinstance(region, Polygon):
        points = np.array([point for part in region.parts for point in part])
        start, stop = points.min(axis=0), points.max(axis=0)
        if (stop > start).all():
            return Box(_make_pair(start), _make_pair(stop), region.tag)
    pixels = rasterise_region(region, shape)
    if style == "mask":
        return Mask(pixels, region.tag)
    if style == "box":
        inside = np.argwhere(pixels)
        return Box(_make_pair(inside.min(axis=0)), _make_pair(inside.max(axis=0) + 1), region.tag)
    return Scribble(trace_midlines(pixels), stroke_px, region.tag)


def choose_descriptions(regions: Sequence[Region], styles: Sequence[Style]) -> list[Region]:
    """One description of each thing: all regions of the first style, then of each later one those not yet covered."""
    chosen: list[Region] = []
    for style in styles:
        chosen += [region for region in regions if find_style(region) == style and not is_covered(region, chosen)]
    return chosen


def is_covered(region: Region, chosen: Sequence[Region]) -> bool:
    """Whether regions of other styles describe the same thing: same label, and the same reader where both are stated.

    They do where more than half of the region lies within the boxes around them, or more than half of one of them lies
    within the region and is drawn closer (a stroke in an outline or box, an outline in a box). An empty mask describes
    nothing. On a volume no places are compared.
    """
    tag = region.tag
    same = [
        other
        for other in chosen
        if other.tag.label == tag.label and (other.tag.reader == tag.reader or "" in (other.tag.reader, tag.reader))
    ]
    if not same or not all(map(_has_two_axes, (region, *same))):
        return bool(same)
    region, *same = (
        one.meant if isinstance(one, Box) and one.meant is not None else one
        for one in (region, *same)
        if not (isinstance(one, Mask) and not one.pixels().any() and one is not region)
    )
    if isinstance(region, Mask) and not region.pixels().any():
        return True
    bounds = [_put_box_around(other) for other in same]
    closer = [other for other in same if _CLOSEST.index(find_style(other)) < _CLOSEST.index(find_style(region))]
    return _is_mostly_in(region, bounds) or any(_is_mostly_in(other, [region]) for other in closer)


def _has_two_axes(region: Region) -> bool:
    if isinstance(region, Mask):
        return not is_volume(region.source) if isinstance(region.source, Path) else region.source.ndim == 2
    return not isinstance(region, Box) or len(region.start) == 2


def _put_box_around(region: Region) -> Box:
    top, left, bottom, right = bound_region(region)
    # a polygon may be as flat as a line
    return Box((top, left), (max(bottom, top + _LEAST_PX), max(right, left + _LEAST_PX)))


def _is_mostly_in(region: Region, others: Sequence[Region]) -> bool:
    """Whether more than half of a region lies in others, on a coarse grid over it."""
    around = _put_box_around(region)
    low, size = np.array(around.start), np.subtract(around.stop, around.start)
    if any(isinstance(o, Box) and (o.start <= low).all() and (low + size <= o.stop).all() for o in others):
        return True
    (down, across), (top, left) = size / _CELLS, low
    frame = Frame.of_image((1, 1)).then([[down, 0, top], [0, across, left], [0, 0, 1]], (_CELLS, _CELLS))
    cells = region.draw(frame) > 0
    inside = np.logical_or.reduce([other.draw(frame) > 0 for other in others])
    return 2 * int(np.count_nonzero(cells & inside)) > int(np.count_nonzero(cells))


def dilate(region: Region, margin_px: float, shape: tuple[int, int]) -> Region:
    """The region with a margin around it: boxes stay boxes, strokes grow wider, others become a mask.

    Args:
        region: a two-axis region.
        margin_px: width of the margin in source pixels; 0 returns the region itself.
        shape: (rows, columns) of the image; boxes are clipped to it.

    Raises:
        GeometryError: a negative margin, or nothing of the region lies in the image.
    """
    if not (np.isfinite(margin_px) and margin_px >= 0):
        raise GeometryError(f"A margin must be zero or a positive length in pixels; got {margin_px}.")
    if margin_px == 0:
        return region
    if isinstance(region, Box):
        start = np.maximum(np.array(region.start) - margin_px, 0.0)
        stop = np.minimum(np.array(region.stop) + margin_px, np.array(shape, dtype=np.float64))
        if (stop <= start).any():
            raise GeometryError(f"The box {region.start} to {region.stop} lies outside the image {shape}.")
        return Box(_make_pair(start), _make_pair(stop), region.tag)
    if isinstance(region, Scribble):
        return Scribble(region.lines, region.stroke_px + 2.0 * margin_px, region.tag)
    from scipy.ndimage import distance_transform_edt

    grown: NDArray[np.bool_] = distance_transform_edt(~rasterise_region(region, shape)) <= margin_px
    return Mask(grown, region.tag)


def rasterise_region(region: Region, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The region on the image's own grid [H, W].

    Raises:
        GeometryError: a mask of another size than the image, or no pixel inside the image.
    """
    if isinstance(region, Gaze):
        raise GeometryError(
            "Gaze has no outline: its density is nowhere zero.", "Guide by `gaze_choice`, whose `above` makes a region."
        )
    if isinstance(region, Mask) and region.pixels().shape != tuple(shape):
        raise GeometryError(f"The mask has shape {region.pixels().shape}, its image {tuple(shape)}.")
    pixels: NDArray[np.bool_] = region.draw(Frame.of_image(shape)) > 0
    if not np.any(pixels):
        raise GeometryError(
            f"A {type(region).__name__.lower()} has no pixel inside its image of {shape[0]} x {shape[1]}.",
            "Remove the region or check the size it was drawn at.",
        )
    return pixels


def trace_midlines(pixels: NDArray[np.bool_]) -> tuple[Points, ...]:
    """One polyline for each connected part of a mask: the longest path through its skeleton, at pixel centres.

    Args:
        pixels: bool [H, W].
    """
    from skimage.measure import label, regionprops
    from skimage.morphology import skeletonize

    lines = []
    for part in regionprops(label(pixels, connectivity=2)):
        # a rim of background: skeletons must not depend on where the bounding box is cut
        skeleton = skeletonize(np.pad(part.image, 1))[1:-1, 1:-1]
        corner = np.array(part.bbox[:2])
        path = _find_longest_path([(int(r), int(c)) for r, c in np.argwhere(skeleton)]) or [_find_deepest(part.image)]
        lines.append(tuple(_make_pair(np.array(step) + corner + 0.5) for step in _straighten(path)))
    return tuple(lines)


def _find_longest_path(pixels: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest shortest path through connected pixels, by two sweeps (exact on trees, close on rings)."""
    if not pixels:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    index = {pixel: i for i, pixel in enumerate(pixels)}
    edges = [
        (i, index[near], float(np.hypot(*step)))
        for (r, c), i in index.items()
        for step in _STEPS
        if (near := (r + step[0], c + step[1])) in index
    ]
    if not edges:
        return [pixels[0]]
    a, b, length = zip(*edges, strict=True)
    graph = coo_array((length, (a, b)), shape=(len(pixels), len(pixels))).tocsr()
    distance = dijkstra(graph, indices=0)
    start = int(np.argmax(np.where(np.isfinite(distance), distance, -1.0)))
    distance, before = dijkstra(graph, indices=start, return_predecessors=True)
    node = int(np.argmax(np.where(np.isfinite(distance), distance, -1.0)))
    path = []
    while node >= 0:
        path.append(pixels[node])
        node = int(before[node])
    # the direction of the sweep is an accident: run from the upper left end
    return path if path[0] <= path[-1] else path[::-1]


def _find_deepest(pixels: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel farthest from the outside, for parts whose skeleton is empty."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(pixels, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(row), int(column)


def _straighten(path: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The path without points in the middle of straight runs; the line stays the same."""
    kept = list(path[:1])
    for before, here, after in zip(path, path[1:], path[2:], strict=False):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return kept + list(path[-1:]) if len(path) > 1 else kept


def _make_pair(values: NDArray[np.generic]) -> tuple[float, float]:
    return float(values[0]), float(values[1])
