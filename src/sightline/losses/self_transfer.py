"""Self-transfer learning: a localisation branch that shares its features with the classifier (Hwang and Kim 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from sightline.errors import RecipeError
from sightline.structures.evidence import Batch
from sightline.structures.protocols import Term


@dataclass(frozen=True)
class SelfTransferLoss:
    """(1 - alpha) CE(classification branch) + alpha CE(localisation branch) (Jimenez-Sanchez 2018, eq. 6).

    Alpha begins small; "when reaching convergence, the value of alpha is complemented, i.e. set to 1 - alpha". The
    paper gives no rule for convergence and sweeps alpha over {0, 0.3, 0.6, 1}, where complementing 0 or 1 would train
    the other branch alone: those two stay constant. With which alpha validation is measured after the switch the paper
    does not say either.

    Attributes:
        alpha: share of the localisation branch at the beginning.
        switch: `plateau` complements alpha once, when the validation loss has not fallen for `patience` epochs (the
            training loss where there is no validation); `never` keeps it.
        patience: epochs without a new best that count as convergence.
        validation: alpha of the validation loss: the `first` throughout, because the least loss is looked for among
            epochs on both sides of the switch and has to mean the same in all of them; or the `current` one, that of
            the epoch itself, as the training loss has it.
    """

    alpha: float = 0.3
    switch: Literal["never", "plateau"] = "plateau"
    patience: int = 3
    validation: Literal["first", "current"] = field(default="first", metadata={"since": "0.2"})

    needs_boxes = False
    needs_regions = False
    explainer = None
    independent = False

    def __post_init__(self) -> None:
        """Refuse shares outside 0..1."""
        if not (math.isfinite(self.alpha) and 0.0 <= self.alpha <= 1.0):
            raise RecipeError(f"alpha is a share from 0 to 1; got {self.alpha}.", "The paper tries 0, 0.3, 0.6 and 1.")
        if self.patience < 1:
            raise RecipeError(f"patience is a number of epochs of at least 1; got {self.patience}.")

    @property
    def needs_history(self) -> bool:
        """Whether the validation loss of an epoch depends on the epochs before it."""
        return self.validation == "current"

    def alpha_after(self, history: Sequence[Mapping[str, Any]]) -> float:
        """Alpha in the epoch that follows those in `history`: a function of the history alone, so runs resume."""
        if self.switch == "never" or self.alpha in (0.0, 1.0):
            return self.alpha
        best, since = math.inf, 0
        for row in history:
            loss = row.get("val_loss")
            value = float(row["loss"] if loss is None else loss)
            best, since = (value, 0) if value < best else (best, since + 1)
            if since >= self.patience:
                return 1.0 - self.alpha
        return self.alpha

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """The loss of a batch.

        Args:
            out: `logits` and `localiser_logits`, both [b, k].
            batch: its labels [b].
            class_weights: float [k].
            history: rows of the epochs before this one.

        Raises:
            RecipeError: the network has no localisation branch.
        """
        if "localiser_logits" not in out:
            raise RecipeError("This network has no localisation branch.", "Use the model self_transfer_model.")
        alpha = self.alpha_after(history)
        weights = class_weights[batch.labels]
        classification = (functional.cross_entropy(out["logits"], batch.labels, reduction="none") * weights).mean()
        localisation = (
            functional.cross_entropy(out["localiser_logits"].float(), batch.labels, reduction="none") * weights
        ).mean()
        parts = {
            "alpha": alpha,
            "classification": float(classification.detach()),
            "localisation": float(localisation.detach()),
        }
        return Term((1.0 - alpha) * classification + alpha * localisation, len(batch), 0.0, parts)
