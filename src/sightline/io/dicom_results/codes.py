"""What classes, sites and titles are called in DICOM: coded concepts, from a table that a site can change.

Codes of SNOMED CT and DICOM stand with the meaning that the scheme (or PS3.16) gives them. A class that no table
knows gets a code of the private scheme 99SIGHTLINE, which says nothing to anybody else: `CodeTable.unknown` names
such classes, so that a person is told.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sightline.errors import LayoutError
from sightline.structures.identifiers import normalise_form

PRIVATE = "99SIGHTLINE"


class CodedConcept(NamedTuple):
    """A coded concept: value, scheme and meaning."""

    value: str
    scheme: str
    meaning: str


CERTAINTY = CodedConcept("111012", "DCM", "Certainty of Finding")
PRESENCE = CodedConcept("705057003", "SCT", "Presence")
PRESENT = CodedConcept("52101004", "SCT", "Present")
ABSENT = CodedConcept("272519000", "SCT", "Absent")
BOUNDED_BY = CodedConcept("75958009", "SCT", "Bounded by")
COMMENT = CodedConcept("121106", "DCM", "Comment")
AI = CodedConcept("123110", "DCM", "Artificial Intelligence")
REPORT_TITLE = CodedConcept("126000", "DCM", "Imaging Measurement Report")
RADIOGRAPHY = CodedConcept("168537006", "SCT", "Plain radiography")
TOMOGRAPHY = CodedConcept("77477000", "SCT", "Computed tomography")
MORPHOLOGY = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
ANATOMY = CodedConcept("123037004", "SCT", "Anatomical Structure")
VERTEBRA = CodedConcept("51282000", "SCT", "Vertebra")

# BodyPartExamined (PS3.16, annex L, table L-1) to the site's concept
SITES: Mapping[str, CodedConcept] = {
    "WRIST": CodedConcept("74670003", "SCT", "Wrist joint"),
    "HAND": CodedConcept("85562004", "SCT", "Hand"),
    "FINGER": CodedConcept("7569003", "SCT", "Finger"),
    "FOREARM": CodedConcept("14975008", "SCT", "Forearm"),
    "ELBOW": CodedConcept("16953009", "SCT", "Elbow joint"),
    "HUMERUS": CodedConcept("85050009", "SCT", "Humerus"),
    "HIP": CodedConcept("29836001", "SCT", "Hip"),
    "FEMUR": CodedConcept("71341001", "SCT", "Femur"),
    "ANKLE": CodedConcept("70258002", "SCT", "Ankle joint"),
    "FOOT": CodedConcept("56459004", "SCT", "Foot"),
    "FIBULA": CodedConcept("87342007", "SCT", "Fibula"),
    "KNEE": CodedConcept("72696002", "SCT", "Knee"),
    "SHOULDER": CodedConcept("16982005", "SCT", "Shoulder"),
    "CLAVICLE": CodedConcept("51299004", "SCT", "Clavicle"),
    "PELVIS": CodedConcept("816092008", "SCT", "Pelvis"),
    "SKULL": CodedConcept("89546000", "SCT", "Skull"),
    "EXTREMITY": CodedConcept("66019005", "SCT", "Extremity"),
    "CHEST": CodedConcept("816094009", "SCT", "Chest"),
    "CSPINE": CodedConcept("122494005", "SCT", "Cervical spine"),
    "TSPINE": CodedConcept("122495006", "SCT", "Thoracic spine"),
    "LSPINE": CodedConcept("122496007", "SCT", "Lumbar spine"),
}
# levels of the spine as VerSe names them
LEVELS: Mapping[str, CodedConcept] = {
    "T1": CodedConcept("64864005", "SCT", "T1 vertebra"),
    "T2": CodedConcept("53733008", "SCT", "T2 vertebra"),
    "T3": CodedConcept("1626008", "SCT", "T3 vertebra"),
    "T4": CodedConcept("73071006", "SCT", "T4 vertebra"),
    "T5": CodedConcept("56401006", "SCT", "T5 vertebra"),
    "T6": CodedConcept("45296009", "SCT", "T6 vertebra"),
    "T7": CodedConcept("62487009", "SCT", "T7 vertebra"),
    "T8": CodedConcept("11068009", "SCT", "T8 vertebra"),
    "T9": CodedConcept("82687006", "SCT", "T9 vertebra"),
    "T10": CodedConcept("7610001", "SCT", "T10 vertebra"),
    "T11": CodedConcept("12989004", "SCT", "T11 vertebra"),
    "T12": CodedConcept("23215003", "SCT", "T12 vertebra"),
    "L1": CodedConcept("66794005", "SCT", "L1 vertebra"),
    "L2": CodedConcept("14293000", "SCT", "L2 vertebra"),
    "L3": CodedConcept("36470004", "SCT", "L3 vertebra"),
    "L4": CodedConcept("11994002", "SCT", "L4 vertebra"),
    "L5": CodedConcept("49668003", "SCT", "L5 vertebra"),
}
_PARTS = ("value", "scheme", "meaning")
# what PS3.5 lets stand in an SH and an LO
_LONGEST = {"value": 16, "scheme": 16, "meaning": 64}


@dataclass(frozen=True)
class CodeTable:
    """Concepts of a run's classes and of sites.

    Attributes:
        findings: by class.
        sites: by BodyPartExamined, in capitals; those of SITES are known besides.
        title: of the reports.
    """

    findings: Mapping[str, CodedConcept] = field(default_factory=dict)
    sites: Mapping[str, CodedConcept] = field(default_factory=dict)
    title: CodedConcept = REPORT_TITLE

    def finding(self, label: str) -> CodedConcept:
        """The concept of a class; a private one where the table does not know it."""
        known = self.findings.get(label)
        if known is not None:
            return known
        plain = re.sub(r"[^A-Z0-9_.-]+", "_", label.upper()).strip("_")
        if not plain or len(plain) > 16 or not label.isascii():
            # cut names of two classes may be one
            plain = f"{plain[:7]}_{hashlib.sha256(label.encode()).hexdigest()[:8]}".strip("_").upper()
        return CodedConcept(plain, PRIVATE, label.strip()[:64] or "finding")

    def site(self, body_part: str) -> CodedConcept | None:
        """The concept of a BodyPartExamined, or None where it says nothing known."""
        name = body_part.strip().upper()
        return self.sites.get(name) or SITES.get(name)

    def unknown(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Classes that get a private code."""
        return tuple(label for label in labels if label not in self.findings)


