"""The search for identifiers that an object came with, in the texts that it leaves with.

Names of persons and numbers count wherever they stand, within longer words too. The words of an address count as whole
words, and an institution as a whole: "Medical" and "Hand" name nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from sightline.io.deidentification.substitutes import TEXTS
from sightline.io.deidentification.table import REPLACED, Rules

# what an identifier must have in length, before its occurrence elsewhere says anything
_LEAST = 4
_PUBLIC_SCHEMES = ("DCM", "SCT", "SRT", "LN", "UCUM", "FMA", "RADLEX", "RFC5646", "ISO639_2")
_NUMBERS = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "PatientBirthDate",
    "DeviceSerialNumber",
    "AdmissionID",
)
_OF_WORDS = ("PatientAddress", "PatientTelephoneNumbers", "MilitaryRank")
_OF_PLACES = ("InstitutionName", "InstitutionAddress")
# what a picture shows and what made it: they repeat an identifier only where they say nothing else
_PLAIN = ("Manufacturer", "ManufacturerModelName", "BodyPartExamined", "ViewPosition")


@dataclass(frozen=True)
class Identifiers:
    """What names somebody, in small letters.

    Attributes:
        whole: values as they stand.
        anywhere: names and numbers, and their parts, which may stand within a word.
        words: what has to stand alone.
    """

    whole: frozenset[str]
    anywhere: frozenset[str]
    words: frozenset[str]

    def are_in(self, keyword: str, vr: str, text: str) -> bool:
        """Whether the text of an element repeats one of them."""
        text = text.strip().casefold()
        if keyword in _PLAIN:
            return text in self.whole
        if vr == "CS":
            # a code string is a single word; a name of four letters may be part of one
            return text in self.whole | self.anywhere | self.words
        return any(hint in text for hint in self.anywhere) or bool(self._pattern and self._pattern.search(text))

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """Words one after the other, whatever stands between them, and no letter or digit before or after."""
        parts = (r"[\W_]+".join(map(re.escape, re.findall(r"[^\W_]+", text))) for text in sorted(self.words))
        joined = "|".join(part for part in parts if part)
        return re.compile(rf"(?<![^\W_])(?:{joined})(?![^\W_])") if joined else None


def collect_identifiers(dataset: Dataset, rules: Rules) -> Identifiers:
    """The identifiers of an object before it is cleaned, except those that are kept."""
    whole: set[str] = set()
    anywhere: set[str] = set()
    words: set[str] = set()
    for keyword, text in _iterate_identifiers(dataset, rules):
        whole.add(text)
        if keyword in _OF_PLACES:
            # lines and parts between commas, where they are more than a word
            words |= {text, *(part.strip() for part in re.split(r"[,;\r\n]+", text) if len(part.split()) > 1)}
            continue
        (words if keyword in _OF_WORDS else anywhere).update((text, *re.split(r"[\^=\s,]+", text)))
    return Identifiers(*(frozenset(text for text in of if len(text) >= _LEAST) for of in (whole, anywhere, words)))


def replace_identifiers(dataset: Dataset, known: Identifiers, notes: list[str]) -> None:
    """Replace texts that still hold one of the identifiers."""
    if str(dataset.get("CodingSchemeDesignator") or "") in _PUBLIC_SCHEMES:
        return  # the scheme says the words, also where somebody's name is Hand
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                replace_identifiers(item, known, notes)
        if element.VR not in TEXTS or not element.value or element.keyword in ("PatientID", "PatientName"):
            continue
        if known.are_in(element.keyword, str(element.VR), str(element.value)):
            element.value = REPLACED
            notes.append(f"{element.keyword} repeated an identifier and was replaced")


def _iterate_identifiers(dataset: Dataset, rules: Rules) -> Iterator[tuple[str, str]]:
    for element in _iterate_elements(dataset):
        try:
            vr, keyword, value = str(element.VR), element.keyword, element.value
        except Exception:
            continue
        if value is None or (vr != "PN" and keyword not in (*_NUMBERS, *_OF_WORDS, *_OF_PLACES)):
            continue
        kept = rules.action(int(element.tag), keyword, vr) is None
        if kept:
            continue
        many = [value] if isinstance(value, str) or not hasattr(value, "__iter__") or vr == "PN" else list(value)
        yield from ((keyword, str(one).strip().casefold()) for one in many)


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
