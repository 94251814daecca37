"""Gaze as what guides: densities on grids, who guides which map, and the two controls."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sightline.data.loader import CohortItems, iterate_training_batches
from sightline.data.targets.gaze_choice import GazeChoice, GazeTargets
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RecipeError
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.structures.tag import Tag

SHAPE = (40, 60)
SOURCE = Frame.of_image(SHAPE)


def gaze_at(*places, dwell=None, reader="r1", **more):
    n = len(places)
    return Gaze(
        np.array(places, dtype=float).reshape(-1, 2), np.arange(n), np.ones(n) if dwell is None else dwell,
        spread_px=3.0, tag=Tag("gaze", None, reader), **more,
    )  # fmt: skip


def cohort_of(tmp_path, gazes, labels=None):
    cases = [
        Case(f"c{i}", f"s{i}", f"p{i}", tmp_path / f"{i}.png", (labels or ["a", "b", "c"])[i % 3],
             () if g is None else tuple(g), "train", "", SHAPE)
        for i, g in enumerate(gazes)
    ]  # fmt: skip
    return Cohort("gazed", ("a", "b", "c"), tuple(cases))


def drawn(cohort, choice, index, frame=SOURCE):
    return GazeTargets(cohort, choice).draw(index, SOURCE, frame)


def test_the_place_looked_at_most_is_one_and_the_own_class_is_guided(tmp_path):
    cohort = cohort_of(tmp_path, [None, [gaze_at((10, 20), (10, 20), (30, 50))]])
    target, guided = drawn(cohort, GazeChoice(cell="point"), 1)
    assert target.shape == (1, *SHAPE) and target.dtype == np.float32
    assert np.unravel_index(target[0].argmax(), SHAPE) in {(9, 19), (9, 20), (10, 19), (10, 20)}
    assert target.max() == pytest.approx(1.0, abs=0.03)
    assert target[0, 29, 49] == pytest.approx(target.max() / 2, rel=0.02)
    assert guided.tolist() == [False, True, False]
    nothing, unguided = drawn(cohort, GazeChoice(), 0)
    assert not nothing.any() and not unguided.any()


def test_which_maps_are_guided(tmp_path):
    cohort = cohort_of(tmp_path, [None, [gaze_at((10, 20))]])
    assert drawn(cohort, GazeChoice(classes="first"), 1)[1].tolist() == [True, False, False]
    assert drawn(cohort, GazeChoice(classes="all"), 1)[1].tolist() == [True] * 3


def test_dwell_or_count_kind_and_reader(tmp_path):
    long = gaze_at((10, 10), (30, 50), dwell=np.array([3.0, 1.0]))
    fixed = gaze_at((20, 30), kind="fixations")
    other = gaze_at((35, 5), reader="r2")
    cohort = cohort_of(tmp_path, [[long, fixed, other]])
    alone = GazeChoice(reader="r1")
    by_dwell = drawn(cohort, alone, 0)[0][0]
    by_count = drawn(cohort, replace(alone, weigh="count"), 0)[0][0]
    assert by_dwell[10, 10] / by_dwell[30, 50] == pytest.approx(3.0, rel=0.01)
    assert by_count[10, 10] / by_count[30, 50] == pytest.approx(1.0, rel=0.01)
    assert np.unravel_index(drawn(cohort, GazeChoice(of="fixations"), 0)[0][0].argmax(), SHAPE)[0] in (19, 20)
    assert by_dwell[35, 5] < 0.01 and drawn(cohort, GazeChoice(), 0)[0][0][35, 5] > 0.3


def test_a_crop_keeps_the_pictures_scale(tmp_path):
    """A crop without the place looked at most does not make a glance as bright as a stare."""
    cohort = cohort_of(tmp_path, [[gaze_at((10, 10), (30, 50), dwell=np.array([9.0, 1.0]))]])
    target, guided = drawn(cohort, GazeChoice(), 0, SOURCE.crop((20, 30), (20, 30)))
    assert 0.08 < target.max() < 0.13 and guided.any()


def test_sigma_by_degrees_kernel_or_pixels(tmp_path):
    gaze = gaze_at((1, 1), px_per_deg=20.0)
    assert GazeChoice().sigma(gaze) == 3.0
    assert GazeChoice(sigma_px=7.0).sigma(gaze) == 7.0
    assert GazeChoice(sigma_deg=0.5).sigma(gaze) == 10.0
    assert GazeChoice(kernel_px=500).sigma(gaze) == pytest.approx(75.5)
    with pytest.raises(CohortError, match="degree"):
        GazeChoice(sigma_deg=1.0).sigma(gaze_at((1, 1)))
    with pytest.raises(RecipeError, match="positive"):
        GazeChoice(sigma_px=0.0)


def test_shuffled_gaze_is_never_ones_own_and_is_stretched(tmp_path):
    places = [(5, 5), (5, 55), (35, 5), (35, 55), (20, 30)]
    cohort = cohort_of(tmp_path, [[gaze_at(p)] for p in places])
    giver = GazeChoice(control="shuffled").assign_shuffled(cohort)
    assert sorted(giver) == sorted(giver.values()) and all(a != b for a, b in giver.items())
    for i, case in enumerate(cohort):
        target = drawn(cohort, GazeChoice(control="shuffled"), i)[0][0]
        peak = np.unravel_index(target.argmax(), SHAPE)
        from_ = places[int(giver[case.case_id][1:])]
        assert abs(peak[0] + 0.5 - from_[0]) < 2 and abs(peak[1] + 0.5 - from_[1]) < 2
    again = GazeChoice(control="shuffled", share_seed=1).assign_shuffled(cohort)
    assert again != giver


def test_the_centre_control_is_the_middle_whatever_was_looked_at(tmp_path):
    cohort = cohort_of(tmp_path, [[gaze_at((5, 5))]])
    target = drawn(cohort, GazeChoice(control="centre"), 0)[0][0]
    assert np.unravel_index(target.argmax(), SHAPE) in {(19, 29), (19, 30), (20, 29), (20, 30)}
    assert np.allclose(target, target[::-1, ::-1], atol=1e-6)


def test_gaze_as_a_region(tmp_path):
    cohort = cohort_of(tmp_path, [[gaze_at((10, 20))]])
    target, guided = drawn(cohort, GazeChoice(above=0.5), 0)
    assert target.dtype == np.uint8 and set(np.unique(target)) == {0, 1} and guided.any()
    # half of a Gaussian's height lies at 1.18 standard deviations
    assert target.sum() == pytest.approx(np.pi * (1.177 * 3.0) ** 2, rel=0.2)


def test_gaze_off_the_picture_guides_nothing(tmp_path):
    cohort = cohort_of(tmp_path, [[gaze_at((-900, 20))], [gaze_at()]])
    for index in (0, 1):
        target, guided = drawn(cohort, GazeChoice(), index)
        assert not target.any() and not guided.any() and np.isfinite(target).all()


def test_batches_carry_densities(tiny_cohort):
    gazed = tiny_cohort.where(lambda c: c.split == "train")
    cases = tuple(
        replace(c, regions=(gaze_at((c.shape[0] / 3, c.shape[1] / 3)),) if i % 2 else ()) for i, c in enumerate(gazed)
    )
    items = CohortItems(replace(gazed, cases=cases), View(size=32), GazeChoice())
    batch = next(iterate_training_batches(items, epoch=0, batch_size=4))
    assert batch.targets.shape == (4, 1, 32, 32) and batch.targets.dtype == torch.float32
    assert float(batch.targets.max()) <= 1.0
    assert batch.guided.any(dim=1).tolist() == [bool(t.any()) for t in batch.targets]
