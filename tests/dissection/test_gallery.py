"""Where a unit responds: maps, slices, files for a viewer, and galleries."""

import numpy as np
import pytest
from support.cohorts import make_cohort
from support.volumes import IPL, tiny_spines

from sightline.data.views.frames import find_case_frame
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.dissection import gallery
from sightline.dissection.gallery import GalleryCase, GalleryHead, draw_collage, draw_strongest, draw_thumbnail
from sightline.dissection.responses import (
    close_up,
    compute_response,
    compute_source_response,
    read_picture,
    trace_contours,
    write_overlay,
    write_unit_nifti,
)
from sightline.dissection.top_cases import describe_facts, list_outlines, rank_top_cases, stretch_contrast
from sightline.io.nifti import read_volume
from sightline.plots.planes import build_cube
from sightline.structures.case import Case
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Polygon
from sightline.structures.tag import Tag

HEAD = GalleryHead(7, "rank 1, c 0.900", "wedge", "cases of fractured")


def slow_response(cells, threshold, shape):
    """Trilinear by hand, pixel by pixel."""
    grown = np.zeros(shape)
    for place in np.ndindex(*shape):
        value = 0.0
        at = [(p + 0.5) * m / n - 0.5 for p, n, m in zip(place, shape, cells.shape, strict=True)]
        for corner in np.ndindex(*(2,) * len(shape)):
            weight, index = 1.0, []
            for x, up, m in zip(at, corner, cells.shape, strict=True):
                low = np.floor(x)
                weight *= (x - low) if up else 1 - (x - low)
                index.append(int(np.clip(low + up, 0, m - 1)))
            value += weight * cells[tuple(index)]
        grown[place] = value
    return np.where(grown > threshold, grown, 0.0) / np.where(grown > threshold, grown, 0.0).max(), grown > threshold


@pytest.mark.parametrize(("cells", "shape"), [((3, 4), (9, 8)), ((2, 3, 2), (6, 6, 8))])
def test_a_response_is_enlarged_then_held_against_the_threshold(cells, shape):
    values = np.random.default_rng(0).random(cells)
    level, above = slow_response(values, 0.6, shape)
    found = compute_response(values, 0.6, shape)
    assert np.array_equal(found.above, above) and 0 < above.mean() < 1
    assert found.level == pytest.approx(level)
    assert found.level[found.peak] == 1.0


def test_each_unit_has_a_slice_of_its_own():
    cells = np.zeros((4, 4, 4))
    cells[1, 2, 3] = 1.0
    found = compute_response(cells, 0.1, (16, 16, 16))
    for axis, cell in enumerate((1, 2, 3)):
        assert 4 * cell <= found.slice_along(axis) < 4 * cell + 4
        sums = [np.take(found.level, k, axis=axis).sum() for k in range(16)]
        assert found.slice_along(axis) == int(np.argmax(sums))


