"""What a vertebral body is made of: spongy bone, what broke or healed in it, and which sub-region a voxel is of."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from sightline.data.phantoms.spine.body import BodyField
from sightline.data.phantoms.spine.column import PlacedVertebra
from sightline.data.phantoms.spine.plan import PhantomSubject
from sightline.data.phantoms.spine.solids import EllipticBar, Floats, Grid, compute_partial_volume
from sightline.structures.frame import FloatArray

# numbers of SUBREGIONS in data/spine/vertebrae.py
BORDER, BODY, DISC, UPPER_ENDPLATE, LOWER_ENDPLATE = 49, 50, 100, 101, 102
# of FINDINGS there: the finding mask
DEPRESSED_UPPER, DEPRESSED_LOWER, SCLEROTIC_BAND, BULGED_WALL = 1, 2, 3, 4
_BORDER_MM, _PLATE_MM = 3.0, 2.5
# the band of pressed and healing bone lies this deep under the endplate, and is this thick
_BAND_AT_MM, _BAND_MM = 3.8, 1.7


def label_subregions(f: BodyField) -> NDArray[np.uint8]:
    """Sub-region of each voxel of a body: endplates, border, inner body."""
    region = np.where(f.distance > -_BORDER_MM, BORDER, BODY).astype(np.uint8)
    inside = f.wall < -1.5
    region[inside & (f.below_upper < _PLATE_MM)] = UPPER_ENDPLATE
    region[inside & (f.above_lower < _PLATE_MM)] = LOWER_ENDPLATE
    return region


def fill_body(
    placed: PlacedVertebra, f: BodyField, person: PhantomSubject, own: tuple[Floats, Floats, Floats], texture: Floats
) -> tuple[Floats, NDArray[np.uint8]]:
    """Hounsfield units of what is inside the shell, and the finding mask's numbers.

    Args:
        placed: the vertebra.
        f: its body at the voxels of a part.
        person: whose.
        own: the vertebra's own coordinates there.
        texture: random field there, mean 0, spread 1.
    """
    plan, m = placed.plan, placed.plan.measures
    x, y, z = own
    value = np.full(f.distance.shape, person.trabecular_hu, np.float32)
    # the vein that leaves the body in the middle of its back wall
    vein = np.exp(-((x / 6.0) ** 2) - ((z - float(plan.body.heights[1] - plan.body.normal[1]) / 4.0) / 2.2) ** 2)
    value -= 0.75 * person.trabecular_hu * vein * np.clip((-y - 0.12 * m.depth_up) / 6.0, 0.0, 1.0)
    if plan.fat:
        value = 5.0 + 110.0 * np.clip(texture, 0.0, 3.0)
    if plan.worn > 0.7:
        # the bone over a worn disc hardens
        value += 160.0 * plan.worn * np.exp(-((f.above_lower / 3.0) ** 2))
    if plan.island:
        place = (x - 0.22 * m.width_up) ** 2 + (y - 0.1 * m.depth_up) ** 2 + 0.8 * (z - 1.0) ** 2
        value += 650.0 * np.exp(-((place / 14.0) ** 2))
    found = np.zeros(f.distance.shape, np.uint8)
    if plan.grade:
        _break(placed, f, person, value, found, texture)
    if plan.cement:
        # it flows where the bone is loose
        filled = (f.wall < -5.0) & (f.below_upper > 2.5) & (f.above_lower > 2.5) & (texture > -0.5)
        value = np.where(filled & (np.abs(x) < 0.32 * m.width_up), np.float32(1700.0), value)
    return np.asarray(value, dtype=np.float32), found


def _break(
    placed: PlacedVertebra,
    f: BodyField,
    person: PhantomSubject,
    value: Floats,
    found: NDArray[np.uint8],
    texture: Floats,
) -> None:
    """Add to a body what a compression leaves in it, and mark it."""
    plan = placed.plan
    most = max(float(n - h) for n, h in zip(plan.body.normal, plan.body.heights, strict=True))
    for depth, loss, share, number in (
        (f.below_upper, f.upper_loss, plan.body.upper_share, DEPRESSED_UPPER),
        (f.above_lower, f.lower_loss, 1.0 - plan.body.upper_share, DEPRESSED_LOWER),
    ):
        if share < 0.2:
            continue
        pressed = np.clip(loss / (share * most), 0.0, 1.0)
        # what was pressed together is denser, and heals in a band under the plate
        band = pressed * np.exp(-(((depth - _BAND_AT_MM) / _BAND_MM) ** 2))
        strength = plan.fresh * (150.0 + 420.0 * plan.loss) * min(1.0, 0.5 + share)
        value += strength * band * (1.0 + 0.25 * texture) + 0.5 * plan.loss * person.trabecular_hu * pressed
        if strength > 60.0:
            found[band > 0.45] = SCLEROTIC_BAND
        found[(pressed > 0.4) & (depth < _PLATE_MM)] = number
        if plan.cleft and number == DEPRESSED_UPPER:
            gas = (np.abs(depth - 7.0) < 1.2) & (f.wall < -5.0) & (pressed > 0.3) & (texture > -1.0)
            value[gas] = -650.0
    if plan.body.buckle_mm > 0.0 or plan.body.retropulsion_mm > 0.0:
        found[(found == 0) & (f.wall > -_PLATE_MM) & (f.bulge > 0.9)] = BULGED_WALL


METAL_HU = 3071.0
_ANGLES = 20
_STEP = 2
# of the strongest streaks beside the metal
_STREAK_HU = 320.0


def place_screws(placed: PlacedVertebra) -> list[EllipticBar]:
    """A screw through each pedicle into the body, in the vertebra's own coordinates; its head is behind the facet."""
    m = placed.plan.measures
    upper, _ = placed.body.plates(-0.95)
    z = float(upper) - 0.5 * min(m.pedicle_height, 0.85 * m.height)
    out = (m.canal_width + m.pedicle_width) / 2.0
    wall = -placed.body.depth / 2.0
    bars = []
    for side in (-1.0, 1.0):
        head = np.array([side * (out + 3.0), wall - m.canal_depth - 14.0, z])
        tip = np.array([side * 0.45 * out, 0.25 * placed.body.depth, z - 1.0])
        bars += [
            EllipticBar(head, tip, (2.6, 2.6), (2.2, 2.2)),
            EllipticBar(head, head + (tip - head) * 0.12, (5.5, 5.5), (5.5, 5.5)),
        ]
    return bars


