"""The interval of an AUC against pROC, a slow restatement of its model, and the truth."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from sightline.metrics.classification.scores import compute_auc
from sightline.metrics.statistics.auc_intervals import (
    compute_auc_interval,
    compute_auc_spread,
    estimate_patient_correlation,
    fit_binormal_model,
)


def cohort(random, patients=40, positives=8, auc=0.8, images=(1, 5), trainings=1, within=0.4):
    patient = np.repeat(np.arange(patients), random.integers(*images, patients))
    truth = (np.arange(patients) < positives)[patient]
    shared = np.sqrt(within) * random.standard_normal(patients)[patient]
    noise = np.sqrt(1 - within) * random.standard_normal((trainings, patient.size))
    return np.sqrt(2) * norm.ppf(auc) * truth + shared + noise, truth, patient


def test_variance_and_covariance_equal_obuchowskis_by_loops():
    random = np.random.default_rng(0)
    scores, truth, patient = cohort(random, trainings=2)
    truth = random.random(truth.size) < 0.4  # patients with rows of both kinds, too
    psi = [(x[truth][:, None] > x[~truth][None]) + 0.5 * (x[truth][:, None] == x[~truth][None]) for x in scores]
    m, n = truth.sum(), (~truth).sum()
    off_10 = np.zeros((2, 40))
    off_01 = np.zeros((2, 40))
    for t in range(2):
        for i, p in enumerate(patient[truth]):
            off_10[t, p] += psi[t][i].mean() - psi[t].mean()
        for j, p in enumerate(patient[~truth]):
            off_01[t, p] += psi[t][:, j].mean() - psi[t].mean()
    k10, k01 = len(set(patient[truth])), len(set(patient[~truth]))

    def covariance(s, t):
        s10 = k10 / ((k10 - 1) * m) * (off_10[s] * off_10[t]).sum()
        s01 = k01 / ((k01 - 1) * n) * (off_01[s] * off_01[t]).sum()
        s11 = 40 / 39 * (off_10[s] * off_01[t] + off_01[s] * off_10[t]).sum()
        return s10 / m + s01 / n + s11 / (m * n)

    found = compute_auc_spread(scores, truth, patient)
    assert found.value == pytest.approx(np.mean([p.mean() for p in psi]))
    assert found.patient == pytest.approx((covariance(0, 0) + covariance(1, 1)) / 2, rel=1e-12)
    assert found.shared == pytest.approx(covariance(0, 1), rel=1e-12)
    assert found.training == pytest.approx(np.var([p.mean() for p in psi], ddof=1), rel=1e-12)
    assert found.patients == min(k10, k01)


def test_the_models_variance_equals_a_sum_over_pairs_of_pairs():
    random = np.random.default_rng(3)
    scores, truth, patient = cohort(random, patients=7, positives=3, images=(1, 4))
    correlation = estimate_patient_correlation(scores[0], truth, patient)
    area = 0.85
    positive, negative, total = patient[truth], patient[~truth], 0.0
    same = lambda ids, i, j: 1.0 if i == j else correlation if ids[i] == ids[j] else 0.0  # noqa: E731
    for i in range(positive.size):
        for k in range(positive.size):
            for j in range(negative.size):
                for q in range(negative.size):
                    r = (same(positive, i, k) + same(negative, j, q)) / 2
                    at = [norm.ppf(area)] * 2
                    both = area if r == 1.0 else multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf(at)
                    total += both - area**2
    slow = total / (positive.size * negative.size) ** 2
    assert fit_binormal_model(scores, truth, patient)(np.array([area]))[0] == pytest.approx(slow, rel=1e-4)


def test_one_row_a_patient_is_near_hanley_mcneils_variance_and_the_simulated_one():
    random = np.random.default_rng(1)
    areas = []
    for _ in range(1500):
        scores, truth, patient = cohort(random, 60, 20, 0.85, images=(1, 2), within=0.0)
        areas.append(compute_auc(scores[0], truth, np.ones((1, 60)))[0])
    assert estimate_patient_correlation(scores[0], truth, patient) == 0.0
    found = fit_binormal_model(scores, truth, patient)(np.array([0.85]))[0]
    assert found == pytest.approx(np.var(areas), rel=0.1)


def test_the_correlation_of_a_patients_rows_is_found():
    random = np.random.default_rng(2)
    for within in (0.0, 0.4, 0.9):
        found = [estimate_patient_correlation(c[0][0], *c[1:]) for c in (cohort(random, 100, 30, within=within)
                                                               for _ in range(40))]  # fmt: skip
        assert np.mean(found) == pytest.approx(within, abs=0.05)


def test_an_auc_of_one_has_a_lower_end_that_more_patients_raise():
    few, many = (
        compute_auc_interval(np.arange(2.0 * n)[None], np.arange(2 * n) >= n, np.arange(2 * n)) for n in (5, 50)
    )
    assert few[1] == many[1] == 1.0
    assert 0.5 < few[0] < 0.8 < 0.95 < many[0] < 1.0
    worst = compute_auc_interval(-np.arange(10.0)[None], np.arange(10) >= 5, np.arange(10))
    assert worst == pytest.approx((0.0, 1.0 - few[0]), abs=1e-6)


def test_large_samples_agree_with_delongs_interval():
    scores, truth, patient = cohort(np.random.default_rng(5), 2000, 800, 0.8, images=(1, 2), within=0.0)
    spread = compute_auc_spread(scores, truth, patient)
    low, high = compute_auc_interval(scores, truth, patient)
    reach = 1.96 * np.sqrt(spread.patient)
    assert (low, high) == pytest.approx((spread.value - reach, spread.value + reach), abs=0.002)


@pytest.mark.parametrize(
    ("positives", "auc", "trainings"),
    [pytest.param(4, 0.9, 1, marks=pytest.mark.slow), (4, 0.98, 3), pytest.param(20, 0.9, 3, marks=pytest.mark.slow)],
)
def test_the_interval_holds_the_truth(positives, auc, trainings):
    random = np.random.default_rng([positives, trainings])
    held = 0
    for _ in range(300):
        low, high = compute_auc_interval(*cohort(random, 40, positives, auc, trainings=trainings))
        held += low <= auc <= high
    assert 0.915 <= held / 300 <= 0.99  # 300 simulations of 95% have a standard deviation of 1.3%
