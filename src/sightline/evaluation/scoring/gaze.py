"""A network's maps beside where readers looked: each map of each case on one grid with the density of the gaze."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from sightline.data.views.frames import find_case_frame, find_source_frame
from sightline.data.views.image_view import View
from sightline.inference.network_output import SHOWN_CELLS, Maps, NetworkOutput
from sightline.metrics.maps.gaze import GazeRow, GazeScores
from sightline.metrics.maps.saliency import sample_others, score_gaze
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box
from sightline.structures.resampling import place_on_grid, upsample_map

CLASS_MAP = "class map"
# enough places of other images for the shuffled AUC
MOST_OTHERS = 2000


def score_cohort_gaze(output: NetworkOutput, cohort: Cohort, view: View) -> GazeScores | None:
    """How well the class map of each case's own class, and what is shown beside it, agree with each reader's gaze.

    A class map counts above its lowest value, since only differences between its cells mean something.

    Args:
        output: what the network said of the cases.
        cohort: the cases, in the same order.
        view: their test-time view.

    Returns:
        One row a case, map and reader; `map_class` is the map's name. None where no case has gaze.
    """
    frames = {
        case.case_id: find_case_frame(case, view).resize((SHOWN_CELLS, SHOWN_CELLS))
        for case in cohort
        if _list_gaze(case)
    }
    places = {
        case.case_id: np.concatenate([frames[case.case_id].unmap_points(gaze.places) for gaze in _list_gaze(case)])
        for case in cohort
        if case.case_id in frames
    }
    rows: list[GazeRow] = []
    for index, case in enumerate(cohort):
        if case.case_id not in frames:
            continue
        frame = frames[case.case_id]
        source = find_source_frame(case)
        picture = Box((0.0, 0.0), (float(source.shape[0]), float(source.shape[1]))).draw(frame) > 0
        others = sample_others(places, case.case_id, most=MOST_OTHERS)
        shown = dict(_iterate_maps(output, index, cohort.class_index(case.label), frame))
        for gaze in _list_gaze(case):
            density, looked = gaze.density(frame), frame.unmap_points(gaze.places)
            for name, cells in shown.items():
                score = score_gaze(cells, density, looked, weights=gaze.dwell_s, others=others, valid=picture)
                ids = (case.case_id, case.study_id, case.patient_id, case.label)
                rows.append(GazeRow(*ids, map_class=name, reader=gaze.tag.reader or "reader", score=score))
    return GazeScores(tuple(rows)) if rows else None


def group_by_map(scores: GazeScores) -> Mapping[str, GazeScores]:
    """The scores of each map by its name."""
    names = dict.fromkeys(row.map_class for row in scores.rows)
    return {name: scores.where(lambda row, name=name: row.map_class == name) for name in names}  # type: ignore[misc]


def _list_gaze(case: Case) -> list[Gaze]:
    return [region for region in case.regions if isinstance(region, Gaze) and len(region)]


def _iterate_maps(
    output: NetworkOutput, index: int, label: int, frame: Frame
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Every map of a case on the grid of `frame`, by name."""
    shape = (frame.shape[0], frame.shape[1])
    if output.maps is not None and (place := output.maps.of_class(index, label)) is not None:
        yield CLASS_MAP, _resize_class_map(output.maps, index, place, shape)
    for name, maps in output.shown.items():
        yield name, upsample_map(maps[index].astype(np.float64), shape)


def _resize_class_map(maps: Maps, index: int, place: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    cells = maps.maps[index, place].astype(np.float64)
    cells = cells - cells.min()
    if maps.windows is None:
        return upsample_map(cells, shape)
    return np.nan_to_num(place_on_grid(cells, maps.windows[index], shape))
