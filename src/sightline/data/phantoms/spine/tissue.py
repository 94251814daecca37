"""What lies around a spine: skin, fat, muscles, lungs, organs, great vessels, and the canal's content."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from sightline.data.phantoms.spine.column import Column
from sightline.data.phantoms.spine.plan import PhantomSubject
from sightline.data.phantoms.spine.solids import Floats, Grid, compute_partial_volume
from sightline.structures.frame import FloatArray

Paint = Callable[[Floats, Floats | float], None]
AIR, FAT, MUSCLE, CSF, CORD, LUNG = -1000.0, -102.0, 54.0, 9.0, 36.0, -860.0


class Surroundings:
    """Where things are around one spine, as curves over z."""

    def __init__(self, grid: Grid, column: Column, person: PhantomSubject) -> None:
        self.grid, self.person = grid, person
        order = sorted(column.vertebrae, key=lambda one: float(one.centre[2]))
        self.heights = np.array([one.centre[2] for one in order])
        centres, canals = np.array([one.centre for one in order]), np.array([one.canal for one in order])
        self.level = {one.plan.label: float(one.centre[2]) for one in order}

        def interpolate(values: FloatArray, at: FloatArray | None = None) -> Floats:
            return np.interp(grid.z, self.heights if at is None else at, values).astype(np.float32)[None, None, :]

        self.cx, self.cy = interpolate(centres[:, 0]), interpolate(centres[:, 1])
        self.canal_x, self.canal_y = interpolate(canals[:, 0], canals[:, 2]), interpolate(canals[:, 1], canals[:, 2])
        self.half_width = interpolate(np.array([one.body.width / 2.0 for one in order]))
        self.half_depth = interpolate(np.array([one.body.depth / 2.0 for one in order]))
        self.canal_a = interpolate(np.array([one.plan.measures.canal_width / 2.0 for one in order]), canals[:, 2])
        self.canal_b = interpolate(np.array([one.plan.measures.canal_depth / 2.0 for one in order]), canals[:, 2])
        self.x, self.y = grid.x[:, None, None], grid.y[None, :, None]
        self.z = grid.z[None, None, :]
        self.voxel = float(grid.spacing_mm.mean())

    def ellipse(self, x: Floats, y: Floats, a: Floats | float, b: Floats | float) -> Floats:
        """Distance to the surface of an upright tube of elliptic section, true near it."""
        u, v = (self.x - x) / np.float32(a), (self.y - y) / np.float32(b)
        size = np.sqrt(u * u + v * v)
        return np.asarray((size - 1.0) * np.minimum(a, b), dtype=np.float32)


def draw_surroundings(grid: Grid, column: Column, person: PhantomSubject, rng: Generator) -> Floats:
    """Hounsfield units of everything but bone and discs, [x, y, z]."""
    s = Surroundings(grid, column, person)
    coarse = _draw_clouds(grid, rng, 11.0)
    streaks = _draw_clouds(grid, rng, 3.0)
    # the back follows the tips of the spinous processes
    fat_mm = np.float32(6.0 + 22.0 * person.fatness)
    back = s.canal_y - np.float32(47.0) - fat_mm
    middle = s.cy + np.float32(52.0)
    u, v = np.abs(s.x - s.cx) / np.float32(168.0), np.abs(s.y - middle) / (middle - back)
    skin = ((u**3 + v**3) ** np.float32(1 / 3) - 1.0) * (middle - back)
    skin = np.where(s.y > middle, np.maximum((u - 1.0) * np.float32(168.0), -30.0), skin).astype(np.float32)
    hu = np.full(grid.shape, AIR, dtype=np.float32)

    def paint(distance: Floats, value: Floats | float) -> None:
        share = compute_partial_volume(distance, s.voxel)
        np.add(hu, share * (np.asarray(value, dtype=np.float32) - hu), out=hu)

    paint(skin, FAT)
    hu += np.where((skin > -2.2) & (skin < 0.0), np.float32(110.0), np.float32(0.0))
    muscle = MUSCLE - np.float32(22.0 * person.fatness) + 7.0 * streaks
    # fatty strands, more in those who have little muscle
    muscle = (muscle - 95.0 * np.clip(streaks - 1.5 + 1.2 * person.fatness, 0.0, 1.0)).astype(np.float32)
    _draw_belly(s, paint, coarse, streaks)
    paint(np.maximum(skin + fat_mm, s.y - s.canal_y + 12.0), muscle)
    for side in (-1.0, 1.0):
        paint(s.ellipse(s.canal_x + side * 30.0, s.canal_y - 25.0, 29.0, 22.0), muscle)
        growth = np.clip((s.level[20] + 18.0 - s.z) / 90.0, 0.0, 1.0).astype(np.float32)
        psoas = s.ellipse(s.cx + side * (s.half_width + 3.0 + 15.0 * growth), s.cy - 6.0 + 8.0 * growth,
                          2.0 + 16.0 * growth, 3.0 + 20.0 * growth)  # fmt: skip
        paint(np.where(growth > 0.0, psoas, np.float32(9.0)), muscle)
    # the fat between the muscles behind the spinous processes
    paint(np.maximum(np.maximum(np.abs(s.x - s.canal_x) - 1.2, s.y - s.canal_y + 24.0), skin), FAT)
    _draw_vessels(s, paint, rng)
    _draw_canal(s, paint)
    return hu


def _draw_belly(s: Surroundings, draw: Paint, coarse: Floats, streaks: Floats) -> None:
    dome = s.level[19] - 10.0 + 62.0 * np.clip((s.y - s.cy + 28.0) / 70.0, 0.0, 1.0)
    ahead = s.cy - 4.0 - s.y
    # bowel, mesentery and fat in the abdomen; heart, vessels and fat in the chest
    content = np.where(coarse > 0.05, np.float32(38.0), np.float32(FAT)) + 5.0 * streaks
    draw(np.maximum(ahead, s.z - dome), content)
    gas = np.where(coarse > 1.75, np.float32(-2.0), np.float32(9.0))
    draw(np.where((ahead < -34.0) & (s.z < dome), gas, np.float32(9.0)), -880.0)
    draw(np.maximum(ahead, dome - s.z), np.where(coarse > -0.5, np.float32(44.0), np.float32(-85.0)))
    bright = s.person.contrast_hu > 60.0
    lungs = [s.ellipse(s.cx + side * (s.half_width + 54.0), s.cy + 40.0, 49.0, 76.0) for side in (-1.0, 1.0)]
    for side, lung in zip((-1.0, 1.0), lungs, strict=True):
        organ = (108.0 if bright else 60.0) if side > 0 else (112.0 if bright else 48.0)
        low = s.level[21] - 10.0 if side > 0 else s.level[20] + 5.0
        draw(np.maximum(np.maximum(lung, s.z - dome), low - s.z), organ + 3.0 * streaks)
        kidney = np.sqrt(((s.x - s.cx - side * 62.0) / 27.0) ** 2 + ((s.y - s.cy + 6.0) / 25.0) ** 2
                         + ((s.z - (s.level[20] + s.level[21]) / 2.0 + 8.0 * side) / 54.0) ** 2)  # fmt: skip
        draw(((kidney - 1.18) * 25.0).astype(np.float32), FAT)
        draw(((kidney - 1.0) * 25.0).astype(np.float32), 175.0 if bright else 33.0)
        draw(((kidney - 0.5) * 25.0).astype(np.float32), 20.0 if bright else -40.0)
        # vessels in the lungs, thicker towards the hilum
        tissue = np.where(np.abs(streaks) > 2.0, np.float32(-250.0), LUNG + 28.0 * streaks).astype(np.float32)
        draw(np.maximum(lung, dome - s.z), tissue)


def _draw_vessels(s: Surroundings, draw: Paint, rng: Generator) -> None:
    blood = s.person.contrast_hu
    # in the chest at the spine's left side, in the abdomen in front of it
    down = np.clip((s.level[17] - s.z) / 90.0, 0.0, 1.0).astype(np.float32)
    x = s.cx - (s.half_width + 3.0) * (1.0 - down) - 7.0 * down
    y = s.cy + s.half_depth * (0.55 + 0.45 * down) + 4.0 + 9.0 * down
    wide = (13.0 - 4.0 * down).astype(np.float32)
    aorta = s.ellipse(x, y, wide, wide)
    ends = np.float32(s.level[23] - 8.0) - s.z
    draw(np.maximum(aorta, ends), 42.0)
    draw(np.maximum(aorta + 1.6, ends), blood)
    if s.person.calcified > 0.15:
        turn = np.arctan2(s.y - y, s.x - x)
        patches = sum(
            np.cos(turn * k + phase + s.z / length)
            for k, phase, length in zip((1, 2, 3), rng.uniform(0, 6.28, 3), rng.uniform(6.0, 16.0, 3), strict=True)
        )
        plaque = np.maximum(np.abs(aorta + 1.0) - 0.9, 4.0 * (2.3 - 1.6 * s.person.calcified - patches))
        draw(np.maximum(plaque, ends).astype(np.float32), 750.0)
    cava = s.ellipse(s.cx + 17.0, s.cy + s.half_depth + 9.0, 11.0, 8.0)
    draw(np.maximum(cava, s.z - s.level[17]), 42.0 if blood < 60.0 else 0.6 * blood)
    gullet = s.ellipse(s.cx - 5.0, s.cy + s.half_depth + 9.0, 9.0, 6.0)
    draw(np.maximum(gullet, s.level[18] - s.z), 40.0)
    draw(np.maximum(s.ellipse(s.cx - 5.0, s.cy + s.half_depth + 9.0, 3.5, 1.6), s.level[17] - s.z), -600.0)


def _draw_canal(s: Surroundings, draw: Paint) -> None:
    # fat around the sac, most of it behind
    draw(s.ellipse(s.canal_x, s.canal_y - 1.5, s.canal_a + 0.5, s.canal_b + 2.5), -70.0)
    draw(s.ellipse(s.canal_x, s.canal_y + 0.8, s.canal_a * 0.84, s.canal_b * 0.84), CSF)
    # the cord ends at L1; below, the roots lie at the back of the sac
    cone = np.clip((s.z - s.level[20] + 6.0) / 25.0, 0.0, 1.0).astype(np.float32)
    cord = s.ellipse(s.canal_x, s.canal_y + 0.5, 1.5 + 3.4 * cone, 1.5 + 2.4 * cone)
    draw(np.where(cone > 0.0, cord, np.float32(9.0)), CORD)
    draw(np.where(cone > 0.0, np.float32(9.0), s.ellipse(s.canal_x, s.canal_y - 2.0, 6.0, 3.0)), 27.0)


def _draw_clouds(grid: Grid, rng: Generator, size_mm: float) -> Floats:
    """Random variation over about `size_mm`, mean 0, spread 1, made on a coarse grid."""
    step = max(size_mm / 2.0, 1.0)
    extent = grid.spacing_mm * grid.shape
    coarse = ndimage.gaussian_filter(rng.standard_normal(np.ceil(extent / step).astype(int) + 2, dtype=np.float32), 1.0)
    coarse /= coarse.std()
    for axis, n in enumerate(grid.shape):
        place = np.arange(n) * (grid.spacing_mm[axis] / step)
        first = np.minimum(place.astype(int), coarse.shape[axis] - 2)
        shape = [1, 1, 1]
        shape[axis] = n
        share = (place - first).astype(np.float32).reshape(shape)
        coarse = coarse.take(first, axis) * (1.0 - share) + coarse.take(first + 1, axis) * share
    return np.asarray(coarse, dtype=np.float32)
