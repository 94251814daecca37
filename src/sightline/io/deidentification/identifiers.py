"""The search for identifiers that an object came with, in the texts that it leaves with.

Names of persons and numbers count wherever they stand, within longer words too, short ones by rules of their own
(`spellings`). The words of an address count as whole words, and an institution as a whole: "Medical" and "Hand" name
nobody. UIDs count as they are, and so does what begins with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items

from sightline.errors import UnreadableFile
from sightline.io.deidentification.spellings import LEAST, Spellings, fold_letters
from sightline.io.deidentification.substitutes import TEXTS
from sightline.io.deidentification.table import REPLACED, Rules

# an identifier of this length does not stand among bytes, and is no other number, by chance
_LEAST_BY_CHANCE = 6
_PUBLIC_SCHEMES = ("DCM", "SCT", "SRT", "LN", "UCUM", "FMA", "RADLEX", "RFC5646", "ISO639_2")
# what a public scheme says, also where somebody's name is Hand
_OF_SCHEMES = ("CodeValue", "LongCodeValue", "CodeMeaning", "CodingSchemeDesignator")
_NUMBERS = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "DeviceSerialNumber",
    "AdmissionID",
)
_ORDERS = (
    "StudyID",
    "RequestedProcedureID",
    "ScheduledProcedureStepID",
    "PerformedProcedureStepID",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)
_OF_WORDS = ("PatientAddress", "PatientTelephoneNumbers", "MilitaryRank")
_OF_PLACES = ("InstitutionName", "InstitutionAddress")
_SOUGHT = (*_NUMBERS, *_ORDERS, *_OF_WORDS, *_OF_PLACES, "PatientBirthDate")
# what a picture shows and what made it: they repeat an identifier only where they say nothing else
_PLAIN = ("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "ViewPosition")
_UID = re.compile(r"\d+(?:\.\d+){2,}")
_STANDARD_UIDS = "1.2.840.10008."
# values of pixels are no text, and a search in millions of them finds anything
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Identifiers:
    """What names somebody.

    Attributes:
        whole: values as they stand, in small letters.
        spellings: of names, numbers and places.
        uids: of things of the patient.
    """

    whole: set[str] = field(default_factory=set)
    spellings: Spellings = field(default_factory=Spellings)
    uids: set[str] = field(default_factory=set)

    def are_in(self, keyword: str, vr: str, text: str) -> bool:
        """Whether the text of an element repeats one of them."""
        text = fold_letters(text.strip())
        if keyword in _PLAIN:
            return text.casefold() in self.whole
        if vr == "CS":
            # a code string is a single word; a name of four letters may be part of one
            return text.casefold() in self.whole or self.spellings.are_all_of(text)
        return self.spellings.are_in(text) or any(map(self._is_uid, _UID.findall(text)))

    def are_in_bytes(self, value: bytes) -> bool:
        """Whether bytes hold a long one as text, of one or two bytes a letter."""
        small = value.replace(b"\0", b"").lower()
        return any(hint.encode() in small for hint in self.spellings.anywhere if len(hint) >= _LEAST_BY_CHANCE)

    def is_number(self, value: Any) -> bool:
        """Whether a value that is written in digits is a long one."""
        text = str(value)
        return len(text) >= _LEAST_BY_CHANCE and text in self.spellings.anywhere

    def _is_uid(self, text: str) -> bool:
        """Whether it is one of the UIDs, or begins with one: writers count objects behind that of their series."""
        parts = text.split(".")
        return any(".".join(parts[:n]) in self.uids for n in range(3, len(parts) + 1))


def collect_identifiers(dataset: Dataset, rules: Rules) -> Identifiers:
    """The identifiers of an object before it is cleaned, except those that are kept."""
    known = Identifiers()
    spellings = known.spellings
    for keyword, vr, text in _iterate_identifiers(dataset, rules):
        if vr == "UI":
            if not text.startswith(_STANDARD_UIDS) and _UID.fullmatch(text):
                known.uids.add(text)
            continue
        small = text.casefold()
        if keyword not in _ORDERS and len(small) >= LEAST:
            known.whole.add(small)
        if vr == "PN":
            spellings.add_name(text)
        elif keyword in _NUMBERS:
            spellings.add_number(text)
        elif keyword in _ORDERS:
            spellings.add_order(text)
        elif keyword in _OF_PLACES:
            # lines and parts between commas, where they are more than a word
            parts = (part.strip() for part in re.split(r"[,;\r\n]+", small))
            spellings.add_words(small, *(part for part in parts if len(part.split()) > 1))
        elif keyword in _OF_WORDS:
            spellings.add_words(small, *re.split(r"[\^=\s,]+", small))
        else:
            spellings.add_day(text)
    return known


def replace_identifiers(dataset: Dataset, known: Identifiers, notes: list[str]) -> None:
    """Replace texts that still hold one of the identifiers.

    Raises:
        UnreadableFile: bytes that are no pixels hold one.
    """
    public = str(dataset.get("CodingSchemeDesignator") or "") in _PUBLIC_SCHEMES
    for element in list(dataset):
        keyword, vr, value = element.keyword, str(element.VR), element.value
        if vr == "SQ":
            for item in value:
                replace_identifiers(item, known, notes)
        if isinstance(value, bytes) and keyword not in _PIXELS and known.are_in_bytes(value):
            raise UnreadableFile(
                f"{keyword} holds an identifier among its bytes, where it cannot be replaced.",
                "Export the object without this element, or leave it out.",
            )
        if vr in ("DS", "IS") and known.is_number(value):
            element.value = None
            notes.append(f"{keyword} was an identifier and was emptied")
        if vr not in TEXTS or not value or keyword in ("PatientID", "PatientName"):
            continue
        if public and keyword in _OF_SCHEMES:
            continue
        several = list(value) if isinstance(value, MultiValue) else [value]
        cleaned = [REPLACED if known.are_in(keyword, vr, str(one)) else one for one in several]
        if cleaned != several:
            element.value = cleaned if len(cleaned) > 1 else cleaned[0]
            notes.append(f"{keyword} repeated an identifier and was replaced")


def _iterate_identifiers(dataset: Dataset, rules: Rules) -> Iterator[tuple[str, str, str]]:
    """Keyword, type and text of what names somebody and is not kept."""
    for element in _iterate_elements(dataset):
        try:
            vr, keyword, value = str(element.VR), element.keyword, element.value
        except Exception:
            continue
        if value is None or (vr not in ("PN", "UI") and keyword not in _SOUGHT):
            continue
        kept = rules.action(int(element.tag), keyword, vr) is None
        if kept:
            continue
        many = list(value) if isinstance(value, MultiValue) else [value]
        yield from ((keyword, vr, fold_letters(str(one)).strip()) for one in many)


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
