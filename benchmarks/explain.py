"""Explaining a batch of 64 images: our explainers against Captum's and pytorch-grad-cam's, on one network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM as PackagedGradCAM
from pytorch_grad_cam import GradCAMPlusPlus as PackagedGradCAMPlusPlus
from pytorch_grad_cam import GuidedBackpropReLUModel
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.profiler import ProfilerActivity, profile

from benchmarks.maps import Logits
from benchmarks.timing import Result, Row, Unequal, alternate
from sightline.explainers.cam import GradCAM, GradCAMPlusPlus
from sightline.explainers.gradients import GuidedGradCAM, InputGradient
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel, ClassMapNetwork
from sightline.models.pooling import MeanPool
from sightline.structures.protocols import Explainer

GOAL = 2.0
CLASSES = 3
TOLERANCE = 1e-4
# one pass on either side
BOUNDED = ("Grad-CAM, one class / Captum", "guided gradient, one class / Captum")
Call = Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class Settings:
    """What is measured: images [batch, 3, size, size], `pairs` counted pairs a row."""

    backbone: str = "resnet18"
    size: int = 64
    batch: int = 64
    pairs: int = 7
    warm_up: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Match:
    """One explanation, made by both sides."""

    what: str
    ours: Call
    theirs: Call


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings("test_resnet", batch=2, pairs=1, warm_up=0, device=device)
    return Settings(size=224, pairs=20, warm_up=3, device=device) if device == "cuda" else Settings(device=device)


def measure(chosen: Settings) -> Result:
    """Ratios of every explanation, each shown to be equal first."""
    rows, gaps, bounds = [], [], []
    with warnings.catch_warnings():
        # Captum warns of its hooks at every call
        warnings.simplefilter("ignore")
        for match in matches(*make(chosen)):
            gaps.append(check(match))
            a, b = alternate(match.ours, match.theirs, pairs=chosen.pairs, warm_up=chosen.warm_up, device=chosen.device)
            label = f"{match.what}; {chosen.backbone}, batch {chosen.batch}, {chosen.size} px"
            rows.append(Row(label, a, b, "s", "theirs / ours", GOAL, "high"))
            if match.what in BOUNDED and chosen.device == "cpu":
                share = of_convolutions(match.ours)
                bounds.append(f"{match.what}: {share:.0%} of our time, {rows[-1].median / share:.2f} without the rest")
    return Result(
        "explain",
        asdict(chosen),
        tuple(rows),
        notes=(
            "Each side is called as its documentation does, with the same weights in evaluation mode, and gives an "
            "array on the host. Captum and pytorch-grad-cam explain one class per call, ours all classes after "
            "one forward pass; `GuidedBackpropReLUModel` explains one image per call. Maps of `pytorch_grad_cam` are "
            "enlarged to the image and scaled to 0..1; here ours are too. Layer: the last features.",
            "Grad-CAM of one class at the last layer takes one forward pass on either side (Captum, too, stops its "
            "backward pass at the layer); a guided gradient of one class takes one forward pass and one backward pass "
            "to the image. Outside the convolutions everything that could be saved is saved: batch norm is folded into "
            "their weights, the memory layout suits pooling and convolutions, and the last backward step to the image "
            "is a separate convolution. Share of convolutions, and what the ratio would be if everything else took no "
            "time: "
            + ("; ".join(bounds) or "not measured here")
            + ". To be twice as fast would need another algorithm for the convolutions themselves.",
            f"Checked first: the two sides differ by at most {max(gaps):.1e} of the largest value.",
        ),
    )


def of_convolutions(call: Call) -> float:
    """The share of a call's time that the processor spends in convolutions and their gradients."""
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        call()
    times = {event.key: event.self_cpu_time_total for event in measured.key_averages()}
    return sum(time for name, time in times.items() if "aten" in name and "conv" in name) / sum(times.values())


def make(chosen: Settings) -> tuple[ClassMapNetwork, Tensor]:
    """A network with random weights, ready to explain, and a batch of noise."""
    torch.manual_seed(0)
    network = ClassMapModel(Backbone(name=chosen.backbone, channels=3), pool=MeanPool()).build(CLASSES)
    with torch.no_grad():
        # a random classifier may speak against everything; this one speaks for every class somewhere
        network.head.linear.weight.abs_()
    images = torch.rand(chosen.batch, 3, chosen.size, chosen.size, generator=torch.Generator().manual_seed(0))
    return network.to(chosen.device).eval(), images.to(chosen.device)


