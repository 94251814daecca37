"""A chest from the front: lungs, heart, ribs and vessels, with an enlarged heart or an opacity, plain to faint.

Drawn as attenuation on one grid: what lies on the way of the rays adds up, lungs take away. Lengths are fractions of
the picture's width (columns) and height (rows); the patient's right is on the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk, line, polygon

from sightline.cohorts.phantom.texture import clouds
from sightline.frame import FloatArray

CHEST_CLASSES = ("Normal", "CHF", "pneumonia")
Label = Literal["Normal", "CHF", "pneumonia"]
Bools = NDArray[np.bool_]

# outlines (row, column) of the patient's left lung, on the right of the picture, before a person's own proportions
_LEFT = (
    (0.115, 0.575), (0.100, 0.625), (0.115, 0.690), (0.185, 0.765), (0.300, 0.830), (0.450, 0.873), (0.600, 0.895),
    (0.720, 0.900), (0.800, 0.892), (0.775, 0.850), (0.745, 0.790), (0.735, 0.720), (0.750, 0.650), (0.760, 0.600),
    (0.700, 0.585), (0.550, 0.570), (0.400, 0.560), (0.250, 0.560),
)  # fmt: skip
_RIGHT_DOME = -0.028


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
    label: Label, rng: Generator, *, shape: tuple[int, int] = (320, 276), contrast: float = 0.5, person: Generator
) -> Chest:
    """A chest radiograph.

    Args:
        label: what is to be seen.
        rng: of this picture: finding, devices, noise.
        shape: (rows, columns).
        contrast: how plain the finding is, from 0 (hardly there) to 1.
        person: of this patient's anatomy.
    """
    body = _Anatomy(person, shape)
    enlarged = label == "CHF"
    # normal hearts differ among people by as much as a mildly enlarged one is larger
    ratio = person.uniform(0.38, 0.48) + (0.03 + 0.08 * contrast if enlarged else 0.0)
    lungs = {"left_lung": body.lung(left=True), "right_lung": body.lung(left=False)}
    both = lungs["left_lung"] | lungs["right_lung"]
    columns = np.flatnonzero(both.any(axis=0))
    heart = body.heart(ratio * (columns[-1] - columns[0]))
    column = body.mediastinum()
    knob = body.knob()
    dense = body.soft_tissue()
    dense -= 0.40 * body.smooth(both, 0.004)
    # what lies in one place is not added up: heart, vessels and abdomen displace each other and the lungs
    solid = np.maximum(0.26 * body.smooth(heart, 0.007), 0.20 * body.smooth(column, 0.014))
    solid = np.maximum(solid, 0.24 * body.smooth(knob, 0.008))
    dense += np.maximum(solid, 0.17 * body.smooth(body.below_domes(both), 0.005) * body.trunk_middle())
    dense += body.spine() + body.ribs() + body.clavicles()
    dense += body.vessels(both, rng, upper=0.5 + 0.5 * contrast if enlarged else 0.15)
    finding: Bools | None = heart.copy() if enlarged else None
    if label == "pneumonia":
        opacity, finding = body.opacity(both & ~heart & ~column, rng)
        dense += (0.05 + 0.20 * contrast) * opacity
    dense += body.distractors(both, rng)
    picture = body.exposed(dense, rng)
    organs = {**lungs, "mediastinum": heart | column | knob, "aortic_knob": knob}
    rows, cols = np.flatnonzero(heart.any(axis=1)), np.flatnonzero(heart.any(axis=0))
    box = (int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
    return Chest(picture, organs, box, finding, float((box[3] - box[1]) / (columns[-1] - columns[0])), contrast, label)


class _Anatomy:
    """One person's proportions on one grid."""

    def __init__(self, person: Generator, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.height, self.width = shape
        self.wide = person.uniform(0.90, 1.06)
        self.tall = person.uniform(0.90, 1.06)
        self.down = person.uniform(-0.01, 0.05)
        self.lean = person.normal(0.0, 0.015)
        self.turn = person.normal(0.0, 1.5)
        self.breath = person.normal(0.0, 0.02)
        self.fat = person.uniform(0.85, 1.2)
        self.woman = person.random() < 0.5
        self.tilt = person.normal(0.0, 0.012, (len(_LEFT), 2)) * 0.5
        self.rib_drop = person.uniform(0.14, 0.24)
        self.rib_gap = person.uniform(0.068, 0.082)
        self.bones = person.uniform(0.7, 1.2)
        self.person = person
        self.rows, self.columns = np.meshgrid(
            (np.arange(shape[0]) + 0.5) / shape[0], (np.arange(shape[1]) + 0.5) / shape[1], indexing="ij"
        )

    def place(self, row: float | FloatArray, column: float | FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pixels of a place of the standard chest in this person."""
        r = 0.45 + (np.asarray(row) - 0.45) * self.tall + self.down
        c = 0.5 + (np.asarray(column) - 0.5) * self.wide + self.lean * (r - 0.5)
        return r * self.height, c * self.width

    def smooth(self, mask: Bools, width: float) -> FloatArray:
        """A mask with soft edges, `width` in shares of the picture's width."""
        return np.asarray(ndimage.gaussian_filter(mask.astype(np.float64), max(0.6, width * self.width)))

    def filled(self, outline: FloatArray) -> Bools:
        """The inside of a closed spline through places of the standard chest."""
        r, c = self.place(outline[:, 0], outline[:, 1])
        turns = np.arange(len(r) + 1)
        from scipy.interpolate import CubicSpline

        path = CubicSpline(turns, np.stack([np.append(r, r[0]), np.append(c, c[0])], 1), bc_type="periodic")
        points = path(np.linspace(0, len(r), 12 * len(r)))
        mask: Bools = np.zeros(self.shape, dtype=bool)
        mask[polygon(points[:, 0], points[:, 1], self.shape)] = True
        return mask

    def lung(self, *, left: bool) -> Bools:
        """One lung, costophrenic angle and dome of the diaphragm included."""
        outline = np.array(_LEFT) + self.tilt
        low = outline[:, 0] > 0.7
        outline[low, 0] += self.breath
        if not left:
            outline = outline * [1.0, -1.0] + [0.0, 1.0]
            outline[low, 0] += _RIGHT_DOME
            outline[:, 1] += 0.01
        return self.filled(outline)

    def heart(self, width_px: float) -> Bools:
        """The heart, two thirds of it to the patient's left; its lower border is hidden by the diaphragm."""
        width = width_px / self.width / self.wide
        right, left = 0.5 - 0.31 * width, 0.5 + 0.69 * width
        top, bottom = 0.40, 0.775 + self.breath
        outline = np.array([
            [top, 0.475], [top + 0.01, 0.54], [0.49, 0.5 + 0.34 * width], [0.58, 0.5 + 0.55 * width],
            [0.67, left], [0.725, left - 0.012], [bottom, 0.5 + 0.45 * width], [bottom, 0.5],
            [bottom - 0.02, right + 0.03],
            [0.66, right], [0.58, right + 0.008], [0.48, 0.5 - 0.22 * width],
        ])  # fmt: skip
        return self.filled(outline)

    def mediastinum(self) -> Bools:
        """The upper mediastinum and what continues behind the heart."""
        return self.filled(np.array([
            [0.05, 0.46], [0.05, 0.54], [0.2, 0.545], [0.33, 0.56], [0.5, 0.55], [0.76, 0.54], [0.76, 0.46],
            [0.5, 0.455],
            [0.3, 0.445], [0.2, 0.455],
        ]))  # fmt: skip

    def knob(self) -> Bools:
        """The aortic knob."""
        r, c = self.place(0.29, 0.565)
        mask: Bools = np.zeros(self.shape, dtype=bool)
        mask[disk((float(r), float(c)), 0.047 * self.width, shape=self.shape)] = True
        return mask

    def soft_tissue(self) -> FloatArray:
        """Trunk, shoulders, and breasts."""
        r, c = self.rows, self.columns
        half = np.where(r < 0.22, 0.2 + 1.5 * r, 0.53)
        trunk = 1.0 / (1.0 + np.exp((np.abs(c - 0.5) - half * (0.9 + 0.1 * self.fat)) * 45))
        dense = 0.58 * trunk * (0.9 + 0.15 * self.fat * r)
        if self.woman:
            for side in (-1, 1):
                away = ((c - 0.5 - side * 0.24) / 0.17) ** 2 + ((r - 0.70) / 0.17) ** 2
                dense += 0.05 * self.fat / (1.0 + np.exp((away - 1.0) * 9))
        return dense

    def below_domes(self, lungs: Bools) -> Bools:
        """The abdomen: below the lungs' lower border, and between them."""
        r, _ = self.place(0.745 + self.breath, 0.5)
        below: Bools = np.asarray(self.rows * self.height > float(r))
        return below & ~ndimage.binary_closing(lungs, iterations=2)

    def trunk_middle(self) -> FloatArray:
        """1 between the flanks, fading towards them."""
        middle: FloatArray = 1.0 / (1.0 + np.exp((np.abs(self.columns - 0.5) / self.wide - 0.43) * 40))
        return middle

    def spine(self) -> FloatArray:
        """Vertebral bodies and discs, more to be seen above the heart."""
        r, c = self.rows, self.columns
        middle = 0.5 + self.lean * (r - 0.5)
        band = np.exp(-(((c - middle) / 0.045) ** 4))
        bodies = 0.5 + 0.5 * np.tanh(3.0 * np.sin(2 * math.pi * r / 0.062))
        dense: FloatArray = 0.08 * self.bones * band * (0.75 + 0.25 * bodies)
        return dense

    def ribs(self) -> FloatArray:
        """Ten pairs: posterior parts that fall outwards, anterior parts that fall inwards, cortex brighter."""
        dense = np.zeros(self.shape)
        r, c = self.rows, self.columns
        away = np.abs(c - 0.5) / 0.40 / self.wide
        fade = 1.0 / (1.0 + np.exp(np.clip((away - 1.04) * 40, -60, 60)))
        for n in range(10):
            start = 0.085 + self.down + n * self.rib_gap * self.tall
            back = start + self.rib_drop * (0.45 + 0.055 * n) * away**1.7
            front = start + 0.215 + 0.03 * n - 0.20 * (0.6 + 0.04 * n) * np.clip(away - 0.1, 0, None) ** 1.4
            for course, strength, width in ((back, 0.085, 0.0135), (front, 0.05, 0.015)):
                off = (r - course) / width
                shown = fade * np.clip((away - (0.10 if course is back else 0.34)) / 0.05, 0.0, 1.0)
                edge = np.exp(-((np.abs(off) - 0.85) ** 2) / 0.06) * 0.6
                dense += self.bones * strength * shown * (np.exp(-(off**4)) + edge) * (1.0 - 0.35 * (n > 8))
        return np.asarray(ndimage.gaussian_filter(dense, 0.8))

    def clavicles(self) -> FloatArray:
        """Both collar bones."""
        r, c = self.rows, self.columns
        dense = np.zeros(self.shape)
        for side in (-1, 1):
            away = side * (c - 0.5)
            course = 0.155 + self.down - 0.11 * away + 0.05 * np.sin(away * 9.0) + side * 0.002 * self.turn
            off = (r - course) / 0.017
            dense += np.where((away > 0.05) & (away < 0.42), 0.11 * self.bones * np.exp(-(off**4)), 0.0)
        return np.asarray(ndimage.gaussian_filter(dense, 1.0))

    def vessels(self, lungs: Bools, rng: Generator, *, upper: float) -> FloatArray:
        """Branching vessels from both hila; `upper`: how strong those to the upper lobes are."""
        dense = np.zeros(self.shape)
        for side in (-1, 1):
            for _ in range(13):
                row, column = 0.45 + rng.normal(0, 0.02), 0.5 + side * 0.085
                angle = rng.uniform(-1.25, 1.35)
                strength = 0.13 * (upper if angle < -0.2 else 1.0) * rng.uniform(0.6, 1.2)
                self._branch(dense, rng, row, column, angle, side, strength, 4)
            r, c = self.place(0.45, 0.5 + side * 0.075)
            hilum = np.exp(
                -(((self.rows * self.height - r) / (0.055 * self.height)) ** 2)
                - ((self.columns * self.width - c) / (0.030 * self.width)) ** 2
            )
            dense += 0.10 * hilum
        lines: FloatArray = ndimage.gaussian_filter(dense, 0.0024 * self.width)
        return np.asarray(lines * self.smooth(lungs, 0.01))

    def _branch(
        self, dense: FloatArray, rng: Generator, row: float, column: float, angle: float, side: int, strength: float,
        depth: int,
    ) -> None:  # fmt: skip
        if depth == 0 or strength < 0.012:
            return
        for _ in range(3):
            length = 0.028 * rng.uniform(0.6, 1.2)
            to_row, to_column = row + length * math.sin(angle), column + side * length * math.cos(angle)
            a, b = self.place(row, column), self.place(to_row, to_column)
            rr, cc = line(int(a[0]), int(a[1]), int(b[0]), int(b[1]))
            keep = (rr >= 0) & (rr < self.height) & (cc >= 0) & (cc < self.width)
            np.maximum.at(dense, (rr[keep], cc[keep]), 2.2 * strength)
            row, column, angle = to_row, to_column, angle + rng.normal(0.0, 0.18)
        for turn in (-0.45, 0.4):
            self._branch(
                dense, rng, row, column, angle + turn * rng.uniform(0.5, 1.3), side, strength * 0.66, depth - 1
            )

    def opacity(self, where: Bools, rng: Generator) -> tuple[FloatArray, Bools]:
        """A patch of consolidation in a lung: its density in 0..1 and where it is more than a third."""
        inner = ndimage.binary_erosion(where, iterations=max(2, self.width // 40))
        places = np.argwhere(inner)
        row, column = places[rng.integers(len(places))]
        size = rng.uniform(0.055, 0.10, 2) * self.width
        turn = rng.uniform(0, math.pi)
        y, x = self.rows * self.height - row, self.columns * self.width - column
        along = (math.cos(turn) * y + math.sin(turn) * x) / size[0]
        across = (math.cos(turn) * x - math.sin(turn) * y) / size[1]
        patchy = 1.0 + 0.45 * clouds(self.shape, rng, size_px=0.03 * self.width)
        dense = np.exp(-((along**2 + across**2) ** 1.3)) * np.clip(patchy, 0.2, 1.9) * self.smooth(where, 0.004)
        dense = ndimage.gaussian_filter(dense, 0.004 * self.width)
        dense = dense / max(float(dense.max()), 1e-9)
        return dense, np.asarray(dense > 0.33)

    def distractors(self, lungs: Bools, rng: Generator) -> FloatArray:
        """What lies on chests whatever their class: leads, nipples, scars, calcified nodes, pacemakers."""
        dense = np.zeros(self.shape)
        places = np.argwhere(lungs)

        def spot(row: float, column: float, radius: float, strength: float) -> None:
            away = np.hypot(self.rows * self.height - row, self.columns * self.width - column) / radius
            np.add(dense, strength / (1.0 + np.exp(np.clip((away - 1.0) * 8, -60, 60))), out=dense)

        for _ in range(int(rng.integers(0, 4))):
            row, column = places[rng.integers(len(places))]
            spot(row, column, rng.uniform(0.006, 0.013) * self.width, rng.uniform(0.08, 0.25))
        if rng.random() < 0.35:
            for side in (-1, 1):
                row, column = self.place(0.665 + rng.normal(0, 0.01), 0.5 + side * (0.24 + rng.normal(0, 0.01)))
                spot(float(row), float(column), 0.014 * self.width, 0.07)
        for _ in range(int(rng.integers(0, 3))):
            row, column = places[rng.integers(len(places))]
            angle, length = rng.uniform(0, math.pi), rng.uniform(0.04, 0.12) * self.width
            path = np.linspace(-0.5, 0.5, 60)[:, None] * length * [math.sin(angle), math.cos(angle)] + [row, column]
            path[:, 0] += 0.01 * self.height * np.sin(np.linspace(0, 3, 60))
            self._stroke(dense, path, 0.05, 0.004)
        if rng.random() < 0.45:
            for _ in range(int(rng.integers(1, 4))):
                a, b = rng.uniform([0.1, 0.1], [0.9, 0.9]), rng.uniform([0.1, 0.1], [0.9, 0.9])
                middle = (a + b) / 2 + rng.normal(0, 0.12, 2)
                t = np.linspace(0, 1, 200)[:, None]
                path = ((1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b) * [self.height, self.width]
                self._stroke(dense, path, 0.16, 0.0022)
                spot(float(path[0, 0]), float(path[0, 1]), 0.017 * self.width, 0.18)
        if rng.random() < 0.06:
            row, column = self.place(0.24, 0.5 + 0.28)
            away = np.maximum(
                np.abs(self.rows * self.height - row) / (0.04 * self.height),
                np.abs(self.columns * self.width - column) / (0.05 * self.width),
            )
            dense += 0.4 / (1.0 + np.exp(np.clip((away - 1.0) * 25, -60, 60)))
        return dense

    def _stroke(self, dense: FloatArray, path: FloatArray, strength: float, width: float) -> None:
        stroke = np.zeros(self.shape)
        points = np.rint(path).astype(int)
        keep = ((points >= 0) & (points < np.array(self.shape))).all(axis=1)
        stroke[tuple(points[keep].T)] = 1.0
        stroke = ndimage.grey_dilation(stroke, size=(2, 2))
        wide = ndimage.gaussian_filter(stroke, max(0.7, width * self.width))
        dense += strength * wide / max(float(wide.max()), 1e-9)

    def exposed(self, dense: FloatArray, rng: Generator) -> FloatArray:
        """What the detector makes of it: scatter, a person's exposure, noise, the side's letter."""
        dense = dense + 0.02 * clouds(self.shape, rng, size_px=0.08 * self.width)
        scattered = 0.82 * dense + 0.18 * ndimage.gaussian_filter(dense, 0.06 * self.width)
        grey = scattered * rng.uniform(0.92, 1.08) + rng.uniform(-0.04, 0.04)
        noise = rng.normal(0.0, rng.uniform(0.010, 0.020), self.shape)
        grey = grey + ndimage.gaussian_filter(noise, 0.5) * 1.6
        row, column = int(rng.uniform(0.03, 0.09) * self.height), int(rng.uniform(0.86, 0.93) * self.width)
        grey[row : row + self.height // 28, column : column + max(2, self.width // 110)] = 1.0
        grey[row + self.height // 28 - 2 : row + self.height // 28, column : column + self.width // 40] = 1.0
        return np.asarray(np.clip((grey - 0.04) / 0.98, 0.0, 1.0))
