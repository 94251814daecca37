"""A table's numbers as the papers about gaze compute them, beside what they can and cannot say."""

from __future__ import annotations

from sightline.errors import RunError
from sightline.evaluation.tables.table import RowResult, TableResult
from sightline.metrics.classification.report import OverRuns
from sightline.metrics.classification.scores import HandTillAUC, OneVsRestAUC
from sightline.metrics.estimate import Score, p_cell
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.as_published import (
    RUNS_WARNING,
    PrintedDraws,
    compare_with_printed,
    one_way,
    welch_over_bootstrap,
)
from sightline.metrics.statistics.bootstrap import point_value

SCORES: tuple[Score, ...] = (HandTillAUC(), OneVsRestAUC())


def as_printed(result: TableResult, *, replicates: int = 2000, draws: PrintedDraws | None = None) -> str:
    """Markdown: medians and one-way ANOVA over trainings (Zhu 2022), 30 draws of 55 to 60 test images (Watanabe 2022).

    Rows that did not run, and localisers, are left out; empty for a table of two classes.

    Args:
        result: a table that ran.
        replicates: bootstrap samples of the honest interval.
        draws: how the printed bootstrap resamples.
    """
    rows = {r.row.name: r for r in result.rows if r.why_not is None and r.row.recipe.classifies}
    if not rows or any(len(_runs(r)[0].classes) < 3 for r in rows.values()):
        return ""
    text = [
        f"# {result.table.title}: as the papers compute it",
        "",
        f"Median ± standard deviation and ANOVA are over trainings: {RUNS_WARNING}. The printed bootstrap draws a part "
        "of the test images and does not keep patients together; its p-values measure the number of draws. Decide by "
        "the paired differences of table.md.",
        "",
        "| row | AUC | median ± sd over trainings | ANOVA against | F, p, effect | 30 draws of 55 to 60 | "
        "p of Welch's t over draws | all test patients |",
        "|---" * 8 + "|",
    ]
    for name, row in rows.items():
        reference = rows.get(row.row.reference or "")
        text += [_line(name, row, reference, score, replicates, draws) for score in SCORES]
    return "\n".join([*text, ""])


def _line(
    name: str, row: RowResult, reference: RowResult | None, score: Score, replicates: int, draws: PrintedDraws | None
) -> str:
    ours = _runs(row)
    values = [point_value(score, run) for run in ours]
    against, effect, welch = "", "", ""
    if reference is not None:
        theirs = _runs(reference)
        against = reference.row.name
        groups = {name: values, against: [point_value(score, run) for run in theirs]}
        try:
            effect = one_way(groups, name=score.name).text()
            welch = p_cell(welch_over_bootstrap(ours[0], theirs[0], score, draws).p_value)
        except RunError as error:
            effect = effect or error.message
    printed, honest = compare_with_printed(score, ours[0], draws, replicates=replicates)
    cells = [name, score.name, OverRuns.of(score.name, values).text(), against, effect]
    return "| " + " | ".join([*cells, printed.text(), welch, honest.text()]) + " |"


def _runs(row: RowResult) -> list[Predictions]:
    return [evaluation.predictions for evaluation in row.evaluations["test"]]
