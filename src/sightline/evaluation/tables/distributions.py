"""What the papers about gaze print of trainings: medians, analyses of variance and box plots (Zhu 2022, table 2 and
figure 3), and how the cells of class maps are spread (figure 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.evaluation.tables.table import RowResult, TableResult
from sightline.metrics.classification.report import RunSummary
from sightline.metrics.classification.scores import AUC, HandTillAUC, OneVsRestAUC, Precision, Sensitivity
from sightline.metrics.estimate import Score, format_p_text
from sightline.metrics.maps.localisation import MapScores, seed_values
from sightline.metrics.statistics.as_published import Anova, compute_one_way_anova
from sightline.metrics.statistics.bootstrap import score_point
from sightline.plots.curves import BoxPanel, draw_box_plots, draw_histograms
from sightline.plots.html_report import ReportPicture

# figures 3a and 3b, and beside them what is not about calls: where the true class's map peaks (3c to 3f)
FIRST = "AUC Hand & Till"
HISTOGRAM_ROWS = 6


@dataclass(frozen=True)
class RunSpread:
    """One score of one row over its trainings.

    Attributes:
        row: the row's name.
        score: the score's name.
        over: the values with median and standard deviation.
        against: the row compared with, or empty.
        anova: one-way analysis of variance of the two, or None where there is nothing to compare.
        why: why there is none.
        printed: what the paper prints, or empty.
    """

    row: str
    score: str
    over: RunSummary
    against: str = ""
    anova: Anova | None = None
    why: str = ""
    printed: str = ""


def list_auc_scores(classes: Sequence[str]) -> list[Score]:
    """The areas: Hand and Till's, the mean of one against the rest, and each class's."""
    each = [AUC(k, name=f"AUC of {name}") for k, name in enumerate(classes)]
    return [HandTillAUC(), OneVsRestAUC(), *each]


def select_multiclass_rows(result: TableResult) -> dict[str, RowResult]:
    """Rows that ran and tell three classes or more, by name; empty where another row tells fewer."""
    rows = {r.row.name: r for r in result.rows if r.why_not is None and r.row.recipe.classifies}
    return {} if any(len(_list_classes(r)) < 3 for r in rows.values()) else rows


def compute_spreads(result: TableResult) -> list[RunSpread]:
    """Every score of every row over its trainings, beside its reference's: areas, precision and recall of each class,
    and how often the map of the true class peaks in the organ of the finding."""
    rows = select_multiclass_rows(result)
    found = []
    for name, row in rows.items():
        reference = rows.get(row.row.reference or "")
        theirs = {} if reference is None else dict(_iterate_values(reference))
        for score, values in _iterate_values(row):
            found.append(_measure_spread(name, row, score, values, reference, theirs.get(score)))
    return found


def _measure_spread(
    name: str, row: RowResult, score: str, ours: list[float], reference: RowResult | None, theirs: list[float] | None
) -> RunSpread:
    printed = row.row.published.get(f"image-wise {score}, test")
    over = RunSummary.from_values(score, ours)
    words = "" if printed is None else str(printed)
    if reference is None or theirs is None:
        return RunSpread(name, score, over, printed=words)
    against = reference.row.name
    if not np.isfinite([*ours, *theirs]).all():
        return RunSpread(name, score, over, against, why="no test: not defined in every training", printed=words)
    return RunSpread(
        name, score, over, against, compute_one_way_anova({name: ours, against: theirs}, name=score), printed=words
    )


def _iterate_values(row: RowResult) -> Iterator[tuple[str, list[float]]]:
    """Scores of a row by name, a value a training."""
    classes = _list_classes(row)
    scores = list_auc_scores(classes)
    for k, name in enumerate(classes):
        scores += [Precision(k, name=f"precision for {name}"), Sensitivity(k, name=f"recall for {name}")]
    runs = [evaluation.predictions for evaluation in row.evaluations["test"]]
    for score in scores:
        yield score.name, [score_point(score, run) for run in runs]
    for around, words in ((False, ""), (True, ", one cell around")):
        tables = [evaluation.scores_for("organ", around=around) for evaluation in row.evaluations["test"]]
        for name in classes:
            of = [found for table in tables if (found := _select_class(table, name)) is not None]
            if len(of) == len(tables) and (values := seed_values(of, "pointing")):
                yield f"pointing game in the organ of {name}{words}", values


def _select_class(table: MapScores | None, label: str) -> MapScores | None:
    """The rows of cases of a class; None where there is none."""
    rows = () if table is None else tuple(row for row in table.rows if row.label == label)
    return MapScores(rows) if rows else None


def _list_classes(row: RowResult) -> Sequence[str]:
    return row.evaluations["test"][0].predictions.classes


def draw_spread_charts(result: TableResult) -> list[ReportPicture]:
    """Box plots with analyses of variance (figure 3 of Zhu 2022), and the cells of the class maps (figure 2)."""
    made = []
    every = compute_spreads(result)
    scores = [s for s in dict.fromkeys(spread.score for spread in every) if s == FIRST or s.startswith("pointing")]
    panels = []
    for score in scores:
        of = [spread for spread in every if spread.score == score]
        values = {s.row: [v for v in s.over.values if v is not None] for s in of}
        panels.append(BoxPanel(score, values, {s.row: _write_note(s) for s in of}))
    if any(any(panel.values.values()) for panel in panels):
        caption = (
            "Boxes over trainings, whiskers to the ends, a dot a training; p of a one-way analysis of variance against "
            "the reference row: it compares trainings on these test cases and knows nothing of other patients."
        )
        made.append(ReportPicture(draw_box_plots(panels), caption, "Box plots over trainings"))
    cells = format_map_cells(result)
    if cells:
        names = [row.row.name for row in result.rows]
        drawn = draw_histograms(
            cells,
            title="Elements of the class maps",
            xlabel="value of a cell (Ω, before any scaling)",
            styles={name: names.index(name) for name in cells},
        )
        made.append(
            ReportPicture(drawn, "All cells of all kept class maps, first training.", "Histogram of class maps")
        )
    return made


def format_map_cells(result: TableResult) -> dict[str, NDArray[np.float64]]:
    """All cells of the kept class maps of the first training of each row that has some, at most six rows."""
    found: dict[str, NDArray[np.float64]] = {}
    for row in result.rows:
        evaluations = row.evaluations.get("test", ())
        if row.why_not is None and evaluations and evaluations[0].maps is not None and len(found) < HISTOGRAM_ROWS:
            cells = np.asarray(evaluations[0].maps.maps, dtype=np.float64)
            if cells.size and np.isfinite(cells).all():
                found[row.row.name] = cells
    return found


def _write_note(spread: RunSpread) -> str:
    if spread.anova is None or spread.anova.p_value is None:
        return "" if not spread.against else f"no test against {spread.against}"
    return f"{format_p_text(spread.anova.p_value)} against {spread.against}"
