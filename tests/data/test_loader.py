"""Batches: a function of (seed, epoch, position) alone, whatever the cache, the workers or the rank."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.data import loader
from sightline.data.loader import CohortItems, count_batches_per_epoch, draw_epoch_order, iterate_training_batches
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.targets.region_targets import UNKNOWN
from sightline.data.views import cache as pictures
from sightline.data.views.cache import Pictures
from sightline.data.views.image_view import View
from sightline.data.views.patches import Patches
from sightline.errors import CohortError, RecipeError, UnreadableFile
from sightline.structures.case import Case, Cohort

VIEW = View(size=32, contrast=0.2, brightness=0.1)


def items_of(cohort, **changes):
    return CohortItems(cohort, VIEW, RegionChoice("mask"), **{"seed": 3, **changes})


def equal(a, b):
    return (
        a.case_ids == b.case_ids
        and a.frames == b.frames
        and torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.targets, b.targets)
        and torch.equal(a.guided, b.guided)
    )


def epoch_of(items, **changes):
    return list(iterate_training_batches(items, **{"epoch": 2, "batch_size": 5, **changes}))


def test_an_epoch_repeats_byte_for_byte_and_differs_from_others(tiny_cohort):
    items = items_of(tiny_cohort)
    first, again = epoch_of(items), epoch_of(items_of(tiny_cohort))
    assert len(first) == len(again) and all(map(equal, first, again))
    for other in (epoch_of(items, epoch=1), epoch_of(items_of(tiny_cohort, seed=4))):
        assert not any(map(equal, first, other))
    # the same image is drawn anew in another epoch
    frames = [dict(zip(b.case_ids, b.frames, strict=True)) for b in (*first, *epoch_of(items, epoch=1))]
    assert len({f["P00-0"] for f in frames if "P00-0" in f}) == 2


@pytest.mark.parametrize("k", [1, 3, 7, 8])
def test_entering_in_the_middle_gives_the_tail_of_the_epoch(tiny_cohort, k):
    items = items_of(tiny_cohort)
    whole = epoch_of(items)
    tail = epoch_of(items, first_batch=k)
    assert len(tail) == max(0, len(whole) - k) and all(map(equal, whole[k:], tail))


@given(n=st.integers(2, 200), batch_size=st.integers(2, 17), world=st.integers(1, 4), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_ranks_share_the_batches_of_one_device(n, batch_size, world, seed):
    batch_size = max(batch_size, world)
    keys = {}

    class Served(Exception):
        pass

    def record(items, blocks, workers):
        keys[len(keys)] = blocks
        return iter(())

    class Items:
        def __len__(self):
            return n

        @property
        def drawn_cases(self):
            return [[i] for i in range(n)]

    items = Items()
    items.seed, items.view = seed, VIEW
    original, loader._serve = loader._serve, record
    try:
        for rank in range(world):
            iterate_training_batches(items, epoch=1, batch_size=batch_size, rank=rank, world=world)
    finally:
        loader._serve = original
    seen = [key.index for blocks in keys.values() for block in blocks for key in block]
    assert len(set(seen)) == len(seen)
    steps = {len(blocks) for blocks in keys.values()}
    assert steps == {count_batches_per_epoch(n, batch_size, world)}
    left_out = n - len(seen)
    rest = n % batch_size
    assert left_out == (rest if rest < max(2, world) and n > batch_size else 0)
    if n >= world:
        assert min(len(block) for blocks in keys.values() for block in blocks) >= 1
    # together the devices see the batches of one
    order = draw_epoch_order(n, seed, 1).tolist()
    for i in range(len(keys[0])):
        together = sorted(key.index for blocks in keys.values() for key in blocks[i])
        assert together == sorted(order[i * batch_size : (i + 1) * batch_size])


def test_the_order_is_a_permutation_of_seed_and_epoch():
    orders = {(s, e): tuple(draw_epoch_order(30, s, e)) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert all(sorted(order) == list(range(30)) for order in orders.values())
    assert tuple(draw_epoch_order(30, 1, 1)) == orders[1, 1]


def test_the_left_out_image_changes_from_epoch_to_epoch():
    left_out = {int(draw_epoch_order(31, 0, epoch)[-1]) for epoch in range(20)}
    assert len(left_out) > 5


def test_a_tiny_memory_budget_is_kept_and_changes_nothing(tiny_cohort):
    rich, poor = items_of(tiny_cohort), items_of(tiny_cohort, cache_bytes=3000)
    a, b = epoch_of(rich), epoch_of(poor)
    assert all(map(equal, a, b))
    one = max(entry[0].bytes for entry in rich.pictures.kept.values())
    assert poor.pictures.kept.held_bytes <= max(3000, one)
    assert poor.pictures.kept.held_bytes == sum(e[0].bytes for e in poor.pictures.kept.values())
    assert len(rich.pictures.kept) == len({i for batch in a for i in batch.case_ids})


def test_a_picture_within_the_budget_is_read_once(tiny_cohort, monkeypatch):
    read, count = pictures.read_image, []
    monkeypatch.setattr(pictures, "read_image", lambda path: count.append(path) or read(path))
    items = items_of(tiny_cohort)
    for epoch in range(3):
        epoch_of(items, epoch=epoch)
    assert len(count) == len(set(count))


def test_the_least_recently_used_picture_leaves(tiny_cohort):
    bytes_each = Pictures(tiny_cohort, VIEW).load_reduced(0, False)[0].bytes
    pictures = Pictures(tiny_cohort, VIEW, cache_bytes=2 * bytes_each)
    for index in (0, 1, 0, 2):
        pictures.load_reduced(index, False)
    assert list(pictures.kept) == [(0, False), (2, False)]


def test_workers_give_the_same_batches(tiny_cohort):
    items = items_of(tiny_cohort)
    assert all(map(equal, epoch_of(items), epoch_of(items, workers=2)))


def test_serving_leaves_torchs_generator_alone(tiny_cohort):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    epoch_of(items_of(tiny_cohort))
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def mixed(tmp_path):
    """Eight pictures: grey, colour, 16 bit; one with no stated shape and one with stated spacing."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(8):
        path = tmp_path / f"ü {i}.png"
        if i % 3 == 0:
            pixels = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)
        elif i % 3 == 1:
            pixels = rng.integers(0, 255, (30, 20)).astype(np.uint8)
        else:
            pixels = rng.integers(0, 65535, (25, 25)).astype(np.uint16)
        Image.fromarray(pixels).save(path)
        cases.append(Case(f"{i}", f"{i}", f"{i}", path, "ab"[i % 2]))
    return Cohort("mixed", ("a", "b"), tuple(cases))


