"""Who a result is: UIDs, dates and equipment that are the same whenever the same result is made again.

A UID is `2.25.` and 128 bits of the SHA-256 of what decides the answer (the run, its weights, the software, the
operating point, the images and their pixels) and of what the object is. Sent twice, a result is one object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sightline.io.dicom_results.codes import PRIVATE
from sightline.io.dicom_results.header import UTF8, SourceImage

MANUFACTURER = "sightline"
RESEARCH = "AI RESEARCH"
NOT_FOR_DIAGNOSIS = "Research, not for diagnosis."
SERIES_FROM = 9001
_TIMES = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("PresentationCreationDate", "PresentationCreationTime"),
    ("SeriesDate", "SeriesTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)


def make_uid(*parts: object) -> str:
    """A UID made of words: the same words, the same UID."""
    text = "\0".join(str(part) for part in parts)
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode('utf-8')).digest()[:16], 'big')}"


def digest_pixels(pixels: NDArray[np.bool_] | None) -> str:
    """A mask as a word for `make_uid`: the same pixels, the same word; empty where there is none."""
    return "" if pixels is None else make_uid(pixels.shape, np.packbits(pixels).tobytes().hex())


def list_result_words(sources: Sequence[SourceImage], made_by: Sequence[str]) -> tuple[str, ...]:
    """What decides an answer, as words for `make_uid`: what made it, and the images with their pixels, in any order."""
    return (*made_by, *sorted(f"{source.uid} {source.pixels_sha256}" for source in sources))


def is_own_result(words: Mapping[str, Any] | Dataset) -> bool:
    """Whether a DICOM object is a result that was written here: it must never be judged as a picture.

    Args:
        words: elements by keyword (`Manufacturer`, `SeriesDescription`).
    """
    manufacturer = str(words.get("Manufacturer") or "").strip()
    series = str(words.get("SeriesDescription") or "").strip()
    return manufacturer == MANUFACTURER and series.startswith(RESEARCH)


def shorten(text: str, most: int) -> str:
    """A text that fits a DICOM value: no backslash, no control character, at most so many bytes as UTF-8."""
    plain = " ".join("".join(x if x.isprintable() else " " for x in text.replace("\\", "/")).split())
    # limits are of letters, but what checks objects counts bytes
    held = plain.encode("utf-8")
    return plain if len(held) <= most else held[: most - 1].decode("utf-8", "ignore").rstrip() + "~"


def format_series_description(finding: str, kind: str) -> str:
    """`AI RESEARCH: FINDING, KIND`, at most 64 letters."""
    room = 64 - len(f"{RESEARCH}: , {kind.upper()}")
    return f"{RESEARCH}: {shorten(finding.upper(), room)}, {kind.upper()}"


def finish(dataset: Dataset, source: SourceImage, made: datetime, words: Sequence[str]) -> Dataset:
    """Replace what differs from one making to the next (times, and UIDs that highdicom draws at random), and say what
    highdicom leaves out.

    Args:
        dataset: an object as highdicom made it; changed in place.
        source: what it is about.
        made: the time that is written.
        words: of the object, for `make_uid`.
    """
    # an SR has no laterality, and a segmentation must not have it
    if dataset.Modality in ("PR", "OT"):
        side = source.header.get("Laterality") or source.header.get("ImageLaterality") or ""
        dataset.Laterality = side if side in ("L", "R") else ""
    date, time = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    for day, hour in _TIMES:
        if day in dataset:
            setattr(dataset, day, date)
        if hour in dataset:
            setattr(dataset, hour, time)
    dataset.SpecificCharacterSet = UTF8
    if any(element.value == PRIVATE for element in dataset.iterall() if element.tag == 0x00080102):
        scheme = Dataset()
        scheme.CodingSchemeDesignator = PRIVATE
        scheme.CodingSchemeUID = make_uid("coding scheme", PRIVATE)
        scheme.CodingSchemeName = "Classes of sightline runs that no known scheme names"
        scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
        dataset.CodingSchemeIdentificationSequence = [scheme]
    if dataset.get("DimensionOrganizationSequence"):
        organisation = make_uid("dimensions", *words)
        for item in (*dataset.DimensionOrganizationSequence, *dataset.get("DimensionIndexSequence", ())):
            item.DimensionOrganizationUID = organisation
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    _name_class_of_source(dataset, source)
    meta = dataset.file_meta
    meta.ImplementationClassUID = make_uid("sightline")
    meta.ImplementationVersionName = "SIGHTLINE"
    if "FileMetaInformationGroupLength" in meta:
        del meta.FileMetaInformationGroupLength
    return dataset


def _name_class_of_source(dataset: Dataset, source: SourceImage) -> None:
    """Every reference to the source says its own class, whatever class stood in for it."""
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            if str(item.get("ReferencedSOPInstanceUID") or "") == source.uid:
                item.ReferencedSOPClassUID = source.header.SOPClassUID
            _name_class_of_source(item, source)


def encode_dicom(dataset: Dataset) -> bytes:
    """An object as the bytes of a DICOM file."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
