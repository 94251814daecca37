"""A table is a list of rows, each a recipe; running it trains every row with several seeds and measures all alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sightline.case import Cohort
from sightline.cohorts.transforms import refuse_unmarked
from sightline.errors import CohortError, RecipeError, SightlineError
from sightline.lab.assemble import assemble
from sightline.lab.evaluate import Evaluation, choose_boxes, evaluate
from sightline.lab.plain import Catalogue
from sightline.lab.progress import progress
from sightline.lab.recipe import Recipe
from sightline.lab.run import Run, open_run, run_identity
from sightline.lab.self_training import Teaching, taught
from sightline.lab.train import Engine, train


@dataclass(frozen=True)
class Published:
    """A value as a paper prints it: mean and standard deviation over its runs, in percent or as it stands.

    Attributes:
        mean: the value.
        std: standard deviation over runs, or None.
        low: lower end of a printed interval, or None.
        high: upper end.
        p: printed p-value of a comparison, or None.
    """

    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    def __str__(self) -> str:
        """The value, and deviation, interval and p where they are printed."""
        text = f"{self.mean:g}" if self.std is None else f"{self.mean:g} ± {self.std:g}"
        if self.low is not None and self.high is not None:
            text += f" ({self.low:g} to {self.high:g})"
        return text if self.p is None else f"{text}, p = {self.p:.4g}"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: unique in the table.
        recipe: what is trained; its seed is replaced.
        reference: name of the row it is compared with, or None.
        published: value printed by the paper, by metric name and then split.
        parts: the row is not trained but put together: submodule of its network -> name of an earlier row whose run
            of the same seed gives the weights.
        teacher: name of an earlier row whose run of the same seed marks the training cases in place of experts
            (`lab/self_training.py`), or None.
        teaching: how it marks them.
        train_per_class: train on this many images of each class, drawn once per seed; None for all.
        trained_on: sources (`from_sources`) whose cases it is trained and selected on; none named: all.
        tested_on: sources whose cases it is tested on.
        group: what the row is drawn with in the figures: method, style.
        weight_label: position on the figure's axis.
    """

    name: str
    recipe: Recipe
    reference: str | None = None
    published: Mapping[str, Published] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    teacher: str | None = None
    teaching: Teaching = field(default_factory=Teaching)
    train_per_class: int | None = None
    trained_on: tuple[str, ...] = ()
    tested_on: tuple[str, ...] = ()
    group: str = ""
    weight_label: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Rows whose runs have to be there before this one's."""
        return (*self.parts.values(), *([self.teacher] if self.teacher is not None else []))


