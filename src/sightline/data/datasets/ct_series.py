"""A tree of DICOM CT series, each as one volume in Hounsfield units (NIfTI), with a csv of labels."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from sightline.data.spine.patch_cohort import Bar
from sightline.data.split import split_cohort
from sightline.errors import LayoutError, SightlineError, UnreadableFile, count_noun
from sightline.io.ct import require_hounsfield
from sightline.io.dicom.patient import NamedPatient, describe_unclear_issuers, separate_issuers
from sightline.io.dicom.series import FoundSeries, find_series
from sightline.io.files import BEGUN, make_file_name
from sightline.io.nifti import write_volume
from sightline.io.picture import Reject, mention_rejects
from sightline.io.tables import CsvRow, choose_key, read_table, unify_key
from sightline.structures.case import Case, Cohort, describe_unknown_patients, order_classes
from sightline.structures.identifiers import normalise_form

UNKNOWN = "unknown"
# what may go with a label, for the shortcut audit
_AUDITED = ("kernel", "kvp", "manufacturer", "device_model", "body_part")
_KEYS = ("series_uid", "study_uid", "patient_id", "folder")


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    labels: Path | None = None
    """csv with `label` and one of `series_uid`, `study_uid`, `patient_id` or `folder` (of the slices, as seen from the
    source); every other column becomes a fact. Without it every case has the class "unknown"."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of logits, the positive one last; by default the labels found: normal first, then
    sorted."""
    name: str | None = None
    """What the cohort is called; by default the folder's name."""
    check_values: bool = True
    """Leave out series whose numbers cannot be Hounsfield units of a body (no air, or no bone)."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified, where there is more than one class."""
    seed: int = 0
    """Seed of the split."""


def cut(
    source: Path, destination: Path, options: Options | None = None, progress: Bar | None = None
) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read every CT series of a tree and write it as `images/SERIES.nii.gz` under `destination`.

    Slices are grouped by SeriesInstanceUID and sorted by ImagePositionPatient along the normal of their planes
    (`sightline.io.dicom.series`); oblique stacks keep their direction in the affine. A study without its UID is the
    series', a patient without PatientID the study's.

    Args:
        source: folder with the slices of any number of series, at any depth.
        destination: cohort folder.
        options: see `Options`; its defaults when left out.
        progress: what shows progress.

    Returns:
        The cohort, in order of the series' first files, and what was left out: series with slices missing, twice or
        unevenly spaced, with a tilted gantry, of one slice, or without a label; files that could not be read; rows of
        the table that no series answers to.

    Raises:
        LayoutError: no such folder, no CT series, no series that could be read, or a table that cannot be used.
    """
    options = options or Options()
    source, destination = Path(source), Path(destination)
    if not source.is_dir():
        raise LayoutError(f"{source}: no such folder.", "Give the folder that holds the DICOM files.")
    labels = None if options.labels is None else _Labels.read(Path(options.labels))
    found, unread, others = find_series(source)
    rejects = [Reject(file, error.message, error.remedy) for file, error in unread]
    if not found:
        raise LayoutError(
            f"{source}: no slices of a CT were found; {count_noun(others, 'other DICOM object')} "
            f"and {count_noun(len(unread), 'unreadable file')}.",
            "Give the folder that holds the CT series; radiographs are imported with the layout dicom.",
        )
    if (destination / BEGUN).exists():
        # of a call that was stopped or refused; another source would leave its volumes beside ours
        shutil.rmtree(destination / "images", ignore_errors=True)
    named = [NamedPatient(series.patient_id, series.issuer) for series in found]
    ids, unclear = separate_issuers(named, [series.study_uid for series in found])
    found = [replace(series, patient_id=patient) for series, patient in zip(found, ids, strict=True)]
    cases: list[Case] = []
    names: set[str] = set()
    patients: dict[str, set[str]] = defaultdict(set)
    for series in found:
        patients[series.study_uid].update({normalise_form(series.patient_id)} - {""})
    with progress("series", len(found)) if progress is not None else nullcontext(_ignore_progress) as advance:
        for series in found:
            try:
                label, facts = (UNKNOWN, {}) if labels is None else labels.of(series, source)
                _require_readable_neighbours(series, unread)
                patient = _find_patient(series, patients)
                case_id = _choose_new_name(series, source, names)
                cases.append(
                    _build_case(series, patient, case_id, destination, label, facts, check=options.check_values)
                )
            except SightlineError as error:
                rejects.append(Reject(series.folder, error.message, error.remedy))
            advance(1)
    rejects += [] if labels is None else labels.list_unused()
    if not cases:
        raise LayoutError(f"{source}: no series was read. The first: {rejects[0].reason}", rejects[0].remedy)
    classes = _choose_classes(cases, options, labels)
    about = {
        "layout": "dicom_ct",
        "source": source.name,
        "labels": "" if options.labels is None else Path(options.labels).name,
        "counts": f"series {len(found)}, kept {len(cases)}; DICOM objects that are no CT slices {others}",
    }
    if unknown := sum(case.patient_id == case.study_id for case in cases):
        about["patients"] = describe_unknown_patients(unknown, len(cases), "PatientID")
    if unclear:
        about["warning: issuers"] = describe_unclear_issuers(count_noun(unclear, "series", "series"))
    cohort = Cohort(options.name or source.resolve().name, classes, tuple(cases), destination, about)
    if len(classes) > 1:
        with mention_rejects(rejects):
            cohort = split_cohort(cohort, options.fractions, options.seed)
    return cohort, tuple(rejects)


def _ignore_progress(done: int) -> None:
    """Nobody looks at the progress."""


def _require_readable_neighbours(series: FoundSeries, unread: Sequence[tuple[Path, SightlineError]]) -> None:
    """Refuse a series beside a file that could not be read: it may be its first or last slice, which leaves no gap."""
    folders = {header.file.parent for header in series.headers}
    for file, _ in unread:
        if file.parent in folders:
            raise UnreadableFile(
                f"{series.folder}: {file.name} beside its slices cannot be read, so a slice of it may be missing.",
                "Copy the series again, or move the file away if it is no slice of it.",
            )


def _find_patient(series: FoundSeries, patients: Mapping[str, set[str]]) -> str:
    """The series' patient, or that of its study's other series; empty where none is named.

    Raises:
        UnreadableFile: series of several patients share the study.
    """
    if not series.study_uid:
        return series.patient_id
    named = sorted(patients[series.study_uid])
    if len(named) > 1:
        raise UnreadableFile(
            f"{series.folder}: its study {series.study_uid} belongs to several patients: {named}.",
            "Correct PatientID, or give each patient a study.",
        )
    return named[0] if named else ""


def _choose_new_name(series: FoundSeries, source: Path, names: set[str]) -> str:
    """The series' UID, or its folder where it has none; numbered where that is taken."""
    first = series.uid or series.folder.relative_to(source).as_posix()
    name, number = first, 2
    while name in names:
        name, number = f"{first}-{number}", number + 1
    names.add(name)
    return name


