"""Thresholds against every possible threshold, ratios against the textbook's formulas and simulated coverage."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_curve
from support.simulated import binormal, predictions_of

from sightline.errors import CohortError, RunError
from sightline.metrics.decision.operating_points import OperatingPoint, choose_point, compute_point_estimates


def rates(table, threshold):
    called, truth = table.probabilities[:, 1] >= threshold, table.labels == 1
    return called[truth].mean(), (~called[~truth]).mean()


def test_youden_is_the_best_of_sklearns_curve():
    for seed in range(20):
        table = binormal(np.random.default_rng(seed), 30, 70)
        point = choose_point(table, "youden")
        fpr, tpr, _ = roc_curve(table.labels, table.probabilities[:, 1])
        assert sum(rates(table, point.threshold)) - 1 == pytest.approx((tpr - fpr).max())


@pytest.mark.parametrize(("rule", "other"), [("sensitivity", 1), ("specificity", 0)])
@pytest.mark.parametrize("target", [0.8, 0.95, 1.0])
def test_stated_rates_are_reached_and_give_most_of_the_other(rule, other, target):
    for seed in range(10):
        table = binormal(np.random.default_rng(seed), 25, 40)
        point = choose_point(table, rule, target)
        found = rates(table, point.threshold)
        assert found[1 - other] >= target
        every = [rates(table, t) for t in [0.0, *table.probabilities[:, 1], 1.1]]
        assert found[other] == max(pair[other] for pair in every if pair[1 - other] >= target)
        assert point.chosen_on["sensitivity"] == found[0] and point.name == f"{rule} {target:g}"


def test_thresholds_lie_between_neighbours_and_come_back_from_json():
    table = predictions_of([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9])
    point = choose_point(table, "youden")
    assert point.threshold == pytest.approx(0.4)
    assert OperatingPoint.from_dict(point.to_dict()) == point
    with pytest.raises(RunError, match="no saved"):
        OperatingPoint.from_dict({"threshold": 0.2})


def test_ratios_and_predictive_values_are_the_textbooks():
    # TP 45, FN 5, FP 20, TN 80, one case a patient
    labels = [1] * 50 + [0] * 100
    said = [0.9] * 45 + [0.1] * 5 + [0.9] * 20 + [0.1] * 80
    point = OperatingPoint("fracture", 0.5, "stated", 0.5)
    estimates = compute_point_estimates(predictions_of(labels, said), point, prevalences=(0.1,))
    found = {e.name.partition(", at ")[0].partition(" at stated")[0].rstrip(): e for e in estimates}
    plus, minus = found["positive likelihood ratio"], found["negative likelihood ratio"]
    assert (plus.value, minus.value) == (pytest.approx(0.9 / 0.2), pytest.approx(0.1 / 0.8))
    # Simel 1991: var log LR+ = (1 - sens) / TP + spec / FP; G / (G - 1) and t add a little
    wide = math.log(plus.high / plus.low) / 2 / math.sqrt(0.1 / 45 + 0.8 / 20)
    assert wide == pytest.approx(norm.ppf(0.975), rel=0.04)
    wide = math.log(minus.high / minus.low) / 2 / math.sqrt(0.9 / 5 + 0.2 / 80)
    assert wide == pytest.approx(norm.ppf(0.975), rel=0.04)
    assert found["PPV at prevalence 0.1 as stated"].value == pytest.approx(0.09 / (0.09 + 0.18))
    assert found["NPV at prevalence 0.1 as stated"].value == pytest.approx(0.72 / (0.72 + 0.01))
    assert found["PPV at prevalence 0.333 of these cases"].value == pytest.approx(45 / 65)
    assert found["sensitivity"].value == pytest.approx(0.9)


def test_copies_of_images_of_a_patient_change_nothing():
    table = binormal(np.random.default_rng(3), 40, 60)
    twice = predictions_of(
        np.repeat(table.labels, 2), np.repeat(table.probabilities[:, 1], 2), np.repeat(np.arange(100), 2)
    )
    point = OperatingPoint("fracture", 0.5, "stated", 0.5)
    for one, two in zip(
        compute_point_estimates(table, point)[2:], compute_point_estimates(twice, point)[2:], strict=True
    ):
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))


def test_intervals_of_ratios_hold_the_truth():
    random, held = np.random.default_rng(4), np.zeros(4)
    point = OperatingPoint("fracture", 0.5, "stated", 0.5)
    sensitivity = specificity = norm.cdf(0.75)
    prevalence = 1 / 3
    truths = [sensitivity / (1 - specificity), (1 - sensitivity) / specificity]
    truths += [1 / (1 + (1 - specificity) * (1 - prevalence) / (sensitivity * prevalence))]
    truths += [1 / (1 + (1 - sensitivity) * prevalence / (specificity * (1 - prevalence)))]
    for _ in range(300):
        found = compute_point_estimates(binormal(random, 50, 100), point)[2:6]
        held += [e.low <= truth <= e.high for e, truth in zip(found, truths, strict=True)]
    assert (held >= 273).all(), held  # 95% of 300 less three standard errors


def test_empty_cells_and_few_patients_say_why():
    point = OperatingPoint("fracture", 0.5, "stated", 0.5)
    none = compute_point_estimates(predictions_of([1] * 10 + [0] * 10, [0.9] * 10 + [0.1] * 10), point)
    assert none[2].value is None and "empty" in none[2].why
    few = compute_point_estimates(predictions_of([1, 1, 0, 0], [0.9, 0.1, 0.9, 0.1]), point)
    assert few[2].value == 1.0 and few[2].low is None and "2 patients" in few[2].why


def test_impossible_choices_are_refused():
    table = binormal(np.random.default_rng(0))
    with pytest.raises(RunError, match="needs a number"):
        choose_point(table, "sensitivity")
    with pytest.raises(CohortError, match="No operating point"):
        choose_point(predictions_of([0] * 5, [0.2] * 5), "youden")
    with pytest.raises(RunError, match="prevalence"):
        compute_point_estimates(table, choose_point(table, "youden"), prevalences=(1.5,))
