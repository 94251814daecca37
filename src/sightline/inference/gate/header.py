"""The gate's first check: what an image's header says, and whether a run may be asked about such an image.

Words of different hospitals are brought to one spelling first (`Handgelenk`, `WRIST LEFT` -> `WRIST`). An image that
does not say what it shows is no fitting one, unless the empty word `""` is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from sightline.errors import RunError
from sightline.io.dicom.radiograph import read_text

Facts = Mapping[str, Any]

# DICOM's defined terms (PS3.16 annex L), with what stands in files instead of them
_BODY_PARTS = {
    "WRIST": ("HANDGELENK", "POIGNET", "POLSO", "MUNECA", "PULS", "HANDGEL", "CARPUS", "WRST"),
    "HAND": ("MAIN", "MANO", "HÄNDE", "HANDS"),
    "FINGER": ("DOIGT", "DITO", "DEDO", "FINGERS"),
    "THUMB": ("DAUMEN", "POUCE", "POLLICE"),
    "FOREARM": ("UNTERARM", "RADIUS", "ULNA", "AVANTBRAS"),
    "ELBOW": ("ELLENBOGEN", "COUDE", "GOMITO", "CODO"),
    "HUMERUS": ("OBERARM", "ARM", "UPPERARM"),
    "SHOULDER": ("SCHULTER", "EPAULE", "SPALLA", "HOMBRO"),
    "CLAVICLE": ("SCHLÜSSELBEIN", "KLAVIKULA", "CLAVICULA"),
    "CHEST": ("THORAX", "LUNG", "LUNGS", "TORAX", "TORACE", "POUMON", "CXR"),
    "RIB": ("RIPPE", "RIPPEN", "RIBS"),
    "ABDOMEN": ("BAUCH", "ADDOME"),
    "PELVIS": ("BECKEN", "BASSIN", "BACINO"),
    "HIP": ("HÜFTE", "HUEFTE", "HANCHE", "ANCA", "CADERA", "HIPS"),
    "FEMUR": ("OBERSCHENKEL", "THIGH", "UPPERLEG"),
    "KNEE": ("KNIE", "GENOU", "GINOCCHIO", "RODILLA", "KNEES"),
    "LEG": ("UNTERSCHENKEL", "TIBIA", "FIBULA", "LOWERLEG", "TIBFIB", "JAMBE"),
    "ANKLE": ("SPRUNGGELENK", "OSG", "CHEVILLE", "CAVIGLIA", "TOBILLO"),
    "FOOT": ("FUSS", "FUß", "PIED", "PIEDE", "PIE", "FEET"),
    "SKULL": ("SCHÄDEL", "SCHAEDEL", "HEAD", "KOPF", "CRANE", "CRANIO"),
    "SPINE": ("WIRBELSÄULE", "WIRBELSAEULE", "WHOLESPINE"),
    "CSPINE": ("HWS", "CERVICALSPINE", "CSPINE"),
    "TSPINE": ("BWS", "THORACICSPINE", "TSPINE"),
    "LSPINE": ("LWS", "LUMBARSPINE", "LSPINE"),
}
_BODY_PART = {word: part for part, words in _BODY_PARTS.items() for word in (part, *words)}
_SIDES = {"LEFT", "RIGHT", "LINKS", "RECHTS", "LI", "RE", "L", "R", "LT", "RT", "BILATERAL", "BEIDE", "BOTH"}
_VIEWS = dict.fromkeys(("LATERAL", "LL", "RL", "LLAT", "RLAT", "SEITLICH", "ML", "LM"), "LAT")
_VIEWS |= {"DP": "PA", "POSTEROANTERIOR": "PA", "ANTEROPOSTERIOR": "AP", "PD": "AP"}
OWN_MANUFACTURER = "sightline"
OWN_SERIES = "AI RESEARCH"


@dataclass(frozen=True)
class HeaderLimits:
    """What a run may be asked about, by its header; None where anything goes.

    Attributes:
        modality: modalities.
        body_part: body parts in one spelling; `""` for images that do not say.
        view: view positions in one spelling; `""` likewise.
        laterality: sides L, R, B, U; `""` likewise.
        age: youngest and oldest age in years.
    """

    modality: tuple[str, ...] | None = None
    body_part: tuple[str, ...] | None = None
    view: tuple[str, ...] | None = None
    laterality: tuple[str, ...] | None = None
    age: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse ages that no patient can have."""
        if self.age is not None and not (0.0 <= self.age[0] <= self.age[1] and math.isfinite(self.age[0])):
            raise RunError(
                f"The ages {self.age[0]} to {self.age[1]} hold no patient; the youngest and the oldest in years were "
                "expected.",
                "Write for example --age 18 90, or --age 18 inf.",
            )

    def to_plain(self) -> dict[str, Any]:
        """As it stands in gate.json."""
        found = {name: list(value) for name, value in asdict(self).items() if value is not None}
        if self.age is not None:
            found["age"] = [None if math.isinf(age) else age for age in self.age]
        return found

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> HeaderLimits:
        """Of what stands in gate.json; unknown words raise TypeError."""
        found: dict[str, Any] = {name: tuple(value) for name, value in plain.items()}
        if "age" in found:
            low, high = found["age"]
            found["age"] = (float(low), math.inf if high is None else float(high))
        return cls(**found)


