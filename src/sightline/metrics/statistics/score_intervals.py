"""95% intervals that hold the truth: the values that the data do not contradict, the variance taken at each of them.

A score interval (Wilson 1927) asks of every possible value whether the observed one lies within reach of it. The
variance is the one that *that* value would have, so that a row without an error (accuracy 1, AUC 1) has an interval
too, nothing leaves the range, and the interval leans to the side where the truth is. Three things are put together:

* a model says how the variance depends on the value (binomial with a design effect, or binormal for an AUC);
* the variance observed between patients scales it. Where it rests on few patients it is mixed with the model's own in
  proportion to how many patients carry it, because a variance that rests on three patients is itself a guess;
* trainings add their variance, which is never taken to be smaller than what single cases do to it.

The reach is Student's, with the degrees of freedom of the two parts together (Satterthwaite 1946).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import t as student

from sightline.metrics.estimate import BoolArray, FloatArray, IntArray
from sightline.metrics.statistics.bootstrap import CONFIDENCE
from sightline.metrics.statistics.patient_variance import Spread

Model = Callable[[FloatArray], FloatArray]
"""Possible values [g] to the variance over patients that one training would have there [g]."""

MODEL_FREEDOM = 12.0
"""How many patients' worth of variance the model's own stands for."""
_GRID = ndtr(np.linspace(-5.5, 5.5, 1101))


def compute_score_interval(
    spread: Spread, model: Model, *, model_freedom: float = MODEL_FREEDOM
) -> tuple[float, float]:
    """The 95% interval of a number from 0 to 1.

    Args:
        spread: what is known of its variance.
        model: how its variance depends on its value.
        model_freedom: weight of the model's own variance; 0 takes the shape of the model alone.

    Returns:
        Both ends, from 0 to 1.
    """
    margin = 1.0 / (4.0 * (spread.patients + 1))
    near = np.array([min(max(spread.value, margin), 1.0 - margin)])
    expected = float(model(near)[0])
    seen = max(spread.informative - 1.0, 0.0) if model_freedom else max(spread.patients - 1.0, 1.0)
    scale = (seen * spread.patient / expected + model_freedom) / (seen + model_freedom)
    freedom = seen + model_freedom
    one_training = scale * model(_GRID)
    over_patients = spread.share * one_training
    total, freedoms = over_patients, np.full(_GRID.shape, freedom)
    if spread.trainings > 1:
        # equal shifts of the probit are equal amounts of learning: less is left to gain near 0 and 1
        slope = np.exp(ndtri(near[0]) ** 2 - ndtri(_GRID) ** 2)
        least = (1.0 - spread.share) * one_training
        over_trainings = np.maximum(spread.training * slope, least) / spread.trainings
        total = over_patients + over_trainings
        freedoms = total**2 / (over_patients**2 / freedom + over_trainings**2 / (spread.trainings - 1))
    reach = np.asarray(student.ppf((1 + CONFIDENCE) / 2, freedoms)) * np.sqrt(total)
    return _find_ends(spread.value, np.abs(spread.value - _GRID) - reach)


def _find_ends(value: float, beyond: FloatArray) -> tuple[float, float]:
    """The ends of the values around the observed one that are not beyond reach, between the grid's points."""
    inside = np.flatnonzero(beyond <= 0)
    if not inside.size:
        # a variance of almost nothing: the interval is narrower than the grid
        return value, value
    first, last = int(inside[0]), int(inside[-1])
    low = 0.0 if first == 0 else _interpolate_crossing(first - 1, beyond)
    high = 1.0 if last == len(_GRID) - 1 else _interpolate_crossing(last, beyond)
    return min(low, value), max(high, value)


def _interpolate_crossing(i: int, beyond: FloatArray) -> float:
    share = beyond[i] / (beyond[i] - beyond[i + 1])
    return float(_GRID[i] + share * (_GRID[i + 1] - _GRID[i]))


def compute_proportion_interval(hits: BoolArray, patient: IntArray) -> tuple[float, float]:
    """The 95% interval of the share of rows that are hits, rows of a patient kept together.

    Args:
        hits: [n].
        patient: [n], number of the row's patient; at least two.

    Example:
        >>> import numpy as np
        >>> low, high = compute_proportion_interval(np.ones(10, bool), np.arange(10))
        >>> bool(0.6 < low < 0.8), high
        (True, 1.0)
    """
    of_patient = np.unique(patient, return_inverse=True)[1]
    rows = np.bincount(of_patient).astype(np.float64)
    value = float(hits.mean())
    influence = (np.bincount(of_patient, weights=hits) - value * rows) / rows.sum()
    variance = rows.size / (rows.size - 1) * float((influence**2).sum())
    spread = Spread.from_points(np.array([value]), np.array([[variance]]), influence, rows.size)
    return compute_score_interval(spread, build_proportion_model(rows))


def build_proportion_model(rows_of_patients: FloatArray) -> Model:
    """The variance of a share of yes and no among rows that come in groups of a patient.

    The design effect of rows of a patient that all say the same is sum m^2 / sum m of m rows a patient (Kish 1965). A
    fifth of the way to it is assumed where too few patients differ to tell.

    Args:
        rows_of_patients: [p], number of rows of each patient.
    """
    rows = float(rows_of_patients.sum())
    largest = float((rows_of_patients**2).sum()) / rows
    effect = 1.0 + 0.2 * (largest - 1.0)
    return lambda values: effect * values * (1.0 - values) / rows


def build_share_model(spread: Spread) -> Model:
    """The variance of a mean of amounts from 0 to 1, in the shape of a proportion's and as large as observed."""
    value = spread.value
    size = spread.patient / (value * (1.0 - value))
    return lambda values: size * values * (1.0 - values)


def compute_mean_interval(spread: Spread) -> tuple[float, float]:
    """The 95% interval of a number without bounds: the mean plus and minus Student's reach."""
    over_trainings, freedom = 0.0, max(spread.patients - 1.0, 1.0)
    if spread.trainings > 1:
        over_trainings = max(spread.training, spread.noise) / spread.trainings
    total = spread.shared + over_trainings
    if total <= 0:
        return spread.value, spread.value
    if over_trainings > 0:
        freedom = total**2 / (spread.shared**2 / freedom + over_trainings**2 / (spread.trainings - 1))
    reach = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return spread.value - reach, spread.value + reach
