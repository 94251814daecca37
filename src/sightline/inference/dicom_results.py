"""From what a network says of radiographs to DICOM objects: threshold, mask, words; and the writing of whole studies.

Needs no torch: a node that judges with onnxruntime hands over the same readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sightline import __version__
from sightline.inference.network_output import RunFacts, collect_facts
from sightline.io.dicom_results.codes import CodeTable, read_codes
from sightline.io.dicom_results.header import SourceImage
from sightline.io.dicom_results.objects import ObjectOptions, make_objects, write_objects
from sightline.io.dicom_results.results import (
    FindingResult,
    FoundBox,
    FoundMap,
    FoundRegion,
    ImageResult,
    Maker,
    StudyResult,
)
from sightline.io.picture import Picture, resample_to_pixels
from sightline.plots.result_picture import draw_result
from sightline.structures.case import is_normal
from sightline.structures.joined_views import JoinViews, find_normal_class, find_showing_views, join_answers

if TYPE_CHECKING:
    from sightline.explainers.localisation.protocols import MapBoxes
    from sightline.inference.file_result import FileResult
    from sightline.metrics.calibration.record import CalibrationRecord
    from sightline.training.run import Run

FOLDER = "dicom"
CODES = "codes.yaml"
NOT_DICOM = "not a DICOM file, so no result can refer to it"
# where no image says when it was made; a time that is made up must not look like one
UNDATED = datetime(2000, 1, 1)
# grey levels that a map is scaled to, as `MapBoxes` counts them
LEVELS = 255.0
_TIMES = (("ContentDate", "ContentTime"), ("AcquisitionDate", "AcquisitionTime"), ("StudyDate", "StudyTime"))


@dataclass(frozen=True)
class ResultWords:
    """What of a run stands in its results.

    Attributes:
        classes: names in the order of the probabilities.
        maker: what made them.
        boxes: how boxes and regions are read off maps.
        independent: each class is judged by itself.
        finding: class of what a network finds that names no class.
        codes: what classes and sites are called.
        join_views: how the answers of a study's views are joined (`Recipe.join_views`).
        calibration: of the joined answers, or None.
    """

    classes: tuple[str, ...]
    maker: Maker
    boxes: MapBoxes
    independent: bool = False
    finding: str = "finding"
    codes: CodeTable = field(default_factory=CodeTable)
    join_views: JoinViews = "none"
    calibration: CalibrationRecord | None = None

    @property
    def findings(self) -> tuple[int, ...]:
        """Positions of the classes that are findings: a normal one is the absence of all."""
        return tuple(k for k, name in enumerate(self.classes) if not is_normal(name)) or tuple(range(len(self.classes)))

    @property
    def unknown(self) -> tuple[str, ...]:
        """Findings that get a private code, which nobody else understands."""
        return self.codes.unknown(tuple(self.classes[k] for k in self.findings))


def collect_run_words(run: Run | RunFacts, codes: Path | None = None, *, engine: str = "") -> ResultWords:
    """What a run's results say of the run.

    Args:
        run: finished.
        codes: a `codes.yaml`; without, that of the run folder where there is one.
        engine: what computed, torch or onnxruntime; empty: what the facts say.
    """
    import hashlib

    facts = run if isinstance(run, RunFacts) else collect_facts(run)
    path = codes if codes is not None else facts.folder / CODES
    table = read_codes(path) if codes is not None or path.is_file() else CodeTable()
    weights = facts.weights_digest()
    rule = "a class is present from a probability of 0.5" if facts.independent else "the most probable class"
    parameters: tuple[str, ...] = (
        f"operating point: {rule}",
        f"engine={engine or facts.engine}",
        f"cohort={facts.cohort['fingerprint']}",
    )
    if facts.calibration is not None:
        # another calibration is another answer, and must not have the UIDs of the old one
        calibration_digest = hashlib.sha256(facts.calibration.notation().encode()).hexdigest()[:12]
        parameters += (f"calibrated on validation: {calibration_digest}",)
    if facts.join_views != "none":
        parameters += (f"one answer for a study, joined from its views: {facts.join_views}",)
    maker = Maker(facts.title or "sightline", facts.identity, weights, __version__, parameters)
    return ResultWords(
        facts.classes, maker, facts.boxes, facts.independent, codes=table, join_views=facts.join_views,
        calibration=facts.calibration,
    )  # fmt: skip


def join_readings(words: ResultWords, readings: Sequence[FileResult], pixels: Sequence[str]) -> list[FileResult]:
    """The readings of a study's views with the study's answer, where the run joins views; else as they are.

    What a view says by itself stays as `alone`; boxes and maps stay those of the view, and `shows` says on which of
    them the finding is to be marked.

    Args:
        words: of the run.
        readings: of the views of one study.
        pixels: digests of their pixels: a picture that came twice counts once.
    """
    if words.join_views == "none" or not readings or any(one.uncalibrated is None for one in readings):
        return list(readings)
    alone = np.stack([one.uncalibrated for one in readings if one.uncalibrated is not None])
    distinct = [pixels.index(digest) for digest in dict.fromkeys(pixels)]
    one_study = [""] * len(readings)
    joined = join_answers(
        alone[distinct], one_study[: len(distinct)], words.join_views, find_normal_class(words.classes)
    )
    showing = find_showing_views(alone, np.repeat(joined[:1], len(readings), axis=0), one_study)
    answer = joined[0]
    if words.calibration is not None:
        answer = words.calibration.probabilities(joined[:1], independent=words.independent)[0]
    return [
        replace(
            one, probabilities=answer, predicted=int(answer.argmax()), alone=one.uncalibrated, shows=bool(there),
        )
        for one, there in zip(readings, showing, strict=True)
    ]  # fmt: skip


def build_image_result(
    words: ResultWords, source: SourceImage, picture: Picture, reading: FileResult, *, draw: bool = True
) -> ImageResult:
    """What a network says of one image, as it stands in DICOM.

    Marks and regions are those of the most probable finding, and only where the run calls it present (a network that
    only locates says nothing of presence, and its marks stand). The map is that finding's in any case.

    Args:
        words: of the run.
        source: the image.
        picture: the image as it is shown.
        reading: what the network says of it.
        draw: the picture with marks burnt in, too.
    """
    findings, called = _list_findings(words, reading)
    called = called and reading.shows
    label = words.classes[reading.named] if reading.probabilities is not None else words.finding
    boxes = (
        tuple(FoundBox(label, box.corners, min(max(box.score, 0.0), 1.0)) for box in reading.boxes) if called else ()
    )
    found: FoundMap | None = None
    regions: tuple[FoundRegion, ...] = ()
    if reading.named_map is not None:
        cells = (reading.named_map.shape[0], reading.named_map.shape[1])
        place = reading.frame.resize(cells) if reading.window is None else reading.frame.within(reading.window, cells)
        found = FoundMap(label, reading.named_map.astype(np.float32), place.to_source)
        if called:
            mask = threshold_map(found, words.boxes, source.shape)
            shares = reading.probabilities if reading.alone is None else reading.alone
            score = None if shares is None else float(shares[reading.named])
            regions = (FoundRegion(label, mask, score),) if mask.any() else ()
    by_itself = _describe_view(words, source, reading)
    drawn = _draw_result(words, picture, findings, boxes, found if reading.shows else None, by_itself) if draw else None
    return ImageResult(source, findings, boxes, regions, found, drawn, by_itself)


@dataclass(frozen=True, eq=False)
class JudgedView:
    """One image of a study and what a network says of it.

    Attributes:
        source: the image.
        picture: as it is shown.
        reading: what the network says.
    """

    source: SourceImage
    picture: Picture
    reading: FileResult


def build_study_results(words: ResultWords, views: Sequence[JudgedView], *, draw: bool = True) -> list[ImageResult]:
    """What a network says of the images of one study: their joined answer where the run joins views.

    Args:
        words: of the run.
        views: all images of the study that were judged; where the run joins nothing, any of them.
        draw: the pictures with marks burnt in, too.
    """
    joined = join_readings(words, [one.reading for one in views], [one.source.pixels_sha256 for one in views])
    return [
        build_image_result(words, one.source, one.picture, reading, draw=draw)
        for one, reading in zip(views, joined, strict=True)
    ]


def threshold_map(found: FoundMap, protocol: MapBoxes, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of an image on which a map is above the run's level: what its boxes are drawn around.

    Args:
        found: the map.
        protocol: scale and level.
        shape: of the image.
    """
    resampled, covered = resample_to_pixels(found.values, found.to_source, shape)
    low, high = float(found.values.min()), float(found.values.max())
    least = low if protocol.scale == "range" else 0.0
    if not high > least:
        return np.zeros(shape, dtype=bool)
    level = (resampled - least) * (LEVELS / (high - least))
    inside = level > protocol.low
    if protocol.keep == "band":
        inside &= level <= protocol.high
    return np.asarray(inside & covered)


