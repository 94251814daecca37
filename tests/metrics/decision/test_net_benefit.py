"""Equal to dcurves on its published example (df_binary of dcurves 1.1.7, Apache-2.0; 750 patients, 105 cancers)."""

from pathlib import Path

import numpy as np
import pytest
from support.simulated import binormal, predictions_of

from sightline.errors import RunError
from sightline.metrics.decision.net_benefit import compute_decision_curve

EXAMPLE = np.loadtxt(Path(__file__).with_name("dcurves_example.csv"), delimiter=",", skiprows=1)
THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5)
# printed by dcurves 1.1.7 in Python; the rows of famhistory and all stand in R's results in its repository, too
MARKER = (0.1324309764, 0.1055438596, 0.0874074074, 0.0673333333, 0.0501538462, 0.0213333333)
HISTORY = (0.0307744108, 0.0256140351, 0.0185185185, 0.0016666667, -0.0333333333, -0.0893333333)
ALL = (0.1313131313, 0.0947368421, 0.0444444444, -0.0750000000, -0.3230769231, -0.7200000000)
AT_5_PERCENT = (0.0209080842, 0.0098437308, -0.0003709856, -0.0014081268)


@pytest.mark.parametrize(("column", "published"), [(1, MARKER), (2, HISTORY)])
def test_dcurves_example(column, published):
    curve = compute_decision_curve(predictions_of(EXAMPLE[:, 0], EXAMPLE[:, column]), THRESHOLDS, replicates=20)
    assert [point.model.value for point in curve] == pytest.approx(published, abs=1e-9)
    assert [point.act_on_all for point in curve] == pytest.approx(ALL, abs=1e-9)


def test_dcurves_example_at_a_stated_prevalence():
    table = predictions_of(EXAMPLE[:, 0], EXAMPLE[:, 1])
    curve = compute_decision_curve(table, (0.05, 0.1, 0.2, 0.35), prevalence=0.05, replicates=20)
    assert [point.model.value for point in curve] == pytest.approx(AT_5_PERCENT, abs=1e-9)
    assert curve[0].act_on_all == pytest.approx(0.0, abs=1e-12)


def test_interventions_avoided_are_those_of_the_tutorial():
    # Vickers: (net benefit of the model less that of acting on all) / odds, for each 100 patients
    curve = compute_decision_curve(predictions_of(EXAMPLE[:, 0], EXAMPLE[:, 1]), (0.1,), replicates=20)
    assert curve[0].avoided == pytest.approx((MARKER[2] - ALL[2]) / (0.1 / 0.9) * 100, abs=1e-6)


def test_a_good_model_helps_and_a_blind_one_does_not():
    random = np.random.default_rng(0)
    good = compute_decision_curve(binormal(random, 150, 150, separation=2.0), (0.5,), replicates=300)[0]
    assert good.helps
    blind = compute_decision_curve(
        predictions_of(random.integers(0, 2, 300), random.random(300)), (0.5,), replicates=300
    )[0]
    assert not blind.helps


def test_impossible_thresholds_are_refused():
    with pytest.raises(RunError, match="between 0 and 1"):
        compute_decision_curve(binormal(np.random.default_rng(0)), (0.0, 0.5))
