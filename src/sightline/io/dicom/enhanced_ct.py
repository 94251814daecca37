"""The frames of an Enhanced CT, all slices in one file: what is said of each, as a file of its own would say it.

Functional groups: PS3.3, A.38 and C.7.6.16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from sightline.errors import UnreadableFile, count_noun

# what is kept of a series, and the element that says it
SERIES_FACTS = {
    "series_uid": "SeriesInstanceUID",
    "kernel": "ConvolutionKernel",
    "kvp": "KVP",
    "manufacturer": "Manufacturer",
    "device_model": "ManufacturerModelName",
    "body_part": "BodyPartExamined",
}
# what a series' reader asks of a slice, and the functional group that says it of a frame
_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "CTImageFrameTypeSequence": ("FrameType",),
}
_OF_THE_FILE = (
    "Rows",
    "Columns",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PatientID",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "SeriesDescription",
    *SERIES_FACTS.values(),
)


def build_frame_headers(header: Any, file: Path) -> list[Dataset | None]:
    """One header a frame, in the order of the pixel data, with the elements that a single slice would have.

    Args:
        header: pydicom's Dataset of the whole file; its pixels are not needed.
        file: named in errors.

    Returns:
        None in place of frames that are localisers.

    Raises:
        UnreadableFile: the frames and what is said of them are not equally many.
    """
    frames = int(header.get("NumberOfFrames") or 1)
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    apart = header.get("PerFrameFunctionalGroupsSequence") or []
    if len(apart) != frames:
        raise UnreadableFile(
            f"{file}: a multi-frame CT with {count_noun(frames, 'frame')}, of which {len(apart)} are described "
            "(PerFrameFunctionalGroupsSequence).",
            "Export the series again from its source.",
        )
    return [_build_frame_header(header, shared[0], own, number) for number, own in enumerate(apart)]


def _build_frame_header(header: Any, shared: Any, own: Any, number: int) -> Dataset | None:
    flat = Dataset()
    for keyword in _OF_THE_FILE:
        if keyword in header:
            flat[keyword] = header[keyword]
    for sequence, keywords in _GROUPS.items():
        # a group stands either among the shared ones or with each frame
        group = next((held.get(sequence)[0] for held in (own, shared) if held.get(sequence)), Dataset())
        for keyword in keywords:
            if keyword in group:
                flat[keyword] = group[keyword]
    if "LOCALIZER" in [str(word).upper() for word in flat.get("FrameType") or ()]:
        return None
    flat.SOPInstanceUID = f"{header.get('SOPInstanceUID') or ''}.{number + 1}"
    return flat
