"""One DICOM object without what identifies: into every sequence, private and unknown elements out.

After the walk the object is searched for the identifiers that it came with: a text that still holds one of them is
emptied, wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from sightline.errors import UnreadableFile
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.overlays import clear_overlay_bits
from sightline.io.deidentification.table import DATES, EDITION, SOFTWARE_TEXT, Rules

REPLACED = "REMOVED"
STANDARD_UIDS = "1.2.840.10008."
_ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
_DUMMIES = {"DA": "20000101", "TM": "000000", "DT": "20000101000000", "AS": "000Y", "DS": "0", "IS": "0"}
_TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
# what an identifier must have in length, before its occurrence elsewhere says anything
_LEAST = 4
_PUBLIC_SCHEMES = ("DCM", "SCT", "SRT", "LN", "UCUM", "FMA", "RADLEX", "RFC5646", "ISO639_2")
_IDENTIFYING = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "MilitaryRank",
    "InstitutionName",
    "InstitutionAddress",
    "DeviceSerialNumber",
    "AdmissionID",
)


@dataclass
class CleanedObject:
    """One object after the walk.

    Attributes:
        dataset: to be written.
        notes: what was done besides the table, without any value.
    """

    dataset: Dataset
    notes: list[str] = field(default_factory=list)


def deidentify(dataset: Dataset, rules: Rules, key: SiteKey, *, pixels_cleaned: bool = False) -> CleanedObject:
    """A copy's dataset: changed in place and returned with notes.

    Args:
        dataset: as pydicom reads it, with file meta information.
        rules: what is kept.
        key: of the site.
        pixels_cleaned: text in the pixels was filled.

    Raises:
        UnreadableFile: an encapsulated document, an object without class or instance UID, or an overlay in unused
            bits of compressed pixels.
    """
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class.startswith(_ENCAPSULATED) or "EncapsulatedDocument" in dataset:
        raise UnreadableFile(
            "An encapsulated document: its pages cannot be cleaned.", "Leave it out, or export what it says otherwise."
        )
    if not sop_class or not dataset.get("SOPInstanceUID"):
        raise UnreadableFile("The object has no SOPClassUID or SOPInstanceUID.", "Give it as the PACS has it.")
    patient_id = str(dataset.get("PatientID") or "")
    hints = set(_iterate_identifiers(dataset, rules))
    result = CleanedObject(dataset, clear_overlay_bits(dataset))
    _walk(dataset, rules, key, patient_id, result.notes)
    pseudonym = key.patient(patient_id)
    dataset.PatientID, dataset.PatientName = pseudonym, pseudonym
    _replace_identifiers(dataset, hints, result.notes)
    _record_method(dataset, rules, pixels_cleaned)
    dataset.file_meta = _build_meta(dataset)
    dataset.preamble = b"\0" * 128
    return result


def _walk(dataset: Dataset, rules: Rules, key: SiteKey, patient_id: str, notes: list[str]) -> None:
    for tag in list(dataset.keys()):
        keyword = keyword_for_tag(tag)
        if tag.is_private or (not keyword and not _is_repeating(tag)):
            del dataset[tag]
            continue
        try:
            element = dataset[tag]
            vr, value = str(element.VR), element.value
        except Exception:  # bytes that do not follow their type: what cannot be read cannot be cleaned
            del dataset[tag]
            notes.append(f"{keyword or tag} could not be read and was removed")
            continue
        if vr == "UN":
            del dataset[tag]
            continue
        action = rules.action(int(tag), keyword, vr)
        if keyword == "TextValue" and _is_of_software(dataset):
            action = None
        if action == "remove":
            del dataset[tag]
        elif vr == "SQ":
            # an emptied sequence would lose references; its items are walked, and only names among them go
            for item in value:
                _walk(item, rules, key, patient_id, notes)
        elif action == "empty":
            element.value = "" if vr not in ("US", "SS", "UL", "SL", "FL", "FD") else None
        elif action == "uid":
            element.value = _map_uids(value, key)
        elif action == "replace":
            element.value = _make_dummy(vr, value)
        elif vr in DATES and "moved-dates" in rules.keep:
            element.value = _move_dates(vr, value, key, patient_id)


def _is_of_software(item: Dataset) -> bool:
    """Whether a content item is a program's word about itself."""
    names = item.get("ConceptNameCodeSequence") or []
    return bool(names) and str(names[0].get("CodeValue", "")) in SOFTWARE_TEXT


