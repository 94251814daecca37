"""Commands on cohorts: phantom, import, halve, subset, split, suggest, gaze, check."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from sightline.cli.cases import CohortGaze, CohortSplit
from sightline.cli.options import DeviceOptions, hold_empty_folder, hold_folder, make_engine, require_other_folder
from sightline.errors import CohortError, count_noun, count_words, quote_command

# a bar for a handful of pictures would be gone before it is read
QUIET_BELOW = 200


@dataclass(frozen=True)
class Phantom:
    """Draw a phantom cohort: radiographs with fractures and regions, chests with a reader's gaze, or CTs of spines."""

    kind: Annotated[Positional[Literal["radiographs", "chest", "spine"]], arg(metavar="KIND")]
    """What to draw: radiographs in our layout, or chest (EGD-CXR's layout) or spine (VerSe's), to be imported."""
    destination: Annotated[Positional[Path], arg(metavar="DESTINATION")]
    """Folder to write."""
    studies: Annotated[int, arg(aliases=["--images", "--subjects"])] = 120
    """Number of studies (chest: of images; spine: of subjects)."""
    shortcut: float = 0.0
    """Chance that a marker agrees with the label in training and validation; there is none in the test split."""
    anatomy: Literal["wrist", "femur"] = "wrist"
    """Wrist (fracture or none) or proximal femur (AO classes A1 to B3)."""
    field: Literal["close", "wide"] = "close"
    """Femur: only the hip, or half the pelvis and the thigh."""
    ao_shares: Literal["even", "published"] = "even"
    """Femur: all AO classes equally frequent, or as in Jimenez-Sanchez 2018."""
    seed: int = 0
    """Same seed, same bytes."""
    save_as: Annotated[Literal["png", "dicom"], arg(name="as")] = "png"
    """File format of the pictures."""
    workers: int = 1
    """Processes that draw; they do not change the files."""
    size: tuple[int, int] | None = None
    """Chest: rows and columns of an image (512 420)."""
    contrast: tuple[float, float] | None = None
    """Chest: range of the findings' contrast, within 0 and 1 (0.05 0.9)."""
    clutter: float | None = None
    """Chest: amount of distracting objects on the pictures, 0 to 2 (1)."""
    skill: float | None = None
    """Chest: share of the reader's gaze on the findings (0.8)."""
    pads: Literal["image_left_pad", "image_left"] | None = None
    """Chest: spelling of the master sheet's padding columns (image_left_pad)."""
    spacing: float | None = None
    """Spine: size of isotropic voxels in mm (default: varies by series, as scanners do)."""
    prevalence: float | None = None
    """Spine: share of vertebrae that are deformed (0.08)."""

    @hold_folder(lambda command: command.destination, hold_empty_folder)
    def run(self) -> int:
        """Write the cohort."""
        from sightline.data.phantoms.radiographs.cohort import FemurOptions, write_radiographs
        from sightline.io.progress import show_progress

        self._refuse_options_of_the_other()
        if self.kind == "chest":
            return self._draw_chests()
        if self.kind == "spine":
            return self._draw_spines()
        with show_progress("draw", self.studies) as advance:
            cohort = write_radiographs(
                self.destination,
                studies=self.studies,
                shortcut=self.shortcut,
                anatomy=self.anatomy,
                femurs=FemurOptions(field=self.field, ao_shares=self.ao_shares),
                seed=self.seed,
                save_as=self.save_as,
                workers=self.workers,
                progress=lambda done, total: advance(1),
            )
        print(_describe_cohort(cohort, self.destination))
        return 0

    def _draw_chests(self) -> int:
        from sightline.data.phantoms.chest.egd_cxr_layout import SHAPE, write_chests
        from sightline.io.progress import show_progress

        with show_progress("draw", self.studies) as advance:
            truth = write_chests(
                self.destination,
                images=self.studies,
                seed=self.seed,
                shape=self.size or SHAPE,
                progress=lambda done, total: advance(1),
                **{name: given for name in _CHEST if name != "size" and (given := getattr(self, name)) is not None},
            )
        print(
            f"{self.destination}: {count_noun(len(truth['images']), 'chest')} in "
            f"{count_noun(truth['sessions'], 'session')}; next: "
            + quote_command("sightline", "cohort", "import", "egd_cxr", self.destination, "COHORT")
        )
        return 0

    def _draw_spines(self) -> int:
        from sightline.data.phantoms.spine.verse_layout import write_spines
        from sightline.io.progress import show_progress

        with show_progress("draw", self.studies) as advance:
            truth = write_spines(
                self.destination,
                subjects=self.studies,
                seed=self.seed,
                workers=self.workers,
                progress=lambda done, total: advance(1),
                **{name: given for name in _SPINE if name != "workers" and (given := getattr(self, name)) is not None},
            )
        vertebrae = [one for series in truth["series"].values() for one in series["vertebrae"].values()]
        print(
            f"{self.destination}: {len(vertebrae)} vertebrae in {len(truth['series'])} series of {self.studies} "
            f"subjects, {sum(one['grade'] > 0 for one in vertebrae)} deformed; next: "
            + quote_command("sightline", "cohort", "import", "verse", self.destination, "COHORT")
        )
        return 0

    def _refuse_options_of_the_other(self) -> None:
        own_options = {"radiographs": _RADIOGRAPHS, "chest": _CHEST, "spine": _SPINE}
        every = dict.fromkeys(name for kind in own_options for name in own_options[kind])
        other = [name for name in every if name not in own_options[self.kind]]
        own = {f.name: f.default for f in fields(Phantom)}
        strange = [name for name in other if getattr(self, name) != own[name]]
        if strange:
            options = ", ".join("--" + {"save_as": "as"}.get(name, name.replace("_", "-")) for name in strange)
            raise CohortError(f"A phantom of {self.kind} has no {options}.", "Leave it out.")


