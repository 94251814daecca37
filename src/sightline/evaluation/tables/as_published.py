"""A table's numbers as the papers about gaze compute them, beside what they can and cannot say."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.errors import RunError
from sightline.evaluation.tables.distributions import (
    RunSpread,
    compute_spreads,
    list_auc_scores,
    select_multiclass_rows,
)
from sightline.evaluation.tables.table import RowResult, TableResult
from sightline.metrics.estimate import Score, format_p_cell
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.as_published import (
    RUNS_WARNING,
    PrintedDraws,
    compare_bootstraps_by_welch,
    compare_with_printed,
)


def report_as_printed(result: TableResult, *, replicates: int = 2000, draws: PrintedDraws | None = None) -> str:
    """Markdown: medians and one-way ANOVA over trainings (Zhu 2022), 30 draws of 55 to 60 test images (Watanabe 2022).

    Rows that did not run, and localisers, are left out; empty for a table of two classes.

    Args:
        result: a table that ran.
        replicates: bootstrap samples of the honest interval.
        draws: how the printed bootstrap resamples.
    """
    rows = select_multiclass_rows(result)
    if not rows:
        return ""
    text = [
        f"# {result.table.title}: as the papers compute it",
        "",
        f"Median ± standard deviation and ANOVA are over trainings: {RUNS_WARNING}. The printed bootstrap draws a part "
        "of the test images and does not keep patients together; its p-values measure the number of draws. Decide by "
        "the paired differences of table.md.",
        "",
        "## Over trainings (Zhu 2022, table 2 and figure 3)",
        "",
        *_format_spreads(compute_spreads(result)),
        "",
        "## Over draws of test images, first training (Watanabe 2022, tables 1 to 4)",
        "",
        "| row | score | 30 draws of 55 to 60 | against | p of Welch's t over draws | all test patients | printed |",
        "|---" * 7 + "|",
    ]
    for name, row in rows.items():
        reference = rows.get(row.row.reference or "")
        scores = list_auc_scores(_list_runs(row)[0].classes)
        text += [_format_line(name, row, reference, score, replicates, draws) for score in scores]
    return "\n".join([*text, ""])


def _format_spreads(found: Sequence[RunSpread]) -> list[str]:
    """A line a row and score."""
    lines = ["| row | score | median ± sd | ANOVA against | F, p, effect | printed |", "|---" * 6 + "|"]
    for spread in found:
        effect = spread.why if spread.anova is None else spread.anova.text()
        median = spread.over.text() + (f" ({spread.over.why})" if spread.over.why.startswith("not") else "")
        lines.append(f"| {spread.row} | {spread.score} | {median} | {spread.against} | {effect} | {spread.printed} |")
    return lines


def _format_line(
    name: str, row: RowResult, reference: RowResult | None, score: Score, replicates: int, draws: PrintedDraws | None
) -> str:
    ours = _list_runs(row)
    against, welch = "", ""
    if reference is not None:
        against = reference.row.name
        try:
            welch = format_p_cell(compare_bootstraps_by_welch(ours[0], _list_runs(reference)[0], score, draws).p_value)
        except RunError as error:
            welch = error.message
    printed, honest = compare_with_printed(score, ours[0], draws, replicates=replicates)
    published = row.row.published.get(f"image-wise {score.name}, test")
    cells = [
        name,
        score.name,
        printed.text(),
        against,
        welch,
        honest.text(),
        "" if published is None else str(published),
    ]
    return "| " + " | ".join(cells) + " |"


def _list_runs(row: RowResult) -> list[Predictions]:
    return [evaluation.predictions for evaluation in row.evaluations["test"]]
