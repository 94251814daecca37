"""What the child process does with a job: the gate's picture check, the run's network, and results as DICOM objects.

`python -m sightline.web.node.jobs.judge MEMORY CPU_SECONDS RUNS` is started by the worker; nobody types it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from sightline.errors import SightlineError
from sightline.inference.dicom_results import (
    JudgedView,
    ResultWords,
    build_image_result,
    collect_run_words,
    join_readings,
    write_dicom_results,
)
from sightline.inference.file_result import FileResult
from sightline.inference.gate.features import FeatureLimits, read_feature_limits, score_features
from sightline.inference.gate.gate_file import Gate, read_gate
from sightline.inference.gate.header import normalise_body_part, normalise_view, read_header_facts
from sightline.inference.gate.layout import LayoutLimits, check_layout, read_layout_limits
from sightline.inference.gate.picture import check_picture, measure_picture
from sightline.inference.network_output import Ask, RunFacts
from sightline.inference.onnx.exported_run import open_export
from sightline.inference.onnx.model_file import find_export
from sightline.inference.radiographs import read_picture, read_radiograph
from sightline.io.dicom.radiograph import open_image, translate_parser_errors
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.objects import ObjectOptions
from sightline.io.dicom_results.results import ImageResult, Kind
from sightline.web.node.jobs.child import Answer, Opened, Request, main

# runs that stay in memory
MOST_OPEN = 4
DX_CLASS = "1.2.840.10008.5.1.4.1.1.1.1"
REHEARSED: tuple[Kind, ...] = ("findings", "marks", "regions", "states", "picture")


@dataclass(frozen=True)
class LoadedRun:
    """A run that is ready to judge: opened once, kept for all jobs of this process."""

    facts: RunFacts
    gate: Gate
    network: Ask
    words: ResultWords
    features: FeatureLimits | None
    layout: LayoutLimits | None


@dataclass
class JudgedStudy:
    """What a job gathers, image by image; views of a run that joins them wait in `views` for each other."""

    views: dict[str, JudgedView] = field(default_factory=dict)
    results: list[ImageResult] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    readings: dict[str, Mapping[str, float | str]] = field(default_factory=dict)


@lru_cache(maxsize=MOST_OPEN)
def open_judging(folder: Path, codes: Path | None, engine: str) -> LoadedRun:
    """Open a run for judging radiographs.

    Args:
        folder: of the run, or of what was exported.
        codes: codes.yaml, or None.
        engine: `torch`, `onnx`, or `auto`: onnxruntime where the run has been exported, and then torch is not even
            imported: it takes seconds and hundreds of megabytes.

    Raises:
        RunError: not finished, changed since its training, without gate, or none for radiographs.
    """
    gate = read_gate(folder)
    if engine == "onnx" or (engine == "auto" and find_export(folder) is not None):
        exported = open_export(folder)
        facts: RunFacts = exported.facts
        network: Ask = exported.network
    else:
        facts, network = _open_with_torch(folder)
    facts.picture_view()
    return LoadedRun(
        facts,
        gate,
        network,
        collect_run_words(facts, codes),
        read_feature_limits(gate.features),
        read_layout_limits(gate.layout),
    )


def _open_with_torch(folder: Path) -> tuple[RunFacts, Ask]:
    from sightline.inference.network_output import collect_facts
    from sightline.inference.predict import TorchNetwork
    from sightline.papers.catalogue import CATALOGUE
    from sightline.training.run import open_run

    run = open_run(folder, CATALOGUE)
    return collect_facts(run), TorchNetwork(run)


def open_runs(runs: Sequence[Opened]) -> None:
    """Open runs and let each judge an image made up here, into a folder that is thrown away.

    The first image costs seconds that no other does: of the network's first run, of tables that highdicom reads.
    """
    for run, codes, engine in runs[:MOST_OPEN]:
        with contextlib.suppress(SightlineError, OSError, MemoryError), tempfile.TemporaryDirectory() as scratch:
            judging = open_judging(run, codes, engine)
            unchecked = replace(judging, gate=replace(judging.gate, picture={}), features=None, layout=None)
            file, study = Path(scratch) / "image.dcm", JudgedStudy()
            _draw_noise_image(judging.facts.picture_view().size).save_as(file, enforce_file_format=True)
            request = Request(run, engine, {}, (), REHEARSED, file.parent, 0.0, codes, ())
            _judge_image(unchecked, request, study, "", file)
            _join_study(unchecked, request, study)
            made = datetime.fromtimestamp(0)
            write_dicom_results(judging.words, study.results, request.out, ObjectOptions(kinds=REHEARSED), made=made)


def _draw_noise_image(side: int) -> FileDataset:
    """A DX that nobody took."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = DX_CLASS, "2.25.1"
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = (
        DX_CLASS, "2.25.1", "2.25.2", "2.25.3",
    )  # fmt: skip
    made.Modality, made.PatientID, made.PhotometricInterpretation = "DX", "nobody", "MONOCHROME2"
    made.Rows = made.Columns = side
    made.BitsAllocated = made.BitsStored = 16
    made.SamplesPerPixel, made.HighBit, made.PixelRepresentation = 1, 15, 0
    made.PixelData = np.random.default_rng(0).integers(0, 4096, (side, side), np.uint16).tobytes()
    return made


