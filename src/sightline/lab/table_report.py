"""A finished table as files: table.csv, table.json, table.md, pictures/, and one self-contained report.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sightline.lab.as_printed import as_printed
from sightline.lab.gallery import safe_name
from sightline.lab.metric_tables import markdown_of, metric_tables
from sightline.lab.report import Section, write_report
from sightline.lab.run import environment, write_text
from sightline.lab.summary import leading_metric, summarise
from sightline.lab.table import TableResult
from sightline.lab.table_charts import charts, learning_curves
from sightline.lab.table_line import Line, find_line, write_lines
from sightline.lab.table_looks import looks

SENTENCES = 8


def write_table(result: TableResult, out: Path, *, replicates: int = 2000, summary: Sequence[str] = ()) -> str:
    """Write every file of a table; returns the markdown table.

    Args:
        result: from `run_table`.
        out: folder.
        replicates: bootstrap samples.
        summary: plain-language sentences to stand before the computed ones in the report.
    """
    lines = summarise(result, replicates=replicates)
    write_lines(lines, out)
    tests = dict.fromkeys(test for row in result.rows for test in row.evaluations)
    tables = [made for test in tests for made in metric_tables(result, lines, test)]
    text = "\n\n".join(markdown_of(table) for table in tables)
    write_text(out / "table.md", f"# {result.table.title}\n\n{result.table.caption}\n\n{text}\n")
    if result.table.as_printed and (printed := as_printed(result, replicates=replicates)):
        write_text(out / "as_printed.md", printed)
    sections = [
        Section("Results", (result.table.caption,), tuple(tables), tuple(charts(result, lines))),
        *([looked] if (looked := looks(result)) is not None else []),
        *([Section("Training", pictures=(curves,))] if (curves := learning_curves(result)) is not None else []),
    ]
    _write_pictures(sections, out / "pictures")
    write_report(
        out / "report.html",
        title=result.table.title,
        summary=[*summary, *_plain_words(result, lines)],
        sections=sections,
        provenance=_provenance(result),
    )
    return text


def _write_pictures(sections: Sequence[Section], folder: Path) -> None:
    for old in folder.glob("[0-9][0-9]-*.png"):
        # of an earlier call with other rows
        old.unlink()
    for number, picture in enumerate((p for section in sections for p in section.pictures), start=1):
        folder.mkdir(exist_ok=True)
        name = safe_name(picture.alt.lower().replace(" ", "-"))
        (folder / f"{number:02d}-{name}.png").write_bytes(picture.png)


def _plain_words(result: TableResult, lines: Sequence[Line]) -> list[str]:
    """What was found, in sentences made of the numbers."""
    cohort = result.cohort
    test = cohort.split("test")
    words = [
        f"{len(result.rows)} methods were trained {len(result.seeds)} times each on {len(cohort.split('train'))} "
        f"training images of {cohort.name} and tested on {len(test)} images of "
        f"{len({c.study_id for c in test})} studies and {len({c.patient_id for c in test})} patients."
    ]
    leading = leading_metric(result.table, lines)
    for row in result.rows:
        line = find_line(lines, row.row.name, "test", leading)
        if line is None or line.difference is None or line.difference_low is None or line.difference_high is None:
            continue
        verdict = "better than" if line.difference_low > 0 else "worse than" if line.difference_high < 0 else ""
        said = f"{verdict} {line.reference}" if verdict else f"not shown to differ from {line.reference}"
        words.append(f"{row.row.name}: {line.metric} {line.text()}, {said}: {line.difference_text()}.")
    return words[:SENTENCES]


def _provenance(result: TableResult) -> dict[str, str]:
    machine = environment()
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
            facts[f"runs of {row.row.name}"] = ", ".join(folder.name for folder in row.folders)
    return facts
