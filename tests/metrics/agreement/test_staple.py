"""STAPLE against SimpleITK, and the simple rules by hand."""

import numpy as np
import pytest

from sightline.errors import GeometryError
from sightline.metrics.agreement.staple import compute_soft_target, merge_masks, staple


def readers(seed, sizes=(24, 31), p=(0.95, 0.8, 0.7), q=(0.99, 0.95, 0.9)):
    rng = np.random.default_rng(seed)
    truth = np.zeros(sizes, bool)
    truth[sizes[0] // 5 : sizes[0] * 2 // 3, sizes[1] // 4 : sizes[1] * 3 // 4] = True
    votes = [np.where(truth, rng.random(sizes) < a, rng.random(sizes) > b) for a, b in zip(p, q, strict=True)]
    return np.array(votes), truth


def test_staple_ends_where_nothing_moves():
    votes, _ = readers(3)
    first = staple(votes)
    assert first.steps < 10_000
    more = staple(votes, most_steps=first.steps + 500, tolerance=0.0)
    assert np.abs(first.probability - more.probability).max() < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_staple_equals_simpleitk(seed):
    itk = pytest.importorskip("SimpleITK")
    votes, _ = readers(seed)
    oracle = itk.STAPLEImageFilter()
    oracle.SetForegroundValue(1)
    oracle.SetMaximumIterations(40)
    theirs = itk.GetArrayFromImage(oracle.Execute([itk.GetImageFromArray(v.astype(np.uint8)) for v in votes]))
    ours = staple(votes, most_steps=oracle.GetElapsedIterations(), tolerance=0.0)
    assert np.abs(ours.probability - theirs).max() < 1e-9
    assert ours.sensitivity == pytest.approx(oracle.GetSensitivity(), abs=1e-9)
    assert ours.specificity == pytest.approx(oracle.GetSpecificity(), abs=1e-9)


def test_staple_finds_the_readers_and_the_truth():
    votes, truth = readers(0, (200, 200), p=(0.95, 0.8, 0.6, 0.7), q=(0.99, 0.95, 0.97, 0.9))
    found = staple(votes)
    assert found.sensitivity == pytest.approx([0.95, 0.8, 0.6, 0.7], abs=0.1)
    assert found.specificity == pytest.approx([0.99, 0.95, 0.97, 0.9], abs=0.02)
    assert (merge_masks(votes, "staple") == truth).mean() > (merge_masks(votes, "majority") == truth).mean()


def test_rules_by_hand():
    votes = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)
    assert merge_masks(votes, "union").tolist() == [True, True, True, False]
    assert merge_masks(votes, "intersection").tolist() == [True, False, False, False]
    assert merge_masks(votes, "majority").tolist() == [True, True, False, False]
    assert compute_soft_target(votes) == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
    # half is no majority
    assert not merge_masks(votes[:2], "majority")[1]
    assert merge_masks(votes[:1], "staple").tolist() == votes[0].tolist()


def test_nothing_marked_or_all_of_it():
    assert staple(np.zeros((2, 5), bool)).probability.tolist() == [0.0] * 5
    assert staple(np.ones((2, 5), bool)).probability.tolist() == [1.0] * 5


def test_bad_input_is_refused():
    with pytest.raises(GeometryError):
        staple(np.ones((1, 5), bool))
    with pytest.raises(GeometryError):
        merge_masks(np.ones((2, 5), bool), "mode")
