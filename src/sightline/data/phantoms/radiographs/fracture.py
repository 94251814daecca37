"""Fractures: where a bone is parted, how far the fragments have moved, and how much of the gap the beam sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from sightline.data.phantoms.radiographs.anatomy import Bone, LimbPose
from sightline.structures.frame import FloatArray

GRADES = ("plain", "subtle", "occult")


@dataclass(frozen=True, eq=False)
class Break:
    """One fracture line across a bone.

    Attributes:
        start: (x, y) in mm where the line enters the bone.
        stop: (x, y) in mm where it leaves it. The fragment to the left of start -> stop moves, the other stays.
        lucency: share of the bone's attenuation missing on the line, 0 (invisible) to 1.
        width_mm: full width of the line at half depth.
        shift_mm: (x, y) displacement of the moving fragment.
        turn_deg: turn of the moving fragment about the line's middle, from x towards y.
        jag: sideways course of the line in mm, one value per `jag_step_mm` from its start.
        jag_step_mm: see `jag`.
        beyond: (x, y) in mm of two points: only the fragment to the right of this line is parted, and moves.
    """

    start: tuple[float, float]
    stop: tuple[float, float]
    lucency: float
    width_mm: float = 1.0
    shift_mm: tuple[float, float] = (0.0, 0.0)
    turn_deg: float = 0.0
    jag: Sequence[float] = (0.0, 0.0)
    jag_step_mm: float = 2.0
    beyond: tuple[tuple[float, float], tuple[float, float]] | None = None


def break_bone(
    attenuation: FloatArray, corner_px: tuple[int, int], breaks: Sequence[Break], pose: LimbPose
) -> tuple[FloatArray, FloatArray]:
    """A bone's shadow after its fractures.

    Args:
        attenuation: the whole bone's shadow [h, w] on a patch of the image.
        corner_px: (row, column) of the patch in the image.
        breaks: applied one after the other; later lines also part fragments that earlier ones moved.
        pose: places mm on the image.

    Returns:
        The new shadow [h, w] and how much of each pixel lies on a fracture line, 0 to 1 [h, w].
    """
    lines = np.zeros_like(attenuation)
    rows, columns = np.indices(attenuation.shape)
    centres = np.stack([rows + corner_px[0] + 0.5, columns + corner_px[1] + 0.5], axis=-1)
    points = pose.unplace(centres)
    for one in breaks:
        away_mm, on_course = _measure_distance(one, points)
        soft_mm = 0.5 * pose.pixel_mm
        gap = np.exp(-4.0 * math.log(2.0) * (away_mm / one.width_mm) ** 2) * on_course
        left = _compute_logistic(away_mm / soft_mm)
        if one.beyond is not None:
            here = _compute_logistic(-_project_on_line(*one.beyond, points)[1] / soft_mm)
            gap, left = gap * here, left * here
        cut = attenuation * (1.0 - one.lucency * gap)
        still, free = cut * (1.0 - left), cut * left
        if one.turn_deg or any(one.shift_mm):
            origin = _move_back(one, points)
            where = pose.place(origin) - np.array(corner_px) - 0.5
            free = ndimage.map_coordinates(free, [where[..., 0], where[..., 1]], order=1, mode="nearest")
            lines = np.maximum(lines, gap)
        attenuation = still + free
        lines = np.maximum(lines, gap)
    return attenuation, lines


def draw_scaphoid_break(bone: Bone, rng: Generator, grade: str) -> Break:
    """A fracture of the scaphoid: mostly through the waist, across its axis, as plain or as occult as asked.

    Args:
        bone: the scaphoid in its position for one view.
        rng: the study's own generator, in the same state for every view, so that all views show one fracture.
        grade: one of GRADES.
    """
    place = rng.choice([0.52, 0.3, 0.74], p=[0.7, 0.18, 0.12]) + rng.normal(0.0, 0.04)
    slant_deg = rng.normal(0.0, 14.0)
    width_mm = {"plain": rng.uniform(1.3, 2.1), "subtle": rng.uniform(0.8, 1.1), "occult": 0.6}[grade]
    lucency = {"plain": rng.uniform(0.7, 0.95), "subtle": rng.uniform(0.35, 0.5), "occult": 0.02}[grade]
    step_mm = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0) * {"plain": 1.7, "subtle": 0.3, "occult": 0.0}[grade]
    apart_mm = {"plain": rng.uniform(0.2, 0.9), "subtle": 0.0, "occult": 0.0}[grade]
    turn_deg = {"plain": rng.normal(0.0, 6.0), "subtle": 0.0, "occult": 0.0}[grade]
    jag = rng.normal(0.0, 0.55, 24)
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(bone.axis, axis=0), axis=1))])
    at = [float(np.interp(place * lengths[-1], lengths, bone.axis[:, i])) for i in (0, 1)]
    ahead = bone.axis[-1] - bone.axis[0]
    theta = math.atan2(ahead[1], ahead[0]) + math.radians(slant_deg)
    along, across = np.array([math.cos(theta), math.sin(theta)]), np.array([-math.sin(theta), math.cos(theta)])
    half_mm = 14.0
    # to the left of start -> stop lies the distal fragment
    start, stop = at + across * half_mm, at - across * half_mm
    shift = across * step_mm + along * apart_mm
    return Break(_make_pair(start), _make_pair(stop), lucency, width_mm, _make_pair(shift), turn_deg, tuple(jag))


def reduce_visibility(one: Break, share: float) -> Break:
    """The same fracture where the beam meets its plane less well: `share` of its lucency and displacement."""
    x, y = one.shift_mm
    return Break(
        one.start,
        one.stop,
        one.lucency * share,
        one.width_mm,
        (x * share, y * share),
        one.turn_deg * share,
        one.jag,
        one.jag_step_mm,
        one.beyond,
    )


def _measure_distance(one: Break, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Signed distance in mm to the jagged line (positive on its left) and 1 along its course, else 0."""
    course_mm, away_mm = _project_on_line(one.start, one.stop, points)
    length = float(np.linalg.norm(np.array(one.stop) - np.array(one.start)))
    knots = np.arange(len(one.jag)) * one.jag_step_mm
    jag = np.interp(course_mm, knots, np.asarray(one.jag, dtype=float))
    return away_mm - jag, ((course_mm >= 0.0) & (course_mm <= length)).astype(float)


def _project_on_line(
    start: tuple[float, float], stop: tuple[float, float], points: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Distances in mm along the line from its start, and to its left."""
    along = np.array(stop) - np.array(start)
    along = along / float(np.linalg.norm(along))
    offset = points - np.array(start)
    return offset @ along, offset @ np.array([-along[1], along[0]])


def _move_back(one: Break, points: FloatArray) -> FloatArray:
    """Where each point of the moved fragment came from."""
    middle = (np.array(one.start) + np.array(one.stop)) / 2.0
    theta = math.radians(one.turn_deg)
    # row vectors: this is the inverse turn
    back = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    origin: FloatArray = (points - np.array(one.shift_mm) - middle) @ back + middle
    return origin


def _compute_logistic(x: FloatArray) -> FloatArray:
    smooth: FloatArray = 0.5 * (1.0 + np.tanh(x / 2.0))
    return smooth


def _make_pair(point: FloatArray) -> tuple[float, float]:
    return float(point[0]), float(point[1])
