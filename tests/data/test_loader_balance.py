"""Epochs with repeated classes, boxes in batches, marks of a share of the patients, and what is held in memory."""

from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.paths import DATA

from sightline.data.loader import (
    CohortItems,
    Key,
    compute_balanced_epoch_length,
    count_batches_per_epoch,
    draw_epoch_order,
    iterate_training_batches,
    place_box_on_grid,
)
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views import cache as pictures
from sightline.data.views.crops import Crop, RegionJitter
from sightline.data.views.image_view import View
from sightline.errors import RecipeError
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask
from sightline.structures.tag import Tag

VIEW = View(size=32, contrast=0.2)
FINDINGS = RegionChoice("box", "finding")


@pytest.fixture
def uneven(tiny_cohort):
    """All 24 training cases' normal ones, and three fractures."""
    train = tiny_cohort.split("train")
    few = [c.case_id for c in train if c.label == "fracture"][:3]
    return train.where(lambda case: case.label == "no fracture" or case.case_id in few)


# -- the order ------------------------------------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60), seed=st.integers(0, 9), epoch=st.integers(0, 9)
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_every_class_is_repeated_up_to_the_largest(labels, seed, epoch):
    y = np.array(labels)
    order = draw_epoch_order(len(y), seed, epoch, y)
    largest = max(Counter(labels).values())
    assert Counter(y[order].tolist()) == dict.fromkeys(set(labels), largest)
    assert len(order) == compute_balanced_epoch_length(y)
    # no image of a class comes two times more often than another
    for label in set(labels):
        times = Counter(order[y[order] == label].tolist())
        assert set(times) == set(np.flatnonzero(y == label).tolist())
        assert max(times.values()) - min(times.values()) <= 1
    assert np.array_equal(order, draw_epoch_order(len(y), seed, epoch, y))


def test_orders_without_labels_are_what_they_were():
    for n, seed, epoch in ((30, 1, 1), (7, 0, 5)):
        expected = np.random.default_rng([seed, epoch, n, 1]).permutation(n)
        assert np.array_equal(draw_epoch_order(n, seed, epoch), expected)


def test_the_images_that_come_once_more_change_from_epoch_to_epoch():
    y = np.array([0] * 10 + [1] * 4)
    more = {
        tuple(sorted(i for i, n in Counter(draw_epoch_order(14, 0, e, y).tolist()).items() if n == 3))
        for e in range(12)
    }
    assert len(more) > 3 and {len(m) for m in more} == {2}


def test_classes_come_as_often_as_the_smallest_drawn_anew():
    y = np.array([0] * 30 + [1] * 4)
    orders = [draw_epoch_order(34, 5, e, y, "least") for e in range(6)]
    for order in orders:
        assert Counter(y[order].tolist()) == {0: 4, 1: 4} and len(set(order.tolist())) == 8
        assert len(order) == compute_balanced_epoch_length(y, "least")
    assert len({frozenset(order[y[order] == 0].tolist()) for order in orders}) == 6
    assert compute_balanced_epoch_length(y, "none") == 34


# -- the batches ----------------------------------------------------------------------------------------------------


def test_balanced_epochs_show_each_repetition_anew_and_can_be_entered_in_the_middle(uneven):
    items = CohortItems(uneven, VIEW, RegionChoice("mask"), seed=3)
    n = compute_balanced_epoch_length(items.labels)
    whole = list(iterate_training_batches(items, epoch=1, batch_size=4, balance="most"))
    assert len(whole) == count_batches_per_epoch(n, 4)
    ids = list(chain.from_iterable(batch.case_ids for batch in whole))
    labels = torch.cat([batch.labels for batch in whole])
    assert labels.bincount().tolist() == [n // 2, n // 2] and n // 2 == uneven.counts()["no fracture"]
    frames = list(chain.from_iterable(batch.frames for batch in whole))
    repeated = [name for name, times in Counter(ids).items() if times > 1]
    assert len(repeated) == 3
    for name in repeated:
        seen = [frame for case_id, frame in zip(ids, frames, strict=True) if case_id == name]
        assert len(set(seen)) == len(seen)
    tail = list(iterate_training_batches(items, epoch=1, batch_size=4, balance="most", first_batch=2))
    again = CohortItems(uneven, VIEW, RegionChoice("mask"), seed=3)
    for a, b in zip(whole[2:], tail, strict=True):
        assert a.case_ids == b.case_ids and torch.equal(a.images, b.images)
    for a, b in zip(
        whole, iterate_training_batches(again, epoch=1, batch_size=4, balance="most", workers=1), strict=True
    ):
        assert a.case_ids == b.case_ids and torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)


