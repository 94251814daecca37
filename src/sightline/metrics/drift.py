"""How far inputs and outputs have moved from a reference: PSI, Kolmogorov-Smirnov and tails, limits by permutation.

Fixed limits (a PSI of 0.1 or 0.2) give alarms by chance when windows are small, and none when they are large. Here the
limit of each measure is what windows of the same size would reach if window and reference were one population, found by
permuting their members. An alarm needs two windows in a row. Each of the two is therefore tested at the square root of
the level, divided over the measures (Bonferroni); the reference is common to both, so the level is not exact, and
simulations say what it is (docs/node.md).

References: Siddiqi 2006 (PSI); Hodges 1958 (two-sample Kolmogorov-Smirnov); Good 2005 (permutation tests).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

LEVEL = 0.005
PERMUTATIONS = 499
_EDGES = tuple(i / 10 for i in range(1, 10))
# a few odd pictures among many move no decile and no distribution function, but the far ends
_TAILS = (0.01, 0.99)
_SMOOTHING = 0.5
Values = Sequence[float] | Sequence[str]
Statistic = Literal["psi", "ks", "tails"]


@dataclass(frozen=True)
class Drift:
    """How far one measure of a window is from the reference.

    Attributes:
        measure: its name.
        statistic: `psi` (numbers and words), `ks` or `tails` (numbers): the share beyond the reference's 1st and 99th
            percentile.
        value: of the statistic.
        limit: what chance reaches with the level of this test.
        n: members of the window that have the measure.
    """

    measure: str
    statistic: Statistic
    value: float
    limit: float
    n: int

    @property
    def beyond(self) -> bool:
        """Whether the window is further away than chance explains."""
        return self.value > self.limit


def population_stability_index(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """PSI of counts by bin: the sum of (f - e) ln(f / e) of shares, half a count added to each bin.

    Example:
        >>> round(population_stability_index(np.array([50.0, 50.0]), np.array([50.0, 50.0])), 6)
        0.0
        >>> round(population_stability_index(np.array([999.5, 999.5]), np.array([1499.5, 499.5])), 4)
        0.2747
    """
    e = (expected + _SMOOTHING) / (expected + _SMOOTHING).sum(axis=-1, keepdims=True)
    f = (found + _SMOOTHING) / (found + _SMOOTHING).sum(axis=-1, keepdims=True)
    return float(((f - e) * np.log(f / e)).sum(axis=-1))


def kolmogorov_smirnov(reference: NDArray[np.float64], window: NDArray[np.float64]) -> float:
    """The largest distance of two empirical distribution functions.

    Example:
        >>> kolmogorov_smirnov(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 4.0, 5.0, 6.0]))
        0.5
    """
    points = np.concatenate([reference, window])
    below = [np.searchsorted(np.sort(one), points, side="right") / len(one) for one in (reference, window)]
    return float(np.abs(below[0] - below[1]).max())


def compute_test_level(measures: int, level: float = LEVEL) -> float:
    """Level of one test of one window, such that two windows in a row of any of `measures` tests alarm at `level`."""
    return math.sqrt(level / max(1, measures))


def measure_drift(
    reference: Mapping[str, Values],
    window: Mapping[str, Values],
    *,
    level: float = LEVEL,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Drift]:
    """Compare a window with the reference, measure by measure.

    Args:
        reference: members of the reference by measure: numbers, or words (device, view, ...).
        window: members of the window; measures that the reference has not are left out.
        level: chance of an alarm of any measure after two windows in a row.
        permutations: for each limit.
        seed: of the permutations.

    Returns:
        `ks`, `tails` and `psi` of each measure of numbers, `psi` of each of words, in the reference's order; measures
        with fewer than two members on either side are left out.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> old, new = {"mean": rng.normal(size=1000)}, {"mean": rng.normal(0.5, 1.0, size=200)}
        >>> [one.beyond for one in measure_drift(old, new)], [one.beyond for one in measure_drift(old, old)]
        ([True, True, True], [False, False, False])
    """
    shared = [name for name in reference if min(len(reference[name]), len(window.get(name, ()))) >= 2]
    numbers = {name for name in shared if not any(isinstance(x, str) for x in (*reference[name], *window[name]))}
    at = compute_test_level(len(shared) + 2 * len(numbers), level)
    rng = np.random.default_rng(seed)
    found = []
    for name in shared:
        if name in numbers:
            old, new = (np.asarray(one[name], dtype=np.float64) for one in (reference, window))
            limit = _simulate_ks_limit(old, new, at, permutations, rng)
            found.append(Drift(name, "ks", kolmogorov_smirnov(old, new), limit, len(new)))
            found.append(_compare_tails(name, old, new, at))
            counts = _count_numbers(old, new)
        else:
            counts = _count_words([str(x) for x in reference[name]], [str(x) for x in window[name]])
        limit = _simulate_psi_limit(*counts, at, permutations, rng)
        found.append(Drift(name, "psi", population_stability_index(*counts), limit, int(counts[1].sum())))
    return found


def find_alarms(windows: Sequence[Sequence[Drift]]) -> list[tuple[int, str]]:
    """(index of the window, measure) of each alarm: a measure whose same statistic is beyond two windows in a row.

    Example:
        >>> far, near = Drift("mean", "ks", 0.4, 0.1, 200), Drift("mean", "ks", 0.05, 0.1, 200)
        >>> find_alarms([[near], [far], [far], [near], [far]])
        [(2, 'mean')]
    """
    alarms = []
    before: set[tuple[str, Statistic]] = set()
    for index, window in enumerate(windows):
        now = {(one.measure, one.statistic) for one in window if one.beyond}
        alarms += [(index, measure) for measure in sorted({measure for measure, _ in now & before})]
        before = now
    return alarms


def _compare_tails(name: str, old: NDArray[np.float64], new: NDArray[np.float64], level: float) -> Drift:
    """Members beyond the reference's percentiles; the limit is that of all permutations (hypergeometric)."""
    low, high = np.quantile(old, _TAILS)
    beyond = [int(((one < low) | (one > high)).sum()) for one in (old, new)]
    share = beyond[1] / len(new)
    allowed = hypergeom.isf(level, len(old) + len(new), sum(beyond), len(new)) if sum(beyond) else 0.0
    return Drift(name, "tails", share, float(allowed) / len(new), len(new))


