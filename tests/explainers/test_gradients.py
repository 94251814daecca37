"""Gradients of the image under a rule: against closed forms, Captum, finite differences; and nothing left behind."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from sightline.explainers.backprop_rules.rules import rewire
from sightline.explainers.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from sightline.explainers.gradients import GuidedGradCAM, InputGradient, SmoothGrad
from sightline.structures.evidence import Evidence

RULES = ("vanilla", "guided", "deconvolution")


class Small(nn.Module):
    """Two convolutions with batch norm and dropout, class maps, their mean; in two or three axes."""

    def __init__(self, activation, axes=2, pool=False, classes=3):
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if axes == 2 else nn.BatchNorm3d
        most = nn.MaxPool2d if axes == 2 else nn.MaxPool3d
        self.first = nn.Sequential(conv(2, 4, 3, padding=1), norm(4), activation())
        self.pool = most(2) if pool else nn.Identity()
        self.last = nn.Sequential(conv(4, 5, 3, padding=1, stride=2), activation(), nn.Dropout(0.5))
        self.head = conv(5, classes, 1)

    def forward(self, x):
        maps = self.head(self.last(self.pool(self.first(x))))
        return Evidence(maps.flatten(2).mean(-1), maps)


class Logits(nn.Module):
    """The same for libraries that want logits alone."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).logits


def made(activation=nn.ReLU, axes=2, dtype=torch.float32, **more):
    torch.manual_seed(1)
    network = Small(activation, axes, **more).to(dtype)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    shape = (2, 2, 8, 8) if axes == 2 else (2, 2, 4, 6, 6)
    return network.eval(), torch.rand(shape, dtype=dtype)


def test_the_rules_of_a_small_relu_network_in_closed_form():
    """x -> relu(a x) -> sum of b relu(...): what arrives at each unit is b, and a carries it to the image."""
    a, b = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 1.0, -1.0])

    class Two(nn.Module):
        def forward(self, x):
            hidden = torch.relu(x[:, :, None] * a)
            return Evidence((hidden * b).sum(dim=(1, 2))[:, None])

    x = torch.tensor([[2.0], [-1.0]])
    want = {
        "vanilla": [0.5 * 1 - 1 * 3.0, 1.0 * -2.0],
        "guided": [0.5, 1.0 * -2.0],
        "deconvolution": [0.5 - 2.0, 0.5 - 2.0],
    }
    for rule in RULES:
        got, _ = InputGradient(rule).gradients(Two(), x, [0])
        assert got.flatten().tolist() == pytest.approx(want[rule])


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish, nn.ELU, nn.LeakyReLU, nn.ReLU6])
def test_the_rules_of_smooth_activations(activation):
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)
    arriving = torch.linspace(-1, 2, 25, dtype=torch.float64)
    f = activation()
    at = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(at).sum(), at)
    up = arriving.clamp(min=0)
    want = {"vanilla": arriving * slope, "guided": up * slope * (x > 0), "deconvolution": up}
    for rule in RULES:
        leaf = x.clone().requires_grad_()
        with rewire(rule) as rewired:
            y = f(leaf)
        (got,) = torch.autograd.grad(y, leaf, arriving)
        assert torch.allclose(got, want[rule]) and rewired.total == 1
        assert torch.equal(y, f(x))


def test_guided_is_deconvolution_where_every_activation_is_positive():
    network, x = made()
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.bias.data.fill_(9.0)
    guided, deconvolved = (InputGradient(rule).gradients(network, x, [0, 2])[0] for rule in RULES[1:])
    assert torch.equal(guided, deconvolved) and guided.abs().max() > 0


def test_guided_is_the_plain_gradient_where_nothing_negative_arrives():
    network, x = made()
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.weight.data.abs_()
    plain, guided = (InputGradient(rule).gradients(network, x, [1])[0] for rule in RULES[:2])
    assert torch.allclose(plain, guided, atol=1e-7) and plain.abs().max() > 0


def test_deconvolution_sees_the_image_only_through_max_pooling():
    """Zeiler's rule never looks at the activation: without pooling switches two images give one map (spec 4.4)."""
    for pool, same in ((False, True), (True, False)):
        network, x = made(pool=pool)
        maps = InputGradient("deconvolution")(network, x, [0])
        assert torch.allclose(maps[0], maps[1], atol=1e-7) is same


@pytest.mark.parametrize("axes", [2, 3])
def test_equal_to_captum(axes):
    captum = pytest.importorskip("captum.attr")
    network, x = made(axes=axes, pool=True)
    for rule, method in (("vanilla", None), ("guided", captum.GuidedBackprop), ("deconvolution", captum.Deconvolution)):
        for target in (0, 2):
            given = x.clone().requires_grad_()
            if method is None:
                theirs = captum.Saliency(Logits(network)).attribute(given, target=target, abs=False)
            else:
                theirs = method(Logits(copy.deepcopy(network))).attribute(given, target=target)
            ours, _ = InputGradient(rule).gradients(network, x, [target])
            assert torch.allclose(ours[:, 0], theirs, atol=1e-4 * float(theirs.abs().max()))


def test_guided_grad_cam_is_captums():
    captum = pytest.importorskip("captum.attr")
    network, x = made(pool=True)
    wrapped = Logits(copy.deepcopy(network))
    theirs = captum.GuidedGradCam(wrapped, wrapped.network.last).attribute(x.clone().requires_grad_(), target=1)
    coarse = GradCAM("last")(network, x, [1])
    fine, _ = InputGradient("guided").gradients(network, x, [1])
    product = fine[:, 0] * interpolate(coarse, size=x.shape[2:], mode="nearest")
    assert torch.allclose(product, theirs, atol=1e-4 * float(theirs.abs().max()))
    ours = GuidedGradCAM("last", enlarge="nearest")(network, x, [1])
    assert torch.allclose(ours[:, 0], product.clamp(min=0).mean(1), atol=1e-7)


