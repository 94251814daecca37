"""A proximal femur in the socket, and the AO-like classes A1 to B3 (as in Jimenez-Sanchez et al. 2018) drawn on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from sightline.data.phantoms.radiographs.anatomy import Bone
from sightline.data.phantoms.radiographs.fracture import Break
from sightline.errors import CohortError
from sightline.structures.frame import FloatArray

FEMUR_CLASSES = ("normal", "A1", "A2", "A3", "B1", "B2", "B3")
TARGET = "femur"

# (x, y) in mm of an adult; x runs away from the body's middle, the shaft's axis is x = 0
_FEMUR = (
    "15 -190,15.5 -60,17 -20,22 0,28 15,31 30,28 42,21 48,13 46,6 39,-5 39,-16 49,-24 62,-32 71,-45 76,-58 73,-67 63,"
    "-70 51,-66 38,-57 30,-46 27.5,-36 27,-30 22,-26 13,-21 4,-24 -4,-22 -13,-16 -24,-14.5 -60,-14 -190"
)
_NO_LESSER_TROCHANTER = _FEMUR.replace("-21 4,-24 -4,-22 -13,-16 -24", "-17 5,-12 -6,-11.5 -16,-14 -28")
_LESSER_TROCHANTER = "-18 4,-23.5 -3,-23 -12,-17.5 -24,-14 -16,-14 -4"
_HIP_BONE = (
    "-21 79,-27 96,-24 130,-10 200,-150 200,-112 120,-94 88,-86 62,-85 42,-92 24,-95 0,-88 -32,-74 -46,-60 -40,"
    "-55 -18,-57 4,-60 20,-68 32,-76 48,-73 64,-63 76,-48 81.5,-34 79"
)
_PUBIC_RAMUS = "-70 30,-88 24,-120 12,-165 8,-165 -14,-122 -6,-96 4,-76 12"
_ISCHIAL_RAMUS = "-70 -42,-86 -32,-118 -18,-150 -22,-165 -40,-118 -36,-90 -50"
_POSTERIOR_WALL = "-30 79,-40 66,-46 50,-52 34,-62 18,-70 22,-75 46,-66 72,-50 80"
_SKIN = "-230 260,-230 -40,-100 -70,-84 -110,-80 -230,64 -230,70 -100,76 -20,82 40,84 120,86 260"


@dataclass(frozen=True, eq=False)
class Hip:
    """One hip: bones, skin line [n, 2] in mm, and the head's centre (x, y) and radius in mm."""

    bones: tuple[Bone, ...]
    skin: FloatArray
    flesh_mm: float
    head_mm: tuple[float, float]
    head_radius_mm: float


def grow_hip(rng: Generator, *, density: float = 1.0, ao_class: str = "normal") -> Hip:
    """A person's hip; for class A2 the lesser trochanter is a bone of its own, to be torn off."""
    if ao_class not in FEMUR_CLASSES:
        raise CohortError(f"The femur has no class {ao_class!r}.", f"Choose among {', '.join(FEMUR_CLASSES)}.")
    size, shell = rng.uniform(0.9, 1.08), rng.uniform(0.85, 1.15) * (0.5 + 0.5 * density)
    jitter = rng.normal(0.0, 0.5, (64, 2))
    axis = np.array([[-46.0, 52.0], [-24.0, 35.5], [-4.0, 18.0], [1.0, -10.0], [0.5, -60.0], [0.5, -190.0]])

    def build_bone(name: str, outline: str, depth: float, cortex: tuple[float, float], at: tuple[float, float]) -> Bone:
        points = _parse_points(outline)
        points = (points + jitter[: len(points)]) * size
        line = axis * size if name == TARGET else _find_middle(points)
        shells = (cortex[0] * shell, cortex[1] * shell)
        return Bone(name, points, line, depth * size, shells, (at[0] * size, at[1] * size), density=density)

    femur = build_bone(TARGET, _NO_LESSER_TROCHANTER if ao_class == "A2" else _FEMUR, 30.0, (5.6, 1.1), (-55.0, 14.0))
    others = [
        build_bone("hip bone", _HIP_BONE, 22.0, (1.6, 1.6), (0.0, 1.0)),
        build_bone("pubic ramus", _PUBIC_RAMUS, 14.0, (1.6, 1.6), (0.0, 1.0)),
        build_bone("ischial ramus", _ISCHIAL_RAMUS, 12.0, (1.4, 1.4), (0.0, 1.0)),
        build_bone("posterior wall", _POSTERIOR_WALL, 7.0, (0.8, 0.8), (0.0, 1.0)),
    ]
    if ao_class == "A2":
        torn = build_bone("lesser trochanter", _LESSER_TROCHANTER, 16.0, (1.5, 1.5), (0.0, 1.0))
        others.append(torn.move(rng.uniform(-30.0, -5.0), torn.outline.mean(axis=0), rng.uniform([-9, 2], [-4, 11])))
    skin = _parse_points(_SKIN) * size * rng.uniform(0.95, 1.08)
    return Hip((femur, *others), skin, 62.0 * size * rng.uniform(0.9, 1.15), (-46.0 * size, 52.0 * size), 24.5 * size)


