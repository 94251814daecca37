"""A chest from the front: lungs, heart, ribs and vessels, with an enlarged heart or an opacity, plain to faint.

Drawn as attenuation on one grid: what lies on the way of the rays adds up, lungs take away. The patient's right is on
the left of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from sightline.cohorts.phantom.chest_body import Body, Bools
from sightline.cohorts.phantom.chest_findings import distractors, effusion, opacity, vessels
from sightline.cohorts.phantom.furniture import burn, letter
from sightline.cohorts.phantom.texture import clouds
from sightline.frame import FloatArray

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
    body = Body(person, shape)
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
    dense += 0.32 * solid * (1.0 - np.clip(below / 0.11, 0.0, 1.0)) + below + 0.05 * body.soft(knob, 0.010)
    dense += body.spine() * (1.0 - 0.45 * solid) + body.bone(both)
    upper = tree.uniform(0.45, 0.85) + (0.35 * contrast if enlarged else 0.0)
    haze = tree.uniform(0.0, 0.02) + (0.04 * contrast if enlarged else 0.0)
    dense += vessels(body, both, tree, upper=upper, haze=haze)
    if enlarged and seen.random() < 0.6 * contrast:
        dense += effusion(body, lungs, seen)
    finding: Bools | None = heart.copy() if enlarged else None
    if label == "pneumonia":
        patch, finding = opacity(body, both & ~shadow, seen)
        dense += (0.035 + 0.25 * contrast) * patch
    if clutter > 0.0:
        dense += distractors(body, both, heart, things, amount=clutter)
    picture = _exposed(body, dense, film)
    # a mask, as a radiologist outlines it: the lung that heart and vessels leave free
    organs = {**{name: lung & ~shadow for name, lung in lungs.items()}, "mediastinum": shadow, "aortic_knob": knob}
    rows, cols = np.flatnonzero(heart.any(axis=1)), np.flatnonzero(heart.any(axis=0))
    box = (int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
    return Chest(picture, organs, box, finding, (box[3] - box[1]) / across, contrast, label)


def _exposed(body: Body, dense: FloatArray, rng: Generator) -> FloatArray:
    """What the detector makes of it: scatter, exposure, grey scale, noise, collimation, letters of lead and text."""
    dense = dense + 0.015 * clouds(body.shape, rng, size_px=0.08 * body.width)
    grey = 0.86 * dense + 0.14 * body.soft(dense, 0.06)
    # more of the beam reaches the detector through the lungs: less noise there
    noise = ndimage.gaussian_filter(rng.standard_normal(body.shape), 0.6) * rng.uniform(0.012, 0.026)
    grey = grey + noise * (0.5 + 1.1 * np.clip(grey, 0.0, 1.0))
    grey = np.clip((grey - 0.02) / rng.uniform(0.80, 0.92), 0.0, None) ** rng.uniform(0.82, 1.18)
    grey = grey * rng.uniform(0.92, 1.04) + rng.uniform(-0.02, 0.03)
    # edge enhancement, as digital systems add it
    grey += rng.uniform(0.1, 0.5) * (grey - body.soft(grey, 0.010))
    side = rng.choice(["L", "R"])
    tile = letter(str(side), max(7, int(0.045 * body.height)), turn_deg=float(rng.normal(0, 5)))
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
