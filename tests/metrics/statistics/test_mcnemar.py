"""McNemar against statsmodels, and over patients by simulation."""

import numpy as np
import pytest
from scipy.special import expit
from support.simulated import binormal, predictions_of

from sightline.errors import RunError
from sightline.metrics.estimate import Comparison
from sightline.metrics.statistics.mcnemar import mark_right_calls, mcnemar
from sightline.metrics.statistics.noninferiority import assess_noninferiority


def other(random, table, noise=1.0):
    odds = np.log(table.probabilities[:, 1] / table.probabilities[:, 0])
    patient = [name[1:] for name in table.patient_ids]
    return predictions_of(table.labels, expit(odds + noise * random.normal(size=len(odds))), patient)


def test_exact_p_is_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    random = np.random.default_rng(0)
    a = binormal(random, 60, 90)
    b = other(random, a)
    found = mcnemar(a, b)
    right_a, right_b = mark_right_calls(a), mark_right_calls(b)
    four = [[(right_a & right_b).sum(), (right_a & ~right_b).sum()], [(~right_a & right_b).sum(), 0]]
    assert found.p_value == pytest.approx(tables.mcnemar(np.array(four), exact=True).pvalue)
    assert found.difference == pytest.approx(right_a.mean() - right_b.mean())
    se = np.std(right_a.astype(float) - right_b, ddof=1) / np.sqrt(150)
    assert found.high - found.low == pytest.approx(2 * 1.976 * se, rel=1e-3)


def test_sensitivity_and_thresholds():
    random = np.random.default_rng(1)
    a = binormal(random, 60, 90)
    b = other(random, a)
    found = mcnemar(a, b, thresholds=(0.3, 0.6), among="fracture")
    truth = a.labels == 1
    assert found.value_a == pytest.approx((a.probabilities[truth, 1] >= 0.3).mean())
    assert found.value_b == pytest.approx((b.probabilities[truth, 1] >= 0.6).mean())
    assert found.n["cases"] == 60
    with pytest.raises(RunError, match="No case"):
        mcnemar(predictions_of([0] * 5, [0.1] * 5), predictions_of([0] * 5, [0.2] * 5), among="fracture")


def test_p_over_patients_says_that_it_weighs_them_alike():
    # one study of a patient with one, and one of a patient with three: as many cases, not as much of a patient
    patient, labels = ["a", "b", "b", "b", *"cdef"], [1] * 8
    one, two = (predictions_of(labels, [*p, 0.9, 0.9, *[0.9] * 4], patient) for p in ((0.9, 0.1), (0.1, 0.9)))
    found = mcnemar(one, two)
    assert found.difference == 0.0 and found.p_value is not None and found.p_value < 0.6
    assert "p weighs patients alike" in found.method


def test_patients_with_several_images_raise_few_false_alarms():
    random, alarms, plain = np.random.default_rng(2), 0, 0
    for _ in range(300):
        # a patient's four images are seen alike by each method
        labels = np.repeat(random.integers(0, 2, 40), 4)
        patient = np.repeat(np.arange(40), 4)
        tables = [predictions_of(labels, expit(labels - 0.5 + np.repeat(random.normal(size=40), 4)), patient)
                  for _ in range(2)]  # fmt: skip
        p = mcnemar(*tables).p_value
        alarms += p is not None and p < 0.05
        single = [predictions_of(labels, t.probabilities[:, 1]) for t in tables]
        p = mcnemar(*single).p_value
        plain += p is not None and p < 0.05
    assert alarms / 300 < 0.09 < plain / 300


def test_agreement_gives_no_p():
    a = binormal(np.random.default_rng(3))
    found = mcnemar(a, a)
    assert found.p_value is None and "same cases" in found.why


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.05, "superior"), (-0.03, 0.05, "non-inferior"), (-0.2, -0.06, "inferior"), (-0.06, 0.02, "not shown")],
)
def test_verdicts_follow_the_interval(low, high, verdict):
    found = assess_noninferiority(Comparison("AUC", 0.8, 0.8, (low + high) / 2, low, high, 0.5), 0.05)
    assert found.verdict == verdict
    assert (found.p_value < 0.025) == (low > -0.05)


def test_a_margin_has_to_be_stated():
    comparison = Comparison("AUC", 0.8, 0.8, 0.0, -0.1, 0.1, 1.0)
    with pytest.raises(RunError, match="above 0"):
        assess_noninferiority(comparison, 0.0)
    none = assess_noninferiority(Comparison("AUC", 0.8, 0.8, 0.0, why="no p: few patients"), 0.05)
    assert none.verdict == "not shown" and none.p_value is None
