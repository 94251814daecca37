"""Commands that use a trained run: predict, explain, dissect."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from sightline.cli.options import DeviceOptions, hold_folder, make_engine
from sightline.errors import RunError, count_noun

if TYPE_CHECKING:
    from sightline.inference.ct.predict import CtOptions
    from sightline.inference.file_result import DicomWish
    from sightline.inference.network_output import RunFacts
    from sightline.training.run import Run


@dataclass(frozen=True)
class Predict:
    """Predict radiographs (DICOM or pictures), or the vertebrae of CTs: probabilities, maps and boxes.

    Radiographs give scored boxes and one overlay a picture; CTs the spine on one page and a case panel a vertebra.
    """

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder."""
    inputs: Annotated[Positional[tuple[Path, ...]], arg(metavar="INPUT [INPUT ...]")]
    """Files or folders; a CT is a NIfTI file, or the folder of one DICOM series."""
    out: Path
    """Folder to write."""
    centroids: tuple[Path, ...] = ()
    """CT: centres of the vertebrae (VerSe's json), one file for each CT."""
    vertebrae: tuple[Path, ...] = ()
    """CT: masks under VerSe's labels (NIfTI), one for each CT, from which centres are estimated instead."""
    dissection: Path | None = None
    """CT: folder written by `sightline dissect` for this run; adds the units that respond to a vertebra."""
    panels: Literal["called", "all", "none"] = "called"
    """CT: case panels of the vertebrae predicted as fractured, of all, or of none."""
    studies: Path | None = None
    """Radiographs: csv of file and study, whose views get one answer; DICOM files are grouped by their UIDs."""
    series: str | None = None
    """CT: which series, if a DICOM folder holds several: the end of its SeriesInstanceUID."""
    save_as: Annotated[Literal["dicom"] | None, arg(name="as")] = None
    """dicom: also write DICOM objects (reports, segmentation, presentation state, picture, map) to OUT/dicom."""
    objects: tuple[Literal["findings", "marks", "regions", "states", "picture", "map"], ...] = ()
    """Which DICOM objects; default: all."""
    map_on: Literal["cells", "picture"] = "cells"
    """DICOM: the map on its own grid (exact, small), or on the picture's pixels for viewers that need that."""
    picture_syntax: Literal["plain", "rle", "jpegls"] = "plain"
    """DICOM: lossless compression of the picture."""
    codes: Path | None = None
    """DICOM: codes.yaml that names findings and sites; default: the one in the run folder."""
    engine: Literal["torch", "onnx"] = "torch"
    """Inference engine; onnx needs `sightline export RUN` first, and for radiographs no torch."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    def run(self) -> int:
        """Predict; 1 when nothing could be read."""
        if self.engine == "onnx":
            return self._predict_without_torch()
        from sightline.data.views.volume_view import VolumeView
        from sightline.io.files import hold_folder
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        run = open_run(self.folder, CATALOGUE)
        if isinstance(run.recipe.view, VolumeView):
            from sightline.inference.ct.predict import predict_cts

            options = self._build_ct_options()
            with hold_folder(self.out):
                read, rejects = predict_cts(
                    run, self.inputs, self.out, options, make_engine(self.on), self._choose_dicom(run)
                )
            print(f"{read} CTs predicted, {rejects} rejected; see {self.out}")
            return _choose_exit_code(read, self.out)
        from sightline.inference.radiographs import predict_files

        self._refuse_ct_words()
        engine, dicom = make_engine(self.on), self._choose_dicom(run)
        read, rejects = predict_files(run, self.inputs, self.out, engine, self.studies, dicom)
        print(f"{count_noun(read, 'picture')} predicted, {count_noun(rejects, 'file')} rejected; see {self.out}")
        return _choose_exit_code(read, self.out)

    def _predict_without_torch(self) -> int:
        """Predict with onnxruntime; the patches of a CT are still cut with torch."""
        from sightline.data.views.volume_view import VolumeView
        from sightline.inference.onnx.exported_run import open_export

        if self.on.device == "cuda":
            raise RunError("onnxruntime runs on the CPU here.", "Leave --device out, or use --engine torch.")
        run = open_export(self.folder)
        if isinstance(run.facts.view, VolumeView):
            from sightline.inference.ct.predict import read_cts
            from sightline.io.files import hold_folder

            if self.dissection is not None:
                raise RunError("A graph does not show its units.", "Leave --dissection out, or use --engine torch.")
            wish, quiet = self._choose_dicom(run.facts), self.on.quiet
            with hold_folder(self.out):
                read, rejects = read_cts(
                    run.facts, run.network, self.inputs, self.out, self._build_ct_options(), quiet=quiet, dicom=wish
                )
            print(f"{read} CTs predicted, {rejects} rejected; see {self.out}")
            return _choose_exit_code(read, self.out)
        from sightline.inference.radiographs import read_files

        self._refuse_ct_words()
        dicom = self._choose_dicom(run.facts)
        read, rejects = read_files(
            run.facts, run.network, self.inputs, self.out, quiet=self.on.quiet, study_table=self.studies, dicom=dicom
        )
        print(f"{count_noun(read, 'picture')} predicted, {count_noun(rejects, 'file')} rejected; see {self.out}")
        return _choose_exit_code(read, self.out)

    def _build_ct_options(self) -> CtOptions:
        """Where the vertebrae of CTs are, and what to draw."""
        from sightline.inference.ct.predict import CtOptions

        if self.studies is not None:
            raise RunError("A CT is a study of its own: --studies is of radiographs.", "Leave it out.")
        return CtOptions(self.centroids, self.vertebrae, self.dissection, self.panels, self.series)

    def _refuse_ct_words(self) -> None:
        """Refuse options of CTs."""
        if self.centroids or self.vertebrae or self.dissection or self.panels != "called" or self.series:
            raise RunError(
                f"{self.folder} was trained on radiographs: it has no --centroids, --vertebrae, --dissection, "
                "--panels or --series.",
                "Leave them out, or give a run that was trained on patches of CTs.",
            )

    def _choose_dicom(self, run: Run | RunFacts) -> DicomWish | None:
        """The DICOM objects that are asked for; classes that no table of codes names are said aloud."""
        from sightline.inference.file_result import DicomWish

        if self.save_as is None:
            if self.objects or self.codes or self.map_on != "cells" or self.picture_syntax != "plain":
                raise RunError(
                    "--objects, --codes, --map-on and --picture-syntax are about DICOM objects.", "Add --as dicom."
                )
            return None
        wish = DicomWish(self.objects, self.map_on == "picture", self.picture_syntax, self.codes)
        wish.choose_objects()
        from sightline.inference.dicom_results import collect_run_words

        unknown = collect_run_words(run, self.codes).unknown
        if unknown:
            print(
                f"{', '.join(unknown)}: no code in a codes.yaml, so a private one is written that only sightline knows",
                file=sys.stderr,
            )
        return wish


@dataclass(frozen=True)
class Export:
    """Export a run as an ONNX graph that predicts without torch, after comparing it with the network."""

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder."""
    out: Path | None = None
    """Folder to write; default: RUN/onnx, where predict and serve find it."""
    save_as: Annotated[Literal["onnx"], arg(name="as")] = "onnx"
    """The format."""
    pictures: tuple[Path, ...] = ()
    """Radiographs (files or folders) on which graph and network are compared, besides synthetic ones."""

    @hold_folder(lambda command: command.out or command.folder / "onnx")
    def run(self) -> int:
        """Export, and say how far graph and network are apart."""
        from sightline.inference.onnx.export import export_onnx
        from sightline.inference.onnx.model_file import FOLDER
        from sightline.inference.radiographs import list_radiograph_files, read_radiograph
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        run, out = open_run(self.folder, CATALOGUE), self.out or self.folder / FOLDER
        planes = []
        if self.pictures:
            view = run.recipe.picture_view
            for path in list_radiograph_files(self.pictures, out):
                picture = read_radiograph(path)
                planes.append(view.show(picture.pixels, picture.frame)[0])
        facts = export_onnx(run, out, CATALOGUE, planes).facts
        batch = (
            "any number of images at once" if facts.batch == 0 else f"{facts.batch} image at once, the graph fixes it"
        )
        print(f"{out}: {', '.join(facts.outputs)}; {batch}")
        for name, difference in facts.checked["largest_differences"].items():
            print(f"  {name}: differs from the network by at most {difference:.1e}")
        return 0


