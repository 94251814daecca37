"""Schedules of the papers about gaze: triangles that shrink, and plateaus read off the history."""

import itertools

import pytest

from sightline.errors import RecipeError
from sightline.training.optimization import LayerRates, ReduceOnPlateau, Steady, TriangularCycles, WeightRelease


def test_triangular_cycles_are_those_of_the_published_code():
    """Spec, golden check 17: 8.2e-5, 4.57e-3, 9.06e-3 and back, the next peak half as high."""
    rates = [TriangularCycles().rate(epoch * 10, 350, 10) for epoch in range(9)]
    assert rates[:5] == pytest.approx([8.2e-5, 4.57e-3, 9.0552e-3, 4.57e-3, 8.2e-5], rel=2e-3)
    assert rates[6] == pytest.approx(4.57e-3, rel=2e-3) and rates[8] == pytest.approx(8.2e-5, rel=2e-3)
    # the rate changes between epochs only
    assert len({TriangularCycles().rate(step, 350, 10) for step in range(10, 20)}) == 1


def rows(*values):
    return [{"val_loss": v} for v in values]


def test_a_plateau_reduces_after_its_patience_and_only_then():
    plateau = ReduceOnPlateau(start=1.0, factor=0.1, patience=2, give_up=100)
    assert plateau.rate(0, 9, 1, rows(3, 2, 1)) == 1.0
    assert plateau.rate(0, 9, 1, rows(1, 1, 1)) == 1.0
    assert plateau.rate(0, 9, 1, rows(1, 1, 1, 1)) == pytest.approx(0.1)
    # three more epochs that are no better reduce again; a better one starts the count anew
    assert plateau.rate(0, 9, 1, rows(1, 1, 1, 1, 1, 1, 1)) == pytest.approx(0.01)
    assert plateau.rate(0, 9, 1, rows(1, 1, 1, 0.5, 1, 1)) == 1.0


def test_a_plateau_agrees_with_torch():
    import torch

    values = [3, 2.5, 2.6, 2.7, 2.4, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.3, 2.4]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2, threshold=0.0)
    plateau = ReduceOnPlateau(start=1.0, factor=0.1, patience=2)
    for n, value in enumerate(values, start=1):
        theirs.step(value)
        assert plateau.rate(0, 9, 1, rows(*values[:n])) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_a_plateau_gives_up_and_wants_its_column():
    plateau = ReduceOnPlateau(start=1.0, patience=1)
    assert not plateau.stops(rows(1, 1, 1, 1)) and plateau.stops(rows(1, *[1] * 5))
    assert ReduceOnPlateau(start=1.0, patience=1, least=0.5, give_up=99).stops(rows(1, 1, 1))
    with pytest.raises(RecipeError, match="val_loss"):
        plateau.rate(0, 9, 1, [{"val_loss": None}])
    for never in ({"start": 0.0}, {"least": 1.0}, {"give_up": 0}):
        with pytest.raises(RecipeError, match="stops before its first step"):
            ReduceOnPlateau(**never)


@pytest.mark.parametrize("factor", ["x", None, -1.0, float("nan"), float("inf"), True])
def test_a_layer_has_a_factor_that_is_a_number(factor):
    with pytest.raises(RecipeError, match="expected 0 or more"):
        LayerRates({"trunk.": factor})


def test_steady_stops_when_nothing_was_better_for_its_patience():
    def f1(*values):
        return [{"val_f1": v} for v in values]

    steady = Steady(0.5, patience=2)
    assert steady.rate(7, 9, 3, f1(0.1)) == 0.5
    assert not steady.stops([]) and not steady.stops(f1(0.3, 0.2)) and not steady.stops(f1(0.3, 0.2, 0.4, 0.1))
    # as good is not better
    assert steady.stops(f1(0.3, 0.2, 0.3)) and steady.stops(f1(0.5, 0.1, 0.2))
    assert not Steady(0.5).stops(f1(*[0.1] * 99))
    assert Steady(0.5, patience=1, watch="val_loss", better="less").stops([{"val_loss": 1.0}, {"val_loss": 2.0}])
    with pytest.raises(RecipeError, match="val_f1"):
        steady.stops([{"val_f1": None}])
    with pytest.raises(RecipeError):
        Steady(patience=0)


def test_a_guidance_weight_is_held_falls_and_stays():
    release = WeightRelease(hold=0.4, fall=0.2, end=0.1)
    factors = [release.factor(step, 50) for step in range(50)]
    assert factors[:21] == [1.0] * 21 and factors[30:] == [0.1] * 20
    assert factors[25] == pytest.approx(0.55)
    assert all(a >= b for a, b in itertools.pairwise(factors))
    assert [WeightRelease(0.5, 0.0).factor(step, 10) for step in (5, 6)] == [1.0, 0.0]
    for odd in ({"hold": 0.8, "fall": 0.3}, {"hold": -0.1}, {"end": -1.0}):
        with pytest.raises(RecipeError):
            WeightRelease(**odd)
