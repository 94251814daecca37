import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import GeometryError
from sightline.metrics.boxes.best_box import (
    IOU_THRESHOLDS,
    BoxScore,
    compute_share_above,
    expect_chance_score,
    integrate_places,
    score_box,
)
from sightline.metrics.boxes.geometry import (
    check_boxes,
    clip_boxes,
    compute_area,
    compute_centre_distance,
    compute_intersection,
    compute_truth_coverage,
    convert_fractions,
    iobb,
    iou,
    is_centre_inside,
    to_fractions,
)

pixel_boxes = st.lists(
    st.tuples(*(st.integers(0, 9) for _ in range(4))).map(
        lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
    ),
    min_size=1,
    max_size=4,
)


def drawn(box):
    image = np.zeros((10, 10), dtype=bool)
    image[box[0] : box[2], box[1] : box[3]] = True
    return image


@settings(max_examples=60, deadline=None)
@given(pixel_boxes, pixel_boxes)
def test_shares_are_those_of_drawn_pixels(a, b):
    for i, first in enumerate(map(drawn, a)):
        for j, second in enumerate(map(drawn, b)):
            common, either = (first & second).sum(), (first | second).sum()
            assert compute_intersection(a, b)[i, j] == common
            assert iou(a, b)[i, j] == pytest.approx(common / either if either else 0.0)
            assert iobb(a, b)[i, j] == pytest.approx(common / first.sum() if first.any() else 0.0)
            assert compute_truth_coverage(a, b)[i, j] == pytest.approx(common / second.sum() if second.any() else 0.0)


def test_known_values():
    a, b = [[0.0, 0, 2, 4], [0, 0, 1, 1]], [[1.0, 2, 3, 6]]
    np.testing.assert_allclose(iou(a, b), [[2 / 14], [0]])
    np.testing.assert_allclose(compute_area(a), [8, 1])
    np.testing.assert_allclose(compute_centre_distance(a, b), [[math.hypot(1, 2)], [math.hypot(1.5, 3.5)]])
    np.testing.assert_allclose(compute_centre_distance(a, b, (0.5, 0.1))[0, 0], math.hypot(0.5, 0.2))
    # a centre on the start of a box is inside, one on its stop is not
    assert is_centre_inside([[0, 0, 2, 4]], [[1, 2, 3, 6], [0, 0, 1, 4], [0, 0, 2, 4]]).tolist() == [
        [True, False, True]
    ]


def test_boxes_without_area_score_zero_and_nothing_is_nan():
    line = [[1.0, 1, 1, 5]]
    assert (
        iou(line, line).tolist() == iobb(line, line).tolist() == compute_truth_coverage(line, line).tolist() == [[0.0]]
    )
    assert not is_centre_inside(line, line).any()
    # a point in the middle of a finding, as what is left of a box beside the image
    point, finding = np.array([[5.0, 5, 5, 5]]), np.array([[0.0, 0, 9, 9]])
    assert not is_centre_inside(point, finding).any() and score_box(point[0], finding).centre_inside == 0.0
    assert iou(np.zeros((0, 4)), line).shape == (0, 1) and check_boxes([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, math.nan, 1]], "finite"),
        ([[0, 0, math.inf, 1]], "finite"),
        ([[0, 0, 1, 1], [3, 0, 2, 1]], "Row 1 of the boxes"),
        ([0, 0, 1, 1], r"shape \(4,\)"),
        ([[0, 0, 1]], r"shape \(1, 3\)"),
    ],
)
def test_what_is_no_box_is_refused(boxes, message):
    with pytest.raises(GeometryError, match=message):
        iou(boxes, [[0, 0, 1, 1]])


def test_clipping_and_fractions():
    assert clip_boxes([[-3, 2, 5, 30], [20, 20, 30, 30]], (10, 20)).tolist() == [[0, 2, 5, 20], [10, 20, 10, 20]]
    boxes = np.array([[1.0, 2, 5, 20]])
    np.testing.assert_allclose(to_fractions(boxes, (10, 20)), [[0.1, 0.1, 0.5, 1.0]])
    np.testing.assert_allclose(convert_fractions(to_fractions(boxes, (10, 20)), (10, 20)), boxes)


