"""A CSV table whose rows are on disk as soon as they are written, so that an interruption loses none."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WriteRow = Callable[[Sequence[str]], None]


@contextmanager
def open_csv_table(path: Path, head: Sequence[str]) -> Iterator[WriteRow]:
    """Within this block a table is open; yields what writes one row of it.

    Args:
        path: the file; one that is there is replaced.
        head: names of the columns.
    """
    # names of files from other systems may hold bytes that are no text
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")

        def write_row(row: Sequence[str]) -> None:
            writer.writerow(row)
            file.flush()

        write_row(head)
        yield write_row
