"""GG-CAM (Zhu 2022): the loss against a slow restatement, and what its learned weights do."""

import math
from dataclasses import replace

import pytest
import torch

from sightline.errors import GeometryError, RecipeError
from sightline.losses.gg_cam import GazeGuided
from sightline.structures.evidence import Batch
from sightline.structures.frame import Frame
from sightline.training.optimization import ReduceOnPlateau


def batch_of(labels, targets, guided):
    n = len(labels)
    return Batch(
        torch.zeros(n, 1, 8, 8), torch.tensor(labels), targets, guided, (Frame.of_image((8, 8)),) * n,
        tuple(map(str, range(n))),
    )  # fmt: skip


def example(seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    out = {
        "logits": torch.randn(4, 3, generator=g, dtype=dtype).requires_grad_(),
        "maps": torch.randn(4, 3, 4, 4, generator=g, dtype=dtype).requires_grad_(),
    }
    labels = [0, 2, 1, 2]
    targets = torch.rand(4, 1, 8, 8, generator=g)
    targets[3] = 0.0
    guided = torch.zeros(4, 3, dtype=torch.bool)
    for i, label in enumerate(labels[:3]):
        guided[i, label] = True
    return out, batch_of(labels, targets, guided)


def slow(out, batch, gain=1.0, squash=True):
    """Cross-entropy and equation 9, cell by cell."""
    ce = error = 0.0
    guided = 0
    out = {name: tensor.detach() for name, tensor in out.items()}
    for i, label in enumerate(batch.labels.tolist()):
        z = out["logits"][i].tolist()
        ce += (math.log(sum(math.exp(v) for v in z)) - z[label]) / len(batch)
        for c in range(3):
            if not batch.guided[i, c]:
                continue
            gaze = [[float(batch.targets[i, 0, 2 * r : 2 * r + 2, 2 * q : 2 * q + 2].mean()) for q in range(4)]
                    for r in range(4)]  # fmt: skip
            top = max(map(max, gaze))
            total = 0.0
            for r in range(4):
                for q in range(4):
                    omega = float(out["maps"][i, c, r, q])
                    omega = 1 / (1 + math.exp(-gain * omega)) if squash else omega
                    total += (omega - gaze[r][q] / top) ** 2
            error += total / 16
            guided += 1
    return ce, error / guided


def test_is_the_printed_sum():
    out, batch = example()
    ce, error = slow(out, batch, gain=2.0)
    term = GazeGuided(sigma_map=0.5, sigma_ce=2.0, gain=2.0, rescale=False)(out, batch, torch.ones(3), ())
    want = error / (2 * 0.25) + ce / 4 + math.log(1.5) + math.log(3.0)
    assert float(term.value.detach()) == pytest.approx(want, rel=1e-5) and term.images == 4
    assert term.parts == pytest.approx(
        {"cross_entropy": ce, "map_error": error, "gain": 2.0, "sigma_map": 0.5, "sigma_ce": 2.0}, rel=1e-5
    )
    fixed = GazeGuided(weights="fixed", weight=3.0, gain=2.0)(out, batch, torch.ones(3), ())
    assert float(fixed.value) == pytest.approx(ce + 3 * error, rel=1e-5)
    # numbers that take no part are not logged
    assert set(fixed.parts) == {"cross_entropy", "map_error", "gain"}
    raw = GazeGuided(weights="fixed", squash=False)(out, batch, torch.ones(3), ())
    assert float(raw.value) == pytest.approx(ce + slow(out, batch, squash=False)[1], rel=1e-5)
    assert set(raw.parts) == {"cross_entropy", "map_error"}


@pytest.mark.parametrize("sigma", [1.4e-11, 2e-9, 0.01, 0.3, 2.0])
def test_what_is_reported_is_equation_11_also_where_the_gradient_is_rescaled(sigma):
    out, batch = example()
    ce, error = slow(out, batch)
    want = error / (2 * sigma**2) + ce / 0.25 + math.log1p(sigma) + math.log1p(0.5)
    for rescale in (False, True):
        loss = GazeGuided(sigma_map=sigma, sigma_ce=0.5, rescale=rescale).build()
        assert float(loss(out, batch, torch.ones(3), ()).value.detach()) == pytest.approx(want, rel=1e-5)
    # learned from is the printed loss over the larger of its weights
    (pulled,) = torch.autograd.grad(loss(out, batch, torch.ones(3), ()).value, out["maps"])
    (own,) = torch.autograd.grad(loss.map_error(out, batch)[0], out["maps"])
    for_map = 1 / (2 * sigma**2)
    assert torch.allclose(pulled, own * for_map / max(4.0, for_map), rtol=1e-4, atol=1e-9)


def test_a_plateau_is_one_of_equation_11():
    """A model of a training: errors stand still while ln sigma_sm grows by 2.5e-4 a step, 190 steps an epoch."""
    plateau = ReduceOnPlateau(7e-3, 0.1, 30)
    maps, logits = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2)
    batch = batch_of([0], torch.full((1, 1, 8, 8), 0.5), torch.tensor([[True, False]]))
    batch = replace(batch, targets=batch.targets * torch.linspace(0.2, 2.0, 8))
    loss = GazeGuided(sigma_map=2e-9).build()
    reported, restated = [], []
    for epoch in range(480):
        sigma = 2e-9 * math.exp(min(2.5e-4 * 190 * epoch, math.log(0.55 / 2e-9)))
        loss.log_sigma_map.data.fill_(math.log(sigma))
        term = loss({"logits": logits, "maps": maps}, batch, torch.ones(2), ())
        printed = term.parts["map_error"] / (2 * sigma**2) + math.log(2) + math.log1p(sigma) + math.log(2)
        reported.append({"val_loss": float(term.value.detach())})
        restated.append({"val_loss": printed})
        assert reported[-1]["val_loss"] == pytest.approx(printed, rel=1e-6)
        assert plateau.rate(0, 1, 1, reported) == plateau.rate(0, 1, 1, restated)
        if plateau.stops(reported):
            break
    # as long as sigma climbs equation 11 falls: some 400 epochs, and then 2 x 30 + 3 more
    lowest = min(range(len(reported)), key=lambda e: reported[e]["val_loss"])
    assert lowest > 390 and epoch == lowest + 63


