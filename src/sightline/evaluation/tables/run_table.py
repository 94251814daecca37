"""A table is run: every row is trained with every seed and measured alike, by this machine or by a cluster."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

from sightline.data.split import ASSIGN_SPLITS, limit_per_class, select_sources
from sightline.data.views.image_view import refuse_unmarked
from sightline.errors import CohortError, RecipeError, SightlineError, count_noun
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.engines.local import LocalEngine, TableEngine
from sightline.evaluation.tables.engines.row_training import RowTraining
from sightline.evaluation.tables.table import Row, RowResult, Table, TableResult
from sightline.structures.case import Cohort
from sightline.training.engine import Engine, require_one_device
from sightline.training.preconditions import require_regions
from sightline.training.serialization import Catalogue


def run_table(
    table: Table,
    cohort: Cohort,
    out: Path,
    catalogue: Catalogue,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    engine: Engine | None = None,
    external: Cohort | None = None,
    runs_on: TableEngine | None = None,
    capsules: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
) -> TableResult:
    """Train and evaluate every row with every seed; finished runs are reused, killed ones resumed.

    A row the cohort cannot serve (no region of its style, say) is listed with the reason; the others go on.

    Args:
        table: what to run.
        cohort: cases with splits.
        out: runs lie in its `runs/`.
        catalogue: words for recipes.
        seeds: of the trainings.
        engine: device and workers.
        external: a second cohort, tested on whole.
        runs_on: where the trainings run (`evaluation/tables/engines`); None runs one after the other here.
        capsules: of earlier tables; trainings that they hold are taken from them (`engines/capsule_runs.py`).
        say: called with what is being done.
    """
    if not seeds:
        raise RecipeError("A table needs at least one seed.", "Use --seeds 1 or more.")
    if len(set(seeds)) < len(seeds):
        raise RecipeError(
            f"A seed is named twice in {list(seeds)}: one training would count as two.", "Name each seed once."
        )
    engine = engine or Engine()
    require_one_device(engine, "A table")
    tests = _collect_tests(cohort, external)
    if table.named_in:
        # tables that come with the package do without
        from sightline.evaluation.tables.summary import require_known_metrics

        require_known_metrics(table, cohort)
    failures = find_rows_without_data(table, cohort, say)
    mention_unpaired_rows(table, cohort, failures, say)
    by_name = {row.name: row for row in table.rows}
    runs_on = runs_on or LocalEngine()
    if runs_on.store is not None:
        runs_on.store.require_open()
    # seeds outermost: after the first pass every row has a first result
    trainings = [
        RowTraining(row, seed, cohort, tests, out, catalogue, engine, by_name, runs_on.store)
        for seed in seeds
        for row in table.rows
        if row.name not in failures
    ]
    if capsules:
        # most tables take nothing over
        from sightline.evaluation.tables.engines.capsule_runs import take_over_runs

        take_over_runs(capsules, {each.folder: [need.folder for need in each.needs] for each in trainings}, say)
    for name, error in runs_on.run(trainings).items():
        say(f"{name}: not run. {error}")
        failures[name] = error
    done: dict[str, list[tuple[Path, Mapping[str, Evaluation]]]] = {name: [] for name in by_name}
    for training in trainings:
        name = training.row.name
        if name in failures:
            continue
        if isinstance(runs_on, LocalEngine) and runs_on.parallel == 1:
            say(f"{training.title}: {training.folder.name}")
        try:
            done[name].append((training.folder, training.run()))
        except SightlineError as error:
            say(f"{name}: not run. {error}")
            failures[name] = error
    results = tuple(
        RowResult(
            row,
            {test: tuple(evaluations[test] for _, evaluations in done[row.name]) for test in tests},
            tuple(folder for folder, _ in done[row.name]),
            failures.get(row.name),
        )
        for row in table.rows
    )
    return TableResult(table, cohort, tuple(seeds), results)


def _collect_tests(cohort: Cohort, external: Cohort | None) -> dict[str, Cohort]:
    """What every row is tested on, by name."""
    tests = {"test": cohort.split("test")}
    if len(tests["test"]) == 0:
        raise CohortError(f"Cohort {cohort.name!r} has no test split.", ASSIGN_SPLITS)
    return tests if external is None else {**tests, "external": external}


def find_rows_without_data(table: Table, cohort: Cohort, say: Callable[[str], None]) -> dict[str, SightlineError]:
    """Rows the cohort has nothing to guide by, or fewer training images for than they claim; rows trained on test."""
    failures: dict[str, SightlineError] = {}
    for row in table.rows:
        try:
            if "test" in row.recipe.train_on:
                raise CohortError(
                    "The row is trained on the test cases, on which every row is tested.",
                    "Leave test out of train_on; `sightline train` takes it, for a network that is not tested.",
                )
            seen = select_sources(row.recipe.see(cohort), row.trained_on)
            select_sources(cohort.split("test"), row.tested_on)
            if row.teacher is None:
                require_regions(row.recipe, seen)
            refuse_unmarked(seen, row.recipe.view)
            _require_images(row, seen)
            missing = next((name for name in row.needs if name in failures), None)
            if missing is not None:
                raise CohortError(f"It needs the row {missing}, which was not run.")
        except CohortError as error:
            say(f"{row.name}: not run. {error}")
            failures[row.name] = error
    return failures


def _require_images(row: Row, seen: Cohort) -> None:
    """Refuse a row that claims more training images than there are: it would be the row of all of them, twice."""
    there = len(limit_per_class(seen, row.train_per_class, row.recipe.train_on, 0).split(*row.recipe.train_on))
    if row.train_images is not None and row.train_images > there:
        raise CohortError(
            f"The row is to be trained on {count_noun(row.train_images, 'image')}, and there "
            f"{'is' if there == 1 else 'are'} {there} in {' and '.join(row.recipe.train_on)}.",
            f"Set train_images to {there} or less, or leave it out to train on all.",
        )


def mention_unpaired_rows(table: Table, cohort: Cohort, failures: Container[str], say: Callable[[str], None]) -> None:
    """Say before anything is trained which rows have other test images or classes than their reference.

    Their own numbers are computed all the same, and what both rows have is compared.
    """
    rows = {row.name: row for row in table.rows}
    for row in table.rows:
        reference = rows.get(row.reference or "")
        if reference is None or row.name in failures or reference.name in failures:
            continue
        ours, theirs = _select_tests(row, cohort), _select_tests(reference, cohort)
        if row.recipe.classifies and reference.recipe.classifies and ours.classes != theirs.classes:
            named = f"({', '.join(ours.classes)}) and ({', '.join(theirs.classes)})"
            say(f"{row.name}: its answers are not compared with those of {reference.name}: the classes are {named}.")
        here, there = ({case.case_id for case in tested} for tested in (ours, theirs))
        if not here & there:
            say(f"{row.name}: not compared with {reference.name}: no test image is in both rows. Check `tested_on`.")
        elif here != there:
            shared = f"{len(here & there)} of its {count_noun(len(here), 'test image')}"
            say(f"{row.name}: compared with {reference.name} on {shared}: the others are not in both rows.")


def _select_tests(row: Row, cohort: Cohort) -> Cohort:
    return select_sources(row.recipe.see(cohort).split("test"), row.tested_on)
