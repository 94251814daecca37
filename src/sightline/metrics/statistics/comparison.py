"""Is method a better than method b? Tests over seeds (as the papers do), over patients, and over both.

A difference is always a minus b; p-values are two-sided; several p-values read together go through `holm` first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from sightline.errors import RunError, count_noun
from sightline.metrics.estimate import BoolArray, Comparison, Estimate, FloatArray, IntArray, Score
from sightline.metrics.predictions import Predictions, align
from sightline.metrics.statistics.bootstrap import (
    CONFIDENCE,
    FEWEST_PATIENTS,
    Resample,
    compute_interval,
    describe_resampling,
    explain_undefined,
    score_point,
    seed_replicates,
)
from sightline.metrics.statistics.paired_tests import Draws, Swap, build_linear_swap, pair_trainings, run_swap_test
from sightline.metrics.statistics.patient_variance import estimate_spread
from sightline.metrics.statistics.score_intervals import (
    build_proportion_model,
    build_share_model,
    compute_mean_interval,
    compute_score_interval,
)

WELCH = "Welch's t over seeds (two-sided, unpaired, ddof 1)"


def welch(a_values: Sequence[float], b_values: Sequence[float], *, name: str = "score") -> Comparison:
    """Welch's t-test over the results of single trainings, as Liao 2022 compares its rows.

    It asks whether more trainings on *these* test patients would differ; it knows nothing of other patients.

    Args:
        a_values: one result a seed of method a.
        b_values: one result a seed of method b; the numbers of seeds may differ.
        name: what is compared.

    Raises:
        RunError: no values, or values that are not finite.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a_values, b_values))
    for values in (a, b):
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise RunError(f"Welch's test of {name!r} needs finite numbers of each method; got {values.tolist()}.")
    spread = [float(values.std(ddof=1)) if values.size > 1 else 0.0 for values in (a, b)]
    return welch_from_summary(float(a.mean()), spread[0], a.size, float(b.mean()), spread[1], b.size, name=name)


def welch_from_summary(
    mean_a: float, std_a: float, n_a: int, mean_b: float, std_b: float, n_b: int, *, name: str = "score"
) -> Comparison:
    """Welch's t-test from printed means and standard deviations (ddof 1) over n seeds (Welch 1947).

    Where a method has one seed, or no result varies over seeds, there is no p-value and `why` says so.

    Raises:
        RunError: numbers that are not finite, a negative spread, fewer than one seed.
    """
    if not all(math.isfinite(x) for x in (mean_a, std_a, mean_b, std_b)) or min(std_a, std_b) < 0 or min(n_a, n_b) < 1:
        raise RunError(
            f"Welch's test of {name!r} needs finite means, spreads of at least 0 and at least one seed; got "
            f"{mean_a} ± {std_a} (n = {n_a}) and {mean_b} ± {std_b} (n = {n_b})."
        )
    n = {"seeds_a": n_a, "seeds_b": n_b}
    difference = mean_a - mean_b
    why = ""
    # equal results give a spread of some rounding error, which is no spread
    negligible = 1e-12 * max(abs(mean_a), abs(mean_b), 1e-300)
    if min(n_a, n_b) < 2:
        why = f"no p: {min(n_a, n_b)} seed says nothing about the spread over seeds"
    elif max(std_a, std_b) <= negligible:
        why = "no p: no result varies over seeds"
    if why:
        return Comparison(name, mean_a, mean_b, difference, n=n, method=WELCH, why=why)
    share_a, share_b = std_a**2 / n_a, std_b**2 / n_b
    error = math.sqrt(share_a + share_b)
    # scipy's ttest_ind_from_stats gives no interval and no degrees of freedom: tests hold this against its p-value;
    # in shares of the whole, so that tiny spreads do not underflow
    weight_a, weight_b = share_a / error**2, share_b / error**2
    freedom = 1.0 / (weight_a**2 / (n_a - 1) + weight_b**2 / (n_b - 1))
    p_value = float(2.0 * student.sf(abs(difference) / error, freedom))
    reach = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Comparison(name, mean_a, mean_b, difference, difference - reach, difference + reach, p_value, n, WELCH)


