"""Frame: where a grid lies in its source image, through every geometric step."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import GeometryError
from sightline.structures.frame import Frame

SIDES = st.integers(1, 60)
SHAPES = st.tuples(SIDES, SIDES)


@st.composite
def steps(draw):
    """A geometric step as (apply to a frame, map one new-grid point to the old grid): the second by hand."""
    kind = draw(st.sampled_from(["crop", "pad", "square", "resize", "flip", "rotate"]))
    if kind == "crop":
        start, shape = draw(st.tuples(*[st.floats(-20, 20)] * 2)), draw(SHAPES)
        return lambda f: f.crop(start, shape), lambda p, f: (p[0] + start[0], p[1] + start[1])
    if kind == "pad":
        before, after = draw(st.tuples(*[st.integers(0, 9)] * 2)), draw(st.tuples(*[st.integers(0, 9)] * 2))
        return lambda f: f.pad(before, after), lambda p, f: (p[0] - before[0], p[1] - before[1])
    if kind == "square":

        def back(p, f):
            longest = max(f.shape)
            return tuple(x - (longest - n) // 2 for x, n in zip(p, f.shape, strict=True))

        return lambda f: f.pad_to_square(), back
    if kind == "resize":
        shape = draw(SHAPES)
        return (
            lambda f: f.resize(shape),
            lambda p, f: tuple(x * old / new for x, old, new in zip(p, f.shape, shape, strict=True)),
        )
    if kind == "flip":
        axis = draw(st.integers(0, 1))
        return lambda f: f.flip(axis), lambda p, f: tuple(f.shape[k] - x if k == axis else x for k, x in enumerate(p))
    angle = draw(st.floats(-180, 180))

    def unturn(p, f):
        # content turns by `angle` from rows towards columns, so the new grid's points turn back
        r, c = p[0] - f.shape[0] / 2, p[1] - f.shape[1] / 2
        t = math.radians(angle)
        return (
            f.shape[0] / 2 + r * math.cos(t) + c * math.sin(t),
            f.shape[1] / 2 - r * math.sin(t) + c * math.cos(t),
        )

    return lambda f: f.rotate(angle), unturn


@given(SHAPES, st.lists(steps(), max_size=5), st.lists(st.tuples(*[st.floats(-50, 50)] * 2), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_composed_steps_map_as_the_steps_one_by_one(shape, chain, points):
    frames = [Frame.of_image(shape, (0.2, 0.3))]
    for apply, _ in chain:
        frames.append(apply(frames[-1]))
    mapped = frames[-1].map_points(points)
    for point, got in zip(points, mapped, strict=True):
        for (_, back), frame in zip(reversed(chain), reversed(frames[:-1]), strict=True):
            point = back(point, frame)
        assert np.allclose(got, point, rtol=1e-9, atol=1e-6 * max(1.0, *map(abs, point)))
    size = max(1.0, float(np.abs(mapped).max()))
    assert np.allclose(frames[-1].unmap_points(mapped), points, atol=1e-6 * size / min(1.0, frames[-1].scale))
    assert frames[-1].spacing_mm == (0.2, 0.3)


def test_known_places():
    frame = Frame.of_image((100, 60)).pad_to_square().resize((50, 50))
    assert frame.shape == (50, 50) and frame.scale == 2.0
    # the image's left edge stands at padded column 20, which is column 10 of the half-size grid
    assert np.allclose(frame.unmap_points([[0, 0], [100, 60]]), [[0, 10], [50, 40]])
    # a quarter turn takes the middle of the top edge (first axis) to the middle of the right edge or the left one
    turned = Frame.of_image((10, 10)).rotate(90.0)
    assert np.allclose(turned.unmap_points([[10, 5]]), [[5, 10]])
    assert np.allclose(turned.unmap_points([[5, 10]]), [[0, 5]])


@given(SHAPES, st.integers(0, 1))
def test_two_flips_and_two_half_turns_are_nothing(shape, axis):
    frame = Frame.of_image(shape)
    assert np.allclose(frame.flip(axis).flip(axis).to_source, frame.to_source)
    assert np.allclose(frame.rotate(180).rotate(180).to_source, frame.to_source, atol=1e-9)
    assert np.allclose(frame.rotate(180).to_source, frame.flip(0).flip(1).to_source, atol=1e-9)


def test_three_axes():
    frame = Frame.of_image((4, 6, 8), (3.0, 1.0, 1.0)).flip(0).crop((1, 2, 3), (2, 2, 2)).resize((4, 4, 4))
    assert np.allclose(frame.map_points([0, 0, 0]), [3, 2, 3])
    assert np.allclose(frame.map_points([4, 4, 4]), [1, 4, 5])


def test_frames_compare_by_value_and_cannot_be_changed():
    a, b = Frame.of_image((3, 4)).flip(1), Frame.of_image((3, 4)).flip(1)
    assert a == b and hash(a) == hash(b) and a != Frame.of_image((3, 4)) and a != "frame"
    with pytest.raises(ValueError, match="read-only"):
        a.to_source[0, 0] = 5.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Frame.of_image((0, 4)), "at least one pixel"),
        (lambda: Frame((2, 2), np.eye(4)), "3 x 3 affine"),
        (lambda: Frame((2, 2), np.zeros((3, 3))), "invertible"),
        (lambda: Frame((2, 2), np.full((3, 3), np.nan)), "finite"),
        (lambda: Frame.of_image((2, 2), (1.0, 0.0)), "positive lengths"),
        (lambda: Frame.of_image((2, 2), (1.0,)), "2 positive lengths"),
        (lambda: Frame.of_image((2, 2)).map_points([1, 2, 3]), "need 2 coordinates"),
        (lambda: Frame.of_image((2, 2)).resize((0, 2)), "at least one pixel"),
    ],
)
def test_frames_that_cannot_be_are_refused(make, message):
    with pytest.raises(GeometryError, match=message):
        make()


def test_a_grid_within_a_window_covers_that_part():
    frame = Frame.of_image((100, 200)).crop((10, 20), (50, 100)).resize((25, 50))
    whole = frame.within([[1, 0, 0], [0, 1, 0]], (25, 50))
    assert whole == frame
    # the lower right quarter, on a grid of 5 x 5
    quarter = frame.within([[0.5, 0, 0.5], [0, 0.5, 0.5]], (5, 5))
    np.testing.assert_allclose(quarter.map_points([[0, 0], [5, 5]]), [[35, 70], [60, 120]])


def test_a_turned_window_keeps_its_place():
    frame = Frame.of_image((100, 100))
    # a quarter turn: the window's rows run along the image's columns
    turned = frame.within([[0.0, 0.5, 0.25], [-0.5, 0.0, 0.75]], (10, 10))
    np.testing.assert_allclose(turned.map_points([[0, 0], [10, 0], [0, 10]]), [[25, 75], [25, 25], [75, 75]])
