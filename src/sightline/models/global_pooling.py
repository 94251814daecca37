"""Transition, global pooling, prediction: localisation from a classifier's own features (Wang 2017, ChestX-ray8)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.evidence import Evidence
from sightline.models.alexnet import AlexNet
from sightline.models.backbones import Backbone
from sightline.models.class_maps import ClassMaps
from sightline.models.pools import LogSumExpPool, MaxPool, MeanPool, Pool, SoftmaxPool


@dataclass(frozen=True)
class Transition:
    """A convolution that brings features to one width, with batch norm and ReLU.

    Attributes:
        channels: the width (D of Jimenez-Sanchez 2018; 1024 in ChestX-ray8).
        kernel: 1 or 3.
    """

    channels: int = 1024
    kernel: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        """Refuse an empty layer."""
        if self.channels < 1:
            raise RecipeError(f"A transition needs at least one channel; got {self.channels}.")

    def build(self, channels_in: int) -> nn.Sequential:
        """The layer."""
        return nn.Sequential(
            nn.Conv2d(channels_in, self.channels, self.kernel, padding=self.kernel // 2, bias=False),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(inplace=True),
        )


@dataclass(frozen=True)
class GlobalPooling:
    """Features are pooled channel by channel and then classified (Jimenez-Sanchez 2018, section II-C3).

    With the mean it is a `ClassMapModel`; with maximum or log-sum-exp it is not, for those pool before weighing.

    Attributes:
        backbone: the feature network.
        transition: the layer between, or None.
        pool: from feature map to feature.
    """

    backbone: Backbone | AlexNet = field(default_factory=Backbone)
    transition: Transition | None = field(default_factory=Transition)
    pool: MeanPool | SoftmaxPool | MaxPool | LogSumExpPool = field(default_factory=MeanPool)

    def without_weights(self) -> GlobalPooling:
        """The same architecture with nothing to load."""
        return replace(self, backbone=self.backbone.without_weights())

    def build(self, n_classes: int) -> GlobalPoolingNetwork:
        """The network."""
        if n_classes < 1:
            raise RecipeError(f"A classifier needs at least one class; got {n_classes}.")
        return GlobalPoolingNetwork(self, n_classes)


class GlobalPoolingNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])`: logits, and maps M_k = sum over d of w_kd T_d, plus bias.

    `attention` is each cell's share of the logit: the prediction weights on each cell's share of the pooled features.
    Submodules are `trunk`, `transition` and `head`.
    """

    def __init__(self, config: GlobalPooling, n_classes: int) -> None:
        """Random transition and prediction on the trunk's weights."""
        super().__init__()
        self.trunk = config.backbone.build()
        channels = self.trunk.channels_out
        self.transition: nn.Module = nn.Identity()
        if config.transition is not None:
            self.transition, channels = config.transition.build(channels), config.transition.channels
        self.head = ClassMaps(channels, n_classes)
        self.pool: Pool = config.pool

    @property
    def stride(self) -> int:
        """Image pixels per map cell."""
        return self.trunk.stride

    def features(self, images: Tensor) -> Tensor:
        """The transition's maps: [b, d, h', w']."""
        features: Tensor = self.transition(self.trunk(images))
        return features

    def forward(self, images: Tensor) -> Evidence:
        """Pool, then predict."""
        features = self.features(images)
        maps = self.head(features)
        with torch.autocast(maps.device.type, enabled=False):
            single = features.to(self.head.linear.weight.dtype)
            logits: Tensor = self.head.linear(self.pool(single))
            # the bias belongs to no cell: every one gets the same share of it
            shares = torch.einsum("bdn,kd->bkn", self.pool.share(single).flatten(2), self.head.linear.weight)
            shares = shares + self.head.linear.bias[:, None] / shares.shape[-1]
        return Evidence(logits=logits, maps=maps, extras={"attention": shares.view_as(maps)})
