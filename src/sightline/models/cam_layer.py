"""The class activation map layer of GG-CAM: maps first, their mean and a bias after (Zhu 2022, equations 4 to 6)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.evidence import Evidence
from sightline.models.backbones import Backbone, Trunk
from sightline.models.fusion import FeaturePyramid, Fusion


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
