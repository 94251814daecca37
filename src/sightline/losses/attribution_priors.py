"""Attribution priors: reward a map's energy inside the mark, or penalise evidence outside of it.

Rao 2023 ("Studying how to efficiently and effectively guide models with explanations", ICCV), Ross 2017 ("Right for
the right reasons", IJCAI) and its form on Grad-CAM (Schramowski 2020, Nature Machine Intelligence).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, softplus

from sightline.errors import GeometryError, RecipeError
from sightline.losses.spatial_nll import check_shapes
from sightline.structures.evidence import Batch
from sightline.structures.protocols import Explainer, Term

Positive = Literal["relu", "softplus"]


@dataclass(frozen=True)
class MapEnergy:
    """Minus the share of a class map's positive evidence that lies inside the mark (Rao 2023, the energy loss).

    L = -mean over guided maps of EPG, EPG = sum(S A) / sum(A), A = max(M, 0): the energy-based pointing game (Wang
    2020, Score-CAM) as a loss. The evidence may be anywhere inside the mark, so coarse boxes are enough. S is the share
    of a cell that the mark covers, which equals the sum over pixels of a map enlarged by nearest neighbour.

    Attributes:
        positive: positive evidence: `relu` as published, or `softplus`, which also has a gradient for maps that are
            negative everywhere (as those of a network with `one_map` at first).

    Example:
        >>> import torch
        >>> maps, mark = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> maps[0, 1, 1, 1], mark[0, 0, 1, 1] = 3.0, 1.0
        >>> guided = torch.tensor([[False, True]])
        >>> MapEnergy()(maps, mark, guided).value  # all evidence lies inside
        tensor(-1.)
    """

    needs_regions: ClassVar[bool] = True
    takes_shares: ClassVar[bool] = True

    positive: Positive = "relu"

    def __post_init__(self) -> None:
        """Refuse an invalid word."""
        if self.positive not in ("relu", "softplus"):
            raise RecipeError(f"positive is relu or softplus; got {self.positive!r}.")

    def __call__(self, maps: Tensor, targets: Tensor, guided: Tensor, labels: Tensor | None = None) -> Term:
        """Compute the loss; its minimum is -1, all energy inside.

        Args:
            maps: class maps, [b, k, h, w].
            targets: [b, k or 1, *s], not 0 where marked, or shares.
            guided: bool [b, k].
            labels: not used.

        Returns:
            Term; guided maps without any positive evidence are left out.

        Raises:
            GeometryError: shapes do not fit, or maps do not have two axes.
        """
        check_shapes(maps, targets, guided)
        if maps.ndim != 4:
            raise GeometryError(f"MapEnergy guides maps of two axes; got {tuple(maps.shape)}.")
        guided, targets = guided.to(maps.device), targets.to(maps.device)
        with torch.autocast(maps.device.type, enabled=False):
            evidence = maps.to(torch.promote_types(maps.dtype, torch.float32))
            evidence = evidence.relu() if self.positive == "relu" else softplus(_move_low_maps_up(evidence))
            inside, alive = _compute_energy_inside(evidence, _compute_cover(targets, evidence).expand_as(evidence))
            counted = guided & alive
            shares = inside[counted]
            # with a graph, and exactly 0, where nothing is guided
            value = -shares.mean() if len(shares) else (evidence * 0.0).sum()
        images = int(counted.any(dim=1).sum())
        energy = float(-value.detach()) if images else 0.0
        return Term(value, images, -1.0 if images else 0.0, {"energy_inside": energy})


@dataclass(frozen=True)
class AttributionPrior:
    """The cross-entropy plus `weight` times a penalty on an explainer's map of each marked image's own class.

    `energy`: minus the share of the map's positive part inside the mark (Rao 2023). `outside`: the sum of the map's
    squares outside the mark. On the gradient of the summed log probabilities with respect to the image
    (`input_gradient` with `score` log_probabilities and `reduce` square_sum) `outside` is "right for the right reasons"
    (Ross 2017, equation 1: A is 1 outside the mark); on Grad-CAM it is the form of Schramowski 2020, and with `scale`
    max the RRR* of Rao 2023. Images without a mark only have the cross-entropy. Ross' third term, the weight decay, is
    left to the optimiser.

    Attributes:
        penalty: `energy` or `outside`.
        attribution: the explainer; it has to be differentiable (`input_gradient`, `grad_cam`).
        weight: of the penalty. Ross chooses it so that both terms are of similar size at first (1 to 1000 for
            `outside`).
        squared: whether `outside` squares the map; False if the explainer already does (`square_sum`).
        scale: `none`, or `max`: each map is divided by its highest absolute value first.

    Example:
        >>> import torch
        >>> from sightline.structures.evidence import Batch
        >>> mark, guided = torch.ones(1, 1, 4, 4), torch.tensor([[False, True]])
        >>> batch = Batch(torch.zeros(1, 1, 4, 4), torch.tensor([1]), mark, guided, frames=(), case_ids=("a",))
        >>> from sightline.explainers import GradCAM
        >>> out = {"logits": torch.zeros(1, 2), "explained": torch.ones(1, 1, 4, 4)}
        >>> prior = AttributionPrior(GradCAM(), weight=0.5)
        >>> prior(out, batch, torch.ones(2), ()).parts["energy_inside"]
        1.0
    """

    needs_boxes: ClassVar[bool] = False
    needs_regions: ClassVar[bool] = True
    takes_shares: ClassVar[bool] = True
    independent: ClassVar[bool] = False

    attribution: Explainer
    penalty: Literal["energy", "outside"] = "energy"
    weight: float = 1.0
    squared: bool = True
    scale: Literal["none", "max"] = "none"

    def __post_init__(self) -> None:
        """Refuse invalid words and numbers."""
        if self.penalty not in ("energy", "outside") or self.scale not in ("none", "max"):
            raise RecipeError(
                f"AttributionPrior's penalty is energy or outside, its scale none or max; got {self.penalty!r} and "
                f"{self.scale!r}."
            )
        if not self.weight >= 0.0:
            raise RecipeError(f"AttributionPrior.weight is 0 or more; got {self.weight}.")
        if "create_graph" not in inspect.signature(self.attribution).parameters:
            raise RecipeError(
                f"{type(self.attribution).__name__} is no explainer that can be trained through.",
                "Name one, e.g. grad_cam.",
            )

    @property
    def explainer(self) -> Explainer:
        """The explainer that the training calls."""
        return self.attribution

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """Compute the loss in float32 or wider.

        Args:
            out: `logits` [b, k] and `explained` [b, 1, h, w].
            batch: labels; targets [b, 1 or k, *s] and guided [b, k].
            class_weights: [k], of the cross-entropy.
            history: not used.

        Raises:
            GeometryError: the explainer's map is missing, or finer than the marks.
        """
        with torch.autocast(out["logits"].device.type, enabled=False):
            logits = out["logits"].to(torch.promote_types(out["logits"].dtype, torch.float32))
            losses = cross_entropy(logits, batch.labels, reduction="none")
            classification = (losses * class_weights[batch.labels]).mean()
            error, energy, maps = self._compute_penalty(out, batch)
            value = classification + self.weight * error
        parts = {"cross_entropy": float(classification.detach()), "map_error": float(error.detach())}
        parts |= {} if energy is None else {"energy_inside": energy}
        # the share of energy is a mean over the marked maps that have any, the rest over all images
        of_error = maps if self.penalty == "energy" else len(batch)
        return Term(
            value,
            len(batch),
            parts=parts,
            means=((parts["cross_entropy"], len(batch)), (self.weight * parts["map_error"], of_error)),
            means_of_parts={
                "map_error": ((parts["map_error"], of_error),),
                **({} if energy is None else {"energy_inside": ((energy, maps),)}),
            },
        )

    def _compute_penalty(self, out: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, float | None, int]:
        """The penalty, the share of energy inside the marks if any map has some, and how many maps have."""
        if "explained" not in out:
            raise GeometryError("AttributionPrior needs the explainer's map.", "Train it as a recipe's objective.")
        maps = out["explained"]
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        nothing = (maps * 0.0).sum()
        if batch.targets is None:
            return nothing, None, 0
        own = batch.labels[:, None].to(maps.device)
        marked = batch.guided.to(maps.device).gather(1, own)[:, 0]
        targets = batch.targets.to(maps.device)
        if targets.shape[1] > 1:
            targets = targets[torch.arange(len(targets), device=maps.device), own[:, 0]][:, None]
        if maps.ndim != 4 or any(s < m for s, m in zip(targets.shape[2:], maps.shape[2:], strict=True)):
            raise GeometryError(f"Maps {tuple(maps.shape)} are finer than the marks {tuple(targets.shape)}.")
        cover = _compute_cover(targets, maps)
        if self.scale == "max":
            top = maps.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
            maps = maps / torch.where(top > 0.0, top, torch.ones_like(top))
        inside, alive = _compute_energy_inside(maps.relu(), cover)
        counted = marked & alive[:, 0]
        number = int(counted.sum())
        energy = float(inside.detach()[:, 0][counted].mean()) if number else None
        if self.penalty == "energy":
            # a map without positive evidence has no share of it, and no gradient
            return (-inside[:, 0][counted].mean() if number else nothing), energy, number
        outside = ((maps**2 if self.squared else maps) * (1.0 - cover)).flatten(1).sum(1)
        # the mean over all images, as the cross-entropy's: equation 1 sums both over the images
        return outside[marked].sum() / len(marked) + nothing, energy, number


def _compute_cover(targets: Tensor, maps: Tensor) -> Tensor:
    """Share of every cell of the maps' grid that a mark covers: [b, k or 1, h, w]."""
    with torch.no_grad():
        marks = targets.to(maps.dtype) if targets.is_floating_point() else targets.ne(0).to(maps.dtype)
        cover: Tensor = adaptive_avg_pool2d(marks, (maps.shape[2], maps.shape[3]))
        return cover


def _move_low_maps_up(maps: Tensor) -> Tensor:
    """Maps [b, k, h, w], those whose every cell lies below -40 raised to it, all cells alike.

    There softplus is exp, so that the shares of its sum stay as they are, and neither the sum nor 1 / sum leaves the
    range of numbers.
    """
    return maps + (-40.0 - maps.detach().amax((2, 3), keepdim=True)).clamp(min=0.0)


def _compute_energy_inside(evidence: Tensor, cover: Tensor) -> tuple[Tensor, Tensor]:
    """sum(S A) / sum(A) of maps A >= 0, [b, k], and which have any that the gradient, of 1 / sum(A), can bear."""
    total = evidence.flatten(2).sum(-1)
    alive = total > torch.finfo(total.dtype).tiny / torch.finfo(total.dtype).eps
    inside = (evidence * cover).flatten(2).sum(-1) / torch.where(alive, total, torch.ones_like(total))
    return inside, alive
