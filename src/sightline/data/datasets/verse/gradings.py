"""Tables of fracture gradings (CSV or Excel, any column names) for the vertebrae of a VerSe data set.

Löffler et al. (2020) grade VerSe'19 after Genant. The names of their table's columns are not fixed here: a column map
says which column holds what. Two shapes are read: one row a vertebra, or one row a subject with a column a level, when
a mapped name holds `{level}` (`{"subject": "verse_ID", "grade": "{level}_fx-grade"}`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sightline.data.spine.vertebrae import LABELS, LEVELS
from sightline.errors import LayoutError, RecipeError
from sightline.io.tables import CsvRow, read_table

# what a column may hold, and the names that `fractures.csv` gives them
FIELDS = ("subject", "series", "label", "grade", "deformity", "foreign", "excluded")
_REQUIRED = ("subject", "label", "grade")
_DEFORMITIES = {
    "": "",
    "none": "",
    "no": "",
    "normal": "",
    "wedge": "wedge",
    "anterior wedge": "wedge",
    "biconcave": "biconcave",
    "biconcavity": "biconcave",
    "crush": "crush",
    "compression": "crush",
}
_YES, _NO = ("1", "yes", "true", "y", "x", "ja"), ("", "0", "no", "false", "n", "nein")
# the German names of the levels: Hals-, Brust- and Lendenwirbelkörper
_LEVEL = re.compile(r"(?:(c|hwk|hw)|(t|th|bwk|bw|d)|(l|lwk|lw))[\s_-]?0*(\d{1,2})", re.IGNORECASE)
_ABSENT = ("", "na", "n/a", "nan", "none", "-")


@dataclass(frozen=True)
class Grading:
    """What a table says of one vertebra.

    Attributes:
        subject: normalised, e.g. `verse004`.
        series: as the table names it, normalised, or empty where the row holds for every series of the subject.
        label: VerSe's number.
        grade: Genant's grade 0 to 3, or None where the cell is empty.
        deformity: `wedge`, `biconcave`, `crush` or empty.
        foreign: whether the vertebra holds foreign material.
        excluded: whether it is left out.
        place: table, row and column, for errors.
    """

    subject: str
    series: str
    label: int
    grade: int | None
    deformity: str = ""
    foreign: bool = False
    excluded: bool = False
    place: str = ""

    @property
    def verdict(self) -> tuple[int | None, str, bool, bool]:
        """What is said, without where."""
        return self.grade, self.deformity, self.foreign, self.excluded


def read_gradings(path: Path, columns: Mapping[str, str] | None = None) -> tuple[Grading, ...]:
    """Read a table of gradings.

    Args:
        path: a .csv file, or the first sheet of an .xlsx workbook.
        columns: the table's column for each of FIELDS; those not named are looked for under the field's own name.
            A name with `{level}` stands for one column a level (`T12_grade`, ...).

    Raises:
        RecipeError: the map names something that is no field.
        LayoutError: no such file, missing columns, or a cell that cannot be understood, with its row and column.
    """
    path = Path(path)
    named = dict(columns or {})
    strange = sorted(set(named) - set(FIELDS))
    if strange:
        raise RecipeError(f"The column map names {strange}; a table of gradings has {list(FIELDS)}.", "Fix the map.")
    rows = _read_workbook(path) if path.suffix.lower() in (".xlsx", ".xlsm") else read_table(path, [])
    header = list(rows[0].cells) if rows else []
    if not rows:
        raise LayoutError(f"{path}: the table has no rows.", "Give the table of gradings.")
    if "{level}" in named.get("grade", ""):
        return tuple(_read_wide_table(rows, header, named, path))
    lost = [column for field in FIELDS if (column := named.get(field, field)) not in header]
    refused = [c for f in FIELDS if (c := named.get(f, f)) in lost and (f in _REQUIRED or f in named)]
    if refused:
        raise LayoutError(
            f"{path} lacks the columns {refused}; it has {header}.",
            f"Map the table's own columns, e.g. columns={{'grade': '{header[-1]}'}}; fields are {', '.join(FIELDS)}.",
        )
    return tuple(_build_grading(row, {field: named.get(field, field) for field in FIELDS}, None) for row in rows)


def normalise_subject_name(text: str) -> str:
    """`sub-verse004`, `Verse004`, `004` and `4` all name `verse004`."""
    name = text.strip().lower().removeprefix("sub-")
    digits = re.fullmatch(r"0*(\d+)(?:\.0)?", name)
    return f"verse{int(digits.group(1)):03d}" if digits else name


def parse_vertebra_number(text: str) -> int | None:
    """VerSe's number of a vertebra given as number or level (`20`, `L1`, `Th12`, `BWK12`), or None."""
    number = re.fullmatch(r"(\d{1,2})(?:\.0)?", text.strip())
    if number:
        return int(number.group(1)) if int(number.group(1)) in LEVELS else None
    level = _LEVEL.fullmatch(text.strip())
    if level is None:
        return None
    letter = "C" if level.group(1) else "T" if level.group(2) else "L"
    return LABELS.get(f"{letter}{level.group(4)}")