def normalise_body_part(text: str) -> str:
    """A body part in one spelling; an unknown one in capitals, without sides and signs.

    Example:
        >>> normalise_body_part("Handgelenk links"), normalise_body_part("WRIST"), normalise_body_part("")
        ('WRIST', 'WRIST', '')
    """
    words = [word for word in re.split(r"[^\wÄÖÜß]+|_", text.upper()) if word and word not in _SIDES]
    whole = "".join(words)
    if whole in _BODY_PART:
        return _BODY_PART[whole]
    known = {_BODY_PART[word] for word in words if word in _BODY_PART}
    return known.pop() if len(known) == 1 else whole


def normalise_view(text: str) -> str:
    """A view position in one spelling.

    Example:
        >>> normalise_view("Lateral"), normalise_view("pa "), normalise_view("")
        ('LAT', 'PA', '')
    """
    word = re.sub(r"[^A-Z]", "", text.upper())
    return _VIEWS.get(word, word)


def read_header_facts(dataset: Any) -> dict[str, Any]:
    """What rules and the header check look at, of a pydicom Dataset without pixels; no name, no id, no date in it."""
    facts: dict[str, Any] = {
        name: _read_text(dataset, keyword)
        for name, keyword in {
            "modality": "Modality",
            "sop_class": "SOPClassUID",
            "body_part": "BodyPartExamined",
            "view": "ViewPosition",
            "intent": "PresentationIntentType",
            "photometric": "PhotometricInterpretation",
            "image_type": "ImageType",
            "manufacturer": "Manufacturer",
            "device": "ManufacturerModelName",
            "priority": "StudyPriorityID",
        }.items()
    }
    facts["laterality"] = _read_text(dataset, "ImageLaterality") or _read_text(dataset, "Laterality")
    facts["own"] = facts["manufacturer"] == OWN_MANUFACTURER or _read_text(dataset, "SeriesDescription").startswith(
        OWN_SERIES
    )
    facts["frames"] = _read_number(dataset, "NumberOfFrames") or 1
    facts["rows"], facts["columns"] = _read_number(dataset, "Rows") or 0, _read_number(dataset, "Columns") or 0
    facts["age"] = read_patient_age(dataset)
    return facts


def check_header(facts: Facts, limits: HeaderLimits) -> str:
    """Why a run may not be asked about an image, or an empty text where it may."""
    if facts.get("own"):
        return "a result of sightline, not a radiograph"
    if not facts.get("rows") or not facts.get("columns"):
        return "no image: the object has no rows and columns"
    if facts.get("intent") == "FOR PROCESSING":
        return "FOR PROCESSING: raw data, not made to be looked at"
    if facts.get("frames", 1) != 1:
        return f"{facts['frames']} frames; a radiograph has one"
    return _find_first_mismatch(
        (
            ("modality", str(facts.get("modality", "")).upper(), limits.modality),
            (
                "body part",
                normalise_body_part(str(facts.get("body_part", ""))),
                _spell_each(normalise_body_part, limits.body_part),
            ),
            ("view", normalise_view(str(facts.get("view", ""))), _spell_each(normalise_view, limits.view)),
            ("laterality", str(facts.get("laterality", "")), limits.laterality),
        )
    ) or _check_age(facts.get("age"), limits.age)


def _spell_each(spell: Any, words: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if words is None else tuple(spell(word) for word in words)


def _find_first_mismatch(checks: Sequence[tuple[str, str, Sequence[str] | None]]) -> str:
    for name, word, allowed in checks:
        if allowed is not None and word not in allowed:
            expected = ", ".join(x or "none" for x in allowed)
            return f"the {name} is {word or 'not stated'}, not {expected}"
    return ""


def _check_age(age: float | None, limits: tuple[float, float] | None) -> str:
    if limits is None or (limits[0] <= 0 and math.isinf(limits[1])):
        return ""
    if age is None:
        return "the age is not stated"
    # a person is 15 until the 16th birthday
    years = math.floor(age)
    return "" if limits[0] <= years <= limits[1] else f"the age is {years}, not {limits[0]:.0f} to {limits[1]:.0f}"


def read_patient_age(dataset: Any) -> float | None:
    """Age in years, by PatientAge or from the dates of birth and study; None where neither reads."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", _read_text(dataset, "PatientAge"))
    if found:
        return int(found[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[found[2]]
    born, then = _parse_date(_read_text(dataset, "PatientBirthDate")), _parse_date(_read_text(dataset, "StudyDate"))
    if born is None or then is None or then < born:
        return None
    before_birthday = (then.month, then.day) < (born.month, born.day)
    return float(then.year - born.year - before_birthday)


def _parse_date(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def _read_text(dataset: Any, keyword: str) -> str:
    return read_text(dataset, keyword)[:256]


def _read_number(dataset: Any, keyword: str) -> int | None:
    try:
        return int(_read_text(dataset, keyword))
    except ValueError:
        return None