def read_codes(path: Path) -> CodeTable:
    """Read a `codes.yaml`: `title`, `findings` by class and `sites` by BodyPartExamined, each with value, scheme,
    meaning.

    Raises:
        LayoutError: no YAML, unknown words, or parts that are missing, too long or no text.

    Example:
        ```yaml
        findings:
          fracture: {value: "125605004", scheme: SCT, meaning: Fracture of bone}
        ```
    """
    from sightline.io.yaml_files import read_yaml

    entry = read_yaml(path, "Point at the table of codes.").data or {}
    known = ("findings", "sites", "title")
    strange = sorted(set(entry) - set(known)) if isinstance(entry, dict) else ["(no mapping)"]
    if strange:
        raise LayoutError(f"{path}: {', '.join(map(str, strange))} is none of {', '.join(known)}.", "Rename it.")
    tables = {name: entry.get(name) or {} for name in ("findings", "sites")}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise LayoutError(f"{path}: {name} must be a mapping; got {table!r}.", "Write one class or site a line.")
    findings = {normalise_form(str(k)): _build_concept(path, f"findings.{k}", v) for k, v in tables["findings"].items()}
    sites = {str(k).upper(): _build_concept(path, f"sites.{k}", v) for k, v in tables["sites"].items()}
    title = _build_concept(path, "title", entry["title"]) if entry.get("title") else REPORT_TITLE
    return CodeTable(findings, sites, title)


def _build_concept(path: Path, place: str, entry: Any) -> CodedConcept:
    if not isinstance(entry, dict) or set(entry) != set(_PARTS):
        raise LayoutError(
            f"{path}: {place} must have value, scheme and meaning; got {entry!r}.",
            "Write {value: ..., scheme: ..., meaning: ...}; numbers in quotes.",
        )
    for part in _PARTS:
        text = entry[part]
        if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST[part] or "\\" in text:
            raise LayoutError(
                f"{path}: {part} of {place} must be a text of 1 to {_LONGEST[part]} letters; got {text!r}.",
                "Put it in quotes, and shorten it.",
            )
    return CodedConcept(entry["value"], entry["scheme"], entry["meaning"])
