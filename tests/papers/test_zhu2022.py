"""The recipes and tables of Zhu et al. 2022: every row, what each ablation changes, and two steps of each."""

import csv
import math
from dataclasses import fields, replace

import pytest
import torch

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.summary import summarise
from sightline.losses.gg_cam import GazeGuided
from sightline.papers import zhu2022
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes, apply_changes
from sightline.papers.recipes import find_recipe, find_table
from sightline.papers.zhu2022 import HAND_TILL, TABLE2
from sightline.training.engine import Engine
from sightline.training.optimization import Adam, ReduceOnPlateau
from sightline.training.run import open_run
from sightline.training.serialization import build_from_plain, to_plain
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
PROFILES = ("paper", "official_code", "recommended")
QUICK = 20
TINY = Changes(steps=2, size=48, batch_size=4, backbone="test_resnet", weights="none")


def measured(result):
    """Metrics of a table's lines, as published values name them."""
    return {f"{line.metric}, {line.test}" for line in summarise(result, replicates=QUICK)}


@pytest.mark.parametrize("profile", PROFILES)
def test_table2_is_two_networks_with_gaze_and_without(profile):
    rows = {row.name: row for row in zhu2022.build_table2(profile).rows}
    assert set(rows) == set(TABLE2)
    for network in ("ResNet", "EffNet"):
        plain, guided = rows[network], rows[f"{network}+GG-CAM"]
        assert guided.reference == network and plain.reference is None
        # the same network on the same pictures: only what is minimised differs, and Table 1's rates
        assert plain.recipe.model == guided.recipe.model and plain.recipe.view == guided.recipe.view
        assert not plain.recipe.guided_by_regions and guided.recipe.guided_by_regions
        for recipe in (plain.recipe, guided.recipe):
            assert build_from_plain(to_plain(recipe, CATALOGUE), CATALOGUE) == recipe


def test_printed_values_stand_where_the_paper_prints_them():
    assert [TABLE2[n][f"{HAND_TILL}, test"].mean for n in TABLE2] == [0.801, 0.776, 0.723, 0.721]
    assert str(TABLE2["EffNet+GG-CAM"]["image-wise recall for pneumonia, test"]) == "0.486 ± 0.086"
    assert str(TABLE2["ResNet"]["image-wise precision for CHF, test"]) == "0.54 ± 0.048"
    recalls = {p.mean for row in TABLE2.values() for m, p in row.items() if "recall" in m}
    # of 72 or 73 test images a class (spec 3.3)
    assert all(min(abs(r * n - round(r * n)) / n for n in (72, 73)) < 5.1e-4 for r in recalls)


def test_the_papers_optimisation_is_table_1():
    for network, rate, patience, sigma, spread in (
        ("EffNet", 6e-3, 40, 1.4e-11, 600.0),
        ("ResNet", 7e-3, 30, 2e-9, 500.0),
    ):
        recipe = zhu2022.build_guided_recipe("paper", network)
        assert recipe.schedule == ReduceOnPlateau(rate, 0.1, patience) and recipe.optimiser == Adam()
        assert recipe.objective == GazeGuided(sigma_map=sigma) and recipe.objective.sigma_ce == 1.0
        assert recipe.regions == GazeChoice(weigh="count", sigma_px=spread)
        assert (recipe.batch_size, recipe.epochs, recipe.select) == (4, 1024, "loss")
        assert recipe.model.backbone.weights is None and recipe.model.fusion is None
    assert zhu2022.build_base_recipe("paper", "EffNet").schedule == ReduceOnPlateau(1e-3, 0.1, 25)
    assert zhu2022.build_base_recipe("paper", "ResNet").schedule == ReduceOnPlateau(1e-4, 0.1, 50)


def test_the_released_code_is_what_it_does():
    recipe = zhu2022.build_guided_recipe("official_code")
    assert recipe.model.reduce == "mean" and recipe.regions.classes == "first" and recipe.regions.kernel_px == 500
    loss = recipe.objective.build()
    assert not recipe.objective.squash and not isinstance(loss.log_gain, torch.nn.Parameter)
    assert (float(loss.log_sigma_map.detach()), float(loss.log_sigma_ce.detach())) == pytest.approx((-23.0, 7.0))
    assert {p.dtype for p in loss.parameters()} == {torch.float32}
    assert math.log(zhu2022.build_guided_recipe("official_code", "EffNet").objective.sigma_map) == pytest.approx(-16.0)


def test_no_recipe_mirrors_a_chest():
    for profile in PROFILES:
        for make in (zhu2022.build_table2, zhu2022.build_ablation_table):
            assert all(row.recipe.view.flip_chance == 0.0 for row in make(profile).rows)


