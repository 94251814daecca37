"""Volumes as cases: our layout keeps them, the loader serves them, a network trains on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.layouts import SIDE, make_spines

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.loader import CohortItems, Key, iterate_training_batches
from sightline.data.loader import iterate_test_batches as batches_in_order
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, LayoutError, RecipeError

SIZE = 16
VIEW = VolumeView(size=SIZE, augment="none")


@pytest.fixture
def spines(tmp_path):
    return make_spines(tmp_path)


def test_the_layout_keeps_volumes_names_and_values(spines):
    case = spines[0]
    assert case.shape == (SIDE,) * 3 and case.spacing_mm == (1.0, 1.0, 1.0)
    assert [(r.tag.role, r.tag.name, r.value) for r in case.regions] == [
        ("focus", "vertebra", 20),
        ("organ", "superior endplate", 101),
    ]
    assert case.regions[0].pixels().sum() == 8**3 - 2 * 64 and case.regions[1].pixels().sum() == 2 * 64


def test_a_cohort_of_volumes_moves_to_another_folder(spines, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write_cohort(spines, elsewhere)
    again = read_cohort(elsewhere)
    # a mask that was one number of many is a file of its own afterwards
    for a, b in zip(spines, again, strict=True):
        assert replace(a, image=b.image, regions=b.regions) == b
        for x, y in zip(a.regions, b.regions, strict=True):
            assert x.tag == y.tag and y.value is None and np.array_equal(x.pixels(), y.pixels())
    assert again.fingerprint() != spines.fingerprint()


def test_fingerprints_know_names_and_values(spines):
    first = spines[0]
    mark = first.regions[0]
    for other in (replace(mark, value=101), replace(mark, tag=replace(mark.tag, name="body"))):
        changed = replace(spines, cases=(replace(first, regions=(other, *first.regions[1:])), *spines.cases[1:]))
        assert changed.fingerprint() != spines.fingerprint()


@pytest.mark.parametrize("text", ["24 24", "24 24 x", "24 24 -1", "24 24 1.5", "24 24 2_4"])
def test_wrong_grids_are_refused_by_row_and_column(spines, text):
    table = spines.root / "images.csv"
    table.write_text(table.read_text().replace("24 24 24", text, 1))
    with pytest.raises(LayoutError, match=r"row 2, column 'grid'"):
        read_cohort(spines.root)


def test_cubes_come_with_their_frames_and_targets(spines):
    items = CohortItems(spines.split("train"), VIEW, RegionChoice("mask", role="organ"), seed=1)
    batch = next(batches_in_order(items, batch_size=4))
    assert batch.images.shape == (4, 1, SIZE, SIZE, SIZE) and batch.images.dtype == torch.float32
    assert batch.frames[0].shape == (SIZE,) * 3 and batch.frames[0].spacing_mm == (1.0, 1.0, 1.0)
    start = (SIDE - SIZE) // 2
    assert np.allclose(batch.frames[0].map_points((0.0, 0.0, 0.0)), start)
    assert batch.targets.shape == (4, 1, SIZE, SIZE, SIZE)
    expected = np.zeros((SIDE,) * 3)
    expected[8:10, 8:16, 8:16] = 1
    kept = slice(start, start + SIZE)
    assert np.array_equal(batch.targets[0, 0].numpy(), expected[kept, kept, kept])
    assert batch.guided.all()


def test_memory_is_bounded_and_changes_nothing(spines):
    rich = CohortItems(spines, VIEW, seed=1)
    poor = CohortItems(spines, VIEW, seed=1, cache_bytes=2 * SIDE**3 * 2)
    for epoch in (0, 1):
        for a, b in zip(
            iterate_training_batches(rich, epoch=epoch, batch_size=5),
            iterate_training_batches(poor, epoch=epoch, batch_size=5),
            strict=True,
        ):  # fmt: skip
            assert a.case_ids == b.case_ids and torch.equal(a.images, b.images)
    assert poor.pictures.kept.held_bytes <= 2 * SIDE**3 * 2 < rich.pictures.kept.held_bytes


def test_augmented_cubes_are_a_function_of_their_key(spines):
    view = VolumeView(size=SIZE, augment="published")
    a, b = (CohortItems(spines, view, seed=4) for _ in range(2))
    keys = [Key(0, epoch, draw) for epoch in (0, 1) for draw in (0, 1)]
    for key in keys:
        assert np.array_equal(a[key].image, b[key].image)
    assert len({a[key].image.tobytes() for key in keys}) > 1


def test_pictures_and_volumes_are_not_mixed_up(spines, tiny_cohort):
    with pytest.raises(CohortError, match="is a volume"):
        CohortItems(spines, View(size=32))
    with pytest.raises(CohortError, match="is a picture"):
        CohortItems(tiny_cohort, VIEW)


def test_marks_on_volumes_keep_their_style(spines):
    with pytest.raises(RecipeError, match="as they are"):
        CohortItems(spines, VIEW, RegionChoice("scribble"))[Key(0, 0)]
    with pytest.raises(RecipeError, match="margin"):
        CohortItems(spines, VIEW, RegionChoice("mask", margin_px=2.0))[Key(0, 0)]
