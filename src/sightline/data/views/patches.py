"""Training on patches of a picture, testing on the whole: for findings that are tiny and whose places are known.

A finding that covers half a percent of a radiograph is seen by a fully convolutional network as well in a patch as in
the whole picture, at a fraction of the cost, and where it is not is learned from patches too. The patch carries its own
label: a finding's class where a marked finding reaches into it, else the normal class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.crops import Corners, list_boxes
from sightline.errors import CohortError, RecipeError
from sightline.structures.case import Case, Cohort, is_normal
from sightline.structures.frame import Frame
from sightline.structures.notation import Notation, drop_unset, write_fields
from sightline.structures.regions import Box


@dataclass(frozen=True)
class Patches:
    """Square patches of the test-time view, for training.

    Attributes:
        size: side of a patch in pixels.
        zoom: range of magnifications relative to the test-time view; its logarithm is uniform.
        around: chance that the patch of a picture with findings is put around one of them (any of them alike); else
            its centre is anywhere in the picture.
        per_picture: patches of each picture in an epoch.
        labels: what says the class of a patch: the `marks`, or the `picture`'s own label, whatever of it the patch
            shows. The latter knows no mark, and goes with `around` 0: the twin of a network guided on patches.
    """

    size: int = 256
    zoom: tuple[float, float] = (0.7, 1.4)
    around: float = 0.8
    per_picture: int = 1
    labels: Literal["marks", "picture"] = field(default="marks", metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse sizes and ranges that mean nothing."""
        low, high = self.zoom
        if self.size < 16 or not 0.0 < low <= high or not 0.0 <= self.around <= 1.0 or self.per_picture < 1:
            raise RecipeError(
                f"Patches need size >= 16, 0 < zoom, 0 <= around <= 1 and per_picture >= 1; got {self.size}, "
                f"{self.zoom}, {self.around} and {self.per_picture}.",
                "Try size 256, zoom (0.7, 1.4), around 0.8.",
            )

        if self.labels == "picture" and self.around > 0.0:
            raise RecipeError(
                f"Patches labelled by the picture know no mark to be put around; got around {self.around}.",
                "Set around to 0, or labels to 'marks'.",
            )

    def notation(self) -> Notation:
        """What names of kept features hold of them."""
        return write_fields(
            "Patches",
            size=self.size,
            zoom=self.zoom,
            around=self.around,
            per_picture=self.per_picture,
            **drop_unset(labels=None if self.labels == "marks" else self.labels),
        )

    def draw(self, view: Frame, source: Frame, findings: Sequence[Corners], rng: Generator) -> Frame:
        """A patch's frame.

        Args:
            view: frame of the test-time view.
            source: frame of the picture, which padding is no part of.
            findings: boxes in source pixels.
            rng: of this draw.
        """
        zoom = math.exp(rng.uniform(math.log(self.zoom[0]), math.log(self.zoom[1])))
        side = self.size / zoom
        if findings and rng.random() < self.around:
            box = findings[int(rng.integers(len(findings)))]
            middle = view.unmap_points([[(box[0] + box[2]) / 2.0, (box[1] + box[3]) / 2.0]])[0]
            # the finding may lie anywhere in the patch but at its rim
            centre = middle + rng.uniform(-0.38, 0.38, 2) * side
        else:
            corners = view.unmap_points([[0.0, 0.0], [float(n) for n in source.shape]])
            half = np.minimum(side, corners[1] - corners[0]) / 2.0
            centre = rng.uniform(corners[0] + half, corners[1] - half)
        row, column = centre - side / 2.0
        return view.then([[1.0 / zoom, 0.0, row], [0.0, 1.0 / zoom, column], [0.0, 0.0, 1.0]], (self.size, self.size))


def choose_patch_label(case: Case, classes: Sequence[str], findings: Sequence[Corners], frame: Frame) -> int:
    """The class of a patch: the case's where one of its findings reaches into it, else the normal one.

    Args:
        case: the case.
        classes: class names, one of them normal.
        findings: its boxes in source pixels.
        frame: of the patch.
    """
    for row_start, column_start, row_stop, column_stop in findings:
        # drawn, not bounded: the upright bounds of a turned box reach further than the box
        if Box((row_start, column_start), (row_stop, column_stop)).draw(frame).any():
            return classes.index(case.label)
    return find_normal_class(classes)


def find_normal_class(classes: Sequence[str]) -> int:
    """Position of the class without a finding.

    Raises:
        CohortError: none of the names is known as such.
    """
    for index, name in enumerate(classes):
        if is_normal(name):
            return index
    raise CohortError(
        f"Patches without a finding need a class to belong to; none of {list(classes)} is one.",
        "Call the class without findings 'normal' or 'no finding', or train on whole pictures.",
    )


def select_patchable(cohort: Cohort, regions: RegionChoice | GazeChoice) -> Cohort:
    """The cases whose patches can be labelled: normal ones, and those with findings that are marked and shown.

    A case with findings that nobody marked, or that `regions.share` hides, could have its finding in any patch.

    Raises:
        CohortError: no normal class, or no marked finding.
    """
    normal = cohort.classes[find_normal_class(cohort.classes)]
    shown = regions.patients(cohort)
    kept = cohort.where(
        lambda case: case.label == normal or (bool(list_boxes(case)) and (shown is None or case.patient_id in shown))
    )
    if all(case.label == normal for case in kept):
        raise CohortError(
            f"Cohort {cohort.name!r} has no marked finding to take patches of.",
            "Mark findings, or train on whole pictures.",
        )
    return kept
