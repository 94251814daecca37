"""Predict what a person points at: files or folders, DICOM or pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError, SightlineError, UnreadableFile
from sightline.inference.boxes import choose_top_finding, list_finding_classes, read_boxes_on_pictures
from sightline.inference.file_result import DicomWish, FileResult
from sightline.inference.gate.features import name_scope
from sightline.inference.gate.scope import ScopeChecks, read_scope
from sightline.inference.network_output import Answers, Ask, Maps, NetworkOutput, RunFacts, collect_facts
from sightline.inference.results.csv_table import open_csv_table
from sightline.inference.results.earlier import EarlierPrediction
from sightline.inference.results.found_files import TABLES, FoundFiles
from sightline.inference.results.journal import Journal, PredictedFile, build_stamp, fingerprint_input
from sightline.inference.results.studies import StudyNames
from sightline.io.dicom.patient import read_named_patient
from sightline.io.dicom.radiograph import open_dataset, require_radiograph
from sightline.io.files import find_linked_folders, hold_folder, make_unique_name, require_place_for_results
from sightline.io.image import find_images, is_ct_input, read_image
from sightline.io.picture import SOFTWARE, Picture, require_content
from sightline.io.progress import show_progress
from sightline.metrics.predictions import Predictions
from sightline.structures.frame import Frame
from sightline.structures.regions import ScoredBox, build_scored_boxes

if TYPE_CHECKING:
    from sightline.inference.results.dicom_studies import StudyWriter
    from sightline.training.engine import Engine
    from sightline.training.run import Run

FINDING = "finding"
"""Class of the boxes of a network that only locates."""

_CORNERS = ("row_start", "column_start", "row_stop", "column_stop")


def predict_files(
    run: Run,
    inputs: Sequence[Path],
    out: Path,
    engine: Engine | None = None,
    study_table: Path | None = None,
    dicom: DicomWish | None = None,
) -> tuple[int, int]:
    """Predict radiographs with torch: what `read_files` writes.

    Args:
        run: a finished run.
        inputs: files and folders.
        out: folder to write.
        engine: device.
        study_table: csv that says which file belongs to which study.
        dicom: which DICOM objects to write, too.

    Raises:
        RunError: the run is not finished, is trained on experts' crops, or an input does not exist.
    """
    from sightline.inference.predict import TorchNetwork
    from sightline.training.engine import Engine

    engine = engine or Engine()
    facts = collect_facts(run)
    facts.picture_view()
    network = TorchNetwork(run, engine.find_device())
    return read_files(facts, network, inputs, out, quiet=engine.quiet, study_table=study_table, dicom=dicom)


def read_files(
    facts: RunFacts,
    ask: Ask,
    inputs: Sequence[Path],
    out: Path,
    *,
    quiet: bool = False,
    study_table: Path | None = None,
    dicom: DicomWish | None = None,
) -> tuple[int, int]:
    """Write predictions.csv, studies.csv, boxes.csv, boxes.coco.json, rejects.csv and overlays/NAME.png; how many were
    predicted and rejected.

    Views of a study are put together by a table of `file` and `study`, else by the UID in their DICOM headers.

    Boxes are those of the most probable finding, never of the normal class, whatever is predicted: their scores, the
    probability of the class times the box's share of its map's maximum, say what they are worth. They are drawn where
    that finding is what the network predicts.

    Of an earlier prediction into the same folder nothing is left that no row names.

    A file that cannot be a radiograph is listed with reason and remedy, and the rest goes on. Rows are written as
    they are made: what was predicted before an interruption is kept.

    Args:
        facts: of a finished run.
        ask: its network.
        inputs: files and folders.
        out: folder to write.
        quiet: no progress.
        study_table: csv that says which file belongs to which study.
        dicom: which DICOM objects to write, too, into `dicom/`, a folder a study; pictures that are no DICOM files are
            then rejected.

    Raises:
        RunError: the run reads no whole radiographs, or an input does not exist.
        LayoutError: the folder lies in a cohort, or the table of studies would be written over.
    """
    facts.picture_view()
    require_place_for_results(out, TABLES, (*inputs, study_table))
    files = list_radiograph_files(inputs, out)
    studies = StudyNames(study_table, files)
    with hold_folder(out):
        return _read_into(out, facts, ask, files, studies, dicom, quiet=quiet)


def _read_into(
    out: Path,
    facts: RunFacts,
    ask: Ask,
    files: Sequence[Path],
    studies: StudyNames,
    dicom: DicomWish | None,
    *,
    quiet: bool,
) -> tuple[int, int]:
    """The same, in a folder that no other command writes into."""
    earlier, drawn = EarlierPrediction(out, files), set[str]()
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    found = FoundFiles(files)
    writer = None if dicom is None else _build_study_writer(facts, files, out, dicom)
    # DICOM objects need the whole of what the network said, which no journal keeps
    journal = None if writer is not None else Journal(out, build_stamp(facts), PredictedFile.from_json)
    if writer is not None:
        writer.begin()
    reader = _FileReader(facts, ask, out, writer, journal, read_scope(facts.folder))
    earlier.begin([] if journal is None else [known.overlay for _, known in journal.known.values()])
    probabilities = [f"p({name})" for name in facts.classes]
    best = ("box_score", *(f"box_{name}" for name in _CORNERS))
    head = ("file", "predicted", *probabilities, "look_row", "look_column", *best, "overlay", "scope", "scope_score")
    done = False
    try:
        with (
            open_csv_table(out / "predictions.csv", head) as write_prediction,
            open_csv_table(out / "boxes.csv", ("file", "label", "score", *_CORNERS)) as write_box,
            show_progress("predict", len(files), quiet=quiet) as advance,
        ):
            for path in files:
                try:
                    predicted = reader.read(path)
                except RunError:
                    raise
                except SightlineError as error:
                    found.reject(path, error)
                else:
                    write_prediction(predicted.row)
                    for box in predicted.boxes:
                        write_box([str(path), box.label, repr(box.score), *(f"{x:.2f}" for x in box.corners)])
                    found.add(path, predicted, studies)
                    drawn.add(predicted.overlay)
                advance(1)
        done = True
    finally:
        if journal is not None:
            journal.close(done=done)
    labels = [facts.classes[k] for k in list_finding_classes(facts.classes)] if facts.classifies else [FINDING]
    found.write_tables(out, facts, studies, labels)
    if writer is not None:
        writer.end()
    earlier.end(drawn, [] if writer is None else writer.written, studies=facts.classifies)
    return len(found.pictures), len(found.rejects)


@dataclass
class _FileReader:
    """Files through the network, one after the other; what an interrupted command said already is not asked again."""

    facts: RunFacts
    ask: Ask
    out: Path
    writer: StudyWriter | None
    journal: Journal[PredictedFile] | None
    checks: ScopeChecks

    def __post_init__(self) -> None:
        """Names of overlays that an interrupted command drew are taken."""
        self._names: set[str] = set()
        self._identities: dict[str, tuple[Path, str]] = {}
        for _, earlier in () if self.journal is None else self.journal.known.values():
            make_unique_name(Path(earlier.overlay).stem, self._names)

    def read(self, path: Path) -> PredictedFile:
        """What is known of a file, from the journal or anew.

        Raises:
            UnreadableFile: as `read_radiograph`; the study's DICOM objects are then made without the file.
        """
        mark = "" if self.journal is None else fingerprint_input(path)
        known = None if self.journal is None else self.journal.find(str(path), mark)
        if known is not None and not (known.overlay and not (self.out / known.overlay).is_file()):
            self._require_one_identity(path, known.sop_uid, known.pixels)
            return known
        try:
            predicted = self._predict(path)
        except RunError:
            raise
        except SightlineError:
            if self.writer is not None:
                self.writer.leave_out(path)
            raise
        if self.journal is not None:
            self.journal.add(str(path), mark, predicted.to_json())
        return predicted

    def _predict(self, path: Path) -> PredictedFile:
        """One file through the network, its overlay drawn, its DICOM objects made where they are asked for."""
        source = None if self.writer is None else self.writer.source(path)
        picture = read_radiograph(path)
        pixels = hashlib.blake2b(np.ascontiguousarray(picture.pixels).data, digest_size=12).hexdigest()
        self._require_one_identity(path, picture.facts.get("sop_uid", ""), pixels)
        planes, frame = self.facts.picture_view().show(picture.pixels, picture.frame)
        reading = read_picture(self.facts, self.ask, planes, picture.frame, frame)
        overlay = f"overlays/{make_unique_name(path.stem, self._names)}.png"
        drawn = _draw_overlay(self.facts, reading)
        if drawn is None:
            overlay = ""
        else:
            (self.out / overlay).write_bytes(drawn)
        if self.writer is not None and source is not None:
            self.writer.add(path, source, picture, reading)
        score = self.checks.score(picture, reading.features, reading.energy)
        scope = [name_scope(score), "" if score is None else f"{score:.4f}"]
        return PredictedFile(
            row=(*_format_row(self.facts, path, reading, overlay), *scope),
            boxes=reading.boxes,
            shape=(picture.frame.shape[0], picture.frame.shape[1]),
            study_uid=picture.facts.get("study_uid", ""),
            probabilities=reading.probabilities,
            energy=reading.energy,
            overlay=overlay,
            remark=picture.facts.get("remark", ""),
            patient=_read_patient(path) if "study_uid" in picture.facts else "",
            pixels=pixels,
            sop_uid=picture.facts.get("sop_uid", ""),
            uncalibrated=reading.uncalibrated,
        )

    def _require_one_identity(self, path: Path, sop_uid: str, pixels: str) -> None:
        """Refuse other pixels under the SOPInstanceUID of an earlier file: a result could not say whose it is."""
        first, earlier = self._identities.setdefault(sop_uid, (path, pixels)) if sop_uid else (path, pixels)
        if earlier != pixels:
            raise UnreadableFile(
                f"{path}: the same SOPInstanceUID as {first}, and other pixels; the first was kept.",
                "Leave one of the two out, or give different images different identities.",
            )


def _read_patient(path: Path) -> str:
    """Digests of the patient's id in a DICOM header, or without one of name and birth, and of who issued the id, where
    that is stated; empty where no patient is.
    """
    patient = read_named_patient(open_dataset(path, pixels=False))
    named = patient.id or (patient.person or "").strip("\0")
    words = [named, patient.issuer] if named else []
    return " ".join(hashlib.blake2b(word.encode(), digest_size=6).hexdigest() for word in words if word)


def read_picture(facts: RunFacts, ask: Ask, planes: NDArray[np.float32], source: Frame, view: Frame) -> FileResult:
    """What a run's network says of one picture.

    Args:
        facts: of a finished run.
        ask: its network.
        planes: float32 [c, h, w], the picture as the network sees it.
        source: frame of the picture.
        view: frame of what the network sees.

    Raises:
        RunError: the network says something that is no number.
    """
    answers = ask(planes[None])
    if not np.isfinite(answers.logits).all():
        raise RunError("The network's logits are not finite.", "The weights are damaged.")
    output = _wrap_single_output(facts, answers)
    probabilities = output.predictions.probabilities[0]
    # what only locates names no class: the finding's map is the one to show
    named, uncalibrated = choose_top_finding(facts.classes, probabilities), probabilities
    predicted = int(probabilities.argmax()) if facts.classifies else named
    boxes: tuple[ScoredBox, ...] = ()
    if output.boxes is not None or output.maps is not None:
        ((corners, scores),) = read_boxes_on_pictures(output, [source], [view], facts.boxes)
        if facts.classifies:
            boxes = build_scored_boxes(facts.classes[named], corners, scores)
        else:
            # no probability was learnt: what is left of the score is the box's share of its map
            boxes = build_scored_boxes(FINDING, corners, np.asarray(scores) / probabilities[named])
    record = facts.calibration
    if record is not None:
        # boxes keep the scores that were said; what is printed and called is what validation says is meant
        probabilities = record.probabilities(probabilities[None], independent=facts.independent)[0]
        predicted = int(probabilities.argmax()) if facts.classifies else predicted
    maps, window = answers.maps, answers.window
    return FileResult(
        pixels=planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1),
        frame=view,
        probabilities=probabilities if facts.classifies else None,
        predicted=predicted,
        boxes=boxes,
        map=None if maps is None else maps[0, predicted].astype(np.float64),
        window=None if window is None else window[0].astype(np.float64),
        named=named,
        named_map=None if maps is None else maps[0, named].astype(np.float64),
        energy=float(answers.energies[0]),
        shape=(source.shape[0], source.shape[1]),
        features=None if answers.features is None else answers.features[0],
        uncalibrated=uncalibrated if facts.classifies else None,
    )


def _build_study_writer(facts: RunFacts, files: Sequence[Path], out: Path, dicom: DicomWish) -> StudyWriter:
    # highdicom is an extra and takes a while to import: only who wants its objects needs it
    wanted = dicom.choose_objects()
    from sightline.inference.dicom_results import collect_run_words
    from sightline.inference.results.dicom_studies import StudyWriter

    return StudyWriter(collect_run_words(facts, dicom.codes), files, out, wanted)


def _wrap_single_output(facts: RunFacts, answers: Answers) -> NetworkOutput:
    """Answers to one picture as the output for a set of one."""
    one = ("",)
    probabilities = answers.probabilities(independent=facts.independent)
    nobody = np.zeros(1, dtype=np.int64)
    predictions = Predictions(facts.classes, one, one, one, nobody, probabilities, independent=facts.independent)
    maps = None
    if answers.maps is not None:
        every = np.arange(len(facts.classes), dtype=np.int64)[None]
        attention = answers.extras.get("attention", answers.maps)
        window = None if answers.window is None else answers.window.astype(np.float64)
        maps = Maps(one, every, answers.maps, attention, window)
    box = answers.extras.get("box")
    return NetworkOutput(predictions, maps, None if box is None else box.astype(np.float64))


def _format_row(facts: RunFacts, path: Path, reading: FileResult, overlay: str) -> list[str]:
    """One row of predictions.csv; what is not known is empty."""
    if reading.probabilities is None:
        answer = [""] * (1 + len(facts.classes))
    else:
        answer = [facts.classes[reading.predicted], *(repr(float(p)) for p in reading.probabilities)]
    look = ["", ""] if reading.look is None else [f"{x:.1f}" for x in reading.look]
    box = [""] * 5
    if reading.boxes:
        box = [repr(reading.boxes[0].score), *(f"{x:.2f}" for x in reading.boxes[0].corners)]
    return [str(path), *answer, *look, *box, overlay]


def _draw_overlay(facts: RunFacts, reading: FileResult) -> bytes | None:
    """The overlay, or None from a network that shows nothing."""
    found = reading.boxes
    if reading.probabilities is None:
        caption = "where the finding would be; whether there is one, this network does not say"
    else:
        name = facts.classes[reading.predicted]
        caption = f"{name} {reading.probabilities[reading.predicted]:.0%}"
        found = tuple(box for box in found if box.label == name)
    if reading.map is None and reading.window is None and not reading.boxes:
        return None
    from sightline.plots.contact_sheet import draw_overlay

    return draw_overlay(reading.pixels, reading.map, (), reading.frame, caption, found=found, window=reading.window)


def list_radiograph_files(inputs: Sequence[Path], out: Path) -> list[Path]:
    """The files of a command, each once, in order; what an earlier call drew into `out` is none of them.

    Raises:
        RunError: an input does not exist or is a CT, or there is no file at all.
    """
    absent = [str(path) for path in inputs if not path.exists()]
    if absent:
        raise RunError(f"{', '.join(absent)} does not exist.", "Check the path.")
    cts = [str(path) for path in inputs if is_ct_input(path)]
    if cts:
        raise RunError(
            f"{', '.join(cts)} is a CT; this run was trained on radiographs.",
            "Give radiographs, or a run that was trained on patches of CTs.",
        )
    # realpath bears links that lead round in circles
    ours = [(out / name).resolve() for name in ("overlays", "maps")]
    found = (file for path in inputs for file in (*find_images(path), *find_linked_folders(path)))
    files = list(dict.fromkeys(file for file in found if not set(ours) & set(Path(os.path.realpath(file)).parents)))
    if not files:
        raise RunError("There is no file in what was given.", "Point at pictures, DICOM files or folders of them.")
    return files


def read_radiograph(path: Path) -> Picture:
    """A picture that can be a radiograph.

    Raises:
        UnreadableFile: as `read_image`; another modality, one value throughout, or a page that was drawn here: an
            overlay of an earlier prediction has a caption and colours that a network must not judge.
    """
    picture = read_image(path)
    require_radiograph(picture, path)
    require_content(picture, path)
    if picture.facts.get("software") == SOFTWARE:
        raise UnreadableFile(
            f"{path}: drawn by sightline (an overlay or a panel), not a radiograph.", "Give the radiograph itself."
        )
    return picture
