"""A table's lines as tables to read: one a metric, rows beside their reference and what a paper printed."""

from __future__ import annotations

from collections.abc import Sequence

from sightline.lab.map_lines import WINDOW_MEASURES
from sightline.lab.report import ReportTable
from sightline.lab.table import TableResult
from sightline.lab.table_line import Line, find_line
from sightline.measure.estimate import p_cell


def metric_tables(result: TableResult, lines: Sequence[Line], test: str) -> list[ReportTable]:
    """One table a metric: what the paper reports first, then ranking, then where the maps lie."""
    metrics = list(dict.fromkeys(x.metric for x in lines if x.test == test and x.mean is not None))
    main = [m for m in result.table.metrics if m in metrics]
    ranked = [m for m in metrics if "AUC" in m]
    places = [m for m in metrics if m.startswith(("pointing", "energy"))]
    places += [m for m in metrics if m in WINDOW_MEASURES or " at the level " in m or "FROC" in m]
    return [_metric_table(result, lines, test, m) for m in dict.fromkeys((*main, *ranked, *places))]


def _metric_table(result: TableResult, lines: Sequence[Line], test: str, metric: str) -> ReportTable:
    percent = "accuracy" in metric
    # rows of another task, or without maps, have no such number: they are no part of this table
    found = {row.row.name: find_line(lines, row.row.name, test, metric) for row in result.rows}
    having = {name: line for name, line in found.items() if line is not None or result.of(name).why_not is not None}
    # what no row trained: the whole image, the mean box
    having |= {x.row: x for x in lines if x.test == test and x.metric == metric and x.row not in found}
    chance = any(x is not None and x.chance is not None for x in having.values())
    printed = any(x is not None and x.published for x in having.values())
    columns = ["row", "mean ± sd over seeds", "95% interval"]
    columns += ["chance"] if chance else []
    columns += ["difference", "95% interval of the difference", "p", "p (Holm)", "p (Welch, seeds)"]
    columns += ["published"] if printed else []
    rows, strong = [], []
    for r, (name, line) in enumerate(having.items()):
        if line is None or line.mean is None:
            rows.append((name, "not run" if line is None else "undefined", *("" for _ in columns[2:])))
            continue
        cells = [name, line.value_text(percent=percent), line.interval_text(percent=percent)]
        cells += [line.chance_text(percent=percent)] if chance else []
        if line.difference_low is not None and (line.difference_low > 0 or (line.difference_high or 0) < 0):
            strong += [(r, len(cells)), (r, len(cells) + 1)]
        cells += [line.difference_value_text(percent=percent), line.difference_interval_text(percent=percent)]
        cells += [p_cell(p) for p in (line.p_paired, line.p_holm, line.p_welch)]
        cells += [line.published or "–"] if printed else []
        rows.append(tuple(cells))
    return ReportTable(
        f"{metric}{' (%)' if percent else ''}, {test} {'split' if test == 'test' else 'cohort'}",
        tuple(columns),
        tuple(rows),
        ("published",) if printed else (),
        tuple(strong),
        tuple(_notes(result, [x for x in having.values() if x is not None])),
    )


def _notes(result: TableResult, lines: Sequence[Line]) -> list[str]:
    notes = [f"{row.row.name} was not run: {row.why_not}" for row in result.rows if row.why_not is not None]
    first = next((line for line in lines if line.n), None)
    if first is not None:
        notes.append(f"n: {first.n}. Interval: {first.method}.")
    references = sorted({line.reference for line in lines if line.reference})
    if references:
        notes.append(
            f"Differences are from {', '.join(references)}; their interval and p: paired bootstrap over patients and "
            "seeds, two-sided; Holm corrects p over the rows of this table. Welch's t over seeds is the paper's test: "
            "it knows nothing of other patients. Bold: the interval excludes zero."
        )
    return notes


def markdown_of(table: ReportTable) -> str:
    """The table in Markdown, its notes below it."""
    lines = [f"**{table.caption}**", "", "| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join([*lines, "", *(f"{note}" for note in table.notes)])
