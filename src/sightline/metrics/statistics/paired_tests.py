"""Do two methods differ? The test that tables quote: patients are swapped, trainings are drawn.

If two methods are alike, every patient might as well have been given the results of the one for those of the other. So
all results of a patient change sides at random, and the difference is computed again: an exact test for new patients
(Fisher 1935), also with four positive ones. A method that was trained once more would have given another difference
too. What trainings add beyond the noise of single cases is estimated from the trainings of both methods together, and
a draw of it, Student's with one degree of freedom a training less two, is added to every swap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from sightline.metrics.estimate import BoolArray, Comparison, FloatArray, IntArray
from sightline.metrics.statistics.bootstrap import CONFIDENCE
from sightline.metrics.statistics.patient_variance import Spread

Swap = Callable[[BoolArray], FloatArray]
"""Whether each patient changes sides, bool [r, p], to the difference of the methods' means over trainings [r]."""


@dataclass(frozen=True)
class Draws:
    """How many swaps, and their seed."""

    swaps: int = 2000
    seed: int = 0


def run_swap_test(
    name: str,
    swap: Swap,
    spreads: tuple[Spread, Spread],
    patients: int,
    counts: dict[str, int],
    draws: Draws | None = None,
) -> Comparison:
    """The difference of method a from method b, its interval and two-sided p-value, over patients and trainings.

    The interval is the difference plus and minus the reach that 95% of the swaps keep within: it excludes zero where
    p is below 0.05. p = (1 + swaps at least as far from 0) / (1 + swaps).

    Args:
        name: what is compared.
        swap: the difference under swaps; none swapped gives the difference itself.
        spreads: of method a and of method b, on the same patients.
        patients: number of patients.
        counts: images, studies, patients.
        draws: number of swaps and their seed.
    """
    how = draws or Draws()
    a, b = spreads
    n = {**counts, "seeds_a": a.trainings, "seeds_b": b.trainings}
    flips, state = _draw_flips(how.seed, how.swaps, patients)
    random = np.random.default_rng(how.seed)
    random.bit_generator.state = state
    swapped = swap(flips)
    error, freedom = estimate_training_error(a, b)
    if freedom and error > 0:
        swapped = swapped + error * random.standard_t(freedom, how.swaps)
    difference = a.value - b.value
    slack = 1e-12 * max(1.0, abs(difference))
    if np.abs(swapped - difference).max(initial=0.0) <= slack and abs(difference) <= slack:
        # alike on these patients is not alike on all: a margin must not be met by a width of nothing
        why = "no interval: both methods give every patient the same"
        return Comparison(name, a.value, b.value, difference, p_value=1.0, n=n, method="swapped patients", why=why)
    # a mixture without a needed side (nothing is called so) has no score: it is as far as can be
    distance = np.where(np.isfinite(swapped), np.abs(swapped), np.inf)
    p_value = float((1 + (distance >= abs(difference) - slack).sum()) / (1 + how.swaps))
    # as many swaps lie beyond the reach as p below 0.05 allows, so that the interval and p say the same
    allowed = math.ceil((1.0 - CONFIDENCE) * (1 + how.swaps) - 1e-9) - 2
    reach = float(np.sort(distance)[::-1][allowed]) if allowed >= 0 else float(distance.max())
    if allowed < 0 or abs(reach - abs(difference)) <= slack:
        reach = max(reach, abs(difference))
    method = f"swapped patients, {how.swaps} swaps, seed {how.seed}"
    if freedom:
        method += f", and {a.trainings} and {b.trainings} seeds (t, {freedom} df)"
    else:
        method += " (one training each: its chance is not in the interval)"
    if not math.isfinite(reach):
        why = "no test: more than one mixture in twenty has no score"
        return Comparison(name, a.value, b.value, difference, n=n, method="no test", why=why)
    return Comparison(name, a.value, b.value, difference, difference - reach, difference + reach, p_value, n, method)


