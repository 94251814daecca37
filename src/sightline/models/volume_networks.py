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

from sightline.errors import GeometryError, RecipeError, count_noun
from sightline.models.cam_classifiers import ClassMaps, SecondClassMap
from sightline.models.pooling import MeanPool, Pooling
from sightline.structures.evidence import Evidence

if TYPE_CHECKING:
    from monai.networks.blocks import Convolution
import difflib
from collections.abc import Mapping
from dataclasses import replace

from sightline.models.pooling import Pool
from sightline.models.pretrained_weights import drop_loading_options, load_stored, read_stored, refuse_odd_options
from sightline.structures.identifiers import find_weights

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
    pool: Pooling = field(default_factory=MeanPool)
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
                "one_map tells two classes apart by class maps; got "
                f"{count_noun(n_classes, 'class', 'classes')}, head {self.head!r}.",
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
                _build_convolution(channels, w * 2**k, config.norm, relu=True),
                _build_convolution(w * 2**k, 2 * w * 2**k, config.norm, relu=True),
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
        self.convolutions = nn.Sequential(
            *(_build_convolution(a, b, "instance", relu=False) for a, b in pairwise(widths))
        )
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


def _build_convolution(channels: int, out: int, norm: Norm, *, relu: bool) -> Convolution:
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


NAMES = (
    *(f"resnet{depth}" for depth in (10, 18, 34, 50, 101)),
    *(f"densenet{depth}" for depth in (121, 169, 201)),
    "seresnet50",
    *(f"efficientnet-b{n}" for n in range(5)),
)
# names of classifiers in weight files; MedicalNet's networks end in a segmentation
_CLASSIFIERS = ("fc.", "_fc.", "last_linear.", "class_layers.", "conv_seg.")
Option = str | int | float | bool


@dataclass(frozen=True)
class VolumeBackbone:
    """A MONAI network for volumes whose logits are pooled class maps.

    Attributes:
        name: `resnet10` to `resnet101` (He 2016), `densenet121` to `densenet201` (Huang 2017), `seresnet50` (Hu 2018),
            `efficientnet-b0` to `efficientnet-b4` (Tan 2019).
        pool: from class map to logit.
        one_map: of two classes only the second has a map, as in `ClassMapModel`.
        stages: keep only the first n stages, for finer maps at less cost, or None for the whole network.
        weights: None for random weights, else a `.safetensors` file or a folder with one `<name>*.safetensors`, with
            MONAI's or MedicalNet's (Chen 2019) names of layers. Loaded without pickle.
        mean, std: input normalisation of images in 0..1.
        options: further arguments of MONAI's network, e.g. `{"conv1_t_stride": 2}`.
    """

    name: str = "resnet18"
    pool: Pooling = field(default_factory=MeanPool)
    one_map: bool = False
    stages: int | None = None
    weights: str | None = None
    mean: float = 0.5
    std: float = 0.25
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Refuse what no network has."""
        if self.name not in NAMES:
            near = difflib.get_close_matches(self.name, NAMES, n=3) or NAMES
            raise RecipeError(f"There is no volume backbone {self.name!r}.", f"Did you mean {' or '.join(near)}?")
        if not self.std > 0.0:
            raise RecipeError(f"std must be positive; got {self.std}.")

    def without_weights(self) -> VolumeBackbone:
        """The same architecture with no file to load, for reopening a trained run."""
        return replace(self, weights=None, options=drop_loading_options(self.options))

    def build(self, n_classes: int) -> VolumeBackboneNetwork:
        """The network, with weights loaded.

        Raises:
            RecipeError: an option that MONAI refuses, too many stages, or weights that do not belong to the network.
            UnreadableFile: a weights file that is none.
        """
        if n_classes < 1:
            raise RecipeError(f"A classifier needs at least one class; got {n_classes}.")
        if self.one_map and n_classes != 2:
            raise RecipeError(f"one_map tells two classes apart; got {n_classes}.", "Set one_map to false.")
        with refuse_odd_options("MONAI", self.name, self.options):
            net = _create(self.name, self.options)
            if self.weights is not None:
                _load(net, self.weights, self.name)
            trunk = VolumeTrunk(_split_stages(net, self.name, self.stages), self.mean, self.std)
        head = SecondClassMap(trunk.channels_out) if self.one_map else ClassMaps(trunk.channels_out, n_classes)
        return VolumeBackboneNetwork(trunk, head, self.pool)


class VolumeTrunk(nn.Module):
    """Images [b, 1, d, h, w] in [0, 1] to features [b, channels_out, d', h', w'].

    Attributes:
        channels_out: feature channels.
        stride: image voxels per feature cell.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stages: list[nn.Module], mean: float, std: float) -> None:
        """Stages, from fine to coarse; they are named `net.0`, `net.1`, ..."""
        super().__init__()
        self.net = nn.Sequential(*stages)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        with torch.no_grad():
            side = 64
            features = self.eval()(torch.zeros(1, 1, side, side, side))
        self.train()
        self.channels_out, self.stride = int(features.shape[1]), side // int(features.shape[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Features of images."""
        if images.ndim != 5 or images.shape[1] != 1:
            raise GeometryError(f"Volumes must be [b, 1, d, h, w]; got {tuple(images.shape)}.")
        features: Tensor = self.net((images - self.mean) / self.std)
        return features


