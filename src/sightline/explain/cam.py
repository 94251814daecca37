"""Class activation maps (Zhou 2016) and their gradient-weighted generalisation (Selvaraju 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RecipeError
from sightline.evidence import Batch, Evidence

Model = Callable[[Tensor], Evidence]


class Explainer(Protocol):
    """A map for each of some classes of each image.

    The model is used in the mode it is in (call `eval()` first to explain a prediction) and left as it was.
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
        with torch.set_grad_enabled(create_graph):
            evidence = model(_images(batch))
        maps = evidence.maps if self.extra is None else evidence.extras.get(self.extra)
        if maps is None:
            raise GeometryError(f"The model's evidence holds no {self.extra or 'class maps'}.", "Use GradCAM instead.")
        index = _indices(classes, evidence.logits)
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
        caught: list[Tensor] = []

        def catch(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor) or output.ndim < 3:
                raise GeometryError(f"Layer {self.layer!r} gives no map [b, c, *m].", "Name a convolutional layer.")
            activation = output if output.requires_grad else output.detach().requires_grad_()
            caught.append(activation)
            # a copy goes on, so that an in-place step after the layer cannot change what was caught
            return activation.clone()

        handle = self._find(model).register_forward_hook(catch)
        try:
            with torch.enable_grad():
                evidence = model(_images(batch))
        finally:
            handle.remove()
        if not caught:
            raise GeometryError(f"Layer {self.layer!r} was not used.", "Name a layer on the way to the logits.")
        activation = caught[-1]
        chosen = evidence.logits.gather(1, _indices(classes, evidence.logits))
        gradients = _gradients(chosen, activation, self.layer, create_graph)
        with torch.set_grad_enabled(create_graph):
            source = activation if create_graph else activation.detach()
            weights = gradients.flatten(3).mean(-1)
            maps = torch.einsum("nbc,bc...->bn...", weights, source)
            return maps.relu() if self.relu else maps

    def _find(self, model: nn.Module) -> nn.Module:
        try:
            return model.get_submodule(self.layer)
        except AttributeError as error:
            near = ", ".join(name for name, _ in model.named_children())
            raise RecipeError(f"The model has no layer {self.layer!r}.", f"Its parts are {near}.") from error


def _gradients(logits: Tensor, activation: Tensor, layer: str, create_graph: bool) -> Tensor:
    """d(logits[:, j])/d(activation) for every j: [n, b, c, *m]."""
    n = logits.shape[1]
    gradients = [
        # images do not mix in the logits (at inference), so one backward pass serves the whole batch
        torch.autograd.grad(
            logits[:, j].sum(),
            activation,
            retain_graph=create_graph or j < n - 1,
            create_graph=create_graph,
            allow_unused=True,
        )[0]
        for j in range(n)
    ]
    found = [gradient for gradient in gradients if gradient is not None]
    if len(found) < n:
        raise GeometryError(f"The logits do not depend on layer {layer!r}.", "Name a layer on the way to the logits.")
    return torch.stack(found)


def _images(batch: Batch | Tensor) -> Tensor:
    return batch.images if isinstance(batch, Batch) else batch


def _indices(classes: Sequence[int] | Tensor, logits: Tensor) -> Tensor:
    b, k = logits.shape
    index = torch.as_tensor(classes, dtype=torch.int64, device=logits.device)
    index = index.expand(b, -1) if index.ndim == 1 else index
    if index.ndim != 2 or len(index) != b or index.numel() == 0:
        raise GeometryError(f"Classes must be [n] or [{b}, n]; got {tuple(index.shape)}.")
    if int(index.min()) < 0 or int(index.max()) >= k:
        raise GeometryError(f"Classes {sorted(set(index.flatten().tolist()))} are not all among 0 to {k - 1}.")
    return index
