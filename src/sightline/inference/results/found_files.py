"""What a command found in the files it was given, until all of them are read; then its tables are written."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import SightlineError
from sightline.inference.network_output import RunFacts
from sightline.inference.results.coco_json import CocoPicture, write_coco
from sightline.inference.results.csv_table import open_csv_table
from sightline.inference.results.journal import PredictedFile
from sightline.inference.results.studies import (
    StudyNames,
    StudyView,
    describe_unjoined_views,
    write_studies,
)
from sightline.io.picture import Reject, write_rejects

# tables that a prediction of radiographs writes into its folder
TABLES = ("predictions.csv", "studies.csv", "boxes.csv", "boxes.coco.json", "rejects.csv", "remarks.csv")


def write_remarks(out: Path, remarks: Sequence[tuple[Path, str]]) -> None:
    """Write `remarks.csv`, what a person should know of how a file was read, and print the first remark."""
    with open_csv_table(out / "remarks.csv", ("file", "remark")) as write_remark:
        for path, remark in remarks:
            write_remark([str(path), remark])
    if remarks:
        (path, remark), others = remarks[0], len(remarks) - 1
        more = f" (and {others} more, see {out / 'remarks.csv'})" if others else ""
        print(f"remark: {path}: {remark}{more}", file=sys.stderr)


class FoundFiles:
    """Files of a command, one after the other: predicted, rejected, remarked upon.

    Attributes:
        root: the folder that holds all files.
        rejects: files that cannot be radiographs.
        pictures: the others, with their boxes.
        views: the same as views of studies; none of a network that says no classes.
        remarks: what a person should know of a file.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Before any of the files is read."""
        self.root = Path(os.path.commonpath([Path(os.path.realpath(path)).parent for path in files]))
        self.rejects: list[Reject] = []
        self.pictures: list[CocoPicture] = []
        self.views: list[StudyView] = []
        self.remarks: list[tuple[Path, str]] = []

    def add(self, path: Path, predicted: PredictedFile, studies: StudyNames) -> None:
        """Keep what the tables of the whole command need of a file."""
        if predicted.probabilities is not None:
            study = studies.study_of(path, {"study_uid": predicted.study_uid})
            marks = (predicted.study_uid, predicted.patient, predicted.pixels)
            self.views.append(
                StudyView(path, study, predicted.probabilities, predicted.energy, *marks, predicted.uncalibrated)
            )
        relative = Path(os.path.realpath(path)).relative_to(self.root).as_posix()
        self.pictures.append(CocoPicture(relative, predicted.shape, predicted.boxes))
        if predicted.remark:
            self.remarks.append((path, predicted.remark))

    def reject(self, path: Path, error: SightlineError) -> None:
        """Keep why a file was left out, and what to do."""
        self.rejects.append(Reject(path, error.message.removeprefix(f"{path}: "), error.remedy))

    def write_tables(self, out: Path, facts: RunFacts, studies: StudyNames, labels: Sequence[str]) -> None:
        """Write remarks.csv, rejects.csv, studies.csv and boxes.coco.json; the first remark is printed, too.

        Args:
            out: the command's folder.
            facts: of the run.
            studies: which file belongs to which study.
            labels: what boxes can be of, in the order of COCO's categories.
        """
        write_remarks(out, self.remarks)
        write_rejects(out / "rejects.csv", self.rejects)
        if facts.classifies:
            how = facts.join_views
            counts = write_studies(
                out / "studies.csv", facts.classes, self.views, studies, facts.calibration, join_views=how
            )
            for words in (counts.describe(), describe_unjoined_views(self.views, how)):
                if words:
                    print(words)
        about = f"boxes found by {facts.title}; file names are in {self.root.name}"
        write_coco(out / "boxes.coco.json", self.pictures, labels, about)
