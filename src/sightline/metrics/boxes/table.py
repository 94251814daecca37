"""The boxes a method found and the boxes experts drew, over a whole split: every box number comes from this table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from sightline.errors import CohortError, GeometryError, LayoutError, RunError, count_noun
from sightline.metrics.boxes.best_box import BoxScore, expect_chance_score, score_box
from sightline.metrics.boxes.geometry import FloatArray, check_boxes, clip_boxes, compute_area, iou
from sightline.metrics.estimate import IntArray
from sightline.metrics.predictions import read_saved_table, write_rows

Hit = float | Literal["centre"]
"""When a box fits a finding: an IoU of at least this, or `centre`: its centre lies in the finding."""

_IMAGE = ("case_id", "study_id", "patient_id", "label", "rows", "columns", "row_spacing_mm", "column_spacing_mm")
_BOX = ("kind", "score", "row_start", "column_start", "row_stop", "column_stop")
_HEADER = ("method", *_IMAGE, *_BOX)


@dataclass(frozen=True, eq=False)
class BoxCase:
    """One image: the boxes of its findings and the boxes a method found.

    Attributes:
        case_id: the image.
        study_id: its study.
        patient_id: its patient.
        label: class name of the case.
        truth: float64 [t, 4], row_start, column_start, row_stop, column_stop in source pixels; none on a negative.
        found: float64 [f, 4]; cut to the image on arrival, one wholly outside keeps no area and hits nothing.
        scores: float64 [f], larger is surer; boxes of equal score count in the order given.
        image_shape: (rows, columns).
        spacing_mm: (row, column) size of a pixel, or None where not known.

    Raises:
        GeometryError: boxes that are no boxes, a finding without area inside the image, an image without pixels.
        RunError: scores that are not finite or not one per box.
    """

    case_id: str
    study_id: str
    patient_id: str
    label: str
    truth: FloatArray
    found: FloatArray
    scores: FloatArray
    image_shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check every number, cut boxes to the image, and freeze the arrays."""
        shape = tuple(int(side) for side in self.image_shape)
        if len(shape) != 2 or min(shape) < 1 or shape != tuple(self.image_shape):
            raise GeometryError(f"Case {self.case_id!r}: an image of shape {self.image_shape}; expected two sizes.")
        spacing = None if self.spacing_mm is None else tuple(float(s) for s in self.spacing_mm)
        if spacing is not None and (len(spacing) != 2 or not all(math.isfinite(s) and s > 0 for s in spacing)):
            raise GeometryError(f"Case {self.case_id!r}: a spacing of {self.spacing_mm} mm; expected two sizes.")
        object.__setattr__(self, "image_shape", shape)
        object.__setattr__(self, "spacing_mm", spacing)
        truth = clip_boxes(check_boxes(self.truth, f"true boxes of case {self.case_id!r}"), self.image_shape)
        if (compute_area(truth) <= 0).any():
            raise GeometryError(
                f"Case {self.case_id!r} has a true box without area inside the image of {self.image_shape} pixels: "
                f"{np.asarray(self.truth).tolist()}.",
                "Fix the box, or leave it out of the cohort.",
            )
        found = clip_boxes(check_boxes(self.found, f"found boxes of case {self.case_id!r}"), self.image_shape)
        scores = np.array(self.scores, dtype=np.float64)
        if scores.shape != (len(found),) or not np.isfinite(scores).all():
            raise RunError(
                f"Case {self.case_id!r} has {count_noun(len(found), 'found box', 'found boxes')} "
                f"and scores {scores.tolist()}."
            )
        for name, values in (("truth", truth), ("found", found), ("scores", scores)):
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, numbers to the last bit."""
        if not isinstance(other, BoxCase):
            return NotImplemented
        plain = ("case_id", "study_id", "patient_id", "label", "image_shape", "spacing_mm")
        return all(getattr(self, name) == getattr(other, name) for name in plain) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("truth", "found", "scores")
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def best(self) -> FloatArray | None:
        """The box [4] of the highest score, of equal ones the first; None where no box was found."""
        return self.found[int(self.scores.argmax())] if len(self.found) else None

    @cached_property
    def matches(self) -> dict[Hit, IntArray]:
        """Kept by `detection.match_boxes`: every number of a table asks for the same."""
        return {}

    @cached_property
    def overlap(self) -> FloatArray:
        """IoU [f, t] of found and true boxes."""
        return iou(self.found, self.truth)

    @cached_property
    def score(self) -> BoxScore | None:
        """The scores of the best box; None on an image without a finding."""
        return score_box(self.best, self.truth, self.spacing_mm) if len(self.truth) else None

    @cached_property
    def chance(self) -> BoxScore | None:
        """What a box of the best one's size gets at a random place; None on an image without a finding."""
        if not len(self.truth):
            return None
        return expect_chance_score(self.best, self.truth, self.image_shape, self.spacing_mm)


