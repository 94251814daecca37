"""What all charts of a report share: a page, colours and dashes, a heading, a legend, and what they refuse.

Every chart is a PNG whose bytes depend on its arguments alone. Colours are Okabe and Ito's, told apart by the
colour blind; where lines cross, dash patterns differ as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sightline.errors import RunError
from sightline.plots.canvas import DPI, encode_png

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
NOTE = 44  # characters a line of what is counted, beside a forest plot
NAME = 34  # of a row's name, on its other side
TITLE = 64  # of what stands above it
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def make_chart(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes: one, or a grid of them."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns)
    for axes in np.atleast_1d(grid).flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9.5)
    return figure, grid


def set_title(axes: Any, title: str) -> None:
    """The axes under a title."""
    axes.set_title(title, fontsize=12, loc="left", pad=8, parse_math=False)


def add_legend_below(figure: Any, handles: Sequence[Any], columns: int | None = None) -> None:
    """A legend below the axes, in as many columns as its words leave room for."""
    width, height = figure.get_size_inches()
    longest = max(len(str(handle.get_label())) for handle in handles)
    fits = max(1, int(width / (0.55 + 0.078 * longest)))
    legend = figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=columns or min(fits, len(handles)),
        frameon=False,
        fontsize=9,
    )
    more = 0
    for text in legend.get_texts():
        text.set_parse_math(False)
        # a long name in two lines, and the page as much taller: cut off, it would take its number with it
        text.set_text(textwrap.fill(text.get_text(), int((width - 0.5) / 0.072)))
        more += text.get_text().count("\n")
    figure.set_size_inches(width, height + 0.16 * more)


def choose_line_style(n: int) -> dict[str, Any]:
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


def require_drawable(what: str, values: Iterable[float | None]) -> None:
    """Refuse numbers that cannot be drawn.

    Raises:
        RunError: one is not finite.
    """
    odd = [v for v in values if v is not None and not math.isfinite(v)]
    if odd:
        raise RunError(f"{what}: a chart needs finite values; got {odd[0]}.", "Leave out what was not measured.")


@dataclass(frozen=True)
class AccuracyBar:
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
class Reference:
    """A line to compare with: the unguided baseline, with its standard deviation over seeds if there are several."""

    name: str
    value: float
    spread: float | None = None


@dataclass(frozen=True)
class BarGroup:
    """The bars of one guidance weight.

    Attributes:
        label: below the bars.
        bars: side by side.
        reference: what these bars, and no others, are compared with; None takes the chart's.
        block: a second line below the neighbouring groups that share it: the size or task they are about.
    """

    label: str
    bars: tuple[AccuracyBar, ...]
    reference: Reference | None = None
    block: str = ""


def draw_bars(
    groups: Sequence[BarGroup],
    *,
    title: str,
    ylabel: str,
    reference: Reference | None = None,
    significance: str = "differs from the reference, p < 0.05",
    bottom: float = 0.0,
) -> bytes:
    """Bars by weight and style: dark up to the image-wise value, light on to the study-wise value, a star above.

    Where the study-wise value is the lower one, the part between the two is hatched instead. Each reference is drawn
    behind the bars that are compared with it, and nowhere else.

    Args:
        groups: one per weight, in order; those of one reference and block stand together.
        title: above the chart.
        ylabel: name and unit of the values.
        reference: of groups that have none of their own; drawn as a line with its spread as a band.
        significance: what the star means.
        bottom: where the axis starts; anything but 0 is said in the chart.

    Raises:
        RunError: no bars, or a value that is not finite.
    """
    require([group for group in groups if group.bars], "bars")
    groups = [replace(group, reference=group.reference or reference) for group in groups if group.bars]
    every = [bar for group in groups for bar in group.bars]
    references = list(dict.fromkeys(group.reference for group in groups if group.reference is not None))
    values = [v for bar in every for v in (bar.image_wise, bar.study_wise, bar.spread)]
    require_drawable(title, [*values, *(v for line in references for v in (line.value, line.spread))])
    names = list(dict.fromkeys(bar.name for bar in every))
    colours = {name: PALETTE[n % len(PALETTE)] for n, name in enumerate(names)}
    blocks = _group_blocks(groups)
    width = 2.0 + 0.36 * len(every) + 0.4 * len(groups) + 0.4 * len(blocks)
    figure, axes = make_chart(min(max(5.6, width), 15.0), 4.6)

    place, ticks = 0.0, []
    tops = [line.value + (line.spread or 0.0) for line in references]
    stars = []
    for block in blocks:
        begun = place
        for group in block:
            for n, bar in enumerate(group.bars):
                _draw_bar(axes, place + n, bar, colours[bar.name], bottom)
                tops.append(max(bar.image_wise, bar.study_wise + (bar.spread or 0.0)))
                if bar.significant:
                    stars.append((place + n, tops[-1]))
            ticks.append((place + (len(group.bars) - 1) / 2.0, group.label))
            place += len(group.bars) + 0.9
        _finish_block(axes, block[0], references, (begun, place))
        place += 0.9
    room = max(tops) - bottom
    for x, top in stars:
        axes.text(x, top + 0.012 * room, "★", ha="center", va="bottom", fontsize=12, color="#222222")
    axes.set(xlim=(-0.9, place - 1.8), ylim=(bottom, bottom + 1.12 * room))
    axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    axes.set_ylabel(ylabel + (f"  (axis starts at {bottom:g})" if bottom else ""))
    set_title(axes, title)
    crossed = any(bar.study_wise < bar.image_wise for bar in every)
    add_legend_below(figure, _build_handles(colours, crossed, significance if stars else None, references))
    return encode_png(figure)


def _group_blocks(groups: Sequence[BarGroup]) -> list[list[BarGroup]]:
    """Neighbouring groups that share their reference and block."""
    found: list[list[BarGroup]] = []
    for group in groups:
        if found and (found[-1][0].reference, found[-1][0].block) == (group.reference, group.block):
            found[-1].append(group)
        else:
            found.append([group])
    return found


def _finish_block(axes: Any, group: BarGroup, references: Sequence[Reference], across: tuple[float, float]) -> None:
    """What groups of one block share: the line of their reference behind them, and a second line of words below.

    Args:
        axes: of the chart.
        group: the first group of the block.
        references: of the whole chart, in the order of their dashes.
        across: where the block's bars begin, and where those of the next would.
    """
    begun, end = across
    if group.reference is not None:
        _draw_reference(axes, group.reference, references.index(group.reference), (begun - 0.65, end - 1.25))
    if group.block:
        # as wide as its bars, or it would run into its neighbour
        words = textwrap.fill(group.block, max(10, int(2.6 * (end - begun))))
        axes.annotate(
            words, ((begun + end - 1.9) / 2.0, 0.0), xycoords=axes.get_xaxis_transform(), xytext=(0, -25),
            textcoords="offset points", ha="center", va="top", fontsize=9.5, fontweight="bold", parse_math=False,
        )  # fmt: skip


def _draw_bar(axes: Any, x: float, bar: AccuracyBar, colour: str, bottom: float) -> None:
    low, high = sorted((bar.image_wise, bar.study_wise))
    dark, light = shade(colour, 0.75), shade(colour, 1.55)
    axes.bar(x, low - bottom, 0.86, bottom=bottom, color=dark)
    falls = bar.study_wise < bar.image_wise
    axes.bar(
        x, high - low, 0.86, bottom=low, linewidth=0.8, edgecolor=dark,
        color="white" if falls else light, hatch="////" if falls else None,
    )  # fmt: skip
    if bar.spread:
        axes.errorbar(x, bar.study_wise, bar.spread, color="#222222", capsize=3, linewidth=1.1)


def _draw_reference(axes: Any, reference: Reference, n: int, across: tuple[float, float]) -> None:
    axes.plot(across, [reference.value] * 2, color="#222222", linestyle=DASHES[1 + n % 3], linewidth=1.3)
    if reference.spread:
        low, high = reference.value - reference.spread, reference.value + reference.spread
        axes.fill_between(across, low, high, color="#dddddd", linewidth=0, zorder=0.5)


def _build_handles(
    colours: Mapping[str, str], crossed: bool, significance: str | None, references: Sequence[Reference]
) -> list[Any]:
    """What the legend names."""
    handles: list[Any] = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    handles += [
        Patch(facecolor="#555555", label="dark: image-wise"),
        Patch(facecolor="#c4c4c4", label="light: study-wise"),
    ]
    if crossed:
        handles.append(Patch(facecolor="white", edgecolor="#555555", hatch="////", label="study-wise below image-wise"))
    if significance is not None:
        handles.append(Line2D([], [], marker="*", linestyle="", color="#222222", markersize=10, label=significance))
    for n, reference in enumerate(references):
        spread = f" ± {reference.spread:.3g}" if reference.spread else ""
        label = f"{reference.name}: {reference.value:.3g}{spread}"
        handles.append(Line2D([], [], color="#222222", linestyle=DASHES[1 + n % 3], label=label))
    return handles


def shade(colour: str, factor: float) -> tuple[float, float, float]:
    """A darker (< 1) or lighter (1..2) shade of a colour."""
    r, g, b = (c * factor if factor <= 1 else c + (1 - c) * (factor - 1) for c in to_rgb(colour))
    return r, g, b


@dataclass(frozen=True)
class ForestRow:
    """A difference with its 95% interval; no interval where `low` and `high` are None. `note` carries n.

    `clear` says whether the difference is told from zero; None: where the interval leaves out zero. `style`: which line
    of the palette the row has in other charts; None: the first.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    clear: bool | None = None
    style: int | None = None


