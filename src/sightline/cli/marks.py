"""Plans of reads, and marks out of and into the workstation's store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg, subcommand

from sightline.cli.options import DeviceOptions, collect_changes, hold_empty_folder, hold_folder, make_engine
from sightline.errors import count_noun


@dataclass(frozen=True)
class PlanReads:
    """Assign the studies of a task to readers; the task is created if it does not exist."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    task: str
    """Name of the task."""
    readers: tuple[str, ...]
    """Names of the readers."""
    passes: int = 1
    """How often each reader reads each study."""
    order: Literal["given", "random", "active", "listed"] = "random"
    """As in the cohort, random by seed and reader, most informative first with every fifth random, or as --studies."""
    studies: Path | None = None
    """For --order listed: csv with a column study_id, as `cohort suggest` writes; only those studies are dealt."""
    seed: int = 0
    """Seed of random orders."""
    warm_up: int = 0
    """Number of first studies that do not count."""
    label: bool = False
    """Ask for a class of each study."""
    confidence: bool = False
    """Ask how sure the reader is."""
    reveal: Literal["never", "after submit", "assisted"] = "after submit"
    """When a network's opinion may be seen."""
    shows_ids: bool = False
    """Show the ids of studies."""
    days_between: float = 0.0
    """Least days between a reader's submission and the next pass of the study."""
    study_mode: bool = False
    """Each study unaided, with the network's answer, and with answer and map, in counterbalanced order."""
    wrong_share: float = 0.0
    """Reader study: share of studies with deliberately wrong advice, which is recorded."""
    run_key: Annotated[str | None, arg(name="run")] = None
    """Reader study: name or key of the run that gives the advice; default: the first."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Deal."""
        from sightline.web.workstation.reading.commands import plan_reads
        from sightline.web.workstation.reading.plans import Plan

        spec = {
            "ask": {"label": self.label or self.study_mode, "confidence": self.confidence or self.study_mode},
            "reveal": self.reveal, "shows_ids": self.shows_ids, "days_between": self.days_between,
            "study_mode": self.study_mode,
        }  # fmt: skip
        plan = Plan(self.readers, self.passes, self.order, self.seed, self.warm_up)
        aids = (self.wrong_share, self.run_key) if self.study_mode else None
        print(f"{plan_reads(self.keep, self.database, self.task, spec, plan, aids, self.studies)} reads dealt.")
        return 0


@dataclass(frozen=True)
class ListReads:
    """Show each reader's progress in each task, and the seconds per study."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Print a line a reader and task."""
        from sightline.web.workstation.reading.commands import list_reads

        for line in list_reads(self.keep, self.database):
            print(line)
        return 0


@dataclass(frozen=True)
class ReadsCommand:
    """Plan who reads what."""

    action: OmitArgPrefixes[Annotated[PlanReads, subcommand("plan")] | Annotated[ListReads, subcommand("list")]]

    def run(self) -> int:
        """Run the chosen action."""
        return self.action.run()


