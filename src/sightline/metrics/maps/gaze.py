"""Where a method looks beside where readers looked, over a whole split: one row an image, intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sightline.errors import RunError
from sightline.metrics.estimate import Comparison, Estimate, FloatArray
from sightline.metrics.maps.saliency import MEASURES, GazeScore, score_gaze
from sightline.metrics.maps.score_table import ScoreTable, describe_left_out, name_measure
from sightline.metrics.statistics.comparison import (
    average_resampled,
    compare_resampled,
    estimate_over_patients,
    estimate_over_seeds,
)
from sightline.metrics.statistics.paired_tests import Draws

__all__ = ["MEASURES", "NAMES", "GazeRow", "GazeScore", "GazeScores", "compare_gaze", "score_gaze", "seed_gaze"]

NAMES: Mapping[str, str] = {
    "kl": "KL from gaze",
    "cc": "CC with gaze",
    "sim": "SIM with gaze",
    "nss": "NSS",
    "auc": "AUC (Judd)",
    "sauc": "shuffled AUC",
    "iou_top": "IoU of the top fifths",
}
LOWER_IS_BETTER = ("kl",)
# the smallest and the largest possible value; the standardised map at fixated places has neither
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "kl": (0.0, math.inf),
    "cc": (-1.0, 1.0),
    "sim": (0.0, 1.0),
    "nss": (-math.inf, math.inf),
    "auc": (0.0, 1.0),
    "sauc": (0.0, 1.0),
    "iou_top": (0.0, 1.0),
}
_KEYS = ("case_id", "study_id", "patient_id", "label", "map_class", "reader")


@dataclass(frozen=True)
class GazeRow:
    """One map beside one reader's gaze on one case.

    Attributes:
        case_id: the image.
        study_id: its study.
        patient_id: its patient.
        label: class name of the case.
        map_class: class name whose map was scored.
        reader: whose gaze.
        score: the scores.
    """

    case_id: str
    study_id: str
    patient_id: str
    label: str
    map_class: str
    reader: str
    score: GazeScore

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells rows apart: case, map, reader."""
        return self.case_id, self.map_class, self.reader


@dataclass(frozen=True)
class GazeScores(ScoreTable[GazeRow]):
    """The gaze scores of one training over a split.

    Raises:
        CohortError: no row, or two rows for the same case, map and reader.
    """

    words = "gaze scores"
    needs = "gaze"
    keys = _KEYS
    row = GazeRow
    score = GazeScore

    def estimates(self) -> list[Estimate]:
        """For every measure: its mean, a flat map's, the centred Gaussian's, and the gain over either.

        All are means over the rows where the map has the measure, with intervals over patients; images without gaze
        are not counted. A gain is positive where the map is better, also for KL, of which less is better.
        """
        found: list[Estimate] = []
        for measure in MEASURES:
            name, kept = NAMES[measure], self.with_score(measure)
            if not kept:
                found.append(Estimate(name, None, n=self.counts(), method="no interval", why=self.why_none()))
                continue
            table = GazeScores(kept)
            what = describe_left_out(len(self) - len(kept))
            own, chance, centre = (table.column(measure + suffix) for suffix in ("", "_chance", "_centre"))
            sign = -1.0 if measure in LOWER_IS_BETTER else 1.0
            bounds = _BOUNDS[measure]
            width = bounds[1] - bounds[0]
            for label, values, ends in (
                (name, own, bounds),
                (f"{name}, flat map", chance, bounds),
                (f"{name}, centred Gaussian", centre, bounds),
                (f"{name}, better than a flat map by", sign * (own - chance), (-width, width)),
                (f"{name}, better than the centred Gaussian by", sign * (own - centre), (-width, width)),
            ):
                number, patients = average_resampled(values), [row.patient_id for row in kept]
                found.append(estimate_over_patients(label, number, patients, table.counts(), what=what, bounds=ends))
        return found


