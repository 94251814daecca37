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
    cells = [(r, c) for r in range(h) for c in range(w)]
    for i in range(b):
        marked = bool(guided[i, loss.column])
        images += marked
        channel = targets[i, loss.column if targets.shape[1] > 1 else 0].double()
        pixels = {(r, c): channel[r * step : (r + 1) * step, c * step : (c + 1) * step] for r, c in cells}
        touched = {at: float((pixels[at] != 0).double().mean()) for at in cells}
        cover = touched if marked else dict.fromkeys(cells, 0.0)
        least = min(loss.covered, max(cover.values()))
        target = {at: float(cover[at] > 0 and cover[at] >= least) for at in cells}
        inside = {at for at in cells if target[at]}
        if loss.soft and inside:
            target = {at: sum(_weigh(at, other, loss.soft) for other in inside) for at in cells}
            target = {at: value / max(target.values()) for at, value in target.items()}
        area = max(1.0, sum(target.values()))
        hits = 0.0
        for r, c in cells:
            p = 1 / (1 + math.exp(-(float(maps[i, loss.column, r, c]) + shift)))
            known = (r, c) in inside or touched[r, c] == 0 or (loss.soft > 0 and marked)
            near = any(touched[y, x] for y, x in cells if max(abs(y - r), abs(x - c)) <= loss.ring)
            if not known or (loss.ring and near and (r, c) not in inside):
                continue
            t = target[r, c]
            if marked:
                t = (1 - loss.bootstrapped) * t + loss.bootstrapped * p
            part = pixels[r, c][pixels[r, c] != 0]
            share = float(part.mean()) if len(part) and loss.weigh == "share" else float(loss.weigh == "marked")
            hits -= share * t * (1 - p) ** loss.gamma * math.log(p)
            total -= (loss.elsewhere if marked else loss.nowhere) * (1 - t) * p**loss.gamma * math.log(1 - p)
        total += hits / area
    return total / max(1, images)


def _weigh(at, other, sd):
    """A Gaussian of two axes that ends at three standard deviations a side."""
    apart = [abs(a - b) for a, b in zip(at, other, strict=True)]
    return math.exp(-0.5 * sum((d / sd) ** 2 for d in apart)) if max(apart) <= math.ceil(3 * sd) else 0.0


@pytest.mark.parametrize(
    "loss",
    [
        CellFocal(nowhere=0.4),
        CellFocal(elsewhere=0.1, covered=0.9),
        CellFocal(0.0, 0.3, 0.0),
        CellFocal(ring=1),
        CellFocal(soft=0.7, elsewhere=0.6),
        CellFocal(bootstrapped=0.3, covered=0.9),
        CellFocal(ring=1, soft=1.2, bootstrapped=0.4, prior=0.3),
    ],
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


def test_gradients_take_the_targets_as_given():
    """The network's own probability is a target, not something to be moved: finite differences with fixed targets."""
    torch.manual_seed(1)
    maps = torch.randn(2, 2, 4, 5, dtype=torch.float32)
    targets = torch.zeros(2, 1, 16, 20, dtype=torch.uint8)
    targets[0, 0, 4:12, 4:12] = 1
    guided = torch.tensor([[False, True], [False, False]])
    for loss in (CellFocal(ring=1, soft=0.8), CellFocal(bootstrapped=0.4, prior=0.3)):
        found = maps.clone().requires_grad_()
        loss(found, targets, guided).value.backward()
        # Reed 2015: with the targets fixed, the share of the own probability and that of the mark are two losses
        shift = math.log(loss.prior / (1 - loss.prior))
        own = torch.sigmoid(maps[:, 1].double() + shift)
        plain = CellFocal(loss.gamma, loss.prior, ring=loss.ring, soft=loss.soft)
        step = torch.zeros_like(maps)
        for at in ((0, 1, 1, 1), (0, 1, 0, 4), (0, 1, 2, 3), (1, 1, 2, 2)):
            step.zero_()[at] = 1e-2
            ends = []
            for sign in (1, -1):
                moved = maps + sign * step
                value = (1 - loss.bootstrapped) * float(plain(moved[:1], targets[:1], guided[:1]).value)
                p = torch.sigmoid(moved[:, 1].double() + shift)
                hit, miss = -((1 - p) ** loss.gamma) * p.log(), -(p**loss.gamma) * (1 - p).log()
                value += loss.bootstrapped * float((own * hit / 4 + (1 - own) * miss)[0].sum())
                ends.append(value + float(miss[1].sum()))
            assert float(found.grad[at]) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=2e-3, abs=1e-5)


def test_marks_on_which_readers_disagree_guide_less():
    torch.manual_seed(2)
    maps = torch.randn(2, 2, 4, 4)
    targets = torch.zeros(2, 1, 8, 8)
    targets[0, 0, 2:4, 2:6] = 1.0
    targets[0, 0, 2:4, 4:6] = 1 / 3
    guided = torch.tensor([[True, True], [False, False]])
    loss = CellFocal(weigh="share")
    assert loss.takes_shares and not CellFocal().takes_shares
    assert float(loss(maps, targets, guided).value) == pytest.approx(slow(maps, targets, guided, loss), rel=1e-5)
    half = loss(maps, targets, guided).parts["marked_cells"]
    assert half < CellFocal()(maps, targets, guided).parts["marked_cells"]
    whole = loss(maps, targets.ne(0).float(), guided).value
    assert whole == CellFocal()(maps, targets, guided).value


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
    for wrong in ({"ring": -1}, {"soft": -0.1}, {"bootstrapped": 1.0}, {"soft": math.nan}):
        with pytest.raises(RecipeError, match="ring >= 0, soft >= 0 and bootstrapped"):
            CellFocal(**wrong)
    with pytest.raises(RecipeError, match=r"weigh is 'votes'.*marked, share"):
        CellFocal(weigh="votes")
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
