"""A run measured on a cohort: predictions and maps are saved first, every number is then computed from that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.case import Case, Cohort
from sightline.cohorts.task import coarser_tasks
from sightline.cohorts.transforms import View, refuse_unmarked
from sightline.cohorts.volume_view import VolumeView
from sightline.errors import RunError, SightlineError
from sightline.frame import Frame
from sightline.lab.boxes import box_scores, tune_boxes
from sightline.lab.gaze import by_map, gaze_scores
from sightline.lab.overlay import enlarge
from sightline.lab.plain import Catalogue
from sightline.lab.predict import Maps, Said, Shown, predict, read_shown, same_classes, write_shown
from sightline.lab.run import Run, write_text
from sightline.lab.train import Engine
from sightline.lab.views import case_frame, laid_over, source_frame
from sightline.measure.box_report import box_estimates
from sightline.measure.box_scores import BoxScores
from sightline.measure.classification import F1
from sightline.measure.displacement import window_displacement
from sightline.measure.estimate import Estimate
from sightline.measure.gaze_scores import GazeScores
from sightline.measure.intervals import bootstrap
from sightline.measure.localisation import MapRow, MapScores, score_map
from sightline.measure.map_agreement import resampled_by_area
from sightline.measure.organ_pointing import organ_row, score_in_organ
from sightline.measure.predictions import Predictions
from sightline.measure.summary import classification_report, to_markdown
from sightline.region import Box, Region, Role, Style, style_of

# raised whenever saved scores would come out differently
SCORING = 4
ROLES: tuple[Role, ...] = ("focus", "finding", "organ")
# a focus region is best described by its mask; the pointing game is defined on boxes of findings
SCORED: dict[Role, tuple[Style, ...]] = {
    "focus": ("mask", "box", "scribble"),
    "finding": ("box", "mask", "scribble"),
    "organ": ("mask", "box"),
}


@dataclass(frozen=True)
class Evaluation:
    """What a run says of a cohort.

    Attributes:
        predictions: one row an image.
        maps: class maps, or None where the network has none.
        map_scores: how well the maps lie on what experts marked, or None where nothing was marked.
        box_scores: the network's boxes beside the experts', as chosen on validation; None where nothing was marked.
        printed_box_scores: the same as the recipe says, where that is another way to read them off the maps.
        boxes: float64 [n, 4], the boxes the network itself says (`Said.boxes`), or None.
        shown: maps that a decoder paints or an explainer says (`Said.shown`).
        gaze_scores: how well maps lie where readers looked, or None where no gaze is known.
    """

    predictions: Predictions
    maps: Maps | None = None
    map_scores: MapScores | None = None
    box_scores: BoxScores | None = None
    printed_box_scores: BoxScores | None = None
    boxes: NDArray[np.float64] | None = None
    shown: Shown = field(default_factory=dict)
    gaze_scores: GazeScores | None = None

    @property
    def said(self) -> Said:
        """What the network said."""
        return Said(self.predictions, self.maps, self.boxes, self.shown)

    def scores_for(self, role: Role, *, around: bool = False) -> MapScores | None:
        """The map scores against regions of a role, or (organs) one cell `around` it; None where there are none."""
        if self.map_scores is None:
            return None
        rows = tuple(r for r in self.map_scores.rows if r.role == role and ("around" in r.style) is around)
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
    cohort = run.recipe.see(cohort)
    same_classes(run.classes, cohort.classes, f"Cohort {cohort.name!r}")
    view = run.recipe.view
    if isinstance(view, View):
        refuse_unmarked(cohort, view)
    engine = engine or Engine()
    files = _Files(out or run.folder / "predictions", name)
    stamp = {
        "run": run.identity,
        "cohort": cohort.fingerprint(),
        "cases": len(cohort),
        "scoring": SCORING,
        "boxes": repr(run.boxes),
    }
    kept = files.read(stamp)
    if kept is not None:
        return kept
    fabric = engine.fabric("32-true")
    said = predict(
        run.network(),
        cohort,
        view,
        batch_size=max(16, run.recipe.batch_size),
        device=fabric.device,
        workers=engine.workers,
        quiet=engine.quiet,
        title=f"predict {name}",
        independent=run.recipe.independent,
        explainer=getattr(run.recipe.objective, "heatmap", None),
    )
    rows = () if said.maps is None else tuple(_map_rows(cohort, said.maps, view))
    printed = run.recipe.boxes
    # boxes and gaze are of pictures
    flat = view if isinstance(view, View) else None
    evaluation = Evaluation(
        predictions=said.predictions,
        maps=said.maps,
        map_scores=MapScores(rows) if rows else None,
        box_scores=None if flat is None else box_scores(said, cohort, flat, run.boxes),
        printed_box_scores=None if flat is None or printed == run.boxes else box_scores(said, cohort, flat, printed),
        boxes=said.boxes,
        shown=said.shown,
        gaze_scores=None if flat is None else gaze_scores(said, cohort, flat),
    )
    files.write(evaluation, stamp)
    return evaluation


def choose_boxes(run: Run, cohort: Cohort, catalogue: Catalogue, *, engine: Engine | None = None) -> Run:
    """Choose on the validation cases of a cohort how boxes are read off a run's maps, once; the run that knows it.

    Args:
        run: a finished run.
        cohort: what it was trained on.
        catalogue: words of recipes.
        engine: device and workers.
    """
    validation = run.recipe.see(cohort).split("val")
    marked = any(region.tag.role == "finding" for case in validation for region in case.regions)
    flat = isinstance(run.recipe.view, View)
    if (run.folder / "boxes.json").is_file() or not marked or "val" in run.recipe.train_on or not flat:
        return run
    return tune_boxes(run, evaluate(run, validation, "val", engine=engine).said, validation, catalogue)


class _Files:
    """The files of an evaluation: each is made from predictions, maps and boxes, and read instead of made again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.stamp = folder / f"{name}.json"
        self.predictions = folder / f"{name}.csv"
        self.maps = folder / f"{name}_maps.npz"
        self.map_scores = folder / f"{name}_map_scores.csv"
        self.boxes = folder / f"{name}_said_boxes.csv"
        self.box_scores = folder / f"{name}_boxes.csv"
        self.printed_box_scores = folder / f"{name}_boxes_as_recipe.csv"
        self.shown = folder / f"{name}_shown.npz"
        self.gaze_scores = folder / f"{name}_gaze_scores.csv"

    @property
    def made(self) -> tuple[Path, ...]:
        """Every file but the stamp."""
        return (
            self.predictions, self.maps, self.map_scores, self.boxes, self.box_scores, self.printed_box_scores,
            self.shown, self.gaze_scores,
        )  # fmt: skip

    def write(self, evaluation: Evaluation, stamp: Mapping[str, object]) -> None:
        """Write what there is; the stamp last, so that its presence says that all is there."""
        for old in (self.stamp, *self.made):
            old.unlink(missing_ok=True)
        evaluation.predictions.write(self.predictions)
        if evaluation.boxes is not None:
            np.savetxt(self.boxes, evaluation.boxes, fmt="%.17g", delimiter=",", header="row,column,height,width",
                       comments="")  # fmt: skip
        for path, part in (
            (self.maps, evaluation.maps),
            (self.map_scores, evaluation.map_scores),
            (self.box_scores, evaluation.box_scores),
            (self.printed_box_scores, evaluation.printed_box_scores),
            (self.gaze_scores, evaluation.gaze_scores),
        ):
            if part is not None:
                part.write(path)
        if evaluation.shown:
            write_shown(evaluation.shown, self.shown)
        files = [path.name for path in self.made if path.is_file()]
        write_text(self.stamp, json.dumps({**stamp, "files": files}) + "\n")

    def read(self, stamp: Mapping[str, object]) -> Evaluation | None:
        """The evaluation as saved, or None: another run or cohort made it, or a file is missing or damaged."""
        try:
            old = json.loads(self.stamp.read_text(encoding="utf-8"))
            names = old.pop("files")
            if old != dict(stamp) or not all((self.stamp.parent / name).is_file() for name in names):
                return None
            return Evaluation(
                predictions=Predictions.read(self.predictions),
                maps=Maps.read(self.maps) if self.maps.is_file() else None,
                map_scores=MapScores.read(self.map_scores) if self.map_scores.is_file() else None,
                box_scores=BoxScores.read(self.box_scores) if self.box_scores.is_file() else None,
                printed_box_scores=(
                    BoxScores.read(self.printed_box_scores) if self.printed_box_scores.is_file() else None
                ),
                boxes=(np.loadtxt(self.boxes, delimiter=",", skiprows=1, ndmin=2) if self.boxes.is_file() else None),
                shown=read_shown(self.shown) if self.shown.is_file() else {},
                gaze_scores=GazeScores.read(self.gaze_scores) if self.gaze_scores.is_file() else None,
            )
        except (OSError, ValueError, TypeError, AttributeError, KeyError, SightlineError):
            return None


