"""What an expert marked, in source pixels, and how it is drawn on any grid.

Boxes, polygons, scribbles and masks are drawn by *any hit*: a grid cell is 1 when any part of the mark touches it.
Reducing a mark to a coarse class-map grid therefore never deletes it (nearest-neighbour reduction, as in the code
released with Liao et al. 2022, keeps a one-pixel line at stride 32 with a chance of 1 in 32 per row).
All coordinates are (row, column) in source pixels with the origin at the corner of pixel (0, 0).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError, UnreadableFile
from sightline.frame import FloatArray, Frame
from sightline.gaze import Gaze as Gaze
from sightline.tag import Role as Role
from sightline.tag import Tag as Tag

Style = Literal["scribble", "box", "mask"]
Points = tuple[tuple[float, float], ...]
Drawing = NDArray[np.float32]


@dataclass(frozen=True)
class Box:
    """An axis-aligned box from `start` to `stop` (both corners, any number of axes)."""

    start: tuple[float, ...]
    stop: tuple[float, ...]
    tag: Tag = field(default_factory=Tag)

    def __post_init__(self) -> None:
        """Refuse boxes that are not finite or not ordered."""
        if len(self.start) != len(self.stop):
            raise GeometryError(f"A box needs two corners of the same length; got {self.start} and {self.stop}.")
        _require_finite("box", (*self.start, *self.stop))
        if any(b <= a for a, b in zip(self.start, self.stop, strict=True)):
            raise GeometryError(f"A box needs start < stop on every axis; got {self.start} to {self.stop}.")

    def draw(self, frame: Frame) -> Drawing:
        """The box on the grid of `frame`: float32 [*frame.shape], 1 where it touches."""
        if frame.ndim != len(self.start):
            raise GeometryError(f"A {len(self.start)}-axis box cannot be drawn on a {frame.ndim}-axis frame.")
        linear = frame.to_source[:-1, :-1]
        if np.count_nonzero(linear) == frame.ndim and np.count_nonzero(np.diag(linear)) == frame.ndim:
            return self._draw_aligned(frame)
        if frame.ndim == 2:
            (r0, c0), (r1, c1) = self.start, self.stop
            return _draw_parts([((r0, c0), (r0, c1), (r1, c1), (r1, c0))], frame)
        centres = np.stack(np.meshgrid(*[np.arange(n) + 0.5 for n in frame.shape], indexing="ij"), axis=-1)
        source = frame.map_points(centres)
        inside = ((source >= np.array(self.start)) & (source <= np.array(self.stop))).all(axis=-1)
        return np.asarray(inside, dtype=np.float32)

    def _draw_aligned(self, frame: Frame) -> Drawing:
        corners = frame.unmap_points([self.start, self.stop])
        # a face that lies on a cell edge does not touch the next cell
        low = np.floor(np.round(corners.min(axis=0), 9)).astype(int)
        high = np.ceil(np.round(corners.max(axis=0), 9)).astype(int)
        drawing = np.zeros(frame.shape, dtype=np.float32)
        drawing[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))] = 1.0
        return drawing


@dataclass(frozen=True)
class Polygon:
    """One or several closed rings; the region is their union."""

    parts: tuple[Points, ...]
    tag: Tag = field(default_factory=Tag)

    def __post_init__(self) -> None:
        """Refuse rings of fewer than three points."""
        if not self.parts or any(len(part) < 3 for part in self.parts):
            raise GeometryError("A polygon needs at least one ring of three or more points.")
        _require_finite("polygon", [x for part in self.parts for point in part for x in point])

    def draw(self, frame: Frame) -> Drawing:
        """The filled polygon on the grid of `frame`: float32 [h, w], 1 where it touches."""
        return _draw_parts(self.parts, frame)


@dataclass(frozen=True)
class Scribble:
    """One or several strokes along polylines, `stroke_px` source pixels wide."""

    lines: tuple[Points, ...]
    stroke_px: float = 1.0
    tag: Tag = field(default_factory=Tag)

    def __post_init__(self) -> None:
        """Refuse empty strokes and widths that are no lengths."""
        if not self.lines or any(len(line) < 1 for line in self.lines):
            raise GeometryError("A scribble needs at least one line of one or more points.")
        _require_finite("scribble", [x for line in self.lines for point in line for x in point])
        if not (math.isfinite(self.stroke_px) and self.stroke_px > 0):
            raise GeometryError(f"A scribble's stroke_px must be a positive length; got {self.stroke_px}.")

    def draw(self, frame: Frame) -> Drawing:
        """The strokes on the grid of `frame`: float32 [h, w], 1 where they touch."""
        radius = self.stroke_px / 2.0
        outlines: list[Points] = []
        for line in self.lines:
            # every stroke is the union of a disc at each point and a quad along each segment
            outlines += [_disc(point, radius) for point in line]
            outlines += [quad for a, b in pairwise(line) if (quad := _quad(a, b, radius))]
        drawing = _draw_parts(outlines, frame)
        for line in self.lines:
            _touch(drawing, frame.unmap_points(np.array(line)), closed=False)
        return drawing


@dataclass(frozen=True, eq=False)
class Mask:
    """A raster of the source image's own size. A path is read when first drawn.

    Attributes:
        source: a picture, or for volumes a NIfTI file; or the boolean array itself.
        tag: what it means.
        value: the number that is inside, for files of several labels; None where every non-zero pixel is.
    """

    source: Path | NDArray[np.bool_]
    tag: Tag = field(default_factory=Tag)
    value: int | None = None

    def __eq__(self, other: object) -> bool:
        """Equal tag and pixels."""
        return (
            isinstance(other, Mask)
            and self.tag == other.tag
            and (self.source is other.source or np.array_equal(self.pixels(), other.pixels()))
        )

    def __hash__(self) -> int:
        """Hash of the tag alone: equal masks may come from different sources."""
        return hash(self.tag)

    def pixels(self) -> NDArray[np.bool_]:
        """The mask as a boolean array of the source's shape."""
        return read_mask(self.source, self.value) if isinstance(self.source, Path) else self.source

    def draw(self, frame: Frame) -> Drawing:
        """The mask on the grid of `frame`: float32 [*frame.shape], 1 where it touches."""
        pixels = self.pixels()
        if pixels.ndim != frame.ndim:
            raise GeometryError(f"A {pixels.ndim}-axis mask cannot be drawn on a {frame.ndim}-axis frame.")
        drawing = np.zeros(frame.shape, dtype=np.float32)
        # only the marked part is looked at: masks are mostly empty, and this runs for every image of every epoch
        extent = [_span(pixels, axis) for axis in range(frame.ndim)]
        marked = pixels[tuple(slice(*span) for span in extent)]
        if marked.size == 0:
            return drawing
        corners = frame.unmap_points(np.array(list(product(*extent)), dtype=np.float64))
        low = np.clip(np.floor(corners.min(axis=0)), 0, frame.shape).astype(np.int64)
        high = np.clip(np.ceil(corners.max(axis=0)), 0, frame.shape).astype(np.int64)
        block = drawing[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        # the source pixel under each cell's centre, an axis at a time: cheaper than mapping a grid of points
        centres = np.ix_(*[np.arange(a, b) + 0.5 for a, b in zip(low, high, strict=True)])
        inside = np.ones(block.shape, dtype=bool)
        index = []
        for row, (start, stop) in zip(frame.to_source, extent, strict=False):
            position = np.floor(sum(m * x for m, x in zip(row[:-1], centres, strict=True)) + row[-1])
            inside &= (position >= start) & (position < stop)
            index.append(position)
        picked = tuple(p[inside].astype(np.int64) - start for p, (start, _) in zip(index, extent, strict=True))
        block[inside] = marked[picked]
        # cell centres alone would step over thin parts: the rim of the mask is also thrown onto the grid
        rim = np.argwhere(_rim(marked)) + [start for start, _ in extent]
        hit = np.floor(frame.unmap_points(rim + 0.5)).astype(np.int64)
        keep = ((hit >= 0) & (hit < np.array(frame.shape))).all(axis=-1)
        drawing[tuple(hit[keep].T)] = 1.0
        return drawing


Region = Box | Polygon | Scribble | Mask | Gaze


def style_of(region: Region) -> Style | Literal["gaze"]:
    """The annotation style of Liao 2022 a region belongs to: scribble, box or mask (polygons are masks); or gaze."""
    if isinstance(region, Gaze):
        return "gaze"
    if isinstance(region, Scribble):
        return "scribble"
    return "box" if isinstance(region, Box) else "mask"


def corners_of(region: Region) -> tuple[float, float, float, float]:
    """The smallest upright box around a two-axis region: row start, column start, row stop, column stop.

    Raises:
        GeometryError: a region of other than two axes, or a mask without a marked pixel.
    """
    if isinstance(region, Mask):
        pixels = region.pixels()
        if pixels.ndim != 2 or not pixels.any():
            raise GeometryError("A box can only be put around a two-axis mask with a marked pixel.")
        (r0, r1), (c0, c1) = _span(pixels, 0), _span(pixels, 1)
        return float(r0), float(c0), float(r1), float(c1)
    if isinstance(region, Box):
        if len(region.start) != 2:
            raise GeometryError(f"A {len(region.start)}-axis box has no four corners.")
        return (*region.start, *region.stop)  # type: ignore[return-value]
    if isinstance(region, Gaze):
        raise GeometryError("Gaze has no box: it spreads over the image.", "Choose regions of another role.")
    width = region.stroke_px / 2.0 if isinstance(region, Scribble) else 0.0
    lines = region.lines if isinstance(region, Scribble) else region.parts
    points = np.array([point for line in lines for point in line])
    low, high = points.min(axis=0) - width, points.max(axis=0) + width
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@lru_cache(maxsize=64)
def read_mask(path: Path, value: int | None = None) -> NDArray[np.bool_]:
    """A mask file as a boolean array: pictures [H, W], NIfTI volumes [i, j, k] in the file's own axis order.

    Inside is `value`, or whatever is not zero (in any channel).

    Raises:
        UnreadableFile: the file is missing or does not decode.
    """
    array = _read_labels(path)
    inside: NDArray[np.bool_]
    if value is None:
        inside = np.asarray(array.any(axis=-1) if array.ndim == 3 and not is_volume(path) else array > 0)
    else:
        inside = np.asarray(array == value)
    inside.setflags(write=False)
    return inside


def is_volume(path: Path) -> bool:
    """Whether a file name is that of a NIfTI volume."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@lru_cache(maxsize=8)
def _read_labels(path: Path) -> NDArray[Any]:
    if is_volume(path):
        import nibabel
        from nibabel.filebasedimages import ImageFileError

        try:
            return np.asarray(nibabel.load(path).dataobj)
        except (OSError, ValueError, EOFError, zlib.error, ImageFileError) as error:
            raise UnreadableFile(f"{path}: the mask does not decode ({error}).", "Export the mask again.") from None
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableFile(f"{path}: the mask does not decode ({error}).", "Export the mask again as PNG.") from None


def _require_finite(what: str, values: Sequence[float]) -> None:
    if not all(math.isfinite(v) for v in values):
        raise GeometryError(f"A {what} needs finite coordinates; got {list(values)[:8]}.")


def _span(pixels: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and one past the last index along an axis that holds a true pixel; (0, 0) when none does."""
    found = np.flatnonzero(pixels.any(axis=tuple(other for other in range(pixels.ndim) if other != axis)))
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)


