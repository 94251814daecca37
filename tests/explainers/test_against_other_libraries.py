"""Every explainer on one network: beside others' libraries, in other modes and shapes, and on its page of the docs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.paths import ROOT
from torch import nn

from sightline.errors import GeometryError, SightlineError
from sightline.explainers.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from sightline.explainers.gradients import GuidedGradCAM, InputGradient, SmoothGrad
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import MeanPool
from sightline.structures.evidence import Evidence

LAYER = "trunk.net.layer3"
EXPLAINERS = (
    ClassActivationMap(),
    GradCAM(LAYER),
    GradCAMPlusPlus(LAYER),
    InputGradient(),
    InputGradient("guided"),
    InputGradient("deconvolution"),
    GuidedGradCAM(LAYER),
    SmoothGrad(InputGradient("guided"), samples=2),
    SmoothGrad(GradCAM(LAYER), samples=2),
)


def word(explainer):
    return type(explainer).__name__ + getattr(explainer, "rule", "")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = ClassMapModel(Backbone("test_resnet", options={"zero_init_last": False}), MeanPool()).build(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(1))


class Logits(nn.Module):
    """The network as other libraries want it: logits alone, no ReLU in place (their hooks cannot have it)."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network)
        for module in self.network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False

    def forward(self, x):
        return self.network(x).logits


def close(ours, theirs, tolerance=1e-4):
    scale = float(theirs.detach().abs().max())
    assert scale > 0 and ours.shape == theirs.shape
    return float((ours - theirs).detach().abs().max()) <= tolerance * scale


def test_gradients_are_captums(network, images):
    captum = pytest.importorskip("captum.attr")
    theirs = Logits(network)
    for rule, method in (
        ("vanilla", captum.Saliency(theirs)),
        ("guided", captum.GuidedBackprop(theirs)),
        ("deconvolution", captum.Deconvolution(theirs)),
    ):
        ours, _ = InputGradient(rule).gradients(network, images, [0, 2])
        for j, target in enumerate((0, 2)):
            more = {"abs": False} if rule == "vanilla" else {}
            assert close(ours[:, j], method.attribute(images.clone().requires_grad_(), target=target, **more)), rule


def test_grad_cam_and_guided_grad_cam_are_captums(network, images):
    captum = pytest.importorskip("captum.attr")
    theirs = Logits(network)
    layer = theirs.network.get_submodule(LAYER)
    cam = captum.LayerGradCam(theirs, layer).attribute(images, target=1, relu_attributions=True)
    assert close(GradCAM(LAYER)(network, images, [1]), cam)
    both = captum.GuidedGradCam(theirs, layer).attribute(images.clone().requires_grad_(), target=1)
    ours = GuidedGradCAM(LAYER, reduce="signed_sum", enlarge="nearest")(network, images, [1])
    assert close(ours[:, 0], both.sum(1))


@pytest.mark.parametrize("ours", [GradCAM(LAYER), GradCAMPlusPlus(LAYER)], ids=word)
def test_cams_are_those_of_pytorch_grad_cam(network, images, ours):
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    theirs = Logits(network)
    with getattr(package, word(ours))(theirs, [theirs.network.get_submodule(LAYER)]) as cam:
        cam(images, [targets.ClassifierOutputTarget(2)] * 3)
        kept = cam.activations_and_grads
        # A / 1e6 with 1e6 g: the same maps, beside which the constant that the package adds to g^2 is nothing
        maps = cam.get_cam_image(
            images, None, None, kept.activations[0].numpy() / 1e6, kept.gradients[0].numpy() * 1e6, eigen_smooth=False
        )
    assert close(ours(network, images, [2])[:, 0], torch.from_numpy(maps).relu())


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=word)
def test_several_classes_are_each_alone(network, images, explainer):
    both = explainer(network, images, [2, 0])
    assert close(both[:, :1], explainer(network, images, [2])) and close(both[:, 1:], explainer(network, images, [0]))
    each = explainer(network, images, torch.tensor([[2], [0], [2]]))
    assert close(each[:, 0], torch.stack([both[0, 0], both[1, 1], both[2, 0]]))
    assert not both.requires_grad and bool(both.isfinite().all())


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=word)
def test_an_image_is_explained_alike_whatever_surrounds_it(network, images, explainer):
    """In training, among other images, without gradients, in inference mode, in mixed precision, compiled or not."""
    want = explainer(network, images, [1])
    assert close(explainer(network, images[1:2], [1]), want[1:2])
    training = copy.deepcopy(network).train()
    before = copy.deepcopy(training.state_dict())
    assert torch.equal(explainer(training, images, [1]), want)
    with torch.no_grad():
        assert torch.equal(explainer(network, images, [1]), want)
        kept = explainer(network, images, [1], create_graph=True)
        assert kept.requires_grad and close(kept.detach(), want, 1e-5)
    with torch.inference_mode():
        assert torch.equal(explainer(network, images.clone(), torch.ones(3, 1, dtype=torch.int64)), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(explainer(network, images, [1]), want)
    assert close(explainer(network, images.double(), [1]), want, 1e-5)
    assert all(torch.equal(value, before[key]) for key, value in training.state_dict().items())
    assert all(module.training for module in training.modules())


class Dropping(nn.Module):
    """Drops by module, by function, and its own way."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.last = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 3)
        self.drop, self.norm = nn.Dropout2d(0.5), nn.InstanceNorm2d(6, track_running_stats=True)

    def forward(self, x):
        x = F.dropout(self.drop(self.norm(self.first(x))), 0.5, training=self.training)
        if self.training:
            x = x * torch.rand(len(x), 1, 1, 1).round()
        maps = self.last(x.relu())
        return Evidence(maps.mean((2, 3)), maps)


def test_nothing_is_dropped_unless_asked():
    network, x = Dropping().train(), torch.rand(4, 1, 9, 9)
    want = InputGradient()(copy.deepcopy(network).eval(), x, [0])
    state = copy.deepcopy(network.state_dict())
    torch.manual_seed(0)
    number = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(InputGradient()(network, x, [0]), want)
    assert torch.equal(torch.rand(1), number)
    assert not torch.allclose(InputGradient(dropout="as_is")(network, x, [0]), want)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert network.training and network.norm.training and network.drop.training


class Detached(nn.Module):
    def forward(self, x):
        return Evidence(x.detach().mean((2, 3)))


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=word)
def test_what_cannot_be_explained_is_refused(network, images, explainer):
    for classes in ([3], [-1], [], torch.zeros(2, 1, dtype=torch.int64)):
        with pytest.raises(GeometryError):
            explainer(network, images, classes)
    with pytest.raises(SightlineError):
        explainer(Detached(), images, [0])


def test_the_docs_page_names_every_explainer_and_rule():
    page = (ROOT / "docs" / "explainers.md").read_text(encoding="utf-8")
    for name in ("cam", "grad_cam", "grad_cam_pp", "input_gradient", "guided_grad_cam", "smooth_grad"):
        assert f"`{name}`" in page, name
    for rule in ("vanilla", "guided", "deconvolution"):
        assert f"`{rule}`" in page, rule
