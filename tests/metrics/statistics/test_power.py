"""Simulated power against the closed form, and what is kept of the pilot."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from support.simulated import binormal, predictions_of

from sightline.errors import RunError
from sightline.metrics.statistics.delong import delong
from sightline.metrics.statistics.power import Pilot, find_patients_needed, simulate_power


@pytest.fixture(scope="module")
def pilot():
    random = np.random.default_rng(0)
    labels = (random.random(600) < 0.4).astype(int)
    shared = random.normal(size=600)
    runs = [[], []]
    for method, d in enumerate((1.3, 1.2)):
        for _ in range(2):
            odds = d * labels + 0.7 * shared + 0.7 * random.normal(size=600) + 0.1 * random.normal() * labels
            runs[method].append(predictions_of(labels, expit(odds - 0.6)))
    return runs


def test_power_is_the_closed_form(pilot):
    one = Pilot.from_runs(pilot[0][:1], pilot[1][:1])
    moved = one.with_difference(0.06)
    # standard error of the difference on a large sample of the moved pilot, scaled to the planned size
    a, b = moved.draw(np.random.default_rng(1), patients=6000, trainings=1)
    large = delong(a[0], b[0])
    error = (large.high - large.low) / 2 / 1.96 * np.sqrt(6000 / 300)
    expected = norm.cdf(0.06 / error - 1.96)
    found = simulate_power(one, 0.06, patients=300, studies=300)
    assert found.power == pytest.approx(expected, abs=0.07)
    assert found.low < found.power < found.high


@pytest.mark.slow
def test_no_difference_gives_five_percent(pilot):
    found = simulate_power(Pilot.from_runs(pilot[0][:1], pilot[1][:1]), 0.0, patients=200, studies=300)
    assert found.power <= 0.085


def test_stated_difference_and_prevalence_are_those_of_the_studies(pilot):
    moved = Pilot.from_runs(*pilot).with_difference(0.08)
    a, b = moved.draw(np.random.default_rng(2), patients=4000, trainings=2, prevalence=0.1)
    assert np.mean(a[0].labels) == pytest.approx(0.1, abs=0.02)
    gaps = [delong(x, y).difference for x, y in zip(a, b, strict=True)]
    assert np.mean(gaps) == pytest.approx(0.08, abs=0.035)
    # cases of both methods are the same, and so is what makes them hard
    odds = [np.log(t.probabilities[:, 1] / t.probabilities[:, 0])[t.labels == 0] for t in (a[0], b[0])]
    assert np.corrcoef(*odds)[0, 1] > 0.3


def test_spread_of_trainings_is_kept(pilot):
    found = Pilot.from_runs(*pilot)
    assert found.spread[0] > 0 and Pilot.from_runs(pilot[0][:1], pilot[1]).spread[0] == 0
    power = simulate_power(found, 0.1, patients=150, trainings=2, studies=30)
    assert 0 <= power.power <= 1 and power.trainings == 2


@pytest.mark.slow
def test_patients_needed_close_in_on_the_power(pilot):
    tried = find_patients_needed(Pilot.from_runs(pilot[0][:1], pilot[1][:1]), 0.12, studies=120)
    enough = [one.patients for one in tried if one.power >= 0.8]
    assert enough and [one.patients for one in tried] == sorted(one.patients for one in tried)
    assert any(one.power < 0.8 for one in tried)


def test_impossible_plans_are_refused(pilot):
    one = Pilot.from_runs(pilot[0][:1], pilot[1][:1])
    with pytest.raises(RunError, match="smaller difference"):
        one.with_difference(0.5)
    for value in (np.full(len(pilot[0][0]), 0.5), (pilot[0][0].labels == 1).astype(float)):
        alike = replace(pilot[0][0], probabilities=np.stack([1.0 - value, value], axis=1))
        with pytest.raises(RunError, match="it jumps to"):
            simulate_power(Pilot.from_runs([alike], pilot[1][:1]), 0.05, patients=100)
    with pytest.raises(RunError, match="ten patients"):
        simulate_power(one, 0.05, patients=5)
    with pytest.raises(RunError, match="power lies between"):
        find_patients_needed(one, 0.05, power=1.0)
    one_patient = [[replace(runs[0], patient_ids=("p",) * 600)] for runs in pilot]
    with pytest.raises(RunError, match="no other prevalence"):
        simulate_power(Pilot.from_runs(*one_patient), 0.05, patients=20, prevalence=0.5, studies=2)
    with pytest.raises(RunError, match="both methods"):
        Pilot.from_runs([], pilot[0])
    assert binormal(np.random.default_rng(0)) is not None
