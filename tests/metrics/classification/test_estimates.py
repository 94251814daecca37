"""Scores with their intervals and the test that tables quote: kinds of scores, too few patients, known values."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from sightline.metrics.classification.estimates import (
    compare_scores,
    count_patients_of_classes,
    estimate_score,
    explain_too_few,
    simulate_perfect_calibration,
)
from sightline.metrics.classification.report import compute_classification_report, list_standard_scores
from sightline.metrics.classification.scores import (
    AUC,
    F1,
    Accuracy,
    BalancedAccuracy,
    Brier,
    CalibrationError,
    Precision,
    Sensitivity,
)
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import bootstrap
from sightline.metrics.statistics.comparison import paired_permutation
from sightline.metrics.statistics.delong import delong


def run(seed=0, patients=30, positives=10, skill=1.0, classes=("none", "fracture")):
    layout, random = np.random.default_rng(99), np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), layout.integers(1, 5, patients))
    labels = (np.arange(patients) < positives)[patient].astype(int)
    p = norm.cdf(
        skill * (2 * labels - 1) + 0.6 * layout.normal(size=patients)[patient] + random.normal(size=labels.size)
    )
    ids = [f"p{i:03d}" for i in patient]
    return Predictions(classes, tuple(f"c{i}" for i in range(labels.size)), ids, ids, labels, np.stack([1 - p, p], 1))


def test_every_standard_score_has_an_interval_about_its_own_value():
    runs = [run(seed) for seed in range(3)]
    for score in list_standard_scores(("none", "fracture"), 1):
        for chosen in (runs[:1], runs):
            found = estimate_score(chosen, score)
            assert found.value == pytest.approx(np.mean([bootstrap(score, r, replicates=2).value for r in chosen]))
            if isinstance(score, CalibrationError):
                assert found.low is None and "perfectly calibrated" in found.why
            else:
                assert 0.0 <= found.low < found.value < found.high <= 1.0, found
            assert found.n["patients with fracture"] == 10 and found.n["patients with none"] == 20
    assert estimate_score(runs, Accuracy()).n["seeds"] == 3


def test_the_interval_is_wider_than_that_of_images_taken_alone():
    t = run(3, skill=1.5)
    apart = Predictions(t.classes, t.case_ids, t.case_ids, t.case_ids, t.labels, t.probabilities)
    for score in (Accuracy(), AUC(1), Sensitivity(1)):
        grouped, naive = estimate_score([t], score), estimate_score([apart], score)
        assert grouped.high - grouped.low > naive.high - naive.low


def test_a_perfect_model_has_an_interval_and_not_a_certainty():
    t = run(0, 40, 5, skill=30.0)
    area, share = estimate_score([t], AUC(1)), estimate_score([t], Sensitivity(1))
    assert area.value == share.value == 1.0 and area.high == share.high == 1.0
    assert area.low < 0.95 and share.low < 0.85
    assert "no interval" in estimate_score([t], F1("positive", 1)).why


@pytest.mark.parametrize("positives", [1, 3])
def test_too_few_patients_of_a_class_give_no_interval_and_no_p_and_say_why(positives):
    a, b = run(0, 40, positives), run(1, 40, positives)
    who = "1 patient" if positives == 1 else f"{positives} patients"
    why = f"{who} with fracture, at least 4 needed"
    found = estimate_score([a], AUC(1))
    assert found.value is not None and found.low is None and why in found.why
    compared = compare_scores([a], [b], AUC(1))
    assert compared.difference is not None and compared.p_value is None and compared.low is None
    assert why in compared.why
    # a score that needs no fracture has both
    assert estimate_score([a], Accuracy()).low is not None
    assert compare_scores([a], [b], Accuracy()).p_value is not None
    assert explain_too_few(BalancedAccuracy(), [a]) and not explain_too_few(Accuracy(), [a])


def test_a_precision_counts_the_patients_that_are_called():
    t = run(0, 40, 20)
    never = Predictions(
        t.classes, t.case_ids, t.study_ids, t.patient_ids, t.labels, np.tile([0.9, 0.1], (len(t), 1))
    )  # fmt: skip
    assert estimate_score([never], Precision(1)).value is None
    assert "patients called fracture" in explain_too_few(Precision(1), [never])


def test_many_classes_name_the_rarest_alone():
    labels = np.array([0, 0, 1, 1, 2, 3, 3])
    ids = [f"p{i}" for i in range(7)]
    t = Predictions(("a", "b", "c", "d"), ids, ids, ids, labels, np.full((7, 4), 0.25))
    assert count_patients_of_classes(t) == {"patients with c": 1}


def test_the_test_agrees_with_delong_and_permutation_on_one_training():
    close = [compare_scores([run(1, 120, 50)], [run(2, 120, 50, skill)], AUC(1)) for skill in (0.9, 0.5)]
    for found, skill in zip(close, (0.9, 0.5), strict=True):
        reference = delong(run(1, 120, 50), run(2, 120, 50, skill))
        assert found.difference == pytest.approx(reference.difference)
        assert found.p_value == pytest.approx(reference.p_value, abs=0.05)
    for score in (Accuracy(), F1("macro")):
        found = compare_scores([run(1)], [run(2)], score)
        reference = paired_permutation([run(1)], [run(2)], score)
        assert found.difference == pytest.approx(reference.difference)
        assert found.p_value == pytest.approx(reference.p_value, abs=0.04)


def test_another_temperature_is_no_difference_in_auc():
    a = run(1)
    logits = np.log(a.probabilities[:, 1] / a.probabilities[:, 0])
    p = 1 / (1 + np.exp(-4 * logits))
    b = Predictions(a.classes, a.case_ids, a.study_ids, a.patient_ids, a.labels, np.stack([1 - p, p], 1))
    found = compare_scores([a], [b], AUC(1))
    assert found.difference == 0.0 and found.p_value == 1.0


def test_unequal_numbers_of_trainings_compare():
    found = compare_scores([run(1), run(2)], [run(3)], Accuracy(), swaps=200)
    assert found.n["seeds_a"] == 2 and found.n["seeds_b"] == 1 and found.p_value is not None


def test_the_earlier_interval_is_there_by_name():
    t = run(4)
    by_name = estimate_score([t], AUC(1), kind="percentile", replicates=300)
    before = bootstrap(AUC(1), t, replicates=300)
    assert (by_name.low, by_name.high) == pytest.approx((before.low, before.high))


def test_a_perfectly_calibrated_model_prints_what_is_drawn_by_loops():
    t = run(5)
    found = simulate_perfect_calibration(t, CalibrationError(), draws=4000)
    random, slow = np.random.default_rng(7), []
    confidence = t.probabilities.max(axis=1)
    for _ in range(1500):
        right = random.random(len(t)) < confidence
        total = 0.0
        for k in range(10):
            inside = (confidence > k / 10) & (confidence <= (k + 1) / 10)
            total += abs((right[inside] - confidence[inside]).sum())
        slow.append(total / len(t))
    assert found.value == pytest.approx(np.mean(slow), abs=0.003)
    assert (found.low, found.high) == pytest.approx(np.quantile(slow, (0.025, 0.975)), abs=0.01)
    names = [e.name for e in compute_classification_report(t, replicates=50)]
    place = names.index("calibration error, image-wise")
    assert names[place + 1] == "calibration error of a perfectly calibrated model, image-wise"


def test_a_brier_score_above_one_lies_in_its_interval():
    random, n = np.random.default_rng(0), 40
    labels = random.integers(0, 3, n)
    said = np.where(random.random(n) < 0.6, (labels + 1) % 3, labels)
    ids = tuple(str(i) for i in range(n))
    run = Predictions(("a", "b", "c"), ids, ids, ids, labels, 0.94 * np.eye(3)[said] + 0.02)
    found = estimate_score([run, run], Brier(), kind="percentile", replicates=200)
    assert 1.0 < found.value < found.high <= 2.0
    # two trainings, one wrong on nearly all and one undecided: their spread reaches beyond what a score can be
    wrong = np.where(np.arange(n) < 2, labels, (labels + 1) % 3)
    of_three = [replace(run, probabilities=p) for p in (0.94 * np.eye(3)[wrong] + 0.02, np.full((n, 3), 1 / 3))]
    halves = (labels > 0).astype(int), 0.1 + 0.8 * (np.arange(n) < 2)
    of_two = [
        Predictions(("a", "b"), ids, ids, ids, halves[0], np.stack([p, 1 - p], axis=1))
        for p in (np.where(halves[0] == 1, 1 - halves[1], halves[1]), np.full(n, 0.5))
    ]
    assert (estimate_score(of_three, Brier()).high, estimate_score(of_two, Brier()).high) == (2.0, 1.0)
