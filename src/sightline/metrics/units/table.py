"""Columns of numbers, one row a unit, as CSV: read back to the last bit; a column that is missing has an empty cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import LayoutError
from sightline.metrics.predictions import read_saved_table, write_rows

Column = NDArray[Any] | Sequence[Any] | str | int | float


def write_columns(path: Path, columns: Mapping[str, Column]) -> None:
    """Write columns, one row a unit; a single value stands in every row. None is an empty cell."""
    length = max(len(c) for c in columns.values() if not isinstance(c, str | int | float))
    spread = [[c] * length if isinstance(c, str | int | float) else list(c) for c in columns.values()]
    write_rows(path, list(columns), ([_format_cell(value) for value in row] for row in zip(*spread, strict=True)))


class UnitColumns:
    """The columns of a file.

    Raises:
        UnreadableFile, LayoutError: missing, empty, or rows of different lengths.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        header, rows = read_saved_table(path, what)
        if not rows or any(len(row) != len(header) for row in rows) or len(set(header)) != len(header):
            raise LayoutError(f"{path}: no whole table of {what}.", "Dissect the run again.")
        self._of = dict(zip(header, zip(*rows, strict=True), strict=True))
        self.names, self.length = tuple(header), len(rows)

    def __contains__(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self._of

    def text(self, name: str) -> tuple[str, ...]:
        """The cells of a column."""
        if name not in self._of:
            raise LayoutError(f"{self.path}: the {self.what} have no column {name!r}.", "Dissect the run again.")
        return self._of[name]

    def floats(self, name: str) -> NDArray[np.float64]:
        """A column of finite numbers."""
        return np.array(
            [self._parse_number(name, row, cell) for row, cell in enumerate(self.text(name))], dtype=np.float64
        )

    def integers(self, name: str) -> NDArray[np.int64]:
        """A column of whole numbers."""
        found = self.floats(name)
        if (found != np.round(found)).any():
            raise LayoutError(f"{self.path}: {name} must be whole numbers.", "Dissect the run again.")
        return found.astype(np.int64)

    def one(self, name: str) -> str:
        """The value that stands in every row."""
        cells = set(self.text(name))
        if len(cells) != 1:
            raise LayoutError(f"{self.path}: {name} differs from row to row.", "Dissect the run again.")
        return cells.pop()

    def whole(self, name: str) -> int:
        """The whole number that stands in every row."""
        self.one(name)
        return int(self.integers(name)[0])

    def _parse_number(self, name: str, row: int, cell: str) -> float:
        try:
            number = float(cell)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            raise LayoutError(f"{self.path}, row {row + 2}: {name} is {cell!r}, no number.", "Dissect the run again.")
        return number


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return repr(float(value))
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)
