"""Charts of a report: bars by weight and style (figures 2 and 6 of Liao 2022), intervals, training and ROC curves.

Every chart is a PNG whose bytes depend on its arguments alone. Colours are Okabe and Ito's, told apart by the
colour blind; where lines cross, dash patterns differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sightline.errors import RunError
from sightline.lab.sheet import DPI, png_of

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


@dataclass(frozen=True)
class Bar:
    """One setting: mean accuracy over seeds by image and by study, in the unit of the axis.

    Attributes:
        name: the style of the region, which chooses the colour.
        image_wise: mean image-wise value.
        study_wise: mean study-wise value.
        spread: standard deviation of the study-wise value over seeds, or None with one seed.
        significant: whether the study-wise value differs from the reference.
    """

    name: str
    image_wise: float
    study_wise: float
    spread: float | None = None
    significant: bool = False


@dataclass(frozen=True)
class BarGroup:
    """The bars of one guidance weight."""

    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Reference:
    """A line to compare with: the unguided baseline, with its standard deviation over seeds if there are several."""

    name: str
    value: float
    spread: float | None = None


@dataclass(frozen=True)
class ForestRow:
    """A difference with its 95% interval; no interval where `low` and `high` are None. `note` carries n."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class RocCurve:
    """Points of one receiver operating characteristic, rates 0..1, and its area with interval where there is one."""

    name: str
    false_positive_rate: Sequence[float]
    true_positive_rate: Sequence[float]
    area: float
    low: float | None = None
    high: float | None = None


def bars(
    groups: Sequence[BarGroup],
    *,
    title: str,
    ylabel: str,
    reference: Reference | None = None,
    significance: str = "differs from the reference, p < 0.05",
    bottom: float = 0.0,
) -> bytes:
    """Bars by weight and style: dark up to the image-wise value, light on to the study-wise value, a star above.

    Where the study-wise value is the lower one, the part between the two is hatched instead.

    Args:
        groups: one per weight, in order.
        title: above the chart.
        ylabel: name and unit of the values.
        reference: drawn as a line with its spread as a band.
        significance: what the star means.
        bottom: where the axis starts; anything but 0 is said in the chart.

    Raises:
        RunError: no bars, or a value that is not finite.
    """
    _require([group for group in groups if group.bars], "bars")
    every = [bar for group in groups for bar in group.bars]
    _finite(title, [v for bar in every for v in (bar.image_wise, bar.study_wise, bar.spread)])
    names = list(dict.fromkeys(bar.name for bar in every))
    colours = {name: PALETTE[n % len(PALETTE)] for n, name in enumerate(names)}
    count = sum(len(group.bars) for group in groups)
    figure, axes = _chart(min(max(5.6, 2.0 + 0.42 * count + 0.5 * len(groups)), 11.0), 4.6)

    place, ticks, crossed = 0.0, [], False
    tops = [reference.value + (reference.spread or 0.0)] if reference else []
    stars = []
    for group in groups:
        starts = [place + n for n in range(len(group.bars))]
        for x, bar in zip(starts, group.bars, strict=True):
            low, high = sorted((bar.image_wise, bar.study_wise))
            dark, light = _shade(colours[bar.name], 0.75), _shade(colours[bar.name], 1.55)
            axes.bar(x, low - bottom, 0.86, bottom=bottom, color=dark)
            falls = bar.study_wise < bar.image_wise
            crossed |= falls
            axes.bar(
                x, high - low, 0.86, bottom=low, linewidth=0.8, edgecolor=dark,
                color="white" if falls else light, hatch="////" if falls else None,
            )  # fmt: skip
            if bar.spread:
                axes.errorbar(x, bar.study_wise, bar.spread, color="#222222", capsize=3, linewidth=1.1)
            top = max(high, bar.study_wise + (bar.spread or 0.0))
            tops.append(top)
            if bar.significant:
                stars.append((x, top))
        ticks.append((float(np.mean(starts)) if starts else place, group.label))
        place += len(group.bars) + 0.9
    room = max(tops) - bottom
    for x, top in stars:
        axes.text(x, top + 0.012 * room, "★", ha="center", va="bottom", fontsize=12, color="#222222")
    if reference is not None:
        axes.axhline(reference.value, color="#222222", linestyle=DASHES[1], linewidth=1.3)
        if reference.spread:
            band = (reference.value - reference.spread, reference.value + reference.spread)
            axes.axhspan(*band, color="#222222", alpha=0.13, linewidth=0)
    axes.set(xlim=(-0.9, place - 0.9), ylim=(bottom, bottom + 1.12 * room))
    axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    axes.set_ylabel(ylabel + (f"  (axis starts at {bottom:g})" if bottom else ""))
    _name(axes, title)

    handles: list[Any] = [Patch(facecolor=colours[name], label=name) for name in names]
    handles += [
        Patch(facecolor="#555555", label="dark: image-wise"),
        Patch(facecolor="#c4c4c4", label="light: study-wise"),
    ]
    if crossed:
        handles.append(Patch(facecolor="white", edgecolor="#555555", hatch="////", label="study-wise below image-wise"))
    if stars:
        handles.append(Line2D([], [], marker="*", linestyle="", color="#222222", markersize=10, label=significance))
    if reference is not None:
        spread = f" ± {reference.spread:.3g}" if reference.spread else ""
        label = f"{reference.name}: {reference.value:.3g}{spread}"
        handles.append(Line2D([], [], color="#222222", linestyle=DASHES[1], label=label))
    _legend_below(figure, handles)
    return png_of(figure)