def test_ranks_part_a_balanced_epoch(uneven):
    items = CohortItems(uneven, VIEW, seed=3)
    parts = [
        list(iterate_training_batches(items, epoch=0, batch_size=3, balance="most", rank=r, world=2)) for r in (0, 1)
    ]
    assert {len(part) for part in parts} == {count_batches_per_epoch(compute_balanced_epoch_length(items.labels), 3, 2)}
    frames = [frame for part in parts for batch in part for frame in batch.frames]
    assert len(set(frames)) == len(frames)


def test_the_first_draw_is_the_draw_of_an_epoch_without_repetitions(uneven):
    items = CohortItems(uneven, VIEW, seed=3)
    plain, first, second = items[Key(1, 2)], items[Key(1, 2, 0)], items[Key(1, 2, 1)]
    assert np.array_equal(plain.image, first.image) and not np.array_equal(plain.image, second.image)
    rng = np.random.default_rng([3, 2, 1])
    assert plain.frame == VIEW.training_frame(Frame.of_image(uneven[1].shape, uneven[1].spacing_mm), rng)


def test_a_class_without_cases_is_no_crash(tiny_cohort):
    only = replace(tiny_cohort, classes=("A3", *tiny_cohort.classes)).split("train")
    items = CohortItems(only, VIEW)
    assert compute_balanced_epoch_length(items.labels) == 2 * max(only.counts().values())
    (batch, *_) = iterate_training_batches(items, epoch=0, batch_size=8, balance="most")
    assert set(batch.labels.tolist()) == {1, 2}


# -- boxes ----------------------------------------------------------------------------------------------------------


def test_boxes_are_of_the_largest_finding_in_fractions_of_the_grid(tiny_cohort):
    items = CohortItems(tiny_cohort, View(size=48), boxes=True)
    for index, case in enumerate(tiny_cohort):
        box = items[Key(index, -1)].box
        findings = [r for r in case.regions if r.tag.role == "finding"]
        if not findings:
            assert np.isnan(box).all() and case.label == "no fracture"
            continue
        row, column = findings[0].start
        # pictures of 40 x 48 are padded by 4 above
        assert np.allclose(box, [(row + 3 + 4) / 48, (column + 3) / 48, 6 / 48, 6 / 48], atol=1e-6)


def test_batches_hold_boxes_only_where_they_are_asked_for(tiny_cohort):
    asked, _ = (
        next(iterate_training_batches(CohortItems(tiny_cohort, VIEW, boxes=b), epoch=0, batch_size=6)) for b in (1, 0)
    )
    assert asked.boxes.shape == (6, 4) and asked.boxes.dtype == torch.float32
    marked = ~asked.boxes.isnan().any(dim=1)
    assert torch.equal(marked, asked.labels == 1)
    plain = next(iterate_training_batches(CohortItems(tiny_cohort, VIEW), epoch=0, batch_size=6))
    assert plain.boxes is None and torch.equal(plain.images, asked.images)


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_turned_grid_carries_the_centre_and_keeps_the_sides(seed):
    source = Frame.of_image((100, 140))
    corners = (40.0, 50.0, 60.0, 80.0)
    frame = View(size=64, crop_area=(0.7, 1.0)).training_frame(source, np.random.default_rng(seed))
    box = place_box_on_grid(corners, frame)
    centre = frame.unmap_points((50.0, 65.0))
    if ((centre < 0) | (centre > 64)).any():
        assert np.isnan(box).all()
    else:
        assert np.allclose(box[:2], centre / 64, atol=1e-6)
        assert np.allclose(box[2:], [20 / frame.scale / 64, 30 / frame.scale / 64], atol=1e-6)


