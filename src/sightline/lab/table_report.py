"""A finished table as files: table.csv, table.json, table.md, pictures/, and one self-contained report.html."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sklearn.metrics import roc_curve

from sightline.case import Cohort
from sightline.cohorts.subset import from_sources
from sightline.cohorts.transforms import View
from sightline.cohorts.volume_view import VolumeView
from sightline.lab.as_printed import as_printed
from sightline.lab.figures import (
    Bar,
    BarGroup,
    ForestRow,
    FrocCurve,
    Reference,
    RocCurve,
    bars,
    forest,
    froc,
    roc,
    training_curves,
)
from sightline.lab.gallery import contact_sheets, panel_case, safe_name, telling_cases, volume_panel
from sightline.lab.panels import draw_comparison
from sightline.lab.predict import MAPS_KEPT
from sightline.lab.report import ReportPicture, ReportTable, Section, write_report
from sightline.lab.run import environment, write_text
from sightline.lab.summary import WINDOW_MEASURES, Line, summarise, write_lines
from sightline.lab.table import RowResult, TableResult
from sightline.lab.volume_panels import draw_volume_panel, slice_case
from sightline.measure.box_ranking import ranking_curve
from sightline.measure.box_report import BOX_NAMES
from sightline.measure.estimate import p_cell

COMPARED = 6
SHEET = 20
FROC_ROWS = 6


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
    tables = [made for test in _tests(result) for made in _tables(result, lines, test)]
    text = "\n\n".join(_markdown(table) for table in tables)
    write_text(out / "table.md", f"# {result.table.title}\n\n{result.table.caption}\n\n{text}\n")
    if result.table.as_printed and (printed := as_printed(result, replicates=replicates)):
        write_text(out / "as_printed.md", printed)
    pictures = _charts(result, lines)
    sections = [Section("Results", (result.table.caption,), tuple(tables), tuple(pictures))]
    if _of_volumes(result):
        title, words, looks = _volume_looks(result)
    else:
        title, words, looks = "Where the networks looked", f"The same picture by each method, {_CHOSEN}", _looks(result)
    if looks:
        sections.append(Section(title, (words,), pictures=tuple(looks)))
    curves = _curves(result)
    if curves:
        sections.append(Section("Training", pictures=(ReportPicture(curves, "Loss and validation by epoch, first seed.",
                                                                     "Training curves"),)))  # fmt: skip
    for old in (out / "pictures").glob("[0-9][0-9]-*.png"):
        # of an earlier call with other rows
        old.unlink()
    for number, picture in enumerate((p for section in sections for p in section.pictures), start=1):
        (out / "pictures").mkdir(exist_ok=True)
        (out / "pictures" / f"{number:02d}-{safe_name(picture.alt.lower().replace(' ', '-'))}.png").write_bytes(
            picture.png
        )
    write_report(
        out / "report.html",
        title=result.table.title,
        summary=[*summary, *_plain_words(result, lines)],
        sections=sections,
        provenance=_provenance(result),
    )
    return text


_CHOSEN = (
    "first seed, test split: surest right and surest wrong calls of each class by the last method shown, so neither "
    "the best nor the worst were picked by eye."
)


def _of_volumes(result: TableResult) -> bool:
    return any(isinstance(row.row.recipe.view, VolumeView) for row in result.rows)


def _tests(result: TableResult) -> list[str]:
    return list(dict.fromkeys(test for row in result.rows for test in row.evaluations))


def _find(lines: Sequence[Line], row: str, test: str, metric: str) -> Line | None:
    return next((x for x in lines if x.row == row and x.test == test and x.metric == metric), None)


def _tables(result: TableResult, lines: Sequence[Line], test: str) -> list[ReportTable]:
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
    found = {row.row.name: _find(lines, row.row.name, test, metric) for row in result.rows}
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
        cells += [_number(line.chance, percent)] if chance else []
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


def _number(value: float | None, percent: bool) -> str:
    return "–" if value is None else f"{value * 100:.1f}" if percent else f"{value:.3f}"


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


def _markdown(table: ReportTable) -> str:
    lines = [f"**{table.caption}**", "", "| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join([*lines, "", *(f"{note}" for note in table.notes)])


def _charts(result: TableResult, lines: Sequence[Line]) -> list[ReportPicture]:
    pictures = []
    rows = []
    metric = _leading(result, lines)
    for row in result.rows:
        line = _find(lines, row.row.name, "test", metric)
        if line is not None and line.difference is not None:
            rows.append(ForestRow(row.row.name, line.difference, line.difference_low, line.difference_high, line.n))
    if rows:
        pictures.append(
            ReportPicture(
                forest(rows, title=f"{metric}: difference from the reference row"),
                "Each row against its reference, with the paired 95% interval over patients and seeds.",
                "Forest plot of differences",
            )
        )
    chart = _bars(result, lines)
    if chart is not None:
        pictures.append(chart)
    curves: list[RocCurve] = []
    for row in result.rows:
        line = _find(lines, row.row.name, "test", "study-wise AUC")
        if line is None or line.mean is None or len(curves) >= 5:
            continue
        first = row.evaluations["test"][0].predictions.study_wise()
        false, true, _ = roc_curve(first.labels == 1, first.probabilities[:, 1])
        area = line.values[0]
        curves.append(RocCurve(row.row.name, false.tolist(), true.tolist(), area))
    if curves:
        pictures.append(
            ReportPicture(roc(curves), "ROC curves, study-wise, first seed, of up to five rows.", "ROC curves")
        )
    free = _froc(result, lines)
    return pictures if free is None else [*pictures, free]


def _leading(result: TableResult, lines: Sequence[Line]) -> str:
    """The metric that methods are compared by in figures and sentences."""
    wanted = (*result.table.leading, "study-wise AUC", "study-wise accuracy")
    return next((m for m in wanted if any(x.metric == m and x.difference is not None for x in lines)), wanted[-1])


def _bars(result: TableResult, lines: Sequence[Line]) -> ReportPicture | None:
    """Figures 2 and 6 of Liao 2022: accuracy by weight and style."""
    groups: dict[str, list[Bar]] = {}
    for row in result.rows:
        image = _find(lines, row.row.name, "test", "image-wise accuracy")
        study = _find(lines, row.row.name, "test", "study-wise accuracy")
        if row.row.weight_label in ("", "0") or image is None or study is None:
            continue
        if image.mean is None or study.mean is None:
            continue
        significant = study.p_paired is not None and study.p_paired < 0.05
        prefix = row.row.name.split(" ")[0] + " " if row.row.name.startswith("s-") else ""
        bar = Bar(row.row.group, 100 * image.mean, 100 * study.mean, _percent(study.std), significant)
        groups.setdefault(f"{prefix}λ = {row.row.weight_label}", []).append(bar)
    if not groups:
        return None
    base = next((r for r in result.rows if r.row.reference is None and r.why_not is None), None)
    line = None if base is None else _find(lines, base.row.name, "test", "study-wise accuracy")
    reference = None
    if base is not None and line is not None and line.mean is not None:
        reference = Reference(base.row.name, 100 * line.mean, _percent(line.std))
    drawn = bars(
        [BarGroup(label, tuple(members)) for label, members in groups.items()],
        title="Accuracy by guidance weight and style",
        ylabel="accuracy (%)",
        reference=reference,
        significance="differs from the reference, paired p < 0.05",
        bottom=_round_floor(
            [b.image_wise for bs in groups.values() for b in bs] + ([reference.value] if reference else [])
        ),
    )
    return ReportPicture(drawn, "Image-wise (dark) and study-wise (light) accuracy.", "Bars by weight and style")


def _round_floor(values: Sequence[float]) -> float:
    """A round number well below all values: where a bar chart's axis may start."""
    return max(0.0, 10.0 * math.floor((min(values) - 10.0) / 10.0))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def _shown(result: TableResult) -> list[RowResult]:
    """The reference and the rows nearest to it in kind, at most four, that have maps and tell the same classes."""
    having = [r for r in result.rows if r.why_not is None and r.evaluations["test"][0].maps is not None]
    having = [r for r in having if r.row.recipe.task == having[-1].row.recipe.task]
    if len(having) <= 4:
        return having
    step = (len(having) - 1) / 3
    return [having[round(i * step)] for i in range(4)]


