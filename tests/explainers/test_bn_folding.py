"""Layers answered at a fair price in a pass that explains: the numbers are torch's own, whatever looks at the maps."""

import copy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from timm.layers.activations_me import SwishMe
from torch import nn
from torch.nn.functional import conv2d
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from sightline.explainers.backprop_rules.rules import RuleRecord, compute_guided_silu_step, rewire
from sightline.explainers.bn_folding.deferred import DeferredTensor
from sightline.explainers.bn_folding.mode import bn_folding_mode
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.structures.evidence import Evidence


class Pooled(nn.Module):
    def forward(self, x):
        gate = x.mean((2, 3), keepdim=True).sigmoid() + torch.mean(x, dim=-1, keepdim=True) + x.mean()
        return x * gate + x.mean(1, True) + x.mean(dim=(-2, -1))[..., None, None]


LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
    "each channel alone": lambda: nn.Conv2d(4, 8, 5, stride=2, padding=2, groups=4),
    "wide": lambda: nn.Conv2d(4, 6, (3, 1), stride=(3, 2), padding=(1, 0), dilation=(2, 1)),
    "named padding": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "of many channels": lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 3, 3, stride=2, padding=1)),
    "far strides": lambda: nn.Conv2d(4, 6, 2, stride=4, padding=1),
    "both sides alike": lambda: nn.Conv2d(4, 3, (5, 2), stride=2, padding=(2, 1)),
    "batch norm": lambda: nn.BatchNorm2d(4).eval(),
    "batch norm without weights": lambda: nn.BatchNorm2d(4, affine=False).eval(),
    "a convolution and batch norm": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6).eval()),
    "grouped, without bias, and batch norm": lambda: nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4).eval()
    ),
    "many weights and batch norm": lambda: nn.Sequential(
        nn.Conv2d(4, 64, 8, bias=False), nn.BatchNorm2d(64).eval(), nn.Conv2d(64, 2, 1)
    ),
    "a mean of cells": Pooled,
    "batch norm of the batch": lambda: nn.BatchNorm2d(4),
    "batch norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}


