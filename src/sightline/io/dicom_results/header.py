"""A source's header made sound, so that what is derived from it can be written: what it does not say stays unsaid.

Text is decoded and written as UTF-8, values that are none of their type are emptied and said in a note, private
elements and pixels are left out. Identifiers (PatientID, AccessionNumber, UIDs) are never changed, cut or made up: a
source without UIDs cannot be referred to and is refused.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import PersonName, validate_value

from sightline.errors import UnreadableFile
from sightline.io.dicom.greyscale import is_window
from sightline.io.dicom.patient import count_patients, read_named_patient
from sightline.io.dicom.shutter import SHUTTER
from sightline.structures.frame import is_pixel_size

UTF8 = "ISO_IR 192"
NEEDED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID")
IDENTIFIERS = ("PatientID", "AccessionNumber", *NEEDED)
# Type 2 of the patient and study modules: they stand in every object, empty where the source does not say
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_PATIENT = ("IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved")
_STUDY = ("DeidentificationMethod", "StudyDescription")
_SERIES = ("Modality", "Laterality", "BodyPartExamined", "ViewPosition", "FrameOfReferenceUID")
_IMAGE = (
    "ImageType",
    "InstanceNumber",
    "NumberOfFrames",
    "ImageLaterality",
    "PatientOrientation",
    "ContentDate",
    "ContentTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PresentationLUTShape",
    "PresentationIntentType",
    "PixelIntensityRelationshipSign",
    "LossyImageCompression",
    *SHUTTER,
)
# classes of one frame an object; of any other, highdicom asks for functional groups or refuses it as unknown
_OF_ONE_FRAME = ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "7")
SINGLE_FRAME = tuple(f"1.2.840.10008.5.1.4.1.1.{end}" for end in _OF_ONE_FRAME)
TAKEN_OVER = (*NEEDED, *TYPE_2, *_PATIENT, *_STUDY, *_SERIES, *_IMAGE)
_NUMBERS = ("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL")
_TABLES = ("ModalityLUTSequence", "VOILUTSequence")
_SEXES = ("M", "F", "O")
# zero stands in files for "unknown", and what the readers do not take for a pixel's size is none here
_LENGTHS = ("PixelSpacing", "ImagerPixelSpacing", "SliceThickness")


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image that results refer to.

    Attributes:
        header: sound, without pixels; callers copy it before they change it.
        pixels_sha256: of its pixel data as stored.
        notes: what was emptied or is missing, in words, without values.
    """

    header: Dataset
    pixels_sha256: str
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def uid(self) -> str:
        """SOPInstanceUID."""
        return str(self.header.SOPInstanceUID)

    def copy(self) -> Dataset:
        """The header with elements of its own: pydicom's own copies share them."""
        return deepcopy(self.header)

    def copy_as_single_frame(self) -> Dataset:
        """The same, of a class that highdicom knows to have one frame; `finish` writes the true class again."""
        header = self.copy()
        if str(header.SOPClassUID) not in SINGLE_FRAME:
            header.SOPClassUID = SINGLE_FRAME[0]
        return header


def build_source_image(dataset: Dataset, where: Path | str = "the image") -> SourceImage:
    """A DICOM image as something that results can refer to.

    Args:
        dataset: as pydicom reads it, with its pixels.
        where: named in errors.

    Raises:
        UnreadableFile: UIDs or the image's size are missing, or its SOP class is none of images.
    """
    header, notes = copy_sound_header(dataset, where)
    if "Image Storage" not in UID(str(header.SOPClassUID)).name:
        raise UnreadableFile(
            f"{where}: its SOP class ({header.SOPClassUID}) is not an image class, so no result can refer to it.",
            "Give the image as the modality stored it.",
        )
    if "Rows" not in header or "Columns" not in header or min(int(header.Rows), int(header.Columns)) < 1:
        raise UnreadableFile(f"{where}: the header states no rows and columns.", "Give an image.")
    digest = hashlib.sha256()
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            digest.update(dataset[keyword].value or b"")
    return SourceImage(header, digest.hexdigest(), notes)