def test_a_lone_cell_keeps_its_place_where_enlarging_takes_it_below():
    cells = np.zeros((4, 4))
    cells[2, 1] = 1.0
    found = compute_response(cells, 0.999, (6, 6))
    assert found.above.any()
    rows, columns = np.nonzero(found.above)
    assert (rows * 4 // 6 == 2).all() and (columns * 4 // 6 == 1).all()


def test_a_silent_unit_colours_nothing():
    found = compute_response(np.zeros((4, 4)), 0.0, (8, 8))
    assert not found.above.any() and not found.level.any()


def test_negative_activations_above_a_negative_threshold_are_shown():
    cells = np.full((4, 4), -3.0)
    cells[0, 0] = -1.0
    found = compute_response(cells, -2.0, (8, 8))
    assert found.above[0, 0] and found.level[0, 0] == 1.0 and not found.above[7, 7]


def test_a_window_keeps_a_response_within_it():
    window = np.array([[0.5, 0.0, 0.5], [0.0, 0.5, 0.0]])
    found = compute_response(np.ones((3, 3)), 0.5, (8, 8), window)
    expected = np.zeros((8, 8), dtype=bool)
    expected[4:, :4] = True
    assert np.array_equal(found.above, expected)


def test_contours_lie_on_pixel_edges():
    above = np.zeros((5, 6), dtype=bool)
    above[1:3, 2:5] = True
    (line,) = trace_contours(above)
    assert line.min(axis=0).tolist() == [1.0, 2.0] and line.max(axis=0).tolist() == [3.0, 5.0]


def test_top_cases_go_by_strength_then_by_mean():
    strength = np.array([1.0, 0.0, 5.0, 7.0, 5.0, 0.0])
    mean = np.array([0.1, 0.9, 0.5, 0.7, 0.5, 2.0])
    assert rank_top_cases(strength, mean, np.array([0, 1, 2, 4, 5])) == [2, 4, 0, 5, 1]
    assert rank_top_cases(np.arange(60.0), np.ones(60), np.arange(60)) == list(range(59, 34, -1))


# -- volumes --


@pytest.fixture(scope="module")
def spines(tmp_path_factory):
    tilted = IPL.copy()
    turn = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
    tilted[:3, :3] = turn @ IPL[:3, :3]
    return tiny_spines(tmp_path_factory.mktemp("spines"), 4, tilted)


def test_nifti_files_lie_in_the_cts_own_space(spines, tmp_path):
    case, view = spines[1], VolumeView(size=16, augment="none")
    cells = np.zeros((4, 4, 4))
    cells[1, 2, 3] = 5.0
    paths = write_unit_nifti(tmp_path, "one", case, view, cells, 1.0)
    patch = read_volume(case.image)
    ct, activation, masked = (read_volume(path) for path in paths)
    assert ct.values.shape == (16, 16, 16) and np.array_equal(ct.affine, activation.affine)
    # the same point of the patient has the same Hounsfield units in patch and crop
    for place in ((0.5, 0.5, 0.5), (7.5, 3.5, 12.5)):
        there = patch.place_of(ct.world_of(place))
        assert there == pytest.approx(np.array(place) + 4.0, abs=1e-6)
        i, j, k = (int(x) for x in there)
        assert ct.values[tuple(int(x) for x in place)] == patch.values[i, j, k]
    hot = np.unravel_index(activation.values.argmax(), activation.values.shape)
    assert [i // 4 for i in hot] == [1, 2, 3] and activation.values.max() == 1.0
    above = activation.values > 0
    assert np.array_equal(masked.values[above], ct.values[above]) and (masked.values[~above] == -1024).all()
    assert 0 < above.sum() < above.size / 2


def volume_cases(cohort, n):
    view = VolumeView(size=16, augment="none")
    made = []
    for i in range(n):
        case = cohort[i % len(cohort)]
        cube = build_cube(case, view)
        cells = np.zeros((4, 4, 4))
        cells[i % 4, 1, 2] = 1.0
        found = compute_response(cells, 0.2, cube.grey.shape)
        made.append(
            GalleryCase(case.case_id, describe_facts(case), 0.7, "true call", True, found, None, cube, case.regions)
        )
    return made


def size_of(png):
    from io import BytesIO

    from PIL import Image

    return Image.open(BytesIO(png)).size


def test_galleries_of_volumes_grow_with_their_cases(spines, monkeypatch):
    # a case in detail has twelve drawings
    assert gallery.STRONGEST == 5 and gallery.COLLAGE == 25
    monkeypatch.setattr(gallery, "STRONGEST", 2)
    monkeypatch.setattr("sightline.plots.canvas.DPI", 40)
    cases = volume_cases(spines, 7)
    one, seven = draw_collage(HEAD, cases[:2]), draw_collage(HEAD, cases)
    assert size_of(one)[0] == size_of(seven)[0] and size_of(one)[1] < size_of(seven)[1]
    few, most = draw_strongest(HEAD, cases[:1]), draw_strongest(HEAD, cases)
    assert size_of(few)[1] < size_of(most)[1] and draw_strongest(HEAD, cases[:2]) == most
    assert draw_thumbnail(cases[0], 40).shape == (40, 40, 3)


def test_facts_of_a_vertebra_come_first(spines):
    assert describe_facts(spines[1]) == "L1, grade 2, wedge, fractured" and describe_facts(spines[0]) == "L1, intact"


# -- pictures --


def test_a_response_falls_on_the_same_place_of_the_source(tmp_path):
    cohort = make_cohort(tmp_path / "c", patients=2)
    case, view = cohort[0], View(size=32)
    seen = find_case_frame(case, view)
    cells = np.zeros((4, 4))
    cells[1, 2] = 1.0
    grey, grid = read_picture(case)
    assert grey.shape == (40, 48) == grid.shape
    found = compute_source_response(cells, 0.9, seen, grid)
    rows, columns = np.nonzero(found.above)
    middle = seen.map_points([(1.5 * 8, 2.5 * 8)])[0]
    assert np.abs([rows.mean() + 0.5, columns.mean() + 0.5] - middle).max() < 1.0
    small, coarse = read_picture(case, 20)
    assert small.shape == (17, 20) and coarse.map_points([(17.0, 20.0)])[0] == pytest.approx([40.0, 48.0])
    part, near, frame = close_up(grey, found, grid)
    assert part.shape == near.above.shape == frame.shape and near.above.sum() == found.above.sum()
    corner = frame.map_points([(0.0, 0.0)])[0]
    assert np.array_equal(part, grey[int(corner[0]) :, int(corner[1]) :][: part.shape[0], : part.shape[1]])
    write_overlay(tmp_path / "o.png", grey, found)
    from PIL import Image

    drawn = np.asarray(Image.open(tmp_path / "o.png")).astype(int)
    coloured = (drawn.max(axis=2) - drawn.min(axis=2)) > 12
    assert coloured[found.above].all() and not coloured[: rows.min() - 2].any()


def test_galleries_of_pictures(tmp_path):
    cohort = make_cohort(tmp_path / "c", patients=2)
    cases = []
    for case in cohort:
        grey, grid = read_picture(case)
        found = compute_source_response(np.eye(4), 0.5, find_case_frame(case, View(size=32)), grid)
        close = close_up(grey, found, grid)
        regions = list_outlines(case)
        cases.append(
            GalleryCase(
                case.case_id, "x", 0.4, "missed", False, found, stretch_contrast(grey), None, regions, grid, close
            )
        )
    assert size_of(draw_collage(HEAD, cases))[0] > 900 and size_of(draw_strongest(HEAD, cases))[1] > 1000


def test_a_dark_exposure_is_stretched():
    grey = np.zeros((10, 10), dtype=np.float32)
    grey[2:8, 2:8] = np.linspace(0.05, 0.2, 36).reshape(6, 6)
    assert stretch_contrast(grey).max() == 1.0 and stretch_contrast(np.zeros((4, 4), np.float32)).max() == 0.0


def test_boxes_are_outlined_only_where_nothing_closer_was_drawn(tmp_path):
    box = Box((1.0, 1.0), (3.0, 3.0), Tag("finding", "f"))
    ring = Polygon((((1.0, 1.0), (1.0, 3.0), (3.0, 2.0)),), Tag("finding", "f"))
    focus = Box((0.0, 0.0), (4.0, 4.0), Tag("focus"))
    case = Case("a", "a", "a", tmp_path / "a.png", "f", (box, ring, focus), facts={"hand": "1", "hip": "0"})
    assert list_outlines(case) == (ring,) and describe_facts(case) == "f, hand"
    assert list_outlines(Case("a", "a", "a", tmp_path / "a.png", "f", (box, focus))) == (box,)


def test_frames_of_close_ups_are_in_source_pixels():
    grid = Frame.of_image((40, 40)).resize((20, 20))
    found = compute_response(np.eye(2), 0.5, (20, 20))
    _, _, frame = close_up(np.zeros((20, 20), np.float32), found, grid)
    assert frame.scale == pytest.approx(2.0)