def _read_wide_table(rows: list[CsvRow], header: list[str], named: Mapping[str, str], path: Path) -> Iterable[Grading]:
    levels = [level for level in LABELS if named["grade"].replace("{level}", level) in header]
    if not levels or named.get("subject", "subject") not in header:
        raise LayoutError(
            f"{path} lacks the columns {named.get('subject', 'subject')!r} or {named['grade']!r} for any level; "
            f"it has {header}.",
            "Fix the column map.",
        )
    for row in rows:
        for level in levels:
            names = {field: named.get(field, field).replace("{level}", level) for field in FIELDS}
            if row[names["grade"]].strip().lower() not in _ABSENT:  # an empty cell: this level is not in the scan
                yield _build_grading(row, names, LABELS[level])


def _build_grading(row: CsvRow, names: Mapping[str, str], label: int | None) -> Grading:
    if label is None:
        label = parse_vertebra_number(row.need(names["label"]))
        if label is None:
            raise row.error(names["label"], f"is {row[names['label']]!r}, expected a VerSe number or a level like T12")
    return Grading(
        normalise_subject_name(row.need(names["subject"])),
        row[names["series"]].strip().lower().removeprefix("sub-").removesuffix("_ct"),
        label,
        _parse_grade(row, names["grade"]),
        _parse_deformity(row, names["deformity"]),
        _flag(row, names["foreign"]),
        _flag(row, names["excluded"]),
        f"row {row.number} ({row[names['subject']]}, {LEVELS[label]})",
    )


def _parse_grade(row: CsvRow, column: str) -> int | None:
    text = row[column].strip().lower()
    if text in _ABSENT:
        return None
    match = re.fullmatch(r"([0-3])(?:\.0*)?", text)
    if match is None:
        raise row.error(column, f"is {row[column]!r}, expected Genant's grade 0, 1, 2 or 3, or nothing")
    return int(match.group(1))


def _parse_deformity(row: CsvRow, column: str) -> str:
    text = row[column].strip().lower()
    if text not in _DEFORMITIES and text not in _ABSENT:
        raise row.error(column, f"is {row[column]!r}, expected wedge, biconcave, crush or nothing")
    return _DEFORMITIES.get(text, "")


def _flag(row: CsvRow, column: str) -> bool:
    text = row[column].strip().lower().removesuffix(".0")
    if text not in _YES + _NO:
        raise row.error(column, f"is {row[column]!r}, expected yes or no")
    return text in _YES


def _read_workbook(path: Path) -> list[CsvRow]:
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise LayoutError(
            f"{path}: reading Excel workbooks needs the package openpyxl, which is not installed.",
            "Install openpyxl, or save the sheet as CSV UTF-8.",
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        records = [["" if cell is None else str(cell) for cell in record] for record in book.worksheets[0].values]
        book.close()
    except FileNotFoundError:
        raise LayoutError(f"{path} is missing.", "Give the table of gradings.") from None
    except Exception as error:  # a damaged workbook is a damaged archive of damaged XML: anything may be raised
        raise LayoutError(f"{path} cannot be read as an Excel workbook ({error}).", "Save it as CSV UTF-8.") from None
    header = [name.strip() for name in records[0]] if records else []
    if len({name for name in header if name}) < len([name for name in header if name]):
        raise LayoutError(f"{path} names a column twice: {header}.", "Give every column its own name.")
    rows = []
    for number, record in enumerate(records[1:], start=2):
        cells = {name: cell.strip() for name, cell in zip(header, record, strict=False) if name}
        if any(cells.values()):
            rows.append(CsvRow(path, number, cells))
    return rows
