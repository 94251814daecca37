"""Patches of CT as the network sees them: window, crop, and augmentations that really run."""

import multiprocessing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from sightline.data.views import volume_view as volume_augment
from sightline.data.views.volume_view import (
    SampledTransform,
    VolumeView,
    draw_elastic,
    draw_placement,
    draw_tone,
    zoom_frame,
)
from sightline.errors import GeometryError, RecipeError
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Case
from sightline.structures.frame import Frame
from sightline.training.serialization import build_from_plain, to_plain

SIDE, SIZE = 48, 32
VIEW = VolumeView(size=SIZE, augment="none")
PUBLISHED = VolumeView(size=SIZE)


class Script:
    """A generator that draws what it is told: random() from a list, uniform(low, high) by a share of the range."""

    def __init__(self, *chances, share=0.9):
        self.chances, self.share, self.real = list(chances), share, np.random.default_rng(5)

    def random(self, *args, **kwargs):
        return self.chances.pop(0) if not args and not kwargs else self.real.random(*args, **kwargs)

    def uniform(self, low, high):
        return low + self.share * (high - low)

    def integers(self, *bounds):
        return self.real.integers(*bounds)


def blobs(side=SIDE, seed=0):
    """Smooth tissue in Hounsfield units."""
    noise = np.random.default_rng(seed).normal(size=(side,) * 3)
    smooth = ndimage.gaussian_filter(noise, 2.5)
    return (200 + 350 * smooth / smooth.std()).astype(np.int16)


