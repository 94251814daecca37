"""CSV tables and JSON documents that people edit, read strictly: every refusal names file, row and column."""

from __future__ import annotations

import csv
import math
import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path, PureWindowsPath
from typing import Any

from sightline.errors import LayoutError, count_noun
from sightline.io.files import parse_json
from sightline.structures.identifiers import normalise_form

# what Linux, macOS and Windows can hold at most
MOST_NAME_BYTES, MOST_PARTS = 255, 100
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class CsvRow:
    """One record of a table.

    Attributes:
        path: the table's file.
        number: row as a spreadsheet counts it; the header is row 1.
        cells: text by column name.
    """

    path: Path
    number: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        """The text of a cell; empty where the table has no such column."""
        return self.cells.get(column, "")

    def need(self, column: str) -> str:
        """The text of a cell that may not be empty."""
        if not self[column]:
            raise self.error(column, "is empty")
        return self[column]

    def integer(self, column: str) -> int | None:
        """A whole number, or None where the cell is empty."""
        try:
            return int(refuse_underscores(drop_zeros(self[column]))) if self[column] else None
        except ValueError:
            raise self.error(column, f"is {self[column]!r}, expected a whole number") from None

    def number_of(self, column: str) -> float | None:
        """A finite number, or None where the cell is empty."""
        try:
            value = float(refuse_underscores(self[column])) if self[column] else None
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise self.error(column, f"is {self[column]!r}, expected a finite number")
        return value

    def error(self, column: str, what: str, remedy: str = "Fix this cell of the table.") -> LayoutError:
        """A refusal that names file, row and column."""
        return LayoutError(f"{self.path}: row {self.number}, column {column!r} {what}.", remedy)


def drop_zeros(text: str) -> str:
    """A whole number without the `.0` that spreadsheets and pandas write behind it; any other text as it is."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text)


def refuse_underscores(text: str) -> str:
    """A text that is to be a number; Python would take 1_5 for 15, where a comma or a point was lost.

    Raises:
        ValueError: it holds one.
    """
    if "_" in text:
        raise ValueError(f"{text[:40]!r} is no number")
    return text


def parse_number(value: Any) -> float:
    """A number of a document that people edit; Python would take true for 1.

    Raises:
        ValueError, TypeError, OverflowError: it is none.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number")
    return float(refuse_underscores(value) if isinstance(value, str) else value)