def made(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return nn.Sequential(layer, nn.Softplus(), nn.Flatten())


def first_and_second(network, images, cheap):
    """The gradient of a score with respect to the image, and that of its square sum with respect to all weights."""
    x = images.clone().requires_grad_()
    rewired = RuleRecord()
    if cheap:
        with rewire("vanilla") as rewired, bn_folding_mode(rewired):
            score = network(x).pow(2).sum()
    else:
        score = network(x).pow(2).sum()
    (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    rewired.ruling = False
    second = torch.autograd.grad(gradient.pow(2).sum() + score, [x, *network.parameters()])
    return score, gradient, second


@pytest.mark.parametrize("name", LAYERS)
def test_first_and_second_gradients_are_torchs_own(name):
    network, images = made(name), torch.rand(3, 4, 9, 8, dtype=torch.float64)
    score, first, second = first_and_second(network, images, cheap=False)
    ours = first_and_second(network, images, cheap=True)
    assert torch.allclose(ours[0], score) and torch.allclose(ours[1], first)
    for a, b in zip(ours[2], second, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
    assert float(second[0].abs().sum()) > 0


def test_volumes_too():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 2, 3, stride=2), nn.BatchNorm3d(2).eval(), nn.Softplus()).double()
    images = torch.rand(2, 1, 6, 5, 7, dtype=torch.float64)
    _, first, second = first_and_second(network, images, cheap=False)
    ours = first_and_second(network, images, cheap=True)
    assert torch.allclose(ours[1], first) and all(torch.allclose(a, b) for a, b in zip(ours[2], second, strict=True))


def test_no_gradient_of_weights_while_the_image_is_differentiated():
    network, rewired = made("plain"), RuleRecord()
    x = torch.rand(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    with bn_folding_mode(rewired):
        score = network(x).sum()
    weights = list(network.parameters())
    assert all(g is None for g in torch.autograd.grad(score, weights, retain_graph=True, allow_unused=True))
    rewired.ruling = False
    assert all(float(g.abs().sum()) > 0 for g in torch.autograd.grad(score, weights))


def test_pictures_without_a_batch_and_nothing_outside_the_block():
    x, w = torch.rand(1, 5, 5), torch.rand(2, 1, 3, 3, requires_grad=True)
    with bn_folding_mode(RuleRecord()):
        assert (
            torch.equal(conv2d(x, w), torch.conv2d(x, w)) and "_ConvolutionFunction" not in conv2d(x, w).grad_fn.name()
        )
        assert "_ConvolutionFunction" in conv2d(x[None], w).grad_fn.name()
    assert "_ConvolutionFunction" not in conv2d(x[None], w).grad_fn.name()


class Steps(TorchDispatchMode):
    """Counts what torch really runs."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class Blocks(nn.Module):
    """Two convolutions with batch norm around whatever is given, class maps, their mean."""

    def __init__(self, between, width=6, channels=2):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.between = between
        self.last = nn.Sequential(nn.Conv2d(width, width, 3, stride=2), nn.BatchNorm2d(width), nn.SiLU(inplace=True))
        self.head = nn.Conv2d(width, 2, 1)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        self.eval()

    def forward(self, x):
        maps = self.head(self.last(self.between(self.first(x))))
        return Evidence((maps.flatten(2) * torch.linspace(-1, 1, maps[0, 0].numel())).sum(-1), maps)


IMAGES = torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))


def plain_gradient(network, images=IMAGES):
    """d z_1 / d image as torch computes it."""
    x = images.clone().requires_grad_()
    return torch.autograd.grad(network(x).logits[:, 1].sum(), x)[0]


def test_batch_norm_is_no_step_of_its_own():
    with Steps() as steps:
        ours = InputGradient("vanilla", "signed_sum")(Blocks(nn.ReLU()), IMAGES, [1])
    assert torch.allclose(ours[:, 0], plain_gradient(Blocks(nn.ReLU())).sum(1), atol=1e-6)
    assert steps.seen["convolution"] == 6 and not steps.seen["native_batch_norm"] and not steps.seen["addcmul"]
    assert not steps.seen["convolution_backward"]


class Looked(nn.Module):
    """A convolution whose values somebody reads, or whose input somebody overwrites, before the norm comes."""

    def __init__(self, how):
        super().__init__()
        self.how, self.conv, self.norm = how, nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x):
        x = x * 1
        y = self.conv(x)
        if self.how == "read":
            return self.norm(y) + y
        if self.how == "read by a function of its own":
            return self.norm(y) + SwishMe()(y)
        if self.how == "changed in place":
            y += 1
        if self.how == "read by script":
            return scripted(y)
        if self.how == "its input overwritten":
            with torch.no_grad():
                kept = x * 1
                z = self.conv(kept)
                kept.relu_()
            return self.norm(y) * z
        if self.how == "written by a function of its own":
            y = Overwrites.apply(y)
        if self.how == "without gradient":
            with torch.no_grad():
                z = self.conv(x)
            return self.norm(y) * z
        if self.how == "in a list":
            y = torch.cat([y[:, :3], y[:, 3:]], dim=1)
        return self.norm(y)


@torch.jit.script
def scripted(y: torch.Tensor) -> torch.Tensor:
    return y * 2


class Overwrites(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        ctx.mark_dirty(y)
        return y.mul_(3)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


@pytest.mark.parametrize(
    "how",
    ["not at all", "read", "read by a function of its own", "changed in place", "read by script", "in a list",
     "its input overwritten", "written by a function of its own", "without gradient"],
)  # fmt: skip
def test_whoever_looks_at_a_convolution_sees_its_values(how):
    torch.manual_seed(4)
    network = Blocks(Looked(how)).eval()
    want = plain_gradient(network)
    for create_graph in (False, True):
        ours, _ = InputGradient("vanilla").gradients(network, IMAGES, [1], create_graph=create_graph)
        assert torch.allclose(ours[:, 0], want, atol=1e-5 * float(want.abs().max())), create_graph
    # a hook that looks sees them too, and nothing is otherwise for it
    seen = []
    network.get_submodule("between.conv").register_forward_hook(lambda module, given, output: seen.append(output * 1))
    network(IMAGES)
    again, _ = InputGradient("vanilla").gradients(network, IMAGES, [1])
    assert torch.allclose(again[:, 0], want, atol=1e-5 * float(want.abs().max()))
    assert torch.allclose(seen[0], seen[-1], atol=1e-5) and bool(seen[0].isfinite().all())


def test_grad_cam_at_a_convolution_before_its_norm():
    network, layer = Blocks(nn.ReLU()), "first.0"
    kept = network.get_submodule(layer)(IMAGES).detach().requires_grad_()
    maps = network.head(network.last(network.between(network.first[1](kept))))
    score = (maps.flatten(2) * torch.linspace(-1, 1, maps[0, 0].numel())).sum(-1)[:, 1].sum()
    weights = torch.autograd.grad(score, kept)[0].mean((2, 3), keepdim=True)
    want = (weights * kept).sum(1).relu().detach()
    assert torch.allclose(GradCAM(layer)(network, IMAGES, [1])[:, 0], want, atol=1e-6) and float(want.max()) > 0


class Saved(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False)


@pytest.mark.parametrize("create_graph", [False, True])
def test_checkpoints_hold_whole_blocks(create_graph):
    torch.manual_seed(3)
    plain = Blocks(nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU()))
    saving = copy.deepcopy(plain)
    saving.between = Saved(saving.between)
    results = []
    for network in (plain, saving):
        maps = InputGradient("guided")(network, IMAGES, [0], create_graph=create_graph)
        weights = [network.first[0].weight, network.last[0].weight]
        results.append((maps, *(torch.autograd.grad(maps.square().sum(), weights) if create_graph else ())))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-8) and float(a.detach().abs().max()) > 0


@pytest.mark.parametrize("side", [4, 12, 20])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layouts_change_no_number(side, layout):
    """In single precision, where maps are laid out anew: first and second gradients of tiny and larger maps."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8), nn.Softplus(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, padding=1, groups=4), nn.SiLU(),
    ).eval().to(memory_format=layout)  # fmt: skip
    exact = copy.deepcopy(network).double()
    images = torch.rand(2, 3, side, side).contiguous(memory_format=layout)
    ours = first_and_second(network, images, cheap=True)
    want = first_and_second(exact, images.double(), cheap=False)
    assert torch.allclose(ours[1].double(), want[1], atol=1e-4 * float(want[1].abs().max()))
    for a, b in zip(ours[2], want[2], strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
        assert float(b.abs().max()) > 0


def test_a_later_map_answers_for_its_shape_and_is_made_once():
    made = []

    def make():
        made.append(torch.full((2, 3), 5.0))
        return made[-1]

    later = DeferredTensor.from_promise(torch.tensor(torch.nan).expand(2, 3), make)
    assert later.shape == (2, 3) and later.ndim == later.dim() == 2 and len(later) == 2 and later.size(1) == 3
    assert later.dtype == torch.float32 and not later.requires_grad and not made
    assert float((later + later).sum()) == 60 and float(torch.stack([later, later])[1, 0, 0]) == 5
    later.mul_(2)
    assert later.tolist() == [[10.0] * 3] * 2 and len(made) == 1
    assert later.grad_fn is None and later.is_contiguous() and F.relu(later) is not later


def test_guided_silu_in_closed_form_and_its_derivatives():
    x = torch.linspace(-4, 4, 41, dtype=torch.float64).add(0.013).requires_grad_()
    g = torch.linspace(-1, 2, 41, dtype=torch.float64).roll(7).add(0.007).requires_grad_()
    (slope,) = torch.autograd.grad(F.silu(x).sum(), x)
    assert torch.allclose(compute_guided_silu_step(g, x), g.clamp(min=0) * slope * (x > 0))
    assert torch.autograd.gradcheck(compute_guided_silu_step, (g, x))

    def activated(x):
        with rewire("guided"):
            return F.silu(x)

    assert torch.autograd.gradgradcheck(activated, (x,), grad_outputs=(g.detach().abs().requires_grad_(),))
