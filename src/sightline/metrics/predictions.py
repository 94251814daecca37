"""What a model said about every case of a split: all classification scores are recomputed from this table alone."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import CohortError, LayoutError, RunError, UnreadableFile, count_noun

IDS = ("case_id", "study_id", "patient_id")
SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels and class probabilities of n cases.

    Attributes:
        classes: k class names, in the order of the columns of `probabilities`.
        case_ids: n unique ids.
        study_ids: n ids; the views of a study share one.
        patient_ids: n ids; what intervals and tests are grouped by.
        labels: int64 [n], class index.
        probabilities: float64 [n, k], each row sums to 1 unless the classes are independent.
        unit: what a row is: an `image`, or a whole `study` after `study_wise`.
        independent: each class was judged by itself (a sigmoid each, Watanabe 2022), so that rows need not sum to 1.
        alone: float64 [n, k], what each view says without the others, where `probabilities` are of its whole study
            (the recipe's `join_views`); else None.

    Raises:
        CohortError: ids or labels that are not what they should be.
        RunError: probabilities that are no probabilities.
    """

    classes: tuple[str, ...]
    case_ids: tuple[str, ...]
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    unit: Literal["image", "study"] = "image"
    independent: bool = False
    alone: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Check every column, and freeze the arrays."""
        for name in ("classes", *(f"{i}s" for i in IDS)):
            object.__setattr__(self, name, tuple(str(x) for x in getattr(self, name)))
        given = np.asarray(self.labels)
        labels = given.astype(np.int64)
        probabilities = np.array(self.probabilities, dtype=np.float64)
        n, k = len(self.case_ids), len(self.classes)
        if n == 0:
            raise CohortError("Predictions hold no case; expected at least one.", "Check the split's name.")
        if k < 2 or len(set(self.classes)) != k:
            raise CohortError(f"Predictions need two or more different class names; got {list(self.classes)}.")
        lengths = (len(self.study_ids), len(self.patient_ids), *labels.shape)
        if lengths != (n, n, n) or probabilities.shape != (n, k):
            raise CohortError(
                f"Predictions of {count_noun(n, 'case')} and "
                f"{count_noun(k, 'class have', 'classes have')} {lengths[0]} study ids, {lengths[1]} patient ids, "
                f"labels of shape {given.shape} and probabilities of shape {probabilities.shape}.",
            )
        repeated = [i for i, times in Counter(self.case_ids).items() if times > 1]
        if repeated:
            raise CohortError(f"Predictions have {len(repeated)} repeated case ids, e.g. {repeated[:3]}.")
        wrong = np.flatnonzero((labels < 0) | (labels >= k) | (labels != given))
        if wrong.size:
            case = self.case_ids[wrong[0]]
            raise CohortError(f"Case {case!r} has label {given[wrong[0]]}; expected a class index from 0 to {k - 1}.")
        _require_probabilities(self.case_ids, probabilities, independent=self.independent)
        if self.alone is not None:
            alone = np.array(self.alone, dtype=np.float64)
            if alone.shape != (n, k):
                raise CohortError(
                    f"Predictions of {count_noun(n, 'case')} and "
                    f"{count_noun(k, 'class have', 'classes have')} answers alone of shape {alone.shape}."
                )
            _require_probabilities(self.case_ids, alone, independent=self.independent)
            alone.setflags(write=False)
            object.__setattr__(self, "alone", alone)
        labels.setflags(write=False)
        probabilities.setflags(write=False)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "probabilities", probabilities)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.case_ids)

    @property
    def of_pictures(self) -> NDArray[np.float64]:
        """What each picture says for itself, [n, k]: what boxes and maps of it are worth."""
        return self.probabilities if self.alone is None else self.alone

    def __eq__(self, other: object) -> bool:
        """Equal in every column, probabilities to the last bit."""
        if not isinstance(other, Predictions):
            return NotImplemented
        same = all(
            getattr(self, name) == getattr(other, name)
            for name in ("classes", *(f"{i}s" for i in IDS), "unit", "independent")
        )
        return (
            same
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.probabilities, other.probabilities)
            and (self.alone is None) == (other.alone is None)
            and np.array_equal(self.of_pictures, other.of_pictures)
        )

    __hash__ = None  # type: ignore[assignment]

    def counts(self) -> dict[str, int]:
        """Number of images (not known study-wise), studies and patients."""
        images = {"images": len(self)} if self.unit == "image" else {}
        return {**images, "studies": len(set(self.study_ids)), "patients": len(set(self.patient_ids))}

    def class_index(self, name: str | None) -> int:
        """Position of a class; None names the last one, the usual place of the positive class.

        Raises:
            CohortError: no such class.
        """
        if name is None:
            return len(self.classes) - 1
        if name not in self.classes:
            raise CohortError(f"There is no class {name!r}; the classes are {list(self.classes)}.")
        return self.classes.index(name)

    def select(self, indices: ArrayLike) -> Predictions:
        """The rows at the given positions (integers or a mask), in that order."""
        positions = np.asarray(indices)
        # an empty list has no type of its own
        chosen = np.arange(len(self))[positions if positions.size else np.zeros(0, dtype=np.int64)]
        return replace(
            self,
            case_ids=tuple(self.case_ids[i] for i in chosen),
            study_ids=tuple(self.study_ids[i] for i in chosen),
            patient_ids=tuple(self.patient_ids[i] for i in chosen),
            labels=self.labels[chosen],
            probabilities=self.probabilities[chosen],
            alone=None if self.alone is None else self.alone[chosen],
        )

    def study_wise(self) -> Predictions:
        """One row a study: the mean probability vector over its views (Liao 2022, section V-A).

        Studies keep the order in which they first appear; `case_id` becomes the study's id.

        Raises:
            CohortError: a study whose images disagree on label or patient.
        """
        position = {study: i for i, study in enumerate(dict.fromkeys(self.study_ids))}
        index = np.array([position[study] for study in self.study_ids])
        first = np.unique(index, return_index=True)[1]
        for i, (study, j) in enumerate(zip(self.study_ids, first[index], strict=True)):
            if self.labels[i] != self.labels[j] or self.patient_ids[i] != self.patient_ids[j]:
                raise CohortError(
                    f"Study {study!r}: image {self.case_ids[i]!r} says {self.classes[self.labels[i]]!r} of patient "
                    f"{self.patient_ids[i]!r}, image {self.case_ids[j]!r} says {self.classes[self.labels[j]]!r} of "
                    f"{self.patient_ids[j]!r}.",
                    "Give a study one label and one patient, or give every image its own study id.",
                )
        total = np.zeros((len(position), len(self.classes)))
        np.add.at(total, index, self.probabilities)
        studies = tuple(position)
        return Predictions(
            classes=self.classes,
            case_ids=studies,
            study_ids=studies,
            patient_ids=tuple(self.patient_ids[j] for j in first),
            labels=self.labels[first],
            probabilities=total / np.bincount(index)[:, None],
            unit="study",
            independent=self.independent,
        )

    def write(self, path: Path) -> None:
        """Write CSV: ids, the label's name, and one column a class, exact to the last bit.

        Columns are `p(class)`, or `s(class)` where classes are independent, and `alone(class)` where views are joined.
        """
        ids = zip(self.case_ids, self.study_ids, self.patient_ids, strict=True)
        columns = self.probabilities if self.alone is None else np.concatenate([self.probabilities, self.alone], axis=1)
        rows = [
            [*row, self.unit, self.classes[label], *(repr(float(p)) for p in numbers)]
            for row, label, numbers in zip(ids, self.labels, columns, strict=True)
        ]
        letters = ["s" if self.independent else "p", *([] if self.alone is None else ["alone"])]
        named = [f"{letter}({name})" for letter in letters for name in self.classes]
        write_rows(path, [*IDS, "unit", "label", *named], rows)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read what `write` wrote.

        Raises:
            UnreadableFile: the file is missing or is no text.
            LayoutError: a column is missing or a row does not parse; the message names the row.
        """
        header, rows = read_saved_table(path, "predictions")
        fixed = [*IDS, "unit", "label"]
        given = header[len(fixed) :]
        half = len(given) // 2
        joined = bool(half) and given[half:] == [f"alone{name[1:]}" for name in given[:half]]
        classes = tuple(name[2:-1] for name in (given[:half] if joined else given))
        letter = given[0][:1] if given else "p"
        expected = [*fixed, *(f"{letter}({name})" for name in classes), *(given[half:] if joined else [])]
        if letter not in ("p", "s") or header != expected:
            raise LayoutError(f"{path}: expected columns {','.join(fixed)},p(class),...; got {','.join(header)}.")
        if not rows:
            raise LayoutError(f"{path}: the table of predictions has no row.", "Evaluate the run again.")
        return cls._parse(path, classes, rows, independent=letter == "s", joined=joined)

    @classmethod
    def _parse(
        cls, path: Path, classes: tuple[str, ...], rows: Sequence[Sequence[str]], *, independent: bool, joined: bool
    ) -> Predictions:
        labels, numbers = [], []
        fields = 5 + len(classes) * (2 if joined else 1)
        for number, row in enumerate(rows, start=2):
            if len(row) != fields:
                raise LayoutError(f"{path}, row {number}: {count_noun(len(row), 'field')}; expected {fields}.")
            if row[3] != rows[0][3] or row[3] not in ("image", "study"):
                raise LayoutError(f"{path}, row {number}: unit {row[3]!r}; expected one of image, study throughout.")
            if row[4] not in classes:
                raise LayoutError(f"{path}, row {number}: label {row[4]!r} is none of the classes {list(classes)}.")
            try:
                numbers.append([float(x) for x in row[5:]])
            except ValueError as error:
                raise LayoutError(f"{path}, row {number}: {error}.") from None
            labels.append(classes.index(row[4]))
        cases, studies, patients = (tuple(row[i] for row in rows) for i in range(3))
        unit: Literal["image", "study"] = "image" if rows[0][3] == "image" else "study"
        try:
            table = np.array(numbers)
            answers, alone = table[:, : len(classes)], table[:, len(classes) :] if joined else None
            return cls(classes, cases, studies, patients, np.array(labels), answers, unit, independent, alone)
        except (CohortError, RunError) as error:
            raise LayoutError(f"{path}: {error.message}", error.remedy) from None


