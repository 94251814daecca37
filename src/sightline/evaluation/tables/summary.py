"""What a table's trainings amount to: per row and metric the mean over seeds, its interval, and the difference from
the reference row by a paired test over patients and seeds, with Welch's t over seeds beside it.

Mean, interval and number of cases of a line are about the same cases; what was left out is counted in its method. The
difference and both p are of the cases that have the number in all trainings of both rows; what that leaves out, or why
two rows cannot be compared, stands in `why` and below the table."""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from sightline.data.task import derive_coarser_tasks
from sightline.data.views.frames import find_source_frame
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RecipeError
from sightline.evaluation.result import Evaluation
from sightline.evaluation.scoring.boxes import list_true_corners
from sightline.evaluation.scoring.gaze import CLASS_MAP, group_by_map
from sightline.evaluation.scoring.maps import ROLES
from sightline.evaluation.tables.lines import Line, Pair, RowOnTest, add_interval, pair_tables
from sightline.evaluation.tables.table import Row, RowResult, Table, TableResult
from sightline.metrics.boxes.baselines import (
    CENTRE_PRIOR,
    WHOLE_IMAGE,
    box_centre_prior,
    box_whole_image,
    compute_mean_box,
)
from sightline.metrics.boxes.report import (
    BOX_NAMES,
    compare_boxes,
    compute_box_seed_chance,
    compute_box_seed_values,
    estimate_boxes_over_seeds,
)
from sightline.metrics.boxes.table import BoxScores
from sightline.metrics.classification.estimates import compare_scores, estimate_score
from sightline.metrics.classification.hierarchy import merge_classes
from sightline.metrics.classification.scores import (
    AUC,
    F1,
    Accuracy,
    AveragePrecision,
    BalancedAccuracy,
    HandTillAUC,
    OneVsRestAUC,
    Precision,
    Prevalence,
    Sensitivity,
)
from sightline.metrics.estimate import Score
from sightline.metrics.maps.gaze import NAMES as GAZE_NAMES
from sightline.metrics.maps.gaze import GazeScores, compare_gaze, seed_gaze, seed_gaze_values
from sightline.metrics.maps.localisation import NAMES, MapScores, compare_maps, seed_estimate, seed_values
from sightline.metrics.maps.windows import WindowDisplacement, measure_window_displacement
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import score_point
from sightline.metrics.statistics.comparison import average_resampled, estimate_over_seeds, holm
from sightline.structures.case import Cohort
from sightline.structures.tag import Role

REPLICATES = 2000

MapTable = TypeVar("MapTable", MapScores, GazeScores)


def summarise(result: TableResult, *, replicates: int = REPLICATES) -> list[Line]:
    """All metrics of all rows; rows that did not run give one line that says why."""
    lines: list[Line] = []
    for row in result.rows:
        if row.why_not is not None:
            lines.append(Line(row.row.name, "test", "not run", why=str(row.why_not)))
            continue
        for test in row.evaluations:
            lines += _compute_lines(RowOnTest(row, test, _find_reference(result, row), replicates))
    return _correct_lines([*lines, *compute_reference_box_lines(result)])


def require_known_metrics(table: Table, cohort: Cohort) -> None:
    """Refuse a metric that a person named and no row can have, before anything is trained.

    Raises:
        RecipeError: with the metrics that were probably meant.
    """
    if not table.named_in:
        return
    known: dict[str, None] = {}
    for row in table.rows:
        try:
            known |= dict.fromkeys(list_metric_names(row.recipe.see(cohort).classes if row.recipe.classifies else ()))
        except CohortError:
            return  # the row is refused by name later
    for metric in table.metrics:
        # what is drawn beside a class map is named by the network
        beside = any(metric.startswith(f"{GAZE_NAMES[measure]}, ") for measure in GAZE_MEASURES)
        if metric not in known and not beside:
            near = difflib.get_close_matches(metric, known, n=3, cutoff=0.5)
            raise RecipeError(
                f"{table.named_in}: report names {metric[:80]!r}, which no row of this table can have.",
                f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are: {', '.join(known)}.",
            )


def list_metric_names(classes: Sequence[str]) -> list[str]:
    """Every metric that a row of these classes can have, in order; without classes, those of maps and boxes.

    Example:
        >>> list_metric_names(("intact", "fractured"))[1]
        'image-wise balanced accuracy'
    """
    names = []
    if classes:
        scores = _list_scores(classes)
        names += [f"{unit} {score.name}" for unit in ("image-wise", "study-wise") for score in scores]
        for task in derive_coarser_tasks(classes):
            names.append(_name_level(task.level, list(task.groups(classes))))
    names += [f"{NAMES[measure]} ({what})" for what in (*ROLES, ORGAN_AROUND) for measure in MAP_MEASURES]
    names += [f"{GAZE_NAMES[measure]}, {CLASS_MAP}" for measure in GAZE_MEASURES]
    return [*names, *(BOX_NAMES[measure] for measure in BOX_MEASURES), PRINTED_BOXES, *WINDOW_MEASURES]


