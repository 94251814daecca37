import numpy as np
import pytest
from sklearn import metrics

from sightline.metrics.classification.scores import (
    AUC,
    F1,
    Accuracy,
    AveragePrecision,
    BalancedAccuracy,
    Brier,
    CalibrationError,
    HandTillAUC,
    OneVsRestAUC,
    Precision,
    Prevalence,
    Sensitivity,
    Specificity,
)


def cases(n=80, k=2, seed=0, digits=2):
    """Labels, probabilities with many ties, and weights: all ones, then draws with zeros among them."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, k, n)
    labels[:k] = np.arange(k)
    raw = random.dirichlet(np.ones(k), n) + 0.4 * (labels[:, None] == np.arange(k))
    raw = np.round(raw / raw.sum(1, keepdims=True), digits)
    probabilities = raw / raw.sum(1, keepdims=True)
    weights = np.stack([np.ones(n), *random.multinomial(n, np.full(n, 1 / n), 3).astype(float)])
    return labels, probabilities, weights


def repeated(labels, probabilities, weight):
    """The slow meaning of a weight: the case stands that often in the table."""
    rows = np.repeat(np.arange(len(labels)), weight.astype(int))
    return labels[rows], probabilities[rows]


BINARY = {
    AUC(1): lambda y, p: metrics.roc_auc_score(y, p[:, 1]),
    AUC(0): lambda y, p: metrics.roc_auc_score(1 - y, p[:, 0]),
    AveragePrecision(1): lambda y, p: metrics.average_precision_score(y, p[:, 1]),
    F1("positive", 1): lambda y, p: metrics.f1_score(y, p.argmax(1)),
    F1("positive", 0): lambda y, p: metrics.f1_score(y, p.argmax(1), pos_label=0),
    F1("positive", 1, threshold=0.3): lambda y, p: metrics.f1_score(y, p[:, 1] >= 0.3),
    Sensitivity(1): lambda y, p: metrics.recall_score(y, p.argmax(1)),
    Precision(1): lambda y, p: metrics.precision_score(y, p.argmax(1)),
    Precision(1, threshold=0.3): lambda y, p: metrics.precision_score(y, p[:, 1] >= 0.3),
    Prevalence(1): lambda y, p: np.mean(y == 1),
    Specificity(1): lambda y, p: metrics.recall_score(y, p.argmax(1), pos_label=0),
    Sensitivity(1, threshold=0.2): lambda y, p: metrics.recall_score(y, p[:, 1] >= 0.2),
    Specificity(1, threshold=0.2): lambda y, p: metrics.recall_score(1 - y, p[:, 1] < 0.2),
    Brier(): lambda y, p: metrics.brier_score_loss(y, p[:, 1]),
}
ANY = {
    Accuracy(): lambda y, p: metrics.accuracy_score(y, p.argmax(1)),
    BalancedAccuracy(): lambda y, p: metrics.balanced_accuracy_score(y, p.argmax(1)),
    F1("macro"): lambda y, p: metrics.f1_score(y, p.argmax(1), average="macro"),
    F1("weighted"): lambda y, p: metrics.f1_score(y, p.argmax(1), average="weighted"),
}
SEVERAL = {
    OneVsRestAUC(): lambda y, p: metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"),
    HandTillAUC(): lambda y, p: metrics.roc_auc_score(y, p, multi_class="ovo", average="macro"),
    AveragePrecision(): lambda y, p: metrics.average_precision_score(np.eye(p.shape[1])[y], p, average="macro"),
    AUC(2): lambda y, p: metrics.roc_auc_score(y == 2, p[:, 2]),
    Brier(): lambda y, p: ((np.eye(p.shape[1])[y] - p) ** 2).sum(1).mean(),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("k", "score", "reference"),
    [(2, *item) for item in (BINARY | ANY).items()] + [(4, *item) for item in (SEVERAL | ANY).items()],
    ids=lambda x: getattr(x, "name", None),
)
def test_scores_equal_scikit_learn_with_ties_and_weights(k, score, reference, seed):
    labels, probabilities, weights = cases(k=k, seed=seed)
    assert len(np.unique(probabilities[:, 1])) < len(labels)  # ties are there
    expected = [reference(*repeated(labels, probabilities, w)) for w in weights]
    np.testing.assert_allclose(score(labels, probabilities, weights), expected, rtol=1e-12)


@pytest.mark.parametrize("score", [AUC(1), OneVsRestAUC()])
def test_fractional_weights_equal_scikit_learn(score):
    labels, probabilities, _ = cases()
    weight = np.random.default_rng(5).random(len(labels))
    expected = metrics.roc_auc_score(labels, probabilities[:, 1], sample_weight=weight)
    np.testing.assert_allclose(score(labels, probabilities, weight[None]), expected, rtol=1e-12)


def test_auc_is_the_share_of_ordered_pairs():
    labels, probabilities, weights = cases(n=30)
    scores = probabilities[:, 1]
    won = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i in np.flatnonzero(labels == 1)
        for j in np.flatnonzero(labels == 0)
    ]
    np.testing.assert_allclose(AUC(1)(labels, probabilities, weights[:1]), np.mean(won))


def test_hand_and_till_is_the_mean_of_the_pairs_golden_check_14():
    labels = np.array([0, 0, 1, 1, 2, 2])
    p = np.array([[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.4, 0.4, 0.2], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]])

    def a(i, j):
        mine, other = p[labels == i, i], p[labels == j, i]
        return np.mean([(x > y) + 0.5 * (x == y) for x in mine for y in other])

    pairs = [(a(0, 1) + a(1, 0)) / 2, (a(0, 2) + a(2, 0)) / 2, (a(1, 2) + a(2, 1)) / 2]
    # by hand: A(0|1) = 3/4, A(1|0) = 3/4, A(0|2) = 7/8, A(2|0) = 4/4, A(1|2) = 7/8, A(2|1) = 4/4
    assert pairs == [0.75, 0.9375, 0.9375]
    np.testing.assert_allclose(HandTillAUC()(labels, p, np.ones((1, 6))), np.mean(pairs))


def test_f1_sensitivity_and_specificity_of_a_confusion_by_hand():
    # 2 classes, TP 40, FN 10, FP 20, TN 30: F1 of 1 is 80/110, of 0 is 60/90; equal support
    labels = np.repeat([1, 1, 0, 0], [40, 10, 20, 30])
    called = np.repeat([1, 0, 1, 0], [40, 10, 20, 30])
    p = np.eye(2)[called]
    np.testing.assert_allclose(F1("weighted")(labels, p, np.ones((1, 100))), (80 / 110 + 60 / 90) / 2)
    np.testing.assert_allclose(Sensitivity(1)(labels, p, np.ones((1, 100))), 0.8)
    np.testing.assert_allclose(Specificity(1)(labels, p, np.ones((1, 100))), 0.6)


def test_calibration_error_bin_by_bin():
    labels, probabilities, weights = cases(n=200, k=3)
    for values, weight in zip(CalibrationError(bins=5)(labels, probabilities, weights), weights, strict=True):
        y, p = repeated(labels, probabilities, weight)
        confidence, hit, expected = p.max(1), p.argmax(1) == y, 0.0
        for b in range(5):
            rows = (confidence > b / 5) & (confidence <= (b + 1) / 5)
            if rows.any():
                expected += rows.mean() * abs(hit[rows].mean() - confidence[rows].mean())
        np.testing.assert_allclose(values, expected)


def test_a_perfectly_calibrated_answer_has_no_calibration_error():
    p = np.tile([0.25, 0.75], (4, 1))
    np.testing.assert_allclose(CalibrationError()(np.array([1, 1, 1, 0]), p, np.ones((1, 4))), 0.0)


@pytest.mark.parametrize(
    "score",
    [AUC(1), AveragePrecision(1), OneVsRestAUC(), HandTillAUC(), BalancedAccuracy(), F1("macro"), F1("positive", 1),
     Sensitivity(1), AveragePrecision()],
)  # fmt: skip
def test_a_missing_class_is_nan_in_that_weighting_alone(score):
    labels, probabilities, weights = cases(k=3)
    weights[1] = np.where(labels == 1, 0.0, 1.0)
    with np.errstate(all="raise"):
        values = score(labels, probabilities, weights)
    assert np.isnan(values[1])
    assert np.isfinite(values[[0, 2, 3]]).all()


def test_weighted_f1_and_accuracy_need_no_class():
    labels, probabilities, _ = cases(k=3)
    weight = np.where(labels == 1, 0.0, 1.0)[None]
    assert np.isfinite(Accuracy()(labels, probabilities, weight)).all()
    rows = labels != 1
    expected = metrics.f1_score(labels[rows], probabilities[rows].argmax(1), average="weighted", zero_division=0)
    np.testing.assert_allclose(F1("weighted")(labels, probabilities, weight), expected)
