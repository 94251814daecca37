"""What a guidance loss returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from sightline.structures.evidence import Batch, Evidence


class Explains(Protocol):
    """An explainer: maps [b, n, *m] of a model for n classes of each image."""

    def __call__(self, model: nn.Module, batch: Batch | Tensor, classes: Tensor) -> Tensor: ...  # noqa: D102


class TermLike(Protocol):
    """What a loss returns: its value, how many images it counted, the least value it could take, and its parts."""

    @property
    def value(self) -> Tensor: ...  # noqa: D102
    @property
    def images(self) -> int: ...  # noqa: D102
    @property
    def floor(self) -> float: ...  # noqa: D102
    @property
    def parts(self) -> Mapping[str, float]: ...  # noqa: D102


class ModelConfig(Protocol):
    """Settings of a network; `forward(images [b, c, *s] in 0..1)` of what it builds returns Evidence.

    A config whose networks only localise says so by `classifies = False`.
    """

    def build(self, n_classes: int) -> nn.Module: ...  # noqa: D102

    def without_weights(self) -> ModelConfig:
        """The same architecture with random weights: what to build before trained weights are loaded."""
        ...


class GuidanceConfig(Protocol):
    """Settings of a guidance loss: called with maps [b, k, *m], targets [b, k or 1, *s], guided [b, k] and labels [b].

    `needs_regions` is False for penalties that are the same on every image.
    """

    @property
    def needs_regions(self) -> bool: ...  # noqa: D102

    def __call__(  # noqa: D102
        self, maps: Tensor, targets: Tensor, guided: Tensor, labels: Tensor | None = None
    ) -> TermLike: ...


class ObjectiveConfig(Protocol):
    """Settings of what is minimised instead of the cross-entropy: a function of all that a network says.

    `out` holds `logits`, `maps`, `window` and the extras of an Evidence by name; `history` the rows of the epochs
    before this one, empty on validation.

    `needs_boxes` asks the loader for `Batch.boxes`, `needs_regions` for targets. An `explainer` adds `explained` to
    `out`: its map of the image's own class, [b, 1, *m], through which the weights are trained. Classes of an
    `independent` objective are judged each by itself (a sigmoid each). An objective with parameters of its own has a
    method `build() -> nn.Module`, and the module is called instead.
    """

    @property
    def needs_boxes(self) -> bool: ...  # noqa: D102
    @property
    def needs_regions(self) -> bool: ...  # noqa: D102
    @property
    def explainer(self) -> Any: ...  # noqa: D102
    @property
    def independent(self) -> bool: ...  # noqa: D102

    def __call__(  # noqa: D102
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> TermLike: ...


Model = Callable[[Tensor], Evidence]


class Explainer(Protocol):
    """A map for each of some classes of each image.

    The prediction is explained as it is made: in evaluation mode, in training too (unless the explainer has an option
    that says otherwise). Modes, weights, stored gradients, statistics and hooks are left as they were.
    """

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m].

        Args:
            model: gives Evidence for images [b, c, *s].
            batch: the images, or the batch they are in.
            classes: n class indices for all images, or int [b, n] for each.
            create_graph: keep the maps differentiable with respect to the weights.
        """
        ...


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

    def __call__(self, maps: Tensor, targets: Tensor, guided: Tensor, labels: Tensor | None = None) -> Term:
        """The term for maps [b, k, *m], targets [b, k or 1, *s] (0 or not), guided [b, k] (bool) and labels [b]."""
        ...