def _looks(result: TableResult) -> list[ReportPicture]:
    rows = _shown(result)
    # of many classes each method kept other maps: there is nothing to set side by side
    if not rows or len(rows[-1].evaluations["test"][0].predictions.classes) > MAPS_KEPT:
        return []
    cohort = rows[-1].row.recipe.see(result.cohort).split("test")
    last = rows[-1].evaluations["test"][0]
    # methods that saw a crop, or another size, are drawn on the same whole picture
    views = [row.row.recipe.view for row in rows]
    flat = [view for view in views if isinstance(view, View)]
    whole = replace(flat[0], crop=None)
    pictures = []
    for index in telling_cases(last, COMPARED):
        case = cohort[index]
        panels = [
            panel_case(r.evaluations["test"][0], index, case, view, on=whole)
            for r, view in zip(rows, flat, strict=True)
        ]
        pictures.append(
            ReportPicture(
                draw_comparison(panels, [r.row.name for r in rows]),
                f"{case.case_id}: truth {case.label}.",
                f"Maps of {len(rows)} methods over one radiograph",
            )
        )
    return [*pictures, *_sheets(rows[-1], cohort)]


def _sheets(row: RowResult, cohort: Cohort) -> list[ReportPicture]:
    """What a method located best and worst."""
    pictures = []
    words = {"maps": "by the map's energy inside the finding", "boxes": "by the overlap of the surest box"}
    for by, how in words.items():
        sheets = contact_sheets(row.evaluations["test"][0], cohort, row.row.recipe.view, most=SHEET, by=by)  # type: ignore[arg-type]
        for name, png in sheets.items():
            caption = f"{name.capitalize()} findings of {row.row.name} {how}, first seed."
            pictures.append(ReportPicture(png, caption, f"{name.capitalize()} {by}"))
    return pictures


