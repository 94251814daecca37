"""From marks to a network and back: export, train the same recipe guided by them, compare before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.errors import CohortError, RecipeError
from sightline.web.workstation.exchange.commands import export_marks

if TYPE_CHECKING:
    from sightline.evaluation.evidence.comparison import MethodComparison
    from sightline.training.engine import Engine
    from sightline.training.recipe import Recipe
    from sightline.training.run import Run
    from sightline.training.serialization import Catalogue

MARKS, RUN, COMPARISON = "marks", "run", "comparison"


@dataclass(frozen=True)
class Retraining:
    """What is trained again, and on what.

    Attributes:
        keep: folder of the store.
        cohort: folder of the cohort that was marked; its test cases, with their own marks, measure both runs.
        out: folder to write: `marks/` (the cohort), `run/`, `comparison/`.
        whose: whose marks are exported: each, a rule or a reader's name.
        weight: of the guidance, for a recipe that has none; None keeps the recipe's.
        database: a database URL.
        replicates: bootstrap samples and swaps.
    """

    keep: Path
    cohort: Path
    out: Path
    whose: str = "each"
    weight: float | None = None
    database: str | None = None
    replicates: int = 2000


def build_guided_recipe(recipe: Recipe, weight: float | None) -> Recipe:
    """The recipe, guided by marks: its own guidance, else the spatial negative log-likelihood of this weight.

    Args:
        recipe: of the run before.
        weight: of the guidance; None keeps the recipe's.

    Raises:
        RecipeError: the recipe is not guided and no weight was given, or it is guided by gaze.
    """
    from sightline.data.targets.region_choice import RegionChoice
    from sightline.losses.spatial_nll import SpatialNLL

    if not isinstance(recipe.regions, RegionChoice):
        raise RecipeError(
            f"{recipe.title} is guided by gaze, not by marks.", "Choose a run guided by regions, or none."
        )
    guided = recipe
    if weight is not None:
        guided = replace(recipe, guidance=recipe.guidance or SpatialNLL(), weight=weight)
    if not guided.guided_by_regions and not guided.needs_boxes:
        raise RecipeError(
            f"{recipe.title} is not guided by marks: trained again it would be the same.",
            "Give the weight of the guidance, e.g. --weight 0.1.",
        )
    return replace(guided, title=f"{recipe.title}, with the store's marks")


def require_seeds(runs: Sequence[Run]) -> None:
    """Several runs before are trainings of one recipe that differ in the seed alone.

    Raises:
        RecipeError: no run, other recipes, or two of one seed.
    """
    if not runs:
        raise RecipeError("No run was given to train again.", "Give --run RUN; repeat it for runs of other seeds.")
    bare = [replace(run.recipe, seed=0, title="") for run in runs]
    if any(one != bare[0] for one in bare[1:]) or len({run.recipe.seed for run in runs}) < len(runs):
        raise RecipeError(
            "The runs are not trainings of one recipe with seeds of their own.",
            "Give runs that differ in --seed alone.",
        )


def retrain(
    order: Retraining,
    before: Sequence[Run],
    catalogue: Catalogue,
    *,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
    engine: Engine | None = None,
) -> MethodComparison:
    """Export the marks, train the recipe of each run guided by them, and compare the new runs with the old ones.

    Several runs of other seeds are trained again with their own: the chance of training is in the intervals then. An
    export or a training that is there already is gone on with, so that the same command resumes.

    Args:
        order: what, and where.
        before: the runs whose recipe is trained again.
        catalogue: of recipes' words.
        change: what a person changes of the recipe (style, role, length).
        engine: device.

    Returns:
        Paired differences, after less before, on the cohort's test cases; `comparison/` holds the page.

    Raises:
        CohortError: no test case, nobody marked a training case, or the test marks are proposals of the run before.
        RecipeError: a recipe that marks do not guide.
    """
    from sightline.data.datasets.folder.reader import read_cohort
    from sightline.evaluation.evaluate import choose_boxes
    from sightline.evaluation.evidence.comparison import compare_runs, write_comparison
    from sightline.training.model_card import write_model_card
    from sightline.training.preconditions import require_regions
    from sightline.training.train import train

    require_seeds(before)
    recipes = [change(build_guided_recipe(run.recipe, order.weight)) for run in before]
    if len(recipes) > 1 and len({recipe.seed for recipe in recipes}) < len(recipes):
        raise RecipeError("Each run is trained again with its own seed.", "Leave --seed out, or give one run.")
    test = read_cohort(order.cohort).split("test")
    if not len(test):
        raise CohortError(f"{order.cohort} has no test case.", "Assign splits: sightline cohort split.")
    marks = order.out / MARKS
    if not (marks / "cohort.json").is_file():
        print(export_marks(order.keep, order.cohort, order.database, marks, "folder", order.whose))
    cohort = read_cohort(marks)
    after: list[Run] = []
    choose = partial(choose_boxes, cohort=cohort, catalogue=catalogue, engine=engine)
    for number, recipe in enumerate(recipes, 1):
        require_regions(recipe, recipe.see(cohort))
        place = order.out / (RUN if number == 1 else f"{RUN}-{number}")
        made = choose(train(recipe, cohort, place, catalogue, engine, conclude=choose))
        write_model_card(made)
        after.append(made)
    found = compare_runs(after, before, test, replicates=order.replicates, engine=engine)
    found = replace(found, names=("after", "before"), notes=(*found.notes, _describe_retraining(order, before, after)))
    write_comparison(found, order.out / COMPARISON)
    return found


def _describe_retraining(order: Retraining, before: Sequence[Run], after: Sequence[Run]) -> str:
    of = "run" if len(before) == 1 else "runs"
    chance = (
        "One training each: a difference may be the chance of training; train more seeds before it is called an effect."
        if len(before) == 1
        else f"{len(before)} trainings each, of the same seeds."
    )
    return (
        f"Before is {before[0].recipe.title} ({of} {', '.join(run.identity for run in before)}), after the same recipe "
        f"trained on the marks of the store (readers: {order.whose}; {of} {', '.join(run.identity for run in after)}), "
        "which replace every mark the cohort had. Both are measured on the test cases of the cohort as it was, with "
        f"its own marks. {chance}"
    )
