"""Maps laid over radiographs, pixel for pixel, and experts' regions as outlines.

A map of [mh, mw] cells covers the whole input grid of [h, w] pixels: the centre of cell (i, j) lies at
((i + 0.5) h / mh, (j + 0.5) w / mw) with the origin at the corner of pixel (0, 0). A map of a window of the grid,
turned or sheared as it may be, covers only that, and outside nothing is coloured. All axes here are drawn in grid
coordinates, so an outline mapped through a Frame falls where the network saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Polygon, Region, ScoredBox, Scribble
from sightline.structures.resampling import check_maps, place_on_grid, upsample_map
from sightline.structures.tag import Role

Pixels = NDArray[np.float32]

# The finding is green as in Liao 2022, figure 3; solid and dashed keep the two apart without colour.
# Gaze is outlined where its density is half of its maximum.
OUTLINES: dict[Role, tuple[str, Any]] = {
    "finding": ("#8cff3f", "solid"),
    "focus": ("#3fd2ff", (0, (4, 2))),
    "gaze": ("#ff8ae2", (0, (1, 1))),
    "organ": ("#c9c9ff", (0, (6, 2, 1, 2))),
    "ignore": ("#b0b0b0", (0, (1, 3))),
}
MOST_OPAQUE = 0.72
HEAT_RISE = 1.5  # above 1, so that the many middling cells of a class map veil the picture less
DIMMED = 0.85  # the picture under a map, so that a hot spot shows on white bone too

# The ends of inferno are left out: black hides the picture, pale yellow disappears on white bone.
HEAT = LinearSegmentedColormap.from_list("sightline_heat", colormaps["inferno"](np.linspace(0.30, 0.83, 256)))
FOR, AGAINST = (1.0, 0.88, 0.0), (0.04, 0.30, 1.0)  # yellow and blue, as in the paper


def check_pixels(pixels: ArrayLike, frame: Frame) -> Pixels:
    """A picture as float32 [h, w] or [h, w, 3] in 0..1 on the grid of `frame`.

    Raises:
        GeometryError: another number of axes or channels, another size than the frame's, or values that are no
            grey values between 0 and 1.
    """
    array = np.asarray(pixels, dtype=np.float32)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise GeometryError(f"A picture to draw must be [h, w] or [h, w, 3]; got {array.shape}.")
    if array.shape[:2] != frame.shape:
        raise GeometryError(
            f"The picture is {array.shape[:2]} but its frame is {frame.shape}.", "Pass the frame of the input grid."
        )
    if not np.isfinite(array).all() or array.min() < -1e-3 or array.max() > 1.0 + 1e-3:
        raise GeometryError("A picture to draw needs finite values from 0 to 1.", "Divide by the pixel type's range.")
    return np.clip(array, 0.0, 1.0)


def blend_layers(
    cells: ArrayLike, shape: tuple[int, int], window: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A map on the input grid [h, w], and which of its pixels the map covers; 0 where it does not.

    Args:
        cells: [mh, mw].
        shape: (h, w).
        window: [2, 3], where the map lies (`Evidence.window`); None: over all of the grid.
    """
    if window is None:
        return upsample_map(cells, shape), np.ones(shape, dtype=bool)
    array = check_maps(cells, "A map", 2)
    # smooth first, at about the size the window has on the grid; what is then sampled is fine enough for bilinear
    sides = np.linalg.norm(np.asarray(window, dtype=np.float64)[:, :2] * np.array(shape)[:, None], axis=0)
    most = 2 * max(shape)
    fine = [int(np.clip(round(side), cells_along, most)) for side, cells_along in zip(sides, array.shape, strict=True)]
    values = place_on_grid(upsample_map(array, (fine[0], fine[1])), window, shape)
    covered = np.isfinite(values)
    return np.where(covered, values, 0.0), covered


