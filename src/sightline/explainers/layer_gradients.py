"""What a layer says and how a class score depends on it: one forward pass, and one backward pass a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RecipeError
from sightline.explainers.backprop_rules.rules import RuleRecord
from sightline.explainers.bn_folding.deferred import evaluate_deferred
from sightline.explainers.bn_folding.mode import bn_folding_mode, try_bn_folding
from sightline.explainers.frozen_eval import cast_to_precision, frozen_eval
from sightline.structures.evidence import Batch, get_logits


def compute_layer_gradients(
    model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, layer: str, *, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """The output of a layer, [b, c, *m], and the gradients of n class scores with respect to it, [n, b, c, *m].

    The pass is quiet (`frozen_eval`). Without `create_graph` both are detached, and nothing is kept of the pass before
    the layer.

    Raises:
        RecipeError: the model has no such layer.
        GeometryError: the layer gives no map, or the logits do not depend on it.
    """
    images = get_images(batch)
    with frozen_eval(model, images.device, weights=create_graph) as network:
        x = cast_to_precision(images, network)

        def run(lean: bool) -> tuple[Tensor, list[Tensor]]:
            with catch_output(network, layer) as caught, bn_folding_mode(RuleRecord()) if lean else nullcontext():
                return get_logits(network(x)), caught

        # with weights in the graph, a gradient with respect to the layer alone must not pass them by
        logits, caught = run(False) if create_graph else try_bn_folding(run)
        activation = take_last(caught, layer)
        chosen = logits.gather(1, expand_class_indices(classes, logits))
        gradients = compute_score_gradients(chosen, activation, f"layer {layer!r}", create_graph=create_graph)
    return (activation if create_graph else activation.detach()), gradients


@contextmanager
def catch_output(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """What a layer gives within this block, one tensor a call, each on the way from the image to the score.

    Raises:
        RecipeError: the network has no such layer.
        GeometryError: the layer gives no map.
    """
    caught: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim < 3:
            raise GeometryError(f"Layer {layer!r} gives no map [b, c, *m].", "Name a convolutional layer.")
        output = evaluate_deferred(output)
        activation = output if output.requires_grad else output.detach().requires_grad_()
        caught.append(activation)
        # a copy goes on, so that an in-place step after the layer cannot change what was caught
        return activation.clone()

    handle = _find_layer(network, layer).register_forward_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def take_last(caught: Sequence[Tensor], layer: str) -> Tensor:
    """What the layer gave last.

    Raises:
        GeometryError: it was not used.
    """
    if not caught:
        raise GeometryError(f"Layer {layer!r} was not used.", "Name a layer on the way to the logits.")
    return caught[-1]


def compute_score_gradients(scores: Tensor, of: Tensor, name: str, *, create_graph: bool, keep: bool = False) -> Tensor:
    """d(scores[:, j])/d(of) for every j: [n, *of.shape].

    Args:
        scores: [b, n]; images do not mix in them, so that one backward pass serves the whole batch.
        of: [b, ...].
        name: of `of`, for the message.
        create_graph: keep the gradients differentiable.
        keep: the graph is needed again.

    Raises:
        GeometryError: the scores do not depend on it.
    """
    n = scores.shape[1]
    gradients: list[Tensor | None] = []
    if scores.requires_grad:
        gradients = [
            torch.autograd.grad(
                scores[:, j].sum(),
                of,
                retain_graph=create_graph or keep or j < n - 1,
                create_graph=create_graph,
                allow_unused=True,
            )[0]
            for j in range(n)
        ]
    found = [gradient for gradient in gradients if gradient is not None]
    if len(found) < n:
        raise GeometryError(
            f"The logits do not depend on {name}.", "Name a layer on the way to the logits; is a part detached?"
        )
    return torch.stack(found)


def _find_layer(network: nn.Module, layer: str) -> nn.Module:
    try:
        return network.get_submodule(layer)
    except AttributeError as error:
        near = ", ".join(name for name, _ in network.named_children())
        raise RecipeError(f"The model has no layer {layer!r}.", f"Its parts are {near}.") from error


def get_images(batch: Batch | Tensor) -> Tensor:
    """The images of a batch, or the images themselves."""
    return batch.images if isinstance(batch, Batch) else batch


def expand_class_indices(classes: Sequence[int] | Tensor, logits: Tensor) -> Tensor:
    """Class indices [b, n] of n classes for all images, or of [b, n] for each.

    Raises:
        GeometryError: no such class, or a shape that does not fit.
    """
    b, k = logits.shape
    index = torch.as_tensor(classes, dtype=torch.int64, device=logits.device)
    # a copy, which autograd may keep even if the classes were made in inference mode
    index = (index.expand(b, -1) if index.ndim == 1 else index).clone()
    if index.ndim != 2 or len(index) != b or index.numel() == 0:
        raise GeometryError(f"Classes must be [n] or [{b}, n]; got {tuple(index.shape)}.")
    if int(index.min()) < 0 or int(index.max()) >= k:
        raise GeometryError(f"Classes {sorted(set(index.flatten().tolist()))} are not all among 0 to {k - 1}.")
    return index
