"""Commands for what a reviewer asks after the table: calibrate, compare, power, readers, checklists."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from sightline.cli.options import DeviceOptions, hold_folder, make_engine
from sightline.errors import count_noun, count_words


@dataclass(frozen=True)
class Calibrate:
    """Calibrate probabilities and fix thresholds on validation; later commands apply them (RUN/calibration.json)."""

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder."""
    cohort: Path
    """Cohort folder that the run was trained on; its validation cases are used."""
    method: Literal["temperature", "platt", "isotonic", "auto", "none"] = "temperature"
    """Calibration method; auto takes the simplest (also none) that cross-validation over patients does not reject."""
    sensitivity: tuple[float, ...] = (0.95,)
    """Sensitivities to reach on validation; each gives a threshold."""
    specificity: tuple[float, ...] = (0.95,)
    """Specificities to reach on validation; each gives a threshold."""
    miss_rate: float | None = None
    """Guaranteed rate of missed positive studies (conformal risk control), e.g. 0.05."""
    of: Literal["positives", "all"] = "positives"
    """Whether the miss rate is a share of the positive studies or of all studies."""
    coverage: float | None = None
    """Share of studies to answer; the least confident others go to a reader."""
    confidence: Literal["doctor", "top", "energy"] = "doctor"
    """Measure of confidence."""
    sets: float | None = None
    """Guaranteed rate of prediction sets without the true class, e.g. 0.1."""
    local: Path | None = None
    """Cohort folder of labelled studies from another site, on which thresholds and guarantees are chosen instead;
    with --method none also for a run that was trained on its validation cases."""
    positive: str | None = None
    """Positive class of the thresholds; default: the last one."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.folder)
    def run(self) -> int:
        """Calibrate and print what was fixed."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.evidence.calibrate import CalibrationChoice, calibrate, format_points
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.model_card import write_model_card
        from sightline.training.run import open_run

        choice = CalibrationChoice(
            self.method, self.positive, self.sensitivity, self.specificity, self.miss_rate, self.of, self.coverage,
            self.confidence, self.sets,
        )  # fmt: skip
        local = None if self.local is None else read_cohort(self.local)
        run = open_run(self.folder, CATALOGUE)
        record = calibrate(run, read_cohort(self.cohort), choice, local=local, engine=make_engine(self.on))
        write_model_card(run)
        if record.fitted is not None:
            print(f"log loss {record.fitted.describe_losses(4)}")
        print(format_points(record.points) if record.points else "no operating point: more than two classes")
        print(f"written to {self.folder / 'calibration.md'}; evaluate, compare and predict apply it from now on")
        return 0


