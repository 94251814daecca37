"""A patch in its CT: the centre voxel, points there and back, numbers sampled and put back."""

import json
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from sightline.data.spine.curve import SpineCurve
from sightline.data.spine.placement import (
    parse_placements,
    place_on_ct,
    place_vertebrae,
    read_placement,
    read_placements,
)
from sightline.data.spine.resampling import PAD_HU, compute_smoothing_px, sample_hu, sample_labels
from sightline.data.spine.vertebrae import LABELS, Vertebra
from sightline.errors import GeometryError, LayoutError
from sightline.io.volume import Volume, compute_affine_within
from sightline.structures.case import Case
from sightline.structures.frame import Frame

MODES = ("rigid", "straightened")
# axes to the left, to the head and to the back, turned a little and of unequal steps, as scanners write them
TURNED = np.array([[-0.78, 0.05, 0.03, 40.0], [0.04, 0.06, -1.99, 55.0], [0.06, 1.09, 0.10, -60.0], [0, 0, 0, 1.0]])
SHAPE = (110, 130, 50)
LEVELS = ("T12", "T13", "L1", "L2", "L3")


def a_ct(values=None, affine=TURNED, shape=SHAPE):
    if values is None:
        values = np.random.default_rng(0).integers(-1024, 1500, shape, dtype=np.int16)
    return Volume(np.asfortranarray(values), affine)


def vertebrae(ct, bend=15.0):
    middle = ct.world_of(np.array(ct.values.shape) / 2)
    down = np.linspace(45, -45, len(LEVELS))
    world = middle + np.stack([bend * np.cos(down / 30), 0.5 * bend * np.sin(down / 25), down], axis=1)
    return [Vertebra(LABELS[n], tuple(ct.place_of(w).tolist())) for n, w in zip(LEVELS, world, strict=True)]


def placed(ct, mode="rigid", side=24, **more):
    return place_vertebrae(vertebrae(ct), ct.affine, ct.values.shape, side=side, mode=mode, **more)


def all_points(side):
    return np.moveaxis(np.indices((side,) * 3), 0, -1) + 0.5


@pytest.mark.parametrize("mode", MODES)
def test_the_centre_voxel_is_the_centroid(mode):
    ct = a_ct()
    for vertebra in vertebrae(ct):
        placement = placed(ct, mode, side=96)[vertebra.level]
        np.testing.assert_allclose(placement.to_ct([48.5, 48.5, 48.5]), vertebra.centre, atol=1e-9)
        np.testing.assert_allclose(placement.from_ct(vertebra.centre), [48.5] * 3, atol=1e-9)
        # and what the patch holds there is what the CT has there
        at = np.array(vertebra.centre)[:, None] - 0.5
        exact = map_coordinates(ct.values.astype(float), at, order=1, mode="grid-constant", cval=PAD_HU)[0]
        patch = sample_hu(ct, placed(ct, mode, side=8)[vertebra.level])
        assert abs(patch[4, 4, 4] - exact) <= 0.5 + 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_axes_are_ipl_and_one_millimetre(mode):
    ct = a_ct()
    for placement in placed(ct, mode, side=32).values():
        assert Volume(np.zeros((32,) * 3), placement.affine).orientation == ("I", "P", "L")
        np.testing.assert_allclose(np.linalg.norm(placement.affine[:3, :3], axis=0), 1.0)
        assert np.linalg.det(placement.affine[:3, :3]) > 0
        # its columns are the curve's axes there
        np.testing.assert_allclose(placement.affine[:3, :3], placement.curve.axes(placement.at_mm), atol=1e-12)
        step = placement.world_of([17.0, 16.5, 16.5]) - placement.world_of([16.0, 16.5, 16.5])
        assert np.linalg.norm(step) == pytest.approx(1.0, abs=1e-3)


