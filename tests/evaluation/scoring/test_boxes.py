"""Boxes and maps of a run in source pixels: windows, crops, several findings, and what lies outside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.data.views.image_view import View
from sightline.evaluation.scoring.boxes import list_true_corners, score_boxes
from sightline.evaluation.scoring.maps import _group_regions, iterate_map_rows
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.boxes import list_finding_classes
from sightline.inference.network_output import Maps, NetworkOutput
from sightline.metrics.predictions import Predictions
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Polygon
from sightline.structures.resampling import place_on_grid
from sightline.structures.tag import Tag

CLASSES = ("normal", "fracture")
FINDING = Tag("finding")


def case(*regions, label="fracture", name="a") -> Case:
    return Case(name, name, name, Path(f"{name}.png"), label, regions, "test", "", (100, 200), (0.5, 0.5))


def said(cases, maps=None, windows=None, boxes=None, probability=0.8) -> tuple[NetworkOutput, Cohort]:
    cohort = Cohort("c", CLASSES, tuple(cases))
    n = len(cohort)
    predictions = Predictions(
        CLASSES, *[tuple(c.case_id for c in cohort)] * 3, np.array([cohort.class_index(c.label) for c in cohort]),
        np.tile([1 - probability, probability], (n, 1)),
    )  # fmt: skip
    kept = None
    if maps is not None:
        stack = np.asarray(maps, dtype=np.float32)
        both = np.stack([np.zeros_like(stack), stack], axis=1)
        kept = Maps(predictions.case_ids, np.tile([0, 1], (n, 1)), both, both, windows)
    return NetworkOutput(predictions, kept, boxes), cohort


def peak(row: int, column: int, cells: int = 20) -> np.ndarray:
    field = np.zeros((cells, cells))
    field[row, column] = 1.0
    return field


def test_boxes_of_findings_are_taken_from_boxes_where_both_are_given():
    outline = Polygon((((0, 0), (5, 9), (9, 0)),), FINDING)
    assert list_true_corners(case(Box((1, 1), (8, 8), FINDING), outline)).tolist() == [[1, 1, 8, 8]]
    elsewhere = case(Box((1, 2), (3, 4), FINDING), Polygon((((50, 50), (50, 60), (60, 60)),), FINDING))
    assert list_true_corners(elsewhere).tolist() == [[1, 2, 3, 4], [50, 50, 60, 60]]
    assert [regions for *_, regions in _group_regions(elsewhere)] == [list(elsewhere.regions)]
    assert list_true_corners(case(outline)).tolist() == [[0, 0, 9, 9]]
    assert list_true_corners(case(Box((1, 2), (3, 4), Tag("focus")))).shape == (0, 4)


def test_the_normal_class_is_no_finding():
    assert list_finding_classes(("normal", "A", "B")) == [1, 2]
    assert list_finding_classes(("no fracture", "fracture")) == [1]
    assert list_finding_classes(("A1", "B3")) == [0, 1]


def test_a_map_box_lies_where_the_map_is_high_in_source_pixels():
    # 200 x 200 padded square on a view of 100: 2 source pixels a view pixel, 50 rows of padding above
    truth = Box((60.0, 100.0), (80.0, 120.0), FINDING)
    spoken, cohort = said([case(truth)], [peak(11, 10)])
    scores = score_boxes(spoken, cohort, View(size=100), MapBoxes(low=128.0))
    (found,) = scores.cases[0].found
    # cell (11, 10) of 20 covers rows 110 to 120 of the square, which are rows 60 to 70 of the picture
    centre = (found[:2] + found[2:]) / 2
    np.testing.assert_allclose(centre, [65.0, 105.0], atol=1.0)
    assert scores.cases[0].scores[0] == pytest.approx(0.8)
    assert scores.cases[0].score.centre_inside == 1.0


def test_maps_of_a_window_are_boxed_where_the_window_lies():
    window = np.array([[[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]])
    spoken, cohort = said([case(Box((60.0, 100.0), (80.0, 120.0), FINDING))], [peak(0, 0)], window)
    (found,) = score_boxes(spoken, cohort, View(size=100), MapBoxes(low=128.0)).cases[0].found
    # the window's first cell is the fortieth part of the square, from its middle on
    assert found[0] == pytest.approx(50.0, abs=1.0) and found[1] == pytest.approx(100.0, abs=1.0)
    assert found[2] < 60.0 and found[3] < 110.0


def test_a_box_the_network_says_is_cut_to_the_picture():
    spoken, cohort = said([case(Box((0.0, 0.0), (20.0, 20.0), FINDING))], boxes=np.array([[0.3, 0.05, 0.2, 0.3]]))
    (found,) = score_boxes(spoken, cohort, View(size=100), MapBoxes()).cases[0].found
    # rows 40 to 80 of the square are rows -10 to 30 of the picture; columns -20 to 40
    np.testing.assert_allclose(found, [0.0, 0.0, 30.0, 40.0])


def test_nothing_marked_is_nothing_measured():
    spoken, cohort = said([case(label="normal")], [peak(3, 3)])
    assert score_boxes(spoken, cohort, View(size=100), MapBoxes()) is None


def test_a_region_outside_the_window_gets_nothing_and_is_counted():
    """A network that looked elsewhere is not excused: the region's map is zero, not missing."""
    window = np.array([[[0.25, 0.0, 0.3], [0.0, 0.25, 0.0]]])
    spoken, cohort = said([case(Box((80.0, 150.0), (90.0, 180.0), FINDING))], [peak(4, 4)], window)
    (row,) = iterate_map_rows(cohort, spoken.maps, View(size=100))
    assert row.score.pointing == 0.0 and row.score.energy == 0.0


def test_a_map_that_was_not_kept_is_counted_as_left_out():
    spoken, cohort = said([case(Box((80.0, 150.0), (90.0, 180.0), FINDING))], [peak(4, 4)])
    kept = replace(spoken.maps, classes=np.full_like(spoken.maps.classes, 7))
    (row,) = iterate_map_rows(cohort, kept, View(size=100))
    assert row.score.pointing is None and row.score.why == "no map of this class was kept"


def test_a_window_laid_over_the_view_keeps_values_and_leaves_the_rest_open():
    cells = np.arange(16.0).reshape(4, 4)
    whole = place_on_grid(cells, [[1, 0, 0], [0, 1, 0]], (4, 4))
    np.testing.assert_allclose(whole, cells)
    quarter = place_on_grid(cells, [[0.5, 0, 0.5], [0, 0.5, 0.5]], (8, 8))
    np.testing.assert_allclose(quarter[4:, 4:], cells)
    assert np.isnan(quarter[:4]).all() and np.isnan(quarter[:, :4]).all()


def test_a_turned_window_is_laid_where_its_frame_says():
    cells = np.zeros((5, 5))
    cells[1, 3] = 1.0
    window = np.array([[0.0, 0.6, 0.2], [-0.6, 0.0, 0.8]])
    laid = np.nan_to_num(place_on_grid(cells, window, (50, 50)))
    row, column = np.unravel_index(int(laid.argmax()), laid.shape)
    place = Frame.of_image((50, 50)).within(window, (5, 5)).map_points([[1.5, 3.5]])[0]
    assert abs(row + 0.5 - place[0]) <= 1.0 and abs(column + 0.5 - place[1]) <= 1.0
