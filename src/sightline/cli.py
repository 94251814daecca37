"""What a person types: one small dataclass a command, with `run()`. Heavy imports happen inside `run()`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Union

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from sightline import __version__
from sightline.errors import CohortError, RunError, SightlineError

if TYPE_CHECKING:
    from sightline.papers.changes import Changes

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class On:
    """Where a command runs."""

    device: Device = "auto"
    """Processor to use."""
    devices: int = 1
    """How many of them."""
    workers: int = 0
    """Processes that read pictures; 0 reads in this one."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True)
class Phantom:
    """Write a phantom: radiographs with fractures and regions, chests with a reader's gaze, or CTs of spines."""

    kind: Positional[Literal["radiographs", "chest", "spine"]]
    """What to draw: a cohort in our layout, or the layout of EGD-CXR (chest) or VerSe (spine), to be imported."""
    destination: Positional[Path]
    """Folder to write."""
    studies: Annotated[int, arg(aliases=["--images", "--subjects"])] = 120
    """Number of studies (chest: of images; spine: of subjects)."""
    shortcut: float = 0.0
    """Chance that a marker agrees with the label in training and validation; it never stands in the test split."""
    anatomy: Literal["wrist", "femur"] = "wrist"
    """Wrist (fracture or none) or proximal femur (AO classes A1 to B3)."""
    field: Literal["close", "wide"] = "close"
    """Femur: the hip alone, or half a pelvis and the thigh."""
    ao_shares: Literal["even", "published"] = "even"
    """Femur: all AO classes alike, or as frequent as in Jimenez-Sanchez 2018."""
    seed: int = 0
    """Same seed, same bytes."""
    save_as: Annotated[Literal["png", "dicom"], arg(name="as")] = "png"
    """File format of the pictures."""
    workers: int = 1
    """Processes that draw; the files do not depend on it."""
    size: tuple[int, int] | None = None
    """Chest: rows and columns of an image (512 420)."""
    contrast: tuple[float, float] | None = None
    """Chest: range of how plain findings are, within 0 and 1 (0.05 0.9)."""
    clutter: float | None = None
    """Chest: how much lies on the pictures that is no finding, 0 to 2 (1)."""
    skill: float | None = None
    """Chest: share of a reading that goes to what the picture asks for (0.8)."""
    pads: Literal["image_left_pad", "image_left"] | None = None
    """Chest: spelling of the master sheet's padding columns (image_left_pad)."""
    spacing: float | None = None
    """Spine: size of isotropic voxels in mm (each series its own, as scanners give)."""
    prevalence: float | None = None
    """Spine: share of vertebrae that are deformed (0.08)."""

    def run(self) -> int:
        """Write the cohort."""
        from sightline.cohorts.phantom.cohort import write_radiographs
        from sightline.lab.progress import progress

        self._refuse_options_of_the_other()
        if self.kind == "chest":
            return self._chests()
        if self.kind == "spine":
            return self._spines()
        with progress("draw", self.studies) as advance:
            cohort = write_radiographs(
                self.destination,
                studies=self.studies,
                shortcut=self.shortcut,
                anatomy=self.anatomy,
                field=self.field,
                ao_shares=self.ao_shares,
                seed=self.seed,
                save_as=self.save_as,
                workers=self.workers,
                progress=lambda done, total: advance(1),
            )
        print(_cohort_line(cohort, self.destination))
        return 0

    def _chests(self) -> int:
        from sightline.cohorts.phantom.chest_layout import SHAPE, write_chests
        from sightline.lab.progress import progress

        with progress("draw", self.studies) as advance:
            truth = write_chests(
                self.destination,
                images=self.studies,
                seed=self.seed,
                shape=self.size or SHAPE,
                progress=lambda done, total: advance(1),
                **{name: given for name in _CHEST if name != "size" and (given := getattr(self, name)) is not None},
            )
        print(
            f"{self.destination}: {len(truth['images'])} chests in {truth['sessions']} sessions; next: "
            f"sightline cohort import egd_cxr {self.destination} COHORT"
        )
        return 0

    def _spines(self) -> int:
        from sightline.cohorts.phantom.spine import write_spines
        from sightline.lab.progress import progress

        with progress("draw", self.studies) as advance:
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
            f"sightline cohort import verse {self.destination} COHORT"
        )
        return 0

    def _refuse_options_of_the_other(self) -> None:
        own_options = {"radiographs": _RADIOGRAPHS, "chest": _CHEST, "spine": _SPINE}
        other = [name for kind in own_options for name in own_options[kind] if name not in own_options[self.kind]]
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

    layout: Positional[
        Literal[
            "fracatlas",
            "grazpedwri",
            "coco",
            "cub200",
            "dicom",
            "egd_cxr",
            "reflacx",
            "tracker",
            "chest_lungs",
            "verse",
            "folder",
        ]
    ]
    """Layout the source follows."""
    source: Positional[Path]
    """Folder of the source."""
    destination: Positional[Path]
    """Folder to write."""
    seed: int = 0
    """Seed of the split."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test (layouts without a published split)."""
    labels: Path | None = None
    """dicom: csv that names the label of each study, image or file."""
    groups: Path | None = None
    """coco: csv of image and group."""
    per_class: int | None = None
    """cub200: training images a class."""
    gaze: Literal["samples", "fixations"] | None = None
    """egd_cxr, tracker: the tracker's raw samples (the default), or fixations; reflacx: fixations are the default."""
    images: Path | None = None
    """egd_cxr, reflacx: folder of the images (MIMIC-CXR's paths, or flat), where they are not in the tree."""
    id_list: Path | None = None
    """egd_cxr: csv of the ids to keep."""
    heart: Literal["mediastinum", "cardiac_silhouette"] | None = None
    """egd_cxr: what stands for the heart: the mediastinum's mask (the default), or the silhouette's box."""
    correct_drift: bool = False
    """egd_cxr: shift each session by where its calibration pictures were looked at."""
    screen_width_mm: float | None = None
    """egd_cxr: width of the screen; with the distance it says how many pixels a degree is."""
    distance_mm: float | None = None
    """egd_cxr: from the eyes to the screen."""
    findings: tuple[str, ...] | None = None
    """reflacx: findings to tell apart, the first that an image has; without: finding or none."""
    certainty: int | None = None
    """reflacx: from which certainty on (1 to 5) a finding counts; 3, possibly, by default."""
    gradings: Path | None = None
    """verse: csv or xlsx with the Genant grade of each vertebra; without, fractures.csv in the source."""
    columns: Path | None = None
    """verse: json that names the table's columns, e.g. {"label": "level", "grade": "fx-grade"}."""
    positive_if: Literal[1, 2, 3] | None = None
    """verse: grade from which a vertebra counts as fractured; 1 by default."""
    mode: Literal["rigid", "straightened"] | None = None
    """verse: patches as one turned cube (the default), or bent straight along the spine."""
    anti_alias: bool = False
    """verse: smooth CTs that are finer than the patches' 1 mm before they are sampled."""
    workers: int | None = None
    """verse: processes that cut patches, one CT in memory each; 1 by default."""
    label_from: Literal["fracture_visible", "ao_classification"] | None = None
    """grazpedwri: the column that says the label; fracture_visible by default."""

    def run(self) -> int:
        """Read, write, and say what came in and what did not; 1 when nothing came in."""
        from sightline.cohorts.layouts import read_layout
        from sightline.lab.progress import progress

        cohort, rejects = read_layout(
            self.layout,
            self.source,
            seed=self.seed,
            fractions=self.fractions,
            labels=self.labels,
            groups=self.groups,
            per_class=self.per_class,
            gaze=self.gaze,
            images=self.images,
            id_list=self.id_list,
            heart=self.heart,
            correct_drift=self.correct_drift,
            screen_width_mm=self.screen_width_mm,
            distance_mm=self.distance_mm,
            findings=self.findings,
            certainty=self.certainty,
            destination=self.destination,
            gradings=self.gradings,
            columns=self.columns,
            positive_if=self.positive_if,
            mode=self.mode,
            anti_alias=self.anti_alias,
            workers=self.workers,
            progress=progress,
            label_from=self.label_from,
        )
        from sightline.cohorts import folder
        from sightline.io.image import write_rejects

        folder.write(cohort, self.destination)
        if rejects:
            write_rejects(self.destination / "rejects.csv", rejects)
            print(f"{len(rejects)} files were not read; see {self.destination / 'rejects.csv'}", file=sys.stderr)
        for key, value in cohort.about.items():
            if key.startswith("warning") or key in ("counts", "samples", "fixations", "calibration pictures"):
                print(f"{key}: {value}", file=sys.stderr)
        print(_cohort_line(cohort, self.destination))
        return 0 if len(cohort) else 1


