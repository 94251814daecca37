"""Screws and rods in a spine, and the streaks that they throw over a CT."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from sightline.cohorts.phantom.spine_chain import Placed
from sightline.cohorts.phantom.spine_solids import Bar, Floats, Grid, covered
from sightline.frame import FloatArray

METAL_HU = 3071.0
_ANGLES = 20
_STEP = 2
# of the strongest streaks beside the metal
_STREAK_HU = 320.0


def screws_of(placed: Placed) -> list[Bar]:
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
        bars += [Bar(head, tip, (2.6, 2.6), (2.2, 2.2)), Bar(head, head + (tip - head) * 0.12, (5.5, 5.5), (5.5, 5.5))]
    return bars


def add_metal(hu: Floats, grid: Grid, held: list[Placed], rng: Generator) -> None:
    """Put screws through the vertebrae and a rod on either side, and add their streaks, in place."""
    metal = np.zeros(grid.shape, np.float32)
    voxel = float(grid.spacing_mm.mean())
    heads: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    for placed in held:
        bars = screws_of(placed)
        for bar in bars:
            part = placed.pose.reach(grid, *bar.corners(1.0))
            if part is not None:
                share = covered(bar.distance(*placed.pose.own(grid, part)), voxel)
                metal[part] = np.maximum(metal[part], share)
        for number in (0, 1):
            heads[number].append(placed.pose.place(bars[2 * number + 1].start))
    for ends in heads:
        for start, stop in pairwise(ends):
            rod = Bar(start, stop, (2.8, 2.8), (2.8, 2.8), (0.0, 1.0, 0.0))
            part = grid.part(*rod.corners(1.0))
            if part is not None:
                metal[part] = np.maximum(metal[part], covered(rod.distance(*grid.axes(part)), voxel))
    rows = np.flatnonzero(metal.any(axis=(0, 1)))
    if not rows.size:
        return
    slab = slice(int(rows[0]), int(rows[-1]) + 1)
    hu[:, :, slab] += _streaks(metal[:, :, slab], rng)
    np.add(hu, metal * (np.float32(METAL_HU) - hu), out=hu)


def _streaks(metal: Floats, rng: Generator) -> Floats:
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
