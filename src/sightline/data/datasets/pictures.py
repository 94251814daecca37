"""A plain folder of pictures with a csv of labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sightline.data.datasets.folder.format import HEAD, parse_split
from sightline.errors import LayoutError, SightlineError, count_noun
from sightline.io.image import find_images, read_image
from sightline.io.picture import Reject
from sightline.io.tables import CsvRow, find_path_inside, is_absolute, read_table
from sightline.structures.case import Case, Cohort, describe_unknown_patients, order_classes
from sightline.structures.identifiers import name_files, normalise_form


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    labels: Path | None = None
    """csv with the columns `file` and `label`, and where known `patient_id`, `study_id`, `view`, `split`; by default
    labels.csv in the source. Every other column becomes a fact of the case."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of logits, the positive one last; by default the labels found: normal first, then
    sorted."""
    fractions: tuple[float, float, float] | None = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified, where the table has no splits."""
    seed: int = 0
    """Seed of the split."""


_KNOWN = ("file", "label", "patient_id", "study_id", "view", "split")


def read(source: str | Path, options: Options | None = None) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read every picture that the table names.

    Without `patient_id` every study counts as its own patient, and `about` warns; without `study_id` every picture is
    a study of its own.

    Args:
        source: folder of the pictures, at any depth.
        options: see `Options`; its defaults when left out.

    Returns:
        The cohort, in the order of the table, and what was left out: pictures that cannot be read, rows whose picture
        is not there, pictures that no row names.

    Raises:
        LayoutError: no table, a missing column, an unknown class, or no picture is left.

    Example:
        `read("scans", Options(labels=Path("scans/truth.csv")))` with a table that begins `file,label,patient_id`.
    """
    source, options = Path(source), options or Options()
    table = options.labels or source / "labels.csv"
    if not Path(table).is_file():
        raise LayoutError(
            f"{table}: no such table.", "Write a csv with the columns file and label, or name it: --labels."
        )
    rows = read_table(Path(table), ("file", "label"), key="file", known=_KNOWN)
    found = {path.resolve() for path in find_images(source, apart_from=HEAD)} - {Path(table).resolve()}
    splits = [parse_split(row) for row in rows]  # another word says nothing of what was meant
    ids = name_files(row["file"] for row in rows)
    cases: list[Case] = []
    rejects: list[Reject] = []
    named: dict[Path, CsvRow] = {}
    for row, split in zip(rows, splits, strict=True):
        path = find_path_inside(source, row["file"])
        if path is None or not path.is_file():
            reason = f"{table}: row {row.number}: {row['file']!r} is no file under {source}."
            whole = is_absolute(row["file"])
            remedy = f"Write paths relative to {source}." if whole else "Correct the row or add the file."
            rejects.append(Reject(Path(row["file"]), reason, remedy))
            continue
        earlier = named.setdefault(path, row)
        if earlier is not row:
            raise row.error("file", f"names the picture of row {earlier.number} again", "Remove one row.")
        found.discard(path.resolve())
        try:
            cases.append(replace(_build_case(row, path, ids[row["file"]]), split=split))
        except SightlineError as error:
            rejects.append(Reject(path, error.message, error.remedy))
    rejects += [Reject(p, f"no row of {table} names it.", "Add a row, or leave it out.") for p in sorted(found)]
    if not cases:
        first = f" The first: {rejects[0].reason}" if rejects else ""
        raise LayoutError(
            f"{table}: none of its {count_noun(len(rows), 'row')} names a picture that was read.{first}",
            rejects[0].remedy if rows else "Add a row for every picture.",
        )
    classes = options.classes or order_classes(case.label for case in cases)
    strange = sorted({case.label for case in cases} - {normalise_form(name) for name in classes})
    if strange:
        raise LayoutError(
            f"{table}: the label {strange[0]!r} is not among the classes {list(classes)}.", "Name it too."
        )
    about = {"layout": "pictures", "labels": Path(table).name, "counts": f"rows {len(rows)}, kept {len(cases)}"}
    if unknown := sum(not row["patient_id"] for row in rows):
        about["patients"] = describe_unknown_patients(unknown, len(rows), "patient_id")
    return Cohort(source.resolve().name, classes, tuple(cases), source, about), tuple(rejects)


def _build_case(row: CsvRow, path: Path, name: str) -> Case:
    picture = read_image(path)
    study = (row["study_id"] or name).strip()
    facts = {key: value for key, value in row.cells.items() if key not in _KNOWN and value}
    rows, columns = picture.pixels.shape[:2]
    return Case(
        name,
        study,
        (row["patient_id"] or study).strip(),
        path,
        row.need("label"),
        split=None,
        view=row["view"],
        shape=(rows, columns),
        spacing_mm=picture.frame.spacing_mm,
        facts=facts,
    )
