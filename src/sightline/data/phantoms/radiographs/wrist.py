"""A distal forearm and carpus, as on the scaphoid views of Liao et al. 2022 (section IV-A)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from sightline.data.phantoms.radiographs.anatomy import Bone
from sightline.structures.frame import FloatArray

View = Literal["PA", "oblique", "PA ulnar deviation", "supinated oblique"]
TARGET = "scaphoid"

# (x, y) in mm of an adult left wrist seen from the back of the hand; origin in the middle of the radiocarpal joint
_OUTLINES: dict[str, str] = {
    "radius": "-8 -.5,-3 -1.6,2 0,8 1,14 4.8,18.5 10,21 9,21.5 3,19.5 -6,16 -18,13.5 -32,12.5 -50,12 -95,"
    "-2 -95,-2.5 -50,-4 -32,-7 -16,-9.5 -6",
    "ulna": "-11.5 -3,-14 -1.3,-19 -1.2,-22.5 -1,-24 3.5,-25.5 3,-26 -3,-25 -9,-23 -18,-22.3 -32,-23 -50,-23 -95,"
    "-12 -95,-12 -50,-12.5 -32,-13 -18,-11 -8",
    "scaphoid": "2 7,5 3.5,9 4,13 8,17 13,21 18,21.5 22.5,18 25,13 23.8,10 20,7.5 15.5,4 11.5",
    "lunate": ".5 4.5,-3 1.2,-8 .8,-12 3.5,-12.5 8,-9.5 11,-5.5 9.5,-1.5 10.5",
    "triquetrum": "-13.8 9,-16 4.5,-20 5,-24 9,-24.5 14,-21 17,-16.5 14.5,-13.6 12",
    "pisiform": "-14.5 9,-16.5 5,-21 4.5,-23.5 8,-22.5 12,-18 13.5",
    "capitate": "-7 13,-3 11.8,1.5 13,4 17,5 23,6.5 30,5.5 36.5,-1 37.5,-6.5 36,-7.5 30,-8 23,-8.5 17",
    "hamate": "-10 14.5,-13 17,-18 19.5,-22 25,-22.5 32,-19 36,-13 37,-9 36.5,-9 30,-9.6 22",
    "hook of hamate": "-11.5 28,-13 25.5,-16 26,-17 29.5,-15 32,-12.5 31.5",
    "trapezoid": "8 28,12 26.8,15 28.3,15.5 33,14 37,9.5 37.5,7.8 33",
    "trapezium": "17.2 28.5,21 26.5,25 25.5,29 28.5,30 33,27 37,22 38.2,18.5 36.5,17.3 32",
    "first metacarpal": "25.5 41,28 38.8,32 36.3,36 37.5,37 41.5,42 50,50 61,58 73,50 79,40 67,33 55,28 47",
    "second metacarpal": "8 40,12 39.3,16 39.8,17.5 43,16 50,15 62,15 90,8 90,8 62,8 50,7.2 43",
    "third metacarpal": "-5.5 39.8,0 39.2,5.5 39.8,6 44,4.5 52,4 65,4 90,-3 90,-3 65,-3.5 52,-5.8 44",
    "fourth metacarpal": "-14.5 39.3,-10.5 38.8,-7 39.8,-6.8 44,-8 52,-8.5 65,-8.5 90,-14 90,-14 65,-14 52,-15 44",
    "fifth metacarpal": "-22.5 37.6,-19 38,-15.8 39.3,-15.6 44,-18 52,-20 65,-22 90,-28 90,-26 65,-24 52,-23.5 44",
}
# depth, cortex at low y, cortex at high y, low y, high y, volar height, volar rise per mm
_BUILD: dict[str, tuple[float, ...]] = {
    "radius": (17.0, 3.0, 0.7, -32.0, -8.0, 0.0, 0.0),
    "ulna": (12.0, 2.6, 0.6, -26.0, -6.0, -4.0, 0.0),
    "scaphoid": (12.0, 0.8, 0.7, 0.0, 25.0, 3.0, 0.38),
    "lunate": (15.0, 0.7, 0.7, 0.0, 1.0, 1.0, 0.0),
    "triquetrum": (11.0, 0.7, 0.7, 0.0, 1.0, -2.0, 0.0),
    "pisiform": (8.0, 0.5, 0.5, 0.0, 1.0, 12.0, 0.0),
    "capitate": (16.0, 0.8, 0.8, 0.0, 1.0, -1.0, 0.0),
    "hamate": (13.0, 0.7, 0.7, 0.0, 1.0, 0.0, 0.0),
    "hook of hamate": (4.0, 0.5, 0.5, 0.0, 1.0, 9.0, 0.0),
    "trapezoid": (13.0, 0.7, 0.7, 0.0, 1.0, 0.0, 0.0),
    "trapezium": (13.0, 0.8, 0.8, 0.0, 1.0, 8.0, 0.0),
    "first metacarpal": (11.0, 0.8, 2.0, 40.0, 55.0, 11.0, 0.1),
    "second metacarpal": (10.0, 0.7, 2.0, 42.0, 56.0, 0.0, 0.0),
    "third metacarpal": (10.0, 0.7, 2.0, 42.0, 56.0, -2.0, 0.0),
    "fourth metacarpal": (9.0, 0.6, 1.7, 42.0, 56.0, -1.0, 0.0),
    "fifth metacarpal": (9.0, 0.6, 1.6, 42.0, 56.0, 2.0, 0.0),
}
_AXES: dict[str, str] = {
    "scaphoid": "4.2 7.6,8 9.8,12 14,15.5 18.6,18.2 22.4",
    "radius": "5 -95,5 -40,6 -15,8 -2",
    "ulna": "-17.5 -95,-17.5 -30,-18.5 -4",
    "first metacarpal": "31 40,38 52,54 76",
}
_SKIN = (
    "-36 -95,-34 -50,-33 -20,-33 0,-36 18,-38 40,-39 95,60 95,56 70,50 52,44 40,37 28,31 14,29 0,29 -20,31 -50,34 -95"
)
_DISTAL = ("capitate", "hamate", "hook of hamate", "trapezoid", "trapezium")
_PROXIMAL = ("scaphoid", "lunate", "triquetrum", "pisiform")


@dataclass(frozen=True, eq=False)
class Wrist:
    """One person's wrist: bones in neutral PA position and the skin line [n, 2], in mm."""

    bones: tuple[Bone, ...]
    skin: FloatArray
    flesh_mm: float


