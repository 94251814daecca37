"""Frames around experts' boxes: the crop, the jitter that keeps a box inside, equalisation, cohorts partly marked."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageOps
from support.cohorts import tiny_recipe

from sightline.data.loader import CohortItems, Key
from sightline.data.views.crops import Crop, RegionJitter, find_largest_box, list_boxes
from sightline.data.views.image_view import (
    ReducedPicture,
    View,
    equalise_histogram,
    reduce_picture,
    refuse_unmarked,
    sample,
)
from sightline.errors import CohortError, RecipeError
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon
from sightline.structures.tag import Tag
from sightline.training.serialization import build_from_plain, to_plain

SOURCE = Frame.of_image((120, 200))
BOX = (40.0, 60.0, 70.0, 80.0)


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def case_of(*regions, label="a", name="c"):
    return Case(name, name, name, Path("none.png"), label, regions, shape=(120, 200))


# -- boxes ----------------------------------------------------------------------------------------------------------


def test_the_largest_box_of_a_role():
    finding, focus = Tag("finding"), Tag("focus")
    small, large = Box((1, 1), (5, 5), finding), Box((2, 2), (12, 8), finding)
    case = case_of(small, large, Box((0, 0), (100, 100), focus), Polygon((((3, 3), (3, 7), (11, 7)),), finding))
    assert find_largest_box(case) == (2, 2, 12, 8)
    assert find_largest_box(case, "focus") == (0, 0, 100, 100)
    # outlines count where there is no box, and nothing where there is nothing
    assert list_boxes(case_of(Polygon((((1, 2), (1, 9), (7, 9)),), finding))) == ((1, 2, 7, 9),)
    assert find_largest_box(case_of(small), "focus") is None


def test_outlines_that_no_box_describes_are_listed_too():
    """Of another finding, another class or another reader; a mask of several parts counts by what of it is in boxes."""
    a, other = Tag("finding", "a", "r"), Polygon((((50, 50), (50, 60), (60, 60)),), Tag("finding", "a", "r"))
    box, same = Box((10, 10), (30, 30), a), Polygon((((9, 9), (9, 31), (31, 31)),), a)
    assert list_boxes(case_of(box, same)) == ((10, 10, 30, 30),)
    assert list_boxes(case_of(box, replace(same, tag=Tag("finding", "a")))) == ((10, 10, 30, 30),)
    assert list_boxes(case_of(same, box, other)) == ((10, 10, 30, 30), (50, 50, 60, 60))
    for tag in (Tag("finding", "b", "r"), Tag("finding", "a", "s")):
        assert list_boxes(case_of(box, replace(same, tag=tag))) == ((10, 10, 30, 30), (9, 9, 31, 31))
    pixels = np.zeros((120, 200), bool)
    pixels[12:28, 12:28] = pixels[80:90, 80:90] = True
    assert len(list_boxes(case_of(box, Mask(pixels, a)))) == 1
    pixels[60:90, 80:90] = True
    assert len(list_boxes(case_of(box, Mask(pixels, a)))) == 2
    assert len(list_boxes(case_of(box, Mask(np.zeros((120, 200), bool), a)))) == 1


def test_a_view_asks_for_a_box_only_where_it_needs_one():
    case = case_of(Box((1, 1), (5, 5), Tag("finding")), Box((2, 2), (30, 30), Tag("focus")))
    assert View().around(case) is None
    assert View(crop=Crop("focus")).around(case) == (2, 2, 30, 30)
    assert View(jitter=RegionJitter()).around(case) == (1, 1, 5, 5)


# -- the crop -------------------------------------------------------------------------------------------------------


def test_the_test_crop_is_the_square_around_the_box():
    frame = View(size=30, crop=Crop(margin=0.1)).test_frame(SOURCE, BOX)
    # centre (55, 70), side 30 * 1.2
    assert np.allclose(frame.map_points([[0, 0], [30, 30]]), [[37, 52], [73, 88]])
    pixels = noise((120, 200))
    planes, shown = View(size=36, crop=Crop(margin=0.1)).show(pixels, SOURCE, BOX)
    assert np.allclose(planes[0], pixels[37:73, 52:88] / 255, atol=1e-6)
    assert shown == View(size=36, crop=Crop(margin=0.1)).test_frame(SOURCE, BOX)


def test_a_crop_past_the_edge_is_padded_with_black_and_one_outside_is_black():
    pixels = np.full((120, 200), 255, np.uint8)
    planes, _ = View(size=20, crop=Crop()).show(pixels, SOURCE, (-10.0, 190.0, 10.0, 210.0))
    assert (planes[0, 10:, :10] == 1).all() and planes[0].sum() == 100
    outside, _ = View(size=20, crop=Crop()).show(pixels, SOURCE, (300.0, 300.0, 320.0, 320.0))
    assert not outside.any()


def test_without_a_box_the_picture_is_shown_whole():
    view = View(size=32, crop=Crop(jitter=0.2))
    assert view.test_frame(SOURCE) == View(size=32).test_frame(SOURCE)
    a, b = (v.training_frame(SOURCE, np.random.default_rng(3)) for v in (view, View(size=32)))
    assert a == b


@given(seed=st.integers(0, 10_000), jitter=st.sampled_from([0.0, 0.1, 0.3]), deep=st.booleans())
@settings(max_examples=40, deadline=None)
def test_training_crops_keep_to_the_part_that_is_held_and_lose_no_detail(seed, jitter, deep):
    view = View(size=16, crop=Crop(margin=0.1, jitter=jitter), rotation_deg=40.0)
    source = Frame.of_image((600, 900))
    around = (200.0, 300.0, 330.0, 390.0)
    frame = view.training_frame(source, np.random.default_rng(seed), around)
    corners = frame.map_points([(0, 0), (0, 16), (16, 16), (16, 0)])
    low, high = np.array(view.crop.part(around)).reshape(2, 2)
    assert (corners >= low - 1e-9).all() and (corners <= high + 1e-9).all()
    assert math.dist(corners.mean(axis=0), (265, 345)) <= 130 * 1.2 * (math.sqrt(2) * jitter + 0.2) + 1e-9
    pixels = noise((600, 900), np.uint16 if deep else np.uint8, seed % 7)
    held = view.reduce(pixels, source, around=around, training=True)
    # a neighbourhood, not the picture, and never coarser than what is sampled from it
    assert held.bytes < (4 if deep else 1) * 600 * 900 / 8
    assert held.frame.scale <= frame.scale * 1.02
    whole = reduce_picture(pixels, source, 900)
    assert np.abs(sample(held, frame) - sample(whole.coarser(max(1, int(held.frame.scale))), frame)).mean() < 0.12


def test_the_part_held_gives_the_same_pixels_as_the_whole_picture():
    view = View(size=64, crop=Crop(jitter=0.1), rotation_deg=20.0)
    pixels = noise((120, 200))
    frame = view.training_frame(SOURCE, np.random.default_rng(1), BOX)
    held = view.reduce(pixels, SOURCE, around=BOX, training=True)
    assert held.planes[0].size < (100, 100)
    assert np.allclose(sample(held, frame), sample(reduce_picture(pixels, SOURCE, 1000), frame), atol=1e-6)


def test_jitter_moves_and_scales_the_training_square_within_its_share():
    crop, rng = Crop(jitter=0.2), np.random.default_rng(0)
    squares = np.array([crop.square(BOX, rng) for _ in range(400)])
    centres = squares[:, :2] + squares[:, 2:] / 2
    moved = (centres - (55, 70)) / 30
    assert 0.19 < np.abs(moved).max() <= 0.2 and abs(moved.mean()) < 0.02
    assert 24 <= squares[:, 2].min() < 24.3 and 35.7 < squares[:, 2].max() <= 36
    assert crop.square(BOX) == (40, 55, 30)


# -- jitter of the whole picture ------------------------------------------------------------------------------------


def changed_frames(n=400, around=BOX, **fields):
    view = View(size=40, flip_chance=0.0, jitter=RegionJitter(**{"chance": 1.0, **fields}))
    rng = np.random.default_rng(5)
    frames = [view.training_frame(SOURCE, rng, around) for _ in range(n)]
    plain = view.test_frame(SOURCE)
    return [f for f in frames if f != plain], plain


def test_jittered_frames_have_the_printed_zooms_turns_and_shifts_and_keep_the_box():
    frames, plain = changed_frames()
    assert len(frames) > 350
    zooms = np.array([plain.scale / f.scale for f in frames])
    assert (((zooms >= 0.4) & (zooms <= 0.9)) | ((zooms >= 1.3) & (zooms <= 1.9))).all()
    assert zooms.min() < 0.5 and zooms.max() > 1.7
    turns = np.degrees([math.atan2(-f.to_source[0, 1], f.to_source[0, 0]) for f in frames])
    assert ((np.abs(turns) >= 5) & (np.abs(turns) <= 15)).all() and (turns > 0).any() and (turns < 0).any()
    corners = [(r, c) for r in BOX[::2] for c in BOX[1::2]]
    for frame in frames:
        on_grid = frame.unmap_points(corners)
        assert (on_grid >= 0).all() and (on_grid <= 40).all()
    centres = np.array([f.map_points([20.0, 20.0]) for f in frames]) - (60, 100)
    assert np.abs(centres).max() <= 100 and np.abs(centres).max() > 50


def test_without_a_box_every_jitter_passes_and_with_a_box_too_large_none():
    free, _ = changed_frames(around=None)
    assert len(free) == 400
    shifts = np.array([f.map_points([20.0, 20.0]) for f in free]) - (60, 100)
    # uniform in +- half of the long side
    assert np.abs(shifts).max() > 95 and np.abs(shifts).std() == pytest.approx(100 / math.sqrt(12), rel=0.1)
    none, _ = changed_frames(n=20, around=(0.0, 0.0, 120.0, 200.0), zoom_out=(1.2, 1.3))
    assert not none


def test_the_share_of_jittered_images():
    view = View(size=40, flip_chance=0.0, jitter=RegionJitter(chance=0.25))
    rng, plain = np.random.default_rng(0), view.test_frame(SOURCE)
    assert 0.2 < np.mean([view.training_frame(SOURCE, rng, None) != plain for _ in range(600)]) < 0.3


def test_under_a_crop_a_jitter_only_turns():
    view = View(size=40, flip_chance=0.0, crop=Crop(), jitter=RegionJitter(chance=1.0))
    for seed in range(20):
        frame = view.training_frame(SOURCE, np.random.default_rng(seed), BOX)
        assert np.allclose(frame.map_points([20, 20]), (55, 70)) and frame.scale == pytest.approx(30 / 40)
        turn = abs(math.degrees(math.atan2(frame.to_source[0, 1], frame.to_source[0, 0])))
        assert 5 <= turn <= 15


def test_a_view_with_a_jitter_holds_enough_pixels_for_its_nearest_zoom_and_does_not_alias_far_ones():
    view = View(size=32, jitter=RegionJitter(chance=1.0))
    assert view.working_longest() == math.ceil(32 * 1.9)
    # a fine chequerboard shown four times smaller is grey, not black and white
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    source = Frame.of_image(board.shape)
    held = reduce_picture(board, source, 256)
    small = sample(held, source.resize((60, 60)).rotate(10.0))[0]
    assert abs(small[20:40, 20:40] - 0.5).max() < 0.05


def test_coarser_pictures_are_means_and_lie_where_they_lay():
    pixels = noise((7, 10), np.uint16)
    held = reduce_picture(pixels, Frame.of_image(pixels.shape), 10)
    small = held.coarser(3)
    assert isinstance(small, ReducedPicture) and small.frame.shape == (3, 4)
    assert np.asarray(small.planes[0])[1, 2] == pytest.approx(pixels[3:6, 6:9].mean(), rel=1e-4)
    assert np.allclose(small.frame.map_points([2, 3]), (6, 9))


# -- equalisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equalisation_against_its_formula(dtype):
    rng, peak = np.random.default_rng(0), np.iinfo(dtype).max
    pixels = (rng.beta(2, 8, (40, 50)) * peak * 0.6 + peak * 0.1).astype(dtype)
    pixels[:10] = peak // 20  # a collimated border
    got = equalise_histogram(pixels)
    flat = np.sort(pixels.ravel())
    least = (flat == flat[0]).sum()
    for value in (flat[0], flat[700], flat[1500], flat[-1]):
        rank = (flat <= value).sum()
        assert got[pixels == value][0] == round((rank - least) / (flat.size - least) * peak)
    assert got.dtype == dtype and (got[:10] == 0).all() and got.max() == peak
    # what is not border is even
    share, _ = np.histogram(got[10:], bins=8, range=(0, peak))
    assert share.min() > 0.8 * 1600 / 8


def test_equalisation_agrees_with_pillows_to_a_few_levels_and_keeps_16_bit_detail():
    from PIL import Image

    pixels = np.clip(np.random.default_rng(1).normal(90, 20, (60, 60)), 0, 255).astype(np.uint8)
    theirs = np.asarray(ImageOps.equalize(Image.fromarray(pixels)), dtype=int)
    # theirs puts a level at the ranks below it, ours at those up to it: half a level's share apart
    assert np.abs(equalise_histogram(pixels).astype(int) - theirs).mean() < 6
    deep = np.random.default_rng(1).integers(30_000, 30_100, (60, 60)).astype(np.uint16)
    assert len(np.unique(equalise_histogram(deep))) == len(np.unique(deep)) and equalise_histogram(deep).max() == 65535


def test_grey_stored_as_colour_stays_grey_and_a_blank_picture_stays_as_it_is():
    grey = noise((30, 30)) // 3
    colour = equalise_histogram(np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(colour[..., 0], colour[..., 2]) and np.array_equal(colour[..., 1], equalise_histogram(grey))
    blank = np.full((5, 5), 7, np.uint8)
    assert np.array_equal(equalise_histogram(blank), blank)


def test_the_loader_equalises_the_whole_picture_before_it_samples(tiny_cohort):
    view = View(size=40, equalise=True)
    from sightline.io.image import read_image

    picture = read_image(tiny_cohort[0].image)
    expected = sample(
        reduce_picture(equalise_histogram(picture.pixels), picture.frame, 40), view.test_frame(picture.frame)
    )
    item = CohortItems(tiny_cohort, view)[Key(0, -1)]
    assert np.array_equal(item.image, expected)
    assert not np.array_equal(item.image, CohortItems(tiny_cohort, View(size=40))[Key(0, -1)].image)


# -- cohorts of which only a part is marked --------------------------------------------------------------------------


def test_a_crop_that_only_fractures_would_get_is_refused(tiny_cohort):
    refuse_unmarked(tiny_cohort, View())
    refuse_unmarked(tiny_cohort, View(jitter=RegionJitter()))
    refuse_unmarked(tiny_cohort, View(crop=Crop("focus")))
    with pytest.raises(CohortError, match=r"18 of 36 cases .*no fracture: 0 of 18, fracture: 18 of 18") as caught:
        refuse_unmarked(tiny_cohort, View(crop=Crop("finding")))
    assert "gives the label away" in caught.value.remedy
    fractures = tiny_cohort.where(lambda case: case.label == "fracture")
    refuse_unmarked(fractures, View(crop=Crop("finding")))
    refuse_unmarked(fractures.where(lambda case: False), View(crop=Crop("finding")))
    with pytest.raises(CohortError, match="only 0 of 36"):
        bare = replace(tiny_cohort, cases=tuple(replace(c, regions=()) for c in tiny_cohort))
        refuse_unmarked(bare, View(crop=Crop("focus")))


def test_cropped_items_show_the_box_of_their_own_case(tiny_cohort):
    view = View(size=16, crop=Crop("focus"))
    items = CohortItems(tiny_cohort, view)
    for index in (0, 5, 9):
        row, column = tiny_cohort[index].regions[1].start
        assert np.allclose(items[Key(index, -1)].frame.map_points([[0, 0], [16, 16]]),
                           [[row, column], [row + 16, column + 16]])  # fmt: skip
    a, b = items[Key(1, 0)], CohortItems(tiny_cohort, view)[Key(1, 0)]
    assert np.array_equal(a.image, b.image) and a.frame != items[Key(1, 1)].frame


# -- settings -------------------------------------------------------------------------------------------------------


def test_views_are_recipes_words():
    view = View(equalise=True, crop=Crop("focus", 0.1, 0.2), jitter=RegionJitter(zoom_in=(1.1, 1.2)))
    recipe = tiny_recipe(view=view)
    assert build_from_plain(to_plain(recipe, CATALOGUE), CATALOGUE) == recipe


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crop(margin=-0.1), lambda: Crop(jitter=1.0), lambda: Crop(margin=math.nan),
        lambda: RegionJitter(zoom_in=(1.9, 1.3)), lambda: RegionJitter(zoom_out=(0.0, 0.5)),
        lambda: RegionJitter(chance=1.5), lambda: RegionJitter(shift=-0.1), lambda: RegionJitter(shift=math.nan),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(make):
    with pytest.raises(RecipeError) as caught:
        make()
    assert caught.value.remedy


def test_one_cohort_name_is_in_the_refusal():
    cohort = Cohort("hips", ("a", "b"), (case_of(Box((1, 1), (5, 5), Tag("finding"))), case_of(label="b", name="d")))
    with pytest.raises(CohortError, match="'hips'"):
        refuse_unmarked(cohort, View(crop=Crop()))