def draw_forest(
    rows: Sequence[ForestRow],
    *,
    title: str = "Difference from the unguided network",
    xlabel: str = "difference (95% interval)",
    better: tuple[str, str] = ("worse", "better"),
    decimals: int = 3,
    narrow: bool = False,
) -> bytes:
    """Differences with 95% intervals about a line at zero; filled where the difference is told from it.

    `narrow`: as wide as a phone, names and numbers above each interval in place of beside it.

    Raises:
        RunError: no rows, a value that is not finite, or an interval that does not hold its ends in order.
    """
    require(rows, "rows")
    require_drawable(title, [v for row in rows for v in (row.value, row.low, row.high)])
    for row in rows:
        if (row.low is None) != (row.high is None) or (
            row.low is not None and row.high is not None and row.low > row.high
        ):
            raise RunError(f"{row.name}: an interval needs a low end below its high end; got {row.low}, {row.high}.")
    notes = [textwrap.wrap(row.note, NOTE) for row in rows]
    names = [textwrap.wrap(row.name, NOTE if narrow else NAME) or [""] for row in rows]
    # longer than the page, what it compares would be cut off
    heading = [textwrap.fill(line, NOTE if narrow else TITLE) for line in title.splitlines()]
    if narrow:
        most = max(map(len, names)) + max(map(len, notes)) + 1
        step = 0.34 + 0.165 * most
        figure, axes = make_chart(4.2, 1.4 + step * len(rows))
    else:
        lines = max(max(map(len, notes)), max(map(len, names)) - 1)
        figure, axes = make_chart(9.2, 1.75 + (0.36 + 0.17 * lines) * len(rows))
    axes.axvline(0.0, color="#222222", linewidth=1.1)
    for y, row in enumerate(rows):
        clear, colour = row.clear, PALETTE[(row.style or 0) % len(PALETTE)]
        if clear is None:
            clear = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
        words = _format_signed(row.value, decimals)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
            words += f"  [{_format_signed(row.low, decimals)}, {_format_signed(row.high, decimals)}]"
        axes.plot(row.value, y, "o", color=colour, markerfacecolor=colour if clear else "white", markersize=7)
        # what is counted stands below the numbers: beside them it would leave the chart no room
        if narrow:
            words = "\n".join([*names[y], words, *notes[y]])
            place, above = (0.0, y - 0.14 / step), "bottom"
        else:
            words = "\n".join([words, *notes[y]])
            place, above = (1.02, y), "center"
        axes.text(*place, words, transform=axes.get_yaxis_transform(), va=above, fontsize=9.5, parse_math=False,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0} if narrow else None)  # fmt: skip
    ends = [abs(v) for row in rows for v in (row.value, row.low, row.high) if v is not None]
    reach = 1.1 * max(ends) or 1.0
    gap = "  " if narrow else "      "
    axes.set(
        xlim=(-reach, reach),
        ylim=(len(rows) - (0.7 if narrow else 0.4), -1.0 if narrow else -0.6),
        xlabel=f"←  {better[0]}{gap}{xlabel}{gap}{better[1]}  →",
    )
    if narrow:
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)
        axes.spines["left"].set_visible(False)
    else:
        axes.set_yticks(range(len(rows)), ["\n".join(lines) for lines in names], parse_math=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    set_title(axes, "\n".join(heading))
    return encode_png(figure)


def _format_signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")
