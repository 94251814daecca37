"""A simulated radiologist's eyes on a chest radiograph, as a 60 Hz tracker records them.

First a look around (apices, hila, angles, heart), then what the picture asks for: the heart's borders where it is
enlarged, the opacity where there is one, a sweep of both lungs where there is nothing. The eyes wander off at times,
the tracker drifts, and lids close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from sightline.cohorts.phantom.chest import Chest
from sightline.frame import FloatArray

RATE_HZ = 60.0
# (row, column) as shares of the box around both lungs
_SEARCH = (
    (0.10, 0.27),
    (0.10, 0.73),
    (0.42, 0.36),
    (0.42, 0.64),
    (0.92, 0.06),
    (0.92, 0.94),
    (0.70, 0.58),
    (0.30, 0.55),
)


@dataclass(frozen=True, eq=False)
class Scanpath:
    """What a tracker says of one reading.

    Attributes:
        fixations: [m, 4]: row, column in source pixels (drift included, may lie off the image), start and duration in
            seconds.
        samples: [n, 2] row and column of each 60 Hz sample in source pixels.
        fixation: int [n], which fixation a sample belongs to.
        valid: bool [n], False while the lids are closed.
        on_finding: share of the valid samples' true places within 1.5 degrees of the finding, or NaN without one.
    """

    fixations: FloatArray
    samples: FloatArray
    fixation: np.ndarray
    valid: np.ndarray
    on_finding: float


def read_chest(chest: Chest, rng: Generator, *, skill: float = 0.8, px_per_deg: float | None = None) -> Scanpath:
    """One reading of a chest.

    Args:
        chest: the picture.
        rng: of this reading.
        skill: share of the second phase that goes to what the label asks for; the rest wanders over the lungs.
        px_per_deg: source pixels a degree; the picture's height is 18 degrees by default.
    """
    height, width = chest.picture.shape
    degree = height / 18.0 if px_per_deg is None else px_per_deg
    lungs = chest.organs["left_lung"] | chest.organs["right_lung"]
    places = _search(lungs, rng, degree)
    n_more = int(rng.integers(12, 26))
    around = np.argwhere(lungs)
    aims = _aims(chest)
    for _ in range(n_more):
        looks = rng.random() < skill
        if rng.random() < 0.06:
            # distracted: elsewhere, also beside the picture
            places.append(rng.uniform([-0.15, -0.35], [1.15, 1.35]) * [height, width])
        elif looks and aims is not None:
            places.append(aims[rng.integers(len(aims))] + rng.normal(0.0, 0.45 * degree, 2))
        else:
            places.append(around[rng.integers(len(around))] + rng.normal(0.0, 0.3 * degree, 2))
    true = np.array(places)
    n = len(true)
    duration = np.clip(rng.lognormal(np.log(0.26), 0.45, n), 0.08, 1.4)
    gap = rng.uniform(0.02, 0.06, n)
    start = np.concatenate([[0.0], np.cumsum(duration + gap)[:-1]]) + 0.15
    drift = rng.normal(0.0, 0.35, 2) * degree + np.linspace(0, 1, n)[:, None] * rng.normal(0.0, 0.35, 2) * degree
    seen = true + drift
    samples, owner, valid = _sampled(seen, start, duration, rng, degree)
    finding = chest.finding
    near = float("nan")
    if finding is not None:
        from scipy import ndimage

        away = ndimage.distance_transform_edt(~finding)
        inside = np.clip(true, 0, [height - 1, width - 1]).astype(int)
        near = float(np.average(away[tuple(inside.T)] < 1.5 * degree, weights=duration))
    return Scanpath(np.column_stack([seen, start, duration]), samples, owner, valid, near)


def _search(lungs: np.ndarray, rng: Generator, degree: float) -> list[FloatArray]:
    rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(lungs.any(axis=0))
    low, size = np.array([rows[0], columns[0]]), np.array([rows[-1] - rows[0], columns[-1] - columns[0]])
    chosen = rng.permutation(len(_SEARCH))[: int(rng.integers(4, len(_SEARCH) + 1))]
    return [low + np.array(_SEARCH[i]) * size + rng.normal(0.0, 0.6 * degree, 2) for i in sorted(chosen)]


def _aims(chest: Chest) -> FloatArray | None:
    """Where the label asks a reader to look: places to choose among, or None."""
    if chest.finding is None:
        return None
    if chest.label == "CHF":
        from scipy import ndimage

        rim = chest.finding & ~ndimage.binary_erosion(chest.finding, iterations=2)
        places = np.argwhere(rim).astype(np.float64)
        middle = (chest.heart[0] + chest.heart[2]) / 2.0
        return np.asarray(places[places[:, 0] > middle])
    return np.argwhere(chest.finding).astype(np.float64)


def _sampled(
    places: FloatArray, start: FloatArray, duration: FloatArray, rng: Generator, degree: float
) -> tuple[FloatArray, np.ndarray, np.ndarray]:
    """60 Hz samples with tremor around the fixation they belong to; lids close for 0.1 to 0.25 s now and then."""
    time = np.arange(0.0, start[-1] + duration[-1], 1.0 / RATE_HZ)
    owner = np.clip(np.searchsorted(start, time, side="right") - 1, 0, len(start) - 1)
    samples = places[owner] + rng.normal(0.0, 0.12 * degree, (len(time), 2))
    between = time > start[owner] + duration[owner]
    ahead = np.minimum(owner + 1, len(start) - 1)
    samples[between] = (places[owner] + places[ahead])[between] / 2.0
    valid = np.ones(len(time), dtype=bool)
    for _ in range(int(rng.poisson(time[-1] / 4.0))):
        at = rng.uniform(0.0, time[-1])
        valid[(time >= at) & (time < at + rng.uniform(0.1, 0.25))] = False
    return samples, owner, valid