def test_a_rigid_patch_is_its_frame_and_its_affine():
    ct = a_ct()
    placement = placed(ct)["L1"]
    points = all_points(24)[::5, ::5, ::5]
    np.testing.assert_allclose(placement.frame.map_points(points), placement.to_ct(points), atol=1e-10)
    np.testing.assert_allclose(compute_affine_within(placement.frame, ct.affine), placement.affine, atol=1e-10)
    np.testing.assert_allclose(placement.frame.spacing_mm, ct.spacing_mm)
    in_place = Volume(np.zeros((24,) * 3), placement.affine)
    np.testing.assert_allclose(in_place.world_of(points), placement.world_of(points), atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_points_go_to_the_ct_and_back(mode):
    ct = a_ct()
    rng = np.random.default_rng(2)
    for level, placement in placed(ct, mode, side=48).items():
        points = rng.uniform(0, 48, (50, 3))
        np.testing.assert_allclose(placement.from_ct(placement.to_ct(points)), points, atol=1e-7, err_msg=level)
        world = placement.world_of(points)
        np.testing.assert_allclose(ct.place_of(world), placement.to_ct(points), atol=1e-9)
        np.testing.assert_allclose(placement.place_of(world), points, atol=1e-7)


def test_a_straightened_patch_follows_the_curve():
    ct = a_ct()
    placement = placed(ct, "straightened", side=64)["L1"]
    others = [v for v in vertebrae(ct) if v.level in ("T13", "L2")]
    for vertebra, direction in zip(others, (-1, 1), strict=True):
        there = placement.from_ct(vertebra.centre)
        # the neighbours lie on the middle of axis 0, as far away as the curve is long
        np.testing.assert_allclose(there[1:], 32.5, atol=1e-6)
        apart = abs(placed(ct, "straightened")[vertebra.level].at_mm - placement.at_mm)
        assert there[0] == pytest.approx(32.5 + direction * apart, abs=1e-6)
    # in the rigid patch they do not
    assert np.abs(placed(ct, side=64)["L1"].from_ct(others[0].centre)[1:] - 32.5).max() > 0.5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", ["T12", "L1"])
@pytest.mark.parametrize("spacing_mm", [1.0, 1.7])
def test_hounsfield_units_are_trilinear_to_the_last_digit(mode, level, spacing_mm):
    ct = a_ct()
    placement = placed(ct, mode, side=40, spacing_mm=spacing_mm)[level]
    at = np.moveaxis(placement.to_ct(all_points(40)) - 0.5, -1, 0)
    exact = map_coordinates(ct.values.astype(np.float64), at, order=1, mode="grid-constant", cval=PAD_HU)
    patch = sample_hu(ct, placement)
    assert patch.dtype == np.int16 and patch.shape == (40, 40, 40)
    assert np.abs(patch - exact).max() <= 0.5 + 1e-6
    # slowly and obviously, at a few voxels: eight neighbours and their distances
    rng = np.random.default_rng(3)
    for i, j, k in rng.integers(0, 40, (30, 3)):
        place = placement.to_ct([i + 0.5, j + 0.5, k + 0.5]) - 0.5
        low = np.floor(place).astype(int)
        value = 0.0
        for corner in product((0, 1), repeat=3):
            voxel = low + corner
            inside = all(0 <= v < n for v, n in zip(voxel, SHAPE, strict=True))
            weight = np.prod([1 - abs(p - v) for p, v in zip(place, voxel, strict=True)])
            value += weight * (ct.values[tuple(voxel)] if inside else PAD_HU)
        assert abs(patch[i, j, k] - value) <= 0.5 + 1e-6
    # the patch of the first vertebra reaches beyond the CT, where there is air
    if level == "T12" and spacing_mm == 1.7:
        assert placement.outside(2) > 0.05 and (patch == PAD_HU).any()


def test_a_whole_number_grid_is_copied():
    affine = np.diag([-1.0, -1.0, -1.0, 1.0])
    affine[:3, :3] = affine[:3, :3][:, [2, 1, 0]]
    ct = a_ct(affine=affine, shape=(30, 32, 34))
    only = [Vertebra(LABELS["L1"], (15.5, 16.5, 17.5))]
    patch = sample_hu(ct, place_vertebrae(only, ct.affine, (30, 32, 34), side=10)["L1"])
    np.testing.assert_array_equal(patch, ct.values[10:20, 11:21, 12:22])


@pytest.mark.parametrize("mode", MODES)
def test_labels_are_the_nearest_voxel(mode):
    labels = a_ct(np.random.default_rng(4).integers(0, 26, SHAPE).astype(np.uint8))
    for level in ("T12", "L2"):
        placement = placed(labels, mode)[level]
        patch = sample_labels(labels, placement)
        assert patch.dtype == np.uint8
        for i, j, k in product(range(0, 24, 5), repeat=3):
            voxel = np.floor(placement.to_ct([i + 0.5, j + 0.5, k + 0.5])).astype(int)
            inside = all(0 <= v < n for v, n in zip(voxel, SHAPE, strict=True))
            assert patch[i, j, k] == (labels.values[tuple(voxel)] if inside else 0)


def test_labels_on_a_grid_of_their_own():
    ct = a_ct()
    # the same labels on a coarser grid in the same space
    place = np.moveaxis(np.indices((55, 65, 25)), 0, -1) + 0.5
    affine = ct.affine @ np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1.0]])
    coarse = Volume((place[..., 1] > 30).astype(np.uint8), affine)
    placement = placed(ct)["L1"]
    expected = placement.to_ct(all_points(24))[..., 1] > 60
    assert (sample_labels(coarse, placement) != expected).mean() < 0.01