def choose_leading_metric(table: Table, lines: Sequence[Line]) -> str:
    """The metric that methods are compared by in figures and sentences: the first that the rows have."""
    wanted = (*table.leading, "study-wise AUC", "study-wise accuracy")
    return next((m for m in wanted if any(x.metric == m and x.difference is not None for x in lines)), wanted[-1])


def _compute_lines(row: RowOnTest) -> list[Line]:
    recipe = row.row.row.recipe
    lines = compute_class_lines(row) if recipe.classifies else []
    # a network that is shown the expert's crop was told where to look: where it looks says nothing
    if not (isinstance(recipe.view, View) and recipe.view.crop is not None):
        lines += [*compute_map_lines(row), *compute_gaze_lines(row), *compute_box_lines(row)]
    return [*lines, *compute_window_lines(row)]


def _find_reference(result: TableResult, row: RowResult) -> RowResult | None:
    if row.row.reference is None:
        return None
    reference = result.of(row.row.reference)
    return None if reference.why_not is not None else reference


def _correct_lines(lines: list[Line]) -> list[Line]:
    """Holm's correction within each metric and test cohort."""
    families: dict[tuple[str, str], list[int]] = {}
    for i, line in enumerate(lines):
        if line.p_paired is not None:
            families.setdefault((line.test, line.metric), []).append(i)
    corrected = list(lines)
    for members in families.values():
        for i, p in zip(members, holm([lines[i].p_paired for i in members]), strict=True):
            corrected[i] = replace(lines[i], p_holm=p)
    return corrected


def compute_class_lines(row: RowOnTest) -> list[Line]:
    """All lines on the calls of a row: coarser levels first, then image-wise, then study-wise."""
    ours, theirs = row.ours(lambda e: e.predictions), row.theirs(lambda e: e.predictions)
    pair = _pair_predictions(ours, theirs)
    lines = _compute_level_lines(row, ours, pair)
    for score in (scores := _list_scores(ours[0].classes)):
        lines.append(_score_line(row, f"image-wise {score.name}", score, ours, pair))
    studies, by_study = [run.study_wise() for run in ours], pair.convert(Predictions.study_wise)
    for score in scores:
        lines.append(_score_line(row, f"study-wise {score.name}", score, studies, by_study))
    return lines


def _pair_predictions(ours: Sequence[Predictions], theirs: Sequence[Predictions]) -> Pair[Predictions]:
    """Both rows' calls of the images that both were tested on."""
    if theirs and theirs[0].classes != ours[0].classes:
        named = (", ".join(runs[0].classes) for runs in (ours, theirs))
        return Pair(ours, (), why=f"the classes are {' and '.join(f'({each})' for each in named)}")
    return pair_tables(ours, theirs, lambda run: run.case_ids, Predictions.select)


def _compute_level_lines(row: RowOnTest, ours: Sequence[Predictions], pair: Pair[Predictions]) -> list[Line]:
    """F1 at every coarser level of the labels from the same predictions: A1 to B3 also say A or B, broken or not."""
    lines = []
    for task in derive_coarser_tasks(ours[0].classes):
        merge = partial(merge_classes, groups=task.groups(ours[0].classes))
        coarse = [merge(run) for run in ours]
        classes = coarse[0].classes
        score = F1("positive", 1) if len(classes) == 2 else F1("weighted")
        lines.append(_score_line(row, _name_level(task.level, classes), score, coarse, pair.convert(merge)))
    return lines


def _name_level(level: str, classes: Sequence[str]) -> str:
    return f"image-wise F1 at the level {level} ({', '.join(classes)})"


def _score_line(
    row: RowOnTest, metric: str, score: Score, ours: Sequence[Predictions], pair: Pair[Predictions]
) -> Line:
    def measure(runs: Sequence[Predictions]) -> list[float]:
        return [score_point(score, run) for run in runs]

    line = add_interval(row.line(metric, measure(ours)), estimate_score(ours, score))
    # a class that a training never calls has no precision: nothing to compare
    if line.mean is None or (not pair.left_out and not np.isfinite(measure(pair.theirs)).all()):
        return line
    return row.compare_line(line, pair, partial(compare_scores, score=score, swaps=row.replicates), measure)


