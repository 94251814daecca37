"""Frames that know where an expert's box lies: the crop around it, and training frames that keep it in view.

Jimenez-Sanchez 2018, section III: the upper-bound model sees only the expert's square about the femoral head; training
pictures of the others are zoomed, turned and shifted as long as that square stays inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from sightline.errors import RecipeError
from sightline.structures.case import Case
from sightline.structures.frame import FloatArray, Frame
from sightline.structures.notation import Notation, write_fields
from sightline.structures.regions import Box, bound_region
from sightline.structures.tag import Role

Corners = tuple[float, float, float, float]
TRIES = 100


def list_boxes(case: Case, role: Role = "finding") -> tuple[Corners, ...]:
    """The boxes around a case's regions of a role: row start, column start, row stop, column stop, source pixels.

    Where something is given both as a box and as an outline, the box counts (`is_covered`).
    """
    having = [region for region in case.regions if region.tag.role == role]
    boxes = [region for region in having if isinstance(region, Box)]
    if not boxes or len(boxes) == len(having):
        return tuple(bound_region(region) for region in having)
    from sightline.data.targets.drawing_styles import is_covered

    outlines = [region for region in having if not isinstance(region, Box) and not is_covered(region, boxes)]
    return tuple(bound_region(region) for region in (*boxes, *outlines))


def find_largest_box(case: Case, role: Role = "finding") -> Corners | None:
    """The box of greatest area of a role, the first of equal ones; None where nothing is marked."""
    return max(list_boxes(case, role), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)


@dataclass(frozen=True)
class Crop:
    """The square around a case's largest box: the expert's crop.

    Attributes:
        role: `finding` or `focus`: whose box.
        margin: added on each side, as a share of the box's longer side.
        jitter: in training, the square's centre moves by up to this share of its side along each axis, and its side
            changes by up to this share.
    """

    role: Role = "finding"
    margin: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that mean nothing."""
        if not (0.0 <= self.margin < math.inf and 0.0 <= self.jitter < 1.0):
            raise RecipeError(
                f"Crop needs margin >= 0 and 0 <= jitter < 1; got {self.margin} and {self.jitter}.",
                "Both are shares of the box's side, e.g. 0.1.",
            )

    def notation(self) -> Notation:
        """What names of kept features hold of it."""
        return write_fields("Crop", role=self.role, margin=self.margin, jitter=self.jitter)

    def square(self, around: Corners, rng: Generator | None = None) -> tuple[float, float, float]:
        """Row and column of the square's corner and its side, in source pixels; moved at random with `rng`."""
        row, column, side = self._place_still(around)
        if rng is not None and self.jitter > 0.0:
            row, column = (x + side * rng.uniform(-self.jitter, self.jitter) for x in (row, column))
            side *= 1.0 + rng.uniform(-self.jitter, self.jitter)
        return row - side / 2.0, column - side / 2.0, side

    def part(self, around: Corners) -> Corners:
        """The part of the picture that any of its squares can show, turned by any angle."""
        row, column, side = self._place_still(around)
        half = side * self.reach / 2.0
        return row - half, column - half, row + half, column + half

    @property
    def reach(self) -> float:
        """Side of that part over the square's side."""
        return (1.0 + 3.0 * self.jitter) * math.sqrt(2.0)

    def _place_still(self, around: Corners) -> tuple[float, float, float]:
        r0, c0, r1, c1 = around
        return (r0 + r1) / 2.0, (c0 + c1) / 2.0, max(r1 - r0, c1 - c0) * (1.0 + 2.0 * self.margin)


@dataclass(frozen=True)
class RegionJitter:
    """Training frames zoomed, turned and shifted, drawn again until the case's largest box stays inside.

    It takes the place of a view's own crops and turns. The defaults are those of Jimenez-Sanchez 2018, whose shifts of
    up to 1250 pixels are half the long side of its pictures.

    Attributes:
        chance: share of images that it changes; the others are shown whole.
        role: `finding` or `focus`: the box that stays inside.
        zoom_out: range of factors below 1; half of the changed images are smaller than before.
        zoom_in: range of factors above 1, for the other half.
        rotation_deg: range of angles, turned to either side.
        shift: shifts along each axis are uniform in +- this share of the picture's long side.
    """

    chance: float = 0.5
    role: Role = "finding"
    zoom_out: tuple[float, float] = (0.4, 0.9)
    zoom_in: tuple[float, float] = (1.3, 1.9)
    rotation_deg: tuple[float, float] = (5.0, 15.0)
    shift: float = 0.5

    def __post_init__(self) -> None:
        """Refuse ranges that mean nothing."""
        ranges = (self.zoom_out, self.zoom_in, self.rotation_deg)
        if any(not low <= high for low, high in ranges) or min(self.zoom_out[0], self.zoom_in[0]) <= 0.0:
            raise RecipeError(
                f"RegionJitter needs ranges of low <= high and zooms above 0; got {ranges}.",
                "Try the defaults.",
            )
        if not (0.0 <= self.chance <= 1.0 and 0.0 <= self.shift <= 1.0):
            raise RecipeError(
                f"RegionJitter.chance and .shift lie in 0..1; got {self.chance}, {self.shift}.",
                "shift is a share of the picture's long side.",
            )

    def notation(self) -> Notation:
        """What names of kept features hold of it."""
        return write_fields(
            "RegionJitter",
            chance=self.chance,
            role=self.role,
            zoom_out=self.zoom_out,
            zoom_in=self.zoom_in,
            rotation_deg=self.rotation_deg,
            shift=self.shift,
        )

    def draw(self, square: Frame, side: float, size: int, rng: Generator, around: Corners | None) -> Frame:
        """A training frame.

        Args:
            square: grid whose pixels are source pixels, and whose corner is the base square's.
            side: side of the base square in source pixels.
            size: side of the frame's grid.
            rng: decides.
            around: the box to keep inside, in source pixels; None lets everything pass.
        """
        plain = resize_square(square, (0.0, 0.0), side, size)
        if rng.random() >= self.chance:
            return plain
        for _ in range(TRIES):
            zoom = rng.uniform(*(self.zoom_in if rng.random() < 0.5 else self.zoom_out))
            shift = rng.uniform(-self.shift, self.shift, 2) * side
            start = (side - side / zoom) / 2.0 - shift
            frame = resize_square(square, start, side / zoom, size).rotate(self.turn(rng))
            if around is None or _is_held(frame, around):
                return frame
        # a box that nearly fills the picture
        return plain

    def turn(self, rng: Generator) -> float:
        """An angle in degrees, to either side."""
        angle = rng.uniform(*self.rotation_deg)
        return float(angle if rng.random() < 0.5 else -angle)


def resize_square(grid: Frame, start: tuple[float, float] | FloatArray, side: float, size: int) -> Frame:
    """A square of a grid, from `start` and of any `side`, on a grid of `size`."""
    pixel = side / size
    return grid.then([[pixel, 0.0, start[0]], [0.0, pixel, start[1]], [0.0, 0.0, 1.0]], (size, size))


def _is_held(frame: Frame, around: Corners) -> bool:
    r0, c0, r1, c1 = around
    corners = frame.unmap_points([(r0, c0), (r0, c1), (r1, c1), (r1, c0)])
    return bool((corners >= 0.0).all() and (corners <= np.array(frame.shape)).all())
