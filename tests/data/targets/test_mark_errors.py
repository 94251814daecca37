"""Marks made wrong: which, how, and that nothing else of a cohort changes."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from support.cohorts import make_cohort

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.targets.mark_errors import MarkError, spoil_marks
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.crops import list_boxes
from sightline.errors import CohortError
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box, Polygon
from sightline.structures.tag import Tag

SHAPE = (200, 300)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("marks") / "c", patients=24)


def list_changed(cohort, spoiled):
    return [(a, b) for a, b in zip(cohort, spoiled, strict=True) if a != b]


def boxes(case):
    return [r for r in case.regions if isinstance(r, Box)]


def overlap(a, b):
    sides = np.minimum(a.stop, b.stop) - np.maximum(a.start, b.start)
    return float(np.prod(np.clip(sides, 0, None)) / np.prod(np.subtract(a.stop, a.start)))


@pytest.mark.parametrize("kind", get_args(MarkError))
def test_some_marks_of_the_training_images_are_wrong_and_nothing_else(cohort, kind):
    spoiled = spoil_marks(cohort, 0.5, seed=1, kind=kind)
    marked = [c for c in cohort.split("train") if boxes(c)]
    changed = list_changed(cohort, spoiled)
    assert len(changed) == -(-len(marked) // 2) and all(a.split == "train" for a, _ in changed)
    for old, new in changed:
        assert replace(new, regions=old.regions) == old
        rest = [[r for r in c.regions if not isinstance(r, Box)] for c in (old, new)]
        assert rest[1] == ([] if kind == "missing" else rest[0])
        for box in boxes(new):
            assert min(box.start) >= 0 and (np.array(box.stop) <= np.array(old.shape)).all()
            assert (np.subtract(box.stop, box.start) >= 0.9).all()
        assert [b.tag for b in boxes(new)] == ([] if kind == "missing" else [b.tag for b in boxes(old)])
    # a part of these is wrong at a smaller share, others with another seed; the same call makes the same cohort
    fewer = {a.case_id for a, _ in list_changed(cohort, spoil_marks(cohort, 0.2, seed=1, kind=kind))}
    assert fewer < {a.case_id for a, _ in changed}
    assert spoil_marks(cohort, 0.5, seed=1, kind=kind).fingerprint() == spoiled.fingerprint()
    assert spoil_marks(cohort, 0.5, seed=2, kind=kind).fingerprint() != spoiled.fingerprint()
    assert spoil_marks(cohort, 0.0, kind=kind) is cohort


def test_the_outlines_of_wrong_boxes_guide_no_more_than_those_of_right_ones(tmp_path):
    """The wrong box alone says where to look; written and read again, too."""
    tag = Tag("finding", "fracture")
    outline = Polygon((((20, 20), (20, 60), (60, 60)),), tag)
    Image.new("L", SHAPE[::-1]).save(tmp_path / "a.png")
    case = Case(
        "a", "a", "a", tmp_path / "a.png", "fracture", (Box((20, 20), (60, 60), tag), outline), "train", "", SHAPE
    )
    cohort = Cohort("c", ("none", "fracture"), (case,))
    for kind in ("elsewhere", "shifted", "enlarged", "redrawn"):
        spoiled = spoil_marks(cohort, 1.0, kind=kind)
        write_cohort(spoiled, tmp_path / kind)
        for one in (spoiled, read_cohort(tmp_path / kind)):
            (picked,) = RegionChoice("box", "finding").pick(one[0], SHAPE)
            assert list_boxes(one[0]) == ((*picked.start, *picked.stop),) != ((20, 20, 60, 60),)
            assert RegionChoice("mask", "finding").pick(one[0], SHAPE) == (outline,)


def spoil_one(box, kind, seed=0):
    case = Case("a", "a", "a", "a.png", "fracture", regions=(box,), split="train", shape=SHAPE)
    whole = Cohort("c", ("no fracture", "fracture"), (case,), None)
    return boxes(spoil_marks(whole, 1.0, seed, kind=kind).cases[0])


def test_each_kind_is_what_it_says():
    box = Box((80.0, 120.0), (100.0, 160.0), tag=Tag("finding", "fracture"))
    found = {
        kind: [spoil_one(box, kind, seed)[0] for seed in range(200)] for kind in ("elsewhere", "shifted", "redrawn")
    }
    assert {overlap(box, other) for other in found["elsewhere"]} == {0.0}
    assert {overlap(box, other) for other in found["shifted"]} == {0.25}
    # towards all four corners, of the same size
    assert {(o.start[0] < 80, o.start[1] < 120) for o in found["shifted"]} == {(a, b) for a in (0, 1) for b in (0, 1)}
    for kind in ("elsewhere", "shifted"):
        assert all(np.allclose(np.subtract(o.stop, o.start), (20, 40), atol=0.11) for o in found[kind])
    edges = np.array([[*o.start, *o.stop] for o in found["redrawn"]]) - [80, 120, 100, 160]
    assert np.allclose(edges.std(axis=0), (3, 6, 3, 6), rtol=0.2) and np.abs(edges.mean(axis=0)).max() < 1.0
    assert spoil_one(box, "enlarged") == [replace(box, start=(70.0, 100.0), stop=(110.0, 180.0))]
    assert spoil_one(box, "missing") == []


def test_boxes_at_the_border_stay_in_the_picture():
    corner, whole, thin = Box((0.0, 0.0), (30.0, 30.0)), Box((0.0, 0.0), SHAPE), Box((199.5, 0.0), (200.0, 300.0))
    assert [overlap(corner, spoil_one(corner, "shifted", seed)[0]) for seed in range(8)] == [0.25] * 8
    assert spoil_one(corner, "enlarged") == [Box((0.0, 0.0), (45.0, 45.0))]
    for box in (corner, whole, thin):
        for kind in ("elsewhere", "shifted", "enlarged", "redrawn"):
            for seed in range(20):
                (other,) = spoil_one(box, kind, seed)
                assert min(other.start) >= 0 and other.stop[0] <= 200 and other.stop[1] <= 300
                assert other.start[0] < other.stop[0] and other.start[1] < other.stop[1]


def test_what_cannot_be_done(cohort):
    with pytest.raises(CohortError, match="from 0 to 1"):
        spoil_marks(cohort, 1.5)
    with pytest.raises(CohortError, match=r"'moved' is no kind.*elsewhere, shifted"):
        spoil_marks(cohort, 0.5, kind="moved")
    blank = replace(cohort, cases=tuple(replace(c, regions=()) for c in cohort))
    with pytest.raises(CohortError, match="no box to make wrong"):
        spoil_marks(blank, 0.5)
