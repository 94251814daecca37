"""MONAI's 3D classification networks as features of pooled class maps."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RecipeError
from sightline.evidence import Evidence
from sightline.models.class_maps import ClassMaps, SecondClassMap
from sightline.models.pools import LogSumExpPool, MaxPool, MeanPool, Pool, SoftmaxPool, TopPool
from sightline.models.weights import find_weights, load_stored, read_stored

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
    pool: MeanPool | SoftmaxPool | MaxPool | LogSumExpPool | TopPool = field(default_factory=MeanPool)
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
        return replace(self, weights=None)

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
        try:
            net = _create(self.name, self.options)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, AssertionError) as error:
            raise RecipeError(
                f"MONAI cannot build {self.name!r} with {dict(self.options)}: {error}.", "Take the option away."
            ) from error
        if self.weights is not None:
            _load(net, self.weights, self.name)
        trunk = VolumeTrunk(_stages(net, self.name, self.stages), self.mean, self.std)
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


def _stages(net: Any, name: str, n: int | None) -> list[nn.Module]:
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
        raise RecipeError(f"{name!r} has {len(every)} stages; got stages {n}.", f"Ask for 1 to {len(every)}.")
    return [*every[:n], *([after[n]] if n in after else [])]
