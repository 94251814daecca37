"""Where a method looks, over a whole split: map scores in a table, with intervals over patients beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import binary_dilation

from sightline.errors import GeometryError, RunError
from sightline.metrics.estimate import BoolArray, Comparison, Estimate, FloatArray
from sightline.metrics.maps.score import MEASURES, MapScore, score_map
from sightline.metrics.maps.score_table import ScoreTable, describe_left_out, name_measure
from sightline.metrics.statistics.comparison import (
    average_resampled,
    compare_resampled,
    estimate_over_patients,
    estimate_over_seeds,
)
from sightline.metrics.statistics.paired_tests import Draws

NAMES: Mapping[str, str] = {
    "pointing": "pointing game",
    "energy": "energy inside",
    "iou": "IoU at the region's area",
    "iou_half": "IoU at half the maximum",
}
ORGAN = "organ"
_KEYS = ("case_id", "study_id", "patient_id", "label", "map_class", "role", "style")


@dataclass(frozen=True)
class MapRow:
    """One map against one region of one case.

    Attributes:
        case_id: the image.
        study_id: its study.
        patient_id: its patient.
        label: class name of the case.
        map_class: class name whose map was scored.
        role: what the region is: `focus` or `finding`.
        style: how it was drawn: scribble, box or mask.
        score: the scores.
    """

    case_id: str
    study_id: str
    patient_id: str
    label: str
    map_class: str
    role: str
    style: str
    score: MapScore

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells rows apart: case, map, role, style."""
        return self.case_id, self.map_class, self.role, self.style


@dataclass(frozen=True)
class MapScores(ScoreTable[MapRow]):
    """The map scores of one training over a split.

    Raises:
        CohortError: no row, or two rows for the same case, map, role and style.
    """

    words = "map scores"
    needs = "regions"
    keys = _KEYS
    row = MapRow
    score = MapScore

    def estimates(self) -> list[Estimate]:
        """For every measure: its mean, its chance level, the centred Gaussian, and the gain over either.

        All five are means over the rows where the map's own score is defined, with intervals over patients.
        """
        found = []
        for measure in MEASURES:
            name, kept = NAMES[measure], self.with_score(measure)
            if not kept:
                found.append(Estimate(name, None, n=self.counts(), method="no interval", why=self.why_none()))
                continue
            table = MapScores(kept)
            patients = [row.patient_id for row in kept]
            what = describe_left_out(len(self) - len(kept))
            columns = {suffix: table.column(measure + suffix) for suffix in ("", "_chance", "_centre")}
            for label, values, bounds in (
                (name, columns[""], (0.0, 1.0)),
                (f"{name}, chance", columns["_chance"], (0.0, 1.0)),
                (f"{name}, centred Gaussian", columns["_centre"], (0.0, 1.0)),
                (f"{name}, above chance", columns[""] - columns["_chance"], (-1.0, 1.0)),
                (f"{name}, above centred Gaussian", columns[""] - columns["_centre"], (-1.0, 1.0)),
            ):
                found.append(
                    estimate_over_patients(
                        label, average_resampled(values), patients, table.counts(), what=what, bounds=bounds
                    )
                )
        return found


def seed_values(maps_per_seed: Sequence[MapScores], column: str) -> list[float]:
    """The mean of a map score of each training, over the maps that have it in every training; none where no map has.

    Args as in `seed_estimate`, whose value is their mean.
    """
    values, defined = _select_same_maps(maps_per_seed, column)
    return values[:, defined].mean(axis=1).tolist() if defined.any() else []


