"""Windows and boxes: two ways to say which part of an image is meant."""

import pytest
import torch

from sightline.errors import GeometryError
from sightline.structures.evidence import Evidence, bound_window, build_window
from sightline.structures.frame import Frame


def test_a_window_of_a_box_covers_it():
    box = torch.tensor([[0.4, 0.6, 0.2, 0.5]], dtype=torch.float64)
    window = build_window(box)
    corners = Frame.of_image((100, 200)).within(window[0].numpy(), (7, 9)).map_points([[0, 0], [7, 9]])
    assert corners.round(9).tolist() == [[30.0, 70.0], [50.0, 170.0]]
    torch.testing.assert_close(bound_window(window), box)


def test_the_box_of_a_turned_window_holds_its_corners():
    turn = torch.tensor([[[0.3, -0.4, 0.5], [0.4, 0.3, 0.2]]], dtype=torch.float64)
    row, column, height, width = bound_window(turn)[0].tolist()
    corners = torch.tensor([[u, v, 1.0] for u in (0, 1) for v in (0, 1)], dtype=torch.float64) @ turn[0].T
    assert corners[:, 0].min() == pytest.approx(row - height / 2)
    assert corners[:, 0].max() == pytest.approx(row + height / 2)
    assert corners[:, 1].min() == pytest.approx(column - width / 2)
    assert corners[:, 1].max() == pytest.approx(column + width / 2)


def test_a_window_that_is_none_is_refused():
    with pytest.raises(GeometryError, match="window"):
        Evidence(torch.zeros(2, 3), window=torch.zeros(2, 2, 2))
