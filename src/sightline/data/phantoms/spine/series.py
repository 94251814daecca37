"""How one series is taken: which levels, on what grid, in which orientation, how noisy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.random import Generator
from numpy.typing import NDArray

from sightline.data.phantoms.spine.body import is_thoracic
from sightline.data.phantoms.spine.column import Column
from sightline.data.phantoms.spine.plan import PhantomSubject
from sightline.data.phantoms.spine.solids import Grid
from sightline.data.spine.vertebrae import LABELS
from sightline.structures.frame import FloatArray

# about the size of the drawing's own voxels; thick ones of a series hold several of them
FINE_MM = 1.05
_LEAST_LEVELS = 4


@dataclass(frozen=True)
class Series:
    """One series of a person.

    Attributes:
        name: of its files, after `sub-`.
        labels: of the whole vertebrae in the field of view.
        orientation: where each of the array's indices grows to.
        spacing_mm: along x (right), y (front) and z (head).
        nod_deg: how far the scan's own axes are turned about the patient's left-right axis.
        wide_mm: width of the field of view from left to right, and what it holds behind and in front of the bodies.
        noise_hu: standard deviation.
        blur_mm: standard deviation of the point spread.
        seed: of textures and noise.
    """

    name: str
    labels: tuple[int, ...]
    orientation: tuple[str, str, str]
    spacing_mm: tuple[float, float, float]
    nod_deg: float
    wide_mm: tuple[float, float, float]
    noise_hu: float
    blur_mm: float
    seed: tuple[int, ...]

    def groups(self) -> tuple[int, int, int]:
        """Fine voxels along x, y, z in each of the series' own."""
        a, b, c = (max(1, round(mm / FINE_MM)) for mm in self.spacing_mm)
        return a, b, c

    def grid(self, column: Column) -> Grid:
        """The fine grid over its field of view."""
        shown = [one for one in column.vertebrae if one.plan.label in self.labels]
        centres = np.array([one.centre for one in shown])
        reach = [0.5 * one.plan.measures.height + 4.0 for one in shown]
        x = float(centres[:, 0].min() + centres[:, 0].max()) / 2.0
        low = (x - self.wide_mm[0] / 2.0, float(centres[:, 1].min()) - self.wide_mm[1],
               float(centres[-1, 2]) - reach[-1] - 9.0)  # fmt: skip
        high = (x + self.wide_mm[0] / 2.0, float(centres[:, 1].max()) + self.wide_mm[2],
                float(centres[0, 2]) + reach[0] + 7.0)  # fmt: skip
        axes = []
        for a, b, spacing, n in zip(low, high, self.spacing_mm, self.groups(), strict=True):
            fine, count = spacing / n, math.ceil((b - a) / spacing) * n
            axes.append((a + fine * (np.arange(count) + 0.5)).astype(np.float32))
        return Grid(*axes)

    def affine(self, grid: Grid) -> FloatArray:
        """Voxel indices of the [x, y, z] array to millimetres, RAS+."""
        affine = np.diag([*self.spacing_mm, 1.0])
        starts = [
            float(axis[0]) - fine / 2.0 for axis, fine in zip((grid.x, grid.y, grid.z), grid.spacing_mm, strict=True)
        ]
        affine[:3, 3] = np.array(starts) + np.array(self.spacing_mm) / 2.0
        nod = self.world()
        affine[:3] = nod @ affine[:3]
        return affine

    def world(self) -> FloatArray:
        """Directions of the drawing's axes in the patient, [3, 3]."""
        t = math.radians(self.nod_deg)
        return np.array([[1.0, 0.0, 0.0], [0.0, math.cos(t), -math.sin(t)], [0.0, math.sin(t), math.cos(t)]])


