"""One study, one answer: the views of a study put together, with what validation fixed about calling and abstaining."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.errors import LayoutError
from sightline.io.tables import read_table
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.structures.joined_views import JoinViews, find_normal_class, join_answers


@dataclass(frozen=True)
class StudyView:
    """What was said of one picture of a study.

    Attributes:
        file: the picture.
        study: the study's id.
        probabilities: float64 [k], calibrated where the run is.
        energy: log sum exp of its logits.
        header_study: the study in its DICOM header, or empty.
        patient: digest of the patient in its DICOM header and, where stated, of who issued the id; or empty.
        pixels: digest of its pixels, or empty.
        uncalibrated: float64 [k], before any calibration; None: as `probabilities`.
    """

    file: Path
    study: str
    probabilities: NDArray[np.float64]
    energy: float
    header_study: str = ""
    patient: str = ""
    pixels: str = ""
    uncalibrated: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class StudyCounts:
    """How many studies stand in a table, and how many of them have no answer.

    Attributes:
        studies: all.
        contradictory: whose headers name several patients.
        abstained: where the run abstains, as validation fixed it.
    """

    studies: int
    contradictory: int
    abstained: int

    def describe(self) -> str:
        """What a person is told, or nothing where every study has its answer.

        Example:
            >>> StudyCounts(12, 0, 3).describe()
            '3 of 12 studies have no answer: the network abstains in 3; see studies.csv'
        """
        none = self.contradictory + self.abstained
        if not none:
            return ""
        why = [f"the network abstains in {self.abstained}"] if self.abstained else []
        why += [f"the headers of {self.contradictory} name several patients"] if self.contradictory else []
        have = "study has" if self.studies == 1 else "studies have"
        return f"{none} of {self.studies} {have} no answer: {', '.join(why)}; see studies.csv"


class StudyNames:
    """Which study each file belongs to: a table says so, else its DICOM header, else it is a study of its own."""

    def __init__(self, table: Path | None, files: Sequence[Path]) -> None:
        """Read a table of `file` and `study`; files are named as given, by their name, or by the end of their path.

        Raises:
            LayoutError: a table that does not read, a file that stands twice, or a name that several files have.
        """
        self.of_file: dict[Path, str] = {}
        # views that a table names and nobody gave
        self.not_given: Counter[str] = Counter()
        if table is None:
            return
        for row in read_table(table, ("file", "study"), key="file"):
            named = Path(row.need("file")).parts
            meant = [file for file in files if file.parts[-len(named) :] == named]
            if len(meant) > 1:
                raise row.error("file", f"names {len(meant)} of the files", "Write more of its path.")
            if not meant:
                self.not_given[row.need("study")] += 1
            for file in meant:
                if file in self.of_file:
                    raise row.error("file", f"names {file} a second time", "Name each file once.")
                self.of_file[file] = row.need("study")
        if not self.of_file:
            raise LayoutError(
                f"{table}: none of its files is among the {len(files)} given.", "Write names or paths of these files."
            )

    def study_of(self, file: Path, facts: Mapping[str, str]) -> str:
        """The study of a file that was read, from the table or its header."""
        return self.of_file.get(file) or facts.get("study_uid", "") or str(file)

    def missing(self, study: str, read: Sequence[Path]) -> int:
        """How many files that a table puts into a study were not given, or not read."""
        return self.not_given[study] + sum(name == study and file not in read for file, name in self.of_file.items())


def write_studies(
    path: Path,
    classes: Sequence[str],
    views: Sequence[StudyView],
    names: StudyNames,
    record: CalibrationRecord | None,
    *,
    join_views: JoinViews = "none",
) -> StudyCounts:
    """Write `studies.csv`: the mean over a study's views, or how the run joins them, what each operating point calls,
    and whether it is answered.

    Columns: `study`, `images`, `not_read`, `predicted`, `p(class)`..., `called at ...` for each operating point of the
    run, `answered` (where validation fixed an abstention), `set` (where it fixed prediction sets), `remark`, `files`.

    A picture that is given twice counts once. A study whose headers name two patients has no answer: its numbers are
    empty, and the remark says why.

    Args:
        path: the file.
        classes: class names.
        views: every picture that was read.
        names: which study they belong to.
        record: what validation fixed, or None.
        join_views: how the run joins what its views say (before calibration); `none`: their calibrated mean.

    Returns:
        Number of studies, and of those without an answer.
    """
    contradictory = abstained = 0
    studies: dict[str, list[StudyView]] = {}
    for view in views:
        studies.setdefault(view.study, []).append(view)
    named: dict[str, set[str]] = {}
    for view in views:
        named.setdefault(view.header_study, set()).add(view.study)
    points = () if record is None else record.points
    head = ["study", "images", "not_read", "predicted", *(f"p({name})" for name in classes)]
    head += [f"called at {point.name}" for point in points]
    abstention = None if record is None else record.abstention
    sets = None if record is None else record.sets
    head += ["answered"] if abstention is not None else []
    head += ["set"] if sets is not None else []
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, "remark", "files"])
        for study, members in studies.items():
            given, missing = members, names.missing(study, [view.file for view in members])
            members, remarks = _list_distinct(given)
            remarks += _find_contradictions(given, named)
            files = "; ".join(str(view.file) for view in given)
            row = [study, str(len(members)), str(missing)]
            if _count_patients(given) > 1:
                writer.writerow([*row, *[""] * (len(head) - len(row)), "; ".join(remarks), files])
                contradictory += 1
                continue
            mean = _answer_study(members, classes, record, join_views)
            row += [classes[int(mean.argmax())], *(repr(float(p)) for p in mean)]
            for point in points:
                called = mean[list(classes).index(point.positive)] >= point.threshold
                row.append(point.positive if called else f"not {point.positive}")
            if abstention is not None:
                energy = np.array([np.mean([view.energy for view in members])])
                answered = bool(abstention.answers(mean[None], energy)[0])
                abstained += not answered
                row.append("yes" if answered else "no")
            if sets is not None:
                inside = sets.members(mean[None])[0]
                row.append("; ".join(name for name, member in zip(classes, inside, strict=True) if member))
            writer.writerow([*row, "; ".join(remarks), files])
    return StudyCounts(len(studies), contradictory, abstained)


def describe_unjoined_views(views: Sequence[StudyView], how: JoinViews) -> str:
    """What a person is told where a run joins the views of a study and nothing says what belongs together.

    Example:
        >>> describe_unjoined_views([StudyView(Path("1.png"), "S", np.array([0.5, 0.5]), 0.0)], "maximum")
        ''
    """
    if how == "none" or not views or any(view.study != str(view.file) for view in views):
        return ""
    return (
        f"This run joins the views of a study ({how}), and nothing says which of these pictures belong to one study: "
        "each is answered by itself. Give --studies FILE."
    )


def _answer_study(
    members: Sequence[StudyView], classes: Sequence[str], record: CalibrationRecord | None, how: JoinViews
) -> NDArray[np.float64]:
    if how == "none":
        return np.asarray(np.mean([view.probabilities for view in members], axis=0))
    uncalibrated = np.stack(
        [view.probabilities if view.uncalibrated is None else view.uncalibrated for view in members]
    )
    joined = join_answers(uncalibrated, [""] * len(uncalibrated), how, find_normal_class(classes))[:1]
    return joined[0] if record is None else record.probabilities(joined)[0]


def _list_distinct(members: Sequence[StudyView]) -> tuple[list[StudyView], list[str]]:
    """The views of a study without pictures that were given twice, and what is to be said of those."""
    first: dict[str, StudyView] = {}
    remarks = []
    for view in members:
        known = first.setdefault(view.pixels or str(view.file), view)
        if known is not view:
            remarks.append(f"{view.file} shows the same pixels as {known.file}: counted once")
    return list(first.values()), remarks


def _count_patients(members: Sequence[StudyView]) -> int:
    """How many patients headers name: ids, or issuers of the one id; one that is not stated contradicts none."""
    named = [view.patient.split() for view in members if view.patient]
    ids, issuers = {words[0] for words in named}, {words[1] for words in named if len(words) > 1}
    return len(ids) if len(ids) > 1 else max(len(ids), len(issuers))


def _find_contradictions(members: Sequence[StudyView], named: Mapping[str, set[str]]) -> list[str]:
    """What headers say against putting these views together."""
    patients = _count_patients(members)
    headers = sorted({view.header_study for view in members if view.header_study})
    remarks = [f"headers name {patients} patients: no answer is given"] if patients > 1 else []
    if len(headers) > 1:
        remarks.append(f"headers name {len(headers)} studies: the table puts them together")
    return remarks + [
        f"views of {uid} stand in {len(named[uid])} studies of this table" for uid in headers if len(named[uid]) > 1
    ]