def paired_bootstrap(
    predictions_a_per_seed: Sequence[Predictions],
    predictions_b_per_seed: Sequence[Predictions],
    metric: Score,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """The difference between two methods with its interval and p-value over patients and trainings.

    In each replicate patients are drawn with replacement, the same for both methods, and trainings are drawn within
    each method. The result is the difference of the mean score over trainings, its percentile interval, and
    p = 2 min(share of replicates <= 0, share >= 0) with one added to counts (Davison & Hinkley 1997, eq. 4.11).

    Args:
        predictions_a_per_seed: one table a training of method a; image-wise or study-wise.
        predictions_b_per_seed: the same cases by method b; the numbers of seeds may differ.
        metric: the score to compare.
        replicates: number of bootstrap samples.
        seed: of the draws.

    Raises:
        RunError: the tables are not over the same cases.
    """
    runs = align([*predictions_a_per_seed, *predictions_b_per_seed])
    split = _require_both(predictions_a_per_seed, predictions_b_per_seed)
    points = np.array([score_point(metric, run) for run in runs])
    resample = Resample.draw(runs[0].patient_ids, replicates, seed)
    drawn = np.stack([resample.values(metric, run) for run in runs])
    undefined = explain_undefined(runs[0])
    return compare_paired_values(metric.name, points, drawn, split, resample, runs[0].counts(), undefined)


def compare_paired_values(
    name: str,
    points: FloatArray,
    drawn: FloatArray,
    split: int,
    resample: Resample,
    counts: dict[str, int],
    undefined: str,
) -> Comparison:
    """The comparison from the score of every training and of every patient resample of it.

    Args:
        name: what is compared.
        points: [s], score of each training, method a first.
        drawn: [s, r], the same per replicate; NaN where not defined.
        split: number of trainings of method a.
        resample: the patients drawn.
        counts: images, studies, patients.
        undefined: what to say where a score is not defined.
    """
    seeds_a, seeds_b = split, len(points) - split
    n = {**counts, "seeds_a": seeds_a, "seeds_b": seeds_b}
    value_a, value_b = float(points[:split].mean()), float(points[split:].mean())
    if not math.isfinite(value_a + value_b):
        return Comparison(name, None, None, None, n=n, method="no test", why=undefined)
    random = np.random.default_rng([resample.seed, 1])
    differences = seed_replicates(drawn[:split], random) - seed_replicates(drawn[split:], random)
    what = describe_resampling(seeds_a, seeds_b).replace("patient bootstrap", "paired patient bootstrap")
    what = what if what.startswith("paired") else f"paired {what}"
    difference = value_a - value_b
    found = compute_interval(difference, differences, resample.patients, resample.seed, what=what)
    defined = differences[np.isfinite(differences)]
    enough = resample.patients >= FEWEST_PATIENTS and 2 * defined.size >= differences.size
    p_value = _compute_two_sided_p(defined) if enough else None
    return Comparison(name, value_a, value_b, difference, found.low, found.high, p_value, n, found.method, found.why)


def paired_permutation(
    predictions_a_per_seed: Sequence[Predictions],
    predictions_b_per_seed: Sequence[Predictions],
    metric: Score,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Permutation test: if the methods were the same, swapping them on any patient would change nothing.

    All rows of a patient are swapped together, in all trainings at once; trainings are paired in the order given. It
    tests these trained networks on new patients, not new trainings, and gives no interval. A rank score (AUC) of mixed
    predictions also notices that the methods use different scales of probability.

    Raises:
        RunError: the tables are not over the same cases, or the numbers of seeds differ.
    """
    split = _require_both(predictions_a_per_seed, predictions_b_per_seed)
    runs = align([*predictions_a_per_seed, *predictions_b_per_seed])
    if len(runs) != 2 * split:
        raise RunError(
            f"A permutation test swaps trainings in pairs; got {split} of method a and {len(runs) - split} of b.",
            "Give the same number of seeds, or use paired_bootstrap.",
        )
    n = {**runs[0].counts(), "seeds_a": split, "seeds_b": split}
    points = np.array([score_point(metric, run) for run in runs])
    if not np.isfinite(points).all():
        return Comparison(metric.name, None, None, None, n=n, method="no test", why=explain_undefined(runs[0]))
    value_a, value_b = float(points[:split].mean()), float(points[split:].mean())
    patient = np.unique(np.asarray(runs[0].patient_ids), return_inverse=True)[1]
    flips = np.random.default_rng(seed).integers(0, 2, (replicates, patient.max() + 1))
    differences = np.zeros(replicates)
    for a, b in zip(runs[:split], runs[split:], strict=True):
        # both tables stacked: weight 1 picks the row of a or of b, so one call scores all mixtures
        labels = np.concatenate([a.labels, b.labels])
        probabilities = np.concatenate([a.probabilities, b.probabilities])
        step = max(1, 2_000_000 // len(labels))
        for i in range(0, replicates, step):
            swap = flips[i : i + step, patient].astype(np.float64)
            mixed = metric(labels, probabilities, np.concatenate([1 - swap, swap], axis=1))
            other = metric(labels, probabilities, np.concatenate([swap, 1 - swap], axis=1))
            differences[i : i + step] += (mixed - other) / split
    as_large = np.abs(differences) >= abs(value_a - value_b) - 1e-12
    p_value = float((1 + as_large.sum()) / (1 + replicates))
    method = f"paired permutation over patients, {replicates} swaps, seed {seed}"
    return Comparison(metric.name, value_a, value_b, value_a - value_b, p_value=p_value, n=n, method=method)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for reading them all (Holm 1979), in the order given; None stays None and is not counted.

    Raises:
        RunError: a p-value that is no number from 0 to 1.
    """
    given = [(p, i) for i, p in enumerate(p_values) if p is not None]
    if any(not 0.0 <= p <= 1.0 for p, _ in given):
        raise RunError(f"Holm's correction needs p-values from 0 to 1; got {list(p_values)}.")
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(sorted(given)):
        largest = max(largest, min(1.0, p * (len(given) - rank)))
        corrected[i] = largest
    return corrected


def _compute_two_sided_p(differences: FloatArray) -> float:
    """Twice the smaller tail beyond zero, never zero, at most one."""
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2.0 * (1 + tail) / (1 + differences.size)))


