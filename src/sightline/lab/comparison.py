"""One picture as several networks saw it, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np

from sightline.errors import GeometryError
from sightline.lab.marks import draw_boxes, draw_window
from sightline.lab.overlay import blend_heat, blend_signed, outline, show
from sightline.lab.panel_case import DISCLAIMER, PREDICTED_INK, PanelCase, clipped, regions_name, shown_classes
from sightline.lab.sheet import Sheet


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
    shown = shown_classes(cases, 4)
    both = len(first.classes) <= 2
    lines = [(k, signed) for k in shown for signed in ((False, True) if both else (True,))]
    cell = float(np.clip(10.0 / (1 + len(cases)), 1.7, 2.4))
    height = cell * first.frame.shape[0] / first.frame.shape[1]
    start, step = 1.38, height + 0.32
    grid_left = 0.15 + cell + 0.62
    sheet = Sheet(grid_left + len(cases) * (cell + 0.12) + 1.05, start + max(len(lines), 2) * step + 0.46)
    sheet.text(0.15, 0.27, clipped(first.title, int(sheet.width / 0.105)), size=13, weight="bold")
    truth = "" if first.label is None else f"truth: {first.label}"
    sheet.text(0.15, 0.53, truth, size=10.5)

    for row, (regions, name) in enumerate((((), "picture"), (first.regions, regions_name(first)))):
        axes = sheet.axes(0.15, start + row * step, cell, height)
        show(axes, first.pixels)
        outline(axes, regions, first.frame)
        sheet.text(0.15, start + row * step - 0.09, name, size=10)

    for column, (case, name) in enumerate(zip(cases, names, strict=True)):
        left = grid_left + column * (cell + 0.12)
        fits = int(cell / 0.095)
        for line, text in enumerate(reversed(_in_two_lines(name, fits))):
            sheet.text(left, 0.86 - 0.16 * line, text, size=11, weight="bold")
        said = case.classes[case.predicted]
        mark = "" if case.label is None else ("  ✓" if said == case.label else "  ✗")
        sheet.text(left, 1.07, clipped(f"says {said}", fits) + mark, size=10, color=PREDICTED_INK)
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
        name = clipped(first.classes[k], int(height / 0.09))
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


def _in_two_lines(name: str, most: int) -> list[str]:
    """A name broken between words where it is too long; what two lines do not hold is clipped."""
    lines = wrap(name, most, break_long_words=False) or [""]
    return [clipped(line, most) for line in (lines if len(lines) <= 2 else [lines[0], " ".join(lines[1:])])]


def _row_of_boxes(case: PanelCase, classes: Sequence[str]) -> int:
    """The first of the rows of a comparison that shows the class of a case's boxes; the top where none does."""
    label = case.found[0].label if case.found else ""
    return classes.index(label) if label in classes else 0
