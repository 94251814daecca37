"""A whole spine on one page: the CT reformed along it, with every vertebra and its probability.

Each row of the sagittal picture is taken where the spine lies at that height, and so is each row of the coronal one (a
curved planar reformation): a scoliotic spine is seen whole in both. Heights, and distances along a row, are true.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

from sightline.errors import count_noun
from sightline.io.volume import Volume
from sightline.plots.canvas import Sheet
from sightline.plots.overlay import show
from sightline.plots.planes import apply_bone_window
from sightline.structures.frame import FloatArray

# how far in front of, behind and beside the spine is shown
BEFORE_MM, BEHIND_MM, BESIDE_MM = 60.0, 80.0, 70.0
ABOVE_MM = 25.0
CALLED = "#ff5c5c"
NOT_CALLED = "#7fd7ff"
AIR_HU = -1024.0
INCHES_PER_MM = 0.0135
FOOT = "Curved reformations, bone window: rows follow the spine. Probabilities are a network's; this is no diagnosis."


@dataclass(frozen=True)
class MarkedVertebra:
    """One vertebra of the overview.

    Attributes:
        level: its name.
        world_mm: its body's centre in the patient (RAS+).
        probability: of the class that is looked for.
        called: whether the network says that class.
    """

    level: str
    world_mm: tuple[float, float, float]
    probability: float
    called: bool


@dataclass(frozen=True, eq=False)
class Reformation:
    """A CT along its spine.

    Attributes:
        sagittal: Hounsfield units [rows, columns] of 1 mm: from head to feet, from front to back.
        coronal: the same height, from the patient's right to left.
        top_mm: height in the patient of the upper edge.
        front_mm: y of the left edge of the sagittal picture.
        right_mm: x of the left edge of the coronal picture.
    """

    sagittal: NDArray[np.float32]
    coronal: NDArray[np.float32]
    top_mm: float
    front_mm: float
    right_mm: float

    def on_sagittal(self, world_mm: ArrayLike) -> tuple[float, float]:
        """(row, column) of a place in the patient."""
        _, y, z = np.asarray(world_mm, dtype=np.float64).tolist()
        return self.top_mm - z, self.front_mm - y

    def on_coronal(self, world_mm: ArrayLike) -> tuple[float, float]:
        """(row, column) of a place in the patient."""
        x, _, z = np.asarray(world_mm, dtype=np.float64).tolist()
        return self.top_mm - z, self.right_mm - x


def reformat_curved(ct: Volume, centres_mm: ArrayLike) -> Reformation:
    """A CT along the centres of vertebral bodies.

    Args:
        ct: in Hounsfield units.
        centres_mm: [n, 3], millimetres in the patient (RAS+).
    """
    centres = np.asarray(centres_mm, dtype=np.float64).reshape(-1, 3)
    corners = ct.world_of(np.array(np.meshgrid(*[(0, n) for n in ct.values.shape])).reshape(3, -1).T)
    low, high = corners.min(axis=0), corners.max(axis=0)
    top = min(centres[:, 2].max() + ABOVE_MM, high[2])
    bottom = max(centres[:, 2].min() - ABOVE_MM, low[2])
    front = min(centres[:, 1].max() + BEFORE_MM, high[1])
    back = max(centres[:, 1].min() - BEHIND_MM, low[1])
    right = min(centres[:, 0].max() + BESIDE_MM, high[0])
    left = max(centres[:, 0].min() - BESIDE_MM, low[0])
    z = top - np.arange(max(1, round(top - bottom))) - 0.5
    x_of, y_of = (_interpolate_along(centres, axis, z) for axis in (0, 1))
    y = front - np.arange(max(1, round(front - back))) - 0.5
    x = right - np.arange(max(1, round(right - left))) - 0.5
    sagittal = np.stack(np.broadcast_arrays(x_of[:, None], y[None, :], z[:, None]), axis=-1)
    coronal = np.stack(np.broadcast_arrays(x[None, :], y_of[:, None], z[:, None]), axis=-1)
    return Reformation(_sample_ct(ct, sagittal), _sample_ct(ct, coronal), top, front, right)


def draw_overview(ct: Volume, vertebrae: Sequence[MarkedVertebra], title: str, notes: Sequence[str] = ()) -> bytes:
    """A PNG: sagittal and coronal reformation; filled marks are called, open ones are not.

    Args:
        ct: in Hounsfield units.
        vertebrae: from head to foot.
        title: heading.
        notes: lines below, what was left out.
    """
    reformed = reformat_curved(ct, [one.world_mm for one in vertebrae])
    shapes = (reformed.sagittal.shape, reformed.coronal.shape)
    # a short piece of a spine is drawn up to half as large again, a whole one fits a screen
    scale = min(INCHES_PER_MM * float(np.clip(320.0 / shapes[0][0], 1.0, 1.5)), 8.0 / shapes[0][0])
    height = shapes[0][0] * scale
    widths = [shape[1] * scale for shape in shapes]
    words = 1.15
    width = max(0.3 + sum(widths) + words + 0.25, 6.8)
    lines = [line for note in (FOOT, *notes) for line in textwrap.wrap(note, int(width / 0.07))]
    called = [one.level for one in vertebrae if one.called]
    summary = f"called fractured: {', '.join(called)}" if called else "no vertebra is called fractured"
    summary += f"; {count_noun(len(vertebrae), 'vertebra', 'vertebrae')} seen"
    # as many lines as they need: of a list of called vertebrae that is cut the last ones would seem not to be called
    names = textwrap.wrap(title, int(width / 0.105)) or [""]
    heads = textwrap.wrap(summary, int(width / 0.085))
    top = 0.88 + 0.24 * (len(names) - 1) + 0.2 * (len(heads) - 1)
    sheet = Sheet(width, top + height + 0.39 + 0.18 * len(lines))
    for n, line in enumerate(names):
        sheet.text(0.15, 0.28 + 0.24 * n, line, size=13, weight="bold")
    for n, line in enumerate(heads):
        sheet.text(0.15, 0.53 + 0.24 * (len(names) - 1) + 0.2 * n, line, size=10.5)
    lefts = (0.15, 0.15 + widths[0] + words)
    pictures = (("sagittal", reformed.sagittal, ("H", "A")), ("coronal", reformed.coronal, ("H", "R")))
    for n, (name, values, letters) in enumerate(pictures):
        sheet.text(lefts[n], top - 0.08, name, size=10)
        axes = sheet.axes(lefts[n], top, widths[n], height)
        show(axes, apply_bone_window(values))
        axes.images[-1].set_interpolation("bilinear")
        ink = {"color": "#ffe08a", "fontsize": 9, "fontweight": "bold"}
        axes.text(values.shape[1] / 2, 2, letters[0], ha="center", va="top", **ink)
        axes.text(2, values.shape[0] / 2, letters[1], ha="left", va="center", **ink)
        for one in vertebrae:
            row, column = (reformed.on_sagittal if n == 0 else reformed.on_coronal)(one.world_mm)
            colour = CALLED if one.called else NOT_CALLED
            axes.plot(
                column, row, marker="o", markersize=6, color=colour, markerfacecolor=colour if one.called else "none",
                markeredgewidth=1.4, scalex=False, scaley=False,
                path_effects=[patheffects.withStroke(linewidth=2.6, foreground="black")],
            )  # fmt: skip
    # words beside the sagittal picture, moved apart where vertebrae lie close
    rows = np.array([reformed.on_sagittal(one.world_mm)[0] for one in vertebrae]) * scale
    for one, wanted, row in zip(vertebrae, rows, spread_rows(rows, 0.17), strict=True):
        left, weight = lefts[0] + widths[0], "bold" if one.called else "normal"
        _draw_leader(sheet, left, top + wanted, top + row)
        sheet.text(
            left + 0.17, top + row + 0.05, f"{one.level}  {one.probability:.0%}", size=10, weight=weight,
            color="#a01010" if one.called else "#222222",
        )  # fmt: skip
    foot = top + height + 0.22
    for n, line in enumerate(lines):
        sheet.text(0.15, foot + 0.18 * n, line, size=8.5, color="#444444")
    return sheet.png()


def spread_rows(rows: ArrayLike, least: float) -> FloatArray:
    """Rising places moved as little as may be so that neighbours are `least` apart (pool adjacent violators)."""
    wanted = np.asarray(rows, dtype=np.float64)
    blocks: list[list[float]] = []  # sum of wanted starts, count
    shifted = wanted - least * np.arange(len(wanted))
    for value in shifted:
        blocks.append([value, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    level = np.concatenate([np.full(int(count), total / count) for total, count in blocks]) if blocks else shifted
    return np.asarray(level + least * np.arange(len(wanted)))


def _draw_leader(sheet: Sheet, left: float, start: float, end: float) -> None:
    xs = [(left + 0.02) / sheet.width, (left + 0.14) / sheet.width]
    ys = [1.0 - start / sheet.height, 1.0 - end / sheet.height]
    sheet.figure.add_artist(Line2D(xs, ys, color="#888888", linewidth=0.8))


def _interpolate_along(centres: FloatArray, axis: int, z: FloatArray) -> FloatArray:
    """A coordinate of the spine at heights, constant beyond its ends; heights that come twice are averaged."""
    heights, where = np.unique(centres[:, 2], return_inverse=True)
    values = np.bincount(where, centres[:, axis]) / np.bincount(where)
    if len(heights) == 1:
        return np.full(len(z), values[0])
    return np.asarray(PchipInterpolator(heights, values)(np.clip(z, heights[0], heights[-1])))


def _sample_ct(ct: Volume, world_mm: FloatArray) -> NDArray[np.float32]:
    """The CT at places in the patient [..., 3], trilinear; air beyond it."""
    places = np.moveaxis(ct.place_of(world_mm) - 0.5, -1, 0)
    return np.asarray(map_coordinates(ct.values, places, output=np.float32, order=1, cval=AIR_HU))