def add_metal(hu: Floats, grid: Grid, held: list[PlacedVertebra], rng: Generator) -> None:
    """Put screws through the vertebrae and a rod on either side, and add their streaks, in place."""
    metal = np.zeros(grid.shape, np.float32)
    voxel = float(grid.spacing_mm.mean())
    heads: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    for placed in held:
        bars = place_screws(placed)
        for bar in bars:
            part = placed.pose.reach(grid, *bar.corners(1.0))
            if part is not None:
                share = compute_partial_volume(bar.distance(*placed.pose.own(grid, part)), voxel)
                metal[part] = np.maximum(metal[part], share)
        for number in (0, 1):
            heads[number].append(placed.pose.place(bars[2 * number + 1].start))
    for ends in heads:
        for start, stop in pairwise(ends):
            rod = EllipticBar(start, stop, (2.8, 2.8), (2.8, 2.8), (0.0, 1.0, 0.0))
            part = grid.part(*rod.corners(1.0))
            if part is not None:
                metal[part] = np.maximum(metal[part], compute_partial_volume(rod.distance(*grid.axes(part)), voxel))
    rows = np.flatnonzero(metal.any(axis=(0, 1)))
    if not rows.size:
        return
    slab = slice(int(rows[0]), int(rows[-1]) + 1)
    hu[:, :, slab] += _draw_streaks(metal[:, :, slab], rng)
    np.add(hu, metal * (np.float32(METAL_HU) - hu), out=hu)


def _draw_streaks(metal: Floats, rng: Generator) -> Floats:
    """What is wrong in a reconstruction from rays that metal has all but stopped: dark and bright lines through it.

    The error of a ray grows with the square of the metal on its way (beam hardening), with noise where hardly any
    photon is left; smeared back along its direction from every side, as filtered back-projection does.
    """
    small = metal[::_STEP, ::_STEP]
    total = np.zeros_like(small)
    for angle in np.arange(_ANGLES) * (180.0 / _ANGLES) + rng.uniform(0.0, 180.0 / _ANGLES):
        turned = ndimage.rotate(small, angle, axes=(0, 1), reshape=False, order=1)
        ray = turned.sum(axis=0)
        error = -(ray**2) * (1.0 + 0.35 * rng.standard_normal(ray.shape))
        error -= ndimage.gaussian_filter1d(error, 2.5, axis=0)
        smeared = np.broadcast_to(error[None], small.shape)
        total += ndimage.rotate(smeared, -angle, axes=(0, 1), reshape=False, order=1)
    beside = np.abs(total[small == 0.0])
    total *= _STREAK_HU / max(float(np.percentile(beside, 99.5)), 1e-6)
    wide = np.repeat(np.repeat(total, _STEP, axis=0), _STEP, axis=1)[: metal.shape[0], : metal.shape[1]]
    return np.asarray(ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(wide, 1.0, axis=0), 1.0, axis=1), np.float32)
