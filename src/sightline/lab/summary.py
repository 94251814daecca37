"""What a table's trainings amount to: per row and metric the mean over seeds, its interval, and the difference from
the reference row by a paired test over patients and seeds, with Welch's t over seeds beside it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sightline.cohorts.task import coarser_tasks
from sightline.lab.boxes import true_corners
from sightline.lab.evaluate import ROLES
from sightline.lab.gaze import by_map
from sightline.lab.run import write_text
from sightline.lab.table import Published, Row, RowResult, TableResult
from sightline.lab.views import source_frame
from sightline.measure.box_references import CENTRE_PRIOR, WHOLE_IMAGE, centre_prior_box, mean_box, whole_image
from sightline.measure.box_report import BOX_NAMES, box_chance, box_seed_estimate, box_value, compare_boxes
from sightline.measure.box_scores import BoxScores
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
from sightline.measure.comparison import holm, paired_bootstrap, welch
from sightline.measure.displacement import window_displacement
from sightline.measure.estimate import Comparison, Estimate, p_text
from sightline.measure.gaze_scores import NAMES as GAZE_NAMES
from sightline.measure.gaze_scores import compare_gaze, seed_gaze
from sightline.measure.intervals import point_value, seed_bootstrap
from sightline.measure.localisation import NAMES, MapScores, compare_maps, seed_estimate
from sightline.measure.predictions import Predictions

REPLICATES = 2000
WINDOW_MEASURES = ("centre shift (fraction)", "window scale", "rotation in degrees")
MAP_MEASURES = ("pointing", "energy", "iou")
GAZE_MEASURES = ("cc", "kl", "sim", "nss", "auc", "sauc")
BOX_MEASURES = (
    "printed_map", "iou", "iobb", "centre_inside", "distance_px", "distance_mm", "ap_50", "ap_10", "froc_centre",
    "froc_centre_at_1",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One metric of one row on one test cohort.

    Attributes:
        row: row name.
        test: `test` or `external`.
        metric: e.g. `study-wise AUC`.
        values: one per seed.
        mean: over seeds.
        std: over seeds, ddof 1; None with one seed.
        low: lower end of the 95% interval.
        high: upper end.
        chance: chance level, for map scores.
        n: what was counted.
        method: how the interval was made.
        reference: row compared with.
        difference: mean minus the reference's.
        difference_low: lower end of its paired 95% interval.
        difference_high: upper end.
        p_paired: paired bootstrap over patients and seeds, two-sided.
        p_holm: the same after Holm's correction over the table's rows for this metric.
        p_welch: Welch's t over seeds, as the paper computes it.
        published: what the paper prints, or empty.
        why: what is missing and why.
    """

    row: str
    test: str
    metric: str
    values: tuple[float, ...] = ()
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    n: str = ""
    method: str = ""
    reference: str = ""
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_paired: float | None = None
    p_holm: float | None = None
    p_welch: float | None = None
    published: str = ""
    why: str = ""

    def value_text(self, *, percent: bool = False) -> str:
        """Mean ± standard deviation over seeds."""
        if self.mean is None:
            return "undefined"
        scale, digits = _scale(percent)
        spread = "" if self.std is None else f" ± {self.std * scale:.{digits}f}"
        return f"{self.mean * scale:.{digits}f}{spread}"

    def interval_text(self, *, percent: bool = False) -> str:
        """The 95% interval."""
        if self.low is None or self.high is None:
            return "–"
        scale, digits = _scale(percent)
        return f"{self.low * scale:.{digits}f} to {self.high * scale:.{digits}f}"

    def difference_value_text(self, *, percent: bool = False) -> str:
        """Difference from the reference, signed."""
        if self.difference is None:
            return "–"
        scale, digits = _scale(percent)
        return f"{self.difference * scale:+.{digits}f}"

    def difference_interval_text(self, *, percent: bool = False) -> str:
        """The paired 95% interval of the difference."""
        if self.difference_low is None or self.difference_high is None:
            return "–"
        scale, digits = _scale(percent)
        return f"{self.difference_low * scale:+.{digits}f} to {self.difference_high * scale:+.{digits}f}"

    def text(self) -> str:
        """Mean ± deviation with the interval in brackets."""
        between = "" if self.low is None else f" ({self.interval_text()})"
        return f"{self.value_text()}{between}"

    def difference_text(self) -> str:
        """Difference with its interval and p."""
        between = "" if self.difference_low is None else f" ({self.difference_interval_text()})"
        p = "" if self.p_paired is None else f", {p_text(self.p_paired)}"
        return f"{self.difference_value_text()}{between}{p}"


