"""Boxes and points of readers whose habits are known are joined, and the habits found."""

import numpy as np
import pytest

from sightline.errors import GeometryError
from sightline.metrics.agreement.consensus import compute_box_likeness, find_consensus, join_marks

SENSITIVITY = {"ada": 0.95, "ben": 0.8, "cyd": 0.6}
SHIFT = {"ada": (0.0, 0.0), "ben": (3.0, -1.0), "cyd": (-3.0, 1.0)}


def simulated(pictures, boxes, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(pictures):
        objects = [np.array([60.0 + 150 * i, 80.0]) + rng.uniform(-10, 10, 2) for i in range(2)]
        picture = {}
        for name, p in SENSITIVITY.items():
            marks = []
            for place in objects:
                if rng.random() < p:
                    middle = place + SHIFT[name] + rng.normal(0, 1.0, 2)
                    marks.append([*(middle - 15), *(middle + 15)] if boxes else middle)
            if rng.random() < 0.1:
                middle = np.array([400.0, rng.uniform(0, 400)])
                marks.append([*(middle - 15), *(middle + 15)] if boxes else middle)
            picture[name] = np.array(marks).reshape(-1, 4 if boxes else 2)
        made.append(picture)
    return made


@pytest.mark.parametrize("boxes", [True, False])
def test_sensitivity_and_shift_are_found(boxes):
    objects, quality = find_consensus(simulated(400, boxes), boxes=boxes, near=0.3 if boxes else 12.0)
    for name in SENSITIVITY:
        assert quality[name].sensitivity == pytest.approx(SENSITIVITY[name], abs=0.05)
        assert quality[name].shift == pytest.approx(SHIFT[name], abs=0.2)
        assert quality[name].false_marks < 0.35
    certain = [o for each in objects for o in each if o.support == 1.0]
    assert len(certain) > 200


def test_an_object_has_at_most_one_mark_of_a_reader():
    found = join_marks({"a": [[0, 0, 10, 10], [1, 1, 11, 11]], "b": [[0, 0, 10, 10]]}, boxes=True, near=0.5)
    assert sorted(map(sorted, (o.items() for o in found))) == [[("a", 0), ("b", 0)], [("a", 1)]]


def test_overlap_of_boxes_by_hand():
    a = np.array([[0.0, 0.0, 2.0, 2.0]])
    b = np.array([[1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0], [0.0, 0.0, 2.0, 2.0]])
    assert compute_box_likeness(a, b)[0] == pytest.approx([1 / 7, 0.0, 1.0])


def test_one_reader_alone_has_no_sensitivity():
    _, quality = find_consensus([{"a": [[0.0, 0.0, 5.0, 5.0]]}])
    assert np.isnan(quality["a"].sensitivity)
    with pytest.raises(GeometryError):
        find_consensus([])