def read_table(
    path: Path,
    required: Sequence[str],
    *,
    key: str | None = None,
    known: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> list[CsvRow]:
    """Read a CSV table with a header (UTF-8, or UTF-16 with its mark, as Excel's "Unicode text"; quoted fields may hold
    newlines; a first line `sep=;` names the separator).

    Commas separate cells, or semicolons, tabs or bars where the header has no comma. Blanks around cells (but facts)
    are no part of them: `P1 ` beside `P1` would be another patient. Rows without any text are passed over. A column
    that differs from a required or known one in case, blanks and marks alone is that one: `Patient ID` is `patient_id`.

    Args:
        path: the file.
        required: columns that must exist.
        key: column whose values must be present and unique.
        known: columns that are read where they exist.
        whole: columns of whole numbers, in which pandas writes `1.0` once a cell is empty: 1 is meant.

    Raises:
        LayoutError: missing file or column, a row of another length than the header or equal to it, a repeated or
            empty key.
    """
    try:
        text = read_text(path, f"A table with the columns {list(required)} belongs there.")
        records = _separate_records(text, required)
        if records:
            records[0] = _name_columns(records[0], [*required, *known])
    except csv.Error as error:
        raise LayoutError(f"{path} cannot be read as a CSV table ({error}).", "Save it as CSV UTF-8.") from None
    if "\0" in text:
        raise LayoutError(f"{path} holds zero bytes: it is damaged, or no text.", "Copy or export the table again.")
    header = records[0] if records else []
    missing = [column for column in required if column not in header]
    if missing:
        raise LayoutError(f"{path} lacks the columns {missing}; it has {header}.", "Add the columns to the table.")
    if len(set(header)) < len(header):
        raise LayoutError(f"{path} names a column twice: {header}.", "Give every column its own name.")
    rows = []
    for number, record in enumerate(records[1:], start=2):
        if not any(record):
            continue  # an empty line, or one of commas alone, as spreadsheets leave them
        if record[: len(header)] == header:
            raise LayoutError(f"{path}: row {number} repeats the header: two tables were joined.", "Remove this row.")
        if len(record) > len(header) and not any(cell.strip() for cell in record[len(header) :]):
            del record[len(header) :]  # rows that end in a comma
        if len(record) != len(header):
            raise LayoutError(
                f"{path}: row {number} has {count_noun(len(record), 'cell')}, the header has {len(header)}.",
                "Quote cells that hold commas or newlines.",
            )
        cells = dict(zip(header, record, strict=True))
        cells |= {column: drop_zeros(cells[column]) for column in whole if column in cells}
        rows.append(CsvRow(path, number, cells))
    if key is not None:
        seen: dict[str, int] = {}
        for row in rows:
            first = seen.setdefault(row.need(key), row.number)
            if first != row.number:
                raise row.error(key, f"repeats {row[key]!r} of row {first}", "Ids must be unique; remove one row.")
    return rows


def choose_key(rows: Sequence[CsvRow], keys: Sequence[str]) -> str | None:
    """The column by which rows name what they speak of: of `keys` the first that is filled and differs in every row,
    else the first that is there; None where none is.
    """
    there = [key for key in keys if rows and key in rows[0].cells]
    cells = {key: [normalise_form(row[key]) for row in rows] for key in there}
    return next(
        (key for key in there if all(cells[key]) and len(set(cells[key])) == len(rows)), next(iter(there), None)
    )


def unify_key(column: str, text: str) -> str:
    """A cell by which tables are joined, in one Unicode form; places of files and folders with slashes as on every
    system but one, no `./` before and no slash behind them.
    """
    form = normalise_form(text)
    return form.replace("\\", "/").removeprefix("./").rstrip("/") if column in ("file", "folder") else form


def read_text(path: Path, remedy: str) -> str:
    """The text of a file that people edit, as `decode_text` takes it.

    Args:
        path: the file.
        remedy: where nothing is there.

    Raises:
        LayoutError: nothing is there, or it cannot be opened (a folder, a path through a file, no permission), or it
            is no text.
    """
    try:
        return decode_text(path.read_bytes())
    except UnicodeDecodeError as error:
        raise LayoutError(
            f"{path} cannot be read as text in UTF-8 or UTF-16 ({error}).", "Save it as UTF-8, a table as CSV UTF-8."
        ) from None
    except FileNotFoundError:
        raise LayoutError(f"{path} is missing.", remedy) from None
    except OSError as error:
        raise LayoutError(
            f"{path} cannot be opened ({error.strerror}).",
            "A file that may be read was expected: check the path and its permissions.",
        ) from None


def decode_text(data: bytes) -> str:
    """The text of a file: UTF-16 where its byte-order mark says so, else UTF-8; the mark is no part of it.

    Raises:
        UnicodeDecodeError: the bytes are no such text.
    """
    return data.decode(_name_encoding(data[:2]))


def find_text_encoding(path: Path) -> str:
    """The encoding of a text file, as `decode_text` takes it: `utf-16` or `utf-8-sig`; the latter where it cannot be
    opened.
    """
    try:
        with path.open("rb") as stream:
            return _name_encoding(stream.read(2))
    except OSError:
        return "utf-8-sig"


def _name_encoding(mark: bytes) -> str:
    return "utf-16" if mark in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"


def _separate_records(text: str, required: Sequence[str]) -> list[list[str]]:
    """The records of a table, separated by what its first line says, or by what makes sense of its header."""
    first, end, rest = re.split(r"(\r\n|\r|\n|$)", text, maxsplit=1)
    declared = first.strip(" ").strip('"')
    if declared[:4].casefold() == "sep=" and len(declared) == 5 and end:
        # the line stays as an empty record, so that rows are numbered as a spreadsheet does
        header, *rows = _iterate_rows(rest, declared[4])
        return [header, [], *rows]
    tried = {separator: _read_header(text, separator) for separator in _SEPARATORS}
    heads = {separator: set(_name_columns(header, required)) for separator, header in tried.items()}
    fits = [separator for separator, header in tried.items() if len(header) > 1 and set(required) <= heads[separator]]
    return list(_iterate_rows(text, fits[0] if fits else max(tried, key=lambda separator: len(tried[separator]))))


def reduce_name(name: str) -> str:
    """The name of a column without case, blanks and marks, in which `Patient ID` is `patient_id`."""
    return re.sub(r"[\W_]", "", normalise_form(name).casefold())


def _name_columns(header: Sequence[str], known: Sequence[str]) -> list[str]:
    """The header with each column by its known name, where only one column is like it."""
    forms = [reduce_name(name) for name in header]
    meant = {reduce_name(name): name for name in known if name not in header and forms.count(reduce_name(name)) == 1}
    return [meant.get(form, name) for form, name in zip(forms, header, strict=True)]


def _read_header(text: str, separator: str) -> list[str]:
    try:
        return next(_iterate_rows(text, separator), [])
    except csv.Error:  # cells in quotes, between which another letter stands
        return []


def _iterate_rows(text: str, separator: str) -> Iterator[list[str]]:
    rows = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    header = [name.strip() for name in next(rows, [])]
    while header and not header[-1]:
        header.pop()  # a header that ends in a separator
    # facts are whatever a source wrote
    free = [name.startswith("fact:") for name in header]
    yield header
    for row in rows:
        yield [c if i < len(free) and free[i] else c.strip() for i, c in enumerate(row)]


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        LayoutError: missing file, or text that is not JSON in UTF-8 or UTF-16.
    """
    try:
        return parse_json(read_text(path, "Point at the folder that holds it."))
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} cannot be read as JSON ({error}).", "Export the file again.") from None


def find_dialect(path: Path, required: Sequence[str]) -> dict[str, Any]:
    """`sep` and `encoding` of a large table that pandas reads by columns, found as `read_table` finds them.

    A comma where no separator gives the required columns, or the file cannot be opened: its reader says what is wrong.
    """
    encoding = find_text_encoding(path)
    try:
        with path.open(newline="", encoding=encoding) as stream:
            head = stream.readline(1_000_000)
    except (OSError, UnicodeDecodeError):
        head = ""
    fits = (separator for separator in _SEPARATORS if set(required) <= set(_read_header(head, separator)))
    return {"sep": next(fits, ","), "encoding": encoding}


def require_even_rows(path: Path, separator: str = ",", *, short: bool = False, columns: Sequence[str] = ()) -> None:
    """Refuse a large table, before it is read by columns, whose rows hold more cells than its header.

    Cells without text at the end of a row are none. A file that does not exist or is no text is left to its reader.

    Args:
        path: the table.
        separator: between its cells.
        short: refuse rows of fewer cells, too.
        columns: those that are read; a header that names one of them twice is refused, as the first would be taken.

    Raises:
        LayoutError: naming the first such row, or the column.
    """
    try:
        with path.open(newline="", encoding=find_text_encoding(path)) as stream:
            rows = csv.reader(stream, delimiter=separator)
            header = next(rows, [])
            width = len(header)
            if twice := [name for name in columns if header.count(name) > 1]:
                raise LayoutError(
                    f"{path} names the column {twice[0]!r} {header.count(twice[0])} times; one was expected.",
                    "Keep the one that is meant, or give the others names of their own.",
                )
            for number, row in enumerate(rows, start=2):
                more = len(row) > width and any(cell.strip() for cell in row[width:])
                if more or (short and 0 < len(row) < width and any(row)):
                    raise LayoutError(
                        f"{path}: row {number} has {count_noun(len(row), 'cell')}, the header has {width}.",
                        "Quote cells that hold the separator, or export the table again.",
                    )
    except (OSError, UnicodeDecodeError, csv.Error):
        return


def is_absolute(path: str) -> bool:
    """Whether a cell names a path from the root of a disk, of this system or of Windows."""
    return path.startswith(("/", "\\")) or bool(PureWindowsPath(path).drive)


def find_path_inside(root: Path, relative: object) -> Path | None:
    """The file `relative` names under `root`; None where it leads out (absolute, drive or `..`) or can be no name.

    Where there is no file of just this name, one whose name differs in Unicode form alone is meant, or one whose
    folders are separated by backslashes, as on Windows.
    """
    if not isinstance(relative, str):
        return None
    parts = relative.replace("\\", "/").split("/")
    try:
        if max(len(os.fsencode(part)) for part in parts) > MOST_NAME_BYTES or len(parts) > MOST_PARTS:
            return None
    except UnicodeEncodeError:  # half a letter, as JSON can hold it
        return None
    drive = bool(PureWindowsPath(relative).drive) and (os.name == "nt" or relative[2:3] in ("/", "\\", ""))
    if relative.startswith(("/", "\\")) or ".." in parts or drive or not relative or "\0" in relative:
        return None
    try:
        if "\\" in relative and not (root / relative).exists():
            relative = relative.replace("\\", "/")
        return root / relative if (root / relative).exists() else _find_alike(root, relative)
    except (OSError, ValueError):
        return root / relative


def _find_alike(root: Path, relative: str) -> Path:
    """The one file whose path has the same letters in another Unicode form; the path as it is where there is none."""
    at = root
    for part in Path(relative).parts:
        if not (at / part).exists() and at.is_dir():
            forms = _list_forms(at, at.stat().st_mtime_ns)
            at = at / forms.get(normalise_form(part), part)
        else:
            at = at / part
    return at if at.exists() else root / relative


@lru_cache(maxsize=64)
def _list_forms(folder: Path, changed: int) -> dict[str, str]:
    names: dict[str, str] = {}
    twice = set()
    for name in sorted(path.name for path in Path(folder).iterdir()):
        if names.setdefault(normalise_form(name), name) != name:
            twice.add(normalise_form(name))
    return {form: name for form, name in names.items() if form not in twice}
