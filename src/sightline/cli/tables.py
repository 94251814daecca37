"""Tables and their capsules, recipes, the demo and the version."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from sightline import __version__
from sightline.cli.options import (
    DeviceOptions,
    Precision,
    RecipeOptions,
    collect_changes,
    hold_empty_folder,
    hold_folder,
    make_engine,
)
from sightline.errors import count_noun, quote_command

if TYPE_CHECKING:
    from sightline.evaluation.tables.engines.local import TableEngine


@dataclass(frozen=True)
class MakeTable:
    """Train and evaluate every row of a table, and write table.csv, table.md and report.html."""

    name: Annotated[Positional[str], arg(metavar="TABLE")]
    """Table, e.g. liao2022/table3 (`sightline recipes` lists them), or a YAML file that describes one."""
    cohort: Path
    """Cohort folder in our layout."""
    out: Path
    """Folder to write; finished rows in it are reused."""
    seeds: int | None = None
    """Trainings per row; default: 5, or the number in the YAML file."""
    changes: OmitArgPrefixes[RecipeOptions] = dataclass_field(default_factory=RecipeOptions)
    profile: Literal["recommended", "paper", "official_code"] = "recommended"
    """Which to follow if the paper and its released code differ."""
    rows: tuple[str, ...] = ()
    """Only rows whose name contains one of these (and their references); a row's whole name is that row alone."""
    without: tuple[str, ...] = ()
    """Rows to leave out, by their whole names, though others are compared with them."""
    parallel: int = 1
    """Trainings at a time, each in its own process with its share of the cores."""
    engine: Literal["local", "ray"] = "local"
    """Where trainings run: this machine, or a Ray cluster (docs/tables.md)."""
    address: str | None = None
    """Address of a running Ray cluster (`auto` finds one on this machine); default: Ray is started here."""
    cores: int = 1
    """Cores per training under Ray."""
    store: str | None = None
    """URL of an object store (s3://bucket/folder; any that fsspec opens) in which runs are kept as well: Ray's nodes
    need not share files then, and another machine goes on where this one ends."""
    external: Path | None = None
    """A second hospital's cohort, used whole as a test set."""
    precision: Precision | None = None
    """Fabric's precision."""
    features: Path | None = None
    """Folder to cache the features of frozen stages, for all rows and seeds."""
    mlflow: str | None = None
    """Tracking server (or sqlite:///FILE) that is told every epoch of every training."""
    capsules: tuple[Path, ...] = ()
    """Capsules of earlier tables on the same cohort: trainings that they hold are taken from them, not run again."""
    on: OmitArgPrefixes[DeviceOptions] = dataclass_field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Run the table."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.tables.report import write_table
        from sightline.evaluation.tables.run_table import run_table
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.recipes import find_table

        table = find_table(self.name, self.profile, collect_changes(self, self.changes), self.rows, self.without)
        result = run_table(
            table,
            read_cohort(self.cohort),
            self.out,
            CATALOGUE,
            seeds=range(self.seeds if self.seeds is not None else table.seeds or 5),
            engine=replace(make_engine(self.on), features=self.features, mlflow=self.mlflow),
            runs_on=self._choose_engine(),
            capsules=self.capsules,
            external=None if self.external is None else read_cohort(self.external),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(write_table(result, self.out))
        print(f"written to {self.out / 'report.html'}")
        if table.units:
            from sightline.papers.engstler2022 import write_unit_findings

            print(write_unit_findings(result, self.out, make_engine(self.on)))
        return 0 if any(row.why_not is None for row in result.rows) else 1

    def _choose_engine(self) -> TableEngine:
        from sightline.evaluation.tables.engines.local import LocalEngine
        from sightline.evaluation.tables.engines.run_store import RunStore

        store = None if self.store is None else RunStore(self.store)
        if self.engine == "ray":
            from sightline.evaluation.tables.engines.ray_cluster import RayEngine

            return RayEngine(self.address, self.cores, lambda line: print(line, file=sys.stderr, flush=True), store)
        return LocalEngine(self.parallel, store)


@dataclass(frozen=True)
class WriteCapsule:
    """Pack a finished table into one file from which anyone can recompute every number; it holds no pictures."""

    table: Annotated[Positional[Path], arg(metavar="TABLE")]
    """Folder that `sightline table` wrote."""
    out: Path
    """File to write, e.g. table.capsule."""

    @hold_folder(lambda command: command.out, hold_empty_folder)
    def run(self) -> int:
        """Write, and print the digest to be published beside the numbers."""
        from sightline.evaluation.evidence.capsule import write_capsule

        made = write_capsule(self.table, self.out)
        print(f"{made.path}: {count_noun(made.files, 'file')}, {made.bytes / 1e6:.2f} MB")
        print(f"digest {made.digest}")
        command = quote_command("sightline", "verify", made.path.name, "--digest", made.digest[:12])
        print(f"anyone can check it: {command}")
        return 0


@dataclass(frozen=True)
class Verify:
    """Recompute every number of a capsule and say which split was used for each choice.

    Exit code 1 on a mismatch, 2 where there is no such file.
    """

    capsule: Annotated[Positional[Path], arg(metavar="CAPSULE")]
    """File that `sightline capsule` wrote."""
    digest: str | None = None
    """The digest that was published beside the numbers (twelve digits or more)."""

    def run(self) -> int:
        """Verify and print the verdict."""
        from sightline.evaluation.evidence.verification import verify_capsule
        from sightline.papers.catalogue import CATALOGUE

        found = verify_capsule(self.capsule, CATALOGUE, published=self.digest)
        for fact in found.facts:
            print(fact)
        for problem in found.problems[:20]:
            print(f"MISMATCH: {problem}", file=sys.stderr)
        if not found.holds:
            print(f"{self.capsule} does not hold: {count_noun(len(found.problems), 'problem')}", file=sys.stderr)
            return 1
        assert found.capsule is not None
        print(f"{self.capsule} holds: {found.numbers} numbers came out again; digest {found.capsule.digest}")
        if self.digest is None:
            print("Compare the digest with the one published beside the numbers: a forgery that is consistent "
                  "throughout shows there alone.")  # fmt: skip
        return 0


@dataclass(frozen=True)
class SearchFields:
    """Search a recipe's fields with Optuna, on validation only; run the same command again to go on."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")]
    """Name of a recipe (see `sightline recipes`), or a recipe.json."""
    cohort: Path
    """Cohort folder in our layout; its test cases are not looked at."""
    out: Path
    """Folder to write."""
    field: tuple[str, ...]
    """What is searched: NAME=LOW:HIGH, NAME=log:LOW:HIGH or NAME=A,B,C; names as recipe.json nests them."""
    trials: int = 20
    """Trials in all, those of an earlier call included."""
    seeds: int = 1
    """Trainings a trial, whose mean is its value."""
    seed: int = 0
    """Of the sampler."""
    measure: Literal["auc", "f1", "loss"] = "auc"
    """Of the validation cases."""
    changes: OmitArgPrefixes[RecipeOptions] = dataclass_field(default_factory=RecipeOptions)
    on: OmitArgPrefixes[DeviceOptions] = dataclass_field(default_factory=DeviceOptions)

    def run(self) -> int:
        """Search."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.tables.grids.search import Search, read_field, search_fields
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.overrides import apply_changes
        from sightline.papers.recipes import find_recipe

        # the sampler's seed is no change of the recipe
        recipe = apply_changes(find_recipe(self.recipe), replace(collect_changes(self.changes), seed=None))
        search = Search(recipe, tuple(map(read_field, self.field)), self.measure, self.seeds, self.seed)
        found = search_fields(
            search,
            read_cohort(self.cohort),
            self.out,
            CATALOGUE,
            trials=self.trials,
            engine=make_engine(self.on),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(found)
        return 0


@dataclass(frozen=True)
class CompareAnswers:
    """Read a run's class maps in other ways (maximum, top cells, noisy or): AUC on validation and test, no training."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders written by `sightline table`."""
    on: Literal["test", "external"] = "test"
    """Cases to report, after the reading is chosen on validation."""

    def run(self) -> int:
        """Print a table a run."""
        from sightline.evaluation.answers import format_answers_table, read_answers

        for folder in self.runs:
            print(f"{folder.name}\n\n{format_answers_table(read_answers(folder / 'predictions', self.on))}\n")
        return 0


@dataclass(frozen=True)
class Recipes:
    """List recipes and tables, one per line."""

    def run(self) -> int:
        """Print the list."""
        from sightline.papers.recipes import list_names

        print(list_names())
        return 0


@dataclass(frozen=True)
class Demo:
    """Phantom cohort, unguided and guided trainings, table and report.html; under six CPU-minutes."""

    out: Path = Path("demo")
    """Folder to write, with demo.log; an interrupted demo resumes."""
    seeds: int = 3
    """Trainings per row."""
    parallel: int = 2
    """Trainings at a time, each in its own process with its share of the cores."""
    on: OmitArgPrefixes[DeviceOptions] = dataclass_field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Run the demo."""
        from sightline.papers.demo import run_demo

        print(run_demo(self.out, seeds=self.seeds, parallel=self.parallel, engine=make_engine(self.on)))
        return 0


@dataclass(frozen=True)
class Version:
    """Print the version."""

    def run(self) -> int:
        """Print it."""
        print(__version__)
        return 0