@dataclass(frozen=True)
class CohortHalve:
    """Cut pictures of two femurs into pictures of one; marks are cut along, both halves stay with their patient."""

    source: Positional[Path]
    """Cohort folder in our layout."""
    destination: Positional[Path]
    """Folder to write."""

    def run(self) -> int:
        """Cut and write."""
        from sightline.cohorts import folder
        from sightline.cohorts.halves import halve

        print(_cohort_line(halve(folder.read(self.source), self.destination), self.destination))
        return 0


@dataclass(frozen=True)
class CohortCheck:
    """Look for what would spoil a result: leakage, duplicates, bad regions, files that do not decode, shortcuts."""

    cohort: Positional[Path]
    """Cohort folder in our layout."""

    def run(self) -> int:
        """Print findings; 1 when one of them is an error."""
        from sightline.cohorts import folder
        from sightline.cohorts.audit import audit

        findings = audit(folder.read(self.cohort))
        for finding in findings:
            print(finding)
        errors = sum(finding.severity == "error" for finding in findings)
        print(f"{errors} errors, {len(findings) - errors} warnings and notes")
        return 1 if errors else 0


@dataclass(frozen=True)
class Train:
    """Train a recipe on a cohort into a run folder; run the same command again to resume."""

    recipe: Positional[str]
    """Name of a recipe (see `sightline recipes`), or a recipe.json."""
    cohort: Path
    """Cohort folder in our layout."""
    out: Path
    """Run folder to write."""
    epochs: int | None = None
    """Passes over the training cases."""
    steps: int | None = None
    """Stop after this many steps instead."""
    size: int | None = None
    """Side of the square input in pixels."""
    batch_size: int | None = None
    """Images a step."""
    weight: float | None = None
    """Weight of the guidance (lambda)."""
    style: Literal["scribble", "box", "mask"] | None = None
    """Style of the regions that guide."""
    role: Literal["focus", "finding"] | None = None
    """Which regions guide: where to look, or the findings."""
    backbone: str | None = None
    """Any timm backbone."""
    weights: str | None = None
    """Initial weights: a safetensors file or folder, `imagenet` (timm's download), or `none`."""
    rate: float | None = None
    """First learning rate of the schedule."""
    select: Literal["last", "auc", "f1", "loss"] | None = None
    """Which epoch's weights are kept."""
    precision: Precision | None = None
    """Fabric's precision."""
    seed: int | None = None
    """Seed of initialisation, order and augmentation."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Train."""
        from sightline.cohorts import folder
        from sightline.lab.evaluate import choose_boxes
        from sightline.lab.model_card import write_model_card
        from sightline.lab.servable import require_regions
        from sightline.lab.train import train
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.changes import changed
        from sightline.papers.recipes import find_recipe

        recipe = changed(find_recipe(self.recipe), _changes(self))
        cohort = folder.read(self.cohort)
        require_regions(recipe, recipe.see(cohort))
        run = train(recipe, cohort, self.out, CATALOGUE, _engine(self.on))
        write_model_card(run)
        choose_boxes(run, cohort, CATALOGUE, engine=_engine(self.on))
        print(f"{self.out}: {(self.out / 'DONE').read_text(encoding='utf-8').strip()}")
        return 0