def copy_sound_header(dataset: Dataset, where: Path | str = "the image") -> tuple[Dataset, tuple[str, ...]]:
    """What results take over from a source, each value checked; and notes of what was emptied.

    Raises:
        UnreadableFile: no SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID or SOPClassUID.
    """
    header = Dataset()
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        missing = [keyword for keyword in NEEDED if not _read(dataset, keyword)]
        if missing:
            raise UnreadableFile(
                f"{where}: {', '.join(missing)} is empty or absent, so no result can refer to this image.",
                "Give the image as the PACS has it; if it was de-identified, use a tool that replaces UIDs and keeps "
                "references (sightline deidentify).",
            )
        for keyword in TAKEN_OVER:
            if keyword not in dataset and keyword not in TYPE_2:
                continue
            if keyword in IDENTIFIERS:
                _take_identifier(header, keyword, dataset, notes)
            else:
                value, sound = _check_value(keyword, _read(dataset, keyword), dataset)
                if not sound:
                    notes.append(f"{keyword} of the source is not valid ({_find_vr(keyword)}) and was left empty")
                if value is not None or keyword in TYPE_2:
                    _set_element(header, keyword, value)
        for keyword in _TABLES:
            items = _read(dataset, keyword)
            if items:
                _set_element(header, keyword, deepcopy(items))
    _settle_window(header)
    _settle_rescale(header, notes)
    _settle_deidentification(header)
    if "SamplesPerPixel" not in header and str(header.get("PhotometricInterpretation") or "").startswith("MONOCHROME"):
        header.SamplesPerPixel = 1
    header.SpecificCharacterSet = UTF8
    return header, tuple(notes)


def require_one_study(sources: Sequence[SourceImage]) -> None:
    """Refuse a result over several studies or patients.

    Raises:
        UnreadableFile: no image, several StudyInstanceUIDs, or several patients, by id and issuer, or without an id by
            name and day of birth.
    """
    if not sources:
        raise UnreadableFile("A result needs at least one image.", "Give the images of one study.")
    studies = {str(source.header.get("StudyInstanceUID") or "") for source in sources}
    patients, words = count_patients(read_named_patient(source.header) for source in sources)
    for count, what, keyword in ((len(studies), "studies", "StudyInstanceUID"), (patients, "patients", words)):
        if count > 1:
            raise UnreadableFile(
                f"The images of one result belong to {count} {what} ({keyword}).",
                "Give the images of one study of one patient at a time.",
            )


def _read(dataset: Dataset, keyword: str) -> Any:
    """A value, or None where the bytes do not follow their type."""
    try:
        return dataset.get(keyword)
    except Exception:  # pydicom decodes when it is asked and raises what the bytes provoke
        return None


def _find_vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    return str(dictionary_VR(keyword))


def _set_element(header: Dataset, keyword: str, value: Any) -> None:
    reading = config.settings.reading_validation_mode
    writing = config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    try:
        setattr(header, keyword, value)
    finally:
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = reading, writing


def _take_identifier(header: Dataset, keyword: str, dataset: Dataset, notes: list[str]) -> None:
    """An identifier as it stands, whatever it is: a changed one would name somebody else."""
    value = _read(dataset, keyword)
    text = "" if value is None else str(value)
    if text and not _follows_vr(_find_vr(keyword), text):
        notes.append(f"{keyword} of the source does not follow its type ({_find_vr(keyword)}); it was not changed")
    _set_element(header, keyword, text)