def matches(network: ClassMapNetwork, images: Tensor) -> list[Match]:
    """Every explanation that both sides know."""
    guided, cam = InputGradient("guided", "signed_sum"), GradCAM()
    both = GuidedGradCAM("attention", "guided", "signed_sum", "nearest")
    found = [
        Match(
            "Grad-CAM, one class / pytorch-grad-cam",
            finished(cam, network, images),
            packaged(PackagedGradCAM, network, images),
        ),
        Match(
            "Grad-CAM++, one class / pytorch-grad-cam",
            finished(GradCAMPlusPlus(), network, images),
            packaged(PackagedGradCAMPlusPlus, network, images),
        ),
        Match(
            "guided gradient, one class / pytorch-grad-cam",
            plain(guided, network, images, (1,)),
            one_by_one(network, images),
        ),
    ]
    for name, explainer, other in (
        ("Grad-CAM", cam, captum_cam),
        ("guided gradient", guided, captum_guided),
        ("guided Grad-CAM", both, captum_both),
    ):
        for many, classes in (("one class", (1,)), (f"{CLASSES} classes", tuple(range(CLASSES)))):
            ours, theirs = plain(explainer, network, images, classes), other(network, images, classes)
            found.append(Match(f"{name}, {many} / Captum", ours, theirs))
    return found


def plain(explainer: Explainer, network: ClassMapNetwork, images: Tensor, classes: tuple[int, ...]) -> Call:
    """Our maps [b, n, *m]."""
    return lambda: explainer(network, images, classes).cpu().numpy()


def finished(explainer: Explainer, network: ClassMapNetwork, images: Tensor) -> Call:
    """Our maps of class 1, scaled to 0..1 and enlarged: [b, h, w]."""

    def call() -> NDArray[np.float32]:
        maps = scaled(explainer(network, images, (1,)))
        large = interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)
        done: NDArray[np.float32] = large[:, 0].cpu().numpy()
        return done

    return call


def scaled(maps: Tensor) -> Tensor:
    """Each map [h, w] to 0..1."""
    maps = maps - maps.amin(dim=(2, 3), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(2, 3), keepdim=True))


def packaged(kind: type, network: ClassMapNetwork, images: Tensor) -> Call:
    """pytorch-grad-cam's maps of class 1, [b, h, w]."""
    wrapped = hookable(network)
    cam = kind(model=wrapped, target_layers=[wrapped.network.attention])
    return lambda: cam(input_tensor=images, targets=[ClassifierOutputTarget(1)] * len(images))


def one_by_one(network: ClassMapNetwork, images: Tensor) -> Call:
    """pytorch-grad-cam's guided gradients of class 1, channels summed as ours: [b, 1, h, w]."""
    model = GuidedBackpropReLUModel(hookable(network))

    def call() -> NDArray[np.float32]:
        maps = [model(image[None].clone(), target_category=1).sum(-1) for image in images]
        model.model.zero_grad(set_to_none=True)
        return np.stack(maps)[:, None]

    return call


def captum_cam(network: ClassMapNetwork, images: Tensor, classes: tuple[int, ...]) -> Call:
    """Captum's Grad-CAM."""
    wrapped = hookable(network)
    method = LayerGradCam(wrapped, wrapped.network.attention)
    return lambda: joined([method.attribute(images, target=c, relu_attributions=True) for c in classes])


def captum_guided(network: ClassMapNetwork, images: Tensor, classes: tuple[int, ...]) -> Call:
    """Captum's guided gradient."""
    method, given = GuidedBackprop(hookable(network)), images.clone().requires_grad_()
    return lambda: joined([method.attribute(given, target=c).sum(1, keepdim=True) for c in classes])


def captum_both(network: ClassMapNetwork, images: Tensor, classes: tuple[int, ...]) -> Call:
    """Captum's guided Grad-CAM."""
    wrapped, given = hookable(network), images.clone().requires_grad_()
    method = GuidedGradCam(wrapped, wrapped.network.attention)
    return lambda: joined([method.attribute(given, target=c).sum(1, keepdim=True) for c in classes])


def joined(maps: list[Tensor]) -> NDArray[np.float32]:
    """Maps [b, 1, *m] of classes as [b, n, *m] on the host."""
    done: NDArray[np.float32] = torch.cat(maps, dim=1).detach().cpu().numpy()
    return done


def hookable(network: ClassMapNetwork) -> Logits:
    """A copy without ReLUs in place, which the others' hooks cannot have."""
    wrapped = Logits(copy.deepcopy(network))
    for module in wrapped.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return wrapped.eval()


def check(match: Match) -> float:
    """Largest difference, as a share of the largest value.

    Raises:
        Unequal: they differ by more than 1e-4, or there is nothing to compare.
    """
    ours, theirs = match.ours(), match.theirs()
    if ours.shape != theirs.shape:
        raise Unequal(f"{match.what}: our maps are {ours.shape}, theirs {theirs.shape}.")
    scale = float(np.abs(theirs).max())
    if scale == 0.0:
        raise Unequal(f"{match.what}: every map is zero, nothing can be compared.")
    gap = float(np.abs(ours - theirs).max()) / scale
    if not gap <= TOLERANCE:
        raise Unequal(f"{match.what}: the two sides differ by {gap:.1e} of the largest value.")
    return gap
