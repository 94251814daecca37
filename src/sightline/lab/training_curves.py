"""Histories of trainings: a small chart for each column, a line for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sightline.errors import RunError
from sightline.lab.chart import chart, headed, legend_below, line_style, require
from sightline.lab.sheet import png_of


def training_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """One small chart for each column of the histories against `epoch`, a line for each run.

    Args:
        histories: run name -> column name -> values; a column `epoch` in each. A value that was not measured in an
            epoch is NaN and is stepped over.

    Raises:
        RunError: no run, no epochs, or columns of different lengths.
    """
    require(histories, "histories")
    for name, history in histories.items():
        if "epoch" not in history:
            raise RunError(f"{name}: the history has no column 'epoch'.")
        odd = [column for column, values in history.items() if len(values) != len(history["epoch"])]
        if odd:
            raise RunError(f"{name}: {odd[0]} has another length than epoch in the history.")
    columns = list(dict.fromkeys(column for history in histories.values() for column in history if column != "epoch"))
    require(columns, "history columns")
    wide = min(len(columns), 3)
    tall = -(-len(columns) // wide)
    figure, grid = chart(max(5.2, 3.5 * wide), 2.6 * tall + 0.9, tall, wide)
    cells = list(np.atleast_1d(grid).flat)
    for column, axes in zip(columns, cells, strict=False):
        for n, history in enumerate(histories.values()):
            if column in history:
                epochs, values = (np.asarray(history[c], dtype=np.float64) for c in ("epoch", column))
                measured = np.isfinite(values)
                # a single epoch has no line: mark the points of short runs
                marker = "o" if measured.sum() < 4 else None
                axes.plot(epochs[measured], values[measured], **line_style(n), marker=marker, markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("epoch")
        axes.grid(color="#e4e4e4", linewidth=0.7)
        headed(axes, column)
    for axes in cells[len(columns) :]:
        axes.set_axis_off()
    legend_below(figure, [Line2D([], [], **line_style(n), label=name) for n, name in enumerate(histories)])
    return png_of(figure)
