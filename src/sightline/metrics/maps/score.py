"""How well one map lies on one expert region, each score beside what chance and a blind guess at the centre get.

A map and the region it is scored against are on the same grid (draw the region on the map's frame, or bring the map to
the region's grid first). Pixels that are padding are no part of the image: they neither count nor raise chance.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError, RunError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class MapScore:
    """The scores of one map; all lie from 0 to 1, None means not defined and `why` says why.

    Attributes:
        pointing: 1 if the maximum lies inside the region, else 0 (Zhang 2018, pointing game); where several pixels
            share the maximum, the share of them that lies inside.
        pointing_chance: what a random pixel gets: region area over image area.
        pointing_centre: what a Gaussian at the centre of the image gets.
        energy: share of the map's positive mass that lies inside (Wang 2020); of a softmax map the sum inside.
        energy_chance: what a flat map gets: region area over image area.
        energy_centre: what the centred Gaussian gets.
        iou: intersection over union of the region with as many of the map's highest pixels as the region has.
        iou_chance: expected value for as many random pixels.
        iou_centre: what the centred Gaussian gets.
        iou_half: intersection over union of the region with the pixels of at least half the map's maximum.
        iou_half_chance: expected value for as many random pixels as are kept.
        iou_half_centre: what the centred Gaussian gets.
        inside_px: pixels of the region that belong to the image.
        image_px: pixels that belong to the image.
        why: why something is missing; empty where nothing is.
    """

    pointing: float | None = None
    pointing_chance: float | None = None
    pointing_centre: float | None = None
    energy: float | None = None
    energy_chance: float | None = None
    energy_centre: float | None = None
    iou: float | None = None
    iou_chance: float | None = None
    iou_centre: float | None = None
    iou_half: float | None = None
    iou_half_chance: float | None = None
    iou_half_centre: float | None = None
    inside_px: int = 0
    image_px: int = 0
    why: str = ""

    def __post_init__(self) -> None:
        """Refuse scores that are missing without a reason, or are no shares."""
        values = [
            getattr(self, field.name) for field in fields(self) if field.name not in ("inside_px", "image_px", "why")
        ]
        if any(value is not None and not -1e-9 <= value <= 1.0 + 1e-9 for value in values):
            raise RunError(f"Map scores lie from 0 to 1; got {values}.")
        if any(value is None for value in values) and not self.why:
            raise RunError("A map score is missing without a reason.", "Give `why`.")


MEASURES = ("pointing", "energy", "iou", "iou_half")


def score_map(map: ArrayLike, inside: ArrayLike, valid: ArrayLike | None = None) -> MapScore:
    """Score a map against a region on the same grid.

    Args:
        map: float [h, w] (or any number of axes), larger is more attention; logits, probabilities or gradients.
        inside: bool, same shape: the region.
        valid: bool, same shape: pixels that belong to the image and are no padding; None means all.

    Raises:
        GeometryError: shapes that differ, or a map that is not finite.
    """
    field = np.asarray(map, dtype=np.float64)
    region = np.asarray(inside) > 0
    image = np.ones(field.shape, dtype=bool) if valid is None else np.asarray(valid) > 0
    if field.ndim < 1 or not field.shape == region.shape == image.shape:
        raise GeometryError(
            f"A map of shape {field.shape}, a region of shape {region.shape} and an image area of shape {image.shape} "
            "do not lie on one grid.",
            "Draw the region on the frame of the map.",
        )
    if not np.isfinite(field[image]).all():
        raise GeometryError("A map holds NaN or infinite values; expected finite numbers.", "Check the training.")
    values, hits = field[image], region[image]
    area, total = int(hits.sum()), int(hits.size)
    if area == 0:
        reason = "the region has no pixel inside the image" if total else "no pixel belongs to the image"
        return MapScore(image_px=total, why=reason)
    chance = area / total
    centre = draw_centre_prior(image)[image]
    why = "" if (values > 0).any() else "the map has no positive value: no energy, no half of the maximum"
    half, half_chance = _score_iou_half(values, hits)
    return MapScore(
        pointing=_score_pointing(values, hits),
        pointing_chance=chance,
        pointing_centre=_score_pointing(centre, hits),
        energy=_score_energy(values, hits),
        energy_chance=chance,
        energy_centre=_score_energy(centre, hits),
        iou=_score_iou_same_area(values, hits),
        iou_chance=expect_iou(0, 0, total, area, area, area),
        iou_centre=_score_iou_same_area(centre, hits),
        iou_half=half,
        iou_half_chance=half_chance,
        iou_half_centre=_score_iou_half(centre, hits)[0],
        inside_px=area,
        image_px=total,
        why=why,
    )


def draw_centre_prior(valid: ArrayLike) -> FloatArray:
    """A Gaussian centred on the image area's bounding box, with a quarter of its size as standard deviation per axis.

    It knows nothing of the picture: a map must beat it before its place means anything (radiographers centre the bone).
    """
    image = np.asarray(valid, dtype=bool)
    exponent = np.zeros(image.shape)
    for axis in range(image.ndim):
        hit = np.flatnonzero(image.any(axis=tuple(a for a in range(image.ndim) if a != axis)))
        start, stop = (float(hit[0]), float(hit[-1] + 1)) if hit.size else (0.0, float(image.shape[axis]))
        steps = (np.arange(image.shape[axis]) + 0.5 - (start + stop) / 2) / ((stop - start) / 4)
        exponent += (steps**2 / 2).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
    return np.asarray(np.exp(-exponent))


def expect_iou(sure_inside: int, sure: int, pool: int, pool_inside: int, drawn: int, area: int) -> float:
    """Expected intersection over union when part of a selection is drawn at random.

    Args:
        sure_inside: selected pixels that are certain and lie inside the region.
        sure: selected pixels that are certain.
        pool: pixels that the rest is drawn from, all equally likely.
        pool_inside: those of the pool inside the region.
        drawn: how many are drawn from the pool.
        area: pixels of the region.
    """
    if drawn == 0:
        return sure_inside / (sure + area - sure_inside)
    intersections, chances = _compute_drawn_inside(pool, pool_inside, drawn)
    inside = sure_inside + intersections
    return float((chances * (inside / (sure + drawn + area - inside))).sum())


@lru_cache(maxsize=1024)
def _compute_drawn_inside(pool: int, pool_inside: int, drawn: int) -> tuple[FloatArray, FloatArray]:
    """Possible numbers of drawn pixels inside, and their chances (hypergeometric, cut at 12 standard deviations)."""
    # half a second of imports that a workstation without maps starts without
    from scipy.stats import hypergeom

    mean = drawn * pool_inside / pool
    spread = np.sqrt(mean * (1 - pool_inside / pool) * max(pool - drawn, 0) / max(pool - 1, 1))
    low = max(0, drawn + pool_inside - pool, int(mean - 12 * spread) - 1)
    high = min(drawn, pool_inside, int(mean + 12 * spread) + 2)
    intersections = np.arange(low, high + 1)
    chances = np.asarray(hypergeom.pmf(intersections, pool, pool_inside, drawn))
    return intersections.astype(np.float64), chances / chances.sum()


def _score_pointing(values: FloatArray, hits: BoolArray) -> float:
    return float(hits[values == values.max()].mean())


def _score_energy(values: FloatArray, hits: BoolArray) -> float | None:
    peak = values.max()
    if peak <= 0:
        return None
    mass = np.clip(values, 0.0, None) / peak  # neither tiny nor huge maps lose anything
    return float(mass[hits].sum() / mass.sum())


def _score_iou_same_area(values: FloatArray, hits: BoolArray) -> float:
    """Keep as many of the highest pixels as the region has; of pixels tied at the limit, the expected value."""
    area = int(hits.sum())
    limit = np.partition(values, values.size - area)[values.size - area]
    above, tied = values > limit, values == limit
    kept = int(above.sum())
    return expect_iou(int((above & hits).sum()), kept, int(tied.sum()), int((tied & hits).sum()), area - kept, area)


def _score_iou_half(values: FloatArray, hits: BoolArray) -> tuple[float | None, float | None]:
    """Keep the pixels of at least half the maximum; the second number is for as many random pixels."""
    peak = values.max()
    if peak <= 0:
        return None, None
    kept = values >= peak / 2
    area, size = int(hits.sum()), int(kept.sum())
    inside = int((kept & hits).sum())
    return inside / (size + area - inside), expect_iou(0, 0, hits.size, area, size, area)
