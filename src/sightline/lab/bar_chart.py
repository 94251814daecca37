"""Bars by guidance weight and style, image-wise and study-wise (figures 2 and 6 of Liao 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sightline.lab.chart import DASHES, PALETTE, chart, headed, legend_below, require, require_finite
from sightline.lab.sheet import png_of


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
    require([group for group in groups if group.bars], "bars")
    every = [bar for group in groups for bar in group.bars]
    require_finite(title, [v for bar in every for v in (bar.image_wise, bar.study_wise, bar.spread)])
    names = list(dict.fromkeys(bar.name for bar in every))
    colours = {name: PALETTE[n % len(PALETTE)] for n, name in enumerate(names)}
    count = sum(len(group.bars) for group in groups)
    figure, axes = chart(min(max(5.6, 2.0 + 0.42 * count + 0.5 * len(groups)), 11.0), 4.6)

    place, ticks = 0.0, []
    tops = [reference.value + (reference.spread or 0.0)] if reference else []
    stars = []
    for group in groups:
        starts = [place + n for n in range(len(group.bars))]
        for x, bar in zip(starts, group.bars, strict=True):
            _bar(axes, x, bar, colours[bar.name], bottom)
            tops.append(max(bar.image_wise, bar.study_wise + (bar.spread or 0.0)))
            if bar.significant:
                stars.append((x, tops[-1]))
        ticks.append((float(np.mean(starts)) if starts else place, group.label))
        place += len(group.bars) + 0.9
    room = max(tops) - bottom
    for x, top in stars:
        axes.text(x, top + 0.012 * room, "★", ha="center", va="bottom", fontsize=12, color="#222222")
    if reference is not None:
        _reference(axes, reference)
    axes.set(xlim=(-0.9, place - 0.9), ylim=(bottom, bottom + 1.12 * room))
    axes.set_xticks([x for x, _ in ticks], [label for _, label in ticks])
    axes.set_ylabel(ylabel + (f"  (axis starts at {bottom:g})" if bottom else ""))
    headed(axes, title)
    crossed = any(bar.study_wise < bar.image_wise for bar in every)
    legend_below(figure, _handles(colours, crossed, significance if stars else None, reference))
    return png_of(figure)


def _bar(axes: Any, x: float, bar: Bar, colour: str, bottom: float) -> None:
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


def _reference(axes: Any, reference: Reference) -> None:
    axes.axhline(reference.value, color="#222222", linestyle=DASHES[1], linewidth=1.3)
    if reference.spread:
        band = (reference.value - reference.spread, reference.value + reference.spread)
        axes.axhspan(*band, color="#222222", alpha=0.13, linewidth=0)


def _handles(
    colours: Mapping[str, str], crossed: bool, significance: str | None, reference: Reference | None
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
    if reference is not None:
        spread = f" ± {reference.spread:.3g}" if reference.spread else ""
        label = f"{reference.name}: {reference.value:.3g}{spread}"
        handles.append(Line2D([], [], color="#222222", linestyle=DASHES[1], label=label))
    return handles


def shade(colour: str, factor: float) -> tuple[float, float, float]:
    """A darker (< 1) or lighter (1..2) shade of a colour."""
    r, g, b = (c * factor if factor <= 1 else c + (1 - c) * (factor - 1) for c in to_rgb(colour))
    return r, g, b
