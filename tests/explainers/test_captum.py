"""Captum's explainers: equal to Captum called directly, refused where they would be wrong in silence."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sightline.errors import GeometryError, RecipeError
from sightline.explainers.captum import DeepLift, IntegratedGradients, Lime
from sightline.explainers.sanity_checks.preflight import run_preflight
from sightline.structures.evidence import Evidence


class Net(nn.Module):
    def __init__(self, activation=nn.ReLU, axes=2):
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if axes == 2 else nn.BatchNorm3d
        self.trunk = nn.Sequential(
            conv(2, 4, 3, padding=1), norm(4), activation(), conv(4, 5, 3, stride=2), activation(), nn.Dropout(0.5)
        )
        self.head = conv(5, 3, 1)

    def forward(self, x):
        maps = self.head(self.trunk(x))
        return Evidence(maps.flatten(2).mean(-1), maps)


class Logits(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).logits


EXPLAINERS = [IntegratedGradients(steps=8), DeepLift(), Lime(samples=20, cells=4)]


def made(axes=2, **more):
    torch.manual_seed(0)
    shape = (2, 2, 12, 12) if axes == 2 else (2, 2, 6, 8, 8)
    return Net(axes=axes, **more).eval(), torch.rand(shape)


@pytest.mark.parametrize("axes", [2, 3])
def test_integrated_gradients_are_captums_and_complete(axes):
    attr = pytest.importorskip("captum.attr")
    network, images = made(axes)
    maps = IntegratedGradients(steps=20)(network, images, [0, 2])
    for j, c in enumerate((0, 2)):
        want = attr.IntegratedGradients(Logits(network)).attribute(images, target=c, n_steps=20).sum(1)
        assert torch.allclose(maps[:, j], want, atol=1e-6)
    fine = IntegratedGradients(steps=200, baseline=0.3)(network, images, [1])
    gain = network(images).logits - network(torch.full_like(images, 0.3)).logits
    assert torch.allclose(fine.flatten(1).sum(1), gain[:, 1], atol=1e-3)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.filterwarnings("ignore:Setting forward")
def test_deep_lift_is_captums_and_complete(axes):
    attr = pytest.importorskip("captum.attr")
    network, images = made(axes)
    maps = DeepLift(baseline=0.2)(network, images, torch.tensor([[0, 2], [1, 2]]))
    assert maps.shape == (2, 2, *images.shape[2:])
    base = torch.full_like(images, 0.2)
    want = attr.DeepLift(Logits(network)).attribute(images, baselines=base, target=torch.tensor([0, 1])).sum(1)
    assert torch.allclose(maps[:, 0], want, atol=1e-6)
    gain = (network(images).logits - network(base).logits)[:, 2]
    assert torch.allclose(maps[:, 1].flatten(1).sum(1), gain, atol=1e-4)


def test_lime_finds_the_one_square_that_counts_and_repeats():
    pytest.importorskip("captum.attr")

    class Corner(nn.Module):
        def forward(self, x):
            value = x[:, 0, 3:6, 6:9].mean((1, 2)) * 4
            return Evidence(torch.stack([value, -value], dim=1))

    images = torch.ones(2, 1, 12, 12)
    state = torch.get_rng_state()
    explainer = Lime(samples=60, cells=4)
    maps = explainer(Corner(), images, [0, 1])
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(maps, explainer(Corner(), images, [0, 1]))
    assert torch.equal(maps[0], maps[1])
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[3:6, 6:9] = True
    assert maps[0, 0][inside].min() > 3.5
    assert maps[0, 0][~inside].abs().max() < 0.1
    assert maps[0, 1][inside].max() < -3.5


def test_lime_is_captums():
    attr = pytest.importorskip("captum.attr")
    from captum._utils.models.linear_model import SkLearnLasso

    network, images = made()
    got = Lime(samples=30, cells=3, alpha=1e-4, at_once=5, seed=4)(network, images[:1], [2])[0, 0]
    rows = torch.arange(12) // 4
    mask = (rows[:, None] * 3 + rows)[None, None]
    state = torch.get_rng_state()
    torch.manual_seed(4)
    want = attr.Lime(Logits(network), interpretable_model=SkLearnLasso(alpha=1e-4)).attribute(
        images[:1], target=2, feature_mask=mask, n_samples=30, perturbations_per_eval=5, baselines=0.0
    )
    torch.set_rng_state(state)
    assert got.abs().max() > 0
    assert torch.allclose(got, want[0, 0], atol=1e-6)


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_networks_that_return_plain_logits_are_explained_too(explainer):
    pytest.importorskip("captum.attr")
    network, images = made()
    assert torch.equal(explainer(Logits(network), images, [0, 2]), explainer(network, images, [0, 2]))


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: type(e).__name__)
def test_nothing_is_left_behind_also_after_an_exception(explainer):
    pytest.importorskip("captum.attr")
    network, images = made()
    network.train()
    network(images).logits.sum().backward()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    grads = [p.grad.clone() for p in network.parameters()]
    for classes in ([1], [7]):
        if classes == [7]:
            with pytest.raises(GeometryError):
                explainer(network, images, classes)
        else:
            with torch.no_grad():
                maps = explainer(network, images, classes)
            assert not maps.requires_grad
            assert maps.shape == (2, 1, 12, 12)
        assert all(m.training for m in network.modules())
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
        assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), grads, strict=True))
        assert all(p.requires_grad for p in network.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
        assert not any(hasattr(m, "output") for m in network.modules())


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: type(e).__name__)
def test_a_graph_is_refused(explainer):
    network, images = made()
    with pytest.raises(RecipeError, match="without a graph"):
        explainer(network, images, [0], create_graph=True)


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: type(e).__name__)
def test_a_missing_captum_is_named(explainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    network, images = made()
    with pytest.raises(RecipeError, match=r"pip install 'sightline-radiology\[captum\]'"):
        explainer(network, images, [0])


def test_deep_lift_refuses_what_it_has_no_rule_for():
    pytest.importorskip("captum.attr")
    network, images = made(activation=nn.SiLU)
    with pytest.raises(RecipeError, match="no rule for 2 silu"):
        DeepLift()(network, images, [0])

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Net()

        def forward(self, x):
            return self.inner(F.relu(x - 0.5))

    with pytest.raises(RecipeError, match="holds 2 of them"):
        DeepLift()(Functional(), images, [0])


def test_in_place_activations_are_not_in_the_way():
    pytest.importorskip("captum.attr")
    network, images = made()
    want = DeepLift()(network, images, [0])
    network.trunk[2].inplace = True
    assert torch.equal(DeepLift()(network, images, [0]), want)
    assert network.trunk[2].inplace


def test_settings_that_mean_nothing_are_refused():
    for bad in (lambda: IntegratedGradients(steps=0), lambda: Lime(samples=1), lambda: Lime(cells=0)):
        with pytest.raises(RecipeError):
            bad()


def test_preflight_takes_them():
    pytest.importorskip("captum.attr")
    network, images = made()
    report = run_preflight(network, images, IntegratedGradients(steps=4))
    assert report.finding("traces").severity == "ok"
    assert report.finding("image").severity == "ok"
