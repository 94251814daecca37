"""Where the networks of a table looked: methods side by side on the same cases, and what was located best and worst."""

from __future__ import annotations

from dataclasses import replace

from sightline.data.split import from_sources
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.evaluation.gallery import contact_sheets, panel_case, telling_cases, volume_panel
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.table import RowResult, TableResult
from sightline.inference.predict import MAPS_KEPT
from sightline.plots.html_report import ReportPicture, Section
from sightline.plots.panels import draw_comparison
from sightline.plots.volume_panels import draw_volume_panel, slice_case
from sightline.structures.case import Cohort

COMPARED = 6
SHEET = 20
CHOSEN = (
    "first seed, test split: surest right and surest wrong calls of each class by the last method shown, so neither "
    "the best nor the worst were picked by eye."
)


def write_table_pictures(result: TableResult) -> Section | None:
    """Pictures of the table's networks at work, or None where they give none."""
    if any(isinstance(row.row.recipe.view, VolumeView) for row in result.rows):
        return _volume_looks(result)
    pictures = _flat_looks(result)
    if not pictures:
        return None
    return Section("Where the networks looked", (f"The same picture by each method, {CHOSEN}",), pictures=pictures)


def shown_rows(result: TableResult) -> list[RowResult]:
    """The reference and the rows nearest to it in kind, at most four, that have maps and tell the same classes."""
    having = [r for r in result.rows if r.why_not is None and _first(r).maps is not None]
    having = [r for r in having if r.row.recipe.task == having[-1].row.recipe.task]
    if len(having) <= 4:
        return having
    step = (len(having) - 1) / 3
    return [having[round(i * step)] for i in range(4)]


def _flat_looks(result: TableResult) -> tuple[ReportPicture, ...]:
    rows = shown_rows(result)
    # of many classes each method kept other maps: there is nothing to set side by side
    if not rows or _tells(rows[-1]) > MAPS_KEPT:
        return ()
    rows = [row for row in rows if row.row.tested_on == rows[-1].row.tested_on]
    cohort = _tested(result, rows[-1])
    # methods that saw a crop, or another size, are drawn on the same whole picture
    flat = [view for row in rows if isinstance(view := row.row.recipe.view, View)]
    whole = replace(flat[0], crop=None)
    pictures = []
    for index in telling_cases(_first(rows[-1]), COMPARED):
        case = cohort[index]
        panels = [panel_case(_first(r), index, case, view, on=whole) for r, view in zip(rows, flat, strict=True)]
        png = draw_comparison(panels, [r.row.name for r in rows])
        alt = f"Maps of {len(rows)} methods over one radiograph"
        pictures.append(ReportPicture(png, f"{case.case_id}: truth {case.label}.", alt))
    return (*pictures, *_sheets(rows[-1], cohort))


def _volume_looks(result: TableResult) -> Section | None:
    """Methods side by side where they have maps, else what the last one said."""
    shown = [row for row in shown_rows(result) if _tells(row) <= MAPS_KEPT]
    ran = [row for row in result.rows if row.why_not is None and row.evaluations.get("test")]
    if not ran:
        return None
    last = shown[-1] if shown else ran[-1]
    view = last.row.recipe.view
    assert isinstance(view, VolumeView)
    rows = [row for row in shown if row.row.recipe.view == view and row.row.tested_on == last.row.tested_on]
    cohort = _tested(result, last)
    pictures = []
    for index in telling_cases(_first(last), COMPARED):
        case = cohort[index]
        if len(rows) > 1:
            panels = [volume_panel(_first(row), index, case, view) for row in rows]
            through = panels[-1].through
            png = draw_comparison([slice_case(panel, through) for panel in panels], [row.row.name for row in rows])
            alt = f"Maps of {len(rows)} methods over one sagittal slice"
        else:
            png = draw_volume_panel(volume_panel(_first(last), index, case, view))
            alt = "One volume in three planes"
        pictures.append(ReportPicture(png, f"{case.case_id}: truth {case.label}.", alt))
    if not rows:
        title = "What was called right and wrong"
        words = f"{last.row.name}, {CHOSEN} The networks give no class maps; sightline dissect says what units see."
    else:
        title = "Where the networks looked"
        which = "the sagittal slice through the last method's greatest map cell" if len(rows) > 1 else "in three planes"
        words = f"The same volume by each method, {which}; {CHOSEN}"
        pictures += _sheets(last, cohort)
    return Section(title, (words,), pictures=tuple(pictures)) if pictures else None


def _sheets(row: RowResult, cohort: Cohort) -> list[ReportPicture]:
    """What a method located best and worst."""
    pictures = []
    words = {"maps": "by the map's energy inside the finding", "boxes": "by the overlap of the surest box"}
    for by, how in words.items():
        sheets = contact_sheets(_first(row), cohort, row.row.recipe.view, most=SHEET, by=by)  # type: ignore[arg-type]
        for name, png in sheets.items():
            caption = f"{name.capitalize()} findings of {row.row.name} {how}, first seed."
            pictures.append(ReportPicture(png, caption, f"{name.capitalize()} {by}"))
    return pictures


def _tested(result: TableResult, row: RowResult) -> Cohort:
    """The cases of a row's evaluation on the test split, in its order."""
    return from_sources(row.row.recipe.see(result.cohort).split("test"), row.row.tested_on)


def _first(row: RowResult) -> Evaluation:
    return row.evaluations["test"][0]


def _tells(row: RowResult) -> int:
    return len(_first(row).predictions.classes)
