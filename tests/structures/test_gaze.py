"""Gaze as a region: its density against a histogram that is blurred, and what may not be a gaze."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from sightline.errors import GeometryError
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze, compute_sigma, merge_gazes, scale_density
from sightline.structures.tag import Tag

SHAPE = (96, 64)
SIGMA = 7.0


def gaze_at(places, dwell=None, start=None, **words):
    n = len(places)
    start = np.arange(n) / 60.0 if start is None else start
    return Gaze(np.array(places, float).reshape(-1, 2), start, np.full(n, 1.0) if dwell is None else dwell, **words)


def some_gaze(seed=0, n=40):
    """Places at centres of pixels, so that a histogram keeps them where they are; some lie off the image."""
    rng = np.random.default_rng(seed)
    return gaze_at(rng.integers((-8, -8), (104, 72), (n, 2)) + 0.5, rng.uniform(0.01, 0.5, n))


def blurred(gaze, weights, pad=60, shape=SHAPE):
    """Slow: one bin a pixel on a padded image, then scipy's blur."""
    image = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad))
    for (row, column), weight in zip(gaze.places, weights, strict=True):
        image[int(np.floor(row)) + pad, int(np.floor(column)) + pad] += weight
    return gaussian_filter(image, SIGMA, mode="constant", truncate=8.0), pad


def inner(image, pad, shape=SHAPE):
    return image[pad : pad + shape[0], pad : pad + shape[1]]


def close(a, b, share):
    assert np.abs(a - b).max() <= share * b.max(), np.abs(a - b).max() / b.max()


@pytest.mark.parametrize("weigh", ["count", "dwell"])
def test_density_is_a_blurred_histogram(weigh):
    gaze = some_gaze()
    weights = gaze.dwell_s if weigh == "dwell" else np.ones(len(gaze))
    slow = inner(*blurred(gaze, weights))
    close(gaze.density(Frame.of_image(SHAPE), SIGMA, weigh=weigh, cell="point"), slow, 1e-5)
    # a pixel's mean is a little flatter than its middle: variance 1/12 more
    close(gaze.density(Frame.of_image(SHAPE), SIGMA, weigh=weigh), slow, 2e-3)


def test_a_coarse_cell_holds_the_mean_of_its_pixels():
    gaze = some_gaze(1)
    slow = inner(*blurred(gaze, gaze.dwell_s)).reshape(12, 8, 16, 4).mean(axis=(1, 3))
    close(gaze.density(Frame.of_image(SHAPE).resize((12, 16)), SIGMA), slow, 2e-3)


def test_a_point_of_a_coarse_cell_is_its_centre():
    gaze = some_gaze(2)
    # cells of odd size have a pixel in their middle
    slow = inner(*blurred(gaze, gaze.dwell_s), shape=(96, 63))[1::3, 4::9]
    frame = Frame.of_image((96, 63)).resize((32, 7))
    close(gaze.density(frame, SIGMA, cell="point"), slow, 1e-5)


def test_flipped_cropped_and_padded():
    gaze = some_gaze(3)
    image, pad = blurred(gaze, gaze.dwell_s)
    whole = inner(image, pad)
    frame = Frame.of_image(SHAPE)
    close(gaze.density(frame.flip(1), SIGMA, cell="point"), whole[:, ::-1], 1e-5)
    close(gaze.density(frame.flip(0).flip(1), SIGMA, cell="point"), whole[::-1, ::-1], 1e-5)
    close(gaze.density(frame.crop((10, 20), (30, 25)), SIGMA, cell="point"), whole[10:40, 20:45], 1e-5)
    # beside the picture the density goes on: the eyes were there
    near = image[pad - 16 : pad + 112, pad - 32 : pad + 96]
    close(gaze.density(frame.crop((-16, -32), (128, 128)), SIGMA, cell="point"), near, 1e-5)


def test_turned_by_a_quarter():
    gaze = some_gaze(4)
    shape = (80, 80)
    image, pad = blurred(gaze, gaze.dwell_s, shape=shape)
    whole = inner(image, pad, shape)
    centres = np.stack(np.meshgrid(np.arange(80), np.arange(80), indexing="ij"), axis=-1) + 0.5
    for angle in (90.0, -90.0, 180.0):
        frame = Frame.of_image(shape).rotate(angle)
        # the picture's pixel under each cell says what its value is
        rows, columns = np.floor(frame.map_points(centres) + 1e-9).astype(int).transpose(2, 0, 1)
        close(gaze.density(frame, SIGMA, cell="point"), whole[rows, columns], 1e-5)


def test_turned_by_any_angle_and_scaled():
    gaze = some_gaze(5)
    frame = Frame.of_image(SHAPE).resize((48, 32)).rotate(27.0)
    drawn = gaze.density(frame, SIGMA, cell="point")
    for cell in ((0, 0), (20, 13), (47, 31), (24, 5)):
        at = frame.map_points(np.array(cell) + 0.5)
        squares = ((gaze.places - at) ** 2).sum(axis=1)
        slow = (gaze.dwell_s * np.exp(-squares / (2 * SIGMA**2))).sum() / (2 * np.pi * SIGMA**2)
        assert drawn[cell] == pytest.approx(slow, rel=1e-4, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(10, 80), st.floats(10, 50), st.floats(0.3, 20), st.floats(-180, 180), st.integers(4, 60), st.booleans()
)
def test_nothing_is_lost_or_made(row, column, sigma, angle, cells, mirrored):
    """The mean density times the source area is all the time that was looked, where the frame holds all of it."""
    gaze = gaze_at([(row, column)], [2.5])
    frame = Frame.of_image((512, 512)).crop((-208, -224), (512, 512)).resize((cells, cells)).rotate(angle)
    frame = frame.flip(0) if mirrored else frame
    total = float(gaze.density(frame, sigma).sum(dtype=np.float64)) * (512 / cells) ** 2
    assert total == pytest.approx(2.5, rel=1e-4)