def _select_same_maps(maps_per_seed: Sequence[MapScores], column: str) -> tuple[FloatArray, BoolArray]:
    """The score of every map in every training [t, n], and which maps have it in all of them [n]."""
    if not maps_per_seed:
        raise RunError("There are no map scores; expected at least one run.")
    keys = [row.key for row in maps_per_seed[0].rows]
    if any([row.key for row in other.rows] != keys for other in maps_per_seed[1:]):
        raise RunError("Map scores are over different maps.", "Evaluate the runs on the same split.")
    values = np.stack([scores.column(column) for scores in maps_per_seed])
    # a chance level stands beside the measure, so it is of the same maps: a dead map has a chance and no energy
    own = np.stack([scores.column(name_measure(column)) for scores in maps_per_seed])
    return values, np.atleast_1d((np.isfinite(values) & np.isfinite(own)).all(axis=0))


def seed_estimate(maps_per_seed: Sequence[MapScores], column: str) -> Estimate:
    """The mean of a map score over several trainings of one method, with an interval over patients and trainings.

    Maps on which any training has no score are left out of the mean and of the interval, and counted in the method.

    Args:
        maps_per_seed: scores of the same maps, one table a training.
        column: a measure, or its `_chance` or `_centre` column.

    Raises:
        RunError: no runs, or runs over different maps.
    """
    values, defined = _select_same_maps(maps_per_seed, column)
    n = {**maps_per_seed[0].counts(), "seeds": len(maps_per_seed)}
    name = NAMES.get(column, column)
    if not defined.any():
        return Estimate(name, None, n=n, method="no interval", why="no map has this score in every run")
    kept = MapScores(tuple(row for row, keep in zip(maps_per_seed[0].rows, defined, strict=True) if keep))
    left_out = int((~defined).sum())
    return estimate_over_seeds(
        name,
        [average_resampled(row) for row in values[:, defined]],
        [row.patient_id for row in kept.rows],
        kept.counts(),
        what=describe_left_out(left_out),
    )


