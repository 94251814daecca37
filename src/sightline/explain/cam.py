"""Class activation maps (Zhou 2016) and their gradient-weighted generalisation (Selvaraju 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError
from sightline.evidence import Batch, Evidence
from sightline.explain.layer_gradients import class_indices, images_of, layer_gradients
from sightline.explain.quiet_pass import exact, in_precision, quiet_pass

Model = Callable[[Tensor], Evidence]


class Explainer(Protocol):
    """A map for each of some classes of each image.

    The prediction is explained as it is made: in evaluation mode, in training too (unless the explainer has an option
    that says otherwise). Modes, weights, stored gradients, statistics and hooks are left as they were.
    """

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m].

        Args:
            model: gives Evidence for images [b, c, *s].
            batch: the images, or the batch they are in.
            classes: n class indices for all images, or int [b, n] for each.
            create_graph: keep the maps differentiable with respect to the weights.
        """
        ...


@dataclass(frozen=True)
class ClassActivationMap:
    """The model's own class maps, bias included: one forward pass, no gradient (Zhou 2016; Liao 2022, eq. 3).

    Attributes:
        extra: name of one of the evidence's extras to show instead, e.g. `attention` for M'_c of eq. 5.
    """

    extra: str | None = None

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m].

        Raises:
            GeometryError: the model shows no such maps, or has no such class.
        """
        images = images_of(batch)
        with quiet_pass(model, images.device, weights=create_graph) as network, torch.set_grad_enabled(create_graph):
            evidence: Evidence = network(in_precision(images, network))
            maps = evidence.maps if self.extra is None else evidence.extras.get(self.extra)
            if maps is None:
                wanted = self.extra or "class maps"
                raise GeometryError(f"The model's evidence holds no {wanted}.", "Use GradCAM instead.")
            index = class_indices(classes, evidence.logits)
            return maps[torch.arange(len(index), device=index.device)[:, None], index]


@dataclass(frozen=True)
class GradCAM:
    """relu(sum over channels of A * mean over cells of dz_c/dA), A the output of a layer (Selvaraju 2017).

    Attributes:
        layer: name of the module as in `model.named_modules()`; `attention` of a class map model is its last features.
        relu: keep only what speaks for the class, as published; False keeps both signs.
    """

    layer: str = "attention"
    relu: bool = True

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m] on the layer's grid. Gradients already stored on the weights stay as they are.

        Raises:
            RecipeError: the model has no such layer.
            GeometryError: the layer gives no map, or the logits do not depend on it.
        """
        activation, gradients = layer_gradients(model, batch, classes, self.layer, create_graph=create_graph)
        with exact(activation.device, create_graph):
            maps = weighed(activation, gradients)
            return maps.relu() if self.relu else maps


def weighed(activation: Tensor, gradients: Tensor) -> Tensor:
    """Maps [b, n, *m]: channels of a layer [b, c, *m] weighed by their mean gradients, of [n, b, c, *m]."""
    return torch.einsum("nbc,bc...->bn...", gradients.flatten(3).mean(-1), activation)
