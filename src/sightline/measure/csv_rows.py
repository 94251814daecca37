"""Tables of numbers on disk: CSV with a header, floats written so that they read back to the last bit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from sightline.errors import LayoutError, UnreadableFile


def read_rows(path: Path, what: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table.

    Args:
        path: the file.
        what: what it holds, for messages, e.g. `map scores`.

    Raises:
        UnreadableFile: the file is missing or is no text.
        LayoutError: the file has no header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path}: the {what} do not read ({error}).", "Evaluate the run again.") from None
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline="")))
    except (csv.Error, ValueError) as error:
        raise LayoutError(f"{path}: no table of {what} ({error}).", "Evaluate the run again.") from None
    return header, rows


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows, making the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