def compare_maps(
    maps_a_per_seed: Sequence[MapScores],
    maps_b_per_seed: Sequence[MapScores],
    measure: str,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """The difference of a map score between two methods on the same maps, over patients and trainings.

    Rows in which any training has no defined score are left out of all of them, and counted in `why`. An organ has a
    row only where it covers a cell of the map: one that stands in some tables alone has no score in the others.

    Raises:
        RunError: an unknown measure, no runs, or runs over different rows.
    """
    if measure not in MEASURES:
        raise RunError(f"There is no map measure {measure!r}; expected one of {', '.join(MEASURES)}.")
    runs = [*maps_a_per_seed, *maps_b_per_seed]
    if not maps_a_per_seed or not maps_b_per_seed:
        raise RunError("A comparison needs map scores of both methods.")
    rows = [{row.key: row for row in run.rows} for run in runs]
    # grids differ between networks, and with them the organs that are seen
    union = {key: row for table in reversed(rows) for key, row in table.items()}
    keys = [*rows[0], *(key for key in union if key not in rows[0])]
    different = sorted(key for key in keys if union[key].role != ORGAN and any(key not in table for table in rows))
    if different:
        raise RunError(
            f"Map scores are over different maps: {len(different)} stand in one only, e.g. {different[0]}.",
            "Evaluate both runs on the same split with the same classes and regions.",
        )
    unseen = MapScore(why="the organ covers no cell of the map")
    scores = [[table[key].score if key in table else unseen for key in keys] for table in rows]
    values = np.array([[getattr(score, measure) for score in row] for row in scores], dtype=np.float64)
    defined = np.atleast_1d(np.isfinite(values).all(axis=0))
    name, left_out = NAMES[measure], int((~defined).sum())
    n = MapScores(tuple(union[key] for key in keys)).counts()
    if not defined.any():
        return Comparison(name, None, None, None, n=n, method="no test", why="no map has this score in every run")
    kept = MapScores(tuple(union[key] for key, keep in zip(keys, defined, strict=True) if keep))
    split = len(maps_a_per_seed)
    numbers = [average_resampled(row) for row in values[:, defined]]
    found = compare_resampled(
        name,
        numbers[:split],
        numbers[split:],
        [row.patient_id for row in kept.rows],
        kept.counts(),
        draws=Draws(replicates, seed),
    )
    if not left_out:
        return found
    why = f"{found.why}; {left_out} maps left out: not defined in every run".lstrip("; ")
    return replace(found, why=why)


NORMAL = "the class has no organ: not counted"


def score_in_organ(
    map: ArrayLike, organ: ArrayLike | None, *, tolerance_cells: int = 0, valid: ArrayLike | None = None
) -> MapScore:
    """Pointing game of a map in an organ; with a tolerance of 0 cells all map scores.

    A tolerance accepts a maximum with an organ cell among its 8 neighbours, which is a maximum in the mask grown by one
    cell; chance and the centred Gaussian are given the same grown mask. Tied maxima count by their share inside.

    Args:
        map: float [h, w], the true class's map.
        organ: bool [h, w]; None where the class has no organ (normals), which is not counted.
        tolerance_cells: 0, as the text has it; 1, as the code has it; or more.
        valid: bool [h, w]: cells that belong to the image; None means all.

    Raises:
        GeometryError: shapes that differ, a map that is not finite, or a negative tolerance.
    """
    if tolerance_cells < 0:
        raise GeometryError(f"A pointing game's tolerance is 0 cells or more; got {tolerance_cells}.")
    if organ is None:
        return MapScore(why=NORMAL)
    region = np.asarray(organ) > 0
    if valid is not None and np.shape(valid) == region.shape:
        region = region & (np.asarray(valid) > 0)
    if tolerance_cells == 0:
        return score_map(map, region, valid)
    grown = binary_dilation(region, structure=np.ones((3,) * region.ndim), iterations=tolerance_cells)
    found = score_map(map, grown, valid)
    if found.pointing is None:
        return found
    return MapScore(
        pointing=found.pointing,
        pointing_chance=found.pointing_chance,
        pointing_centre=found.pointing_centre,
        inside_px=found.inside_px,
        image_px=found.image_px,
        why=f"pointing game alone, with a tolerance of {tolerance_cells} cells",
    )


def build_organ_row(ids: tuple[str, str, str], label: str, score: MapScore, *, tolerance_cells: int = 0) -> MapRow:
    """One row of `MapScores` for an organ: role `organ`, style `mask` with the tolerance it was scored under.

    Args:
        ids: of case, study and patient.
        label: the case's class, whose map was scored.
        score: by `score_in_organ`.
        tolerance_cells: the tolerance given there.
    """
    style = "mask" if tolerance_cells == 0 else f"mask and {tolerance_cells} cells around"
    return MapRow(*ids, label=label, map_class=label, role=ORGAN, style=style, score=score)


def compute_organ_report(scores: MapScores) -> list[Estimate]:
    """Pointing game, its chance, the centred Gaussian and the gain over both, per class and over all classes.

    Rows of another role and of classes without an organ are not in question; other rows without a score are left out
    and counted. Each tolerance stands by itself.
    """
    rows = [row for row in scores.rows if row.role == ORGAN and row.score.why != NORMAL]
    report: list[Estimate] = []
    for style in dict.fromkeys(row.style for row in rows):
        of_style = [row for row in rows if row.style == style]
        labels = list(dict.fromkeys(row.label for row in of_style))
        for label in [*labels, None] if len(labels) > 1 else labels:
            kept = [row for row in of_style if label in (None, row.label)]
            report += _compute_estimates(kept, f"{label or 'all classes'}, {style}")
    if not report:
        why = next((row.score.why for row in scores.rows if row.score.why), "no organ among the rows")
        report = [Estimate("pointing game in the organ", None, n=scores.counts(), method="no interval", why=why)]
    return report


def _compute_estimates(rows: Sequence[MapRow], what: str) -> list[Estimate]:
    found = MapScores(tuple(rows)).estimates()
    pointing = [estimate for estimate in found if estimate.name.startswith("pointing game")]
    return [replace(e, name=f"{e.name.replace('game', 'game in the organ', 1)}: {what}") for e in pointing]
