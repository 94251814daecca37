"""What the units of a layer are worth: c_k, its contrast against negatives, ranks with their ties (Engstler 2022).

c_k is the share of a group of cases in which unit k is enabled, that is above its threshold anywhere. With thresholds
that are exceeded on 0.5% of all positions nearly every unit is enabled in nearly every case once maps are large: c_k
saturates, and its rank says little. So every c_k comes with the same share of the negatives, with the number of units
that have the same c_k, and with the AUC of r_k, which does not saturate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from sightline.errors import CohortError, LayoutError, RunError, count_noun
from sightline.metrics.estimate import BoolArray, FloatArray, IntArray
from sightline.metrics.statistics.bootstrap import Interval, Resample, compute_interval
from sightline.metrics.units.permutation import PERMUTATIONS, Contrast, permute_contrast
from sightline.metrics.units.table import Column, UnitColumns, write_columns

Over = Literal["positives", "true_positives", "false_positives"]
GROUPS = ("positives", "true_positives", "false_positives", "negatives")
_TESTS = ("contrast", "calls", "strength", "peak")
_PER_UNIT = ("of", "against", "difference", "p", "p_holm", "p_bh", "p_max")
_PER_TEST = ("n_of", "n_against", "permutations", "seed")
RANK_RULE = "by c, then contrast, then AUC of strength, all descending, then unit number ascending"


@dataclass(frozen=True, eq=False)
class UnitScores:
    """Scores of u units.

    Attributes:
        over: the group that c is a share of.
        n: cases by group: positives, true_positives, false_positives, negatives; the two of calls only where it is
            known what the network called.
        shares: float64 [u] by group, share of its cases in which the unit is enabled; groups without a case are absent.
        ties: int [u], how many units have the same c, this one included.
        rank: int [u], from 1, `RANK_RULE`.
        contrast: c against negatives (of false positives: against the other negatives), or None without them.
        calls: true positives against false positives, the concepts of correct calls and those of false alarms, or
            None where there are not both.
        strength, peak: mean ranks of r_k and of the largest activation, same groups as `contrast`, or None.
        intervals: 95% bootstrap intervals of the contrast, by unit, of the first ranks.
    """

    over: Over
    n: Mapping[str, int]
    shares: Mapping[str, FloatArray]
    ties: IntArray
    rank: IntArray
    contrast: Contrast | None = None
    calls: Contrast | None = None
    strength: Contrast | None = None
    peak: Contrast | None = None
    intervals: Mapping[int, Interval] = field(default_factory=dict)

    @property
    def c(self) -> FloatArray:
        """c_k, float64 [u]."""
        return self.shares[self.over]

    @property
    def saturated(self) -> BoolArray:
        """Units enabled in every case of the group, bool [u]: among them the rank is decided by the tie rule alone."""
        return np.asarray(self.c == 1.0)

    @property
    def ranked(self) -> IntArray:
        """Unit numbers, first rank first."""
        return np.argsort(self.rank)

    @property
    def auc_strength(self) -> FloatArray | None:
        """AUC of r_k, float64 [u]; ties count half."""
        return convert_ranks_to_auc(self.strength)

    @property
    def auc_peak(self) -> FloatArray | None:
        """AUC of the largest activation, float64 [u]; ties count half."""
        return convert_ranks_to_auc(self.peak)

    def write(self, path: Path) -> None:
        """Write as CSV, one row a unit, full precision; `read` gives it back."""
        columns: dict[str, Column] = {"unit": np.arange(len(self.rank)), "rank": self.rank, "c": self.c}
        columns |= {"ties": self.ties, "saturated": self.saturated, "over": self.over}
        columns |= {f"n_{name}": n for name, n in self.n.items()}
        columns |= {f"c_{name}": share for name, share in self.shares.items()}
        given = [self.intervals.get(unit) for unit in range(len(self.rank))]
        columns |= {
            "contrast_low": [None if i is None else i.low for i in given],
            "contrast_high": [None if i is None else i.high for i in given],
            "contrast_interval": ["" if i is None else i.method for i in given],
            "contrast_without": ["" if i is None else i.why for i in given],
        }
        for name in _TESTS:
            test: Contrast | None = getattr(self, name)
            if test is not None:
                columns |= {f"{name}_{column}": getattr(test, column) for column in (*_PER_UNIT, *_PER_TEST)}
                columns[f"{name}_patients"] = "" if test.patients is None else test.patients
        for name, auc in (("auc_strength", self.auc_strength), ("auc_peak", self.auc_peak)):
            if auc is not None:
                columns[name] = auc
        write_columns(path, columns)

    @classmethod
    def read(cls, path: Path) -> UnitScores:
        """Read what `write` wrote.

        Raises:
            UnreadableFile, LayoutError: missing or damaged.
        """
        table = UnitColumns(path, "scores of units")
        if table.integers("unit").tolist() != list(range(table.length)):
            raise LayoutError(f"{path}: units must be numbered from 0 on.", "Dissect the run again.")
        over = table.one("over")
        if over not in GROUPS[:3] or f"c_{over}" not in table:
            raise LayoutError(f"{path}: c over {over!r} is not there.", "Dissect the run again.")
        tests: dict[str, Contrast | None] = {}
        for name in _TESTS:
            if f"{name}_p" in table:
                patients = table.one(f"{name}_patients")
                columns: dict[str, Any] = {column: table.floats(f"{name}_{column}") for column in _PER_UNIT}
                columns |= {column: table.whole(f"{name}_{column}") for column in _PER_TEST}
                tests[name] = Contrast(**columns, patients=int(patients) if patients else None)
        ends = [table.text(f"contrast_{end}") for end in ("low", "high", "interval", "without")]
        intervals = {
            unit: Interval(float(low) if low else None, float(high) if high else None, method, why)
            for unit, (low, high, method, why) in enumerate(zip(*ends, strict=True))
            if method
        }
        return cls(
            over=over,  # type: ignore[arg-type]
            n={name: table.whole(f"n_{name}") for name in GROUPS if f"n_{name}" in table},
            shares={name: table.floats(f"c_{name}") for name in GROUPS if f"c_{name}" in table},
            ties=table.integers("ties"),
            rank=table.integers("rank"),
            intervals=intervals,
            **tests,
        )


@dataclass(frozen=True)
class UnitDraws:
    """The chance in the scores of units.

    Attributes:
        permutations: of each test.
        replicates: of each bootstrap.
        top: how many first ranks get an interval.
        seed: of all draws.
    """

    permutations: int = PERMUTATIONS
    replicates: int = 2000
    top: int = 10
    seed: int = 0


def compute_unit_scores(
    enabled: ArrayLike,
    positive: ArrayLike,
    *,
    called: ArrayLike | None = None,
    over: Over = "positives",
    strength: ArrayLike | None = None,
    peak: ArrayLike | None = None,
    patients: Sequence[str] | None = None,
    draws: UnitDraws | None = None,
) -> UnitScores:
    """Score every unit.

    Args:
        enabled: bool [n, u], above its threshold anywhere.
        positive: bool [n], what the cases are.
        called: bool [n], what the network calls them; needed for groups of calls.
        over: the group that c is a share of. All ground-truth positives are what Engstler 2022 writes and its code
            takes; its text says true positive predictions.
        strength: [n, u], r_k.
        peak: [n, u], largest activation.
        patients: n ids, for tests and intervals; None: every case is its own.
        draws: of tests and intervals; the defaults when None.

    Raises:
        RunError: shapes that do not fit, or a group of calls without calls.
        CohortError: the group has no case.
    """
    draws = draws or UnitDraws()
    fired, truth = np.asarray(enabled, dtype=bool), np.asarray(positive, dtype=bool)
    if fired.ndim != 2 or truth.shape != fired.shape[:1] or fired.size == 0:
        raise RunError(f"Units need enabled [n, u] and n labels; got {fired.shape} and {truth.shape}.")
    groups = _group_cases(truth, None if called is None else np.asarray(called, dtype=bool))
    if over not in groups:
        raise RunError(f"c over {over} needs what the network called.", "Give `called`, or take all positives.")
    counts = {name: int(groups[name].sum()) for name in GROUPS if name in groups}
    if not counts[over]:
        raise CohortError(
            f"No case is among the {over.replace('_', ' ')} of {count_noun(len(truth), 'case')}.", "Use more cases."
        )
    shares = {name: fired[groups[name]].mean(axis=0) for name in counts if counts[name]}
    of = groups[over]
    against = ~truth & ~of

    def test_contrast(
        values: ArrayLike | None, first: BoolArray, second: BoolArray, *, ranks: bool = False
    ) -> Contrast | None:
        if values is None or not first.any() or not second.any():
            return None
        table = np.asarray(values)
        if table.shape != fired.shape:
            raise RunError(f"Units need one value a case and unit {fired.shape}; got {table.shape}.")
        among = first | second
        rows = rankdata(table[among], axis=0) if ranks else table[among]
        who = None if patients is None else [p for p, keep in zip(patients, among, strict=True) if keep]
        return permute_contrast(rows, first[among], patients=who, permutations=draws.permutations, seed=draws.seed)

    contrast = test_contrast(fired, of, against)
    by_strength = test_contrast(strength, of, against, ranks=True)
    correct, false = groups.get("true_positives"), groups.get("false_positives")
    difference = contrast.difference if contrast else None
    rank, ties = rank_units(shares[over], difference, convert_ranks_to_auc(by_strength))
    found = UnitScores(
        over=over,
        n=counts,
        shares=shares,
        ties=ties,
        rank=rank,
        contrast=contrast,
        calls=None if correct is None or false is None else test_contrast(fired, correct, false),
        strength=by_strength,
        peak=test_contrast(peak, of, against, ranks=True),
    )
    if contrast is None or draws.top < 1:
        return found
    first_ranks = [int(unit) for unit in found.ranked[: draws.top]]
    ids = [str(i) for i in range(len(truth))] if patients is None else list(patients)
    drawn = _bootstrap_contrasts(fired[:, first_ranks], of, against, Resample.draw(ids, draws.replicates, draws.seed))
    intervals = {
        unit: compute_interval(float(contrast.difference[unit]), drawn[:, i], len(set(ids)), draws.seed)
        for i, unit in enumerate(first_ranks)
    }
    return replace(found, intervals=intervals)


def _group_cases(truth: BoolArray, called: BoolArray | None) -> dict[str, BoolArray]:
    """Which cases are in each of `GROUPS`, bool [n]; without calls, none of the groups of calls."""
    groups = {"positives": truth, "negatives": ~truth}
    if called is None:
        return groups
    if called.shape != truth.shape:
        raise RunError(f"There are {called.shape} calls for {truth.shape} cases.")
    return {**groups, "true_positives": truth & called, "false_positives": ~truth & called}


def convert_ranks_to_auc(ranks: Contrast | None) -> FloatArray | None:
    """AUC from the difference of mean ranks over n cases: 1/2 + difference / n (Mann & Whitney 1947)."""
    return None if ranks is None else 0.5 + ranks.difference / (ranks.n_of + ranks.n_against)


def rank_units(c: FloatArray, contrast: FloatArray | None, auc: FloatArray | None) -> tuple[IntArray, IntArray]:
    """Ranks from 1 by `RANK_RULE`, and how many units share each c: int64 [u] both."""
    keys = [np.arange(len(c)), *(-key for key in (auc, contrast, c) if key is not None)]
    rank = np.empty(len(c), dtype=np.int64)
    rank[np.lexsort(keys)] = np.arange(1, len(c) + 1)
    _, which, times = np.unique(c, return_inverse=True, return_counts=True)
    return rank, np.asarray(times[which], dtype=np.int64)


def _bootstrap_contrasts(fired: BoolArray, of: BoolArray, against: BoolArray, resample: Resample) -> FloatArray:
    """Contrasts of some units over resampled patients, [r, t]; NaN where a group was not drawn."""
    values, blocks = fired.astype(np.float64), []
    step = max(1, 2_000_000 // len(fired))
    for i in range(0, len(resample.counts), step):
        weights = resample.counts[i : i + step, resample.patient].astype(np.float64)
        sides = []
        for side in (of, against):
            total = weights[:, side].sum(axis=1, keepdims=True)
            hits = weights[:, side] @ values[side]
            sides.append(np.divide(hits, total, out=np.full_like(hits, np.nan), where=total > 0))
        blocks.append(sides[0] - sides[1])
    return np.concatenate(blocks)
