"""How well one map agrees with where a reader looked, each number beside a flat map's and a centred Gaussian's.

Definitions follow Bylinskii 2019 ("What do different evaluation metrics tell us about saliency models?"). Map and gaze
density are on one grid, the density's; a map of another resolution is resampled by area (`resample_by_area`). Padding
is no part of the image. What a flat map gets is computed by the same code as the map's own numbers, and so is what a
blind Gaussian at the centre gets, which much gaze resembles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError, RunError
from sightline.metrics.classification.scores import compute_auc
from sightline.metrics.estimate import FloatArray
from sightline.metrics.maps.score import draw_centre_prior, score_map

MEASURES = ("kl", "cc", "sim", "nss", "auc", "sauc", "iou_top")
TOP = 0.2
_EPSILON = float(np.finfo(np.float64).eps)  # in the logarithm of KL, as in the MIT benchmark's code


@dataclass(frozen=True)
class GazeScore:
    """The agreement of one map with one gaze; None means not defined and `why` says so.

    Each measure has a `_chance` (a flat map's) and a `_centre` (the centred Gaussian's) beside it.

    Attributes:
        kl: Kullback-Leibler divergence of the map from the gaze density in nats; 0 is best, no upper limit.
        cc: linear correlation of map and density, -1 to 1; a flat map has 0.
        sim: sum of the smaller of both as distributions, 0 to 1.
        nss: standardised map at the places looked at, mean (Peters 2005); a flat map has 0.
        auc: chance that a place looked at has more map than a cell not looked at (after Judd 2009), ties half.
        sauc: the same against places looked at in other images (Zhang 2008): a centre bias gains nothing.
        iou_top: intersection over union of the fifths of the image with most gaze and with most map.
        places: places on the image.
        image_px: cells that belong to the image.
        why: why something is missing; empty where nothing is.
    """

    kl: float | None = None
    kl_chance: float | None = None
    kl_centre: float | None = None
    cc: float | None = None
    cc_chance: float | None = None
    cc_centre: float | None = None
    sim: float | None = None
    sim_chance: float | None = None
    sim_centre: float | None = None
    nss: float | None = None
    nss_chance: float | None = None
    nss_centre: float | None = None
    auc: float | None = None
    auc_chance: float | None = None
    auc_centre: float | None = None
    sauc: float | None = None
    sauc_chance: float | None = None
    sauc_centre: float | None = None
    iou_top: float | None = None
    iou_top_chance: float | None = None
    iou_top_centre: float | None = None
    places: int = 0
    image_px: int = 0
    why: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite, or missing without a reason."""
        values = [
            getattr(self, field.name) for field in fields(self) if field.name not in ("places", "image_px", "why")
        ]
        if any(value is not None and not math.isfinite(value) for value in values):
            raise RunError(f"Gaze scores are finite; got {values}.")
        if any(value is None for value in values) and not self.why:
            raise RunError("A gaze score is missing without a reason.", "Give `why`.")


def score_gaze(
    map: ArrayLike,
    density: ArrayLike,
    places: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    others: ArrayLike | None = None,
    valid: ArrayLike | None = None,
) -> GazeScore:
    """Score a map against where a reader looked.

    KL and SIM take the map's positive part as a distribution, as energy does; a map without a positive value has
    neither. The other measures take the map as it is. NSS and AUCs count every place; at a resolution where no two
    share a cell this is the benchmark's binary fixation map.

    Args:
        map: float [a, b], larger is more attention; resampled to the density's grid where the shapes differ.
        density: float [h, w], 0 or more: `Gaze.density` on the map's frame or a finer one of the same extent.
        places: [n, 2] (row, column) in cells of the density's grid, origin at the corner of cell (0, 0); those off the
            image do not count. None: no NSS, no AUC.
        weights: [n], how much each place counts, e.g. seconds; None: equally.
        others: [m, 2], places looked at in other images, on the same grid; None: no shuffled AUC.
        valid: bool [h, w]: cells that belong to the image; None means all.

    Raises:
        GeometryError: shapes that do not fit, or numbers that are not finite.
    """
    gaze = np.asarray(density, dtype=np.float64)
    image = np.ones(gaze.shape, dtype=bool) if valid is None else np.asarray(valid) > 0
    given = np.asarray(map, dtype=np.float64)
    if gaze.ndim != 2 or given.ndim != 2 or image.shape != gaze.shape or 0 in given.shape:
        raise GeometryError(
            f"Gaze is scored on two axes; got a map of shape {given.shape}, a density of shape {gaze.shape} and an "
            f"image area of shape {image.shape}."
        )
    field = given if given.shape == gaze.shape else resample_by_area(given, gaze.shape)
    if not np.isfinite(field[image]).all() or not np.isfinite(gaze[image]).all() or (gaze[image] < 0).any():
        raise GeometryError(
            "A map or gaze density holds NaN, infinite values or negative density.", "Check the training."
        )
    if not (gaze[image] > 0).any():
        return GazeScore(image_px=int(image.sum()), why="no gaze on the image")
    looked = None if places is None else _count_per_cell(places, weights, image)
    elsewhere = None if others is None else _count_per_cell(others, None, image)
    counted = (
        0 if places is None else int(_select_inside(np.asarray(places, dtype=np.float64).reshape(-1, 2), image).sum())
    )
    target = _Target(gaze, image, looked, elsewhere)
    scores: dict[str, float | None] = {}
    reasons: list[str] = []
    for suffix, values in (("", field), ("_chance", np.ones(gaze.shape)), ("_centre", draw_centre_prior(image))):
        found, why = target.score(values)
        scores |= {f"{measure}{suffix}": value for measure, value in found.items()}
        reasons += why
    reason = "; ".join(dict.fromkeys(reasons))
    return GazeScore(**scores, places=counted, image_px=int(image.sum()), why=reason)


