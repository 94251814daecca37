"""A finished table as files: table.csv, table.json, table.md, pictures/, and one self-contained report.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.errors import count_noun
from sightline.evaluation.result import read_capsule_digest
from sightline.evaluation.tables.figures import assign_row_styles, draw_charts, draw_forest_chart, draw_learning_curves
from sightline.evaluation.tables.lines import Line, find_line, is_less_better, write_lines
from sightline.evaluation.tables.pictures import draw_figures, draw_table_pictures
from sightline.evaluation.tables.provenance import write_sources, write_training_time
from sightline.evaluation.tables.summary import WINDOW_MEASURES, choose_leading_metric, summarise
from sightline.evaluation.tables.table import TableResult
from sightline.io.files import make_safe_name, write_text
from sightline.metrics.estimate import format_p_cell
from sightline.plots.html_report import ReportPicture, ReportTable, Section, write_report
from sightline.training.run import describe_environment

SENTENCES = 8
# rows that a note names one by one
MOST_NAMED = 8


def write_table(result: TableResult, out: Path, *, replicates: int = 2000, summary: Sequence[str] = ()) -> str:
    """Write every file of a table; returns the markdown table.

    Args:
        result: from `run_table`.
        out: folder.
        replicates: number of swaps of the paired test.
        summary: plain-language sentences to stand before the computed ones in the report.
    """
    lines = summarise(result, replicates=replicates)
    write_lines(lines, out)
    write_sources(result, out, replicates)
    write_training_time(result, out)
    tests = dict.fromkeys(test for row in result.rows for test in row.evaluations)
    tables = [made for test in tests for made in build_metric_tables(result, lines, test)]
    text = "\n\n".join(format_markdown(table) for table in tables)
    write_text(out / "table.md", f"# {result.table.title}\n\n{result.table.caption}\n\n{text}\n")
    spread: list[ReportPicture] = []
    if result.table.as_printed:
        from sightline.evaluation.tables.as_published import report_as_printed
        from sightline.evaluation.tables.distributions import draw_spread_charts

        if printed := report_as_printed(result, replicates=replicates):
            write_text(out / "as_printed.md", printed)
        spread = draw_spread_charts(result)
    looked = draw_table_pictures(result)
    plot = draw_forest_chart(result, lines)
    # what people look at comes first: the differences, and the same pictures by each method
    rest = () if looked is None else looked.more
    curves = draw_learning_curves(result)
    figures = draw_figures(result)
    opening = _choose_best(result, lines)
    reliance = _build_reliance_section(result, opening.best)
    sections = [
        *([Section("At a glance", pictures=(plot,))] if plot is not None else []),
        *([] if looked is None else [looked.opening]),
        Section("Results", (result.table.caption,), _fold(tables), (*draw_charts(result, lines), *spread)),
        *([reliance] if reliance is not None else []),
        *([Section("As the paper shows it", pictures=tuple(figures))] if figures else []),
        *([Section("More pictures", pictures=rest)] if rest else []),
        *([Section("Training", pictures=(curves,))] if curves is not None else []),
    ]
    _write_pictures(sections, out / "pictures")
    write_report(
        out / "report.html",
        title=result.table.title,
        summary=[*summary, _word_answer(opening), *_write_sentences(result, lines, opening.compared)],
        sections=sections,
        provenance=_collect_provenance(result),
    )
    return text


def _build_reliance_section(result: TableResult, best: Line | None) -> Section | None:
    if not any(row.row.recipe.classifies for row in result.rows):
        return None
    # operating points, subgroups and calibration are of answers, which tables of gaze do not give
    from sightline.evaluation.evidence.reliance import build_reliance_section

    return build_reliance_section(result, assign_row_styles(result), None if best is None else best.row)


def _fold(tables: Sequence[ReportTable]) -> tuple[ReportTable, ...]:
    """The first table is open, the others are folded; a note stands once, below the first table that has it."""
    seen: set[str] = set()
    made = []
    for n, table in enumerate(tables):
        notes = tuple(note for note in table.notes if note not in seen)
        seen |= set(notes)
        made.append(replace(table, notes=notes, folded=n > 0))
    return tuple(made)


@dataclass(frozen=True)
class Opening:
    """The rows that a report opens with, by the leading number.

    Attributes:
        best: the best of the compared rows and of those that they are compared with; of all where none is compared.
        compared: the best of the compared rows.
        passed: whether a row that is part of no comparison has a better number.
    """

    best: Line | None = None
    compared: Line | None = None
    passed: bool = False


def _choose_best(result: TableResult, lines: Sequence[Line]) -> Opening:
    leading = choose_leading_metric(result.table, lines)
    found = [find_line(lines, row.row.name, "test", leading) for row in result.rows]
    having = [line for line in found if line is not None and line.mean is not None]
    differing = [line for line in having if line.difference is not None]
    if not differing:
        return Opening(max(having, key=lambda line: line.merit, default=None))
    compared = max(differing, key=lambda line: line.merit)
    names = {name for line in differing for name in (line.row, line.reference)}
    # of equals the compared row
    best = max([compared, *(line for line in having if line.row in names)], key=lambda line: line.merit)
    return Opening(best, compared, any(line.merit > best.merit for line in having))


def _word_answer(opening: Opening) -> str:
    """What the table says, in one sentence with its interval: the best row by the leading number, and its reference."""
    best, compared = opening.best, opening.compared
    if best is None:
        return "No row has a number that could be compared."
    most = f"has the {'lowest' if is_less_better(best.metric) else 'highest'}"
    among = "Of the rows that are part of a comparison, " if opening.passed else ""
    sentence = f"{among}{best.row} {most} {best.metric}, {best.text()}"
    if compared is None:
        return f"{sentence}; there is nothing to compare it with."
    if best != compared:
        with_it = " with it" if compared.reference == best.row else ""
        sentence += f"; of the rows compared{with_it}, {compared.row} {most}, {compared.text()}"
    return f"{sentence}, {compared.verdict} {compared.reference}: {compared.difference_text()}."


def _write_pictures(sections: Sequence[Section], folder: Path) -> None:
    for old in folder.glob("[0-9][0-9]-*.png"):
        # of an earlier call with other rows
        old.unlink()
    for number, picture in enumerate((p for section in sections for p in section.pictures), start=1):
        folder.mkdir(exist_ok=True)
        name = make_safe_name(picture.alt.lower().replace(" ", "-"))
        (folder / f"{number:02d}-{name}.png").write_bytes(picture.png)


def _write_sentences(result: TableResult, lines: Sequence[Line], compared: Line | None = None) -> list[str]:
    """What was found, in sentences made of the numbers; `compared` stands in the opening."""
    cohort = result.cohort
    test = cohort.split("test")
    # rows of a learning curve see a part of the training images, each seed its own
    ran = [row.row for row in result.rows if row.folders and row.why_not is None]
    trained = [row for row in ran if not row.parts]
    used = [len(row.training_cases(cohort, seed).split("train")) for row in trained for seed in result.seeds]
    every = len(cohort.split("train"))
    least, most = min(used, default=every), max(used, default=every)
    span = f"{least}" if least == most else f"{least} to {most}"
    images = f"{every} training images" if least == every else f"{span} of {every} training images"
    times = count_noun(len(result.seeds), "time") + (" each" if len(trained) > 1 else "")
    assembled = len(ran) - len(trained)
    more = f", {count_noun(assembled, 'more was', 'more were')} assembled from these trainings" if assembled else ""
    words = [
        f"{count_noun(len(trained), 'method was', 'methods were')} trained {times} on {images} of {cohort.name}{more}. "
        f"{'All were' if len(ran) > 1 else 'It was'} tested on "
        f"{count_noun(len(test), 'image')} of {count_noun(len({c.study_id for c in test}), 'study', 'studies')} and "
        f"{count_noun(len({c.patient_id for c in test}), 'patient')}."
    ]
    leading = choose_leading_metric(result.table, lines)
    for row in result.rows:
        line = find_line(lines, row.row.name, "test", leading)
        if line is None or line == compared or line.difference is None or line.p_paired is None:
            continue
        outcome = f"{line.verdict} {line.reference}: {line.difference_text()}"
        words.append(f"{row.row.name}: {line.metric} {line.text()}, {outcome}.")
    return words[:SENTENCES]


def _collect_provenance(result: TableResult) -> dict[str, str]:
    machine = describe_environment()
    facts = {
        "table": result.table.name,
        "cohort": f"{result.cohort.name}, fingerprint {result.cohort.fingerprint()}",
        "seeds": ", ".join(map(str, result.seeds)),
        "command": machine["command"],
        "sightline": machine["sightline"],
        "python": machine["python"],
        "machine": machine["cuda"] or machine["processor"],
        **dict(machine["packages"].items()),
    }
    facts |= {f"cohort: {key}": value for key, value in result.cohort.about.items()}
    for row in result.rows:
        if row.folders:
            taken = {folder: read_capsule_digest(folder) for folder in row.folders}
            names = (f"{run.name} (capsule {digest[:12]})" if digest else run.name for run, digest in taken.items())
            facts[f"runs of {row.row.name}"] = ", ".join(names)
    return facts


def build_metric_tables(result: TableResult, lines: Sequence[Line], test: str) -> list[ReportTable]:
    """One table a metric: what the paper reports first, then ranking, then where the maps lie."""
    metrics = list(dict.fromkeys(x.metric for x in lines if x.test == test and x.mean is not None))
    main = [m for m in result.table.metrics if m in metrics]
    ranked = [m for m in metrics if "AUC" in m]
    places = [m for m in metrics if m.startswith(("pointing", "energy"))]
    places += [m for m in metrics if m in WINDOW_MEASURES or " at the level " in m or "FROC" in m]
    return [_build_metric_table(result, lines, test, m) for m in dict.fromkeys((*main, *ranked, *places))]


def _build_metric_table(result: TableResult, lines: Sequence[Line], test: str, metric: str) -> ReportTable:
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
        if line.differs:
            strong += [(r, len(cells)), (r, len(cells) + 1)]
        cells += [line.difference_value_text(percent=percent), line.difference_interval_text(percent=percent)]
        cells += [format_p_cell(p) for p in (line.p_paired, line.p_holm, line.p_welch)]
        cells += [line.published or "–"] if printed else []
        rows.append(tuple(cells))
    return ReportTable(
        f"{metric}{' (%)' if percent else ''}, {test} {'split' if test == 'test' else 'cohort'}",
        tuple(columns),
        tuple(rows),
        ("published",) if printed else (),
        tuple(strong),
        tuple(_write_notes(result, [x for x in having.values() if x is not None])),
    )


def _write_notes(result: TableResult, lines: Sequence[Line]) -> list[str]:
    notes = [f"{row.row.name} was not run: {row.why_not}" for row in result.rows if row.why_not is not None]
    first = next((line for line in lines if line.n), None)
    if first is not None:
        notes.append(f"n: {first.n}. Interval: {first.method}.")
    if words := _name_references(lines):
        notes.append(
            f"Differences are {words}; their interval and p: patients swapped between the rows, "
            "and their trainings, two-sided; Holm corrects p over the rows of this table. Welch's t over seeds is the "
            "paper's test: it knows nothing of other patients. Bold: p after Holm's correction is below 0.05."
        )
    return [*notes, *_describe_comparisons(lines)]


def _describe_comparisons(lines: Sequence[Line]) -> list[str]:
    """Which differences are not of all cases of their row, and which rows could not be compared."""
    having = [line for line in lines if line.compared_cases]
    if len(having) > MOST_NAMED:
        return [f"{len(having)} differences are of fewer cases than their rows, or missing: see `why` in table.csv."]
    return [f"{line.row}, difference from {line.reference}: {line.compared_cases}." for line in having]


def _name_references(lines: Sequence[Line]) -> str:
    """Which row each row's difference is from, in words; where there are many, the column of the file is named."""
    rows: dict[str, list[str]] = {}
    for line in lines:
        if line.difference is not None:
            rows.setdefault(line.reference, []).append(line.row)
    if len(rows) < 2:
        return "".join(f"from {reference}" for reference in rows)
    if sum(map(len, rows.values())) > MOST_NAMED:
        return f"from {', '.join(sorted(rows))} (which from which: `reference` in table.csv)"
    return "; ".join(f"of {', '.join(each)} from {reference}" for reference, each in rows.items())


def format_markdown(table: ReportTable) -> str:
    """The table in Markdown, its notes below it."""
    lines = [f"**{table.caption}**", "", "| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    bold = set(table.strong)
    for r, row in enumerate(table.rows):
        cells = (f"**{cell}**" if (r, c) in bold else cell for c, cell in enumerate(row))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{note}" for note in table.notes)])
