"""A tree of DICOM files, grouped into studies and patients, as a cohort; what cannot be a radiograph is listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.data.datasets.folder.format import HEAD
from sightline.errors import LayoutError, SightlineError, UnreadableFile, count_noun
from sightline.io.dicom.patient import NamedPatient, describe_unclear_issuers, separate_issuers
from sightline.io.dicom.radiograph import (
    Header,
    read_dicom,
    read_header,
    require_radiograph,
)
from sightline.io.image import find_images, read_head
from sightline.io.picture import DICOM_SUFFIXES, Reject, has_dicom_mark
from sightline.io.tables import choose_key, read_table, unify_key
from sightline.structures.case import Case, Cohort, describe_unknown_patients, order_classes
from sightline.structures.identifiers import normalise_form

UNKNOWN = "unknown"
_KEYS = ("sop_uid", "study_uid", "file")
# identities say nothing about how a picture was made, so the shortcut audit does not get them
_IDENTITIES = ("study_uid", "series_uid", "sop_uid")


@dataclass(frozen=True)
class _Row:
    """One line of a labels table."""

    line: int
    key: str
    value: str
    label: str


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    labels: Path | None = None
    """csv with `label` and one of `sop_uid`, `study_uid` or `file`; without it every case has the class "unknown"."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of logits, the positive one last; by default the labels found: normal first, then
    sorted."""
    name: str | None = None
    """What the cohort is called; by default the folder's name."""
    check_pixels: bool = True
    """Decode every file, so that damaged pixels are found now."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified, where there is more than one class."""
    seed: int = 0
    """Seed of the split."""


def read(source: str | Path, options: Options | None = None) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read every DICOM radiograph in a folder and below it.

    Views of a study share StudyInstanceUID (an image without one is a study of its own). Patients share PatientID;
    a file without one is of the patient of its study. Where several issuers (IssuerOfPatientID) gave one PatientID,
    each has a patient of its own, and the issuer stands behind the id.

    Nothing stops at a bad file: it is listed with reason and remedy.

    Args:
        source: folder (or one file).
        options: see `Options`; its defaults when left out.

    Returns:
        The cohort, in order of path, and the files left out: no DICOM, no radiograph, damaged, the same
        SOPInstanceUID again, in a study of several patients, or without a label; and rows of the labels table that no
        file answers to.

    Raises:
        UnreadableFile: nothing stands at `source`.
        LayoutError: the labels table lacks columns, contradicts itself, or has labels outside `classes`.
    """
    source, options = Path(source), options or Options()
    rows = None if options.labels is None else _read_labels(Path(options.labels), options.classes)
    used: set[int] = set()
    seen: dict[str, Path] = {}
    cases: list[Case] = []
    issuers: list[str] = []
    rejects: list[Reject] = []
    naming: set[Path] = set()
    odd: list[str] = []
    # a cohort that was imported into its source would be its own second copy
    for file in find_images(source, apart_from=HEAD):
        try:
            header = _read_radiograph(file, check_pixels=options.check_pixels)
            sop_uid = header.facts.get("sop_uid", "")
            if sop_uid and sop_uid in seen:
                raise UnreadableFile(
                    f"{file}: the same SOPInstanceUID as {seen[sop_uid]}; the first was kept.",
                    "Remove the copy, or give different images different identities.",
                )
            label = UNKNOWN if rows is None else _find_label(header, source, rows, used)
        except SightlineError as error:
            rejects.append(Reject(file, error.message, error.remedy))
            continue
        if sop_uid:
            seen[sop_uid] = file
        if header.names_patient:
            naming.add(file)
        cases.append(_build_case(header, source, label))
        issuers.append(header.issuer)
        odd += [f"{cases[-1].case_id}: {'; '.join(header.size_remarks)}"] if header.size_remarks else []
    cases, unclear = _separate_patients(cases, issuers)
    cases, shared = _give_studies_one_patient(cases)
    rejects += shared
    for row in (rows or {}).values():
        if row.line not in used:
            place = f"{options.labels}: line {row.line}"
            reason = f"{place}: {row.key} {row.value!r} is that of no radiograph that was read."
            rejects.append(Reject(Path(str(options.labels)), reason, "Correct the row or add the file."))
    found = {case.label for case in cases} if rows is None else {row.label for row in rows.values()}
    names = (
        tuple(options.classes)
        if rows is not None and options.classes is not None
        else order_classes(found) or (UNKNOWN,)
    )
    about = {
        "layout": "dicom",
        "source": source.name,
        "labels": "" if options.labels is None else Path(options.labels).name,
    }
    if unknown := sum(case.patient_id == case.study_id for case in cases):
        about["patients"] = describe_unknown_patients(unknown, len(cases), "PatientID")
    if unclear:
        about["warning: issuers"] = describe_unclear_issuers(count_noun(unclear, "picture"))
    if named := sum(case.image in naming for case in cases):
        about["warning: identity"] = (
            f"{named} of {count_noun(len(cases), 'picture')} name their patient or a day of birth; "
            "sightline deidentify SRC DEST writes copies that do not"
        )
    if odd:
        about["warning: pixel size"] = (
            f"of {count_noun(len(odd), 'picture')} not all is taken that is stated of the size of pixels, e.g. {odd[0]}"
        )
    if shut := sum("shutter" in case.facts for case in cases):
        verb = "states" if shut == 1 else "state"
        about["warning: display shutters"] = (
            f"{shut} of {count_noun(len(cases), 'picture')} {verb} a display shutter: what it hides is shown black"
        )
    return Cohort(options.name or source.resolve().name, names, tuple(cases), source, about), tuple(rejects)


def _read_radiograph(file: Path, *, check_pixels: bool) -> Header:
    if not has_dicom_mark(read_head(file)) and file.suffix.lower() not in DICOM_SUFFIXES:
        raise UnreadableFile(f"{file}: not a DICOM file.", "Import pictures with another layout, e.g. folder.")
    header = read_header(file)
    if check_pixels:
        # objects without pixels are refused here in words of their own, before their modality is looked at
        read_dicom(file)
    require_radiograph(header)
    if header.shape is None:
        raise UnreadableFile(
            f"{file}: the header states no rows and columns, so it is no image.", "Leave the file out."
        )
    return header


def _build_case(header: Header, source: Path, label: str) -> Case:
    place = _make_relative(header.file, source)
    facts = dict(header.facts)
    study = facts.get("study_uid", "") or place
    return Case(
        case_id=facts.get("sop_uid", "") or place,
        study_id=study,
        patient_id=header.patient_id or study,
        image=header.file,
        label=label,
        view=facts.get("view_position", ""),
        shape=header.shape,
        spacing_mm=header.spacing_mm,
        facts={key: text for key, text in facts.items() if key not in _IDENTITIES},
    )


def _separate_patients(cases: Sequence[Case], issuers: Sequence[str]) -> tuple[list[Case], int]:
    """The cases, with the issuer behind each PatientID that several issuers gave, and how many lack theirs."""
    known = [case.patient_id if case.patient_id != case.study_id else "" for case in cases]
    patients = [NamedPatient(patient, issuer) for patient, issuer in zip(known, issuers, strict=True)]
    named, unclear = separate_issuers(patients, [case.study_id for case in cases])
    return [replace(case, patient_id=name or case.patient_id) for case, name in zip(cases, named, strict=True)], unclear


def _give_studies_one_patient(cases: Sequence[Case]) -> tuple[list[Case], list[Reject]]:
    """The cases, those without PatientID with that of their study's other files; studies of several are left out."""
    named: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.patient_id != case.study_id:
            named[case.study_id].add(case.patient_id)
    kept: list[Case] = []
    rejects: list[Reject] = []
    for case in cases:
        patients = sorted(named[case.study_id])
        if len(patients) > 1:
            reason = f"{case.image}: its study {case.study_id} belongs to several patients: {patients}."
            rejects.append(Reject(case.image, reason, "Correct PatientID, or give each patient a study."))
        else:
            kept.append(replace(case, patient_id=patients[0]) if patients else case)
    return kept, rejects