def blend_heat(pixels: Pixels, cells: ArrayLike, window: ArrayLike | None = None) -> Pixels:
    """A picture under g(map), normalised by its own minimum (clear) and maximum (orange): RGB [h, w, 3].

    A flat map has no minimum to tell from a maximum and leaves the picture uncoloured, as does a window outside it.
    """
    grey = _convert_to_grey(pixels)
    heat, covered = blend_layers(cells, (grey.shape[0], grey.shape[1]), window)
    low, high = (float(heat[covered].min()), float(heat[covered].max())) if covered.any() else (0.0, 0.0)
    level = np.where(covered, (heat - low) / (high - low), 0.0) if high > low else np.zeros_like(heat)
    return blend_heat_over(grey, level)


def blend_heat_over(grey: Pixels, level: NDArray[np.float64]) -> Pixels:
    """A grey picture [h, w] under levels [h, w] from 0 (clear) to 1 (orange): RGB [h, w, 3]."""
    return _blend_colours(grey, HEAT(level)[..., :3], level**HEAT_RISE)


def blend_over_grey(grey: Pixels, level: NDArray[np.float64]) -> Pixels:
    """A grey picture [h, w] under levels [h, w] from -1 (blue) over 0 (clear) to 1 (yellow): RGB [h, w, 3]."""
    return _blend_colours(grey, _colour_signed(level), np.abs(level))


def blend_signed(pixels: Pixels, cells: ArrayLike, limit: float, window: ArrayLike | None = None) -> Pixels:
    """A picture under g(map): yellow for, blue against the class, clear at zero: RGB [h, w, 3].

    Args:
        pixels: [h, w] or [h, w, 3] in 0..1.
        cells: [mh, mw].
        limit: the size of a value that is fully coloured; 0 leaves the picture uncoloured.
        window: [2, 3], where the map lies; None: over all of the picture.
    """
    grey = _convert_to_grey(pixels)
    values, _ = blend_layers(cells, (grey.shape[0], grey.shape[1]), window)
    level = np.clip(values / limit, -1.0, 1.0) if limit > 0 else np.zeros_like(values)
    return blend_over_grey(grey, level)


def draw_bar_image(signed: bool) -> Pixels:
    """What a colour bar shows: the blend over mid-grey, lowest value last: RGB [256, 1, 3]."""
    ramp = np.linspace(1.0, -1.0 if signed else 0.0, 256)[:, None]
    grey = np.full((256, 1), 0.45, dtype=np.float32)
    if signed:
        return _blend_colours(grey, _colour_signed(ramp), np.abs(ramp))
    return _blend_colours(grey, HEAT(ramp)[..., :3], ramp**HEAT_RISE)


def show(axes: Any, pixels: Pixels) -> None:
    """Draw a picture on axes whose data coordinates are (column, row) from the corner of pixel (0, 0)."""
    height, width = pixels.shape[:2]
    axes.imshow(pixels, cmap="gray", vmin=0.0, vmax=1.0, extent=(0, width, height, 0), interpolation="antialiased")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def outline_regions(axes: Any, regions: Sequence[Region], frame: Frame, *, over_map: bool = False) -> None:
    """Draw regions on axes made by `show`: outlines of boxes, polygons and masks, scribbles as strokes.

    Over a map the lines are thin, and a scribble is its centre line, so that the map stays visible.
    """
    line_pt = 0.9 if over_map else 1.6
    for region in regions:
        colour, style = OUTLINES[region.tag.role]
        lines = [np.asarray(line) for line in _trace_lines(region, frame)]
        width_pt = line_pt
        if isinstance(region, Scribble):
            style = "solid"
        if isinstance(region, Scribble) and not over_map:
            width_pt = max(line_pt, _measure_points_per_pixel(axes) * region.stroke_px / frame.scale)
        halo = [patheffects.Stroke(linewidth=width_pt + 1.2, foreground="black", alpha=0.75), patheffects.Normal()]
        for line in lines:
            axes.plot(
                line[:, 1], line[:, 0], color=colour, linestyle=style, linewidth=width_pt,
                solid_capstyle="round", path_effects=halo, scalex=False, scaley=False,
            )  # fmt: skip