def draw_femur_breaks(ao_class: str, rng: Generator, *, size: float = 1.0) -> Mapping[str, tuple[Break, ...]]:
    """The fracture lines of an AO-like class, by bone; the shaft's side moves, the head stays in its socket.

    A1 one line between the trochanters; A2 the same with the lesser and the greater trochanter torn off; A3 a line
    of reversed slope below them; B1 just under the head, impacted; B2 through the neck; B3 under the head, displaced.
    """
    if ao_class == "normal":
        return {}
    lucency = rng.uniform(0.5, 0.8)
    wander = _draw_course(rng)
    up = rng.uniform(0.5, 1.0)
    if ao_class in ("A1", "A2"):
        line = Break((27, 30), (-23, -9), lucency, 2.0, (0.8 + 2.4 * up, -1.0 + 1.8 * up), -5 * up, wander)
        if ao_class == "A1":
            return {TARGET: (_scale_break(line, size),)}
        # the greater trochanter's line ends at the other: above it, the trochanter alone comes away
        edge = (line.start, line.stop)
        torn = Break((4, 46), (33, 4), lucency, 2.2, (3 * up, 4 * up), 8 * up, wander[::-1], beyond=edge)
        line = replace(line, shift_mm=(1.2 + 5.0 * up, -1.6 + 3.8 * up), turn_deg=-8 * up, width_mm=2.6)
        return {TARGET: (_scale_break(line, size), _scale_break(torn, size))}
    if ao_class == "A3":
        # beyond the medial cortex the line turns away, so that the head is not cut
        course = (*wander[:24], *([22.0] * 30))
        line = Break((22, -26), (-19, 4), lucency, 2.2, (-7 * up, 1.5 * up), 4 * up, course)
        return {TARGET: (_scale_break(line, size),)}
    from_head_mm = {"B1": 19.0, "B2": 31.0, "B3": 22.0}[ao_class] + rng.normal(0.0, 1.2)
    slant = rng.normal(0.0, 0.12)
    middle = np.array([-46.0, 52.0]) + from_head_mm * np.array([0.80, -0.60])
    across = np.array([0.60 + slant, 0.80 - slant])
    start, stop = middle + 32.0 * across, middle - 32.0 * across
    moves: dict[str, tuple[float, tuple[float, float], float]] = {
        "B1": (1.6, (-2.2 * up, 1.2 * up), 6.0 * up),
        "B2": (2.0, (1.0 + 1.5 * up, -0.6 + 2.4 * up), -4.0 * up),
        "B3": (2.6, (1.0 + 7.0 * up, 12.0 * up), -12.0 * up),
    }
    width, shift, turn = moves[ao_class]
    line = Break(_make_pair(start), _make_pair(stop), lucency, width, shift, turn, wander)
    return {TARGET: (_scale_break(line, size),)}


def _scale_break(line: Break, size: float) -> Break:
    (a, b), (c, d), (x, y) = line.start, line.stop, line.shift_mm
    scaled = replace(line, start=(a * size, b * size), stop=(c * size, d * size), shift_mm=(x * size, y * size))
    if line.beyond is None:
        return scaled
    (e, f), (g, h) = line.beyond
    return replace(scaled, beyond=((e * size, f * size), (g * size, h * size)))


def _draw_course(rng: Generator) -> tuple[float, ...]:
    """A fracture line's sideways course every 2 mm: it wanders over a centimetre, with small steps upon that."""
    coarse = np.interp(np.arange(60) * 2.0, np.arange(13) * 10.0, rng.normal(0.0, 1.7, 13))
    return tuple((coarse + rng.normal(0.0, 0.35, 60)).tolist())


def _find_middle(points: FloatArray) -> FloatArray:
    centre = points.mean(axis=0)
    return centre + np.array([[0.0, -10.0], [0.0, 10.0]])


def _parse_points(text: str) -> FloatArray:
    return np.array([[float(x) for x in pair.split()] for pair in text.split(",")])


def _make_pair(point: FloatArray) -> tuple[float, float]:
    return float(point[0]), float(point[1])
