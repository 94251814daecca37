"""Class maps held against what experts marked: one row a case, class, role and style of region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.data.views.frames import find_case_frame, find_source_frame
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.inference.network_output import Maps
from sightline.metrics.maps.localisation import MapRow, build_organ_row, score_in_organ
from sightline.metrics.maps.saliency import resample_by_area
from sightline.metrics.maps.score import MapScore, score_map
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Region, Style, find_style
from sightline.structures.resampling import place_on_grid, upsample_map
from sightline.structures.tag import Role

ROLES: tuple[Role, ...] = ("focus", "finding", "organ")
# a focus region is best described by its mask; the pointing game is defined on boxes of findings
SCORED: dict[Role, tuple[Style, ...]] = {
    "focus": ("mask", "box", "scribble"),
    "finding": ("box", "mask", "scribble"),
    "organ": ("mask", "box"),
}


def compute_spatial_softmax(cells: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax over the cells of one class map (Liao 2022, equation 4): what every method's map is scored as.

    Positive and summing to one whatever the pooling, so that energy is defined for every network; its maximum is the
    map's. A class map itself may be negative everywhere: only differences between cells and classes mean something.
    """
    values = cells.astype(np.float64)
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def iterate_map_rows(cohort: Cohort, maps: Maps, view: View | VolumeView) -> Iterator[MapRow]:
    """Every case's regions, by role and style, against the map of the class they speak for."""
    for row, case in enumerate(cohort):
        if not case.regions:
            continue
        source = find_source_frame(case)
        frame = find_case_frame(case, view)
        picture = Box((0.0,) * source.ndim, tuple(map(float, source.shape))).draw(frame) > 0
        picture &= ~_draw_union([region for region in case.regions if region.tag.role == "ignore"], frame)
        enlarged: dict[int, NDArray[np.float64]] = {}
        for role, style, regions in _group_regions(case):
            label = _choose_class(regions, case, cohort.classes)
            place = maps.of_class(row, cohort.class_index(label))
            ids = (case.case_id, case.study_id, case.patient_id)
            if place is None:
                # the network did not take the case for this class: it has no score, and is counted as left out
                if role != "organ":
                    why = MapScore(why="no map of this class was kept")
                    yield MapRow(*ids, case.label, label, role, style, why)
                continue
            if role == "organ":
                yield from _score_organs(case, maps, row, place, regions, frame)
                continue
            if place not in enlarged:
                enlarged[place] = _place_on_view(compute_spatial_softmax(maps.maps[row, place]), maps, row, frame)
            inside = _draw_union(regions, frame) & picture
            score = score_map(enlarged[place], inside, picture)
            yield MapRow(*ids, case.label, label, role, style, score)


def _score_organs(
    case: Case, maps: Maps, row: int, place: int, regions: Sequence[Region], frame: Frame
) -> Iterator[MapRow]:
    """As Zhu 2022: on the map's own grid, exactly and with a cell of tolerance; organ cells are half in it or more."""
    cells = maps.maps[row, place]
    inside = _draw_union(regions, frame)
    if maps.windows is not None or frame.ndim != 2 or not inside.any():
        return
    organ = resample_by_area(inside.astype(np.float64), cells.shape) >= 0.5
    for tolerance in (0, 1) if organ.any() else ():
        score = score_in_organ(cells.astype(np.float64), organ, tolerance_cells=tolerance)
        ids = (case.case_id, case.study_id, case.patient_id)
        yield build_organ_row(ids, case.label, score, tolerance_cells=tolerance)


def _draw_union(regions: Sequence[Region], frame: Frame) -> NDArray[np.bool_]:
    inside = np.zeros(frame.shape, dtype=bool)
    for region in regions:
        inside |= region.draw(frame) > 0
    return inside


def _place_on_view(cells: NDArray[np.float64], maps: Maps, row: int, frame: Frame) -> NDArray[np.float64]:
    """A map on the view's grid; a network that looked at a window gave the rest nothing."""
    if maps.windows is None:
        return upsample_map(cells, frame.shape)
    return np.nan_to_num(place_on_grid(cells, maps.windows[row], (frame.shape[0], frame.shape[1])))


def _group_regions(case: Case) -> Iterator[tuple[Role, Style, list[Region]]]:
    """Regions to score against: of each role those of the first style present in SCORED, and of later ones what these
    do not cover; organs of the case's own class.
    """
    from sightline.data.targets.drawing_styles import choose_descriptions

    for role in ROLES:
        having = [r for r in case.regions if r.tag.role == role and (role != "organ" or r.tag.label == case.label)]
        chosen = choose_descriptions(having, SCORED[role])
        style = next((style for style in SCORED[role] if chosen and find_style(chosen[0]) == style), None)
        if style is not None:
            yield role, style, chosen


def _choose_class(regions: Sequence[Region], case: Case, classes: Sequence[str]) -> str:
    """The class whose map a group of regions is held against: the one all tags name, else the case's own."""
    labels = {region.tag.label for region in regions}
    only = labels.pop() if len(labels) == 1 else None
    return only if only is not None and only in classes else case.label
