"""One DICOM object without what identifies: into every sequence, private and unknown elements out.

After the walk the object is searched for the identifiers that it came with: a text that still holds one of them is
emptied, wherever it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from sightline.errors import UnreadableFile
from sightline.io.deidentification.identifiers import collect_identifiers, replace_identifiers
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.lengths import cut_surplus
from sightline.io.deidentification.overlays import erase_overlay_bits
from sightline.io.deidentification.substitutes import (
    blank_content,
    is_of_software,
    is_of_subject,
    make_dummy,
    make_dummy_codes,
)
from sightline.io.deidentification.table import DATES, EDITION, Rules

STANDARD_UIDS = "1.2.840.10008."
_ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
# voices: basic and general audio
_AUDIO = "1.2.840.10008.5.1.4.1.1.9.4."
# types whose bytes no search of texts reads, and those that pass by their type alone where it is asked for
_UNREAD = ("OB", "OD", "OF", "OL", "OV", "OW")
_TRUSTED = (*_UNREAD, *DATES, "AS", "UI", "SQ")
_NUMBERS = ("AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV")
_TIMES = re.compile(r"[\d.:+ -]*|\d{3}[DWMY]")


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
        UnreadableFile: an encapsulated document, a recorded voice, an object without class or instance UID, an overlay
            in unused bits of compressed pixels, or pixels beside which something stands that cannot be taken out.
    """
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class.startswith(_ENCAPSULATED):
        raise _refuse_document()
    if sop_class.startswith(_AUDIO) or (dataset.get("Modality") == "AU" and "WaveformSequence" in dataset):
        raise UnreadableFile(
            "A recorded voice: what it says, and whose it is, cannot be cleaned.",
            "Leave it out, or export what it says otherwise.",
        )
    if not sop_class or not dataset.get("SOPInstanceUID"):
        raise UnreadableFile("The object has no SOPClassUID or SOPInstanceUID.", "Give it as the PACS has it.")
    patient_id = str(dataset.get("PatientID") or "").strip()
    # whose dates move together: of a patient without an id no more is known than the study
    person = patient_id or str(dataset.get("StudyInstanceUID") or dataset.SOPInstanceUID)
    known = collect_identifiers(dataset, rules)
    result = CleanedObject(dataset, erase_overlay_bits(dataset))
    _walk(dataset, rules, key, person, result.notes)
    result.notes += cut_surplus(dataset)
    pseudonym = key.patient(patient_id)
    dataset.PatientID, dataset.PatientName = pseudonym, pseudonym
    if not pseudonym:
        result.notes.append("the file has no PatientID, so its patient stays unknown")
    replace_identifiers(dataset, known, result.notes)
    _record_method(dataset, rules, pixels_cleaned)
    dataset.file_meta = _build_meta(dataset)
    dataset.preamble = b"\0" * 128
    return result


def _walk(dataset: Dataset, rules: Rules, key: SiteKey, person: str, notes: list[str]) -> None:
    of_subject = is_of_subject(dataset, rules)
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
        if keyword == "EncapsulatedDocument":
            raise _refuse_document()
        if vr == "UN":
            del dataset[tag]
            continue
        if _is_disguised(tag, vr):
            del dataset[tag]
            notes.append(f"{keyword or tag} has a type ({vr}) that it cannot have and was removed")
            continue
        if of_subject and blank_content(element):
            continue
        action = rules.action(int(tag), keyword, vr)
        if keyword == "TextValue" and is_of_software(dataset):
            action = None
        if action == "remove":
            del dataset[tag]
        elif action == "codes":
            element.value = make_dummy_codes(value)
        elif vr == "SQ":
            # an emptied sequence would lose references; its items are walked, and only names among them go
            for item in value:
                _walk(item, rules, key, person, notes)
        elif action == "empty":
            element.value = "" if vr not in ("US", "SS", "UL", "SL", "FL", "FD") else None
        elif action == "uid":
            element.value = _map_uids(value, key)
        elif action == "replace":
            element.value = make_dummy(vr, value)
        elif vr in (*DATES, "AS") and not all(map(_TIMES.fullmatch, _list_texts(value))):
            element.value = ""
            notes.append(f"{keyword} is no date, time or age and was emptied")
        elif vr in DATES and "moved-dates" in rules.keep:
            element.value = _move_dates(vr, value, key, person)


def _refuse_document() -> UnreadableFile:
    return UnreadableFile(
        "An encapsulated document: its pages cannot be cleaned.", "Leave it out, or export what it says otherwise."
    )


def _is_disguised(tag: Any, vr: str) -> bool:
    """Whether a text comes as bytes, a UID or a date, which would pass by their type, or these as each other."""
    if vr not in _TRUSTED or _is_repeating(tag):
        return False
    possible = dictionary_VR(tag).split(" or ")
    return not any(one == vr or {one, vr} <= set(group) for one in possible for group in ((*_UNREAD, *_NUMBERS), DATES))


def _list_texts(value: Any) -> list[str]:
    many = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return ["" if one is None else str(one) for one in many]


def _is_repeating(tag: Any) -> bool:
    return 0x5000 <= tag.group <= 0x50FF or 0x6000 <= tag.group <= 0x60FF


def _map_uids(value: Any, key: SiteKey) -> Any:
    """UIDs of things of this patient; those of the standard are everybody's."""
    if value is None or value == "":
        return value
    many = [value] if isinstance(value, str) else list(value)
    mapped = [one if str(one).startswith(STANDARD_UIDS) or not str(one) else UID(key.uid(str(one))) for one in many]
    return mapped[0] if isinstance(value, str) else mapped


def _move_dates(vr: str, value: Any, key: SiteKey, person: str) -> Any:
    if vr == "TM" or value is None or value == "":
        return value
    moved = []
    for text in _list_texts(value):
        try:
            day = date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        except ValueError:
            moved.append("")  # no day to move; a year alone may be the right one
            continue
        moved.append(key.move_day(day, person).isoformat().replace("-", "") + text[8:])
    return moved[0] if len(moved) == 1 else moved


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
