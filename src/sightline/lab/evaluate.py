"""A run measured on a cohort: predictions and maps are saved first, every number is then computed from that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.case import Case, Cohort
from sightline.cohorts.transforms import View
from sightline.errors import RunError, SightlineError
from sightline.frame import Frame
from sightline.io.image import read_image
from sightline.lab.overlay import enlarge
from sightline.lab.predict import Maps, predict, same_classes
from sightline.lab.run import Run, write_text
from sightline.lab.train import Engine
from sightline.measure.estimate import Estimate
from sightline.measure.localisation import MapRow, MapScores, score_map
from sightline.measure.predictions import Predictions
from sightline.measure.summary import classification_report, to_markdown
from sightline.region import Box, Region, Role, Style, style_of

# raised whenever saved map scores would come out differently
SCORING = 3
ROLES: tuple[Role, ...] = ("focus", "finding")
# a focus region is best described by its mask; the pointing game is defined on boxes of findings
SCORED: dict[Role, tuple[Style, ...]] = {"focus": ("mask", "box", "scribble"), "finding": ("box", "mask", "scribble")}


@dataclass(frozen=True)
class Evaluation:
    """What a run says of a cohort.

    Attributes:
        predictions: one row an image.
        maps: class maps, or None where the network has none.
        map_scores: how well the maps lie on what experts marked, or None where nothing was marked.
    """

    predictions: Predictions
    maps: Maps | None
    map_scores: MapScores | None

    def scores_for(self, role: Role) -> MapScores | None:
        """The map scores against regions of a role, or None where there are none."""
        if self.map_scores is None:
            return None
        rows = tuple(row for row in self.map_scores.rows if row.role == role)
        return MapScores(rows) if rows else None


def evaluate(
    run: Run, cohort: Cohort, name: str, *, out: Path | None = None, engine: Engine | None = None
) -> Evaluation:
    """Predict a cohort with a run and score the maps; kept under `predictions/`, reused when nothing changed.

    Args:
        run: a finished run.
        cohort: any cohort with the run's classes, also another hospital's.
        name: what the files are called: `test`, `external`.
        out: where to write; the run's own `predictions/` when None.
        engine: device and workers.

    Raises:
        RunError: the run is not finished.
        CohortError: other classes.
    """
    if not run.done:
        raise RunError(f"{run.folder} is not finished.", "Run the same train command again: it resumes.")
    same_classes(run.classes, cohort.classes, f"Cohort {cohort.name!r}")
    engine = engine or Engine()
    folder = out or run.folder / "predictions"
    stamp = {"run": run.identity, "cohort": cohort.fingerprint(), "cases": len(cohort), "scoring": SCORING}
    papers = folder / f"{name}.json"
    csv, npz, scores_csv = folder / f"{name}.csv", folder / f"{name}_maps.npz", folder / f"{name}_map_scores.csv"
    kept = _kept(papers, stamp, csv, npz, scores_csv)
    if kept is not None:
        return kept
    fabric = engine.fabric("32-true")
    said = predict(
        run.network(),
        cohort,
        run.recipe.view,
        batch_size=max(16, run.recipe.batch_size),
        device=fabric.device,
        workers=engine.workers,
        quiet=engine.quiet,
        title=f"predict {name}",
    )
    predictions, maps = said.predictions, said.maps
    for old in (papers, csv, npz, scores_csv):
        old.unlink(missing_ok=True)
    predictions.write(csv)
    scores: MapScores | None = None
    if maps is not None:
        maps.write(npz)
        rows = tuple(_map_rows(cohort, maps, run.recipe.view))
        if rows:
            scores = MapScores(rows)
            scores.write(scores_csv)
    made = [path.name for path in (csv, npz, scores_csv) if path.is_file()]
    write_text(papers, json.dumps({**stamp, "files": made}) + "\n")
    return Evaluation(predictions, maps, scores)


def _kept(papers: Path, stamp: dict[str, object], csv: Path, npz: Path, scores_csv: Path) -> Evaluation | None:
    """The evaluation as it was saved, or None when another run or cohort made it or a file is missing or damaged."""
    try:
        old = json.loads(papers.read_text(encoding="utf-8"))
        files = old.pop("files", [csv.name, npz.name])
        if old != stamp or not all((papers.parent / name).is_file() for name in files):
            return None
        maps = Maps.read(npz) if npz.is_file() else None
        return Evaluation(Predictions.read(csv), maps, MapScores.read(scores_csv) if scores_csv.is_file() else None)
    except (OSError, ValueError, TypeError, AttributeError, SightlineError):
        return None


def spatial_softmax(cells: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax over the cells of one class map (Liao 2022, equation 4): what every method's map is scored as.

    Positive and summing to one whatever the pooling, so that energy is defined for every network; its maximum is the
    map's. A class map itself may be negative everywhere: only differences between cells and classes mean something.
    """
    values = cells.astype(np.float64)
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def source_frame(case: Case) -> Frame:
    """The frame of a case's picture; the picture is read only if the layout does not state its shape."""
    return Frame.of_image(case.shape, case.spacing_mm) if case.shape else read_image(case.image).frame


