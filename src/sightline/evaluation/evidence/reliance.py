"""What helps to decide whether a row's answer can be relied on: operating points, subgroups, calibration, coverage."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.errors import SightlineError, count_noun
from sightline.evaluation.evidence.figures import draw_reliance_pictures
from sightline.evaluation.evidence.numbers import collect_facts
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.table import RowResult, TableResult
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.selective_prediction import AURC, SelectiveAccuracy
from sightline.metrics.decision.operating_points import OperatingPoint, choose_point, compute_point_estimates
from sightline.metrics.decision.subgroups import Subgroup, compute_subgroup_report, describe_unknown
from sightline.metrics.estimate import Estimate, format_p_cell
from sightline.metrics.predictions import Predictions
from sightline.plots.html_report import ReportTable, Section
from sightline.structures.identifiers import format_apart

# rows in the pictures; more lines than this cannot be told apart
SHOWN = 5
SENSITIVITY = 0.95
GAPS = 12


def build_reliance_section(result: TableResult, styles: dict[str, int], best: str | None) -> Section | None:
    """The section of a report, first seed throughout; None where no row says classes.

    Args:
        result: a finished table.
        styles: which line of the palette each row has.
        best: the row whose subgroups are shown.
    """
    rows = {row.row.name: row for row in result.rows if row.row.recipe.classifies and row.evaluations.get("test")}
    first = {name: row.evaluations["test"][0].predictions for name, row in rows.items()}
    if not first:
        return None
    studies = {name: table.study_wise() for name, table in first.items()}
    shown = dict(list(studies.items())[:SHOWN])
    tables = [_build_coverage_table(studies)]
    if (points := _build_point_table(rows, studies)) is not None:
        tables.append(points)
    if best in first and (groups := _build_subgroup_table(result, best, rows[best].evaluations["test"][0])):
        tables.append(groups)
    return Section(
        "Can an answer be relied on?",
        ("Of the first training of each row, study-wise where nothing else is said.",),
        tuple(tables),
        tuple(draw_reliance_pictures(shown, styles)),
    )


def _build_coverage_table(studies: dict[str, Predictions]) -> ReportTable:
    """Every row's AURC beside the least possible, and accuracy when a fifth of the studies goes to a reader."""
    rows = []
    for name, table in studies.items():
        each = (AURC("doctor"), AURC("oracle"), SelectiveAccuracy(1.0), SelectiveAccuracy(0.9), SelectiveAccuracy(0.8))
        rows.append((name, *(estimate_score([table], score).text() for score in each)))
    return ReportTable(
        "Errors when the least sure studies go to a reader",
        ("row", "AURC", "least possible", "accuracy, all answered", "surest 90%", "surest 80%"),
        tuple(rows),
        notes=("AURC: mean error rate over all coverages, less is better; confidence by DOCTOR's sum of squares.",),
        folded=True,
    )


def _build_point_table(rows: dict[str, RowResult], studies: dict[str, Predictions]) -> ReportTable | None:
    """Sensitivity to NPV at thresholds that validation fixed; None with more than two classes, or nothing kept."""
    cells = []
    for name, row in rows.items():
        points = _choose_points(row, studies[name])
        for point, threshold in zip(points, format_apart([p.threshold for p in points], 3, "f"), strict=True):
            found = compute_point_estimates(studies[name], point)
            cells.append((name, point.name, threshold, *(_find_text(found, word) for word in _POINT_COLUMNS)))
    if not cells:
        return None
    return ReportTable(
        "Operating points: thresholds fixed on validation, what they give on the test studies",
        ("row", "point", "threshold", "sensitivity", "specificity", "PPV", "NPV"),
        tuple(cells),
        notes=("PPV and NPV hold at the prevalence of these test studies; `sightline evaluate --prevalence` states "
               "others.",),
        folded=True,
    )  # fmt: skip


_POINT_COLUMNS = ("sensitivity", "specificity", "PPV", "NPV")


def _find_text(found: Sequence[Estimate], word: str) -> str:
    return next((estimate.text() for estimate in found if estimate.name.startswith(word)), "–")


def _choose_points(row: RowResult, test: Predictions) -> list[OperatingPoint]:
    """Youden's point and the one of high sensitivity, from the validation predictions that the run kept."""
    kept = row.folders[0] / "predictions" / "val.csv" if row.folders else None
    if kept is None or not kept.is_file() or len(test.classes) != 2 or "val" in row.row.recipe.train_on:
        return []
    try:
        validation = Predictions.read(kept).study_wise()
        if validation.classes != test.classes:
            return []
        return [choose_point(validation, "youden"), choose_point(validation, "sensitivity", SENSITIVITY)]
    except SightlineError:
        # damaged, or of one class: there is no point to be shown
        return []


def _build_subgroup_table(result: TableResult, name: str, evaluation: Evaluation) -> ReportTable | None:
    """AUC by every fact, image-wise, the gaps that stand out most first."""
    facts, _ = collect_facts(evaluation.predictions, result.cohort)
    groups = compute_subgroup_report(evaluation.predictions, facts)
    if not groups:
        return None
    ordered = sorted(groups, key=_get_sort_key)
    strong = tuple((r, 4) for r, group in enumerate(ordered[:GAPS]) if group.claimed)
    notes = [
        "AUC of a group minus that of all other images, with an interval over patients; p is corrected over all "
        f"{count_noun(len(groups), 'group')} (step-down max-T). Bold: claimed. The last column is "
        "the difference that a "
        "study of this size detects with 80% power; smaller ones are not ruled out.",
    ]
    if unknown := describe_unknown(groups):
        notes.append(unknown)
    if len(groups) > GAPS:
        notes.append(f"The {GAPS} groups with the smallest p of {len(groups)}.")
    return ReportTable(
        f"Subgroups of {name}, image-wise AUC",
        ("group", "patients", "AUC", "p (max-T)", "difference from the rest", "detectable at 80% power"),
        tuple(map(_build_group_row, ordered[:GAPS])),
        strong=strong,
        notes=tuple(notes),
        folded=True,
    )


def _get_sort_key(group: Subgroup) -> tuple[float, str, str]:
    p = group.gap.p_value
    return (2.0 if p is None else p, group.fact, group.value)


def _build_group_row(group: Subgroup) -> tuple[str, ...]:
    gap = group.gap.text().rpartition(", ")[0] or "undefined"
    return (
        f"{group.fact}: {group.value}",
        str(group.here.n.get("patients", 0)),
        group.here.text(),
        format_p_cell(group.p_corrected),
        gap,
        "–" if group.detectable is None else f"{group.detectable:.3f}",
    )
