"""Pictures of where a network looked, like figures 3 to 5 and 7 to 9 of Liao et al. 2022.

Class maps g(M_c) are coloured from the minimum to the maximum of each map. Attention g(M'_c) is coloured about zero
on one scale for all classes of a picture: its cells sum to the logit, so equal colour means an equal push on the
probability, which is what the paper normalises for ("to correspond to the shown intensity with the prediction
probabilities"). Scaling each class by itself would make a class without evidence look as certain as the winner.
"""

from __future__ import annotations

import numpy as np

from sightline.lab.marks import draw_boxes, draw_window
from sightline.lab.overlay import blend_heat, blend_signed, outline, show
from sightline.lab.panel_case import DISCLAIMER, PREDICTED_INK, PanelCase, clipped, regions_name, shown_classes
from sightline.lab.sheet import INK, Sheet

MOST_CLASSES = 6


def draw_panel(case: PanelCase) -> bytes:
    """A PNG: the picture, the expert's regions, and for each class g(M_c) and g(M'_c) with its probability.

    Of more than six classes the predicted, the true and the next most probable ones are shown, and a line says so.
    """
    shown = shown_classes((case,), MOST_CLASSES)
    cell = float(np.clip(10.0 / (1 + len(shown)), 1.6, 2.7))
    height = cell * case.frame.shape[0] / case.frame.shape[1]
    sheet = Sheet(0.15 + (1 + len(shown)) * (cell + 0.12) + 0.32 + 1.25, 2.40 + 2 * height)
    rows = (1.42, 1.42 + height + 0.32)
    sheet.text(0.15, 0.27, clipped(case.title, int(sheet.width / 0.105)), size=13, weight="bold")
    sheet.text(0.15, 0.53, clipped(case.verdict(), int(sheet.width / 0.085)), size=10.5)

    for top, regions, name in ((rows[0], (), "picture"), (rows[1], case.regions, regions_name(case))):
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
        colour = PREDICTED_INK if k == case.predicted else INK
        weight = "bold" if k == case.predicted else "normal"
        fits = int(cell / 0.095)
        sheet.text(left, 0.90, clipped(case.classes[k], fits), size=11, weight=weight, color=colour)
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