def _map_rows(cohort: Cohort, maps: Maps, view: View) -> Iterator[MapRow]:
    """Every case's regions, by role and style, against the map of the class they speak for."""
    for row, case in enumerate(cohort):
        if not case.regions:
            continue
        source = source_frame(case)
        frame = view.test_frame(source)
        picture = Box((0.0, 0.0), (float(source.shape[0]), float(source.shape[1]))).draw(frame) > 0
        grown: dict[int, NDArray[np.float64]] = {}
        for role, style, regions in _grouped(case.regions):
            label = _speaks_for(regions, case, cohort.classes)
            place = maps.of_class(row, cohort.class_index(label))
            if place is None:
                continue
            if place not in grown:
                grown[place] = enlarge(spatial_softmax(maps.maps[row, place]), (frame.shape[0], frame.shape[1]))
            inside = np.zeros(frame.shape, dtype=bool)
            for region in regions:
                inside |= region.draw(frame) > 0
            inside &= picture
            if not inside.any():
                continue
            score = score_map(grown[place], inside, picture)
            yield MapRow(case.case_id, case.study_id, case.patient_id, case.label, label, role, style, score)


def _grouped(regions: Sequence[Region]) -> Iterator[tuple[Role, Style, list[Region]]]:
    """Regions to score against: of each role the first style present in SCORED."""
    for role in ROLES:
        for style in SCORED[role]:
            chosen = [r for r in regions if r.tag.role == role and style_of(r) == style]
            if chosen:
                yield role, style, chosen
                break


def _speaks_for(regions: Sequence[Region], case: Case, classes: Sequence[str]) -> str:
    """The class whose map a group of regions is held against: the one all tags name, else the case's own."""
    labels = {region.tag.label for region in regions}
    only = labels.pop() if len(labels) == 1 else None
    return only if only is not None and only in classes else case.label


def report_of(evaluation: Evaluation, *, positive: str | None = None, replicates: int = 2000) -> list[Estimate]:
    """Every number of an evaluation with its interval: image-wise, study-wise, and maps by role beside chance."""
    found = classification_report(evaluation.predictions, positive=positive, replicates=replicates)
    for role in ROLES:
        scores = evaluation.scores_for(role)
        if scores is not None:
            for estimate in scores.estimates(replicates=replicates):
                fields = estimate.to_dict()
                found.append(Estimate.from_dict({**fields, "name": f"{estimate.name}, {role}"}))
    return found


def write_report_of(estimates: Sequence[Estimate], folder: Path, title: str) -> None:
    """`metrics.json` and `metrics.md`."""
    write_text(folder / "metrics.json", json.dumps([e.to_dict() for e in estimates], indent=1) + "\n")
    write_text(folder / "metrics.md", f"# {title}\n\n{to_markdown(estimates)}\n")
