"""Where a method looks, over a whole split: map scores in a table, with intervals over patients beside chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from sightline.errors import CohortError, LayoutError, RunError
from sightline.measure.classification import FloatArray
from sightline.measure.csv_rows import read_rows, write_rows
from sightline.measure.estimate import Comparison, Estimate
from sightline.measure.map_score import MEASURES, MapScore, centre_prior, score_map
from sightline.measure.resampled import difference, mean_of, over_patients, over_seeds

__all__ = ["MEASURES", "MapRow", "MapScore", "MapScores", "centre_prior", "compare_maps", "score_map"]

NAMES: Mapping[str, str] = {
    "pointing": "pointing game",
    "energy": "energy inside",
    "iou": "IoU at the region's area",
    "iou_half": "IoU at half the maximum",
}
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
class MapScores:
    """The map scores of one training over a split.

    Raises:
        CohortError: no row, or two rows for the same case, map, role and style.
    """

    rows: tuple[MapRow, ...]

    def __post_init__(self) -> None:
        """Refuse empty tables and repeated rows."""
        if not self.rows:
            raise CohortError("There are no map scores; expected at least one row.", "Does the split hold regions?")
        repeated = [key for key, times in Counter(row.key for row in self.rows).items() if times > 1]
        if repeated:
            raise CohortError(f"Map scores repeat {len(repeated)} rows, e.g. {repeated[0]}.")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def where(self, keep: Callable[[MapRow], bool]) -> MapScores:
        """The rows for which `keep` is true, e.g. only findings, or only maps of the case's own class."""
        return MapScores(tuple(row for row in self.rows if keep(row)))

    def column(self, name: str) -> FloatArray:
        """One score of every row, [n], NaN where not defined."""
        values = [getattr(row.score, name) for row in self.rows]
        return np.array([math.nan if value is None else value for value in values])

    def counts(self) -> dict[str, int]:
        """Number of maps, images, studies and patients."""
        studies, patients = {row.study_id for row in self.rows}, {row.patient_id for row in self.rows}
        images = {row.case_id for row in self.rows}
        return {"maps": len(self), "images": len(images), "studies": len(studies), "patients": len(patients)}

    def estimates(self, *, replicates: int = 2000, seed: int = 0) -> list[Estimate]:
        """For every measure: its mean, its chance level, the centred Gaussian, and the gain over either.

        All five are means over the rows where the map's own score is defined, with patient-bootstrap intervals.
        """
        found = []
        for measure in MEASURES:
            own = self.column(measure)
            kept = tuple(row for row, value in zip(self.rows, own, strict=True) if math.isfinite(value))
            name = NAMES[measure]
            if not kept:
                reason = next((row.score.why for row in self.rows if row.score.why), "no map has this score")
                found.append(Estimate(name, None, n=self.counts(), method="no interval", why=reason))
                continue
            table = MapScores(kept)
            patients = [row.patient_id for row in kept]
            left_out = len(self) - len(kept)
            what = "mean over maps" + (f", {left_out} maps without a score left out" if left_out else "")
            columns = {suffix: table.column(measure + suffix) for suffix in ("", "_chance", "_centre")}
            for label, values in (
                (name, columns[""]),
                (f"{name}, chance", columns["_chance"]),
                (f"{name}, centred Gaussian", columns["_centre"]),
                (f"{name}, above chance", columns[""] - columns["_chance"]),
                (f"{name}, above centred Gaussian", columns[""] - columns["_centre"]),
            ):
                found.append(
                    over_patients(
                        label, mean_of(values), patients, table.counts(), replicates=replicates, seed=seed, what=what
                    )
                )
        return found

    def write(self, path: Path) -> None:
        """Write CSV, exact to the last bit; an undefined score is an empty field."""
        scores = [field.name for field in fields(MapScore)]
        rows = []
        for row in self.rows:
            values = [getattr(row.score, name) for name in scores]
            rows.append([*(getattr(row, key) for key in _KEYS), *("" if v is None else str(v) for v in values)])
        write_rows(path, [*_KEYS, *scores], rows)

    @classmethod
    def read(cls, path: Path) -> MapScores:
        """Read what `write` wrote.

        Raises:
            UnreadableFile: the file is missing or is no text.
            LayoutError: a column is missing or a row does not parse; the message names the row.
        """
        header, lines = read_rows(path, "map scores")
        names = [field.name for field in fields(MapScore)]
        if header != [*_KEYS, *names] or not lines:
            raise LayoutError(f"{path}: expected rows under {','.join([*_KEYS, *names])}; got {','.join(header)}.")
        rows = []
        for number, line in enumerate(lines, start=2):
            try:
                keys = dict(zip(_KEYS, line, strict=False))
                values = dict(zip(names, line[len(_KEYS) :], strict=True))
                rows.append(MapRow(**keys, score=_parse(values)))
            except (ValueError, RunError) as error:
                reason = error.message if isinstance(error, RunError) else error
                raise LayoutError(f"{path}, row {number}: {reason}.", "Evaluate the run again.") from None
        return cls(tuple(rows))


