"""A classifier on the encoder of a 3D U-Net (Engstler 2022): the network whose units are dissected.

The encoder is that of the 3D U-Net (Cicek 2016) with the widths of Models Genesis (Zhou 2019). Its last stage is not
pooled: 512 units on a grid an eighth of the input's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RecipeError
from sightline.evidence import Evidence
from sightline.models.class_maps import ClassMaps, SecondClassMap
from sightline.models.pools import LogSumExpPool, MaxPool, MeanPool, SoftmaxPool, TopPool

if TYPE_CHECKING:
    from monai.networks.blocks import Convolution

STAGES = 4
# input voxels per cell of the last stage: pooled after all stages but the last
STRIDE = 2 ** (STAGES - 1)
Norm = Literal["batch", "instance", "batch_always"]


@dataclass(frozen=True)
class VolumeUNet:
    """The encoder of a 3D U-Net with a classifier.

    Attributes:
        width: channels of the first convolution; all others follow. 32 is published, 8 trains on a CPU.
        dropout: share of the features dropped before each linear layer after the first, or before the class maps.
        norm: of the encoder: `batch` with running statistics at test time; `instance`; or `batch_always`, the
            statistics of the batch at test time too, as the released code has it: predictions then depend on what an
            image is batched with.
        head: `convolutions`, as published: four convolutions without activations, then linear layers; or `maps`
            (ours): class maps that are pooled, so that there is something to guide.
        pool: from class map to logit; with `maps` alone.
        one_map: of two classes only the second has a map, as in `ClassMapModel`; with `maps` alone.
        size: side of the input in voxels; the linear layers of `convolutions` are made for it.
    """

    width: int = 32
    dropout: float = 0.3
    norm: Norm = "batch"
    head: Literal["convolutions", "maps"] = "convolutions"
    pool: MeanPool | SoftmaxPool | MaxPool | LogSumExpPool | TopPool = field(default_factory=MeanPool)
    one_map: bool = False
    size: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.width < 4 or self.width % 4:
            raise RecipeError(f"width is a multiple of 4; got {self.width}.", "Try 32 (published) or 8.")
        if not 0.0 <= self.dropout < 1.0:
            raise RecipeError(f"dropout is a share of 0 or more and below 1; got {self.dropout}.")
        if self.size < 2 * STRIDE or self.size % STRIDE:
            raise RecipeError(
                f"size is a multiple of {STRIDE}, from {2 * STRIDE} on; got {self.size}.", "Try 64 (published)."
            )

    def without_weights(self) -> VolumeUNet:
        """Itself: nothing is loaded."""
        return self

    def build(self, n_classes: int) -> VolumeUNetNetwork:
        """The network. Equal seeds of torch's generator give equal weights."""
        if n_classes < 1:
            raise RecipeError(f"A classifier needs at least one class; got {n_classes}.")
        if self.one_map and (n_classes != 2 or self.head != "maps"):
            raise RecipeError(
                f"one_map tells two classes apart by class maps; got {n_classes} classes, head {self.head!r}.",
                "Set one_map to false.",
            )
        return VolumeUNetNetwork(self, n_classes)


class VolumeUNetNetwork(nn.Module):
    """`forward(images [b, 1, d, h, w] in [0, 1])`: logits [b, k], and with the head `maps` class maps [b, k, *m].

    The published head gives two classes the logits (0, z), so that their cross-entropy is the binary one of z.
    Submodules are `encoder.0` to `encoder.3`, each ending after its last ReLU, `attention` (the last stage
    again, for Grad-CAM) and `head`.
    """

    dissected = f"encoder.{STAGES - 1}"
    stride = STRIDE

    def __init__(self, config: VolumeUNet, n_classes: int) -> None:
        """Random weights, as torch draws them."""
        super().__init__()
        w = config.width
        ins = (1, *(2 * w * 2**k for k in range(STAGES - 1)))
        self.encoder = nn.ModuleList(
            nn.Sequential(
                _convolution(channels, w * 2**k, config.norm, relu=True),
                _convolution(w * 2**k, 2 * w * 2**k, config.norm, relu=True),
            )
            for k, channels in enumerate(ins)
        )
        # a module each, as DeepLIFT asks for
        self.pools = nn.ModuleList(nn.MaxPool3d(2) for _ in range(STAGES - 1))
        self.attention = nn.Identity()
        head = MapHead if config.head == "maps" else ConvolutionHead
        self.head = head(2 * w * 2 ** (STAGES - 1), n_classes, config)

    def features(self, images: Tensor) -> Tensor:
        """The last stage: [b, 16 width, *s / 8]."""
        if images.ndim != 5 or images.shape[1] != 1 or any(n < STRIDE or n % STRIDE for n in images.shape[2:]):
            raise GeometryError(
                f"Volumes must be [b, 1, d, h, w] with sides that are multiples of {STRIDE}; got {tuple(images.shape)}."
            )
        for stage, pool in zip(self.encoder[:-1], self.pools, strict=True):
            images = pool(stage(images))
        features: Tensor = self.attention(self.encoder[-1](images))
        return features

    def forward(self, images: Tensor) -> Evidence:
        """Logits, and with the head `maps` class maps and each cell's share of its logit (`attention`)."""
        evidence: Evidence = self.head(self.features(images))
        return evidence