def _scale(percent: bool) -> tuple[float, int]:
    return (100.0, 1) if percent else (1.0, 3)


def summarise(result: TableResult, *, replicates: int = REPLICATES) -> list[Line]:
    """All metrics of all rows; rows that did not run give one line that says why."""
    lines: list[Line] = []
    for row in result.rows:
        if row.why_not is not None:
            lines.append(Line(row.row.name, "test", "not run", why=str(row.why_not)))
            continue
        reference = _reference(result, row)
        for test in row.evaluations:
            if row.row.recipe.classifies:
                lines += _classification_lines(row, reference, test, replicates)
            # a network that is shown the expert's crop was told where to look: where it looks says nothing
            if getattr(row.row.recipe.view, "crop", None) is None:
                lines += _map_lines(row, reference, test, replicates)
                lines += _gaze_lines(row, reference, test, replicates)
                lines += _box_lines(row, reference, test, replicates)
            lines += _window_lines(row, test, replicates)
    return _corrected([*lines, *_reference_lines(result, replicates)])


def _reference(result: TableResult, row: RowResult) -> RowResult | None:
    if row.row.reference is None:
        return None
    reference = result.of(row.row.reference)
    return None if reference.why_not is not None else reference


def _classification_lines(row: RowResult, reference: RowResult | None, test: str, replicates: int) -> list[Line]:
    runs = [evaluation.predictions for evaluation in row.evaluations[test]]
    others = [] if reference is None else [e.predictions for e in reference.evaluations[test]]
    lines = _level_lines(row, reference, test, replicates)
    for wise in ("image-wise", "study-wise"):
        ours, theirs = _wise(runs, wise), _wise(others, wise)
        for score in _scores(runs[0].classes):
            estimate = seed_bootstrap(ours, score, replicates=replicates)
            values = [point_value(score, run) for run in ours]
            line = _line(row, test, f"{wise} {score.name}", values)
            line = replace(
                line, low=estimate.low, high=estimate.high, n=_counts(estimate.n), method=estimate.method,
                why=estimate.why,
            )  # fmt: skip
            others_values = [point_value(score, run) for run in theirs]
            # a class that a training never calls has no precision: nothing to compare
            if theirs and np.isfinite([*values, *others_values]).all():
                paired = paired_bootstrap(ours, theirs, score, replicates=replicates)
                line = _compared(line, reference, paired, welch(values, others_values))
            lines.append(line)
    return lines


def _level_lines(row: RowResult, reference: RowResult | None, test: str, replicates: int) -> list[Line]:
    """F1 at every coarser level of the labels from the same predictions: A1 to B3 also say A or B, broken or not."""
    runs = [evaluation.predictions for evaluation in row.evaluations[test]]
    others = [] if reference is None else [e.predictions for e in reference.evaluations[test]]
    lines = []
    for task in coarser_tasks(runs[0].classes):
        groups = task.groups(runs[0].classes)
        ours, theirs = [run.merged(groups) for run in runs], [run.merged(groups) for run in others]
        classes = ours[0].classes
        score = F1("positive", 1) if len(classes) == 2 else F1("weighted")
        name = f"image-wise F1 at the level {task.level} ({', '.join(classes)})"
        values = [point_value(score, run) for run in ours]
        line = _line(row, test, name, values)
        estimate = seed_bootstrap(ours, score, replicates=replicates)
        line = replace(
            line, low=estimate.low, high=estimate.high, n=_counts(estimate.n), method=estimate.method, why=estimate.why
        )
        others_values = [point_value(score, run) for run in theirs]
        if theirs and np.isfinite([*values, *others_values]).all():
            paired = paired_bootstrap(ours, theirs, score, replicates=replicates)
            line = _compared(line, reference, paired, welch(values, others_values))
        lines.append(line)
    return lines


