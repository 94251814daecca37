"""Regions of an image as a DICOM segmentation, one segment a finding, one pixel a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from sightline.io.dicom_results.codes import AI, MORPHOLOGY, CodedConcept, CodeTable
from sightline.io.dicom_results.header import SourceImage
from sightline.io.dicom_results.identity import MANUFACTURER, NOT_FOR_DIAGNOSIS, finish, make_uid, shorten
from sightline.io.dicom_results.plane import PLANE_SAYS, build_plane_of_image, place_image_on_plane
from sightline.io.dicom_results.results import FoundRegion, Maker

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def build_code_sequence(concept: CodedConcept) -> Any:
    """A concept as highdicom takes it."""
    return hd.sr.CodedConcept(concept.value, concept.scheme, concept.meaning)


def make_tracking(label: str, number: int, words: Sequence[str]) -> tuple[str, str]:
    """Identifier and UID that follow one finding through all objects of a result."""
    return shorten(f"{label} {number}", 64), make_uid("tracking", label, number, *words)


def number_labels(labels: Sequence[str]) -> list[int]:
    """The number of each among those of its own label, from 1: what `make_tracking` counts."""
    return [labels[: place + 1].count(label) for place, label in enumerate(labels)]


def build_algorithm_sequence(maker: Maker) -> Any:
    """The algorithm, as segmentations carry it."""
    return hd.AlgorithmIdentificationSequence(
        name=shorten(maker.model, 64),
        family=build_code_sequence(AI),
        version=shorten(maker.version, 64),
        source=MANUFACTURER,
    )


def describe_equipment(maker: Maker) -> dict[str, Any]:
    """Maker as the equipment that every object names."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": shorten(maker.model, 64),
        "software_versions": shorten(maker.version, 64),
        "device_serial_number": shorten(maker.run, 64),
    }


def describe_contributing_equipment(maker: Maker) -> list[Any]:
    """The network as equipment that contributed."""
    return [
        hd.ContributingEquipment(
            manufacturer=MANUFACTURER,
            purpose_of_reference=build_code_sequence(CodedConcept("109102", "DCM", "Processing Equipment")),
            manufacturer_model_name=shorten(maker.model, 64),
            software_versions=shorten(maker.version, 64),
            device_serial_number=shorten(maker.run, 64),
            contribution_description=f"{NOT_FOR_DIAGNOSIS} Run {maker.run}, weights {maker.weights or 'none'}.",
        )
    ]


def write_regions(
    source: SourceImage,
    regions: Sequence[FoundRegion],
    maker: Maker,
    codes: CodeTable,
    made: datetime,
    words: Sequence[str],
    series: tuple[str, int, str],
    *,
    number: int = 1,
    by_hand: bool = False,
) -> Dataset:
    """A BINARY segmentation of a projection.

    Args:
        source: the image.
        regions: at least one with a pixel in it; empty ones are left out.
        maker: what found them.
        codes: what they are called.
        made: time that is written.
        words: of the result, for UIDs.
        series: UID, number and description of the series.
        number: of the instance in its series.
        by_hand: a person drew them, no algorithm.
    """
    counted = zip(number_labels([region.label for region in regions]), regions, strict=True)
    drawn = [(n, region) for n, region in counted if region.mask.any()]
    plane = build_plane_of_image(source).sequences()
    descriptions = []
    for segment, (n, region) in enumerate(drawn, 1):
        name, uid = make_tracking(region.label, n, (*words, source.uid))
        site = codes.site(str(source.header.get("BodyPartExamined") or ""))
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=segment,
                segment_label=shorten(region.label, 64),
                segmented_property_category=build_code_sequence(MORPHOLOGY),
                segmented_property_type=build_code_sequence(codes.finding(region.label)),
                algorithm_type="MANUAL" if by_hand else "AUTOMATIC",
                algorithm_identification=None if by_hand else build_algorithm_sequence(maker),
                tracking_uid=uid,
                tracking_id=name,
                anatomic_regions=None if site is None else [build_code_sequence(site)],
            )
        )
    masks = np.stack([region.mask for _, region in drawn], axis=-1)[None].astype(np.uint8)
    header = place_image_on_plane(source, maker.run)
    made_of = ("regions", source.uid, *words)
    dataset = hd.seg.Segmentation(
        source_images=[header],
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=series[0],
        series_number=series[1],
        series_description=series[2],
        sop_instance_uid=make_uid(*made_of),
        instance_number=number,
        content_label="MARKS" if by_hand else "FINDINGS",
        content_description=shorten(f"{NOT_FOR_DIAGNOSIS} {PLANE_SAYS}", 64),
        content_creator_name=None,
        pixel_measures=plane[0],
        plane_orientation=plane[1],
        plane_positions=plane[2],
        contributing_equipment=describe_contributing_equipment(maker),
        **describe_equipment(maker),
    )
    dataset.PositionReferenceIndicator = ""
    return finish(dataset, source, made, made_of)
