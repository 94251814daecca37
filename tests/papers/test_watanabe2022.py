"""The recipes and tables of Watanabe et al. 2022: eight rows in four tables, and two steps of each."""

import csv

import pytest

from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.summary import summarise
from sightline.explainers.gradients import InputGradient
from sightline.papers import watanabe2022
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table
from sightline.papers.watanabe2022 import MEAN_AUC, ROWS
from sightline.training.engine import Engine
from sightline.training.optimization import Adam, TriangularCycles
from sightline.training.run import open_run
from sightline.training.serialization import build_from_plain, to_plain

QUIET = Engine(device="cpu", quiet=True)
PROFILES = ("paper", "official_code", "recommended")
TABLES = tuple(f"watanabe2022/table{n}" for n in (1, 2, 3, 4))
TINY = Changes(steps=2, size=48, batch_size=4, backbone="test_resnet", weights="none")


def tables_of(profile, changes=None):
    return [find_table(name, profile, changes or Changes()) for name in TABLES]


@pytest.mark.parametrize("profile", PROFILES)
def test_four_tables_hold_eight_rows(profile):
    rows = {}
    for table in tables_of(profile):
        assert table.rows[0].name == "U-Net" and {row.reference for row in table.rows[1:]} == {"U-Net"}
        for row in table.rows:
            # a row of one name is the same training in every table
            assert rows.setdefault(row.name, row.recipe) == row.recipe
            assert build_from_plain(to_plain(row.recipe, CATALOGUE), CATALOGUE) == row.recipe
    assert set(rows) == set(ROWS) and len(rows) == 8
    using = {name for name, recipe in rows.items() if recipe.guided_by_regions}
    # without a decoder there is nothing to hold gaze against, and set 2 has none
    assert set(rows) - using == {"no segmentation", "set 2 guided", "set 2 deconvolution"}
    assert {name for name, r in rows.items() if r.objective.explainer is not None} == {n for n in rows if "set " in n}


def test_printed_values_stand_where_the_paper_prints_them():
    best = ROWS["set 3 guided"]
    assert str(best[f"{MEAN_AUC}, test"]) == "0.913 (0.86 to 0.966), p = 1.281e-06"
    # as printed, though it looks exchanged with the one above it
    assert best["image-wise AUC of CHF, test"].p == 0.684 and best["image-wise AUC of Normal, test"].p == 1.981e-16
    assert ROWS["U-Net"][f"{MEAN_AUC}, test"].p is None
    for cells in ROWS.values():
        assert all(cell.low < cell.mean < cell.high for cell in cells.values())
        each = [cell.mean for metric, cell in cells.items() if not metric.startswith(MEAN_AUC)]
        # medians of draws: their mean is near the mean's median, not equal to it
        assert sum(each) / 3 == pytest.approx(cells[f"{MEAN_AUC}, test"].mean, abs=0.006)


def test_the_papers_optimisation():
    recipe = watanabe2022.build_base_recipe("paper")
    assert (recipe.epochs, recipe.batch_size, recipe.view.size) == (35, 32, 224)
    assert recipe.optimiser == Adam(clip_value=0.1) and recipe.objective.gamma == 0.41731
    rates = [recipe.schedule.rate(10 * epoch, 350, 10) for epoch in range(6)]
    # golden check 17 (spec 6.3)
    assert rates[:3] == pytest.approx([8.2e-5, 4.57e-3, 9.06e-3], rel=5e-3) and rates[4] == pytest.approx(rates[0])
    alone = watanabe2022.build_encoder_recipe("paper")
    assert (alone.epochs, alone.schedule) == (20, TriangularCycles(0.006486, half_cycle_epochs=8))
    assert (alone.model.dropout, recipe.model.dropout, alone.model.decoder) == (0.0, 0.5, False)
    assert recipe.objective.target == "linear"
    assert watanabe2022.build_base_recipe("official_code").objective.target == "viridis_gray"
    assert (recipe.regions.of, recipe.regions.weigh, recipe.regions.sigma_px) == ("fixations", "count", 150.0)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_weight_of_set_3_is_swept(profile):
    table = find_table("watanabe2022/weights", profile, Changes())
    found = {row.name: (row.recipe.objective.w, row.recipe.objective.explainer.rule) for row in table.rows[1:]}
    assert found == {f"set 3 {r}, w {w:g}": (w, r) for w in (0.25, 0.5, 0.75) for r in ("guided", "deconvolution")}
    # half is what Table 4 trains: one folder trains it once
    four = {row.name: row for row in watanabe2022.build_table4(profile).rows}
    for row in table.rows[1:]:
        name, w = row.name.split(", w ")
        assert (row.recipe == four[name].recipe) is (w == "0.5") and (row.published == ROWS[name]) is (w == "0.5")


def test_what_the_sets_compare():
    for which in ("set1", "set2", "set3"):
        for rule in ("guided", "deconvolution"):
            loss = watanabe2022.add_explainer(which, rule).objective
            assert (loss.match, loss.explainer, loss.to_logits) == (which, InputGradient(rule=rule), "logit")
            assert watanabe2022.add_explainer(which, rule, "paper").objective.to_logits == "raw"
    # by default the rules are what their papers say: the encoder has ReLUs
    assert watanabe2022.build_base_recipe().model.encoder.name == "resnet34"
    assert "efficientnet_b0" in watanabe2022.build_base_recipe("paper").model.encoder.name


def test_changes_reach_the_encoder():
    (row, *_) = find_table("watanabe2022/table4", "recommended", TINY).rows
    assert row.recipe.model.encoder.name == "test_resnet" and row.recipe.model.encoder.weights is None


@pytest.mark.parametrize(
    ("profile", "names", "rows", "trainings"),
    [
        pytest.param("paper", TABLES, (), 8, marks=pytest.mark.slow),
        pytest.param("recommended", TABLES, (), 8, marks=pytest.mark.slow),
        ("recommended", TABLES[2:3], ("set 2 deconvolution",), 2),
    ],
)
def test_every_row_trains_once(gazed_cohort, tmp_path, profile, names, rows, trainings):
    folders = set()
    for table in [find_table(name, profile, TINY, rows) for name in names]:
        result = run_table(table, gazed_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
        assert [row.why_not for row in result.rows] == [None] * len(table.rows)
        # what the paper prints is measured under the very names
        measured = {f"{line.metric}, {line.test}" for line in summarise(result, replicates=20)}
        assert {metric for row in table.rows for metric in row.published} <= measured
        for row in result.rows:
            run = open_run(row.folders[0], CATALOGUE)
            folders.add(run.folder)
            (history, *_) = csv.DictReader((run.folder / "history.csv").open())
            assert float(history["classification"]) > 0.0
            assert ("map_error" in history) is (row.row.name != "no segmentation")
    # the tables share the U-Net
    assert len(folders) == trainings
