"""Masks and lines: by hand, and against the slow restatement."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist, directed_hausdorff

from sightline.errors import GeometryError
from sightline.metrics.agreement.masks import dice, find_rim, iou, measure_line_distance, measure_rim_distances

MASKS = arrays(bool, (7, 9))


def slow_rim(mask):
    rows, columns = mask.shape
    out = np.zeros_like(mask)
    for r in range(rows):
        for c in range(columns):
            near = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
            out[r, c] = mask[r, c] and any(not (0 <= i < rows and 0 <= j < columns and mask[i, j]) for i, j in near)
    return out


@settings(max_examples=80, deadline=None)
@given(MASKS, MASKS)
def test_rims_and_distances_equal_brute_force(a, b):
    assert (find_rim(a) == slow_rim(a)).all()
    found = measure_rim_distances(a, b, (0.5, 2.0))
    if not (a.any() and b.any()):
        assert np.isnan([found.hausdorff, found.hausdorff_95, found.mean]).all()
        return
    p, q = (np.argwhere(slow_rim(x)) * [0.5, 2.0] for x in (a, b))
    away = cdist(p, q)
    there, back = away.min(axis=1), away.min(axis=0)
    assert found.hausdorff == pytest.approx(max(directed_hausdorff(p, q)[0], directed_hausdorff(q, p)[0]))
    assert found.hausdorff_95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert found.mean == pytest.approx(np.concatenate([there, back]).mean())


def test_overlap_by_hand():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert (dice(a, b), iou(a, b)) == (1.0, 1.0)
    a[:2] = True
    assert (dice(a, b), iou(a, b)) == (0.0, 0.0)
    b[1:3] = True
    assert dice(a, b) == pytest.approx(0.5)
    assert iou(a, b) == pytest.approx(1 / 3)


def test_three_axes():
    a, b = np.zeros((5, 6, 7), bool), np.zeros((5, 6, 7), bool)
    a[1, 1, 1], b[4, 1, 1] = True, True
    assert measure_rim_distances(a, b, (2.0, 1.0, 1.0)).hausdorff == 6.0


def test_lines_by_hand():
    first, second = [[0.0, 0.0], [0.0, 10.0]], [[3.0, 0.0], [3.0, 10.0]]
    assert measure_line_distance(first, second) == (pytest.approx(3.0), 1.0)
    assert measure_line_distance(first, second, near=2.9)[1] == 0.0
    mean, beside = measure_line_distance(first, [[0.0, 0.0], [0.0, 5.0]], near=0.0)
    assert mean == pytest.approx(sum(range(1, 6)) / 17)
    assert beside == pytest.approx(12 / 17)


def test_other_shapes_are_refused():
    with pytest.raises(GeometryError):
        dice(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(GeometryError):
        measure_rim_distances(np.ones((2, 2)), np.ones((2, 2)), (1.0,))
