"""Engstler 2022 in our words: recipes train on volumes, tables choose sources, printed values stand beside ours."""

import csv
import math
from dataclasses import replace

import pytest
from support.engines import QUIET
from support.layouts import make_spines

from sightline.data.split import select_sources
from sightline.errors import CohortError
from sightline.evaluation.evaluate import evaluate
from sightline.evaluation.report import compute_report
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.papers import engstler2022
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes, apply_changes
from sightline.papers.recipes import RECIPES, find_recipe, find_table
from sightline.training.train import train

TINY = Changes(steps=2, size=16, batch_size=4)


@pytest.fixture
def spines(tmp_path):
    return make_spines(tmp_path / "cohort")


def tiny(recipe):
    recipe = apply_changes(recipe, TINY)
    return replace(recipe, model=replace(recipe.model, width=4))


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("spine")])
def test_every_recipe_trains_and_is_evaluated(spines, tmp_path, name):
    recipe = tiny(find_recipe(name))
    assert recipe.view.size == recipe.model.size == 16
    run = train(recipe, spines, tmp_path / "run", CATALOGUE, QUIET)
    assert run.done
    evaluation = evaluate(run, spines.split("test"), "test", engine=QUIET)
    estimates = {e.name: e for e in compute_report(evaluation, replicates=20)}
    assert estimates["prevalence, image-wise"].value == 0.5
    assert math.isfinite(estimates["AUC, image-wise"].value)
    if recipe.model.head == "maps":
        assert evaluation.maps.maps.shape == (4, 2, 2, 2, 2)


def test_profiles_are_what_the_page_says():
    paper, code = engstler2022.build_base_recipe("paper"), engstler2022.build_base_recipe("official_code")
    assert (paper.model.norm, paper.model.dropout, paper.view.augment) == ("batch", 0.3, "published")
    assert (code.model.norm, code.model.dropout, code.view.augment) == ("batch_always", 0.0, "none")
    assert (paper.schedule.patience, code.schedule.patience) == (50, 40)
    assert paper.reweight == "undersample" and paper.select == "f1"


def test_a_training_stops_when_f1_has_not_improved(spines, tmp_path):
    recipe = tiny(find_recipe("spine-small"))
    recipe = replace(
        recipe, steps=None, epochs=9, schedule=replace(engstler2022.build_base_recipe().schedule, patience=1)
    )
    run = train(recipe, spines, tmp_path / "run", CATALOGUE, QUIET)
    with (run.folder / "history.csv").open() as file:
        scores = [float(row["val_f1"]) for row in csv.DictReader(file)]
    best = scores.index(max(scores))
    # one more epoch than the best, or all of them
    assert len(scores) == min(9, best + 2)


def test_sources_choose_cases(spines):
    mixed = with_sources(spines, ("verse19", "verse20", "hospital"))
    verse, everything = select_sources(mixed, ("verse",)), select_sources(mixed, ("verse", "not verse"))
    assert {case.facts["source"] for case in verse} == {"verse19", "verse20"} and len(everything) == len(mixed)
    with pytest.raises(CohortError, match="no case from 'not verse'"):
        select_sources(verse, ("verse", "not verse"))


def with_sources(cohort, names):
    cases = [
        replace(c, facts={**c.facts, "source": names[(n // 2 + n // 8) % len(names)]}) for n, c in enumerate(cohort)
    ]
    return replace(cohort, cases=tuple(cases))


def test_table_1_runs_and_prints_the_paper_beside_it(spines, tmp_path, no_pictures):
    mixed = with_sources(spines, ("verse19", "hospital"))
    table = find_table("engstler2022/table1", "paper", TINY)
    rows = tuple(
        replace(row, recipe=replace(row.recipe, model=replace(row.recipe.model, width=4))) for row in table.rows
    )
    result = run_table(replace(table, rows=rows), mixed, tmp_path / "t", CATALOGUE, seeds=(0,), engine=QUIET)
    assert [row.why_not for row in result.rows] == [None] * 3
    sizes = [len(row.evaluations["test"][0].predictions.labels) for row in result.rows]
    assert sizes[0] == sizes[1] < sizes[2] == len(mixed.split("test"))
    text = write_table(result, tmp_path / "t", replicates=20)
    assert "78.2 ± 12" in (tmp_path / "t" / "table.csv").read_text() or "78.2 ± 12" in text
    page = (tmp_path / "t" / "report.html").read_text()
    assert "recall" in page


def test_a_cohort_of_verse_alone_says_what_it_lacks(spines, tmp_path):
    mixed = with_sources(spines, ("verse19",))
    table = find_table("engstler2022/table1", "paper", TINY)
    rows = tuple(
        replace(row, recipe=replace(row.recipe, model=replace(row.recipe.model, width=4))) for row in table.rows
    )
    result = run_table(replace(table, rows=rows), mixed, tmp_path / "t", CATALOGUE, seeds=(0,), engine=QUIET)
    assert result.rows[0].why_not is None
    assert all("no case from 'not verse'" in str(row.why_not) for row in result.rows[1:])