def judge_study(request: Request) -> Answer:
    """Judge the images of one study.

    Raises:
        SightlineError: the run cannot be used; images that cannot be judged are refused by name instead.
    """
    judging = open_judging(request.run, request.codes, request.engine)
    study = JudgedStudy()
    for sha256, file in request.images.items():
        _judge_image(judging, request, study, sha256, file)
    _join_study(judging, request, study)
    if not study.results:
        return Answer((), tuple(study.refused), study.readings)
    notes = [f"not analysed: {one['reason']}" for one in (*request.left_out, *study.refused)]
    first, *others = study.results
    images = [_add_notes(first, notes), *others]
    kinds: tuple[Any, ...] = request.objects
    # local time, as every other date of a study is
    made = datetime.fromtimestamp(int(request.received))
    wanted = ObjectOptions(kinds=kinds)
    paths = write_dicom_results(judging.words, images, request.out, wanted, made=made, predecessors=request.predecessor)
    results = tuple((path, path.name.partition("_")[0]) for path in paths)
    return Answer(results, tuple(study.refused), study.readings)


def _judge_image(judging: LoadedRun, request: Request, study: JudgedStudy, sha256: str, file: Path) -> None:
    """One image through the checks and the network; what a check says is kept in `study`."""
    door = "picture"
    try:
        with translate_parser_errors(file):
            dataset = open_image(file, pixels=True)
            source = build_source_image(dataset, file)
            facts = read_header_facts(dataset)
        picture = read_radiograph(file)
        reason = check_picture(picture, judging.gate.picture, file)
        if not reason:
            reason, door = check_layout(picture, judging.layout), "layout"
    except SightlineError as error:
        reason = error.message.removeprefix(f"{file}: ")
    if reason:
        study.refused.append({"sha256": sha256, "door": door, "reason": reason})
        study.readings[sha256] = {"refused": door}
        return
    planes, frame = judging.facts.picture_view().show(picture.pixels, picture.frame)
    reading = read_picture(judging.facts, judging.network, planes, picture.frame, frame)
    score = score_features(judging.features, reading.features, reading.energy)
    if score is not None and score > 1.0:
        reason = f"the network sees in it what it never saw in its training (score {score:.2f}, at most 1)"
        study.refused.append({"sha256": sha256, "door": "features", "reason": reason})
        study.readings[sha256] = {"refused": "features"}
        return
    study.readings[sha256] = {**measure_picture(picture), **_collect_outputs(judging, reading), **_collect_words(facts)}
    view = JudgedView(source, picture, reading)
    if judging.words.join_views != "none":
        study.views[sha256] = view
    else:
        study.results.append(_build_result(judging, request, view))


def _join_study(judging: LoadedRun, request: Request, study: JudgedStudy) -> None:
    """Results of views that waited for each other: their study's answer, which monitoring is told of, too."""
    views = list(study.views.values())
    joined = join_readings(judging.words, [one.reading for one in views], [one.source.pixels_sha256 for one in views])
    for sha256, view, reading in zip(study.views, views, joined, strict=True):
        study.results.append(_build_result(judging, request, replace(view, reading=reading)))
        study.readings[sha256] = {**study.readings[sha256], **_collect_outputs(judging, reading)}


def _build_result(judging: LoadedRun, request: Request, view: JudgedView) -> ImageResult:
    draw = "picture" in request.objects
    result = build_image_result(judging.words, view.source, view.picture, view.reading, draw=draw)
    remark = view.picture.facts.get("remark")
    return _add_notes(result, [remark]) if remark else result


def _add_notes(result: ImageResult, notes: list[str]) -> ImageResult:
    return ImageResult(
        result.source,
        result.said,
        result.boxes,
        result.regions,
        result.map,
        result.picture,
        tuple(dict.fromkeys((*result.notes, *notes))),
    )


def _collect_outputs(judging: LoadedRun, reading: FileResult) -> dict[str, float | str]:
    """Probabilities and the class that is called, by the names that monitoring uses."""
    if reading.probabilities is None:
        return {}
    classes = judging.facts.classes
    found: dict[str, float | str] = {
        f"p({name})": float(p) for name, p in zip(classes, reading.probabilities, strict=True)
    }
    return found | {"predicted": classes[reading.predicted]}


def _collect_words(facts: Mapping[str, Any]) -> dict[str, float | str]:
    """Words of the header that name no person."""
    return {
        "refused": "no",
        "device": f"{facts['manufacturer']} {facts['device']}".strip()[:64],
        "body part": normalise_body_part(facts["body_part"]),
        "view position": normalise_view(facts["view"]),
    }


if __name__ == "__main__":
    main(judge_study, open_runs)
