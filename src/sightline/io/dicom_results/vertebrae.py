"""What is said of the vertebrae of a CT: two reports, a segmentation of those that are called, maps in their place.

A CT has a frame of reference, so nothing needs a plane of its own: segments are on the slices, maps and points where
they lie in the patient.
"""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from sightline.errors import UnreadableFile
from sightline.io.dicom_results.codes import ANATOMY, LEVELS, VERTEBRA
from sightline.io.dicom_results.header import require_one_study
from sightline.io.dicom_results.identity import (
    NOT_FOR_DIAGNOSIS,
    SERIES_FROM,
    digest_pixels,
    finish,
    format_series_description,
    list_result_words,
    make_uid,
    shorten,
)
from sightline.io.dicom_results.parametric_map import describe_value_range
from sightline.io.dicom_results.picture import write_picture
from sightline.io.dicom_results.regions import (
    build_algorithm_sequence,
    build_code_sequence,
    describe_contributing_equipment,
    describe_equipment,
    make_tracking,
)
from sightline.io.dicom_results.reports import (
    add_evidence,
    build_algorithm,
    build_certainty,
    build_presence,
    write_report,
)
from sightline.io.dicom_results.results import KINDS, FoundVertebra, Kind, SeriesResult, StudyResult

_Words = tuple[str, ...]


def make_series_objects(result: SeriesResult, kinds: tuple[Kind, ...] = KINDS) -> list[Dataset]:
    """The objects of a CT's result, reports first; kinds that there is nothing for are left out.

    Args:
        result: of one series.
        kinds: `findings`, `marks`, `regions` (vertebrae that are called and have a mask), `map` (one a patch) and
            `picture`; a CT has no presentation state.

    Raises:
        UnreadableFile: slices of several studies or patients, or without a frame of reference.
    """
    require_one_study(result.sources)
    if any(not source.header.get("FrameOfReferenceUID") for source in result.sources):
        raise UnreadableFile(
            "The CT has no FrameOfReferenceUID, so nothing can be placed in it.",
            "Give the series as the PACS has it.",
        )
    maker = result.maker
    made_by = (maker.run, maker.weights, maker.version, *maker.parameters, *map(_describe_place, result.vertebrae))
    words = list_result_words(result.sources, made_by)
    label = next((one.said.label for one in result.vertebrae), "finding")

    def describe_series(kind: Kind) -> tuple[str, int, str]:
        return make_uid("series", kind, *words), SERIES_FROM + KINDS.index(kind), format_series_description(label, kind)

    drawn: list[Dataset] = []
    segmented = [one for one in result.vertebrae if one.said.present and one.mask is not None and one.mask.any()]
    segments = {one.level: number for number, one in enumerate(segmented, 1)}
    if "regions" in kinds and segmented:
        drawn.append(_make_segmentation(result, segmented, words, describe_series("regions")))
    if "picture" in kinds and result.picture is not None:
        middle = result.sources[len(result.sources) // 2]
        drawn.append(write_picture(middle, result.picture, maker, result.made, words, describe_series("picture")))
    if "map" in kinds:
        mapped = [one for one in result.vertebrae if one.map is not None]
        drawn += [_make_map(result, one, words, describe_series("map"), number) for number, one in enumerate(mapped, 1)]
    as_study = StudyResult((), maker, result.made, result.codes)
    reports: list[Dataset] = []
    notes = [f"{note}." for note in result.notes]
    if "findings" in kinds and result.vertebrae:
        groups = [_build_evaluation(result, one, words) for one in result.vertebrae]
        made_of = ("findings", *words, *sorted(set(result.notes)))
        reports.append(
            write_report(result.sources, groups, as_study, made_of, describe_series("findings"), notes=notes)
        )
    if "marks" in kinds and result.vertebrae:
        regions = next((made for made in drawn if made.Modality == "SEG"), None)
        groups = [_refer_to_vertebra(result, one, words, regions, segments.get(one.level)) for one in result.vertebrae]
        also = [regions] if segments and regions is not None else []
        reports.append(
            write_report(result.sources, groups, as_study, ("marks", *words), describe_series("marks"), also=also)
        )
    for report in reports:
        add_evidence(report, [other for other in (*reports, *drawn) if other is not report])
    return [*reports, *drawn]


def _describe_place(one: FoundVertebra) -> str:
    """Where a vertebra was said to be: the same images judged at other places, or with another mask, differ in UIDs."""
    x, y, z = one.point_mm
    return f"{one.level} {x:.4f} {y:.4f} {z:.4f} {digest_pixels(one.mask)}"


def _make_segmentation(
    result: SeriesResult, segmented: list[FoundVertebra], words: _Words, series: tuple[str, int, str]
) -> Dataset:
    descriptions = []
    for number, one in enumerate(segmented, 1):
        name, uid = make_tracking(one.level, 1, words)
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=shorten(f"{one.level} {one.said.label}", 64),
                segmented_property_category=build_code_sequence(ANATOMY),
                segmented_property_type=build_code_sequence(LEVELS.get(one.level, VERTEBRA)),
                # the mask was given to the network, which only says what it thinks of the vertebra
                algorithm_type="SEMIAUTOMATIC",
                algorithm_identification=build_algorithm_sequence(result.maker),
                tracking_uid=uid,
                tracking_id=name,
            )
        )
    made_of = ("regions", *words)
    masks = np.stack([one.mask for one in segmented if one.mask is not None], axis=-1).astype(np.uint8)
    dataset = hd.seg.Segmentation(
        source_images=[source.copy() for source in result.sources],
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=series[0],
        series_number=series[1],
        series_description=series[2],
        sop_instance_uid=make_uid(*made_of),
        instance_number=1,
        content_label="VERTEBRAE",
        content_description=shorten(f"{NOT_FOR_DIAGNOSIS} Vertebrae that are called; masks as given.", 64),
        content_creator_name=None,
        contributing_equipment=describe_contributing_equipment(result.maker),
        **describe_equipment(result.maker),
    )
    return finish(dataset, result.sources[0], result.made, made_of)


