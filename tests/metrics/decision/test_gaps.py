"""Gaps of two sides: the interval by hand, small groups that must not claim too much, and many gaps at once."""

import numpy as np
import pytest
from scipy.stats import norm

from sightline.metrics.decision.gaps import GroupScore, compute_gap, correct_gaps
from sightline.metrics.decision.influence import linearise_area
from sightline.metrics.statistics.auc_intervals import compute_auc_interval, compute_auc_spread, fit_binormal_model


def side_of(scores, truth, where, ids):
    numbers = np.unique(ids[where], return_inverse=True)[1]
    rows = scores[where][None], truth[where], numbers
    return GroupScore.from_linear(
        linearise_area(scores, truth, where, ids), compute_auc_spread(*rows), fit_binormal_model(*rows)
    )


def drawn(random, patients, share, auc, images=1):
    """Scores of one kind everywhere, a group of some of the patients."""
    patient = np.repeat(np.arange(patients), images)
    truth = (random.random(patients) < 0.4)[patient]
    group = (random.random(patients) < share)[patient]
    scores = random.normal(size=patient.size) + norm.ppf(auc) * np.sqrt(2) * truth
    return scores, truth, group, patient.astype(str)


def test_the_interval_is_that_of_both_score_intervals_put_together():
    scores, truth, group, ids = drawn(np.random.default_rng(0), 120, 0.4, 0.85, images=2)
    found = compute_gap(side_of(scores, truth, group, ids), side_of(scores, truth, ~group, ids), ids)
    ends = [
        compute_auc_interval(scores[m][None], truth[m], np.unique(ids[m], return_inverse=True)[1])
        for m in (group, ~group)
    ]
    a, b = (linearise_area(scores, truth, m, ids).value for m in (group, ~group))
    (low_a, high_a), (low_b, high_b) = ends
    assert found.difference == pytest.approx(a - b)
    assert found.low == pytest.approx(a - b - np.hypot(a - low_a, high_b - b), abs=2e-3)
    assert found.high == pytest.approx(a - b + np.hypot(high_a - a, b - low_b), abs=2e-3)
    # p is below .05 exactly where the interval leaves zero out
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
    turned = compute_gap(side_of(scores, truth, ~group, ids), side_of(scores, truth, group, ids), ids)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert turned.p_value == pytest.approx(found.p_value)


def test_a_small_group_with_a_score_near_one_does_not_claim_too_much():
    random, claimed = np.random.default_rng(1), []
    while len(claimed) < 100:
        scores, truth, group, ids = drawn(random, 300, 0.07, 0.95)
        if min((group & truth).sum(), (group & ~truth).sum()) < 5:
            continue
        claimed.append(
            compute_gap(side_of(scores, truth, group, ids), side_of(scores, truth, ~group, ids), ids).p_value < 0.05
        )
    # contributions with a t quantile claimed a fifth of them
    assert np.mean(claimed) < 0.11


def test_many_gaps_at_once():
    random = np.random.default_rng(2)
    scores, truth, _, ids = drawn(random, 400, 0.5, 0.8)
    gaps = []
    for _ in range(5):
        group = random.random(400) < 0.5
        gaps.append(compute_gap(side_of(scores, truth, group, ids), side_of(scores, truth, ~group, ids), ids))
    found = correct_gaps(gaps, ids)
    p = np.array([gap.p_value for gap in gaps])
    # facts that have nothing to do with each other: about Sidak's, step by step
    steps = np.maximum.accumulate([1 - (1 - x) ** (5 - i) for i, x in enumerate(np.sort(p))])
    assert np.sort(found.p_values) == pytest.approx(steps, abs=0.06)
    assert found.critical == pytest.approx(norm.isf((1 - 0.95 ** (1 / 5)) / 2), abs=0.1)
    # the same fact five times costs nothing
    same = correct_gaps([gaps[0]] * 5, ids)
    assert same.p_values == pytest.approx([gaps[0].p_value] * 5, abs=0.02)
    assert same.critical == pytest.approx(1.96, abs=0.05)
