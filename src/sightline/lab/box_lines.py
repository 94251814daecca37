"""Lines of a table on boxes: those a row found, as validation chose and as printed, and boxes that nobody trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.lab.boxes import true_corners
from sightline.lab.row_on_test import RowOnTest, measured
from sightline.lab.table import Row, RowResult, TableResult
from sightline.lab.table_line import Line
from sightline.lab.views import source_frame
from sightline.measure.box_measures import BOX_NAMES
from sightline.measure.box_references import CENTRE_PRIOR, WHOLE_IMAGE, centre_prior_box, mean_box, whole_image
from sightline.measure.box_report import box_chance, box_seed_estimate, box_value, compare_boxes
from sightline.measure.box_scores import BoxScores

BOX_MEASURES = (
    "printed_map", "iou", "iobb", "centre_inside", "distance_px", "distance_mm", "ap_50", "ap_10", "froc_centre",
    "froc_centre_at_1",
)  # fmt: skip


def box_lines(row: RowOnTest) -> list[Line]:
    """Every measure of the boxes of a row, where it is defined."""
    ours, theirs = row.ours(lambda e: e.box_scores), row.theirs(lambda e: e.box_scores)
    lines = []
    for measure in BOX_MEASURES if ours else ():
        line = _box_line(row, BOX_NAMES[measure], ours, measure)
        if theirs and line.mean is not None:
            paired = compare_boxes(ours, theirs, measure, replicates=row.replicates)
            if paired.difference is not None:
                line = row.compared(line, paired, _values(theirs, measure))
        lines.append(line)
    printed = row.ours(lambda e: e.printed_box_scores)
    if printed:
        name = f"{BOX_NAMES['printed_map']}, boxes as the recipe says"
        lines.append(_box_line(row, name, printed, "printed_map"))
    return [line for line in lines if line.mean is not None]


def reference_box_lines(result: TableResult, replicates: int) -> list[Line]:
    """What no training is needed for: the whole image as box, and the mean box of the training images."""
    lines: list[Line] = []
    seen: set[tuple[str, str]] = set()
    for row in result.rows:
        for test, evaluations in row.evaluations.items():
            scores = evaluations[0].box_scores if evaluations else None
            key = (test, str(row.row.recipe.task))
            if scores is None or key in seen:
                continue
            seen.add(key)
            task = "" if row.row.recipe.task is None else f" ({', '.join(evaluations[0].predictions.classes)})"
            for name, boxes in _untrained(result, row, scores).items():
                nobody = RowOnTest(RowResult(Row(f"{name}{task}", row.row.recipe)), test, replicates=replicates)
                lines += [_box_line(nobody, BOX_NAMES[measure], [boxes], measure) for measure in BOX_MEASURES]
    return [line for line in lines if line.mean is not None]


def _untrained(result: TableResult, row: RowResult, scores: BoxScores) -> dict[str, BoxScores]:
    """By name, boxes on the same images that no network found."""
    training = row.row.recipe.see(result.cohort).split(*row.row.recipe.train_on)
    shapes = [source_frame(case).shape for case in training]
    boxes = [true_corners(case) for case in training]
    found = {WHOLE_IMAGE: whole_image(scores)}
    if any(len(each) for each in boxes):
        found[CENTRE_PRIOR] = centre_prior_box(scores, mean_box(boxes, [(s[0], s[1]) for s in shapes]))
    return found


def _box_line(row: RowOnTest, name: str, scores: Sequence[BoxScores], measure: str) -> Line:
    values = _values(scores, measure)
    line = row.line(name, values if len(values) == len(scores) else [])
    chances = [v for run in scores if (v := box_chance(run, measure)) is not None]
    estimate = box_seed_estimate(scores, measure, replicates=row.replicates)
    return measured(line, estimate, float(np.mean(chances)) if chances else None)


def _values(scores: Sequence[BoxScores], measure: str) -> list[float]:
    """The number of each training that has it."""
    return [value for run in scores if (value := box_value(run, measure)) is not None]
