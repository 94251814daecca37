"""What the papers about gaze compute, beside the honest numbers."""

from dataclasses import replace

from support.cohorts import tiny_recipe

from sightline.evaluation.tables.as_published import as_printed
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Row, Table
from sightline.metrics.classification.scores import HandTillAUC
from sightline.metrics.statistics.as_published import PrintedDraws, one_way
from sightline.metrics.statistics.bootstrap import point_value
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine

QUIET = Engine(device="cpu", quiet=True)
FEW = PrintedDraws(draws=5, fewest=8, most=9)


def test_medians_anova_and_printed_draws(gazed_cohort, tmp_path):
    recipe = tiny_recipe(guidance=None, weight=0.0, steps=2)
    rows = (Row("plain", recipe), Row("faster", replace(recipe, batch_size=4), "plain"))
    table = Table("gaze", "Two rows", rows, "", size=48, as_printed=True)
    result = run_table(table, gazed_cohort, tmp_path, CATALOGUE, seeds=[0, 1], engine=QUIET)
    text = as_printed(result, replicates=50, draws=FEW)
    values = {
        row.row.name: [point_value(HandTillAUC(), e.predictions) for e in row.evaluations["test"]]
        for row in result.rows
    }
    line = next(t for t in text.splitlines() if t.startswith("| faster | AUC Hand & Till"))
    assert one_way({"faster": values["faster"], "plain": values["plain"]}).text() in line
    assert f"{sum(values['faster']) / 2:.3f} ±" in line and "plain" in line
    write_table(result, tmp_path, replicates=50)
    assert (tmp_path / "as_printed.md").read_text().startswith("# Two rows: as the papers compute it")


def test_two_classes_have_nothing_of_the_kind(tiny_cohort, tmp_path):
    table = Table("two", "Two", (Row("plain", tiny_recipe(steps=2)),), "", size=48, as_printed=True)
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert as_printed(result, replicates=50) == ""