def _count_numbers(
    old: NDArray[np.float64], new: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts in bins at the reference's quantiles."""
    edges = np.unique(np.quantile(old, _EDGES))
    return tuple(  # type: ignore[return-value]
        np.bincount(np.searchsorted(edges, one, side="left"), minlength=len(edges) + 1).astype(np.float64)
        for one in (old, new)
    )


def _count_words(old: Sequence[str], new: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    words = sorted({*old, *new})
    places = {word: place for place, word in enumerate(words)}
    return tuple(  # type: ignore[return-value]
        np.bincount([places[word] for word in one], minlength=len(words)).astype(np.float64) for one in (old, new)
    )


def _simulate_psi_limit(
    old: NDArray[np.float64], new: NDArray[np.float64], level: float, permutations: int, rng: np.random.Generator
) -> float:
    """What PSI reaches by chance: windows drawn without replacement from both together."""
    together = (old + new).astype(np.int64)
    drawn = rng.multivariate_hypergeometric(together, int(new.sum()), size=permutations).astype(np.float64)
    rest = together - drawn
    f = (drawn + _SMOOTHING) / (drawn + _SMOOTHING).sum(axis=1, keepdims=True)
    e = (rest + _SMOOTHING) / (rest + _SMOOTHING).sum(axis=1, keepdims=True)
    return _find_limit(((f - e) * np.log(f / e)).sum(axis=1), level)


def _simulate_ks_limit(
    old: NDArray[np.float64], new: NDArray[np.float64], level: float, permutations: int, rng: np.random.Generator
) -> float:
    """What KS reaches by chance; ties count at the end of their run, as in the statistic itself."""
    together = np.sort(np.concatenate([old, new]))
    n, total = len(new), len(together)
    ends = np.append(together[1:] != together[:-1], True)
    chosen = np.zeros((permutations, total), dtype=bool)
    for row in chosen:
        row[rng.choice(total, n, replace=False)] = True
    in_window = np.cumsum(chosen, axis=1)
    in_rest = np.arange(1, total + 1) - in_window
    distance = np.abs(in_window / n - in_rest / (total - n))[:, ends]
    return _find_limit(distance.max(axis=1), level)


def _find_limit(chance: NDArray[np.float64], level: float) -> float:
    """The value that at most a share `level` of chance's values, and the observed one with them, passes."""
    rank = math.ceil((1.0 - level) * (len(chance) + 1)) - 1
    return float(np.sort(chance)[min(rank, len(chance) - 1)])