@lru_cache(maxsize=2)
def _draw_flips(seed: int, swaps: int, patients: int) -> tuple[BoolArray, Any]:
    """Whether each patient changes sides in each swap, bool [r, p], and the generator's state after it.

    Every number of a table asks for the same.
    """
    random = np.random.default_rng(seed)
    flips = random.integers(0, 2, (swaps, patients)).astype(bool)
    flips.setflags(write=False)
    return flips, random.bit_generator.state


def estimate_training_error(a: Spread, b: Spread) -> tuple[float, int]:
    """Standard error of the difference that trainings add beyond single cases, and its degrees of freedom.

    The variance over trainings is pooled. What single cases do to it is in the swaps already and is taken off, a little
    more of it where few patients tell how much it is.

    Args:
        a: of one method.
        b: of the other.

    Returns:
        Error and degrees of freedom; 0 degrees where neither method was trained twice.
    """
    freedom = a.trainings + b.trainings - 2
    if not freedom:
        return 0.0, 0
    pooled = sum(each.training * (each.trainings - 1) for each in (a, b)) / freedom
    # one training cannot tell what differs from training to training
    several = [each for each in (a, b) if each.trainings > 1]
    noise = float(np.mean([each.noise for each in several]))
    fewest = min(each.patients for each in several)
    excess = max(0.0, pooled - noise * (1.0 + 4.0 / fewest))
    # an excess that is cut off at zero is too large on average where it is a small part of the whole
    excess *= math.sqrt(excess / pooled) if excess > 0 else 0.0
    return math.sqrt(excess * (1.0 / a.trainings + 1.0 / b.trainings)), freedom


def build_linear_swap(influence: FloatArray) -> Swap:
    """Swaps of a number that is a sum over patients, from what each adds to the difference [p]."""
    return lambda flips: np.asarray((1.0 - 2.0 * flips) @ influence)


def build_auc_swap(scores_a: FloatArray, scores_b: FloatArray, truth: BoolArray, patient: IntArray) -> Swap:
    """Swaps of the difference of two mean AUCs: exact, and a sum over patients.

    A swap of patients makes each pair of a positive and a negative row one of four: both by a, both by b, or one by
    each. Their sum is linear in the signs of the two patients, so that a patient adds the share of the rows of the
    other kind, of both methods, that his rows are above (positive) or below (negative) by a, less the same by b.
    Scores are standardised within each training, which leaves its AUC as it is and makes two trainings comparable;
    probabilities should come as logits.

    Args:
        scores_a: [s, n], each training of method a.
        scores_b: [t, n], each training of method b.
        truth: [n], whether the row is positive.
        patient: [n], number of the row's patient.
    """
    size = int(patient.max()) + 1
    influence = np.zeros(size)
    of_a, of_b = ([standardise(each) for each in method] for method in (scores_a, scores_b))
    pairs = pair_trainings(len(of_a), len(of_b))
    for i, j in pairs:
        for side, sign in ((truth, 1.0), (~truth, -1.0)):
            others = np.concatenate([of_a[i][~side], of_b[j][~side]])
            gain = sign * (_compute_share_below(of_a[i][side], others) - _compute_share_below(of_b[j][side], others))
            influence += np.bincount(patient[side], weights=gain, minlength=size) / side.sum()
    return build_linear_swap(influence / len(pairs))


def pair_trainings(trainings_a: int, trainings_b: int) -> list[tuple[int, int]]:
    """Trainings of a and b that swap with each other: in order where there are as many, else each with each."""
    if trainings_a == trainings_b:
        return [(i, i) for i in range(trainings_a)]
    return [(i, j) for i in range(trainings_a) for j in range(trainings_b)]


def standardise(scores: FloatArray) -> FloatArray:
    """Scores with mean 0 and standard deviation 1 over the first axis; all 0 where they do not vary."""
    spread = scores.std(axis=0)
    return np.asarray((scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _compute_share_below(values: FloatArray, others: FloatArray) -> FloatArray:
    """Share of the others that each value exceeds, equal ones half: [m], [k] to [m]."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return np.asarray(below / (2.0 * others.size))
