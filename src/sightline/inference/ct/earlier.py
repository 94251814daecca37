"""What an earlier prediction of CTs left in a folder goes once a new one takes its place; other files stay."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from sightline.data.spine.vertebrae import LABELS
from sightline.errors import count_noun
from sightline.inference.ct.inputs import name_ct
from sightline.inference.results.earlier import EarlierFiles, is_drawn_here
from sightline.io.files import make_safe_name

_LEVEL = "|".join(LABELS)
# what is written into the folder of a CT, by the folder below it
_WRITTEN = {
    "patches": re.compile(rf"({_LEVEL})\.nii"),
    "activations": re.compile(rf"({_LEVEL})_unit_\d{{3,}}\.nii\.gz"),
    "panels": re.compile(rf"({_LEVEL})\.png"),
}
# of CTs of one name the second has the folder NAME_2
_NUMBER = re.compile(r"_[0-9]+$")


class EarlierCts:
    """Folders of CTs that an earlier prediction wrote into the same folder, until no row names them any more.

    They are those that are called after a CT of its table and hold an overview that was drawn here; of their files
    those go that have the names of results.
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
        rows = self._files.read_rows(("ct", "vertebra", "panel"))
        self._cts = None if rows is None else {row["ct"] for row in rows}

    def begin(self, kept: Collection[str]) -> None:
        """The table is about to be replaced.

        Args:
            kept: folders of CTs that a stopped call of this command read, which goes on.
        """
        self._resumed = bool(kept)
        named = {make_safe_name(name_ct(Path(ct))) for ct in self._cts or ()}
        for overview in sorted(self.out.glob("*/overview.png")):
            name = overview.parent.name
            if name not in kept and {name, _NUMBER.sub("", name)} & named and is_drawn_here(overview):
                self.clear(name)

    def clear(self, name: str) -> None:
        """Remove what is written of a CT: before it is read, and where it could not be read to its end."""
        folder = self.out / name
        if is_drawn_here(folder / "overview.png"):
            self._files.remove([folder / "overview.png", folder / "report.html"])
        for below, known in _WRITTEN.items():
            self._files.remove([path for path in (folder / below).glob("*") if known.fullmatch(path.name)])
        for empty in (*(folder / below for below in _WRITTEN), folder):
            with suppress(OSError):  # something else lies there, too
                empty.rmdir()

    def end(self, objects: Collection[Path]) -> None:
        """The new table is whole; what was replaced is said.

        Args:
            objects: DICOM objects that belong to it.
        """
        if self._cts is None:
            return
        self._files.remove_objects(objects)
        if not self._resumed:
            self._files.report(count_noun(len(self._cts), "CT"))