def find_study_time(sources: Sequence[SourceImage]) -> datetime:
    """The time of the newest image of a study: what a result is dated with where nobody says when it was asked for.

    The same result must have the same bytes, so the clock on the wall cannot be asked.
    """
    found = [time for source in sources if (time := _parse_time(source)) is not None]
    return max(found, default=UNDATED)


def write_dicom_results(
    words: ResultWords,
    images: Sequence[ImageResult],
    folder: Path,
    wanted: ObjectOptions | None = None,
    *,
    made: datetime | None = None,
    predecessors: tuple[tuple[str, str, str, str], ...] = (),
) -> list[Path]:
    """Write the objects of one study; the same result again is the same files, byte for byte.

    Args:
        words: of the run.
        images: of one study.
        folder: to write.
        wanted: which objects; without, all.
        made: time that is written, e.g. of the receipt; without, that of the newest image.
        predecessors: earlier reports that these follow.

    Raises:
        UnreadableFile: images of several studies or patients.
    """
    time = made or find_study_time([image.source for image in images])
    result = StudyResult(tuple(images), words.maker, time, words.codes, predecessors)
    return write_objects(make_objects(result, wanted or ObjectOptions()), folder)


def _list_findings(words: ResultWords, reading: FileResult) -> tuple[tuple[FindingResult, ...], bool]:
    """What is said of each finding, and whether the most probable one is called (or cannot be)."""
    if reading.probabilities is None:
        return (FindingResult(words.finding, None, None),), True
    findings, called = [], False
    for k in words.findings:
        share = float(np.clip(reading.probabilities[k], 0.0, 1.0))
        present = share >= 0.5 if words.independent else k == reading.predicted
        findings.append(FindingResult(words.classes[k], share, bool(present)))
        called = called or (bool(present) and k == reading.named)
    return tuple(findings), called


