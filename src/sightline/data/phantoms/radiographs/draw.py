"""One radiograph with what is true of it: the picture, the bone, its mid-line and the fracture's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from sightline.data.phantoms.radiographs import hardware as lay
from sightline.data.phantoms.radiographs.anatomy import Bone, LimbPose
from sightline.data.phantoms.radiographs.femur import Hip, draw_femur_breaks, grow_hip
from sightline.data.phantoms.radiographs.fracture import draw_scaphoid_break, reduce_visibility
from sightline.data.phantoms.radiographs.hardware import Rect
from sightline.data.phantoms.radiographs.wrist import View, grow_wrist, project_wrist
from sightline.data.phantoms.radiographs.xray import (
    Shadow,
    draw_collimation,
    draw_flesh,
    draw_technique,
    expose,
    paste,
    project,
)
from sightline.structures.frame import FloatArray

Field = Literal["close", "wide"]
# area of a femur's picture in mm2, and how far its middle lies from the hip's at most
FIELDS: Mapping[Field, tuple[tuple[float, float], float]] = {
    "close": ((25000.0, 33000.0), 9.0),
    "wide": ((78000.0, 105000.0), 26.0),
}


@dataclass(frozen=True, eq=False)
class RadiographDrawing:
    """A finished radiograph.

    Attributes:
        picture: grey values 0 to 1 [H, W], brighter is denser.
        bone: where the target bone is [H, W].
        midline: (row, column) of its mid-line [n, 2].
        fracture: (top, left, bottom, right) of the fracture lines in px, None without one.
        region: the same of the square that a localiser would look for, None for the wrist.
        pixel_mm: size of a pixel.
        facts: what is known of the image by name.
    """

    picture: FloatArray
    bone: NDArray[np.bool_]
    midline: FloatArray
    fracture: Rect | None
    region: Rect | None
    pixel_mm: float
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Streams:
    """The generators of one image: what the person is, how the fracture runs, how the image is made."""

    person: Generator
    fracture: Generator
    image: Generator
    noise: Generator
    lead: Generator


def draw_wrist(
    streams: Streams,
    *,
    view: str = "PA",
    side: str = "L",
    grade: str = "none",
    share: float = 1.0,
    hardware: str = "none",
    marker: bool = False,
    size_px: int = 416,
) -> RadiographDrawing:
    """A wrist in one view.

    Args:
        streams: generators; equal `person` and `fracture` states draw the same person and fracture.
        view: PA, oblique, PA ulnar deviation, supinated oblique.
        side: L or R.
        grade: none, plain, subtle or occult.
        share: how much of the fracture this view shows, 0 to 1.
        hardware: none, plate, wires or bracelet (femur: none, hip screw or nail).
        marker: lay the shortcut's arrow on the image.
        size_px: long side of the image.
    """
    rng = streams.image
    density = float(streams.person.uniform(0.5, 1.1))
    wrist = project_wrist(grow_wrist(streams.person, density=density), cast(View, view), rng)
    target = next(bone for bone in wrist.bones if bone.name == "scaphoid")
    shape = _draw_shape(rng, size_px)
    pixel_mm = float(np.sqrt(rng.uniform(4700.0, 6300.0) / (shape[0] * shape[1])))
    centre = 0.5 * target.outline.mean(axis=0) + 0.5 * np.array([0.0, 12.0]) + rng.uniform(-3.5, 3.5, 2)
    pose = LimbPose(shape, pixel_mm, (float(centre[0]), float(centre[1])), float(rng.normal(0.0, 5.0)), side == "R")
    breaks = {}
    if grade != "none":
        breaks["scaphoid"] = (reduce_visibility(draw_scaphoid_break(target, streams.fracture, grade), share),)
    lead = lay.draw_wrist_hardware(hardware, pose, rng)
    attenuation, shadows = project(wrist.bones, pose, streams.noise, breaks)
    attenuation += draw_flesh(wrist.skin, wrist.flesh_mm, pose, streams.noise)
    words = (f"WRIST {view.split()[0].upper()}", f"ID {rng.integers(1000, 9999)}", "PORTABLE", "12-BIT 55KV")
    field, limits = draw_collimation(shape, rng, likely=0.65)
    seen = _see_target(shadows, target, pose, field)
    picture, facts = _develop(attenuation, lead, field, limits, seen, streams, side, marker, words)
    facts |= {"side": side, "hardware": hardware}
    facts["truth_density"] = f"{density:.2f}"
    lucency = breaks["scaphoid"][0].lucency if breaks else 0.0
    facts |= {"truth_grade": grade, "truth_lucency": f"{lucency:.2f}"}
    return RadiographDrawing(picture, seen.inside, seen.midline, seen.fracture, None, pixel_mm, facts)


def draw_femur(
    streams: Streams,
    *,
    ao_class: str = "normal",
    side: str = "L",
    hardware: str = "none",
    marker: bool = False,
    size_px: int = 448,
    field: Field = "close",
) -> RadiographDrawing:
    """A proximal femur, AP, with an AO-like class (`normal`, A1, A2, A3, B1, B2, B3).

    `field` is `close`, a hip that fills the picture, or `wide`, half a pelvis with the thigh, as where a picture of
    both hips is cut in two: head and trochanters then take about an eighth of it. Other arguments as the wrist's.

    Raises:
        CohortError: no such class.
    """
    rng = streams.image
    density = float(streams.person.uniform(0.45, 1.05))
    hip = grow_hip(streams.person, density=density, ao_class=ao_class)
    target = hip.bones[0]
    shape = _draw_shape(rng, size_px)
    area_mm2, aside_mm = FIELDS[field]
    pixel_mm = float(np.sqrt(rng.uniform(*area_mm2) / (shape[0] * shape[1])))
    centre = np.array([-28.0, 14.0]) + rng.uniform(-aside_mm, aside_mm, 2)
    pose = LimbPose(shape, pixel_mm, (float(centre[0]), float(centre[1])), float(rng.normal(0.0, 4.0)), side == "R")
    breaks = draw_femur_breaks(ao_class, streams.fracture, size=hip.head_radius_mm / 24.5)
    lead = lay.draw_hip_hardware(hardware, pose, rng)
    attenuation, shadows = project(hip.bones, pose, streams.noise, breaks)
    attenuation += draw_flesh(hip.skin, hip.flesh_mm, pose, streams.noise)
    words = ("HIP AP", f"ID {rng.integers(1000, 9999)}", "SUPINE", "12-BIT 75KV")
    light, limits = draw_collimation(shape, rng, likely=0.5)
    seen = _see_target(shadows, target, pose, light)
    picture, facts = _develop(attenuation, lead, light, limits, seen, streams, side, marker, words)
    facts |= {"side": side, "hardware": hardware, "truth_density": f"{density:.2f}"}
    facts["truth_grade"] = "none" if ao_class == "normal" else "plain"
    return RadiographDrawing(picture, seen.inside, seen.midline, seen.fracture, _frame_head(hip, pose), pixel_mm, facts)


@dataclass(frozen=True, eq=False)
class _SeenTarget:
    inside: NDArray[np.bool_]
    midline: FloatArray
    fracture: Rect | None


def _see_target(shadows: Mapping[str, Shadow], target: Bone, pose: LimbPose, field: FloatArray) -> _SeenTarget:
    """The target bone as far as the collimator shows it."""
    shadow = shadows[target.name]
    shown = field > 0.5
    inside = (_paste_onto(pose.shape, shadow, shadow.inside) > 0) & shown
    if not inside.any():
        raise AssertionError("The target bone lies outside the image.")
    lines = (_paste_onto(pose.shape, shadow, shadow.lines * shadow.inside) > 0.3) & shown
    midline = pose.place(target.axis)
    at = np.linspace(0, len(midline) - 1, 200)
    dense = np.column_stack([np.interp(at, range(len(midline)), midline[:, i]) for i in (0, 1)])
    cells = np.clip(np.floor(dense).astype(int), 0, np.array(pose.shape) - 1)
    keep = (dense >= 0).all(axis=1) & (dense < pose.shape).all(axis=1) & shown[cells[:, 0], cells[:, 1]]
    # where the bone leaves the field, its mid-line ends there
    kept = dense[keep]
    return _SeenTarget(inside, kept[np.linspace(0, len(kept) - 1, 9).astype(int)], _find_bounds(lines, 4))


def _develop(
    attenuation: FloatArray,
    lead: FloatArray,
    field: FloatArray,
    limits: Rect | None,
    seen: _SeenTarget,
    streams: Streams,
    side: str,
    marker: bool,
    words: Sequence[str],
) -> tuple[FloatArray, dict[str, str]]:
    """Markers, exposure and text: the picture [H, W] and what is known of it."""
    rng, long_px, taken = streams.image, max(attenuation.shape), seen.inside.copy()
    if marker:
        size = int(long_px * streams.lead.uniform(0.085, 0.1))
        # well away from the bone, so that looking at the marker and looking at the bone can be told apart
        away, box = taken.copy(), _find_bounds(seen.inside, int(0.09 * long_px))
        if box is not None:
            away[int(box[0]) : int(box[2]), int(box[1]) : int(box[3])] = True
        place = lay.find_place((size, size), away, limits, streams.lead, must=True)
        if place is None:
            raise AssertionError("The field is smaller than the marker.")
        middle = np.argwhere(seen.inside).mean(axis=0)
        turn_deg = lay.point_towards(place, (float(middle[0]), float(middle[1]))) + float(streams.lead.normal(0.0, 8.0))
        lay.place_tile(lead, taken, lay.draw_arrow(size, turn_deg), place)
    letter_px, plaque = int(long_px * rng.uniform(0.05, 0.08)), bool(rng.random() < 0.4)
    tile = lay.draw_letter(side, letter_px, turn_deg=lay.draw_corner_turn(rng), plaque=plaque)
    place = lay.find_place((tile.shape[0], tile.shape[1]), taken, limits, rng)
    if rng.random() < 0.85 and place is not None:
        lay.place_tile(lead, taken, tile, place)
    shutter = float(rng.uniform(0.0, 0.04)) if rng.random() < 0.9 else float(rng.uniform(0.55, 0.9))
    picture = expose(attenuation, lead, field, draw_technique(rng), streams.noise, shutter=shutter)
    text = str(rng.choice(list(words)))
    place = lay.find_place(lay.measure_text(text, 12), taken, None, rng)
    if rng.random() < 0.3 and place is not None:
        lay.burn(picture, text, place, 12, float(rng.uniform(0.75, 1.0)))
    facts = {"collimated": "no" if limits is None else "yes", "phantom_marker": "yes" if marker else "no"}
    return picture, facts


def _draw_shape(rng: Generator, size_px: int) -> tuple[int, int]:
    """Rows and columns: the long side is `size_px`, mostly upright."""
    short = int(size_px * rng.uniform(0.74, 0.92))
    return (short, size_px) if rng.random() < 0.18 else (size_px, short)


def _paste_onto(shape: tuple[int, int], shadow: Shadow, values: NDArray[np.generic]) -> FloatArray:
    canvas = np.zeros(shape)
    paste(canvas, shadow, values.astype(float))
    return canvas


def _find_bounds(inside: NDArray[np.bool_], margin: int) -> Rect | None:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    height, width = inside.shape
    return (
        float(max(rows[0] - margin, 0)),
        float(max(columns[0] - margin, 0)),
        float(min(rows[-1] + 1 + margin, height)),
        float(min(columns[-1] + 1 + margin, width)),
    )


def _frame_head(hip: Hip, pose: LimbPose) -> Rect:
    """A square about head, neck and trochanters, kept inside the image."""
    x, y = hip.head_mm
    scale = hip.head_radius_mm / 24.5
    centre = pose.place([x + 30.0 * scale, y - 26.0 * scale])
    side = min(124.0 * scale / pose.pixel_mm, *pose.shape)
    top, left = np.clip(centre - side / 2.0, 0.0, np.array(pose.shape) - side)
    return (float(top), float(left), float(top + side), float(left + side))
