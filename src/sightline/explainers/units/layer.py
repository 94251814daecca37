"""A layer of a network, unit by unit: images to evidence and to the layer's activations, with nothing left behind.

Any submodule that gives a map [b, u, *m] with as many axes as the image will do, in two dimensions or three.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RecipeError, count_noun
from sightline.explainers.frozen_eval import exact_arithmetic, frozen_eval, unwrap_model
from sightline.structures.evidence import Batch, Evidence

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def list_conv_layers(network: nn.Module) -> dict[str, int]:
    """The convolutions of a network in the order in which it lists them: name to number of units.

    Parts that are no convolutions can be dissected too, e.g. a whole stage after its ReLU (`encoder.3`, `trunk`).
    """
    return {
        name: int(module.out_channels)
        for name, module in unwrap_model(network).named_modules()
        if isinstance(module, _CONVOLUTIONS)
    }


def choose_default_layer(network: nn.Module) -> str:
    """The layer that is dissected where none is named.

    That is what the network itself says (`dissected`), else `trunk` (the features that class maps are made of), else
    the last convolution.

    Raises:
        RecipeError: the network has no convolution.
    """
    inner = unwrap_model(network)
    named = getattr(inner, "dissected", None)
    if isinstance(named, str):
        return named
    if isinstance(getattr(inner, "trunk", None), nn.Module):
        return "trunk"
    layers = list(list_conv_layers(inner))
    if not layers:
        raise RecipeError("The network has no convolution.", "Name a part that gives maps [b, u, *m].")
    return layers[-1]


def has_cross_image_layers(network: nn.Module) -> bool:
    """Whether an image's activations depend on the images it is batched with, even in evaluation mode.

    So it is where batch statistics are used at test time (`norm: batch_always` of the 3D U-Net). Such a network has to
    be dissected in batches of one size, the same in every pass.
    """
    norms = nn.modules.batchnorm._BatchNorm
    return any(isinstance(m, norms) and m.running_mean is None for m in unwrap_model(network).modules())


class UnitLayer:
    """What a network says of images, and what one of its layers gives on the way.

    `layer(images)` gives (Evidence, activations float32 [b, u, *m]). Each call is a quiet pass in evaluation mode:
    modes are put back, hooks are taken off, whatever happens. The activations are those the layer hands on, before a
    later step in place changes them; a layer that is used several times a pass gives its last. It may be used as a
    context manager, which then guards nothing more.

    Args:
        network: a module whose `forward(images)` gives Evidence (or logits alone).
        name: of the submodule; None takes `choose_default_layer`.

    Raises:
        RecipeError: the network has no such part.
    """

    def __init__(self, network: nn.Module, name: str | None = None) -> None:
        self.network = network
        self.name = choose_default_layer(network) if name is None else name
        self._module = _find_part(unwrap_model(network), self.name)

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    def __call__(self, images: Tensor | Batch) -> tuple[Evidence, Tensor]:
        """Evidence of images [b, c, *s] and the layer's activations, float32 [b, u, *m].

        Raises:
            GeometryError: the layer gives no map with the image's axes, or was not used.
        """
        given = images.images if isinstance(images, Batch) else images
        weights = next((p for p in self.network.parameters() if p.is_floating_point()), given)
        given = given.detach().to(weights.device, weights.dtype)
        caught: list[Tensor] = []

        def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # a copy, so that an in-place step after the layer cannot change what was caught
            caught[:] = [_require_map(output, given.ndim, self.name).detach().to(torch.float32, copy=True)]

        with frozen_eval(self.network, given.device, weights=True) as network, exact_arithmetic(given.device, False):
            handle = self._module.register_forward_hook(catch)
            try:
                evidence = network(given)
            finally:
                handle.remove()
        if not caught:
            raise GeometryError(f"Layer {self.name!r} was not used.", "Name a layer on the way to the logits.")
        if len(caught[0]) != len(given):
            raise GeometryError(
                f"Layer {self.name!r} gives maps of {count_noun(len(caught[0]), 'image')} for a batch of {len(given)}.",
                "Name a layer that keeps the images apart.",
            )
        return (evidence if isinstance(evidence, Evidence) else Evidence(evidence)), caught[0]


def _find_part(network: nn.Module, name: str) -> nn.Module:
    parts = dict(network.named_modules())
    if name and name in parts:
        return parts[name]
    layers = list_conv_layers(network)
    near = difflib.get_close_matches(name, [part for part in parts if part], n=3, cutoff=0.5)
    shown = list(layers)[-8:]
    earlier = f" (and {len(layers) - len(shown)} before)" if len(layers) > len(shown) else ""
    raise RecipeError(
        f"The network has no layer {name!r}." + (f" Near it: {', '.join(near)}." if near else ""),
        f"Its parts are {', '.join(n for n, _ in network.named_children())}; its last convolutions "
        f"{', '.join(shown) or 'none'}{earlier}.",
    )


def _require_map(output: Any, ndim: int, name: str) -> Tensor:
    if isinstance(output, list | tuple) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor):
        raise GeometryError(
            f"Layer {name!r} gives no tensor but {type(output).__name__}.", "Name a part that gives one map."
        )
    if output.ndim != ndim:
        raise GeometryError(
            f"Layer {name!r} gives {list(output.shape)}; expected [b, u, *m] with {ndim - 2} axes of the image.",
            "Name a convolutional layer, or a part whose output is a map.",
        )
    return output
