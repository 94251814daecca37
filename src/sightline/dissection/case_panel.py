"""One vertebra, what a network says of it, and which of its units said so (Engstler 2022, Table 3).

On the left the vertebra in three planes. On the right the units with the largest r_k = sum of M_k A_k on this case
(M_k: where the activation A_k is above the unit's threshold), each with the sagittal slice in which it responds most,
the name that experts gave it, its rank among all units by c_k, and what it responds to in other vertebrae.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.dissection.responses import compute_response, draw_contour, tint_units
from sightline.errors import GeometryError, count_noun
from sightline.plots.canvas import INK, Sheet
from sightline.plots.overlay import WINDOW, Pixels
from sightline.plots.planes import PLANES, SAGITTAL, Cube, Plane, cut_plane
from sightline.plots.volume_panels import draw_slice, measure_physical

MOST_UNITS = 5
FOOT = (
    "Contours: where a unit is above its threshold; a square is one faint cell, whole. Names are experts' words for "
    "what a unit responds to in other vertebrae; they are no finding in this one. "
)
SEEN = "Dotted frame: what the network saw."
NO_DIAGNOSIS = "A network's output, not a diagnosis."
FOOT += NO_DIAGNOSIS
_LEFT = 2.75
_UNIT = 1.75
_WORDS = 2.55
_THUMBS = 4
_CALLED, _NOT_CALLED = "#a01010", "#0b5394"


@dataclass(frozen=True, eq=False)
class PanelUnit:
    """One unit on one case.

    Attributes:
        unit: its number in the layer.
        strength: r_k, the sum of its activation above threshold.
        activation: [md, mh, mw], turned as the cube is.
        threshold: T_k.
        name: an expert's words, or empty.
        named_by: who named it, and when; or empty.
        rank: by c_k, 1 for the first; None where the dissection does not rank it.
        units: how many units are ranked.
        c: share of positive cases in which the unit is enabled, or None.
        contrast: c less the same share of negative cases, or None.
        examples: what it responds to most in other cases: pictures [h, w] or [h, w, 3] in 0..1.
    """

    unit: int
    strength: float
    activation: NDArray[np.float64]
    threshold: float
    name: str = ""
    named_by: str = ""
    rank: int | None = None
    units: int = 0
    c: float | None = None
    contrast: float | None = None
    examples: tuple[Pixels, ...] = ()

    @property
    def words(self) -> str:
        """Its name, or that it has none."""
        return self.name or "not named"

    @property
    def standing(self) -> str:
        """Its rank and numbers in one line."""
        parts = [] if self.rank is None else [f"rank {self.rank} of {self.units}"]
        if self.c is not None:
            parts.append(f"c {self.c:.2f}")
        if self.contrast is not None:
            parts.append(f"contrast {self.contrast:+.2f}".replace("-", "\u2212"))
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class CasePanel:
    """What a case panel shows.

    Attributes:
        title: series and level, or what the case is called.
        said: the call in words, e.g. `fractured`.
        probability: of the class that is looked for.
        looked_for: that class.
        called: whether it is what the network says.
        cube: the vertebra as the network saw it, turned for the eye.
        around: the whole patch, turned alike; what the network saw of it is framed. None shows `cube` itself.
        units: the units of this case, strongest first; empty without a dissection.
        facts: further lines below the call: place, level, what is estimated.
        without_units: why there are none, in words.
    """

    title: str
    said: str
    probability: float
    looked_for: str
    called: bool
    cube: Cube
    around: Cube | None = None
    units: tuple[PanelUnit, ...] = ()
    facts: tuple[str, ...] = ()
    without_units: str = ""


def rank_strongest(
    activations: NDArray[np.floating[Any]], thresholds: NDArray[np.floating[Any]], most: int = MOST_UNITS
) -> list[tuple[int, float]]:
    """The units with the largest r_k of one case, strongest first: (unit, r_k); units that are not enabled never.

    Args:
        activations: [u, *m].
        thresholds: [u].
        most: how many.
    """
    flat = np.asarray(activations, dtype=np.float64).reshape(len(activations), -1)
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.shape != (len(flat),):
        raise GeometryError(
            f"{count_noun(len(flat), 'unit has', 'units have')} {limits.size} thresholds.",
            "Dissect the layer of this very run again.",
        )
    r = np.where(flat > limits[:, None], flat, 0.0).sum(axis=1)
    order = np.argsort(-r, kind="stable")
    return [(int(unit), float(r[unit])) for unit in order[:most] if r[unit] > 0]


def draw_case_panel(panel: CasePanel) -> bytes:
    """A PNG: the vertebra on the left, a row for each unit on the right."""
    around = panel.around or panel.cube
    sizes = measure_physical(around, _LEFT)
    planes_top = 1.02 + 0.19 * len(panel.facts)
    left_height = planes_top + sum(h + 0.16 for h, _ in sizes.values())
    rows = max(len(panel.units), 1)
    right = 0.15 + _LEFT + 0.35
    unit_tall = measure_physical(panel.cube, _UNIT)[SAGITTAL.name][0]
    row = unit_tall + 0.34
    has_examples = any(unit.examples for unit in panel.units)
    thumbs = _THUMBS * (_UNIT * 0.86 + 0.08) if has_examples else 0.0
    width = right + (_UNIT + 0.15 + _WORDS + thumbs + 0.15 if panel.units else 0.6)
    words = FOOT if panel.units else f"{panel.without_units} {NO_DIAGNOSIS}".strip()
    if panel.around is not None:
        words = f"{SEEN} {words}"
    foot_lines = textwrap.wrap(words, int(width / 0.07))
    height = max(left_height, (0.95 + rows * row) if panel.units else 0.0) + 0.2 + 0.17 * len(foot_lines)
    sheet = Sheet(width, height)
    _call(sheet, panel)
    y = planes_top
    for plane in PLANES:
        tall, wide = sizes[plane.name]
        axes = sheet.axes(0.15 + (_LEFT - wide) / 2, y, wide, tall)
        draw_slice(axes, cut_plane(around.grey, plane, around.centre), plane, around.centre, letters=True, ticks=True)
        if panel.around is not None:
            _outline_seen(axes, panel.cube, around, plane)
        sheet.text(0.15 + _LEFT + 0.1, y + tall / 2, plane.name, size=9, rotation=90, ha="center", va="center")
        y += tall + 0.16
    if panel.units:
        sheet.text(right, 0.62, "units that respond most to this vertebra", size=11, weight="bold")
        sheet.text(right, 0.83, "slice of highest response", size=9, color="#555555")
        if has_examples:
            at = right + _UNIT + 0.15 + _WORDS
            sheet.text(at, 0.83, "what it responds to most in other vertebrae", size=9, color="#555555")
        for n, unit in enumerate(panel.units):
            _draw_unit_row(sheet, panel, unit, right, 0.95 + n * row, has_examples)
    for n, line in enumerate(foot_lines):
        sheet.text(0.15, height - 0.1 - 0.17 * (len(foot_lines) - 1 - n), line, size=8.5, color="#444444")
    return sheet.png()


def _call(sheet: Sheet, panel: CasePanel) -> None:
    sheet.text(0.15, 0.3, panel.title[: int(sheet.width / 0.105)], size=14, weight="bold")
    colour = _CALLED if panel.called else _NOT_CALLED
    sheet.text(0.15, 0.6, f"network says {panel.said}", size=12, weight="bold", color=colour)
    sheet.text(0.15, 0.83, f"probability of {panel.looked_for}: {panel.probability:.0%}", size=10, color=colour)
    for n, fact in enumerate(panel.facts):
        sheet.text(0.15, 1.03 + 0.19 * n, fact[:44], size=8.5, color="#555555")


def _outline_seen(axes: Any, seen: Cube, around: Cube, plane: Plane) -> None:
    """Frame what the network saw of a patch."""
    corners = around.frame.unmap_points(seen.frame.map_points([(0.0, 0.0, 0.0), seen.grey.shape]))
    rows, columns = (corners[:, axis] for axis in range(3) if axis != plane.normal)
    for colour, dashes, width in (("black", "solid", 1.8), (*WINDOW, 0.9)):
        axes.plot(
            columns[[0, 1, 1, 0, 0]], rows[[0, 0, 1, 1, 0]], color=colour, linestyle=dashes, linewidth=width,
            alpha=0.7, scalex=False, scaley=False,
        )  # fmt: skip


def _draw_unit_row(
    sheet: Sheet, panel: CasePanel, unit: PanelUnit, left: float, top: float, has_examples: bool
) -> None:
    tall, wide = measure_physical(panel.cube, _UNIT)[SAGITTAL.name]
    found = compute_response(unit.activation, unit.threshold, panel.cube.grey.shape)
    k = found.slice_along(SAGITTAL.normal)
    grey = np.ascontiguousarray(panel.cube.grey[:, :, k])
    axes = sheet.axes(left, top, wide, tall)
    level, above = found.level[:, :, k], found.above[:, :, k]
    draw_slice(axes, tint_units(grey, level, above), SAGITTAL, None, letters=False)
    draw_contour(axes, above, 1.3)
    sheet.text(left, top + tall + 0.14, f"sagittal slice {k + 1} of {panel.cube.grey.shape[2]}", size=8)
    words = left + _UNIT + 0.15
    sheet.text(words, top + 0.2, f"unit {unit.unit}", size=12, weight="bold", color=INK)
    lines = textwrap.wrap(unit.words, 30)
    lines = [*lines[:3], lines[3][:29] + "…"] if len(lines) > 4 else lines
    for n, line in enumerate(lines):
        style: dict[str, Any] = {} if unit.name else {"style": "italic", "color": "#777777"}
        sheet.text(words, top + 0.43 + 0.19 * n, line, size=10, **style)
    y = top + 0.43 + 0.19 * len(lines)
    small = [unit.named_by[:38], f"response here: r {unit.strength:.3g}", unit.standing]
    for n, line in enumerate(line for line in small if line):
        sheet.text(words, y + 0.03 + 0.17 * n, line, size=8.5, color="#555555")
    if has_examples:
        _draw_examples(sheet, unit, words + _WORDS, top, _UNIT * 0.86)


def _draw_examples(sheet: Sheet, unit: PanelUnit, left: float, top: float, side: float) -> None:
    if not unit.examples:
        sheet.text(
            left, top + side / 2, "no gallery: not among the first ranks", size=9, color="#777777", style="italic"
        )
    for n, picture in enumerate(unit.examples[:_THUMBS]):
        axes = sheet.axes(left + n * (side + 0.08), top, side, side)
        high, wide = picture.shape[:2]
        axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, extent=(0, wide, high, 0), interpolation="bilinear")
        axes.set(xticks=[], yticks=[])
        axes.set_anchor("NW")
        for spine in axes.spines.values():
            spine.set_visible(False)


def describe_case(panel: CasePanel) -> str:
    """The panel in sentences, for whoever cannot see it and for the page."""
    sentence = f"{panel.title}: {panel.said}, probability of {panel.looked_for} {panel.probability:.0%}."
    for u in panel.units:
        standing = f", {u.standing}" if u.standing else ""
        sentence += f" Unit {u.unit} ({u.words}): r {u.strength:.3g}{standing}."
    return sentence