@dataclass(frozen=True)
class PutTogether:
    """Put a trained localiser before a classifier trained on experts' crops; the result is a run like any other."""

    localiser: Positional[Path]
    """Run folder of a box regression."""
    classifier: Positional[Path]
    """Run folder of a classifier trained on crops (recipe ubm)."""
    cohort: Path
    """Cohort folder that both were trained on."""
    out: Path
    """Run folder to write."""
    size: int | None = None
    """Side in pixels of the image that boxes are cut from; twice the classifier's when not given."""

    def run(self) -> int:
        """Put together."""
        from sightline.cohorts import folder
        from sightline.lab.assemble import assemble
        from sightline.lab.model_card import write_model_card
        from sightline.lab.run import open_run
        from sightline.papers.cascade import cascade_recipe
        from sightline.papers.catalogue import CATALOGUE

        parts = {"localiser": open_run(self.localiser, CATALOGUE), "classifier": open_run(self.classifier, CATALOGUE)}
        recipe = cascade_recipe(parts["localiser"].recipe, parts["classifier"].recipe, self.size)
        write_model_card(assemble(recipe, folder.read(self.cohort), parts, self.out, CATALOGUE))
        print(f"{self.out}: {(self.out / 'DONE').read_text(encoding='utf-8').strip()}")
        return 0


