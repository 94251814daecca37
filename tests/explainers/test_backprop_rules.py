"""Rules for activations: met however they are written, told when not, right to second order, gone afterwards."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers.activations import Mish, QuickGELU, Swish
from timm.layers.activations_me import SwishMe
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from sightline.errors import RecipeError, RunError
from sightline.explainers.backprop_rules.rules import rewire
from sightline.explainers.gradients import InputGradient
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import MeanPool
from sightline.structures.evidence import Evidence

RULES = ("vanilla", "guided", "deconvolution")


class Chain(nn.Module):
    """Two convolutions with something between them, a squeeze gate, class maps and their mean."""

    def __init__(self, between, axes=2, squeeze=None):
        super().__init__()
        torch.manual_seed(3)
        conv = (nn.Conv2d, nn.Conv3d)[axes - 2]
        self.first, self.last = conv(1, 4, 3, padding=1), conv(4, 2, 3, padding=1)
        self.down, self.up = conv(4, 2, 1), conv(2, 4, 1)
        self.between, self.squeeze = between, squeeze

    def forward(self, x):
        x = self.between(self.first(x))
        if self.squeeze is not None:
            pooled = x.flatten(2).mean(-1).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
            x = x * self.up(self.squeeze(self.down(pooled))).sigmoid()
        maps = self.last(x)
        # cells weighed differently: with a plain mean every cell would see the same gradient
        weights = torch.linspace(-1, 1, maps[0, 0].numel(), dtype=maps.dtype)
        return Evidence((maps.flatten(2) * weights).sum(-1), maps)


def grid(axes=2, dtype=torch.float32):
    return torch.rand(2, 1, *((5, 6), (4, 3, 3))[axes - 2], generator=torch.Generator().manual_seed(0)).to(dtype)


WRITTEN = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F": F.relu,
    "F in place": lambda x: F.relu(x, inplace=True),
    "F by keyword": lambda x: F.relu(input=x, inplace=False),
    "torch": torch.relu,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "torch in place": torch.relu_,
    "in place, result dropped": lambda x: (x.relu_(), x)[1],
    "F in place, result dropped": lambda x: (F.relu(x, True), x)[1],
    "a view in place": lambda x: (F.relu(x[:, :], inplace=True), x)[1],
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: torch.clamp_(x, 0.0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("how", WRITTEN)
def test_a_relu_is_met_however_it_is_written(how, rule):
    want, _ = InputGradient(rule).gradients(Chain(nn.ReLU()), grid(), [0, 1])
    network = Chain(WRITTEN[how])
    got, rewired = InputGradient(rule).gradients(network, grid(), [0, 1])
    assert torch.allclose(got, want, atol=1e-7) and float(want.abs().max()) > 0
    assert dict(rewired.activations) == {"relu": 1} and not rewired.escaped


SMOOTH = {
    "silu": (nn.SiLU(), nn.SiLU(inplace=True), Swish(), Swish(inplace=True), lambda x: x * torch.sigmoid(x),
             lambda x: F.silu(x, inplace=True), lambda x: F.sigmoid(x).mul(x), lambda x: (F.silu(x, True), x)[1]),
    "hardswish": (nn.Hardswish(), nn.Hardswish(inplace=True)),
    "elu": (nn.ELU(0.7), nn.ELU(0.7, inplace=True), lambda x: F.elu_(x, 0.7), lambda x: F.elu(x, alpha=0.7)),
    "leaky_relu": (nn.LeakyReLU(0.2), lambda x: F.leaky_relu_(x, 0.2), lambda x: F.leaky_relu(x, 0.2, True)),
    "gelu": (nn.GELU(approximate="tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "hardtanh": (nn.Hardtanh(-0.2, 0.3), lambda x: F.hardtanh_(x, -0.2, 0.3)),
    "celu": (nn.CELU(0.5), nn.CELU(0.5, inplace=True)),
    "selu": (nn.SELU(), nn.SELU(inplace=True)),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", SMOOTH)
def test_other_activations_are_met_however_they_are_written(kind, rule):
    first, *others = SMOOTH[kind]
    networks = [Chain(between) for between in (first, *others)]
    results = [InputGradient(rule).gradients(network, grid(), [1]) for network in networks]
    # the rule as printed in the docs, by hand
    x = grid().requires_grad_()
    before = networks[0].first(x)
    before.retain_grad()
    after = first(before)
    score = Chain(lambda x: x).last(after)
    score = (score.flatten(2) * torch.linspace(-1, 1, score[0, 0].numel())).sum(-1)[:, 1].sum()
    (arriving,) = torch.autograd.grad(score, after, retain_graph=True)
    (slope,) = torch.autograd.grad(first(before).sum(), before, retain_graph=True)
    passed = {
        "vanilla": arriving * slope,
        "guided": arriving.clamp(min=0) * slope * (before > 0),
        "deconvolution": arriving.clamp(min=0),
    }[rule]
    (want,) = torch.autograd.grad(before, x, passed)
    for got, rewired in results:
        assert torch.allclose(got[:, 0], want, atol=1e-6) and float(want.abs().max()) > 0
        assert dict(rewired.activations) == {kind: 1} and not rewired.escaped


def test_deconvolution_may_keep_the_slope_of_what_bends():
    for between in (nn.SiLU(), nn.ReLU()):
        without, with_slope = (
            InputGradient("deconvolution", deconvolution_slope=slope)(Chain(between), grid(), [0])
            for slope in (False, True)
        )
        assert torch.equal(without, with_slope) is isinstance(between, nn.ReLU)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("squeeze", [nn.ReLU(), nn.SiLU(), Swish()])
def test_gates_are_plain_unless_asked(squeeze, axes):
    network = Chain(nn.ReLU(), axes, squeeze)
    network.down.bias.data.fill_(0.5)
    kind = "relu" if isinstance(squeeze, nn.ReLU) else "silu"
    maps, rewired = InputGradient("guided").explain_by_rule(network, grid(axes), [0])
    assert dict(rewired.activations) == {"relu": 1} and dict(rewired.gates) == {kind: 1} and not rewired.escaped
    more, rewired = InputGradient("guided", gates="rewired").explain_by_rule(network, grid(axes), [0])
    assert rewired.total == 2 and not rewired.gates and not rewired.escaped
    assert not torch.allclose(maps, more)


class Scripted(nn.Module):
    def forward(self, x):
        return F.relu(x)


ESCAPES = {
    "a backward of its own": SwishMe(),
    "scripted": torch.jit.script(Scripted()),
    "a gate of itself": QuickGELU(),
    "written out": Mish(),
    "a slope to learn": nn.PReLU(),
    "a hard gate": lambda x: x * (F.relu6(x + 3) / 6),
}


@pytest.mark.parametrize("how", ESCAPES)
def test_what_no_rule_reaches_is_told_and_refused(how):
    network = Chain(ESCAPES[how])
    for _ in range(2):
        # scripts change their form after the first calls
        _, rewired = InputGradient("guided").explain_by_rule(network, grid(), [0])
        assert sum(rewired.escaped.values()) == 1
    for rule in RULES[1:]:
        with pytest.raises(RunError, match="does not reach"):
            InputGradient(rule)(network, grid(), [0])
    assert InputGradient("vanilla")(network, grid(), [0]).abs().max() > 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("between", [nn.ReLU(), nn.SiLU(), nn.GELU()])
def test_checkpoints_are_recomputed_under_the_rule_or_refused(between, rule):
    plain = Chain(between)
    saving = Chain(lambda x: checkpoint(between, x, use_reentrant=False))
    results = []
    for network in (plain, saving):
        maps = InputGradient(rule)(network, grid(), [0], create_graph=True)
        results.append((maps, torch.autograd.grad(maps.square().sum(), network.first.weight)[0]))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b) and float(a.detach().abs().max()) > 0
    with pytest.raises(RunError, match="use_reentrant"):
        InputGradient(rule)(Chain(lambda x: checkpoint(between, x, use_reentrant=True)), grid(), [0])


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "mobilenetv3_small_050"]
)
def test_nothing_of_timm_escapes(name):
    import timm

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = timm.create_model(name, num_classes=3)

        def forward(self, x):
            return Evidence(self.net(x))

    size = 160 if name == "test_vit" else 96
    for gates in ("plain", "rewired"):
        maps, rewired = InputGradient("guided", gates=gates).explain_by_rule(Net(), torch.rand(1, 3, size, size), [0])
        assert rewired.total >= 3 and not rewired.escaped, rewired
        assert bool(maps.isfinite().all())
    assert ("efficient" in name or "mobile" in name) == bool(
        InputGradient("guided").explain_by_rule(Net(), torch.rand(1, 3, size, size), [0])[1].gates
    )


def test_the_published_encoder_is_met_whole():
    """segmentation-models-pytorch writes EfficientNet's Swish out as x * sigmoid(x)."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    encoder = smp.encoders.get_encoder("timm-efficientnet-b0", weights=None)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, x):
            return Evidence(self.encoder(x)[-1].flatten(2).mean(-1)[:, :3])

    rewired = InputGradient("guided").explain_by_rule(Net(), torch.rand(1, 3, 64, 64), [0])[1]
    # a stem, and two in each of sixteen blocks but for the first, which does not widen; a gate in each
    assert dict(rewired.activations) == {"silu": 32} and dict(rewired.gates) == {"silu": 16} and not rewired.escaped


