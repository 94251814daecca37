"""Findings and marks as structured reports (TID 1500): two documents, because viewers differ in what they can show.

The findings report holds one group a finding and image with its probability, whether or not anything was marked. The
marks report holds only groups with coordinates: OHIF 3.13 shows nothing of a report in which any group has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from sightline.io.dicom_results.codes import (
    ABSENT,
    AI,
    BOUNDED_BY,
    CERTAINTY,
    COMMENT,
    PRESENCE,
    PRESENT,
    RADIOGRAPHY,
    TOMOGRAPHY,
    CodedConcept,
    CodeTable,
)
from sightline.io.dicom_results.header import SourceImage
from sightline.io.dicom_results.identity import MANUFACTURER, NOT_FOR_DIAGNOSIS, finish, make_uid, shorten
from sightline.io.dicom_results.plane import list_notes_of_plane
from sightline.io.dicom_results.regions import (
    build_code_sequence,
    describe_contributing_equipment,
    describe_equipment,
    make_tracking,
    number_labels,
)
from sightline.io.dicom_results.results import ImageResult, Maker, StudyResult

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
PERCENT = CodedConcept("%", "UCUM", "Percent")
# stand-ins that highdicom's image library needs where an image does not say them; taken out of the tree again
_STAND_INS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "PatientOrientation": (["L", "F"], ("111044", "111043")),
    "ImagerPixelSpacing": ([1.0, 1.0], ("111026", "111066")),
    "SliceThickness": (1.0, ("112225",)),
    "Modality": ("OT", ()),
}


def write_findings(result: StudyResult, words: Sequence[str], series: tuple[str, int, str], number: int = 1) -> Dataset:
    """The findings report of a study: a TID 1501 group a finding and image.

    Args:
        result: of images that say something.
        words: of the result, for UIDs.
        series: UID, number and description of the series.
        number: of the instance in its series.
    """
    groups, notes = [], []
    for image in result.images:
        placed = list_notes_of_plane(image.source) if image.regions or image.map is not None else ()
        notes += [f"{note}." for note in (*image.source.notes, *placed, *image.notes)]
        reference = hd.sr.SourceImageForMeasurementGroup(str(image.source.header.SOPClassUID), image.source.uid)
        for finding in image.said:
            # the same as of the finding's first box and region
            name, uid = make_tracking(finding.label, 1, (*words, image.source.uid))
            groups.append(
                hd.sr.MeasurementsAndQualitativeEvaluations(
                    tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=name),
                    finding_type=build_code_sequence(result.codes.finding(finding.label)),
                    algorithm_id=build_algorithm(result.maker),
                    finding_sites=_find_sites(image.source, result.codes),
                    measurements=None if finding.probability is None else [build_certainty(finding.probability)],
                    qualitative_evaluations=None if finding.present is None else [build_presence(finding.present)],
                    source_images=[reference],
                )
            )
    sources = [image.source for image in result.images]
    # images and run do not decide them: an image that came later and is not analysed makes another report
    remarks = sorted({note for image in result.images for note in image.notes})
    return write_report(
        sources, groups, result, ("findings", *words, *remarks), series, number=number,
        notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def write_marks_report(
    result: StudyResult, words: Sequence[str], series: tuple[str, int, str], number: int = 1
) -> Dataset:
    """The marks report of a study: a TID 1410 group a box.

    Args:
        result: of images of which at least one has a box.
        words: of the result, for UIDs.
        series: UID, number and description of the series.
        number: of the instance in its series.
    """
    groups = [group for image in result.images for group in _build_boxes(image, result, words)]
    sources = [image.source for image in result.images if image.boxes]
    return write_report(sources, groups, result, ("marks", *words), series, number=number)


def _build_boxes(image: ImageResult, result: StudyResult, words: Sequence[str]) -> list[Any]:
    groups = []
    for n, box in zip(number_labels([box.label for box in image.boxes]), image.boxes, strict=True):
        top, left, bottom, right = box.corners
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
        name, uid = make_tracking(box.label, n, (*words, image.source.uid))
        groups.append(
            hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=name),
                referenced_region=build_image_region("POLYLINE", corners, image.source),
                finding_type=build_code_sequence(result.codes.finding(box.label)),
                algorithm_id=build_algorithm(result.maker),
                finding_sites=_find_sites(image.source, result.codes),
                measurements=None if box.score is None else [build_certainty(box.score)],
                geometric_purpose=build_code_sequence(BOUNDED_BY),
            )
        )
    return groups


def build_image_region(kind: str, points: Any, source: SourceImage) -> Any:
    """A line of (column, row) on an image: SCOORD counts from the corner of the first pixel, as frames here do."""
    reference = hd.sr.SourceImageForRegion(str(source.header.SOPClassUID), source.uid)
    return hd.sr.ImageRegion(kind, np.asarray(points, dtype=np.float64), reference)


def build_certainty(share: float) -> Any:
    """A probability as Certainty of Finding."""
    return hd.sr.Measurement(
        name=build_code_sequence(CERTAINTY), value=round(100.0 * share, 6), unit=build_code_sequence(PERCENT)
    )


def build_presence(there: bool) -> Any:
    """Whether a finding is there at the run's operating point."""
    return hd.sr.QualitativeEvaluation(build_code_sequence(PRESENCE), build_code_sequence(PRESENT if there else ABSENT))