_CHEST = ("size", "contrast", "clutter", "skill", "pads")
_SPINE = ("spacing", "prevalence", "workers")
_RADIOGRAPHS = ("shortcut", "anatomy", "field", "ao_shares", "save_as", "workers")


@dataclass(frozen=True)
class CohortImport:
    """Bring a data set into our own layout, with grouped and stratified splits."""

    layout: Annotated[Positional[str], arg(metavar="LAYOUT")]
    """Layout of the source; `sightline cohort import LAYOUT --help` shows its options."""
    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """Source folder."""
    destination: Annotated[Positional[Path], arg(metavar="DESTINATION")]
    """Folder to write."""

    def run(self) -> int:
        """Refuse a word that names no layout; those that do have a command of their own (`build_layout_command`)."""
        from sightline.data.datasets.layouts import find_layout

        return run_import(self.layout, self.source, self.destination, find_layout(self.layout).options())


def describe_layouts() -> str:
    """One line a layout, for the help of `cohort import`."""
    from sightline.data.datasets.layouts import LAYOUTS, find_layout

    lines = [f"{word}: {find_layout(word).about}" for word in LAYOUTS]
    return "\n\n".join([(CohortImport.__doc__ or "").strip(), "Layouts:", *lines])


def build_layout_command(word: str) -> type[CohortImport]:
    """The command that imports one layout, with its options and no others."""
    from sightline.data.datasets.layouts import find_layout

    layout = find_layout(word)

    def run(self: CohortImport) -> int:
        return run_import(word, self.source, self.destination, vars(self)["options"])

    options: Any = OmitArgPrefixes
    fields_of: list[Any] = [
        ("source", Annotated[Positional[Path], arg(metavar="SOURCE", help="Folder of the data set.")]),
        ("destination", Annotated[Positional[Path], arg(metavar="DESTINATION", help="Cohort folder to write.")]),
        ("options", options[layout.options], field(default_factory=layout.options)),
    ]
    made = make_dataclass("Import", fields_of, frozen=True, namespace={"run": run})
    made.__doc__ = f"{layout.about}\n\nSOURCE is the folder of the data set, DESTINATION the cohort to write."
    return made