def _make_map(
    result: SeriesResult, one: FoundVertebra, words: _Words, series: tuple[str, int, str], number: int
) -> Dataset:
    assert one.map is not None and one.map_affine is not None
    values = np.ascontiguousarray(one.map, dtype=np.float32)
    frame = str(result.sources[0].header.FrameOfReferenceUID)
    made_of = ("map", one.level, *words)
    dataset = hd.pm.ParametricMap(
        source_images=[source.copy() for source in result.sources],
        pixel_array=hd.Volume(values, one.map_affine, "PATIENT", frame_of_reference_uid=frame),
        series_instance_uid=series[0],
        series_number=series[1],
        series_description=series[2],
        sop_instance_uid=make_uid(*made_of),
        instance_number=number,
        contains_recognizable_visual_features=False,
        **describe_value_range(values, one.said.label, f"Class map of {one.said.label} in {one.level}"),
        content_label=shorten(one.level, 16),
        content_description=shorten(f"{NOT_FOR_DIAGNOSIS} Patch of {one.level}.", 64),
        contributing_equipment=describe_contributing_equipment(result.maker),
        **describe_equipment(result.maker),
    )
    return finish(dataset, result.sources[0], result.made, made_of)


def _build_evaluation(result: SeriesResult, one: FoundVertebra, words: _Words) -> Any:
    return hd.sr.MeasurementsAndQualitativeEvaluations(**_describe_group(result, one, words))


def _refer_to_vertebra(
    result: SeriesResult, one: FoundVertebra, words: _Words, regions: Dataset | None, segment: int | None
) -> Any:
    """A vertebra as its segment, else as the point of its centre in the patient."""
    if regions is not None and segment is not None:
        series = hd.sr.SourceSeriesForSegmentation(str(result.sources[0].header.SeriesInstanceUID))
        reference = hd.sr.ReferencedSegment(
            str(regions.SOPClassUID), str(regions.SOPInstanceUID), segment, source_series=series
        )
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=reference, **_describe_group(result, one, words)
        )
    point = hd.sr.ImageRegion3D(
        hd.sr.GraphicTypeValues3D.POINT,
        np.array([one.point_mm], dtype=np.float64),
        str(result.sources[0].header.FrameOfReferenceUID),
    )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=point, **_describe_group(result, one, words)
    )


def _describe_group(result: SeriesResult, one: FoundVertebra, words: _Words) -> dict[str, Any]:
    """What both kinds of group of a vertebra say."""
    name, uid = make_tracking(one.level, 1, words)
    site = LEVELS.get(one.level, VERTEBRA)
    finding = one.said
    return {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=uid, identifier=name),
        "finding_type": build_code_sequence(result.codes.finding(finding.label)),
        "algorithm_id": build_algorithm(result.maker),
        "finding_sites": [hd.sr.FindingSite(build_code_sequence(site))],
        "measurements": None if finding.probability is None else [build_certainty(finding.probability)],
        "qualitative_evaluations": None if finding.present is None else [build_presence(finding.present)],
    }
