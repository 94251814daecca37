"""A simulated radiologist's eyes on a chest radiograph, as a 60 Hz tracker records them.

First a look around (apices, hila, angles, heart), then what the picture asks for: the heart's borders where it is
enlarged, the opacity where there is one, a sweep of both lungs where there is nothing. The eyes wander off at times,
the tracker drifts, and lids close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from sightline.data.phantoms.chest.draw import Chest
from sightline.structures.frame import FloatArray

RATE_HZ = 60.0
# the picture's height on the screen, in degrees
HEIGHT_DEG = 18.0
# (row, column) as shares of the box around both lungs
_SEARCH = (
    (0.10, 0.27), (0.10, 0.73), (0.42, 0.36), (0.42, 0.64), (0.92, 0.06), (0.92, 0.94), (0.70, 0.58), (0.30, 0.55),
)  # fmt: skip


@dataclass(frozen=True)
class ReaderStyle:
    """How somebody reads.

    Attributes:
        skill: share of the looks after the search that go to what the picture asks for; others wander over the lungs.
        distraction: chance of a look elsewhere, also beside the picture.
        search: least and most looks of the search at the start.
        looks: least and most looks after it.
        fixation_s: median duration of a fixation; durations are lognormal (sigma 0.45), within 0.08 and 1.4 s.
        tremor_deg: standard deviation of samples about their fixation.
        aim_deg: standard deviation of looks about what they aim at.
        drift_deg: standard deviation of the tracker's offset at the start of an image, and of its growth to the end.
        blinks_per_s: how often lids close, for 0.1 to 0.25 s.
    """

    skill: float = 0.8
    distraction: float = 0.06
    search: tuple[int, int] = (4, 8)
    looks: tuple[int, int] = (12, 25)
    fixation_s: float = 0.26
    tremor_deg: float = 0.12
    aim_deg: float = 0.45
    drift_deg: float = 0.3
    blinks_per_s: float = 0.25

    @staticmethod
    def draw(rng: Generator, skill: float = 0.8) -> ReaderStyle:
        """A reader on a day: some are quick, some are thorough."""
        least = int(rng.integers(2, 5))
        pace = float(rng.uniform(0.8, 1.25))
        return ReaderStyle(
            skill=skill, distraction=float(rng.uniform(0.03, 0.09)), search=(least, least + 4),
            looks=(int(12 / pace), int(25 / pace)), fixation_s=0.26 * pace, tremor_deg=float(rng.uniform(0.08, 0.16)),
            aim_deg=float(rng.uniform(0.35, 0.55)), blinks_per_s=float(rng.uniform(0.15, 0.35)),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scanpath:
    """What a tracker says of one reading.

    Attributes:
        fixations: [m, 4]: row, column in source pixels (drift included, may lie off the image), start and duration in
            seconds.
        samples: [n, 2] row and column of each 60 Hz sample in source pixels; wrong while the lids are closed.
        fixation: int [n], which fixation a sample belongs to.
        valid: bool [n], False while the lids are closed.
        on_finding: share of the time of looks truly within 1.5 degrees of the finding, or NaN without one.
    """

    fixations: FloatArray
    samples: FloatArray
    fixation: NDArray[np.int64]
    valid: NDArray[np.bool_]
    on_finding: float


def read_chest(
    chest: Chest,
    rng: Generator,
    *,
    style: ReaderStyle | None = None,
    offset_deg: tuple[float, float] = (0.0, 0.0),
    px_per_deg: float | None = None,
) -> Scanpath:
    """One reading of a chest.

    Args:
        chest: the picture.
        rng: of this reading.
        style: how it is read.
        offset_deg: (row, column) by which the tracker is off during the whole session.
        px_per_deg: source pixels a degree; the picture's height is 18 degrees by default.
    """
    style = style or ReaderStyle()
    height, width = chest.picture.shape
    degree = height / HEIGHT_DEG if px_per_deg is None else px_per_deg
    true = np.array([*_simulate_search(chest, rng, style, degree), *_draw_looks(chest, rng, style, degree)])
    n = len(true)
    duration = np.clip(rng.lognormal(np.log(style.fixation_s), 0.45, n), 0.08, 1.4)
    gap = rng.uniform(0.02, 0.06, n)
    start = np.concatenate([[0.0], np.cumsum(duration + gap)[:-1]]) + 0.15
    grown = np.linspace(0, 1, n)[:, None]
    drift = rng.normal(0.0, style.drift_deg, 2) + grown * rng.normal(0.0, style.drift_deg, 2)
    seen = true + (drift + np.array(offset_deg)) * degree
    samples, owner, valid = _sample_gaze(seen, start, duration, rng, style, degree)
    near = float("nan")
    if chest.finding is not None:
        away = ndimage.distance_transform_edt(~chest.finding)
        # how far beside the picture a look lies counts too
        inside = np.clip(true, 0, [height - 1, width - 1])
        off = away[tuple(inside.astype(int).T)] + np.abs(true - inside).sum(axis=1)
        near = float(np.average(off < 1.5 * degree, weights=duration))
    return Scanpath(np.column_stack([seen, start, duration]), samples, owner, valid, near)


def _simulate_search(chest: Chest, rng: Generator, style: ReaderStyle, degree: float) -> list[FloatArray]:
    lungs = chest.organs["left_lung"] | chest.organs["right_lung"]
    rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
    low, size = np.array([rows[0], columns[0]]), np.array([rows[-1] - rows[0], columns[-1] - columns[0]])
    least, most = (min(k, len(_SEARCH)) for k in style.search)
    chosen = rng.permutation(len(_SEARCH))[: int(rng.integers(least, most + 1))]
    return [low + np.array(_SEARCH[i]) * size + rng.normal(0.0, 0.6 * degree, 2) for i in sorted(chosen)]


def _draw_looks(chest: Chest, rng: Generator, style: ReaderStyle, degree: float) -> list[FloatArray]:
    lungs = np.argwhere(chest.organs["left_lung"] | chest.organs["right_lung"]).astype(np.float64)
    n = int(rng.integers(style.looks[0], style.looks[1] + 1))
    aims, sweep = _choose_aims(chest), _simulate_sweep(chest, n)
    places: list[FloatArray] = []
    for k in range(n):
        aimed, elsewhere = rng.random() < style.skill, rng.random() < style.distraction
        if elsewhere:
            places.append(rng.uniform([-0.15, -0.35], [1.15, 1.35]) * chest.picture.shape)
        elif not aimed:
            places.append(lungs[rng.integers(len(lungs))] + rng.normal(0.0, 0.3 * degree, 2))
        elif aims is not None:
            places.append(aims[rng.integers(len(aims))] + rng.normal(0.0, style.aim_deg, 2) * degree)
        else:
            places.append(sweep[k] + rng.normal(0.0, 2.0 * style.aim_deg, 2) * degree)
    return places


def _choose_aims(chest: Chest) -> FloatArray | None:
    """Where the picture asks a reader to look: places to choose among, or None."""
    if chest.finding is None:
        return None
    if chest.label != "CHF":
        return np.argwhere(chest.finding).astype(np.float64)
    # both borders of the heart, not what stands on the diaphragm
    rim = chest.finding & ~ndimage.binary_erosion(chest.finding, np.ones((1, 5)))
    places = np.argwhere(rim).astype(np.float64)
    top, bottom = chest.heart[0], chest.heart[2]
    share = (places[:, 0] - top) / (bottom - top)
    return np.asarray(places[(share > 0.4) & (share < 0.95)])


def _simulate_sweep(chest: Chest, n: int) -> FloatArray:
    """From the apices down, from one lung to the other and back."""
    places = []
    for k in range(n):
        rows, columns = np.nonzero(chest.organs["right_lung" if k % 2 == 0 else "left_lung"])
        row = float(np.quantile(rows, (k + 0.5) / n))
        places.append((row, float(columns[np.abs(rows - row) < 2.0].mean())))
    return np.array(places)


def _sample_gaze(
    places: FloatArray, start: FloatArray, duration: FloatArray, rng: Generator, style: ReaderStyle, degree: float
) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.bool_]]:
    """60 Hz samples: tremor in a fixation, flight to the next one, and nonsense from below while lids close."""
    time = np.arange(0.0, start[-1] + duration[-1], 1.0 / RATE_HZ)
    owner = np.clip(np.searchsorted(start, time, side="right") - 1, 0, len(start) - 1).astype(np.int64)
    ahead = np.minimum(owner + 1, len(start) - 1)
    end = start[owner] + duration[owner]
    flown = np.clip((time - end) / np.maximum(start[ahead] - end, 1e-6), 0.0, 1.0)[:, None]
    samples = places[owner] * (1.0 - flown) + places[ahead] * flown
    samples = samples + rng.normal(0.0, style.tremor_deg * degree, (len(time), 2))
    valid = np.ones(len(time), dtype=bool)
    for _ in range(int(rng.poisson(time[-1] * style.blinks_per_s))):
        at = rng.uniform(0.0, time[-1])
        valid[(time >= at) & (time < at + rng.uniform(0.1, 0.25))] = False
    samples[~valid] += [3.0 * degree, 0.0]
    return samples, owner, valid