def seed_estimate(
    maps_per_seed: Sequence[MapScores], column: str, *, replicates: int = 2000, seed: int = 0
) -> Estimate:
    """The mean of a map score over several trainings of one method, with an interval over patients and trainings.

    Args:
        maps_per_seed: scores of the same maps, one table a training.
        column: a measure, or its `_chance` or `_centre` column.
        replicates: number of bootstrap samples.
        seed: of the draws.

    Raises:
        RunError: no runs, or runs over different maps.
    """
    if not maps_per_seed:
        raise RunError("There are no map scores; expected at least one run.")
    keys = [row.key for row in maps_per_seed[0].rows]
    if any([row.key for row in other.rows] != keys for other in maps_per_seed[1:]):
        raise RunError("Map scores are over different maps.", "Evaluate the runs on the same split.")
    values = np.stack([scores.column(column) for scores in maps_per_seed])
    defined = np.atleast_1d(np.isfinite(values).all(axis=0))
    n = {**maps_per_seed[0].counts(), "seeds": len(maps_per_seed)}
    name = NAMES.get(column, column)
    if not defined.any():
        return Estimate(name, None, n=n, method="no interval", why="no map has this score in every run")
    kept = MapScores(tuple(row for row, keep in zip(maps_per_seed[0].rows, defined, strict=True) if keep))
    return over_seeds(
        name,
        [mean_of(row) for row in values[:, defined]],
        [row.patient_id for row in kept.rows],
        kept.counts(),
        replicates=replicates,
        seed=seed,
        what="mean over maps",
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

    Rows in which any training has no defined score are left out of all of them, and counted in `why`.

    Raises:
        RunError: an unknown measure, no runs, or runs over different rows.
    """
    if measure not in MEASURES:
        raise RunError(f"There is no map measure {measure!r}; expected one of {', '.join(MEASURES)}.")
    runs = [*maps_a_per_seed, *maps_b_per_seed]
    if not maps_a_per_seed or not maps_b_per_seed:
        raise RunError("A comparison needs map scores of both methods.")
    rows = [{row.key: row for row in run.rows} for run in runs]
    keys = list(rows[0])
    for other in rows[1:]:
        different = sorted(set(other) ^ set(keys))
        if different:
            raise RunError(
                f"Map scores are over different maps: {len(different)} stand in one only, e.g. {different[0]}.",
                "Evaluate both runs on the same split with the same classes and regions.",
            )
    values = np.array([[getattr(table[key].score, measure) for key in keys] for table in rows], dtype=np.float64)
    defined = np.atleast_1d(np.isfinite(values).all(axis=0))
    name, left_out = NAMES[measure], int((~defined).sum())
    n = MapScores(tuple(rows[0][key] for key in keys)).counts()
    if not defined.any():
        return Comparison(name, None, None, None, n=n, method="no test", why="no map has this score in every run")
    kept = MapScores(tuple(rows[0][key] for key, keep in zip(keys, defined, strict=True) if keep))
    split = len(maps_a_per_seed)
    numbers = [mean_of(row) for row in values[:, defined]]
    found = difference(
        name,
        numbers[:split],
        numbers[split:],
        [row.patient_id for row in kept.rows],
        kept.counts(),
        replicates=replicates,
        seed=seed,
    )
    if not left_out:
        return found
    why = f"{found.why}; {left_out} maps left out: not defined in every run".lstrip("; ")
    return replace(found, why=why)


def _parse(values: Mapping[str, str]) -> MapScore:
    scores = {name: float(text) if text else None for name, text in values.items() if name not in _COUNTS}
    return MapScore(**scores, inside_px=int(values["inside_px"]), image_px=int(values["image_px"]), why=values["why"])


_COUNTS = ("inside_px", "image_px", "why")