@pytest.mark.parametrize("profile", PROFILES)
def test_an_ablation_changes_one_thing(profile):
    table = zhu2022.build_ablation_table(profile)
    rows = {row.name: row.recipe for row in table.rows}
    own = rows.pop("ResNet+GG-CAM")
    assert rows.pop("ResNet").objective is None

    def differences(a, b):
        return {f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name)}

    found = {}
    for name, recipe in rows.items():
        assert differences(replace(recipe, title=""), replace(own, title="")) <= {"objective", "regions"}
        found[name] = differences(recipe.objective, own.objective) | differences(recipe.regions, own.regions)
    assert found == {
        "gaze on the first class's map": {"classes"},
        "gaze on all maps": {"classes"},
        "gaze on the predicted class's map": {"guide"},
        "first class's map, no sigmoid": {"classes", "squash"},
        "gain fixed": {"learn_gain"},
        "weight fixed at 1": {"weights"},
        "weight fixed at 10": {"weights", "weight"},
        "shuffled gaze": {"control"},
        "centre prior": {"control"},
    }


def test_table_3_shows_gaze_and_every_network_of_table_2():
    table, trained = find_table("zhu2022/table3", "paper", Changes()), find_table("zhu2022/table2", "paper", Changes())
    (figure,) = table.figures
    assert table.rows == trained.rows and figure.gaze and figure.classes == ("Normal", "CHF", "pneumonia")
    assert set(figure.rows) == {row.name for row in table.rows}


def test_the_tables_share_their_rows():
    ours, theirs = zhu2022.build_ablation_table().rows, zhu2022.build_table2().rows
    assert [row.recipe for row in ours[:2]] == [row.recipe for row in theirs[:2]]
    assert [row.name for row in ours[:2]] == [row.name for row in theirs[:2]]


# of the ablations those that another part of the training reads: which map, its weight, whose gaze
ABLATED = ("gaze on the predicted class's map", "weight fixed at 10", "shuffled gaze")


@pytest.mark.parametrize(
    ("name", "profile", "rows"),
    [("zhu2022/table2", "official_code", ()), ("zhu2022/ablations", "recommended", ABLATED)]
    + [pytest.param("zhu2022/table2", p, (), marks=pytest.mark.slow) for p in ("paper", "recommended")]
    + [pytest.param("zhu2022/ablations", p, (), marks=pytest.mark.slow) for p in ("paper", "recommended")],
)
def test_every_row_trains(gazed_cohort, tmp_path, name, profile, rows):
    table = find_table(name, profile, TINY, rows)
    result = run_table(table, gazed_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert [row.why_not for row in result.rows] == [None] * len(table.rows)
    # what the paper prints is measured under the very names
    printed = {metric for row in table.rows for metric in row.published}
    assert not printed or printed <= measured(result)
    for row in result.rows:
        run = open_run(row.folders[0], CATALOGUE)
        assert run.done and row.evaluations["test"][0].maps is not None
        history = list(csv.DictReader((run.folder / "history.csv").open()))
        loss = row.row.recipe.objective
        if loss is None:
            continue
        assert float(history[0]["map_error"]) > 0.0 and (run.folder / "objective.safetensors").is_file()
        # of the three numbers, those that take part are logged
        assert ("gain" in history[0]) is loss.squash and ("sigma_map" in history[0]) is (loss.weights == "learned")
        if loss.weights == "learned":
            # what the schedule watches and the best epoch is chosen by is equation 11
            said = {name: float(history[0][f"val_{name}"]) for name in ("cross_entropy", "map_error", "sigma_map")}
            ce = float(history[0]["val_sigma_ce"])
            terms = said["map_error"] / (2 * said["sigma_map"] ** 2), said["cross_entropy"] / ce**2
            penalties = math.log1p(said["sigma_map"]) + math.log1p(ce)
            assert float(history[0]["val_loss"]) == pytest.approx(sum(terms) + penalties, rel=1e-4)
            assert float(history[0]["sigma_map"]) != pytest.approx(loss.sigma_map, rel=1e-12, abs=0.0)


def test_gaze_forms_the_map_and_training_the_weights(gazed_cohort, tmp_path):
    recipe = apply_changes(find_recipe("gg-cam"), replace(TINY, size=48, steps=40, batch_size=6, rate=3e-3))
    run = train(recipe, gazed_cohort, tmp_path / "run", CATALOGUE, QUIET)
    rows = list(csv.DictReader((run.folder / "history.csv").open()))
    error = [float(row["map_error"]) for row in rows]
    assert error[-1] < 0.8 * error[0]
    sigma = [float(row["sigma_map"]) for row in rows]
    assert sigma == sorted(sigma) and float(rows[-1]["gain"]) != 1.0
    # every tenth reading is missing: such images count for the classes alone, and nothing is NaN
    assert all(math.isfinite(float(row["loss"])) and math.isfinite(float(row["val_loss"])) for row in rows)
