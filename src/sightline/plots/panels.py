"""What a panel shows: one picture, what an expert marked on it, and what a network made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError
from sightline.plots.canvas import INK, Sheet
from sightline.plots.overlay import (
    Pixels,
    blend_heat,
    blend_signed,
    check_pixels,
    draw_boxes,
    draw_window,
    outline_regions,
    show,
)
from sightline.structures.frame import Frame
from sightline.structures.regions import Region, ScoredBox
from sightline.structures.resampling import check_maps

DISCLAIMER = "Colour shows where the network looked; it is not a diagnosis."
PREDICTED_INK = "#0b5394"


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
        object.__setattr__(self, "pixels", check_pixels(self.pixels, self.frame))
        for name in ("maps", "attention"):
            array = check_maps(getattr(self, name), f"{self.title}: {name}", 3)
            if len(array) != len(self.classes):
                raise GeometryError(f"{self.title}: {len(array)} {name} for {len(self.classes)} classes.")
            object.__setattr__(self, name, array)
        probabilities = check_maps(self.probabilities, f"{self.title}: probabilities", 1)
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
        answer = f"network says {self.classes[self.predicted]} ({self.probabilities[self.predicted]:.0%})"
        if self.label is None:
            return answer
        right = "correct" if self.label == self.classes[self.predicted] else "wrong"
        return f"{answer}; truth is {self.label}: {right}"


def choose_shown_classes(cases: Sequence[PanelCase], most: int) -> list[int]:
    """Classes to draw, in class order: every predicted and true one first, then by probability."""
    first = cases[0]
    order = [case.predicted for case in cases]
    if first.label is not None:
        order.append(first.classes.index(first.label))
    order += list(np.argsort(-np.max([case.probabilities for case in cases], axis=0), kind="stable"))
    return sorted(int(k) for k in list(dict.fromkeys(order))[:most])


def name_regions(case: PanelCase) -> str:
    """What the picture with the outlines is called."""
    return "expert's regions" if case.regions else "no expert's region"


def clip_words(words: str, most: int) -> str:
    """Words cut to so many characters, an ellipsis at the cut."""
    return words if len(words) <= most else words[: max(most - 1, 1)].rstrip() + "…"


MOST_CLASSES = 6


def draw_panel(case: PanelCase) -> bytes:
    """A PNG: the picture, the expert's regions, and for each class g(M_c) and g(M'_c) with its probability.

    Of more than six classes the predicted, the true and the next most probable ones are shown, and a line says so.
    """
    shown = choose_shown_classes((case,), MOST_CLASSES)
    cell = float(np.clip(10.0 / (1 + len(shown)), 1.6, 2.7))
    height = cell * case.frame.shape[0] / case.frame.shape[1]
    sheet = Sheet(0.15 + (1 + len(shown)) * (cell + 0.12) + 0.32 + 1.25, 2.40 + 2 * height)
    rows = (1.42, 1.42 + height + 0.32)
    sheet.text(0.15, 0.27, clip_words(case.title, int(sheet.width / 0.105)), size=13, weight="bold")
    sheet.text(0.15, 0.53, clip_words(case.verdict(), int(sheet.width / 0.085)), size=10.5)

    for top, regions, name in ((rows[0], (), "picture"), (rows[1], case.regions, name_regions(case))):
        axes = sheet.axes(0.15, top, cell, height)
        show(axes, case.pixels)
        outline_regions(axes, regions, case.frame)
        if top == rows[1]:
            draw_window(axes, case.window, case.frame)
            draw_boxes(axes, case.found, case.frame)
        sheet.text(0.15, top - 0.1, name, size=10)

    for column, k in enumerate(shown):
        left = 0.15 + (column + 1) * (cell + 0.12) + 0.32
        roles = {"predicted": k == case.predicted, "truth": case.classes[k] == case.label}
        marks = [word for word, holds in roles.items() if holds]
        colour = PREDICTED_INK if k == case.predicted else INK
        weight = "bold" if k == case.predicted else "normal"
        fits = int(cell / 0.095)
        sheet.text(left, 0.90, clip_words(case.classes[k], fits), size=11, weight=weight, color=colour)
        sheet.text(left, 1.11, f"{case.probabilities[k]:.1%}", size=10, weight=weight, color=colour)
        sheet.text(left, rows[0] - 0.1, " · ".join(marks), size=10, color=colour)
        pictures = (
            blend_heat(case.pixels, case.maps[k], case.window),
            blend_signed(case.pixels, case.attention[k], case.limit, case.window),
        )
        for top, picture in zip(rows, pictures, strict=True):
            axes = sheet.axes(left, top, cell, height)
            show(axes, picture)
            outline_regions(axes, case.regions, case.frame, over_map=True)
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


@dataclass(frozen=True)
class _ComparisonGrid:
    """Where the pictures of a comparison stand on its page: a column a method, a row a class and kind of map.

    Attributes:
        rows: of each row the class, and whether it shows attention (else the class map).
        cell: width of a picture, inches.
        height: of a picture, inches.
        left: of the first method's column, inches.
        columns: how many methods there are.
    """

    rows: tuple[tuple[int, bool], ...]
    cell: float
    height: float
    left: float
    columns: int

    def find_top(self, row: int) -> float:
        """Top edge of a row, inches from the top of the page."""
        return 1.38 + row * (self.height + 0.32)

    def find_left(self, column: int) -> float:
        """Left edge of a method's column, inches."""
        return self.left + column * (self.cell + 0.12)

    def open_page(self) -> Sheet:
        """A page that holds them all, with room for colour bars and a legend."""
        return Sheet(self.find_left(self.columns) + 1.05, self.find_top(max(len(self.rows), 2)) + 0.46)


