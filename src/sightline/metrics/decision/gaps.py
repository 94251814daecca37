"""How far the score of one group is from that of the rest, and how many of many such gaps are claimed.

A small group with a score near 1 shows hardly any variance of its own, and a test that takes it at its word claims far
too often. Here each side has its score interval (`statistics/score_intervals`), which knows what variance another value
would have, and both are put together (MOVER: Newcombe 1998, method 10; with the covariance of patients who are on both
sides, Donner & Zou 2012). P is the level at which that interval just touches zero. Many gaps are corrected together by
the largest of them (step-down max-T, Romano & Wolf 2005), with the correlations of the patients' contributions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm
from scipy.stats import t as student

from sightline.metrics.decision.influence import Linearisation
from sightline.metrics.estimate import FloatArray
from sightline.metrics.statistics.patient_variance import Spread
from sightline.metrics.statistics.score_intervals import MODEL_FREEDOM, Model

_GRID = ndtr(np.linspace(-5.5, 5.5, 441))
_Z = np.concatenate([[0.0], np.geomspace(0.02, 8.0, 240)])
DRAWS = 10_000
CONFIDENT = 1.959963984540054


@dataclass(frozen=True, eq=False)
class GroupScore:
    """The score of one side with all its score intervals.

    Attributes:
        linear: value and contributions of the rows.
        low: lower end of the interval at each normal quantile of a fixed list, falling.
        high: upper end, rising.
    """

    linear: Linearisation
    low: FloatArray
    high: FloatArray

    @classmethod
    def from_linear(cls, linear: Linearisation, spread: Spread, model: Model) -> GroupScore:
        """From what is known of its variance, and how it depends on the value (as `compute_score_interval`)."""
        margin = 1.0 / (4.0 * (spread.patients + 1))
        expected = float(model(np.array([min(max(spread.value, margin), 1.0 - margin)]))[0])
        seen = max(spread.informative - 1.0, 0.0)
        scale = (seen * spread.patient / expected + MODEL_FREEDOM) / (seen + MODEL_FREEDOM)
        away = np.abs(_GRID - spread.value) / np.sqrt(np.maximum(scale * model(_GRID), 1e-300))
        reach = np.asarray(student.ppf(ndtr(_Z), seen + MODEL_FREEDOM))
        # the outermost value that lies within reach is the end
        below, above = spread.value > _GRID, spread.value <= _GRID
        down = np.minimum.accumulate(away[below])[::-1]
        up = np.minimum.accumulate(away[above][::-1])[::-1]
        low = np.interp(reach, np.r_[0.0, down], np.r_[spread.value, _GRID[below][::-1]], right=0.0)
        high = np.interp(reach, np.r_[0.0, up], np.r_[spread.value, _GRID[above]], right=1.0)
        return cls(linear, low, high)


@dataclass(frozen=True, eq=False)
class Gap:
    """The gap of two sides.

    Attributes:
        difference: of the values.
        low: of its 95% interval.
        high: of its 95% interval.
        z: normal quantile of its two-sided p, with the sign of the difference.
        pull: float64 [n], contribution of each row.
        reach: how far the interval goes towards zero at each normal quantile of a fixed list.
    """

    difference: float
    low: float
    high: float
    z: float
    pull: FloatArray
    reach: FloatArray = field(repr=False)

    @property
    def p_value(self) -> float:
        """Two-sided."""
        return float(2.0 * norm.sf(abs(self.z)))

    def detectable(self, critical: float, power: float) -> float:
        """The gap that a test with this critical normal quantile finds with this power."""
        return float(np.interp(critical, _Z, self.reach) + np.interp(norm.ppf(power), _Z, self.reach))


def compute_gap(here: GroupScore, rest: GroupScore, patient_ids: Sequence[str]) -> Gap:
    """The gap of a group and the rest, patients on both sides counted once."""
    names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    mine, theirs = (np.bincount(patient, weights=side.linear.pull, minlength=names.size) for side in (here, rest))
    sizes = math.sqrt(float((mine**2).sum()) * float((theirs**2).sum()))
    shared = float((mine * theirs).sum()) / sizes if sizes > 0 else 0.0
    difference = here.linear.value - rest.linear.value
    below = _add_spreads(here.linear.value - here.low, rest.high - rest.linear.value, shared)
    above = _add_spreads(here.high - here.linear.value, rest.linear.value - rest.low, shared)
    towards = below if difference >= 0 else above
    z = float(np.interp(abs(difference), np.maximum.accumulate(towards), _Z))
    low, high = (float(np.interp(CONFIDENT, _Z, side)) for side in (below, above))
    pull = here.linear.pull - rest.linear.pull
    sign = 1.0 if difference >= 0 else -1.0
    return Gap(
        difference, max(-1.0, difference - low), min(1.0, difference + high), sign * z, pull, (below + above) / 2
    )


def _add_spreads(a: FloatArray, b: FloatArray, correlation: float) -> FloatArray:
    return np.asarray(np.sqrt(np.maximum(a**2 + b**2 - 2.0 * correlation * a * b, 0.0)))


@dataclass(frozen=True, eq=False)
class CorrectedGaps:
    """Gaps corrected together.

    Attributes:
        p_values: [m], step-down.
        critical: normal quantile that the largest of all gaps exceeds in 5% where none is there.
    """

    p_values: FloatArray
    critical: float


def correct_gaps(
    gaps: Sequence[Gap], patient_ids: Sequence[str], *, alpha: float = 0.05, seed: int = 0
) -> CorrectedGaps:
    """P-values of m gaps by step-down max-T: the largest is held against the largest of all, and so on.

    Args:
        gaps: of the same rows.
        patient_ids: of the rows.
        alpha: share of tables without a gap in which one may be claimed.
        seed: of the 10,000 draws of m correlated normal numbers.

    Source:
        Romano & Wolf 2005, algorithm 3; Westfall & Young 1993.
    """
    names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    sums = np.stack([np.bincount(patient, weights=gap.pull, minlength=names.size) for gap in gaps])
    sizes = np.linalg.norm(sums, axis=1, keepdims=True)
    unit = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)
    correlation = unit @ unit.T
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    half = vectors * np.sqrt(values.clip(0.0))
    drawn = np.abs(np.random.default_rng(seed).normal(size=(DRAWS, len(gaps))) @ half.T)
    size = np.abs([gap.z for gap in gaps])
    order = np.argsort(-size)
    # the largest of this gap and all smaller ones
    largest = np.maximum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]
    p = np.empty(len(gaps))
    so_far = 0.0
    for place, i in enumerate(order.tolist()):
        beyond = (1.0 + float((largest[:, place] >= size[i] - 1e-9).sum())) / (1.0 + DRAWS)
        if place == len(gaps) - 1:
            # the last one is held against itself alone
            beyond = gaps[i].p_value
        so_far = max(so_far, beyond, gaps[i].p_value)
        p[i] = so_far
    return CorrectedGaps(p, float(np.quantile(largest[:, 0], 1.0 - alpha)))
