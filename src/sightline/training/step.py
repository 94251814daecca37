"""One update of a network, and the running sums that become an epoch's row in the history."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.errors import RecipeError, RunError
from sightline.structures.evidence import Batch, Evidence, compute_probabilities, join_logits, to_channels_last
from sightline.structures.protocols import GuidanceConfig, Means, Term, TermLike, find_learned_part
from sightline.training.engine import compute_gradients, gather_batch
from sightline.training.recipe import Recipe


class DictOutput(nn.Module):
    """A network whose forward returns a dict of tensors, which Fabric can convert (it refuses frozen dataclasses)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits, and maps, window and extras where there are some."""
        return convert_evidence(self.network(images))


def convert_evidence(evidence: Evidence) -> dict[str, Tensor]:
    """All tensors of an evidence by name."""
    named = {"logits": evidence.logits, "maps": evidence.maps, "window": evidence.window, **evidence.extras}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


# running sums of what is a sum of means, by name: of each mean the total, and over how many
Totals = dict[str, list[list[float]]]


def add_means(totals: Totals, name: str, means: Means) -> None:
    """Add a batch's means to running sums."""
    kept = totals.setdefault(name, [])
    kept.extend([0.0, 0] for _ in range(len(means) - len(kept)))
    for total, (mean, count) in zip(kept, means, strict=False):
        if count:
            total[0] += mean * count
            total[1] += count


def add_parts(totals: Totals, term: TermLike) -> None:
    """Add the parts of a batch's term to running sums."""
    for name, part in term.parts.items():
        add_means(totals, name, term.means_of_parts.get(name, ((part, term.images),)))


def join_means(totals: Totals) -> dict[str, float]:
    """What each name is over all batches, as if they were one; nothing under those that no image counted for."""
    return {
        name: sum(total / count for total, count in means if count)
        for name, means in totals.items()
        if any(count for _, count in means)
    }


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
    cpu_seconds: float = 0.0
    parts: Totals = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take parts as earlier versions kept them: totals over all images."""
        read: dict[str, Any] = dict(self.parts)
        self.parts = {n: total if isinstance(total, list) else [[total, self.images]] for n, total in read.items()}


@dataclass
class Progress:
    """What the state file says of how far a training is."""

    step: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf
    mined: dict[str, list[float | None]] = field(default_factory=dict)


def run_training_step(
    fabric: Fabric,
    plain: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    aim: TrainingObjective,
    at: Progress,
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
    # kept features have no grid of their own
    grid = batch.images.shape[2:] or batch.frames[0].shape
    out = plain(to_channels_last(batch.images))
    out["logits"] = out["logits"].to(torch.promote_types(out["logits"].dtype, torch.float32))
    out |= aim.explain_batch(batch)
    if fabric.world_size > 1:
        out, batch = gather_batch(fabric, out, batch)
    if recipe.join_views != "none" and batch.studies is not None:
        out["logits"] = join_logits(out["logits"], batch.studies, recipe.join_views, aim.normal)
    if aim.listener is not None:
        aim.listener(out)
    aimed = aim(out, batch, at.history)
    loss = main = aimed.value
    if recipe.guidance is not None and recipe.weight > 0.0:
        # a penalty without regions still wants to know the input grid
        targets = batch.images.new_zeros(len(batch), 1, *grid) if batch.targets is None else batch.targets
        term = _compute_guidance(recipe.guidance, out, targets, batch)
        released = 1.0 if recipe.release is None else recipe.release.factor(at.step, aim.steps)
        loss = main + recipe.weight * released * term.value
        # images without a region count for nothing, also in the log
        sums.guidance += float(term.value.detach()) * term.images
        sums.excess += (float(term.value.detach()) - term.floor) * term.images
        sums.guided += term.images
    optimizer.zero_grad(set_to_none=True)
    if fabric.world_size > 1:
        compute_gradients(fabric, loss, [p for p in plain.parameters() if p.requires_grad])
    else:
        fabric.backward(loss)
    if recipe.optimiser.clip_value is not None:
        fabric.clip_gradients(plain, optimizer, clip_val=recipe.optimiser.clip_value)
    optimizer.step()
    value = float(loss.detach())
    sums.images += len(batch)
    sums.loss += value * len(batch)
    sums.objective += float(main.detach()) * len(batch)
    sums.correct += int((out["logits"].detach().argmax(dim=1) == batch.labels).sum())
    add_parts(sums.parts, aimed)
    return value


def _compute_guidance(guidance: GuidanceConfig, out: Mapping[str, Tensor], targets: Tensor, batch: Batch) -> TermLike:
    """The guidance of the maps, and as much of those of a second depth (Lee 2015), where there are some."""
    term = guidance(out["maps"], targets, batch.guided, batch.labels)
    if "deep_maps" not in out:
        return term
    deep = guidance(out["deep_maps"], targets, batch.guided, batch.labels)
    return Term(term.value + deep.value, term.images, term.floor + deep.floor)


def build_epoch_row(epoch: int, at: Progress, recipe: Recipe, steps: int, steps_per_epoch: int) -> dict[str, Any]:
    """An epoch's training columns of the history."""
    sums, n = at.sums, max(1, at.sums.images)
    where = (max(0, at.step - 1), steps, steps_per_epoch, at.history)
    return {
        "epoch": epoch + 1,
        "step": at.step,
        "rate": recipe.schedule.rate(*where),
        **{f"rate of {start.rstrip('.')}": rate for start, rate in recipe.rates.own(*where).items()},
        "images": sums.images,
        "loss": sums.loss / n,
        ("cross_entropy" if recipe.objective is None else "objective"): sums.objective / n,
        "accuracy": sums.correct / n if recipe.classifies else None,
        **join_means(sums.parts),
        "guided_images": sums.guided,
        "guidance": sums.guidance / sums.guided if sums.guided else None,
        "guidance_excess": sums.excess / sums.guided if sums.guided else None,
        "seconds": round(sums.seconds, 3),
        "cpu_seconds": round(sums.cpu_seconds, 3),
    }