def forest(
    rows: Sequence[ForestRow],
    *,
    title: str = "Difference from the unguided network",
    xlabel: str = "difference (95% interval)",
    better: tuple[str, str] = ("worse", "better"),
    decimals: int = 3,
) -> bytes:
    """Differences with 95% intervals about a line at zero; filled where the interval leaves out zero.

    Raises:
        RunError: no rows, a value that is not finite, or an interval that does not hold its ends in order.
    """
    _require(rows, "rows")
    _finite(title, [v for row in rows for v in (row.value, row.low, row.high)])
    for row in rows:
        if (row.low is None) != (row.high is None) or (
            row.low is not None and row.high is not None and row.low > row.high
        ):
            raise RunError(f"{row.name}: an interval needs a low end below its high end; got {row.low}, {row.high}.")
    figure, axes = _chart(9.2, 1.75 + 0.36 * len(rows))
    axes.axvline(0.0, color="#222222", linewidth=1.1)
    for y, row in enumerate(rows):
        clear = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
        words = _signed(row.value, decimals)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=PALETTE[0], linewidth=2.2, solid_capstyle="butt")
            words += f"  [{_signed(row.low, decimals)}, {_signed(row.high, decimals)}]"
        axes.plot(row.value, y, "o", color=PALETTE[0], markerfacecolor=PALETTE[0] if clear else "white", markersize=7)
        words += f"   {row.note}" if row.note else ""
        axes.text(1.02, y, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9.5, parse_math=False)
    ends = [abs(v) for row in rows for v in (row.value, row.low, row.high) if v is not None]
    reach = 1.1 * max(ends) or 1.0
    axes.set(
        xlim=(-reach, reach), ylim=(len(rows) - 0.4, -0.6), xlabel=f"←  {better[0]}      {xlabel}      {better[1]}  →"
    )
    axes.set_yticks(range(len(rows)), [row.name for row in rows], parse_math=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    _name(axes, title)
    return png_of(figure)


def training_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """One small chart for each column of the histories against `epoch`, a line for each run.

    Args:
        histories: run name -> column name -> values; a column `epoch` in each. A value that was not measured in an
            epoch is NaN and is stepped over.

    Raises:
        RunError: no run, no epochs, or columns of different lengths.
    """
    _require(histories, "histories")
    for name, history in histories.items():
        if "epoch" not in history:
            raise RunError(f"{name}: the history has no column 'epoch'.")
        odd = [column for column, values in history.items() if len(values) != len(history["epoch"])]
        if odd:
            raise RunError(f"{name}: {odd[0]} has another length than epoch in the history.")
    columns = list(dict.fromkeys(column for history in histories.values() for column in history if column != "epoch"))
    _require(columns, "history columns")
    wide = min(len(columns), 3)
    tall = -(-len(columns) // wide)
    figure, grid = _chart(max(5.2, 3.5 * wide), 2.6 * tall + 0.9, tall, wide)
    cells = list(np.atleast_1d(grid).flat)
    for column, axes in zip(columns, cells, strict=False):
        for n, history in enumerate(histories.values()):
            if column in history:
                epochs, values = (np.asarray(history[c], dtype=np.float64) for c in ("epoch", column))
                measured = np.isfinite(values)
                # a single epoch has no line: mark the points of short runs
                marker = "o" if measured.sum() < 4 else None
                axes.plot(epochs[measured], values[measured], **_line(n), marker=marker, markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("epoch")
        axes.grid(color="#e4e4e4", linewidth=0.7)
        _name(axes, column)
    for axes in cells[len(columns) :]:
        axes.set_axis_off()
    _legend_below(figure, [Line2D([], [], **_line(n), label=name) for n, name in enumerate(histories)])
    return png_of(figure)


def roc(curves: Sequence[RocCurve], *, title: str = "Sensitivity against false alarms") -> bytes:
    """Receiver operating characteristics with their areas, and the line of chance.

    Raises:
        RunError: no curve, or rates that are not between 0 and 1 or not of one length.
    """
    _require(curves, "curves")
    figure, axes = _chart(5.6, 6.0 + 0.24 * len(curves))
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=DASHES[2])
    handles = []
    for n, curve in enumerate(curves):
        _finite(curve.name, [curve.area, curve.low, curve.high])
        x, y = (np.asarray(rate, dtype=np.float64) for rate in (curve.false_positive_rate, curve.true_positive_rate))
        if x.shape != y.shape or x.size < 2 or not all(((v >= 0) & (v <= 1)).all() for v in (x, y)):
            raise RunError(f"{curve.name}: a ROC curve needs two equally long lists of rates from 0 to 1.")
        axes.plot(x, y, **_line(n))
        interval = f" [{curve.low:.3f}, {curve.high:.3f}]" if curve.low is not None and curve.high is not None else ""
        handles.append(Line2D([], [], **_line(n), label=f"{curve.name}: area {curve.area:.3f}{interval}"))
    handles.append(Line2D([], [], color="#999999", linewidth=1, linestyle=DASHES[2], label="chance: area 0.5"))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (sensitivity)")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    _name(axes, title)
    _legend_below(figure, handles, columns=1)
    return png_of(figure)


@dataclass(frozen=True)
class FrocCurve:
    """One free-response curve: sensitivity over findings against false boxes an image, a point a threshold.

    Attributes:
        name: in the legend.
        false_per_image: rising.
        sensitivity: 0..1, rising.
        score: mean sensitivity at `RATES`, or None.
        low, high: its 95% interval, or None.
    """

    name: str
    false_per_image: Sequence[float]
    sensitivity: Sequence[float]
    score: float | None = None
    low: float | None = None
    high: float | None = None


def froc(
    curves: Sequence[FrocCurve],
    *,
    rates: Sequence[float] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    title: str = "Findings located against false boxes",
    chance: Sequence[float] | None = None,
) -> bytes:
    """Free-response operating characteristics on a logarithmic axis of false boxes an image.

    A curve is a staircase: it keeps its sensitivity until the next box that is right, and ends with the last box; from
    there on it is drawn level and thin, since no threshold of the method gives more.

    Args:
        curves: at least one; one without a point (no box right) lies on zero.
        rates: false boxes an image at which sensitivity is averaged (Setio 2017); marked by vertical lines.
        title: above the chart.
        chance: sensitivity of random boxes at `rates`, drawn as dots, where it is known.

    Raises:
        RunError: no curve, lists that differ in length or fall, or sensitivities that are not from 0 to 1.
    """
    _require(curves, "curves")
    _require([rate for rate in rates if rate > 0], "positive rates")
    figure, axes = _chart(6.4, 5.2 + 0.24 * len(curves))
    left, right = min(rates) / 2, max(rates) * 1.5
    for rate in rates:
        axes.axvline(rate, color="#e4e4e4", linewidth=0.7)
    handles = []
    for n, curve in enumerate(curves):
        _finite(curve.name, [curve.score, curve.low, curve.high])
        x, y = (np.asarray(v, dtype=np.float64) for v in (curve.false_per_image, curve.sensitivity))
        rising = x.shape == y.shape and x.ndim == 1 and all((np.diff(v) >= 0).all() for v in (x, y))
        if not rising or not ((y >= 0) & (y <= 1)).all() or not ((x >= 0) & np.isfinite(x)).all():
            raise RunError(
                f"{curve.name}: a FROC curve needs two equally long, rising lists; sensitivities from 0 to 1."
            )
        steps, heights = np.concatenate([[0.0], x]), np.concatenate([[0.0], y])
        style = _line(n)
        # an axis of powers has no zero: what lies left of it is drawn at its edge
        axes.plot(np.maximum(steps, left), heights, drawstyle="steps-post", **style)
        axes.plot([max(steps[-1], left), right], [heights[-1]] * 2, **{**style, "linewidth": 0.8})
        label = curve.name
        if curve.score is not None:
            interval = (
                f" [{curve.low:.3f}, {curve.high:.3f}]" if curve.low is not None and curve.high is not None else ""
            )
            label += f": mean at the rates {curve.score:.3f}{interval}"
        handles.append(Line2D([], [], **style, label=label))
    if chance is not None:
        if len(chance) != len(rates):
            raise RunError(f"Chance needs one sensitivity a rate; got {len(chance)} for {len(rates)}.")
        axes.plot(rates, chance, "o", color="#999999", markersize=4)
        handles.append(Line2D([], [], marker="o", linestyle="", color="#999999", markersize=4, label="random boxes"))
    axes.set_xscale("log", base=2)
    axes.set(xlim=(left, right), ylim=(-0.01, 1.01))
    axes.set_xticks(list(rates), [f"{rate:g}" for rate in rates])
    axes.xaxis.minorticks_off()
    axes.set(xlabel="false boxes an image", ylabel="sensitivity (share of findings located)")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    _name(axes, title)
    _legend_below(figure, handles, columns=1)
    return png_of(figure)


def _chart(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns)
    for axes in np.atleast_1d(grid).flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9.5)
    return figure, grid


def _name(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=12, loc="left", pad=8, parse_math=False)


def _legend_below(figure: Any, handles: Sequence[Any], columns: int | None = None) -> None:
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


def _line(n: int) -> dict[str, Any]:
    return {
        "color": PALETTE[n % len(PALETTE)], "linestyle": DASHES[(n // len(PALETTE) + n) % len(DASHES)], "linewidth": 1.8
    }  # fmt: skip


def _shade(colour: str, factor: float) -> tuple[float, float, float]:
    """A darker (< 1) or lighter (1..2) shade of a colour."""
    r, g, b = (c * factor if factor <= 1 else c + (1 - c) * (factor - 1) for c in to_rgb(colour))
    return r, g, b


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")


def _require(things: Any, what: str) -> None:
    if not things:
        raise RunError(f"A chart needs {what}; got none.")


def _finite(what: str, values: Iterable[float | None]) -> None:
    odd = [v for v in values if v is not None and not math.isfinite(v)]
    if odd:
        raise RunError(f"{what}: a chart needs finite values; got {odd[0]}.", "Leave out what was not measured.")