def spatial_softmax(cells: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax over the cells of one class map (Liao 2022, equation 4): what every method's map is scored as.

    Positive and summing to one whatever the pooling, so that energy is defined for every network; its maximum is the
    map's. A class map itself may be negative everywhere: only differences between cells and classes mean something.
    """
    values = cells.astype(np.float64)
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def _map_rows(cohort: Cohort, maps: Maps, view: View | VolumeView) -> Iterator[MapRow]:
    """Every case's regions, by role and style, against the map of the class they speak for."""
    for row, case in enumerate(cohort):
        if not case.regions:
            continue
        source = source_frame(case)
        frame = case_frame(case, view)
        picture = Box((0.0,) * source.ndim, tuple(map(float, source.shape))).draw(frame) > 0
        grown: dict[int, NDArray[np.float64]] = {}
        for role, style, regions in _grouped(case):
            label = _speaks_for(regions, case, cohort.classes)
            place = maps.of_class(row, cohort.class_index(label))
            if place is None:
                continue
            if role == "organ":
                yield from _organ_rows(case, maps, row, place, regions, frame)
                continue
            if place not in grown:
                grown[place] = _on_view(spatial_softmax(maps.maps[row, place]), maps, row, frame)
            inside = np.zeros(frame.shape, dtype=bool)
            for region in regions:
                inside |= region.draw(frame) > 0
            inside &= picture
            if not inside.any():
                continue
            score = score_map(grown[place], inside, picture)
            yield MapRow(case.case_id, case.study_id, case.patient_id, case.label, label, role, style, score)


def _organ_rows(
    case: Case, maps: Maps, row: int, place: int, regions: Sequence[Region], frame: Frame
) -> Iterator[MapRow]:
    """As Zhu 2022: on the map's own grid, exactly and with a cell of tolerance; organ cells are half in it or more."""
    cells = maps.maps[row, place]
    inside = np.zeros(frame.shape, dtype=bool)
    for region in regions:
        inside |= region.draw(frame) > 0
    if maps.windows is not None or frame.ndim != 2 or not inside.any():
        return
    organ = resampled_by_area(inside.astype(np.float64), cells.shape) >= 0.5
    for tolerance in (0, 1) if organ.any() else ():
        score = score_in_organ(cells.astype(np.float64), organ, tolerance_cells=tolerance)
        ids = (case.case_id, case.study_id, case.patient_id)
        yield organ_row(ids, case.label, score, tolerance_cells=tolerance)


def _on_view(cells: NDArray[np.float64], maps: Maps, row: int, frame: Frame) -> NDArray[np.float64]:
    """A map on the view's grid; a network that looked at a window gave the rest nothing."""
    if maps.windows is None:
        return enlarge(cells, frame.shape)
    return np.nan_to_num(laid_over(cells, maps.windows[row], (frame.shape[0], frame.shape[1])))


def _grouped(case: Case) -> Iterator[tuple[Role, Style, list[Region]]]:
    """Regions to score against: of each role the first style present in SCORED; organs of the case's own class."""
    for role in ROLES:
        having = [r for r in case.regions if r.tag.role == role and (role != "organ" or r.tag.label == case.label)]
        for style in SCORED[role]:
            chosen = [r for r in having if style_of(r) == style]
            if chosen:
                yield role, style, chosen
                break


def _speaks_for(regions: Sequence[Region], case: Case, classes: Sequence[str]) -> str:
    """The class whose map a group of regions is held against: the one all tags name, else the case's own."""
    labels = {region.tag.label for region in regions}
    only = labels.pop() if len(labels) == 1 else None
    return only if only is not None and only in classes else case.label


def report_of(evaluation: Evaluation, *, positive: str | None = None, replicates: int = 2000) -> list[Estimate]:
    """Every number of an evaluation with its interval: image-wise, study-wise, at coarser levels of the labels, maps by
    role and boxes beside chance, and how far windows moved."""
    predictions = evaluation.predictions
    # a network that only localises says all classes alike: no number about classes means anything
    says_classes = bool(np.ptp(predictions.probabilities) > 0)
    found = classification_report(predictions, positive=positive, replicates=replicates) if says_classes else []
    for role in ROLES:
        scores = evaluation.scores_for(role)
        if scores is not None:
            for estimate in scores.estimates(replicates=replicates):
                fields = estimate.to_dict()
                found.append(Estimate.from_dict({**fields, "name": f"{estimate.name}, {role}"}))
    for task in coarser_tasks(predictions.classes) if says_classes else ():
        merged = predictions.merged(task.groups(predictions.classes))
        score = F1("positive", 1) if len(merged.classes) == 2 else F1("weighted")
        name = f"F1 at the level {task.level} ({', '.join(merged.classes)}), image-wise"
        found.append(replace(bootstrap(score, merged, replicates=replicates), name=name))
    if evaluation.gaze_scores is not None:
        for name, table in by_map(evaluation.gaze_scores).items():
            for estimate in table.estimates(replicates=replicates):
                found.append(replace(estimate, name=f"{estimate.name}, {name}"))
    if evaluation.box_scores is not None:
        found += box_estimates(evaluation.box_scores, replicates=replicates)
    if evaluation.maps is not None and evaluation.maps.windows is not None:
        moved = window_displacement(evaluation.maps.windows)
        found += moved.estimates(predictions.patient_ids, replicates=replicates, counts=predictions.counts())
    return found


def left_out(view: View | VolumeView, evaluation: Evaluation) -> tuple[str, ...]:
    """What a report of volumes lacks, in words; nothing where the network sees pictures."""
    if isinstance(view, View):
        return ()
    words = ["Boxes, gaze and windows are measured on pictures alone: volumes have none of these numbers."]
    if evaluation.maps is None:
        words.append("The network gives no class maps, so nothing says where it looked; `sightline dissect` says what "
                     "its units respond to.")  # fmt: skip
    elif evaluation.map_scores is None:
        words.append("No region is marked that a class map could be held against.")
    return tuple(words)


def write_report_of(estimates: Sequence[Estimate], folder: Path, title: str, notes: Sequence[str] = ()) -> None:
    """`metrics.json` and `metrics.md`; notes stand below the numbers."""
    write_text(folder / "metrics.json", json.dumps([e.to_dict() for e in estimates], indent=1) + "\n")
    below = "".join(f"\n{note}\n" for note in notes)
    write_text(folder / "metrics.md", f"# {title}\n\n{to_markdown(estimates)}\n{below}")
