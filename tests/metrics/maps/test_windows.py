import math

import numpy as np
import pytest

from sightline.errors import GeometryError
from sightline.metrics.maps.windows import measure_window_displacement


def window(angle_deg=0.0, scale=1.0, shift=(0.0, 0.0), mirrored=False):
    """Rotated about the centre of the image, scaled, then shifted."""
    a = math.radians(angle_deg)
    linear = scale * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    linear = linear * ([1, -1] if mirrored else [1, 1])
    start = np.array([0.5, 0.5]) + shift - linear @ [0.5, 0.5]
    return np.concatenate([linear, start[:, None]], axis=1)


def test_an_unmoved_window_has_not_moved():
    d = measure_window_displacement([[[1, 0, 0], [0, 1, 0]]])
    assert (d.centre_shift[0], d.scale[0], d.rotation_deg[0], d.mirrored[0]) == (0.0, 1.0, 0.0, False)
    assert d.summary()["window scale"] == (1.0, None)


@pytest.mark.parametrize("angle", [-170.0, -30.0, 0.0, 12.5, 90.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_shift_scale_and_rotation_come_back(angle, mirrored):
    d = measure_window_displacement(window(angle, 0.4, (0.3, -0.4), mirrored)[None])
    assert d.row_shift[0] == pytest.approx(0.3) and d.column_shift[0] == pytest.approx(-0.4)
    assert d.centre_shift[0] == pytest.approx(0.5) and d.scale[0] == pytest.approx(0.4)
    assert d.rotation_deg[0] == pytest.approx(angle) and d.mirrored[0] == mirrored


def test_rotation_is_counter_clockwise_on_the_screen():
    # the map's downward axis points to the right of the image after a quarter turn counter-clockwise
    quarter = window(90.0)
    np.testing.assert_allclose(quarter[:, :2] @ [1, 0], [0, 1], atol=1e-12)


def test_a_stretched_window_has_the_scale_of_its_area_and_a_flat_one_none():
    d = measure_window_displacement([[[0.5, 0, 0], [0, 0.25, 0]], [[0, 0, 0.5], [0, 0, 0.5]]])
    assert d.scale.tolist() == pytest.approx([math.sqrt(0.125), 0.0]) and d.rotation_deg.tolist() == [0, 0]
    # corners of the first: 0..0.5 and 0..0.25, so its centre lies at (0.25, 0.125)
    assert d.centre_shift[0] == pytest.approx(math.hypot(0.25, 0.375))


def test_summaries_are_mean_and_deviation_over_images_and_carry_intervals_over_patients():
    random = np.random.default_rng(0)
    windows = [window(*random.uniform(-9, 9, 1), random.uniform(0.5, 0.9), random.normal(0, 0.1, 2)) for _ in range(30)]
    d = measure_window_displacement(windows)
    mean, spread = d.summary()["centre shift (fraction)"]
    assert mean == pytest.approx(d.centre_shift.mean()) and spread == pytest.approx(d.centre_shift.std(ddof=1))
    found = {e.name: e for e in d.estimates([f"p{i // 2}" for i in range(30)])}
    scale = found["window scale"]
    assert scale.value == pytest.approx(d.scale.mean()) and scale.low < scale.value < scale.high
    assert scale.n == {"images": 30, "patients": 15} and f"(sd {d.scale.std(ddof=1):.3f})" in scale.method
    still = measure_window_displacement([window()] * 12).estimates([str(i) for i in range(12)])
    assert still[0].value == 0.0 and still[0].low is None and "leaving out any" in still[0].why


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 2, 3)), np.zeros((2, 3)), np.full((1, 2, 3), np.nan), np.zeros((1, 3, 4))]
)
def test_what_is_no_window_is_refused(bad):
    with pytest.raises(GeometryError, match="Windows must be finite"):
        measure_window_displacement(bad)
    with pytest.raises(GeometryError, match="1 windows and 2 patient ids"):
        measure_window_displacement(window()[None]).estimates(["a", "b"])
