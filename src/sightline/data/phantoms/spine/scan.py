"""A CT of a drawn spine, with the masks that say what is what."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from sightline.data.phantoms.spine.column import Column, PlacedVertebra
from sightline.data.phantoms.spine.contents import DISC, add_metal, fill_body, label_subregions
from sightline.data.phantoms.spine.plan import PhantomSubject
from sightline.data.phantoms.spine.posterior_elements import build_arch, build_ribs
from sightline.data.phantoms.spine.solids import EllipticBar, Floats, Grid, Part, blend_solids, compute_partial_volume
from sightline.data.phantoms.spine.tissue import draw_surroundings
from sightline.structures.frame import FloatArray

CORTEX_HU = 1250.0


@dataclass(frozen=True, eq=False)
class ScanDrawing:
    """A spine on a grid: Hounsfield units and masks, [x, y, z]."""

    hu: Floats
    bone: Floats
    vertebrae: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    findings: NDArray[np.uint8]


def draw_spine(
    grid: Grid, column: Column, person: PhantomSubject, labels: tuple[int, ...], rng: Generator
) -> ScanDrawing:
    """Draw a column and what is around it.

    Args:
        grid: where.
        column: placed vertebrae.
        person: whose.
        labels: of the vertebrae that the masks show; others, cut by the field of view, are drawn only.
        rng: of textures.
    """
    hu = draw_surroundings(grid, column, person, rng)
    texture = rng.standard_normal(grid.shape, dtype=np.float32)
    texture = ndimage.gaussian_filter(texture, 0.75 / grid.spacing_mm * [1.0, 1.0, 1.7])
    texture /= texture.std()
    drawn = ScanDrawing(hu, np.zeros(grid.shape, np.float32), *(np.zeros(grid.shape, np.uint8) for _ in range(3)))
    chosen = list(column.vertebrae)
    for upper, lower in pairwise(chosen):
        _draw_disc(drawn, grid, upper, lower, labels, texture)
    for number, placed in enumerate(chosen):
        below = chosen[min(number + 1, len(chosen) - 1)]
        _draw_vertebra(drawn, grid, placed, below, person, labels, texture)
    _draw_sacrum(drawn, grid, column, person, texture)
    held = [one for one in chosen if one.plan.screws]
    if held:
        add_metal(drawn.hu, grid, held, rng)
    return drawn


def _draw_disc(
    drawn: ScanDrawing,
    grid: Grid,
    upper: PlacedVertebra,
    lower: PlacedVertebra,
    labels: tuple[int, ...],
    texture: Floats,
) -> None:
    reach = max(upper.body.width, lower.body.width) / 2.0 + 6.0
    rim = upper.body.rims()[1][0]
    low = np.array([-reach, -reach * 0.8, rim - upper.plan.disc_mm - 9.0])
    part = upper.pose.reach(grid, low, np.array([reach, reach * 0.8, rim + 9.0]))
    if part is None:
        return
    above = upper.body.evaluate(*upper.pose.own(grid, part))
    under = lower.body.evaluate(*lower.pose.own(grid, part))
    wall = (above.wall + under.wall) / 2.0 - np.float32(0.6 + 1.5 * upper.plan.worn)
    distance = np.maximum(np.maximum(above.above_lower, under.below_upper), wall)
    share = compute_partial_volume(distance, float(grid.spacing_mm.mean()))
    # fibrous ring, softer nucleus
    value = np.where(wall > -7.0, np.float32(98.0), np.float32(78.0)) + 5.0 * texture[part]
    if upper.plan.gas:
        crack = (np.abs(above.above_lower - under.below_upper) < 1.3) & (wall < -5.0) & (texture[part] > -0.9)
        value = np.where(crack, np.float32(-550.0), value)
    drawn.hu[part] += share * (value - drawn.hu[part])
    if upper.plan.label in labels and lower.plan.label in labels:
        drawn.regions[part][distance < 0.0] = DISC


def _draw_vertebra(
    drawn: ScanDrawing,
    grid: Grid,
    placed: PlacedVertebra,
    below: PlacedVertebra,
    person: PhantomSubject,
    labels: tuple[int, ...],
    texture: Floats,
) -> None:
    plan, body = placed.plan, placed.body
    upper, lower = body.plates(-0.95)
    parts = build_arch(plan.label, plan.measures, below.plan.measures, float(upper), float(lower))
    reach = np.array([body.width / 2.0 + 9.0, body.depth / 2.0 + 9.0])
    tops, bottoms = body.plates(np.linspace(-1.0, 1.0, 9))
    boxes = [part.bar.corners(3.0) for part in parts]
    boxes.append((np.array([*-reach, bottoms.min() - 5.0]), np.array([*reach, tops.max() + 5.0])))
    low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
    whole = placed.pose.reach(grid, low, high)
    if whole is None:
        return
    shape = tuple(s.stop - s.start for s in whole)
    distance, nearest = np.full(shape, 9.0, np.float32), np.full(shape, 9.0, np.float32)
    cortex = np.full(shape, 0.6, np.float32)
    region = np.zeros(shape, np.uint8)
    for piece, (low, high) in zip(parts, boxes, strict=False):
        cell = placed.pose.reach(grid, low, high)
        if cell is None:
            continue
        inner = _cut_part(cell, whole)
        d = piece.bar.distance(*placed.pose.own(grid, cell))
        distance[inner] = blend_solids(distance[inner], d, 2.5)
        closer = d < nearest[inner]
        nearest[inner] = np.where(closer, d, nearest[inner])
        region[inner][closer] = piece.region
        cortex[inner][closer] = piece.cortex_mm
    spongy = np.full(shape, 1.15 * person.trabecular_hu + 70.0, np.float32)
    findings = np.zeros(shape, np.uint8)
    cell = placed.pose.reach(grid, *boxes[-1])
    if cell is not None:
        inner = _cut_part(cell, whole)
        own_axes = placed.pose.own(grid, cell)
        f = body.evaluate(*own_axes)
        if plan.fresh > 0.55 and plan.grade > 1:
            # blood and swelling beside a fresh fracture
            swollen = compute_partial_volume(f.distance - np.float32(6.0 * plan.fresh), 3.0) * (drawn.hu[cell] < 20.0)
            drawn.hu[cell] += 0.9 * swollen * (58.0 - drawn.hu[cell])
        own = (f.distance < nearest[inner]) | (f.distance < -1.0)
        distance[inner] = blend_solids(distance[inner], f.distance, 2.5)
        region[inner] = np.where(own, label_subregions(f), region[inner])
        plate = np.minimum(f.below_upper, f.above_lower) < -f.wall
        cortex[inner] = np.where(own, np.where(plate, np.float32(0.85), np.float32(0.55)), cortex[inner])
        content, found = fill_body(placed, f, person, own_axes, texture[cell])
        spongy[inner] = np.where(own, content, spongy[inner])
        findings[inner] = np.where(own & (f.distance < 0.0), found, 0)
    voxel = float(grid.spacing_mm.mean())
    share, core = compute_partial_volume(distance, voxel), compute_partial_volume(distance + cortex, voxel)
    roughness = (16.0 + 0.13 * person.trabecular_hu) * texture[whole]
    hard = CORTEX_HU * (1.0 - 0.22 * person.frailty)
    bone = (share - core) * np.float32(hard) + core * (spongy + roughness)
    drawn.hu[whole] = drawn.hu[whole] * (1.0 - share) + bone
    if plan.label in labels:
        won = (distance < 0.0) & (share > drawn.bone[whole])
        drawn.vertebrae[whole][won] = plan.label
        drawn.regions[whole][won] = region[won]
        drawn.findings[whole][won] = findings[won]
    drawn.bone[whole] = np.maximum(drawn.bone[whole], share)
    for rib in build_ribs(plan.label, plan.measures, float(upper)):
        _draw_bare_bone(drawn, grid, placed, rib, person)


def _draw_bare_bone(
    drawn: ScanDrawing, grid: Grid, placed: PlacedVertebra, bar: EllipticBar, person: PhantomSubject
) -> None:
    part = placed.pose.reach(grid, *bar.corners(2.0))
    if part is None:
        return
    distance = bar.distance(*placed.pose.own(grid, part))
    voxel = float(grid.spacing_mm.mean())
    share = compute_partial_volume(distance, voxel) * (1.0 - drawn.bone[part])
    core = np.minimum(compute_partial_volume(distance + 1.0, voxel), share)
    value = (share - core) * CORTEX_HU * (1.0 - 0.2 * person.frailty) + core * (120.0 + 0.5 * person.trabecular_hu)
    drawn.hu[part] = drawn.hu[part] * (1.0 - share) + value


def _draw_sacrum(drawn: ScanDrawing, grid: Grid, column: Column, person: PhantomSubject, texture: Floats) -> None:
    last = column.vertebrae[-1]
    width, depth = last.body.width, last.body.depth
    corner = np.array([width * 1.2, depth, 4.0])
    part = column.sacrum.reach(grid, np.array([-corner[0], -60.0, -80.0]), corner)
    if part is None:
        return
    x, y, z = column.sacrum.own(grid, part)
    half = np.float32(depth / 2.0) * (1.0 + z / 110.0)
    front = y - half - 0.004 * z * z
    body = np.maximum(np.maximum(z, front), -half - y - 0.1 * z)
    wings = np.maximum(np.abs(x) - (width / 2.0 - 0.55 * np.minimum(z + 4.0, 0.0)), np.maximum(body, z + 3.0))
    distance = np.minimum(np.maximum(body, np.abs(x) - width / 2.0), wings).astype(np.float32)
    voxel = float(grid.spacing_mm.mean())
    share = compute_partial_volume(distance, voxel) * (1.0 - drawn.bone[part])
    core = np.minimum(compute_partial_volume(distance + 0.9, voxel), share)
    spongy = person.trabecular_hu + 18.0 * texture[part]
    drawn.hu[part] = drawn.hu[part] * (1.0 - share) + (share - core) * CORTEX_HU + core * spongy


def _cut_part(inner: Part, outer: Part) -> Part:
    a, b, c = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return a, b, c


def simulate_scanner(
    drawn: ScanDrawing,
    fine_mm: FloatArray,
    groups: tuple[int, int, int],
    noise_hu: float,
    blur_mm: float,
    rng: Generator,
) -> tuple[NDArray[np.int16], ScanDrawing]:
    """What the scanner makes of it: blur, thick slices, noise; the masks on the same grid.

    Args:
        drawn: on the fine grid.
        fine_mm: its voxel size.
        groups: fine voxels that one voxel of the scan holds along each axis.
        noise_hu: standard deviation in the scan.
        blur_mm: standard deviation of the point spread.
        rng: of the noise.
    """
    hu = ndimage.gaussian_filter(drawn.hu, blur_mm / fine_mm)
    bone = drawn.bone
    masks = [drawn.vertebrae, drawn.regions, drawn.findings]
    for axis, n in enumerate(groups):
        if n == 1:
            continue
        split = [*hu.shape[:axis], hu.shape[axis] // n, n, *hu.shape[axis + 1 :]]
        hu, bone = (a.reshape(split).mean(axis=axis + 1) for a in (hu, bone))
        masks = [m.reshape(split).take(n // 2, axis=axis + 1) for m in masks]
    voxel = fine_mm * groups
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, 0.42 / voxel)
    # reconstruction filters leave little noise of low frequency in the axial plane
    noise -= 0.85 * ndimage.gaussian_filter(noise, np.array([1.3, 1.3, 0.0]) / voxel)
    hu = hu + noise * np.float32(noise_hu / noise.std())
    ct = np.rint(np.clip(hu, -1024.0, 3071.0)).astype(np.int16)
    return ct, ScanDrawing(hu, bone, masks[0], masks[1], masks[2])
