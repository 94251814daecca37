"""What a panel shows: one picture, what an expert marked on it, and what a network made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError
from sightline.frame import Frame
from sightline.lab.overlay import Pixels, checked_maps, checked_pixels
from sightline.lab.scored_box import ScoredBox
from sightline.region import Region

DISCLAIMER = "Colour shows where the network looked; it is not a diagnosis."
PREDICTED_INK = "#0b5394"


@dataclass(frozen=True)
class PanelCase:
    """One picture, what an expert marked on it and what a network made of it.

    Attributes:
        title: what to call the picture.
        pixels: float [h, w] or [h, w, 3] in 0..1, on the network's input grid.
        frame: of the input grid.
        regions: in source pixels.
        classes: k names in the order of the maps.
        maps: float [k, mh, mw], M_c with its bias.
        attention: float [k, mh, mw], M'_c; the cells of a class sum to its logit.
        probabilities: float [k].
        label: the true class, or None where it is not known.
        found: boxes of the network, in source pixels.
        window: [2, 3], the part of the input grid that the maps cover (`Evidence.window`); None: all of it.

    Raises:
        GeometryError: sizes that do not fit each other, no maps, or values that are not finite.
    """

    title: str
    pixels: Pixels
    frame: Frame
    regions: tuple[Region, ...]
    classes: tuple[str, ...]
    maps: NDArray[np.float64]
    attention: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    label: str | None = None
    found: tuple[ScoredBox, ...] = ()
    window: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Check every size against the classes and the frame."""
        object.__setattr__(self, "pixels", checked_pixels(self.pixels, self.frame))
        for name in ("maps", "attention"):
            array = checked_maps(getattr(self, name), f"{self.title}: {name}", 3)
            if len(array) != len(self.classes):
                raise GeometryError(f"{self.title}: {len(array)} {name} for {len(self.classes)} classes.")
            object.__setattr__(self, name, array)
        probabilities = checked_maps(self.probabilities, f"{self.title}: probabilities", 1)
        if len(probabilities) != len(self.classes):
            raise GeometryError(f"{self.title}: {len(probabilities)} probabilities for {len(self.classes)} classes.")
        object.__setattr__(self, "probabilities", probabilities)
        if self.label is not None and self.label not in self.classes:
            raise GeometryError(f"{self.title}: the label {self.label!r} is none of the classes {self.classes}.")

    @property
    def predicted(self) -> int:
        """Position of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def limit(self) -> float:
        """The largest size of an attention cell over all classes: the end of the signed colour scale."""
        return float(np.abs(self.attention).max())

    def verdict(self) -> str:
        """The prediction in words, and whether it is right where the truth is known."""
        said = f"network says {self.classes[self.predicted]} ({self.probabilities[self.predicted]:.0%})"
        if self.label is None:
            return said
        right = "correct" if self.label == self.classes[self.predicted] else "wrong"
        return f"{said}; truth is {self.label}: {right}"


def shown_classes(cases: Sequence[PanelCase], most: int) -> list[int]:
    """Classes to draw, in class order: every predicted and true one first, then by probability."""
    first = cases[0]
    order = [case.predicted for case in cases]
    if first.label is not None:
        order.append(first.classes.index(first.label))
    order += list(np.argsort(-np.max([case.probabilities for case in cases], axis=0), kind="stable"))
    return sorted(int(k) for k in list(dict.fromkeys(order))[:most])


def regions_name(case: PanelCase) -> str:
    """What the picture with the outlines is called."""
    return "expert's regions" if case.regions else "no expert's region"


def clipped(words: str, most: int) -> str:
    """Words cut to so many characters, an ellipsis at the cut."""
    return words if len(words) <= most else words[: max(most - 1, 1)].rstrip() + "…"
