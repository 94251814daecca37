"""What may be passed where: protocols of networks, losses, objectives and explainers, and what some of them may have.

A part that only some have (a network's way to its logits, a schedule that stops) is asked for here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from sightline.structures.evidence import Batch, Evidence

# a sum of means: each, and how many images (or maps) it is a mean over
Means = tuple[tuple[float, int], ...]


class TermLike(Protocol):
    """What a loss returns: its value, the number of images counted, its minimum, its parts, and the means in them."""

    @property
    def value(self) -> Tensor: ...  # noqa: D102
    @property
    def images(self) -> int: ...  # noqa: D102
    @property
    def floor(self) -> float: ...  # noqa: D102
    @property
    def parts(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def means(self) -> Means: ...  # noqa: D102
    @property
    def means_of_parts(self) -> Mapping[str, Means]: ...  # noqa: D102


class ModelConfig(Protocol):
    """Settings of a network; `forward(images [b, c, *s] in 0..1)` of what it builds returns Evidence.

    For networks that only localise, `classifies` is False.
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
    """Settings of a training objective in place of the cross-entropy: a function of a network's whole output.

    `out` holds `logits`, `maps`, `window` and the extras of an Evidence by name; `history` the rows of the epochs
    before this one, empty on validation.

    `needs_boxes` asks the loader for `Batch.boxes`, `needs_regions` for targets. An `explainer` adds `explained` to
    `out`: its map of the image's own class, [b, 1, *m], through which the weights are trained. An
    `independent` objective has a sigmoid per class instead of a softmax. An objective with parameters of its own has a
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
    """Makes a map for each requested class of each image.

    The network runs in evaluation mode, also during training (unless the explainer has an option for this). Modes,
    weights, stored gradients, statistics and hooks are left unchanged.
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
    """A loss and what is needed to interpret it.

    Attributes:
        value: scalar, differentiable; exactly 0 if nothing is guided.
        images: number of images counted.
        floor: the minimum for these targets; `value - floor` can be compared across resolutions.
        parts: components of the value by name, for the log.
        means: what the value is the sum of, so that several batches can be taken together: means, each with how many
            images (or maps) it is over. Empty: the value is one mean over `images`.
        means_of_parts: the same of parts; those that are not named are means over `images`.
    """

    value: Tensor
    images: int
    floor: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    means: Means = ()
    means_of_parts: Mapping[str, Means] = field(default_factory=dict)

    @property
    def excess(self) -> float:
        """How far the term is above its floor."""
        return float(self.value.detach()) - self.floor


class Guidance(Protocol):
    """A loss on class maps."""

    def __call__(self, maps: Tensor, targets: Tensor, guided: Tensor, labels: Tensor | None = None) -> Term:
        """The term for maps [b, k, *m], targets [b, k or 1, *s] (0 or not), guided [b, k] (bool) and labels [b]."""
        ...


def predicts_classes(model: ModelConfig) -> bool:
    """Whether the networks of a config say classes, or only places (`classifies = False`)."""
    return bool(getattr(model, "classifies", True))


def has_deep_maps(model: ModelConfig) -> bool:
    """Whether networks of a config have maps of a second depth to be guided in training (`deep_maps`)."""
    return bool(getattr(model, "deep_maps", False))


def has_features(model: ModelConfig) -> bool:
    """Whether networks of a config give in training what their maps are computed from (`gives_features`)."""
    return bool(getattr(model, "gives_features", False))


def needs_features(objective: ObjectiveConfig | None) -> bool:
    """Whether an objective compares places by what the maps are computed from (`needs_features`)."""
    return bool(getattr(objective, "needs_features", False))


def find_averaged_answers(model: ModelConfig) -> bool | None:
    """Whether networks of a config average sigmoid (`independent`) or softmax answers; None where they average none."""
    independent: bool | None = getattr(model, "independent", None)
    return independent


def tell_judging(independent: bool) -> str:
    """The two kinds of answers in words; answers of both kinds have no common mean."""
    return "each class by itself (sigmoid)" if independent else "all classes against each other (softmax)"


def accepts_soft_targets(loss: GuidanceConfig | ObjectiveConfig | None) -> bool:
    """Whether a loss takes targets between 0 and 1 as such (`takes_shares`), or looks at none."""
    return loss is None or not loss.needs_regions or bool(getattr(loss, "takes_shares", False))


def needs_history(objective: ObjectiveConfig | None) -> bool:
    """Whether an objective measures validation by the epochs before it (`needs_history`), or always alike."""
    return bool(getattr(objective, "needs_history", False))


def find_learned_part(objective: ObjectiveConfig | None) -> Callable[[], nn.Module] | None:
    """What makes an objective with parameters of its own (`build`), or None."""
    build: Callable[[], nn.Module] | None = getattr(objective, "build", None)
    return build


def find_heatmap(objective: ObjectiveConfig | None) -> Any | None:
    """The explainer whose maps an objective is about (`heatmap`), also where it is trained without them, or None."""
    return getattr(objective, "heatmap", None)


def find_stopping_rule(schedule: Any) -> Callable[[Sequence[Mapping[str, Any]]], bool] | None:
    """What says from the history that a training ends early (`stops`), or None."""
    stops: Callable[[Sequence[Mapping[str, Any]]], bool] | None = getattr(schedule, "stops", None)
    return stops


def find_watched_column(schedule: Any) -> str | None:
    """The column of the history that a schedule watches (`watch`), where it waits for it (`patience`), or None."""
    column: str | None = getattr(schedule, "watch", None)
    return None if getattr(schedule, "patience", None) is None else column


def find_scorer(network: nn.Module) -> Callable[[Tensor], Any]:
    """The way from images to logits alone (`classify`), where a network has one; a decoder is left out of it."""
    way: Callable[[Tensor], Any] = getattr(network, "classify", network)
    return way


def accepts_features(explainer: Any) -> bool:
    """Whether an explainer also explains kept features of frozen stages in place of the image (`takes_features`)."""
    return explainer is None or bool(getattr(explainer, "takes_features", False))


def find_rule(explainer: Any) -> Any:
    """By which rule an explainer goes back through activations (`rule`), where it says so."""
    return getattr(explainer, "rule", None)


def find_inner_explainer(explainer: Any) -> Any | None:
    """The explainer that another one averages over (`explainer`), or None."""
    inner = getattr(explainer, "explainer", None)
    return inner if callable(inner) else None
