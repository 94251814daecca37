"""Training on patches: where they lie, what they are called, and which cases can give any."""

from dataclasses import replace

import numpy as np
import pytest

from sightline.data.loader import CohortItems, Key, iterate_training_batches
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.data.views.patches import Patches, choose_patch_label, find_normal_class, select_patchable
from sightline.errors import CohortError, RecipeError
from sightline.structures.case import Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box
from sightline.structures.tag import Tag

SOURCE = Frame.of_image((400, 300))
FINDING = (100.0, 200.0, 120.0, 230.0)
VIEW = View(size=200, patches=Patches(size=64, zoom=(0.5, 2.0), around=1.0), rotation_deg=20.0)


def test_a_patch_around_a_finding_holds_its_middle_and_has_its_zoom():
    scales = []
    for seed in range(60):
        frame = VIEW.patches.draw(VIEW.test_frame(SOURCE), SOURCE, [FINDING], np.random.default_rng(seed))
        middle = frame.unmap_points([[110.0, 215.0]])[0]
        assert ((middle > 0) & (middle < 64)).all()
        # the view shows 400 source pixels as 200: two source pixels a pixel at zoom 1
        scales.append(2.0 / frame.scale)
    assert 0.5 <= min(scales) < 0.7 and 1.5 < max(scales) <= 2.0


def test_a_patch_anywhere_has_its_centre_in_the_picture_not_in_the_padding():
    for seed in range(60):
        frame = Patches(size=64).draw(VIEW.test_frame(SOURCE), SOURCE, [], np.random.default_rng(seed))
        row, column = frame.map_points([[32.0, 32.0]])[0]
        assert 0 <= row <= 400 and 0 <= column <= 300


def test_turned_patches_keep_the_finding_in_view_or_say_normal(tiny_cohort):
    case = next(case for case in tiny_cohort if case.label == "fracture")
    frame = Frame.of_image((40, 48))
    assert choose_patch_label(case, tiny_cohort.classes, [(5.0, 5.0, 9.0, 9.0)], frame.crop((0, 0), (16, 16))) == 1
    # a corner that reaches in is enough, one that only touches the rim is not
    assert choose_patch_label(case, tiny_cohort.classes, [(15.5, 15.5, 30.0, 30.0)], frame.crop((0, 0), (16, 16))) == 1
    assert choose_patch_label(case, tiny_cohort.classes, [(16.0, 3.0, 30.0, 9.0)], frame.crop((0, 0), (16, 16))) == 0
    assert choose_patch_label(case, tiny_cohort.classes, [], frame) == 0


def test_items_are_patches_in_training_and_whole_at_test_time(tiny_cohort):
    view = View(size=48, patches=Patches(size=32, around=0.5), rotation_deg=10.0)
    items = CohortItems(tiny_cohort, view, RegionChoice(style="box", role="finding"), seed=3)
    positives = 0
    for index, case in enumerate(tiny_cohort):
        for epoch in range(4):
            item = items[Key(index, epoch)]
            assert item.image.shape[1:] == (32, 32)
            reaches = bool(item.target.any())
            # an any-hit target touches the grid exactly where the label says that a finding reaches in
            assert (item.label == 1) == reaches
            assert case.label == "fracture" or item.label == 0
            positives += item.label
        whole = items[Key(index, -1)]
        assert whole.image.shape[1:] == (48, 48) and whole.label == tiny_cohort.class_index(case.label)
    assert positives > 0
    batch = next(iter(iterate_training_batches(items, epoch=0, batch_size=4)))
    assert batch.images.shape[-2:] == (32, 32)


def test_every_picture_gives_several_patches_each_its_own(tiny_cohort):
    items = CohortItems(tiny_cohort, View(size=48, patches=Patches(size=32, per_picture=3)), seed=1)
    batches = list(iterate_training_batches(items, epoch=0, batch_size=4, repeats=items.repeats))
    ids = [case_id for batch in batches for case_id in batch.case_ids]
    assert len(ids) == 3 * len(tiny_cohort) == items.images_per_epoch()
    assert {ids.count(case.case_id) for case in tiny_cohort} == {3}
    first = tiny_cohort[0].case_id
    frames = [f for batch in batches for f, i in zip(batch.frames, batch.case_ids, strict=True) if i == first]
    assert len(set(frames)) == 3
    again = [i for batch in iterate_training_batches(items, epoch=0, batch_size=4, repeats=3) for i in batch.case_ids]
    assert again == ids


def test_only_cases_whose_findings_are_known_give_patches(tiny_cohort):
    choice = RegionChoice(style="box", role="finding")
    assert len(select_patchable(tiny_cohort, choice)) == len(tiny_cohort)
    first = next(i for i, case in enumerate(tiny_cohort) if case.label == "fracture")
    bare = replace(tiny_cohort[first], regions=())
    cases = tuple(bare if i == first else case for i, case in enumerate(tiny_cohort))
    kept = select_patchable(replace(tiny_cohort, cases=cases), choice)
    assert bare.case_id not in {case.case_id for case in kept}
    assert kept.counts()["no fracture"] == tiny_cohort.counts()["no fracture"]
    hidden = select_patchable(tiny_cohort, replace(choice, share=0.3))
    shown = replace(choice, share=0.3).patients(tiny_cohort)
    assert {c.patient_id for c in hidden if c.label == "fracture"} <= shown
    assert hidden.counts()["fracture"] < tiny_cohort.counts()["fracture"]


def test_patches_need_a_normal_class_and_a_marked_finding(tiny_cohort):
    with pytest.raises(CohortError, match="class to belong to"):
        find_normal_class(("A1", "A2"))
    bare = replace(tiny_cohort, cases=tuple(replace(case, regions=()) for case in tiny_cohort))
    with pytest.raises(CohortError, match="no marked finding"):
        select_patchable(bare, RegionChoice(role="finding"))


@pytest.mark.parametrize(
    "broken", [{"size": 4}, {"zoom": (0.0, 1.0)}, {"zoom": (2.0, 1.0)}, {"around": 1.5}, {"per_picture": 0}]
)
def test_patches_that_mean_nothing_are_refused(broken):
    with pytest.raises(RecipeError, match="Patches"):
        Patches(**broken)


def test_a_box_outside_a_turned_patch_does_not_count():
    case = Cohort("c", ("normal", "A1"), ()).classes
    box = Box((10.0, 60.0), (14.0, 64.0), Tag("finding"))
    turned = Frame.of_image((100, 100)).crop((20, 20), (60, 60)).rotate(45.0)
    corners = (box.start[0], box.start[1], box.stop[0], box.stop[1])
    assert box.draw(turned).any() == (patch_label_of(case, corners, turned) == 1)


def patch_label_of(classes, corners, frame):
    from pathlib import Path

    from sightline.structures.case import Case

    return choose_patch_label(Case("a", "a", "a", Path("a.png"), "A1"), classes, [corners], frame)