def _require_both(a: Sequence[Predictions], b: Sequence[Predictions]) -> int:
    if not a or not b:
        raise RunError(f"A comparison needs predictions of both methods; got {len(a)} and {len(b)} runs.")
    return len(a)


Resampled = Callable[[Resample], FloatArray]
"""A number of one table: patients drawn in r replicates to values [r], NaN where it is not defined."""

Mixed = Callable[[int, int], Resampled]
"""A number of the tables of training i of method a and j of b put below each other, b's patients numbered after a's."""


@dataclass(frozen=True, eq=False)
class RowMean:
    """The mean over rows, under draws of their patients: sums per patient are enough.

    Attributes:
        values: [n], one a row.
    """

    values: FloatArray

    def __call__(self, resample: Resample) -> FloatArray:
        """The mean of every replicate [r]."""
        total = np.bincount(resample.patient, weights=self.values, minlength=resample.patients)
        rows = np.bincount(resample.patient, minlength=resample.patients)
        with np.errstate(invalid="ignore"):
            # a replicate without any of these rows has no mean, and is left out by whoever asks
            return np.asarray((resample.counts @ total) / (resample.counts @ rows))

    @property
    def counts_hits(self) -> bool:
        """Whether rows are hits and misses; ties for a maximum may give some of them a share."""
        return bool(((self.values == 0.0) | (self.values == 1.0)).mean() >= 0.9) and bool(
            ((self.values >= 0.0) & (self.values <= 1.0)).all()
        )


def average_resampled(values: FloatArray) -> Resampled:
    """The mean over rows [n] in every replicate."""
    return RowMean(values)


