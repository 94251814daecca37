"""How far each patient pulls a number: standard errors of shares, AUCs and what is computed from them.

To first order a score is the sum of one contribution a row (Hampel 1974). Contributions of a patient are summed, so
that images of one patient do not count as several; two scores over the same patients, or over overlapping groups of
them, have the covariance of their sums. For an AUC this is DeLong's variance clustered by patient (Obuchowski 1997).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import norm, rankdata
from scipy.stats import t as student

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
FEWEST_PATIENTS = 5


@dataclass(frozen=True, eq=False)
class Linearisation:
    """A number and what each row contributes to its error.

    Attributes:
        value: the number, NaN where it is not defined.
        pull: float64 [n], contribution of each row; they sum to zero.
        patients: number of patients of the smaller class that the number rests on.
    """

    value: float
    pull: FloatArray
    patients: int

    @property
    def defined(self) -> bool:
        """Whether there is a number, resting on enough patients for an interval."""
        return math.isfinite(self.value) and self.patients >= FEWEST_PATIENTS

    def __sub__(self, other: Linearisation) -> Linearisation:
        """The difference, whose error knows what both share."""
        return Linearisation(self.value - other.value, self.pull - other.pull, min(self.patients, other.patients))

    def logarithm(self) -> Linearisation:
        """The natural logarithm; NaN of numbers that are not positive."""
        if not self.value > 0:
            return Linearisation(math.nan, np.zeros_like(self.pull), self.patients)
        return Linearisation(math.log(self.value), self.pull / self.value, self.patients)

    def complement(self) -> Linearisation:
        """One less the number."""
        return Linearisation(1.0 - self.value, -self.pull, self.patients)

    def error(self, patient_ids: Sequence[str]) -> float:
        """Standard error over patients, with G / (G - 1) for G patients that contribute."""
        names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
        sums = np.bincount(patient, weights=self.pull, minlength=names.size)
        groups = int(np.count_nonzero(np.bincount(patient, weights=self.pull != 0, minlength=names.size)))
        return math.sqrt(float((sums**2).sum()) * groups / (groups - 1)) if groups > 1 else 0.0

    @property
    def freedom(self) -> int:
        """Degrees of freedom of its t quantile: patients of the smaller class less one."""
        return max(1, self.patients - 1)


def linearise_share(values: FloatArray, where: BoolArray, patient_ids: Sequence[str]) -> Linearisation:
    """The mean of values [n] over the rows `where`."""
    n = int(where.sum())
    if n == 0:
        return Linearisation(math.nan, np.zeros(len(where)), 0)
    value = float(values[where].mean())
    return Linearisation(value, np.where(where, values - value, 0.0) / n, _count_patients(patient_ids, where))


def linearise_area(
    scores: FloatArray, positive: BoolArray, where: BoolArray, patient_ids: Sequence[str]
) -> Linearisation:
    """The AUC of scores [n] over the rows `where`; ties count half."""
    a, b = where & positive, where & ~positive
    m, n = int(a.sum()), int(b.sum())
    pull = np.zeros(len(where))
    if m == 0 or n == 0:
        return Linearisation(math.nan, pull, 0)
    ranks = np.asarray(rankdata(np.concatenate([scores[a], scores[b]])))
    v10 = (ranks[:m] - np.asarray(rankdata(scores[a]))) / n
    v01 = 1.0 - (ranks[m:] - np.asarray(rankdata(scores[b]))) / m
    value = float(v10.mean())
    pull[a], pull[b] = (v10 - value) / m, (v01 - value) / n
    return Linearisation(value, pull, min(_count_patients(patient_ids, a), _count_patients(patient_ids, b)))


def compute_reach(error: float, freedom: float) -> float:
    """Half the width of a 95% interval; a normal quantile where the degrees of freedom are infinite."""
    quantile = norm.ppf(0.975) if math.isinf(freedom) else student.ppf(0.975, freedom)
    return float(quantile) * error


def compute_logit(share_: float) -> float:
    """Log odds of a share."""
    return float(logit(share_))


def _count_patients(patient_ids: Sequence[str], where: BoolArray) -> int:
    return len(set(np.asarray(patient_ids, dtype=str)[where].tolist()))
