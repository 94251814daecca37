"""Temperature against a grid, isotonic against its definition, both on what they promise."""

import json

import numpy as np
import pytest
from support.simulated import drawn, predictions_of

from sightline.errors import CohortError, RunError
from sightline.metrics.calibration.recalibration import (
    Fitted,
    Isotonic,
    Temperature,
    fit_recalibration,
    log_loss,
    recalibrate,
)
from sightline.metrics.calibration.report import calibration_estimates
from sightline.metrics.predictions import Predictions


def test_temperature_is_the_best_of_a_fine_grid():
    table = drawn(np.random.default_rng(0), 400, slope=0.5)  # overconfident by 2
    fitted = fit_recalibration(table)
    grid = np.linspace(0.5, 4.0, 3501)
    p = table.probabilities[:, 1]
    losses = []
    for t in grid:
        q = p ** (1 / t) / (p ** (1 / t) + (1 - p) ** (1 / t))
        losses.append(-np.mean(np.where(table.labels == 1, np.log(q), np.log(1 - q))))
    assert fitted.recalibration.temperature == pytest.approx(grid[int(np.argmin(losses))], abs=2e-3)
    assert fitted.recalibration.temperature == pytest.approx(2.0, abs=0.4)
    assert fitted.log_loss["temperature"] < fitted.log_loss["as said"]


@pytest.mark.parametrize("independent", [False, True])
def test_temperature_of_logits_is_softmax_of_logits_over_it(independent):
    z = np.random.default_rng(1).normal(size=(20, 3)) * 3

    def said(x):
        return 1 / (1 + np.exp(-x)) if independent else np.exp(x) / np.exp(x).sum(1, keepdims=True)

    ours = Temperature(1.7).apply(said(z), independent=independent)
    assert ours == pytest.approx(said(z / 1.7), abs=1e-9)


def test_temperature_keeps_every_order():
    table = drawn(np.random.default_rng(2), 200)
    after = recalibrate(table, Temperature(3.0))
    assert np.array_equal(np.argsort(table.probabilities[:, 1]), np.argsort(after.probabilities[:, 1]))
    assert np.array_equal(table.probabilities.argmax(1), after.probabilities.argmax(1))


def test_isotonic_is_the_pooled_mean_of_its_blocks():
    said = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95])
    labels = [0, 0, 1, 0, 1, 0, 1, 1, 1, 1]
    line = fit_recalibration(predictions_of(labels, said), "isotonic").recalibration
    found = line.apply(np.stack([1 - said, said], axis=1))[:, 1]
    edge = 0.5 / 11
    # pool adjacent violators by hand: 0 0 | 1 0 | 1 0 | 1 1 1 1
    assert found == pytest.approx([edge, edge, 0.5, 0.5, 0.5, 0.5, 1 - edge, 1 - edge, 1 - edge, 1 - edge])


def test_isotonic_mends_what_no_temperature_can():
    random = np.random.default_rng(3)
    truth = random.uniform(size=6000)
    labels = (random.random(6000) < truth).astype(int)
    table = predictions_of(labels, truth**3)
    half, other = table.select(np.arange(3000)), table.select(np.arange(3000, 6000))
    fitted = fit_recalibration(half, "auto")
    assert fitted.recalibration.method == "isotonic"
    after = recalibrate(other, fitted.recalibration)
    assert np.abs(after.probabilities[:, 1] - truth[3000:]).mean() < 0.05
    assert log_loss(after.labels, after.probabilities) < log_loss(other.labels, other.probabilities) - 0.05


def test_several_classes_sum_to_one():
    random = np.random.default_rng(4)
    p = random.dirichlet((1, 1, 1), 600)
    labels = np.array([random.choice(3, p=row) for row in p])
    names = tuple(str(i) for i in range(600))
    table = Predictions(("a", "b", "c"), names, names, names, labels, p)
    for method in ("temperature", "isotonic"):
        after = recalibrate(table, fit_recalibration(table, method).recalibration)
        assert after.probabilities.sum(axis=1) == pytest.approx(1.0)
    slope = calibration_estimates(recalibrate(table, fit_recalibration(table).recalibration))[-1]
    assert slope.value == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_json_there_and_back(method):
    table = drawn(np.random.default_rng(5), 60)
    fitted = fit_recalibration(table, method)
    again = Fitted.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert np.array_equal(
        again.recalibration.apply(table.probabilities), fitted.recalibration.apply(table.probabilities)
    )
    assert again == fitted


def test_what_cannot_be_fitted_or_read_is_refused():
    with pytest.raises(CohortError, match="ten patients"):
        fit_recalibration(predictions_of([0, 1] * 3, [0.2] * 6))
    with pytest.raises(CohortError, match="every class"):
        fit_recalibration(predictions_of([0] * 30, [0.2] * 30))
    with pytest.raises(RunError, match="no calibration by"):
        fit_recalibration(drawn(np.random.default_rng(0), 30), "platt")
    with pytest.raises(RunError, match="no saved calibration"):
        Fitted.from_dict({"method": "temperature"})
    with pytest.raises(RunError, match="above 0"):
        Temperature(-1.0)
    with pytest.raises(RunError, match="do not rise"):
        Isotonic(((0.1, 0.5),), ((0.6, 0.2),))
    weak = fit_recalibration(drawn(np.random.default_rng(1), 40), "isotonic")
    assert "follows chance" in weak.why
