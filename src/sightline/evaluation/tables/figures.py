"""Charts of a finished table: differences, bars by weight and style, ROC and FROC curves, and the trainings' losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from sklearn.metrics import roc_curve

from sightline.evaluation.tables.data_efficiency import draw_efficiency_chart
from sightline.evaluation.tables.lines import Line, find_line, is_less_better
from sightline.evaluation.tables.pictures import choose_shown_rows
from sightline.evaluation.tables.summary import choose_leading_metric
from sightline.evaluation.tables.table import TableResult
from sightline.io.files import read_run_csv
from sightline.metrics.boxes.detection import compute_ranking_curve
from sightline.metrics.boxes.report import BOX_NAMES
from sightline.plots.charts import AccuracyBar, BarGroup, ForestRow, Reference, draw_bars, draw_forest
from sightline.plots.curves import FrocCurve, RocCurve, draw_froc, draw_roc, draw_training_curves
from sightline.plots.html_report import ReportPicture

FROC_ROWS = 6
ROC_ROWS = 5


def draw_charts(result: TableResult, lines: Sequence[Line]) -> list[ReportPicture]:
    """The charts that a table has numbers for."""
    tests = dict.fromkeys(test for row in result.rows for test in row.evaluations)
    bars_of_tests = (_draw_bars(result, lines, test) for test in tests)
    drawn = (draw_efficiency_chart(result, lines), *bars_of_tests, _draw_roc(result, lines), _draw_froc(result, lines))
    return [chart for chart in drawn if chart is not None]


def assign_row_styles(result: TableResult) -> dict[str, int]:
    """Which line of the palette each row has in every chart of a table."""
    return {row.row.name: n for n, row in enumerate(result.rows)}


def draw_forest_chart(result: TableResult, lines: Sequence[Line]) -> ReportPicture | None:
    """Every row's difference from its reference; None where nothing is compared."""
    metric = choose_leading_metric(result.table, lines)
    found = (find_line(lines, row.row.name, "test", metric) for row in result.rows)
    having = [line for line in found if line is not None and line.difference is not None]
    # the same cases in every row are named once, below
    counts = list(dict.fromkeys(line.n for line in having))
    styles = assign_row_styles(result)
    rows = [
        ForestRow(
            line.row,
            float(line.difference or 0.0),
            line.difference_low,
            line.difference_high,
            line.n if len(counts) > 1 else "",
            line.differs,
            styles[line.row],
        )
        for line in having
    ]
    if not rows:
        return None
    title = f"{metric}: difference from the reference row"
    better = ("better", "worse") if is_less_better(metric) else ("worse", "better")
    return ReportPicture(
        draw_forest(rows, title=title, better=better),
        "Each row against its reference, with the paired 95% interval over patients and seeds; filled: p < 0.05 after "
        f"Holm's correction over the rows.{f' n: {counts[0]}.' if len(counts) == 1 else ''}",
        "Forest plot of differences",
        draw_forest(rows, title=title, better=better, narrow=True),
    )


def _draw_bars(result: TableResult, lines: Sequence[Line], test: str) -> ReportPicture | None:
    """Figures 2 and 6 of Liao 2022: accuracy by weight and style, each bar against the row that it is compared with."""
    groups: dict[tuple[str, str], list[AccuracyBar]] = {}
    lines_of = {row.row.reference for row in result.rows if row.row.reference is not None}
    for row in result.rows:
        image = find_line(lines, row.row.name, test, "image-wise accuracy")
        study = find_line(lines, row.row.name, test, "study-wise accuracy")
        if not row.row.weight_label or row.row.name in lines_of or image is None or study is None:
            continue
        if image.mean is None or study.mean is None:
            continue
        reference = row.row.reference or ""
        bar = AccuracyBar(
            row.row.group, 100 * image.mean, 100 * study.mean, _convert_to_percent(study.std), study.differs
        )
        groups.setdefault((reference, _format_weight(row.row.weight_label)), []).append(bar)
    if not groups:
        return None
    baselines = {reference: _find_baseline(reference, lines, test) for reference, _ in groups}
    about = {reference: _find_common_words(result, reference) for reference in baselines}
    # groups of one baseline stand together, in the order in which the baselines occur
    order = sorted(groups, key=lambda key: list(baselines).index(key[0]))
    heights = [bar.image_wise for members in groups.values() for bar in members]
    heights += [line.value for line in baselines.values() if line is not None]
    where = "" if test == "test" else f", {test} cohort"
    what = "guidance weight and style" if all(label.startswith("λ") for _, label in groups) else "setting"
    drawn = draw_bars(
        [BarGroup(key[1], tuple(groups[key]), baselines[key[0]], about[key[0]]) for key in order],
        title=f"Accuracy by {what}{where}",
        ylabel="accuracy (%)",
        significance="study-wise value differs from its line, p < 0.05 (Holm)",
        bottom=_round_floor(heights),
    )
    caption = "Image-wise (dark) and study-wise (light) accuracy; lines and bands: study-wise accuracy of the row that "
    return ReportPicture(drawn, f"{caption}the bars on them are compared with.", f"Bars by weight and style{where}")


