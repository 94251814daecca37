"""Marks of several readers as targets, each rule against a pixel-by-pixel restatement on drawn masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.cohorts import tiny_recipe

from sightline.data.loader import CohortItems, Key
from sightline.data.targets.reader_consensus import require_reader
from sightline.data.targets.region_choice import RegionChoice, choose_patients, draw_targets
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RecipeError
from sightline.losses.cell_focal import CellFocal
from sightline.losses.spatial_nll import SpatialNLL
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.overrides import Changes, apply_changes
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask
from sightline.structures.tag import Tag
from sightline.training.engine import Engine
from sightline.training.preconditions import require_regions
from sightline.training.serialization import build_from_plain, to_plain
from sightline.training.train import train

SHAPE = (17, 23)
FRAME = Frame.of_image(SHAPE)
CLASSES = ("none", "A", "B")
READERS = ("ann", "bob", "eve")


def blobs(seed):
    """Three readers' masks of one thing: a disc each, moved and noisy."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SHAPE)
    made = []
    for _ in READERS:
        centre, radius = rng.uniform((6, 8), (10, 14)), rng.uniform(3, 6)
        made.append(((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2) ^ (rng.random(SHAPE) < 0.03))
    return np.stack(made)


def case_of(votes, label="A", **tags):
    marks = tuple(
        Mask(v, Tag("focus", tags.get(name), name)) for name, v in zip(READERS, votes, strict=True) if v.any()
    )
    return Case("c", "s", "p", Path("none.png"), label, marks, shape=SHAPE)


def slow_staple(votes):
    """Warfield 2004, equations 14 to 20, pixel by pixel."""
    readers, pixels = votes.reshape(len(votes), -1), votes[0].size
    prior = sum(float(v) for own in readers for v in own) / readers.size
    weights = [sum(float(own[i]) for own in readers) / len(readers) for i in range(pixels)]
    for _ in range(300):
        p, q = [], []
        for own in readers:
            p.append(sum(w for w, v in zip(weights, own, strict=True) if v) / sum(weights))
            q.append(sum(1 - w for w, v in zip(weights, own, strict=True) if not v) / (pixels - sum(weights)))
        for i in range(pixels):
            a, b = prior, 1 - prior
            for r, own in enumerate(readers):
                a *= p[r] if own[i] else 1 - p[r]
                b *= 1 - q[r] if own[i] else q[r]
            weights[i] = a / (a + b)
    return np.array(weights).reshape(votes.shape[1:]) > 0.5


SLOWLY = {
    "union": lambda votes: np.array([[any(v[r, c] for v in votes) for c in range(SHAPE[1])] for r in range(SHAPE[0])]),
    "intersection": lambda votes: np.array(
        [[all(v[r, c] for v in votes) for c in range(SHAPE[1])] for r in range(SHAPE[0])]
    ),
    "majority": lambda votes: np.array(
        [[sum(int(v[r, c]) for v in votes) >= 2 for c in range(SHAPE[1])] for r in range(SHAPE[0])]
    ),
    "staple": slow_staple,
    "bob": lambda votes: votes[1],
}


def target(choice, case):
    return draw_targets(choice.pick(case, SHAPE), choice, case, CLASSES, FRAME, shared=choice.classes == "all")


@pytest.mark.parametrize("word", SLOWLY)
@pytest.mark.parametrize("seed", [0, 1])
def test_each_rule_equals_its_loops(word, seed):
    votes = blobs(seed)
    drawn, guided = target(RegionChoice("mask", readers=word), case_of(votes))
    assert drawn.dtype == np.uint8 and guided.all()
    assert np.array_equal(drawn[0] > 0, SLOWLY[word](votes))
    assert not np.array_equal(votes.any(axis=0), votes.all(axis=0))


def test_soft_is_the_share_of_readers_also_of_one_who_marked_another_role():
    votes = blobs(2)
    drawn, _ = target(RegionChoice("mask", readers="soft"), case_of(votes))
    assert drawn.dtype == np.float32
    assert np.allclose(drawn[0], sum(v.astype(float) for v in votes) / 3, atol=1e-7)
    with_fourth = case_of(votes)
    other = Box((0, 0), (2, 2), Tag("finding", "A", "zoe"))
    with_fourth = replace(with_fourth, regions=(*with_fourth.regions, other))
    fourth, _ = target(RegionChoice("mask", readers="soft"), with_fourth)
    assert np.allclose(fourth, drawn * 0.75, atol=1e-7)
    nobody, guided = target(RegionChoice("mask", readers="soft"), replace(with_fourth, regions=()))
    assert nobody.max() == 0 and not guided.any()


def test_a_majority_counts_a_reader_who_marked_only_something_else():
    votes = blobs(3)
    two = case_of(np.stack([votes[0], votes[1], np.zeros(SHAPE, bool)]))
    assert np.array_equal(target(RegionChoice("mask", readers="majority"), two)[0][0] > 0, votes[0] & votes[1])
    third = replace(two, regions=(*two.regions, Box((0, 0), (2, 2), Tag("finding", None, "eve"))))
    assert np.array_equal(target(RegionChoice("mask", readers="majority"), third)[0][0] > 0, votes[0] & votes[1])
    assert np.array_equal(target(RegionChoice("mask", readers="intersection"), third)[0][0] > 0, votes[0] & False)


def test_classes_are_merged_apart_and_an_untagged_mark_counts_for_each():
    votes = blobs(4)
    case = case_of(votes, ann="A", bob="B")
    drawn, guided = target(RegionChoice("mask", classes="tagged", readers="majority"), case)
    assert np.array_equal(drawn[1] > 0, votes[0] & votes[2])
    assert np.array_equal(drawn[2] > 0, votes[1] & votes[2])
    assert guided.tolist() == [False, True, True] and drawn[0].max() == 0
    together, _ = target(RegionChoice("mask", classes="all", readers="majority"), case)
    assert np.array_equal(together[0] > 0, SLOWLY["majority"](votes))


def test_styles_and_margins_come_before_merging():
    boxes = (Box((2, 2), (8, 9), Tag("focus", None, "ann")), Box((6, 4), (12, 14), Tag("focus", None, "bob")))
    case = Case("c", "s", "p", Path("none.png"), "A", boxes, shape=SHAPE)
    made = target(RegionChoice("box", margin_px=1.0, readers="intersection"), case)[0][0]
    expected = np.zeros(SHAPE, bool)
    expected[5:9, 3:10] = True
    assert np.array_equal(made > 0, expected)
    drawn_in_two_styles = replace(case, regions=(boxes[0], Mask(boxes[1].draw(FRAME) > 0, boxes[1].tag)))
    again = target(RegionChoice("box", margin_px=1.0, readers="intersection"), drawn_in_two_styles)[0][0]
    assert np.array_equal(again, made)


def test_the_default_unites_and_is_not_written():
    assert "readers" not in to_plain(RegionChoice(), CATALOGUE)
    words = to_plain(RegionChoice(readers="soft"), CATALOGUE)
    assert words["readers"] == "soft" and build_from_plain(words, CATALOGUE) == RegionChoice(readers="soft")
    assert "weigh" not in to_plain(SpatialNLL(), CATALOGUE)


@pytest.fixture(scope="module")
def read_by_two(tiny_cohort):
    """Each marked case read by two: the second draws a box one pixel off."""
    cases = []
    for case in tiny_cohort:
        first = [replace(r, tag=replace(r.tag, reader="ann")) for r in case.regions if r.tag.role == "focus"]
        second = Box((3.0, 4.0), (20.0, 25.0), Tag("focus", None, "bob"))
        cases.append(replace(case, regions=(*first, second) if first else ()))
    return Cohort("two", tiny_cohort.classes, tuple(cases))


def test_refusals_name_the_readers(read_by_two, capsys):
    with pytest.raises(CohortError, match=r"'zoe' has no focus mark.*'ann', 'bob'"):
        require_regions(tiny_recipe(regions=RegionChoice("mask", readers="zoe")), read_by_two)
    with pytest.raises(CohortError, match="nobody"):
        require_reader(read_by_two, "organ", "ann")
    soft = RegionChoice("mask", readers="soft")
    with pytest.raises(RecipeError, match="shares of readers"):
        require_regions(tiny_recipe(regions=soft), read_by_two)
    with pytest.raises(RecipeError, match="shares of readers"):
        require_regions(tiny_recipe(regions=soft, guidance=CellFocal()), read_by_two)
    with pytest.raises(RecipeError, match="unknown"):
        RegionChoice(readers="soft", unmarked="unknown")
    assert capsys.readouterr().err == ""
    require_regions(tiny_recipe(), read_by_two)
    assert "2 readers ('ann', 'bob') are united" in capsys.readouterr().err
    require_regions(tiny_recipe(regions=RegionChoice("mask", readers="bob")), read_by_two)
    changed = apply_changes(tiny_recipe(), Changes(readers="soft"))
    require_regions(changed, read_by_two)
    assert changed.regions.soft and changed.guidance.weigh == "share"
    assert capsys.readouterr().err == ""


def test_shares_of_patients_are_of_the_named_readers_marks(read_by_two):
    lacking = {case.patient_id for case in read_by_two if case.split == "train" and case.label == "fracture"}
    less = replace(
        read_by_two,
        cases=tuple(
            replace(c, regions=tuple(r for r in c.regions if r.tag.reader != "bob")) if c.patient_id in lacking else c
            for c in read_by_two
        ),
    )
    drawn = choose_patients(less, "focus", 0.5, 0, "bob")
    assert drawn and not drawn & lacking
    assert choose_patients(less, "focus", 0.5, 0) == choose_patients(read_by_two, "focus", 0.5, 0)


def test_items_of_a_soft_choice_batch_as_floats(read_by_two):
    item = CohortItems(read_by_two, View(size=48), RegionChoice("mask", readers="soft"))[Key(0, -1)]
    assert item.target.dtype == np.float32
    assert set(np.unique(item.target)) <= {np.float32(0), np.float32(0.5), np.float32(1)}


@pytest.mark.slow  # six trainings of two steps
@pytest.mark.parametrize("word", ["union", "intersection", "majority", "staple", "soft", "bob"])
def test_two_steps_with_each(word, read_by_two, tmp_path):
    recipe = apply_changes(tiny_recipe(steps=2, epochs=1), Changes(readers=word))
    run = train(recipe, read_by_two, tmp_path / "run", CATALOGUE, Engine(quiet=True))
    rows = (run.folder / "history.csv").read_text(encoding="utf-8").splitlines()
    head, last = rows[0].split(","), rows[-1].split(",")
    guidance = [float(v) for k, v in zip(head, last, strict=True) if k == "guidance"]
    assert run.done and guidance and np.isfinite(guidance).all()
    assert run.recipe.regions.readers == word
