import numpy as np
import pytest
from scipy import stats

from sightline.errors import RunError
from sightline.metrics.statistics.as_published import compute_one_way_anova

RUNS = {"ResNet": [0.71, 0.72, 0.73, 0.70, 0.74], "ResNet + GG": [0.77, 0.75, 0.78, 0.74, 0.79]}


def test_two_groups_are_t_squared():
    found = compute_one_way_anova(RUNS, name="AUC")
    t = stats.ttest_ind(*RUNS.values())
    assert found.f == pytest.approx(t.statistic**2)
    assert found.p_value == pytest.approx(t.pvalue)
    assert (found.df_between, found.df_within) == (1, 8)


def test_three_groups_by_hand():
    # means 2, 4, 9 around 5: between 3 * (9 + 1 + 16) = 78, within 2 each = 6
    found = compute_one_way_anova({"a": [1, 2, 3], "b": [3, 4, 5], "c": [8, 9, 10]})
    assert found.f == pytest.approx((78 / 2) / (6 / 6))
    assert found.eta_squared == pytest.approx(78 / 84)
    assert found.omega_squared == pytest.approx((78 - 2) / (84 + 1))
    assert found.text() == "F(2, 6) = 39.00, p < 0.001, η² = 0.929"
    assert found.means == {"a": 2.0, "b": 4.0, "c": 9.0}


def test_the_reader_is_warned():
    assert "5 runs in the smallest group" in compute_one_way_anova(RUNS).why
    many = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(RUNS)}
    assert (
        "too few" not in compute_one_way_anova(many).why and "not on other patients" in compute_one_way_anova(many).why
    )


def test_p_is_uniform_without_a_difference():
    random = np.random.default_rng(0)
    p = [compute_one_way_anova({"a": random.normal(size=5), "b": random.normal(size=5)}).p_value for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_no_spread_is_no_test():
    same = compute_one_way_anova({"a": [0.7] * 5, "b": [0.9] * 5})
    assert same.f is None and same.text() == "undefined" and "no group varies" in same.why
    single = compute_one_way_anova({"a": [0.7], "b": [0.9]})
    assert single.p_value is None and "one run a group" in single.why
    for wrong in ({"a": [1.0, 2.0]}, {"a": [1.0], "b": []}, {"a": [1.0, float("nan")], "b": [1.0, 2.0]}):
        with pytest.raises(RunError, match="analysis of variance"):
            compute_one_way_anova(wrong)