def _rim(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
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
        for p, q in zip(a, b, strict=True):
            if p != q:
                lines = np.arange(math.ceil(min(p, q)), math.floor(max(p, q)) + 1)
                crossings += list((lines - p) / (q - p))
        # rounded: a corner that is crossed on both axes at once is one crossing, not two close ones
        t = np.unique(np.round(np.clip(crossings, 0.0, 1.0), 12))
        middles = (t[:-1] + t[1:]) / 2.0
        pieces.append(a + (b - a) * middles[:, None])
    points = np.concatenate(pieces)
    if closed and _area(line) > 0.0:
        points = points[(points != np.floor(points)).all(axis=1)]
    low, high = np.ceil(points).astype(np.int64) - 1, np.floor(points).astype(np.int64)
    for cells in (low, high, np.stack([low[:, 0], high[:, 1]], 1), np.stack([high[:, 0], low[:, 1]], 1)):
        keep = ((cells >= 0) & (cells < np.array(drawing.shape))).all(axis=-1)
        drawing[tuple(cells[keep].T)] = 1.0


def _area(ring: FloatArray) -> float:
    """Area of a ring by the shoelace formula."""
    after = np.roll(ring, -1, axis=0)
    return float(abs((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum()) / 2.0)


def _disc(centre: tuple[float, float], radius: float, sides: int = 16) -> Points:
    turns = [2.0 * math.pi * k / sides for k in range(sides)]
    return tuple((centre[0] + radius * math.sin(t), centre[1] + radius * math.cos(t)) for t in turns)


def _quad(a: tuple[float, float], b: tuple[float, float], radius: float) -> Points | None:
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
