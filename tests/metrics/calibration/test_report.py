"""Slope and intercept against statsmodels' regressions and simulated coverage."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from support.simulated import drawn, predictions_of

from sightline.metrics.calibration.report import (
    compute_calibration_curve,
    compute_calibration_estimates,
    find_largest_gap,
)
from sightline.metrics.calibration.scaling import scale_logits
from sightline.metrics.predictions import Predictions


@pytest.mark.parametrize("images", [1, 3])
def test_slope_and_intercept_are_statsmodels(images):
    api = pytest.importorskip("statsmodels.api")
    table = drawn(np.random.default_rng(0), 150, images, slope=1.4, intercept=0.3, shared=0.8)
    odds, y = logit(table.probabilities[:, 1]), table.labels
    groups = np.unique(table.patient_ids, return_inverse=True)[1]
    many = groups.max() + 1
    clustered = {"cov_type": "cluster", "cov_kwds": {"groups": groups, "use_correction": False}}
    theirs = api.GLM(y, np.c_[np.ones_like(odds), odds], family=api.families.Binomial()).fit(**clustered)
    held = api.GLM(y, np.ones((len(y), 1)), family=api.families.Binomial(), offset=odds).fit(**clustered)
    slope, intercept, _ = compute_calibration_estimates(table)
    assert slope.value == pytest.approx(theirs.params[1], rel=1e-7)
    assert intercept.value == pytest.approx(held.params[0], rel=1e-7, abs=1e-9)
    from scipy.stats import t

    ids = np.asarray(table.patient_ids)
    smaller = min(len(set(ids[y == k])) for k in (0, 1))
    for ours, error in ((slope, theirs.bse[1]), (intercept, held.bse[0])):
        width = 2 * t.ppf(0.975, smaller - 1) * error * np.sqrt(many / (many - 1))
        assert ours.high - ours.low == pytest.approx(width, rel=1e-6)


def test_intervals_hold_the_truth():
    random, held, studies = np.random.default_rng(1), [0, 0, 0], 400
    for _ in range(studies):
        estimates = compute_calibration_estimates(drawn(random, 150, slope=1.0, intercept=0.0))
        for i, (estimate, truth) in enumerate(zip(estimates, (1.0, 0.0, 0.0), strict=True)):
            held[i] += estimate.low <= truth <= estimate.high
    # 95% of 400: from 363 to 393 in 997 of 1000 tries
    assert all(363 <= k <= 395 for k in held), held


def test_several_classes_each_against_the_rest_and_one_slope():
    random = np.random.default_rng(2)
    z = random.normal(size=(2000, 3)) * 2
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    labels = np.array([random.choice(3, p=row) for row in p])
    said = p**1.6 / (p**1.6).sum(1, keepdims=True)  # overconfident by a temperature of 1.6
    names = tuple(str(i) for i in range(2000))
    found = compute_calibration_estimates(Predictions(("a", "b", "c"), names, names, names, labels, said))
    assert len(found) == 10
    assert found[-1].value == pytest.approx(1 / 1.6, abs=0.05)
    assert found[-1].low < 1 / 1.6 < found[-1].high
    assert all(e.value < 0.9 for e in found if e.name.startswith("calibration slope"))


def three_classes(seed=4, n=300):
    """Logits that tell three classes apart, and the classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    return random.normal(size=(n, 3)) + np.eye(3)[labels], labels


@pytest.mark.parametrize("flatness", [1.0, 0.002])
def test_the_slope_of_all_classes_is_found_however_flat_the_probabilities_are(flatness):
    z, labels = three_classes()
    names = tuple(str(i) for i in range(len(labels)))

    def find(p):
        return compute_calibration_estimates(Predictions(("a", "b", "c"), names, names, names, labels, p))[-1]

    sharp, flat = find(softmax(z, axis=1)), find(softmax(flatness * z, axis=1))
    assert [flat.value, flat.low, flat.high] == pytest.approx(
        [value / flatness for value in (sharp.value, sharp.low, sharp.high)], rel=1e-6
    )
    everything_alike = find(np.full((len(labels), 3), 1 / 3))
    assert everything_alike.value is None and "all classes have the same probability" in everything_alike.why
    sure = find(np.eye(3)[labels])
    assert sure.value is None and "part the classes" in sure.why


def test_the_slope_of_independent_classes_is_on_their_log_odds():
    z, labels = three_classes()
    names = tuple(str(i) for i in range(len(labels)))
    p = expit(2.0 * z - 2.0)
    table = Predictions(("a", "b", "c"), names, names, names, labels, p, independent=True)
    slope = compute_calibration_estimates(table)[-1]
    assert slope.low < slope.value < slope.high

    def loss(factor):
        said = scale_logits(p, factor, True)
        truth = labels[:, None] == np.arange(3)
        return -np.log(np.where(truth, said, 1.0 - said)).sum()

    assert loss(slope.value) < min(loss(slope.value - 0.01), loss(slope.value + 0.01))


def test_undefined_slopes_say_why():
    flat = compute_calibration_estimates(predictions_of([0, 1] * 20, np.full(40, 0.3)))
    assert flat[0].value is None and "same probability" in flat[0].why
    parted = compute_calibration_estimates(
        predictions_of([0] * 20 + [1] * 20, np.r_[np.full(20, 0.1), np.full(20, 0.9)])
    )
    assert parted[0].value is None and "completely" in parted[0].why
    one = compute_calibration_estimates(predictions_of([0] * 20, np.linspace(0.1, 0.9, 20)))
    assert one[0].value is None and one[2].value == pytest.approx(0.5)


def test_curve_groups_are_whole_and_equal_probabilities_stay_together():
    random = np.random.default_rng(3)
    said = random.choice([0.1, 0.2, 0.7], 300, p=[0.6, 0.3, 0.1])
    table = predictions_of((random.random(300) < said).astype(int), said)
    curve = compute_calibration_curve(table)
    assert sorted(round(point.said, 3) for point in curve) == [0.1, 0.2, 0.7]
    for point in curve:
        inside = said == point.lowest
        assert point.observed.value == pytest.approx(table.labels[inside].mean())
        assert point.observed.low <= point.observed.value <= point.observed.high
    gap = find_largest_gap(curve)
    assert abs(gap.value) == pytest.approx(max(abs(p.observed.value - p.said) for p in curve))