def test_only_the_true_classs_map_is_held_against_gaze():
    """Spec, golden check 12: other maps get no gradient from gaze, and the gain gets one."""
    out, batch = example()
    loss = GazeGuided().build()
    loss(out, batch, torch.ones(3), ()).value.backward()
    reached = out["maps"].grad.abs().flatten(2).sum(-1) > 0
    assert torch.equal(reached, batch.guided)
    assert float(loss.log_gain.grad) != 0.0


def test_the_gradient_is_right_by_finite_differences():
    out, batch = example(dtype=torch.float64)
    for config in (GazeGuided(weights="fixed", learn_gain=True), GazeGuided(rescale=False)):
        loss = config.build().double()
        names = [n for n in (loss.log_gain, loss.log_sigma_map, loss.log_sigma_ce) if n.requires_grad]

        def value(logits, maps, loss=loss):
            # the loss reads maps in float32: the step is as large as that allows
            return loss({"logits": logits, "maps": maps}, batch, torch.ones(3), ()).value

        assert torch.autograd.gradcheck(value, (out["logits"], out["maps"]), eps=1e-3, atol=2e-3, rtol=1e-2)
        value(out["logits"], out["maps"]).backward()
        for number in names:
            got, kept = float(number.grad), float(number)
            number.data.fill_(kept + 1e-4)
            above = float(value(out["logits"], out["maps"]))
            number.data.fill_(kept - 1e-4)
            below = float(value(out["logits"], out["maps"]))
            number.data.fill_(kept)
            assert got == pytest.approx((above - below) / 2e-4, rel=1e-3, abs=1e-6)


def test_what_the_network_sees_is_a_multiple_of_the_printed_loss():
    grads = {}
    for rescale in (False, True):
        out, batch = example()
        loss = GazeGuided(sigma_map=0.01, rescale=rescale).build()
        loss(out, batch, torch.ones(3), ()).value.backward()
        grads[rescale] = (out["maps"].grad, out["logits"].grad, float(loss.log_sigma_map.grad))
    assert torch.allclose(grads[True][0] * 5000, grads[False][0], rtol=1e-4)
    assert torch.allclose(grads[True][1] * 5000, grads[False][1], rtol=1e-4)
    assert grads[True][2] == pytest.approx(grads[False][2], rel=1e-5)


