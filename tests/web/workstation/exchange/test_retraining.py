"""From two readers' marks to a trained, compared network: the whole way, by the commands a person types."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.cohorts import make_cohort, tiny_recipe
from support.workstation import Page, box, open_studio

from sightline.cli.main import main
from sightline.data.datasets.folder.reader import read_cohort
from sightline.errors import CohortError, RecipeError
from sightline.evaluation.evaluate import evaluate
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import PROPOSED_BY
from sightline.training.engine import Engine
from sightline.training.recipe import format_recipe_json
from sightline.training.run import open_run
from sightline.training.train import train
from sightline.web.workstation.exchange.retraining import build_guided_recipe, require_seeds


def sightline(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def two_readers(place):
    """A cohort of 18 studies in three splits, all read by two, who draw boxes some pixels apart."""
    make_cohort(place / "cohort")
    studio = open_studio(place, read_cohort(place / "cohort"))
    for shift, name in enumerate(("ada", "ben")):
        studio.add(name)
        studio.plan("first", [name])
        for row in studio.reads(name):
            start = (8.0 + 3 * shift, 10.0)
            answer = studio.finish(name, row["read"], [box(start, (start[0] + 14.0, 26.0))])
            assert answer.status_code == 200, answer.text
    studio.desk.close()
    return place / "cohort", place / "keep"


@pytest.mark.slow  # two trainings of two steps, each compared
def test_two_readers_marks_train_a_network_that_is_compared(tmp_path, capsys):
    cohort, keep = two_readers(tmp_path)
    assert sightline("marks", "export", keep, tmp_path / "marks") == 0
    assert sightline("cohort", "check", tmp_path / "marks") == 0
    said = capsys.readouterr().out
    assert "error" not in said.casefold() or "0 error" in said
    exported = read_cohort(tmp_path / "marks")
    assert {r.tag.reader for case in exported for r in case.regions} == {"ada", "ben"}
    assert sum(bool(case.regions) for case in exported) == 18  # the first of each study's two views

    recipe = tmp_path / "recipe.json"
    recipe.write_text(format_recipe_json(tiny_recipe(), CATALOGUE), encoding="utf-8")
    quick = ("--steps", "2", "--quiet", "--device", "cpu")
    assert sightline("train", recipe, "--cohort", cohort, "--out", tmp_path / "before", *quick, "--weight", "0") == 0
    after = ("--cohort", tmp_path / "marks", "--out", tmp_path / "after", "--readers", "majority")
    assert sightline("train", recipe, *after, *quick) == 0
    assert open_run(tmp_path / "after", CATALOGUE).recipe.regions.readers == "majority"
    evaluated = ("--cohort", cohort, "--out", tmp_path / "evaluated", "--quiet", "--device", "cpu")
    assert sightline("evaluate", tmp_path / "after", *evaluated) == 0
    compared = ("--cohort", cohort, "--out", tmp_path / "compared", "--replicates", "50", "--quiet", "--device", "cpu")
    assert sightline("compare", tmp_path / "after", "--with", tmp_path / "before", *compared) == 0
    page = json.loads((tmp_path / "compared" / "comparison.json").read_text(encoding="utf-8"))
    assert [c["name"] for c in page["leading"]][:2] == ["AUC of fracture", "accuracy"]

    capsys.readouterr()
    again = ("--run", tmp_path / "before", "--cohort", cohort, "--out", tmp_path / "again", "--replicates", "50")
    refused = ("marks", "retrain", keep, *again, *quick)
    assert sightline(*refused) == 2
    assert "not guided by marks" in capsys.readouterr().err
    assert sightline(*refused, "--weight", "0.1", "--style", "box", "--readers", "ben") == 0
    assert "AUC of fracture" in capsys.readouterr().out
    words = json.loads((tmp_path / "again" / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert (words["a"], words["b"]) == ("after", "before")
    assert all(c["low"] <= c["difference"] <= c["high"] for c in words["leading"] if c["low"] is not None)
    # how well the maps agree with the marks of the test cases, before and after, with intervals over patients
    maps = {c["name"]: c for c in words["maps"]}
    assert len(maps) % 3 == 0 and any("energy" in name and "(finding)" in name for name in maps), sorted(maps)
    measured = [c for c in maps.values() if c["difference"] is not None]
    assert measured and all(c["n"]["patients"] > 1 for c in measured)
    # few patients have no interval, and it is said why
    assert all(c["low"] <= c["difference"] <= c["high"] if c["low"] is not None else c["why"] for c in measured)
    choice = open_run(tmp_path / "again" / "run", CATALOGUE).recipe.regions
    assert (choice.style, choice.readers) == ("box", "ben")


def test_several_runs_are_trainings_of_one_recipe_with_other_seeds():
    def of(**more):
        return SimpleNamespace(recipe=tiny_recipe(**more))

    require_seeds([of(seed=1), of(seed=2)])
    for runs in ([], [of(seed=1), of(seed=1)], [of(seed=1), of(seed=2, weight=0.5)]):
        with pytest.raises(RecipeError):
            require_seeds(runs)


def test_a_recipe_without_guidance_needs_a_weight():
    bare = tiny_recipe(weight=0.0)
    with pytest.raises(RecipeError, match="the same"):
        build_guided_recipe(bare, None)
    assert build_guided_recipe(replace(bare, guidance=None), 0.2).weight == 0.2
    assert build_guided_recipe(tiny_recipe(), None).guidance == tiny_recipe().guidance


@pytest.mark.slow  # a training of two steps
def test_a_run_is_not_tested_on_its_own_proposals(tmp_path):
    """A reader accepts one proposal of a run: the exported cohort knows its weights, and the run refuses it."""
    import hashlib
    import uuid

    from sightline.web.workstation.exchange.cohort_export import export_folder
    from sightline.web.workstation.store.audit import format_now
    from sightline.web.workstation.store.tables import proposal

    make_cohort(tmp_path / "cohort")
    cohort = read_cohort(tmp_path / "cohort")
    run = train(tiny_recipe(steps=2), cohort, tmp_path / "run", CATALOGUE, Engine(quiet=True))
    other = train(tiny_recipe(steps=2, seed=5), cohort, tmp_path / "other", CATALOGUE, Engine(quiet=True))
    weights = hashlib.sha256((run.folder / "weights.safetensors").read_bytes()).hexdigest()
    studio = open_studio(tmp_path, cohort)
    studio.add("ada")
    studio.plan("first", ["ada"])
    first, second = (row["read"] for row in studio.reads("ada")[:2])
    image = studio.client("ada").get(f"/api/v1/reads/{first}").json()["study"]["images"][0]["key"]
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    with studio.desk.database.writing() as connection:
        for one, whose in zip(ids, (weights, "0" * 64), strict=True):
            row = {"id": one, "run": "r", "weights": whose, "image": image, "mark": "{}", "score": 0.5, "how": "box"}
            connection.execute(proposal.insert().values(**row, made_at=format_now()))
    page = Page()
    mark = box(source="accepted", **{"from": ids[0]})
    ops = [page.op("accept", image, {"proposal": ids[0], "mark": mark}), page.op("reject", image, {"proposal": ids[1]})]
    assert page.send(studio.client("ada"), first, [*ops, page.op("submit", None, {})]).status_code == 200
    studio.finish("ada", second, [box()])
    export_folder(studio.desk, tmp_path / "out")
    studio.desk.close()
    circle = read_cohort(tmp_path / "out")
    assert circle.about[PROPOSED_BY] == weights
    with pytest.raises(CohortError, match="own answers"):
        evaluate(run, circle, "circle", engine=Engine(quiet=True))
    assert evaluate(other, circle, "fine", engine=Engine(quiet=True)).predictions is not None
    with (tmp_path / "out" / "readings" / "reads.csv").open(encoding="utf-8", newline="") as file:
        assert [row["source"] for row in csv.DictReader(file)] == ["assisted", "drawn"]
