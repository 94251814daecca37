"""Numbers of a table that are computed under weights of its patients: one value, its interval, several trainings, and
the difference of two methods. Maps and boxes share this; class probabilities have `intervals` and `comparison`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sightline.measure.classification import FloatArray
from sightline.measure.comparison import paired_values
from sightline.measure.estimate import Comparison, Estimate
from sightline.measure.intervals import Resample, interval, seed_replicates, seeds_text

Resampled = Callable[[Resample], FloatArray]
"""A number of one table: patients drawn in r replicates to values [r], NaN where it is not defined."""


def mean_of(values: FloatArray) -> Resampled:
    """The mean over rows [n] in every replicate: sums per patient are enough."""

    def mean(resample: Resample) -> FloatArray:
        total = np.bincount(resample.patient, weights=values, minlength=resample.patients)
        rows = np.bincount(resample.patient, minlength=resample.patients)
        return np.asarray((resample.counts @ total) / (resample.counts @ rows))

    return mean


def over_patients(
    name: str,
    number: Resampled,
    patient_ids: Sequence[str],
    counts: Mapping[str, int],
    *,
    replicates: int,
    seed: int,
    what: str = "",
    undefined: str = "not defined on these cases",
) -> Estimate:
    """A number of one training with its interval over patients.

    Args:
        name: what it is called.
        number: of the table whose rows have `patient_ids`.
        patient_ids: one a row.
        counts: what was counted.
        replicates: number of bootstrap samples.
        seed: of the draws.
        what: how the number was made, in words, before the words on the interval.
        undefined: what to say where it is not defined.
    """
    value = float(number(Resample.once(patient_ids))[0])
    if math.isnan(value):
        return Estimate(name, None, n=counts, method="no interval", why=undefined)
    resample = Resample.of(patient_ids, replicates, seed)
    found = interval(value, number(resample), resample.patients, seed)
    return Estimate(name, value, found.low, found.high, counts, _joined(what, found.method), found.why)


def over_seeds(
    name: str,
    numbers: Sequence[Resampled],
    patient_ids: Sequence[str],
    counts: Mapping[str, int],
    *,
    replicates: int,
    seed: int,
    what: str = "",
    undefined: str = "not defined on these cases",
    smallest: float = 0.0,
    largest: float = 1.0,
) -> Estimate:
    """The mean of a number over several trainings, with an interval over patients and trainings.

    Args as in `over_patients`, and:
        numbers: one a training, of tables with the same rows.
        smallest: the smallest possible value.
        largest: the largest possible value.
    """
    n = {**counts, "seeds": len(numbers)}
    once = Resample.once(patient_ids)
    value = float(np.mean([number(once)[0] for number in numbers]))
    if math.isnan(value):
        return Estimate(name, None, n=n, method="no interval", why=undefined)
    resample = Resample.of(patient_ids, replicates, seed)
    drawn = seed_replicates(np.stack([number(resample) for number in numbers]), np.random.default_rng([seed, 1]))
    # stretching the seeds' spread may leave the range of the scores
    found = interval(value, drawn.clip(smallest, largest), resample.patients, seed, what=seeds_text(len(numbers)))
    return Estimate(name, value, found.low, found.high, n, _joined(what, found.method), found.why)


def difference(
    name: str,
    numbers_a: Sequence[Resampled],
    numbers_b: Sequence[Resampled],
    patient_ids: Sequence[str],
    counts: Mapping[str, int],
    *,
    replicates: int,
    seed: int,
    undefined: str = "not defined on these cases",
) -> Comparison:
    """The difference of a number between two methods over the same rows, over patients and trainings."""
    numbers = [*numbers_a, *numbers_b]
    once, resample = Resample.once(patient_ids), Resample.of(patient_ids, replicates, seed)
    points = np.array([number(once)[0] for number in numbers])
    drawn = np.stack([number(resample) for number in numbers])
    return paired_values(name, points, drawn, len(numbers_a), resample, dict(counts), undefined)


def _joined(what: str, method: str) -> str:
    return f"{what}, {method}" if what else method
