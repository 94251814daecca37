import numpy as np
import pytest

from sightline.errors import RunError
from sightline.metrics.classification.scores import AUC, Accuracy, HandTillAUC, OneVsRestAUC, Precision
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.as_published import (
    RESAMPLES_WARNING,
    PrintedDraws,
    bootstrap_as_printed,
    compare_bootstraps_by_welch,
    compare_with_printed,
)
from sightline.metrics.statistics.comparison import paired_bootstrap

CLASSES = ("normal", "CHF", "pneumonia")


def table(labels, seed=0, effect=1.0):
    random = np.random.default_rng(seed)
    y = np.asarray(labels)
    logits = random.normal(size=(len(y), 3)) + effect * np.eye(3)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = tuple(f"i{i}" for i in range(len(y)))
    return Predictions(CLASSES, ids, ids, ids, y, p)


BALANCED = np.arange(102) % 3


def test_thirty_draws_of_55_to_60_with_every_class():
    t = table(BALANCED)
    weights, _ = PrintedDraws().weights(t)
    assert weights.shape == (30, 102)
    sizes = weights.sum(axis=1)
    assert sizes.min() >= 55 and sizes.max() <= 60 and len(set(sizes)) > 3
    assert weights.max() > 1  # with replacement
    e = bootstrap_as_printed(AUC(1), t)
    values = [AUC(1)(t.labels, t.probabilities, w[None])[0] for w in weights]
    assert (e.low, e.value, e.high) == pytest.approx(tuple(np.percentile(values, [2.5, 50, 97.5])))
    assert e.method.startswith("printed: 30 draws of 55 to 60")


def test_a_missing_class_never_fails_golden_check_22():
    t = table([0] * 60 + [1] * 41 + [2])  # (1 - 1/102)^57: more than half of the draws lack pneumonia
    for score in (HandTillAUC(), OneVsRestAUC(), AUC(2), Precision(2)):
        e = bootstrap_as_printed(score, t)
        assert e.value is not None and e.low <= e.value <= e.high
    weights, redrawn = PrintedDraws().weights(t)
    assert (weights[:, -1] > 0).all() and redrawn > 10
    assert f"{redrawn} redrawn" in bootstrap_as_printed(AUC(2), t).method


def test_a_class_that_cannot_be_drawn_is_named():
    e = bootstrap_as_printed(AUC(2), table([0] * 60 + [1] * 42))
    assert e.value is None and "no case of pneumonia" in e.why
    rare = table([0] * 4000 + [1] * 4000 + [2])
    e = bootstrap_as_printed(Accuracy(), rare, PrintedDraws(fewest=1, most=2))
    assert e.value is None and "lacked a class" in e.why
    with pytest.raises(RunError, match="sizes from 1"):
        PrintedDraws(fewest=60, most=55)


def test_printed_is_wider_than_honest_because_half_is_drawn():
    printed, honest = compare_with_printed(OneVsRestAUC(), table(BALANCED), PrintedDraws(draws=500), replicates=1000)
    assert (printed.high - printed.low) / (honest.high - honest.low) == pytest.approx((102 / 57.5) ** 0.5, rel=0.15)
    assert printed.name == "AUC one-vs-rest, as printed" and honest.method.startswith("patient bootstrap")


def test_the_printed_p_falls_with_the_number_of_draws_and_the_honest_one_does_not():
    a, b = table(BALANCED, seed=1, effect=1.0), table(BALANCED, seed=2, effect=0.8)
    score = OneVsRestAUC()
    printed = [compare_bootstraps_by_welch(a, b, score, PrintedDraws(draws=d)) for d in (30, 300, 3000)]
    honest = [paired_bootstrap([a], [b], score, replicates=r) for r in (300, 3000)]
    p = [c.p_value for c in printed]
    assert p[1] < p[0] / 10 and p[2] < p[1] / 1000
    assert honest[0].p_value == pytest.approx(honest[1].p_value, rel=0.35) and honest[1].p_value > 0.05
    assert all(RESAMPLES_WARNING in c.why for c in printed)
    assert "number of resamples" in printed[0].why and printed[0].n["draws"] == 30
