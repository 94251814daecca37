"""Charts of a dissection: units ranked by c_k with ties and what chance gives, agreement with masks, calls compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from sightline.lab.dissection import UnitRow
from sightline.lab.figures import PALETTE
from sightline.lab.sheet import DPI, png_of

NAMED = 10


@dataclass(frozen=True)
class AgreementRow:
    """How well one unit's area lies on one mask.

    Attributes:
        unit: its number.
        mask: name of the mask.
        iou: intersection over union, over all cases that have the mask.
        null_95: what shuffled masks stay below 95 times in 100; None where that was not measured.
        p: permutation p, corrected; None likewise.
        cases: that have the mask.
    """

    unit: int
    mask: str
    iou: float
    null_95: float | None
    p: float | None
    cases: int


def ranked_curve(ranked: Sequence[UnitRow], low: NDArray[np.float64], high: NDArray[np.float64], over: str) -> bytes:
    """c_k by rank as a PNG; ties as thick lines, and the band that shuffled labels stay within 95 times in 100.

    Args:
        ranked: units, first rank first.
        low: [u], lower end of the band, in the same order.
        high: [u], upper end.
        over: what c is a share of, in words.
    """
    figure = Figure(figsize=(9.2, 4.6), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    ranks = np.arange(1, len(ranked) + 1)
    c = np.array([row.c for row in ranked])
    axes.fill_between(ranks, low, high, color="#888888", alpha=0.28, linewidth=0, step="mid")
    axes.plot(ranks, c, color=PALETTE[0], linewidth=1.6)
    start = 0
    while start < len(ranked):
        stop = start + ranked[start].ties
        if ranked[start].ties > 1:
            axes.plot([start + 1, stop], [c[start]] * 2, color=PALETTE[1], linewidth=4.0, solid_capstyle="butt")
        start = max(stop, start + 1)
    clear = np.array([row.p is not None and row.p < 0.05 for row in ranked])
    if clear.any():
        axes.plot(ranks[clear], c[clear], "o", color=PALETTE[2], markersize=4.5, markeredgecolor="white",
                  markeredgewidth=0.5)  # fmt: skip
    axes.set(xlim=(0.4, len(ranked) + 0.6), ylim=(-0.02, 1.04), xlabel="rank of the unit",
             ylabel=f"c: share of {over}\nin which the unit is enabled")  # fmt: skip
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color=PALETTE[0], linewidth=1.6, label="units by rank"),
        Line2D([], [], color=PALETTE[1], linewidth=4.0, label="ties: the order within is by contrast"),
        Patch(color="#888888", alpha=0.28, linewidth=0, label="95 of 100 shuffles of the labels"),
    ]
    if clear.any():
        handles.append(Line2D([], [], color=PALETTE[2], marker="o", linestyle="", label="p < 0.05, corrected"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return png_of(figure)


def agreement_strip(rows: Sequence[AgreementRow], units: Sequence[int]) -> bytes:
    """Agreement of units (columns, first ranks first) with masks (rows) as a PNG.

    A cell is framed where it lies above its 95% line of chance. The panel on the right has the best unit of each mask
    beside that line.
    """
    masks = list(dict.fromkeys(row.mask for row in rows))
    at = {(row.mask, row.unit): row for row in rows}
    values = np.array([[at[mask, unit].iou if (mask, unit) in at else np.nan for unit in units] for mask in masks])
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    figure = Figure(figsize=(10.2, 1.75 + 0.36 * len(masks)), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    heat, side = figure.subplots(1, 2, width_ratios=(3.4, 1.0))
    image = heat.imshow(values, cmap="cividis", vmin=0.0, vmax=max(top, 1e-6), aspect="auto")
    for y, mask in enumerate(masks):
        for x, unit in enumerate(units):
            row = at.get((mask, unit))
            if row is not None and row.null_95 is not None and row.iou > row.null_95:
                heat.add_patch(
                    Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor="#ff5c39", linewidth=1.6)
                )
            if row is not None and len(units) <= 20:
                ink = "black" if row.iou > 0.6 * top else "white"
                heat.text(x, y, f"{row.iou:.2f}".lstrip("0"), ha="center", va="center", fontsize=8, color=ink)
    heat.set_xticks(range(len(units)), [str(unit) for unit in units], fontsize=9)
    heat.set_yticks(range(len(masks)), masks, fontsize=9)
    heat.set_xlabel("unit, first rank on the left; framed: above chance")
    for y, mask in enumerate(masks):
        own = [row for row in rows if row.mask == mask]
        best = max(own, key=lambda row: row.iou)
        side.plot([0, best.iou], [y, y], color="#bbbbbb", linewidth=1.0)
        side.plot(best.iou, y, "o", color=PALETTE[0], markersize=6)
        if best.null_95 is not None:
            side.plot([best.null_95] * 2, [y - 0.36, y + 0.36], color=PALETTE[1], linewidth=2.4)
        side.annotate(f"{best.unit}", (best.iou, y), (7, 0), textcoords="offset points", va="center", fontsize=9)
    side.set(ylim=(len(masks) - 0.5, -0.5), yticks=[], xlabel="IoU of the best of all units")
    side.set_xlim(0, 1.25 * max((row.iou for row in rows), default=1.0) or 1.0)
    side.spines[["top", "right", "left"]].set_visible(False)
    figure.colorbar(image, ax=heat, label="IoU", fraction=0.03, pad=0.01)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=PALETTE[0], label="best of all units, with its number"),
        Line2D([], [], color=PALETTE[1], linewidth=2.4, label="95% line of shuffled masks"),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=2, frameon=False, fontsize=9.5)
    return png_of(figure)


@dataclass(frozen=True)
class CallRow:
    """One unit in true calls and in false alarms.

    Attributes:
        unit: its number.
        true_calls: share of true calls in which it is enabled.
        false_alarms: share of false alarms in which it is.
        p: permutation p of the difference, corrected; None where there are too few.
    """

    unit: int
    true_calls: float
    false_alarms: float
    p: float | None

    @property
    def difference(self) -> float:
        """True calls less false alarms."""
        return self.true_calls - self.false_alarms


def calls_compared(rows: Sequence[CallRow], n_true: int, n_false: int) -> bytes:
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
    return png_of(figure)
