"""The gate's last check: whether a network sees in a picture what it saw in its training.

The features that class maps are computed from, averaged over cells, are held against those of the training pictures:
how far along the directions in which training pictures differ (Mahalanobis), how much lies in no such direction (the
residual; Tipping and Bishop 1999 have both), how far the 10th nearest training picture is (Sun 2022), and how little
the logits say (the energy of Liu 2020). Each is put on the scale that it has on validation pictures; the greatest of
them is the score, and its limit leaves 99.5% of good pictures inside, as far as validation pictures tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError, count_noun
from sightline.inference.gate.gate_file import pack_array, unpack_array

ACCEPTED = 0.995
MOST_DIRECTIONS, NEIGHBOUR = 48, 10
# training pictures that neighbours are looked for among
MOST_KEPT = 500
MEASURES = ("mahalanobis", "residual", "neighbour", "energy")
Floats = NDArray[np.float64]
Scope = Literal["inside", "outside", "not asked"]


@dataclass(frozen=True, eq=False)
class FeatureLimits:
    """What training and validation features are like.

    Attributes:
        mean: [c], of the training.
        directions: [r, c], orthonormal, those in which training features differ most.
        spreads: [r], standard deviations along them.
        kept: [m, r], training features along them, over the spreads.
        middle, scale: [4], median of each measure on validation, and how far its 90% quantile lies above.
        limit: of the score.
        validation: how many validation pictures it was set on.
    """

    mean: Floats
    directions: Floats
    spreads: Floats
    kept: Floats
    middle: Floats
    scale: Floats
    limit: float
    validation: int

    def measure(self, features: NDArray[Any], energies: NDArray[Any]) -> Floats:
        """The four measures [n, 4] of features [n, c] and energies [n]; greater is stranger."""
        centred = np.asarray(features, dtype=np.float64) - self.mean
        along = centred @ self.directions.T
        residual = np.sqrt(np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0))
        white = along / self.spreads
        # |a - b|^2 without a table of all differences
        squares = (white**2).sum(axis=1)[:, None] + (self.kept**2).sum(axis=1) - 2.0 * white @ self.kept.T
        nth = min(NEIGHBOUR, len(self.kept)) - 1
        neighbour = np.sqrt(np.maximum(np.partition(squares, nth, axis=1)[:, nth], 0.0))
        distance = np.sqrt((white**2).sum(axis=1))
        return np.stack([distance, residual, neighbour, -np.asarray(energies, dtype=np.float64)], axis=1)

    def score(self, features: NDArray[Any], energies: NDArray[Any]) -> Floats:
        """Scores [n], above 1 outside. What is no number is outside.

        Raises:
            RunError: features of another network.
        """
        if np.ndim(features) != 2 or np.shape(features)[1] != len(self.mean):
            raise RunError(
                f"The gate knows {count_noun(len(self.mean), 'feature')}; the network gives {np.shape(features)}.",
                "Make the gate again: sightline gate RUN --cohort DIR",
            )
        strange = ((self.measure(features, energies) - self.middle) / self.scale).max(axis=1) / self.limit
        return np.where(np.isfinite(strange), strange, np.inf)

    def to_plain(self) -> dict[str, Any]:
        """As it stands in gate.json: arrays as float32, little-endian, base64."""
        arrays = {name: pack_array(getattr(self, name)) for name in ("mean", "directions", "spreads", "kept")}
        own = {"measures": list(MEASURES), "middle": self.middle.tolist(), "scale": self.scale.tolist()}
        return {**own, "limit": self.limit, "validation": self.validation, "accepted": ACCEPTED, **arrays}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> FeatureLimits:
        """Of what stands in gate.json; raises KeyError, TypeError or ValueError where it is none."""
        if list(plain["measures"]) != list(MEASURES):
            raise ValueError(f"measures {plain['measures']!r}, expected {MEASURES!r}")
        mean, directions, spreads, kept = (
            unpack_array(plain[name]) for name in ("mean", "directions", "spreads", "kept")
        )
        middle, scale = (np.array(plain[name], dtype=np.float64) for name in ("middle", "scale"))
        limit, rank = float(plain["limit"]), len(spreads)
        fits = directions.shape == (rank, len(mean)) and kept.ndim == 2 and kept.shape[1] == rank and len(kept) > 0
        if not fits or middle.shape != (4,) or scale.shape != (4,) or not limit > 0.0 or not (spreads > 0).all():
            raise ValueError("features that do not belong together")
        return cls(mean, directions, spreads, kept, middle, scale, limit, int(plain["validation"]))


def fit_features(training: NDArray[Any], validation: NDArray[Any], energies: NDArray[Any]) -> FeatureLimits:
    """Limits from features of training [n, c] and validation [m, c] pictures, and the energies [m] of the latter.

    Raises:
        RunError: fewer than 20 training or 10 validation pictures: no limit would mean anything.
    """
    if len(training) < 20 or len(validation) < 10:
        raise RunError(
            f"Features of {len(training)} training and "
            f"{count_noun(len(validation), 'validation picture')}; 20 and 10 are the least.",
            "Give a cohort with more pictures, or leave the features check out.",
        )
    known = np.asarray(training, dtype=np.float64)
    mean = known.mean(axis=0)
    _, singular, rows = np.linalg.svd(known - mean, full_matrices=False)
    spreads = singular / math.sqrt(len(known) - 1)
    rank = min(MOST_DIRECTIONS, len(known) // 5, int((spreads > 1e-6 * spreads[0]).sum()) if spreads[0] > 0 else 0)
    if rank == 0:
        raise RunError("All training pictures have the same features.", "The weights are damaged.")
    directions, spreads = rows[:rank], spreads[:rank]
    step = max(1, math.ceil(len(known) / MOST_KEPT))
    kept = ((known - mean) @ directions.T / spreads)[::step]
    # what is stored is what is measured with
    mean, directions, spreads, kept = (
        x.astype(np.float32).astype(np.float64) for x in (mean, directions, spreads, kept)
    )
    unset = FeatureLimits(mean, directions, spreads, kept, np.zeros(4), np.ones(4), 1.0, len(validation))
    measured = unset.measure(validation, energies)
    middle, high = np.quantile(measured, (0.5, 0.9), axis=0)
    # where directions hold everything the residual is rounding, which must not become a scale
    least = np.array([1e-2, 0.1 * float(spreads[-1]), 1e-2, 1e-3])
    scale = np.maximum(high - middle, least)
    scores = np.sort(((measured - middle) / scale).max(axis=1))
    limit = max(_limit_of(scores), 1e-9)
    return FeatureLimits(mean, directions, spreads, kept, middle, scale, limit, len(validation))


def _limit_of(scores: Floats) -> float:
    """What the next score exceeds with a chance of 0.5%, by sorted scores of validation pictures.

    Of 199 or more it is the order statistic that split conformal prediction takes. Of fewer it would be the greatest,
    which one picture in n + 1 exceeds: there the upper half is taken for an exponential tail, whose next member exceeds
    (q^(-1/k) - 1) times the sum of k members with a chance of q.
    """
    n = len(scores)
    if ACCEPTED * (n + 1) <= n:
        return float(scores[math.ceil(ACCEPTED * (n + 1)) - 1])
    median = float(np.median(scores))
    upper = scores[scores > median] - median
    if not len(upper):
        return float(scores[-1])
    ahead = float(upper.sum()) * ((0.5 / (1.0 - ACCEPTED)) ** (1.0 / len(upper)) - 1.0)
    return max(float(scores[-1]), median + ahead)


def read_feature_limits(plain: Mapping[str, Any]) -> FeatureLimits | None:
    """The features check of a gate, or None where it was not made.

    Raises:
        RunError: it is damaged.
    """
    if not plain:
        return None
    try:
        return FeatureLimits.from_plain(plain)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        remedy = "Make it again: sightline gate RUN --cohort DIR"
        raise RunError(f"gate.json: its features are damaged ({error!r:.160}).", remedy) from None


def score_features(limits: FeatureLimits | None, features: NDArray[Any] | None, energy: float) -> float | None:
    """The score of one picture with features [c]; None where there is no features check.

    Raises:
        RunError: the gate has features, but what computes gives none.
    """
    if limits is None:
        return None
    if features is None:
        raise RunError("The gate asks for features, which the network does not give.", "Export the run again.")
    return float(limits.score(features[None], np.array([energy]))[0])


def name_scope(score: float | None) -> Scope:
    """What a score means; None where nobody asked."""
    return "not asked" if score is None else "inside" if score <= 1.0 else "outside"
