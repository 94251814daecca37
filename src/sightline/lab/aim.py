"""What a training minimises before guidance: the cross-entropy, or an objective with all that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.errors import RecipeError, RunError
from sightline.evidence import Batch
from sightline.lab.recipe import Recipe

# parameters of an objective are trained, averaged and saved with the network's, under this name
LEARNED = "objective"


class Aim:
    """The objective of a recipe, joined to the network it trains.

    An objective with parameters of its own (learned weights of its parts, Zhu 2022, equation 11) becomes a part of the
    network, so that the optimiser, the state file and the average of the weights hold them too; they are left out of
    the weights that are kept (`apart`).

    Args:
        recipe: what is trained.
        network: the network, before the optimiser is built.
        weights: of the classes, [k].
        devices: on how many devices.

    Raises:
        RecipeError: the network already has a part of that name.
        RunError: an objective that cannot be trained this way.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, weights: Tensor, devices: int = 1) -> None:
        self.recipe = recipe
        self.network = network
        self.weights = weights
        self.objective: Any = recipe.objective
        build = getattr(recipe.objective, "build", None)
        if build is not None:
            if hasattr(network, LEARNED):
                raise RecipeError(f"The network already has a part called {LEARNED!r}.", "Rename that part.")
            self.objective = build()
            network.add_module(LEARNED, self.objective)
        self.explainer = None if recipe.objective is None else recipe.objective.explainer
        if devices > 1 and (build is not None or self.explainer is not None):
            raise RunError(
                f"{recipe.title} learns outside the network's forward pass, which several devices do not keep alike.",
                "Train it with --devices 1.",
            )
        if self.explainer is not None and recipe.precision.endswith("-true") and recipe.precision != "32-true":
            raise RunError(
                f"{recipe.title} trains through gradients of the image, which {recipe.precision} is too coarse for.",
                "Use --precision 32-true, or a mixed precision: explainers compute in float32 then.",
            )

    def to(self, device: torch.device) -> Aim:
        """The same with the class weights on a device."""
        self.weights = self.weights.to(device)
        return self

    def explained(self, batch: Batch) -> dict[str, Tensor]:
        """The map of each image's own class, [b, 1, *m], under the name `explained`, if the objective wants one.

        In training it is differentiable with respect to the weights.
        """
        if self.explainer is None:
            return {}
        maps = self.explainer(
            self.network, batch.images, batch.labels[:, None], create_graph=self.network.training
        )  # fmt: skip
        return {"explained": maps}

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, history: Sequence[Mapping[str, Any]], *, even: bool = False
    ) -> tuple[Tensor, int, Mapping[str, float]]:
        """The value, over how many images, and its parts for the log; `even`: without class weights."""
        weights = torch.ones_like(self.weights) if even else self.weights
        if self.objective is None:
            losses = F.cross_entropy(out["logits"], batch.labels, reduction="none")
            return (losses * weights[batch.labels]).mean(), len(batch), {}
        term = self.objective(out, batch, weights, history)
        return term.value, term.images, term.parts


def apart(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's weights, and those of an objective under their own names."""
    start = f"{LEARNED}."
    network = {name: tensor for name, tensor in weights.items() if not name.startswith(start)}
    learned = {name.removeprefix(start): tensor for name, tensor in weights.items() if name.startswith(start)}
    return network, learned