@dataclass(frozen=True)
class Compare:
    """Compare two methods on the same cases: paired differences by all tests, a margin, a forest plot."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders of method a (its trainings)."""
    other: Annotated[tuple[Path, ...], arg(name="with")]
    """Run folders of method b."""
    cohort: Path
    """Cohort folder with the runs' classes."""
    out: Path
    """Folder to write."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which cases."""
    margin: float | None = None
    """Largest acceptable loss, stated before seeing the results; reports non-inferiority."""
    positive: str | None = None
    """Positive class; default: the last one."""
    replicates: int = 2000
    """Bootstrap samples and swaps."""
    together: tuple[int, int] = (1, 1)
    """So many runs of a, and of b, judge together (mean probability): members of one ensemble, then of the next."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Compare and print the differences."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.evidence.comparison import ENDS_AT_ZERO, compare_runs, write_comparison
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        whole = read_cohort(self.cohort)
        cohort = whole.part(self.split)
        found = compare_runs(
            [open_run(path, CATALOGUE) for path in self.runs],
            [open_run(path, CATALOGUE) for path in self.other],
            cohort,
            name=self.split,
            margin=self.margin,
            positive=self.positive,
            replicates=self.replicates,
            engine=make_engine(self.on),
            together=self.together,
        )
        write_comparison(found, self.out)
        print(f"{found.names[0]} less {found.names[1]}:")
        for comparison in (*found.leading, *found.maps, *found.others):
            print(f"{comparison} [{comparison.method}]")
        for margin in found.margins:
            print(margin.text())
        for note in found.notes:
            if "WARNING" in note or note == ENDS_AT_ZERO:
                print(note)
        print(f"written to {self.out / 'comparison.md'}")
        return 0


@dataclass(frozen=True)
class Stress:
    """Test on changed pictures (text, windows, crops, noise): how much AUC is lost, also beside a second method."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders of a method (its trainings)."""
    cohort: Path
    """Cohort folder with the runs' classes."""
    out: Path
    """Folder to write."""
    other: Annotated[tuple[Path, ...], arg(name="with")] = ()
    """Run folders of a second method, for comparison."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which cases."""
    images: int | None = None
    """About so many of them, by whole patients, class shares kept; every network is asked 13 times for each."""
    replicates: int = 2000
    """Bootstrap samples."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Change pictures, ask and print the table."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.data.subset import draw_nested_subset
        from sightline.evaluation.evidence.stress import stress_runs, write_stress
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        whole = read_cohort(self.cohort)
        part = whole.part(self.split)
        part = draw_nested_subset(part, self.images, splits=tuple({case.split or "" for case in part}))
        report = stress_runs(
            [open_run(path, CATALOGUE) for path in self.runs],
            [open_run(path, CATALOGUE) for path in self.other],
            part,
            replicates=self.replicates,
            engine=make_engine(self.on),
        )
        title = f"{self.split} cases of {whole.name}"
        write_stress(report, self.out, title)
        print(report.markdown(title))
        print(f"written to {self.out / 'stress.md'}")
        return 0


@dataclass(frozen=True)
class Power:
    """Estimate how many patients and trainings a difference of two AUCs needs, by simulation from pilot predictions."""

    pilot: Annotated[Positional[tuple[Path, ...]], arg(metavar="CSV [CSV ...]")]
    """Saved predictions (csv) of method a, one file per training."""
    other: Annotated[tuple[Path, ...], arg(name="with")]
    """Saved predictions of method b on the same cases."""
    difference: float
    """True difference of the AUCs (a - b) to be detected."""
    patients: tuple[int, ...] = ()
    """Numbers of patients to try; default: searches the number needed for --power."""
    trainings: int = 1
    """Trainings of each method in the planned study."""
    prevalence: float | None = None
    """Share of patients with a positive case; default: as in the pilot."""
    power: float = 0.8
    """Wanted chance of detecting the difference."""
    studies: int = 500
    """Simulated studies for each size."""
    seed: int = 0
    """Seed of the simulation."""

    def run(self) -> int:
        """Simulate and print a line a size."""
        from sightline.metrics.predictions import Predictions
        from sightline.metrics.statistics.power import Pilot, find_patients_needed, simulate_power

        a, b = ([Predictions.read(path) for path in paths] for paths in (self.pilot, self.other))
        pilot = Pilot.from_runs(a, b)
        if min(len(a), len(b)) == 1:
            print("One training of a method in the pilot: how much trainings differ is not known, and not simulated.")
        tried = [
            simulate_power(
                pilot, self.difference, patients=n, trainings=self.trainings, prevalence=self.prevalence,
                studies=self.studies, seed=self.seed,
            )
            for n in self.patients
        ]  # fmt: skip
        tried = tried or find_patients_needed(
            pilot, self.difference, power=self.power, trainings=self.trainings, prevalence=self.prevalence,
            studies=self.studies, seed=self.seed,
        )  # fmt: skip

        for one in tried:
            size = f"{count_noun(one.patients, 'patient')}, {count_noun(one.trainings, 'training')}"
            print(f"{size}: power {one.power:.2f} "
                  f"({one.low:.2f}-{one.high:.2f}), {one.studies} studies, {one.test}")  # fmt: skip
        if not self.patients:
            enough = next((one for one in tried if one.power >= self.power), None)
            print(
                f"power {self.power:g} is not reached"
                if enough is None
                else f"{count_noun(enough.patients, 'patient')} are enough"
            )
        return 0


@dataclass(frozen=True)
class Readers:
    """Analyse a reader study (iMRMC csv, or a workstation's marks): how far the modalities differ."""

    study: Annotated[Positional[Path], arg(metavar="STUDY")]
    """File in iMRMC's format (reader, case, modality, score; reader -1 is the truth), or a folder of marks."""
    task: str | None = None
    """Folder of marks: name of the reader study's task, if there are several."""
    positive: str | None = None
    """Folder of marks: positive class; default: the cohort's last."""
    database: str | None = None
    """Folder of marks: postgresql://USER@HOST/NAME, if the store is in PostgreSQL."""
    figure: Literal["auc", "sensitivity", "specificity"] = "auc"
    """Figure of merit to compare."""
    threshold: float | None = None
    """Ratings of this value or more are positive calls, for sensitivity and specificity."""
    inference: Literal["readers and cases", "cases", "readers"] = "readers and cases"
    """To whom the claim extends: other readers and cases, other cases, or other readers."""
    covariance: Literal["delong", "jackknife"] = "delong"
    """How the variance due to cases is estimated."""
    difference: float | None = None
    """True difference for which to plan a study, with this one as pilot."""
    readers: int = 5
    """Readers of the planned study."""
    power: float = 0.8
    """Power of the planned study."""

    def run(self) -> int:
        """Analyse and print."""
        from sightline.errors import RunError
        from sightline.io.tables import read_text
        from sightline.metrics.estimate import format_p_text
        from sightline.metrics.readers.anova import analyse_readers
        from sightline.metrics.readers.pseudovalues import analyse_pseudovalues
        from sightline.metrics.readers.simulation import find_cases_needed
        from sightline.metrics.readers.study import ReaderStudy
        from sightline.metrics.statistics.comparison import holm

        notes: tuple[str, ...] = ()
        if self.study.is_dir() or self.database is not None:
            from sightline.web.workstation.exchange.reader_study import read_stored_study

            study, notes = read_stored_study(self.study, self.database, task=self.task, positive=self.positive)
        else:
            if self.task is not None or self.positive is not None:
                raise RunError(
                    f"{self.study} is a file; --task and --positive are of a workstation's folder of marks.",
                    "Leave them out: a file holds one study, and its rows of reader -1 say which cases are positive.",
                )
            study = ReaderStudy.parse(read_text(self.study, "Check the path."), self.study)
        if self.figure == "auc" and self.threshold is not None:
            raise RunError(
                "An AUC has no threshold.", "Leave --threshold out, or add --figure sensitivity or specificity."
            )
        if self.figure != "auc":
            if self.threshold is None:
                raise RunError(
                    f"The {self.figure} of readers needs --threshold.", "State the rating that calls a case."
                )
            study = study.apply_threshold(self.threshold)
        found = analyse_readers(study, figure=self.figure, inference=self.inference, method=self.covariance)
        print(count_words({"readers": len(study.readers), "cases": len(study.cases), "positive": study.positive.sum()}))
        for note in notes:
            print(note)
        for mean in found.means():
            print(f"{mean}{f' ({mean.why})' if mean.why else ''}")
        pairs = found.differences()
        over = f"after Holm's correction over {len(pairs)} pairs"
        for pair, corrected in zip(pairs, holm([pair.p_value for pair in pairs]), strict=True):
            print(f"{pair}; {format_p_text(corrected)} {over}" if len(pairs) > 1 else pair)
        print(f"Obuchowski-Rockette: {found.text()}")
        dbm = analyse_pseudovalues(study, figure=self.figure, inference=self.inference)
        print(f"Dorfman-Berbaum-Metz: {dbm.text()}")
        if self.difference is not None:
            plan = find_cases_needed(found, self.difference, readers=self.readers, power=self.power)
            if plan is None:
                print(
                    f"{self.readers} readers never reach power {self.power:g}: more readers are needed", file=sys.stderr
                )
                return 1
            words = f"find {self.difference:g} with power {plan.power:.2f}"
            print(f"{plan.cases} cases read by {plan.readers} readers {words}")
        return 0


@dataclass(frozen=True)
class FillChecklists:
    """Fill reporting checklists from a run and its evaluations; items left to the author are counted."""

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder; its calibration, evaluations and shortcuts are used if present."""
    checklist: tuple[Literal["CLAIM", "TRIPOD+AI", "STARD-AI"], ...] = ("CLAIM", "TRIPOD+AI", "STARD-AI")
    """Which guidelines."""
    out: Path | None = None
    """Folder to write; default: RUN/checklists."""

    @hold_folder(lambda command: command.out or command.folder / "checklists")
    def run(self) -> int:
        """Fill, write and count."""
        from sightline.evaluation.checklists.checklist import write_checklist
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        run, out = open_run(self.folder, CATALOGUE), self.out or self.folder / "checklists"
        for name in self.checklist:
            print(write_checklist(run, name, out).summary())
        print(f"written to {out}; write your words into the column `author` of the csv files: they are kept")
        return 0


@dataclass(frozen=True)
class Shortcuts:
    """Change pictures and predict again: erase outside or inside marks, swap backgrounds, erase and paste objects."""

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder of a two-class classifier."""
    cohort: Path
    """Cohort folder with marks."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which cases."""
    out: Path | None = None
    """Folder to write; default: RUN/shortcuts."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out or command.folder / "shortcuts")
    def run(self) -> int:
        """Look for shortcuts and print the verdicts."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.evaluation.evidence.shortcuts import find_shortcuts, write_shortcuts
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        run, whole = open_run(self.folder, CATALOGUE), read_cohort(self.cohort)
        cohort = whole.part(self.split)
        report = find_shortcuts(run, cohort, engine=make_engine(self.on))
        out = self.out or self.folder / "shortcuts"
        write_shortcuts(report, out, f"{run.recipe.title} on {whole.name}, {self.split}")
        for line in (*report.verdicts, *report.estimates):
            print(line)
        print(f"written to {out / 'shortcuts.md'}")
        return 0