def _is_repeating(tag: Any) -> bool:
    return 0x5000 <= tag.group <= 0x50FF or 0x6000 <= tag.group <= 0x60FF


def _map_uids(value: Any, key: SiteKey) -> Any:
    """UIDs of things of this patient; those of the standard are everybody's."""
    if value is None or value == "":
        return value
    many = [value] if isinstance(value, str) else list(value)
    mapped = [one if str(one).startswith(STANDARD_UIDS) or not str(one) else UID(key.uid(str(one))) for one in many]
    return mapped[0] if isinstance(value, str) else mapped


def _make_dummy(vr: str, value: Any) -> Any:
    """Something of the same type that says nothing; what was empty stays empty."""
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return value
    if vr in _DUMMIES:
        return _DUMMIES[vr]
    if vr in _TEXTS:
        return REPLACED
    if vr in ("OB", "OW", "OF", "OD", "OL", "OV"):
        return b"\0\0"
    return 0


def _move_dates(vr: str, value: Any, key: SiteKey, patient_id: str) -> Any:
    if vr == "TM" or value is None or value == "":
        return value
    many = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    moved = []
    for one in many:
        text = str(one)
        try:
            day = date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        except ValueError:
            moved.append("")  # no day to move; a year alone may be the right one
            continue
        moved.append(key.move_day(day, patient_id).strftime("%Y%m%d") + text[8:])
    return moved[0] if len(moved) == 1 else moved


def _iterate_identifiers(dataset: Dataset, rules: Rules) -> Iterator[str]:
    """What the object came with that names somebody, in small letters."""
    for element in _iterate_elements(dataset):
        try:
            vr, keyword, value = str(element.VR), element.keyword, element.value
        except Exception:
            continue
        if value is None or (vr != "PN" and keyword not in _IDENTIFYING):
            continue
        kept = rules.action(int(element.tag), keyword, vr) is None
        if kept:
            continue
        many = [value] if isinstance(value, str) or not hasattr(value, "__iter__") or vr == "PN" else list(value)
        for one in many:
            text = str(one).strip().casefold()
            yield from (part for part in [text, *re.split(r"[\^=\s,]+", text)] if len(part) >= _LEAST)


def _iterate_elements(dataset: Dataset) -> Iterator[Any]:
    """All readable elements, those of sequences too."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:
            continue
        yield element
        if element.VR == "SQ" and isinstance(element.value, Items):
            for item in element.value:
                yield from _iterate_elements(item)


def _replace_identifiers(dataset: Dataset, hints: set[str], notes: list[str]) -> None:
    """Replace texts that still hold one of the identifiers."""
    if str(dataset.get("CodingSchemeDesignator") or "") in _PUBLIC_SCHEMES:
        return  # the scheme says the words, also where somebody's name is Hand
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                _replace_identifiers(item, hints, notes)
        if element.VR not in _TEXTS or not element.value or element.keyword in ("PatientID", "PatientName"):
            continue
        text = str(element.value).casefold()
        # a code string is a single word; a name of four letters may be part of one
        if any(text == hint if element.VR == "CS" else hint in text for hint in hints):
            element.value = REPLACED
            notes.append(f"{element.keyword} repeated an identifier and was replaced")


def _record_method(dataset: Dataset, rules: Rules, pixels_cleaned: bool) -> None:
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = f"sightline, PS3.15 {EDITION} Basic Profile"
    items = []
    for code, meaning in rules.codes(pixels_cleaned=pixels_cleaned):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
        items.append(item)
    dataset.DeidentificationMethodCodeSequence = items
    dataset.LongitudinalTemporalInformationModified = (
        "UNMODIFIED" if "dates" in rules.keep else "MODIFIED" if "moved-dates" in rules.keep else "REMOVED"
    )


def _build_meta(dataset: Dataset) -> FileMetaDataset:
    """New file meta information: the old one names the machine that wrote it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    return meta