@pytest.mark.parametrize("method", ["GradCAM", "GradCAMPlusPlus"])
def test_equal_to_pytorch_grad_cam(method):
    library = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, x = made(pool=True)
    # beside such gradients the constant that the library adds to their squares is nothing
    network.head.weight.data *= 1e3
    wrapped = Logits(copy.deepcopy(network))
    cam = getattr(library, method)(model=wrapped, target_layers=[wrapped.network.last])
    ours = {"GradCAM": GradCAM, "GradCAMPlusPlus": GradCAMPlusPlus}[method]("last")(network, x, [1])[:, 0]
    with torch.enable_grad():
        raw = cam(input_tensor=x, targets=[ClassifierOutputTarget(1)] * 2)
    # the library scales each map to 0..1 and enlarges it to the image by bilinear interpolation
    scaled = ours - ours.amin((1, 2), keepdim=True)
    scaled = scaled / (1e-7 + scaled.amax((1, 2), keepdim=True))
    cv2 = pytest.importorskip("cv2")
    for mine, map_ in zip(scaled, raw, strict=True):
        assert abs(cv2.resize(mine.numpy(), (8, 8)) - map_).max() < 1e-4


EXPLAINERS = [
    ClassActivationMap(),
    GradCAM("last"),
    GradCAMPlusPlus("last"),
    *(InputGradient(rule, reduce="signed_sum") for rule in RULES),
    GuidedGradCAM("last", reduce="signed_sum"),
    SmoothGrad(InputGradient("guided", reduce="signed_sum"), samples=2),
]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: type(e).__name__ + getattr(e, "rule", ""))
def test_the_gradient_of_a_loss_on_the_map_is_right(explainer, activation, axes):
    """Central differences over the weights that matter most, in float64: relative error below 1e-5."""
    network, x = made(activation, axes, torch.float64)

    def loss():
        maps = explainer(network, x, [0, 2], create_graph=True)
        return (maps * torch.linspace(0.5, 1.5, maps.numel(), dtype=maps.dtype).reshape(maps.shape)).sum() + (
            maps**2
        ).sum()

    weights = [p for p in network.parameters() if p.requires_grad]
    value = loss()
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    checked = 0
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is None or float(gradient.abs().max()) < 1e-9:
            continue
        place = int(gradient.abs().flatten().argmax())
        flat, step = weight.data.view(-1), 1e-6
        kept = float(flat[place])
        flat[place] = kept + step
        above = float(loss())
        flat[place] = kept - step
        below = float(loss())
        flat[place] = kept
        numeric = (above - below) / (2 * step)
        assert float(gradient.reshape(-1)[place]) == pytest.approx(numeric, rel=1e-5, abs=1e-8)
        checked += 1
    assert checked >= 3


def state_of(network):
    modes = [m.training for m in network.modules()]
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    needs = [p.requires_grad for p in network.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    return modes, hooks, needs, grads, {k: v.clone() for k, v in network.state_dict().items()}


def same_state(a, b):
    return (
        a[:3] == b[:3]
        and all((x is None and y is None) or torch.equal(x, y) for x, y in zip(a[3], b[3], strict=True))
        and all(torch.equal(a[4][key], b[4][key]) for key in a[4])
    )


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: type(e).__name__ + getattr(e, "rule", ""))
def test_the_model_is_left_as_it_was(explainer):
    network, x = made()
    network.train()
    network.first[1].eval()
    network.head.bias.requires_grad_(False)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    before = state_of(network)
    for create_graph in (False, True):
        explainer(network, x, [0], create_graph=create_graph)
        assert same_state(before, state_of(network))
    with pytest.raises(Exception, match="8"):
        explainer(network, x, [8])
    with pytest.raises(RuntimeError):
        explainer(network, x[:, :1], [0])
    assert same_state(before, state_of(network))


def test_in_training_the_pass_is_calm_unless_asked_otherwise():
    network, x = made()
    network.train()
    alone = InputGradient()(network, x[:1], [0])
    assert torch.allclose(alone, InputGradient()(network, x, [0])[:1], atol=1e-6)
    before = network.first[1].running_mean.clone()
    InputGradient(batch_norm="as_is")(network, x, [0])
    assert not torch.equal(before, network.first[1].running_mean)


def test_computed_in_full_precision_whatever_surrounds_it():
    network, x = made()
    want = InputGradient("guided")(network, x, [0])
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        got = InputGradient("guided")(network, x, [0])
    assert got.dtype == torch.float32 and torch.equal(got, want)


def test_smooth_grad_is_the_mean_over_its_own_noise():
    network, x = made(nn.SiLU)
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    once = SmoothGrad(InputGradient(), samples=4, noise=0.1)(network, x, [0])
    assert torch.equal(torch.rand(1), expected_next)
    assert torch.equal(once, SmoothGrad(InputGradient(), samples=4, noise=0.1)(network, x, [0]))
    assert torch.allclose(SmoothGrad(InputGradient(), 3, noise=0.0)(network, x, [0]), InputGradient()(network, x, [0]))
    generator = torch.Generator().manual_seed(0)
    scale = 0.1 * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    slow = [InputGradient()(network, x + scale * torch.randn(x.shape[1:], generator=generator), [0]) for _ in range(4)]
    assert torch.allclose(once, sum(slow) / 4, atol=1e-7)
