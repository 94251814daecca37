"""One volume as a network saw it: three planes, what an expert marked, and the class maps where there are any.

The planes meet where the map of the predicted class is greatest, or in the middle where the network has no maps; short
ticks at the edges say where the other planes lie. A map has one colour scale over the whole volume, so that a clear
slice is one that the network did not look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError
from sightline.plots.canvas import INK, Sheet
from sightline.plots.contact_sheet import Overlay
from sightline.plots.overlay import Pixels, blend_heat_over, blend_over_grey, outline_regions, show
from sightline.plots.panels import DISCLAIMER, PanelCase
from sightline.plots.planes import PLANES, SAGITTAL, Cube, Plane, cut_plane, cut_regions, measure_cut_side_mm
from sightline.structures.frame import Frame
from sightline.structures.regions import Region
from sightline.structures.resampling import check_maps, upsample_map
from sightline.structures.tag import Role

MOST_CLASSES = 2
MARKED: tuple[Role, ...] = ("focus", "finding")
_PREDICTED_INK = "#0b5394"
_CELL = 2.05
_GAP = 0.12


@dataclass(frozen=True)
class VolumePanel:
    """A volume, what is known of it and what a network made of it.

    Attributes:
        title: what to call it.
        cube: what the network saw, turned for the eye.
        regions: in voxels of the case's file.
        classes: names in the order of the probabilities and maps.
        probabilities: float [k].
        label: the true class, or None.
        maps: float [k, md, mh, mw], class maps, turned as the cube is; None where the network has none.
        attention: float [k, md, mh, mw], each cell's share of the logit, turned; None where there are no maps.
        without_maps: why there are no maps, in words.
    """

    title: str
    cube: Cube
    regions: tuple[Region, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    label: str | None = None
    maps: NDArray[np.float64] | None = None
    attention: NDArray[np.float64] | None = None
    without_maps: str = "This network gives no class maps."

    def __post_init__(self) -> None:
        """Check every size against the classes."""
        k = len(self.classes)
        object.__setattr__(self, "probabilities", check_maps(self.probabilities, f"{self.title}: probabilities", 1))
        if len(self.probabilities) != k or (self.maps is None) != (self.attention is None):
            raise GeometryError(f"{self.title}: probabilities and maps do not fit {k} classes.")
        for name in ("maps", "attention"):
            if getattr(self, name) is not None:
                array = check_maps(getattr(self, name), f"{self.title}: {name}", 4)
                if len(array) != k:
                    raise GeometryError(f"{self.title}: {len(array)} {name} for {k} classes.")
                object.__setattr__(self, name, array)

    @property
    def predicted(self) -> int:
        """Position of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def through(self) -> tuple[int, int, int]:
        """The voxel in which the planes meet."""
        if self.maps is None or np.ptp(self.maps[self.predicted]) == 0:
            return self.cube.centre
        return find_peak(self.maps[self.predicted], self.cube.grey.shape)

    def verdict(self) -> str:
        """The prediction in words, and whether it is right where the truth is known."""
        answer = f"network says {self.classes[self.predicted]} ({self.probabilities[self.predicted]:.0%})"
        if self.label is None:
            return answer
        right = "correct" if self.label == self.classes[self.predicted] else "wrong"
        return f"{answer}; truth is {self.label}: {right}"