def _list_scores(classes: Sequence[str]) -> list[Score]:
    """Accuracy, ranking, and F1 as Jimenez-Sanchez 2018 reports it: of the positive class of two, else of each class
    and their mean weighted by support."""
    if len(classes) == 2:
        name = classes[1]
        of_two: list[Score] = [Sensitivity(1, name=f"recall for {name}"), Precision(1, name=f"precision for {name}")]
        f1 = F1("positive", 1, name=f"F1 of {name}")
        return [Accuracy(), BalancedAccuracy(), AUC(1), AveragePrecision(1), f1, *of_two, Prevalence(1)]
    each: list[Score] = [F1("positive", k, name=f"F1 of {name}") for k, name in enumerate(classes)]
    ranked: list[Score] = [
        OneVsRestAUC(),
        HandTillAUC(),
        *(AUC(k, name=f"AUC of {name}") for k, name in enumerate(classes)),
    ]
    called: list[Score] = []
    for k, name in enumerate(classes):
        called += [Precision(k, name=f"precision for {name}"), Sensitivity(k, name=f"recall for {name}")]
    return [Accuracy(), *ranked, *called, *each, F1("weighted", name="F1 weighted by support")]


WINDOW_MEASURES = ("centre shift (fraction)", "window scale", "rotation in degrees")
ORGAN_AROUND = "organ, one cell around"
MAP_MEASURES = ("pointing", "energy", "iou")
GAZE_MEASURES = ("cc", "kl", "sim", "nss", "auc", "sauc")


def compute_map_lines(row: RowOnTest) -> list[Line]:
    """How well maps agree with regions of each role, and with an organ, one cell around counted too."""
    lines = []
    for role, around in [*((role, False) for role in ROLES), ("organ", True)]:
        of = partial(_get_map_scores, role=role, around=around)
        ours, theirs = row.ours(of), row.theirs(of)
        what = ORGAN_AROUND if around else role
        pair = pair_tables(ours, theirs, _list_keys, _select_rows, "map")
        for measure in MAP_MEASURES if ours else ():
            values = seed_values(ours, measure)
            if not values:
                continue
            estimate, chance = seed_estimate(ours, measure), seed_estimate(ours, f"{measure}_chance").value
            line = add_interval(row.line(f"{NAMES[measure]} ({what})", values), estimate, chance)
            compare = partial(compare_maps, measure=measure, replicates=row.replicates)
            lines.append(row.compare_line(line, pair, compare, partial(seed_values, column=measure)))
    return lines


def _list_keys(scores: MapScores | GazeScores) -> list[Hashable]:
    return [row.key for row in scores.rows]


def _select_rows(scores: MapTable, positions: Sequence[int]) -> MapTable:
    return replace(scores, rows=tuple(scores.rows[i] for i in positions))


def _get_map_scores(evaluation: Evaluation, role: Role, around: bool) -> MapScores | None:
    return evaluation.scores_for(role, around=around)


def compute_gaze_lines(row: RowOnTest) -> list[Line]:
    """How well each kind of map agrees with gaze; the chance is a flat map's."""
    ours, theirs = (
        [group_by_map(scores) for scores in side(lambda e: e.gaze_scores)] for side in (row.ours, row.theirs)
    )
    lines = []
    for name in ours[0] if ours else ():
        tables = [each[name] for each in ours]
        pair = pair_tables(tables, [each[name] for each in theirs if name in each], _list_keys, _select_rows, "map")
        lines += [
            line
            for measure in GAZE_MEASURES
            if (line := _compute_gaze_line(row, name, measure, tables, pair)) is not None
        ]
    return lines


def _compute_gaze_line(
    row: RowOnTest, name: str, measure: str, ours: Sequence[GazeScores], pair: Pair[GazeScores]
) -> Line | None:
    values = seed_gaze_values(ours, measure)
    if not values:
        return None
    estimate, chance = seed_gaze(ours, measure), seed_gaze(ours, f"{measure}_chance").value
    line = add_interval(row.line(f"{GAZE_NAMES[measure]}, {name}", values), estimate, chance)
    compare = partial(compare_gaze, measure=measure, replicates=row.replicates)
    return row.compare_line(line, pair, compare, partial(seed_gaze_values, column=measure))


