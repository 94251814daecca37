"""Lines of a table on what was called: every score image-wise and study-wise, and F1 at coarser levels of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.cohorts.task import coarser_tasks
from sightline.lab.row_on_test import RowOnTest, measured
from sightline.lab.table_line import Line
from sightline.measure.classification import (
    AUC,
    F1,
    Accuracy,
    AveragePrecision,
    BalancedAccuracy,
    HandTillAUC,
    OneVsRestAUC,
    Precision,
    Prevalence,
    Score,
    Sensitivity,
)
from sightline.measure.coarser_classes import merged
from sightline.measure.comparison import paired_bootstrap
from sightline.measure.intervals import point_value, seed_bootstrap
from sightline.measure.predictions import Predictions


def class_lines(row: RowOnTest) -> list[Line]:
    """All lines on the calls of a row: coarser levels first, then image-wise, then study-wise."""
    ours, theirs = row.ours(lambda e: e.predictions), row.theirs(lambda e: e.predictions)
    lines = _level_lines(row, ours, theirs)
    for score in (scores := _scores(ours[0].classes)):
        lines.append(_scored(row, f"image-wise {score.name}", score, ours, theirs))
    studies, their_studies = ([run.study_wise() for run in runs] for runs in (ours, theirs))
    for score in scores:
        lines.append(_scored(row, f"study-wise {score.name}", score, studies, their_studies))
    return lines


def _level_lines(row: RowOnTest, ours: Sequence[Predictions], theirs: Sequence[Predictions]) -> list[Line]:
    """F1 at every coarser level of the labels from the same predictions: A1 to B3 also say A or B, broken or not."""
    lines = []
    for task in coarser_tasks(ours[0].classes):
        groups = task.groups(ours[0].classes)
        coarse, their_coarse = ([merged(run, groups) for run in runs] for runs in (ours, theirs))
        classes = coarse[0].classes
        score = F1("positive", 1) if len(classes) == 2 else F1("weighted")
        name = f"image-wise F1 at the level {task.level} ({', '.join(classes)})"
        lines.append(_scored(row, name, score, coarse, their_coarse))
    return lines


def _scored(
    row: RowOnTest, metric: str, score: Score, ours: Sequence[Predictions], theirs: Sequence[Predictions]
) -> Line:
    values, their_values = ([point_value(score, run) for run in runs] for runs in (ours, theirs))
    line = measured(row.line(metric, values), seed_bootstrap(ours, score, replicates=row.replicates))
    # a class that a training never calls has no precision: nothing to compare
    if not theirs or not np.isfinite([*values, *their_values]).all():
        return line
    return row.compared(line, paired_bootstrap(ours, theirs, score, replicates=row.replicates), their_values)


def _scores(classes: Sequence[str]) -> list[Score]:
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
