"""The curve of a spine and its axes: through every centre, right-handed, without flips and without twist."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.spine.curve import TO_FEET, TO_LEFT, SpineCurve, build_axes_along
from sightline.errors import GeometryError

TO_BACK = np.array([0.0, -1.0, 0.0])


def spine(shape, n=17, pitch=26.0):
    """Centres of a synthetic spine [n, 3], from the head down; angles are of its tangent."""
    s = np.linspace(0.0, (n - 1) * pitch, 4000)
    share = s / s[-1]
    lateral, sagittal = {
        "straight": (0 * s, 0 * s),
        "scoliotic": (np.radians(35) * np.sin(2 * np.pi * share), 0 * s),
        "kyphotic": (0 * s, np.radians(60) * np.cos(np.pi * share)),
        "s-shaped": (np.radians(25) * np.sin(3 * np.pi * share), np.radians(35) * np.cos(2 * np.pi * share)),
        "bent 60 degrees": (np.radians(60) * share, np.radians(10) * np.sin(2 * np.pi * share)),
        "bent from the first": (np.radians(60) * np.cos(np.pi * share), 0 * s),
    }[shape]
    tangents = (
        TO_FEET * (np.cos(lateral) * np.cos(sagittal))[:, None]
        + TO_LEFT * (np.sin(lateral) * np.cos(sagittal))[:, None]
        + TO_BACK * np.sin(sagittal)[:, None]
    )
    path = np.array([5.0, -3.0, 900.0]) + np.cumsum(tangents * s[1], axis=0)
    return path[np.searchsorted(s, np.linspace(0, s[-1], n))]


SHAPES = ("straight", "scoliotic", "kyphotic", "s-shaped", "bent 60 degrees", "bent from the first")


@pytest.mark.parametrize("shape", SHAPES)
def test_axes_are_right_handed_and_neither_flip_nor_twist(shape):
    curve = SpineCurve(spine(shape))
    at = np.arange(-60.0, curve.knots_at_mm[-1] + 60.0, 0.5)
    axes = curve.axes(at)
    np.testing.assert_allclose(np.swapaxes(axes, -1, -2) @ axes, np.broadcast_to(np.eye(3), axes.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(axes), 1.0, atol=1e-12)
    # axis 0 to the feet, 1 to the back, 2 to the left, everywhere
    assert (axes[..., 0] @ TO_FEET > 0.2).all()
    assert (axes[..., 1] @ TO_BACK > 0.2).all()
    assert (axes[..., 2] @ TO_LEFT > 0.2).all()
    # no sudden turn: half a millimetre on, no axis has turned by more than the curve's own bend allows
    turned = np.degrees(np.arccos(np.clip((axes[1:] * axes[:-1]).sum(axis=-2), -1, 1)))
    bend = turned[:, 0].max()
    assert turned.max() < max(0.05, 2.5 * bend) and turned.max() < 2.0
    # no twist: the left of the patient has no part along axis 1, so the body never rolls about the spine
    np.testing.assert_allclose(axes[..., 1] @ TO_LEFT, 0.0, atol=1e-12)


def test_a_frame_after_frenet_and_serret_would_flip():
    curve = SpineCurve(spine("s-shaped"))
    at = np.arange(1.0, curve.knots_at_mm[-1] - 1.0, 0.5)
    bend = np.gradient(curve.tangent(at), axis=0)
    normal = bend / np.linalg.norm(bend, axis=1, keepdims=True)
    turned = np.degrees(np.arccos(np.clip((normal[1:] * normal[:-1]).sum(axis=1), -1, 1)))
    assert turned.max() > 20.0  # what the axes above must not do


def test_axes_return_when_the_tangent_does():
    # along a closed loop of tangents a carried frame comes back turned; these do not
    turn = np.linspace(0, 2 * np.pi, 200)
    tilt = np.radians(40)
    loop = np.cos(tilt) * TO_FEET + np.sin(tilt) * (np.cos(turn)[:, None] * TO_LEFT + np.sin(turn)[:, None] * TO_BACK)
    axes = build_axes_along(loop)
    np.testing.assert_allclose(axes[0], axes[-1], atol=1e-12)


@pytest.mark.parametrize("back", [0.0, 0.02, -0.3])
def test_a_spine_along_the_left_right_axis_has_axes(back):
    tilt = np.radians(np.linspace(0, 90, 1801))
    tangents = np.cos(tilt)[:, None] * TO_FEET + np.sin(tilt)[:, None] * TO_LEFT + back * TO_BACK
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    for sideways in (tangents, tangents * (-1, 1, 1)):
        axes = build_axes_along(sideways)
        assert np.isfinite(axes).all()
        np.testing.assert_allclose(np.linalg.det(axes), 1.0, atol=1e-12)
        turned = np.degrees(np.arccos(np.clip((axes[1:] * axes[:-1]).sum(axis=-2), -1, 1)))
        assert turned.max() < 1.0  # steps of 0.05 degrees
    # at 60 degrees it is still the projection alone
    t = np.cos(np.pi / 3) * TO_FEET + np.sin(np.pi / 3) * TO_LEFT
    left = TO_LEFT - (TO_LEFT @ t) * t
    np.testing.assert_allclose(build_axes_along(t)[:, 2], left / np.linalg.norm(left), atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 2 * np.pi))
def test_any_tangent_towards_the_feet_has_axes(down, turn):
    flat = np.sqrt(1 - down * down)
    axes = build_axes_along(down * TO_FEET + flat * (np.cos(turn) * TO_LEFT + np.sin(turn) * TO_BACK))
    assert np.isfinite(axes).all() and np.linalg.det(axes) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_curve_goes_through_the_centres_at_its_own_length(shape):
    centres = spine(shape)
    curve = SpineCurve(centres)
    np.testing.assert_allclose(curve.point(curve.knots_at_mm), centres, atol=1e-9)
    # arc length, slowly: the length of a polyline of tiny steps
    fine = curve.point(np.linspace(0, curve.knots_at_mm[-1], 50_000))
    length = np.linalg.norm(np.diff(fine, axis=0), axis=1).sum()
    assert length == pytest.approx(curve.knots_at_mm[-1], rel=1e-6)
    chords = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert (np.diff(curve.knots_at_mm) >= chords - 1e-6).all()
    # and the tangent is its derivative
    at = np.linspace(5, curve.knots_at_mm[-1] - 5, 300)
    slope = (curve.point(at + 0.01) - curve.point(at - 0.01)) / 0.02
    np.testing.assert_allclose(slope, curve.tangent(at), atol=2e-3)


def test_the_curve_is_the_natural_spline():
    from scipy.interpolate import CubicSpline

    centres = spine("s-shaped", n=6)
    chords = np.r_[0, np.cumsum(np.linalg.norm(np.diff(centres, axis=0), axis=1))]
    plain = CubicSpline(chords, centres, bc_type="natural")
    curve = SpineCurve(centres)
    slope = plain(chords[2], 1)
    np.testing.assert_allclose(curve.tangent(curve.knots_at_mm[2]), slope / np.linalg.norm(slope), atol=1e-12)


def test_the_tangent_of_a_circle():
    # a kyphosis of radius 200 mm; natural ends cost a little at the first and last centre
    angle = np.linspace(-0.9, 0.9, 15)
    centres = np.stack([0 * angle, -200 * np.cos(angle), -200 * np.sin(angle)], axis=1)
    curve = SpineCurve(centres)
    truth = np.stack([0 * angle, 200 * np.sin(angle), -200 * np.cos(angle)], axis=1) / 200
    off = np.degrees(np.arccos((curve.tangent(curve.knots_at_mm) * truth).sum(axis=1)))
    assert off[2:-2].max() < 0.2 and off.max() < 2.5


def test_two_centres_are_a_line_and_one_is_straight_down():
    one = SpineCurve(np.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_array_equal(one.axes(0.0), np.stack([TO_FEET, TO_BACK, TO_LEFT], axis=1))
    np.testing.assert_allclose(one.point([-7.0, 0.0, 12.0]), [[1, 2, 10], [1, 2, 3], [1, 2, -9]], atol=1e-12)
    np.testing.assert_array_equal(one.knots_at_mm, [0.0])
    two = SpineCurve(np.array([[0.0, 0.0, 0.0], [0.0, -12.0, -16.0]]))
    np.testing.assert_allclose(two.knots_at_mm, [0, 20])
    np.testing.assert_allclose(two.point([-10.0, 10.0, 40.0]), [[0, 6, 8], [0, -6, -8], [0, -24, -32]], atol=1e-12)


def test_beyond_the_ends_the_curve_is_its_tangent():
    curve = SpineCurve(spine("kyphotic"))
    for end, away in ((0.0, -30.0), (curve.knots_at_mm[-1], 30.0)):
        np.testing.assert_allclose(curve.point(end + away), curve.point(end) + away * curve.tangent(end), atol=1e-9)
        np.testing.assert_allclose(curve.tangent(end + away), curve.tangent(end), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_nearest_place(shape):
    curve = SpineCurve(spine(shape))
    rng = np.random.default_rng(1)
    along = rng.uniform(-40, curve.knots_at_mm[-1] + 40, 40)
    across = rng.uniform(-25, 25, (40, 2))
    axes = curve.axes(along)
    points = curve.point(along) + across[:, :1] * axes[..., 1] + across[:, 1:] * axes[..., 2]
    found = curve.nearest(points, -60.0, curve.knots_at_mm[-1] + 60.0)
    np.testing.assert_allclose(found, along, atol=1e-6)
    # slowly: no place of a fine walk along the curve is nearer
    walk = np.arange(-60, curve.knots_at_mm[-1] + 60, 0.1)
    slow = np.linalg.norm(points[:, None] - curve.point(walk), axis=2).min(axis=1)
    assert (np.linalg.norm(points - curve.point(found), axis=1) <= slow + 1e-9).all()


@pytest.mark.parametrize(
    ("centres", "said"),
    [
        (np.zeros((0, 3)), "finite centres"),
        ([[0, 0, 0], [0, 0, np.nan]], "finite centres"),
        ([[0, 0, 0], [0, 0, -1]], "1.0 mm apart"),
        ([[0, 0, 0], [0, 0, -50], [0, 0, -25]], "turns back at centre 2"),
        ([[0, 0, 0], [0, 0, 30], [0, 0, 60]], "towards the head"),
    ],
)
def test_centres_of_no_spine_are_refused(centres, said):
    with pytest.raises(GeometryError, match=said):
        SpineCurve(np.array(centres, dtype=float))