@dataclass(frozen=True)
class Convene:
    """Let finished runs (the seeds of one row, say) judge together; the result is a run like any other."""

    runs: Positional[tuple[Path, ...]]
    """Run folders; one is enough for its mirror image or for smoother maps."""
    cohort: Path
    """Cohort folder that they were trained on."""
    out: Path
    """Run folder to write."""
    mirrored: bool = False
    """Every member also judges the image with left and right exchanged."""
    smooth: float = 0.0
    """Standard deviation, in cells of the map, of a Gaussian over the mean map."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Put together, and choose on validation where boxes are cut from its maps."""
        from sightline.cohorts import folder
        from sightline.lab.assemble import assemble
        from sightline.lab.evaluate import choose_boxes
        from sightline.lab.model_card import write_model_card
        from sightline.lab.run import open_run
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.committee import committee_recipe

        parts = {f"members.{place}": open_run(path, CATALOGUE) for place, path in enumerate(self.runs)}
        recipe = committee_recipe([run.recipe for run in parts.values()], mirrored=self.mirrored, smooth=self.smooth)
        cohort = folder.read(self.cohort)
        run = assemble(recipe, cohort, parts, self.out, CATALOGUE)
        write_model_card(run)
        choose_boxes(run, cohort, CATALOGUE, engine=_engine(self.on))
        print(f"{self.out}: {(self.out / 'DONE').read_text(encoding='utf-8').strip()}")
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Measure a run on a cohort: metrics.json, metrics.md, predictions, maps and panels."""

    folder: Annotated[Positional[Path], arg(name="run")]
    """Run folder."""
    cohort: Path
    """Cohort folder with the run's classes, also another hospital's."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which cases."""
    out: Path | None = None
    """Folder to write; RUN/evaluation/COHORT-SPLIT when not given."""
    panels: int = 8
    """Number of pictures to draw."""
    replicates: int = 2000
    """Bootstrap samples over patients."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Evaluate and print the metrics."""
        from sightline.cohorts import folder
        from sightline.lab.evaluate import evaluate
        from sightline.lab.evaluation_report import left_out, report_of, write_report_of
        from sightline.lab.gallery import write_panels
        from sightline.lab.run import open_run
        from sightline.papers.catalogue import CATALOGUE

        run = open_run(self.folder, CATALOGUE)
        whole = folder.read(self.cohort)
        cohort = run.recipe.see(whole if self.split == "all" else whole.split(self.split))
        out = self.out or self.folder / "evaluation" / f"{whole.name}-{self.split}"
        evaluation = evaluate(run, cohort, self.split, out=out, engine=_engine(self.on))
        estimates = report_of(evaluation, replicates=self.replicates)
        notes = left_out(run.recipe.view, evaluation)
        write_report_of(estimates, out, f"{run.recipe.title} on {whole.name}, {self.split}", notes)
        write_panels(evaluation, cohort, run.recipe.view, out / "panels", most=self.panels)
        for estimate in (*estimates, *notes):
            print(estimate)
        print(f"written to {out}")
        return 0


