"""What a guidance loss returns, and how it joins the classification loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from sightline.errors import RecipeError


@dataclass(frozen=True)
class Term:
    """A loss term with what is needed to read it.

    Attributes:
        value: scalar, differentiable; exactly 0 when nothing is guided.
        images: images that were counted.
        floor: the least value the term can have for these targets; `value - floor` compares across resolutions.
        parts: what the value is made of, by name, for the log.
    """

    value: Tensor
    images: int
    floor: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def excess(self) -> float:
        """How far the term is above its floor."""
        return float(self.value.detach()) - self.floor


class Guidance(Protocol):
    """A loss on class maps."""

    def __call__(self, maps: Tensor, targets: Tensor, guided: Tensor) -> Term:
        """The term for maps [b, k, *m], targets [b, k or 1, *s] (0 or not) and guided [b, k] (bool)."""
        ...


@dataclass(frozen=True)
class FixedWeight:
    """total = classification + weight * guidance (lambda of Liao 2022, eq. 6)."""

    weight: float = 0.1

    def __post_init__(self) -> None:
        """Refuse weights that are no finite number of at least 0."""
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise RecipeError(f"A guidance weight is a finite number of at least 0; got {self.weight}.")

    def __call__(self, classification: Tensor, term: Term | None) -> Tensor:
        """The scalar to minimise; without a term, or at weight 0, exactly the classification loss."""
        if term is None or self.weight == 0:
            return classification
        return classification + self.weight * term.value
