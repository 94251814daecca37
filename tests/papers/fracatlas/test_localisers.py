"""The table of localisers: its rows share cohort and references, and run at a tiny size from end to end."""

import pytest

from sightline.evaluation.tables.run_table import run_table
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.pooling import TopPool
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.fracatlas import localisers
from sightline.papers.overrides import Changes
from sightline.papers.recipes import find_table
from sightline.training.engine import Engine
from sightline.training.run import open_run
from sightline.training.serialization import build_from_plain, to_plain

QUIET = Engine(device="cpu", quiet=True)
TINY = Changes(steps=2, size=64, batch_size=4, backbone="test_resnet", weights="none")


def test_rows_say_what_they_were_shown():
    table = localisers.build_localiser_table()
    names = [row.name for row in table.rows]
    rows = {row.name: row for row in table.rows}
    for at, row in enumerate(table.rows):
        assert all(name in names[:at] for name in row.needs)
        assert row.reference in (None, *names[:at])
        assert build_from_plain(to_plain(row.recipe, CATALOGUE), CATALOGUE) == row.recipe
    unmarked = ["mean pooling", "softmax pooling", "LSE pooling", "self-transfer", "a-STN", "max pooling of features"]
    shown_none = [row.name for row in table.rows if not (row.recipe.guided_by_regions or row.recipe.needs_boxes)]
    twins = [row.name for row in table.rows if row.group == "twins of cell focal"]
    assert len(twins) == 4 and rows["patches, image labels"].recipe.view.patches.around == 0.0
    tops = ["top 2%", *(f"top 2%, {words}" for words in ("nearest normal film", "three scales"))]
    tops += ["top 2%, EfficientNet-Lite2", "top 2%, hard negatives", "top 0.5%"]
    committees = ["image labels, committee", "image labels of several kinds, committee"]
    assert shown_none == [*unmarked, *tops, *twins, *committees]
    assert all(rows[member].weight_label == "" for name in committees for member in rows[name].needs)
    # nothing that saw a box stands behind the row of image labels alone
    assert rows["top 2%, self-trained"].needs == ("top 2%",)
    for words, share in (("5%", 0.05), ("20%", 0.2), ("all", 1.0)):
        for method in ("guided", "patches"):
            recipe = rows[f"{method}, {words} boxes"].recipe
            assert recipe.regions.share == share and isinstance(recipe.guidance, SpatialNLL)
    assert rows["patches, 5% boxes, self-trained"].needs == ("patches, 5% boxes",)


# networks of the slow ones are trained by test_jimenez2018.py
@pytest.mark.parametrize(
    "words",
    [
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("self-transfer", "a-STN", "max pooling", "several kinds")
        ),
        "box regression",
        "focal, 5%",
    ],
)
def test_the_papers_localisers_run_on_two_classes(tiny_cohort, tmp_path, words):
    table = find_table("localisers/fracatlas", "recommended", TINY, (words,))
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert [row.why_not for row in result.rows] == [None] * len(table.rows)
    assert result.rows[-1].evaluations["test"][0].box_scores is not None


def test_the_weak_localiser_ends_at_stride_16_and_speaks_in_one_map():
    model = localisers.build_weak_recipe().model
    assert isinstance(model.pool, TopPool) and model.one_map
    assert model.backbone.stages == 4 and model.fusion is not None and model.fusion.stride == 8


def test_named_rows_bring_their_teachers():
    table = find_table("localisers/fracatlas", "recommended", TINY, ("20% boxes, self-trained",))
    assert {row.name for row in table.rows} == {
        "mean pooling", "patches, 20% boxes", "patches, 20% boxes, self-trained",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words", ["top 2%, self-trained", pytest.param("5% boxes, self-trained", marks=pytest.mark.slow)]
)
def test_the_table_runs_at_a_tiny_size(tiny_cohort, tmp_path, words):
    table = find_table("localisers/fracatlas", "recommended", TINY, (words,))
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert [row.why_not for row in result.rows] == [None] * 3
    runs = {row.row.name: open_run(row.folders[0], CATALOGUE) for row in result.rows}
    pupil = next(name for name in runs if name.endswith("self-trained"))
    assert runs[pupil].done and runs[pupil].cohort["fingerprint_with_marks"] != tiny_cohort.fingerprint()
    scores = result.of(pupil).evaluations["test"][0].map_scores
    assert scores is not None and len(scores) > 0


# test_ensembles.py has two members
@pytest.mark.parametrize(
    ("words", "members"), [("5% boxes, committee", 1), pytest.param("all boxes, committee", 3, marks=pytest.mark.slow)]
)
def test_committees_judge_by_the_rows_they_are_named_after(tiny_cohort, tmp_path, words, members):
    table = find_table("localisers/fracatlas", "recommended", TINY, (words,))
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert [row.why_not for row in result.rows] == [None] * (members + 2)
    run = open_run(result.of(words).folders[0], CATALOGUE)
    assert run.done and len(run.recipe.model.members) == members
    assert result.of(words).evaluations["test"][0].box_scores is not None
