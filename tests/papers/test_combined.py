"""A localiser and a classifier of crops, trained apart and put together from the command line."""

import csv
import itertools
from dataclasses import replace

import pytest

from sightline.cli.main import main
from sightline.errors import RecipeError
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.papers.combined import build_cascade_recipe, build_ensemble_recipe
from sightline.papers.recipes import find_recipe

SMALL = ("--steps", "2", "--size", "48", "--batch-size", "4", "--backbone", "test_resnet", "--weights", "none")
ON = ("--device", "cpu", "--quiet")


def call(*args) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    return int(end.value.code or 0)


def test_a_cascade_is_put_together_and_predicts_boxes(tmp_path, capsys):
    cohort = tmp_path / "femurs"
    assert call("cohort", "phantom", "radiographs", cohort, "--anatomy", "femur", "--studies", "12", "--field", "wide",
                "--ao-shares", "published") == 0  # fmt: skip
    for recipe in ("box-regression", "ubm"):
        assert call("train", recipe, "--cohort", cohort, "--out", tmp_path / recipe, *SMALL, *ON) == 0
    run = tmp_path / "cascade"
    assert call("cascade", tmp_path / "box-regression", tmp_path / "ubm", "--cohort", cohort, "--out", run) == 0
    assert (run / "DONE").read_text().startswith("assembled")
    picture = next((cohort / "images").iterdir())
    assert call("predict", run, picture, "--out", tmp_path / "said", *ON) == 0
    (box,) = list(csv.DictReader((tmp_path / "said" / "boxes.csv").open()))
    assert float(box["row_start"]) < float(box["row_stop"])
    # a network trained on experts' crops alone cannot serve a new picture, and says so
    capsys.readouterr()
    assert call("predict", tmp_path / "ubm", picture, "--out", tmp_path / "no", *ON) == 2
    assert "squares around experts' boxes" in capsys.readouterr().err


def test_pictures_of_one_femur_are_not_cut(tmp_path, capsys):
    cohort = tmp_path / "femurs"
    assert call("cohort", "phantom", "radiographs", cohort, "--anatomy", "femur", "--studies", "4") == 0
    assert call("cohort", "halve", cohort, tmp_path / "halves") == 2
    assert "two femurs" in capsys.readouterr().err and not (tmp_path / "halves").exists()


def test_parts_that_make_no_cascade_are_refused():
    localiser, classifier = find_recipe("box-regression"), find_recipe("ubm")
    assert build_cascade_recipe(localiser, classifier).view.size == 448
    with pytest.raises(RecipeError, match="box regression"):
        build_cascade_recipe(classifier, classifier)
    with pytest.raises(RecipeError, match="whole pictures"):
        build_cascade_recipe(localiser, find_recipe("lbm"))
    with pytest.raises(RecipeError, match="equalised"):
        build_cascade_recipe(replace(localiser, view=replace(localiser.view, equalise=False)), classifier)
    with pytest.raises(RecipeError, match="class map"):
        build_cascade_recipe(localiser, localiser)


def test_what_is_put_together_was_trained_on_what_any_part_was():
    """The first part's word alone stood, so that a promise was fixed on cases that the second was trained on."""
    chosen = find_recipe("lbm")
    seen, last = replace(chosen, train_on=("val", "train"), select="last"), replace(chosen, select="last")
    for parts in itertools.permutations((chosen, seen, last)):
        recipe = build_ensemble_recipe(parts)
        assert set(recipe.train_on) == {"train", "val"} and recipe.select == "last"
    recipe = build_ensemble_recipe([replace(last, validate="end"), chosen])
    assert (recipe.train_on, recipe.select, recipe.validate) == (("train",), "loss", "epoch")
    for alike in (chosen, seen, last):
        one = build_ensemble_recipe([alike, alike])
        assert (one.train_on, one.select) == (alike.train_on, alike.select)
    localiser, classifier = find_recipe("box-regression"), find_recipe("ubm")
    for parts in ((replace(localiser, train_on=("train", "val"), select="last"), classifier), (localiser, seen)):
        parts = (parts[0], replace(classifier, train_on=parts[1].train_on, select=parts[1].select))
        assert set(build_cascade_recipe(*parts).train_on) == {"train", "val"}
    with pytest.raises(RecipeError, match="views of a study in different ways: none and maximum"):
        build_ensemble_recipe([chosen, replace(chosen, join_views="maximum")])


def test_an_ensemble_averages_the_kind_of_answer_that_its_members_give():
    softmax = find_recipe("lbm")
    sigmoid = replace(softmax, title="each", objective=HeatmapMatch("classifier"), guidance=None, weight=0.0)
    assert not build_ensemble_recipe([softmax, softmax]).model.independent
    recipe = build_ensemble_recipe([sigmoid, sigmoid])
    assert recipe.independent and recipe.model.independent
    for parts in ((softmax, sigmoid), (sigmoid, softmax)):
        with pytest.raises(RecipeError, match=r"each(?: judges|) each class by itself .* no common mean"):
            build_ensemble_recipe(parts)
    # as it was written before an ensemble knew of sigmoids
    with pytest.raises(RecipeError, match=r"averages .* judge all .* members judge each class by itself") as refused:
        replace(recipe, model=replace(recipe.model, independent=False))
    assert "sightline ensemble" in refused.value.remedy