def align(runs: Sequence[Predictions]) -> list[Predictions]:
    """The same predictions with their rows in the order of the first.

    Raises:
        RunError: no runs, or runs over different cases, classes, studies, patients or labels.
    """
    if not runs:
        raise RunError("There are no predictions to compare; expected at least one run.")
    first = runs[0]
    aligned = []
    for run in runs:
        if run.classes != first.classes or set(run.case_ids) != set(first.case_ids):
            different = sorted(set(run.case_ids) ^ set(first.case_ids))
            raise RunError(
                f"Predictions are over different cases or classes: classes {list(first.classes)} and "
                f"{list(run.classes)}; {count_noun(len(different), 'case stands', 'cases stand')} "
                f"in one only, e.g. {different[:3]}.",
                "Evaluate both runs on the same split of the same cohort.",
            )
        if run.case_ids != first.case_ids:
            position = {case: i for i, case in enumerate(run.case_ids)}
            run = run.select([position[case] for case in first.case_ids])
        same_groups = run.study_ids == first.study_ids and run.patient_ids == first.patient_ids
        if not same_groups or not np.array_equal(run.labels, first.labels):
            raise RunError(
                "Predictions over the same cases disagree on labels, studies or patients.",
                "Evaluate both runs on the same version of the cohort.",
            )
        aligned.append(run)
    return aligned


def _require_probabilities(case_ids: Sequence[str], probabilities: NDArray[np.float64], *, independent: bool) -> None:
    fair = np.isfinite(probabilities) & (probabilities >= 0.0) & (probabilities <= 1.0)
    wrong = np.flatnonzero(~fair.all(axis=1))
    if wrong.size:
        raise RunError(
            f"Case {case_ids[wrong[0]]!r} has probabilities {probabilities[wrong[0]].tolist()}; expected finite "
            f"numbers from 0 to 1 ({wrong.size} such rows).",
            "If they are NaN the training diverged: lower the learning rate.",
        )
    if independent:
        return
    wrong = np.flatnonzero(np.abs(probabilities.sum(axis=1) - 1.0) > SUM_TOLERANCE)
    if wrong.size:
        raise RunError(
            f"Case {case_ids[wrong[0]]!r} has probabilities that sum to {probabilities[wrong[0]].sum():.6f}; expected "
            f"1 within {SUM_TOLERANCE} ({wrong.size} such rows).",
            "Apply the softmax once, to the logits.",
        )


def read_saved_table(path: Path, what: str) -> tuple[list[str], list[list[str]]]:
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
    """Write a header and rows in one atomic step, making the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
