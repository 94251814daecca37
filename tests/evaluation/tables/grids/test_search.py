"""Fields are searched on validation alone, and a search that was stopped goes on where it was."""

import csv
import sys
from dataclasses import replace

import pytest
from support.cohorts import tiny_recipe
from support.engines import QUIET

from sightline.errors import CohortError, RecipeError, RunError
from sightline.evaluation.tables.grids import search as module
from sightline.evaluation.tables.grids.search import (
    Search,
    SearchField,
    read_field,
    read_validation_score,
    search_fields,
)
from sightline.papers.catalogue import CATALOGUE

FIELDS = (read_field("weight=log:0.01:1"), read_field("batch_size=4:6"))


def test_fields_are_read():
    assert read_field("weight=0.1:2") == SearchField("weight", 0.1, 2)
    assert read_field("batch_size=2:8") == SearchField("batch_size", 2, 8)
    assert read_field("select=last, auc,none").choices == ("last", "auc", None)
    for text in ("weight", "weight=1", "weight=2:1", "=1:2", "weight=log:0:1", "weight=a:b", "weight=1:inf"):
        with pytest.raises(RecipeError, match="field"):
            read_field(text)


def test_the_score_is_that_of_the_weights_that_are_kept(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,val_auc,val_loss\n1,0.7,0.5\n2,0.9,0.6\n3,0.8,0.7\n")
    for select, auc in (("last", 0.8), ("auc", 0.9), ("loss", 0.7)):
        assert read_validation_score(path, tiny_recipe(select=select), "auc") == auc
    one_class = tmp_path / "one_class.csv"
    one_class.write_text("epoch,val_auc,val_loss\n1,,0.5\n2,,0.6\n")
    assert read_validation_score(one_class, tiny_recipe(select="auc"), "loss") == 0.6
    with pytest.raises(RunError, match="val_f1"):
        read_validation_score(path, tiny_recipe(), "f1")


def test_an_optuna_that_is_not_installed_is_refused_with_a_remedy(monkeypatch, tiny_cohort, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RunError, match=r"sightline-radiology\[search\]"):
        search_fields(Search(tiny_recipe(), FIELDS), tiny_cohort, tmp_path / "out", CATALOGUE)


def test_a_stopped_search_finds_what_one_in_a_single_piece_finds(tiny_cohort, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    seen = []
    real = module.train

    def spied(recipe, cohort, *rest):
        seen.append({case.split for case in cohort})
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(recipe, cohort, *rest)

    search = Search(tiny_recipe(steps=2), FIELDS, seed=3)
    monkeypatch.setattr(module, "train", spied)
    with pytest.raises(KeyboardInterrupt):
        search_fields(search, tiny_cohort, tmp_path / "a", CATALOGUE, trials=3, engine=QUIET)
    said = search_fields(search, tiny_cohort, tmp_path / "a", CATALOGUE, trials=3, engine=QUIET)
    assert "best of 3 trials" in said and (tmp_path / "a" / "best" / "recipe.json").is_file()
    assert set().union(*seen) == {"train", "val"}, "the test split must not be there at all"
    search_fields(search, tiny_cohort, tmp_path / "b", CATALOGUE, trials=3, engine=QUIET)
    one, other = (list(csv.reader((tmp_path / name / "trials.csv").open())) for name in "ab")
    assert one == other and len(one) == 4
    with pytest.raises(RunError, match="another search"):
        search_fields(replace(search, seed=4), tiny_cohort, tmp_path / "a", CATALOGUE, trials=3, engine=QUIET)


def test_a_journal_that_was_cut_or_damaged(tiny_cohort, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr(module, "_train", lambda search, values, *rest: values["weight"])
    # any seed that the command takes
    search, log = Search(tiny_recipe(), FIELDS, seed=2**63 - 1), tmp_path / "search.log"
    find = lambda trials: search_fields(search, tiny_cohort, tmp_path, CATALOGUE, trials=trials, engine=QUIET)  # noqa: E731
    find(3)
    whole, table = log.read_bytes(), (tmp_path / "trials.csv").read_bytes()
    log.write_bytes(whole[:-30])
    assert "best of 3 trials" in find(3) and (tmp_path / "trials.csv").read_bytes() == table
    log.write_bytes(b"{\n" + whole)
    with pytest.raises(RunError, match=r"search\.log is damaged"):
        find(3)
    # without the fields that it was made by, it is anybody's
    (tmp_path / "search.json").unlink()
    with pytest.raises(RunError, match="another search"):
        find(3)


def test_what_cannot_be_searched_is_refused(tiny_cohort, tmp_path):
    pytest.importorskip("optuna")
    with pytest.raises(RecipeError, match="weigth"):
        search_fields(Search(tiny_recipe(), (read_field("weigth=0:1"),)), tiny_cohort, tmp_path / "a", CATALOGUE)
    for texts, said in ((("weight=0:1", "weight=1:2"), "twice"), (("seed=0:9",), "seed would be written over")):
        with pytest.raises(RecipeError, match=said):
            fields = tuple(map(read_field, texts))
            search_fields(Search(tiny_recipe(), fields), tiny_cohort, tmp_path / "a", CATALOGUE)
    with pytest.raises(CohortError, match="validation"):
        both = tiny_recipe(train_on=("train", "val"))
        search_fields(Search(both, FIELDS), tiny_cohort, tmp_path / "a", CATALOGUE)
    assert not (tmp_path / "a").exists()