def run_import(word: str, source: Path, destination: Path, options: object) -> int:
    """Read, write, and say what came in and what did not; 1 when nothing came in."""
    from sightline.data.audit.audit import SPLIT_AGAIN, describe_leakage, describe_placeholders
    from sightline.data.datasets.layouts import import_layout
    from sightline.io.files import BEGUN, hold_folder
    from sightline.io.progress import show_progress
    from sightline.structures.identifiers import group_alike_names

    with hold_folder(destination):
        if (destination / BEGUN).exists():
            print(f"{destination}: an import that did not end left it unfinished; it begins again.", file=sys.stderr)
        cohort, rejects = import_layout(word, source, destination, options, show_progress)
    if rejects:
        was = "was" if len(rejects) == 1 else "were"
        print(f"{count_noun(len(rejects), 'file')} {was} not read; see {destination / 'rejects.csv'}", file=sys.stderr)
    for key, value in cohort.about.items():
        named = key in ("counts", "samples", "fixations", "calibration pictures")
        if named or key.startswith("warning") or value.startswith("WARNING"):
            print(f"{key}: {value}", file=sys.stderr)
    for alike in group_alike_names(cohort.classes):
        words = ", ".join(repr(name) for name in alike)
        print(f"warning: {words} are different classes; write the label one way if they mean the same", file=sys.stderr)
    for words in (*describe_placeholders(cohort), *(f"{leak} {SPLIT_AGAIN}" for leak, _ in describe_leakage(cohort))):
        print(f"warning: {words}", file=sys.stderr)
    print(_describe_cohort(cohort, destination))
    if not len(cohort):
        print(f"{source}: no file of it could be imported as {word}; is it another layout?", file=sys.stderr)
    return 0 if len(cohort) else 1


@dataclass(frozen=True)
class CohortHalve:
    """Cut pictures of two femurs into pictures of one, together with their marks; both halves stay with the patient."""

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """Cohort folder in our layout."""
    destination: Annotated[Positional[Path], arg(metavar="DESTINATION")]
    """Folder to write."""

    @hold_folder(lambda command: command.destination, hold_empty_folder)
    def run(self) -> int:
        """Cut and write."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.data.femur_halves import halve

        print(_describe_cohort(halve(read_cohort(self.source), self.destination), self.destination))
        return 0


@dataclass(frozen=True)
class CohortSubset:
    """Keep fewer training images (whole patients, nested), or cases by a fact; or make some marks wrong."""

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """Cohort folder in our layout."""
    destination: Annotated[Positional[Path], arg(metavar="DESTINATION")]
    """Folder to write."""
    images: int | None = None
    """Approximate number of training images to keep; default: all."""
    having: tuple[str, ...] = ()
    """Keep only cases with these facts, e.g. hand=1, or "file storage=..." as `cohort check` names it."""
    lacking: tuple[str, ...] = ()
    """Drop cases with these facts."""
    apart_from: Path | None = None
    """Cohort folder whose training and validation patients are left out."""
    marks_of: Path | None = None
    """Csv with a column case_id (`cohort suggest` writes one): other training images lose their marks."""
    wrong_marks: float = 0.0
    """Share of the marked training images whose boxes are made wrong."""
    wrong_kind: Literal["elsewhere", "shifted", "enlarged", "redrawn", "missing"] = "elsewhere"
    """How: in a wrong place, by half their size beside it, twice as high and wide, as by another reader, or none."""
    seed: int = 0
    """Seed of the images to keep and the boxes to make wrong."""

    @hold_folder(lambda command: command.destination)
    def run(self) -> int:
        """Choose and write."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.data.datasets.folder.writer import write_cohort
        from sightline.data.subset import (
            draw_nested_subset,
            exclude_patients_of,
            keep_marks_of_cases,
            select_cases_by_facts,
        )
        from sightline.data.targets.mark_errors import spoil_marks
        from sightline.io.tables import read_table

        require_other_folder(self.source, self.destination)
        part = read_cohort(self.source)
        if self.having or self.lacking:
            part = select_cases_by_facts(part, _parse_facts(self.having), _parse_facts(self.lacking))
        if self.apart_from is not None:
            part = exclude_patients_of(part, read_cohort(self.apart_from))
        part = draw_nested_subset(part, self.images, self.seed)
        if self.marks_of is not None:
            part = keep_marks_of_cases(part, [row["case_id"] for row in read_table(self.marks_of, ["case_id"])])
        part = spoil_marks(part, self.wrong_marks, self.seed, kind=self.wrong_kind)
        write_cohort(part, self.destination)
        print(_describe_cohort(part, self.destination))
        return 0