def test_a_patch_outside_the_ct_is_air():
    ct = a_ct(shape=(20, 20, 20))
    far = [Vertebra(LABELS["L1"], (400.0, 400.0, 400.0))]
    placement = place_vertebrae(far, ct.affine, (20, 20, 20), side=16)["L1"]
    assert (sample_hu(ct, placement) == PAD_HU).all() and placement.outside() == 1.0
    assert not sample_labels(Volume(np.ones((20, 20, 20), np.uint8), ct.affine), placement).any()
    with pytest.raises(GeometryError, match="outside its CT"):
        place_on_ct(np.zeros((16,) * 3), placement)


def test_anti_aliasing_calms_noise_of_fine_voxels_and_keeps_the_mean():
    fine = np.diag([-0.3, -0.3, 1.0, 1.0])
    noise = np.random.default_rng(5).normal(100, 200, (120, 120, 40)).astype(np.int16)
    ramp = np.broadcast_to(np.arange(120)[:, None, None] * 4 - 200, noise.shape).astype(np.int16)
    only = [Vertebra(LABELS["L1"], (60.0, 60.0, 20.0))]
    placement = place_vertebrae(only, fine, noise.shape, side=20)["L1"]
    plain, smooth = (sample_hu(Volume(noise, fine), placement, anti_alias=a) for a in (False, True))
    assert smooth.std() < 0.5 * plain.std() and abs(smooth.mean() - 100) < 3
    plain, smooth = (sample_hu(Volume(ramp, fine), placement, anti_alias=a) for a in (False, True))
    np.testing.assert_allclose(plain, smooth, atol=1)
    # nothing is smoothed along axes as coarse as the patch
    assert (
        compute_smoothing_px(1.0, 1.0) == compute_smoothing_px(2.0, 1.0) == 0.0 and compute_smoothing_px(0.3, 1.0) > 1.0
    )
    coarse = a_ct()
    placement = placed(a_ct())["L1"]
    thick = Volume(coarse.values, np.diag([1.5, 1.5, 1.5, 1.0]))
    placement = place_vertebrae(vertebrae(thick), thick.affine, SHAPE, side=20)["L1"]
    np.testing.assert_array_equal(sample_hu(thick, placement), sample_hu(thick, placement, anti_alias=True))


@pytest.mark.parametrize("mode", MODES)
def test_numbers_come_back_to_the_ct(mode):
    ct = a_ct()
    placement = placed(ct, mode, side=32)["L1"]

    def smooth(world):
        return np.sin(world[..., 0] / 9) + np.cos(world[..., 1] / 8) * np.sin(world[..., 2] / 10)

    back = place_on_ct(smooth(placement.world_of(all_points(32))), placement, outside=-9.0)
    centres = np.moveaxis(np.indices(back.values.shape), 0, -1) + 0.5
    inside = placement.place_of(back.world_of(centres))
    within = ((inside > 0.5) & (inside < 31.5)).all(axis=-1)
    beyond = ((inside < 0) | (inside > 32)).any(axis=-1)
    # voxels of 0.8 x 1.1 x 2 mm in a cube of 32 mm
    assert within.sum() > 0.7 * 32**3 / (0.78 * 1.1 * 2.0)
    assert np.abs(back.values - smooth(back.world_of(centres)))[within].max() < 0.02
    assert (back.values[beyond] == -9.0).all() and beyond.any()
    # the box is a piece of the CT's own grid, and all of the patch
    start = ct.place_of(back.world_of([0.0, 0.0, 0.0]))
    np.testing.assert_allclose(start, np.rint(start), atol=1e-9)
    whole = place_on_ct(smooth(placement.world_of(all_points(32))), placement, outside=-9.0, whole=True)
    assert whole.values.shape == SHAPE and np.array_equal(whole.affine, ct.affine)
    a, b, c = np.rint(start).astype(int)
    d, h, w = back.values.shape
    np.testing.assert_array_equal(whole.values[a : a + d, b : b + h, c : c + w], back.values)
    assert (whole.values != -9.0).sum() == (back.values != -9.0).sum()