def write_report(
    sources: Sequence[SourceImage],
    groups: Sequence[Any],
    result: StudyResult,
    words: Sequence[str],
    series: tuple[str, int, str],
    *,
    number: int = 1,
    notes: Sequence[str] = (),
    observer: str = "",
    also: Sequence[Dataset] = (),
) -> Dataset:
    """A TID 1500 document around measurement groups.

    Args:
        sources: images the groups are about.
        groups: highdicom's measurement groups.
        result: whose maker, codes, time and predecessors are written.
        words: of the object, for UIDs.
        series: UID, number and description of the series.
        number: of the instance in its series.
        notes: sentences for the reader.
        observer: pseudonym of the person who made it; without, the maker is a device.
        also: objects that groups refer to besides the sources.
    """
    maker = result.maker
    tomography = sources[0].header.get("Modality") == "CT"
    report = hd.sr.MeasurementReport(
        observation_context=_build_person(observer) if observer else _build_device(maker),
        procedure_reported=build_code_sequence(TOMOGRAPHY if tomography else RADIOGRAPHY),
        imaging_measurements=groups,
        title=build_code_sequence(result.codes.title),
        referenced_images=[_copy_for_library(source) for source in sources],
    )
    root = report[0]
    _drop_stand_ins(root, {source.uid: source for source in sources})
    summary = " ".join([NOT_FOR_DIAGNOSIS, *notes])
    comment = hd.sr.TextContentItem(build_code_sequence(COMMENT), summary[:1024], hd.sr.RelationshipTypeValues.CONTAINS)
    root.ContentSequence.append(comment)
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[*(source.copy() for source in sources), *also],
        content=root,
        series_instance_uid=series[0],
        series_number=series[1],
        series_description=series[2],
        sop_instance_uid=make_uid(*words),
        instance_number=number,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=[_build_predecessor(*one) for one in result.predecessors] or None,
        contributing_equipment=describe_contributing_equipment(maker),
        **describe_equipment(maker),
    )
    return finish(dataset, sources[0], result.made, words)


