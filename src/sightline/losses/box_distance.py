"""How far a predicted box is from the expert's, as a loss for supervised localisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sightline.errors import RecipeError
from sightline.structures.evidence import Batch
from sightline.structures.protocols import Term


@dataclass(frozen=True)
class BoxDistance:
    """1/2 ||p - p_hat||^2, the mean over images that have a box (Jimenez-Sanchez 2018, eq. 3).

    The paper does not say in which units p is. With its learning rate of 1e-8 it can only be pixels: for an input of
    n px the loss and its gradient are n^2 times those in fractions, in the same direction.

    Attributes:
        units: `fraction` of the image grid, or its `pixel`s (as the printed learning rate asks for).
        square: compare (centre row, centre column, scale), scale the mean of the sides, as printed; else
            the four numbers of the box.
    """

    units: Literal["fraction", "pixel"] = "fraction"
    square: bool = True

    needs_boxes = True
    needs_regions = False
    explainer = None
    independent = False

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """The loss of a batch; images without a box count for nothing.

        Args:
            out: `box` [b, 4]: centre row, centre column, height, width as fractions of the image grid.
            batch: its `boxes` [b, 4] in the same terms, NaN where there is none.
            class_weights: float [k], by which images count.
            history: not used.

        Raises:
            RecipeError: the network says no box, or the batch carries none.
        """
        if "box" not in out or batch.boxes is None:
            raise RecipeError("Box distance needs a network that predicts boxes.", "Use the model box_regression.")
        having = torch.isfinite(batch.boxes).all(dim=1)
        if not bool(having.any()):
            return Term(out["box"].sum() * 0.0, 0, 0.0)
        predicted, true = out["box"][having].float(), batch.boxes[having]
        scale = predicted.new_ones(4)
        if self.units == "pixel":
            height, width = batch.images.shape[-2:]
            scale = predicted.new_tensor([height, width, height, width], dtype=torch.float32)
        predicted, true = predicted * scale, true * scale
        if self.square:
            predicted, true = _compute_centre_and_scale(predicted), _compute_centre_and_scale(true)
        distance = 0.5 * (predicted - true).square().sum(dim=1)
        return Term((distance * class_weights[batch.labels[having]]).mean(), int(having.sum()), 0.0)


def _compute_centre_and_scale(boxes: Tensor) -> Tensor:
    """(t_r, t_c, s) [b, 3]: s is the mean of the sides, which for a square is its side."""
    return torch.cat([boxes[:, :2], boxes[:, 2:].mean(dim=1, keepdim=True)], dim=1)
