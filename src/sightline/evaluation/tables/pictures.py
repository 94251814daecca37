"""Where the networks of a table looked: methods side by side on the same cases, and what was located best and worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sightline.data.split import select_sources
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import count_noun
from sightline.evaluation.gallery import (
    build_panel_case,
    build_volume_panel,
    draw_contact_sheets,
    list_boxes_of_row,
    select_telling_cases,
    show_network_view,
)
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.table import Figure, RowResult, TableResult
from sightline.inference.network_output import MAPS_KEPT
from sightline.plots.html_report import ReportPicture, Section
from sightline.plots.map_rows import MethodCell, MethodRow, draw_method_grid
from sightline.plots.panels import draw_comparison
from sightline.plots.volume_panels import draw_volume_panel, slice_panel
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze

COMPARED = 6
# of these so many are shown again with each class's attention
IN_FULL = 2
SHEET = 20
CHOSEN = (
    "first seed, test split: surest right and surest wrong calls of each class by the last method shown, so neither "
    "the best nor the worst were picked by eye."
)


@dataclass(frozen=True)
class TablePictures:
    """Pictures of a table's networks at work: what a report opens with, and more for whoever reads on."""

    opening: Section
    more: tuple[ReportPicture, ...] = ()


def draw_table_pictures(result: TableResult) -> TablePictures | None:
    """Pictures of the table's networks at work, or None where they give none."""
    if any(isinstance(row.row.recipe.view, VolumeView) for row in result.rows):
        return _draw_volume_pictures(result)
    return _draw_flat_pictures(result)


def choose_shown_rows(result: TableResult) -> list[RowResult]:
    """The reference and the rows nearest to it in kind, at most four, that have maps and tell the same classes."""
    having = [r for r in result.rows if r.why_not is None and _get_first(r).has_maps]
    having = [r for r in having if r.row.recipe.task == having[-1].row.recipe.task]
    if len(having) <= 4:
        return having
    step = (len(having) - 1) / 3
    return [having[round(i * step)] for i in range(4)]


def _draw_flat_pictures(result: TableResult) -> TablePictures | None:
    rows = choose_shown_rows(result)
    # of many classes each method kept other maps: there is nothing to set side by side
    if not rows or _count_classes(rows[-1]) > MAPS_KEPT:
        return None
    rows = [row for row in rows if row.row.tested_on == rows[-1].row.tested_on]
    cohort = _select_tested(result, rows[-1])
    # methods that saw a crop, or another size, are drawn on the same whole picture
    flat = [view for row in rows if isinstance(view := row.row.recipe.view, View)]
    whole = replace(flat[0], crop=None)
    pictures: list[ReportPicture] = []
    in_full: list[ReportPicture] = []
    for index in select_telling_cases(_get_first(rows[-1]), COMPARED):
        case = cohort[index]
        panels = [
            build_panel_case(_get_first(r), index, case, view, on=whole) for r, view in zip(rows, flat, strict=True)
        ]
        names, truth = [r.row.name for r in rows], f"{case.case_id}: truth {case.label}"
        alt = f"{count_noun(len(rows), 'method')} over one radiograph"
        few = _count_classes(rows[-1]) <= 2
        pictures.append(ReportPicture(draw_comparison(panels, names, attention=not few), f"{truth}.", f"Maps of {alt}"))
        if few and len(in_full) < IN_FULL:
            png = draw_comparison(panels, names)
            in_full.append(ReportPicture(png, f"{truth}, with each class's attention.", f"Maps and attention of {alt}"))
    if not pictures:
        return None
    words = f"The same picture by each method, {CHOSEN}"
    opening = Section("Where the networks looked", (words,), pictures=tuple(pictures))
    return TablePictures(opening, (*in_full, *_draw_sheets(rows[-1], cohort)))


def draw_figures(result: TableResult) -> list[ReportPicture]:
    """The figures that a table asks for: its rows side by side on an image of each class, first training.

    The image of a class is the one that the last row shown calls right and is surest of, else the class's first.
    """
    drawn = []
    for figure in result.table.figures:
        asked = [result.of(name) for name in figure.rows if any(row.row.name == name for row in result.rows)]
        rows = [row for row in asked if row.why_not is None and isinstance(row.row.recipe.view, View)]
        if not rows:
            continue
        cohort = _select_tested(result, rows[-1])
        # a picture is shown whole where methods saw other parts of it
        whole = replace(next(view for row in rows if isinstance(view := row.row.recipe.view, View)), crop=None)
        shown = [_build_figure_row(figure, rows, cohort, index, whole) for index in _choose_cases(figure, rows, cohort)]
        if not shown:
            continue
        columns = [*(["gaze (reader)"] if figure.gaze else []), *(row.row.name for row in rows)]
        caption = (
            "Maps of each image's own class, first training; of each class the test image that the last method calls "
            "right and is surest of, so that none was picked by eye."
        )
        drawn.append(ReportPicture(draw_method_grid(shown, columns, figure.title), caption, figure.title.split(":")[0]))
    return drawn


