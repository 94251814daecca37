"""What each threshold gives (ROC, free response, risk-coverage), how trainings went, and what size or seed changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sightline.errors import RunError
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
class RocCurve:
    """Points of one receiver operating characteristic, rates 0..1, and its area with interval where there is one.

    `style`: which line of the palette, so that a method keeps its colour from chart to chart; by default its position.
    """

    name: str
    false_positive_rate: Sequence[float]
    true_positive_rate: Sequence[float]
    area: float
    low: float | None = None
    high: float | None = None
    style: int | None = None


def draw_roc(curves: Sequence[RocCurve], *, title: str = "Sensitivity against false alarms") -> bytes:
    """Receiver operating characteristics with their areas, and the line of chance.

    Raises:
        RunError: no curve, or rates that are not between 0 and 1 or not of one length.
    """
    require(curves, "curves")
    figure, axes = make_chart(5.6, 6.0 + 0.24 * len(curves))
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=DASHES[2])
    handles = []
    for n, curve in enumerate(curves):
        require_drawable(curve.name, [curve.area, curve.low, curve.high])
        x, y = (np.asarray(rate, dtype=np.float64) for rate in (curve.false_positive_rate, curve.true_positive_rate))
        if x.shape != y.shape or x.size < 2 or not all(((v >= 0) & (v <= 1)).all() for v in (x, y)):
            raise RunError(f"{curve.name}: a ROC curve needs two equally long lists of rates from 0 to 1.")
        look = choose_line_style(n if curve.style is None else curve.style)
        axes.plot(x, y, **look)
        handles.append(Line2D([], [], **look, label=f"{curve.name}: area {curve.area:.3f}{_format_interval(curve)}"))
    handles.append(Line2D([], [], color="#999999", linewidth=1, linestyle=DASHES[2], label="chance: area 0.5"))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (sensitivity)")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    set_title(axes, title)
    add_legend_below(figure, handles, columns=1)
    return encode_png(figure)


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
    style: int | None = None


def draw_froc(
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
    require(curves, "curves")
    require([rate for rate in rates if rate > 0], "positive rates")
    figure, axes = make_chart(6.4, 5.2 + 0.24 * len(curves))
    left, right = min(rates) / 2, max(rates) * 1.5
    for rate in rates:
        axes.axvline(rate, color="#e4e4e4", linewidth=0.7)
    handles = []
    for n, curve in enumerate(curves):
        require_drawable(curve.name, [curve.score, curve.low, curve.high])
        x, y = _step_points(curve)
        steps, heights = np.concatenate([[0.0], x]), np.concatenate([[0.0], y])
        style = choose_line_style(n if curve.style is None else curve.style)
        # an axis of powers has no zero: what lies left of it is drawn at its edge
        axes.plot(np.maximum(steps, left), heights, drawstyle="steps-post", **style)
        axes.plot([max(steps[-1], left), right], [heights[-1]] * 2, **{**style, "linewidth": 0.8})
        label = curve.name
        if curve.score is not None:
            label += f": mean at the rates {curve.score:.3f}{_format_interval(curve)}"
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
    set_title(axes, title)
    add_legend_below(figure, handles, columns=1)
    return encode_png(figure)


def _step_points(curve: FrocCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A curve's points.

    Raises:
        RunError: they fall, or are no rates.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in (curve.false_per_image, curve.sensitivity))
    rising = x.shape == y.shape and x.ndim == 1 and all((np.diff(v) >= 0).all() for v in (x, y))
    if not rising or not ((y >= 0) & (y <= 1)).all() or not ((x >= 0) & np.isfinite(x)).all():
        raise RunError(f"{curve.name}: a FROC curve needs two equally long, rising lists; sensitivities from 0 to 1.")
    return x, y


def _format_interval(curve: RocCurve | FrocCurve | RiskCurve) -> str:
    return f" [{curve.low:.3f}, {curve.high:.3f}]" if curve.low is not None and curve.high is not None else ""


@dataclass(frozen=True)
class RiskCurve:
    """Error rate of the cases kept against the share kept, the surest first; `area` is its mean (AURC)."""

    name: str
    coverage: Sequence[float]
    risk: Sequence[float]
    area: float | None = None
    low: float | None = None
    high: float | None = None
    style: int | None = None


def draw_risk_coverage(
    curves: Sequence[RiskCurve], *, title: str = "Errors left when unsure cases go to a reader"
) -> bytes:
    """Risk-coverage curves (Geifman 2019) with their areas.

    Raises:
        RunError: no curve, or lists that are no shares or not of one length.
    """
    require(curves, "curves")
    figure, axes = make_chart(6.4, 4.4 + 0.24 * len(curves))
    handles, most = [], 0.05
    for n, curve in enumerate(curves):
        require_drawable(curve.name, [curve.area, curve.low, curve.high])
        x, y = (np.asarray(values, dtype=np.float64) for values in (curve.coverage, curve.risk))
        if x.shape != y.shape or x.size == 0 or not all(((v >= 0) & (v <= 1)).all() for v in (x, y)):
            raise RunError(f"{curve.name}: a risk-coverage curve needs two equally long lists of shares.")
        look = choose_line_style(n if curve.style is None else curve.style)
        axes.plot(x, y, **look, marker="o" if x.size < 4 else None, markersize=4)
        area = "" if curve.area is None else f": AURC {curve.area:.3f}{_format_interval(curve)}"
        handles.append(Line2D([], [], **look, label=f"{curve.name}{area}"))
        most = max(most, float(y.max()))
    axes.set(xlim=(0.0, 1.01), ylim=(-0.02 * most, 1.1 * most))
    axes.set(xlabel="coverage (share of cases answered, the surest first)", ylabel="error rate of those answered")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    set_title(axes, title)
    add_legend_below(figure, handles, columns=1)
    return encode_png(figure)


def draw_training_curves(
    histories: Mapping[str, Mapping[str, Sequence[float]]], styles: Mapping[str, int] | None = None
) -> bytes:
    """One small chart for each column of the histories against `epoch`, a line for each run.

    Args:
        histories: run name -> column name -> values; a column `epoch` in each. A value that was not measured in an
            epoch is NaN and is stepped over.
        styles: which line of the palette a run has; by default its position.

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
    looks = {name: choose_line_style((styles or {}).get(name, n)) for n, name in enumerate(histories)}
    wide = min(len(columns), 3)
    tall = -(-len(columns) // wide)
    figure, grid = make_chart(max(5.2, 3.5 * wide), 2.6 * tall + 0.9, tall, wide)
    cells = list(np.atleast_1d(grid).flat)
    for column, axes in zip(columns, cells, strict=False):
        for name, history in histories.items():
            if column in history:
                epochs, values = (np.asarray(history[c], dtype=np.float64) for c in ("epoch", column))
                measured = np.isfinite(values)
                # a single epoch has no line: mark the points of short runs
                marker = "o" if measured.sum() < 4 else None
                axes.plot(epochs[measured], values[measured], **looks[name], marker=marker, markersize=4)
        if _needs_log_axis([history[column] for history in histories.values() if column in history]):
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlabel("epoch")
        axes.grid(color="#e4e4e4", linewidth=0.7)
        set_title(axes, column)
    for axes in cells[len(columns) :]:
        axes.set_axis_off()
    add_legend_below(figure, [Line2D([], [], **looks[name], label=name) for name in histories])
    return encode_png(figure)


@dataclass(frozen=True)
class SizeCurve:
    """A method's score at several sizes of training set.

    Attributes:
        name: in the legend.
        points: (images, score, low, high), rising; no interval where `low` and `high` are None.
        style: which line of the palette.
    """

    name: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    style: int


def draw_scores_by_size(panels: Mapping[str, Sequence[SizeCurve]], *, minutes_per_image: float | None = None) -> bytes:
    """A panel a metric: score against training images on a logarithmic axis, and above it an expert's minutes.

    Raises:
        RunError: no panel, or a value that cannot be drawn.
    """
    require(panels, "panels")
    curves = [curve for each in panels.values() for curve in each]
    names = {curve.name: curve.style for curve in curves}
    figure, grid = make_chart(5.2 * len(panels), 4.6 + 0.24 * len(names), 1, len(panels))
    sizes = sorted({point[0] for curve in curves for point in curve.points})
    for axes, (metric, each) in zip(np.atleast_1d(grid), panels.items(), strict=True):
        for k, curve in enumerate(each):
            require_drawable(curve.name, [v for point in curve.points for v in point])
            look = choose_line_style(curve.style)
            # methods of one size stand beside one another, so that intervals can be told apart
            x = [n * 1.02 ** (k - (len(each) - 1) / 2) for n, *_ in curve.points]
            axes.plot(x, [point[1] for point in curve.points], marker="o", markersize=5, **look)
            for at, (_, _, low, high) in zip(x, curve.points, strict=True):
                if low is not None and high is not None:
                    axes.plot([at, at], [low, high], color=look["color"], linewidth=1.2)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{n:.0f}" for n in sizes], minor=False)
        axes.set_xticks([], minor=True)
        axes.set(xlabel="training images", xlim=(sizes[0] / 1.15, sizes[-1] * 1.15))
        axes.grid(color="#e4e4e4", linewidth=0.7)
        if minutes_per_image is not None:
            axes.spines["top"].set_visible(True)
            above = axes.secondary_xaxis(
                "top", functions=(lambda n: n * minutes_per_image, lambda minutes: minutes / minutes_per_image)
            )
            above.set_xticks([n * minutes_per_image for n in sizes], [f"{n * minutes_per_image:.0f}" for n in sizes])
            above.set_xticks([], minor=True)
            above.set_xlabel("minutes of marking", fontsize=9.5)
            above.tick_params(labelsize=9.5)
        set_title(axes, metric)
    add_legend_below(figure, [Line2D([], [], **choose_line_style(style), label=name) for name, style in names.items()])
    return encode_png(figure)


def _needs_log_axis(columns: Sequence[Sequence[float]]) -> bool:
    """Whether positive values differ so much (a thousandfold) that a straight axis would show the greatest alone."""
    values = np.concatenate([np.asarray(column, dtype=np.float64) for column in columns])
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0.0 and values.max() > 1000.0 * values.min())


