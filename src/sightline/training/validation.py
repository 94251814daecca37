"""A network on the validation cases, once an epoch: loss with its parts, accuracy, AUC and F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from sightline.data.loader import CohortItems, iterate_test_batches
from sightline.errors import RunError
from sightline.structures.case import Cohort
from sightline.structures.evidence import compute_probabilities, forward_evidence, join_logits
from sightline.structures.protocols import needs_history
from sightline.training.checkpoint import swap_weights
from sightline.training.feature_cache import find_encoder
from sightline.training.step import Totals, TrainingObjective, add_means, add_parts, convert_evidence, join_means

NOTHING: Mapping[str, float | None] = {"val_loss": None, "val_accuracy": None, "val_auc": None, "val_f1": None}


def validate(
    aim: TrainingObjective,
    cohort: Cohort,
    device: torch.device,
    *,
    ema_weights: Mapping[str, Tensor] | None = None,
    workers: int = 0,
    history: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """An epoch's validation columns; all None where there are no validation cases, or they are trained on.

    Args:
        aim: what is minimised, with the network.
        cohort: as the recipe sees it.
        device: where the network is.
        ema_weights: weights looked at instead of the network's own.
        workers: loader processes.
        history: rows of the epochs before this one, for objectives that heed them.

    Raises:
        RunError: the network says something that is no number.
    """
    recipe = aim.recipe
    validation = cohort.split("val")
    if len(validation) == 0 or "val" in recipe.train_on:
        return dict(NOTHING)
    with swap_weights(aim.network, ema_weights):
        heeded = history if needs_history(recipe.objective) else ()
        output = _run_validation(aim, validation, device, workers, heeded)
    row = {**NOTHING, "val_loss": output.loss, **{f"val_{name}": mean for name, mean in output.parts.items()}}
    if not recipe.classifies:
        return row
    if not bool(output.logits.isfinite().all()):
        raise RunError(
            f"{recipe.title} has no finite output on the validation images: the training diverged.",
            "Lower the learning rate or the weight of what is added to the cross-entropy.",
        )
    return row | _compute_scores(output, compute_probabilities(output.logits, independent=recipe.independent))


@dataclass(frozen=True)
class _ValidationOutput:
    """Logits [n, k] and labels [n] of validation images, or studies, and means over them: the loss and its parts."""

    logits: Tensor
    labels: Tensor
    loss: float | None
    parts: Mapping[str, float]


def _run_validation(
    aim: TrainingObjective,
    validation: Cohort,
    device: torch.device,
    workers: int,
    history: Sequence[Mapping[str, Any]],
) -> _ValidationOutput:
    recipe, network = aim.recipe, aim.network
    network.eval()
    wanted = recipe.regions if recipe.objective is not None and recipe.objective.needs_regions else None
    items = CohortItems(
        validation, recipe.view, wanted, boxes=recipe.needs_boxes, seed=recipe.seed, encoder=find_encoder(network)
    )
    logits, labels, studies = [], [], []
    # as if all images were one batch, however they come
    loss: Totals = {}
    parts: Totals = {}
    for batch in iterate_test_batches(items, batch_size=max(16, recipe.batch_size), workers=workers):
        there = batch.to(device)
        out = convert_evidence(forward_evidence(network, batch.images, device))
        out |= {name: tensor.detach() for name, tensor in aim.explain_batch(there).items()}
        logits.append(out["logits"])
        labels.append(batch.labels)
        if recipe.join_views != "none" and batch.studies is not None:
            studies.append(batch.studies)
            continue
        with torch.no_grad():
            on_device = {name: tensor.to(device) for name, tensor in out.items()}
            term = aim(on_device, there, history, even=True)
        add_means(loss, "loss", term.means or ((float(term.value), term.images),))
        add_parts(parts, term)
    if studies:
        return _judge_studies(aim, torch.cat(logits), torch.cat(labels), torch.cat(studies))
    return _ValidationOutput(torch.cat(logits), torch.cat(labels), join_means(loss).get("loss"), join_means(parts))


def _judge_studies(aim: TrainingObjective, logits: Tensor, labels: Tensor, studies: Tensor) -> _ValidationOutput:
    """One row a study; its views may have come in several batches."""
    joined = join_logits(logits.double(), studies, aim.recipe.join_views, aim.normal)
    seen: dict[int, int] = {}
    for place, study in enumerate(studies.tolist()):
        seen.setdefault(study, place)
    first = torch.tensor(list(seen.values()), dtype=torch.int64)
    loss = float(cross_entropy(joined[first], labels[first]))
    return _ValidationOutput(joined[first], labels[first], loss, {})


def _compute_scores(output: _ValidationOutput, probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Accuracy, F1 and, where every class is there, AUC: of the second of two classes; of more, means over classes."""
    from sklearn.metrics import f1_score, roc_auc_score

    labels, called, classes = output.labels, output.logits.argmax(dim=1), probabilities.shape[1]
    average = "binary" if classes == 2 else "macro"
    scores = {
        "val_accuracy": float((called == labels).float().mean()),
        "val_f1": float(f1_score(labels, called, average=average, zero_division=0.0)),
    }
    if len(torch.unique(labels)) == classes:
        positives = [1] if classes == 2 else range(classes)
        areas = [roc_auc_score(labels.numpy() == k, probabilities[:, k]) for k in positives]
        scores["val_auc"] = float(np.mean(areas))
    return scores