@dataclass(frozen=True)
class Predict:
    """Predict radiographs (DICOM or pictures), or the vertebrae of CTs: probabilities and what the network looked at.

    Radiographs give scored boxes and one overlay a picture; CTs the spine on one page and a case panel a vertebra.
    """

    folder: Annotated[Positional[Path], arg(name="run")]
    """Run folder."""
    inputs: Positional[tuple[Path, ...]]
    """Files or folders; a CT is a NIfTI file, or the folder of one DICOM series."""
    out: Path
    """Folder to write."""
    centroids: tuple[Path, ...] = ()
    """CT: centres of the vertebrae (VerSe's json), one file for each CT."""
    vertebrae: tuple[Path, ...] = ()
    """CT: masks under VerSe's labels (NIfTI), one for each CT, from which centres are estimated instead."""
    dissection: Path | None = None
    """CT: folder that `sightline dissect` wrote for this run; adds the units that respond to a vertebra."""
    panels: Literal["called", "all", "none"] = "called"
    """CT: case panels of the vertebrae that are called fractured, of all, or none."""
    series: str | None = None
    """CT: which series, where a DICOM folder holds several: the end of its SeriesInstanceUID."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Predict; 1 when nothing could be read."""
        from sightline.cohorts.volume_view import VolumeView
        from sightline.lab.run import open_run
        from sightline.papers.catalogue import CATALOGUE

        run = open_run(self.folder, CATALOGUE)
        if isinstance(run.recipe.view, VolumeView):
            from sightline.lab.predict_volumes import CtOptions, predict_cts

            options = CtOptions(self.centroids, self.vertebrae, self.dissection, self.panels, self.series)
            read, rejects = predict_cts(run, self.inputs, self.out, options, _engine(self.on))
            print(f"{read} CTs predicted, {rejects} rejected; see {self.out}")
            return _exit_code(read, self.out)
        from sightline.lab.predict_files import predict_files

        if self.centroids or self.vertebrae or self.dissection or self.panels != "called" or self.series:
            raise RunError(
                f"{self.folder} was trained on radiographs: it has no --centroids, --vertebrae, --dissection, "
                "--panels or --series.",
                "Leave them out, or give a run that was trained on patches of CTs.",
            )
        read, rejects = predict_files(run, self.inputs, self.out, _engine(self.on))
        print(f"{read} pictures predicted, {rejects} files rejected; see {self.out}")
        return _exit_code(read, self.out)


@dataclass(frozen=True)
class Explain:
    """Show several explanations side by side, each checked first for whether it depends on what it should."""

    folder: Annotated[Positional[Path], arg(name="run")]
    """Run folder."""
    inputs: Positional[tuple[Path, ...]]
    """Files or folders; or one cohort folder in our layout, whose gaze and marks are shown too."""
    out: Path
    """Folder to write."""
    explainers: tuple[str, ...] = ("cam", "grad_cam", "guided")
    """cam, grad_cam, grad_cam_pp, gradient, guided, deconvolution, guided_grad_cam, smooth_grad."""
    split: str = "test"
    """Of a cohort: the split that cases are taken from."""
    most: int = 12
    """Of a cohort: how many cases."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Explain; 1 when nothing could be read."""
        from sightline.cohorts import folder
        from sightline.lab.explain_pictures import explain_cases, explain_files
        from sightline.lab.run import open_run
        from sightline.papers.catalogue import CATALOGUE

        run, engine = open_run(self.folder, CATALOGUE), _engine(self.on)
        if len(self.inputs) == 1 and (self.inputs[0] / "cohort.json").is_file():
            cohort = folder.read(self.inputs[0]).split(self.split)
            read, rejects = explain_cases(run, cohort, self.out, self.explainers, most=self.most, engine=engine), 0
        else:
            read, rejects = explain_files(run, self.inputs, self.out, self.explainers, engine)
        print(f"{read} pictures explained, {rejects} files rejected; read {self.out / 'preflight.md'} first")
        return _exit_code(read, self.out)