@dataclass(frozen=True)
class CohortSuggest:
    """List the cases that an expert should mark next; every fifth is random, so that the benefit can be measured."""

    run_folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder."""
    cohort: Path
    """Cohort folder with the run's classes."""
    n: int = 50
    """Number of cases."""
    strategy: Literal["mixed", "uncertainty", "disagreement", "diversity", "random"] = "mixed"
    """Uncertain predictions, maps that disagree with the prediction, diverse pictures, or all of these."""
    split: Literal["test", "val", "train", "all"] = "train"
    """Which cases to choose from."""
    label: str | None = None
    """Only cases of this class, if labels are known and only one class has something to mark."""
    marked: bool = False
    """Include cases that already have marks."""
    out: Path | None = None
    """Csv to write; default: RUN/suggestions.csv."""
    seed: int = 0
    """Seed of the random choice."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out or command.run_folder / "suggestions.csv", hold_empty_folder)
    def run(self) -> int:
        """Choose and write."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.suggestions import suggest_cases, write_suggestions
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        run, whole = open_run(self.run_folder, CATALOGUE), read_cohort(self.cohort)
        part = whole.part(self.split)
        if self.label is not None:
            whole.class_index(self.label)
            part = part.where(lambda case: case.label == self.label)
        if not self.marked:
            part = part.where(lambda case: not case.regions)
        if not len(part):
            why = "all of them are marked" if not self.marked else f"no {self.split} case of {self.label}"
            raise CohortError(f"There is nothing to choose from: {why}.", "--marked chooses among marked cases too.")
        found = suggest_cases(
            run, part, self.n, strategy=self.strategy, seed=self.seed, engine=make_engine(self.on)
        )  # fmt: skip
        out = self.out or self.run_folder / "suggestions.csv"
        write_suggestions(found, out)
        print(f"{len(found)} of {count_noun(len(part), 'case')}, by {self.strategy}, written to {out}; the first:")
        for s in found[:5]:
            print(f"  {s.case_id}  p {s.probability:.2f}, uncertainty {s.uncertainty:.2f} ({s.chosen_by})")
        return 0


def _parse_facts(pairs: tuple[str, ...]) -> dict[str, str]:
    """Fact and value of `fact=value`."""
    found = {}
    for pair in pairs:
        fact, equals, value = pair.partition("=")
        if not equals or not fact:
            raise CohortError(f"A fact is given as FACT=VALUE; got {pair!r}.", "Write for example hand=1.")
        found[fact] = value
    return found


@dataclass(frozen=True)
class CohortCheck:
    """Audit a cohort: leakage, duplicates, bad regions, files that do not decode, shortcuts; exit code 1 on errors."""

    cohort: Annotated[Positional[Path], arg(metavar="COHORT")]
    """Cohort folder in our layout."""
    workers: int | None = None
    """Processes that read pictures; default: one per core. The findings do not depend on it."""

    def run(self) -> int:
        """Print findings; 1 when one of them is an error."""
        from sightline.data.audit.audit import audit
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.io.progress import show_progress

        if self.workers is not None and self.workers < 1:
            raise CohortError(
                f"--workers is {self.workers}; at least 1 was expected.", "Leave it out to use all cores."
            )
        cohort = read_cohort(self.cohort)
        workers = self.workers or os.cpu_count() or 1
        with show_progress("check", len(cohort), quiet=len(cohort) < QUIET_BELOW) as advance:
            findings = audit(cohort, workers, lambda done, total: advance(1))
        for finding in findings:
            print(finding)
        errors = sum(finding.severity == "error" for finding in findings)
        others = count_noun(len(findings) - errors, "warning or note", "warnings and notes")
        print(f"{count_noun(errors, 'error')}, {others}")
        return 1 if errors else 0


@dataclass(frozen=True)
class CohortCommand:
    """Write, import or check a cohort."""

    action: OmitArgPrefixes[
        Annotated[Phantom, subcommand("phantom")]
        | Annotated[CohortImport, subcommand("import")]
        | Annotated[CohortHalve, subcommand("halve")]
        | Annotated[CohortSubset, subcommand("subset")]
        | Annotated[CohortSplit, subcommand("split")]
        | Annotated[CohortSuggest, subcommand("suggest")]
        | Annotated[CohortGaze, subcommand("gaze")]
        | Annotated[CohortCheck, subcommand("check")]
    ]

    def run(self) -> int:
        """Run the chosen action."""
        return self.action.run()


def _describe_cohort(cohort: object, destination: Path) -> str:
    from sightline.structures.case import Cohort

    assert isinstance(cohort, Cohort)
    patients = len({case.patient_id for case in cohort})
    studies = len({case.study_id for case in cohort})
    parts = {split: cohort.split(split) for split in ("train", "val", "test")}
    parts["no split"] = cohort.where(lambda case: case.split is None)
    splits = "; ".join(
        f"{split} {', '.join(f'{n} {name}' for name, n in part.counts().items())}"
        for split, part in parts.items()
        if len(part)
    )
    return f"{destination}: {count_words({'images': len(cohort), 'studies': studies, 'patients': patients})} ({splits})"