# parameters of an objective are trained, averaged and saved with the network's, under this name
LEARNED = "objective"


class TrainingObjective:
    """The objective of a recipe, joined to the network it trains.

    An objective with parameters of its own (learned weights of its parts, Zhu 2022, equation 11) becomes a part of the
    network, so that the optimiser, the state file and the average of the weights hold them too; they are left out of
    the weights that are kept (`split_learned_weights`).

    Args:
        recipe: what is trained.
        network: the network, before the optimiser is built.
        weights: of the classes, [k].
        normal: position of the class without a finding, which joined views are evidence against, or None.

    Raises:
        RecipeError: the network already has a part of that name.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, weights: Tensor, normal: int | None = None) -> None:
        self.recipe = recipe
        self.network = network
        self.weights = weights
        self.normal = normal
        self.objective: Any = recipe.objective
        build = find_learned_part(recipe.objective)
        if build is not None:
            if hasattr(network, LEARNED):
                raise RecipeError(f"The network already has a part called {LEARNED!r}.", "Rename that part.")
            self.objective = build()
            network.add_module(LEARNED, self.objective)
        # of the whole training, which the loop tells
        self.steps = 1
        # is told what the network says of each whole training batch
        self.listener: Callable[[Mapping[str, Tensor]], None] | None = None
        self.explainer = None if recipe.objective is None else recipe.objective.explainer

    def to(self, device: torch.device) -> TrainingObjective:
        """The same with the class weights on a device."""
        self.weights = self.weights.to(device)
        return self

    def explain_batch(self, batch: Batch) -> dict[str, Tensor]:
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
    ) -> TermLike:
        """The term of a batch; `even`: without class weights."""
        weights = torch.ones_like(self.weights) if even else self.weights
        if self.recipe.join_views != "none" and batch.studies is not None:
            return Term(*compute_study_loss(out["logits"], batch.labels, batch.studies, weights))
        if self.objective is None:
            losses = F.cross_entropy(out["logits"], batch.labels, reduction="none")
            return Term((losses * weights[batch.labels]).mean(), len(batch))
        term: TermLike = self.objective(out, batch, weights, history)
        return term


def compute_study_loss(joined: Tensor, labels: Tensor, studies: Tensor, class_weights: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy of studies, each counted once however many views it has, and how many they are.

    Args:
        joined: what `join_logits` made, [b, k].
        labels: int64 [b], the same for all views of a study.
        studies: int64 [b].
        class_weights: [k].
    """
    _, index, views = torch.unique(studies, return_inverse=True, return_counts=True)
    losses = F.cross_entropy(joined, labels, reduction="none") * class_weights[labels] / views[index]
    return losses.sum() / len(views), len(views)


def read_finding_answers(out: Mapping[str, Tensor], normal: int, by: str, *, independent: bool) -> NDArray[np.float64]:
    """How strongly a network says that there is a finding, [b]: its probability, or the highest cell (`peak`).

    Args:
        out: what the network says, by name.
        normal: position of the class without a finding.
        by: `answer` or `peak`.
        independent: each class is judged by itself.

    Raises:
        RunError: the network has no class maps to have a peak.
    """
    others = [k for k in range(out["logits"].shape[1]) if k != normal]
    if by == "peak":
        if "maps" not in out:
            raise RunError("This network has no class maps to mine by.", "Set the mining's `by` to answer.")
        highest = out["maps"].detach()[:, others].flatten(1).amax(dim=1)
        return np.asarray(highest.double().cpu().numpy())
    probabilities = compute_probabilities(out["logits"].detach().cpu(), independent=independent)
    answers = probabilities[:, others].max(axis=1) if independent else 1.0 - probabilities[:, normal]
    return np.asarray(answers)


def split_learned_weights(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's weights, and those of an objective under their own names."""
    start = f"{LEARNED}."
    network = {name: tensor for name, tensor in weights.items() if not name.startswith(start)}
    learned = {name.removeprefix(start): tensor for name, tensor in weights.items() if name.startswith(start)}
    return network, learned
