"""Our tables on the phantom chest: rows and controls as they say, and each trains at a tiny size."""

import pytest

from sightline.evaluation.tables.run_table import run_table
from sightline.evaluation.tables.summary import summarise
from sightline.losses.gg_cam import GazeGuided
from sightline.papers import phantom_tables as gaze_phantom
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table
from sightline.training.engine import Engine
from sightline.training.serialization import build_from_plain, to_plain

QUIET = Engine(device="cpu", quiet=True)
TINY = Changes(steps=2, size=48, batch_size=4)


@pytest.mark.parametrize(
    "table", [gaze_phantom.build_gaze_table(), gaze_phantom.build_unet_table()], ids=lambda t: t.name
)
def test_rows_are_what_they_say(table):
    rows = {row.name: row for row in table.rows}
    for row in table.rows:
        assert row.reference is None or row.reference in rows
        assert build_from_plain(to_plain(row.recipe, CATALOGUE), CATALOGUE) == row.recipe
        assert row.recipe.view.flip_chance == 0.0
        # a control differs from what it controls by whose gaze it is
        if "shuffled" in row.name or "middle" in row.name:
            own, control = rows[row.reference].recipe, row.recipe
            assert control.regions.control != own.regions.control
            assert (control.objective, control.guidance, control.weight) == (own.objective, own.guidance, own.weight)
    guided = [r.name for r in table.rows if isinstance(r.recipe.objective, GazeGuided)]
    assert guided in ([], ["GG-CAM", "GG-CAM, shuffled gaze"])


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("gaze/phantom", ("GG-CAM, shuffled gaze",)),
        pytest.param("gaze/phantom", (), marks=pytest.mark.slow),
        pytest.param("gaze/unets", (), marks=pytest.mark.slow),
    ],
)
def test_every_row_trains_at_a_tiny_size(gazed_cohort, tmp_path, name, rows):
    table = find_table(name, "recommended", TINY, rows)
    result = run_table(table, gazed_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert [row.why_not for row in result.rows] == [None] * len(table.rows)
    metrics = {line.metric for line in summarise(result, replicates=50)}
    assert "CC with gaze, class map" in metrics
    assert ("CC with gaze, heatmap" in metrics) is (name == "gaze/unets")
