"""Do probabilities mean what they say, and is acting on them worth it: calibration and decision curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.lines import Line2D

from sightline.plots.canvas import encode_png
from sightline.plots.charts import (
    DASHES,
    PALETTE,
    add_legend_below,
    choose_line_style,
    make_chart,
    require,
    require_drawable,
    set_title,
)


@dataclass(frozen=True)
class ReliabilityCurve:
    """Points of one calibration curve: what was said, what was observed, with an interval where there is one."""

    name: str
    said: Sequence[float]
    observed: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]
    style: int | None = None


def draw_reliability(curves: Sequence[ReliabilityCurve], *, title: str = "Predicted and observed probability") -> bytes:
    """Calibration curves with their intervals, and the diagonal of a perfect model.

    Raises:
        RunError: no curve, or numbers that are not finite.
    """
    require(curves, "curves")
    figure, axes = make_chart(5.6, 5.9 + 0.24 * len(curves))
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=DASHES[2])
    handles = []
    for n, curve in enumerate(curves):
        require_drawable(curve.name, [*curve.said, *curve.observed, *curve.low, *curve.high])
        look = choose_line_style(n if curve.style is None else curve.style)
        for x, low, high in zip(curve.said, curve.low, curve.high, strict=True):
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], color=look["color"], linewidth=1.4, alpha=0.75)
        axes.plot(curve.said, curve.observed, marker="o", markersize=5, **look)
        handles.append(Line2D([], [], marker="o", markersize=5, **look, label=curve.name))
    handles.append(Line2D([], [], color="#999999", linewidth=1, linestyle=DASHES[2], label="perfect"))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="probability said", ylabel="share observed (95% interval)")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    set_title(axes, title)
    add_legend_below(figure, handles, columns=1)
    return encode_png(figure)


@dataclass(frozen=True)
class BenefitCurve:
    """Net benefit over thresholds, with an interval where there is one."""

    name: str
    thresholds: Sequence[float]
    benefit: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


def draw_benefits(curves: Sequence[BenefitCurve], *, title: str = "Net benefit of acting on the probability") -> bytes:
    """Decision curves; bands are intervals.

    Raises:
        RunError: no curve, or numbers that are not finite.
    """
    require(curves, "curves")
    figure, axes = make_chart(6.6, 4.6 + 0.24 * len(curves))
    handles = []
    for n, curve in enumerate(curves):
        require_drawable(curve.name, [*curve.thresholds, *curve.benefit, *curve.low, *curve.high])
        ends = [(a, b, c) for a, b, c in zip(curve.thresholds, curve.low, curve.high, strict=False)
                if b is not None and c is not None]  # fmt: skip
        if ends:
            x, low, high = (np.array(part, dtype=np.float64) for part in zip(*ends, strict=True))
            axes.fill_between(x, low, high, color=PALETTE[n % len(PALETTE)], alpha=0.18, linewidth=0)
        axes.plot(curve.thresholds, curve.benefit, **choose_line_style(n))
        handles.append(Line2D([], [], **choose_line_style(n), label=curve.name))
    shown = [value for curve in curves for value in curve.benefit]
    axes.axhline(0.0, color="#999999", linewidth=1)
    # acting on everybody falls without bound: what matters lies above a little below nought
    axes.set(ylim=(-0.35 * max(shown) if max(shown) > 0 else min(shown), 1.15 * max(max(shown), 0.01)))
    axes.set(xlabel="chance of disease from which on one would act", ylabel="net benefit")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    set_title(axes, title)
    add_legend_below(figure, handles)
    return encode_png(figure)