class ConvolutionHead(nn.Module):
    """Four convolutions with instance norm and no activation, flattened into linear layers (as released)."""

    def __init__(self, channels: int, n_classes: int, config: VolumeUNet) -> None:
        """Layers for inputs of `config.size`."""
        super().__init__()
        self.side = config.size // STRIDE
        # narrow networks keep the eight channels that are flattened: there is nothing to save
        last = max(8, channels // 64)
        widths = (channels, channels // 2, channels // 4, channels // 8, last)
        self.convolutions = nn.Sequential(*(_convolution(a, b, "instance", relu=False) for a, b in pairwise(widths)))
        linear = (last * self.side**3, channels // 2, channels // 4, channels // 8)
        layers: list[nn.Module] = []
        for a, b in pairwise(linear):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.LeakyReLU(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*layers)
        self.binary = n_classes == 2
        self.last = nn.Linear(linear[-1], 1 if self.binary else n_classes)

    def forward(self, features: Tensor) -> Evidence:
        """Logits of features [b, c, *m]."""
        if tuple(features.shape[2:]) != (self.side,) * 3:
            got, made = tuple(STRIDE * n for n in features.shape[2:]), self.side * STRIDE
            raise GeometryError(
                f"This network was made for cubes of {made} voxels; got {got}.",
                f"Give the view size {made}, the network's size the view's, or the network the head 'maps'.",
            )
        hidden = self.hidden(self.convolutions(features).flatten(1))
        # eight bits of a bfloat16 would leave many equal probabilities
        with torch.autocast(hidden.device.type, enabled=False):
            logits = self.last(hidden.to(self.last.weight.dtype))
            return Evidence(torch.cat([torch.zeros_like(logits), logits], dim=1) if self.binary else logits)


class MapHead(nn.Module):
    """Class maps of the last stage, pooled: any size of input."""

    def __init__(self, channels: int, n_classes: int, config: VolumeUNet) -> None:
        """Random class maps."""
        super().__init__()
        # whole channels: what a cell says is left together
        self.dropout = nn.Dropout3d(config.dropout)
        self.maps = SecondClassMap(channels) if config.one_map else ClassMaps(channels, n_classes)
        self.pool = config.pool

    def forward(self, features: Tensor) -> Evidence:
        """Logits, maps and attention of features [b, c, *m]."""
        maps = self.maps(self.dropout(features))
        with torch.autocast(maps.device.type, enabled=False):
            return Evidence(self.pool(maps), maps, {"attention": self.pool.share(maps)})


def _convolution(channels: int, out: int, norm: Norm, *, relu: bool) -> Convolution:
    """MONAI's convolution of 3 x 3 x 3, norm and, where asked for, ReLU."""
    # MONAI takes seconds to import, and most of the house needs none of it
    from monai.networks.blocks import Convolution

    norms: dict[Norm, tuple[str, dict[str, Any]]] = {
        "batch": ("batch", {}),
        "instance": ("instance", {"affine": True}),
        "batch_always": ("batch", {"track_running_stats": False}),
    }
    act = ("relu", {"inplace": True}) if relu else None
    return Convolution(3, channels, out, adn_ordering="NA", norm=norms[norm], act=act)
