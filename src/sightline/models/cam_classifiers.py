"""Backbone, optional fusion and attention, 1x1 class maps with the bias inside, pooling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.models.backbones import AlexNet, Backbone, Trunk
from sightline.models.necks import (
    FeaturePyramid,
    Fusion,
    Pylon,
    PylonDecoder,
    PyramidAttention,
    ResidualAttention,
    SelfAttention,
)
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, Pool, Pooling, SoftmaxPool
from sightline.structures.evidence import Evidence


@dataclass(frozen=True)
class ClassMapModel:
    """A classifier whose logits are pooled class maps.

    With `MeanPool` it is the common network with global average pooling and a linear layer (the baseline of
    Liao 2022); with `SoftmaxPool` it is the network of equation 5.

    Attributes:
        backbone: the feature network.
        pool: from map to logit.
        attention: a module between features and maps, or None.
        fusion: finer maps by adding earlier stages top-down, as a feature pyramid or as PYLON does, or None.
        one_map: of two classes only the second has a map; the first one's is zero everywhere. The logistic regression
            that two maps overdetermine: all that speaks for the finding, or against it, stands in one map.
        joined: the logit is that of the map plus a linear layer on the mean of the backbone's last features, which
            begins at zero: the head that sees the place and the whole picture (one layer on both put side by side, as
            in Shen 2021, GMIC). `attention` is then of the map's part of the logit.
        deep_maps: in training the backbone's last features have class maps of their own, which are guided like the
            fused ones (deep supervision, Lee 2015): the marks reach the encoder at its own stride too. What the
            network answers comes from the fused maps alone.
        gives_features: in training the network also gives what the class maps are computed from, for an objective
            that compares places by it (`normal_contrast`).
    """

    backbone: Backbone = field(default_factory=Backbone)
    pool: Pooling = field(default_factory=SoftmaxPool)
    attention: ResidualAttention | SelfAttention | PyramidAttention | None = None
    fusion: Fusion | Pylon | None = None
    one_map: bool = False
    joined: bool = field(default=False, metadata={"since": "0.2"})
    deep_maps: bool = field(default=False, metadata={"since": "0.2"})
    gives_features: bool = field(default=False, metadata={"since": "0.2"})

    def without_weights(self) -> ClassMapModel:
        """The same architecture with no pretrained weights to load, for reopening a trained run."""
        return replace(self, backbone=self.backbone.without_weights())

    def build(self, n_classes: int) -> ClassMapNetwork:
        """The network. Equal seeds of torch's generator give equal weights."""
        if n_classes < 1:
            raise RecipeError(f"A classifier needs at least one class; got {n_classes}.")
        if self.one_map and n_classes != 2:
            raise RecipeError(f"one_map tells two classes apart; got {n_classes}.", "Set one_map to false.")
        if self.deep_maps and self.fusion is None:
            raise RecipeError(
                "deep_maps guides a second depth; without fusion there is one.", "Add a fusion, or set deep_maps false."
            )
        trunk = self.backbone.build()
        fusion = self.fusion.build(trunk) if self.fusion is not None else None
        if trunk.frozen_stages is not None:
            trunk.frozen_stages.from_stride(trunk.stride if self.fusion is None else self.fusion.stride)
        channels = trunk.channels_out if fusion is None else fusion.channels_out
        attention = nn.Identity() if self.attention is None else self.attention.build(channels)
        make_head = SecondClassMap if self.one_map else lambda inputs: ClassMaps(inputs, n_classes)
        head = make_head(channels)
        network = ClassMapNetwork(trunk, fusion, attention, head, self.pool)
        if self.joined:
            network.picture = PictureLogits(trunk.channels_out, n_classes, one=self.one_map)
        if self.deep_maps:
            network.companion = make_head(trunk.channels_out)
        network.gives_features = self.gives_features
        return network


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