def _window_lines(row: RowResult, test: str, replicates: int) -> list[Line]:
    """How far windows moved from the whole image: means over images, an interval over patients with one training."""
    evaluations = row.evaluations[test]
    moved = [
        window_displacement(e.maps.windows) for e in evaluations if e.maps is not None and e.maps.windows is not None
    ]
    lines = []
    for name in WINDOW_MEASURES if moved else ():
        line = _line(row, test, name, [float(each.columns()[name].mean()) for each in moved])
        first = evaluations[0].predictions
        estimate = next(
            e for e in moved[0].estimates(first.patient_ids, replicates=replicates, counts=first.counts())
            if e.name == name
        )  # fmt: skip
        lines.append(
            replace(line, low=estimate.low, high=estimate.high, n=_counts(estimate.n),
                    method=f"{estimate.method}; interval of the first training")
        )  # fmt: skip
    return lines


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


def _map_lines(row: RowResult, reference: RowResult | None, test: str, replicates: int) -> list[Line]:
    lines = []
    for role, around in [*((role, False) for role in ROLES), ("organ", True)]:
        ours = [s for e in row.evaluations[test] if (s := e.scores_for(role, around=around)) is not None]
        theirs: list[MapScores] = []
        if reference is not None:
            every = reference.evaluations[test]
            theirs = [s for e in every if (s := e.scores_for(role, around=around)) is not None]
        if not ours:
            continue
        for measure in MAP_MEASURES:
            values = _defined_means(ours, measure)
            if not values:
                continue
            what = f"{role}, one cell around" if around else role
            line = _line(row, test, f"{NAMES[measure]} ({what})", values)
            estimate = seed_estimate(ours, measure, replicates=replicates)
            chance = float(np.mean(_defined_means(ours, f"{measure}_chance")))
            line = _measured(line, estimate, chance)
            others = _defined_means(theirs, measure)
            if others:
                paired = compare_maps(ours, theirs, measure, replicates=replicates)
                seeds = welch(values, others)
                line = _compared(line, reference, paired, seeds)
            lines.append(line)
    return lines


def _gaze_lines(row: RowResult, reference: RowResult | None, test: str, replicates: int) -> list[Line]:
    """How well each kind of map agrees with gaze; the chance is a flat map's."""
    lines = []
    ours = [by_map(e.gaze_scores) for e in row.evaluations[test] if e.gaze_scores is not None]
    theirs = [] if reference is None else [
        by_map(e.gaze_scores) for e in reference.evaluations[test] if e.gaze_scores is not None
    ]  # fmt: skip
    for name in ours[0] if ours else ():
        tables = [each[name] for each in ours]
        others = [each[name] for each in theirs if name in each]
        for measure in GAZE_MEASURES:
            values = [float(np.nanmean(c)) for t in tables if np.isfinite(c := t.column(measure)).any()]
            if not values:
                continue
            line = _line(row, test, f"{GAZE_NAMES[measure]}, {name}", values)
            chances = [c for t in tables if np.isfinite(c := t.column(f"{measure}_chance")).any()]
            chance = float(np.nanmean(chances[0])) if chances else None
            line = _measured(line, seed_gaze(tables, measure, replicates=replicates), chance)
            if others:
                paired = compare_gaze(tables, others, measure, replicates=replicates)
                seeds = welch(values, [float(np.nanmean(t.column(measure))) for t in others])
                line = _compared(line, reference, paired, seeds)
            lines.append(line)
    return lines


def _measured(line: Line, estimate: Estimate, chance: float | None) -> Line:
    return replace(
        line, low=estimate.low, high=estimate.high, chance=chance, n=_counts(estimate.n), method=estimate.method,
        why=estimate.why,
    )  # fmt: skip


