"""What is done with each element: the table of PS3.15 (Annex E, Basic Profile), as dicom-anonymizer carries it.

The table is dicom-anonymizer's (edition 2026c, BSD); its code is not used, because it leaves UIDs in sequences as they
were. Where the standard leaves a choice (X/Z, X/D, ...), the value is replaced, so that an element that the object's
kind needs still stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydicom.datadict import tag_for_keyword

from sightline.errors import LayoutError, SightlineError

Keep = Literal["dates", "moved-dates", "device", "patient", "uids", "institution"]
KEEPS: tuple[Keep, ...] = ("dates", "moved-dates", "device", "patient", "uids", "institution")
Action = Literal["remove", "empty", "replace", "uid", "codes"]
EDITION = "2026c"
REPLACED = "REMOVED"

# (code, meaning) of CID 7050
BASIC = ("113100", "Basic Application Confidentiality Profile")
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
CLEAN_GRAPHICS = ("113103", "Clean Graphics Option")
CLEAN_STRUCTURED = ("113104", "Clean Structured Content Option")
OPTIONS: Mapping[Keep, tuple[str, str]] = {
    "dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "moved-dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}
_KEPT: Mapping[Keep, tuple[str, ...]] = {
    "device": (
        "CassetteID",
        "DetectorID",
        "DeviceSerialNumber",
        "DeviceUID",
        "GantryID",
        "GeneratorID",
        "PerformedStationAETitle",
        "PerformedStationName",
        "PlateID",
        "ScheduledStationAETitle",
        "ScheduledStationName",
        "StationName",
    ),
    "patient": (
        "EthnicGroup",
        "PatientAge",
        "PatientSex",
        "PatientSexNeutered",
        "PatientSize",
        "PatientWeight",
        "PregnancyStatus",
        "SmokingStatus",
    ),
    "institution": (
        "InstitutionAddress",
        "InstitutionCodeSequence",
        "InstitutionName",
        "InstitutionalDepartmentName",
        "RequestingServiceCodeSequence",
    ),
}
# free text that the table lets pass because its option (clean structured content, clean graphics) is to read it
FREE_TEXT = ("TextValue", "UnformattedTextValue")
# the table removes them, and a presentation state without them is none
NEEDED = ("PresentationCreationDate", "PresentationCreationTime")
# names of concepts whose text a program wrote about itself: algorithm's name, version and manufacturer
SOFTWARE_TEXT = ("111001", "111003", "122405")
# concepts whose content item says who the patient is: name, id and day of birth (DCM, LOINC, SNOMED CT)
SUBJECT_IDENTITY = ("121029", "121030", "121031", "21112-8", "54125-0", "184099003", "371484003")
# and what the patient is like: sex, age, height, weight, surface, mass index, pregnancy, tobacco, ethnic group
SUBJECT_TRAITS = (
    *("121032", "46098-0", "76689-9", "121033", "30525-0", "21612-7", "397669002", "424144002"),
    *("8302-2", "3137-7", "50373000", "29463-7", "3141-9", "27113001", "8277-6", "301898006", "39156-5", "60621009"),
    *("111532", "11449-6", "77386006", "72166-2", "103579009", "372148003"),
)
# codes of persons and of hospitals, in schemes of the hospital
CODED_IDENTITIES = (
    "HumanPerformerCodeSequence",
    "InstitutionCodeSequence",
    "PersonIdentificationCodeSequence",
    "RequestingServiceCodeSequence",
    "VerifyingObserverIdentificationCodeSequence",
)
# UIDs of things that everybody shares, and what the names of others that are shared hold: kinds of objects, also
# those of a manufacturer, and of encodings
SHARED_UIDS = ("CodingSchemeUID", "ContextUID", "MappingResourceUID")
_SHARED_KINDS = ("SOPClass", "TransferSyntax")
DATES = ("DA", "DT", "TM")
# kept with no dates: the day of birth, its hour, and the days of birth and death in another calendar
_LIFE = (
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar",
)


@dataclass(frozen=True)
class Rules:
    """What is done with each element, given what is to be kept.

    Attributes:
        keep: words of KEEPS.
    """

    keep: tuple[Keep, ...] = ()

    def __post_init__(self) -> None:
        """Refuse words that mean nothing, and dates that are kept and moved at once."""
        strange = [word for word in self.keep if word not in KEEPS]
        if strange:
            raise LayoutError(f"{', '.join(strange)} cannot be kept; one of {', '.join(KEEPS)} can.", "Leave it out.")
        if "dates" in self.keep and "moved-dates" in self.keep:
            raise LayoutError("Dates cannot be kept as they are and be moved.", "Give one of dates and moved-dates.")

    def action(self, tag: int, keyword: str, vr: str) -> Action | None:
        """What is done with an element, or None where it stays (sequences that stay are walked)."""
        if vr == "UI":
            shared = keyword in SHARED_UIDS or any(kind in keyword for kind in _SHARED_KINDS)
            if shared or "uids" in self.keep or (keyword == "DeviceUID" and "device" in self.keep):
                return None
            return "uid"
        if vr in DATES and keyword not in _LIFE and ("dates" in self.keep or "moved-dates" in self.keep):
            return None
        if any(keyword in _KEPT.get(word, ()) for word in self.keep):
            return None
        if keyword in FREE_TEXT or keyword in NEEDED or vr == "PN":
            return "replace"
        if keyword in CODED_IDENTITIES:
            return "codes"
        return _read_table().get(tag) or _find_group_action(tag) or _find_place_action(keyword, vr)

    def codes(self, *, pixels_cleaned: bool) -> list[tuple[str, str]]:
        """What DeidentificationMethodCodeSequence has to say."""
        also = [CLEAN_PIXELS] if pixels_cleaned else []
        return [BASIC, CLEAN_STRUCTURED, CLEAN_GRAPHICS, *also, *(OPTIONS[word] for word in KEEPS if word in self.keep)]


@lru_cache(maxsize=1)
def _read_table() -> Mapping[int, Action]:
    try:
        from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as edition
    except ImportError:
        raise SightlineError(
            "The table of PS3.15 is not installed.",
            "Install it: pip install 'sightline-radiology[deid]' (dicom-anonymizer).",
        ) from None
    of: Sequence[tuple[Any, Action]] = (
        (edition.X_TAGS, "remove"),
        (edition.Z_TAGS, "empty"),
        (edition.X_Z_TAGS, "empty"),
        (edition.D_TAGS, "replace"),
        (edition.Z_D_TAGS, "replace"),
        (edition.X_D_TAGS, "replace"),
        (edition.X_Z_D_TAGS, "replace"),
        (edition.X_Z_U_STAR_TAGS, "replace"),
        (edition.U_TAGS, "uid"),
    )
    table: dict[int, Action] = {}
    for tags, action in of:
        # four numbers are a group that repeats (curves, overlays), known below
        table.update({(tag[0] << 16) | tag[1]: action for tag in tags if len(tag) == 2})
    # lists of references are walked: their UIDs are mapped like all others, so that they still point at something
    for keyword in ("ReferencedImageSequence", "SourceImageSequence", "ReferencedStudySequence"):
        tag = tag_for_keyword(keyword)
        assert tag is not None
        table.pop(tag, None)
    return table


def _find_place_action(keyword: str, vr: str) -> Action | None:
    """Addresses in the network of a hospital, and dates of a life as text; a code that is a URN names a meaning."""
    if keyword == "CodingSchemeURL":
        return "replace"
    return "remove" if keyword in _LIFE or (vr == "UR" and keyword != "URNCodeValue") else None


def _find_group_action(tag: int) -> Action | None:
    """Curves and overlays go: they hold drawings and names in pixels of their own."""
    group = tag >> 16
    return "remove" if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF else None
