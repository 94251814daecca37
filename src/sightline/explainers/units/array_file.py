"""Arrays that grow case by case, in memory or in a `.npy` file: a pass over a cohort then keeps no case in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import RunError


class GrowingArray:
    """Rows that are appended, all of one shape and type.

    Args:
        row: shape of a row.
        dtype: of the numbers.
        path: `.npy` file to write to; None keeps the rows in memory.
    """

    def __init__(self, row: tuple[int, ...], dtype: Any, path: Path | None) -> None:
        self.row, self.dtype, self.path = row, np.dtype(dtype), path
        self.length = 0
        self._rows: list[NDArray[Any]] = []
        self._file: BinaryIO | None = None
        if path is not None:
            self._file = path.open("w+b")
            self._header_bytes = self._write_header()

    def append(self, rows: ArrayLike) -> None:
        """Add rows [r, *row]."""
        given = np.ascontiguousarray(rows, dtype=self.dtype).reshape(-1, *self.row)
        self.length += len(given)
        if self._file is None:
            self._rows.append(given)
        else:
            self._file.write(given.data)

    def fill(self, length: int) -> None:
        """Add rows of zeros up to a length."""
        while self.length < length:
            self.append(np.zeros((min(64, length - self.length), *self.row), dtype=self.dtype))

    def close(self) -> NDArray[Any]:
        """All rows [n, *row]: an array, or the file mapped read-only."""
        if self._file is None:
            empty = np.zeros((0, *self.row), dtype=self.dtype)
            return np.concatenate([empty, *self._rows]) if self._rows else empty
        assert self.path is not None
        self._file.seek(0)
        # numpy leaves room in the header for a longer first axis
        if self._write_header() != self._header_bytes:
            raise RunError(f"{self.path}: the header outgrew its place.")
        self._file.close()
        return read_array(self.path)

    def abandon(self) -> None:
        """Close the file as it is; nobody will read it."""
        if self._file is not None:
            self._file.close()

    def _write_header(self) -> int:
        assert self._file is not None
        described = np.lib.format.header_data_from_array_1_0(np.empty((0, *self.row), dtype=self.dtype))
        np.lib.format.write_array_header_1_0(self._file, {**described, "shape": (self.length, *self.row)})
        return self._file.tell()


def read_array(path: Path) -> NDArray[Any]:
    """A `.npy` file mapped read-only; pickled arrays are refused.

    Raises:
        RunError: missing or damaged.
    """
    try:
        found = np.load(path, mmap_mode="r" if path.stat().st_size > 1 << 20 else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path} is missing or damaged ({error}).", "Dissect the run again.") from None
    return np.asarray(found) if not isinstance(found, np.memmap) else found
