"""DICOM files as pictures: the header's facts, the pixel size, and the grey-scale path in its right order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from sightline.errors import SightlineError, UnreadableFile
from sightline.io.dicom.greyscale import (
    build_display_table,
    collect_remarks,
    is_for_processing,
    read_numbers,
)
from sightline.io.dicom.limits import require_bounds
from sightline.io.dicom.patient import read_named_patient
from sightline.io.dicom.pixel_size import collect_size_remarks, find_pixel_size, read_aspect_ratio
from sightline.io.dicom.pixels import decode_pixels, require_syntax
from sightline.io.dicom.shutter import SHUTTER, find_shutter
from sightline.io.dicom_results.identity import is_own_result
from sightline.io.picture import Picture
from sightline.structures.frame import Frame

# computed and direct radiography, film scanners, mammography, angiography and fluoroscopy, dental; OT is 'other'
PROJECTIONS = ("CR", "DX", "RG", "MG", "XA", "RF", "IO", "PX", "OT")
# some systems write DR, which is no defined term, for what is DX
_ALSO = ("DR",)

_FACTS = {
    "modality": ("Modality",),
    "body_part": ("BodyPartExamined",),
    "view_position": ("ViewPosition",),
    "laterality": ("ImageLaterality", "Laterality"),
    "manufacturer": ("Manufacturer",),
    "device_model": ("ManufacturerModelName",),
    "detector": ("DetectorType",),
    "detector_id": ("DetectorID",),
    "burned_in_annotation": ("BurnedInAnnotation",),
    "lossy_compression": ("LossyImageCompression",),
    "presentation_intent": ("PresentationIntentType",),
    "shutter": ("ShutterShape",),
    "photometric": ("PhotometricInterpretation",),
    "study_uid": ("StudyInstanceUID",),
    "series_uid": ("SeriesInstanceUID",),
    "sop_uid": ("SOPInstanceUID",),
}

# what the functional groups of an enhanced object say of how a frame is shown, and of its pixels' size
_IN_GROUPS: tuple[str, ...] = (
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
)
_IN_GROUPS += ("ModalityLUTSequence", "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio")
_IN_GROUPS += ("PixelIntensityRelationship", "PixelIntensityRelationshipSign", *SHUTTER)


@dataclass(frozen=True)
class Header:
    """What a DICOM file says of itself before its pixels.

    Attributes:
        file: where it was read from.
        patient_id: as stated, or empty; not among the facts, because facts are printed and audited.
        issuer: of the patient's id, in one spelling, or empty.
        facts: texts by name, absent ones left out: `modality`, `body_part`, `view_position`, `laterality`,
            `manufacturer`, `device_model`, `detector`, `study_uid`, `series_uid`, `sop_uid`, `transfer_syntax`, ...
        shape: (rows, columns), or None where not stated.
        spacing_mm: (row, column) size of a pixel, or None where not stated.
        aspect: height of a pixel over its width.
        size_remarks: what it states of the size of pixels and is not heeded, in words.
        names_patient: it names a patient or a day of birth, and does not say that the identity was removed.
    """

    file: Path
    patient_id: str
    facts: Mapping[str, str]
    shape: tuple[int, int] | None
    spacing_mm: tuple[float, float] | None
    names_patient: bool = False
    aspect: float = 1.0
    size_remarks: tuple[str, ...] = ()
    issuer: str = ""


# Enhanced CT and the legacy conversion of a series into it
MULTI_FRAME_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")


def read_header(path: Path) -> Header:
    """Read the header alone, in milliseconds; says nothing about whether the pixels decode.

    Raises:
        UnreadableFile: not a DICOM file, or one that does not say how it is encoded.
    """
    path = Path(path)
    with translate_parser_errors(path):
        return _build_header(open_image(path, pixels=False), path)


def read_dicom(path: Path) -> Picture:
    """Read a single-frame grey image of any modality, ready for display.

    Returns:
        uint16 [H, W], brighter is denser, 65535 is white; spacing in mm where stated; facts as of `read_header`,
        with `grey_scale` (the VOI step taken).

    Raises:
        UnreadableFile: not DICOM, not an image, several frames, colour, an unknown codec, truncated or absurd.
    """
    path = Path(path)
    with translate_parser_errors(path):
        dataset = open_image(path, pixels=True)
        require_foreign(dataset, path)
        index, values = decode_pixels(dataset, path)
        header = _build_header(dataset, path)
        shown, hidden = find_shutter(dataset, path, index.shape, header.aspect)
        present = np.bincount(index.ravel() if shown is None else index[shown], minlength=len(values)) > 0
        table, how = build_display_table(dataset, path, values, present)
        remarks = (*collect_remarks(dataset, path), *header.size_remarks, *hidden)
    pixels = np.take(table, index)
    if shown is not None:
        pixels[~shown] = 0
    facts = {**header.facts, "grey_scale": how, **({"remark": "; ".join(remarks)} if remarks else {})}
    return Picture(pixels, Frame.of_image(pixels.shape, header.spacing_mm, header.aspect), facts)


def require_radiograph(picture: Picture | Header, file: Path | None = None) -> None:
    """Refuse slices and other images that are not projections; pictures that state no modality pass.

    Raises:
        UnreadableFile: the modality is stated and is none of PROJECTIONS.
    """
    if isinstance(picture, Header) and picture.facts.get("sightline") == "result":
        _refuse_own(picture.file)
    modality = picture.facts.get("modality", "")
    if modality and modality.upper() not in PROJECTIONS + _ALSO:
        name = file or (picture.file if isinstance(picture, Header) else "the image")
        raise UnreadableFile(
            f"{name}: the modality is {modality}, not a radiograph ({', '.join(PROJECTIONS)}).",
            "Leave the file out; give projection radiographs.",
        )


def require_foreign(dataset: Any, path: Path) -> None:
    """Refuse a result that was written here: its picture must never be judged as a radiograph.

    Raises:
        UnreadableFile: it is one.
    """
    if is_own_result(dataset):
        _refuse_own(path)


def _refuse_own(path: Path) -> None:
    raise UnreadableFile(
        f"{path}: a result that sightline wrote (its manufacturer and series description say so), not a radiograph.",
        "Leave it out; give the radiographs of the study.",
    )


@contextmanager
def translate_parser_errors(path: Path) -> Iterator[None]:
    """One clear error for whatever a broken header makes the parser raise; its remarks on oddities are kept quiet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SightlineError:
        raise
    except InvalidDicomError:
        if not path.stat().st_size:
            raise UnreadableFile(f"{path}: the file is empty.", "Export or copy the file again.") from None
        raise UnreadableFile(
            f"{path}: not a DICOM file: the mark 'DICM' and the file meta information are missing.",
            "Export the image again as a DICOM file (Part 10) with its meta information.",
        ) from None
    except FileNotFoundError:
        raise UnreadableFile(f"{path}: no such file.", "Check the path.") from None
    except Exception as error:  # pydicom reads values when they are asked for, and raises what they provoke
        raise UnreadableFile(
            f"{path}: the DICOM header does not parse ({' '.join(str(error).split())[:200]}).",
            "Export or copy the file again; check that it may be read.",
        ) from None


