"""Contrast with the nearest normal film: what a picture with a finding shares with a normal one is not the finding."""

from __future__ import annotations

import math
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
class NormalContrast:
    """Cross-entropy, and a penalty where the map rises at places that the nearest normal picture of the batch has too.

    For a place to look at, image labels alone leave open which part of a picture with a finding speaks for it. As in
    anomaly detection by nearest normal images (SPADE, Cohen and Hoshen 2020), each picture with the finding is held
    beside the picture without it whose mean features are most alike, and each of its cells beside the most similar cell
    there (cosine). Of the cells that have the closest look-alikes, the map may not be higher than at the look-alike:

        mean over these cells of max(0, M(cell) - M(look-alike))

    The look-alike's side is held fixed; the cross-entropy lowers it. Pictures need not be aligned. In evaluation there
    is no contrast: which pictures share a batch means nothing there, and the loss is the cross-entropy.

    Attributes:
        weight: of the penalty.
        common: share of the cells, those with the closest look-alikes, that are taken for shared with the normal film.
        grid: cells a side that features (their mean) and map (its maximum) are brought to before they are compared.
        column: the class whose map it is; pictures of all other classes count as normal films.

    Example:
        >>> NormalContrast(weight=0.5).common
        0.5
    """

    weight: float = 1.0
    common: float = 0.5
    grid: int = 32
    column: int = 1

    needs_boxes = False
    needs_regions = False
    needs_features = True
    explainer = None
    independent = False

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not (0.0 <= self.weight < math.inf and 0.0 < self.common <= 1.0 and self.grid >= 2 and self.column >= 0):
            raise RecipeError(
                f"NormalContrast needs weight >= 0, common in (0, 1], grid >= 2 and column >= 0; got {self.weight}, "
                f"{self.common}, {self.grid} and {self.column}.",
                "Its defaults are a start.",
            )

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """The loss of a batch.

        Args:
            out: `logits` [b, k]; in training `maps` [b, k, h, w] and `features` [b, c, h, w], what they are made of.
            batch: its labels [b].
            class_weights: float [k].
            history: not used.

        Raises:
            RecipeError: the class has no map.
        """
        losses = functional.cross_entropy(out["logits"], batch.labels, reduction="none")
        plain = (losses * class_weights[batch.labels]).mean()
        if "features" not in out:
            return Term(plain, len(batch))
        if not self.column < out["maps"].shape[1]:
            raise RecipeError(
                f"NormalContrast names class {self.column}, but there are {out['maps'].shape[1]}.", "Count from 0."
            )
        with torch.autocast(out["maps"].device.type, enabled=False):
            contrast = self._compute_contrast(
                out["features"].detach().float(), out["maps"][:, self.column].float(), batch.labels
            )
        parts = {"classification": float(plain.detach()), "contrast": float(contrast.detach())}
        return Term(plain + self.weight * contrast, len(batch), 0.0, parts)

    def _compute_contrast(self, features: Tensor, maps: Tensor, labels: Tensor) -> Tensor:
        """Mean penalty over the pictures with the finding; 0 where they or normal ones are missing."""
        size = (min(self.grid, maps.shape[1]), min(self.grid, maps.shape[2]))
        cells = functional.adaptive_avg_pool2d(features, size).flatten(2)
        heights = functional.adaptive_max_pool2d(maps[:, None], size).flatten(1)
        found = torch.nonzero(labels == self.column).flatten()
        normal = torch.nonzero(labels != self.column).flatten()
        if not len(found) or not len(normal):
            return maps.sum() * 0.0
        pictures = functional.normalize(cells.mean(dim=2), dim=1)
        cells = functional.normalize(cells, dim=1)
        nearest = normal[(pictures[found] @ pictures[normal].T).argmax(dim=1)]
        shared = max(1, round(self.common * cells.shape[2]))
        penalties = []
        for one, other in zip(found.tolist(), nearest.tolist(), strict=True):
            alike, place = (cells[one].T @ cells[other]).max(dim=1)
            closest = alike.topk(shared).indices
            # what the normal film says there is fixed: it is lowered by its own label
            over = heights[one, closest] - heights[other, place[closest]].detach()
            penalties.append(functional.relu(over).mean())
        return torch.stack(penalties).mean()
