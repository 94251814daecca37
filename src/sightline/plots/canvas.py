"""A page of pictures and words, laid out in inches, and its PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sightline.io.picture import SOFTWARE
from sightline.plots.overlay import FOUND, OUTLINES, WINDOW, draw_bar_image
from sightline.structures.regions import Region

DPI = 110
INK = "#222222"
_NAMES = {
    "focus": "focus region (expert)",
    "finding": "finding (expert)",
    "gaze": "gaze (reader)",
    "organ": "organ",
    "ignore": "not scored",
}


class Sheet:
    """A white page measured in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        """An empty page of a size in inches."""
        self.width, self.height = width, height
        self.figure: Any = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes without ticks yet, by their top left corner and size."""
        box = (left / self.width, 1.0 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(self, left: float, baseline: float, words: str, *, parse_math: bool = False, **style: Any) -> None:
        """Words at their baseline; `style` as matplotlib's Text."""
        # names come from tables and file names: a dollar sign in them is no formula
        place = (left / self.width, 1.0 - baseline / self.height)
        self.figure.text(*place, words, parse_math=parse_math, **{"color": INK, **style})

    def bar(
        self, left: float, top: float, height: float, *, signed: bool, ends: tuple[str, str], middle: str | None = None
    ) -> None:
        """A colour bar with a word at its top and bottom end."""
        axes = self.axes(left, top, 0.14, height)
        axes.imshow(draw_bar_image(signed), aspect="auto", extent=(0, 1, 0, 1))
        axes.set(xticks=[], yticks=[])
        self.text(left + 0.2, top, ends[0], size=9, va="top", linespacing=1.2)
        self.text(left + 0.2, top + height, ends[1], size=9, va="bottom", linespacing=1.2)
        if middle is not None:
            self.text(left + 0.2, top + height / 2, middle, size=9, va="center")

    def legend(
        self, left: float, baseline: float, regions: Sequence[Region], *, found: bool = False, window: bool = False
    ) -> None:
        """One line that names the outlines that occur: an expert's by role, the network's boxes and its window."""
        lines = [(OUTLINES[role], _NAMES[role]) for role in OUTLINES if any(r.tag.role == role for r in regions)]
        lines += [(FOUND, "box (network), score")] if found else []
        lines += [(WINDOW, "part seen (network)")] if window else []
        step = min(2.2, (self.width - left) / max(len(lines), 1))
        for (colour, style), name in lines:
            y = 1.0 - (baseline - 0.045) / self.height
            ends = [left / self.width, (left + 0.4) / self.width]
            for width, stroke in ((4.2, "#222222"), (2.2, colour)):
                line = Line2D(ends, [y, y], color=stroke, linewidth=width, linestyle="solid" if width > 4 else style)
                self.figure.add_artist(line)
            self.text(left + 0.48, baseline, name, size=9.5 if step > 2.0 else 8.5)
            left += step

    def png(self) -> bytes:
        """The page as PNG."""
        return encode_png(self.figure)


def encode_png(figure: Any) -> bytes:
    """A matplotlib figure as PNG bytes that depend on nothing but the drawing."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": SOFTWARE})
    return buffer.getvalue()