def draw_comparison(cases: Sequence[PanelCase], names: Sequence[str], *, attention: bool = True) -> bytes:
    """A PNG: one picture as several networks saw it, a column each, a row for each class.

    Two classes or fewer show g(M_c) above g(M'_c), as figures 3 to 5; more show g(M'_c) alone, as figures 7 to 9.
    Every network has its own attention scale, since pooling changes the size of a cell's share. Without `attention`
    only g(M_c) is shown, of any number of classes.

    Raises:
        GeometryError: no case, a name missing, or cases of different pictures or classes.
    """
    _require_comparable(cases, names)
    first = cases[0]
    kinds = ((False, True) if len(first.classes) <= 2 else (True,)) if attention else (False,)
    rows = tuple((k, signed) for k in choose_shown_classes(cases, 4) for signed in kinds)
    cell = float(np.clip(10.0 / (1 + len(cases)), 1.7, 2.4))
    height = cell * first.frame.shape[0] / first.frame.shape[1]
    grid = _ComparisonGrid(rows, cell, height, 0.15 + cell + 0.62, len(cases))
    sheet = grid.open_page()
    sheet.text(0.15, 0.27, clip_words(first.title, int(sheet.width / 0.105)), size=13, weight="bold")
    sheet.text(0.15, 0.53, "" if first.label is None else f"truth: {first.label}", size=10.5)
    for row, (regions, name) in enumerate((((), "picture"), (first.regions, name_regions(first)))):
        axes = sheet.axes(0.15, grid.find_top(row), cell, height)
        show(axes, first.pixels)
        outline_regions(axes, regions, first.frame)
        sheet.text(0.15, grid.find_top(row) - 0.09, name, size=10)
    for column, (case, name) in enumerate(zip(cases, names, strict=True)):
        _draw_method(sheet, grid, column, case, name)
    for row, (k, signed) in enumerate(rows):
        _label_row(sheet, grid, row, first.classes[k], signed=signed)
    foot = sheet.height - 0.22
    found, windows = any(case.found for case in cases), any(case.window is not None for case in cases)
    sheet.legend(0.15, foot - 0.22, first.regions, found=found, window=windows)
    sheet.text(0.15, foot + 0.08, DISCLAIMER, size=9, color="#444444")
    return sheet.png()


def _require_comparable(cases: Sequence[PanelCase], names: Sequence[str]) -> None:
    if not cases or len(cases) != len(names):
        raise GeometryError(
            f"A comparison needs one name for each of at least one case; got {len(cases)}, {len(names)}."
        )
    first = cases[0]
    for case, name in zip(cases, names, strict=True):
        if case.classes != first.classes or case.frame != first.frame or case.label != first.label:
            raise GeometryError(f"{name}: not the picture, grid, label and classes of {names[0]}.")


def _draw_method(sheet: Sheet, grid: _ComparisonGrid, column: int, case: PanelCase, name: str) -> None:
    """The column of a method: its name, what it predicts, and a map for every row."""
    left, fits = grid.find_left(column), int(grid.cell / 0.095)
    for line, text in enumerate(reversed(_break_into_two_lines(name, fits))):
        sheet.text(left, 0.86 - 0.16 * line, text, size=11, weight="bold")
    predicted = case.classes[case.predicted]
    mark = "" if case.label is None else ("  ✓" if predicted == case.label else "  ✗")
    sheet.text(left, 1.07, clip_words(f"says {predicted}", fits) + mark, size=10, color=PREDICTED_INK)
    with_boxes = _find_row_of_boxes(case, [case.classes[k] for k, _ in grid.rows])
    for row, (k, signed) in enumerate(grid.rows):
        axes = sheet.axes(left, grid.find_top(row), grid.cell, grid.height)
        if signed:
            show(axes, blend_signed(case.pixels, case.attention[k], case.limit, case.window))
        else:
            show(axes, blend_heat(case.pixels, case.maps[k], case.window))
        outline_regions(axes, case.regions, case.frame, over_map=True)
        draw_window(axes, case.window, case.frame)
        if row == with_boxes:
            draw_boxes(axes, case.found, case.frame, size=7.0)
        weight = "bold" if k == case.predicted else "normal"
        sheet.text(left, grid.find_top(row) - 0.09, f"{case.probabilities[k]:.1%}", size=10, weight=weight)


def _label_row(sheet: Sheet, grid: _ComparisonGrid, row: int, label: str, *, signed: bool) -> None:
    """Class and kind of map to the left of a row, and its colour bar to the right."""
    middle = grid.find_top(row) + grid.height / 2
    name = clip_words(label, int(grid.height / 0.09))
    sheet.text(grid.left - 0.36, middle, name, size=10, weight="bold", rotation=90, ha="center", va="center")
    symbol = "attention $g(M'_c)$" if signed else "class map $g(M_c)$"
    sheet.text(grid.left - 0.14, middle, symbol, size=9, rotation=90, ha="center", va="center", parse_math=True)
    ends = ("for", "against") if signed else ("highest", "lowest")
    bar = grid.find_left(grid.columns) + 0.05
    sheet.bar(bar, grid.find_top(row), grid.height, signed=signed, ends=ends, middle="0" if signed else None)


def _break_into_two_lines(name: str, most: int) -> list[str]:
    """A name broken between words where it is too long; what two lines do not hold is clipped."""
    lines = wrap(name, most, break_long_words=False) or [""]
    return [clip_words(line, most) for line in (lines if len(lines) <= 2 else [lines[0], " ".join(lines[1:])])]


def _find_row_of_boxes(case: PanelCase, classes: Sequence[str]) -> int:
    """The first of the rows of a comparison that shows the class of a case's boxes; the top where none does."""
    label = case.found[0].label if case.found else ""
    return classes.index(label) if label in classes else 0
