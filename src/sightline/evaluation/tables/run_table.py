"""A table is run: every row is trained with every seed and measured alike, one after the other or in processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from sightline.data.split import few_per_class, from_sources
from sightline.data.subset import displaced_marks, nested_subset
from sightline.data.views.image_view import refuse_unmarked
from sightline.errors import CohortError, RecipeError, SightlineError
from sightline.evaluation.evaluate import choose_boxes, evaluate
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.self_training import pseudo_label
from sightline.evaluation.tables.table import Row, RowResult, Table, TableResult
from sightline.io.progress import progress
from sightline.structures.case import Cohort
from sightline.training.assemble import assemble
from sightline.training.engine import Engine
from sightline.training.preconditions import require_regions
from sightline.training.recipe import Recipe
from sightline.training.run import Run, open_run, run_identity
from sightline.training.serialization import Catalogue
from sightline.training.train import train


def run_table(
    table: Table,
    cohort: Cohort,
    out: Path,
    catalogue: Catalogue,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    engine: Engine | None = None,
    external: Cohort | None = None,
    parallel: int = 1,
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
        parallel: trainings at a time, each a process of its own with its share of the cores.
        say: called with what is being done.
    """
    if not seeds:
        raise RecipeError("A table needs at least one seed.", "Use --seeds 1 or more.")
    tests = _tests(cohort, external)
    failures = rows_without_data(table, cohort, say)
    by_name = {row.name: row for row in table.rows}
    # seeds outermost: after the first pass every row has a first result
    trainings = [
        RowTraining(row, seed, cohort, tests, out, catalogue, engine or Engine(), by_name)
        for seed in seeds
        for row in table.rows
        if row.name not in failures
    ]
    if parallel > 1:
        # rows that need others wait until those are there
        for depth in range(max((training.depth for training in trainings), default=0) + 1):
            _run_in_processes([training for training in trainings if training.depth == depth], parallel)
    done: dict[str, list[tuple[Path, Mapping[str, Evaluation]]]] = {name: [] for name in by_name}
    for training in trainings:
        name = training.row.name
        if name in failures:
            continue
        if parallel == 1:
            say(f"{name}, seed {training.seed}: {training.folder.name}")
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


def _tests(cohort: Cohort, external: Cohort | None) -> dict[str, Cohort]:
    """What every row is tested on, by name."""
    tests = {"test": cohort.split("test")}
    if len(tests["test"]) == 0:
        raise CohortError(f"Cohort {cohort.name!r} has no test split.", "Assign splits when importing the cohort.")
    return tests if external is None else {**tests, "external": external}


def _run_in_processes(trainings: Sequence[RowTraining], parallel: int) -> None:
    """Run trainings in fresh processes; what they leave on disk is collected afterwards, errors included."""
    if not trainings:
        return
    threads = max(1, (os.cpu_count() or 1) // parallel)
    # one that fails leaves no DONE: it fails again, and is reported, when its result is collected
    with ProcessPoolExecutor(parallel, get_context("spawn"), _start_worker, (threads,)) as pool:
        waiting = {pool.submit(_run_quietly, training): training for training in trainings}
        with progress("trainings", len(trainings), quiet=trainings[0].engine.quiet) as advance:
            for future in as_completed(waiting):
                future.result()
                advance(1, f"{waiting[future].row.name}, seed {waiting[future].seed}")


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)


def _run_quietly(training: RowTraining) -> None:
    # a row's own failure is not this pool's: it is met again when the result is collected
    with suppress(SightlineError):
        replace(training, engine=replace(training.engine, quiet=True)).run()


@dataclass(frozen=True)
class RowTraining:
    """One training of one row, and its evaluations.

    Attributes:
        row: what is trained, put together or taught.
        seed: of this training.
        cohort: cases with splits, as the table has it.
        tests: what every row is tested on, by name.
        out: runs lie in its `runs/`.
        catalogue: words for recipes.
        engine: device and workers.
        rows: all rows of the table, by name.
    """

    row: Row
    seed: int
    cohort: Cohort
    tests: Mapping[str, Cohort]
    out: Path
    catalogue: Catalogue
    engine: Engine
    rows: Mapping[str, Row]

    @property
    def recipe(self) -> Recipe:
        """The row's, with this seed."""
        return replace(self.row.recipe, seed=self.seed, title=f"{self.row.name}, seed {self.seed}")

    @property
    def training(self) -> Cohort:
        """The cases it is trained and selected on."""
        seen = from_sources(self.recipe.see(self.cohort), self.row.trained_on)
        few = few_per_class(seen, self.row.train_per_class, self.recipe.train_on, self.seed)
        part = nested_subset(few, self.row.train_images, self.seed, self.recipe.train_on)
        return displaced_marks(part, self.row.wrong_marks, self.seed, self.recipe.train_on)

    @property
    def parts(self) -> dict[str, RowTraining]:
        """The trainings it is put together from, by submodule of its network."""
        return {name: self._of(row) for name, row in self.row.parts.items()}

    @property
    def teacher(self) -> RowTraining | None:
        """The training that marks its cases."""
        return None if self.row.teacher is None else self._of(self.row.teacher)

    @property
    def depth(self) -> int:
        """How many rows stand behind one another before this one can run."""
        return max((self._of(name).depth + 1 for name in self.row.needs), default=0)

    @property
    def identity(self) -> str:
        """The name of its run: from recipe, cases, and whatever it is made of or taught by."""
        parts = {name: part.identity for name, part in self.parts.items()}
        if self.teacher is not None:
            parts["teacher"] = f"{self.teacher.identity} {self.row.teaching.notation()}"
        return run_identity(self.recipe, self.training, self.catalogue, parts)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.out / "runs" / self.identity

    def run(self) -> dict[str, Evaluation]:
        """Train (or resume, reuse, put together) and evaluate."""
        run = choose_boxes(self.trained(), self.training, self.catalogue, engine=self.engine)
        tests = {name: from_sources(test, self.row.tested_on) for name, test in self.tests.items()}
        return {name: evaluate(run, test, name, engine=self.engine) for name, test in tests.items()}

    def trained(self) -> Run:
        """The finished run, and before it every run that it needs."""
        if self.teacher is not None and (self.folder / "DONE").is_file():
            # named by its teacher's identity: it need not be asked again
            return open_run(self.folder, self.catalogue)
        if self.teacher is not None:
            marked = pseudo_label(self.teacher.trained(), self.training, self.row.teaching, self.engine)
            return train(self.recipe, marked, self.folder, self.catalogue, self.engine)
        if not self.row.parts:
            return train(self.recipe, self.training, self.folder, self.catalogue, self.engine)
        parts = {name: part.trained() for name, part in self.parts.items()}
        return assemble(self.recipe, self.training, parts, self.folder, self.catalogue)

    def _of(self, row: str) -> RowTraining:
        """The training of another row with the same seed."""
        return replace(self, row=self.rows[row])


def rows_without_data(table: Table, cohort: Cohort, say: Callable[[str], None]) -> dict[str, SightlineError]:
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