def plan_series(person: PhantomSubject, number: int, seed: int, spacing_mm: float | None) -> tuple[Series, ...]:
    """The series of a person: one, or two halves of the spine in one person of twelve.

    Args:
        person: as planned.
        number: of the person.
        seed: of the phantom.
        spacing_mm: isotropic voxels of this size, or None for those of scanners.
    """
    rng = np.random.default_rng([seed, 15, number])
    labels = [one.label for one in person.vertebrae if is_thoracic(one.label) or one.label >= LABELS["L1"]]
    first, last = _choose_field(labels, rng)
    if rng.random() < 1 / 12 or number % 12 == 7:
        middle = int(rng.integers(7, 11))
        pieces = [("a", labels[max(0, middle - 7) : middle]), ("b", labels[middle:])]
    else:
        pieces = [("", labels[first : last + 1])]
    series = []
    for place, (part, shown) in enumerate(pieces):
        kind = str(rng.choice(["sag", "ax", "iso"], p=[0.5, 0.25, 0.25]))
        name = person.name + (f"_dir-{kind}" if rng.random() < 0.4 else "")
        name += f"_split-{person.name}{part}" if part else ""
        orientation, spacing, nod = _choose_geometry(kind, rng)
        wide = (float(rng.uniform(100.0, 132.0)), float(rng.uniform(76.0, 100.0)), float(rng.uniform(38.0, 62.0)))
        noise, blur = 12.0 * math.exp(rng.uniform(0.0, 1.4)), float(rng.uniform(0.45, 0.75))
        if spacing_mm is not None:
            spacing = (spacing_mm, spacing_mm, spacing_mm)
        # thick slices hold more quanta
        noise /= math.sqrt(max(1.0, float(np.prod(spacing))))
        series.append(
            Series(name, tuple(shown), orientation, spacing, nod, wide, noise, blur, (seed, 16, number, place))
        )
    return tuple(series)


def _choose_field(labels: list[int], rng: Generator) -> tuple[int, int]:
    """First and last level shown: the whole of it, the chest's, the loins', or the middle."""
    count = len(labels)
    kind = rng.random()
    if kind < 0.15:
        return 0, count - 1
    if kind < 0.4:
        return int(rng.integers(0, 5)), int(rng.integers(10, 13))
    if kind < 0.6:
        return int(rng.integers(7, 11)), count - 1
    first = int(rng.integers(2, 9))
    return first, min(count - 1, max(first + _LEAST_LEVELS, int(rng.integers(12, count))))


def _choose_geometry(kind: str, rng: Generator) -> tuple[tuple[str, str, str], tuple[float, float, float], float]:
    if kind == "iso":
        size = float(rng.choice([0.9, 1.0, 1.0, 1.2]))
        codes = str(rng.choice(["PIR", "RAS", "LPS", "IPL"]))
        spacing = (size, size, size)
        nod = 0.0
    elif kind == "sag":
        codes = str(rng.choice(["PIR", "PIR", "PSR", "AIL"]))
        fine = float(rng.choice([0.8, 0.9, 1.0]))
        spacing = (float(rng.choice([2.0, 2.0, 3.0])), fine, fine)
        nod = 0.0
    else:
        codes = str(rng.choice(["LPS", "RAS", "LAS"]))
        fine = float(rng.choice([0.8, 0.9, 1.0]))
        spacing = (fine, fine, float(rng.choice([1.0, 1.5, 2.0, 3.0])))
        nod = float(rng.choice([0.0, 0.0, rng.uniform(-12.0, 12.0)]))
    return (codes[0], codes[1], codes[2]), spacing, nod


def orient_arrays(
    arrays: list[NDArray[Any]], affine: FloatArray, orientation: tuple[str, str, str]
) -> tuple[list[NDArray[Any]], FloatArray]:
    """Arrays [x, y, z] with their axes as a file has them, and the affine that goes with it."""
    turn = ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(orientation))
    moved: FloatArray = affine @ inv_ornt_aff(turn, arrays[0].shape)
    return [np.ascontiguousarray(apply_orientation(array, turn)) for array in arrays], moved