class PictureLogits(nn.Module):
    """What the whole picture says: a linear layer on the mean of features [b, c, *m], zero at first."""

    def __init__(self, channels: int, n_classes: int, *, one: bool) -> None:
        """`one`: of two classes, the second alone."""
        super().__init__()
        self.linear = nn.Linear(channels, 1 if one else n_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.one = one

    def forward(self, features: Tensor) -> Tensor:
        """Logits [b, k], in float32 whatever the autocast."""
        with torch.autocast(features.device.type, enabled=False):
            mean = features.to(self.linear.weight.dtype).flatten(2).mean(-1)
            logits: Tensor = self.linear(mean)
            return torch.cat([torch.zeros_like(logits), logits], dim=1) if self.one else logits


class ClassMapNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives Evidence with `attention` among its extras.

    Submodules `trunk`, `fusion` (may be None), `attention` (identity when absent) and `head` are named for Grad-CAM;
    `picture` is there in the head that joins map and picture alone, `companion` where maps of the last features are
    guided too: in training these are the extra `deep_maps`. With `gives_features` the features are one in training.
    """

    def __init__(
        self,
        trunk: Trunk,
        fusion: FeaturePyramid | PylonDecoder | None,
        attention: nn.Module,
        head: ClassMaps,
        pool: Pool,
    ) -> None:
        """Join parts that fit each other; `ClassMapModel.build` makes them."""
        super().__init__()
        self.trunk = trunk
        self.fusion = fusion
        self.attention = attention
        self.head = head
        self.pool = pool
        self.picture: PictureLogits | None = None
        self.companion: ClassMaps | None = None
        self.gives_features = False
        # keeps what frozen stages say of images, where somebody asks for it (`training/feature_cache.py`)
        self.encoder: Any = None

    @property
    def stride(self) -> int:
        """Image pixels per map cell."""
        return self.trunk.stride if self.fusion is None else self.fusion.stride

    def features(self, images: Tensor) -> Tensor:
        """What the class maps are computed from: [b, c, *m]."""
        return self._compute_features(images)[0]

    def _compute_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the class maps are computed from, and the backbone's last features."""
        if self.fusion is None:
            last: Tensor = self.trunk(images)
            return self.attention(last), last
        last, stages = self.trunk.levels(images)
        return self.attention(self.fusion(last, stages)), last

    def forward(self, images: Tensor) -> Evidence:
        """Logits [b, k], class maps [b, k, *m] with bias, and `attention`, each cell's share of its logit."""
        features, last = self._compute_features(images)
        maps = self.head(features)
        with torch.autocast(maps.device.type, enabled=False):
            logits = self.pool(maps)
            if self.picture is not None:
                logits = logits + self.picture(last)
            extras = {"attention": self.pool.share(maps)}
            if self.companion is not None and self.training:
                extras["deep_maps"] = self.companion(last)
            if self.gives_features and self.training:
                extras["features"] = features
            return Evidence(logits=logits, maps=maps, extras=extras)


@dataclass(frozen=True)
class CamLayer:
    """Omega_c = sum over channels of Lambda_c,k A_k, and y_c = mean of Omega_c + lambda_c.

    As many parameters as global average pooling and a linear layer, and the same logits. Unlike `ClassMapModel`'s, the
    maps hold no bias: the loss on them squashes them around zero.

    Attributes:
        backbone: the feature network.
        reduce: the sum over channels, or (the code released with the paper) the mean, which makes maps and logits
            smaller by the number of channels.
        fusion: finer maps from earlier stages, or None as published.
    """

    backbone: Backbone = field(default_factory=Backbone)
    reduce: Literal["sum", "mean"] = "sum"
    fusion: Fusion | None = None

    def without_weights(self) -> CamLayer:
        """The same architecture with nothing to load."""
        return replace(self, backbone=self.backbone.without_weights())

    def build(self, n_classes: int) -> CamNetwork:
        """The network."""
        if n_classes < 2:
            raise RecipeError(f"GG-CAM tells two or more classes apart; got {n_classes}.")
        trunk = self.backbone.build()
        fusion = None if self.fusion is None else self.fusion.build(trunk)
        channels = trunk.channels_out if fusion is None else fusion.channels_out
        return CamNetwork(trunk, fusion, channels, n_classes, self.reduce)


class CamNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])`: Evidence with maps Omega, no bias inside.

    Submodules are `trunk`, `fusion` (may be None), `attention` (the features, for Grad-CAM) and `head`.
    """

    def __init__(
        self, trunk: Trunk, fusion: FeaturePyramid | None, channels: int, n_classes: int, reduce: Literal["sum", "mean"]
    ) -> None:
        """Random weights in the head, as torch's linear layer draws them."""
        super().__init__()
        self.trunk = trunk
        self.fusion = fusion
        self.attention = nn.Identity()
        self.head = nn.Linear(channels, n_classes)
        self.scale = 1.0 if reduce == "sum" else 1.0 / channels

    def forward(self, images: Tensor) -> Evidence:
        """Logits [b, k] and maps [b, k, *m]."""
        features = self.trunk(images) if self.fusion is None else self.fusion(*self.trunk.levels(images))
        features = self.attention(features)
        with torch.autocast(features.device.type, enabled=False):
            cells = features.to(self.head.weight.dtype).flatten(2)
            flat = torch.einsum("bcn,kc->bkn", cells, self.head.weight) * self.scale
            logits = flat.mean(dim=-1) + self.head.bias
        return Evidence(logits=logits, maps=flat.view(*flat.shape[:2], *features.shape[2:]))


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