@dataclass(frozen=True)
class BoxScores:
    """The boxes of one method (one training) over a split, images without findings included.

    Attributes:
        cases: one per image.
        method: what found the boxes, e.g. `class map, largest component`.

    Raises:
        CohortError: no image, a repeated case id, or no name.
    """

    cases: tuple[BoxCase, ...]
    method: str = "boxes"

    def __post_init__(self) -> None:
        """Refuse empty tables and repeated images."""
        object.__setattr__(self, "cases", tuple(self.cases))
        if not self.cases or not self.method:
            raise CohortError(f"A table of boxes needs images and a method; got {len(self)} and {self.method!r}.")
        repeated = [i for i, times in Counter(case.case_id for case in self.cases).items() if times > 1]
        if repeated:
            raise CohortError(f"Boxes repeat {len(repeated)} case ids, e.g. {repeated[:3]}.")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.cases)

    def where(self, keep: Callable[[BoxCase], bool]) -> BoxScores:
        """The images for which `keep` is true.

        Raises:
            CohortError: none is left.
        """
        return BoxScores(tuple(case for case in self.cases if keep(case)), self.method)

    def counts(self) -> dict[str, int]:
        """Number of images, studies, patients, findings (true boxes) and found boxes."""
        return {
            "images": len(self),
            "studies": len({case.study_id for case in self.cases}),
            "patients": len({case.patient_id for case in self.cases}),
            "findings": sum(len(case.truth) for case in self.cases),
            "boxes": sum(len(case.found) for case in self.cases),
        }

    def write(self, path: Path) -> None:
        """Write CSV, one row a box (`kind` is `truth` or `found`), exact to the last bit.

        An image with neither has one row of kind `none`. A spacing that is not known is an empty field.
        """
        write_rows(path, _HEADER, [row for case in self.cases for row in _format_rows(self.method, case)])

    @classmethod
    def read(cls, path: Path) -> BoxScores:
        """Read what `write` wrote.

        Raises:
            UnreadableFile: the file is missing or is no text.
            LayoutError: a column is missing or a row does not parse; the message names the row.
        """
        header, lines = read_saved_table(path, "boxes")
        if header != list(_HEADER) or not lines:
            raise LayoutError(f"{path}: expected rows under {','.join(_HEADER)}; got {','.join(header)}.")
        for number, line in enumerate(lines, start=2):
            if len(line) != len(_HEADER) or line[0] != lines[0][0]:
                raise LayoutError(
                    f"{path}, row {number}: {count_noun(len(line), 'field')}, method {line[:1]}; "
                    f"expected {len(_HEADER)} fields and "
                    f"method {lines[0][0]!r} throughout.",
                    "Evaluate the run again.",
                )
        cases = []
        numbered = enumerate(lines, start=2)
        for _, group in groupby(numbered, key=lambda numbered_line: numbered_line[1][1]):
            cases.append(_parse_case(path, list(group)))
        try:
            return cls(tuple(cases), lines[0][0])
        except CohortError as error:
            raise LayoutError(f"{path}: {error.message}", "Evaluate the run again.") from None


