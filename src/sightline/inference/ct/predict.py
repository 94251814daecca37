"""Predict the vertebrae of CTs: a table, the spine on one page, a case panel for each vertebra that is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.data.views.volume_view import VolumeView
from sightline.dissection.case_panel import CasePanel, PanelUnit
from sightline.errors import RunError, SightlineError
from sightline.inference.boxes import choose_top_finding
from sightline.inference.ct.earlier import EarlierCts
from sightline.inference.ct.inputs import CtInput, PlacedCt, collect_ct_inputs, read_vertebrae
from sightline.inference.ct.patches import CutPatch, cut_patches, parse_cutting
from sightline.inference.ct.report import LEAST_OUTSIDE, ReadVertebra, write_ct
from sightline.inference.file_result import DicomWish
from sightline.inference.network_output import Answers, Ask, RunFacts, collect_facts
from sightline.inference.results.csv_table import open_csv_table
from sightline.inference.results.journal import Journal, build_stamp, fingerprint_input
from sightline.io.files import require_place_for_results
from sightline.io.picture import Reject, write_rejects
from sightline.io.progress import show_progress
from sightline.io.volume import compute_affine_within
from sightline.plots.planes import build_whole_cube, find_facing, turn_cube
from sightline.structures.frame import Frame

if TYPE_CHECKING:
    from sightline.inference.ct.units import CaseUnits
    from sightline.training.engine import Engine
    from sightline.training.run import Run

Panels = Literal["called", "all", "none"]
HEAD = ("ct", "vertebra", "label", "predicted", "probability", "voxel_i", "voxel_j", "voxel_k", "x_mm", "y_mm", "z_mm",
        "centre", "outside", "panel")  # fmt: skip
ASSUMED = "The run does not say how its patches were cut; cubes of 1 mm along the spine are assumed"


@dataclass(frozen=True)
class CtOptions:
    """What a person asks for.

    Attributes:
        centroids: VerSe's centroid files, one for each CT.
        vertebrae: masks of VerSe's labels, one for each CT, instead.
        dissection: folder that `sightline dissect` wrote for this run, or None.
        panels: case panels of the vertebrae that are `called`, of `all`, or `none`.
        series: which series of DICOM folders that hold several: the end of its SeriesInstanceUID.
    """

    centroids: tuple[Path, ...] = ()
    vertebrae: tuple[Path, ...] = ()
    dissection: Path | None = None
    panels: Panels = "called"
    series: str | None = None


def predict_cts(
    run: Run,
    inputs: Sequence[Path],
    out: Path,
    options: CtOptions,
    engine: Engine | None = None,
    dicom: DicomWish | None = None,
) -> tuple[int, int]:
    """Write predictions.csv, rejects.csv, and a folder for each CT; how many CTs were predicted and rejected.

    A CT that cannot be read or placed is listed with reason and remedy, and the rest goes on. Rows of a CT are written
    as soon as it is done; a CT that was done before an interruption is not asked again. Of an earlier prediction of CTs
    into the same folder nothing is left that no row names.

    Args:
        run: a finished run on patches of vertebrae.
        inputs: NIfTI files, folders of them, or folders of one DICOM series each.
        out: folder to write.
        options: where the vertebrae are, and what to draw.
        engine: device.
        dicom: which DICOM objects to write, too, into `dicom/`; CTs that are no DICOM series are then rejected.

    Raises:
        RunError: the run is not finished or sees radiographs, or an input is missing.
    """
    from sightline.inference.predict import TorchNetwork
    from sightline.training.engine import Engine

    engine = engine or Engine()
    facts = collect_facts(run)
    _require_volume_view(facts)
    network = TorchNetwork(run, engine.find_device())
    units = None
    if options.dissection is not None:
        from sightline.dissection.results import open_dissection
        from sightline.inference.ct.units import digest_weights, open_units

        units = open_units(digest_weights(run), network.network, open_dissection(options.dissection))
    return read_cts(facts, network, inputs, out, options, quiet=engine.quiet, dicom=dicom, units=units)


def read_cts(
    run: RunFacts,
    network: Ask,
    inputs: Sequence[Path],
    out: Path,
    options: CtOptions,
    *,
    quiet: bool = False,
    dicom: DicomWish | None = None,
    units: CaseUnits | None = None,
) -> tuple[int, int]:
    """The same with whatever answers: a network with torch, or its graph with onnxruntime.

    Args:
        run: what is known of the run.
        network: answers to patches [1, 1, *s].
        inputs: as in `predict_cts`.
        out: folder to write.
        options: where the vertebrae are, and what to draw; its dissection is `units`, opened.
        quiet: no progress bar.
        dicom: as in `predict_cts`.
        units: of a network with torch, that are asked as well.

    Raises:
        RunError: the run sees radiographs, or an input is missing.
    """
    if dicom is not None:
        dicom.choose_objects()  # says what is not installed before anything is read
        from sightline.inference.ct.dicom_results import require_dicom, write_ct_results
        from sightline.inference.dicom_results import collect_run_words
    reader = _Reader(run, _require_volume_view(run), network, units, options.panels)
    require_place_for_results(out)
    cts = collect_ct_inputs(inputs, options.centroids, options.vertebrae, options.series)
    out.mkdir(parents=True, exist_ok=True)
    rejects: list[Reject] = []
    earlier = EarlierCts(out, [path for one in cts for path in one.files])
    wishes = {"panels": options.panels, "dissection": str(options.dissection), "dicom": repr(dicom)}
    journal = Journal(out, build_stamp(run, **wishes), _parse_prediction)
    marks = {one.name: _fingerprint_input(one) for one in cts}
    known = {
        one.name: outcome for one in cts if (outcome := _find_earlier(journal, one, marks[one.name], out)) is not None
    }
    earlier.begin(known)
    objects: set[Path] = set()
    done = False
    try:
        with open_csv_table(out / "predictions.csv", HEAD) as write:
            for given in cts:
                outcome = known.get(given.name)
                if outcome is None:
                    earlier.clear(given.name)
                    try:
                        if dicom is not None:
                            require_dicom(given)
                        placed = read_vertebrae(given)
                        folder = out / given.name
                        read = reader.read(given, placed, folder, quiet)
                        notes = placed.notes if reader.cutting_known else (*placed.notes, ASSUMED)
                        write_ct(folder, given.name, placed.ct, read, run, placed.centres, notes)
                        written: list[Path] = []
                        if dicom is not None:
                            words, wanted = collect_run_words(run, dicom.codes), dicom.choose_objects()
                            written = write_ct_results(words, given, placed, read, out, wanted)
                    except SightlineError as error:
                        # half of a CT is no result of it
                        earlier.clear(given.name)
                        rejects.append(Reject(given.path, error.message.removeprefix(f"{given.path}: "), error.remedy))
                        continue
                    rows = [_format_row(given, placed, one, folder) for one in read]
                    outcome = PredictedCt(rows, [path.relative_to(out).as_posix() for path in written])
                    journal.add(_build_key(given), marks[given.name], vars(outcome))
                for row in outcome.rows:
                    write(row)
                objects |= {out / name for name in outcome.objects}
        done = True
    finally:
        journal.close(done=done)
    write_rejects(out / "rejects.csv", rejects)
    earlier.end(objects)
    return len(cts) - len(rejects), len(rejects)


@dataclass(frozen=True)
class PredictedCt:
    """What is said of one CT.

    Attributes:
        rows: of predictions.csv.
        objects: its DICOM objects, as seen from the command's folder.
    """

    rows: list[list[str]]
    objects: list[str]


def _build_key(given: CtInput) -> str:
    return f"{given.name} {given.path} {given.series}"


def _find_earlier(journal: Journal[PredictedCt], given: CtInput, mark: str, out: Path) -> PredictedCt | None:
    """What a stopped call of the same command said of a CT, if all that it wrote is there."""
    outcome = journal.find(_build_key(given), mark)
    whole = (
        outcome is not None and (out / given.name).is_dir() and all((out / name).is_file() for name in outcome.objects)
    )
    return outcome if whole else None


def _require_volume_view(run: RunFacts) -> VolumeView:
    """The view of a run on patches of CTs; refuses other runs."""
    if not isinstance(run.view, VolumeView):
        raise RunError(
            f"{run.folder} was trained on radiographs, not on patches of CTs.",
            "Give radiographs, or a run that was trained on volumes.",
        )
    return run.view


def _fingerprint_input(given: CtInput) -> str:
    """What says that a CT and what places its vertebrae are still what they were."""
    places = [fingerprint_input(path) for path in given.files]
    return " ".join(places) if all(places) else ""


def _parse_prediction(entry: Any) -> PredictedCt:
    outcome = PredictedCt(**entry)
    if not all(isinstance(row, list) and len(row) == len(HEAD) for row in outcome.rows):
        raise ValueError("rows of another table")
    return outcome


class _Reader:
    """What reads the vertebrae of one CT."""

    def __init__(self, run: RunFacts, view: VolumeView, network: Ask, units: CaseUnits | None, panels: Panels) -> None:
        self.run, self.view, self.network = run, view, network
        self.units, self.panels = units, panels
        self.cutting, self.cutting_known = parse_cutting(run.cohort.get("about", {}), view.size)

    def read(self, given: CtInput, placed: PlacedCt, folder: Path, quiet: bool) -> list[ReadVertebra]:
        """Every vertebra from head to foot."""
        read = []
        with show_progress(given.name, len(placed.vertebrae), quiet=quiet) as advance:
            for patch in cut_patches(placed, folder / "patches", self.cutting):
                read.append(self._read_vertebra(given, placed, patch, folder))
                advance(1)
        return read

    def _read_vertebra(self, given: CtInput, placed: PlacedCt, patch: CutPatch, folder: Path) -> ReadVertebra:
        planes, frame = self.view.test(patch.volume.values)
        answers, activations = self._look(planes)
        if not bool(np.isfinite(answers.logits).all()):
            raise RunError("The network's logits are not finite.", "The weights are damaged.")
        probabilities = answers.probabilities(independent=self.run.independent)
        if self.run.calibration is not None:
            # what is printed and called is what validation says is meant
            probabilities = self.run.calibration.probabilities(probabilities, independent=self.run.independent)
        (probabilities,) = probabilities
        classes = self.run.classes
        looked_for = choose_top_finding(classes, probabilities)
        predicted = int(probabilities.argmax())
        one = ReadVertebra(
            vertebra=patch.vertebra,
            probability=float(probabilities[looked_for]),
            said=classes[predicted],
            called=predicted == looked_for,
            outside=patch.outside(frame),
            finding=classes[looked_for],
            **_place_map(answers, looked_for, frame, patch),
        )
        if self.panels == "none" or (self.panels == "called" and not one.called):
            return one
        facing = find_facing(patch.volume.affine)
        cube = turn_cube(planes, Frame(frame.shape, frame.to_source, patch.volume.spacing_mm), facing, self.view)
        units: tuple[PanelUnit, ...] = ()
        if self.units is not None and activations is not None:
            units = self.units.strongest(activations, facing)
            self.units.write_on_ct(activations, units, patch, frame, folder / "activations")
        voxel = ", ".join(f"{x - 0.5:.1f}" for x in patch.vertebra.centre)
        facts = [f"CT voxel {voxel}", f"centre {placed.centres}"]
        if one.outside >= LEAST_OUTSIDE:
            facts.append(f"{one.outside:.0%} of what it saw lies outside the CT")
        without = "" if units else "No unit is above its threshold here."
        panel = CasePanel(
            title=f"{given.name}  {patch.vertebra.level}",
            said=one.said,
            probability=one.probability,
            looked_for=classes[looked_for],
            called=one.called,
            cube=cube,
            around=build_whole_cube(patch.volume),
            units=units,
            facts=tuple(facts),
            without_units=without if self.units else "A dissection (--dissection DIR) adds the units that respond.",
        )
        return ReadVertebra(**{**vars(one), "panel": panel})

    def _look(self, planes: NDArray[np.float32]) -> tuple[Answers, NDArray[np.float64] | None]:
        """What the network says of one patch, by itself; with the activations of its units where they are asked for."""
        return (self.network(planes[None]), None) if self.units is None else self.units.answer(planes[None])


def _place_map(answers: Answers, index: int, frame: Frame, patch: CutPatch) -> dict[str, Any]:
    """The class map of a patch and its affine; nothing of a network without maps."""
    if answers.maps is None:
        return {}
    cells = answers.maps[0, index].astype(np.float32)
    window = None if answers.window is None else answers.window[0].astype(np.float64)
    place = frame.resize(cells.shape) if window is None else frame.within(window, cells.shape)
    return {"map": cells, "map_affine": compute_affine_within(place, patch.volume.affine)}


def _format_row(given: CtInput, placed: PlacedCt, one: ReadVertebra, folder: Path) -> list[str]:
    """One row of predictions.csv; voxels count from 0 at the first voxel's centre."""
    world = placed.ct.world_of(one.vertebra.centre)
    voxel = np.asarray(one.vertebra.centre) - 0.5
    panel = "" if one.panel is None else f"{folder.name}/panels/{one.vertebra.level}.png"
    return [
        str(given.path),
        one.vertebra.level,
        str(one.vertebra.label),
        one.said,
        repr(one.probability),
        *(f"{x:.2f}" for x in voxel),
        *(f"{x:.2f}" for x in world),
        placed.centres,
        f"{one.outside:.3f}",
        panel,
    ]
