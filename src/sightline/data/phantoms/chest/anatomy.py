"""One person's chest on one grid: outlines, bones and soft tissue as attenuation along the beam.

Places are shares of the picture's height (rows) and width (columns) of a standard chest; `Body.place` turns them into
this person's pixels. The patient's right is on the left of the picture.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline, PchipInterpolator

from sightline.data.phantoms.radiographs.xray import fill_ring, interpolate_field
from sightline.structures.frame import FloatArray

Bools = NDArray[np.bool_]

# (row, column) around the patient's left lung: apex, chest wall, costophrenic angle, dome, and along the spine
_LEFT_LUNG = (
    (0.100, 0.575), (0.082, 0.625), (0.097, 0.685), (0.150, 0.752), (0.240, 0.822), (0.350, 0.868), (0.470, 0.898),
    (0.590, 0.915), (0.700, 0.922), (0.790, 0.915), (0.765, 0.868), (0.727, 0.800), (0.708, 0.725), (0.710, 0.650),
    (0.728, 0.585), (0.735, 0.532), (0.600, 0.517), (0.450, 0.514), (0.300, 0.516), (0.170, 0.532),
)  # fmt: skip
# the right dome stands higher: the liver is under it
_RIGHT_DOME = -0.022
_PAIRS = 10


class ChestBody:
    """Proportions drawn for one person, and what they look like on a grid of (rows, columns)."""

    def __init__(self, person: Generator, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.height, self.width = shape
        self.wide = person.uniform(0.96, 1.12)
        self.tall = person.uniform(0.83, 1.02)
        self.down = person.uniform(-0.03, 0.03)
        self.lean = person.normal(0.0, 0.02)
        self.turn = person.normal(0.0, 0.012)
        self.breath = person.normal(0.0, 0.022)
        self.right_dome = person.normal(_RIGHT_DOME, 0.012)
        self.fat = person.uniform(0.8, 1.25)
        self.woman = bool(person.random() < 0.5)
        self.outline = np.array(_LEFT_LUNG) + person.normal(0.0, 0.004, (len(_LEFT_LUNG), 2))
        self.outline[[0, 15, 16, 17, 18, 19], 1] = np.array(_LEFT_LUNG)[[0, 15, 16, 17, 18, 19], 1]
        self.rib_fall = person.uniform(0.17, 0.25)
        self.rib_gap = person.uniform(0.060, 0.068)
        self.bones = person.uniform(0.7, 1.2)
        self.shoulder = person.uniform(0.88, 1.08)
        self.clavicle_rise = person.uniform(0.05, 0.12)
        self.knob_size = person.uniform(0.75, 1.25)
        self.hila = person.uniform(0.8, 1.2)
        self.bubble = person.uniform(0.3, 1.0) if person.random() < 0.6 else 0.0
        self.rows = ((np.arange(shape[0]) + 0.5) / shape[0])[:, None]
        self.columns = ((np.arange(shape[1]) + 0.5) / shape[1])[None, :]

    def place(self, row: float | FloatArray, column: float | FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pixels of places of the standard chest in this person."""
        r = 0.42 + (np.asarray(row) - 0.42) * self.tall + self.down
        c = 0.5 + (np.asarray(column) - 0.5) * self.wide + self.lean * (r - 0.5)
        return r * self.height, c * self.width

    def fill_outline(self, outline: FloatArray) -> Bools:
        """The inside of a closed spline through places [n, 2] of the standard chest."""
        r, c = self.place(outline[:, 0], outline[:, 1])
        knots = np.stack([np.append(r, r[0]), np.append(c, c[0])], axis=1)
        points = CubicSpline(np.arange(len(knots)), knots, bc_type="periodic")(np.linspace(0, len(r), 12 * len(r)))
        return fill_ring(points, self.shape)

    def blur(self, field: FloatArray | Bools, share: float) -> FloatArray:
        """A Gaussian blur; `share` of the picture's width is its standard deviation."""
        sigma = max(0.6, share * self.width)
        step = max(1, int(sigma / 2.5))
        field = np.asarray(field, dtype=np.float64)
        if step == 1:
            return np.asarray(ndimage.gaussian_filter(field, sigma, truncate=3.0))
        # a wide blur is drawn on a coarse grid
        pad = [(0, -n % step) for n in self.shape]
        tall, wide = (n + p[1] for n, p in zip(self.shape, pad, strict=True))
        coarse = np.pad(field, pad, mode="edge").reshape(tall // step, step, wide // step, step).mean(axis=(1, 3))
        coarse = ndimage.gaussian_filter(np.pad(coarse, ((0, 2), (0, 2)), mode="edge"), sigma / step, truncate=3.0)
        # `interpolate_field` puts the first value half a step too far up and left
        return interpolate_field(ndimage.shift(coarse, 0.5, order=1, mode="nearest"), self.shape, step)

    def bulk(self, mask: Bools, edge: float, deep: float, rim: float) -> FloatArray:
        """How thick a rounded organ is, 0..1: `rim` just inside its edge, 1 where the edge is far."""
        inner = 2.0 * self.blur(mask, deep) - 1.0
        return self.blur(mask, edge) * (rim + (1.0 - rim) * np.clip(inner, 0.0, 1.0))

    def air(self, lungs: Bools) -> FloatArray:
        """How deep the lungs are along the beam, 0..1: sharp at the wall and the domes, soft along the spine."""
        crisp = self.bulk(lungs, 0.0035, 0.055, 0.62)
        # before and behind the spine the lungs reach across the middle
        between = self.fill_outline(np.array([
            (0.13, 0.47), (0.13, 0.53), (0.45, 0.54), (0.72, 0.54), (0.72, 0.46), (0.45, 0.46),
        ]))  # fmt: skip
        wide = self.blur(lungs + 0.45 * (between & ~lungs), 0.022)
        near = np.exp(-np.square(np.square((self.columns - 0.5 - self.lean * (self.rows - 0.5)) / 0.075)))
        return np.asarray((1.0 - near) * crisp + near * np.minimum(wide, 0.85))

    def lung(self, *, left: bool) -> Bools:
        """One lung from apex to costophrenic angle, what lies behind the heart included."""
        outline = self.outline.copy()
        low = outline[:, 0] > 0.69
        outline[low, 0] += self.breath
        if not left:
            outline = outline * [1.0, -1.0] + [0.0, 1.0]
            outline[low, 0] += self.right_dome
        outline[:, 1] += self.turn * (0.4 if left else 1.0)
        return self.fill_outline(outline)

    def silhouette(self, ratio: float, chest: float) -> tuple[Bools, Bools]:
        """Heart and great vessels as one shadow, and the heart alone.

        Args:
            ratio: width of the heart by that of the chest.
            chest: greatest width of both lungs as a share of the picture's width.
        """
        width = ratio * chest / self.wide
        middle = 0.5 + 0.6 * self.turn
        right, left = middle - 0.31 * width, middle + 0.69 * width
        floor, k = 0.745 + 0.8 * self.breath, 0.016 * self.knob_size
        wall = [  # down the left border, along the diaphragm, up the right border
            (0.03, 0.530), (0.13, 0.536), (0.215, 0.550), (0.250, 0.560 + 1.2 * k), (0.285, 0.566 + 1.5 * k),
            (0.325, 0.560 + k), (0.360, 0.568), (0.395, 0.583), (0.440, middle + 0.30 * width),
            (0.510, middle + 0.43 * width), (0.580, middle + 0.575 * width), (0.655, left - 0.004), (0.700, left),
            (floor, left - 0.035), (floor + 0.012, middle), (floor - 0.01, right + 0.025), (0.680, right + 0.002),
            (0.600, right), (0.520, right + 0.014), (0.440, 0.438 + self.turn), (0.330, 0.436 + self.turn),
            (0.220, 0.446), (0.130, 0.462), (0.03, 0.470),
        ]  # fmt: skip
        heart = [
            (0.400, 0.470), (0.385, 0.535), (0.405, 0.575), *wall[8:18], (0.520, right + 0.014), (0.450, right + 0.045)
        ]  # fmt: skip
        whole = self.fill_outline(np.array(wall))
        return whole, self.fill_outline(np.array(heart)) & whole

    def knob(self) -> Bools:
        """The aortic arch where it shows at the left border."""
        k = 0.016 * self.knob_size
        return self.fill_outline(np.array([
            (0.225, 0.515), (0.238, 0.552), (0.285, 0.562 + 1.4 * k), (0.325, 0.556 + k), (0.335, 0.515), (0.28, 0.50),
        ]))  # fmt: skip

    def tissue(self) -> FloatArray:
        """Trunk, neck, shoulders and breasts."""
        r, away = self.rows, np.abs(self.columns - 0.5 - self.lean * (self.rows - 0.5))
        shoulder = PchipInterpolator([0.0, 0.05, 0.13, 0.24, 0.5, 1.0], [0.15, 0.22, 0.47, 0.56, 0.545, 0.56])
        half = shoulder(np.clip(r / self.shoulder, 0.0, 1.0)) * (0.88 + 0.12 * self.fat)
        inside = 1.0 / (1.0 + np.exp(np.clip((away - half) * 110.0, -60, 60)))
        depth = np.sqrt(np.clip(1.0 - (away / (half + 0.03)) ** 2, 0.0, 1.0))
        dense: FloatArray = inside * (0.25 + 0.36 * depth) * (0.94 + 0.10 * self.fat * r)
        if self.woman:
            for side in (-1, 1):
                down, out = (r - 0.66) / 0.15, (self.columns - 0.5 - side * 0.235) / 0.165
                radius = np.hypot(down, out)
                # the fold below is a line, above the breast fades
                steep = 5.0 + 12.0 / (1.0 + np.exp(-6.0 * down))
                dense += 0.045 * self.fat * inside / (1.0 + np.exp(np.clip((radius - 1.0) * steep, -60, 60)))
        return dense

    def abdomen(self, lungs: Bools) -> FloatArray:
        """What stands under the domes: liver, spleen, gut; gas in the stomach in some."""
        low = np.where(lungs.any(axis=0), self.height - np.argmax(lungs[::-1], axis=0), np.nan)
        # along the spine a lung's lowest place is no dome
        known = np.flatnonzero(np.isfinite(low) & (np.abs(self.columns[0] - 0.5 - 0.25 * self.lean) > 0.075))
        floor = np.interp(np.arange(self.width), known, low[known]) / self.height
        floor = ndimage.gaussian_filter1d(floor, 0.012 * self.width)
        below = self.rows - floor[None, :]
        dense = 0.15 / (1.0 + np.exp(np.clip(-below * 140.0, -60, 60))) * (0.85 + 0.6 * np.clip(below, 0.0, 0.3))
        dense = dense / (1.0 + np.exp(np.clip((np.abs(self.columns - 0.5) / self.wide - 0.455) * 60.0, -60, 60)))
        if self.bubble:
            r, c = self.place(0.755 + self.breath, 0.695)
            away = np.hypot((self.rows * self.height - r) / 0.030, (self.columns * self.width - c) / 0.075)
            gas = 1.0 / (1.0 + np.exp(np.clip((away / self.height - 1.0) * 6.0, -60, 60)))
            dense = dense - 0.13 * self.bubble * gas / (1.0 + np.exp(np.clip(-(below - 0.016) * 200.0, -60, 60)))
        return np.asarray(dense)

    def spine(self) -> FloatArray:
        """Vertebral bodies, discs and pedicles; the windpipe's air before them, down to where it forks."""
        r = self.rows
        near = np.s_[int(0.36 * self.width) : int(0.64 * self.width)]
        off = self.columns[:, near] - 0.5 - self.lean * (r - 0.5)
        phase = 2 * math.pi * (r - self.down) / (0.058 * self.tall)
        body = np.exp(-np.square(np.square(off / 0.042) * np.abs(off / 0.042))) * (
            0.78 + 0.22 * np.tanh(3.0 * np.sin(phase))
        )
        pedicle = np.exp(-(((np.abs(off) - 0.027) / 0.008) ** 2)) * np.exp(3.0 * (np.cos(phase - 1.9) - 1.0))
        dense = self.bones * (0.085 * body + 0.05 * pedicle) * (1.0 - 0.4 / (1.0 + np.exp((0.72 - r) * 40.0)))
        windpipe = np.exp(-np.square(np.square((off - 0.004 - 0.5 * self.turn) / 0.021))) / (
            1.0 + np.exp((r - 0.335) * 70.0)
        )
        forks = np.exp(-(((np.abs(off) - 0.85 * (r - 0.325)) / 0.016) ** 2))
        forks = forks * ((r > 0.33) & (r < 0.40))
        whole = np.zeros(self.shape)
        whole[:, near] = dense - 0.085 * windpipe - 0.05 * forks
        return whole

    def bone(self, lungs: Bools) -> FloatArray:
        """Ten pairs of ribs, collar bones, shoulder blades."""
        canvas = np.zeros(self.height * self.width)
        across = lungs.any(axis=1)
        extent = np.array([(np.flatnonzero(row)[0], np.flatnonzero(row)[-1]) for row in lungs[across]]) / self.width
        at = np.flatnonzero(across) / self.height
        middle = 0.5 + self.lean * (at - 0.5)
        for side, reach in ((-1, middle - extent[:, 0]), (1, extent[:, 1] - middle)):
            # ribs stay where the chest is widest so far: below, the wall does not follow the lung's angle
            widest = np.maximum.accumulate(reach)
            for n in range(_PAIRS):
                self._draw_rib(canvas, side, n, at, widest)
            t = np.linspace(0.0, 1.0, int(0.9 * self.width))
            rise = -self.clavicle_rise * t - 0.012 * np.sin(2 * math.pi * t) - 0.02 * t**2
            r, c = self.place(0.172 + rise + side * self.turn, 0.5 + side * (0.045 + 0.40 * t))
            wide = (0.0155 - 0.005 * np.sin(math.pi * t)) * self.height
            self._draw_tube(canvas, r, c, wide, np.full(len(t), 1.0), 0.10)
        dense = ndimage.gaussian_filter(canvas.reshape(self.shape), max(0.7, 0.0021 * self.width))
        # where a narrow hoop turns, its strip lies on itself more often than bone does
        dense = 0.22 * np.tanh(dense / 0.22)
        blades = np.zeros(self.shape, dtype=bool)
        for side in (-1, 1):
            blades |= self.fill_outline(np.array([
                (0.105, 0.5 + side * 0.335), (0.21, 0.5 + side * 0.355), (0.34, 0.5 + side * 0.415),
                (0.365, 0.5 + side * 0.435), (0.31, 0.5 + side * 0.455), (0.17, 0.5 + side * 0.47),
                (0.10, 0.5 + side * 0.44),
            ]))  # fmt: skip
        return np.asarray(self.bones * (dense + 0.028 * self.blur(blades, 0.004)))

    def _draw_rib(self, canvas: FloatArray, side: int, n: int, at: FloatArray, widest: FloatArray) -> None:
        """One rib: a tilted hoop, seen from behind its head at the spine to its end before the lung.

        Where the hoop turns round the chest's side the beam runs along it: it is brighter there, as on a radiograph.
        """
        head = 0.075 + n * self.rib_gap
        fall = self.rib_fall * min(1.0, 0.50 + 0.14 * n)
        hoop = np.linspace(0.02, math.radians(150.0 - 2.5 * n), int(1.6 * self.width))
        row = head + fall * (1.0 - np.cos(hoop)) / 2.0 + 0.012 * np.sin(hoop) + 0.006 * np.sin(2.0 * hoop)
        lateral = float(self.place(head + fall / 2.0, 0.5)[0]) / self.height
        reach = float(np.interp(lateral, at, widest)) / self.wide * (1.0 if n else 0.85)
        column = 0.5 + side * (0.035 + (reach - 0.028) * np.sin(hoop) ** 0.92)
        r, c = self.place(row, column)
        # seconds of arc along the beam: the chest is about half as deep as wide
        deep = 0.55 * reach * self.width * np.sin(hoop) * (hoop[1] - hoop[0])
        flat = np.hypot(np.gradient(r), np.gradient(c))
        more = np.clip(np.hypot(flat, deep) / np.maximum(flat, 1e-6), 1.0, 2.2)
        behind = hoop < math.pi / 2
        wide = np.where(behind, 0.0125, 0.0150) * self.height * (0.9 if n == 0 else 1.0)
        wide = ndimage.gaussian_filter1d(wide, 0.05 * len(wide))
        ends = np.clip((hoop[-1] - hoop) / 0.12, 0.0, 1.0)
        strong = ndimage.gaussian_filter1d(np.where(behind, 1.0, 0.62), 0.06 * len(wide)) * ends * more
        self._draw_tube(canvas, r, c, wide, strong * (1.0 - 0.15 * max(0, n - 6)), 0.075)

    def _draw_tube(
        self, canvas: FloatArray, r: FloatArray, c: FloatArray, half: FloatArray, strong: FloatArray, most: float
    ) -> None:
        """Add a hollow bone along a path [n] in pixels: half width, strength, and what its middle takes."""
        ahead = np.stack([np.gradient(r), np.gradient(c)], axis=1)
        length = np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), 1e-6)
        side = np.stack([ahead[:, 1], -ahead[:, 0]], axis=1) / length[:, None]
        u = np.linspace(-1.0, 1.0, max(7, int(3.2 * half.max())))
        # a tube's wall: thick at its rims, a marrow that takes less
        wall = np.sqrt(np.clip(1.0 - u**2, 0, 1)) - 0.80 * np.sqrt(np.clip(0.62 - u**2, 0, 1)) + 0.25
        places = np.stack([r, c], axis=1)[:, None] + side[:, None] * (half[:, None] * u)[..., None]
        weight = (most / 0.62) * strong[:, None] * wall * (length * half * (u[1] - u[0]))[:, None]
        index = np.floor(places).astype(np.int64)
        keep = ((index >= 0) & (index < np.array(self.shape))).all(axis=2)
        flat = index[keep] @ np.array([self.width, 1])
        canvas += np.bincount(flat, weight[keep], minlength=len(canvas))
