"""Whether many units tell two groups of cases apart, against labels that are permuted.

The statistic of a unit is its mean over one group less its mean over the other: of indicators that is a difference of
shares (c_k less its like), of ranks it is n (AUC - 1/2). Labels are permuted for all units at once, so that the largest
statistic of a permutation holds the family of units together (Westfall & Young 1993, single step maxT).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from sightline.errors import RunError, count_noun
from sightline.metrics.estimate import BoolArray, FloatArray, IntArray
from sightline.metrics.statistics.comparison import holm

PERMUTATIONS = 10_000
_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class Contrast:
    """Means of u units over two groups of cases.

    Attributes:
        of, against: float64 [u], mean over the first and the second group.
        difference: float64 [u], `of - against`.
        p: float64 [u], two-sided, never 0: at least 1 / (permutations + 1).
        p_holm, p_bh: the same, adjusted over the units: Holm (1979), Benjamini and Hochberg (1995). With u units no
            p_holm is below u / (permutations + 1).
        p_max: adjusted over the units by the largest standardised difference of each permutation.
        n_of, n_against: cases.
        permutations, seed: of the test.
        patients: number of patients whose cases were kept together, or None.
    """

    of: FloatArray
    against: FloatArray
    difference: FloatArray
    p: FloatArray
    p_holm: FloatArray
    p_bh: FloatArray
    p_max: FloatArray
    n_of: int
    n_against: int
    permutations: int
    seed: int
    patients: int | None = None

    @property
    def method(self) -> str:
        """How p was made, in words."""
        who = (
            "labels of cases"
            if self.patients is None
            else f"labels of {count_noun(self.patients, 'patient')} kept together"
        )
        return f"permutation test, {who}, {self.permutations} permutations, seed {self.seed}, two-sided"


def permute_contrast(
    values: ArrayLike,
    first: ArrayLike,
    *,
    patients: Sequence[str] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Contrast:
    """Means over the first group less means over all other cases, with permutation p-values.

    Args:
        values: [n, u].
        first: bool [n], the first group.
        patients: n ids; the labels of a patient's cases stay together (`iterate_label_permutations`). None: cases are
            independent.
        permutations: number of draws.
        seed: of the draws.

    Raises:
        RunError: shapes that do not fit, values that are not finite, a group without a case, no permutation.
    """
    table, label = np.asarray(values, dtype=np.float64), np.asarray(first, dtype=bool)
    if table.ndim != 2 or label.shape != table.shape[:1] or not np.isfinite(table).all():
        raise RunError(f"A contrast needs finite values [n, u] and n labels; got {table.shape} and {label.shape}.")
    if label.all() or not label.any():
        raise RunError(f"A contrast needs cases on both sides; got {int(label.sum())} and {int((~label).sum())}.")
    if permutations < 1:
        raise RunError(f"A permutation test needs at least one permutation; got {permutations}.")
    total = table.sum(axis=0)

    def compute_differences(labels: FloatArray) -> FloatArray:
        n_of = labels.sum(axis=1, keepdims=True)
        inside = labels @ table
        return np.asarray(inside / n_of - (total - inside) / (len(table) - n_of))

    found = compute_differences(label[None].astype(np.float64))[0]
    # any fixed scale makes a valid test; this one makes units of different spread comparable
    spread = table.std(axis=0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    slack = 1e-12 * max(1.0, float(np.abs(found).max()))
    exceeded, largest = np.zeros(table.shape[1], dtype=np.int64), []
    for labels in iterate_label_permutations(label, patients, permutations, seed):
        drawn = np.abs(compute_differences(labels))
        exceeded += (drawn >= np.abs(found) - slack).sum(axis=0)
        largest.append((drawn * scale).max(axis=1))
    most = np.sort(np.concatenate(largest))
    p = (1 + exceeded) / (1 + permutations)
    reached = permutations - np.searchsorted(most, (np.abs(found) - slack) * scale * (1 - 1e-12), side="left")
    return Contrast(
        of=table[label].mean(axis=0),
        against=table[~label].mean(axis=0),
        difference=found,
        p=p,
        p_holm=np.array(holm(p.tolist()), dtype=np.float64),
        p_bh=np.asarray(false_discovery_control(p, method="bh")),
        p_max=np.maximum((1 + reached) / (1 + permutations), p),
        n_of=int(label.sum()),
        n_against=int((~label).sum()),
        permutations=permutations,
        seed=seed,
        patients=None if patients is None or len(set(patients)) == len(label) else len(set(patients)),
    )


def iterate_label_permutations(
    label: BoolArray, patients: Sequence[str] | None, permutations: int, seed: int
) -> Iterator[FloatArray]:
    """Permuted labels in blocks of rows, float64 [r, n], 0 or 1.

    Where several cases share a patient they are not exchangeable one by one. If each patient's cases share one label,
    labels are permuted among patients. Otherwise each patient's run of labels stays whole, and the runs are dealt out
    in another order to the cases, which stand patient by patient: with equally many cases a patient this exchanges
    whole patients (Winkler 2015); with unequal numbers runs meet other borders, which keeps their lengths and the
    number of positives, and is approximate. Such a sequence is also turned by a random number of places.

    Args:
        label: bool [n].
        patients: n ids, or None.
        permutations: number of rows in all.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // len(label))
    sizes = [min(step, permutations - i) for i in range(0, permutations, step)]
    groups = None if patients is None else _number_groups(patients, len(label))
    if groups is None or groups.max() + 1 == len(label):
        for size in sizes:
            yield random.permuted(np.tile(label.astype(np.float64), (size, 1)), axis=1)
        return
    counts = np.bincount(groups)
    positive = np.bincount(groups, weights=label)
    if ((positive == 0) | (positive == counts)).all():
        of_patient = (positive > 0).astype(np.float64)
        for size in sizes:
            yield random.permuted(np.tile(of_patient, (size, 1)), axis=1)[:, groups]
        return
    order = np.argsort(groups, kind="stable")
    grouped, starts = label[order].astype(np.float64), np.cumsum(counts) - counts
    unequal = bool((counts != counts[0]).any())
    for size in sizes:
        block = np.empty((size, len(label)))
        for row in block:
            dealt = random.permutation(len(counts))
            ends = np.cumsum(counts[dealt])
            taken = grouped[np.arange(len(label)) + np.repeat(starts[dealt] - ends + counts[dealt], counts[dealt])]
            row[order] = np.roll(taken, random.integers(len(label))) if unequal else taken
        yield block


def _number_groups(patients: Sequence[str], n: int) -> IntArray:
    if len(patients) != n:
        raise RunError(f"There are {len(patients)} patient ids for {n} cases.")
    found: NDArray[np.int64] = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    return found
