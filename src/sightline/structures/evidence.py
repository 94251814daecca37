"""A network's input (Batch) and output (Evidence).

Letters in shapes: b batch, k class, c channel, `*s` image grid, `*m` map grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.errors import GeometryError
from sightline.structures.frame import Frame
from sightline.structures.joined_views import JoinViews

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
T = TypeVar("T", Tensor, nn.Module)


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16; a CPU without 512-bit vectors emulates it, nine times slower than float32.

    A MobileNetV2 at 768 px: 5.5 s a picture against 0.62 on an AMD EPYC with AVX2 (torch 2.15).
    """
    if device.type != "cpu":
        return True
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except AttributeError:
        # a torch without oneDNN
        return False


def to_channels_last(what: T) -> T:
    """Images, or a network's weights, in channels-last memory format, in which convolutions are fastest.

    In 3D this halves the time of a training step on a CPU. Networks that mix 2D and 3D are left unchanged.
    """
    if isinstance(what, Tensor):
        return what.contiguous(memory_format=CHANNELS_LAST.get(what.ndim, torch.contiguous_format))
    axes = {parameter.ndim for parameter in what.parameters()} & CHANNELS_LAST.keys()
    return what.to(memory_format=CHANNELS_LAST[axes.pop()]) if len(axes) == 1 else what


@torch.no_grad()
def forward_evidence(network: nn.Module, images: Tensor, device: torch.device | str = "cpu") -> Evidence:
    """Run a network in evaluation mode: Evidence on the CPU in float32; the network's mode is restored."""
    was_training = network.training
    network.eval()
    try:
        evidence: Evidence = network(to_channels_last(images.to(device)))
    finally:
        network.train(was_training)
    return copy_to_cpu(evidence)


def copy_to_cpu(evidence: Evidence) -> Evidence:
    """The same evidence on the CPU in float32."""
    return replace(
        evidence,
        logits=evidence.logits.float().cpu(),
        maps=None if evidence.maps is None else evidence.maps.float().cpu(),
        extras={name: tensor.float().cpu() for name, tensor in evidence.extras.items()},
        window=None if evidence.window is None else evidence.window.float().cpu(),
    )


class FeatureTap:
    """Keeps the features that a network's class maps are computed from, averaged over cells, each time it is run.

    Every submodule with a `head` and, before it, `attention`, `transition` or `trunk` gives its features; localisation
    networks give theirs only if there are no others. Several submodules (members of an ensemble) are concatenated,
    several calls of one (scales, flips) are averaged.
    """

    def __init__(self, network: nn.Module) -> None:
        """Hook a network."""
        self._seen: dict[str, list[Tensor]] = {}
        layers = _find_feature_layers(network)
        self._hooks = [module.register_forward_hook(self._make_keeper(name)) for name, module in layers.items()]

    def take(self) -> Tensor | None:
        """Features [b, c] of the last run, float32, and clear them; None if the network has no such submodule."""
        pooled = [
            torch.stack([one.float().flatten(2).mean(dim=2) for one in seen]).mean(dim=0)
            for seen in self._seen.values()
        ]
        self._seen.clear()
        return torch.cat(pooled, dim=1) if pooled else None

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._seen.clear()

    def _make_keeper(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, given: Any, features: Tensor) -> None:
            self._seen.setdefault(name, []).append(features)

        return keep


def _find_feature_layers(network: nn.Module) -> dict[str, nn.Module]:
    found = {}
    for path, owner in network.named_modules():
        parts = dict(owner.named_children())
        last = next((name for name in ("attention", "transition", "trunk") if name in parts), None)
        if "head" in parts and last is not None:
            found[f"{path}.{last}"] = parts[last]
    seeing = {name: module for name, module in found.items() if "localiser" not in name.split(".")}
    return seeing or found


def compute_probabilities(logits: Tensor, *, independent: bool) -> NDArray[np.float64]:
    """Class probabilities [n, k] of logits."""
    exact = logits.double()
    return np.asarray((exact.sigmoid() if independent else exact.softmax(dim=1)).numpy())


def join_logits(logits: Tensor, studies: Tensor, how: JoinViews, normal: int | None = None) -> Tensor:
    """Every view's logits replaced by those of its study (`structures/joined_views.py`).

    The study is one prediction: with `maximum` its gradient goes to the view with the most evidence.

    Args:
        logits: [b, k].
        studies: int64 [b]; views of one study share a number.
        how: mean, maximum or log_sum_exp.
        normal: index of the class without a finding, or None.

    Returns:
        [b, k], equal in all rows of a study; the logit of the normal class is 0.
    """
    evidence = logits if normal is None else logits - logits[:, [normal]]
    found, index = torch.unique(studies, return_inverse=True)
    return torch.stack([_join_evidence(evidence[index == i], how) for i in range(len(found))])[index]


