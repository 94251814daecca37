"""Temperature against a grid, isotonic against its definition, both on what they promise."""

import json

import numpy as np
import pytest
from support.simulated import drawn, predictions_of

from sightline.errors import CohortError, RunError
from sightline.metrics.calibration.recalibration import FittedRecalibration, fit_recalibration, log_loss, recalibrate
from sightline.metrics.calibration.report import compute_calibration_estimates
from sightline.metrics.calibration.scaling import Isotonic, NoRecalibration, PlattScaling, Temperature
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


def test_isotonic_mends_what_no_line_can():
    random = np.random.default_rng(3)
    truth = random.uniform(size=6000)
    labels = (random.random(6000) < truth).astype(int)
    table = predictions_of(labels, 0.5 + 3.2 * (truth - 0.5) ** 3)
    half, other = table.select(np.arange(3000)), table.select(np.arange(3000, 6000))
    fitted = fit_recalibration(half, "auto")
    assert fitted.recalibration.method == "isotonic"
    after = recalibrate(other, fitted.recalibration)
    assert np.abs(after.probabilities[:, 1] - truth[3000:]).mean() < 0.05
    assert log_loss(after.labels, after.probabilities) < log_loss(other.labels, other.probabilities) - 0.03


def test_several_classes_sum_to_one():
    random = np.random.default_rng(4)
    p = random.dirichlet((1, 1, 1), 600)
    labels = np.array([random.choice(3, p=row) for row in p])
    names = tuple(str(i) for i in range(600))
    table = Predictions(("a", "b", "c"), names, names, names, labels, p)
    for method in ("temperature", "platt", "isotonic"):
        after = recalibrate(table, fit_recalibration(table, method).recalibration)
        assert after.probabilities.sum(axis=1) == pytest.approx(1.0)
    slope = compute_calibration_estimates(recalibrate(table, fit_recalibration(table).recalibration))[-1]
    assert slope.value == pytest.approx(1.0, abs=1e-4)


def test_platt_is_a_logistic_regression_on_his_targets():
    from sklearn.linear_model import LogisticRegression

    table = drawn(np.random.default_rng(6), 300, slope=0.6, intercept=-0.8)
    p, truth = table.probabilities[:, 1], table.labels == 1
    up, down = (truth.sum() + 1) / (truth.sum() + 2), 1 / ((~truth).sum() + 2)
    target = np.where(truth, up, down)
    odds = np.log(p / (1 - p))[:, None]
    # each case twice, as positive with its target's weight and as negative with the rest
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.r_[odds, odds], np.r_[np.ones(300), np.zeros(300)], sample_weight=np.r_[target, 1 - target]
    )
    ours = fit_recalibration(table, "platt").recalibration
    assert ours.slopes[0] == pytest.approx(oracle.coef_[0, 0], abs=1e-4)
    assert ours.intercepts[0] == pytest.approx(oracle.intercept_[0], abs=1e-4)
    assert ours.apply(table.probabilities)[:, 1] == pytest.approx(oracle.predict_proba(odds)[:, 1], abs=1e-4)
    # a shift that no temperature mends
    after = compute_calibration_estimates(recalibrate(table, ours))
    assert after[0].value == pytest.approx(1.0, abs=0.03) and after[1].value == pytest.approx(0.0, abs=0.03)


def test_vector_scaling_finds_the_lines_that_were_put_in():
    random = np.random.default_rng(7)
    truth = random.dirichlet((1, 1, 1), 6000)
    labels = np.array([random.choice(3, p=row) for row in truth])
    names = tuple(str(i) for i in range(6000))
    slopes, shifts = np.array([2.0, 1.0, 0.5]), np.array([0.7, -0.4, 0.0])
    # said such that softmax(slope * log p + shift) is the truth
    said = np.exp((np.log(truth.clip(1e-9)) - shifts) / slopes)
    table = Predictions(("a", "b", "c"), names, names, names, labels, said / said.sum(1, keepdims=True))
    ours = fit_recalibration(table, "auto").recalibration
    assert ours.method == "platt"
    z = ours.slopes * np.log(table.probabilities) + ours.intercepts
    assert ours.apply(table.probabilities) == pytest.approx(np.exp(z) / np.exp(z).sum(1, keepdims=True), abs=1e-9)
    before = log_loss(labels, table.probabilities)
    assert log_loss(labels, ours.apply(table.probabilities)) < before - 0.02

    def loss(move):
        moved = PlattScaling(tuple(np.add(ours.slopes, move[:3])), tuple(np.add(ours.intercepts, move[3:])))
        return log_loss(labels, moved.apply(table.probabilities))

    # nothing near is better, but for what Platt's targets hold back
    steps = np.concatenate([np.eye(6), -np.eye(6)]) * 0.05
    assert min(loss(step) for step in steps) > loss(np.zeros(6)) - 1e-5


def test_classes_that_part_have_a_line_too_and_slopes_do_not_turn_round():
    sure = predictions_of([0] * 20 + [1] * 20, np.r_[np.linspace(0.01, 0.3, 20), np.linspace(0.7, 0.99, 20)])
    said = fit_recalibration(sure, "platt").recalibration.apply(sure.probabilities)[:, 1]
    assert said.min() > 0.0 and said.max() < 1.0 and np.all(np.diff(said) >= 0)
    wrong = predictions_of([1] * 20 + [0] * 20, sure.probabilities[:, 1])
    assert np.all(np.diff(fit_recalibration(wrong, "platt").recalibration.apply(sure.probabilities)[:, 1]) >= 0)


@pytest.mark.parametrize(
    ("slope", "intercept", "chosen"), [(1.0, 0.0, "none"), (0.4, 0.0, "temperature"), (1.0, 1.0, "platt")]
)
def test_auto_takes_what_is_needed_and_no_more(slope, intercept, chosen):
    found = [
        fit_recalibration(
            drawn(np.random.default_rng([seed, 8]), 150, images=2, slope=slope, intercept=intercept, shared=0.5), "auto"
        )
        for seed in range(12)
    ]
    methods = [fitted.recalibration.method for fitted in found]
    assert methods.count(chosen) >= 9
    for fitted in found:
        if fitted.recalibration == NoRecalibration():
            assert "stay as they are" in fitted.why


def test_the_loss_of_independent_classes_asks_for_absent_ones_too():
    labels, said = np.array([0, 1]), np.array([[0.9, 0.2], [0.3, 0.6]])
    by_hand = -(np.log(0.9) + np.log(0.8) + np.log(0.7) + np.log(0.6)) / 2
    assert log_loss(labels, said, independent=True) == pytest.approx(by_hand)
    # saying everything of everybody is no gain
    assert log_loss(labels, np.full((2, 2), 0.999), independent=True) > by_hand


@pytest.mark.parametrize("method", ["none", "temperature", "platt", "isotonic"])
def test_json_there_and_back(method):
    table = drawn(np.random.default_rng(5), 60)
    fitted = fit_recalibration(table, method)
    again = FittedRecalibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
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
        fit_recalibration(drawn(np.random.default_rng(0), 30), "beta")
    with pytest.raises(RunError, match="no saved calibration"):
        FittedRecalibration.from_dict({"method": "temperature"})
    with pytest.raises(RunError, match="above 0"):
        Temperature(-1.0)
    with pytest.raises(RunError, match="slopes above 0"):
        PlattScaling((-1.0,), (0.0,))
    with pytest.raises(RunError, match="do not rise"):
        Isotonic(((0.1, 0.5),), ((0.6, 0.2),))
    weak = fit_recalibration(drawn(np.random.default_rng(1), 40), "isotonic")
    assert "follows chance" in weak.why
