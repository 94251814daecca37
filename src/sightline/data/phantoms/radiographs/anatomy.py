"""Bones as drawn outlines with a depth, and how they lie under the tube.

Anatomy is written in millimetres as (x, y): x towards the thumb (wrist) or away from the body's middle (femur),
y towards the fingers or the head. A Pose maps it to (row, column) source pixels of one image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

from sightline.structures.frame import FloatArray


@dataclass(frozen=True, eq=False)
class Bone:
    """One bone's silhouette and what it is made of.

    Attributes:
        name: anatomical name.
        outline: control points [n, 2] of its closed silhouette, (x, y) in mm.
        axis: mid-line [m, 2] from the proximal (femur: head) end, (x, y) in mm.
        depth_mm: greatest thickness in the direction of the beam.
        cortex_mm: thickness of the compact shell at the lowest and at the highest `cortex_at_mm`.
        cortex_at_mm: the two y between which the shell's thickness changes.
        volar_mm: height of the bone's centre towards the palm, and how it rises per mm of y.
        density: trabecular density relative to a young adult's.
        sharp: corners of the outline are kept (False draws a smooth closed spline).
    """

    name: str
    outline: FloatArray
    axis: FloatArray
    depth_mm: float
    cortex_mm: tuple[float, float] = (0.7, 0.7)
    cortex_at_mm: tuple[float, float] = (0.0, 1.0)
    volar_mm: tuple[float, float] = (0.0, 0.0)
    density: float = 1.0
    sharp: bool = False

    def move(self, turn_deg: float = 0.0, about: ArrayLike = (0.0, 0.0), shift: ArrayLike = (0.0, 0.0)) -> Bone:
        """The bone turned (positive: from x towards y) about a point and then shifted, all in mm."""
        theta = math.radians(turn_deg)
        matrix = np.array([[math.cos(theta), math.sin(theta)], [-math.sin(theta), math.cos(theta)]])
        pivot, offset = np.asarray(about, dtype=float), np.asarray(shift, dtype=float)
        outline, axis = ((points - pivot) @ matrix + pivot + offset for points in (self.outline, self.axis))
        return replace(self, outline=outline, axis=axis)

    def roll(self, roll_deg: float) -> Bone:
        """The bone as seen after the limb rolls about its long axis (y) by `roll_deg`.

        A cross-section is taken as an ellipse of the silhouette's width and the bone's depth; its shadow after a
        roll by r is as wide as sqrt(cos2 r + (depth / width)2 sin2 r) times the width.
        """
        cosine, sine = math.cos(math.radians(roll_deg)), math.sin(math.radians(roll_deg))
        centre = self.outline.mean(axis=0)
        width_mm = 2.0 * float(self.outline[:, 0].std()) * math.sqrt(2.0)
        ratio = self.depth_mm / max(width_mm, 1.0)
        widening = math.sqrt(cosine**2 + min(ratio, 1.3) ** 2 * sine**2)

        def project(points: FloatArray) -> FloatArray:
            volar = self.volar_mm[0] + self.volar_mm[1] * (points[:, 1] - centre[1])
            x = centre[0] * cosine + volar * sine + (points[:, 0] - centre[0]) * widening
            return np.column_stack([x, points[:, 1]])

        return replace(self, outline=project(self.outline), axis=project(self.axis))

    def silhouette(self, samples: int = 160) -> FloatArray:
        """The closed silhouette [samples, 2] in mm: a spline through the control points."""
        return self.outline if self.sharp else close_spline(self.outline, samples)


@dataclass(frozen=True)
class LimbPose:
    """How the anatomy lies on the detector.

    Attributes:
        shape: (rows, columns) of the image.
        pixel_mm: size of a pixel in the plane of the bones.
        centre_mm: the anatomical (x, y) that falls on the image's centre.
        turn_deg: turn of the limb in the image plane.
        mirrored: x runs to the left.
    """

    shape: tuple[int, int]
    pixel_mm: float
    centre_mm: tuple[float, float]
    turn_deg: float = 0.0
    mirrored: bool = False
    _matrix: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Keep the linear part of the map."""
        theta = math.radians(self.turn_deg)
        flip = -1.0 if self.mirrored else 1.0
        turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
        # (x, y) up and right -> (row, column) down and right
        matrix = np.array([[0.0, -1.0], [1.0, 0.0]]) @ turn @ np.diag([flip, 1.0]) / self.pixel_mm
        object.__setattr__(self, "_matrix", matrix)

    def place(self, points_mm: ArrayLike) -> FloatArray:
        """Anatomical (x, y) in mm [..., 2] to (row, column) in pixels [..., 2]."""
        offset = np.asarray(points_mm, dtype=float) - np.array(self.centre_mm)
        placed: FloatArray = offset @ self._matrix.T + np.array(self.shape) / 2.0
        return placed

    def unplace(self, points_px: ArrayLike) -> FloatArray:
        """(row, column) in pixels [..., 2] to anatomical (x, y) in mm [..., 2]."""
        offset = np.asarray(points_px, dtype=float) - np.array(self.shape) / 2.0
        unplaced: FloatArray = offset @ np.linalg.inv(self._matrix).T + np.array(self.centre_mm)
        return unplaced


def close_spline(points: FloatArray, samples: int) -> FloatArray:
    """A smooth closed curve [samples, 2] through points [n, 2], parametrised centripetally (no overshoot loops)."""
    ring = np.vstack([points, points[:1]])
    steps = np.sqrt(np.linalg.norm(np.diff(ring, axis=0), axis=1))
    knots = np.concatenate([[0.0], np.cumsum(steps)])
    curve: FloatArray = CubicSpline(knots, ring, bc_type="periodic")(np.linspace(0.0, knots[-1], samples, False))
    return curve
