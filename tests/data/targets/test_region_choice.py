"""Which regions guide which maps: styles, margins, roles, tags, and crops that cut a region away."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.data.loader import CohortItems, Key
from sightline.data.targets.region_choice import RegionChoice, draw_targets
from sightline.data.views.image_view import View
from sightline.errors import RecipeError
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon, Scribble, find_style
from sightline.structures.tag import Tag

SHAPE = (40, 50)
CLASSES = ("none", "A", "B")
FRAME = Frame.of_image(SHAPE)


def mask(top, left, bottom, right, tag=None):
    pixels = np.zeros(SHAPE, bool)
    pixels[top:bottom, left:right] = True
    return Mask(pixels, tag or Tag())


def case(*regions, label="A"):
    return Case("c", "s", "p", Path("none.png"), label, regions, shape=SHAPE)


def drawn(region):
    return region.draw(FRAME) > 0


def test_a_region_of_the_style_is_taken_as_it_is():
    box, line = Box((1, 2), (9, 9)), Scribble((((3, 3), (8, 8)),))
    every = case(mask(0, 0, 10, 10), box, line)
    assert RegionChoice("box").pick(every, SHAPE) == (box,)
    assert RegionChoice("scribble").pick(every, SHAPE) == (line,)
    assert [find_style(r) for r in RegionChoice("mask").pick(every, SHAPE)] == ["mask"]


def test_several_regions_of_the_style_are_all_taken():
    boxes = (Box((1, 2), (9, 9)), Box((20, 20), (30, 30)))
    assert RegionChoice("box").pick(case(*boxes), SHAPE) == boxes


def test_a_style_is_made_only_from_the_richest_other():
    (box,) = RegionChoice("box").pick(case(mask(5, 6, 15, 26), Scribble((((4, 6), (14, 26)),))), SHAPE)
    assert (box.start, box.stop) == ((5, 6), (15, 26))
    (line,) = RegionChoice("scribble", stroke_px=2.0).pick(case(mask(5, 6, 15, 46)), SHAPE)
    assert line.stroke_px == 2.0
    inside = drawn(line)
    assert inside.any() and not (inside & ~drawn(mask(4, 5, 16, 47))).any()
    assert inside[9:11].sum() > 40  # the midline of a bar lies along it
    (made,) = RegionChoice("mask").pick(case(Box((5, 6), (15, 26))), SHAPE)
    assert np.array_equal(drawn(made), drawn(mask(5, 6, 15, 26)))
    square = Polygon((((5, 6), (5, 26), (15, 26), (15, 6)),), Tag())
    assert RegionChoice("box").pick(case(square), SHAPE) == (Box((5.0, 6.0), (15.0, 26.0)),)


@pytest.mark.parametrize("style", ["box", "mask", "scribble"])
def test_what_no_region_of_the_style_describes_is_converted(style):
    """Another finding, another class, another reader: each keeps its mark, whatever tool drew it."""
    a = Tag("finding", "A", "r")
    one, around = mask(5, 5, 15, 15, a), Box((3, 3), (18, 18), a)  # a box with a margin is the outline's
    choice = RegionChoice(style, "finding")
    assert len(choice.pick(case(one, around), SHAPE)) == 1
    for other in (Box((25, 25), (35, 40), a), replace(around, tag=Tag("finding", "B", "r"))):
        picked = choice.pick(case(one, other, around), SHAPE)
        assert len(picked) == 2 and {find_style(region) for region in picked} == {style}
    picked = choice.pick(case(one, replace(around, tag=Tag("finding", "A", "s"))), SHAPE)
    assert [region.tag.reader for region in picked] == ["r", "s"]


def test_converted_regions_keep_their_tag():
    tag = Tag("finding", "B", "reader 1")
    (box,) = RegionChoice("box", "finding").pick(case(mask(5, 6, 15, 26, tag)), SHAPE)
    assert box.tag == tag


def test_a_margin_widens_by_source_pixels():
    (box,) = RegionChoice("box", margin_px=3.0).pick(case(Box((10, 10), (20, 20))), SHAPE)
    assert (box.start, box.stop) == ((7, 7), (23, 23))
    (line,) = RegionChoice("scribble", margin_px=3.0).pick(case(Scribble((((10, 10), (20, 20)),), 2.0)), SHAPE)
    assert line.stroke_px == 8.0
    (wide,) = RegionChoice("mask", margin_px=2.0).pick(case(mask(10, 10, 11, 11)), SHAPE)
    assert np.argwhere(drawn(wide)).tolist() == [
        [r, c] for r in range(8, 13) for c in range(8, 13) if (r - 10) ** 2 + (c - 10) ** 2 <= 4
    ]


def test_only_the_role_asked_for_guides():
    both = case(Box((1, 1), (5, 5), Tag("focus")), Box((2, 2), (4, 4), Tag("finding", "A")))
    assert [r.tag.role for r in RegionChoice("box", "finding").pick(both, SHAPE)] == ["finding"]
    assert [r.tag.role for r in RegionChoice("box", "focus").pick(both, SHAPE)] == ["focus"]
    assert RegionChoice("box", "finding").pick(case(Box((1, 1), (5, 5))), SHAPE) == ()


@pytest.mark.parametrize(
    ("mode", "label", "expected"),
    [
        ("all", None, (0, 1, 2)), ("all", "B", (0, 1, 2)), ("tagged", "B", (2,)), ("tagged", None, (0, 1, 2)),
        ("tagged", "a class of another cohort", ()), ("own", "B", (1,)), ("own", None, (1,)),
    ],
)  # fmt: skip
def test_which_class_maps_a_region_guides(mode, label, expected):
    choice = RegionChoice("box", classes=mode)
    assert choice.find_guided_classes(Box((1, 1), (5, 5), Tag("focus", label)), case(), CLASSES) == expected


def test_targets_by_class_hold_the_regions_of_that_class_alone():
    a, b = Box((1, 1), (5, 5), Tag("finding", "A")), Box((10, 10), (20, 22), Tag("finding", "B"))
    choice = RegionChoice("box", "finding", "tagged")
    picked = choice.pick(case(a, b), SHAPE)
    targets, guided = draw_targets(picked, choice, case(a, b), CLASSES, FRAME, shared=False)
    assert targets.shape == (3, *SHAPE) and guided.tolist() == [False, True, True]
    assert targets[0].sum() == 0 and targets[1].sum() == 16 and targets[2].sum() == 120


def test_a_shared_target_is_one_channel_that_guides_every_class():
    choice = RegionChoice("box")
    box = Box((1, 1), (5, 5))
    targets, guided = draw_targets((box,), choice, case(box), CLASSES, FRAME, shared=True)
    assert targets.shape == (1, *SHAPE) and targets.sum() == 16 and guided.tolist() == [True] * 3


@pytest.mark.parametrize("shared", [True, False])
def test_without_a_region_nothing_is_guided(shared):
    targets, guided = draw_targets((), RegionChoice("box"), case(), CLASSES, FRAME, shared=shared)
    assert targets.sum() == 0 and not guided.any() and guided.shape == (3,)
    guided[0] = True  # a batch may write to it


@pytest.mark.parametrize("shared", [True, False])
def test_a_crop_that_cuts_the_region_away_guides_nothing(shared):
    box = Box((1, 1), (5, 5))
    away = FRAME.crop((20, 20), (16, 16))
    targets, guided = draw_targets((box,), RegionChoice("box"), case(box), CLASSES, away, shared=shared)
    assert targets.sum() == 0 and not guided.any()


def test_lengths_that_are_none_are_refused():
    for fields in ({"margin_px": -1.0}, {"stroke_px": 0.0}):
        with pytest.raises(RecipeError):
            RegionChoice(**fields)


# -- through the loader: a fracture's box guides only the fracture map ------------------------------------------------


def test_fracatlas_like_tags_guide_only_the_fracture_map(tiny_cohort):
    items = CohortItems(tiny_cohort, View(size=48), RegionChoice("box", "finding", "tagged"))
    for index, its in enumerate(tiny_cohort):
        item = items[Key(index, -1)]
        assert item.target.shape == (2, 48, 48)
        assert item.guided.tolist() == [False, its.label == "fracture"]
        assert item.target[0].sum() == 0
        assert (item.target[1].sum() > 0) == (its.label == "fracture")


def test_focus_regions_share_one_channel_and_own_does_not(tiny_cohort):
    for mode, channels in (("all", 1), ("tagged", 1), ("own", 2)):
        items = CohortItems(tiny_cohort, View(size=48), RegionChoice("mask", "focus", mode))
        item = items[Key(0, 0)]
        assert item.target.shape[0] == channels
        assert item.guided.tolist() == ([True, True] if channels == 1 else [True, False])


def test_one_image_without_regions_among_others(tiny_cohort):
    bare = (replace(tiny_cohort[0], regions=()), *tiny_cohort.cases[1:])
    items = CohortItems(Cohort("t", tiny_cohort.classes, bare), View(size=48), RegionChoice("mask"))
    assert not items[Key(0, 0)].guided.any() and items[Key(0, 0)].target.sum() == 0
    assert items[Key(1, 0)].guided.all()


def test_without_a_choice_there_are_no_targets(tiny_cohort):
    item = CohortItems(tiny_cohort, View(size=48))[Key(0, 0)]
    assert item.target is None and not item.guided.any()
