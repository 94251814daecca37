"""The cases a recipe is trained on, or the reason why it cannot be trained on a cohort."""

from __future__ import annotations

from sightline.case import Cohort
from sightline.cohorts.patches import patchable
from sightline.cohorts.split import refuse_leakage
from sightline.cohorts.transforms import View, refuse_unmarked
from sightline.errors import CohortError
from sightline.lab.recipe import Recipe


def training_cases(recipe: Recipe, cohort: Cohort) -> Cohort:
    """The training cases of a cohort.

    Args:
        recipe: what is trained.
        cohort: as the recipe sees it.

    Raises:
        CohortError: no such split, leakage between splits, nothing marked that has to be, or a single label.
    """
    refuse_leakage(cohort)
    refuse_unmarked(cohort, recipe.view)
    training = cohort.split(*recipe.train_on)
    if isinstance(recipe.view, View) and recipe.view.patches is not None and len(training):
        training = patchable(training, recipe.regions)
    if len(training) == 0:
        raise CohortError(
            f"Cohort {cohort.name!r} has no case in the split {' + '.join(recipe.train_on)}.",
            "Assign splits when importing the cohort.",
        )
    absent = [name for name, n in training.counts().items() if n == 0]
    if len(absent) == len(cohort.classes) - 1:
        raise CohortError(
            f"All {len(training)} training cases of {cohort.name!r} have one label; {', '.join(absent)} is absent.",
            "Import cases of every class.",
        )
    if recipe.select != "last" and len(cohort.split("val")) == 0:
        raise CohortError(f"select={recipe.select!r} needs a validation split.", "Assign one, or use select='last'.")
    return training