def _check_value(keyword: str, value: Any, dataset: Dataset) -> tuple[Any, bool]:
    """A value that may stand in a result, or None, and whether the source's was sound."""
    vr = _find_vr(keyword)
    if value is None or (not isinstance(value, (int, float)) and len(str(value).strip()) == 0):
        # an element whose bytes cannot be read is there and yet says nothing
        return None, value is not None or keyword not in dataset or not _has_bytes(dataset, keyword)
    if vr == "PN":
        # str() decodes; the name as it was read would be written in its old character set
        text = str(value)
        return (PersonName(text), True) if _follows_vr("PN", text) else (None, False)
    many = [value] if isinstance(value, (str, bytes, int, float)) or not hasattr(value, "__iter__") else list(value)
    if not _has_right_number(keyword, len(many)):
        return None, False
    if vr in _NUMBERS:
        try:
            numbers = [float(one) for one in many]
        except (TypeError, ValueError):
            return None, False
        sound = all(abs(one) < 1e12 and (is_pixel_size(one) or keyword not in _LENGTHS) for one in numbers)
        return (value, True) if sound else (None, False)
    texts = [str(one) for one in many]
    if keyword == "PatientSex" and texts[0].strip() not in _SEXES:
        return None, False
    if not all(_follows_vr(vr, text) for text in texts):
        return None, False
    return (texts[0] if len(texts) == 1 else texts), True


def _has_right_number(keyword: str, count: int) -> bool:
    """Whether an element may hold that many values (PS3.6: `2`, `1-n`, `2-2n`)."""
    from pydicom.datadict import dictionary_VM

    least, _, most = dictionary_VM(keyword).partition("-")
    return count >= int(least) if "n" in most else int(least) <= count <= int(most or least)


def _has_bytes(dataset: Dataset, keyword: str) -> bool:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    raw = dataset.get_item(tag) if tag is not None else None
    return bool(getattr(raw, "value", None))


def _follows_vr(vr: str, text: str) -> bool:
    """Whether a text follows its type, also in what pydicom's pattern lets pass."""
    try:
        validate_value(vr, text, config.RAISE)
    except Exception:
        return False
    if vr == "DA":
        return bool(re.fullmatch(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", text.strip())) and text[:4] > "0000"
    if vr == "TM":
        return bool(re.fullmatch(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", text.strip()))
    return not any(ord(letter) < 32 and letter not in "\t\n\f\r\x1b" for letter in text)


def _settle_window(header: Dataset) -> None:
    """What the reader takes for no window is left out; a table goes before it."""
    pairs: list[tuple[Any, Any]] = []
    if "VOILUTSequence" not in header:
        given = [header.get(keyword) for keyword in ("WindowCenter", "WindowWidth")]
        many = [list(v) if hasattr(v, "__iter__") and not isinstance(v, str) else [v] for v in given if v is not None]
        function = str(header.get("VOILUTFunction") or "LINEAR")
        both = (pair for pair in zip(*many, strict=False) if len(pair) == 2)
        pairs = [pair for pair in both if is_window(float(pair[0]), float(pair[1]), function)]
    for keyword in ("WindowCenter", "WindowWidth", *(() if pairs else ("VOILUTFunction",))):
        if keyword in header:
            del header[keyword]
    if pairs:
        header.WindowCenter, header.WindowWidth = ([pair[n] for pair in pairs] for n in (0, 1))


def _settle_rescale(header: Dataset, notes: list[str]) -> None:
    """Slope and intercept stand together; where one is missing, what the reader takes for it is written."""
    pair = ("RescaleSlope", "RescaleIntercept")
    if sum(keyword in header for keyword in pair) != 1:
        return
    for keyword, usual in zip(pair, ("1", "0"), strict=True):
        if keyword not in header:
            setattr(header, keyword, usual)
            notes.append(f"{keyword} is not stated by the source; {usual} was taken")


def _settle_deidentification(header: Dataset) -> None:
    """PatientIdentityRemoved YES needs the method; the source's words are kept, or said to be missing."""
    removed = str(header.get("PatientIdentityRemoved") or "")
    if removed not in ("YES", "NO") and "PatientIdentityRemoved" in header:
        del header.PatientIdentityRemoved
    if removed == "YES" and not header.get("DeidentificationMethod"):
        header.DeidentificationMethod = "not stated by the source"
    if removed != "YES" and "DeidentificationMethod" in header:
        del header.DeidentificationMethod
