"""Whose an image is by its header: the id and who issued it, and where no id stands the name and the day of birth."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sightline.structures.identifiers import normalise_form

# letters of a digest: few enough to be read in a database, enough that two patients never share one
_DIGEST = 16


@dataclass(frozen=True)
class NamedPatient:
    """Whom a header names.

    Attributes:
        id: PatientID as it stands.
        issuer: IssuerOfPatientID in one spelling; empty where it is not stated, which contradicts no issuer.
        person: name and day of birth in one spelling; None where an id stands (a name may be corrected), or where
            nobody knows any more.
    """

    id: str
    issuer: str = ""
    person: str | None = None

    def pseudonymise(self, salt: str) -> NamedPatient:
        """The same with digests for issuer and person, which can be compared where the salt is the same."""
        person = None if self.person is None else _digest_text(salt, self.person)
        return replace(self, issuer=self.issuer and _digest_text(salt, self.issuer), person=person)


def read_named_patient(dataset: Any) -> NamedPatient:
    """Whom a pydicom Dataset names."""
    named = _read_text(dataset, "PatientID")
    person = None
    if not named:
        born = _read_text(dataset, "PatientBirthDate")
        person = f"{normalise_person_name(_read_text(dataset, 'PatientName'))}\0{born}"
    return NamedPatient(named, _normalise_text(_read_text(dataset, "IssuerOfPatientID")), person)


def normalise_person_name(text: str) -> str:
    """A name in one spelling: its first alphabet that is given, without case, padding and empty ends.

    Example:
        >>> normalise_person_name("DOE^John ^^^"), normalise_person_name("Doe^John"), normalise_person_name("^^")
        ('doe^john', 'doe^john', '')
    """
    for alphabet in text.split("="):
        parts = [_normalise_text(part) for part in alphabet.split("^")]
        if any(parts):
            return "^".join(parts).rstrip("^")
    return ""


def count_patients(patients: Iterable[NamedPatient]) -> tuple[int, str]:
    """How many patients images name, and the words of the header that tell them apart.

    Example:
        >>> count_patients([NamedPatient("1", "a"), NamedPatient("1"), NamedPatient("1", "b")])
        (2, 'IssuerOfPatientID')
    """
    named = list(patients)
    for words, found in (
        ("PatientID", {one.id for one in named}),
        ("IssuerOfPatientID", {one.issuer for one in named} - {""}),
        ("PatientName and PatientBirthDate, as PatientID is empty", {one.person for one in named} - {None}),
    ):
        if len(found) > 1:
            return len(found), words
    return min(1, len(named)), ""


def separate_issuers(patients: Sequence[NamedPatient], studies: Sequence[str]) -> tuple[list[str], int]:
    """An id for the patient of each image, and how many images name an id of several issuers and none of them.

    It is PatientID as it stands; where several issuers gave one id to a patient each, the issuer stands behind it as in
    HL7, stated or taken from the study's other images.

    Example:
        >>> one, other = NamedPatient("1", "clinic"), NamedPatient("1", "practice")
        >>> separate_issuers([one, other, NamedPatient("1"), NamedPatient("2", "clinic")], ["s", "t", "u", "v"])
        (['1^^^clinic', '1^^^practice', '1', '2'], 1)
    """
    ids = [normalise_form(one.id) for one in patients]
    issuers: dict[str, set[str]] = {}
    of_study: dict[tuple[str, str], set[str]] = {}
    for name, one, study in zip(ids, patients, studies, strict=True):
        if name and one.issuer:
            issuers.setdefault(name, set()).add(one.issuer)
            of_study.setdefault((study, name), set()).add(one.issuer)
    named, unclear = [], 0
    for name, one, study in zip(ids, patients, studies, strict=True):
        if len(issuers.get(name, ())) < 2:
            named.append(one.id)
            continue
        beside = of_study.get((study, name), set())
        issuer = one.issuer or (min(beside) if len(beside) == 1 else "")
        named.append(f"{one.id}^^^{issuer}" if issuer else one.id)
        unclear += not issuer
    return named, unclear


def describe_unclear_issuers(pictures: str) -> str:
    """What a cohort says of itself where pictures (or series), so many, name a patient's id and not whose it is."""
    return f"{pictures} with a PatientID that several issuers gave, and no IssuerOfPatientID; splits may leak patients"


def _read_text(dataset: Any, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
    except Exception:  # bytes that do not follow their type name nobody
        return ""
    return "" if value is None else str(value).strip()


def _normalise_text(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _digest_text(salt: str, text: str) -> str:
    return hashlib.sha256(f"{salt}\0{text}".encode()).hexdigest()[:_DIGEST]
