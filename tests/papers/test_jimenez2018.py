"""The recipes and tables of Jimenez-Sanchez et al. 2018: every row it lists, and two steps of each."""

from collections import Counter
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.task import Task
from sightline.data.views.crops import RegionJitter
from sightline.errors import CohortError
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.losses.box_distance import BoxDistance
from sightline.losses.sampled_windows import SampledWindowLoss
from sightline.losses.self_transfer import SelfTransferLoss
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool
from sightline.papers import jimenez2018
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.jimenez2018 import PRINTED_MAP, TABLE2, TABLE3, TABLE5
from sightline.papers.overrides import Changes, apply_changes
from sightline.papers.recipes import find_recipe, find_table
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.optimization import Adagrad, LayerRates, Sgd, StepDecay
from sightline.training.run import open_run

LABELS = ("normal", "A1", "A2", "A3", "B1", "B2", "B3")
PROFILES = ("paper", "recommended")
TINY = Changes(steps=2, size=48, backbone="test_resnet", weights="none", batch_size=4)


@pytest.fixture(scope="module")
def femurs(tmp_path_factory):
    """42 little pictures of 21 patients, both femurs each, one square box an image."""
    place = tmp_path_factory.mktemp("femurs")
    (place / "images").mkdir()
    rng = np.random.default_rng(0)
    cases = []
    for patient in range(21):
        for side, label in enumerate((LABELS[patient % 7], LABELS[(patient + 3) % 7])):
            name = f"P{patient:02d}-{side}"
            Image.fromarray(rng.integers(0, 255, (60, 50)).astype(np.uint8)).save(place / "images" / f"{name}.png")
            box = Box((20.0, 15.0), (40.0, 35.0), Tag("finding"))
            split = ("train", "val", "test")[patient // 7]
            image = place / "images" / f"{name}.png"
            cases.append(Case(name, name, f"P{patient:02d}", image, label, (box,), split, "AP", (60, 50), (0.5, 0.5)))
    write_cohort(Cohort("femurs", LABELS, tuple(cases), place), place)
    return read_cohort(place)


@pytest.mark.parametrize("profile", PROFILES)
def test_table2_has_the_papers_rows(profile):
    table = jimenez2018.build_table2(profile)
    names = {row.name for row in table.rows}
    assert len(table.rows) == 21 and names == set(TABLE2)
    printed = [row for row in table.rows if "localiser" not in row.name]
    assert Counter(row.name[:2] for row in printed) == {"2c": 5, "3c": 5, "6c": 8}
    for row in table.rows:
        assert set(row.parts.values()) <= names and (row.reference is None or row.reference in names)
        assert bool(row.parts) == ("Sup+UBM" in row.name)


@pytest.mark.parametrize("profile", PROFILES)
def test_tables_3_and_5_have_the_papers_rows(profile):
    assert {row.name for row in jimenez2018.build_table3(profile).rows} == set(TABLE3) and len(TABLE3) == 16
    assert {row.name for row in jimenez2018.build_table5(profile).rows} == set(TABLE5) and len(TABLE5) == 36


def test_printed_values_stand_where_the_paper_prints_them():
    weighted = "image-wise F1 weighted by support, test"
    assert TABLE2["3c UBM"][weighted].mean == 0.87
    assert TABLE2["6c Sup+UBM CE"]["image-wise F1 of B1, test"].mean == 0.63
    assert TABLE3["6c STL 0.6 WCE"][f"{PRINTED_MAP}, test"].mean == 0.35
    assert weighted not in TABLE3["3c STL 0.3"]  # printed 0.71, but its own classes give 0.82
    assert TABLE5["6c UBM AVG"][weighted].mean == 0.46
    # the transformers' boxes of Table V never moved
    moved = {cells[f"{PRINTED_MAP}, test"].mean for name, cells in TABLE5.items() if "STN" in name}
    assert moved == {0.32}


def feature_networks(part):
    """Every feature network of a config."""
    if isinstance(part, AlexNet | Backbone):
        return [part]
    inner = [getattr(part, f.name) for f in fields(part)] if is_dataclass(part) else []
    return [found for each in inner for found in feature_networks(each)]


def test_the_papers_optimisation_is_table_1():
    recipe = {name: jimenez2018.build_base_recipe("paper") for name in ("base",)}["base"]
    assert recipe.optimiser == Sgd(momentum=0.9, weight_decay=0.0)
    assert recipe.schedule == StepDecay(1e-2, 0.5, 10)
    assert (recipe.epochs, recipe.batch_size, recipe.select) == (80, 64, "loss")
    assert recipe.view.jitter == RegionJitter() and recipe.view.equalise
    localiser = jimenez2018.build_supervised_localiser(recipe, "paper")
    assert localiser.epochs == 200 and localiser.schedule.start == 1e-8
    assert localiser.objective == BoxDistance("pixel") and localiser.model.trunk == AlexNet("imagenet")
    stn = jimenez2018.build_transformer(recipe, "affine", "paper")
    assert stn.model.roi_px is None and stn.view.size == 224 and stn.model.square_box
    # rows 1 and 3 of Table I, each in its own time: epoch, classifier, localisation network
    for epoch, whole, part in ((0, 1e-2, 1e-6), (24, 2.5e-3, 1e-6), (25, 2.5e-3, 5e-7), (79, 7.8125e-5, 1.25e-7)):
        assert stn.schedule.rate(epoch, 80, 1) == pytest.approx(whole)
        assert stn.rates.own(epoch, 80, 1) == pytest.approx({"localiser.": part})
    # Table V names one rate: the localiser keeps its ten-thousandth of it, throughout
    five = {row.name: row.recipe for row in jimenez2018.build_table5("paper").rows}["3c a-STN AVG"]
    assert five.optimiser == Adagrad() and five.rates == LayerRates({"localiser.": 1e-4})
    assert {five.schedule.rate(epoch, 80, 1) for epoch in (0, 30, 79)} == {1e-3}
    # "all models were initialized with pre-trained weights on ImageNet"
    tables = (jimenez2018.build_table2, jimenez2018.build_table3, jimenez2018.build_table5)
    for row in (row for table in tables for row in table("paper").rows):
        trunks = feature_networks(row.recipe.model)
        assert trunks and all(trunk.weights == "imagenet" for trunk in trunks), row.name
    stl = jimenez2018.build_self_transfer(recipe, 0.3, "paper")
    assert (stl.view.size, stl.schedule, stl.objective) == (500, StepDecay(1e-2, 0.1, 40), SelfTransferLoss(0.3))
    pooled = jimenez2018.build_global_pooling(recipe, "LSE", "paper")
    assert pooled.optimiser == Adagrad() and pooled.model.pool == LogSumExpPool(10.0)
    assert [jimenez2018.POOLS[p] for p in ("MAX", "AVG")] == [MaxPool(), MeanPool()]


@pytest.mark.parametrize("profile", PROFILES)
def test_figures_3_and_4_are_rows_of_the_tables(profile):
    (third,) = jimenez2018.build_table3(profile).figures
    assert third.rows == ("6c STL 0.6 CE", "6c STL 0.6 WCE") and third.classes == LABELS[1:]
    made = find_table("jimenez2018/figure4", profile, Changes())
    (fourth,) = made.figures
    rows = {row.name: row for row in made.rows}
    assert set(fourth.rows) | {"3c UBM"} == set(rows) and len(fourth.rows) == 8
    tables = (jimenez2018.build_table2, jimenez2018.build_table3, jimenez2018.build_table5)
    trained = {row.name: row for table in tables for row in table(profile).rows}
    assert all(row.recipe == trained[name].recipe and row.parts == trained[name].parts for name, row in rows.items())


def test_imbalance_is_met_as_printed():
    rows = {row.name: row.recipe for row in jimenez2018.build_table2().rows}
    assert rows["2c LBM"].reweight == rows["3c UBM"].reweight == rows["6c LBM CE"].reweight == "oversample"
    assert rows["6c LBM WCE"].reweight == rows["6c UBM WCE"].reweight == "inverse_frequency"


def test_a_smaller_table_shrinks_every_size_alike():
    rows = {row.name: row.recipe for row in find_table("jimenez2018/table2", "recommended", TINY).rows}
    assert rows["3c LBM"].view.size == 48
    stn = rows["3c aff-STN"]
    assert (stn.view.size, stn.model.localiser_px, stn.model.roi_px) == (96, 48, 48)
    assert stn.model.localiser.name == stn.model.classifier.backbone.name == "test_resnet"
    cascade = rows["3c Sup+UBM"]
    assert (cascade.view.size, cascade.model.roi_px, cascade.model.localiser.input_px) == (96, 48, 48)
    # training lengths keep their ratio: the localiser trains 200 epochs where others train 80
    longer = {r.name: r.recipe for r in find_table("jimenez2018/table2", "recommended", Changes(epochs=8)).rows}
    assert longer["2c LBM"].epochs == 8 and longer["2c sup. localiser"].epochs == 20


def test_transformers_that_move_stand_in_a_table_of_their_own():
    rows = {row.name: row for row in find_table("femur/transformers", "recommended", Changes(epochs=8)).rows}
    assert {row.reference for row in rows.values()} == {None, "3c LBM"}
    assert rows["3c a-STN"].recipe.epochs == 8 and rows["3c a-STN, longer"].recipe.epochs == 16
    tries, places = rows["3c a-STN, tries"].recipe, rows["3c a-STN, places"].recipe
    assert tries.epochs == places.epochs == 16
    assert isinstance(tries.objective, SampledWindowLoss) and places.objective is None
    assert replace(tries.model, sampling=None) == places.model


@pytest.mark.slow
def test_two_steps_of_transformers_that_move(femurs, tmp_path, no_pictures):
    table = find_table("femur/transformers", "recommended", TINY, ("3c a-STN, tries",))
    assert table.rows[-1].recipe.model.localiser.name == "test_resnet"
    result = run_table(table, femurs, tmp_path, CATALOGUE, seeds=(0,), engine=Engine(quiet=True))
    assert {row.row.name: row.why_not for row in result.rows if row.why_not is not None} == {}
    text = write_table(result, tmp_path, replicates=20)
    assert "window scale" in text and "centre prior" in text
    run = open_run(result.of("3c a-STN, tries").folders[0], CATALOGUE)
    assert "window_scale" in (run.folder / "history.csv").read_text()


def test_asking_for_a_row_brings_what_it_is_put_together_from():
    names = {row.name for row in find_table("jimenez2018/table2", "recommended", Changes(), ("3c Sup",)).rows}
    assert names == {"3c LBM", "3c sup. localiser", "3c UBM", "3c Sup+UBM"}


# one of each kind, and what it is put together from; transformers are trained below
KINDS = ("2c LBM", "3c Sup+UBM", "6c LBM CE")


@pytest.mark.parametrize("rows", [KINDS, pytest.param((), marks=pytest.mark.slow)], ids=["kinds", "all"])
def test_two_steps_of_rows_of_table2(femurs, tmp_path, request, rows):
    request.getfixturevalue("no_pictures" if rows else "few_pictures")
    table = find_table("jimenez2018/table2", "recommended", TINY, rows)
    assert len(table.rows) == (6 if rows else 21)
    result = run_table(table, femurs, tmp_path, CATALOGUE, seeds=(0,), engine=Engine(quiet=True))
    assert {row.row.name: row.why_not for row in result.rows if row.why_not is not None} == {}
    classes = {"2c": ("normal", "fracture"), "3c": ("normal", "A", "B"), "6c": LABELS[1:]}
    for row in result.rows:
        evaluation = row.evaluations["test"][0]
        assert evaluation.predictions.classes == classes[row.row.name[:2]]
        assert evaluation.box_scores is not None
    text = write_table(result, tmp_path, replicates=20)
    assert "whole image" in text and "centre prior" in text and "0.71" in text
    assert "image-wise F1 of fracture" in text and PRINTED_MAP in text
    # the localiser says no class, so it has no accuracy
    lines = [line for line in (tmp_path / "table.csv").read_text().splitlines() if "3c sup. localiser" in line]
    assert lines and not any("accuracy," in line.split("IoU")[0] for line in lines)
    # the row that is put together holds its parts' weights
    both = result.of("3c Sup+UBM")
    run = open_run(both.folders[0], CATALOGUE)
    assert run.done and set(run.cohort["parts"]) == {"localiser", "classifier"}
    part = open_run(result.of("3c UBM").folders[0], CATALOGUE)
    assert run.cohort["parts"]["classifier"] == part.identity
    mine, theirs = run.network().state_dict(), part.network().state_dict()
    assert all((mine[f"classifier.{name}"] == tensor).all() for name, tensor in theirs.items())


# each kind of row once, and both of each
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("table3", ("6c STL 0.3 WCE",)),
        ("table5", ("3c UBM MAX",)),
        pytest.param("table3", ("3c STL 0.3", "6c STL 0.3 WCE"), marks=pytest.mark.slow),
        pytest.param("table5", ("3c LBM LSE", "3c UBM MAX"), marks=pytest.mark.slow),
    ],
)
def test_two_steps_of_rows_of_the_other_tables(femurs, tmp_path, name, rows, no_pictures):
    table = find_table(f"jimenez2018/{name}", "recommended", TINY, rows)
    result = run_table(table, femurs, tmp_path, CATALOGUE, seeds=(0,), engine=Engine(quiet=True))
    assert all(row.why_not is None for row in result.rows)
    text = write_table(result, tmp_path, replicates=20)
    assert PRINTED_MAP in text
    chosen = [row for row in result.rows if (row.folders[0] / "boxes.json").is_file()]
    assert len(chosen) == len(result.rows)


