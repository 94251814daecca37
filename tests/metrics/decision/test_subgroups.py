"""Gaps of subgroups: their variance against the project's DeLong, false claims, planted gaps, and what is left out."""

import numpy as np
import pytest
from scipy.special import expit
from support.simulated import binormal, predictions_of

from sightline.errors import RunError
from sightline.metrics.decision.influence import linearise_area, linearise_share
from sightline.metrics.decision.subgroups import bin_values, compute_subgroup_report, describe_unknown
from sightline.metrics.statistics.delong import delong


def test_error_of_a_difference_is_delongs():
    a = binormal(np.random.default_rng(0), 40, 60, per_patient=2)
    b = predictions_of(a.labels, expit(np.random.default_rng(1).normal(size=100) + a.labels), np.arange(100) // 2)
    truth, everything = a.labels == 1, np.ones(100, dtype=bool)
    gap = linearise_area(a.probabilities[:, 1], truth, everything, a.patient_ids) - linearise_area(
        b.probabilities[:, 1], truth, everything, a.patient_ids
    )
    theirs = delong(a, b)
    assert gap.value == pytest.approx(theirs.difference)
    # Obuchowski counts patients of each class for its factor, we those of both
    error = (theirs.high - theirs.low) / 2 / 1.959963984540054
    assert gap.error(a.patient_ids) == pytest.approx(error, rel=0.02)


def test_error_of_a_share_is_the_binomials():
    hits = np.r_[np.ones(30), np.zeros(70)]
    ids = tuple(str(i) for i in range(100))
    found = linearise_share(hits, np.ones(100, dtype=bool), ids)
    assert found.error(ids) == pytest.approx(np.sqrt(0.3 * 0.7 / 99))
    assert found.logarithm().error(ids) == pytest.approx(np.sqrt(0.7 / 0.3 / 99))


def study(random, patients, gap):
    """AUC .9 in group x, less by `gap` in group y (a third of the patients); three other facts that mean nothing."""
    from scipy.stats import norm

    labels = (random.random(patients) < 0.4).astype(int)
    y = random.random(patients) < 1 / 3
    d = np.where(y, norm.ppf(0.9 - gap), norm.ppf(0.9)) * np.sqrt(2)
    table = predictions_of(labels, expit(random.normal(size=patients) + d * labels))
    facts = {"group": np.where(y, "y", "x").tolist()}
    facts |= {f"fact {i}": random.choice(list("abc"), patients).tolist() for i in range(3)}
    return table, facts


@pytest.mark.slow
def test_no_gap_is_claimed_where_there_is_none():
    random = np.random.default_rng(2)
    claims = [any(g.claimed for g in compute_subgroup_report(*study(random, 400, 0.0))) for _ in range(30)]
    # `python -m benchmarks evidence` simulates 500; its table stands in docs/statistics.md
    assert np.sum(claims) <= 5


def test_a_planted_gap_is_found():
    random = np.random.default_rng(3)
    found = []
    for _ in range(12):
        report = compute_subgroup_report(*study(random, 1200, 0.10))
        (gap,) = [g for g in report if g.fact == "group" and g.value == "y"]
        found.append(gap.claimed)
        assert gap.detectable < 0.13
    assert np.mean(found) >= 0.6


def test_two_groups_are_one_test():
    table, facts = study(np.random.default_rng(4), 300, 0.1)
    x, y = compute_subgroup_report(table, {"group": facts["group"]})
    assert x.gap.difference == pytest.approx(-y.gap.difference)
    assert x.gap.p_value == pytest.approx(y.gap.p_value) and x.p_corrected == y.p_corrected == pytest.approx(
        x.gap.p_value
    )


def test_numbers_become_thirds_and_names_stay():
    assert bin_values(["", "3", "1"]) == ["", "3", "1"]
    ages = [str(age) for age in range(20, 80)]
    found = bin_values([*ages, ""])
    assert sorted(set(found)) == ["", "over 39.6667 to 59.3333", "over 59.3333", "up to 39.6667"]
    assert found.count("over 59.3333") == 20


def test_a_word_for_an_empty_cell_is_no_group():
    """One `NaN` among ages made every age a group of its own, and a fact of many ages was left out."""
    assert bin_values(["F", "nan", "N/A", "M"]) == ["F", "", "", "M"]
    ages = [str(age) for age in range(20, 50)]
    assert set(bin_values([*ages, "NaN"])) == {*bin_values(ages), ""}


def test_small_groups_say_why_and_single_values_are_left_out():
    table = binormal(np.random.default_rng(5), 40, 60)
    facts = {"site": ["s"] * 100, "sex": ["f"] * 3 + ["m"] * 95 + [""] * 2, "id": [f"i{i}" for i in range(100)]}
    report = compute_subgroup_report(table, facts)
    assert {g.fact for g in report} == {"sex"}
    assert describe_unknown(report) == "Not known, and so in no group: sex of 2 images."
    assert report[0].gap.p_value is None and report[0].gap.why and report[0].detectable is None
    with pytest.raises(RunError, match="3 values"):
        compute_subgroup_report(table, {"sex": ["f"] * 3})


def test_shares_of_calls_can_be_compared_too():
    table, facts = study(np.random.default_rng(6), 600, 0.15)
    for what in ("sensitivity", "specificity"):
        report = compute_subgroup_report(table, facts, what=what, threshold=0.5)
        inside = np.array(facts["group"]) == "y"
        chosen = inside & (table.labels == (1 if what == "sensitivity" else 0))
        right = (table.probabilities[:, 1] >= 0.5) == (table.labels == 1)
        (gap,) = [g for g in report if (g.fact, g.value) == ("group", "y")]
        assert gap.gap.value_a == pytest.approx(right[chosen].mean())
