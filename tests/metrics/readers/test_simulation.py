"""Roe & Metz's model: its AUC, the false alarms of the analysis, and planned power against simulated power."""

import numpy as np
import pytest

from sightline.errors import RunError
from sightline.metrics.readers.anova import analyse_readers
from sightline.metrics.readers.simulation import RoeMetz, compute_reader_power, find_cases_needed
from sightline.metrics.readers.variance import compute_figures


def test_mean_figures_are_the_true_areas():
    model = RoeMetz(separation=(0.75, 1.5))
    random = np.random.default_rng(0)
    found = np.mean(
        [compute_figures(model.draw(random, readers=4, negative=60, positive=60)).mean(axis=1) for _ in range(300)],
        axis=0,
    )
    # Roe & Metz 1997 print .702 and .855 for readers without variance of their own
    assert model.areas() == pytest.approx((0.702, 0.855), abs=2e-3)
    assert found == pytest.approx(model.areas(), abs=0.008)


def test_false_alarms_are_few_on_equal_modalities():
    random, model = np.random.default_rng(1), RoeMetz()
    p = [analyse_readers(model.draw(random, readers=5, negative=50, positive=50)).p_value for _ in range(400)]
    # the table of 2,000 studies a structure stands in docs/statistics.md
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.08


def test_planned_power_is_simulated_power():
    random, model = np.random.default_rng(2), RoeMetz(separation=(1.5, 1.9))
    difference = model.areas()[1] - model.areas()[0]
    pilot = analyse_readers(model.draw(random, readers=40, negative=600, positive=600))
    planned = compute_reader_power(pilot, difference, readers=5, cases=100)
    found = np.mean(
        [analyse_readers(model.draw(random, readers=5, negative=50, positive=50)).p_value < 0.05 for _ in range(300)]
    )
    assert planned.power == pytest.approx(found, abs=0.10)
    assert 0.2 < planned.power < 0.9


def test_cases_needed_is_the_first_number_that_is_enough():
    random, model = np.random.default_rng(3), RoeMetz(separation=(1.5, 1.8))
    pilot = analyse_readers(model.draw(random, readers=8, negative=80, positive=80))
    found = find_cases_needed(pilot, 0.05, readers=6)
    assert found is not None and found.power >= 0.8
    assert compute_reader_power(pilot, 0.05, readers=6, cases=found.cases - 1).power < 0.8
    assert find_cases_needed(pilot, 0.001, readers=2, most=200) is None


def test_impossible_plans_are_refused():
    pilot = analyse_readers(RoeMetz().draw(np.random.default_rng(0), readers=3, negative=20, positive=20))
    with pytest.raises(RunError, match="two readers"):
        compute_reader_power(pilot, 0.05, readers=1, cases=50)
    for difference in (0.0, float("nan"), 2.0):
        with pytest.raises(RunError, match="a difference above 0"):
            compute_reader_power(pilot, difference, readers=3, cases=50)
    with pytest.raises(RunError, match="power lies between"):
        find_cases_needed(pilot, 0.05, readers=3, power=1.0)
    with pytest.raises(RunError, match="is nan"):
        analyse_readers(pilot.study.apply_threshold(float("nan")), figure="sensitivity")
    with pytest.raises(RunError, match="at least 0"):
        RoeMetz(noise=-0.1)