def _box_lines(row: RowResult, reference: RowResult | None, test: str, replicates: int) -> list[Line]:
    ours = [e.box_scores for e in row.evaluations[test] if e.box_scores is not None]
    theirs: list[BoxScores] = []
    if reference is not None:
        theirs = [e.box_scores for e in reference.evaluations[test] if e.box_scores is not None]
    printed = [e.printed_box_scores for e in row.evaluations[test] if e.printed_box_scores is not None]
    lines = []
    for measure in BOX_MEASURES if ours else ():
        line = _box_line(row, test, BOX_NAMES[measure], ours, measure, replicates)
        if theirs and line.mean is not None:
            paired = compare_boxes(ours, theirs, measure, replicates=replicates)
            others = [value for scores in theirs if (value := box_value(scores, measure)) is not None]
            if paired.difference is not None:
                line = _compared(line, reference, paired, welch(line.values, others))
        lines.append(line)
    if printed:
        name = f"{BOX_NAMES['printed_map']}, boxes as the recipe says"
        lines.append(_box_line(row, test, name, printed, "printed_map", replicates))
    return [line for line in lines if line.mean is not None]


def _box_line(row: RowResult, test: str, name: str, scores: Sequence[BoxScores], measure: str, replicates: int) -> Line:
    values = [math.nan if (v := box_value(run, measure)) is None else v for run in scores]
    line = _line(row, test, name, values)
    estimate = box_seed_estimate(scores, measure, replicates=replicates)
    chances = [v for run in scores if (v := box_chance(run, measure)) is not None]
    return replace(
        line, low=estimate.low, high=estimate.high, chance=float(np.mean(chances)) if chances else None,
        n=_counts(estimate.n), method=estimate.method, why="; ".join(w for w in (line.why, estimate.why) if w),
    )  # fmt: skip


def _reference_lines(result: TableResult, replicates: int) -> list[Line]:
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
            training = row.row.recipe.see(result.cohort).split(*row.row.recipe.train_on)
            shapes = [source_frame(case).shape for case in training]
            boxes = [true_corners(case) for case in training]
            rows = {WHOLE_IMAGE: whole_image(scores)}
            if any(len(each) for each in boxes):
                rows[CENTRE_PRIOR] = centre_prior_box(scores, mean_box(boxes, [(s[0], s[1]) for s in shapes]))
            task = "" if row.row.recipe.task is None else f" ({', '.join(evaluations[0].predictions.classes)})"
            for name, found in rows.items():
                nobody = RowResult(Row(f"{name}{task}", row.row.recipe))
                lines += [
                    _box_line(nobody, test, BOX_NAMES[measure], [found], measure, replicates)
                    for measure in BOX_MEASURES
                ]
    return [line for line in lines if line.mean is not None]


def _defined_means(scores: Sequence[MapScores], column: str) -> list[float]:
    """A map score's mean over maps for each seed; a seed none of whose maps has the score is left out."""
    columns = [s.column(column) for s in scores]
    return [float(np.nanmean(c)) for c in columns if np.isfinite(c).any()]


def _line(row: RowResult, test: str, metric: str, values: Sequence[float]) -> Line:
    if not values or any(math.isnan(v) for v in values):
        return Line(row.row.name, test, metric, why="not defined on these cases")
    published: Published | None = row.row.published.get(f"{metric}, {test}")
    return Line(
        row=row.row.name,
        test=test,
        metric=metric,
        values=tuple(values),
        mean=float(np.mean(values)),
        std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        published="" if published is None else str(published),
    )


def _compared(line: Line, reference: RowResult | None, paired: Comparison, seeds: Comparison) -> Line:
    assert reference is not None
    return replace(
        line,
        reference=reference.row.name,
        difference=paired.difference,
        difference_low=paired.low,
        difference_high=paired.high,
        p_paired=paired.p_value,
        p_welch=seeds.p_value,
        why="; ".join(w for w in (line.why, paired.why, seeds.why) if w),
    )


def _corrected(lines: list[Line]) -> list[Line]:
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


def _wise(runs: Sequence[Predictions], wise: str) -> list[Predictions]:
    return [run.study_wise() for run in runs] if wise == "study-wise" else list(runs)


def _counts(n: object) -> str:
    return ", ".join(f"{count} {what}" for what, count in dict(n).items()) if isinstance(n, dict) else str(n)


def write_lines(lines: Sequence[Line], folder: Path) -> None:
    """`table.csv` and `table.json`: every metric of every row, one line each."""
    write_text(folder / "table.json", json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    partial = folder / "table.csv.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Line.__dataclass_fields__))
        writer.writeheader()
        for line in lines:
            writer.writerow({**asdict(line), "values": " ".join(repr(v) for v in line.values)})
    partial.replace(folder / "table.csv")