@dataclass(frozen=True)
class _Target:
    """What maps of one image are scored against."""

    gaze: FloatArray
    image: NDArray[np.bool_]
    looked: FloatArray | None
    elsewhere: FloatArray | None

    def score(self, field: FloatArray) -> tuple[Mapping[str, float | None], list[str]]:
        """Every measure of a map on the grid, and why some are missing."""
        values, gaze = field[self.image], self.gaze[self.image]
        found: dict[str, float | None] = dict.fromkeys(MEASURES)
        why = []
        if (values > 0).any():
            mass = np.clip(values, 0.0, None) / values.max()
            p, q = mass / mass.sum(), gaze / gaze.max() / (gaze / gaze.max()).sum()
            found["kl"] = float((q * np.log(_EPSILON + q / (p + _EPSILON))).sum())
            found["sim"] = float(np.minimum(p, q).sum())
        else:
            why.append("the map has no positive value: no KL, no SIM")
        standard, spread = _standardise(values), _standardise(gaze)
        if spread is None:
            why.append("the gaze is even: no CC")
        else:
            found["cc"] = 0.0 if standard is None else float(np.clip((standard * spread).mean(), -1.0, 1.0))
        # equal densities enter together, so that the fifth with most gaze does not depend on the order of cells
        limit = np.sort(gaze)[-max(1, round(TOP * gaze.size))]
        found["iou_top"] = score_map(field, (self.gaze >= limit) & (self.gaze > 0) & self.image, self.image).iou
        if self.looked is None or not self.looked.any():
            why.append("no places looked at: no NSS, no AUC")
            return found, why
        looked = self.looked[self.image]
        found["nss"] = 0.0 if standard is None else float((standard * looked).sum() / looked.sum())
        found["auc"] = _compute_weighted_auc(values, looked, (looked == 0).astype(np.float64))
        if found["auc"] is None:
            why.append("every cell was looked at: no AUC")
        if self.elsewhere is not None and self.elsewhere.any():
            found["sauc"] = _compute_weighted_auc(values, looked, self.elsewhere[self.image])
        else:
            why.append("no places of other images: no shuffled AUC")
        return found, why


def resample_by_area(map: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """A map on another grid of the same extent: each new cell is the mean of what it covers, weighted by overlap.

    Down it averages, up it repeats (with a mixed cell where edges do not meet); the mean of the whole map stays.
    """
    field = np.asarray(map, dtype=np.float64)
    rows, columns = (_compute_overlaps(old, new) for old, new in zip(field.shape, shape, strict=True))
    resampled: FloatArray = rows @ field @ columns.T
    return resampled


def sample_others(places: Mapping[str, ArrayLike], case_id: str, *, most: int = 10_000, seed: int = 0) -> FloatArray:
    """Places looked at in all other images [m, 2], for the shuffled AUC; a random choice of at most `most` of them.

    Args:
        places: of every image [n, 2], all on one grid (the same view of every image).
        case_id: the image to leave out.
        most: the most places to return.
        seed: of the choice.
    """
    each = [np.asarray(p, dtype=np.float64).reshape(-1, 2) for name, p in places.items() if name != case_id]
    others = np.concatenate([np.zeros((0, 2)), *each])
    if len(others) <= most:
        return others
    chosen: FloatArray = others[np.sort(np.random.default_rng(seed).choice(len(others), most, replace=False))]
    return chosen


def _compute_overlaps(old: int, new: int) -> FloatArray:
    """Share of each new cell [new] that each old cell [old] covers."""
    edges = np.arange(new + 1) * (old / new)
    low, high = edges[:-1, None], edges[1:, None]
    cells = np.arange(old)
    overlap = np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0.0, None)
    shares: FloatArray = overlap / overlap.sum(axis=1, keepdims=True)
    return shares


def _select_inside(places: FloatArray, image: NDArray[np.bool_]) -> NDArray[np.bool_]:
    fair = np.isfinite(places) & (places >= 0) & (places < image.shape)
    inside = np.atleast_1d(fair.all(axis=1))
    cells = np.where(inside[:, None], places, 0.0).astype(np.int64)
    return np.asarray(inside & image[cells[:, 0], cells[:, 1]])


def _count_per_cell(places: ArrayLike, weights: ArrayLike | None, image: NDArray[np.bool_]) -> FloatArray:
    """Weight of the places in each cell of the image [h, w]."""
    where = np.asarray(places, dtype=np.float64).reshape(-1, 2)
    counts = np.ones(len(where)) if weights is None else np.asarray(weights, dtype=np.float64)
    if counts.shape != (len(where),) or not np.isfinite(counts).all() or (counts < 0).any():
        raise GeometryError(f"{len(where)} places need as many weights of 0 or more; got shape {counts.shape}.")
    inside = _select_inside(where, image)
    cells = where[inside].astype(np.int64)
    total = np.zeros(image.shape)
    np.add.at(total, (cells[:, 0], cells[:, 1]), counts[inside])
    return total


def _standardise(values: FloatArray) -> FloatArray | None:
    """Mean 0 and standard deviation 1 over the image, None where nothing varies beyond rounding."""
    top = float(np.abs(values).max())
    if np.ptp(values) <= 1e-12 * top:
        return None
    scaled = values / top
    standard: FloatArray = (scaled - scaled.mean()) / scaled.std()
    return standard


def _compute_weighted_auc(values: FloatArray, positive: FloatArray, negative: FloatArray) -> float | None:
    """Chance that a draw from the positive weights has more map than one from the negative weights, ties half."""
    side = np.repeat([True, False], values.size)
    area = compute_auc(np.tile(values, 2), side, np.concatenate([positive, negative])[None])[0]
    return float(area) if math.isfinite(area) else None
