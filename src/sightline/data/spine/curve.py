"""The curve of a spine through the centres of its vertebrae, and axes along it that neither flip nor twist.

Engstler et al. 2022 cut patches "oriented along the spline". A Frenet-Serret frame would turn about a straight or
S-shaped spine, because its normal points to the inside of the bend; here the patient's own left holds the axes still.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_simpson
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from sightline.errors import GeometryError
from sightline.structures.frame import FloatArray

# patients in RAS+ millimetres
TO_FEET = np.array([0.0, 0.0, -1.0])
TO_LEFT = np.array([-1.0, 0.0, 0.0])
# two vertebrae's centres are never closer; thoracic ones of small children are 8 mm apart
NEAREST_MM = 3.0
STEP_MM = 0.25
# sines of the angle between spine and left-right axis: above the first the axes are the projection alone
_SURE, _LOST = 0.3, 0.1


@dataclass(frozen=True, eq=False)
class SpineCurve:
    """A smooth curve from head to feet, and the axes of patches along it.

    Three or more centres: a cubic spline per coordinate over the length of the chords, twice differentiable, without
    curvature at its ends ("natural"); two: a line; one: straight down. Beyond the ends the curve is its end tangent.

    Attributes:
        knots_mm: [n, 3] centres from head to feet, RAS+ millimetres.
    """

    knots_mm: FloatArray

    def __post_init__(self) -> None:
        """Refuse centres that no spine could have.

        Raises:
            GeometryError: none, not finite, two at one place, a curve that turns back, or one that runs to the head.
        """
        knots = np.array(self.knots_mm, dtype=np.float64)
        if knots.ndim != 2 or knots.shape[1:] != (3,) or not len(knots) or not np.isfinite(knots).all():
            raise GeometryError(
                f"A spine's curve needs finite centres [n, 3]; got {knots.shape}.", "Fix the centroids."
            )
        chords = np.diff(knots, axis=0)
        lengths = np.linalg.norm(chords, axis=1)
        if (lengths < NEAREST_MM).any():
            at = int(lengths.argmin())
            raise GeometryError(
                f"Centres {at + 1} and {at + 2} from the head are {lengths[at]:.1f} mm apart; vertebrae are at least "
                f"{NEAREST_MM:g} mm apart.",
                "Check the centroids: one may be listed under two labels.",
            )
        turns = (chords[1:] * chords[:-1]).sum(axis=1) < 0
        if turns.any():
            at = int(turns.argmax())
            raise GeometryError(
                f"The curve turns back at centre {at + 2} from the head (by more than 90 degrees).",
                "Check the order of the centroids' labels there.",
            )
        if len(chords) and (knots[-1] - knots[0]) @ TO_FEET <= 0:
            raise GeometryError(
                "The spine runs from its first vertebra towards the head.", "Check orientation and labels."
            )
        knots.setflags(write=False)
        object.__setattr__(self, "knots_mm", knots)

    @cached_property
    def knots_at_mm(self) -> FloatArray:
        """Place of each centre along the curve [n]; the first is at 0."""
        at: FloatArray = np.interp(self._spline.x[: len(self.knots_mm)], *self._table)
        return at

    def point(self, at_mm: ArrayLike) -> FloatArray:
        """Places along the curve [...] to millimetres in the patient [..., 3]."""
        at = np.asarray(at_mm, dtype=np.float64)
        inside, parameter = self._clamp(at)
        beyond = (at - inside)[..., None]
        return np.asarray(
            self._spline(parameter) + beyond * _normalise_vectors(self._spline(parameter, 1)), dtype=np.float64
        )

    def tangent(self, at_mm: ArrayLike) -> FloatArray:
        """Unit tangents towards the feet [..., 3]."""
        return _normalise_vectors(self._spline(self._clamp(np.asarray(at_mm, dtype=np.float64))[1], 1))

    def axes(self, at_mm: ArrayLike) -> FloatArray:
        """Right-handed axes [..., 3, 3]; the columns point to the feet, to the back and to the left.

        Column 0 is the tangent; column 2 the patient's left, made orthogonal to it; column 1 their cross product. The
        axes depend on the tangent alone, so they follow it without flips and come back when it does.
        """
        return build_axes_along(self.tangent(at_mm))

    def nearest(self, world_mm: FloatArray, low_mm: float, high_mm: float) -> FloatArray:
        """Places along the curve [n] nearest to points [n, 3], between two places of it or just beyond.

        The line from there to the point is orthogonal to the tangent to the last digits, save deep inside a bend
        sharper than the point is far away, where no place is nearest.
        """
        samples = np.arange(low_mm, high_mm + STEP_MM, STEP_MM)
        along = samples[cKDTree(self.point(samples)).query(world_mm)[1]]
        parameter, length = self._table
        for beyond, end in ((along < 0.0, 0), (along > length[-1], -1)):
            outward = _normalise_vectors(self._spline(parameter[end], 1))
            along[beyond] = length[end] + (world_mm[beyond] - self._spline(parameter[end])) @ outward
        open_ = np.flatnonzero((along >= 0.0) & (along <= length[-1]))
        at = np.interp(along[open_], length, parameter)
        for _ in range(12):
            offset, slope = world_mm[open_] - self._spline(at), self._spline(at, 1)
            fall = (slope * slope).sum(axis=-1)
            steep = fall - (offset * self._spline(at, 2)).sum(axis=-1)
            step = (offset * slope).sum(axis=-1) / np.maximum(steep, 0.2 * fall)
            at = at + np.clip(step, -1.0, 1.0)
            along[open_] = np.interp(at, parameter, length)
            unsure = np.abs(step) > 1e-11
            open_, at = open_[unsure], at[unsure]
            if not len(open_):
                break
        return along

    # -- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _spline(self) -> CubicSpline:
        knots = self.knots_mm if len(self.knots_mm) > 1 else np.stack([self.knots_mm[0], self.knots_mm[0] + TO_FEET])
        chords = np.linalg.norm(np.diff(knots, axis=0), axis=1)
        return CubicSpline(np.concatenate([[0.0], np.cumsum(chords)]), knots, bc_type="natural")

    @cached_property
    def _table(self) -> tuple[FloatArray, FloatArray]:
        """Chord parameter, and length along the curve up to there, at steps that hit every knot."""
        ends = self._spline.x
        pieces = [np.linspace(a, b, max(2, int(np.ceil((b - a) / STEP_MM))), endpoint=False) for a, b in pairwise(ends)]
        parameter = np.concatenate([*pieces, ends[-1:]])
        speed = np.linalg.norm(self._spline(parameter, 1), axis=-1)
        return parameter, np.asarray(cumulative_simpson(speed, x=parameter, initial=0.0), dtype=np.float64)

    def _clamp(self, at: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The place, not beyond the ends, and its chord parameter."""
        parameter, length = self._table
        inside = np.clip(at, 0.0, length[-1])
        return inside, np.interp(inside, length, parameter)