def _choose_cases(figure: Figure, rows: Sequence[RowResult], cohort: Cohort) -> list[int]:
    """A test image of each class asked for that there is."""
    telling = [row for row in rows if row.row.recipe.classifies]
    found = []
    for name in figure.classes or cohort.classes:
        of = [index for index, case in enumerate(cohort) if case.label == name]
        if not of:
            continue
        if telling:
            # what is called right comes first, the surest of it before the others
            probabilities, k = _get_first(telling[-1]).predictions.probabilities, cohort.class_index(name)
            of = [int(of[i]) for i in np.lexsort((-probabilities[of, k], probabilities[of].argmax(axis=1) != k))]
        found.append(of[0])
    return found


def _build_figure_row(figure: Figure, rows: Sequence[RowResult], cohort: Cohort, index: int, whole: View) -> MethodRow:
    case = cohort[index]
    pixels, frame = show_network_view(case, whole)
    cells = [_draw_gaze_cell(case, frame)] if figure.gaze else []
    for row in rows:
        evaluation, view = _get_first(row), row.row.recipe.picture_view
        if not evaluation.has_maps or case.label not in cohort.classes:
            cells.append(MethodCell(None, "box alone", found=list_boxes_of_row(evaluation, index)))
            continue
        panel = build_panel_case(evaluation, index, case, view, on=whole)
        place = panel.classes.index(case.label) if case.label in panel.classes else panel.predicted
        caption = f"{panel.classes[place]} {panel.probabilities[place]:.0%}"
        cells.append(MethodCell(panel.maps[place], caption, panel.window, panel.found))
    # the finding's own marks; where none is marked, whatever guides
    marks = [region for region in case.regions if region.tag.role == "finding"]
    marks = marks or [region for region in case.regions if region.tag.role == "focus"]
    return MethodRow(case.label, pixels, frame, tuple(marks), tuple(cells))


def _draw_gaze_cell(case: Case, frame: Frame) -> MethodCell:
    """Where the first reader looked, as a density of maximum 1."""
    readings = [region for region in case.regions if isinstance(region, Gaze) and len(region)]
    return MethodCell(readings[0].draw(frame) if readings else None, "" if readings else "not recorded")


def _draw_volume_pictures(result: TableResult) -> TablePictures | None:
    """Methods side by side where they have maps, else what the last one said."""
    shown = [row for row in choose_shown_rows(result) if _count_classes(row) <= MAPS_KEPT]
    ran = [row for row in result.rows if row.why_not is None and row.evaluations.get("test")]
    if not ran:
        return None
    last = shown[-1] if shown else ran[-1]
    view = last.row.recipe.view
    assert isinstance(view, VolumeView)
    rows = [row for row in shown if row.row.recipe.view == view and row.row.tested_on == last.row.tested_on]
    cohort = _select_tested(result, last)
    pictures = []
    for index in select_telling_cases(_get_first(last), COMPARED):
        case = cohort[index]
        if len(rows) > 1:
            panels = [build_volume_panel(_get_first(row), index, case, view) for row in rows]
            through = panels[-1].through
            png = draw_comparison([slice_panel(panel, through) for panel in panels], [row.row.name for row in rows])
            alt = f"Maps of {count_noun(len(rows), 'method')} over one sagittal slice"
        else:
            png = draw_volume_panel(build_volume_panel(_get_first(last), index, case, view))
            alt = "One volume in three planes"
        pictures.append(ReportPicture(png, f"{case.case_id}: truth {case.label}.", alt))
    if not rows:
        title = "What was called right and wrong"
        words = f"{last.row.name}, {CHOSEN} The networks give no class maps; sightline dissect says what units see."
    else:
        title = "Where the networks looked"
        which = "the sagittal slice through the last method's greatest map cell" if len(rows) > 1 else "in three planes"
        words = f"The same volume by each method, {which}; {CHOSEN}"
    more = tuple(_draw_sheets(last, cohort)) if rows else ()
    return TablePictures(Section(title, (words,), pictures=tuple(pictures)), more) if pictures else None


def _draw_sheets(row: RowResult, cohort: Cohort) -> list[ReportPicture]:
    """What a method located best and worst."""
    pictures = []
    words = {"maps": "by the map's energy inside the finding", "boxes": "by the overlap of the surest box"}
    for by, how in words.items():
        sheets = draw_contact_sheets(_get_first(row), cohort, row.row.recipe.view, most=SHEET, by=by)  # type: ignore[arg-type]
        for name, png in sheets.items():
            caption = f"{name.capitalize()} findings of {row.row.name} {how}, first seed."
            pictures.append(ReportPicture(png, caption, f"{name.capitalize()} {by}"))
    return pictures


def _select_tested(result: TableResult, row: RowResult) -> Cohort:
    """The cases of a row's evaluation on the test split, in its order."""
    return select_sources(row.row.recipe.see(result.cohort).split("test"), row.row.tested_on)


def _get_first(row: RowResult) -> Evaluation:
    return row.evaluations["test"][0]


def _count_classes(row: RowResult) -> int:
    return len(_get_first(row).predictions.classes)