class VolumeBackboneNetwork(nn.Module):
    """`forward(images [b, 1, d, h, w] in [0, 1])`: logits [b, k], class maps [b, k, *m], and `attention`.

    Submodules are `trunk`, `attention` (the features again, for Grad-CAM) and `head`.
    """

    dissected = "trunk"

    def __init__(self, trunk: VolumeTrunk, head: ClassMaps, pool: Pool) -> None:
        """Join parts that fit each other; `VolumeBackbone.build` makes them."""
        super().__init__()
        self.trunk = trunk
        self.attention = nn.Identity()
        self.head = head
        self.pool = pool

    @property
    def stride(self) -> int:
        """Image voxels per map cell."""
        return self.trunk.stride

    def features(self, images: Tensor) -> Tensor:
        """What the class maps are computed from: [b, c, *m]."""
        features: Tensor = self.attention(self.trunk(images))
        return features

    def forward(self, images: Tensor) -> Evidence:
        """Class maps of the features, pooled."""
        maps = self.head(self.features(images))
        with torch.autocast(maps.device.type, enabled=False):
            return Evidence(self.pool(maps), maps, {"attention": self.pool.share(maps)})


def _create(name: str, options: Mapping[str, Option]) -> Any:
    """MONAI's network for one channel."""
    # MONAI takes seconds to import, and most of the house needs none of it
    from monai.networks import nets

    if name.startswith("efficientnet"):
        return nets.EfficientNetBN(name, pretrained=False, spatial_dims=3, in_channels=1, num_classes=1, **options)
    if name.startswith("resnet"):
        return getattr(nets, name)(spatial_dims=3, n_input_channels=1, feed_forward=False, **options)
    if name.startswith("densenet"):
        dense = getattr(nets, f"DenseNet{name.removeprefix('densenet')}")
        return dense(spatial_dims=3, in_channels=1, out_channels=1, **options)
    return nets.SEResNet50(spatial_dims=3, in_channels=1, num_classes=1, **options)


def _load(net: nn.Module, weights: str, name: str) -> None:
    path = find_weights(weights, name)
    stored = {key.removeprefix("module."): value for key, value in read_stored(path).items()}
    stored = {key: value for key, value in stored.items() if not key.startswith(_CLASSIFIERS)}
    # a network's own classifier is left out as well: the class maps take its place
    own = {key: value for key, value in net.state_dict().items() if key.startswith(_CLASSIFIERS)}
    remedy = "Name the backbone they were trained for, or give its own file."
    if name.startswith("resnet"):
        remedy += ' MedicalNet has options {"bias_downsample": false}; at depth 18 and 34 {"shortcut_type": "A"}.'
    load_stored({**stored, **own}, net, path, name, remedy)


def _split_stages(net: Any, name: str, n: int | None) -> list[nn.Module]:
    """The network without its classifier, in stages; the first n of them where asked for."""
    every: list[nn.Module]
    after: dict[int, nn.Module] = {}
    if name.startswith("resnet"):
        stem = [net.conv1, net.bn1, net.act, *([] if net.no_max_pool else [net.maxpool])]
        every = [nn.Sequential(*stem, net.layer1), net.layer2, net.layer3, net.layer4]
    elif name.startswith("seresnet"):
        every = [nn.Sequential(net.layer0, net.layer1), net.layer2, net.layer3, net.layer4]
    elif name.startswith("densenet"):
        layers = dict(net.features.named_children())
        stem = [layers[part] for part in ("conv0", "norm0", "relu0", "pool0")]
        blocks = [layers[f"denseblock{i}"] for i in range(1, 5)]
        steps = [layers[f"transition{i}"] for i in range(1, 4)]
        every = [
            nn.Sequential(*stem, blocks[0]),
            *(nn.Sequential(step, block) for step, block in zip(steps, blocks[1:], strict=True)),
        ]
        # a dense block ends in sums: what follows it normalises them
        after = {i: nn.Sequential(step.norm, step.relu) for i, step in enumerate(steps, 1)}
        after[4] = nn.Sequential(layers["norm5"], nn.ReLU(inplace=True))
    else:
        every = [
            nn.Sequential(net._conv_stem_padding, net._conv_stem, net._bn0, net._swish, net._blocks[0]),
            *net._blocks[1:],
        ]
        after = {len(every): nn.Sequential(net._conv_head_padding, net._conv_head, net._bn1, net._swish)}
    n = len(every) if n is None else n
    if not 1 <= n <= len(every):
        raise RecipeError(
            f"{name!r} has {count_noun(len(every), 'stage')}; got stages {n}.", f"Ask for 1 to {len(every)}."
        )
    return [*every[:n], *([after[n]] if n in after else [])]
