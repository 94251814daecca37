"""One mask out of several readers': union, intersection, majority, mean, and STAPLE with each reader's sensitivity.

STAPLE (Warfield, Zou and Wells 2004) estimates by expectation maximisation how likely each pixel is inside, together
with each reader's sensitivity and specificity. Pixels on which all readers say the same thing share their numbers, so
that the work is by pattern of votes, not by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.metrics.estimate import FloatArray

Rule = Literal["union", "intersection", "majority", "staple"]
RULES: tuple[Rule, ...] = ("union", "intersection", "majority", "staple")


@dataclass(frozen=True, eq=False)
class Staple:
    """What STAPLE found.

    Attributes:
        probability: float64 of the masks' shape, how likely each pixel is inside.
        sensitivity: [readers], share of what is inside that each marked.
        specificity: [readers], share of what is outside that each left.
        prior: share of pixels that is inside before looking.
        steps: of expectation maximisation.
    """

    probability: FloatArray
    sensitivity: FloatArray
    specificity: FloatArray
    prior: float
    steps: int


def staple(
    masks: ArrayLike, *, prior: float | None = None, most_steps: int = 10_000, tolerance: float = 1e-12
) -> Staple:
    """STAPLE of several readers' masks of one picture, or of several laid one after the other.

    Args:
        masks: bool [readers, *shape].
        prior: share of pixels that is inside; None: the mean of all masks, as the paper and ITK take it.
        most_steps: of expectation maximisation.
        tolerance: it ends when sensitivities and specificities move by less (Euclid's norm); ITK takes 1e-7.

    Raises:
        GeometryError: fewer than two readers, no pixel, or a prior outside 0 to 1.

    Example:
        >>> staple([[True, False], [True, False]]).probability.round(6).tolist()
        [1.0, 0.0]
    """
    votes = np.asarray(masks, dtype=bool)
    if votes.ndim < 2 or votes.shape[0] < 2 or votes.size == 0:
        raise GeometryError(f"STAPLE needs masks [readers, ...] of two readers or more; got shape {votes.shape}.")
    flat = votes.reshape(votes.shape[0], -1)
    share = float(flat.mean()) if prior is None else prior
    if not 0.0 <= share <= 1.0:
        raise GeometryError(f"A prior lies from 0 to 1; got {share}.")
    if share in (0.0, 1.0):
        ones = np.ones(len(flat))
        return Staple(np.full(votes.shape[1:], share), ones, ones, share, 0)
    patterns, which, counts = _group_patterns(flat)
    # started, as ITK does, from the share of readers who marked a pixel; then M and E steps by turns
    inside = patterns.mean(axis=1)
    p = q = np.full(len(flat), np.inf)
    step = 0
    for step in range(1, most_steps + 1):  # noqa: B007
        weight, rest = inside * counts, (1.0 - inside) * counts
        new_p = (patterns * weight[:, None]).sum(axis=0) / max(weight.sum(), 1e-300)
        new_q = (~patterns * rest[:, None]).sum(axis=0) / max(rest.sum(), 1e-300)
        moved = max(float(np.linalg.norm(new_p - p)), float(np.linalg.norm(new_q - q)))
        p, q = new_p, new_q
        inside = _compute_posterior(patterns, p, q, share)
        if moved <= tolerance:
            break
    return Staple(inside[which].reshape(votes.shape[1:]), p, q, share, step)


def _group_patterns(flat: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64], FloatArray]:
    """The distinct columns of votes [patterns, readers], which each pixel has, and how many have it."""
    packed = np.packbits(flat, axis=0).T
    if packed.shape[1] == 1:
        # up to eight readers: counting is many times faster than sorting the pixels of a radiograph
        numbers = packed[:, 0]
        tally = np.bincount(numbers, minlength=256)
        found = np.flatnonzero(tally)
        places = np.zeros(256, dtype=np.int64)
        places[found] = np.arange(len(found))
        bits = np.unpackbits(found.astype(np.uint8)[:, None], axis=1)[:, : len(flat)]
        return bits.astype(bool), places[numbers], tally[found].astype(np.float64)
    keys = np.ascontiguousarray(packed).view([("", np.uint8)] * packed.shape[1]).ravel()
    _, first, which, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return flat[:, first].T, which.astype(np.int64), counts.astype(np.float64)


def _compute_posterior(patterns: NDArray[np.bool_], p: FloatArray, q: FloatArray, share: float) -> FloatArray:
    """How likely a pixel of each pattern is inside (Warfield 2004, equation 16), in logs."""
    tiny = 1e-300
    inside = np.where(patterns, np.log(np.maximum(p, tiny)), np.log(np.maximum(1.0 - p, tiny))).sum(axis=1)
    outside = np.where(patterns, np.log(np.maximum(1.0 - q, tiny)), np.log(np.maximum(q, tiny))).sum(axis=1)
    inside, outside = inside + np.log(share), outside + np.log(1.0 - share)
    top = np.maximum(inside, outside)
    a, b = np.exp(inside - top), np.exp(outside - top)
    return np.asarray(a / (a + b))


def merge_masks(masks: ArrayLike, rule: Rule) -> NDArray[np.bool_]:
    """One mask out of several.

    Args:
        masks: bool [readers, *shape], one reader or more.
        rule: union; intersection; majority (more than half of the readers); or STAPLE above one half.

    Raises:
        GeometryError: no mask, or an unknown rule.
    """
    votes = np.asarray(masks, dtype=bool)
    if votes.ndim < 2 or votes.shape[0] == 0:
        raise GeometryError(f"Masks to merge have the shape [readers, ...]; got {votes.shape}.")
    if rule == "union" or len(votes) == 1:
        return np.asarray(votes.any(axis=0))
    if rule == "intersection":
        return np.asarray(votes.all(axis=0))
    if rule == "majority":
        return np.asarray(2 * votes.sum(axis=0) > len(votes))
    if rule == "staple":
        return np.asarray(staple(votes).probability > 0.5)
    raise GeometryError(f"{rule!r} is no rule to merge masks.", f"Known: {', '.join(RULES)}.")


def compute_soft_target(
    masks: Sequence[ArrayLike] | ArrayLike, *, by: Literal["mean", "staple"] = "mean"
) -> NDArray[np.float32]:
    """A target from 0 to 1: the share of readers who marked a pixel, or STAPLE's probability.

    Args:
        masks: bool [readers, *shape].
        by: how readers count: all alike, or by their estimated sensitivity and specificity.
    """
    votes = np.asarray(masks, dtype=bool)
    if by == "mean" or len(votes) == 1:
        return votes.mean(axis=0).astype(np.float32)
    return staple(votes).probability.astype(np.float32)