def test_the_best_box_takes_the_finding_that_suits_it():
    truth = np.array([[0.0, 0, 10, 10], [40, 40, 60, 60]])
    s = score_box(np.array([45.0, 45, 55, 55]), truth, (0.5, 0.5))
    assert (s.iou, s.iobb, s.covered, s.centre_inside) == pytest.approx((0.25, 1.0, 0.25, 1.0))
    assert (s.distance_px, s.distance_mm) == (0.0, 0.0)
    # strictly above: 0.25 itself is not
    assert s.above == (1.0, 0.0, 0.0, 0.0, 0.0) and s.printed_map == pytest.approx(0.2)
    assert score_box(None, truth) == BoxScore() and BoxScore().printed_map == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_chance_is_the_mean_over_a_dense_grid_of_places(seed):
    random = np.random.default_rng(seed)
    shape, t = (90, 120), 1 + seed % 3
    start = random.uniform(0, (50, 70), (t, 2))
    truth = np.concatenate([start, start + random.uniform(5, 40, (t, 2))], axis=1)
    box = np.array([10.0, 10, 10 + random.uniform(5, 60), 10 + random.uniform(5, 80)])
    sides = box[2:] - box[:2]
    axes = [(np.arange(500) + 0.5) / 500 * (shape[i] - sides[i]) for i in range(2)]
    corner = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    moved = np.concatenate([corner, corner + sides], axis=1)
    found = expect_chance_score(box, truth, shape, (0.2, 0.3))
    best = iou(moved, truth).max(axis=1)
    assert found.iou == pytest.approx(best.mean(), abs=3e-4)
    assert found.iobb == pytest.approx(iobb(moved, truth).max(axis=1).mean(), abs=3e-4)
    assert found.covered == pytest.approx(compute_truth_coverage(moved, truth).max(axis=1).mean(), abs=1e-3)
    assert found.centre_inside == pytest.approx(is_centre_inside(moved, truth).any(axis=1).mean(), abs=3e-3)
    assert found.distance_mm == pytest.approx(
        compute_centre_distance(moved, truth, (0.2, 0.3)).min(axis=1).mean(), rel=1e-3
    )
    for threshold, share in zip(IOU_THRESHOLDS, found.above, strict=True):
        assert share == pytest.approx((best > threshold).mean(), abs=2e-3)


def test_chance_of_one_finding_has_a_closed_form():
    # box and finding of 10 x 10 in 100 x 100, the finding far from the edge: pointing game = 100 / 90^2
    truth = np.array([[40.0, 50, 50, 60]])
    found = expect_chance_score(np.array([0.0, 0, 10, 10]), truth, (100, 100))
    assert found.centre_inside == pytest.approx(100 / 90**2, rel=1e-9)
    assert [found.iobb, found.covered] == pytest.approx([100 * 100 / 90**2 / 100] * 2, rel=1e-9)
    # IoU > 0.25 asks for an overlap of more than 40 of 100: area of (10 - |y|)(10 - |x|) > 40
    expected = 4 * (10 * 6 - 40 * math.log(10 / 4)) / 90**2
    assert found.above[1] == pytest.approx(expected, rel=1e-4)


def test_a_box_as_large_as_the_image_has_one_place_and_its_own_chance():
    truth = np.array([[2.0, 3, 12, 43]])
    whole = np.array([0.0, 0, 20, 50])
    assert expect_chance_score(whole, truth, (20, 50)) == score_box(whole, truth)
    boxes, weights = integrate_places((20.0, 10.0), truth, (20, 50))
    assert weights.sum() == pytest.approx(1) and (boxes[:, 0] == 0).all() and boxes[:, 3].max() <= 50
    assert compute_share_above(0.9, (1.0, 1.0), truth, (20, 50)) == 0.0
