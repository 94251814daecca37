import numpy as np
import pytest
from sklearn import metrics

from sightline.errors import RunError
from sightline.metrics.classification.report import (
    PairAUC,
    RunSummary,
    compute_multi_class_report,
    count_missing_classes,
    list_multi_class_scores,
    summarise_runs,
)
from sightline.metrics.classification.scores import AUC, HandTillAUC, Precision, Sensitivity
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import Resample

CLASSES = ("normal", "CHF", "pneumonia")


def table(n=60, seed=0, independent=False, labels=None, decimals=None):
    random = np.random.default_rng(seed)
    y = np.arange(n) % 3 if labels is None else np.asarray(labels)
    logits = random.normal(size=(len(y), 3)) + 1.2 * np.eye(3)[y]
    p = 1 / (1 + np.exp(-logits)) if independent else np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = p if decimals is None else p.round(decimals)
    ids = tuple(f"i{i}" for i in range(len(y)))
    return Predictions(CLASSES, ids, ids, ids, y, p, independent=independent)


def slow_a(p, y, i, j):
    """A(i|j) by looking at every pair of cases."""
    wins = [(a > b) + 0.5 * (a == b) for a in p[y == i, i] for b in p[y == j, i]]
    return np.mean(wins)


def one(score, t):
    return float(score(t.labels, t.probabilities, np.ones((1, len(t))))[0])


@pytest.mark.parametrize("independent", [False, True])
def test_mean_of_pairs_is_hand_and_till_golden_check_14(independent):
    t = table(independent=independent, decimals=1 if independent else None)  # one decimal: many ties
    pairs = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        slow = (slow_a(t.probabilities, t.labels, i, j) + slow_a(t.probabilities, t.labels, j, i)) / 2
        assert one(PairAUC(i, j), t) == pytest.approx(slow)
        assert one(PairAUC(j, i), t) == pytest.approx(slow)
        pairs.append(slow)
    assert one(HandTillAUC(), t) == pytest.approx(np.mean(pairs))


def test_a_known_example_by_hand():
    # normal beats CHF in 3 of 4 both ways, pneumonia is apart from both
    y = np.array([0, 0, 1, 1, 2, 2])
    p = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0, 0, 1.0], [0, 0, 1.0]])
    ids = tuple("abcdef")
    t = Predictions(CLASSES, ids, ids, ids, y, p)
    assert one(PairAUC(0, 1), t) == pytest.approx(0.75)
    assert one(PairAUC(0, 2), t) == one(PairAUC(1, 2), t) == 1.0
    assert one(HandTillAUC(), t) == pytest.approx((0.75 + 1 + 1) / 3)


def test_parts_equal_sklearn():
    t = table(seed=3)
    truth, p = t.labels, t.probabilities
    by_name = {s.name: one(s, t) for s in list_multi_class_scores(CLASSES)}
    assert by_name["AUC Hand & Till"] == pytest.approx(metrics.roc_auc_score(truth, p, multi_class="ovo"))
    assert by_name["AUC one-vs-rest"] == pytest.approx(metrics.roc_auc_score(truth, p, multi_class="ovr"))
    precision = metrics.precision_score(truth, p.argmax(1), average=None)
    recall = metrics.recall_score(truth, p.argmax(1), average=None)
    for i, name in enumerate(CLASSES):
        against = metrics.roc_auc_score(truth == i, p[:, i])
        assert by_name[f"AUC of {name} against the rest"] == pytest.approx(against)
        assert by_name[f"precision for {name}"] == pytest.approx(precision[i])
        assert by_name[f"recall for {name}"] == pytest.approx(recall[i])
    assert by_name["AUC one-vs-rest"] == pytest.approx(np.mean([one(AUC(i), t) for i in range(3)]))


def test_weights_are_copies():
    t, random = table(30, seed=5), np.random.default_rng(1)
    weights = random.integers(0, 3, (4, 30)).astype(float)
    for score in (PairAUC(0, 2), Precision(1), Precision(1, threshold=0.3)):
        found = score(t.labels, t.probabilities, weights)
        for w, value in zip(weights, found, strict=True):
            rows = np.repeat(np.arange(30), w.astype(int))
            copied = score(t.labels[rows], t.probabilities[rows], np.ones((1, len(rows))))[0]
            assert value == pytest.approx(copied)


def test_a_class_missing_from_draws_is_named():
    t = table(labels=[0] * 14 + [1] * 14 + [2] * 2)
    lost = count_missing_classes(t, Resample.draw(t.patient_ids, 400, 0))
    assert lost["normal"] == 0 and 25 < lost["pneumonia"] < 80  # (28/30)^30 = 0.126
    report = {e.name: e for e in compute_multi_class_report(t, kind="percentile", replicates=400)}
    found = report["AUC Hand & Till"]
    assert found.low is not None
    assert found.method.endswith(f"{lost['pneumonia']} undefined (no pneumonia in {lost['pneumonia']})")
    assert "undefined" not in report["AUC of normal or CHF"].method


def test_a_class_missing_from_the_table_is_named():
    t = table(labels=[0] * 10 + [1] * 10)
    report = {e.name: e for e in compute_multi_class_report(t)}
    assert report["AUC Hand & Till"].value is None
    assert "pneumonia" in report["AUC Hand & Till"].why
    assert report["AUC of normal or CHF"].value is not None
    never = Predictions(CLASSES, t.case_ids, t.case_ids, t.case_ids, t.labels, np.tile([0.6, 0.3, 0.1], (20, 1)))
    precision = {e.name: e for e in compute_multi_class_report(never)}["precision for CHF"]
    assert precision.value is None and precision.why == "not defined: no case is called CHF"


def test_median_and_spread_over_runs():
    runs = [table(seed=s) for s in range(5)]
    found = {o.name: o for o in summarise_runs(runs)}
    values = [one(Sensitivity(1), t) for t in runs]
    recall = found["recall for CHF"]
    assert recall.values == pytest.approx(values)
    assert (recall.median, recall.std) == pytest.approx((np.median(values), np.std(values, ddof=1)))
    assert recall.text() == f"{np.median(values):.3f} ± {np.std(values, ddof=1):.3f}"
    lost = RunSummary.from_values("precision", [0.5, float("nan"), None])
    assert lost.values == (0.5, None, None) and lost.median == 0.5 and lost.std is None
    assert lost.why == "not defined in 2 of 3 runs; one run has no spread"
    assert RunSummary.from_values("precision", [None]).text() == "undefined"
    with pytest.raises(RunError, match="no runs"):
        RunSummary.from_values("precision", [])