def test_a_box_cut_away_by_the_crop_is_none():
    away = Frame.of_image((100, 140)).crop((0, 0), (30, 30))
    assert np.isnan(place_box_on_grid((40.0, 50.0, 60.0, 80.0), away)).all()
    assert np.isnan(place_box_on_grid(None, away)).all()
    # half of it in view counts, with its full size
    assert np.allclose(place_box_on_grid((20.0, 0.0, 38.0, 10.0), away), [29 / 30, 5 / 30, 18 / 30, 10 / 30])


def test_in_the_experts_crop_the_box_fills_the_grid(tiny_cohort):
    items = CohortItems(tiny_cohort, View(size=16, crop=Crop(margin=0.25)), boxes=True)
    marked = [i for i, c in enumerate(tiny_cohort) if c.label == "fracture"]
    assert np.allclose(items[Key(marked[0], -1)].box, [0.5, 0.5, 1 / 1.5, 1 / 1.5], atol=1e-6)


def test_the_jitter_of_a_whole_picture_keeps_the_box_in_the_batch(tiny_cohort):
    fractures = tiny_cohort.where(lambda case: case.label == "fracture")
    items = CohortItems(fractures, View(size=32, jitter=RegionJitter(chance=1.0)), boxes=True)
    for batch in iterate_training_batches(items, epoch=0, batch_size=6):
        assert (batch.boxes[:, :2] - batch.boxes[:, 2:] / 2 >= -0.06).all()
        assert (batch.boxes[:, :2] + batch.boxes[:, 2:] / 2 <= 1.06).all()


# -- a share of the marks -------------------------------------------------------------------------------------------


def crowd(sizes):
    """A patient a size, with that many marked images and one unmarked one."""
    from pathlib import Path

    from sightline.structures.case import Case

    cases = []
    for p, size in enumerate(sizes):
        for v in range(size + 1):
            regions = (Box((1, 1), (5, 5), Tag("finding", "b")),) if v < size else ()
            cases.append(Case(f"{p}-{v}", f"{p}-{v}", f"P{p}", Path("none.png"), "b" if v < size else "a", regions))
    return Cohort("crowd", ("a", "b"), tuple(cases))


def marked_share(cohort, patients):
    marked = [case.patient_id for case in cohort if case.regions]
    return np.mean([p in patients for p in marked])


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=60), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_smaller_shares_lie_within_larger_ones_and_nobody_is_drawn_for_nothing(sizes, seed):
    cohort = crowd(sizes)
    drawn = [replace(FINDINGS, share=s, share_seed=seed).patients(cohort) for s in (0.01, 0.05, 0.2, 0.5, 0.99)]
    having = {f"P{p}" for p, size in enumerate(sizes) if size}
    assert all(a <= b for a, b in pairwise(drawn))
    assert all(group <= having and bool(group) == bool(having) for group in drawn)
    assert FINDINGS.patients(cohort) is None


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_share_of_marked_images_is_near_the_one_asked_for(share, seed):
    sizes = np.random.default_rng(7).choice([0, 1, 2, 3, 5, 20], 90, p=[0.3, 0.3, 0.15, 0.1, 0.1, 0.05])
    cohort = crowd(sizes.tolist())
    patients = replace(FINDINGS, share=share, share_seed=seed).patients(cohort)
    assert marked_share(cohort, patients) == pytest.approx(share, rel=0.12, abs=0.006)


def test_another_seed_draws_others_and_the_order_of_cases_does_not_matter():
    cohort = crowd([2] * 50)
    drawn = [replace(FINDINGS, share=0.2, share_seed=s).patients(cohort) for s in (0, 1)]
    assert drawn[0] != drawn[1] and all(len(d) == 10 for d in drawn)
    turned = replace(cohort, cases=cohort.cases[::-1])
    assert replace(FINDINGS, share=0.2).patients(turned) == drawn[0]


