"""The benchmark of dissection runs at a toy size, and its two sides see the same; no test here reads a clock."""

import pytest
import torch

from benchmarks import dissect
from benchmarks.memory import MIB
from benchmarks.timing import Unequal

TOY = dissect.settings("cpu", toy=True)


@pytest.mark.slow
def test_dissection_is_measured(monkeypatch):
    # processes take seconds to start: their work is looked at below
    monkeypatch.setattr(dissect, "in_process", lambda chosen, cases: 100.0 * MIB + cases)
    result = dissect.measure(TOY)
    assert [row.goal for row in result.rows] == [1.3] * 4 + [1.05] and result.rows[-1].met


def test_peak_is_of_the_work():
    assert dissect.peak_of(TOY, 4) > 50 * MIB


def test_sides_that_differ_are_told():
    patches = dissect.Patches(TOY, TOY.size, 4)
    dissect.check(patches)
    features = patches.network.features
    patches.network.features = lambda images: features(images) + torch.rand(1)
    with pytest.raises(Unequal, match="numpy"):
        dissect.check(patches)