def test_crops_that_only_fractures_have_are_refused(tiny_cohort, tmp_path):
    """On data whose normal images carry no box the expert's crop would give the label away."""
    table = find_table("jimenez2018/table2", "recommended", TINY, ("2c Sup+UBM",))
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=(0,), engine=Engine(quiet=True))
    reasons = {row.row.name: row.why_not for row in result.rows}
    assert reasons["2c LBM"] is None and reasons["2c sup. localiser"] is None
    assert isinstance(reasons["2c UBM"], CohortError) and "gives the label away" in str(reasons["2c UBM"])
    assert isinstance(reasons["2c Sup+UBM"], CohortError) and "2c UBM" in str(reasons["2c Sup+UBM"])


def test_labels_that_are_no_ao_codes_serve_only_the_coarsest_task(tiny_cohort, tmp_path):
    table = find_table("jimenez2018/table2", "recommended", TINY, ("3c LBM", "2c LBM"))
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=(0,), engine=Engine(quiet=True))
    assert result.of("2c LBM").why_not is None
    assert "AO" in str(result.of("3c LBM").why_not)


@pytest.mark.parametrize(
    "name", ["lbm", "ubm", "box-regression", "a-stn", "aff-stn", "clamped-stn", "sampled-window-stn", "self-transfer"]
)
def test_single_recipes_have_names(name):
    assert find_recipe(name).view.size in (224, 448)


def test_the_report_of_a_run_speaks_of_what_its_network_says(femurs, tmp_path):
    """A localiser has boxes and no accuracy; a transformer says how far it moved; three classes say broken or not."""
    from sightline.evaluation.evaluate import evaluate
    from sightline.evaluation.report import compute_report
    from sightline.training.train import train

    names = {}
    for name in ("box-regression", "aff-stn"):
        recipe = apply_changes(find_recipe(name), TINY)
        run = train(replace(recipe, task=Task("type")), femurs, tmp_path / name, CATALOGUE, Engine(quiet=True))
        evaluation = evaluate(run, femurs.split("test"), "test", engine=Engine(quiet=True))
        found = compute_report(evaluation, replicates=20, classifies=run.recipe.classifies)
        names[name] = {estimate.name for estimate in found}
    assert "IoU of the best box" in names["box-regression"] & names["aff-stn"]
    assert not any("accuracy, " in name for name in names["box-regression"])
    assert {"window scale", "centre shift (fraction)"} <= names["aff-stn"]
    assert "F1 at the level present (normal, fracture), image-wise" in names["aff-stn"]