def find_peak(cells: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The voxel of a grid in the middle of a map's greatest cell."""
    cell = np.unravel_index(int(cells.argmax()), cells.shape)
    a, b, c = (int((i + 0.5) * n / m) for i, n, m in zip(cell, shape, cells.shape, strict=True))
    return a, b, c


def draw_volume_panel(panel: VolumePanel) -> bytes:
    """A PNG: a row for each plane; the volume, the expert's marks, and map and attention of up to two classes."""
    marked = any(region.tag.role in MARKED for region in panel.regions)
    shown = _choose_shown(panel) if panel.maps is not None else []
    columns = 1 + int(marked) + 2 * len(shown)
    sizes = measure_physical(panel.cube, _CELL)
    heights = [sizes[plane.name][0] for plane in PLANES]
    top, left = (1.42 if shown else 0.92), 0.42
    width = max(left + columns * (_CELL + _GAP) + (1.1 if shown else 0.0), 6.4)
    sheet = Sheet(width, top + sum(heights) + _GAP * len(heights) + 0.62)
    sheet.text(0.15, 0.27, panel.title[: int(width / 0.105)], size=13, weight="bold")
    sheet.text(0.15, 0.53, panel.verdict()[: int(width / 0.085)], size=10.5)
    through = panel.through
    sheet.text(left, top - 0.1, "bone window", size=10)
    if marked:
        sheet.text(left + _CELL + _GAP, top - 0.1, "expert's marks", size=10)
    first = left + (1 + int(marked)) * (_CELL + _GAP)
    for n, k in enumerate(shown):
        _write_class_words(sheet, panel, k, first + 2 * n * (_CELL + _GAP), top)
    levels = [(k, *_compute_levels(panel, k)) for k in shown]
    y = top
    for plane, height in zip(PLANES, heights, strict=True):
        grey = cut_plane(panel.cube.grey, plane, through)
        marks = cut_regions(panel.regions, panel.cube.frame, plane, through, MARKED)
        pictures: list[tuple[Pixels, tuple[Region, ...], bool]] = [(grey, (), False)]
        pictures += [(grey, marks, False)] if marked else []
        for _, heat, signed in levels:
            pictures.append((blend_heat_over(grey, cut_plane(heat, plane, through)), marks, True))
            pictures.append((blend_over_grey(grey, cut_plane(signed, plane, through)), marks, True))
        sheet.text(left - 0.12, y + height / 2, plane.name, size=10, rotation=90, ha="center", va="center")
        for n, (picture, regions, over) in enumerate(pictures):
            wide = sizes[plane.name][1]
            axes = sheet.axes(left + n * (_CELL + _GAP) + (_CELL - wide) / 2, y, wide, height)
            draw_slice(axes, picture, plane, through, letters=n == 0, ticks=n == 0)
            outline_regions(axes, regions, Frame.of_image(grey.shape), over_map=over)
        y += height + _GAP
    if shown:
        bar = first + 2 * len(shown) * (_CELL + _GAP) + 0.02
        sheet.bar(bar, top, 1.5, signed=False, ends=("highest\nof a map", "lowest"))
        sheet.bar(bar, top + heights[0] + _GAP, 1.5, signed=True, ends=("for", "against"), middle="0")
    foot = sheet.height - 0.2
    sheet.legend(0.15, foot - 0.2, [r for r in panel.regions if r.tag.role in MARKED])
    words = DISCLAIMER if panel.maps is not None else panel.without_maps
    sheet.text(0.15, foot + 0.06, words, size=9, color="#444444")
    return sheet.png()


def draw_slice(
    axes: Any, picture: Pixels, plane: Plane, through: Sequence[int] | None, *, letters: bool, ticks: bool = False
) -> None:
    """A slice on axes of its physical shape, with the letters of its upper and left edge.

    Args:
        axes: of a sheet, as high and wide as the slice is in millimetres.
        picture: [h, w] or [h, w, 3].
        plane: what is cut.
        through: where the other planes lie, for the ticks.
        letters: write them.
        ticks: mark the other planes at the edges.
    """
    show(axes, picture)
    # voxels are enlarged as a viewing station does
    axes.images[-1].set_interpolation("bilinear")
    axes.set_aspect("auto")
    height, width = picture.shape[:2]
    ink = {"color": "#ffe08a", "fontsize": 8, "fontweight": "bold"}
    if letters:
        axes.text(width / 2, 0.01 * height, plane.letters[0], ha="center", va="top", **ink)
        axes.text(0.015 * width, height / 2, plane.letters[1], ha="left", va="center", **ink)
    if ticks and through is not None:
        row, column = (through[axis] + 0.5 for axis in range(3) if axis != plane.normal)
        size_rows, size_columns = 0.05 * height, 0.05 * width
        for xs, ys in (
            ([column, column], [height - size_rows, height]),
            ([width - size_columns, width], [row, row]),
        ):
            axes.plot(xs, ys, color="#ffe08a", linewidth=1.2, scalex=False, scaley=False)


def slice_panel(panel: VolumePanel, through: tuple[int, int, int], plane: Plane = SAGITTAL) -> PanelCase:
    """One slice of a panel with maps as a picture among others (`panels.draw_comparison`)."""
    assert panel.maps is not None and panel.attention is not None
    shape = panel.cube.grey.shape
    grey = cut_plane(panel.cube.grey, plane, through)
    on_grid = [np.stack([upsample_map(cells, shape) for cells in of]) for of in (panel.maps, panel.attention)]
    maps, attention = (cut_plane(of, plane, through) for of in on_grid)
    return PanelCase(
        title=panel.title,
        pixels=grey,
        frame=Frame.of_image(grey.shape),
        regions=cut_regions(panel.regions, panel.cube.frame, plane, through, MARKED),
        classes=panel.classes,
        maps=maps,
        attention=attention,
        probabilities=panel.probabilities,
        label=panel.label,
    )


def build_slice_overlay(panel: VolumePanel, k: int, caption: str, plane: Plane = SAGITTAL) -> Overlay:
    """The slice through a class's greatest map cell (or the middle) as one picture of a contact sheet."""
    cells = None if panel.maps is None else panel.maps[k]
    shape = panel.cube.grey.shape
    through = panel.cube.centre if cells is None else find_peak(cells, shape)
    grey = cut_plane(panel.cube.grey, plane, through)
    over = None if cells is None else cut_plane(upsample_map(cells, shape), plane, through)
    marks = cut_regions(panel.regions, panel.cube.frame, plane, through, MARKED)
    return Overlay(grey, over, marks, Frame.of_image(grey.shape), caption)


def _choose_shown(panel: VolumePanel) -> list[int]:
    """The predicted and the true class, then the most probable others, in class order."""
    order = [panel.predicted]
    if panel.label is not None and panel.label in panel.classes:
        order.append(panel.classes.index(panel.label))
    order += [int(k) for k in np.argsort(-panel.probabilities, kind="stable")]
    return sorted(list(dict.fromkeys(order))[:MOST_CLASSES])


def _compute_levels(panel: VolumePanel, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A class's map in 0..1 and its attention in -1..1 on the cube's grid."""
    assert panel.maps is not None and panel.attention is not None
    heat = upsample_map(panel.maps[k], panel.cube.grey.shape)
    low, high = float(heat.min()), float(heat.max())
    heat = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    limit = float(np.abs(panel.attention).max())
    signed = upsample_map(panel.attention[k], panel.cube.grey.shape)
    return heat, np.clip(signed / limit, -1.0, 1.0) if limit > 0 else np.zeros_like(signed)


def _write_class_words(sheet: Sheet, panel: VolumePanel, k: int, left: float, top: float) -> None:
    roles = {"predicted": k == panel.predicted, "truth": panel.classes[k] == panel.label}
    marks = " · ".join(word for word, holds in roles.items() if holds)
    colour = _PREDICTED_INK if k == panel.predicted else INK
    weight = "bold" if k == panel.predicted else "normal"
    sheet.text(left, 0.86, panel.classes[k][:36], size=11, weight=weight, color=colour)
    label = f"{panel.probabilities[k]:.1%}" + (f"   {marks}" if marks else "")
    sheet.text(left, 1.07, label, size=10, weight=weight, color=colour)
    sheet.text(left, top - 0.1, "class map", size=10)
    sheet.text(left + _CELL + _GAP, top - 0.1, "attention", size=10)


def measure_physical(cube: Cube, inches: float) -> dict[str, tuple[float, float]]:
    """Height and width in inches of the planes of a cube by name, the longest side `inches`, millimetres alike."""
    scale = inches / max(max(_measure_mm(cube, plane)) for plane in PLANES)
    return {plane.name: (_measure_mm(cube, plane)[0] * scale, _measure_mm(cube, plane)[1] * scale) for plane in PLANES}


def _measure_mm(cube: Cube, plane: Plane) -> tuple[float, float]:
    rows, columns = (n for axis, n in enumerate(cube.grey.shape) if axis != plane.normal)
    high, wide = measure_cut_side_mm(cube.side_mm, plane)
    return rows * high, columns * wide
