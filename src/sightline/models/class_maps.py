"""Backbone, optional fusion and attention, 1x1 class maps with the bias inside, pooling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.evidence import Evidence
from sightline.models.attention import PyramidAttention, ResidualAttention, SelfAttention
from sightline.models.backbones import Backbone, Trunk
from sightline.models.fusion import FeaturePyramid, Fusion
from sightline.models.pools import LogSumExpPool, MaxPool, MeanPool, Pool, SoftmaxPool, TopPool


@dataclass(frozen=True)
class ClassMapModel:
    """A classifier whose logits are pooled class maps.

    With `MeanPool` it is the common network with global average pooling and a linear layer (the baseline of
    Liao 2022); with `SoftmaxPool` it is the network of equation 5.

    Attributes:
        backbone: the feature network.
        pool: from map to logit.
        attention: a module between features and maps, or None.
        fusion: finer maps by adding earlier stages top-down, or None.
        one_map: of two classes only the second has a map; the first one's is zero everywhere. The logistic regression
            that two maps overdetermine: all that speaks for the finding, or against it, stands in one map.
    """

    backbone: Backbone = field(default_factory=Backbone)
    pool: MeanPool | SoftmaxPool | MaxPool | LogSumExpPool | TopPool = field(default_factory=SoftmaxPool)
    attention: ResidualAttention | SelfAttention | PyramidAttention | None = None
    fusion: Fusion | None = None
    one_map: bool = False

    def without_weights(self) -> ClassMapModel:
        """The same architecture with no pretrained weights to load, for reopening a trained run."""
        return replace(self, backbone=self.backbone.without_weights())

    def build(self, n_classes: int) -> ClassMapNetwork:
        """The network. Equal seeds of torch's generator give equal weights."""
        if n_classes < 1:
            raise RecipeError(f"A classifier needs at least one class; got {n_classes}.")
        if self.one_map and n_classes != 2:
            raise RecipeError(f"one_map tells two classes apart; got {n_classes}.", "Set one_map to false.")
        trunk = self.backbone.build()
        fusion = self.fusion.build(trunk) if self.fusion is not None else None
        channels = trunk.channels_out if fusion is None else fusion.channels_out
        attention = nn.Identity() if self.attention is None else self.attention.build(channels)
        head = SecondClassMap(channels) if self.one_map else ClassMaps(channels, n_classes)
        return ClassMapNetwork(trunk, fusion, attention, head, self.pool)


class ClassMaps(nn.Module):
    """M_c + b_c: the linear classifier applied to every feature cell (a 1x1 convolution in any number of axes)."""

    def __init__(self, channels: int, n_classes: int) -> None:
        """Random weights, as torch's linear layer draws them."""
        super().__init__()
        self.linear = nn.Linear(channels, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Maps [b, k, *m] of features [b, c, *m], in float32 whatever the autocast: softmax over cells needs it."""
        with torch.autocast(features.device.type, enabled=False):
            cells = features.to(self.linear.weight.dtype).flatten(2)
            maps = torch.einsum("bcn,kc->bkn", cells, self.linear.weight) + self.linear.bias[:, None]
        return maps.view(*maps.shape[:2], *features.shape[2:])


class SecondClassMap(ClassMaps):
    """The second class's map beside zeros for the first: their softmax is the logistic function of the one map."""

    def __init__(self, channels: int) -> None:
        """Random weights, as torch's linear layer draws them; a bias by which hardly any cell is believed at first.

        Pools that look at the highest cells, and losses over cells, begin near their answer then (Lin 2017, RetinaNet,
        section 4.1), instead of unlearning an epoch long that every picture shows the second class.
        """
        super().__init__(channels, 1)
        nn.init.constant_(self.linear.bias, -2.0)

    def forward(self, features: Tensor) -> Tensor:
        """Maps [b, 2, *m] of features [b, c, *m]."""
        second = super().forward(features)
        return torch.cat([torch.zeros_like(second), second], dim=1)


class ClassMapNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives Evidence with `attention` among its extras.

    Submodules `trunk`, `fusion` (may be None), `attention` (identity when absent) and `head` are named for Grad-CAM.
    """

    def __init__(
        self, trunk: Trunk, fusion: FeaturePyramid | None, attention: nn.Module, head: ClassMaps, pool: Pool
    ) -> None:
        """Join parts that fit each other; `ClassMapModel.build` makes them."""
        super().__init__()
        self.trunk = trunk
        self.fusion = fusion
        self.attention = attention
        self.head = head
        self.pool = pool

    @property
    def stride(self) -> int:
        """Image pixels per map cell."""
        return self.trunk.stride if self.fusion is None else self.fusion.stride

    def features(self, images: Tensor) -> Tensor:
        """What the class maps are computed from: [b, c, *m]."""
        fused: Tensor = self.trunk(images) if self.fusion is None else self.fusion(*self.trunk.levels(images))
        attended: Tensor = self.attention(fused)
        return attended

    def forward(self, images: Tensor) -> Evidence:
        """Logits [b, k], class maps [b, k, *m] with bias, and `attention`, each cell's share of its logit."""
        maps = self.head(self.features(images))
        with torch.autocast(maps.device.type, enabled=False):
            return Evidence(logits=self.pool(maps), maps=maps, extras={"attention": self.pool.share(maps)})