SECOND = [
    (between, rule, gates, slope)
    for between in (nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.GELU(), Swish())
    for rule, gates, slope in (
        ("vanilla", "plain", False),
        ("guided", "plain", False),
        ("guided", "rewired", False),
        ("deconvolution", "plain", False),
        ("deconvolution", "rewired", True),
    )
]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("between", "rule", "gates", "slope"), SECOND)
def test_a_map_is_differentiated_with_respect_to_all_weights(between, rule, gates, slope, axes):
    """Along random directions through all weights: central differences in float64, relative error below 1e-5."""
    network = Chain(copy.deepcopy(between), axes, nn.SiLU()).double()
    explain = InputGradient(rule, "signed_sum", gates, slope)
    x, weights = grid(axes, torch.float64), list(network.parameters())

    def loss(graph=False):
        maps = explain(network, x, [0, 1], create_graph=graph)
        aim = torch.linspace(-1, 1, maps.numel(), dtype=torch.float64).reshape(maps.shape)
        return (maps - aim).square().sum() + (maps * 3).tanh().sum()

    gradients = torch.autograd.grad(loss(graph=True), weights, allow_unused=True)
    generator = torch.Generator().manual_seed(7)
    for _ in range(2):
        directions = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
        said = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for weight, direction in zip(weights, directions, strict=True):
                    weight += step * direction
            ends.append(float(loss().detach()))
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight += 1e-6 * direction
        assert said == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5) and abs(said) > 1e-3


