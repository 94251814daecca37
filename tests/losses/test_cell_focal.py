"""Focal loss over cells against a slow restatement, and what it leaves alone."""

import math

import pytest
import torch

from sightline.errors import GeometryError, RecipeError
from sightline.losses.cell_focal import CellFocal


def slow(maps, targets, guided, loss):
    """Cell by cell, in plain floats."""
    shift, total, images = math.log(loss.prior / (1 - loss.prior)), 0.0, 0
    b, _, h, w = maps.shape
    step = targets.shape[-1] // w
    for i in range(b):
        marked = bool(guided[i, loss.column])
        images += marked
        channel = targets[i, loss.column if targets.shape[1] > 1 else 0].double()
        cover = [
            [float(channel[r * step : (r + 1) * step, c * step : (c + 1) * step].mean()) if marked else 0.0
             for c in range(w)] for r in range(h)
        ]  # fmt: skip
        least = min(loss.covered, max(max(row) for row in cover))
        hits = []
        for r in range(h):
            for c in range(w):
                p = 1 / (1 + math.exp(-(float(maps[i, loss.column, r, c]) + shift)))
                if cover[r][c] > 0 and cover[r][c] >= least:
                    hits.append(-((1 - p) ** loss.gamma) * math.log(p))
                elif cover[r][c] == 0:
                    weight = loss.elsewhere if marked else loss.nowhere
                    total += -weight * p**loss.gamma * math.log(1 - p)
        total += sum(hits) / len(hits) if hits else 0.0
    return total / max(1, images)


@pytest.mark.parametrize(
    "loss", [CellFocal(nowhere=0.4), CellFocal(elsewhere=0.1, covered=0.9), CellFocal(0.0, 0.3, 0.0)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_equals_its_formula(loss, channels):
    torch.manual_seed(0)
    maps = torch.randn(3, 2, 4, 5, requires_grad=True)
    targets = torch.zeros(3, channels, 16, 20, dtype=torch.uint8)
    targets[0, -1, 3:9, 5:14] = 1
    targets[1, -1, 0, 0] = 1
    guided = torch.tensor([[False, True], [False, True], [False, False]])
    term = loss(maps, targets, guided)
    assert float(term.value.detach()) == pytest.approx(slow(maps.detach(), targets, guided, loss), rel=1e-5)
    assert term.images == 2 and sum(term.parts.values()) == pytest.approx(float(term.value.detach()), rel=1e-5)


def test_gradients_raise_marked_cells_and_lower_the_others():
    maps = torch.zeros(2, 2, 8, 8, requires_grad=True)
    targets = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    targets[0, 0, 8:16, 8:16] = 1
    guided = torch.tensor([[True, True], [False, False]])
    CellFocal(elsewhere=0.0)(maps, targets, guided).value.backward()
    assert (maps.grad[0, 1, 2:4, 2:4] < 0).all()
    # what a guessed mark misses is left alone; an image without a mark is not
    outside = maps.grad[0, 1].clone()
    outside[2:4, 2:4] = 0
    assert not outside.any() and (maps.grad[1, 1] > 0).all()
    assert not maps.grad[:, 0].any()


def test_certain_right_cells_cost_nothing_and_no_mark_is_no_error():
    maps = torch.full((1, 2, 4, 4), -40.0)
    blank = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    term = CellFocal()(maps, blank, torch.zeros(1, 2, dtype=torch.bool))
    assert float(term.value) == pytest.approx(0.0, abs=1e-9) and term.images == 0
    # a mark on the certainly unmarked costs, and stays a number
    blank[..., 2:4, 2:4] = 1
    assert 30 < float(CellFocal()(maps, blank, torch.ones(1, 2, dtype=torch.bool)).value) < 60


def test_refusals():
    with pytest.raises(RecipeError, match="prior"):
        CellFocal(prior=0.0)
    flags = torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(RecipeError, match="class 1"):
        CellFocal()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8), flags)
    with pytest.raises(GeometryError, match="two axes"):
        CellFocal(column=0)(torch.zeros(1, 1, 4), torch.zeros(1, 1, 8), flags)


def value(loss, maps, targets):
    """The term of images whose marks, where there are some, guide."""
    guided = (targets == 1).flatten(2).any(-1)
    return float(loss(maps, targets, guided).value)


def test_trimmed_leaves_the_worst_fitting_marks_out():
    torch.manual_seed(3)
    maps, targets = torch.randn(5, 2, 4, 4), torch.zeros(5, 2, 8, 8, dtype=torch.uint8)
    for i in range(4):
        targets[i, 1, 2 * i : 2 * i + 2, 2:4] = 1
    alone = [value(CellFocal(elsewhere=0.0), maps[i : i + 1], targets[i : i + 1]) for i in range(4)]
    trusted = [i for i in range(5) if i not in sorted(range(4), key=lambda i: alone[i])[2:]]
    # two of four marks are left out, pictures and all; the divisor stays that of all marks
    kept = value(CellFocal(), maps[trusted], targets[trusted])
    assert value(CellFocal(trimmed=0.5), maps, targets) == pytest.approx(kept * 2 / 4, rel=1e-5)
    assert value(CellFocal(trimmed=0.2), maps, targets) == value(CellFocal(), maps, targets)
    with pytest.raises(RecipeError, match="trimmed"):
        CellFocal(trimmed=1.0)


def test_where_nothing_is_known_nothing_counts():
    maps, targets = torch.randn(3, 2, 4, 4), torch.zeros(3, 2, 8, 8, dtype=torch.uint8)
    targets[0, 1, :2, :2] = 1
    targets[2] = 255
    assert value(CellFocal(), maps, targets) == value(CellFocal(), maps[:2], targets[:2])
