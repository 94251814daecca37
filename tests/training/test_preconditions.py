"""What a recipe is refused on before it is trained."""

from dataclasses import replace

import numpy as np
import pytest
from support.cohorts import tiny_recipe

from sightline.errors import CohortError, RecipeError
from sightline.structures.regions import Mask
from sightline.structures.tag import Tag
from sightline.training.optimization import LayerRates, ReduceOnPlateau, Steady
from sightline.training.preconditions import require_regions, select_training_cases


def test_an_auc_that_no_epoch_can_have_selects_nothing_and_is_refused(tiny_cohort):
    kept = tuple(c for c in tiny_cohort if c.split != "val" or c.label == "fracture")
    one_sided = replace(tiny_cohort, cases=kept)
    with pytest.raises(CohortError, match="no fracture, so that no epoch has an AUC") as refused:
        select_training_cases(tiny_recipe(select="auc"), one_sided)
    assert "select='loss'" in refused.value.remedy
    assert len(select_training_cases(tiny_recipe(select="loss"), one_sided)) == len(tiny_cohort.split("train"))
    assert len(select_training_cases(tiny_recipe(select="auc"), tiny_cohort)) == len(tiny_cohort.split("train"))


def test_a_schedule_that_waits_for_a_validation_that_never_comes_is_refused(tiny_cohort):
    """It was said after the first epoch, which was lost."""
    waits = tiny_recipe(schedule=ReduceOnPlateau(patience=2))
    whole = len(tiny_cohort.split("train"))
    assert len(select_training_cases(waits, tiny_cohort)) == whole
    unvalidated = replace(tiny_cohort, cases=tuple(case for case in tiny_cohort if case.split != "val"))
    by_layer = tiny_recipe(rates=LayerRates(schedules={"head.": Steady(patience=2)}))
    for recipe in (waits, by_layer):
        with pytest.raises(CohortError, match="no case is left to validate on"):
            select_training_cases(recipe, unvalidated)
    with pytest.raises(CohortError, match="watches val_loss"):
        select_training_cases(replace(waits, train_on=("train", "val")), tiny_cohort)
    with pytest.raises(RecipeError, match="at the end alone"):
        select_training_cases(replace(waits, validate="end"), tiny_cohort)
    for recipe in (tiny_recipe(schedule=Steady()), replace(waits, schedule=ReduceOnPlateau(watch="loss"))):
        assert len(select_training_cases(recipe, unvalidated)) == whole


def test_views_of_a_study_that_differ_in_label_are_said_before_training(tiny_cohort, capsys):
    select_training_cases(tiny_recipe(), tiny_cohort)
    assert not capsys.readouterr().err
    first = tiny_cohort[0]
    other = next(name for name in tiny_cohort.classes if name != first.label)
    mixed = replace(tiny_cohort, cases=(replace(first, label=other), *tuple(tiny_cohort)[1:]))
    select_training_cases(tiny_recipe(), mixed)
    assert "the views of 1 study differ in label, e.g. 'S00' (fracture and no fracture)" in capsys.readouterr().err


@pytest.mark.parametrize("check", [require_regions, select_training_cases])
def test_a_cohort_without_splits_is_told_so_and_how_to_split_it(tiny_cohort, check):
    """A guided recipe said that no region was marked in the training split."""
    unsplit = replace(tiny_cohort, cases=tuple(replace(case, split=None) for case in tiny_cohort))
    with pytest.raises(CohortError, match="no case in the split train") as refused:
        check(tiny_recipe(weight=0.1), unsplit)
    assert "studies.csv" in refused.value.remedy and "cohort split SRC DEST" in refused.value.remedy


def test_masks_of_another_size_than_the_picture_guide_nothing(tiny_cohort):
    """They guided to the upper left of the picture."""
    first = next(case for case in tiny_cohort if case.split == "train")
    other = replace(first, regions=(Mask(np.ones((8, 8), dtype=bool), Tag("focus")),))
    cohort = replace(tiny_cohort, cases=tuple(other if case is first else case for case in tiny_cohort))
    with pytest.raises(CohortError, match=f"8 x 8 on '{first.case_id}' of {first.shape[0]} x"):
        require_regions(tiny_recipe(weight=0.1), cohort)
    require_regions(tiny_recipe(weight=0.1), tiny_cohort)
    require_regions(tiny_recipe(weight=0.0), cohort)  # nothing is guided
