"""95% intervals by bootstrap over patients.

Images of a patient are not independent, so patients are drawn with replacement and all their images and studies come
along (cluster bootstrap, Field & Welsh 2007). A replicate in which a score is not defined (a class was not drawn) is
dropped and counted; where more than half of them are, or where there are fewer than five patients, no interval is
given and the estimate says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from sightline.errors import RunError, count_noun
from sightline.metrics.estimate import Estimate, FloatArray, Score
from sightline.metrics.predictions import Predictions, align

Kind = Literal["percentile", "BCa"]
FEWEST_PATIENTS = 5
FEWEST_OF_A_CLASS = 4
"""Patients of each class below which no interval and no test is given: they would rest on assumptions alone."""
CONFIDENCE = 0.95
_CELLS_AT_ONCE = 4_000_000  # weights of one call: 32 MB of float64


@dataclass(frozen=True)
class Interval:
    """Both ends of an interval or a reason for none, and how it was made."""

    low: float | None
    high: float | None
    method: str
    why: str = ""


@dataclass(frozen=True, eq=False)
class Resample:
    """How often each patient was drawn in each replicate.

    Attributes:
        counts: int [r, p], draws per replicate and patient; each row sums to p.
        patient: int [n], patient of each row of the table.
        seed: seed of the draws.
    """

    counts: NDArray[np.int32]
    patient: NDArray[np.int64]
    seed: int

    @classmethod
    def draw(cls, patient_ids: Sequence[str], replicates: int, seed: int) -> Resample:
        """Draw patients with replacement; the draws depend on the set of patients and the seed alone.

        Image-wise and study-wise tables of one cohort, and two methods, therefore share their replicates.

        Raises:
            RunError: fewer than one replicate.
        """
        if replicates < 1:
            raise RunError(f"A bootstrap needs at least one replicate; got {replicates}.", "Try 2000 replicates.")
        names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
        return cls(_draw_patients(names.size, replicates, seed), patient, seed)

    @classmethod
    def draw_once(cls, patient_ids: Sequence[str]) -> Resample:
        """Every patient once: the one "replicate" that gives the score itself."""
        names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
        return cls(np.ones((1, names.size), dtype=np.int32), patient, 0)

    @property
    def patients(self) -> int:
        """Number of patients."""
        return int(self.counts.shape[1])

    def values(self, score: Score, predictions: Predictions) -> FloatArray:
        """The score of every replicate [r], NaN where it is not defined."""
        return score_weighted(score, predictions, self.counts, self.patient)


@lru_cache(maxsize=4)
def _draw_patients(patients: int, replicates: int, seed: int) -> NDArray[np.int32]:
    """Draws per replicate and patient; every number of a report asks for the same ones."""
    draws = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), replicates)
    counts = draws.astype(np.int32)
    counts.setflags(write=False)
    return counts


def score_weighted(
    score: Score, predictions: Predictions, counts: NDArray[np.int32], patient: NDArray[np.int64]
) -> FloatArray:
    """The score under patient weights: counts [r, p], patient of each row [n] to values [r], a block at a time."""
    step = max(1, _CELLS_AT_ONCE // len(predictions))
    blocks = [
        score(predictions.labels, predictions.probabilities, counts[i : i + step, patient].astype(np.float64))
        for i in range(0, len(counts), step)
    ]
    return np.concatenate(blocks)


def score_point(score: Score, predictions: Predictions) -> float:
    """The score of the predictions as they are, NaN where it is not defined."""
    return float(score(predictions.labels, predictions.probabilities, np.ones((1, len(predictions))))[0])


def explain_undefined(predictions: Predictions) -> str:
    """Why a score has no value on these predictions."""
    present = set(predictions.labels.tolist())
    missing = [name for i, name in enumerate(predictions.classes) if i not in present]
    if missing:
        return f"not defined: no case of {', '.join(missing)}"
    return "not defined: the cases do not hold both sides that this score needs"


def bootstrap(
    score: Score,
    predictions: Predictions,
    *,
    replicates: int = 2000,
    seed: int = 0,
    kind: Kind = "percentile",
    n: Mapping[str, int] | None = None,
) -> Estimate:
    """A score with its 95% bootstrap interval over patients.

    Args:
        score: what to compute.
        predictions: image-wise, or study-wise after `Predictions.study_wise`.
        replicates: number of bootstrap samples.
        seed: of the draws.
        kind: `percentile`, or `BCa` (bias-corrected and accelerated, Efron 1987, acceleration by leaving out patients).
        n: counts to report, where they are known better than from the predictions.
    """
    resample = Resample.draw(predictions.patient_ids, replicates, seed)
    value = score_point(score, predictions)
    counted = dict(predictions.counts() if n is None else n)
    if math.isnan(value):
        return Estimate(score.name, None, n=counted, method="no interval", why=explain_undefined(predictions))
    left_out = None
    if kind == "BCa" and resample.patients >= FEWEST_PATIENTS:
        without = (1 - np.eye(resample.patients, dtype=np.int32)).astype(np.int32)
        left_out = score_weighted(score, predictions, without, resample.patient)
    found = compute_interval(value, resample.values(score, predictions), resample.patients, seed, left_out=left_out)
    return Estimate(score.name, value, found.low, found.high, counted, found.method, found.why)


def seed_bootstrap(
    runs: Sequence[Predictions],
    score: Score,
    *,
    replicates: int = 2000,
    seed: int = 0,
    n: Mapping[str, int] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """The mean score of several trainings of one method, with an interval over patients and trainings.

    Args:
        runs: predictions of the same cases, one a training seed.
        score: what to compute.
        replicates: number of bootstrap samples.
        seed: of the draws.
        n: counts to report beside the number of seeds.
        bounds: the smallest and the largest possible value; a Brier score of three or more classes may exceed 1.
    """
    aligned = align(runs)
    resample = Resample.draw(aligned[0].patient_ids, replicates, seed)
    counted = {**(aligned[0].counts() if n is None else n), "seeds": len(aligned)}
    value = float(np.mean([score_point(score, run) for run in aligned]))
    if math.isnan(value):
        return Estimate(score.name, None, n=counted, method="no interval", why=explain_undefined(aligned[0]))
    drawn = seed_replicates(
        np.stack([resample.values(score, run) for run in aligned]), np.random.default_rng([seed, 1])
    )
    # stretching the seeds' spread may leave the range of the score
    found = compute_interval(
        value, drawn.clip(*bounds), resample.patients, seed, what=describe_resampling(len(aligned))
    )
    return Estimate(score.name, value, found.low, found.high, counted, found.method, found.why)


def seed_replicates(values: FloatArray, random: np.random.Generator) -> FloatArray:
    """Mean over resampled seeds: values [s, r] of s trainings to [r].

    Drawing s seeds with replacement gives a mean whose variance is (s - 1) / s of what it should be, a third too little
    for three seeds; the drawn mean is therefore moved away from the plain mean by sqrt(s / (s - 1)).
    """
    s, replicates = values.shape
    mean: FloatArray = values.mean(axis=0)
    if s == 1:
        return mean
    share = random.multinomial(s, np.full(s, 1 / s), replicates).T / s
    drawn = (share * values).sum(axis=0)
    return np.asarray(mean + math.sqrt(s / (s - 1)) * (drawn - mean))


def describe_resampling(*counts: int) -> str:
    """What was resampled, in words."""
    if max(counts) == 1:
        return "patient bootstrap (one training: its chance is not in the interval)"
    return f"bootstrap over patients and {' and '.join(str(c) for c in counts)} seeds"


def compute_interval(
    value: float,
    replicate_values: FloatArray,
    patients: int,
    seed: int,
    *,
    left_out: FloatArray | None = None,
    what: str = "patient bootstrap",
) -> Interval:
    """The 95% interval from bootstrap values, or the reason why there is none.

    Args:
        value: the score itself.
        replicate_values: [r], NaN where not defined.
        patients: number of patients that were drawn from.
        seed: of the draws, for the method's words.
        left_out: scores without each patient in turn [p]; given, the interval is BCa.
        what: the method's words.
    """
    defined = replicate_values[np.isfinite(replicate_values)]
    undefined = replicate_values.size - defined.size
    method = f"{what}, {replicate_values.size} replicates, seed {seed}"
    method += f", {undefined} undefined" if undefined else ""
    why = ""
    if patients < FEWEST_PATIENTS:
        why = f"no interval: {count_noun(patients, 'patient')}, at least {FEWEST_PATIENTS} needed"
    elif 2 * undefined > replicate_values.size:
        why = f"no interval: {undefined} of {replicate_values.size} replicates lack a class"
    elif np.ptp(defined) <= 1e-12 * max(1.0, abs(value)):
        # 10 of 10 right is not 100% for certain; a bootstrap cannot see what never happened
        why = f"no interval: every resample of the {count_noun(patients, 'patient')} gives {value:.3f}"
    if why:
        return Interval(None, None, method, why)
    tails = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if left_out is not None:
        corrected = _correct_tails(value, defined, left_out, tails)
        if corrected is not None:
            tails, method = corrected, f"{method}, BCa"
        else:
            method = f"{method}, percentile (BCa not defined)"
    low, high = np.quantile(defined, tails)
    return Interval(float(low), float(high), method)


def _correct_tails(value: float, defined: FloatArray, left_out: FloatArray, tails: FloatArray) -> FloatArray | None:
    """Corrected tail levels (Efron 1987; Efron & Tibshirani 1993, eq. 14.10), ties counted half."""
    share = np.mean(defined < value) + np.mean(defined == value) / 2
    kept = left_out[np.isfinite(left_out)]
    if not 0.0 < share < 1.0 or kept.size < 2:
        return None
    influence = kept.mean() - kept
    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6.0 * spread**1.5) if spread > 0 else 0.0
    bias, z = ndtri(share), ndtri(tails)
    shifted = 1.0 - acceleration * (bias + z)
    if (shifted <= 0).any():
        return None
    return np.asarray(ndtr(bias + (bias + z) / shifted))
