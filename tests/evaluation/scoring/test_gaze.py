"""Maps beside gaze in an evaluation: scored on one grid, read back equal, and compared in tables."""

from dataclasses import replace

import numpy as np
import pytest
from support.cohorts import tiny_recipe

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.report import compute_report
from sightline.evaluation.scoring.gaze import group_by_map, score_cohort_gaze
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.summary import summarise
from sightline.evaluation.tables.table import Row, Table
from sightline.explainers.gradients import InputGradient
from sightline.inference.network_output import Maps, NetworkOutput
from sightline.losses.gg_cam import GazeGuided
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.metrics.predictions import Predictions
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import CamLayer
from sightline.models.unet import UNet
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.regions import Mask
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.optimization import LinearDecay
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)


def recipe(**changes):
    base = tiny_recipe(**{"guidance": None, "weight": 0.0, "steps": 3, **changes})
    return replace(base, model=CamLayer(Backbone("test_resnet", output_stride=8)), regions=GazeChoice())


def unet(**changes):
    model = UNet(Backbone("test_resnet"), widths=(8, 8, 8, 8, 4))
    return replace(recipe(**changes), model=model)


def said_of(cohort, shown):
    n = len(cohort)
    ids = tuple(c.case_id for c in cohort)
    labels = np.array([cohort.class_index(c.label) for c in cohort])
    predictions = Predictions(
        cohort.classes, ids, ids, tuple(c.patient_id for c in cohort), labels, np.full((n, 3), 1 / 3)
    )
    flat = np.zeros((n, 3, 4, 4), dtype=np.float32)
    return NetworkOutput(predictions, Maps(ids, np.tile(np.arange(3), (n, 1)), flat, flat), None, shown)


def test_the_gaze_itself_agrees_and_its_mirror_image_does_not(gazed_cohort):
    view = recipe().view
    cases = gazed_cohort.where(lambda c: bool(c.regions))
    from sightline.data.views.frames import find_case_frame

    maps = []
    for case in cases:
        (gaze,) = case.regions
        maps.append(gaze.density(find_case_frame(case, view).resize((56, 56))))
    own = np.stack(maps)
    tables = group_by_map(
        score_cohort_gaze(said_of(cases, {"own": own, "mirrored": own[:, ::-1, ::-1].copy()}), cases, view)
    )
    assert np.allclose(tables["own"].column("cc"), 1.0) and np.allclose(tables["own"].column("kl"), 0.0, atol=1e-9)
    assert tables["own"].column("nss").mean() > tables["mirrored"].column("nss").mean() + 1.0
    assert tables["own"].column("sauc").mean() > 0.7
    # a flat class map says nothing
    assert np.allclose(tables["class map"].column("auc"), 0.5)
    assert len(tables["own"]) == len(cases)


def test_an_evaluation_keeps_what_was_painted_explained_and_scored(gazed_cohort, tmp_path):
    objective = HeatmapMatch("set3", InputGradient("guided"))
    run = train(unet(objective=objective), gazed_cohort, tmp_path / "run", CATALOGUE, QUIET)
    test = gazed_cohort.split("test")
    first = evaluate(run, test, "test", engine=QUIET)
    assert set(first.shown) == {"decoder", "heatmap"} and first.shown["decoder"].shape[0] == len(test)
    assert first.shown["decoder"].min() >= 0.0 and first.shown["decoder"].max() <= 1.0
    again = evaluate(run, test, "test", engine=QUIET)
    assert all(np.array_equal(first.shown[k], again.shown[k]) for k in first.shown)
    assert again.gaze_scores == first.gaze_scores and again.predictions == first.predictions
    readers = sum(bool(c.regions) for c in test)
    assert {name: len(t) for name, t in group_by_map(first.gaze_scores).items()} == dict.fromkeys(
        ("class map", "decoder", "heatmap"), readers
    )
    names = [e.name for e in compute_report(first, replicates=50)]
    assert "CC with gaze, decoder" in names and "NSS, heatmap" in names


def test_a_table_compares_maps_with_gaze(gazed_cohort, tmp_path):
    plain, guided = recipe(), recipe(objective=GazeGuided())
    table = Table("gaze", "gaze", (Row("plain", plain), Row("guided", guided, "plain")), "", size=48)
    result = run_table(table, gazed_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    lines = {(line.row, line.metric): line for line in summarise(result, replicates=100)}
    line = lines["guided", "CC with gaze, class map"]
    assert line.reference == "plain" and line.difference is not None and line.chance == pytest.approx(0.0, abs=1e-9)
    assert ("guided", "image-wise AUC Hand & Till") in lines and ("guided", "image-wise recall for CHF") in lines


def test_organs_are_pointed_at_exactly_and_with_a_cell_around(gazed_cohort, tmp_path):
    def organ(case):
        pixels = np.zeros(case.shape, dtype=bool)
        pixels[: case.shape[0] // 2] = True
        return Mask(pixels, Tag("organ", "CHF" if case.label == "CHF" else "pneumonia"))

    cases = tuple(c if c.label == "Normal" else replace(c, regions=(*c.regions, organ(c))) for c in gazed_cohort)
    cohort = replace(gazed_cohort, cases=cases)
    run = train(recipe(), cohort, tmp_path / "run", CATALOGUE, QUIET)
    test = cohort.split("test")
    evaluation = evaluate(run, test, "test", engine=QUIET)
    exact, around = evaluation.scores_for("organ"), evaluation.scores_for("organ", around=True)
    assert {r.label for r in exact.rows} == {"CHF", "pneumonia"} and len(exact) == len(around)
    assert (around.column("pointing") >= exact.column("pointing")).all()
    assert exact.column("pointing_chance").mean() < around.column("pointing_chance").mean()


def test_a_class_that_is_never_called_has_no_precision_and_breaks_no_table(gazed_cohort, tmp_path):
    rows = (Row("plain", recipe(steps=1, schedule=LinearDecay(0.0, 0.0))), Row("same", recipe(steps=1), "plain"))
    result = run_table(
        Table("one", "one", rows, "", size=48), gazed_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET
    )
    lines = {(line.row, line.metric): line for line in summarise(result, replicates=50)}
    undefined = [m for (_, m), line in lines.items() if m.startswith("image-wise precision") and line.mean is None]
    assert undefined and ("same", "image-wise accuracy") in lines
