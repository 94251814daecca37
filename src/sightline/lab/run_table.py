"""A table is run: every row is trained with every seed and measured alike, one after the other or in processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from sightline.case import Cohort
from sightline.errors import CohortError, RecipeError, SightlineError
from sightline.lab.engine import Engine
from sightline.lab.evaluation import Evaluation
from sightline.lab.plain import Catalogue
from sightline.lab.progress import progress
from sightline.lab.row_training import RowTraining
from sightline.lab.servable import unservable
from sightline.lab.table import RowResult, Table, TableResult


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
    failures = unservable(table, cohort, say)
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
