"""Two branches on shared features, one that classifies and one that localises: self-transfer learning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.cam_classifiers import ClassMaps
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, SoftmaxPool
from sightline.structures.evidence import Evidence


@dataclass(frozen=True)
class SelfTransfer:
    """Hwang and Kim 2016 as adapted by Jimenez-Sanchez 2018, section II-C2; trained with `self_transfer`.

    Attributes:
        backbone: the shared convolutions.
        pool: from localisation map to logit; the mean in the paper, the maximum in Hwang and Kim.
        grid: cells a side that the classification branch keeps (its layers are fully connected).
        hidden: units of its hidden layer.
        dropout: share dropped before each of its linear layers.
    """

    backbone: Backbone | AlexNet = field(default_factory=Backbone)
    pool: MeanPool | SoftmaxPool | MaxPool | LogSumExpPool = field(default_factory=MeanPool)
    grid: int = 4
    hidden: int = 256
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        if self.grid < 1 or self.hidden < 1 or not 0.0 <= self.dropout < 1.0:
            raise RecipeError(
                f"Self-transfer needs grid >= 1, hidden >= 1 and 0 <= dropout < 1; got {self.grid}, {self.hidden}, "
                f"{self.dropout}."
            )

    def without_weights(self) -> SelfTransfer:
        """The same architecture with nothing to load."""
        return replace(self, backbone=self.backbone.without_weights())

    def build(self, n_classes: int) -> SelfTransferNetwork:
        """The network."""
        if n_classes < 1:
            raise RecipeError(f"A classifier needs at least one class; got {n_classes}.")
        return SelfTransferNetwork(self, n_classes)


class SelfTransferNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])`: logits of the classification branch, maps of the localisation branch.

    Extras are `localiser_logits` [b, k], the pooled maps, and `attention`, each cell's share of them. Submodules are
    `trunk`, `classification` and `head`.
    """

    def __init__(self, config: SelfTransfer, n_classes: int) -> None:
        """Random branches on the trunk's weights."""
        super().__init__()
        self.trunk = config.backbone.build()
        channels = self.trunk.channels_out
        self.classification = nn.Sequential(
            nn.AdaptiveAvgPool2d(config.grid),
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(channels * config.grid**2, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, n_classes),
        )
        self.head = ClassMaps(channels, n_classes)
        self.pool = config.pool

    @property
    def stride(self) -> int:
        """Image pixels per map cell."""
        return self.trunk.stride

    def features(self, images: Tensor) -> Tensor:
        """What both branches see: [b, c, h', w']."""
        features: Tensor = self.trunk(images)
        return features

    def forward(self, images: Tensor) -> Evidence:
        """Both branches."""
        features = self.features(images)
        maps = self.head(features)
        with torch.autocast(maps.device.type, enabled=False):
            logits: Tensor = self.classification(features.float())
            extras = {"localiser_logits": self.pool(maps), "attention": self.pool.share(maps)}
        return Evidence(logits=logits, maps=maps, extras=extras)