def align_boxes(runs: Sequence[BoxScores]) -> list[BoxScores]:
    """The same tables with their images in the order of the first.

    Raises:
        RunError: no runs, or runs over different images, patients, image sizes or true boxes.
    """
    if not runs:
        raise RunError("There are no boxes to compare; expected at least one run.")
    first, aligned = runs[0], []
    for run in runs:
        if run is first:
            aligned.append(run)
            continue
        rows = {case.case_id: case for case in run.cases}
        different = sorted(set(rows) ^ {case.case_id for case in first.cases})
        if different:
            raise RunError(
                f"Boxes are over different images: {len(different)} stand in one only, e.g. {different[:3]}.",
                "Evaluate both runs on the same split of the same cohort.",
            )
        ordered = tuple(rows[case.case_id] for case in first.cases)
        for ours, theirs in zip(first.cases, ordered, strict=True):
            same = ours.patient_id == theirs.patient_id and ours.image_shape == theirs.image_shape
            same = same and ours.spacing_mm == theirs.spacing_mm and len(ours.truth) == len(theirs.truth)
            # most images of a split have no true box
            if not same or (len(ours.truth) and not np.array_equal(ours.truth, theirs.truth)):
                raise RunError(
                    f"Boxes over the same images disagree on case {ours.case_id!r}: its patient, size, spacing or true "
                    "boxes differ.",
                    "Evaluate both runs on the same version of the cohort.",
                )
        aligned.append(BoxScores(ordered, run.method))
    return aligned


def _format_rows(method: str, case: BoxCase) -> list[list[str]]:
    spacing = ("", "") if case.spacing_mm is None else tuple(repr(s) for s in case.spacing_mm)
    ids = (case.case_id, case.study_id, case.patient_id, case.label)
    image = [method, *ids, *(str(s) for s in case.image_shape), *spacing]
    rows = [[*image, "truth", "", *(repr(float(x)) for x in box)] for box in case.truth]
    for score, box in zip(case.scores, case.found, strict=True):
        rows.append([*image, "found", repr(float(score)), *(repr(float(x)) for x in box)])
    return rows or [[*image, "none", "", "", "", "", ""]]


def _parse_case(path: Path, numbered: Sequence[tuple[int, list[str]]]) -> BoxCase:
    """One image from its rows, which stand together."""
    image = numbered[0][1][1 : 1 + len(_IMAGE)]
    boxes: dict[str, list[list[float]]] = {"truth": [], "found": [], "none": []}
    scores = []
    for number, line in numbered:
        kind, score, *corners = line[1 + len(_IMAGE) :]
        try:
            if line[1 : 1 + len(_IMAGE)] != image:
                raise ValueError(f"the rows of case {image[0]!r} disagree on the image")
            if kind not in boxes or (kind == "none" and len(numbered) > 1) or (bool(score) != (kind == "found")):
                raise ValueError(f"kind {kind!r} with score {score!r}; expected truth, found with a score, or none")
            boxes[kind].append([] if kind == "none" else [float(x) for x in corners])
            scores += [float(score)] if score else []
        except ValueError as error:
            raise LayoutError(f"{path}, row {number}: {error}.", "Evaluate the run again.") from None
    try:
        shape = (int(image[4]), int(image[5]))
        spacing = (float(image[6]), float(image[7])) if image[6] or image[7] else None
        truth, found = (np.array(boxes[kind], dtype=np.float64) for kind in ("truth", "found"))
        return BoxCase(image[0], image[1], image[2], image[3], truth, found, np.array(scores), shape, spacing)
    except (ValueError, GeometryError, RunError) as error:
        reason = error.message if isinstance(error, (GeometryError, RunError)) else error
        message = f"{path}, row {numbered[0][0]}: {str(reason).removesuffix('.')}."
        raise LayoutError(message, "Evaluate the run again.") from None