def _make_relative(file: Path, source: Path) -> str:
    return file.name if source.is_file() else file.relative_to(source).as_posix()


def _read_labels(path: Path, classes: Sequence[str] | None) -> dict[str, _Row]:
    table = read_table(path, ("label",), known=_KEYS)
    columns = list(table[0].cells) if table else []
    key = choose_key(table, _KEYS)
    if key is None:
        raise LayoutError(
            f"{path}: the labels table has the columns {columns}; `label` and one of {', '.join(_KEYS)} were expected.",
            "Name the columns so in the first line.",
        )
    known: dict[str, _Row] = {}
    for line in table:
        row = _Row(line.number, key, line[key], normalise_form(line["label"]))
        if not row.value or not row.label:
            raise LayoutError(f"{path}: line {row.line} lacks its {key} or its label.", "Fill or remove the line.")
        if classes is not None and row.label not in map(normalise_form, classes):
            raise LayoutError(
                f"{path}: line {row.line}: label {row.label!r} is none of the classes {list(classes)}.",
                "Correct the label or add the class.",
            )
        first = known.setdefault(unify_key(key, row.value), row)
        if first is not row:
            raise LayoutError(
                f"{path}: lines {first.line} and {row.line} both label {key} {row.value!r}.", "Keep one of them."
            )
    return known


def _find_label(header: Header, source: Path, rows: dict[str, _Row], used: set[int]) -> str:
    key = next((row.key for row in rows.values()), "file")
    value = _make_relative(header.file, source) if key == "file" else header.facts.get(key, "")
    row = rows.get(unify_key(key, value))
    if row is not None:
        used.add(row.line)
        return row.label
    raise UnreadableFile(
        f"{header.file}: the labels table has no row with {key} {value!r}.", "Add the row or leave the file out."
    )
