"""Class activation maps and Grad-CAM against closed forms and pytorch-grad-cam."""

import pytest
import torch
from torch import nn

from sightline.errors import GeometryError, RecipeError
from sightline.explainers.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import MeanPool
from sightline.structures.evidence import Batch, Evidence


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ClassMapModel(Backbone("resnet18", options={"zero_init_last": False}), MeanPool()).build(3).eval()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.rand(2, 3, 96, 64)


class LogitsOnly(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net(images).logits


def test_class_maps_are_the_evidence(net, images):
    evidence = net(images)
    assert torch.equal(ClassActivationMap()(net, images, [2, 0]), evidence.maps[:, [2, 0]])
    each = ClassActivationMap(extra="attention")(net, images, torch.tensor([[1], [2]]))
    expected = torch.stack([evidence.extras["attention"][0, 1:2], evidence.extras["attention"][1, 2:3]])
    assert torch.equal(each, expected)
    assert not each.requires_grad
    assert ClassActivationMap()(net, images, [0], create_graph=True).requires_grad


def test_a_batch_is_its_images(net, images):
    batch = Batch(images, torch.zeros(2, dtype=torch.int64), None, torch.zeros(2, 3, dtype=torch.bool), (), ("a", "b"))
    for explain in (ClassActivationMap(), GradCAM()):
        assert torch.equal(explain(net, batch, [1]), explain(net, images, [1]))


def test_grad_cam_of_a_mean_pooled_network_is_its_class_map_without_bias(net, images):
    # Selvaraju 2017, section 3.1: up to the factor 1/n of the mean
    maps = ClassActivationMap()(net, images, [0, 1, 2])
    n = maps[0, 0].numel()
    expected = (maps - net.head.linear.bias[:, None, None]) / n
    torch.testing.assert_close(GradCAM(relu=False)(net, images, [0, 1, 2]), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(GradCAM()(net, images, [0, 1, 2]), expected.relu(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("layer", ["trunk.net.layer2", "trunk.net.layer4", "trunk.net.layer3.0.conv1"])
def test_grad_cam_equals_the_published_package(net, images, layer):
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    ours = GradCAM(layer)(net, images, [2])[:, 0]
    with package.GradCAM(LogitsOnly(net), [net.get_submodule(layer)]) as cam:
        cam(images, [targets.ClassifierOutputTarget(2)] * 2)
        activations = cam.activations_and_grads.activations[0].numpy()
        gradients = cam.activations_and_grads.gradients[0].numpy()
        theirs = cam.get_cam_image(images, None, None, activations, gradients, False)
    scale = float(abs(theirs).max())
    assert scale > 0
    torch.testing.assert_close(ours / scale, torch.from_numpy(theirs).relu() / scale, atol=1e-4, rtol=0)


@torch.no_grad()
def test_grad_cam_pp_behind_global_pooling_is_its_formula():
    """Of n cells, g = w / n: a constant beside g^2 let g^3 weigh the channels, the more the finer the map."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    for side in (8, 96):
        images = torch.rand(2, 1, side, side)
        features, w = network[:2](images), network[4].weight[1].relu()
        weights = w / (2.0 + w * features.mean((2, 3)))
        expected = torch.einsum("bc,bc...->b...", weights, features)
        torch.testing.assert_close(GradCAMPlusPlus("1")(network, images, [1])[:, 0], expected)


def test_layer_before_an_in_place_step(net, images):
    # timm's ReLU works in place on bn1's output; the map must be of what bn1 gave
    caught = []
    handle = net.trunk.net.bn1.register_forward_hook(lambda _m, _i, out: caught.append(out.clone()))
    net(images)
    handle.remove()
    maps = GradCAM("trunk.net.bn1", relu=False)(net, images, [0])
    assert maps.shape[2:] == caught[0].shape[2:]
    x = caught[0].detach().requires_grad_()
    rest = net.trunk.net
    logits = MeanPool()(net.head(rest.layer4(rest.layer3(rest.layer2(rest.layer1(rest.maxpool(x.relu())))))))
    gradient = torch.autograd.grad(logits[:, 0].sum(), x)[0]
    torch.testing.assert_close(maps[:, 0], (gradient.mean((2, 3), keepdim=True) * x).sum(1), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(images, training):
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18", frozen_stages=1)).build(2).train(training)
    modes = [module.training for module in net.modules()]
    GradCAM()(net, images, [0, 1])
    with pytest.raises(GeometryError):
        GradCAM("head")(Broken(net), images, [0])
    with pytest.raises(RuntimeError, match="on purpose"):
        GradCAM("net.attention")(Broken(net), images, [0])
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())
    assert all(p.grad is None for p in net.parameters())


class Broken(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.head = Vector()

    def forward(self, images):
        self.net(images)
        self.head(images)
        raise RuntimeError("on purpose")


class Vector(nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def test_maps_can_be_trained_on(images):
    torch.manual_seed(0)
    net = ClassMapModel(Backbone("resnet18")).build(2).eval()
    GradCAM("trunk.net.layer4")(net, images, [1], create_graph=True).sum().backward()
    assert bool((net.trunk.net.conv1.weight.grad != 0).any())
    assert not GradCAM()(net, images, [1]).requires_grad


class Quadratic(nn.Module):
    """z_c = mean over cells of (w_c . A)^2 for A = 2 x: a second-order gradient with a closed form."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False, dtype=torch.float64)
        self.weight = nn.Parameter(torch.tensor([1.0, 3.0], dtype=torch.float64))

    def forward(self, images):
        maps = (self.layer(images) * self.weight[None, :, None, None]).square()
        return Evidence(maps.mean((2, 3)), maps)


def test_second_order_gradient_by_finite_differences():
    torch.manual_seed(0)
    net = Quadratic()
    images = torch.rand(1, 1, 3, 3, dtype=torch.float64) + 0.1
    with torch.no_grad():
        net.layer.weight.fill_(0.7)
    explain = GradCAM("layer", relu=False)
    activation = 0.7 * images[0, 0]
    for c, w in enumerate((1.0, 3.0)):
        expected = (2 * w * w * activation / 9).mean() * activation
        torch.testing.assert_close(explain(net, images, [c])[0, 0], expected)

    def total(weight):
        with torch.no_grad():
            net.layer.weight.fill_(weight)
        return explain(net, images, [1], create_graph=True).sum()

    total(0.7).backward()
    slope = float((total(0.7 + 1e-6) - total(0.7 - 1e-6)).detach()) / 2e-6
    assert float(net.layer.weight.grad) == pytest.approx(slope, rel=1e-6)


def test_what_cannot_be_explained_is_refused(net, images):
    with pytest.raises(RecipeError, match="trunk"):
        GradCAM("nowhere")(net, images, [0])
    for classes in ([3], [-1], torch.zeros(3, 1, dtype=torch.int64), []):
        with pytest.raises(GeometryError):
            ClassActivationMap()(net, images, classes)
    with pytest.raises(GeometryError, match="no heat"):
        ClassActivationMap(extra="heat")(net, images, [0])


@pytest.mark.parametrize("extra", [None, "attention"])
def test_plain_logits_hold_no_class_maps(net, images, extra):
    with pytest.raises(GeometryError, match=extra or "class maps"):
        ClassActivationMap(extra)(LogitsOnly(net), images, [0])