def seed_gaze_values(gaze_per_seed: Sequence[GazeScores], column: str) -> list[float]:
    """The mean of a gaze score of each training, over the maps that have it in every training; none where no map has.

    Args as in `seed_gaze`, whose value is their mean.
    """
    table, values = _select_same_rows(gaze_per_seed, column)
    return [] if table is None else values.mean(axis=1).tolist()


def seed_gaze(gaze_per_seed: Sequence[GazeScores], column: str) -> Estimate:
    """The mean of a gaze score over several trainings of one method, with an interval over patients and trainings.

    Args:
        gaze_per_seed: scores of the same maps, one table a training.
        column: a measure, or its `_chance` or `_centre` column.

    Raises:
        RunError: no runs, or runs over different maps.
    """
    table, values = _select_same_rows(gaze_per_seed, column)
    name = NAMES.get(column, column)
    if table is None:
        n = {**gaze_per_seed[0].counts(), "seeds": len(gaze_per_seed)}
        return Estimate(name, None, n=n, method="no interval", why="no map has this score in every run")
    left_out = len(gaze_per_seed[0]) - len(table)
    return estimate_over_seeds(
        name,
        [average_resampled(row) for row in values],
        [row.patient_id for row in table.rows],
        table.counts(),
        what=describe_left_out(left_out),
        bounds=_BOUNDS[name_measure(column)],
    )


def compare_gaze(
    gaze_a_per_seed: Sequence[GazeScores],
    gaze_b_per_seed: Sequence[GazeScores],
    measure: str,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """The difference of a gaze score between two methods on the same maps, over patients and trainings.

    Rows in which any training has no defined score are left out of all of them, and counted in `why`. Of KL, less is
    better: a negative difference favours the first method.

    Raises:
        RunError: an unknown measure, no runs, or runs over different rows.
    """
    if measure not in MEASURES:
        raise RunError(f"There is no gaze measure {measure!r}; expected one of {', '.join(MEASURES)}.")
    if not gaze_a_per_seed or not gaze_b_per_seed:
        raise RunError("A comparison needs gaze scores of both methods.")
    runs, split = [*gaze_a_per_seed, *gaze_b_per_seed], len(gaze_a_per_seed)
    table, values = _select_same_rows(runs, measure)
    name = NAMES[measure]
    if table is None:
        why = "no map has this score in every run"
        return Comparison(name, None, None, None, n=runs[0].counts(), method="no test", why=why)
    numbers = [average_resampled(row) for row in values]
    patients = [row.patient_id for row in table.rows]
    draws = Draws(replicates, seed)
    found = compare_resampled(name, numbers[:split], numbers[split:], patients, table.counts(), draws=draws)
    left_out = len(runs[0]) - len(table)
    if not left_out:
        return found
    return replace(found, why=f"{found.why}; {left_out} maps left out: not defined in every run".lstrip("; "))


def _select_same_rows(runs: Sequence[GazeScores], column: str) -> tuple[GazeScores | None, FloatArray]:
    """The rows that have a score in every run, in the first run's order, and the scores [runs, rows]."""
    if not runs:
        raise RunError("There are no gaze scores; expected at least one run.")
    tables = [{row.key: row for row in run.rows} for run in runs]
    keys = list(tables[0])
    for other in tables[1:]:
        different = sorted(set(other) ^ set(keys))
        if different:
            raise RunError(
                f"Gaze scores are over different maps: {len(different)} stand in one only, e.g. {different[0]}.",
                "Evaluate the runs on the same split with the same classes and readers.",
            )
    values = np.array([[getattr(table[key].score, column) for key in keys] for table in tables], dtype=np.float64)
    # what a flat map gets stands beside the measure, so it is of the same maps
    beside = [[getattr(table[key].score, name_measure(column)) for key in keys] for table in tables]
    own = np.array(beside, dtype=np.float64)
    defined = np.atleast_1d((np.isfinite(values) & np.isfinite(own)).all(axis=0))
    rows = tuple(row for row, keep in zip(runs[0].rows, defined, strict=True) if keep)
    return (GazeScores(rows) if rows else None), values[:, defined]
