"""The promised rate of misses, by the definition and over simulated sites."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom
from support.simulated import binormal, predictions_of

from sightline.errors import CohortError, RunError
from sightline.metrics.decision.abstention import choose_abstention, compute_abstention_estimates
from sightline.metrics.decision.conformal import (
    choose_miss_rate_point,
    choose_risk_threshold,
    estimate_misses,
    fit_prediction_sets,
)
from sightline.metrics.predictions import Predictions


def test_threshold_is_the_largest_that_keeps_the_promise():
    random = np.random.default_rng(0)
    for _ in range(50):
        n, alpha = int(random.integers(20, 60)), float(random.uniform(0.05, 0.4))
        scores = random.choice(np.linspace(0, 1, 21), n)
        found = choose_risk_threshold(scores, np.ones(n), n, alpha)
        # Angelopoulos et al. 2022, eq. 4, over every threshold that makes a difference
        kept = [t for t in np.unique(scores) if ((scores < t).sum() + 1) / (n + 1) <= alpha]
        assert found == (max(kept) if kept else None)


@pytest.mark.parametrize("studies", [1, 2])
def test_the_promise_holds_over_sites(studies):
    """1,000 sites: own calibration, own new patient each; misses within the binomial band of the promise."""
    random, missed, sites, alpha = np.random.default_rng(1), 0, 1000, 0.1
    for _ in range(sites):
        positives, negatives = 30 * studies, 30
        labels = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
        patient = np.r_[np.repeat(np.arange(30), studies), 1000 + np.arange(negatives)]
        hard = random.normal(size=2000)[patient]
        table = predictions_of(labels, expit(labels + 0.7 * hard + 0.7 * random.normal(size=labels.size)), patient)
        point = choose_miss_rate_point(table, alpha)
        missed += expit(1 + 0.7 * random.normal() + 0.7 * random.normal()) < point.threshold
    assert missed <= binom.ppf(0.999, sites, alpha)
    # it is no empty promise: at most 1 / (n + 1) below
    assert missed >= binom.ppf(0.001, sites, alpha - 1 / 31)


def test_too_few_patients_are_told_how_many_are_needed():
    with pytest.raises(CohortError, match=r"10 patients with fracture, 19 needed"):
        choose_miss_rate_point(binormal(np.random.default_rng(0), 10, 50), 0.05)
    assert choose_miss_rate_point(binormal(np.random.default_rng(0), 19, 50), 0.05).target == 0.05
    with pytest.raises(RunError, match="between 0 and 1"):
        choose_miss_rate_point(binormal(np.random.default_rng(0)), 0.0)


def test_misses_of_all_studies_depend_on_the_prevalence():
    random = np.random.default_rng(2)
    rare = binormal(random, 10, 190)
    common = binormal(random, 100, 100)
    assert (
        choose_miss_rate_point(rare, 0.05, of="all").threshold
        > choose_miss_rate_point(common, 0.05, of="all").threshold
    )


def test_views_are_put_together_before_the_promise():
    labels, said = [1] * 60 + [0] * 20, np.r_[np.tile([0.2, 0.8], 30), np.full(20, 0.1)]
    studies = np.r_[np.repeat(np.arange(30), 2), 100 + np.arange(20)]
    point = choose_miss_rate_point(predictions_of(labels, said, studies, studies), 0.1)
    assert point.threshold == pytest.approx(0.5)
    found = estimate_misses(predictions_of(labels, said, studies, studies), point)
    assert found.value == 0.0 and found.high == pytest.approx(1 - 0.025 ** (1 / 30))


def test_sets_hold_the_class_as_often_as_promised():
    random, held, sites, alpha = np.random.default_rng(3), np.zeros(2), 600, 0.1
    for _ in range(sites):
        z = random.normal(size=(61, 3)) * 1.5
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        labels = np.array([random.choice(3, p=row) for row in p])
        names = tuple(str(i) for i in range(60))
        table = Predictions(("a", "b", "c"), names, names, names, labels[:60], p[:60])
        held[0] += fit_prediction_sets(table, alpha).members(p[60:])[0, labels[60]]
        held[1] += fit_prediction_sets(table, 0.2, by_class=True).members(p[60:])[0, labels[60]]
    assert binom.ppf(0.001, sites, 0.9) <= held[0] <= binom.ppf(0.999, sites, 0.9 + 1 / 61)
    assert held[1] >= binom.ppf(0.001, sites, 0.8)


def test_sets_are_counted():
    table = binormal(np.random.default_rng(5), 60, 60, separation=2.5)
    found = fit_prediction_sets(table, 0.1).estimates(table)
    assert 0.88 <= found[0].value <= 1.0 and found[1].value <= 2.0
    # of these patients; others would give another
    assert found[0].low < found[0].value < found[0].high and found[0].n["patients"] == 120
    kept = choose_abstention(table, 0.8, "top")
    answered, *_ = compute_abstention_estimates(table, kept)
    assert answered.low < answered.value < answered.high and answered.method.startswith("fixed on validation, score")
    with pytest.raises(CohortError, match="patients of normal"):
        fit_prediction_sets(binormal(np.random.default_rng(6), 60, 5), 0.1, by_class=True)
