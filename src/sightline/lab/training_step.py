"""One update of a network, and the running sums that become an epoch's row in the history."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sightline.evidence import Batch, Evidence
from sightline.lab.aim import Aim
from sightline.lab.predict import laid_out
from sightline.lab.recipe import Recipe


class Plain(nn.Module):
    """A network whose forward returns a dict of tensors, which Fabric can convert (it refuses frozen dataclasses)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits, and maps, window and extras where there are some."""
        return plain_of(self.network(images))


def plain_of(evidence: Evidence) -> dict[str, Tensor]:
    """All tensors of an evidence by name."""
    named = {"logits": evidence.logits, "maps": evidence.maps, "window": evidence.window, **evidence.extras}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


@dataclass
class Sums:
    """Running sums of an epoch, so that a resumed epoch reports the same means."""

    images: int = 0
    loss: float = 0.0
    objective: float = 0.0
    guidance: float = 0.0
    excess: float = 0.0
    guided: int = 0
    correct: int = 0
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class Progress:
    """What the state file says of how far a training is."""

    step: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf


def training_step(
    fabric: Fabric, plain: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, aim: Aim, at: Progress
) -> float:
    """One update: the objective plus weighted guidance (Liao 2022, equation 6).

    Args:
        fabric: of the training.
        plain: the network as Fabric set it up.
        optimizer: with this step's learning rate.
        batch: on the device.
        aim: what is minimised.
        at: how far the training is; its sums grow.

    Returns:
        The loss.
    """
    sums, recipe = at.sums, aim.recipe
    out = plain(laid_out(batch.images))
    out["logits"] = out["logits"].float()
    main, _, parts = aim({**out, **aim.explained(batch)}, batch, at.history)
    loss = main
    if recipe.guidance is not None and recipe.weight > 0.0:
        # a penalty without regions still wants to know the input grid
        targets = (
            batch.images.new_zeros(len(batch), 1, *batch.images.shape[2:]) if batch.targets is None else batch.targets
        )
        term = recipe.guidance(out["maps"], targets, batch.guided)
        loss = main + recipe.weight * term.value
        # images without a region count for nothing, also in the log
        sums.guidance += float(term.value.detach()) * term.images
        sums.excess += (float(term.value.detach()) - term.floor) * term.images
        sums.guided += term.images
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if recipe.optimiser.clip_value is not None:
        fabric.clip_gradients(plain, optimizer, clip_val=recipe.optimiser.clip_value)
    optimizer.step()
    value = float(loss.detach())
    sums.images += len(batch)
    sums.loss += value * len(batch)
    sums.objective += float(main.detach()) * len(batch)
    sums.correct += int((out["logits"].detach().argmax(dim=1) == batch.labels).sum())
    for name, part in parts.items():
        sums.parts[name] = sums.parts.get(name, 0.0) + part * len(batch)
    return value


def epoch_row(epoch: int, at: Progress, recipe: Recipe, steps: int, steps_per_epoch: int) -> dict[str, Any]:
    """An epoch's training columns of the history."""
    sums, n = at.sums, max(1, at.sums.images)
    return {
        "epoch": epoch + 1,
        "step": at.step,
        "rate": recipe.schedule.rate(max(0, at.step - 1), steps, steps_per_epoch, at.history),
        "images": sums.images,
        "loss": sums.loss / n,
        ("cross_entropy" if recipe.objective is None else "objective"): sums.objective / n,
        "accuracy": sums.correct / n if recipe.classifies else None,
        **{name: total / n for name, total in sums.parts.items()},
        "guided_images": sums.guided,
        "guidance": sums.guidance / sums.guided if sums.guided else None,
        "guidance_excess": sums.excess / sums.guided if sums.guided else None,
        "seconds": round(sums.seconds, 3),
    }