def _describe_view(words: ResultWords, source: SourceImage, reading: FileResult) -> tuple[str, ...]:
    """What a view says by itself where the answer is its study's; else nothing."""
    if reading.alone is None:
        return ()
    shares = ", ".join(f"{words.classes[k]} {reading.alone[k]:.0%}" for k in words.findings)
    return (
        f"the answer is the study's, joined from its views ({words.join_views})",
        f"the image ...{source.uid[-8:]} by itself: {shares}",
    )


def _draw_result(
    words: ResultWords,
    picture: Picture,
    findings: Sequence[FindingResult],
    boxes: Sequence[FoundBox],
    found: FoundMap | None,
    by_itself: Sequence[str],
) -> NDArray[np.uint8]:
    shares = [f"{one.label} {one.probability:.0%}" for one in findings if one.probability is not None]
    called = [one.label for one in findings if one.present]
    if not shares:
        first = "Where the finding would be; whether there is one, this network does not say."
    else:
        first = f"Called: {', '.join(called) if called else 'no finding'}. {', '.join(shares)}."
    maker = words.maker
    second = [f"{one[0].upper()}{one[1:]}." for one in by_itself]
    second.append(f"{maker.model}, run {maker.run}, sightline {maker.version}")
    heat: Any = found.values if found is not None and (called or not shares) else None
    return draw_result(
        picture.pixels,
        [first, *second],
        heat=heat,
        to_source=None if found is None else found.to_source,
        boxes=[(box.corners, box.label if box.score is None else f"{box.label} {box.score:.2f}") for box in boxes],
    )


def _parse_time(source: SourceImage) -> datetime | None:
    for day, hour in _TIMES:
        date = str(source.header.get(day) or "").strip()
        time = str(source.header.get(hour) or "").strip().partition(".")[0]
        try:
            return datetime.strptime(date + time.ljust(6, "0")[:6], "%Y%m%d%H%M%S")
        except ValueError:
            continue
    return None
