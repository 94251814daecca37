"""Integrated gradients, DeepLIFT and LIME, computed by Captum: to be looked at, not to be trained through.

Captum is an optional extra: `pip install 'sightline-radiology[captum]'`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError, RunError
from sightline.explainers.backprop_rules.network_activations import count_activations
from sightline.explainers.frozen_eval import cast_to_precision, fork_rng, frozen_eval, unwrap_model
from sightline.explainers.gradients import Reduce, reduce_channels
from sightline.explainers.layer_gradients import expand_class_indices, get_images
from sightline.structures.evidence import Batch, get_logits
from sightline.structures.protocols import find_scorer


@dataclass(frozen=True)
class IntegratedGradients:
    """The gradient averaged on the way from a baseline to the image, times their difference (Sundararajan 2017).

    The values of a map add up to the score's difference between image and baseline (with `signed_sum`).

    Attributes:
        steps: points on the way (Gauss-Legendre).
        baseline: grey value, 0 to 1, of the picture that is taken to show nothing.
        reduce: from channels to one map, as `InputGradient`.
    """

    steps: int = 50
    baseline: float = 0.0
    reduce: Reduce = "signed_sum"

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.steps < 1:
            raise RecipeError(f"IntegratedGradients needs steps >= 1; got {self.steps}.")

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's grid, without a graph; memory as of one gradient of the batch.

        Raises:
            RecipeError: with `create_graph`, or without Captum.
            GeometryError: no such class.
        """
        captum = _import_captum(create_graph, "IntegratedGradients")

        def attribute(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
            method = captum.IntegratedGradients(lambda inputs: get_logits(find_scorer(network)(inputs)))
            given: Tensor = method.attribute(
                x, baselines=self.baseline, target=target, n_steps=self.steps, internal_batch_size=len(x)
            )
            return given

        return _map_attributions(model, batch, classes, attribute, self.reduce)


@dataclass(frozen=True)
class DeepLift:
    """Differences from a baseline, passed back activation by activation (Shrikumar 2017, the rescale rule).

    Captum has the rule for modules of ReLU, ELU, leaky ReLU, sigmoid, tanh, softplus and max-pooling that are called
    once each. Anything else would pass plain gradients in silence: it is refused.

    Attributes:
        baseline: grey value, 0 to 1, of the picture that is taken to show nothing.
        reduce: from channels to one map, as `InputGradient`.
    """

    baseline: float = 0.0
    reduce: Reduce = "signed_sum"

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's grid, without a graph.

        Captum hooks a copy of the network, not the network.

        Raises:
            RecipeError: with `create_graph`, without Captum, or an activation that the rule is not defined for.
            RunError: Captum fails.
            GeometryError: no such class.
        """
        captum = _import_captum(create_graph, "DeepLift")
        network = copy.deepcopy(unwrap_model(model))
        for module in network.modules():
            if isinstance(getattr(module, "inplace", None), bool):
                setattr(module, "inplace", False)  # noqa: B010
        _refuse_without_rule(network, get_images(batch)[:1])

        def attribute(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
            given: Tensor = captum.DeepLift(_Logits(network)).attribute(
                x, baselines=torch.full_like(x, self.baseline), target=target
            )
            return given

        return _map_attributions(network, batch, classes, attribute, self.reduce)


@dataclass(frozen=True)
class Lime:
    """A sparse linear model of the score, over which squares of the image are shown or hidden (Ribeiro 2016).

    Attributes:
        samples: pictures with squares hidden at random, for each image and class.
        cells: squares along each axis.
        baseline: grey value, 0 to 1, of hidden squares.
        alpha: of the lasso; higher leaves fewer squares, and none where scores differ little.
        at_once: pictures in a forward pass.
        seed: of what is hidden; the world's generators are left alone.
    """

    samples: int = 200
    cells: int = 8
    baseline: float = 0.0
    alpha: float = 0.001
    at_once: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.samples < 2 or self.cells < 1 or self.alpha < 0 or self.at_once < 1:
            raise RecipeError(
                "Lime needs samples >= 2, cells >= 1, alpha >= 0 and at_once >= 1; got "
                f"{self.samples}, {self.cells}, {self.alpha}, {self.at_once}."
            )

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's grid, one value a square, without a graph.

        Raises:
            RecipeError: with `create_graph`, or without Captum.
            GeometryError: no such class.
        """
        captum = _import_captum(create_graph, "Lime")
        from captum._utils.models.linear_model import SkLearnLasso

        squares = _number_squares(get_images(batch), self.cells)

        def attribute(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
            method = captum.Lime(
                lambda inputs: get_logits(find_scorer(network)(inputs)),
                interpretable_model=SkLearnLasso(alpha=self.alpha),
            )
            maps: list[Tensor] = []
            for image, wanted in zip(torch.unbind(x), target, strict=True):
                # each image anew, so that its map does not depend on its place in the batch
                with fork_rng(self.seed, x.device):
                    maps.append(
                        method.attribute(
                            image[None],
                            baselines=self.baseline,
                            target=int(wanted),
                            feature_mask=squares,
                            n_samples=self.samples,
                            perturbations_per_eval=self.at_once,
                        )
                    )
            return torch.cat(maps)

        # a square's weight stands in all channels alike
        return _map_attributions(model, batch, classes, attribute, None)


class _Logits(nn.Module):
    """A network that gives logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return get_logits(find_scorer(self.network)(x))


def _import_captum(create_graph: bool, name: str) -> Any:
    if create_graph:
        raise RecipeError(
            f"{name} gives maps without a graph: no loss on them can reach the weights.",
            "To train on maps use ClassActivationMap, GradCAM or InputGradient.",
        )
    try:
        from captum import attr
    except ImportError as error:
        raise RecipeError(
            f"{name} needs Captum, which is not installed.", "pip install 'sightline-radiology[captum]'"
        ) from error
    return attr


def _map_attributions(
    model: nn.Module,
    batch: Batch | Tensor,
    classes: Sequence[int] | Tensor,
    attribute: Callable[[nn.Module, Tensor, Tensor], Tensor],
    reduce: Reduce | None,
) -> Tensor:
    """Maps [b, n, *s] of attributions (network, images, classes [b]) -> [b, c, *s], one class after the other."""
    images = get_images(batch)
    with frozen_eval(model, images.device) as network, _quiet_captum():
        x = cast_to_precision(images, network, full=True)
        with torch.no_grad():
            index = expand_class_indices(classes, get_logits(find_scorer(network)(x)))
        given = torch.stack([attribute(network, x.clone(), column) for column in index.T], dim=1).detach()
    return given[:, :, 0] if reduce is None else reduce_channels(given, reduce)


def _number_squares(images: Tensor, cells: int) -> Tensor:
    """Which square each pixel lies in, int64 [1, 1, *s]: cells along each axis, of nearly equal size."""
    number = torch.zeros(images.shape[2:], dtype=torch.int64, device=images.device)
    for axis, size in enumerate(images.shape[2:]):
        place = torch.arange(size, device=images.device) * min(cells, size) // size
        number = number * min(cells, size) + place.view(-1, *[1] * (images.ndim - 3 - axis))
    return number[None, None]


@contextmanager
def _quiet_captum() -> Iterator[None]:
    """Captum's warnings about its own hooks are not for readers of maps; its failures become ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (RuntimeError, AssertionError) as error:
            raise RunError(f"Captum failed: {error}", "Use another explainer for this network.") from error


def _refuse_without_rule(network: nn.Module, images: Tensor) -> None:
    from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR

    with frozen_eval(network, images.device):
        has = count_activations(network, cast_to_precision(images, network, full=True))
    ruled = {type(module) for module in network.modules() if type(module) in SUPPORTED_NON_LINEAR}
    modules = sum(type(module) in SUPPORTED_NON_LINEAR for module in network.modules())
    names = {kind.__name__.lower() for kind in ruled} | ({"leaky_relu"} if nn.LeakyReLU in ruled else set())
    calls = has.on_maps + has.in_gates
    foreign = {kind: n for kind, n in (calls + has.own).items() if kind not in names}
    if foreign:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(foreign.items()))
        raise RecipeError(
            f"DeepLIFT has no rule for {kinds} of this network: they would pass plain gradients in silence.",
            "Use IntegratedGradients, which needs no rule.",
        )
    if calls.total() + has.max_pools > modules:
        raise RecipeError(
            f"This network calls {calls.total() + has.max_pools} activations and max-poolings but holds {modules} of "
            "them as modules: DeepLIFT would miss the others, or meet a module twice.",
            "Use IntegratedGradients, which needs no rule.",
        )
