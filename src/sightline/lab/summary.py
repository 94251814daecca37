"""What a table's trainings amount to: per row and metric the mean over seeds, its interval, and the difference from
the reference row by a paired test over patients and seeds, with Welch's t over seeds beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sightline.lab.box_lines import box_lines, reference_box_lines
from sightline.lab.class_lines import class_lines
from sightline.lab.map_lines import gaze_lines, map_lines, window_lines
from sightline.lab.row_on_test import RowOnTest
from sightline.lab.table import RowResult, Table, TableResult
from sightline.lab.table_line import Line
from sightline.measure.comparison import holm

REPLICATES = 2000


def summarise(result: TableResult, *, replicates: int = REPLICATES) -> list[Line]:
    """All metrics of all rows; rows that did not run give one line that says why."""
    lines: list[Line] = []
    for row in result.rows:
        if row.why_not is not None:
            lines.append(Line(row.row.name, "test", "not run", why=str(row.why_not)))
            continue
        for test in row.evaluations:
            lines += _lines(RowOnTest(row, test, _reference(result, row), replicates))
    return _corrected([*lines, *reference_box_lines(result, replicates)])


def leading_metric(table: Table, lines: Sequence[Line]) -> str:
    """The metric that methods are compared by in figures and sentences: the first that the rows have."""
    wanted = (*table.leading, "study-wise AUC", "study-wise accuracy")
    return next((m for m in wanted if any(x.metric == m and x.difference is not None for x in lines)), wanted[-1])


def _lines(row: RowOnTest) -> list[Line]:
    recipe = row.row.row.recipe
    lines = class_lines(row) if recipe.classifies else []
    # a network that is shown the expert's crop was told where to look: where it looks says nothing
    if getattr(recipe.view, "crop", None) is None:
        lines += [*map_lines(row), *gaze_lines(row), *box_lines(row)]
    return [*lines, *window_lines(row)]


def _reference(result: TableResult, row: RowResult) -> RowResult | None:
    if row.row.reference is None:
        return None
    reference = result.of(row.row.reference)
    return None if reference.why_not is not None else reference


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
