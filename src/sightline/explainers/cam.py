"""Class activation maps (Zhou 2016) and their gradient-weighted generalisation (Selvaraju 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError
from sightline.explainers.frozen_eval import cast_to_precision, exact_arithmetic, frozen_eval
from sightline.explainers.layer_gradients import compute_layer_gradients, expand_class_indices, get_images
from sightline.structures.evidence import Batch, Evidence, get_logits


@dataclass(frozen=True)
class ClassActivationMap:
    """The model's own class maps, bias included: one forward pass, no gradient (Zhou 2016; Liao 2022, eq. 3).

    Attributes:
        extra: name of an entry of `Evidence.extras` to return instead, e.g. `attention` for M'_c of eq. 5.

    Example:
        >>> import torch
        >>> from sightline.structures.evidence import Evidence
        >>> class Network(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Conv2d(1, 2, 3, padding=1)
        ...     def forward(self, images):
        ...         maps = self.layer(images)
        ...         return Evidence(maps.mean((2, 3)), maps)
        >>> ClassActivationMap()(Network(), torch.rand(3, 1, 8, 8), classes=[1]).shape
        torch.Size([3, 1, 8, 8])
    """

    takes_features: ClassVar[bool] = True

    extra: str | None = None

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m].

        Raises:
            GeometryError: the model has no such maps, or no such class.
        """
        images = get_images(batch)
        with frozen_eval(model, images.device, weights=create_graph) as network, torch.set_grad_enabled(create_graph):
            output: Evidence | Tensor = network(cast_to_precision(images, network))
            logits, maps = get_logits(output), None
            if not isinstance(output, Tensor):
                maps = output.maps if self.extra is None else output.extras.get(self.extra)
            if maps is None:
                wanted = self.extra or "class maps"
                raise GeometryError(f"What the model returned holds no {wanted}.", "Use GradCAM instead.")
            index = expand_class_indices(classes, logits)
            return maps[torch.arange(len(index), device=index.device)[:, None], index]


@dataclass(frozen=True)
class GradCAM:
    """relu(sum over channels of A * mean over cells of dz_c/dA), A the output of a layer (Selvaraju 2017).

    Attributes:
        layer: name of the module as in `model.named_modules()`; `attention` of a class map model is its last features.
        relu: keep only positive evidence, as published; False keeps both signs.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(4, 2),
        ... )
        >>> GradCAM(layer="1")(network, torch.rand(3, 1, 8, 8), classes=[0, 1]).shape
        torch.Size([3, 2, 8, 8])
    """

    takes_features: ClassVar[bool] = True

    layer: str = "attention"
    relu: bool = True

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m] on the layer's grid. Gradients stored on the weights are not changed.

        Raises:
            RecipeError: the model has no such layer.
            GeometryError: the layer's output is no map, or the logits do not depend on it.
        """
        return _compute_layer_maps(self, weigh_channels, model, batch, classes, create_graph)


def weigh_channels(activation: Tensor, gradients: Tensor) -> Tensor:
    """Maps [b, n, *m]: a layer's channels [b, c, *m] weighted by their mean gradients, [n, b, c, *m]."""
    return torch.einsum("nbc,bc...->bn...", gradients.flatten(3).mean(-1), activation)


@dataclass(frozen=True)
class GradCAMPlusPlus:
    """relu(sum over channels of w A), w = sum over cells of alpha relu(g), alpha = g^2 / (2 g^2 + g^3 sum of A).

    A is a layer's output and g the gradient of the score with respect to it. The second and third derivatives of the
    paper are those of exp(z_c) divided by it, where the network is piecewise linear (its equation 19). Nothing is
    added below: behind global pooling g^2 is smaller than the 1e-6 of pytorch-grad-cam, and g^3 would weigh instead.

    Attributes:
        layer: name of the module as in `model.named_modules()`.
        relu: keep only positive evidence, as published.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(4, 2),
        ... )
        >>> GradCAMPlusPlus(layer="1")(network, torch.rand(3, 1, 8, 8), classes=[1]).min() >= 0
        tensor(True)
    """

    takes_features: ClassVar[bool] = True

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
        return _compute_layer_maps(self, _weigh_by_rises, model, batch, classes, create_graph)


def _weigh_by_rises(activation: Tensor, g: Tensor) -> Tensor:
    total = activation.flatten(2).sum(-1).view(*activation.shape[:2], *[1] * (activation.ndim - 2))
    rises = g.clamp(min=0.0)
    # alpha with g^2 taken out, which would underflow; at least 2 where A is not negative
    below = 2.0 + total * rises
    weights = (rises / torch.where(below != 0.0, below, torch.ones_like(below))).flatten(3).sum(-1)
    return torch.einsum("nbc,bc...->bn...", weights, activation)


def _compute_layer_maps(
    explainer: GradCAM | GradCAMPlusPlus,
    weigh: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    batch: Batch | Tensor,
    classes: Sequence[int] | Tensor,
    create_graph: bool,
) -> Tensor:
    """Maps of an explainer: a layer's output weighted by the gradients of the scores with respect to it."""
    activation, gradients = compute_layer_gradients(model, batch, classes, explainer.layer, create_graph=create_graph)
    with exact_arithmetic(activation.device, create_graph):
        maps = weigh(activation, gradients)
        return maps.relu() if explainer.relu else maps