def middle(side=SIDE, size=SIZE):
    return Frame.of_image((side,) * 3).crop([(side - size) // 2] * 3, (size,) * 3)


# -- the view as it is ---------------------------------------------------------------------------------------------


def test_the_test_view_is_the_middle_in_the_window():
    values = blobs()
    values[8, 8, 8], values[9, 9, 9] = 3000, -1024
    cube, frame = VIEW.test(values)
    assert cube.shape == (1, SIZE, SIZE, SIZE) and cube.dtype == np.float32
    expected = np.clip((values[8:40, 8:40, 8:40].astype(float) + 1000) / 2000, 0, 1)
    assert np.allclose(cube[0], expected, atol=1e-6)
    assert cube[0, 0, 0, 0] == 1.0 and cube[0, 1, 1, 1] == 0.0
    assert frame == middle()
    bone, _ = replace(VIEW, window_hu=(-450.0, 1050.0)).test(values)
    assert np.allclose(bone[0], np.clip((values[8:40, 8:40, 8:40] + 450.0) / 1500, 0, 1), atol=1e-6)


def test_odd_and_uneven_patches_are_cut_in_the_middle():
    cube, frame = VolumeView(size=8).test(np.arange(9 * 12 * 11).reshape(9, 12, 11))
    assert cube.shape == (1, 8, 8, 8) and tuple(frame.to_source[:3, 3]) == (0, 2, 1)


def test_without_augmentation_training_is_the_test_view():
    values = blobs()
    expected, frame = VIEW.test(values)
    for seed in range(5):
        cube, own = VIEW.training(values, np.random.default_rng(seed))
        assert np.array_equal(cube, expected) and own == frame


def test_patches_that_are_too_small_or_flat_are_refused():
    for view in (VIEW, PUBLISHED):
        with pytest.raises(GeometryError, match="24 x 48 x 48 voxels; the view shows 32") as caught:
            view.training(np.zeros((24, 48, 48), np.int16), np.random.default_rng(0))
        assert "at most 24" in caught.value.remedy
    with pytest.raises(GeometryError, match="three axes"):
        VIEW.test(np.zeros((48, 48), np.int16))


def test_fields_that_mean_nothing_are_refused():
    for fields, match in (
        ({"size": 4}, "at least 8"),
        ({"window_hu": (300.0, -300.0)}, "low < high"),
        ({"window_hu": (float("nan"), 0.0)}, "low < high"),
        ({"shift_mm": -1.0}, "0 or more"),
        ({"shift_mm": float("inf")}, "0 or more"),
    ):
        with pytest.raises(RecipeError, match=match):
            VolumeView(**fields)


def test_recipes_keep_views_and_nothing_is_framed_around_marks():
    view = VolumeView(48, (-500.0, 1300.0), "none", 4.0)
    assert build_from_plain(to_plain(view, CATALOGUE), CATALOGUE) == view
    assert view.around(Case("a", "a", "a", Path("a.nii"), "intact")) is None


# -- each augmentation runs ----------------------------------------------------------------------------------------

# chances in the order they are asked for: mirror, turn, zoom, elastic
STEPS = {"mirror": (0.0, 0.99, 0.99, 0.99), "turn": (0.99, 0.0, 0.99, 0.99), "zoom": (0.99, 0.99, 0.0, 0.99)}
STEPS["elastic"] = (0.99, 0.99, 0.99, 0.0)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_of_the_geometry_changes_the_cube(step):
    values = blobs()
    plain = VIEW.test(values)[0][0]
    placement = draw_placement(middle(), Script(*STEPS[step]))
    cube = placement.cut(values, VIEW.window_hu)
    assert np.abs(cube - plain).max() > 0.02, step
    assert (placement.frame == middle()) == (step == "elastic")
    assert (placement.offsets is not None) == (step == "elastic")


def test_without_a_draw_nothing_changes():
    placement = draw_placement(middle(), Script(0.99, 0.99, 0.99, 0.99))
    assert placement.frame == middle() and placement.offsets is None
    assert np.array_equal(placement.cut(blobs(), VIEW.window_hu), VIEW.test(blobs())[0][0])
    cube = VIEW.test(blobs())[0][0]
    assert np.array_equal(draw_tone(cube, Script(0.99)), cube)


def test_all_tones_come_and_each_changes_the_cube():
    cube = VIEW.test(blobs())[0][0]
    edges = np.abs(np.diff(cube, axis=0)).mean()
    kinds = set()
    for seed in range(40):
        changed = draw_tone(cube, np.random.default_rng(seed))
        assert changed.dtype == np.float32 and changed.min() >= 0.0 and changed.max() <= 1.0
        if np.array_equal(changed, cube):
            kinds.add("none")
            continue
        assert np.abs(changed - cube).max() > 1e-4, seed
        # contrast keeps the order of grey values; smoothing takes edges away; noise brings some
        order = np.argsort(cube, axis=None, kind="stable")
        if (np.diff(changed.ravel()[order]) >= -1e-6).all():
            kinds.add("contrast")
        else:
            kinds.add("smoothing" if np.abs(np.diff(changed, axis=0)).mean() < edges else "noise")
    assert kinds == {"none", "contrast", "smoothing", "noise"}


def test_smoothing_brings_no_air_in_from_outside():
    cube = np.full((SIZE,) * 3, 0.6, np.float32)
    for seed in range(30):
        changed = draw_tone(cube, np.random.default_rng(seed))
        spread = np.ptp(changed)
        # what is even stays even, but for noise, which has no deviation above 0.05
        assert spread < 1e-5 or changed.std() < 0.051, seed
        assert abs(changed[0].mean() - changed[SIZE // 2].mean()) < 0.01, seed


def test_published_training_changes_most_cubes_and_none_changes_none():
    values = blobs()
    plain = VIEW.test(values)[0]
    changed = [
        not np.array_equal(PUBLISHED.training(values, np.random.default_rng(seed))[0], plain) for seed in range(40)
    ]
    # all of tone, mirror, zoom, elastic (a half each) and turn (0.9) stay away in 6%
    assert 30 <= sum(changed) <= 40


def test_chances_and_ranges_are_those_described():
    grid = middle()
    frames = [draw_placement(grid, np.random.default_rng(seed)) for seed in range(600)]
    linear = np.stack([p.frame.to_source[:3, :3] for p in frames])
    mirrored = np.linalg.det(linear) < 0
    scale = np.cbrt(np.abs(np.linalg.det(linear)))
    assert 0.42 < mirrored.mean() < 0.58
    assert 0.42 < (np.abs(scale - 1) > 1e-9).mean() < 0.58
    assert 1 / 1.1 - 1e-6 <= scale.min() < 0.93 and 1.08 < scale.max() <= 1 / 0.9 + 1e-6
    assert 0.42 < np.mean([p.offsets is not None for p in frames]) < 0.58
    rotation = linear / scale[:, None, None] * np.where(mirrored, -1, 1)[:, None, None] ** np.array([0, 0, 1])
    angle = np.degrees(np.arccos(np.clip((np.trace(rotation, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    turned = angle > 1e-3
    assert 0.06 < turned.mean() < 0.14
    assert angle.max() < np.sqrt(7**2 + 5**2 + 2**2) + 0.1 and angle.max() > 4


def test_the_elastic_field_is_monais():
    # Rand3DElastic's: uniform noise in -1..1, Gaussian smoothing, magnitude
    offsets = draw_elastic((40, 40, 40), Script(share=0.5))
    inner = offsets[:, 8:-8, 8:-8, 8:-8]
    sigma, magnitude = 1.5, 5.0
    # variance of white noise after a Gaussian in three dimensions
    expected = magnitude * np.sqrt(1 / 3) * (2 * sigma * np.sqrt(np.pi)) ** -1.5
    assert inner.std() == pytest.approx(expected, rel=0.1) and abs(inner.mean()) < 0.05
    assert offsets.dtype == np.float32 and np.abs(offsets).max() < 2.0
    from monai.transforms import Rand3DElastic

    theirs = Rand3DElastic((sigma, sigma), (magnitude, magnitude), prob=1.0)
    theirs.set_random_state(0)
    ramp = np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"))[:1].astype(np.float32)
    moved = np.asarray(theirs(ramp, padding_mode="border"))[0] - ramp[0]
    assert moved[8:-8, 8:-8, 8:-8].std() == pytest.approx(inner.std(), rel=0.15)


# -- where things land ---------------------------------------------------------------------------------------------


def landed(values, frame, cube):
    """The centre of brightness in the cube, in patch coordinates by the frame."""
    weights = cube.astype(float) - np.median(cube)
    weights[weights < 0.05 * weights.max()] = 0.0
    return frame.map_points(np.array(ndimage.center_of_mass(weights)) + 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_a_bright_voxel_lands_where_the_frame_says(seed):
    rng = np.random.default_rng(seed)
    values = np.full((SIDE,) * 3, -1000, np.int16)
    spot = rng.integers(18, 30, 3)
    values[tuple(slice(a - 1, a + 2) for a in spot)] = 1000
    grid = middle().crop(rng.integers(-4, 5, 3), (SIZE,) * 3)
    placement = SampledTransform(draw_placement(grid, Script(0.0, 0.0, 0.0, 0.99, share=rng.uniform())).frame)
    cube = placement.cut(values, VIEW.window_hu)
    assert cube.max() > 0.8
    assert np.allclose(landed(values, placement.frame, cube), spot + 0.5, atol=0.06)


def test_the_sampled_cube_is_scipys():
    # trilinear interpolation of the windowed patch, edges repeated
    values = blobs()
    placement = draw_placement(middle().crop((2, -3, 1), (SIZE,) * 3), Script(0.0, 0.0, 0.0, 0.0))
    centres = np.stack(np.meshgrid(*[np.arange(SIZE) + 0.5] * 3, indexing="ij"), axis=-1)
    places = placement.frame.map_points(centres) - 0.5 + np.moveaxis(placement.offsets, 0, -1)
    window = np.clip((values + 1000.0) / 2000.0, 0, 1)
    expected = ndimage.map_coordinates(window, np.moveaxis(places, -1, 0), order=1, mode="nearest")
    assert np.allclose(placement.cut(values, VIEW.window_hu), expected, atol=2e-4)


def test_mirror_and_shift_take_voxels_as_they_are():
    values = blobs()
    grid = middle().crop((3, -2, 5), (SIZE,) * 3).flip(2)
    cube = SampledTransform(grid).cut(values, VIEW.window_hu)
    assert np.array_equal(cube, np.clip((values[11:43, 6:38, 13:45].astype(np.float32) + 1000) / 2000, 0, 1)[..., ::-1])


def test_a_zoom_magnifies_about_the_middle():
    frame = zoom_frame(middle(), 1.1)
    assert np.allclose(frame.map_points([SIZE / 2] * 3), [SIDE / 2] * 3)
    assert frame.scale == pytest.approx(1 / 1.1)


def test_turns_are_about_the_axes_named():
    for axis in range(3):
        chances, share = (0.99, 0.0, 0.99, 0.99), 1.0
        most = [0.0, 0.0, 0.0]
        most[axis] = 90.0
        saved, volume_augment.TURNS_DEG = volume_augment.TURNS_DEG, tuple(most)
        try:
            frame = draw_placement(middle(), Script(*chances, share=share)).frame
        finally:
            volume_augment.TURNS_DEG = saved
        unit = np.eye(3)[axis]
        assert np.allclose(frame.to_source[:3, :3] @ unit, unit)
        assert not np.allclose(frame.to_source[:3, :3], np.eye(3))


def test_shifts_stay_within_the_patch_and_reach_its_ends():
    values = blobs()
    for shift, most in ((3.0, 3), (3.9, 3), (100.0, 8)):
        view = replace(VIEW, shift_mm=shift)
        starts = np.stack(
            [view.training(values, np.random.default_rng(seed))[1].to_source[:3, 3] for seed in range(150)]
        )
        assert starts.min() == 8 - most and starts.max() == 8 + most
        assert len({tuple(start) for start in starts}) > 100
    # without room there is no shift
    same = replace(VIEW, size=SIDE, shift_mm=4.0).training(values, np.random.default_rng(0))[1]
    assert same == Frame.of_image((SIDE,) * 3)


def test_turns_zoom_and_the_recommended_shift_bring_no_border_into_sight():
    # patches of 96 for cubes of 64, a shift of up to 4: nothing beyond the patch is needed
    grid = Frame.of_image((96,) * 3).crop((16,) * 3, (64,) * 3)
    corners = np.stack(np.meshgrid(*[(0.0, 64.0)] * 3, indexing="ij"), axis=-1)
    low, high = np.full(3, 48.0), np.full(3, 48.0)
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        shifted = grid.crop(rng.integers(-4, 5, 3), (64,) * 3)
        script = Script(0.99, 0.0, 0.0, 0.99)
        script.uniform = rng.uniform
        places = draw_placement(shifted, script).frame.map_points(corners)
        low, high = np.minimum(low, places.min((0, 1, 2))), np.maximum(high, places.max((0, 1, 2)))
    assert low.min() >= 0.0 and high.max() <= 96.0


# -- a function of the generator alone -----------------------------------------------------------------------------


def test_equal_generators_give_equal_cubes_and_others_do_not():
    values = blobs()
    view = replace(PUBLISHED, shift_mm=4.0)
    first = [view.training(values, np.random.default_rng(seed))[0] for seed in range(6)]
    np.random.seed(3)  # noqa: NPY002
    again = [view.training(values, np.random.default_rng(seed))[0] for seed in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(not np.array_equal(a, b) for a, b in pairwise(first))


def drawn(seed):
    return replace(PUBLISHED, shift_mm=3.0).training(blobs(), np.random.default_rng([4, seed]))[0]


def test_another_process_draws_the_same():
    # as the loader's workers are made: forked, and with one thread, for a fork inherits no others
    with multiprocessing.get_context("fork").Pool(1, torch.set_num_threads, (1,)) as pool:
        there = pool.map(drawn, range(6))
    assert all(np.array_equal(drawn(seed), cube) for seed, cube in enumerate(there))


def test_the_patch_itself_is_left_alone():
    values = blobs()
    before = values.copy()
    for seed in range(8):
        PUBLISHED.training(values, np.random.default_rng(seed))
    values.setflags(write=False)
    PUBLISHED.training(values, np.random.default_rng(1))
    assert np.array_equal(values, before)