def grow_wrist(rng: Generator, *, density: float = 1.0) -> Wrist:
    """A person's wrist: size, proportions, every bone's outline and its shell vary; `density` scales with age."""
    size, width = rng.uniform(0.88, 1.1), rng.uniform(0.95, 1.06)
    ulnar_variance_mm = rng.normal(0.0, 1.3)
    shell = rng.uniform(0.85, 1.2) * (0.55 + 0.45 * density)
    bones = []
    for name, outline in _OUTLINES.items():
        points = _parse_points(outline)
        depth, low, high, low_y, high_y, volar, rise = _BUILD[name]
        points = points + rng.normal(0.0, 0.25, points.shape)
        own = (1.1 if name in _DISTAL + _PROXIMAL else 1.0) + rng.normal(0.0, 0.02)
        points = points.mean(axis=0) + (points - points.mean(axis=0)) * own
        axis = _parse_points(_AXES[name]) if name in _AXES else _find_long_axis(points)
        if name == "ulna":
            lift = np.array([0.0, ulnar_variance_mm])
            points, axis = points + lift, axis + lift
        scale = np.array([size * width, size])
        bones.append(
            Bone(
                name,
                points * scale,
                axis * scale,
                depth * size * rng.uniform(0.95, 1.05),
                (low * shell, high * shell),
                (low_y * size, high_y * size),
                (volar * size, rise),
                density * rng.uniform(0.92, 1.08),
            )
        )
    flesh = rng.uniform(0.9, 1.15)
    skin = _parse_points(_SKIN) * np.array([size * width * (0.5 + 0.5 * flesh), size])
    return Wrist(tuple(bones), skin, 36.0 * size * flesh)


def project_wrist(wrist: Wrist, view: View, rng: Generator) -> Wrist:
    """The wrist as positioned for a view: rolled for the obliques, the hand bent for ulnar deviation."""
    bones = wrist.bones
    bend_deg = rng.uniform(18.0, 28.0) if view == "PA ulnar deviation" else rng.uniform(-4.0, 5.0)
    pivot = np.mean([bone.outline.mean(axis=0) for bone in bones if bone.name in ("capitate", "lunate")], axis=0)
    bones = tuple(_bend_bone(bone, bend_deg, pivot) for bone in bones)
    skin = np.column_stack(_bend_skin(wrist.skin[:, 0], wrist.skin[:, 1], bend_deg, pivot))
    roll_deg = {"oblique": rng.uniform(30.0, 44.0), "supinated oblique": -rng.uniform(25.0, 38.0)}.get(
        view, rng.uniform(-5.0, 5.0)
    )
    flesh = wrist.flesh_mm
    if abs(roll_deg) > 10.0:
        skin = skin * [0.9, 1.0]
        flesh *= 1.12
    # the limb turns about its own middle, so that the scaphoid stays near the centre of the image
    return Wrist(tuple(bone.roll(roll_deg) for bone in bones), skin, flesh)


def _bend_bone(bone: Bone, bend_deg: float, pivot: FloatArray) -> Bone:
    if bone.name in ("radius", "ulna"):
        return bone
    if bone.name in _PROXIMAL:
        # the proximal row follows by a third and slides towards the thumb; the scaphoid stands up and lengthens
        moved = bone.move(bend_deg * 0.3, pivot, [bend_deg * 0.09, 0.0])
        if bone.name != TARGET:
            return moved
        middle = moved.axis.mean(axis=0)
        stretch = 1.0 + 0.0035 * bend_deg
        return replace(
            moved, outline=middle + (moved.outline - middle) * stretch, axis=middle + (moved.axis - middle) * stretch
        ).move(0.0, shift=[0.0, 0.02 * bend_deg])
    lift = [0.02 * bend_deg, 0.05 * abs(bend_deg)]
    return bone.move(bend_deg, pivot, lift)


def _bend_skin(x: FloatArray, y: FloatArray, bend_deg: float, pivot: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The skin bends smoothly: nothing below the wrist, all of it beyond the distal row."""
    share = np.clip((y - pivot[1] + 20.0) / 35.0, 0.0, 1.0)
    theta = np.radians(bend_deg) * share
    dx, dy = x - pivot[0], y - pivot[1]
    return pivot[0] + dx * np.cos(theta) - dy * np.sin(theta), pivot[1] + dx * np.sin(theta) + dy * np.cos(theta)


def _find_long_axis(points: FloatArray) -> FloatArray:
    centred = points - points.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    reach = float(np.abs(centred @ direction).max()) * 0.7 * math.copysign(1.0, direction[1])
    return points.mean(axis=0) + np.outer([-reach, reach], direction)


def _parse_points(text: str) -> FloatArray:
    return np.array([[float(x) for x in pair.split()] for pair in text.split(",")])
