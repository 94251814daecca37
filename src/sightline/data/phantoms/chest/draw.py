"""A chest from the front: lungs, heart, ribs and vessels, with an enlarged heart or an opacity, plain to faint.

Drawn as attenuation on one grid: what lies on the way of the rays adds up, lungs take away. The patient's right is on
the left of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from sightline.data.phantoms.chest.anatomy import Bools, ChestBody
from sightline.data.phantoms.radiographs.hardware import burn, draw_letter
from sightline.data.phantoms.radiographs.xray import draw_clouds
from sightline.structures.frame import FloatArray

CHEST_CLASSES = ("Normal", "CHF", "pneumonia")
Label = Literal["Normal", "CHF", "pneumonia"]


@dataclass(frozen=True, eq=False)
class Chest:
    """One picture with what is known of it.

    Attributes:
        picture: float [h, w] in 0..1, bright where dense.
        organs: boolean masks [h, w]: `left_lung`, `right_lung`, `mediastinum` (heart and great vessels), `aortic_knob`.
        heart: (row start, column start, row stop, column stop) in pixels.
        finding: the opacity's mask, the heart's for an enlarged one, or None.
        cardiothoracic_ratio: width of the heart by the greatest width of the lungs.
        contrast: how plain the finding is, 0 to 1.
        label: class name.
    """

    picture: FloatArray
    organs: dict[str, Bools]
    heart: tuple[int, int, int, int]
    finding: Bools | None
    cardiothoracic_ratio: float
    contrast: float
    label: Label


def draw_chest(
    label: Label,
    rng: Generator,
    *,
    shape: tuple[int, int] = (512, 420),
    contrast: float = 0.5,
    person: Generator,
    clutter: float = 1.0,
) -> Chest:
    """A chest radiograph.

    Args:
        label: what is to be seen.
        rng: of this picture: finding, devices, noise.
        shape: (rows, columns).
        contrast: how plain the finding is, from 0 (hardly there) to 1.
        person: of this patient's anatomy.
        clutter: how much lies on the picture that is no finding; 1 as usual, 0 nothing.
    """
    body = ChestBody(person, shape)
    # draws of their own: what lies on the picture, and how it is taken, is the same whatever is to be seen
    seen, tree, things, film = rng.spawn(4)
    enlarged = label == "CHF"
    ratio = float(np.clip(person.normal(0.445, 0.028), 0.37, 0.51)) + (0.02 + 0.11 * contrast if enlarged else 0.0)
    lungs = {"left_lung": body.lung(left=True), "right_lung": body.lung(left=False)}
    both = lungs["left_lung"] | lungs["right_lung"]
    columns = np.flatnonzero(both.any(axis=0))
    across = int(columns[-1] - columns[0]) + 1
    shadow, heart = body.silhouette(ratio, across / body.width)
    knob = body.knob() & shadow
    dense = body.tissue()
    dense -= 0.40 * body.air(both)
    # the heart stands on the diaphragm: it does not add to what is under it
    below = body.abdomen(both)
    solid = body.bulk(shadow, 0.0045, 0.050, 0.55)
    dense += 0.32 * solid * (1.0 - np.clip(below / 0.11, 0.0, 1.0)) + below + 0.05 * body.blur(knob, 0.010)
    dense += body.spine() * (1.0 - 0.45 * solid) + body.bone(both)
    upper = tree.uniform(0.45, 0.85) + (0.35 * contrast if enlarged else 0.0)
    haze = tree.uniform(0.0, 0.02) + (0.04 * contrast if enlarged else 0.0)
    dense += draw_vessels(body, both, tree, upper=upper, haze=haze)
    if enlarged and seen.random() < 0.6 * contrast:
        dense += draw_effusion(body, lungs, seen)
    finding: Bools | None = heart.copy() if enlarged else None
    if label == "pneumonia":
        patch, finding = draw_opacity(body, both & ~shadow, seen)
        dense += (0.035 + 0.25 * contrast) * patch
    if clutter > 0.0:
        dense += draw_distractors(body, both, heart, things, amount=clutter)
    picture = _expose(body, dense, film)
    # a mask, as a radiologist outlines it: the lung that heart and vessels leave free
    organs = {**{name: lung & ~shadow for name, lung in lungs.items()}, "mediastinum": shadow, "aortic_knob": knob}
    rows, cols = np.flatnonzero(heart.any(axis=1)), np.flatnonzero(heart.any(axis=0))
    box = (int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
    return Chest(picture, organs, box, finding, (box[3] - box[1]) / across, contrast, label)


def _expose(body: ChestBody, dense: FloatArray, rng: Generator) -> FloatArray:
    """What the detector makes of it: scatter, exposure, grey scale, noise, collimation, letters of lead and text."""
    dense = dense + 0.015 * draw_clouds(body.shape, rng, size_px=0.08 * body.width)
    grey = 0.86 * dense + 0.14 * body.blur(dense, 0.06)
    # more of the beam reaches the detector through the lungs: less noise there
    noise = ndimage.gaussian_filter(rng.standard_normal(body.shape), 0.6) * rng.uniform(0.012, 0.026)
    grey = grey + noise * (0.5 + 1.1 * np.clip(grey, 0.0, 1.0))
    grey = np.clip((grey - 0.02) / rng.uniform(0.80, 0.92), 0.0, None) ** rng.uniform(0.82, 1.18)
    grey = grey * rng.uniform(0.92, 1.04) + rng.uniform(-0.02, 0.03)
    # edge enhancement, as digital systems add it
    grey += rng.uniform(0.1, 0.5) * (grey - body.blur(grey, 0.010))
    side = rng.choice(["L", "R"])
    tile = draw_letter(str(side), max(7, int(0.045 * body.height)), turn_deg=float(rng.normal(0, 5)))
    row = int(rng.uniform(0.02, 0.10) * body.height)
    from_edge = rng.uniform(0.03, 0.10) * body.width
    column = int(body.width - from_edge - tile.shape[1] if side == "L" else from_edge)
    part = grey[row : row + tile.shape[0], column : column + tile.shape[1]]
    part += np.clip(1.0 - part, 0.0, None) * tile[: part.shape[0], : part.shape[1]] * rng.uniform(0.75, 1.0)
    if rng.random() < 0.25:
        size = max(6, int(0.022 * body.height))
        text = str(rng.choice(["PORTABLE", "ERECT", "PA UPRIGHT", "14:05"]))
        column = int(rng.choice([0.03, 0.72]) * body.width)
        burn(grey, text, (int(rng.uniform(0.02, 0.08) * body.height), column), size, 0.95)
    if rng.random() < 0.25:
        edge = (rng.uniform(0.004, 0.030, 4) * [body.height, body.height, body.width, body.width]).astype(int)
        kept = np.zeros(body.shape, dtype=bool)
        kept[edge[0] : body.height - edge[1], edge[2] : body.width - edge[3]] = True
        grey = np.where(kept, grey, 0.03)
    return np.asarray(np.clip(grey, 0.0, 1.0))


_GENERATIONS, _STEPS = 6, 14


def draw_vessels(body: ChestBody, lungs: Bools, rng: Generator, *, upper: float, haze: float) -> FloatArray:
    """Vessels that branch from both hila, thick in the middle and hardly to be seen at the wall.

    Args:
        body: the person.
        lungs: both lungs' mask.
        rng: of this picture.
        upper: how strong those to the upper lobes are, against the lower ones.
        haze: what fluid around the hila takes.
    """
    layers = np.zeros((3, body.height * body.width))
    dense = np.zeros(body.shape)
    for side in (-1, 1):
        root = np.array([0.432 - 0.014 * side, 0.5 + side * 0.085])
        angle = np.concatenate([rng.uniform(-1.5, -0.5, 4), rng.uniform(-0.4, 0.5, 3), rng.uniform(0.65, 1.5, 6)])
        strength = np.where(angle < -0.2, upper, 1.0) * rng.uniform(0.6, 1.1, len(angle))
        place = root + rng.normal(0.0, 1.0, (len(angle), 2)) * [0.020, 0.012] + 0.01 * np.sin(angle)[:, None] * [1, 0]
        radius = 0.0054 * rng.uniform(0.7, 1.15, len(angle))
        for _ in range(_GENERATIONS):
            bend = rng.normal(0.0, 0.022, len(angle))
            step = 0.0030 * rng.uniform(0.75, 1.35, len(angle))
            for _ in range(_STEPS):
                angle = angle + bend + rng.normal(0.0, 0.05, len(angle))
                place = place + step[:, None] * np.stack([np.sin(angle), side * np.cos(angle)], axis=1)
                _draw_dots(layers, body, place, radius, strength * radius / 0.0054)
            turns = rng.uniform(0.15, 0.75, (2, len(angle))) * [[-1.0], [1.0]]
            radius = np.concatenate([radius * 0.83, radius * rng.uniform(0.5, 0.8, len(radius))])
            angle = np.concatenate([angle + 0.5 * turns[0], angle + turns[1] * rng.choice([-1, 1], len(angle))])
            place, strength = np.concatenate([place, place]), np.concatenate([strength, strength * 0.96])
        r, c = body.place(root[0], root[1] - side * 0.008)
        down, out = (body.rows * body.height - r) / body.height, (body.columns * body.width - c) / body.width
        slant = out - side * 0.25 * down
        dense += 0.07 * body.hila * np.exp(-((down / 0.042) ** 2) - (slant / 0.022) ** 2)
        dense += haze * np.exp(-((down / 0.13) ** 2) - (out / 0.12) ** 2)
    for layer, share in zip(layers, (0.0016, 0.0030, 0.0050), strict=True):
        dense += ndimage.gaussian_filter(layer.reshape(body.shape), max(0.6, share * body.width), truncate=3.0)
    return np.asarray(dense * body.blur(lungs, 0.006))


def _draw_dots(
    layers: FloatArray, body: ChestBody, places: FloatArray, radius: FloatArray, strength: FloatArray
) -> None:
    """A step of every branch, on the layer whose blur is nearest to its radius."""
    r, c = body.place(places[:, 0], places[:, 1])
    index = np.stack([r, c], axis=1).astype(np.int64)
    inside = ((index >= 0) & (index < np.array(body.shape))).all(axis=1)
    flat = index @ np.array([body.width, 1])
    which = np.digitize(radius, (0.0019, 0.0036))
    # a line one pixel wide is lowered by its blur; every layer's peak shall be as its strength says
    gain = np.array((0.0016, 0.0030, 0.0050))[which] * body.width * 2.5 * 0.095 * 0.0033 * body.width
    for layer in range(3):
        chosen = inside & (which == layer)
        np.add.at(layers[layer], flat[chosen], (strength * gain)[chosen])


def draw_opacity(body: ChestBody, where: Bools, rng: Generator) -> tuple[FloatArray, Bools]:
    """A patch of consolidation in a lung: its density, 1 at most, and where it is more than a third of that.

    Args:
        body: the person.
        where: lung that heart and mediastinum leave free.
        rng: of this picture.
    """
    inner = ndimage.binary_erosion(where, iterations=max(2, body.width // 40))
    places = np.argwhere(inner if inner.any() else where)
    row, column = places[rng.integers(len(places))]
    size = rng.uniform(0.055, 0.105, 2) * body.width
    turn = rng.uniform(0, math.pi)
    y, x = body.rows * body.height - row, body.columns * body.width - column
    # an outline that is no ellipse: the distance is bent by clouds
    ragged = np.clip(0.22 * draw_clouds(body.shape, rng, size_px=0.07 * body.width), -0.4, 0.4)
    along = (math.cos(turn) * y + math.sin(turn) * x) / size[0]
    across = (math.cos(turn) * x - math.sin(turn) * y) / size[1]
    patchy = np.clip(1.0 + 0.24 * draw_clouds(body.shape, rng, size_px=0.028 * body.width), 0.4, 1.5)
    away = np.hypot(along, across) * np.maximum(1.0 + ragged, 0.0)
    dense = np.exp(-(away**2.4)) * patchy * body.blur(where, 0.005)
    # most of its middle reaches 1
    dense = np.minimum(dense / max(float(np.quantile(dense[dense > 0.4 * dense.max()], 0.8)), 1e-9), 1.0)
    parts, _ = ndimage.label((dense > 1.0 / 3.0) & where)
    mask: Bools = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    return dense, mask


def draw_effusion(body: ChestBody, lungs: dict[str, Bools], rng: Generator) -> FloatArray:
    """A little fluid in one costophrenic angle: it fills from below with a curved border."""
    lung = lungs["right_lung" if rng.random() < 0.6 else "left_lung"]
    rows, columns = np.nonzero(lung)
    bottom = int(rows.max())
    corner = int(np.median(columns[rows > bottom - max(2, body.height // 60)]))
    away = np.abs(body.columns * body.width - corner) / (0.20 * body.width)
    level = bottom - rng.uniform(0.03, 0.07) * body.height * np.exp(-3.0 * away)
    filled = 1.0 / (1.0 + np.exp(np.clip(-(body.rows * body.height - level) / (0.008 * body.height), -60, 60)))
    return np.asarray(0.20 * filled * body.blur(lung, 0.004))


def draw_distractors(body: ChestBody, lungs: Bools, heart: Bools, rng: Generator, *, amount: float = 1.0) -> FloatArray:
    """What lies on chests whatever their class: nipples, scars, folds, calcified nodes, leads, wires, a pacemaker.

    Args:
        body: the person.
        lungs: both lungs' mask.
        heart: the heart's mask.
        rng: of this picture; no draw depends on the label.
        amount: 1 as usual, 0 for none.
    """
    dense = np.zeros(body.shape)
    places = np.argwhere(lungs)
    rows, columns = body.rows * body.height, body.columns * body.width

    def add_spot(row: float, column: float, radius: float, strength: float, hard: float = 6.0) -> None:
        reach = int(3.0 * radius) + 3
        top, left = max(0, int(row) - reach), max(0, int(column) - reach)
        part = np.s_[top : int(row) + reach, left : int(column) + reach]
        away = np.hypot(rows[part[0]] - row, columns[:, part[1]] - column) / radius
        dense[part] += strength / (1.0 + np.exp(np.clip((away - 1.0) * hard, -60, 60)))

    def draw_place() -> tuple[float, float]:
        row, column = places[rng.integers(len(places))]
        return float(row), float(column)

    for _ in range(rng.poisson(0.8 * amount)):  # calcified nodes
        add_spot(*draw_place(), rng.uniform(0.004, 0.009) * body.width, rng.uniform(0.08, 0.20))
    if rng.random() < 0.35 * amount:  # nipples, on both sides or one
        sides = (-1, 1) if rng.random() < 0.6 else (int(rng.choice([-1, 1])),)
        for side in sides:
            r, c = body.place(0.615 + rng.normal(0, 0.015), 0.5 + side * (0.26 + rng.normal(0, 0.02)))
            add_spot(float(r), float(c), rng.uniform(0.011, 0.016) * body.width, rng.uniform(0.04, 0.08), 5.0)
    for _ in range(rng.poisson(0.9 * amount)):  # soft shadows of skin and muscle: smooth, and across the lung's border
        row, column = draw_place()
        size = rng.uniform(0.035, 0.085, 2) * body.width
        turn = rng.uniform(0, math.pi)
        y, x = rows - row - rng.normal(0, 0.03) * body.height, columns - column - rng.normal(0, 0.05) * body.width
        along, over = math.cos(turn) * y + math.sin(turn) * x, math.cos(turn) * x - math.sin(turn) * y
        dense += rng.uniform(0.02, 0.055) * np.exp(-(((along / size[0]) ** 2 + (over / size[1]) ** 2) ** 1.4))
    for _ in range(rng.poisson(0.7 * amount)):  # scars and plates of collapsed lung
        row, column = draw_place()
        angle, length = rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.14) * body.width
        t = np.linspace(-0.5, 0.5, 80)
        path = np.stack([row + length * t * math.sin(angle) + 0.02 * length * np.sin(5 * t),
                         column + length * t * math.cos(angle)], axis=1)  # fmt: skip
        dense += rng.uniform(0.04, 0.09) * _draw_stroke(body, path, 0.0035)
    if rng.random() < 0.35 * amount:  # electrodes and their leads
        for _ in range(int(rng.integers(1, 4))):
            side = rng.choice([-1.0, 1.0])
            start = np.array([rng.uniform(0.15, 0.75), 0.5 + side * rng.uniform(0.12, 0.40)])
            end = np.array([rng.uniform(0.85, 1.05), start[1] + side * rng.uniform(0.0, 0.2)])
            bend = (start + end) / 2 + rng.normal(0, [0.10, 0.08])
            t = np.linspace(0, 1, 500)[:, None]
            path = ((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end) * body.shape
            dense += 0.11 * _draw_stroke(body, path, 0.0018)
            add_spot(float(path[0, 0]), float(path[0, 1]), 0.013 * body.width, 0.12, 9.0)
            add_spot(float(path[0, 0]), float(path[0, 1]), 0.005 * body.width, 0.25, 9.0)
    if rng.random() < 0.08 * amount:  # wires of a sternotomy
        for k in range(int(rng.integers(4, 7))):
            r, c = body.place(0.22 + 0.062 * k, 0.5 + rng.normal(0, 0.004))
            t = np.linspace(0, 2 * math.pi, 120)
            path = np.stack([r + 0.008 * body.height * np.sin(t), c + 0.013 * body.width * np.cos(t)], axis=1)
            dense += 0.22 * _draw_stroke(body, path, 0.0016)
    if rng.random() < 0.06 * amount:
        dense += _draw_pacemaker(body, heart, rng)
    return dense


def _draw_pacemaker(body: ChestBody, heart: Bools, rng: Generator) -> FloatArray:
    """A can below the collar bone and its lead to the tip of the right ventricle."""
    r, c = (float(x) for x in body.place(0.215 + rng.normal(0, 0.01), 0.5 + 0.30 + rng.normal(0, 0.015)))
    rows, columns = np.nonzero(heart)
    tip = (float(np.percentile(rows, 82)), float(np.percentile(columns, 62)))
    away = (np.abs(body.rows * body.height - r) / (0.036 * body.height)) ** 3
    away = away + (np.abs(body.columns * body.width - c) / (0.050 * body.width)) ** 3
    can = 0.38 / (1.0 + np.exp(np.clip((away - 1.0) * 12.0, -60, 60)))
    middle = 0.5 * body.width
    knots = np.array([(r - 0.03 * body.height, c - 0.03 * body.width), (0.17 * body.height, c - 0.14 * body.width),
                      (0.27 * body.height, middle - 0.035 * body.width),
                      (0.48 * body.height, middle - 0.06 * body.width), tip])  # fmt: skip
    from scipy.interpolate import PchipInterpolator

    path = PchipInterpolator(np.arange(5), knots)(np.linspace(0, 4, 900))
    return np.asarray(can + 0.20 * _draw_stroke(body, path, 0.0020))


def _draw_stroke(body: ChestBody, path: FloatArray, share: float) -> FloatArray:
    """A line along a path [n, 2] in pixels, 1 in its middle; `share` of the width is its standard deviation."""
    drawn = np.zeros(body.shape)
    points = np.rint(path).astype(int)
    keep = ((points >= 0) & (points < np.array(body.shape))).all(axis=1)
    if not keep.any():
        return drawn
    margin = int(4 * share * body.width) + 3
    low = np.maximum(points[keep].min(axis=0) - margin, 0)
    high = points[keep].max(axis=0) + margin
    part = np.s_[low[0] : high[0], low[1] : high[1]]
    drawn[tuple(points[keep].T)] = 1.0
    wide = ndimage.gaussian_filter(drawn[part], max(0.7, share * body.width))
    drawn[part] = wide / max(float(wide.max()), 1e-9)
    return drawn