def open_dataset(path: Path, *, pixels: bool) -> Any:
    """The pydicom Dataset of a file whose pixels a decoder here knows, with or without those pixels.

    Raises:
        UnreadableFile: the file does not say how it is encoded, or would cost the parser out of proportion; what
            pydicom raises is for `translate_parser_errors`.
    """
    require_bounds(path)
    dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
    require_syntax(dataset, path)
    return dataset


def open_image(path: Path, *, pixels: bool) -> Any:
    """The same, and what is said of the one frame of an enhanced object stands where a plain image says it.

    Raises:
        UnreadableFile: as `open_dataset`.
    """
    return _complete_groups(open_dataset(path, pixels=pixels))


def _complete_groups(dataset: Any) -> Any:
    """The data set of one frame with what its functional groups say (enhanced objects; PS3.3, C.7.6.16) where a plain
    image says it.
    """
    if str(dataset.get("NumberOfFrames") or 1).strip() not in ("0", "1"):
        return dataset
    for sequence in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (dataset.get(sequence) or ())[:1]:
            macros = [macro for macro in group if macro.VR == "SQ" and len(macro.value)]
            for element in (element for macro in macros for element in macro.value[0]):
                if element.keyword in _IN_GROUPS and element.tag not in dataset:
                    dataset.add(element)
    return dataset


def _build_header(dataset: Any, path: Path) -> Header:
    facts: dict[str, str] = {}
    for name, keywords in _FACTS.items():
        text = next((text for keyword in keywords if (text := read_text(dataset, keyword))), "")
        if text:
            facts[name] = text
    if is_for_processing(dataset):
        facts["presentation_intent"] = "FOR PROCESSING"
    sop_class = getattr(dataset.get("SOPClassUID"), "name", "")
    if sop_class:
        facts["sop_class"] = sop_class
    if is_own_result(dataset):
        facts["sightline"] = "result"
    facts["transfer_syntax"] = dataset.file_meta.TransferSyntaxUID.name
    spacing, source = _read_spacing(dataset, path)
    if source:
        facts["spacing_source"] = source
    size = [*read_numbers(dataset, "Rows", path), *read_numbers(dataset, "Columns", path)]
    shape = (int(size[0]), int(size[1])) if len(size) == 2 else None
    named = bool(read_text(dataset, "PatientName") or read_text(dataset, "PatientBirthDate"))
    removed = read_text(dataset, "PatientIdentityRemoved").upper() == "YES"
    aspect = read_aspect_ratio(dataset, path)
    remarks = tuple(collect_size_remarks(dataset, path))
    patient = read_text(dataset, "PatientID")
    issuer = read_named_patient(dataset).issuer
    return Header(path, patient, facts, shape, spacing, named and not removed, aspect, remarks, issuer)


def _read_spacing(dataset: Any, path: Path) -> tuple[tuple[float, float] | None, str]:
    """Pixel size in the patient where the file states it, else at the detector, and which (PS3.3, 10.7)."""
    spacing, source = find_pixel_size(dataset, path)
    if spacing is None or source == "NominalScannedPixelSpacing":
        # of a film: how finely it was scanned
        return spacing, source
    if source == "PixelSpacing":
        calibration = read_text(dataset, "PixelSpacingCalibrationType")
        return spacing, f"PixelSpacing ({calibration})" if calibration else "PixelSpacing"
    factor = read_numbers(dataset, "EstimatedRadiographicMagnificationFactor", path)
    if factor and math.isfinite(factor[0]) and factor[0] > 0:
        rows, columns = spacing
        return (rows / factor[0], columns / factor[0]), f"{source} / EstimatedRadiographicMagnificationFactor"
    return spacing, source


def read_text(dataset: Any, keyword: str) -> str:
    """An element as text, several values with backslashes between; empty where it is absent or does not read."""
    try:
        value = dataset.get(keyword)
    except Exception:  # an element whose bytes do not follow its type is as good as absent
        return ""
    if value is None:
        return ""
    many = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    return "\\".join(str(v).strip() for v in many).strip("\\")


def is_multi_frame(header: Any) -> bool:
    """Whether a file is an Enhanced CT; what it says of its class may stand in the file meta information alone."""
    return str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "") in MULTI_FRAME_CT