@dataclass(frozen=True)
class ExportMarks:
    """Write marks as a cohort for training (with times, strokes, agreement), as COCO, or as DICOM."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    destination: Annotated[Positional[Path], arg(metavar="DESTINATION")]
    """New folder."""
    save_as: Annotated[Literal["folder", "coco", "dicom"], arg(name="as")] = "folder"
    """Output format; dicom writes a SEG and an SR for each reader of each image that is a DICOM file."""
    readers: str = "each"
    """each, consensus, union, intersection, majority, staple, or one reader's name."""
    cohort: Path | None = None
    """New place of the cohort, if it was moved."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    @hold_folder(lambda command: command.destination, hold_empty_folder)
    def run(self) -> int:
        """Export, and say what was left out."""
        from sightline.web.workstation.exchange.commands import export_marks

        print(export_marks(self.keep, self.cohort, self.database, self.destination, self.save_as, self.readers))
        return 0


@dataclass(frozen=True)
class RetrainOnMarks:
    """Export the marks, train a run's recipe again guided by them, and print before and after on the test cases."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    cohort: Path
    """Cohort folder that was marked; both runs are measured on its test cases."""
    out: Path
    """Folder to write: marks/, run/, comparison/; the same command goes on with what is there."""
    run_folders: Annotated[UseAppendAction[tuple[Path, ...]], arg(name="run")] = ()
    """Run whose recipe is trained again, and which is compared; repeat it for runs of other seeds."""
    whose: str = "each"
    """Whose marks are exported: each, consensus, union, intersection, majority, staple, or one reader's name."""
    readers: str | None = None
    """How the recipe merges readers, where each one's marks are exported (union when not given)."""
    weight: float | None = None
    """Weight of the guidance; needed where the run was not guided."""
    style: Literal["scribble", "box", "mask"] | None = None
    """Style of the regions that guide."""
    role: Literal["focus", "finding"] | None = None
    """Which regions guide."""
    epochs: int | None = None
    """Passes over the training cases."""
    steps: int | None = None
    """Stop after this many steps instead."""
    seed: int | None = None
    """Seed of the training."""
    replicates: int = 2000
    """Bootstrap samples and swaps."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Export, train, compare, print."""
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.overrides import apply_changes
        from sightline.training.run import open_run
        from sightline.web.workstation.exchange.retraining import Retraining, retrain

        order = Retraining(
            self.keep, self.cohort, self.out, self.whose, self.weight, self.database, self.replicates
        )  # fmt: skip
        found = retrain(
            order, [open_run(folder, CATALOGUE) for folder in self.run_folders], CATALOGUE,
            change=lambda recipe: apply_changes(recipe, collect_changes(self)), engine=make_engine(self.on),
        )  # fmt: skip
        print("after less before, test cases:")
        for comparison in (*found.leading, *found.maps, *found.others):
            print(f"{comparison} [{comparison.method}]")
        print(f"written to {self.out / 'comparison' / 'comparison.md'}")
        return 0


@dataclass(frozen=True)
class ImportMarks:
    """Import marks from elsewhere as a finished read: a cohort folder, or COCO from CVAT or Label Studio."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """Folder or COCO document."""
    reader: str
    """The reader who gets the marks."""
    read_as: Annotated[Literal["folder", "coco"], arg(name="as")] = "folder"
    """Input format."""
    role: Literal["focus", "finding", "organ"] = "focus"
    """Role of marks that state none."""
    task: str = "Imported"
    """Task that the marks belong to, made if there is none; agreement compares the readers of one task."""
    cohort: Path | None = None
    """New place of the cohort, if it was moved."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Import; what cannot be used is listed in rejects.csv beside the source's marks."""
        from sightline.web.workstation.exchange.commands import import_into

        message, code = import_into(
            self.keep, self.cohort, self.database, self.source, self.read_as, self.reader, (self.role, self.task)
        )
        print(message)
        return code


@dataclass(frozen=True)
class AgreeMarks:
    """Measure how far readers agree: report.html and agreement.csv."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    out: Path
    """Folder to write."""
    names: bool = False
    """Show readers by name instead of by letter."""
    cohort: Path | None = None
    """New place of the cohort, if it was moved."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Write the report."""
        from sightline.web.workstation.exchange.commands import agree

        print(agree(self.keep, self.cohort, self.database, self.out, names=self.names))
        return 0


@dataclass(frozen=True)
class VerifyMarks:
    """Check the store's chains of digests; exit code 1 if a row was changed or removed."""

    keep: Annotated[Positional[Path], arg(metavar="KEEP")]
    """Folder of marks."""
    database: str | None = None
    """postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""

    def run(self) -> int:
        """Verify."""
        from sightline.web.workstation.store.audit import verify
        from sightline.web.workstation.store.database import open_database

        with open_database(self.keep, self.database) as store, store.reading() as connection:
            rows, broken = verify(connection)
        if broken is None:
            print(f"{count_noun(rows, 'row')}, every chain is whole.")
            return 0
        print(f"BROKEN: {broken.where}, row {broken.row}: {broken.why}.")
        return 1


@dataclass(frozen=True)
class MarksCommand:
    """Export, import, compare or verify marks, or train on them."""

    action: OmitArgPrefixes[
        Annotated[ExportMarks, subcommand("export")]
        | Annotated[RetrainOnMarks, subcommand("retrain")]
        | Annotated[ImportMarks, subcommand("import")]
        | Annotated[AgreeMarks, subcommand("agree")]
        | Annotated[VerifyMarks, subcommand("verify")]
    ]

    def run(self) -> int:
        """Run the chosen action."""
        return self.action.run()