def add_evidence(dataset: Dataset, others: Sequence[Dataset]) -> None:
    """Name other objects of the same study as evidence of a report: the two reports, and what was drawn.

    Args:
        dataset: a report; changed in place.
        others: objects of its study.
    """
    if not others:
        return
    study = next(
        item for item in dataset.CurrentRequestedProcedureEvidenceSequence
        if item.StudyInstanceUID == dataset.StudyInstanceUID
    )  # fmt: skip
    named = {
        str(item.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    for other in others:
        if str(other.SOPInstanceUID) in named:
            continue
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = other.SOPClassUID, other.SOPInstanceUID
        series = next(
            (s for s in study.ReferencedSeriesSequence if s.SeriesInstanceUID == other.SeriesInstanceUID), None
        )
        if series is None:
            series = Dataset()
            series.SeriesInstanceUID, series.ReferencedSOPSequence = other.SeriesInstanceUID, []
            study.ReferencedSeriesSequence.append(series)
        series.ReferencedSOPSequence.append(image)


def _build_device(maker: Maker) -> Any:
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=make_uid("device", maker.run),
        name=shorten(f"{MANUFACTURER} {maker.model}", 64),
        manufacturer_name=MANUFACTURER,
        model_name=shorten(maker.model, 64),
        serial_number=shorten(maker.run, 64),
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            build_code_sequence(CodedConcept("121007", "DCM", "Device")), attributes
        )
    )


def _build_person(pseudonym: str) -> Any:
    attributes = hd.sr.PersonObserverIdentifyingAttributes(name=shorten(pseudonym, 60) + "^")
    return hd.sr.ObservationContext(
        observer_person_context=hd.sr.ObserverContext(
            build_code_sequence(CodedConcept("121006", "DCM", "Person")), attributes
        )
    )


def build_algorithm(maker: Maker) -> Any:
    """The algorithm, as groups carry it."""
    parameters = [f"run={maker.run}", f"weights sha256={maker.weights}", *maker.parameters, NOT_FOR_DIAGNOSIS]
    return hd.sr.AlgorithmIdentification(
        name=shorten(maker.model, 64),
        version=shorten(maker.version, 64),
        parameters=[shorten(text, 1024) for text in parameters],
        family=build_code_sequence(AI),
        manufacturer=MANUFACTURER,
    )


def _find_sites(source: SourceImage, codes: CodeTable) -> list[Any] | None:
    site = codes.site(str(source.header.get("BodyPartExamined") or ""))
    if site is None:
        return None
    laterality = str(source.header.get("ImageLaterality") or source.header.get("Laterality") or "")
    sides = {"R": CodedConcept("24028007", "SCT", "Right"), "L": CodedConcept("7771000", "SCT", "Left")}
    side = sides.get(laterality)
    return [
        hd.sr.FindingSite(build_code_sequence(site), laterality=None if side is None else build_code_sequence(side))
    ]


def _copy_for_library(source: SourceImage) -> Dataset:
    header = source.copy()
    for keyword, (value, _) in _STAND_INS.items():
        element = header.get(keyword)
        if element is None or (keyword == "PatientOrientation" and len(element) != 2):
            setattr(header, keyword, value)
    return header


def _drop_stand_ins(root: Any, sources: dict[str, SourceImage]) -> None:
    """Take out of the image library what was put in for highdicom's sake."""
    for library in root.ContentSequence:
        if library.ConceptNameCodeSequence[0].CodeValue != "111028":
            continue
        for group in library.ContentSequence:
            for entry in group.ContentSequence:
                source = sources[str(entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)]
                unsaid = {
                    code
                    for keyword, (_, stand_in) in _STAND_INS.items()
                    for code in stand_in
                    if not _has_value(source, keyword)
                }
                kept = [x for x in entry.ContentSequence if x.ConceptNameCodeSequence[0].CodeValue not in unsaid]
                del entry.ContentSequence[:]
                for item in kept:
                    entry.ContentSequence.append(item)


def _has_value(source: SourceImage, keyword: str) -> bool:
    value = source.header.get(keyword)
    return value is not None and (keyword != "PatientOrientation" or len(value) == 2)


def _build_predecessor(sop_class: str, sop_instance: str, study: str, series: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, sop_instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    return dataset
