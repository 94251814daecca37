"""The test by swapped patients: exact swaps, known small cases, false alarms, and agreement of interval and p."""

import numpy as np
import pytest
from scipy.stats import norm

from sightline.metrics.classification.scores import compute_auc
from sightline.metrics.statistics.auc_intervals import compute_auc_spread
from sightline.metrics.statistics.noninferiority import assess_noninferiority
from sightline.metrics.statistics.paired_tests import (
    Draws,
    build_auc_swap,
    build_linear_swap,
    estimate_training_error,
    pair_trainings,
    run_swap_test,
    standardise,
)
from sightline.metrics.statistics.patient_variance import Spread


def methods(random, patients=40, positives=8, trainings=1, skill=0.0, auc=0.8):
    patient = np.repeat(np.arange(patients), random.integers(1, 5, patients))
    truth = (np.arange(patients) < positives)[patient]
    shared = np.sqrt(0.4) * random.standard_normal(patients)[patient]
    made = []
    for _ in range(2):
        case = random.standard_normal(patient.size)
        noise = np.sqrt(0.6) * case + np.sqrt(0.4) * random.standard_normal((trainings, patient.size))
        d = np.sqrt(2) * norm.ppf(auc) + skill * random.standard_normal((trainings, 1))
        made.append(d * truth + shared + np.sqrt(0.6) * noise)
    return made[0], made[1], truth, patient


def compared(a, b, truth, patient, seed=0, swaps=999):
    spreads = compute_auc_spread(a, truth, patient), compute_auc_spread(b, truth, patient)
    return run_swap_test(
        "AUC", build_auc_swap(a, b, truth, patient), spreads, patient.max() + 1, {}, Draws(swaps, seed)
    )


def test_the_swap_of_an_auc_is_a_sum_over_patients_to_the_last_digit():
    random = np.random.default_rng(0)
    a, b, truth, patient = methods(random, trainings=2)
    flips = random.random((20, 40)) < 0.5
    found = build_auc_swap(a, b, truth, patient)(flips)
    for i, flip in enumerate(flips[:, patient]):
        slow = []
        for x, y in zip(a, b, strict=True):
            x, y = standardise(x), standardise(y)
            ones = np.ones((1, truth.size))
            one, other = np.where(flip, y, x), np.where(flip, x, y)
            slow.append(compute_auc(one, truth, ones)[0] - compute_auc(other, truth, ones)[0])
        assert found[i] == pytest.approx(np.mean(slow), abs=1e-12)


def test_five_patients_who_all_agree_reach_one_in_sixteen():
    # 2 of 2^5 sign patterns are as far from zero as the data: the exact sign test
    spread = Spread(0.7, 1e-3, 1e-3, 0.0, 1, 5.0, 5), Spread(0.5, 1e-3, 1e-3, 0.0, 1, 5.0, 5)
    found = run_swap_test("x", build_linear_swap(np.full(5, 0.04)), spread, 5, {}, Draws(20_000))
    assert found.p_value == pytest.approx(2 / 32, abs=0.005)
    assert found.low <= 0 <= found.high


def test_interval_and_p_always_say_the_same():
    random = np.random.default_rng(1)
    for seed in range(60):
        a, b, truth, patient = methods(random, skill=0.6, trainings=1 + seed % 3)
        found = compared(a, b, truth, patient, seed, swaps=199)
        assert (found.low > 0 or found.high < 0) == (found.p_value < 0.05), found


def test_perfect_against_worst_has_a_p_where_delong_has_none():
    truth, patient = np.arange(20) >= 10, np.arange(20)
    a = np.arange(20.0)[None]
    found = compared(a, -a, truth, patient)
    assert found.difference == 1.0 and found.p_value == pytest.approx(0.001)


def test_a_method_against_itself_differs_by_nothing():
    a, _, truth, patient = methods(np.random.default_rng(2), trainings=3)
    found = compared(a, a, truth, patient)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, None, None, 1.0)
    assert found.why == "no interval: both methods give every patient the same"
    # a margin must not be met by an interval without a width
    assert assess_noninferiority(found, 0.05).verdict == "not shown"


def test_what_trainings_add_is_pooled_and_free_of_the_cases_noise():
    a, b = Spread(0.8, 5e-4, 3e-4, 9e-4, 3, 30.0, 400), Spread(0.8, 5e-4, 3e-4, 5e-4, 3, 30.0, 400)
    error, freedom = estimate_training_error(a, b)
    excess = 7e-4 - 2e-4 * 1.01
    assert freedom == 4
    assert error == pytest.approx(np.sqrt(excess * np.sqrt(excess / 7e-4) * 2 / 3))
    quiet = Spread(0.8, 5e-4, 3e-4, 1e-4, 3, 30.0, 400)
    assert estimate_training_error(quiet, quiet) == (0.0, 4)
    one = Spread(0.8, 5e-4, 5e-4, 0.0, 1, 30.0, 400)
    assert estimate_training_error(one, one) == (0.0, 0)
    assert estimate_training_error(a, one)[1] == 2


def test_unequal_numbers_of_trainings_swap_each_with_each():
    assert pair_trainings(2, 2) == [(0, 0), (1, 1)]
    assert pair_trainings(1, 3) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("positives", "trainings", "skill"),
    [(4, 1, 0.0), pytest.param(20, 3, 0.15, marks=pytest.mark.slow), pytest.param(20, 2, 0.4, marks=pytest.mark.slow)],
)
def test_false_alarms_stay_near_one_in_twenty(positives, trainings, skill):
    random = np.random.default_rng([positives, trainings])
    alarms = 0
    for seed in range(300):
        alarms += compared(*methods(random, 40, positives, trainings, skill), seed, swaps=399).p_value < 0.05
    assert 0.01 <= alarms / 300 <= 0.09  # 300 trials of 5% have a standard deviation of 1.3%