@dataclass(frozen=True)
class Explain:
    """Show several explanations side by side, each first checked for dependence on image, weights and class."""

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder."""
    inputs: Annotated[Positional[tuple[Path, ...]], arg(metavar="INPUT [INPUT ...]")]
    """Files or folders; or one cohort folder in our layout, to show its gaze and marks too."""
    out: Path
    """Folder to write."""
    explainers: tuple[str, ...] = ("cam", "grad_cam", "guided")
    """cam, grad_cam, grad_cam_pp, gradient, guided, deconvolution, guided_grad_cam, smooth_grad."""
    split: Literal["test", "val", "train", "all"] = "test"
    """For a cohort: the split to take cases from."""
    most: int = 12
    """For a cohort: number of cases."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    def run(self) -> int:
        """Explain; 1 when nothing could be read."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.inference.explanations import explain_cases, explain_files
        from sightline.io.files import hold_folder
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        run, engine = open_run(self.folder, CATALOGUE), make_engine(self.on)
        if len(self.inputs) == 1 and (self.inputs[0] / "cohort.json").is_file():
            whole = read_cohort(self.inputs[0])
            cohort = whole.part(self.split)
            with hold_folder(self.out):
                read = explain_cases(run, cohort, self.out, self.explainers, most=self.most, engine=engine)
            rejects = 0
        else:
            with hold_folder(self.out):
                read, rejects = explain_files(run, self.inputs, self.out, self.explainers, engine)
        print(
            f"{count_noun(read, 'picture')} explained, {count_noun(rejects, 'file')} rejected; "
            f"read {self.out / 'preflight.md'} first"
        )
        return _choose_exit_code(read, self.out)


@dataclass(frozen=True)
class Dissect:
    """Show what the units of a layer respond to: ranks, galleries, agreement with masks, files for a viewer, a page.

    Experts name units in concepts.yaml; the same command again puts the names into the page.
    """

    folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """Run folder."""
    cohort: Path
    """Cohort folder with the run's classes; may come from another hospital."""
    out: Path
    """Folder to write; earlier readings in it are reused."""
    layer: str | None = None
    """Any layer that gives maps, e.g. encoder.3; default: the network's own choice."""
    split: Literal["test", "val", "train", "all"] = "test"
    """Which cases."""
    top: float = 0.005
    """Share of all positions at which a unit exceeds its threshold."""
    over: Literal["positives", "true_positives", "false_positives"] = "positives"
    """Cases used to rank the units: all positives, true positives or false positives."""
    positive: str | None = None
    """Positive class; default: the last one."""
    units: int = 10
    """Number of units that get a gallery."""
    by: Literal["c", "contrast", "auc"] = "c"
    """How they are chosen: by the rank of c, the largest contrast, or the largest AUC of r."""
    on: OmitArgPrefixes[DeviceOptions] = field(default_factory=DeviceOptions)

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Dissect and print the first units."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.dissection.dissect import DissectionOptions, dissect, select_first_units
        from sightline.papers.catalogue import CATALOGUE
        from sightline.training.run import open_run

        found = dissect(
            open_run(self.folder, CATALOGUE),
            read_cohort(self.cohort),
            self.out,
            options=DissectionOptions(
                layer=self.layer,
                split=self.split,
                top=self.top,
                over=self.over,
                positive=self.positive,
                units=self.units,
                by=self.by,
            ),
            engine=make_engine(self.on),
        )
        print(f"{count_noun(len(found.units), 'unit')} of {found.layer}, {found.about['cases']} cases")
        for row in select_first_units(found, self.by, self.units):
            name = found.concepts.get(row.unit)
            print(f"unit {row.unit}: {row.standing}" + (f": {name.text}" if name else ""))
        print(f"see {self.out / 'report.html'}; name units in {self.out / 'concepts.yaml'}")
        return 0


def _choose_exit_code(read: int, out: Path) -> int:
    """0 when something was read; else 1, and the first reason why not."""
    if read:
        return 0
    import csv

    with (out / "rejects.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            print(f"sightline: {row['file']}: {row['reason']} Remedy: {row['remedy']}", file=sys.stderr)
            break
    return 1