def _normalise_vectors(vectors: Any) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float64)


def build_axes_along(tangent: ArrayLike) -> FloatArray:
    """Right-handed axes [..., 3, 3] for unit tangents [..., 3]; see `SpineCurve.axes`.

    Within 17 degrees of the left-right axis its projection is short and its direction means little; there the axes
    go over, smoothly, into those that the shortest turn from straight down would carry along.
    """
    t = np.asarray(tangent, dtype=np.float64)
    projected = TO_LEFT - (t @ TO_LEFT)[..., None] * t
    size = np.linalg.norm(projected, axis=-1)
    # how much the projection is trusted: smooth from 0 at _LOST to 1 at _SURE
    ramp = np.clip((size - _LOST) / (_SURE - _LOST), 0.0, 1.0)
    trust = (ramp * ramp * (3.0 - 2.0 * ramp))[..., None]
    left = trust * projected / np.maximum(size, _LOST)[..., None]
    if (trust < 1.0).any():
        left = left + (1.0 - trust) * _carry_left(t)
    left = _normalise_vectors(left - (left * t).sum(axis=-1, keepdims=True) * t)
    return np.stack([t, np.cross(left, t), left], axis=-1)


def _carry_left(t: FloatArray) -> FloatArray:
    """The patient's left, carried by the shortest turn that takes straight down to the tangent (Rodrigues)."""
    axis = np.cross(TO_FEET, t)
    # straight up has no shortest turn; it is never asked for there, because the projection is long
    cosine = np.maximum(t @ TO_FEET, -0.99)[..., None]
    return TO_LEFT + np.cross(axis, TO_LEFT) + np.cross(axis, np.cross(axis, TO_LEFT)) / (1.0 + cosine)