def _join_evidence(views: Tensor, how: JoinViews) -> Tensor:
    if how == "maximum":
        return views.amax(dim=0)
    if how == "mean":
        return views.mean(dim=0)
    return torch.logsumexp(views, dim=0) - torch.log(views.new_tensor(float(len(views))))


@dataclass(frozen=True)
class Batch:
    """A batch of images with their labels, marks and frames.

    Attributes:
        images: float [b, c, *s], in 0..1 (networks normalise).
        labels: int64 [b], class index.
        targets: uint8 [b, k or 1, *s], 1 inside a region, one channel if all classes share it; or gaze, float32
            [b, 1, *s] in 0..1, scaled to a maximum of 1; None without guidance.
        guided: bool [b, k], True if the class has a region in that image. Rows that are all False are not guided.
        frames: one per image: the place of the image grid in the source picture.
        case_ids: one per image.
        boxes: float32 [b, 4], centre row, centre column, height and width of the finding's box as fractions of the
            image grid, NaN if there is none; None if the loss does not use boxes.
        studies: int64 [b], a number shared by the views of one study, or None; a study that is drawn twice has two.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    guided: Tensor
    frames: tuple[Frame, ...]
    case_ids: tuple[str, ...]
    boxes: Tensor | None = None
    studies: Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return int(self.images.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            targets=None if self.targets is None else self.targets.to(device, non_blocking=True),
            guided=self.guided.to(device, non_blocking=True),
            boxes=None if self.boxes is None else self.boxes.to(device, non_blocking=True),
            studies=None if self.studies is None else self.studies.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Evidence:
    """The output of a network: logits, class maps, and where the maps are in the image.

    Attributes:
        logits: float [b, k].
        maps: float [b, k, *m], class maps before pooling (bias included), or None.
        extras: named tensors, e.g. `attention` [b, k, *m]: the contribution of each map cell to its class logit; `box`
            [b, 4]: a box that the network predicts directly, as in `Batch.boxes`.
        window: float [b, d, d + 1], the place of the maps: the affine from map fractions to fractions of the image
            grid, both (row, column) in 0..1 from the corner, so that a rotated or sheared crop keeps its place
            (`Frame.within`); None: the whole image.

    Example:
        >>> Evidence(torch.zeros(1, 2), torch.zeros(1, 2, 7, 7)).maps.shape
        torch.Size([1, 2, 7, 7])
    """

    logits: Tensor
    maps: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    window: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse maps whose shape does not fit the logits."""
        if self.logits.ndim != 2:
            raise GeometryError(f"Logits must be [b, k]; got {tuple(self.logits.shape)}.")
        if self.maps is not None and self.maps.shape[:2] != self.logits.shape:
            raise GeometryError(f"Maps {tuple(self.maps.shape)} do not fit logits {tuple(self.logits.shape)}.")
        if self.window is not None:
            b, d = self.logits.shape[0], self.window.shape[1] if self.window.ndim == 3 else 0
            if self.window.shape != (b, d, d + 1) or d == 0:
                raise GeometryError(f"A window must be [{b}, d, d + 1]; got {tuple(self.window.shape)}.")


def get_logits(output: Evidence | Tensor) -> Tensor:
    """Logits [b, k] of a network's output: `Evidence`, or plain logits from any other network.

    Raises:
        GeometryError: neither of the two.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise GeometryError(
            f"The network returned {type(output).__name__}; expected logits [b, k] or Evidence.",
            "Return the logits of the classes, one row an image.",
        )
    return logits


def build_window(boxes: Tensor) -> Tensor:
    """The windows [b, 2, 3] that cover boxes [b, 4] (centre row, centre column, height, width; fractions).

    A map fraction (u, v) lies at (centre row + (u - 1/2) height, centre column + (v - 1/2) width).
    """
    centre, side = boxes[:, :2], boxes[:, 2:]
    return torch.cat([torch.diag_embed(side), (centre - side / 2).unsqueeze(-1)], dim=-1)


def bound_window(window: Tensor) -> Tensor:
    """The smallest upright boxes [b, 4] (centre row, centre column, height, width) around windows [b, 2, 3]."""
    linear, shift = window[..., :2], window[..., 2]
    centre = shift + linear.sum(dim=-1) / 2
    return torch.cat([centre, linear.abs().sum(dim=-1)], dim=-1)