def test_one_place_has_the_height_of_a_gaussian():
    drawn = gaze_at([(48.5, 32.5)], [3.0]).density(Frame.of_image(SHAPE), SIGMA, cell="point")
    assert drawn.max() == drawn[48, 32] == pytest.approx(3.0 / (2 * np.pi * SIGMA**2), rel=1e-6)
    assert drawn.dtype == np.float32


def test_nothing_looked_at():
    empty = gaze_at(np.zeros((0, 2)))
    assert not empty.density(Frame.of_image(SHAPE)).any()
    assert not empty.draw(Frame.of_image(SHAPE).resize((3, 4))).any()
    assert empty.draw(Frame.of_image(SHAPE)).shape == SHAPE
    assert not scale_density(np.zeros((2, 2), np.float32)).any()


def test_drawn_its_maximum_is_one():
    drawn = some_gaze(6).draw(Frame.of_image(SHAPE).resize((24, 16)))
    assert drawn.max() == 1.0 and drawn.min() >= 0.0
    # far away nothing is left, and nothing is not a number
    far = gaze_at([(1e7, 1e7)]).draw(Frame.of_image(SHAPE))
    assert np.isfinite(far).all() and not far.any()


@pytest.mark.parametrize(
    ("kernel", "sigma"), [(200, 30.5), (500, 75.5), (600, 90.5), (800, 120.5), (1000, 150.5), (501, 75.5), (1, 0.5)]
)
def test_sigma_of_an_opencv_kernel(kernel, sigma):
    # check 10: the code makes the size odd, then 0.3 ((k - 1) / 2 - 1) + 0.8
    assert compute_sigma(kernel) == pytest.approx(sigma)


def test_a_kernel_has_a_pixel():
    with pytest.raises(GeometryError, match="at least one pixel"):
        compute_sigma(0)


def test_between_and_inside():
    gaze = gaze_at([(1, 1), (2, 2), (3, 3), (99, 3)], [0.1, 0.2, 0.3, 0.4], [0.0, 1.0, 2.0, 3.0], px_per_deg=30.0)
    middle = gaze.between(1.0, 3.0)
    assert middle.places.tolist() == [[2, 2], [3, 3]] and middle.dwell_s.tolist() == [0.2, 0.3]
    assert middle.px_per_deg == 30.0
    pieces = [gaze.between(a, a + 1.0) for a in range(4)]
    assert sum(map(len, pieces)) == len(gaze)
    assert len(gaze.inside((4, 4))) == 3
    assert len(gaze_at([(0, 0), (4, 3)]).inside((4, 4))) == 1


def test_merged_is_in_order_and_says_who():
    a = gaze_at([(1, 1), (3, 3)], start=[0.0, 2.0], tag=Tag("gaze", None, "a"))
    b = gaze_at([(2, 2)], start=[1.0], tag=Tag("gaze", None, "b"))
    both = merge_gazes([a, b])
    assert both.places.tolist() == [[1, 1], [2, 2], [3, 3]] and both.start_s.tolist() == [0.0, 1.0, 2.0]
    assert both.tag.reader == "a+b"
    frame = Frame.of_image(SHAPE)
    assert np.allclose(both.density(frame, 5.0), a.density(frame, 5.0) + b.density(frame, 5.0), atol=1e-8)
    assert merge_gazes([a]) == a
    with pytest.raises(GeometryError, match="Cannot merge"):
        merge_gazes([])
    with pytest.raises(GeometryError, match="Cannot merge"):
        merge_gazes([a, gaze_at([(1, 1)], kind="fixations")])


def test_equal_by_value():
    assert some_gaze() == some_gaze() and hash(some_gaze()) == hash(some_gaze())
    assert some_gaze() != some_gaze(1)
    assert some_gaze() != gaze_at(some_gaze().places, some_gaze().dwell_s, spread_px=3.0)
    assert some_gaze() != "gaze"


def test_numbers_are_taken_over_and_kept():
    places = np.array([[1.0, 2.0]])
    gaze = Gaze(places, [0.0], [1.0])
    places[:] = 9.0
    assert gaze.places.tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="read-only"):
        gaze.places[0] = 0.0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([[1.0, 2.0, 3.0]], [0.0], [1.0]), "places"),
        (([[1.0, 2.0]], [0.0, 1.0], [1.0]), "start_s"),
        (([[1.0, np.nan]], [0.0], [1.0]), "finite"),
        (([[1.0, 2.0]], [np.inf], [1.0]), "finite"),
        (([[1.0, 2.0]], [0.0], [-1.0]), "backwards"),
        (([[1.0, 2.0]] * 2, [1.0, 0.0], [1.0, 1.0]), "backwards"),
        (([[1.0, 2.0]], [0.0], [1.0], "samples", 0.0), "px_per_deg"),
        (([[1.0, 2.0]], [0.0], [1.0], "samples", None, np.nan), "spread_px"),
    ],
)
def test_what_is_no_gaze(arguments, match):
    with pytest.raises(GeometryError, match=match):
        Gaze(*arguments)


def test_it_is_drawn_on_two_axes_with_a_spread():
    with pytest.raises(GeometryError, match="two axes"):
        some_gaze().density(Frame.of_image((4, 4, 4)))
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(GeometryError, match="positive sigma"):
            some_gaze().density(Frame.of_image(SHAPE), sigma)