def _build_case(
    series: FoundSeries,
    patient: str,
    case_id: str,
    destination: Path,
    label: str,
    facts: Mapping[str, str],
    *,
    check: bool,
) -> Case:
    volume = series.read()
    if check:
        require_hounsfield(volume.values, series.folder)
    image = destination / "images" / f"{make_file_name(case_id)}.nii.gz"
    image.parent.mkdir(parents=True, exist_ok=True)
    write_volume(image, volume.values, volume.affine)
    study = series.study_uid or case_id
    facts_kept = {name: text for name, text in volume.facts.items() if name in _AUDITED}
    return Case(
        case_id,
        study,
        patient or study,
        image,
        label,
        shape=volume.values.shape,
        spacing_mm=volume.spacing_mm,
        facts=facts_kept | {"orientation": "".join(volume.orientation)} | dict(facts),
    )


def _choose_classes(cases: list[Case], options: Options, labels: _Labels | None) -> tuple[str, ...]:
    found = order_classes(case.label for case in cases)
    if labels is None:
        return found
    named = {normalise_form(name) for name in options.classes or found}
    strange = [label for label in found if label not in named]
    if strange:
        raise LayoutError(
            f"{options.labels}: the label {strange[0]!r} is not among the classes {list(options.classes or ())}.",
            "Name it too, or correct the table.",
        )
    return options.classes or found


@dataclass(frozen=True)
class _Labels:
    """The table of labels: its key column, its rows by that key, and which of them were used."""

    key: str
    rows: Mapping[str, CsvRow]
    used: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> _Labels:
        head = read_table(path, ("label",), known=_KEYS)
        columns = list(head[0].cells) if head else []
        key = choose_key(head, _KEYS)
        if key is None:
            raise LayoutError(
                f"{path}: the labels table has the columns {columns}; `label` and one of {', '.join(_KEYS)} were "
                "expected.",
                "Name the columns so in the first line.",
            )
        rows: dict[str, CsvRow] = {}
        for row in read_table(path, ("label",), key=key, known=_KEYS):
            first = rows.setdefault(unify_key(key, row[key]), row)
            if first is not row:
                raise row.error(key, f"is that of row {first.number}, written another way", "Remove one row.")
        return cls(key, rows)

    def of(self, series: FoundSeries, source: Path) -> tuple[str, dict[str, str]]:
        """The label of a series, and the facts beside it."""
        place = series.folder.relative_to(source).as_posix()
        value = {"series_uid": series.uid, "study_uid": series.study_uid, "patient_id": series.patient_id}.get(
            self.key, place
        )
        value = unify_key(self.key, value)
        row = self.rows.get(value)
        if row is None:
            raise UnreadableFile(
                f"{series.folder}: the labels table has no row with {self.key} {value!r}.",
                "Add the row or leave the series out.",
            )
        self.used.add(value)
        return row.need("label"), {k: v for k, v in row.cells.items() if k not in (*_KEYS, "label") and v}

    def list_unused(self) -> list[Reject]:
        """Rows that no series answers to."""
        return [
            Reject(row.path, f"row {row.number}: {self.key} {value!r} is that of no CT series.", "Correct the row.")
            for value, row in self.rows.items()
            if value not in self.used
        ]
