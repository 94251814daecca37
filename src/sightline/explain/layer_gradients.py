"""What a layer says and how a class score depends on it: one forward pass, and one backward pass a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RecipeError
from sightline.evidence import Batch


def layer_gradients(
    model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, layer: str, *, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """The output of a layer, [b, c, *m], and the gradients of n class scores with respect to it, [n, b, c, *m].

    Gradients already stored on the weights stay as they are. Without `create_graph` both are detached.

    Raises:
        RecipeError: the model has no such layer.
        GeometryError: the layer gives no map, or the logits do not depend on it.
    """
    caught: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim < 3:
            raise GeometryError(f"Layer {layer!r} gives no map [b, c, *m].", "Name a convolutional layer.")
        activation = output if output.requires_grad else output.detach().requires_grad_()
        caught.append(activation)
        # a copy goes on, so that an in-place step after the layer cannot change what was caught
        return activation.clone()

    handle = _found(model, layer).register_forward_hook(catch)
    try:
        with torch.enable_grad():
            evidence = model(images_of(batch))
    finally:
        handle.remove()
    if not caught:
        raise GeometryError(f"Layer {layer!r} was not used.", "Name a layer on the way to the logits.")
    activation = caught[-1]
    chosen = evidence.logits.gather(1, class_indices(classes, evidence.logits))
    gradients = _gradients(chosen, activation, layer, create_graph)
    return (activation if create_graph else activation.detach()), gradients


def _found(model: nn.Module, layer: str) -> nn.Module:
    try:
        return model.get_submodule(layer)
    except AttributeError as error:
        near = ", ".join(name for name, _ in model.named_children())
        raise RecipeError(f"The model has no layer {layer!r}.", f"Its parts are {near}.") from error


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


def images_of(batch: Batch | Tensor) -> Tensor:
    """The images of a batch, or the images themselves."""
    return batch.images if isinstance(batch, Batch) else batch


def class_indices(classes: Sequence[int] | Tensor, logits: Tensor) -> Tensor:
    """Class indices [b, n] of n classes for all images, or of [b, n] for each.

    Raises:
        GeometryError: no such class, or a shape that does not fit.
    """
    b, k = logits.shape
    index = torch.as_tensor(classes, dtype=torch.int64, device=logits.device)
    index = index.expand(b, -1) if index.ndim == 1 else index
    if index.ndim != 2 or len(index) != b or index.numel() == 0:
        raise GeometryError(f"Classes must be [n] or [{b}, n]; got {tuple(index.shape)}.")
    if int(index.min()) < 0 or int(index.max()) >= k:
        raise GeometryError(f"Classes {sorted(set(index.flatten().tolist()))} are not all among 0 to {k - 1}.")
    return index
