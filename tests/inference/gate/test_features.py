"""The gate's third check: its measures by hand, its limit on validation, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.cohorts import tiny_recipe

from sightline.errors import RunError
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.evidence.scope import write_report_scope
from sightline.inference.gate.features import (
    ACCEPTED,
    NEIGHBOUR,
    FeatureLimits,
    fit_features,
    read_feature_limits,
    score_features,
)
from sightline.inference.gate.fit import fit_gate
from sightline.inference.gate.gate_file import GATE, write_gate
from sightline.inference.gate.layout import LENGTH, LayoutLimits
from sightline.inference.gate.scope import ScopeChecks, read_scope
from sightline.inference.predict import TorchNetwork
from sightline.inference.radiographs import predict_files, read_radiograph
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


def drawn(n, seed, shift=0.0):
    """Features of 12 numbers of which three differ much; `shift` moves one that never did."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 12)) * np.array([5.0, 3.0, 2.0] + [0.1] * 9) + 1.0
    features[:, -1] += shift
    return features, 4.0 + 0.3 * rng.standard_normal(n)


@pytest.fixture(scope="module")
def limits():
    return fit_features(drawn(300, 0)[0], *drawn(200, 1))


def test_measures_by_an_obvious_restatement(limits):
    features, energies = drawn(5, 2)
    training = drawn(300, 0)[0]
    covariance = np.cov(training.T)
    measured = limits.measure(features, energies)
    # all 12 directions are kept: Mahalanobis by the inverse covariance, and no residual
    for row, one, energy in zip(measured, features, energies, strict=True):
        away = one - training.mean(axis=0)
        assert row[0] == pytest.approx(np.sqrt(away @ np.linalg.inv(covariance) @ away), rel=1e-5)
        assert row[1] == pytest.approx(0.0, abs=2e-3) and row[3] == -energy
        between = [np.sqrt((one - x) @ np.linalg.inv(covariance) @ (one - x)) for x in training]
        assert row[2] == pytest.approx(sorted(between)[NEIGHBOUR - 1], rel=1e-4)


def test_the_residual_is_what_no_direction_holds():
    known, checked, energies = np.zeros((40, 3)), np.zeros((20, 3)), np.zeros(20)
    known[:, 0] = np.linspace(-1, 1, 40)
    checked[:, 0] = np.linspace(-1, 1, 20)
    found = fit_features(known, checked, energies)
    assert found.measure(np.array([[0.5, 3.0, 4.0]]), np.zeros(1))[0, 1] == pytest.approx(5.0)


@pytest.mark.parametrize("validation", [18, 60, 250])
def test_as_many_fresh_pictures_lie_inside_as_is_said(validation):
    """With few validation pictures too: the greatest of 18 scores is exceeded by one picture in 19."""
    inside = []
    for seed in range(20):
        found = fit_features(drawn(150, 10 * seed)[0], *drawn(validation, 10 * seed + 1))
        inside.append(float((found.score(*drawn(200, 10 * seed + 2)) <= 1.0).mean()))
    assert np.mean(inside) == pytest.approx(ACCEPTED, abs=0.006)


def test_what_never_varied_and_what_says_little_is_outside(limits):
    assert (limits.score(*drawn(100, 3, shift=2.0)) > 1.0).mean() > 0.99
    features, _ = drawn(100, 4)
    assert (limits.score(features, np.full(100, 0.0)) > 1.0).all()
    assert limits.score(np.full((1, 12), np.nan), np.zeros(1))[0] == np.inf


def test_it_comes_back_from_json_and_damage_is_refused(limits):
    plain = json.loads(json.dumps(limits.to_plain()))
    again = read_feature_limits(plain)
    np.testing.assert_allclose(again.score(*drawn(50, 5)), limits.score(*drawn(50, 5)), rtol=1e-4)
    assert read_feature_limits({}) is None and score_features(None, None, 0.0) is None
    for name, value in (("limit", -1.0), ("measures", []), ("directions", plain["mean"]), ("kept", {"shape": [1]})):
        with pytest.raises(RunError, match="damaged"):
            read_feature_limits({**plain, name: value})
    with pytest.raises(RunError, match="12 features"):
        FeatureLimits.from_plain(plain).score(np.zeros((1, 5)), np.zeros(1))
    with pytest.raises(RunError, match="does not give"):
        score_features(limits, None, 0.0)
    with pytest.raises(RunError, match="20 and 10"):
        fit_features(np.zeros((19, 3)), np.zeros((20, 3)), np.zeros(20))


