"""Pictures of where a network looked, like figures 3 to 5 and 7 to 9 of Liao et al. 2022.

Class maps g(M_c) are coloured from the minimum to the maximum of each map. Attention g(M'_c) is coloured about zero
on one scale for all classes of a picture: its cells sum to the logit, so equal colour means an equal push on the
probability, which is what the paper normalises for ("to correspond to the shown intensity with the prediction
probabilities"). Scaling each class by itself would make a class without evidence look as certain as the winner.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.frame import Frame
from sightline.lab.marks import draw_boxes, draw_window
from sightline.lab.overlay import Pixels, blend_heat, blend_signed, checked_maps, checked_pixels, outline, show
from sightline.lab.scored_box import ScoredBox
from sightline.lab.sheet import INK, Sheet
from sightline.region import Region

MOST_CLASSES = 6
DISCLAIMER = "Colour shows where the network looked; it is not a diagnosis."
_PREDICTED_INK = "#0b5394"


@dataclass(frozen=True)
class PanelCase:
    """One picture, what an expert marked on it and what a network made of it.

    Attributes:
        title: what to call the picture.
        pixels: float [h, w] or [h, w, 3] in 0..1, on the network's input grid.
        frame: of the input grid.
        regions: in source pixels.
        classes: k names in the order of the maps.
        maps: float [k, mh, mw], M_c with its bias.
        attention: float [k, mh, mw], M'_c; the cells of a class sum to its logit.
        probabilities: float [k].
        label: the true class, or None where it is not known.
        found: boxes of the network, in source pixels.
        window: [2, 3], the part of the input grid that the maps cover (`Evidence.window`); None: all of it.

    Raises:
        GeometryError: sizes that do not fit each other, no maps, or values that are not finite.
    """

    title: str
    pixels: Pixels
    frame: Frame
    regions: tuple[Region, ...]
    classes: tuple[str, ...]
    maps: NDArray[np.float64]
    attention: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    label: str | None = None
    found: tuple[ScoredBox, ...] = ()
    window: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Check every size against the classes and the frame."""
        object.__setattr__(self, "pixels", checked_pixels(self.pixels, self.frame))
        for name in ("maps", "attention"):
            array = checked_maps(getattr(self, name), f"{self.title}: {name}", 3)
            if len(array) != len(self.classes):
                raise GeometryError(f"{self.title}: {len(array)} {name} for {len(self.classes)} classes.")
            object.__setattr__(self, name, array)
        probabilities = checked_maps(self.probabilities, f"{self.title}: probabilities", 1)
        if len(probabilities) != len(self.classes):
            raise GeometryError(f"{self.title}: {len(probabilities)} probabilities for {len(self.classes)} classes.")
        object.__setattr__(self, "probabilities", probabilities)
        if self.label is not None and self.label not in self.classes:
            raise GeometryError(f"{self.title}: the label {self.label!r} is none of the classes {self.classes}.")

    @property
    def predicted(self) -> int:
        """Position of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def limit(self) -> float:
        """The largest size of an attention cell over all classes: the end of the signed colour scale."""
        return float(np.abs(self.attention).max())

    def verdict(self) -> str:
        """The prediction in words, and whether it is right where the truth is known."""
        said = f"network says {self.classes[self.predicted]} ({self.probabilities[self.predicted]:.0%})"
        if self.label is None:
            return said
        right = "correct" if self.label == self.classes[self.predicted] else "wrong"
        return f"{said}; truth is {self.label}: {right}"


@dataclass(frozen=True)
class Overlay:
    """One picture of a contact sheet: arguments as in `draw_overlay`."""

    pixels: Pixels
    map: NDArray[np.float64] | None
    regions: tuple[Region, ...]
    frame: Frame
    caption: str
    found: tuple[ScoredBox, ...] = ()
    window: NDArray[np.float64] | None = None


def draw_panel(case: PanelCase) -> bytes:
    """A PNG: the picture, the expert's regions, and for each class g(M_c) and g(M'_c) with its probability.

    Of more than six classes the predicted, the true and the next most probable ones are shown, and a line says so.
    """
    shown = _shown((case,), MOST_CLASSES)
    cell = float(np.clip(10.0 / (1 + len(shown)), 1.6, 2.7))
    height = cell * case.frame.shape[0] / case.frame.shape[1]
    sheet = Sheet(0.15 + (1 + len(shown)) * (cell + 0.12) + 0.32 + 1.25, 2.40 + 2 * height)
    rows = (1.42, 1.42 + height + 0.32)
    sheet.text(0.15, 0.27, _clip(case.title, int(sheet.width / 0.105)), size=13, weight="bold")
    sheet.text(0.15, 0.53, _clip(case.verdict(), int(sheet.width / 0.085)), size=10.5)

    for top, regions, name in ((rows[0], (), "picture"), (rows[1], case.regions, _regions_name(case))):
        axes = sheet.axes(0.15, top, cell, height)
        show(axes, case.pixels)
        outline(axes, regions, case.frame)
        if top == rows[1]:
            draw_window(axes, case.window, case.frame)
            draw_boxes(axes, case.found, case.frame)
        sheet.text(0.15, top - 0.1, name, size=10)

    for column, k in enumerate(shown):
        left = 0.15 + (column + 1) * (cell + 0.12) + 0.32
        roles = {"predicted": k == case.predicted, "truth": case.classes[k] == case.label}
        marks = [word for word, holds in roles.items() if holds]
        colour = _PREDICTED_INK if k == case.predicted else INK
        weight = "bold" if k == case.predicted else "normal"
        fits = int(cell / 0.095)
        sheet.text(left, 0.90, _clip(case.classes[k], fits), size=11, weight=weight, color=colour)
        sheet.text(left, 1.11, f"{case.probabilities[k]:.1%}", size=10, weight=weight, color=colour)
        sheet.text(left, rows[0] - 0.1, " · ".join(marks), size=10, color=colour)
        pictures = (
            blend_heat(case.pixels, case.maps[k], case.window),
            blend_signed(case.pixels, case.attention[k], case.limit, case.window),
        )
        for top, picture in zip(rows, pictures, strict=True):
            axes = sheet.axes(left, top, cell, height)
            show(axes, picture)
            outline(axes, case.regions, case.frame, over_map=True)
            draw_window(axes, case.window, case.frame)
            if top == rows[0] and case.found and case.found[0].label == case.classes[k]:
                draw_boxes(axes, case.found, case.frame)

    left = 0.15 + cell + 0.12 + 0.22
    for top, name in zip(rows, ("class map $g(M_c)$", "attention $g(M'_c)$"), strict=True):
        sheet.text(left, top + height / 2, name, size=10, rotation=90, ha="center", va="center", parse_math=True)
    bar = 0.15 + (1 + len(shown)) * (cell + 0.12) + 0.32 + 0.05
    sheet.bar(bar, rows[0], height, signed=False, ends=("highest\nof a map", "lowest"))
    ends = (f"+{case.limit:.2g}\nfor", f"−{case.limit:.2g}\nagainst") if case.limit > 0 else ("for", "against")
    sheet.bar(bar, rows[1], height, signed=True, ends=ends, middle="0")
    foot = sheet.height - 0.22
    sheet.legend(0.15, foot - 0.22, case.regions, found=bool(case.found), window=case.window is not None)
    hidden = len(case.classes) - len(shown)
    more = f"{hidden} less probable classes are not shown. " if hidden else ""
    sheet.text(0.15, foot + 0.08, more + DISCLAIMER, size=9, color="#444444")
    return sheet.png()


def draw_comparison(cases: Sequence[PanelCase], names: Sequence[str]) -> bytes:
    """A PNG: one picture as several networks saw it, a column each, a row for each class.

    Two classes or fewer show g(M_c) above g(M'_c), as figures 3 to 5; more show g(M'_c) alone, as figures 7 to 9.
    Every network has its own attention scale, since pooling changes the size of a cell's share.

    Raises:
        GeometryError: no case, a name missing, or cases of different pictures or classes.
    """
    if not cases or len(cases) != len(names):
        raise GeometryError(
            f"A comparison needs one name for each of at least one case; got {len(cases)}, {len(names)}."
        )
    first = cases[0]
    for case, name in zip(cases, names, strict=True):
        if case.classes != first.classes or case.frame != first.frame or case.label != first.label:
            raise GeometryError(f"{name}: not the picture, grid, label and classes of {names[0]}.")
    shown = _shown(cases, 4)
    both = len(first.classes) <= 2
    lines = [(k, signed) for k in shown for signed in ((False, True) if both else (True,))]
    cell = float(np.clip(10.0 / (1 + len(cases)), 1.7, 2.4))
    height = cell * first.frame.shape[0] / first.frame.shape[1]
    start, step = 1.38, height + 0.32
    grid_left = 0.15 + cell + 0.62
    sheet = Sheet(grid_left + len(cases) * (cell + 0.12) + 1.05, start + max(len(lines), 2) * step + 0.46)
    sheet.text(0.15, 0.27, _clip(first.title, int(sheet.width / 0.105)), size=13, weight="bold")
    truth = "" if first.label is None else f"truth: {first.label}"
    sheet.text(0.15, 0.53, truth, size=10.5)

    for row, (regions, name) in enumerate((((), "picture"), (first.regions, _regions_name(first)))):
        axes = sheet.axes(0.15, start + row * step, cell, height)
        show(axes, first.pixels)
        outline(axes, regions, first.frame)
        sheet.text(0.15, start + row * step - 0.09, name, size=10)

    for column, (case, name) in enumerate(zip(cases, names, strict=True)):
        left = grid_left + column * (cell + 0.12)
        fits = int(cell / 0.095)
        sheet.text(left, 0.86, _clip(name, fits), size=11, weight="bold")
        said = case.classes[case.predicted]
        mark = "" if case.label is None else ("  ✓" if said == case.label else "  ✗")
        sheet.text(left, 1.07, _clip(f"says {said}", fits) + mark, size=10, color=_PREDICTED_INK)
        for row, (k, signed) in enumerate(lines):
            axes = sheet.axes(left, start + row * step, cell, height)
            blended = (
                blend_signed(case.pixels, case.attention[k], case.limit, case.window)
                if signed
                else blend_heat(case.pixels, case.maps[k], case.window)
            )
            show(axes, blended)
            outline(axes, case.regions, case.frame, over_map=True)
            draw_window(axes, case.window, case.frame)
            if row == _row_of_boxes(case, [case.classes[k] for k, _ in lines]):
                draw_boxes(axes, case.found, case.frame, size=7.0)
            weight = "bold" if k == case.predicted else "normal"
            sheet.text(left, start + row * step - 0.09, f"{case.probabilities[k]:.1%}", size=10, weight=weight)

    for row, (k, signed) in enumerate(lines):
        middle = start + row * step + height / 2
        name = _clip(first.classes[k], int(height / 0.09))
        sheet.text(grid_left - 0.36, middle, name, size=10, weight="bold", rotation=90, ha="center", va="center")
        symbol = "attention $g(M'_c)$" if signed else "class map $g(M_c)$"
        sheet.text(grid_left - 0.14, middle, symbol, size=9, rotation=90, ha="center", va="center", parse_math=True)
        bar = grid_left + len(cases) * (cell + 0.12) + 0.05
        ends = ("for", "against") if signed else ("highest", "lowest")
        sheet.bar(bar, start + row * step, height, signed=signed, ends=ends, middle="0" if signed else None)
    foot = sheet.height - 0.22
    found, windows = any(case.found for case in cases), any(case.window is not None for case in cases)
    sheet.legend(0.15, foot - 0.22, first.regions, found=found, window=windows)
    sheet.text(0.15, foot + 0.08, DISCLAIMER, size=9, color="#444444")
    return sheet.png()


def draw_overlay(
    pixels: ArrayLike,
    map: ArrayLike | None,
    regions: Sequence[Region],
    frame: Frame,
    caption: str,
    *,
    found: Sequence[ScoredBox] = (),
    window: ArrayLike | None = None,
) -> bytes:
    """A PNG for one prediction: the picture under the predicted class's map, a colour bar, the caption below.

    Args:
        pixels: float [h, w] or [h, w, 3] in 0..1 on the grid of `frame`.
        map: float [mh, mw], of the class that the caption names; None for a network without maps.
        regions: an expert's, drawn where there are any.
        frame: of the picture.
        caption: the class and its probability, in words.
        found: boxes of the network, in source pixels.
        window: [2, 3], the part of the grid that the map covers; None: all of it.

    Raises:
        GeometryError: sizes that do not fit, or values that are not finite.
    """
    picture = checked_pixels(pixels, frame)
    scale = min(6.4 / frame.shape[1], 7.0 / frame.shape[0])
    width, height = frame.shape[1] * scale, frame.shape[0] * scale
    column = max(width, 3.6)
    lines = textwrap.wrap(caption, max(int(column / 0.095), 20)) or [""]
    text_top = 0.15 + height + 0.3
    marked = bool(found) or window is not None
    sheet = Sheet(column + 1.3, text_top + 0.23 * len(lines) + (0.5 if regions or marked else 0.22))
    axes = sheet.axes(0.15, 0.15, width, height)
    show(axes, picture if map is None else blend_heat(picture, map, window))
    outline(axes, regions, frame, over_map=True)
    draw_window(axes, window, frame)
    draw_boxes(axes, found, frame)
    if map is not None:
        ends = ("most for\nthe class", "least for\nthe class")
        sheet.bar(0.15 + width + 0.15, 0.15, min(height, 3.2), signed=False, ends=ends)
    for n, line in enumerate(lines):
        sheet.text(0.15, text_top + 0.23 * n, line, size=11, weight="bold")
    foot = text_top + 0.23 * len(lines)
    sheet.legend(0.15, foot + 0.05, regions, found=bool(found), window=window is not None)
    sheet.text(0.15, sheet.height - 0.15, DISCLAIMER, size=9, color="#444444")
    return sheet.png()


def draw_contact_sheet(items: Sequence[Overlay], columns: int = 5) -> bytes:
    """A PNG: many small overlays in reading order, captions of at most three lines below each.

    Raises:
        GeometryError: nothing to draw, fewer than one column, sizes that do not fit, or values that are not finite.
    """
    if not items or columns < 1:
        raise GeometryError(f"A contact sheet needs pictures and columns; got {len(items)} and {columns}.")
    columns = min(columns, len(items))
    cell, gap, captions = 2.0, 0.14, 0.62
    n_rows = -(-len(items) // columns)
    # as wide as the words below
    sheet = Sheet(max(gap + columns * (cell + gap), 6.3), gap + n_rows * (cell + captions) + 0.5)
    for n, item in enumerate(items):
        left = gap + (n % columns) * (cell + gap)
        top = gap + (n // columns) * (cell + captions)
        # one cell size for all: a long picture is fitted into it
        scale = cell / max(item.frame.shape)
        height, width = item.frame.shape[0] * scale, item.frame.shape[1] * scale
        axes = sheet.axes(left + (cell - width) / 2, top + (cell - height) / 2, width, height)
        picture = checked_pixels(item.pixels, item.frame)
        show(axes, picture if item.map is None else blend_heat(picture, item.map, item.window))
        outline(axes, item.regions, item.frame, over_map=True)
        draw_window(axes, item.window, item.frame)
        draw_boxes(axes, item.found, item.frame, size=6.5)
        lines = [line for part in item.caption.splitlines() for line in textwrap.wrap(part, 27)]
        if len(lines) > 3:
            lines = [*lines[:2], _clip(lines[2] + " " + lines[3], 27)]
        for line_number, line in enumerate(lines):
            sheet.text(left, top + cell + 0.14 + 0.155 * line_number, line, size=8.5)
    regions = [region for item in items for region in item.regions]
    found, windows = any(item.found for item in items), any(item.window is not None for item in items)
    sheet.legend(gap, sheet.height - 0.36, regions, found=found, window=windows)
    coloured = "Orange: most for the class. " if any(item.map is not None for item in items) else ""
    sheet.text(gap, sheet.height - 0.13, coloured + DISCLAIMER, size=9, color="#444444")
    return sheet.png()


def _shown(cases: Sequence[PanelCase], most: int) -> list[int]:
    """Classes to draw, in class order: every predicted and true one first, then by probability."""
    first = cases[0]
    order = [case.predicted for case in cases]
    if first.label is not None:
        order.append(first.classes.index(first.label))
    order += list(np.argsort(-np.max([case.probabilities for case in cases], axis=0), kind="stable"))
    return sorted(int(k) for k in list(dict.fromkeys(order))[:most])


def _row_of_boxes(case: PanelCase, classes: Sequence[str]) -> int:
    """The first of the rows of a comparison that shows the class of a case's boxes; the top where none does."""
    label = case.found[0].label if case.found else ""
    return classes.index(label) if label in classes else 0


def _regions_name(case: PanelCase) -> str:
    return "expert's regions" if case.regions else "no expert's region"


def _clip(words: str, most: int) -> str:
    return words if len(words) <= most else words[: max(most - 1, 1)].rstrip() + "…"