def _trace_lines(region: Region, frame: Frame) -> list[Any]:
    """Polylines (row, column) on the grid of `frame`, closed but for scribbles."""
    if frame.ndim != 2:
        raise GeometryError(f"Regions are drawn on two axes; got a {frame.ndim}-axis frame.")
    if isinstance(region, Scribble):
        return [frame.unmap_points(np.asarray(line)) for line in region.lines]
    if isinstance(region, Box):
        if len(region.start) != 2:
            raise GeometryError(f"A {len(region.start)}-axis box cannot be drawn on a picture.")
        (r0, c0), (r1, c1) = region.start, region.stop
        return [frame.unmap_points([(r0, c0), (r0, c1), (r1, c1), (r1, c0), (r0, c0)])]
    if isinstance(region, Polygon):
        return [frame.unmap_points(np.asarray((*part, part[0]))) for part in region.parts]
    from skimage.measure import find_contours

    inside = np.pad(region.draw(frame), 1)
    # one pixel of padding, and contour coordinates are pixel centres: minus one, plus a half
    return [contour - 0.5 for contour in find_contours(inside, 0.5)]


def _measure_points_per_pixel(axes: Any) -> float:
    figure = axes.get_figure()
    inches = axes.get_position().width * figure.get_size_inches()[0]
    return float(inches * 72.0 / abs(axes.get_xlim()[1] - axes.get_xlim()[0]))


def _convert_to_grey(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 2 else pixels.mean(axis=2, dtype=np.float32)


def _colour_signed(level: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((level >= 0)[..., None], FOR, AGAINST)


def _blend_colours(grey: Pixels, colours: NDArray[Any], level: NDArray[np.float64]) -> Pixels:
    opacity = (MOST_OPAQUE * level)[..., None]
    blended: Pixels = ((1.0 - opacity) * DIMMED * grey[..., None] + opacity * colours).astype(np.float32)
    return blended


FOUND = ("#ff5ce1", (0, (5, 1.4, 1.2, 1.4)))
WINDOW = ("#ffffff", (0, (1, 1.3)))
_CORNERS = np.array([(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)])


def draw_window(axes: Any, window: ArrayLike | None, frame: Frame) -> None:
    """Outline the part of a picture that maps cover (`Evidence.window`, [2, 3]); nothing where they cover all of it."""
    if window is None:
        return
    affine = np.asarray(window, dtype=np.float64)
    _draw_line(axes, (_CORNERS @ affine[:, :2].T + affine[:, 2]) * np.array(frame.shape), WINDOW, 1.3)


def draw_boxes(axes: Any, boxes: Sequence[ScoredBox], frame: Frame, *, size: float = 8.0) -> None:
    """Draw boxes on axes made by `show`, each with its score at its upper left corner.

    Args:
        axes: whose data coordinates are (column, row) on the grid of `frame`.
        boxes: in source pixels.
        frame: of the grid.
        size: of the scores, in points.
    """
    # the surest last, on top
    for box in reversed(boxes):
        low, high = np.array(box.corners[:2]), np.array(box.corners[2:])
        corners = frame.unmap_points(low + _CORNERS * (high - low))
        _draw_line(axes, corners, FOUND, 1.6 if size >= 8 else 1.2)
        top, left = corners.min(axis=0)
        # above the box, or inside it where the picture ends
        room = top > 0.06 * frame.shape[0]
        text = axes.annotate(
            f"{box.score:.2f}", (max(left, 0.0), max(top, 0.0)), (1.0, 1.5 if room else -1.5),
            textcoords="offset points", color=FOUND[0], fontsize=size, fontweight="bold",
            va="bottom" if room else "top", ha="left", annotation_clip=True,
        )  # fmt: skip
        text.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="black")])


def _draw_line(axes: Any, corners: Any, style: tuple[str, Any], width_pt: float) -> None:
    colour, dashes = style
    points = np.asarray(corners)
    # a whole dark line below, so that the gaps of the dashes are dark too
    for stroke, pattern, width in (("black", "solid", width_pt + 1.3), (colour, dashes, width_pt)):
        axes.plot(
            points[:, 1], points[:, 0], color=stroke, linestyle=pattern, linewidth=width,
            dash_capstyle="butt", scalex=False, scaley=False, alpha=0.8 if stroke == "black" else 1.0,
        )  # fmt: skip
