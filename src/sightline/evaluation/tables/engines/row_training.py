"""One training of one row with one seed: what is trained on what, into which folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.data.split import select_sources
from sightline.errors import CohortError
from sightline.evaluation.evaluate import choose_boxes, evaluate
from sightline.evaluation.result import Evaluation, read_capsule_digest
from sightline.evaluation.tables.engines.run_store import RunStore
from sightline.evaluation.tables.engines.self_training import label_by_run
from sightline.evaluation.tables.engines.suggested_marks import Asking, show_suggested_marks
from sightline.evaluation.tables.table import Row
from sightline.structures.case import Cohort
from sightline.training.assemble import assemble
from sightline.training.engine import Engine
from sightline.training.preconditions import require_same_pictures
from sightline.training.recipe import Recipe
from sightline.training.run import Run, find_identity, open_run
from sightline.training.serialization import Catalogue
from sightline.training.train import Teacher, train


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
        store: where its run is kept as well, for machines that share no files; None: in the folder alone.
    """

    row: Row
    seed: int
    cohort: Cohort
    tests: Mapping[str, Cohort]
    out: Path
    catalogue: Catalogue
    engine: Engine
    rows: Mapping[str, Row]
    store: RunStore | None = None

    @property
    def recipe(self) -> Recipe:
        """The row's, with this seed."""
        return replace(self.row.recipe, seed=self.seed + self.row.seed_offset, title=self.title)

    @property
    def training(self) -> Cohort:
        """The cases it is trained and selected on."""
        return self.row.training_cases(self.cohort, self.seed)

    @property
    def parts(self) -> dict[str, RowTraining]:
        """The trainings it is put together from, by submodule of its network."""
        return {name: self._train_of(row) for name, row in self.row.parts.items()}

    @property
    def teacher(self) -> RowTraining | None:
        """The training that marks its cases."""
        return None if self.row.teacher is None else self._train_of(self.row.teacher)

    @property
    def taught_by(self) -> Teacher | None:
        """The same, as the run's identity and papers have it."""
        teacher = self.teacher
        if teacher is None:
            return None
        return Teacher(f"{teacher.identity} {self.row.teaching.notation()}", self.training.fingerprint())

    @property
    def needs(self) -> tuple[RowTraining, ...]:
        """The trainings that have to be there before this one can run."""
        return tuple(self._train_of(name) for name in self.row.needs)

    @property
    def title(self) -> str:
        """What progress and errors call it."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def depth(self) -> int:
        """How many rows stand behind one another before this one can run."""
        return max((needed.depth + 1 for needed in self.needs), default=0)

    @property
    def identity(self) -> str:
        """The name of its run: from recipe, cases, and whatever it is made of or taught by."""
        parts = {name: part.identity for name, part in self.parts.items()}
        taught_by = self.taught_by
        if taught_by is not None:
            parts |= taught_by.parts
        return find_identity(self.out / "runs", self.recipe, self.training, self.catalogue, parts)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.out / "runs" / self.identity

    def run(self) -> dict[str, Evaluation]:
        """Train (or resume, reuse, put together) and evaluate; a run that was taken from a capsule is read.

        With a store, what it holds of this run is fetched first, and the finished run is sent.
        """
        if self.store is None:
            return self._run_here()
        with self.store.keep_run(self.folder, [need.folder for need in self.needs]):
            return self._run_here()

    def _run_here(self) -> dict[str, Evaluation]:
        tests = {name: select_sources(test, self.row.tested_on) for name, test in self.tests.items()}
        taken = read_capsule_digest(self.folder) is not None
        run = open_run(self.folder, self.catalogue) if taken else self._choose(self.train_run())
        return {name: evaluate(run, test, name, engine=self.engine) for name, test in tests.items()}

    def train_run(self) -> Run:
        """The finished run, and before it every run that it needs."""
        if self.teacher is not None and (self.folder / "DONE").is_file():
            # named by its teacher's identity: it need not be asked again
            run = open_run(self.folder, self.catalogue)
            require_same_pictures(run, self.training)
            return run
        if self.row.parts:
            parts = {name: part.train_run() for name, part in self.parts.items()}
            return assemble(self.recipe, self.training, parts, self.folder, self.catalogue, conclude=self._choose)
        cohort = self.training if self.teacher is None else self._mark_by(self.teacher)
        return train(
            self.recipe,
            cohort,
            self.folder,
            self.catalogue,
            self.engine,
            conclude=self._choose,
            teacher=self.taught_by,
        )

    def _choose(self, run: Run) -> Run:
        """The run that knows how boxes are read off its maps."""
        return choose_boxes(run, self.training, self.catalogue, engine=self.engine)

    def _mark_by(self, teacher: RowTraining) -> Cohort:
        """The cohort with the marks that another training makes, or asks experts for."""
        if isinstance(self.row.teaching, Asking):
            if teacher.teacher is not None:
                raise CohortError(
                    f"{teacher.title} was taught itself: what it was shown is not its own recipe's choice.",
                    "Let a row ask that has no teacher.",
                )
            return show_suggested_marks(
                teacher.train_run(), self.training, self.row.teaching, self.seed, self.engine
            )  # fmt: skip
        first = teacher
        while first.teacher is not None:
            first = first.teacher
        return label_by_run(teacher.train_run(), self.training, self.row.teaching, self.engine, first.recipe)

    def _train_of(self, row: str) -> RowTraining:
        """The training of another row with the same seed."""
        return replace(self, row=self.rows[row])
