"""What a cohort can serve: a recipe needs what guides it, a row its cases and the rows before it."""

from __future__ import annotations

from collections.abc import Callable

from sightline.case import Cohort
from sightline.cohorts.subset import from_sources
from sightline.cohorts.transforms import refuse_unmarked
from sightline.errors import CohortError, SightlineError
from sightline.lab.recipe import Recipe
from sightline.lab.table import Table


def require_regions(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse a guided recipe on a cohort that has nothing to guide by.

    Raises:
        CohortError: no training case has a region of the recipe's role.
    """
    if not recipe.guided_by_regions and not recipe.needs_boxes:
        return
    role = "finding" if recipe.needs_boxes else recipe.regions.role
    training = cohort.split(*recipe.train_on)
    if not any(region.tag.role == role for case in training for region in case.regions):
        raise CohortError(
            f"Cohort {cohort.name!r} has no {role} region in its training split.",
            "Mark regions, or choose a recipe guided by what the cohort has (train: --role, or the recipe unguided).",
        )


def unservable(table: Table, cohort: Cohort, say: Callable[[str], None]) -> dict[str, SightlineError]:
    """Rows the cohort has nothing to guide by."""
    failures: dict[str, SightlineError] = {}
    for row in table.rows:
        try:
            seen = from_sources(row.recipe.see(cohort), row.trained_on)
            from_sources(cohort.split("test"), row.tested_on)
            if row.teacher is None:
                require_regions(row.recipe, seen)
            refuse_unmarked(seen, row.recipe.view)
            missing = next((name for name in row.needs if name in failures), None)
            if missing is not None:
                raise CohortError(f"It needs the row {missing}, which was not run.")
        except CohortError as error:
            say(f"{row.name}: not run. {error}")
            failures[row.name] = error
    return failures
