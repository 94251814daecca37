"""The loss of transformers that sample windows: score-function gradients (REINFORCE) for where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sightline.errors import RecipeError
from sightline.structures.evidence import Batch
from sightline.structures.protocols import Term


@dataclass(frozen=True)
class SampledWindowLoss:
    """The cross-entropy, plus a term whose gradient is that of the expected loss of a sampled window.

    With losses l of windows w sampled around the one that the localisation network predicts, the gradient of E[l] is
    E[l grad log p(w)] (Williams 1992, REINFORCE). They are sampled in pairs on both sides (mirrored sampling;
    Salimans et al. 2017, Evolution Strategies), so that whatever is the same on both sides falls out, and
    a baseline with it: taking the image's mean loss off keeps the value near 0 and leaves the gradient as it is.

    Attributes:
        weight: of the term.
        after: epochs in which the classifier trains alone, before the localisation network learns.
    """

    weight: float = 1.0
    after: int = 0

    needs_boxes = False
    needs_regions = False
    explainer = None
    independent = False

    def __post_init__(self) -> None:
        """Refuse weights and epochs that are none."""
        if not self.weight > 0.0 or self.after < 0:
            raise RecipeError(f"Sampled windows need weight > 0 and after >= 0; got {self.weight}, {self.after}.")

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """The loss of a batch; in evaluation, where nothing is sampled, the cross-entropy.

        Args:
            out: `logits` [b, k] and `box` [b, 4]; in training also `roaming_logits` [b, k], `tried_logits` [b, t, k],
                which need no gradient, and `tried_log_density` [b, t].
            batch: its labels [b].
            class_weights: float [k].
            history: rows of the epochs before this one.

        Raises:
            RecipeError: the network predicts no window.
        """
        if "box" not in out:
            raise RecipeError("This network predicts no window.", "Use a sampled_window_transformer.")
        weights = class_weights[batch.labels]

        def compute_entropy(logits: Tensor) -> Tensor:
            return functional.cross_entropy(logits.float(), batch.labels, reduction="none")

        value = (compute_entropy(out["logits"]) * weights).mean()
        parts = {"window_scale": float(out["box"][:, 2:].detach().mean())}
        if "tried_logits" in out:
            value = (value + (compute_entropy(out["roaming_logits"]) * weights).mean()) / 2.0
            losses = torch.stack(
                [compute_entropy(logits) for logits in out["tried_logits"].unbind(dim=1)], dim=1
            ).detach()
            parts["tried"] = float(losses.mean())
            if len(history) >= self.after:
                value = value + self.weight * (weights * compute_score_term(losses, out["tried_log_density"])).mean()
        return Term(value, len(batch), 0.0, parts)


def compute_score_term(losses: Tensor, log_density: Tensor) -> Tensor:
    """Per image [b], the mean over sampled windows of (loss - mean loss) log p, for both [b, t]."""
    worse_by = losses - losses.mean(dim=1, keepdim=True)
    return (worse_by.detach() * log_density).mean(dim=1)
