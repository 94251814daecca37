"""A table is a list of rows, each a recipe; running it trains every row with several seeds and measures all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sightline.case import Cohort
from sightline.errors import CohortError, RecipeError, SightlineError
from sightline.lab.evaluate import Evaluation, evaluate
from sightline.lab.plain import Catalogue
from sightline.lab.recipe import Recipe
from sightline.lab.run import run_identity
from sightline.lab.train import Engine, train


@dataclass(frozen=True)
class Published:
    """A value as a paper prints it: mean and standard deviation over its runs, in percent or as it stands."""

    mean: float
    std: float | None = None

    def __str__(self) -> str:
        """Mean, and the deviation where one is printed."""
        return f"{self.mean:g}" if self.std is None else f"{self.mean:g} ± {self.std:g}"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: unique in the table.
        recipe: what is trained; its seed is replaced.
        reference: name of the row it is compared with, or None.
        published: value printed by the paper, by metric name and then split.
        train_per_class: train on this many images of each class, drawn once per seed; None for all.
        group: what the row is drawn with in the figures: method, style.
        weight_label: position on the figure's axis.
    """

    name: str
    recipe: Recipe
    reference: str | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    train_per_class: int | None = None
    group: str = ""
    weight_label: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a paper, or one of ours.

    Attributes:
        name: `paper/table`.
        title: what it shows.
        rows: its rows, references before those compared with them.
        caption: how it is to be read; deviations from the paper.
        metrics: metrics shown, in order.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    caption: str = ""
    metrics: tuple[str, ...] = ("image-wise accuracy", "study-wise accuracy")


@dataclass(frozen=True)
class RowResult:
    """What a row gave: one evaluation per seed and test cohort, or the reason why it did not run."""

    row: Row
    evaluations: Mapping[str, tuple[Evaluation, ...]] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    why_not: SightlineError | None = None


@dataclass(frozen=True)
class TableResult:
    """All rows of a table on a cohort."""

    table: Table
    cohort: Cohort
    seeds: tuple[int, ...]
    rows: tuple[RowResult, ...]

    def of(self, name: str) -> RowResult:
        """The result of a row."""
        return next(result for result in self.rows if result.row.name == name)


def run_table(
    table: Table,
    cohort: Cohort,
    out: Path,
    catalogue: Catalogue,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    engine: Engine | None = None,
    external: Cohort | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TableResult:
    """Train and evaluate every row with every seed; finished runs are reused, killed ones resumed.

    A row the cohort cannot serve (no region of its style, say) is listed with the reason; the others go on.
    """
    if not seeds:
        raise RecipeError("A table needs at least one seed.", "Use --seeds 1 or more.")
    tests = {"test": cohort.split("test")}
    if len(tests["test"]) == 0:
        raise CohortError(f"Cohort {cohort.name!r} has no test split.", "Assign splits when importing the cohort.")
    if external is not None:
        tests["external"] = external
    # seeds outermost: after the first pass every row has a first result
    evaluations: dict[str, dict[str, list[Evaluation]]] = {row.name: {t: [] for t in tests} for row in table.rows}
    folders: dict[str, list[Path]] = {row.name: [] for row in table.rows}
    failures: dict[str, SightlineError] = {}
    for seed in seeds:
        for row in table.rows:
            if row.name in failures:
                continue
            try:
                require_regions(row.recipe, cohort)
                recipe = replace(row.recipe, seed=seed, title=f"{row.name}, seed {seed}")
                training = few_per_class(cohort, row.train_per_class, recipe.train_on, seed)
                folder = out / "runs" / run_identity(recipe, training, catalogue)
                say(f"{row.name}, seed {seed}: {folder.name}")
                run = train(recipe, training, folder, catalogue, engine)
                for name, test in tests.items():
                    evaluations[row.name][name].append(evaluate(run, test, name, engine=engine))
                folders[row.name].append(folder)
            except SightlineError as error:
                say(f"{row.name}: not run. {error}")
                failures[row.name] = error
    results = tuple(
        RowResult(
            row,
            {name: tuple(done) for name, done in evaluations[row.name].items()},
            tuple(folders[row.name]),
            failures.get(row.name),
        )
        for row in table.rows
    )
    return TableResult(table, cohort, tuple(seeds), results)


def require_regions(recipe: Recipe, cohort: Cohort) -> None:
    """Refuse a guided recipe on a cohort that has nothing to guide by.

    Raises:
        CohortError: no training case has a region of the recipe's role.
    """
    if not recipe.guided_by_regions:
        return
    training = cohort.split(*recipe.train_on)
    if not any(region.tag.role == recipe.regions.role for case in training for region in case.regions):
        raise CohortError(
            f"Cohort {cohort.name!r} has no {recipe.regions.role} region in its training split.",
            "Mark regions, or choose a recipe guided by what the cohort has (train: --role, or the recipe unguided).",
        )


def few_per_class(cohort: Cohort, n: int | None, splits: Sequence[str], seed: int) -> Cohort:
    """The cohort with at most n training images of each class, by a seeded permutation; other splits untouched."""
    if n is None:
        return cohort
    keep: set[str] = set()
    for index, label in enumerate(cohort.classes):
        ids = [case.case_id for case in cohort.split(*splits) if case.label == label]
        keep |= {ids[i] for i in np.random.default_rng([seed, index]).permutation(len(ids))[:n]}
    return cohort.where(lambda case: case.split not in splits or case.case_id in keep)
