"""The picture for a PACS: words in every one, map and box where they belong."""

import numpy as np
import pytest

from sightline.errors import GeometryError
from sightline.io.picture import resample_to_pixels
from sightline.plots.result_picture import LONG_SIDE, draw_result


def test_a_map_lies_on_its_pixels():
    """Against the slow way: the bilinear value at every pixel's centre, one by one."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 5)).astype(np.float32)
    turn = np.array([[3.0, 0.7, 2.5], [-0.4, 2.6, 1.0], [0, 0, 1]])
    laid, covered = resample_to_pixels(values, turn, (17, 15))
    for row in range(17):
        for column in range(15):
            r, c, _ = np.linalg.inv(turn) @ (row + 0.5, column + 0.5, 1.0)
            inside = 0 <= r < 4 and 0 <= c < 5
            assert covered[row, column] == inside
            if not inside:
                assert laid[row, column] == values.min()
                continue
            r, c = np.clip(r - 0.5, 0, 3), np.clip(c - 0.5, 0, 4)
            a, b = min(int(r), 2), min(int(c), 3)
            u, v = r - a, c - b
            expected = (
                values[a, b] * (1 - u) * (1 - v) + values[a + 1, b] * u * (1 - v)
                + values[a, b + 1] * (1 - u) * v + values[a + 1, b + 1] * u * v
            )  # fmt: skip
            assert laid[row, column] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (40, 60), (2140, 1760), (30, 20, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_words_stand_below_the_picture(shape, dtype):
    pixels = np.full(shape, np.iinfo(dtype).max // 4, dtype=dtype)
    drawn = draw_result(pixels, ["fracture 81 %", "a second line"])
    scale = min(1.0, LONG_SIDE / max(shape[:2]))
    height = round(shape[0] * scale)
    assert drawn.dtype == np.uint8 and drawn.shape[0] > height + 20
    assert (drawn[height:] > 150).any(), "no word in the band"
    # a narrow picture stands in the middle of its band
    middle = drawn[height // 2, (drawn.shape[1] - round(shape[1] * scale)) // 2]
    assert np.abs(middle.astype(int) - 63).max() <= 1


def test_heat_and_box_are_where_they_belong():
    pixels = np.full((400, 600), 40, dtype=np.uint8)
    heat = np.zeros((4, 6), dtype=np.float32)
    heat[1, 4] = 5.0
    drawn = draw_result(
        pixels, [], heat=heat, to_source=np.diag([100.0, 100.0, 1.0]), boxes=[((100.0, 400.0, 200.0, 500.0), "x")]
    ).astype(int)
    assert drawn[150, 450, 0] - drawn[150, 450, 2] > 80, "orange in the hot cell"
    assert np.abs(drawn[350, 50] - 40).max() <= 1, "clear in a cold one"
    assert drawn[100, 450, 2] > 200 and drawn[150, 400, 2] > 200, "the box's edges"


def test_a_flat_map_colours_nothing():
    pixels = np.full((40, 60), 40, dtype=np.uint8)
    flat = draw_result(pixels, [], heat=np.ones((2, 2), np.float32), to_source=np.diag([20.0, 30.0, 1.0]))
    assert np.array_equal(flat, draw_result(pixels, []))


def test_what_is_no_picture_is_refused():
    with pytest.raises(GeometryError):
        draw_result(np.zeros((4, 4)), [])
    with pytest.raises(GeometryError):
        draw_result(np.zeros((4, 4), np.uint8), [], heat=np.zeros((2, 2), np.float32))
