"""What the papers about gaze compute, beside the honest numbers."""

from dataclasses import replace

import numpy as np
import pytest
from support.cohorts import tiny_recipe

from sightline.evaluation.tables.as_published import report_as_printed
from sightline.evaluation.tables.distributions import compute_spreads
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.table import Figure, PublishedValue, Row, Table
from sightline.metrics.classification.scores import HandTillAUC
from sightline.metrics.maps.localisation import MapScores, build_organ_row
from sightline.metrics.maps.score import MapScore
from sightline.metrics.statistics.as_published import PrintedDraws, compute_one_way_anova
from sightline.metrics.statistics.bootstrap import score_point
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine

QUIET = Engine(device="cpu", quiet=True)
FEW = PrintedDraws(draws=5, fewest=8, most=9)


def test_medians_anova_and_printed_draws(gazed_cohort, tmp_path, no_pictures):
    recipe = tiny_recipe(guidance=None, weight=0.0, steps=2)
    printed = {"image-wise recall for CHF, test": PublishedValue(0.5, 0.1)}
    rows = (Row("plain", recipe), Row("faster", replace(recipe, batch_size=4), "plain", printed))
    figure = Figure("Figure 9: two rows", ("plain", "faster", "not run"), gaze=True)
    table = Table("gaze", "Two rows", rows, "", size=48, as_printed=True, figures=(figure,))
    result = run_table(table, gazed_cohort, tmp_path, CATALOGUE, seeds=[0, 1], engine=QUIET)
    text = report_as_printed(result, replicates=50, draws=FEW)
    values = {
        row.row.name: [score_point(HandTillAUC(), e.predictions) for e in row.evaluations["test"]]
        for row in result.rows
    }
    line = next(t for t in text.splitlines() if t.startswith("| faster | AUC Hand & Till"))
    assert compute_one_way_anova({"faster": values["faster"], "plain": values["plain"]}).text() in line
    assert f"{sum(values['faster']) / 2:.3f} ±" in line and "plain" in line
    # precision and recall of each class, each training by hand; what a paper prints stands beside it
    for k, name in enumerate(gazed_cohort.classes):
        recalls = []
        for evaluation in result.of("faster").evaluations["test"]:
            said = evaluation.predictions
            called = said.probabilities.argmax(axis=1)
            recalls.append(sum(called[said.labels == k] == k) / sum(said.labels == k))
        line = next(t for t in text.splitlines() if t.startswith(f"| faster | recall for {name} |"))
        assert f"| {np.median(recalls):.3f} ± {np.std(recalls, ddof=1):.3f} |" in line
    assert "| faster | recall for CHF | " in text and text.count("0.5 ± 0.1") == 1
    # draws of every class's area too
    draws = text.split("## Over draws")[1]
    for name in ("AUC Hand & Till", "AUC one-vs-rest", *(f"AUC of {c}" for c in gazed_cohort.classes)):
        assert draws.count(f"| {name} |") == 2
    write_table(result, tmp_path, replicates=50)
    assert len(list((tmp_path / "pictures").glob("*box-plots*"))) == 1
    assert len(list((tmp_path / "pictures").glob("*histogram*"))) == 1
    assert len(list((tmp_path / "pictures").glob("*figure-9*"))) == 1
    assert (tmp_path / "as_printed.md").read_text().startswith("# Two rows: as the papers compute it")


def test_the_pointing_game_has_a_spread_of_each_organ(gazed_cohort, tmp_path):
    rows = (Row("plain", tiny_recipe(guidance=None, weight=0.0, steps=1)),)
    table = Table("gaze", "One row", rows, "", size=48, as_printed=True)
    result = run_table(table, gazed_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    (evaluation,) = result.rows[0].evaluations["test"]
    hits = {"CHF": [(1.0, 0.0, 0.0), (1.0, 1.0, 0.0)], "pneumonia": [(0.0, 1.0), (0.0, 1.0)]}

    def training(n):
        scores = [
            build_organ_row(
                (f"{label}{i}", f"s{label}{i}", f"p{label}{i}"),
                label,
                MapScore(hit, inside_px=1, image_px=2, why="pointing alone"),
            )
            for label, per_training in hits.items()
            for i, hit in enumerate(per_training[n])
        ]
        return replace(evaluation, map_scores=MapScores(tuple(scores)))

    row = replace(result.rows[0], evaluations={"test": (training(0), training(1))})
    found = {s.score: s.over for s in compute_spreads(replace(result, rows=(row,)))}
    chf, pneumonia = (found[f"pointing game in the organ of {name}"] for name in hits)
    assert chf.values == pytest.approx((1 / 3, 2 / 3)) and pneumonia.values == (0.5, 0.5)
    assert chf.median == pytest.approx(0.5) and not any("Normal" in s for s in found if "pointing" in s)


def test_two_classes_have_nothing_of_the_kind(tiny_cohort, tmp_path):
    table = Table("two", "Two", (Row("plain", tiny_recipe(steps=2)),), "", size=48, as_printed=True)
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert report_as_printed(result, replicates=50) == ""
