"""Self-training: the places a first network is surest of become the marks that a second one is trained on.

Image labels say that a picture holds a finding; a network trained on them (or on a few marked pictures) says where it
thinks it is. Believed where it is surest, it marks pictures for a network that learns from marks (Lee 2013, pseudo-
labels; Bency 2016 and Zhang 2018 for places). Marks of
experts that the first network was not shown are not used. What was taught can teach in turn (Xie 2020, noisy student):
each round marks the pictures anew, by the average of its weights over the training (Tarvainen 2017, mean teacher),
which is what a recipe with `ema_decay` keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sightline.data.views.frames import find_case_frame
from sightline.errors import CohortError, RecipeError, RunError
from sightline.explainers.localisation.points import find_points
from sightline.inference.predict import predict
from sightline.structures.case import Case, Cohort, is_normal
from sightline.structures.notation import Notation, write_fields
from sightline.structures.regions import Box, Region
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.recipe import Recipe
from sightline.training.run import Run

READER = "network"


@dataclass(frozen=True)
class Teaching:
    """What a first network's maps are taken for.

    Attributes:
        keep: share of the pictures with a finding, those with the highest peaks, that are marked; the others are left
            without marks.
        side: side of the square around the peak, as a share of the picture's longer side.
    """

    keep: float = 0.5
    side: float = 0.06

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not 0.0 < self.keep <= 1.0 or not 0.0 < self.side <= 1.0:
            raise RecipeError(
                f"keep and side lie above 0 and up to 1; got {self.keep} and {self.side}.", "Try keep 0.5, side 0.06."
            )

    def notation(self) -> Notation:
        """What the identity of a taught run holds of its teaching."""
        return write_fields("Teaching", keep=self.keep, side=self.side)


def label_by_run(
    run: Run,
    cohort: Cohort,
    teaching: Teaching | None = None,
    engine: Engine | None = None,
    first: Recipe | None = None,
) -> Cohort:
    """The cohort with the training cases' findings marked by a run instead of by experts.

    Marks of cases the run was guided by stay; every other mark of a finding of the splits it was trained on is
    removed, whether the run could have seen it or not. Validation and test cases stay as they are.

    Args:
        run: a finished run with class maps.
        cohort: the cohort it was trained on.
        teaching: how many marks, and how large.
        engine: device and workers.
        first: the recipe of the first teacher, where the run itself was taught: the marks of experts that it was shown
            are those that stay, and all others are marked anew. None: the run is the first.

    Raises:
        CohortError: no training case with a finding is left to mark.
        RunError: the run's network has no class maps.
    """
    teaching, engine = teaching or Teaching(), engine or Engine()
    training = cohort.split(*run.recipe.train_on)
    # what the run was shown: nobody's marks, or those of some patients, or (None) everybody's
    teacher = first or run.recipe
    shown = teacher.regions.patients(training) if teacher.guided_by_regions else frozenset()
    asked = training.where(
        lambda case: not is_normal(case.label) and (shown is not None and case.patient_id not in shown)
    )
    if len(asked) == 0:
        raise CohortError(
            f"The run {run.folder.name} was shown every mark of {cohort.name!r}: it has nobody to teach.",
            "Self-train from a run without guidance, or guided by a share of the marks.",
        )
    peaks = _find_peaks(run, asked, engine)
    sure = sorted(peaks, key=lambda case_id: (-peaks[case_id][1], case_id))[: math.ceil(teaching.keep * len(peaks))]
    marks = {case_id: peaks[case_id][0] for case_id in sure}

    def remark(case: Case) -> Case:
        if case.case_id not in peaks:
            return case
        kept = tuple(region for region in case.regions if region.tag.role != "finding")
        return replace(case, regions=(*kept, *_mark_square(case, run, marks, teaching.side)))

    return replace(cohort, cases=tuple(remark(case) for case in cohort))


def _find_peaks(run: Run, cohort: Cohort, engine: Engine) -> dict[str, tuple[tuple[float, float], float]]:
    """Where the map of each case's class is greatest, in source pixels, and how high it is there."""
    output = predict(
        run.network(), cohort, run.recipe.view, batch_size=run.recipe.batch_size, workers=engine.workers,
        quiet=engine.quiet, title="teacher", independent=run.recipe.independent,
    )  # fmt: skip
    if output.maps is None:
        raise RunError(f"{run.folder} has no class maps to teach by.", "Self-train from a class map model.")
    peaks = {}
    for row, case in enumerate(cohort):
        at = output.maps.of_class(row, cohort.class_index(case.label))
        if at is None:
            continue
        cells = output.maps.maps[row, at]
        point = find_points(cells[None])
        frame = output.maps.frame(row, find_case_frame(case, run.recipe.view))
        place = frame.map_points(point)[0]
        peaks[case.case_id] = ((float(place[0]), float(place[1])), float(np.max(cells)))
    return peaks


def _mark_square(case: Case, run: Run, marks: dict[str, tuple[float, float]], side: float) -> tuple[Region, ...]:
    if case.case_id not in marks:
        return ()
    row, column = marks[case.case_id]
    # the view is square: its side in source pixels is the picture's longer side
    frame = find_case_frame(case, run.recipe.view)
    half = side * max(frame.shape) * frame.scale / 2.0
    # rounded: another machine's last digit is not another cohort
    corners = [round(x, 1) for x in (row - half, column - half, row + half, column + half)]
    return (Box((corners[0], corners[1]), (corners[2], corners[3]), Tag("finding", case.label, READER)),)
