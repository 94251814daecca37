"""Tables run row by row: every kind of row trains, reasons are listed, finished rows are reused, killed ones resume."""

import csv
import json
from collections import Counter
from dataclasses import replace

import pytest
from support.cohorts import make_cohort, tiny_recipe
from support.layouts import write_tiny

from sightline.data.datasets import cub200
from sightline.data.split import limit_per_class
from sightline.data.targets.region_choice import RegionChoice
from sightline.errors import CohortError, RecipeError, RunError
from sightline.evaluation.tables.engines import row_training as module
from sightline.evaluation.tables.engines.row_training import RowTraining
from sightline.evaluation.tables.engines.self_training import READER, Teaching, label_by_run
from sightline.evaluation.tables.report import write_table
from sightline.evaluation.tables.run_table import find_rows_without_data, mention_unpaired_rows, run_table
from sightline.evaluation.tables.summary import list_metric_names, require_known_metrics, summarise
from sightline.evaluation.tables.table import Row, Table
from sightline.losses.spatial_nll import SpatialNLL
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.fracatlas import marks
from sightline.papers.overrides import Changes
from sightline.papers.recipes import TABLES, find_table
from sightline.structures.case import Cohort
from sightline.training.engine import Engine
from sightline.training.preconditions import require_regions
from sightline.training.recipe import Recipe
from sightline.training.run import open_run
from sightline.training.train import train

QUIET = Engine(device="cpu", quiet=True)
TINY = Changes(steps=2, size=48, batch_size=4, backbone="test_resnet", weights="none")
WEBER = ("none", "Weber A", "Weber B", "Weber C")