@pytest.mark.parametrize("mode", MODES)
def test_an_activation_lands_where_it_was(mode):
    """One cell of a 4 x 4 x 4 map over the middle of the patch is lit: so are just its voxels of the CT."""
    ct = a_ct()
    placement = placed(ct, mode, side=32)["L1"]
    cells = np.zeros((4, 4, 4), np.uint8)
    cells[1, 2, 3] = 7
    # the view shows the middle 16 voxels; a cell is 4 of them wide
    grid = Frame.of_image((32, 32, 32)).crop((8, 8, 8), (16, 16, 16)).resize((4, 4, 4))
    back = place_on_ct(cells, placement, grid=grid, nearest=True)
    assert back.values.dtype == np.uint8
    lit = placement.place_of(back.world_of(np.argwhere(back.values == 7) + 0.5))
    assert len(lit) > 20
    assert (lit > np.array([12, 16, 20]) - 1e-9).all() and (lit < np.array([16, 20, 24]) + 1e-9).all()
    # no voxel of the CT in that cell is missing
    there = placement.place_of(back.world_of(np.argwhere(back.values < 99) + 0.5))
    assert ((there > [12, 16, 20]) & (there < [16, 20, 24])).all(axis=1).sum() <= len(lit)


def test_values_must_lie_on_their_grid():
    with pytest.raises(GeometryError, match="do not lie on a grid"):
        place_on_ct(np.zeros((8, 8, 8)), placed(a_ct())["L1"])


def test_the_curve_goes_through_t13_and_through_what_is_not_cut():
    ct = a_ct()
    curve = placed(ct)["L1"].curve
    np.testing.assert_allclose(curve.knots_mm, [ct.world_of(v.centre) for v in vertebrae(ct)])


@pytest.mark.parametrize(("side", "spacing_mm"), [(1, 1.0), (96, 0.0), (96, np.nan)])
def test_patches_of_no_size(side, spacing_mm):
    with pytest.raises(GeometryError, match="cannot be cut"):
        placed(a_ct(), side=side, spacing_mm=spacing_mm)


@pytest.mark.parametrize("mode", MODES)
def test_a_record_keeps_the_placement(mode, tmp_path):
    ct = a_ct()
    placement = placed(ct, mode, side=32)["L1"]
    document = {
        "cut": {"side": 32, "spacing_mm": 1.0, "mode": mode, "anti_alias": False},
        "ct": {"shape": list(SHAPE), "affine": ct.affine.tolist()},
        "curve": {"knots_mm": placement.curve.knots_mm.tolist()},
        "vertebrae": [{"level": "L1", "at_mm": placement.at_mm}],
    }
    points = all_points(32)[::9, ::9, ::9]
    again = parse_placements(json.loads(json.dumps(document)))["L1"]
    np.testing.assert_array_equal(again.to_ct(points), placement.to_ct(points))
    (tmp_path / "spines").mkdir()
    (tmp_path / "spines" / "s 1.json").write_text(json.dumps(document))
    case = Case("s 1__L1", "s 1__L1", "p", tmp_path / "patches" / "s 1" / "L1.nii", "intact")
    np.testing.assert_array_equal(read_placement(case).to_ct(points), placement.to_ct(points))
    with pytest.raises(LayoutError, match=r"does not hold L2\.nii"):
        read_placement(Case("s 1__L2", "a", "p", tmp_path / "patches" / "s 1" / "L2.nii", "intact"))
    for broken in ("{}", "no json", "[]"):
        (tmp_path / "spines" / "s 1.json").write_text(broken)
        with pytest.raises(LayoutError, match="no record of patches"):
            read_placements(tmp_path / "spines" / "s 1.json")


def test_a_sharp_bend_gives_numbers():
    # a gibbus of 80 degrees within one vertebra: points inside the bend have several places, none is NaN
    curve = SpineCurve(np.array([[0, 0, 60.0], [0, 0, 40], [0, 0, 20], [0, 20, 17], [0, 40, 14], [0, 60, 11]]))
    points = np.random.default_rng(6).uniform(-60, 60, (200, 3))
    assert np.isfinite(curve.nearest(points, -50, 150)).all()
