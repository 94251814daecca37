"""Thresholds of units: exact quantiles in bounded memory."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from sightline.errors import CohortError, GeometryError, RecipeError, RunError
from sightline.explainers.units.layer import UnitLayer
from sightline.explainers.units.thresholds import TopValues, compute_unit_thresholds, round_down
from sightline.structures.evidence import Batch, Evidence


class Seen(nn.Module):
    """A network whose layer gives its images as they are: units are channels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, images):
        return Evidence(self.layer(images).flatten(2).sum(-1))


def batches_of(values, size):
    """Batches of activations [n, u, *m]."""

    def stream():
        for i in range(0, len(values), size):
            part = torch.from_numpy(np.ascontiguousarray(values[i : i + size]))
            b = len(part)
            frames, ids = (None,) * b, tuple(f"case{i + j}" for j in range(b))
            yield Batch(part, torch.zeros(b, dtype=torch.int64), None, torch.zeros(b, 2, dtype=torch.bool), frames, ids)

    return stream


def obvious(values, top):
    """numpy's quantile of everything at once, in double precision: [u]."""
    flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
    return np.quantile(flat, 1 - top, axis=1)


# few different values, so that there are ties; zeros, negative values and tiny steps among them
FEW = [0.0, -0.0, 1.0, -1.0, 0.5, 3.25, -7.5, 2.0**-100, 2.0**100, float(np.float32(0.1)), 0.5 + 2.0**-24]
ELEMENTS = st.one_of(st.sampled_from(FEW), st.floats(-(2.0**100), 2.0**100, width=32))
ACTIVATIONS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=3, max_dims=5, min_side=1, max_side=4), elements=ELEMENTS
)


@given(ACTIVATIONS, st.floats(0.001, 0.999), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_equals_numpy(values, top, size, units_a_pass):
    n = values.shape[0] * int(np.prod(values.shape[2:]))
    keep = n - int(np.floor((n - 1) * (1 - top)))
    budget = units_a_pass * TopValues.bytes_of(keep)
    found = compute_unit_thresholds(UnitLayer(Seen(), "layer"), batches_of(values, size), top=top, budget_bytes=budget)
    assert np.array_equal(found.values, obvious(values, top))
    assert found.passes == -(-values.shape[1] // units_a_pass)
    flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
    assert np.array_equal(found.above, (flat > found.values[:, None]).sum(1))
    assert np.array_equal(found.least, flat.min(1)) and np.array_equal(found.largest, flat.max(1))
    # held against its rounded-down threshold, a float32 is above exactly where it is above the threshold
    single = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    assert np.array_equal(single > found.in_single[:, None], flat > found.values[:, None])


@pytest.mark.parametrize("shape", [(9, 5, 4, 4, 4), (40, 7, 6, 5)])
@pytest.mark.parametrize("order", ["as drawn", "ascending", "descending"])
def test_fraction_above_is_the_share_asked_for(shape, order):
    # golden check 19: without ties the share above T_k is q within 1 / n
    values = np.random.default_rng(0).permutation(int(np.prod(shape))).astype(np.float32).reshape(shape)
    if order != "as drawn":
        values = np.sort(values.ravel())[:: 1 if order == "ascending" else -1].reshape(shape).copy()
    for top in (0.005, 0.01, 0.2):
        found = compute_unit_thresholds(UnitLayer(Seen(), "layer"), batches_of(values, 4), top=top, cases=len(values))
        assert np.array_equal(found.values, obvious(values, top))
        above = (np.moveaxis(values, 1, 0).reshape(shape[1], -1) > found.values[:, None]).mean(1)
        assert np.abs(above - top).max() <= 1 / found.voxels
        assert np.array_equal(found.above, np.round(above * found.voxels)) and not found.dead.any()


def test_dead_units_are_those_whose_threshold_is_their_least_value():
    values = np.zeros((10, 4, 8, 8), np.float32)
    values[0, 1, 0, 0] = 2.0  # one positive position of 640: less than a share of 0.005
    values[:, 2] = 1.5  # constant, though not zero
    values[:, 3] = np.random.default_rng(0).random((10, 8, 8))
    found = compute_unit_thresholds(UnitLayer(Seen(), "layer"), batches_of(values, 3), top=0.005)
    assert found.values[:3].tolist() == [0.0, 0.0, 1.5]
    assert found.dead.tolist() == [True, True, True, False]
    assert found.above.tolist() == [0, 1, 0, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(bad):
    values = np.zeros((5, 3, 4, 4), np.float32)
    values[3, 2, 1, 1] = bad
    with pytest.raises(RunError, match=r"Unit 2 of layer 'layer' is not finite for case 'case3'"):
        compute_unit_thresholds(UnitLayer(Seen(), "layer"), batches_of(values, 2))


def test_a_sum_that_overflows_is_not_refused():
    values = np.full((2, 1, 4, 4), 3e38, np.float32)
    assert compute_unit_thresholds(UnitLayer(Seen(), "layer"), batches_of(values, 2)).values[0] == np.float32(3e38)


def test_what_cannot_be_is_refused():
    values = np.random.default_rng(0).random((4, 2, 4, 4)).astype(np.float32)
    layer = UnitLayer(Seen(), "layer")
    for top in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(RecipeError, match="share between 0 and 1"):
            compute_unit_thresholds(layer, batches_of(values, 2), top=top)
    with pytest.raises(RecipeError, match="the budget is 3"):
        compute_unit_thresholds(layer, batches_of(values, 2), budget_bytes=3)
    with pytest.raises(CohortError, match="no case"):
        compute_unit_thresholds(layer, batches_of(values[:0], 2))
    for wrong in (3, 5):
        with pytest.raises(CohortError, match=f"expected {wrong}"):
            compute_unit_thresholds(layer, batches_of(values, 2), cases=wrong)

    def of_two_sizes():
        yield from batches_of(values, 2)()
        yield from batches_of(values[:, :, :3], 2)()

    with pytest.raises(GeometryError, match="view of fixed size"):
        compute_unit_thresholds(layer, of_two_sizes, cases=8)


def test_rounding_down():
    values = np.array([0.1, -0.1, 0.0, 1.0, 1e-50, -1e-50])
    low = round_down(values)
    assert low.dtype == np.float32 and (low <= values).all()
    assert (np.nextafter(low, np.float32(np.inf)).astype(np.float64) > values).all()