def estimate_over_patients(
    name: str,
    number: Resampled,
    patient_ids: Sequence[str],
    counts: Mapping[str, int],
    *,
    what: str = "",
    undefined: str = "not defined on these cases",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """A number of one training with its interval over patients; arguments as in `estimate_over_seeds`."""
    found = estimate_over_seeds(name, [number], patient_ids, counts, what=what, undefined=undefined, bounds=bounds)
    return replace(found, n=dict(counts))


def estimate_over_seeds(
    name: str,
    numbers: Sequence[Resampled],
    patient_ids: Sequence[str],
    counts: Mapping[str, int],
    *,
    what: str = "",
    undefined: str = "not defined on these cases",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """The mean of a number over several trainings, with an interval over patients and trainings.

    From 0 to 1 the interval is a score interval (`score_intervals`), of hits with a binomial variance as its model;
    another number has Student's, both with the variance from leaving out patients.

    Args:
        name: what it is called.
        numbers: one a training, of tables with the same rows, which have `patient_ids`.
        patient_ids: one a row.
        counts: what was counted.
        what: how the number was made, in words, before the words on the interval.
        undefined: what to say where it is not defined.
        bounds: the smallest and the largest possible value.
    """
    n = {**counts, "seeds": len(numbers)}
    value = float(np.mean([number(Resample.draw_once(patient_ids))[0] for number in numbers]))
    if math.isnan(value):
        return Estimate(name, None, n=n, method="no interval", why=undefined)
    low, high, method = _compute_interval(numbers, patient_ids, value, bounds)
    if low is None or high is None:
        return Estimate(name, value, n=n, method=", ".join(filter(None, (what, "no interval"))), why=method)
    method += f", over patients and {len(numbers)} seeds" if len(numbers) > 1 else ", over patients (one training)"
    return Estimate(name, value, low, high, n, ", ".join(filter(None, (what, method))))


def _compute_interval(
    numbers: Sequence[Resampled], patient_ids: Sequence[str], value: float, bounds: tuple[float, float]
) -> tuple[float | None, float | None, str]:
    """Both ends and the method, or no end and why."""
    patients = len(set(patient_ids))
    if patients < FEWEST_PATIENTS:
        return None, None, f"no interval: {count_noun(patients, 'patient')}, at least {FEWEST_PATIENTS} needed"
    spread = estimate_spread(numbers, patient_ids)
    if spread is None:
        return None, None, "no interval: not defined without some patient"
    if bounds == (0.0, 1.0) and all(isinstance(number, RowMean) and number.counts_hits for number in numbers):
        rows = np.unique(np.asarray(patient_ids, dtype=str), return_counts=True)[1].astype(np.float64)
        ends = compute_score_interval(spread, build_proportion_model(rows))
        return *ends, "score interval of a share (Wilson, clustered by patient)"
    if spread.patient <= 1e-24 * max(1.0, value**2):
        return None, None, f"no interval: leaving out any of the {count_noun(patients, 'patient')} gives {value:.3f}"
    if bounds == (0.0, 1.0) and 0.0 < value < 1.0:
        ends = compute_score_interval(spread, build_share_model(spread), model_freedom=0.0)
        return *ends, "score interval, variance from leaving out patients"
    low, high = compute_mean_interval(spread)
    return max(low, min(bounds[0], value)), min(high, max(bounds[1], value)), "t interval from leaving out patients"


def compare_resampled(
    name: str,
    numbers_a: Sequence[Resampled],
    numbers_b: Sequence[Resampled],
    patient_ids: Sequence[str],
    counts: Mapping[str, int],
    *,
    draws: Draws | None = None,
    undefined: str = "not defined on these cases",
    mixed: Mixed | None = None,
) -> Comparison:
    """The difference of a number between two methods over the same rows, over patients and trainings (`run_swap_test`).

    Args:
        name: what is compared.
        numbers_a: one a training of method a.
        numbers_b: one a training of method b.
        patient_ids: of the rows, the same in all tables.
        counts: what was counted.
        draws: number of swaps and their seed.
        undefined: what to say where the number is not defined.
        mixed: the number of two tables at once; needed where it is no mean over rows.
    """
    numbers, split = [*numbers_a, *numbers_b], len(numbers_a)
    once = Resample.draw_once(patient_ids)
    points = np.array([number(once)[0] for number in numbers])
    n = {**counts, "seeds_a": split, "seeds_b": len(numbers) - split}
    if not np.isfinite(points).all():
        return Comparison(name, None, None, None, n=n, method="no test", why=undefined)
    value_a, value_b = float(points[:split].mean()), float(points[split:].mean())
    patients = once.patients
    spreads = estimate_spread(numbers_a, patient_ids), estimate_spread(numbers_b, patient_ids)
    few = f"no test: {count_noun(patients, 'patient')}, at least {FEWEST_PATIENTS} needed"
    why = few if patients < FEWEST_PATIENTS else ""
    if why or spreads[0] is None or spreads[1] is None:
        why = why or "no test: not defined without some patient"
        return Comparison(name, value_a, value_b, value_a - value_b, n=n, method="no test", why=why)
    swap = _build_swap(numbers_a, numbers_b, once.patient, patients, mixed)
    return run_swap_test(name, swap, (spreads[0], spreads[1]), patients, dict(counts), draws)


def _build_swap(
    numbers_a: Sequence[Resampled],
    numbers_b: Sequence[Resampled],
    patient: IntArray,
    patients: int,
    mixed: Mixed | None,
) -> Swap:
    rows_a = [number.values for number in numbers_a if isinstance(number, RowMean)]
    rows_b = [number.values for number in numbers_b if isinstance(number, RowMean)]
    if len(rows_a) == len(numbers_a) and len(rows_b) == len(numbers_b):
        gain = np.mean(rows_a, axis=0) - np.mean(rows_b, axis=0)
        return build_linear_swap(np.bincount(patient, weights=gain, minlength=patients) / gain.size)
    if mixed is None:
        raise RunError("A number that is no mean over rows needs `mixed` to be compared.")
    pairs = [mixed(i, j) for i, j in pair_trainings(len(numbers_a), len(numbers_b))]
    place = np.concatenate([patient, patient + patients])

    def swap_trainings(flips: BoolArray) -> FloatArray:
        turned = flips.astype(np.int32)
        first = Resample(np.concatenate([1 - turned, turned], axis=1), place, 0)
        second = Resample(np.concatenate([turned, 1 - turned], axis=1), place, 0)
        return np.mean([number(first) - number(second) for number in pairs], axis=0, dtype=np.float64)

    return swap_trainings
