"""Grad-CAM++: cells weighed by how they alone would explain the score (Chattopadhay 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.evidence import Batch
from sightline.explain.layer_gradients import layer_gradients
from sightline.explain.quiet_pass import exact

TINY = 1e-6


@dataclass(frozen=True)
class GradCAMPlusPlus:
    """relu(sum over channels of w A), w = sum over cells of alpha relu(g), alpha = g^2 / (2 g^2 + g^3 sum of A).

    A is a layer's output and g the gradient of the score with respect to it. The second and third derivatives of the
    paper are those of exp(z_c) divided by it, where the network is piecewise linear (its equation 19).

    Attributes:
        layer: name of the module as in `model.named_modules()`.
        relu: keep only what speaks for the class, as published.
    """

    layer: str = "attention"
    relu: bool = True

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m] on the layer's grid.

        Raises:
            RecipeError: the model has no such layer.
            GeometryError: the layer gives no map, or the logits do not depend on it.
        """
        activation, g = layer_gradients(model, batch, classes, self.layer, create_graph=create_graph)
        with exact(activation.device, create_graph):
            total = activation.flatten(2).sum(-1).view(*activation.shape[:2], *[1] * (activation.ndim - 2))
            below = 2.0 * g**2 + total * g**3 + TINY
            alpha = torch.where(g != 0.0, g**2 / below, torch.zeros_like(g))
            weights = (alpha * g.clamp(min=0.0)).flatten(3).sum(-1)
            maps = torch.einsum("nbc,bc...->bn...", weights, activation)
            return maps.relu() if self.relu else maps