@dataclass(frozen=True)
class Dissect:
    """Show what the units of a layer respond to: ranks, galleries, agreement with masks, files for a viewer, a page.

    Experts name units in concepts.yaml; the same command again puts the names into the page.
    """

    folder: Annotated[Positional[Path], arg(name="run")]
    """Run folder."""
    cohort: Path
    """Cohort folder with the run's classes, also another hospital's."""
    out: Path
    """Folder to write; what was read there before is reused."""
    layer: str | None = None
    """Any part of the network that gives maps, e.g. encoder.3; the network's own choice when not given."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which cases."""
    top: float = 0.005
    """Share of all places on which a unit exceeds its threshold."""
    over: Literal["positives", "true_positives", "false_positives"] = "positives"
    """Cases that units are ranked by: all positives, those called right, or false alarms."""
    positive: str | None = None
    """Class whose cases are the positives; the last one when not given."""
    units: int = 10
    """How many units are drawn."""
    by: Literal["c", "contrast", "auc"] = "c"
    """Which ones: the first ranks by c, the largest contrast, or the largest AUC of r."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Dissect and print the first units."""
        from sightline.cohorts import folder
        from sightline.lab.dissect import dissect, first_units
        from sightline.lab.run import open_run
        from sightline.papers.catalogue import CATALOGUE

        found = dissect(
            open_run(self.folder, CATALOGUE),
            folder.read(self.cohort),
            self.out,
            layer=self.layer,
            split=self.split,
            top=self.top,
            over=self.over,
            positive=self.positive,
            units=self.units,
            by=self.by,
            engine=_engine(self.on),
        )
        print(f"{len(found.units)} units of {found.layer}, {found.about['cases']} cases")
        for row in first_units(found, self.by, self.units):
            name = found.concepts.get(row.unit)
            print(f"unit {row.unit}: {row.standing}" + (f": {name.text}" if name else ""))
        print(f"see {self.out / 'report.html'}; name units in {self.out / 'concepts.yaml'}")
        return 0


