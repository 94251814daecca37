"""Experts' marks in source pixels, drawn on any grid.

Boxes, polygons, scribbles and masks are drawn by *any hit*: a grid cell is 1 when any part of the mark touches it.
Reducing a mark to a coarse class-map grid therefore never deletes it (nearest-neighbour reduction, as in the code
released with Liao et al. 2022, keeps a one-pixel line at stride 32 with a chance of 1 in 32 per row).
All coordinates are (row, column) in source pixels with the origin at the corner of pixel (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError, UnreadableFile
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.pictures.raster import Raster, read_raster
from sightline.structures.rasterize import (
    Drawing,
    Points,
    _build_disc,
    _build_quad,
    _draw_parts,
    _find_rim,
    _find_span,
    _touch,
)
from sightline.structures.resampling import cache_by_file, place_labels_on_grid, read_labels
from sightline.structures.tag import Tag

Style = Literal["scribble", "box", "mask"]
# no picture reaches so far, and areas of what does would overflow
MOST_PX = 1e9


@dataclass(frozen=True)
class Box:
    """An axis-aligned box from `start` to `stop` (both corners, any number of axes).

    Attributes:
        start: the corner of the smallest coordinates.
        stop: the opposite corner.
        tag: its meaning.
        meant: for a box made wrong on purpose: where it was, which says of what outline it is the box. Not part of what
            it marks, nor of fingerprints.

    Example:
        >>> Box((10, 20), (30, 40), Tag("finding", "fracture")).draw(Frame.of_image((64, 64))).sum().item()
        400.0
    """

    start: tuple[float, ...]
    stop: tuple[float, ...]
    tag: Tag = field(default_factory=Tag)
    meant: Box | None = field(default=None, compare=False, repr=False)

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
    """One or several closed rings; the region is their union.

    Example:
        >>> Polygon((((0, 0), (0, 8), (8, 8), (8, 0)),), Tag("focus")).draw(Frame.of_image((16, 16))).sum().item()
        64.0
    """

    parts: tuple[Points, ...]
    tag: Tag = field(default_factory=Tag)

    def __post_init__(self) -> None:
        """Refuse rings of fewer than three points."""
        coordinates = _list_coordinates("polygon", self.parts)
        if not self.parts or any(len(part) < 3 for part in self.parts):
            raise GeometryError("A polygon needs at least one ring of three or more points.")
        _require_finite("polygon", coordinates)

    def draw(self, frame: Frame) -> Drawing:
        """The filled polygon on the grid of `frame`: float32 [h, w], 1 where it touches."""
        return _draw_parts(self.parts, frame)


@dataclass(frozen=True)
class Scribble:
    """One or several strokes along polylines, `stroke_px` source pixels wide.

    Example:
        >>> line = Scribble((((4.5, 2.0), (4.5, 12.0)),), 1.0, Tag("focus"))
        >>> bool(line.draw(Frame.of_image((16, 16)))[4, 6])
        True
    """

    lines: tuple[Points, ...]
    stroke_px: float = 1.0
    tag: Tag = field(default_factory=Tag)

    def __post_init__(self) -> None:
        """Refuse empty strokes and widths that are not positive."""
        coordinates = _list_coordinates("scribble", self.lines)
        if not self.lines or any(len(line) < 1 for line in self.lines):
            raise GeometryError("A scribble needs at least one line of one or more points.")
        _require_finite("scribble", coordinates)
        if not (math.isfinite(self.stroke_px) and self.stroke_px > 0):
            raise GeometryError(f"A scribble's stroke_px must be a positive length; got {self.stroke_px}.")

    def draw(self, frame: Frame) -> Drawing:
        """The strokes on the grid of `frame`: float32 [h, w], 1 where they touch."""
        radius = self.stroke_px / 2.0
        outlines: list[Points] = []
        for line in self.lines:
            # every stroke is the union of a disc at each point and a quad along each segment
            outlines += [_build_disc(point, radius) for point in line]
            outlines += [quad for a, b in pairwise(line) if (quad := _build_quad(a, b, radius))]
        drawing = _draw_parts(outlines, frame)
        _touch(drawing, [frame.unmap_points(np.array(line)) for line in self.lines], closed=False)
        return drawing


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of the same size as the source image. A file is read when it is first drawn.

    Attributes:
        source: an image file, or a NIfTI file for volumes; or a boolean array.
        tag: its meaning.
        value: the label that counts as inside, for files with several labels; None: every non-zero pixel.
        on: the volume it marks and to whose grid it is resampled; None: it is used in the axis order of its file.

    Example:
        >>> Mask("mask.png", Tag("focus")).tag.role
        'focus'
    """

    source: Path | NDArray[np.bool_]
    tag: Tag = field(default_factory=Tag)
    value: int | None = None
    on: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Take a path written as text, and an array of numbers (what is not zero is inside, or what is `value`)."""
        given: object = self.source
        if isinstance(given, str):
            object.__setattr__(self, "source", Path(given))
        elif not isinstance(given, Path):
            pixels = np.asarray(given)
            if pixels.dtype != np.bool_:
                if pixels.dtype.kind not in "iuf" or not np.isfinite(pixels).all():
                    raise GeometryError(
                        f"A mask of {pixels.dtype} is none.", "Give a file, or an array of True and False."
                    )
                pixels = pixels != 0 if self.value is None else pixels == self.value
            object.__setattr__(self, "source", pixels)

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
        return read_mask(self.source, self.value, self.on) if isinstance(self.source, Path) else self.source

    def draw(self, frame: Frame) -> Drawing:
        """The mask on the grid of `frame`: float32 [*frame.shape], 1 where it touches."""
        pixels = self.pixels()
        if pixels.ndim != frame.ndim:
            raise GeometryError(f"A {pixels.ndim}-axis mask cannot be drawn on a {frame.ndim}-axis frame.")
        drawing = np.zeros(frame.shape, dtype=np.float32)
        # only the marked part is looked at: masks are mostly empty, and this runs for every image of every epoch
        extent = [_find_span(pixels, axis) for axis in range(frame.ndim)]
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
        rim = np.argwhere(_find_rim(marked)) + [start for start, _ in extent]
        hit = np.floor(frame.unmap_points(rim + 0.5)).astype(np.int64)
        keep = ((hit >= 0) & (hit < np.array(frame.shape))).all(axis=-1)
        drawing[tuple(hit[keep].T)] = 1.0
        return drawing


Region = Box | Polygon | Scribble | Mask | Gaze


def find_style(region: Region) -> Style | Literal["gaze"]:
    """The annotation style of a region as in Liao 2022: scribble, box or mask (polygons are masks); or gaze."""
    if isinstance(region, Gaze):
        return "gaze"
    if isinstance(region, Scribble):
        return "scribble"
    return "box" if isinstance(region, Box) else "mask"


def bound_region(region: Region) -> tuple[float, float, float, float]:
    """The smallest upright box around a two-axis region: row start, column start, row stop, column stop.

    Raises:
        GeometryError: a region that does not have two axes, or an empty mask.
    """
    if isinstance(region, Mask):
        pixels = region.pixels()
        if pixels.ndim != 2 or not pixels.any():
            raise GeometryError("A box can only be put around a two-axis mask with a marked pixel.")
        (r0, r1), (c0, c1) = _find_span(pixels, 0), _find_span(pixels, 1)
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


@cache_by_file(maxsize=64)
def read_mask(path: Path, value: int | None = None, on: Path | None = None) -> NDArray[np.bool_]:
    """Read a mask file as a boolean array: pictures [H, W], volumes [i, j, k] on the grid of the volume they mark.

    Pictures are read like radiographs: one page, upright, palettes resolved, transparent pixels black. Inside is
    `value` (in a palette: its index), or every pixel that is not zero (in any channel); in lossy pictures, whose
    edges ring, every pixel brighter than half of white.

    Args:
        path: the mask.
        value: the label that counts as inside, for files with several labels.
        on: the volume it marks; the two affines say which voxel is where. None takes the file's axis order.

    Raises:
        UnreadableFile: the file is missing, cannot be decoded, or does not fit the volume's grid.
    """
    if is_volume(path):
        array = read_labels(path) if on is None else place_labels_on_grid(path, on)
        inside: NDArray[np.bool_] = np.asarray(array != 0 if value is None else array == value)
    else:
        inside = _select_inside(_read_picture(path), value, path)
    inside.setflags(write=False)
    return inside


def _select_inside(raster: Raster, value: int | None, path: Path) -> NDArray[np.bool_]:
    values = raster.values
    if raster.lossy:
        if value is not None:
            raise UnreadableFile(
                f"{path}: label {value} of a lossy {raster.kind}: its numbers are not those that were saved.",
                "Save the labels as PNG.",
            )
        white = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 255
        brightest = int(values.max())
        if 0 < brightest < 0.75 * white:
            # grey rings beyond the half, too, and would leave its rim alone
            raise UnreadableFile(
                f"{path}: the brightest pixel of the lossy {raster.kind} mask is {brightest} of {white}; inside should "
                "be white, and what rings about its edges is less than half of that.",
                "Save the mask as PNG.",
            )
        values = np.where(values > white // 2, values, 0)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnreadableFile(f"{path}: the mask holds pixels that are no numbers.", "Save the mask as 8-bit PNG.")
    if value is not None:
        numbers = values if raster.indices is None else raster.indices
        if numbers.ndim == 3:
            raise UnreadableFile(f"{path}: label {value} of a mask in colour.", "Save the labels in grey.")
        return np.asarray(numbers == value)
    return np.asarray(values.any(axis=-1) if values.ndim == 3 else values != 0)


def is_volume(path: Path) -> bool:
    """Whether a file name is that of a NIfTI volume."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@cache_by_file(maxsize=8)