def _volume_looks(result: TableResult) -> tuple[str, str, list[ReportPicture]]:
    """Title, words and pictures of volumes: methods side by side where they have maps, else what the last one said."""
    shown = [row for row in _shown(result) if _tells(row) <= MAPS_KEPT]
    ran = [row for row in result.rows if row.why_not is None and row.evaluations.get("test")]
    if not ran:
        return "", "", []
    last = shown[-1] if shown else ran[-1]
    view = last.row.recipe.view
    rows = [row for row in shown if row.row.recipe.view == view and row.row.tested_on == last.row.tested_on]
    cohort = from_sources(last.row.recipe.see(result.cohort), last.row.tested_on).split("test")
    evaluation = last.evaluations["test"][0]
    assert isinstance(view, VolumeView)
    pictures = []
    for index in telling_cases(evaluation, COMPARED):
        case = cohort[index]
        if len(rows) > 1:
            panels = [volume_panel(row.evaluations["test"][0], index, case, view) for row in rows]
            through = panels[-1].through
            png = draw_comparison([slice_case(panel, through) for panel in panels], [row.row.name for row in rows])
            alt = f"Maps of {len(rows)} methods over one sagittal slice"
        else:
            png = draw_volume_panel(volume_panel(evaluation, index, case, view))
            alt = "One volume in three planes"
        pictures.append(ReportPicture(png, f"{case.case_id}: truth {case.label}.", alt))
    if not rows:
        words = f"{last.row.name}, {_CHOSEN} The networks give no class maps; sightline dissect says what units see."
        return "What was called right and wrong", words, pictures
    which = "the sagittal slice through the last method's greatest map cell" if len(rows) > 1 else "in three planes"
    words = f"The same volume by each method, {which}; {_CHOSEN}"
    return "Where the networks looked", words, [*pictures, *_sheets(last, cohort)]


def _tells(row: RowResult) -> int:
    return len(row.evaluations["test"][0].predictions.classes)


def _froc(result: TableResult, lines: Sequence[Line]) -> ReportPicture | None:
    """Free-response curves of the rows whose boxes are measured, best first."""
    metric = BOX_NAMES["froc_centre"]
    curves = []
    for row in result.rows:
        scores = row.evaluations["test"][0].box_scores if row.evaluations.get("test") else None
        line = _find(lines, row.row.name, "test", metric)
        if scores is None or line is None or line.mean is None:
            continue
        points = ranking_curve(scores.cases, "centre")
        curves.append(
            FrocCurve(
                row.row.name,
                points.false_per_image.tolist(),
                points.sensitivity.tolist(),
                line.mean,
                line.low,
                line.high,
            )
        )
    if not curves:
        return None
    curves.sort(key=lambda curve: -(curve.score or 0.0))
    caption = (
        "Findings whose box holds the centre of a found box, against false boxes an image; first seed, up to six rows."
    )
    return ReportPicture(froc(curves[:FROC_ROWS]), caption, "FROC curves")


def _curves(result: TableResult) -> bytes | None:
    histories = {}
    for row in _shown(result):
        path = row.folders[0] / "history.csv"
        if not path.is_file():
            # put together from other runs, never trained
            continue
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = ("epoch", "loss", "cross_entropy", "val_loss", "val_auc")
        histories[row.row.name] = {
            name: [float(r[name]) if r[name] else float("nan") for r in rows]
            for name in names
            if rows and any(r.get(name) for r in rows)
        }
    return training_curves(histories) if histories and all(len(h) > 1 for h in histories.values()) else None


def _plain_words(result: TableResult, lines: Sequence[Line]) -> list[str]:
    """What was found, in sentences made of the numbers."""
    cohort = result.cohort
    test = cohort.split("test")
    words = [
        f"{len(result.rows)} methods were trained {len(result.seeds)} times each on {len(cohort.split('train'))} "
        f"training images of {cohort.name} and tested on {len(test)} images of "
        f"{len({c.study_id for c in test})} studies and {len({c.patient_id for c in test})} patients."
    ]
    for row in result.rows:
        line = _find(lines, row.row.name, "test", _leading(result, lines))
        if line is None or line.difference is None or line.difference_low is None or line.difference_high is None:
            continue
        verdict = "better than" if line.difference_low > 0 else "worse than" if line.difference_high < 0 else ""
        said = f"{verdict} {line.reference}" if verdict else f"not shown to differ from {line.reference}"
        words.append(f"{row.row.name}: {line.metric} {line.text()}, {said}: {line.difference_text()}.")
    return words[:8]


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


def read_lines(path: Path) -> list[Line]:
    """Lines from table.json."""
    return [Line(**{**row, "values": tuple(row["values"])}) for row in json.loads(path.read_text(encoding="utf-8"))]
