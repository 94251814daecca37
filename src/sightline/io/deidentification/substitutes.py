"""What stands in place of a value: dummies and codes that say nothing; content items that tell of a patient."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from sightline.io.deidentification.table import REPLACED, SOFTWARE_TEXT, SUBJECT_IDENTITY, SUBJECT_TRAITS, Rules

TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_DUMMIES = {"DA": "20000101", "TM": "000000", "DT": "20000101000000", "AS": "000Y", "DS": "0", "IS": "0"}
# where a content item holds what it says, in reports and in contexts of acquisition
_VALUES = (
    "ConceptCodeSequence",
    "Date",
    "DateTime",
    "FloatingPointValue",
    "MeasuredValueSequence",
    "NumericValue",
    "PersonName",
    "TextValue",
    "Time",
)


def make_dummy(vr: str, value: Any) -> Any:
    """Something of the same type that says nothing; what was empty stays empty."""
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return value
    if vr in _DUMMIES:
        return _DUMMIES[vr]
    if vr in TEXTS:
        return REPLACED
    if vr in ("OB", "OW", "OF", "OD", "OL", "OV"):
        return b"\0\0"
    return 0


def make_dummy_codes(items: Items) -> Items:
    """One code of a scheme of nobody's in place of codes; what was empty stays empty."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = REPLACED, f"99{REPLACED}", REPLACED
    return Items([code] if len(items) else [])


def is_of_software(item: Dataset) -> bool:
    """Whether a content item is a program's word about itself."""
    return _read_concept(item) in SOFTWARE_TEXT


def is_of_subject(item: Dataset, rules: Rules) -> bool:
    """Whether a content item tells who the patient is: name, id, birth, and unless kept age, sex, size."""
    concept = _read_concept(item)
    return concept in SUBJECT_IDENTITY or (concept in SUBJECT_TRAITS and "patient" not in rules.keep)


def blank_content(element: Any) -> bool:
    """Replace an element of such an item where it holds what the item says; whether it does."""
    if element.keyword not in _VALUES:
        return False
    if element.keyword == "MeasuredValueSequence":
        element.value = Items([])  # a number that was not measured
    elif element.VR == "SQ":
        element.value = make_dummy_codes(element.value)
    else:
        element.value = make_dummy(str(element.VR), element.value)
    return True


def _read_concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence") or []
    return str(names[0].get("CodeValue") or "") if names else ""
