"""Charts of a dissection: units ranked by c_k with ties and what chance gives, agreement with masks, calls compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from sightline.dissection.results import CallRow, UnitAgreementRow, UnitRow
from sightline.plots.canvas import DPI, encode_png
from sightline.plots.charts import PALETTE

NAMED = 6
MOST_WRITTEN = 20


def draw_ranked_curve(
    ranked: Sequence[UnitRow], low: NDArray[np.float64] | None, high: NDArray[np.float64] | None, over: str
) -> bytes:
    """c_k by rank as a PNG; ties as thick lines, and the band that shuffled labels stay within 95 times in 100.

    Args:
        ranked: units, first rank first.
        low: [u], lower end of the band, in the same order; None without a band.
        high: [u], upper end.
        over: what c is a share of, in words.
    """
    figure = Figure(figsize=(9.2, 4.6), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    ranks = np.arange(1, len(ranked) + 1)
    c = np.array([row.c for row in ranked])
    if low is not None and high is not None:
        axes.fill_between(ranks, low, high, color="#888888", alpha=0.28, linewidth=0, step="mid")
    axes.plot(ranks, c, color=PALETTE[0], linewidth=1.6)
    start = 0
    while start < len(ranked):
        stop = start + ranked[start].ties
        if ranked[start].ties > 1:
            axes.plot([start + 1, stop], [c[start]] * 2, color=PALETTE[1], linewidth=8.0, alpha=0.75,
                      solid_capstyle="butt", zorder=1)  # fmt: skip
        start = max(stop, start + 1)
    clear = np.array([row.p is not None and row.p < 0.05 for row in ranked])
    if clear.any():
        axes.plot(ranks[clear], c[clear], "o", color=PALETTE[2], markersize=4.5, markeredgecolor="white",
                  markeredgewidth=0.5)  # fmt: skip
    lowest = min(float(c.min()), 1.0 if low is None else float(low.min()))
    # where all units are enabled nearly everywhere the curve would be a line at the top
    bottom = -0.02 if lowest < 0.5 else 0.1 * math.floor(10 * lowest) - 0.02
    words = "" if bottom < 0 else f" (axis starts at {bottom + 0.02:.1f})"
    axes.set(xlim=(0.4, len(ranked) + 0.6), ylim=(bottom, 1.02), xlabel="rank of the unit",
             ylabel=f"c: share of {over}\nin which the unit is enabled{words}")  # fmt: skip
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    handles: list[Any] = [
        Line2D([], [], color=PALETTE[0], linewidth=1.6, label="units by rank"),
        Line2D([], [], color=PALETTE[1], linewidth=8.0, alpha=0.75, label="ties: the order within is by contrast"),
    ]
    if low is not None:
        handles.append(Patch(color="#888888", alpha=0.28, linewidth=0, label="95 of 100 shuffles of the labels"))
    if clear.any():
        handles.append(Line2D([], [], color=PALETTE[2], marker="o", linestyle="", label="p < 0.05, corrected"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return encode_png(figure)


def draw_agreement_strip(rows: Sequence[UnitAgreementRow], units: Sequence[int]) -> bytes:
    """Agreement of units (columns, in the order given) with masks (rows) as a PNG, on the layer's cells.

    A cell is framed where it lies above both 95% lines of chance. The panel on the right has the best of all units for
    each mask beside these lines.
    """
    masks = list(dict.fromkeys(row.mask for row in rows))
    at = {(row.mask, row.unit): row for row in rows}
    values = np.array([[at[mask, unit].iou_cells for unit in units] for mask in masks])
    top = max(float(values.max()), 1e-6)
    figure = Figure(figsize=(10.2, 1.85 + 0.36 * len(masks)), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    heat, side = figure.subplots(1, 2, width_ratios=(2.6, 1.0))
    image = heat.imshow(values, cmap="cividis", vmin=0.0, vmax=top, aspect="auto")
    for y, mask in enumerate(masks):
        for x, unit in enumerate(units):
            row = at[mask, unit]
            if row.iou_cells > max(row.shuffled_95, row.moved_95):
                place = (x - 0.46, y - 0.44)
                heat.add_patch(Rectangle(place, 0.92, 0.88, fill=False, edgecolor="#ff5c39", linewidth=1.6))
            if len(units) <= MOST_WRITTEN:
                ink = "black" if row.iou_cells > 0.6 * top else "white"
                heat.text(x, y, f"{row.iou_cells:.2f}"[1:], ha="center", va="center", fontsize=8, color=ink)
    heat.set_xticks(range(len(units)), [str(unit) for unit in units], fontsize=9)
    heat.set_yticks(range(len(masks)), masks, fontsize=9, parse_math=False)
    heat.set_xlabel("unit; framed: above both lines of chance, not corrected")
    best = [max((row for row in rows if row.mask == mask), key=lambda row: row.iou_cells) for mask in masks]
    for y, row in enumerate(best):
        side.plot([0, row.iou_cells], [y, y], color="#bbbbbb", linewidth=1.0)
        side.plot(row.iou_cells, y, "o", color=PALETTE[0], markersize=6)
        for line, colour, dash in ((row.shuffled_95, PALETTE[1], "solid"), (row.moved_95, PALETTE[6], (0, (2, 1)))):
            side.plot([line] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=2.2, linestyle=dash)
        side.annotate(str(row.unit), (row.iou_cells, y), (7, 0), textcoords="offset points", va="center", fontsize=9)
    most = max(max(row.iou_cells, row.shuffled_95, row.moved_95) for row in best)
    side.set(ylim=(len(masks) - 0.5, -0.5), yticks=[], xlim=(0, 1.4 * most or 1.0), xlabel="IoU, best of all units")
    side.spines[["top", "right", "left"]].set_visible(False)
    figure.colorbar(image, ax=heat, label="IoU on cells", fraction=0.03, pad=0.01)
    handles: list[Any] = [
        Line2D([], [], marker="o", linestyle="", color=PALETTE[0], label="best of all units, with its number"),
        Line2D([], [], color=PALETTE[1], linewidth=2.2, label="95% line, masks shuffled between patients"),
        Line2D([], [], color=PALETTE[6], linewidth=2.2, linestyle=(0, (2, 1)), label="95% line, masks moved"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9.5)
    return encode_png(figure)


def draw_calls(rows: Sequence[CallRow], n_true: int, n_false: int) -> bytes:
    """Every unit's share of true calls against its share of false alarms, as a PNG; the most different are named."""
    figure = Figure(figsize=(5.9, 5.9), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1.0, linestyle=(0, (5, 2)))
    x, y = (np.array([getattr(row, name) for row in rows]) for name in ("true_calls", "false_alarms"))
    clear = np.array([row.p is not None and row.p < 0.05 for row in rows])
    axes.plot(x[~clear], y[~clear], "o", color=PALETTE[0], markersize=4, alpha=0.55, markeredgewidth=0)
    axes.plot(x[clear], y[clear], "D", color=PALETTE[1], markersize=6)
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    for row in sorted(rows, key=lambda row: -abs(row.difference))[:NAMED]:
        right = row.difference > 0
        axes.annotate(
            str(row.unit), (row.true_calls, row.false_alarms), (5 if right else -5, 0), textcoords="offset points",
            ha="left" if right else "right", va="center", fontsize=9, path_effects=halo,
        )  # fmt: skip
    axes.set(xlim=(-0.03, 1.06), ylim=(-0.03, 1.06), aspect="equal", xlabel=f"enabled in true calls (n = {n_true})",
             ylabel=f"enabled in false alarms (n = {n_false})")  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    return encode_png(figure)
