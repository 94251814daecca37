"""Guided Grad-CAM: where Grad-CAM looks, in the detail of a gradient of the image (Selvaraju 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sightline.evidence import Batch
from sightline.explain.cam import GradCAM
from sightline.explain.input_gradient import InputGradient, Reduce, reduced
from sightline.explain.rules import Rule


@dataclass(frozen=True)
class GuidedGradCAM:
    """The product of Grad-CAM, enlarged to the image, and the image's gradient under a rule.

    Attributes:
        layer: of Grad-CAM.
        rule: of the gradient.
        reduce: from the channels of the product to one map.
        enlarge: how Grad-CAM is enlarged; `nearest` as Captum does, `linear` as the paper.
    """

    layer: str = "attention"
    rule: Rule = "guided"
    reduce: Reduce = "positive_mean"
    enlarge: str = "linear"

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's grid.

        Raises:
            RecipeError, GeometryError, RunError: as `GradCAM` and `InputGradient`.
        """
        coarse = GradCAM(self.layer)(model, batch, classes, create_graph=create_graph)
        fine, _ = InputGradient(self.rule).gradients(model, batch, classes, create_graph=create_graph)
        size = fine.shape[3:]
        linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        with torch.set_grad_enabled(create_graph):
            if self.enlarge == "nearest":
                weights = interpolate(coarse, size=size, mode="nearest")
            else:
                weights = interpolate(coarse, size=size, mode=linear, align_corners=False)
            return reduced(fine * weights.unsqueeze(2), self.reduce)