@dataclass(frozen=True)
class MakeTable:
    """Train and measure every row of a table, and write table.csv, table.md and report.html."""

    name: Positional[str]
    """Table, e.g. liao2022/table3; `sightline recipes` lists them."""
    cohort: Path
    """Cohort folder in our layout."""
    out: Path
    """Folder to write; finished rows in it are reused."""
    seeds: int = 5
    """Trainings a row."""
    steps: int | None = None
    """Steps a training, instead of the recipe's epochs."""
    epochs: int | None = None
    """Epochs a training."""
    size: int | None = None
    """Input size that stands for the recipe's 512; other sizes keep their ratio."""
    batch_size: int | None = None
    """Images a step."""
    backbone: str | None = None
    """Any timm backbone."""
    weights: str | None = None
    """Initial weights: a safetensors file or folder, `imagenet`, or `none`."""
    profile: Literal["recommended", "paper", "official_code"] = "recommended"
    """Where paper and released code differ."""
    rows: tuple[str, ...] = ()
    """Only rows whose name contains one of these (and their references)."""
    parallel: int = 1
    """Trainings at a time, each a process with its share of the cores."""
    external: Path | None = None
    """A second hospital's cohort, tested on whole."""
    precision: Precision | None = None
    """Fabric's precision."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Run the table."""
        from sightline.cohorts import folder
        from sightline.lab.run_table import run_table
        from sightline.lab.table_report import write_table
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.recipes import find_table

        table = find_table(self.name, self.profile, _changes(self), self.rows)
        result = run_table(
            table,
            folder.read(self.cohort),
            self.out,
            CATALOGUE,
            seeds=range(self.seeds),
            engine=_engine(self.on),
            parallel=self.parallel,
            external=None if self.external is None else folder.read(self.external),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(write_table(result, self.out))
        print(f"written to {self.out / 'report.html'}")
        if table.units:
            from sightline.papers.engstler2022_units import after_table

            print(after_table(result, self.out, _engine(self.on)))
        return 0 if any(row.why_not is None for row in result.rows) else 1


@dataclass(frozen=True)
class Recipes:
    """What can be trained, a line each, and the tables."""

    def run(self) -> int:
        """Print the list."""
        from sightline.papers.recipes import listing

        print(listing())
        return 0


@dataclass(frozen=True)
class Demo:
    """Phantom cohort, unguided and guided trainings, table and report.html; under ten minutes on two cores."""

    out: Path = Path("demo")
    """Folder to write; a demo that was stopped goes on."""
    seeds: int = 3
    """Trainings a row."""
    parallel: int = 2
    """Trainings at a time, each a process with its share of the cores."""
    on: OmitArgPrefixes[On] = field(default_factory=On)

    def run(self) -> int:
        """Run the demo."""
        from sightline.papers.demo import run_demo

        print(run_demo(self.out, seeds=self.seeds, parallel=self.parallel, engine=_engine(self.on)))
        return 0


@dataclass(frozen=True)
class Version:
    """Print the version."""

    def run(self) -> int:
        """Print it."""
        print(__version__)
        return 0


@dataclass(frozen=True)
class CohortCommand:
    """Write, import or check a cohort."""

    action: OmitArgPrefixes[
        Annotated[Phantom, subcommand("phantom")]
        | Annotated[CohortImport, subcommand("import")]
        | Annotated[CohortHalve, subcommand("halve")]
        | Annotated[CohortCheck, subcommand("check")]
    ]

    def run(self) -> int:
        """Run the chosen action."""
        return self.action.run()


Command = Union[  # noqa: UP007  # tyro reads the annotations of a Union
    Annotated[CohortCommand, subcommand("cohort")],
    Annotated[Train, subcommand("train")],
    Annotated[PutTogether, subcommand("cascade")],
    Annotated[Convene, subcommand("committee")],
    Annotated[Evaluate, subcommand("evaluate")],
    Annotated[Predict, subcommand("predict")],
    Annotated[Explain, subcommand("explain")],
    Annotated[Dissect, subcommand("dissect")],
    Annotated[MakeTable, subcommand("table")],
    Annotated[Recipes, subcommand("recipes")],
    Annotated[Demo, subcommand("demo")],
    Annotated[Version, subcommand("version")],
]


def main(args: list[str] | None = None) -> None:
    """Parse, call one command, and end with its exit code; errors a user can mend are one line."""
    for stream in (sys.stdout, sys.stderr):
        # a name of a file, or a dash, that the terminal's encoding lacks must not end a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    command = tyro.cli(
        Command, prog="sightline", description="Radiology classifiers that look where experts look.", args=args
    )
    try:
        code = command.run()
    except SightlineError as error:
        print(f"sightline: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        print(f"sightline: {error}. Remedy: Check the path, its permissions and the free space.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("sightline: stopped; the same command goes on where it was.", file=sys.stderr)
        code = 130
    sys.exit(code)


def _exit_code(read: int, out: Path) -> int:
    """0 when something was read; else 1, and the first reason why not."""
    if read:
        return 0
    import csv

    with (out / "rejects.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            print(f"sightline: {row['file']}: {row['reason']} Remedy: {row['remedy']}", file=sys.stderr)
            break
    return 1


def _changes(command: Train | MakeTable) -> Changes:
    """What a person changes of recipes: every flag of a command that a recipe has, too."""
    from sightline.papers.changes import Changes

    return Changes(**{f.name: getattr(command, f.name) for f in fields(Changes) if hasattr(command, f.name)})


def _engine(on: On):  # type: ignore[no-untyped-def]  # noqa: ANN202  # its type would import torch
    from sightline.lab.engine import Engine

    return Engine(device=on.device, devices=on.devices, workers=on.workers, quiet=on.quiet)


def _cohort_line(cohort: object, destination: Path) -> str:
    from sightline.case import Cohort

    assert isinstance(cohort, Cohort)
    patients = len({case.patient_id for case in cohort})
    studies = len({case.study_id for case in cohort})
    splits = "; ".join(
        f"{split} {', '.join(f'{n} {name}' for name, n in cohort.split(split).counts().items())}"
        for split in ("train", "val", "test")
        if len(cohort.split(split))
    )
    return f"{destination}: {len(cohort)} images, {studies} studies, {patients} patients ({splits})"