@dataclass(frozen=True)
class BoxPanel:
    """One measure over the trainings of several methods.

    Attributes:
        title: the measure.
        values: one a training, by method; values that are not finite are left out, and a method that has none.
        notes: by method, what stands at the right: a test against its reference.
    """

    title: str
    values: Mapping[str, Sequence[float]]
    notes: Mapping[str, str]


def draw_box_plots(panels: Sequence[BoxPanel], *, title: str = "") -> bytes:
    """Box plots over trainings, a panel a measure: median, quartiles, whiskers to the ends, and every training a dot.

    Raises:
        RunError: no panel, or none with a finite value.
    """
    shown = [(panel, _drop_non_finite(panel.values)) for panel in panels]
    shown = [(panel, values) for panel, values in shown if values]
    require(shown, "finite values of trainings")
    rows = [len(values) for _, values in shown]
    figure, _ = make_chart(9.2, 0.5 + sum(0.42 * n + 0.95 for n in rows))
    figure.clear()
    grid = figure.subplots(len(shown), 1, squeeze=False, height_ratios=[n + 1.2 for n in rows])
    for axes, (panel, values) in zip(grid.flat, shown, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9.5)
        names = list(values)
        drawn = axes.boxplot(
            list(values.values()), orientation="horizontal", positions=range(len(names)), widths=0.55, whis=(0, 100),
            patch_artist=True, medianprops={"color": "#222222", "linewidth": 1.8},
        )  # fmt: skip
        for n, (name, box) in enumerate(zip(names, drawn["boxes"], strict=True)):
            box.set(facecolor=PALETTE[n % len(PALETTE)], alpha=0.35)
            axes.plot(values[name], [n] * len(values[name]), "o", color=PALETTE[n % len(PALETTE)], markersize=4.5)
            note = panel.notes.get(name, "")
            axes.text(
                1.02, n, note, transform=axes.get_yaxis_transform(), va="center", fontsize=9.5, parse_math=False
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        set_title(axes, panel.title)
    if title:
        figure.suptitle(title, fontsize=12, x=0.01, ha="left", parse_math=False)
    return encode_png(figure)


def _drop_non_finite(values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    kept = {name: [float(v) for v in of if np.isfinite(v)] for name, of in values.items()}
    return {name: of for name, of in kept.items() if of}


def draw_histograms(
    values: Mapping[str, NDArray[np.floating]], *, title: str, xlabel: str, styles: Mapping[str, int] | None = None
) -> bytes:
    """How the numbers of several methods are spread: shares of 80 bins between the least and greatest of all, in logs.

    Args:
        values: by method, of any shape.
        title: above the chart.
        xlabel: what the numbers are.
        styles: which line of the palette a method has; by default its position.

    Raises:
        RunError: no method, an empty one, or values that are not finite.
    """
    require(values, "values")
    flat = {name: np.asarray(of, dtype=np.float64).ravel() for name, of in values.items()}
    if not all(of.size and np.isfinite(of).all() for of in flat.values()):
        raise RunError(f"{title}: a histogram needs finite values of every method.", "Leave out what has none.")
    low, high = min(of.min() for of in flat.values()), max(of.max() for of in flat.values())
    edges = np.linspace(low, high if high > low else low + 1.0, 81)
    figure, axes = make_chart(7.2, 4.4 + 0.24 * len(flat))
    handles = []
    for n, (name, of) in enumerate(flat.items()):
        look = choose_line_style((styles or {}).get(name, n))
        share = np.histogram(of, edges)[0] / of.size
        # a bin that holds nothing has no logarithm: the line is broken there
        axes.stairs(np.where(share > 0, share, np.nan), edges, baseline=None, **look)
        label = f"{name}: median {np.median(of):.3g}, mean {of.mean():.3g}, n {of.size:,}"
        handles.append(Line2D([], [], **look, label=label))
    axes.set_yscale("log")
    axes.set(xlabel=xlabel, ylabel="share of a bin (logarithmic)")
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    set_title(axes, title)
    add_legend_below(figure, handles, columns=1)
    return encode_png(figure)