@dataclass(frozen=True)
class Table:
    """A table of a paper, or one of ours.

    Attributes:
        name: `paper/table`.
        title: what it shows.
        rows: its rows, references before those compared with them.
        caption: how it is to be read; deviations from the paper.
        metrics: metrics shown, in order.
        leading: metrics that figures and sentences compare rows by: the first that the rows have.
        size: input size of its plain rows; another size asked for scales all sizes of all rows alike.
        as_printed: also write what the papers about gaze compute (`as_printed.md`).
        units: dissect the first row's first training besides: the `ranking` of its units, or that and one `case`.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    caption: str = ""
    metrics: tuple[str, ...] = ("image-wise accuracy", "study-wise accuracy")
    leading: tuple[str, ...] = ()
    size: int = 512
    as_printed: bool = False
    units: Literal["", "ranking", "case"] = ""


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
    tests = {"test": cohort.split("test")}
    if len(tests["test"]) == 0:
        raise CohortError(f"Cohort {cohort.name!r} has no test split.", "Assign splits when importing the cohort.")
    if external is not None:
        tests["external"] = external
    failures = _unservable(table, cohort, say)
    # seeds outermost: after the first pass every row has a first result
    jobs = [
        _Job(row, seed, cohort, tests, out, catalogue, engine or Engine(), {r.name: r for r in table.rows})
        for seed in seeds
        for row in table.rows
        if row.name not in failures
    ]
    if parallel > 1:
        # rows that need others wait until those are there
        for depth in range(max((job.depth for job in jobs), default=0) + 1):
            _run_in_processes([job for job in jobs if job.depth == depth], parallel)
    folders: dict[str, list[Path]] = {row.name: [] for row in table.rows}
    evaluations: dict[str, dict[str, list[Evaluation]]] = {row.name: {t: [] for t in tests} for row in table.rows}
    for job in jobs:
        if job.row.name in failures:
            continue
        if parallel == 1:
            say(f"{job.row.name}, seed {job.seed}: {job.folder.name}")
        try:
            found = job.run()
        except SightlineError as error:
            say(f"{job.row.name}: not run. {error}")
            failures[job.row.name] = error
            continue
        for name, evaluation in found.items():
            evaluations[job.row.name][name].append(evaluation)
        folders[job.row.name].append(job.folder)
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


@dataclass(frozen=True)
class _Job:
    """One training of one row, and its evaluations."""

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
        return replace(self.row.recipe, seed=self.seed, title=f"{self.row.name}, seed {self.seed}")

    @property
    def training(self) -> Cohort:
        seen = from_sources(self.recipe.see(self.cohort), self.row.trained_on)
        return few_per_class(seen, self.row.train_per_class, self.recipe.train_on, self.seed)

    @property
    def part_jobs(self) -> dict[str, _Job]:
        return {name: replace(self, row=self.rows[row]) for name, row in self.row.parts.items()}

    @property
    def teacher_job(self) -> _Job | None:
        return None if self.row.teacher is None else replace(self, row=self.rows[self.row.teacher])

    @property
    def depth(self) -> int:
        """How many rows stand behind one another before this one can run."""
        return max((replace(self, row=self.rows[name]).depth + 1 for name in self.row.needs), default=0)

    @property
    def identity(self) -> str:
        parts = {name: job.identity for name, job in self.part_jobs.items()}
        if self.teacher_job is not None:
            parts["teacher"] = f"{self.teacher_job.identity} {self.row.teaching}"
        return run_identity(self.recipe, self.training, self.catalogue, parts)

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.identity

    def run(self) -> dict[str, Evaluation]:
        """Train (or resume, reuse, put together) and evaluate."""
        run = choose_boxes(self._trained(), self.training, self.catalogue, engine=self.engine)
        tests = {name: from_sources(test, self.row.tested_on) for name, test in self.tests.items()}
        return {name: evaluate(run, test, name, engine=self.engine) for name, test in tests.items()}

    def _trained(self) -> Run:
        if self.teacher_job is not None and (self.folder / "DONE").is_file():
            # named by its teacher's identity: it need not be asked again
            return open_run(self.folder, self.catalogue)
        if self.teacher_job is not None:
            marked = taught(self.teacher_job._trained(), self.training, self.row.teaching, self.engine)
            return train(self.recipe, marked, self.folder, self.catalogue, self.engine)
        if not self.row.parts:
            return train(self.recipe, self.training, self.folder, self.catalogue, self.engine)
        parts = {name: job._trained() for name, job in self.part_jobs.items()}
        return assemble(self.recipe, self.training, parts, self.folder, self.catalogue)


def _unservable(table: Table, cohort: Cohort, say: Callable[[str], None]) -> dict[str, SightlineError]:
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


def _run_in_processes(jobs: Sequence[_Job], parallel: int) -> None:
    """Run jobs in fresh processes; what they leave on disk is collected afterwards, errors included."""
    if not jobs:
        return
    threads = max(1, (os.cpu_count() or 1) // parallel)
    # a job that fails leaves no DONE: it fails again, and is reported, when its result is collected
    with ProcessPoolExecutor(parallel, get_context("spawn"), _start_worker, (threads,)) as pool:
        waiting = {pool.submit(_run_quietly, job): job for job in jobs}
        with progress("trainings", len(jobs), quiet=jobs[0].engine.quiet) as advance:
            for future in as_completed(waiting):
                future.result()
                advance(1, f"{waiting[future].row.name}, seed {waiting[future].seed}")


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)


def _run_quietly(job: _Job) -> None:
    # a row's own failure is not this pool's: it is met again when the result is collected
    with suppress(SightlineError):
        replace(job, engine=replace(job.engine, quiet=True)).run()


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


def from_sources(cohort: Cohort, sources: Sequence[str]) -> Cohort:
    """The cases from any of some sources; all of them where none is named.

    Args:
        cohort: whose cases state the fact `source`.
        sources: starts of sources, `verse` for verse19 and verse20; `not verse`: all others.

    Raises:
        CohortError: there is no case from one of them.
    """
    if not sources:
        return cohort
    kept: set[str] = set()
    for word in sources:
        start = word.removeprefix("not ")
        found = {c.case_id for c in cohort if c.facts.get("source", "").startswith(start) is (start == word)}
        if not found:
            have = sorted({case.facts.get("source", "") or "none stated" for case in cohort})
            raise CohortError(
                f"Cohort {cohort.name!r} has no case from {word!r}; its sources are {', '.join(have)}.",
                "Import that data set too, or leave this row out.",
            )
        kept |= found
    return cohort.where(lambda case: case.case_id in kept)


def few_per_class(cohort: Cohort, n: int | None, splits: Sequence[str], seed: int) -> Cohort:
    """The cohort with at most n training images of each class, by a seeded permutation; other splits untouched."""
    if n is None:
        return cohort
    keep: set[str] = set()
    for index, label in enumerate(cohort.classes):
        ids = [case.case_id for case in cohort.split(*splits) if case.label == label]
        keep |= {ids[i] for i in np.random.default_rng([seed, index]).permutation(len(ids))[:n]}
    return cohort.where(lambda case: case.split not in splits or case.case_id in keep)