@pytest.mark.parametrize(
    ("rate", "decay", "steps"),
    [
        (7e-3, 0.99, 700),
        pytest.param(3e-2, 0.99, 700, marks=pytest.mark.slow),
        pytest.param(1e-3, 0.999, 6000, marks=pytest.mark.slow),
        pytest.param(7e-3, 0.999, 6000, marks=pytest.mark.slow),
    ],
)
def test_sigma_climbs_by_itself_whatever_the_rate(rate, decay, steps):
    """Spec, golden check 13: ln sigma grows by (1 - beta2) / 4 a step, 2.5e-4 by default; its start sets a curriculum.

    The gradient falls as the square of sigma, and Adam divides by a mean of the past's.
    """
    out, batch = example()
    out = {name: tensor.detach() for name, tensor in out.items()}
    loss = GazeGuided(sigma_map=2e-9, learn_gain=False).build()
    adam = torch.optim.Adam(loss.parameters(), lr=rate, betas=(0.9, decay))
    track = []
    for _ in range(steps):
        adam.zero_grad()
        loss(out, batch, torch.ones(3), ()).value.backward()
        adam.step()
        track.append(float(loss.log_sigma_map.detach()))
    last = steps // 4
    assert (track[-1] - track[-1 - last]) / last == pytest.approx((1.0 - decay) / 4.0, rel=0.15)


def test_the_printed_start_freezes_float32_and_not_ours():
    frozen = {}
    for rescale in (False, True):
        out, batch = example()
        maps = torch.nn.Parameter(out["maps"].detach().clone())
        loss = GazeGuided(sigma_map=1.4e-11, rescale=rescale).build()
        adam = torch.optim.Adam([maps, *loss.parameters()], lr=6e-3)
        # the first steps may still pass: the state overflows as it fills
        for step in range(25):
            if step == 5:
                before = float(loss.log_sigma_map.detach()), maps.detach().clone()
            adam.zero_grad()
            loss({"logits": out["logits"].detach(), "maps": maps}, batch, torch.ones(3), ()).value.backward()
            adam.step()
        states = [s["exp_avg_sq"] for s in adam.state.values()]
        frozen[rescale] = any(bool(torch.isinf(s).any()) for s in states)
        moved = float(loss.log_sigma_map.detach()) != before[0] and not torch.equal(maps.detach(), before[1])
        assert moved is rescale
    assert frozen == {False: True, True: False}


def test_no_gaze_is_no_guidance_and_never_nan():
    out, _ = example()
    empty = batch_of([0, 1, 2, 0], torch.zeros(4, 1, 8, 8), torch.zeros(4, 3, dtype=torch.bool))
    for given in (empty, batch_of([0, 1, 2, 0], None, torch.zeros(4, 3, dtype=torch.bool))):
        loss = GazeGuided().build()
        term = loss(out, given, torch.ones(3), ())
        term.value.backward()
        assert term.parts["map_error"] == 0.0 and math.isfinite(float(term.value))
        assert not out["maps"].grad.any() and float(loss.log_sigma_map.grad or 0.0) == 0.0
        out["maps"].grad = out["logits"].grad = None
    # marked as guided, but the crop left nothing: a map of zeros, no division by zero
    claimed = batch_of([0, 1, 2, 0], torch.zeros(4, 1, 8, 8), torch.ones(4, 3, dtype=torch.bool))
    assert math.isfinite(float(GazeGuided()(out, claimed, torch.ones(3), ()).value))


def test_the_predicted_class_may_be_guided_instead():
    out, batch = example()
    named = out["logits"].argmax(dim=1)
    GazeGuided(guide="predicted").build()(out, batch, torch.ones(3), ()).value.backward()
    reached = (out["maps"].grad.abs().flatten(2).sum(-1) > 0).nonzero().tolist()
    assert reached == [[i, int(named[i])] for i in range(3)]


def test_what_means_nothing_is_refused():
    with pytest.raises(RecipeError, match="positive"):
        GazeGuided(sigma_map=0.0)
    out, batch = example()
    with pytest.raises(GeometryError, match="maps"):
        GazeGuided()({"logits": out["logits"]}, batch, torch.ones(3), ())


def test_under_autocast_the_loss_is_that_of_float32():
    out, batch = example()
    plain = float(GazeGuided(sigma_map=0.1)(out, batch, torch.ones(3), ()).value.detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = GazeGuided(sigma_map=0.1)(out, batch, torch.ones(3), ())
        coarse = {name: tensor.detach().bfloat16() for name, tensor in out.items()}
        rounded = GazeGuided(sigma_map=0.1)(coarse, batch, torch.ones(3), ())
    assert float(term.value.detach()) == plain
    assert rounded.value.dtype == torch.float64 and float(rounded.value.detach()) == pytest.approx(plain, rel=2e-2)


def test_where_each_class_has_a_target_of_its_own_each_is_scaled_by_itself():
    marks = torch.zeros(1, 2, 8, 8)
    marks[0, 0, 0, 0], marks[0, 1, 4:, 4:] = 1.0, 1.0
    seen = GazeGuided().build().gaze_on_map(marks, (2, 2))
    assert seen.flatten(2).tolist() == [[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]]