def test_marks_outside_the_share_neither_guide_nor_show_their_box(tiny_cohort):
    choice = replace(FINDINGS, share=0.3)
    patients = choice.patients(tiny_cohort)
    assert 1 <= len(patients) < 9
    items = CohortItems(tiny_cohort, VIEW, choice, boxes=choice)
    guided = {case.patient_id for i, case in enumerate(tiny_cohort) if items[Key(i, -1)].guided.any()}
    boxed = {case.patient_id for i, case in enumerate(tiny_cohort) if not np.isnan(items[Key(i, -1)].box).any()}
    assert guided == boxed == patients
    # boxes are of findings, also where focus regions guide
    focus = RegionChoice("mask", "focus", share=0.3)
    items = CohortItems(tiny_cohort, VIEW, focus, boxes=focus)
    assert {c.patient_id for i, c in enumerate(tiny_cohort) if not np.isnan(items[Key(i, -1)].box).any()} == patients
    # the share counts patients with marks of its own role
    assert len(focus.patients(tiny_cohort)) == 5


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(RecipeError, match="share"):
        RegionChoice(share=share)


@pytest.mark.skipif(not (DATA / "fracatlas" / "dataset.csv").is_file(), reason="FracAtlas is not here")
@pytest.mark.parametrize(("share", "tolerance"), [(0.05, 0.006), (0.2, 0.016)])
def test_five_and_twenty_percent_of_fracatlas(share, tolerance):
    from sightline.data.datasets import fracatlas

    train = fracatlas.read(DATA / "fracatlas", fracatlas.Options(contradictions="set aside")).split("train")
    for seed in range(3):
        patients = replace(FINDINGS, share=share, share_seed=seed).patients(train)
        assert marked_share(train, patients) == pytest.approx(share, abs=tolerance)


# -- memory ---------------------------------------------------------------------------------------------------------


def test_masks_made_from_marks_are_held_within_a_budget_and_change_nothing(tiny_cohort):
    choice = RegionChoice("mask", "finding")
    rich = CohortItems(tiny_cohort, VIEW, choice)
    poor = CohortItems(tiny_cohort, VIEW, choice, cache_bytes=8 * 4000)
    for index in [*range(len(tiny_cohort)), *range(len(tiny_cohort))]:
        a, b = rich[Key(index, -1)], poor[Key(index, -1)]
        assert np.array_equal(a.target, b.target)
        assert poor._targets._picked.held_bytes <= 4000
    masks = [r for kept in rich._targets._picked.values() for r in kept]
    assert all(isinstance(m, Mask) for m in masks) and len(masks) == 18
    assert rich._targets._picked.held_bytes == 18 * 40 * 48 and len(poor._targets._picked) < len(tiny_cohort)


def test_a_cropped_cohort_is_read_once(tiny_cohort, monkeypatch):
    read, count = pictures.read_image, []
    monkeypatch.setattr(pictures, "read_image", lambda path: count.append(path) or read(path))
    items = CohortItems(tiny_cohort, View(size=16, crop=Crop("focus")))
    for epoch in range(3):
        list(iterate_training_batches(items, epoch=epoch, batch_size=9))
    assert len(count) == len(set(count)) == len(tiny_cohort)


def test_masks_in_files_are_read_once_and_change_nothing(tmp_path, monkeypatch):
    """A file a mask, of one label among two: what is kept is drawn as what is read."""
    labels = np.zeros((2, 40, 48), np.uint8)
    labels[0, 5:20, 8:30], labels[0, 25:30, 5:9], labels[1, 12:14, 3:40] = 2, 1, 2
    cases = []
    for number, values in enumerate(labels):
        image, mask = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        Image.fromarray(np.full((40, 48), 100, np.uint8)).save(image)
        Image.fromarray(values).save(mask)
        marks = (Mask(mask, Tag("finding", None, "reader"), value=2),)
        cases.append(Case(str(number), str(number), str(number), image, "broken", marks, "train", None, (40, 48)))
    cohort = Cohort("files", ("whole", "broken"), tuple(cases), tmp_path)
    items = CohortItems(cohort, VIEW, RegionChoice("mask", "finding"))
    frame = Frame.of_image((40, 48))
    for index, case in enumerate(cohort):
        drawn, _ = items._targets.draw(index, frame, frame)
        assert np.array_equal(drawn[0], labels[index] == 2) and np.array_equal(
            drawn[0], case.regions[0].draw(frame) > 0
        )
    assert items._targets._picked.held_bytes == 2 * 40 * 48
    monkeypatch.setattr("sightline.structures.regions.read_mask", lambda *given: pytest.fail("read again"))
    for index in range(2):
        assert items._targets.draw(index, frame, frame)[0].any()
