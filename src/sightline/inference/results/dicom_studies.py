"""The DICOM objects of a command, study by study: written as soon as the last image of a study was read."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom

from sightline.errors import SightlineError, UnreadableFile
from sightline.inference.dicom_results import (
    FOLDER,
    NOT_DICOM,
    JudgedView,
    ResultWords,
    build_study_results,
    write_dicom_results,
)
from sightline.io.dicom.limits import require_bounds
from sightline.io.dicom.radiograph import open_image, translate_parser_errors
from sightline.io.dicom_results.header import SourceImage, build_source_image
from sightline.io.dicom_results.identity import make_uid
from sightline.io.dicom_results.objects import ObjectOptions
from sightline.io.dicom_results.results import ImageResult
from sightline.io.files import BEGUN, mark_whole, write_text
from sightline.io.image import read_head
from sightline.io.picture import Picture, has_dicom_mark

if TYPE_CHECKING:
    from sightline.inference.file_result import FileResult

_FOLDER_NAME = re.compile(r"[0-9.]{16}")


class StudyWriter:
    """Gathers the images of a command into studies and writes each study as soon as its last image was read."""

    def __init__(self, words: ResultWords, files: Sequence[Path], out: Path, wanted: ObjectOptions) -> None:
        self.words, self.out, self.choose_objects = words, out, wanted
        self._studies = {file: _read_study(file) for file in files}
        self._waiting = Counter(study for study in self._studies.values() if study)
        self._gathered: dict[str, list[ImageResult]] = defaultdict(list)
        # views of a run that joins them wait for each other
        self._views: dict[str, list[JudgedView]] = defaultdict(list)
        self._taken: set[tuple[str, str]] = set()
        self.written: list[Path] = []
        self._draws = "picture" in wanted.kinds

    def source(self, file: Path) -> SourceImage:
        """The image that results are to refer to.

        Raises:
            UnreadableFile: no DICOM, or without UIDs.
        """
        if not self._studies[file] and not has_dicom_mark(read_head(file)):
            raise UnreadableFile(
                f"{file}: {NOT_DICOM}.", "Give the DICOM file that the picture was made from, or leave out --as."
            )
        with translate_parser_errors(file):
            return build_source_image(open_image(file, pixels=True), file)

    def add(self, file: Path, source: SourceImage, picture: Picture, reading: FileResult) -> None:
        """Take one image; the study is written when it was the last of it."""
        study = self._studies[file]
        if (study, source.uid) in self._taken:
            # a copy of an image whose results are there: theirs would have the same UIDs
            self._count_down(study)
            return
        self._taken.add((study, source.uid))
        view = JudgedView(source, picture, reading)
        if self.words.join_views != "none":
            self._views[study].append(view)
        else:
            self._gathered[study] += build_study_results(self.words, [view], draw=self._draws)
        self._count_down(study)

    def leave_out(self, file: Path) -> None:
        """Go on without an image that was rejected."""
        if self._studies[file]:
            self._count_down(self._studies[file])

    def _count_down(self, study: str) -> None:
        self._waiting[study] -= 1
        if self._waiting[study] == 0 and study in self._views:
            self._gathered[study] = build_study_results(self.words, self._views.pop(study), draw=self._draws)
        if self._waiting[study] == 0 and self._gathered.get(study):
            folder = self.out / FOLDER / _name_folder(study)
            self.written += write_dicom_results(self.words, self._gathered.pop(study), folder, self.choose_objects)

    def begin(self) -> None:
        """Mark the output as unfinished; what a call that was stopped had begun is said, and removed.

        A stopped call cannot be gone on with: objects need the whole of what the network said, which no file keeps.
        """
        begun, place = self.out / BEGUN, self.out / FOLDER
        if begun.is_file():
            print(f"{self.out}: a call that was stopped left it unfinished; it begins again.", file=sys.stderr)
            for name in filter(_FOLDER_NAME.fullmatch, begun.read_text(encoding="utf-8").split()):
                shutil.rmtree(place / name, ignore_errors=True)
        names = {_name_folder(study) for study in self._studies.values() if study}
        write_text(begun, "".join(f"{name}\n" for name in sorted(names) if not (place / name).exists()))

    def end(self) -> None:
        """Every file was read, and every table written."""
        mark_whole(self.out)


def _name_folder(study: str) -> str:
    """A folder's name must say nothing about the patient, and a UID may be anything."""
    return make_uid("study", study)[-16:]


def _read_study(file: Path) -> str:
    """StudyInstanceUID and PatientID of a DICOM file, or empty."""
    try:
        with translate_parser_errors(file):
            require_bounds(file)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "PatientID"])
            study = str(header.get("StudyInstanceUID") or "")
            return f"{study}\0{header.get('PatientID') or ''}" if study else ""
    except SightlineError:
        return ""
