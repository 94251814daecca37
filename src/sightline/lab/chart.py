"""What all charts of a report share: a page, colours and dashes, a heading, a legend, and what they refuse.

Every chart is a PNG whose bytes depend on its arguments alone. Colours are Okabe and Ito's, told apart by the
colour blind; where lines cross, dash patterns differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sightline.errors import RunError
from sightline.lab.sheet import DPI

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def chart(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes: one, or a grid of them."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns)
    for axes in np.atleast_1d(grid).flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9.5)
    return figure, grid


def headed(axes: Any, title: str) -> None:
    """The axes under a title."""
    axes.set_title(title, fontsize=12, loc="left", pad=8, parse_math=False)


def legend_below(figure: Any, handles: Sequence[Any], columns: int | None = None) -> None:
    """A legend below the axes, in as many columns as its words leave room for."""
    width = figure.get_size_inches()[0]
    longest = max(len(str(handle.get_label())) for handle in handles)
    fits = max(1, int(width / (0.55 + 0.078 * longest)))
    legend = figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=columns or min(fits, len(handles)),
        frameon=False,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def line_style(n: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line."""
    return {
        "color": PALETTE[n % len(PALETTE)], "linestyle": DASHES[(n // len(PALETTE) + n) % len(DASHES)], "linewidth": 1.8
    }  # fmt: skip


def require(things: Any, what: str) -> None:
    """Refuse a chart of nothing.

    Raises:
        RunError: there is none.
    """
    if not things:
        raise RunError(f"A chart needs {what}; got none.")


def require_finite(what: str, values: Iterable[float | None]) -> None:
    """Refuse numbers that cannot be drawn.

    Raises:
        RunError: one is not finite.
    """
    odd = [v for v in values if v is not None and not math.isfinite(v)]
    if odd:
        raise RunError(f"{what}: a chart needs finite values; got {odd[0]}.", "Leave out what was not measured.")
