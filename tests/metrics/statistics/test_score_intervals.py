"""Score intervals of shares and means against Wilson's formula, statsmodels' known values and the truth."""

import numpy as np
import pytest
from scipy import stats

from sightline.metrics.statistics.comparison import average_resampled
from sightline.metrics.statistics.patient_variance import Spread, estimate_spread, leave_out_counts
from sightline.metrics.statistics.score_intervals import (
    build_share_model,
    compute_mean_interval,
    compute_proportion_interval,
    compute_score_interval,
)


def wilson(hits, n, z):
    p = hits / n
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def test_many_patients_of_one_row_have_wilsons_interval():
    hits = np.arange(4000) < 3400
    assert compute_proportion_interval(hits, np.arange(4000)) == pytest.approx(
        stats.binomtest(3400, 4000).proportion_ci(method="wilson"), abs=3e-4
    )


def test_all_right_has_wilsons_interval_with_students_reach():
    # nothing was observed to vary: the model's variance alone, with its 12 degrees of freedom
    low, high = compute_proportion_interval(np.ones(20, dtype=bool), np.arange(20))
    assert high == 1.0
    assert low == pytest.approx(wilson(20, 20, stats.t.ppf(0.975, 12))[0], abs=1e-3)
    none = compute_proportion_interval(np.zeros(20, dtype=bool), np.arange(20))
    assert none == pytest.approx((0.0, 1.0 - low), abs=1e-9)


def test_copies_of_a_row_are_no_evidence():
    hits = np.random.default_rng(0).random(400) < 0.8
    single = compute_proportion_interval(hits, np.arange(400))
    copied = compute_proportion_interval(np.repeat(hits, 4), np.repeat(np.arange(400), 4))
    apart = compute_proportion_interval(np.repeat(hits, 4), np.arange(1600))
    assert copied == pytest.approx(single, abs=0.003)
    assert apart[1] - apart[0] < 0.55 * (single[1] - single[0])


def test_leaving_out_patients_gives_the_variance_of_a_clustered_mean():
    random = np.random.default_rng(1)
    patient = np.repeat(np.arange(30), random.integers(1, 5, 30))
    values = random.random(patient.size)
    found = estimate_spread([average_resampled(values)], [f"p{i:02d}" for i in patient])
    sums = np.bincount(patient, weights=values - values.mean())
    assert found.patient == pytest.approx((sums**2).sum() / patient.size**2, rel=0.08)  # the linearised variance
    jackknife = [values[patient != p].mean() for p in range(30)]
    assert found.patient == pytest.approx(29 / 30 * ((jackknife - np.mean(jackknife)) ** 2).sum(), rel=1e-12)


def test_groups_are_left_out_of_very_many_patients():
    counts = leave_out_counts(2500)
    assert counts.shape == (1000, 2500) and (2500 - counts.sum(axis=1) <= 3).all()
    assert (counts.sum(axis=0) == 999).all()


def test_a_number_that_needs_one_patient_has_no_spread():
    alone = average_resampled(np.array([1.0, np.nan, 0.0]))
    assert estimate_spread([alone], ["a", "b", "c"]) is None


def test_trainings_widen_the_interval_by_what_they_differ():
    alike = Spread(0.8, 4e-4, 3e-4, 1e-4, 3, 30.0, 30)
    apart = Spread(0.8, 4e-4, 3e-4, 2e-2, 3, 30.0, 30)
    for ends in (lambda s: compute_score_interval(s, build_share_model(s), model_freedom=0.0), compute_mean_interval):
        narrow, wide = ends(alike), ends(apart)
        assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])
    # noise of single cases is never taken for less than it is, though three trainings may agree by chance
    lucky = Spread(0.8, 4e-4, 3e-4, 0.0, 3, 30.0, 30)
    assert compute_mean_interval(lucky) == compute_mean_interval(Spread(0.8, 4e-4, 3e-4, 1e-4, 3, 30.0, 30))


def test_students_interval_of_a_mean_equals_scipys():
    values = np.random.default_rng(4).normal(3.0, 2.0, 25)
    spread = estimate_spread([average_resampled(values)], [str(i) for i in range(25)])
    expected = stats.t.interval(0.95, 24, values.mean(), stats.sem(values))
    assert compute_mean_interval(spread) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("patients", "share"), [(10, 0.8), (20, 0.95), (50, 0.5)])
def test_the_interval_holds_the_truth(patients, share):
    random, held = np.random.default_rng(patients), 0
    for _ in range(400):
        patient = np.repeat(np.arange(patients), random.integers(1, 5, patients))
        shared = np.sqrt(0.4) * random.standard_normal(patients)[patient]
        noise = shared + np.sqrt(0.6) * random.standard_normal(patient.size)
        low, high = compute_proportion_interval(noise < stats.norm.ppf(share), patient)
        held += low <= share <= high
    assert 0.925 <= held / 400 <= 0.99