def test_a_rule_is_gone_after_its_block_also_after_an_exception():
    x = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    with pytest.raises(ZeroDivisionError), rewire("deconvolution"):
        raise ZeroDivisionError
    assert _get_current_function_mode_stack() == []
    (gradient,) = torch.autograd.grad(F.relu(x).sum(), x)
    assert gradient.tolist() == [[0.0, 1.0]]
    with pytest.raises(RecipeError, match="no rule"), rewire("backwards"):
        pass


@pytest.mark.slow
def test_a_compiled_network_is_explained_as_it_was_written():
    network = Chain(nn.ReLU())
    want = InputGradient("guided")(network, grid(), [0])
    whole = torch.compile(network, backend="eager")
    whole(grid())
    part = Chain(nn.ReLU())
    part.between = torch.compile(part.between, backend="eager")
    part(grid())
    itself = Chain(nn.ReLU())
    itself.compile(backend="eager")
    itself(grid())
    for compiled in (whole, part, itself):
        maps, rewired = InputGradient("guided").explain_by_rule(compiled, grid(), [0])
        assert torch.allclose(maps, want, atol=1e-7) and dict(rewired.activations) == {"relu": 1}
    with pytest.raises(RunError, match="scripted"):
        InputGradient("guided")(torch.jit.script(Scripted()), grid(), [0])


def test_weights_in_sixteen_bits_are_refused():
    with pytest.raises(RunError, match="single precision"):
        InputGradient()(Chain(nn.ReLU()).bfloat16(), grid(), [0])


def test_counts_of_a_known_network():
    network = ClassMapModel(Backbone("resnet18"), MeanPool()).build(2)
    rewired = InputGradient("guided").explain_by_rule(network, torch.rand(1, 3, 64, 64), [0])[1]
    assert dict(rewired.activations) == {"relu": 17} and not rewired.gates and not rewired.escaped