def _read_picture(path: Path) -> Raster:
    try:
        return read_raster(path)
    except UnreadableFile as error:
        raise UnreadableFile(f"{error.message} It is a mask.", "Export the mask again as PNG.") from None


def _list_coordinates(what: str, parts: Sequence[Points]) -> list[float]:
    try:
        points = [tuple(point) for part in parts for point in part]
    except TypeError:
        points = [()]
    if any(len(point) != 2 for point in points):
        raise GeometryError(
            f"A {what} is a list of lines, each a list of points (row, column); got {parts!r:.80}.",
            "One line is a list, too: [[(1, 2), (3, 4), (5, 1)]].",
        )
    return [x for point in points for x in point]


def _require_finite(what: str, values: Sequence[float]) -> None:
    try:
        finite = all(-MOST_PX <= v <= MOST_PX for v in values)
    except TypeError:
        finite = False
    if not finite:
        raise GeometryError(f"A {what} needs finite coordinates, at most {MOST_PX:.0e}; got {list(values)[:8]}.")


@dataclass(frozen=True)
class ScoredBox:
    """One predicted box in a picture.

    Attributes:
        label: its class.
        score: confidence of the network, 0..1.
        corners: row_start, column_start, row_stop, column_stop in source pixels.
    """

    label: str
    score: float
    corners: tuple[float, float, float, float]


def build_scored_boxes(
    label: str, corners: Sequence[ArrayLike] | ArrayLike, scores: ArrayLike
) -> tuple[ScoredBox, ...]:
    """Boxes of one class from corners [f, 4] and scores [f], highest score first; ties keep the given order."""
    places, sure = np.asarray(corners, dtype=np.float64).reshape(-1, 4), np.asarray(scores, dtype=np.float64)
    found = []
    for i in np.argsort(-sure, kind="stable"):
        top, left, bottom, right = (float(x) for x in places[i])
        found.append(ScoredBox(label, float(sure[i]), (top, left, bottom, right)))
    return tuple(found)
