"""What an earlier prediction left in a folder goes once a new one takes its place; a person's own files stay."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from sightline.errors import count_noun
from sightline.io.picture import SOFTWARE

_OVERLAY = re.compile(r"overlays/[^/\\]+\.png")
# as DICOM objects and the folders of their studies are named
_STUDY, _OBJECT = re.compile(r"[0-9.]{16}"), re.compile(r"[a-z]+_[0-9]{2,}_[0-9.]{12}\.dcm")


class EarlierFiles:
    """Files of an earlier prediction into a folder, taken away as soon as nothing names them any more."""

    def __init__(self, out: Path, given: Sequence[Path]) -> None:
        """Before anything is written.

        Args:
            out: the command's folder.
            given: files that the command reads; they stay.
        """
        self.out = out
        self._given = {os.path.realpath(path) for path in given}
        self._removed: set[Path] = set()

    def read_rows(self, columns: Collection[str]) -> list[dict[str, str]] | None:
        """The rows of the table that lies there, or None where there is none with these columns."""
        with (
            suppress(OSError, ValueError, csv.Error),
            (self.out / "predictions.csv").open(newline="", encoding="utf-8") as file,
        ):
            rows = csv.DictReader(file)
            if set(columns) <= set(rows.fieldnames or ()):
                return list(rows)
        return None

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files; what is read now stays."""
        for path in paths:
            if path.is_file() and os.path.realpath(path) not in self._given:
                path.unlink()
                self._removed.add(path)

    def remove_objects(self, kept: Collection[Path]) -> None:
        """Remove DICOM objects, and folders of studies that are empty then."""
        for folder in (self.out / "dicom").glob("*"):
            if _STUDY.fullmatch(folder.name) and folder.is_dir():
                self.remove([path for path in folder.iterdir() if _OBJECT.fullmatch(path.name) and path not in kept])
                with suppress(OSError):  # something else lies there, too
                    folder.rmdir()

    def report(self, before: str) -> None:
        """Say what was replaced, e.g. `3 pictures`."""
        gone = sum(not path.exists() for path in self._removed)
        more = f"; {count_noun(gone, 'file')} of it that no row names now went" if gone else ""
        print(f"{self.out}: the table of an earlier prediction of {before} was replaced{more}", file=sys.stderr)


class EarlierPrediction:
    """Files that an earlier prediction wrote into the same folder, until no row names them any more.

    Its overlays are those that its table names and that say that they were drawn here; its DICOM objects are known by
    the names that they are given.
    """

    def __init__(self, out: Path, given: Sequence[Path]) -> None:
        """Before the table is replaced.

        Args:
            out: the command's folder.
            given: files that the command reads; they stay.
        """
        self.out = out
        self._files = EarlierFiles(out, given)
        self._resumed = False
        rows = self._files.read_rows(("file", "predicted", "overlay"))
        self._pictures = None if rows is None else len(rows)
        self._overlays = {row["overlay"] for row in rows or () if row["overlay"]}

    def begin(self, kept: Collection[str]) -> None:
        """The table is about to be replaced.

        Args:
            kept: overlays that a stopped call of this command drew, which goes on.
        """
        self._resumed = bool(kept)
        self._overlays |= set(kept)
        self._remove_overlays(kept)

    def end(self, overlays: Collection[str], objects: Collection[Path], *, studies: bool) -> None:
        """The new table is whole; what was replaced is said.

        Args:
            overlays: that its rows name.
            objects: DICOM objects that belong to it.
            studies: whether it has answers of studies.
        """
        self._remove_overlays(overlays)
        if self._pictures is None:
            return
        self._files.remove_objects(objects)
        if not studies:
            self._files.remove([self.out / "studies.csv"])
        if not self._resumed:
            self._files.report(count_noun(self._pictures, "picture"))

    def _remove_overlays(self, kept: Collection[str]) -> None:
        stale = [self.out / name for name in self._overlays - set(kept) if _OVERLAY.fullmatch(name)]
        self._files.remove([path for path in stale if is_drawn_here(path)])


def is_drawn_here(path: Path) -> bool:
    """Whether a PNG says that sightline drew it; links to others are none."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"Software\0" + SOFTWARE.encode() in file.read(1024)