def test_predict_and_evaluate_say_the_scope(tiny_cohort, tmp_path, no_overlays):
    run = train(tiny_recipe(steps=2), tiny_cohort, tmp_path / "run", CATALOGUE, QUIET)
    files = [case.image for case in tiny_cohort.split("test")]
    predict_files(run, files[:2], tmp_path / "before", QUIET)
    assert (tmp_path / "before" / "predictions.csv").read_text().splitlines()[1].endswith(",not asked,")
    gate = fit_gate(run, tiny_cohort, {"modality": ("DX",), "body_part": ("WRIST",)}, quiet=True)
    # four validation cases are too few, and it says so; here those of the test stand in for them
    assert "4 validation pictures" in gate.about["no features"] and gate.features == {}
    network, view = TorchNetwork(run), run.recipe.view
    said = {}
    for split in ("train", "test"):
        pictures = [read_radiograph(case.image) for case in tiny_cohort.split(split)]
        said[split] = [network(view.show(one.pixels, one.frame)[0][None]) for one in pictures]
    known, checked = (np.concatenate([one.features for one in said[split]]) for split in ("train", "test"))
    check = fit_features(known, checked, np.concatenate([one.energies for one in said["test"]]))
    write_gate(run.folder, replace(gate, features=check.to_plain()))
    stripes = np.zeros((40, 48), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    predict_files(run, [*files, tmp_path / "stripes.png"], tmp_path / "after", QUIET)
    head, *rows = [line.split(",") for line in (tmp_path / "after" / "predictions.csv").read_text().splitlines()]
    assert head[-2:] == ["scope", "scope_score"]
    assert [row[-2] for row in rows] == ["inside" if float(row[-1]) <= 1 else "outside" for row in rows]
    assert rows[-1][-2] == "outside" and sum(row[-2] == "inside" for row in rows) >= 9
    test = tiny_cohort.split("test")
    found = evaluate(run, test, "test", engine=QUIET)
    said = write_report_scope(found, read_scope(run.folder), test, "tiny, test", tmp_path)
    scores = [line.split(",")[-1] for line in (tmp_path / "scope.csv").read_text().splitlines()[1:]]
    # batches and channels-last memory round otherwise
    np.testing.assert_allclose([float(x) for x in scores], [float(row[-1]) for row in rows[:-1]], atol=2e-3)
    assert f"Scope: {sum(float(x) > 1 for x in scores)} of {len(scores)} cases" in said
    assert "not asked" in write_report_scope(found, ScopeChecks(), test, "tiny, test", tmp_path)
    # kept, and read instead of asked again
    again = evaluate(run, test, "test", engine=QUIET)
    np.testing.assert_array_equal(again.features, found.features)
    # the layout check counts too: here one that refuses what is bright in the upper left corner alone
    weights = np.zeros((3, LENGTH))
    weights[:, 0] = -2.0
    layout = LayoutLimits(weights, np.zeros(3), 0.0, -1.0, {"90": 1.0, "180": 1.0, "270": 1.0}, 12)
    write_gate(run.folder, replace(gate, features=check.to_plain(), layout=layout.to_plain()))
    corner = np.full((64, 64), 60, dtype=np.uint8)
    corner[:4, :4] = 250
    Image.fromarray(corner).save(tmp_path / "corner.png")
    predict_files(run, [*files, tmp_path / "corner.png"], tmp_path / "layout", QUIET)
    both = [line.split(",") for line in (tmp_path / "layout" / "predictions.csv").read_text().splitlines()[1:]]
    assert both[-1][-2] == "outside" and float(both[-1][-1]) >= 15.9 / 8 > 1
    assert [row[-2] for row in both[:-1]] == [row[-2] for row in rows[:-1]]
    said = write_report_scope(found, read_scope(run.folder), test, "tiny, test", tmp_path)
    assert "features and layout checks" in said and "0 by layout" in said
    assert (run.folder / GATE).is_file()
