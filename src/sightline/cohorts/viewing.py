"""What a degree of visual angle is: screen, distance, and how much of the picture a screen pixel shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sightline.errors import LayoutError


@dataclass(frozen=True)
class Viewing:
    """A reader in front of a screen.

    Attributes:
        screen_px: (rows, columns) of the screen.
        screen_width_mm: width of its visible area.
        distance_mm: from the eyes to the screen.
    """

    screen_px: tuple[int, int]
    screen_width_mm: float
    distance_mm: float

    def __post_init__(self) -> None:
        """Refuse lengths that are none, and metres or centimetres taken for millimetres."""
        rows, columns = self.screen_px
        if not (rows >= 1 and columns >= 1):
            raise LayoutError(f"A screen has rows and columns; got {self.screen_px}.", "Write [1080, 1920].")
        for name, value, low, high in (
            ("screen_width_mm", self.screen_width_mm, 50.0, 5000.0),
            ("distance_mm", self.distance_mm, 100.0, 10000.0),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise LayoutError(
                    f"{name} is {value:g}; a reader's lies between {low:g} and {high:g}.", "Give millimetres."
                )

    @property
    def screen_px_per_deg(self) -> float:
        """Screen pixels a degree in the middle of the screen: 2 d tan(0.5 degrees) / width of a pixel."""
        return 2.0 * self.distance_mm * math.tan(math.radians(0.5)) * self.screen_px[1] / self.screen_width_mm


def viewing_of(screen_px: tuple[int, int], screen_width_mm: float | None, distance_mm: float | None) -> Viewing | None:
    """The geometry, or None where neither length is known.

    Raises:
        LayoutError: one length without the other.
    """
    if screen_width_mm is None and distance_mm is None:
        return None
    if screen_width_mm is None or distance_mm is None:
        raise LayoutError(
            "Degrees need both the width of the screen and the distance to it; one is missing.",
            "Give screen_width_mm and distance_mm, or neither.",
        )
    return Viewing(screen_px, screen_width_mm, distance_mm)
