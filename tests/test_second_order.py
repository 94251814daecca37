"""Layers answered so that their gradient is cheap to differentiate: the numbers are torch's own."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from sightline.explain.rules import Rewired, rewire
from sightline.explain.second_order import cheaply

LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
    "each channel alone": lambda: nn.Conv2d(4, 8, 5, stride=2, padding=2, groups=4),
    "wide": lambda: nn.Conv2d(4, 6, (3, 1), stride=(3, 2), padding=(1, 0), dilation=(2, 1)),
    "named padding": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "batch norm": lambda: nn.BatchNorm2d(4).eval(),
    "batch norm without weights": lambda: nn.BatchNorm2d(4, affine=False).eval(),
    "batch norm of the batch": lambda: nn.BatchNorm2d(4),
    "batch norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}


def made(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return nn.Sequential(layer, nn.Softplus(), nn.Flatten())


def first_and_second(network, images, cheap):
    """The gradient of a score with respect to the image, and that of its square sum with respect to all weights."""
    x = images.clone().requires_grad_()
    rewired = Rewired()
    if cheap:
        with rewire("vanilla") as rewired, cheaply(rewired):
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
    network, rewired = made("plain"), Rewired()
    x = torch.rand(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    with cheaply(rewired):
        score = network(x).sum()
    weights = list(network.parameters())
    assert all(g is None for g in torch.autograd.grad(score, weights, retain_graph=True, allow_unused=True))
    rewired.ruling = False
    assert all(float(g.abs().sum()) > 0 for g in torch.autograd.grad(score, weights))


def test_pictures_without_a_batch_and_nothing_outside_the_block():
    x, w = torch.rand(1, 5, 5), torch.rand(2, 1, 3, 3, requires_grad=True)
    with cheaply(Rewired()):
        assert torch.equal(conv2d(x, w), torch.conv2d(x, w)) and "_Convolved" not in conv2d(x, w).grad_fn.name()
        assert "_Convolved" in conv2d(x[None], w).grad_fn.name()
    assert "_Convolved" not in conv2d(x[None], w).grad_fn.name()