@pytest.fixture(scope="module")
def ankles(tmp_path_factory):
    """Four classes, each in every split, with focus regions of the three styles."""
    two = make_cohort(tmp_path_factory.mktemp("ankle") / "cohort", patients=24)
    splits = ("train", "train", "train", "test", "val", "test")
    cases = [replace(c, label=WEBER[int(c.patient_id[1:]) % 4], split=splits[int(c.patient_id[1:]) // 4]) for c in two]
    return Cohort("ankle", WEBER, tuple(cases), two.root)


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """CUB-200-2011 in its published layout: three classes, five training images each."""
    place = write_tiny(tmp_path_factory.mktemp("birds") / "CUB_200_2011", train=5, test=1, shape=(90, 120))
    return cub200.read(place)


def run(name, cohort, out, rows=(), **changes):
    table = find_table(name, "recommended", replace(TINY, **changes), rows)
    # a row may not claim more training images than there are
    most = len(cohort.split("train"))
    fewer = tuple(replace(row, train_images=row.train_images and min(row.train_images, most)) for row in table.rows)
    table = replace(table, rows=fewer)
    return run_table(table, cohort, out, CATALOGUE, seeds=[0], engine=QUIET)


def all_ran(result):
    assert [str(row.why_not) for row in result.rows if row.why_not is not None] == []
    for row in result.rows:
        (evaluation,) = row.evaluations["test"]
        assert len(evaluation.predictions.case_ids) == len(result.cohort.split("test"))
        assert (row.folders[0] / "DONE").is_file()


# in the quick set, one row of each kind; the slow set trains every row of every table
KINDS = [
    ("liao2022/table3", ("s-512 baseline", "s-512 L1", "s-512 pyramid", "s-768 guided 5 segm")),
    ("liao2022/supplement1", ("scaphoid guided 5 bbox",)),
    ("liao2022/supplement2", ("scaphoid self attention guided 1 scribble", "ankle pyramid attention guided 0.5 segm")),
    ("liao2022/fracatlas", ("softmax pooling", "guided 0.3")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows"), KINDS)
def test_rows_of_each_kind_train(tiny_cohort, tmp_path, name, rows):
    result = run(name, tiny_cohort, tmp_path, rows)
    all_ran(result)


def test_a_row_of_each_kind_of_table4_trains_on_four_classes(ankles, tmp_path):
    rows = ("baseline", "L1", "guided 0.5 bbox")
    result = run("liao2022/table4", ankles, tmp_path, rows)
    all_ran(result)
    assert {row.row.recipe.reweight for row in result.rows} == {"inverse_frequency"}
    assert result.of("baseline").evaluations["test"][0].predictions.probabilities.shape[1] == 4


def test_a_row_of_each_kind_of_cub200_trains_on_the_published_layout(birds, tmp_path):
    result = run("liao2022/cub200", birds, tmp_path, ("n=5 guided 0.1", "n=5 guided 0"))
    all_ran(result)


FROZEN = ("fracatlas/curve", "fracatlas/map_to_answer", "fracatlas/suggest", "fracatlas/wrong_marks")


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_every_table_trains(tiny_cohort, ankles, birds, tmp_path, monkeypatch, name):
    # of fifty marks the small cohort has eight
    monkeypatch.setattr(marks, "NEXT", 4)
    cohort = {"liao2022/table4": ankles, "liao2022/cub200": birds}.get(name, tiny_cohort)
    if name.startswith(("jimenez2018/", "femur/")):
        pytest.skip("needs AO classes: tests/papers/test_jimenez2018.py")
    if name.startswith(("zhu2022/", "watanabe2022/", "gaze/")):
        pytest.skip("needs gaze: tests/papers/test_zhu2022.py, test_watanabe2022.py, test_phantom_tables.py")
    if name.startswith(("engstler2022/", "spine/")):
        pytest.skip("needs volumes: tests/papers/test_engstler2022.py")
    # these freeze five stages, and the smallest network has four; a second look needs 32 pixels of 64
    changes = {"backbone": "mobilenetv2_100", "size": 64} if name in FROZEN else {}
    result = run(name, cohort, tmp_path, **changes)
    all_ran(result)
    assert len(result.rows) == len(TABLES[name]("recommended").rows)


def small_table(*weights, **changes):
    base = tiny_recipe(steps=2, weight=0.0, guidance=None, batch_size=4, **changes)
    rows = [Row("unguided", base)]
    rows += [Row(f"guided {w}", tiny_recipe(steps=2, weight=w, batch_size=4, **changes), "unguided") for w in weights]
    return Table("ours/small", "A small table", tuple(rows))


@pytest.fixture
def trained(monkeypatch):
    """Steps really trained, run by run."""
    from sightline.training import train as loop

    steps = []
    step = loop.run_training_step
    monkeypatch.setattr(loop, "run_training_step", lambda *a: (steps.append(1), step(*a))[1])
    return steps


def test_rows_with_other_test_images_than_their_reference_are_named_before_training(tiny_cohort):
    cases = tuple(replace(c, facts={"source": f"site {i % 2}"}) for i, c in enumerate(tiny_cohort))
    every, guided = small_table(0.1).rows
    rows = [replace(every, tested_on=sites) for sites in ((), ("site 0",), ("site 1",))]
    for ours, theirs, words in (
        (0, 0, ""), (1, 0, ""), (0, 1, "compared with unguided on"), (1, 2, "no test image is in both rows"),
    ):  # fmt: skip
        table = Table("t", "t", (rows[theirs], replace(guided, tested_on=rows[ours].tested_on)))
        said = []
        mention_unpaired_rows(table, replace(tiny_cohort, cases=cases), {}, said.append)
        assert [words in line and line.startswith("guided 0.1: ") for line in said] == (
            [True] if ours != theirs else []
        )


def test_without_focus_regions_guided_rows_say_why_and_the_others_run(tiny_cohort, tmp_path, no_pictures):
    findings = tuple(replace(c, regions=tuple(r for r in c.regions if r.tag.role == "finding")) for c in tiny_cohort)
    lines = []
    result = run_table(
        small_table(0.1), replace(tiny_cohort, cases=findings), tmp_path, CATALOGUE, seeds=[0], engine=QUIET,
        say=lines.append,
    )  # fmt: skip
    unguided, guided = result.rows
    assert unguided.why_not is None and len(unguided.evaluations["test"]) == 1
    assert isinstance(guided.why_not, CohortError) and "no focus region" in str(guided.why_not)
    assert guided.why_not.remedy and any(line.startswith("guided 0.1: not run.") for line in lines)
    text = write_table(result, tmp_path, replicates=20)
    assert "not run" in text and "no focus region" in text
    assert "no focus region" in (tmp_path / "report.html").read_text()


def test_a_row_that_claims_more_training_images_than_there_are_is_refused(tiny_cohort, tmp_path, no_pictures):
    """It was trained on what there is, and stood in the table as a second row of the same numbers."""
    lines = []
    (unguided,) = small_table().rows
    there = len(tiny_cohort.split(*unguided.recipe.train_on))
    more = replace(unguided, name="more", reference="unguided", train_images=there + 1)
    table = Table("t", "t", (unguided, more))
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET, say=lines.append)
    assert result.of("unguided").why_not is None
    assert f"on {there + 1} images, and there are {there} in train" in str(result.of("more").why_not)
    assert "not run" in write_table(result, tmp_path, replicates=20)
    all_of_them = Table("t", "t", (replace(more, reference=None, train_images=there),))
    assert find_rows_without_data(all_of_them, tiny_cohort, lines.append) == {}


def test_a_row_that_is_trained_on_what_all_are_tested_on_is_refused(tiny_cohort):
    (row,) = small_table().rows
    row = replace(row, recipe=replace(row.recipe, train_on=("train", "test")))
    lines = []
    assert list(find_rows_without_data(Table("t", "t", (row,)), tiny_cohort, lines.append)) == [row.name]
    assert "trained on the test cases" in lines[0]


def test_finished_rows_are_reused_and_a_stopped_table_goes_on(tiny_cohort, tmp_path, trained, monkeypatch):
    table = small_table(0.1, 0.2)
    real = module.train

    def stopped(recipe: Recipe, *args, **more):
        if recipe.weight == 0.2:
            raise KeyboardInterrupt
        return real(recipe, *args, **more)

    monkeypatch.setattr(module, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert len(trained) == 4
    monkeypatch.setattr(module, "train", train)
    first = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert len(trained) == 6
    again = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert len(trained) == 6 and [r.folders for r in first.rows] == [r.folders for r in again.rows]
    more = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0, 1], engine=QUIET)
    assert len(trained) == 12 and len(more.of("unguided").folders) == 2
    assert more.of("unguided").folders[0] == first.of("unguided").folders[0]


def test_an_external_cohort_is_tested_whole(tiny_cohort, tmp_path):
    external = replace(tiny_cohort, name="other hospital", cases=tiny_cohort.cases[:10])
    result = run_table(small_table(), tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET, external=external)
    evaluations = result.of("unguided").evaluations
    assert [len(evaluations[t][0].predictions.case_ids) for t in ("test", "external")] == [12, 10]


def test_published_values_stand_beside_ours_and_are_never_ours(tiny_cohort, tmp_path, few_pictures):
    result = run("liao2022/table3", tiny_cohort, tmp_path, ("s-512 baseline",))
    text = write_table(result, tmp_path, replicates=20)
    assert "76.4 ± 0.9" in text and "published" in text
    (row,) = [r for r in csv.DictReader((tmp_path / "table.csv").open()) if r["metric"] == "study-wise accuracy"]
    assert row["published"] == "76.4 ± 0.9" and float(row["mean"]) <= 1.0
    lines = json.loads((tmp_path / "table.json").read_text())
    # the phantom's findings have boxes: two boxes that no training is needed for stand beside the rows
    assert {line["row"] for line in lines} == {"s-512 baseline", "whole image", "centre prior"}
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_few_per_class_is_a_seeded_draw_from_training_alone(tiny_cohort):
    few = limit_per_class(tiny_cohort, 3, ("train",), 0)
    assert few.split("train").counts() == {"no fracture": 3, "fracture": 3}
    assert few.split("test").cases == tiny_cohort.split("test").cases
    assert few.split("val").cases == tiny_cohort.split("val").cases
    ids = [{c.case_id for c in limit_per_class(tiny_cohort, n, ("train",), s).split("train")} for n, s in
           ((3, 0), (3, 0), (5, 0), (3, 1))]  # fmt: skip
    assert ids[0] == ids[1] and ids[0] < ids[2] and ids[0] != ids[3]
    assert limit_per_class(tiny_cohort, None, ("train",), 0) is tiny_cohort
    assert Counter(c.split for c in limit_per_class(tiny_cohort, 999, ("train",), 0)) == Counter(
        c.split for c in tiny_cohort
    )


def test_regions_of_the_test_split_alone_do_not_guide(tiny_cohort):
    bare = tuple(c if c.split == "test" else replace(c, regions=()) for c in tiny_cohort)
    with pytest.raises(CohortError, match="no focus region in its training split"):
        require_regions(tiny_recipe(), replace(tiny_cohort, cases=bare))
    require_regions(tiny_recipe(weight=0.0), replace(tiny_cohort, cases=bare))


def taught_table():
    choice = RegionChoice("box", "finding", "tagged", share=0.4)
    first = tiny_recipe(steps=2, guidance=None, weight=0.0)
    pupil = tiny_recipe(steps=2, guidance=SpatialNLL(resolution="map"), weight=1.0, regions=replace(choice, share=1.0))
    return Table(
        "small/taught",
        "A row taught by another",
        (
            Row("labels", first),
            Row("pupil", pupil, "labels", teacher="labels", teaching=Teaching(keep=0.5)),
            Row("few", replace(pupil, regions=choice), "labels"),
            Row("pupil of few", pupil, "labels", teacher="few"),
            Row("pupil of its pupil", pupil, "labels", teacher="pupil of few"),
        ),
    )


def test_rows_are_taught_by_other_rows_and_reused(tiny_cohort, tmp_path, monkeypatch):
    table = taught_table()
    # nobody marked anything the first pupil could see: its teacher alone knows where to look
    result = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert all(row.why_not is None for row in result.rows)
    training = {row.row.name: open_run(row.folders[0], CATALOGUE) for row in result.rows}
    assert training["pupil"].cohort["fingerprint_with_marks"] != training["few"].cohort["fingerprint"]
    assert training["few"].cohort["fingerprint"] == tiny_cohort.fingerprint()
    assert len({row.folders[0] for row in result.rows}) == 5
    # a second round marks anew: what experts marked for the first teacher stays, what its pupil learnt from does not
    rows = {row.name: row for row in table.rows}
    rounds = RowTraining(rows["pupil of its pupil"], 0, tiny_cohort, {}, tmp_path, CATALOGUE, QUIET, rows)
    shown = rows["few"].recipe.regions.patients(tiny_cohort.split("train"))
    taught = label_by_run(rounds.teacher.train_run(), tiny_cohort, first=rows["few"].recipe).split("train")
    findings = [(c.patient_id, r.tag.reader) for c in taught for r in c.regions if r.tag.role == "finding"]
    assert {patient in shown for patient, reader in findings if reader == READER} == {False}
    assert {patient in shown for patient, reader in findings if reader != READER} == {True}

    def never(*args):
        raise AssertionError("a finished row asks its teacher again")

    monkeypatch.setattr(module, "label_by_run", never)
    again = run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert [row.folders for row in again.rows] == [row.folders for row in result.rows]


def test_a_row_waits_for_its_teacher_and_fails_with_it(tiny_cohort, tmp_path):
    table = taught_table()
    bare = replace(tiny_cohort, cases=tuple(replace(case, regions=()) for case in tiny_cohort))
    kept = replace(table, rows=tuple(row for row in table.rows if row.name in ("few", "pupil of few")))
    result = run_table(kept, bare, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert "no finding region" in str(result.of("few").why_not)
    assert "needs the row few" in str(result.of("pupil of few").why_not)
    # image labels alone teach also where nothing is marked
    labels = replace(table, rows=table.rows[:2])
    assert run_table(labels, bare, tmp_path, CATALOGUE, seeds=[0], engine=QUIET).of("pupil").why_not is None


def test_a_metric_that_no_row_can_have_is_refused_before_training(tiny_cohort, tmp_path, trained):
    table = replace(small_table(0.0), metrics=("image-wise AUCC",), named_in="my.yaml")
    with pytest.raises(RecipeError, match=r"my\.yaml: report names 'image-wise AUCC'.*'image-wise AUC'"):
        run_table(table, tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    with pytest.raises(RecipeError, match="There are: image-wise accuracy, "):
        require_known_metrics(replace(table, metrics=("zzz",)), tiny_cohort)
    require_known_metrics(replace(table, metrics=("zzz",), named_in=""), tiny_cohort)
    require_known_metrics(replace(table, metrics=("pointing game (finding)", "CC with gaze, decoder")), tiny_cohort)
    assert trained == []


def test_every_metric_of_a_row_is_in_the_list_of_them(tiny_cohort, tmp_path):
    result = run("liao2022/fracatlas", tiny_cohort, tmp_path, ("guided 0.3",))
    known = list_metric_names(tiny_cohort.classes)
    assert len(known) == len(set(known))
    found = {line.metric for line in summarise(result, replicates=20)}
    assert len(found) > 25 and found <= set(known)
    levels = [name for name in list_metric_names(("A1", "A2", "B1", "normal")) if "level" in name]
    assert levels == [
        "image-wise F1 at the level type (normal, A, B)", "image-wise F1 at the level present (normal, fracture)",
    ]  # fmt: skip


def test_no_seed_and_no_test_split_are_refused(tiny_cohort, tmp_path):
    with pytest.raises(RecipeError, match="at least one seed"):
        run_table(small_table(), tiny_cohort, tmp_path, CATALOGUE, seeds=range(0), engine=QUIET)
    with pytest.raises(RunError, match="on one device at a time; got --devices 2"):
        run_table(small_table(), tiny_cohort, tmp_path, CATALOGUE, seeds=[0], engine=replace(QUIET, devices=2))
    with pytest.raises(CohortError, match="no test split"):
        run_table(small_table(), tiny_cohort.split("train"), tmp_path, CATALOGUE, seeds=[0], engine=QUIET)
    assert not list(tmp_path.iterdir())