def _find_common_words(result: TableResult, reference: str) -> str:
    """The words that the names of a row and of all rows compared with it begin with: the size or task they share."""
    names = [row.row.name for row in result.rows if reference and reference in (row.row.name, row.row.reference)]
    words = zip(*(name.split(" ") for name in names), strict=False)
    return " ".join(word[0] for word in itertools.takewhile(lambda word: len(set(word)) == 1, words))


def _format_weight(label: str) -> str:
    """A weight as the figures have it; of tables whose labels are no weights, the label."""
    try:
        float(label)
    except ValueError:
        return label
    return f"λ = {label}"


def _find_baseline(name: str, lines: Sequence[Line], test: str) -> Reference | None:
    """Study-wise accuracy of a row, in percent."""
    line = find_line(lines, name, test, "study-wise accuracy") if name else None
    if line is None or line.mean is None:
        return None
    return Reference(line.row, 100 * line.mean, _convert_to_percent(line.std))


def _round_floor(values: Sequence[float]) -> float:
    """A round number well below all values: where a bar chart's axis may start."""
    return max(0.0, 10.0 * math.floor((min(values) - 10.0) / 10.0))


def _convert_to_percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def _draw_roc(result: TableResult, lines: Sequence[Line]) -> ReportPicture | None:
    curves: list[RocCurve] = []
    styles = assign_row_styles(result)
    for row in result.rows:
        line = find_line(lines, row.row.name, "test", "study-wise AUC")
        if line is None or line.mean is None or len(curves) >= ROC_ROWS:
            continue
        first = row.evaluations["test"][0].predictions.study_wise()
        false, true, _ = roc_curve(first.labels == 1, first.probabilities[:, 1])
        curves.append(RocCurve(row.row.name, false.tolist(), true.tolist(), line.values[0], style=styles[row.row.name]))
    if not curves:
        return None
    return ReportPicture(draw_roc(curves), "ROC curves, study-wise, first seed, of up to five rows.", "ROC curves")


def _draw_froc(result: TableResult, lines: Sequence[Line]) -> ReportPicture | None:
    """Free-response curves of the rows whose boxes are measured, best first."""
    curves = []
    for row in result.rows:
        scores = row.evaluations["test"][0].box_scores if row.evaluations.get("test") else None
        line = find_line(lines, row.row.name, "test", BOX_NAMES["froc_centre"])
        if scores is None or line is None or line.mean is None:
            continue
        points = compute_ranking_curve(scores.cases, "centre")
        false, sensitivity = points.false_per_image.tolist(), points.sensitivity.tolist()
        style = assign_row_styles(result)[row.row.name]
        curves.append(FrocCurve(row.row.name, false, sensitivity, line.mean, line.low, line.high, style))
    if not curves:
        return None
    curves.sort(key=lambda curve: -(curve.score or 0.0))
    caption = (
        "Findings whose box holds the centre of a found box, against false boxes an image; first seed, up to six rows."
    )
    return ReportPicture(draw_froc(curves[:FROC_ROWS]), caption, "FROC curves")


def draw_learning_curves(result: TableResult) -> ReportPicture | None:
    """Loss and validation of the rows shown, first seed; None where nothing was trained, or nothing kept of it."""
    histories = {}
    for row in choose_shown_rows(result):
        epochs = read_run_csv(row.folders[0] / "history.csv")
        if not epochs:
            # put together from other runs, never trained
            continue
        histories[row.row.name] = {
            name: [float(epoch[name]) if epoch[name] else float("nan") for epoch in epochs]
            for name in ("epoch", "loss", "cross_entropy", "val_loss", "val_auc")
            if any(epoch.get(name) for epoch in epochs)
        }
    if not histories or any(len(history) < 2 for history in histories.values()):
        return None
    drawn = draw_training_curves(histories, assign_row_styles(result))
    return ReportPicture(drawn, "Loss and validation by epoch, first seed.", "Training curves")
