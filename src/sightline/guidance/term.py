"""What a guidance loss returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


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
