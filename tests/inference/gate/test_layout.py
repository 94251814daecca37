"""The layout check: its description by hand, which way up pictures are, and cohorts that lie in all directions."""

import json
import math

import numpy as np
import pytest

from sightline.errors import RunError
from sightline.inference.gate.layout import (
    CELLS,
    DIRECTIONS,
    LENGTH,
    MEANS,
    SIDE,
    check_layout,
    describe_layout,
    fit_layout,
    read_layout_limits,
    reduce_picture,
    turn_by,
)
from sightline.io.picture import Picture
from sightline.structures.frame import Frame


def limbs(n, seed):
    """Pictures [n, 64, 64] of a limb that comes from below and ends in a bright knob, left or right of the middle."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    found = []
    for _ in range(n):
        middle, tip = 32 + rng.normal(0, 4), 18 + rng.normal(0, 3)
        shaft = 0.5 * (np.abs(columns - middle) < 6 + rng.normal(0, 1)) * (rows > tip)
        knob = 0.4 * (np.hypot(rows - tip, columns - middle) < 10)
        found.append(shaft + knob + 0.02 * rng.standard_normal((SIDE, SIDE)))
    return np.array(found)


@pytest.fixture(scope="module")
def limits():
    return fit_layout(limbs(24, 0), limbs(12, 1))


def picture(reduced):
    pixels = np.kron((np.clip(reduced, 0, 1) * 65535).astype(np.uint16), np.ones((3, 4), np.uint16))
    return Picture(pixels, Frame.of_image(pixels.shape))


def test_a_description_by_an_obvious_restatement():
    grey = np.random.default_rng(3).random((SIDE, SIDE))
    found = describe_layout(grey)[0]
    assert found.shape == (LENGTH,)
    blocks = np.array([[grey[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean() for c in range(MEANS)] for r in range(MEANS)])
    assert found[: MEANS**2] * MEANS == pytest.approx((blocks.ravel() - blocks.mean()) / blocks.std(), abs=1e-4)
    cells = np.zeros((CELLS, CELLS, DIRECTIONS))
    for r in range(SIDE):
        for c in range(SIDE):
            down = grey[r + 1, c] - grey[r - 1, c] if 0 < r < SIDE - 1 else 0.0
            right = grey[r, c + 1] - grey[r, c - 1] if 0 < c < SIDE - 1 else 0.0
            turn = math.degrees(math.atan2(down, right)) % 360 / 45
            first, share = int(turn) % 8, turn - int(turn)
            cell = cells[r * CELLS // SIDE, c * CELLS // SIDE]
            cell[first] += math.hypot(down, right) * (1 - share)
            cell[(first + 1) % 8] += math.hypot(down, right) * share
    lengths = np.sqrt((cells**2).sum(axis=2, keepdims=True))
    expected = cells / (lengths + 0.05 * lengths.mean())
    assert found[MEANS**2 :] * CELLS == pytest.approx(expected.ravel(), abs=1e-6)


def test_turned_pictures_are_refused_and_the_other_side_is_not(limits):
    new = limbs(20, 2)
    assert set(limits.refused.values()) == {1.0}
    for good in (new, new[:, :, ::-1]):
        assert not any(check_layout(picture(one), limits) for one in good)
    for wrong in (turn_by(new, 90), turn_by(new, 180), turn_by(new, 270), new[:, ::-1]):
        assert all("turned" in check_layout(picture(one), limits) for one in wrong)
    assert check_layout(picture(new[0]), None) == ""


def test_a_cohort_in_all_directions_gets_no_such_check():
    def anyhow(n, seed):
        return np.array([np.rot90(one, i % 4) for i, one in enumerate(limbs(n, seed))])

    with pytest.raises(RunError, match="all directions"):
        fit_layout(anyhow(24, 0), anyhow(12, 1))
    with pytest.raises(RunError, match="needs 20 and 10"):
        fit_layout(limbs(19, 0), limbs(12, 1))


def test_it_is_the_same_after_it_was_written(limits):
    plain = json.loads(json.dumps(limits.to_plain()))
    again = read_layout_limits(plain)
    one = picture(limbs(1, 5)[0])
    assert again.score(one) == limits.score(one) and again.refused == limits.refused
    assert read_layout_limits({}) is None
    for damage in ({"weights": 1}, {"limit": 1e9}, {"refused": []}, {"offsets": plain["weights"]}):
        with pytest.raises(RunError, match="layout is damaged"):
            read_layout_limits(plain | damage)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (3, 2, 3), (4000, 70)])
def test_pictures_of_any_size_have_a_description(limits, shape):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    one = Picture(pixels, Frame.of_image(shape[:2]))
    assert reduce_picture(one).shape == (SIDE, SIDE) and np.isfinite(limits.score(one))


def test_reduction_is_the_mean_of_areas():
    pixels = np.random.default_rng(0).integers(0, 65535, (128, 192), dtype=np.uint16)
    expected = pixels.reshape(64, 2, 64, 3).mean(axis=(1, 3)) / 65535
    assert reduce_picture(Picture(pixels, Frame.of_image((128, 192)))) == pytest.approx(expected, abs=1e-6)