def compute_window_lines(row: RowOnTest) -> list[Line]:
    """How far windows moved from the whole image: means over images and trainings, with an interval over both."""
    moved = row.ours(_measure_displacement)
    if not moved:
        return []
    first = row.row.evaluations[row.test][0].predictions
    lines = []
    for name in WINDOW_MEASURES:
        columns = [each.columns()[name] for each in moved]
        estimate = estimate_over_seeds(
            name,
            [average_resampled(values) for values in columns],
            first.patient_ids,
            first.counts(),
            what="mean over images",
            bounds=(-math.inf, math.inf),
        )
        lines.append(add_interval(row.line(name, [float(values.mean()) for values in columns]), estimate))
    return lines


def _measure_displacement(evaluation: Evaluation) -> WindowDisplacement | None:
    if evaluation.maps is None or evaluation.maps.windows is None:
        return None
    return measure_window_displacement(evaluation.maps.windows)


BOX_MEASURES = (
    "printed_map", "iou", "iobb", "centre_inside", "distance_px", "distance_mm", "ap_50", "ap_10", "froc_centre",
    "froc_centre_at_1",
)  # fmt: skip
PRINTED_BOXES = f"{BOX_NAMES['printed_map']}, boxes as the recipe says"


def compute_box_lines(row: RowOnTest) -> list[Line]:
    """Every measure of the boxes of a row, where it is defined."""
    ours, theirs = row.ours(lambda e: e.box_scores), row.theirs(lambda e: e.box_scores)
    pair = pair_tables(ours, theirs, lambda t: [case.case_id for case in t.cases], _select_cases)
    lines = []
    for measure in BOX_MEASURES if ours else ():
        line = _compute_box_line(row, BOX_NAMES[measure], ours, measure)
        if line.mean is not None:
            compare = partial(compare_boxes, measure=measure, replicates=row.replicates)
            line = row.compare_line(line, pair, compare, partial(compute_box_seed_values, measure=measure))
        lines.append(line)
    printed = row.ours(lambda e: e.printed_box_scores)
    if printed:
        lines.append(_compute_box_line(row, PRINTED_BOXES, printed, "printed_map"))
    return [line for line in lines if line.mean is not None]


def _select_cases(scores: BoxScores, positions: Sequence[int]) -> BoxScores:
    return replace(scores, cases=tuple(scores.cases[i] for i in positions))


def compute_reference_box_lines(result: TableResult) -> list[Line]:
    """What no training is needed for: the whole image as box, and the mean box of the training images."""
    lines: list[Line] = []
    kept = collect_untrained_boxes(result) if result.untrained is None else result.untrained
    for (test, task), tables in kept.items():
        row = next(r for r in result.rows if _is_asked(r, test, task))
        classes = ", ".join(row.evaluations[test][0].predictions.classes)
        named = "" if row.row.recipe.task is None else f" ({classes})"
        for name, boxes in tables.items():
            nobody = RowOnTest(RowResult(Row(f"{name}{named}", row.row.recipe)), test)
            lines += [_compute_box_line(nobody, BOX_NAMES[measure], [boxes], measure) for measure in BOX_MEASURES]
    return [line for line in lines if line.mean is not None]


def collect_untrained_boxes(result: TableResult) -> dict[tuple[str, str], dict[str, BoxScores]]:
    """By test cohort and task, and by name, boxes that no network found."""
    found: dict[tuple[str, str], dict[str, BoxScores]] = {}
    for row in result.rows:
        for test, evaluations in row.evaluations.items():
            scores = evaluations[0].box_scores if evaluations else None
            key = (test, str(row.row.recipe.task))
            if scores is not None and key not in found:
                found[key] = _build_untrained_boxes(result, row, scores)
    return found


def _is_asked(row: RowResult, test: str, task: str) -> bool:
    evaluations = row.evaluations.get(test, ())
    return any(e.box_scores is not None for e in evaluations[:1]) and str(row.row.recipe.task) == task


def _build_untrained_boxes(result: TableResult, row: RowResult, scores: BoxScores) -> dict[str, BoxScores]:
    """By name, boxes on the same images that no network found."""
    training = row.row.recipe.see(result.cohort).split(*row.row.recipe.train_on)
    shapes = [find_source_frame(case).shape for case in training]
    boxes = [list_true_corners(case) for case in training]
    found = {WHOLE_IMAGE: box_whole_image(scores)}
    if any(len(each) for each in boxes):
        found[CENTRE_PRIOR] = box_centre_prior(scores, compute_mean_box(boxes, [(s[0], s[1]) for s in shapes]))
    return found


def _compute_box_line(row: RowOnTest, name: str, scores: Sequence[BoxScores], measure: str) -> Line:
    line = row.line(name, compute_box_seed_values(scores, measure))
    return add_interval(line, estimate_boxes_over_seeds(scores, measure), compute_box_seed_chance(scores, measure))