def test_colour_grey_and_deep_pictures_share_batches(mixed):
    batches = list(loader.iterate_test_batches(CohortItems(mixed, VIEW), batch_size=3))
    assert [b.images.shape for b in batches] == [(3, 3, 32, 32), (3, 3, 32, 32), (2, 3, 32, 32)]
    images = torch.cat([b.images for b in batches])
    assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
    grey = images[[1, 2, 4, 5, 7]]
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    assert not torch.equal(images[0, 0], images[0, 1])
    assert [i for b in batches for i in b.case_ids] == [c.case_id for c in mixed]
    assert [int(label) for b in batches for label in b.labels] == [0, 1] * 4


def test_one_channel_networks_get_one_channel(mixed):
    (batch,) = loader.iterate_test_batches(CohortItems(mixed, VIEW, channels=1), batch_size=8)
    assert batch.images.shape == (8, 1, 32, 32)
    colour = CohortItems(mixed, VIEW)[loader.Key(0, -1)].image
    assert np.allclose(batch.images[0, 0], colour.mean(axis=0), atol=1e-6)


def test_the_test_view_is_the_same_each_time_and_untoned(mixed):
    a, b = (CohortItems(mixed, VIEW, seed=s)[loader.Key(1, -1)] for s in (0, 1))
    assert np.array_equal(a.image, b.image) and a.frame == b.frame


def test_an_empty_cohort_is_refused(tiny_cohort):
    with pytest.raises(CohortError, match="no case to train on"):
        epoch_of(items_of(tiny_cohort.where(lambda c: False)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named(mixed, workers):
    broken = replace(mixed, cases=mixed.cases[:3])
    broken[1].image.write_bytes(broken[1].image.read_bytes()[:60])
    with pytest.raises(UnreadableFile, match=r"ü 1\.png") as caught:
        list(loader.iterate_test_batches(CohortItems(broken, VIEW), batch_size=2, workers=workers))
    assert caught.value.remedy


def test_dropped_marks_are_hidden_anew_each_epoch_and_pictures_stay_as_they_are(tiny_cohort):
    train = tiny_cohort.split("train")
    plain, dropping = (
        CohortItems(train, VIEW, RegionChoice("box", "finding", "all", dropout=d, unmarked="unknown"), seed=3)
        for d in (0.0, 0.5)
    )
    hidden = np.zeros((8, len(train)), dtype=bool)
    for epoch in range(8):
        for index in range(len(train)):
            there, dropped = (items[loader.Key(index, epoch)] for items in (plain, dropping))
            assert np.array_equal(there.image, dropped.image) and there.label == dropped.label
            if there.guided.any() and not dropped.guided.any():
                hidden[epoch, index] = True
                assert (dropped.target == UNKNOWN).all()
            else:
                assert np.array_equal(there.target, dropped.target) and np.array_equal(there.guided, dropped.guided)
    marked = hidden.any(axis=0)
    assert marked.sum() == train.counts()["fracture"]
    assert 0.25 < hidden[:, marked].mean() < 0.75 and not hidden[:, marked].all(axis=0).any()
    # shown again where the network is tested
    assert all(dropping[loader.Key(i, -1)].guided.any() == plain[loader.Key(i, -1)].guided.any() for i in range(9))
    with pytest.raises(RecipeError, match="dropout"):
        RegionChoice(dropout=1.0)


def test_patches_labelled_by_the_picture_know_no_mark(tiny_cohort):
    patches = Patches(size=16, zoom=(1.0, 1.0), around=0.0, per_picture=2, labels="picture")
    view = View(size=64, patches=patches)
    train = tiny_cohort.split("train")
    bare = Cohort(train.name, train.classes, tuple(replace(case, regions=()) for case in train), train.root)
    ours, blind = (CohortItems(cohort, view, seed=3) for cohort in (train, bare))
    for index, case in enumerate(train):
        for epoch in range(3):
            item = ours[loader.Key(index, epoch)]
            assert item.label == train.class_index(case.label)
            assert np.array_equal(item.image, blind[loader.Key(index, epoch)].image)
    assert "labels" not in replace(patches, labels="marks").notation() and "labels='picture'" in patches.notation()
    with pytest.raises(RecipeError, match="no mark"):
        Patches(labels="picture")
