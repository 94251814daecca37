"""The gradient of a class score with respect to the image, under one of the rules for activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sightline.errors import GeometryError, RunError
from sightline.evidence import Batch
from sightline.explain.layer_gradients import class_indices, images_of
from sightline.explain.rules import Rewired, Rule, rewire

Reduce = Literal["positive_mean", "absolute_sum", "absolute_mean", "signed_sum"]


@dataclass(frozen=True)
class InputGradient:
    """d z_c / d image: plain (Simonyan 2014), guided (Springenberg 2015) or deconvolution (Zeiler and Fergus 2014).

    What Watanabe 2022 calls heatmap generators. With `create_graph` the map is differentiable with respect to the
    weights, and a loss on it trains them (their sets 1 to 3).

    Attributes:
        rule: how gradients pass activations (`rules.rewire`).
        reduce: from the channels of the image to one map: the mean of what speaks for the class (`positive_mean`), the
            sum or mean of absolute values, or the sum with its sign.
        gates: whether activations inside squeeze gates follow the rule too.
        deconvolution_slope: whether deconvolution keeps the slope of smooth activations.
        batch_norm: in this pass, batch norm uses its running statistics (`eval`), so that a gradient is one image's
            own, or does what the model's mode says (`as_is`): in training an image's gradient then holds parts of
            others', and the running statistics move once more.
        dropout: `off` in this pass, or `as_is`.
    """

    rule: Rule = "vanilla"
    reduce: Reduce = "positive_mean"
    gates: Literal["plain", "rewired"] = "plain"
    deconvolution_slope: bool = False
    batch_norm: Literal["eval", "as_is"] = "eval"
    dropout: Literal["off", "as_is"] = "off"

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's own grid, in float32 or wider. Gradients stored on weights stay as they are.

        Raises:
            GeometryError: no such class, or logits that do not depend on the image.
            RunError: a compiled model, into which no rule reaches.
        """
        return self.explained(model, batch, classes, create_graph=create_graph)[0]

    def explained(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Rewired]:
        """The maps, and what the rule met on the way."""
        gradients, rewired = self.gradients(model, batch, classes, create_graph=create_graph)
        with torch.set_grad_enabled(create_graph):
            return reduced(gradients, self.reduce), rewired

    def gradients(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Rewired]:
        """The gradients before channels are joined, [b, n, c, *s], and what the rule met."""
        network = uncompiled(model)
        images = images_of(batch)
        # one graph, from the image to the score: weights are left out of it unless they are to be trained through it
        with (
            torch.enable_grad(),
            torch.autocast(images.device.type, enabled=False),
            calm(network, self.batch_norm == "eval", self.dropout == "off"),
            still(network, not create_graph),
        ):
            x = images.detach().clone()
            x = (x if x.dtype == torch.float64 else x.float()).requires_grad_()
            with rewire(self.rule, gates=self.gates, deconvolution_slope=self.deconvolution_slope) as rewired:
                logits = network(x).logits
            chosen = logits.gather(1, class_indices(classes, logits))
            maps = [
                torch.autograd.grad(
                    chosen[:, j].sum(),
                    x,
                    create_graph=create_graph,
                    retain_graph=create_graph or j < chosen.shape[1] - 1,
                    allow_unused=True,
                )[0]
                for j in range(chosen.shape[1])
            ]
            # what the map's own gradient passes later follows no rule
            rewired.ruling = False
        if any(gradient is None for gradient in maps):
            raise GeometryError("The logits do not depend on the image.", "Is part of the network detached?")
        return torch.stack(maps, dim=1), rewired


def reduced(gradients: Tensor, how: Reduce) -> Tensor:
    """One map [b, n, *s] of gradients [b, n, c, *s]."""
    if how == "positive_mean":
        return gradients.clamp(min=0.0).mean(dim=2)
    if how == "absolute_sum":
        return gradients.abs().sum(dim=2)
    return gradients.abs().mean(dim=2) if how == "absolute_mean" else gradients.sum(dim=2)


def uncompiled(model: nn.Module) -> nn.Module:
    """The model that `torch.compile` was given, which shares its weights; any other model as it is.

    Raises:
        RunError: a scripted or exported model, whose activations cannot be reached.
    """
    original = getattr(model, "_orig_mod", model)
    if isinstance(original, torch.jit.ScriptModule):
        raise RunError(
            "A scripted model cannot be explained through its activations: they are compiled in.",
            "Give the model as it was before torch.jit.",
        )
    return original


@contextmanager
def calm(model: nn.Module, batch_norm: bool, dropout: bool) -> Iterator[None]:
    """Batch norm on its running statistics and dropout off; every module's mode is put back, whatever happens."""
    kinds: tuple[type[nn.Module], ...] = ()
    kinds += (nn.modules.batchnorm._BatchNorm,) if batch_norm else ()
    kinds += (nn.modules.dropout._DropoutNd, nn.AlphaDropout) if dropout else ()
    changed = [
        module
        for module in model.modules()
        # stochastic depth of timm and torchvision is dropout of whole branches
        if module.training
        and (isinstance(module, kinds) or (dropout and type(module).__name__ in ("DropPath", "StochasticDepth")))
    ]
    for module in changed:
        module.training = False
    try:
        yield
    finally:
        for module in changed:
            module.training = True


@contextmanager
def still(model: nn.Module, when: bool) -> Iterator[None]:
    """Weights take no part in the graph, so that only the image's gradient is computed; put back, whatever happens."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad] if when else []
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
