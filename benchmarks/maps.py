"""Class maps of a batch by one forward pass against pytorch-grad-cam's Grad-CAM of the same network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.timing import Result, Row, Unequal, alternate
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel, ClassMapNetwork
from sightline.models.pooling import MeanPool

GOAL = 3.0
CLASSES = 2


@dataclass(frozen=True)
class Settings:
    """What is measured: images [batch, 1, size, size] for every size, `pairs` counted pairs each."""

    backbone: str = "resnet50"
    sizes: tuple[int, ...] = (224, 512)
    batch: int = 16
    pairs: int = 5
    warm_up: int = 1
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings("test_resnet", sizes=(64,), batch=2, pairs=2, device=device)
    return Settings(pairs=30, warm_up=3, device=device) if device == "cuda" else Settings(device=device)


class Logits(nn.Module):
    """Our network as pytorch-grad-cam wants it: logits only."""

    def __init__(self, network: ClassMapNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits [b, k]."""
        logits: Tensor = self.network(images).logits
        return logits


def measure(chosen: Settings) -> Result:
    """Ratios at every size: the maps alone, and the maps enlarged and scaled as the other side gives them."""
    rows: list[Row] = []
    gaps = []
    for size in chosen.sizes:
        network, images = make(chosen, size)
        gaps.append(check(network, images))
        theirs = grad_cam_of(network, images)
        for what, ours in (
            ("all class maps on their own grid", lambda n=network, i=images: class_maps(n, i)),
            ("predicted class's map, enlarged and scaled to 0..1", lambda n=network, i=images: finished_maps(n, i)),
        ):
            a, b = alternate(ours, theirs, pairs=chosen.pairs, warm_up=chosen.warm_up, device=chosen.device)
            label = f"{what}; {chosen.backbone}, batch {chosen.batch}, {size} px"
            rows.append(Row(label, a, b, "s", "theirs / ours", GOAL, "high"))
    return Result(
        "maps",
        asdict(chosen),
        tuple(rows),
        notes=(
            "Ours: one forward pass without gradients, maps of all classes. Theirs: `pytorch_grad_cam.GradCAM` on the "
            "last feature layer of the same network object, for the predicted class, called as its documentation "
            "does; it runs forward and backward through the whole network and returns one map an image, enlarged to "
            "the image and scaled to 0..1. The second kind of row does the same enlarging and scaling on our side.",
            f"Checked first: with mean pooling Grad-CAM is the rectified class map without its bias; the finished maps "
            f"differ by at most {max(gaps):.1e} (of 1).",
        ),
    )


def make(chosen: Settings, size: int) -> tuple[ClassMapNetwork, Tensor]:
    """A network with random weights and mean pooling, ready to explain, and a batch of grey noise."""
    torch.manual_seed(0)
    network = ClassMapModel(Backbone(name=chosen.backbone, channels=3), pool=MeanPool()).build(CLASSES)
    # a random classifier may speak against everything; this one speaks for the classes by different channels
    with torch.no_grad():
        network.head.linear.weight.abs_()
    network.to(chosen.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    blotches = torch.rand(chosen.batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = interpolate(blotches, size=(size, size), mode="bilinear", align_corners=False)
    return network, images.to(chosen.device).contiguous(memory_format=torch.channels_last)


def class_maps(network: ClassMapNetwork, images: Tensor) -> NDArray[np.float32]:
    """Maps of all classes [b, k, h', w'], on the host like the other side's."""
    with torch.inference_mode():
        maps: NDArray[np.float32] = network(images).maps.cpu().numpy()
    return maps


def finished_maps(network: ClassMapNetwork, images: Tensor) -> NDArray[np.float32]:
    """The predicted class's map without bias, rectified, scaled to 0..1 and enlarged: [b, h, w]."""
    with torch.inference_mode():
        evidence = network(images)
        top = evidence.logits.argmax(dim=1)
        rows = torch.arange(len(top), device=top.device)
        assert evidence.maps is not None
        chosen = (evidence.maps[rows, top] - network.head.linear.bias[top, None, None]).relu()
        large = interpolate(_scaled(chosen)[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)
        finished: NDArray[np.float32] = _scaled(large[:, 0]).cpu().numpy()
    return finished


def grad_cam_of(network: ClassMapNetwork, images: Tensor) -> Callable[[], NDArray[np.float32]]:
    """pytorch-grad-cam's maps [b, h, w] of the predicted classes."""
    explainer = GradCAM(model=Logits(network), target_layers=[network.attention])

    def call() -> NDArray[np.float32]:
        maps: NDArray[np.float32] = explainer(input_tensor=images, targets=None)
        return maps

    return call


def check(network: ClassMapNetwork, images: Tensor, tolerance: float = 1e-3) -> float:
    """Largest difference of the two sides' finished maps.

    Raises:
        Unequal: they differ, or a map is blank and would hide a difference.
    """
    ours, theirs = finished_maps(network, images), grad_cam_of(network, images)()
    network.zero_grad(set_to_none=True)
    if ours.shape != theirs.shape:
        raise Unequal(f"Our maps are {ours.shape}, pytorch-grad-cam's {theirs.shape}.")
    if min(np.ptp(ours, axis=(1, 2)).min(), np.ptp(theirs, axis=(1, 2)).min()) < 0.5:
        raise Unequal("A map is blank: nothing can be compared.")
    gap = float(np.abs(ours - theirs).max())
    if gap > tolerance:
        raise Unequal(f"The class map and Grad-CAM differ by {gap:.1e} of 1 although the head pools by the mean.")
    return gap


def _scaled(maps: Tensor) -> Tensor:
    """Each map [h, w] to 0..1."""
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (1e-7 + maps.amax(dim=(1, 2), keepdim=True))
