"""Lines of a table on where a row looks: maps beside experts' regions and readers' gaze, and how far windows moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sightline.lab.evaluation import Evaluation
from sightline.lab.gaze import by_map
from sightline.lab.map_scoring import ROLES
from sightline.lab.row_on_test import RowOnTest, defined_means, measured
from sightline.lab.table_line import Line
from sightline.measure.displacement import WindowDisplacement, window_displacement
from sightline.measure.gaze_scores import NAMES as GAZE_NAMES
from sightline.measure.gaze_scores import GazeScores, compare_gaze, seed_gaze
from sightline.measure.localisation import NAMES, MapScores, compare_maps, seed_estimate
from sightline.region import Role

WINDOW_MEASURES = ("centre shift (fraction)", "window scale", "rotation in degrees")
MAP_MEASURES = ("pointing", "energy", "iou")
GAZE_MEASURES = ("cc", "kl", "sim", "nss", "auc", "sauc")


def map_lines(row: RowOnTest) -> list[Line]:
    """How well maps agree with regions of each role, and with an organ, one cell around counted too."""
    lines = []
    for role, around in [*((role, False) for role in ROLES), ("organ", True)]:
        of = partial(_scores_for, role=role, around=around)
        ours, theirs = row.ours(of), row.theirs(of)
        what = f"{role}, one cell around" if around else role
        for measure in MAP_MEASURES if ours else ():
            values, their_values = defined_means(ours, measure), defined_means(theirs, measure)
            if not values:
                continue
            chance = float(np.mean(defined_means(ours, f"{measure}_chance")))
            estimate = seed_estimate(ours, measure, replicates=row.replicates)
            line = measured(row.line(f"{NAMES[measure]} ({what})", values), estimate, chance)
            if their_values:
                paired = compare_maps(ours, theirs, measure, replicates=row.replicates)
                line = row.compared(line, paired, their_values)
            lines.append(line)
    return lines


def _scores_for(evaluation: Evaluation, role: Role, around: bool) -> MapScores | None:
    return evaluation.scores_for(role, around=around)


def gaze_lines(row: RowOnTest) -> list[Line]:
    """How well each kind of map agrees with gaze; the chance is a flat map's."""
    ours, theirs = ([by_map(scores) for scores in side(lambda e: e.gaze_scores)] for side in (row.ours, row.theirs))
    lines = []
    for name in ours[0] if ours else ():
        tables = [each[name] for each in ours]
        their_tables = [each[name] for each in theirs if name in each]
        lines += [
            line
            for measure in GAZE_MEASURES
            if (line := _gaze_line(row, name, measure, tables, their_tables)) is not None
        ]
    return lines


def _gaze_line(
    row: RowOnTest, name: str, measure: str, ours: Sequence[GazeScores], theirs: Sequence[GazeScores]
) -> Line | None:
    values, their_values = defined_means(ours, measure), defined_means(theirs, measure)
    if not values:
        return None
    # a flat map's score is the same in every training
    chance = next(iter(defined_means(ours, f"{measure}_chance")), None)
    estimate = seed_gaze(ours, measure, replicates=row.replicates)
    line = measured(row.line(f"{GAZE_NAMES[measure]}, {name}", values), estimate, chance)
    if not their_values:
        return line
    return row.compared(line, compare_gaze(ours, theirs, measure, replicates=row.replicates), their_values)


def window_lines(row: RowOnTest) -> list[Line]:
    """How far windows moved from the whole image: means over images, an interval over patients with one training."""
    moved = row.ours(_displacement)
    if not moved:
        return []
    first = row.row.evaluations[row.test][0].predictions
    estimates = moved[0].estimates(first.patient_ids, replicates=row.replicates, counts=first.counts())
    lines = []
    for name in WINDOW_MEASURES:
        line = row.line(name, [float(each.columns()[name].mean()) for each in moved])
        line = measured(line, next(e for e in estimates if e.name == name))
        lines.append(replace(line, method=f"{line.method}; interval of the first training"))
    return lines


def _displacement(evaluation: Evaluation) -> WindowDisplacement | None:
    if evaluation.maps is None or evaluation.maps.windows is None:
        return None
    return window_displacement(evaluation.maps.windows)
