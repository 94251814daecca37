import numpy as np
import pytest

from sightline.errors import RunError
from sightline.metrics.classification.scores import Accuracy
from sightline.metrics.classification.selective_prediction import (
    AURC,
    SelectiveAccuracy,
    compute_confidence,
    compute_rejection_report,
    compute_risk_coverage,
)
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.comparison import paired_bootstrap


def table(n=40, seed=0, decimals=None):
    random = np.random.default_rng(seed)
    y = np.arange(n) % 3
    logits = 2 * random.normal(size=(n, 3)) + 1.5 * np.eye(3)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if decimals is not None:
        p[:, :2] = p[:, :2].round(decimals) * 0.99
        p[:, 2] = 1 - p[:, 0] - p[:, 1]
    ids = tuple(f"i{i}" for i in range(n))
    return Predictions(("a", "b", "c"), ids, ids, ids, y, p)


def one(score, t):
    return float(score(t.labels, t.probabilities, np.ones((1, len(t))))[0])


def test_aurc_case_by_case():
    t = table()
    order = np.argsort(-(t.probabilities**2).sum(1))
    wrong = (t.probabilities.argmax(1) != t.labels)[order]
    assert one(AURC(), t) == pytest.approx(np.mean([wrong[: i + 1].mean() for i in range(40)]))
    errors = int(wrong.sum())
    assert one(AURC("random"), t) == pytest.approx(errors / 40)
    best = np.sort(wrong)
    assert one(AURC("oracle"), t) == pytest.approx(np.mean([best[: i + 1].mean() for i in range(40)]))
    assert one(AURC(excess=True), t) == pytest.approx(one(AURC(), t) - one(AURC("oracle"), t))
    coverage, risk = compute_risk_coverage(t)
    assert (coverage[-1], risk[-1]) == pytest.approx((1.0, errors / 40)) and len(coverage) == 40
    assert one(AURC(), t) < one(AURC("random"), t)


def test_ties_are_the_mean_over_orders():
    t = table(30, decimals=1)
    sure, wrong = (t.probabilities**2).sum(1).round(12), t.probabilities.argmax(1) != t.labels
    rounded = Predictions(t.classes, t.case_ids, t.case_ids, t.case_ids, t.labels, t.probabilities)
    assert len(set(sure)) < 30
    random, means = np.random.default_rng(0), []
    for _ in range(1500):
        order = np.lexsort((random.random(30), -compute_confidence(rounded.probabilities)))
        means.append(np.mean(np.cumsum(wrong[order]) / np.arange(1, 31)))
    assert one(AURC(), rounded) == pytest.approx(np.mean(means), abs=0.004)


def test_weights_are_copies():
    t, weights = table(), np.random.default_rng(1).integers(0, 3, (4, 40)).astype(float)
    for score in (AURC(), AURC("top"), AURC(excess=True), SelectiveAccuracy(0.7), SelectiveAccuracy(1.0)):
        for w, value in zip(weights, score(t.labels, t.probabilities, weights), strict=True):
            rows = np.repeat(np.arange(40), w.astype(int))
            copied = score(t.labels[rows], t.probabilities[rows], np.ones((1, len(rows))))[0]
            assert value == pytest.approx(copied)


def test_accuracy_of_the_surest():
    t = table()
    kept = np.argsort(-(t.probabilities**2).sum(1))[:32]
    hits = (t.probabilities.argmax(1) == t.labels)[kept].mean()
    assert one(SelectiveAccuracy(0.8), t) == pytest.approx(hits)
    assert one(SelectiveAccuracy(1.0), t) == pytest.approx(one(Accuracy(), t))


def test_confidence_of_independent_classes_and_of_nothing():
    p = np.array([[0.9, 0.9], [0.9, 0.1], [0.0, 0.0]])
    assert compute_confidence(p) == pytest.approx([0.5, 0.82, 0.5])
    assert compute_confidence(p, "top") == pytest.approx([0.5, 0.9, 0.5])
    with pytest.raises(RunError, match="no confidence"):
        compute_confidence(p, "entropy")


def test_report_and_comparison():
    report = {e.name: e for e in compute_rejection_report(table(60))}
    assert report["AURC, least possible"].value <= report["AURC, DOCTOR"].value
    assert report["AURC, DOCTOR"].low is not None and "accuracy of the surest 80%" in report
    assert paired_bootstrap([table(60)], [table(60, seed=1)], AURC(), replicates=200).p_value is not None
    with pytest.raises(RunError, match="coverage"):
        compute_rejection_report(table(), coverages=(80,))
