"""Focal loss over the cells of a class map, each classified as marked or not; tolerant of missing marks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, logsigmoid, max_pool2d

from sightline.errors import GeometryError, RecipeError
from sightline.losses.spatial_nll import check_shapes
from sightline.structures.protocols import Term


@dataclass(frozen=True)
class CellFocal:
    """Binary focal loss of the cells of guided classes (Lin 2017, RetinaNet; its normaliser as Zhou 2019, CenterNet).

    With p = sigmoid(M + logit(prior)) a marked cell costs -(1 - p)^gamma log p, an unmarked one
    -p^gamma log(1 - p). Marked cells are averaged over each image, unmarked ones summed; the sum of both over the batch
    is divided by the number of images with a mark. Unlike in the spatial likelihood (Liao 2022, equation 6), cells do
    not compete: a map may be high in two places, and low everywhere in an image without a mark.

    Attributes:
        gamma: focusing parameter: the higher, the less cells count that are already classified well.
        prior: expected share of marked cells, the prior to which the map adds evidence.
        elsewhere: weight of the unmarked cells of images with a mark: 1 if every finding is marked; near 0 if marks
            are few or guessed, because unmarked findings may be there.
        covered: a cell counts as marked if at least this share of it is covered; cells that are covered less are left
            out, and the best-covered cell always counts.
        trimmed: share of a batch's marked images, those whose marks fit the map least, that are treated as wrongly
            marked and left out (least trimmed squares, Rousseeuw 1984, for marks); 0 trusts all marks.
        nowhere: weight of the cells of images without a mark of the class, which count as unmarked; 0 if only marked
            images guide.
        ring: number of cells around a mark, up, down and to the sides, that are left out: it may be drawn too small.
        soft: standard deviation in cells of a Gaussian that softens a mark's edges, 0 for hard ones. A cell then is
            marked in part, and no cell is left out for being covered in part.
        bootstrapped: share of a cell's target, in images with a mark, that is the network's own p in place of the mark
            (Reed 2015, section 3.3, soft bootstrapping with beta = 1 - this); 0 trusts marks alone. It comes too early
            for a network that knows nothing yet: use up to 0.5.
        weigh: `marked`: all marked cells count alike; `share`: by the share of readers who marked them (`region_choice`
            with `readers` soft), so that a mark on which readers disagree guides less.
        column: the class whose map is guided. In images in which this class has no mark, every cell is unmarked: for
            patches, or cohorts in which all findings are marked.

    Example:
        >>> import torch
        >>> maps, mark = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> maps[0, 1, 1, 1], mark[0, 0, 1, 1] = 3.0, 1.0
        >>> guided = torch.tensor([[False, True]])
        >>> high = CellFocal()(maps, mark, guided).value
        >>> bool(high < CellFocal()(-maps, mark, guided).value)  # the map is high where the mark is
        True
    """

    needs_regions: ClassVar[bool] = True

    gamma: float = 2.0
    prior: float = 0.02
    elsewhere: float = 1.0
    covered: float = 0.5
    column: int = 1
    trimmed: float = field(default=0.0, metadata={"since": "0.2"})
    nowhere: float = field(default=1.0, metadata={"since": "0.2"})
    ring: int = field(default=0, metadata={"since": "0.2"})
    soft: float = field(default=0.0, metadata={"since": "0.2"})
    bootstrapped: float = field(default=0.0, metadata={"since": "0.2"})
    weigh: Literal["marked", "share"] = field(default="marked", metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if not 0.0 <= self.trimmed < 1.0:
            raise RecipeError(f"CellFocal.trimmed lies in [0, 1); got {self.trimmed}.", "Try 0.3.")
        if not (self.ring >= 0 and self.soft >= 0.0 and 0.0 <= self.bootstrapped < 1.0):
            raise RecipeError(
                "CellFocal needs ring >= 0, soft >= 0 and bootstrapped in [0, 1); "
                f"got {self.ring}, {self.soft} and {self.bootstrapped}.",
                "Try ring 2, soft 1.0, bootstrapped 0.3.",
            )
        if self.weigh not in ("marked", "share"):
            raise RecipeError(f"CellFocal.weigh is {self.weigh!r}.", "There are: marked, share.")
        if not self.nowhere >= 0.0:
            raise RecipeError(f"CellFocal.nowhere is a weight of 0 or more; got {self.nowhere}.", "Try 0 or 1.")
        if not (self.gamma >= 0.0 and 0.0 < self.prior < 1.0 and self.elsewhere >= 0.0 and 0.0 < self.covered <= 1.0):
            raise RecipeError(
                f"CellFocal needs gamma >= 0, prior in (0, 1), elsewhere >= 0 and covered in (0, 1]; got {self.gamma}, "
                f"{self.prior}, {self.elsewhere} and {self.covered}.",
                "Its defaults are a good start.",
            )

    def __call__(self, maps: Tensor, targets: Tensor, guided: Tensor, labels: Tensor | None = None) -> Term:
        """Compute the loss.

        Args:
            maps: class maps with bias, [b, k, h, w].
            targets: [b, k or 1, *s], not 0 where marked.
            guided: bool [b, k], which classes of which images have a mark.
            labels: not used; all guidance losses have the same signature.

        Returns:
            Term; `images` is the number of images with a mark. If there are none, the sum is divided by 1.

        Raises:
            GeometryError: shapes do not fit, or maps do not have two axes.
            RecipeError: no such class.
        """
        check_shapes(maps, targets, guided)
        if maps.ndim != 4:
            raise GeometryError(f"CellFocal guides maps of two axes; got {tuple(maps.shape)}.")
        if not 0 <= self.column < maps.shape[1]:
            raise RecipeError(f"Guidance names class {self.column}, but there are {maps.shape[1]}.", "Count from 0.")
        with torch.autocast(maps.device.type, enabled=False):
            return self._compute_term(maps[:, self.column].float(), targets.to(maps.device), guided.to(maps.device))

    @property
    def takes_shares(self) -> bool:
        """Whether targets between 0 and 1 are used as such."""
        return self.weigh == "share"

    def _compute_term(self, cells: Tensor, targets: Tensor, guided: Tensor) -> Term:
        marked = guided[:, self.column]
        logit = cells + math.log(self.prior / (1.0 - self.prior))
        p = logit.sigmoid()
        with torch.no_grad():
            channel = targets[:, self.column if targets.shape[1] > 1 else 0]
            target, counted = self._set_targets(channel, cells, marked)
            area = target.sum(dim=(1, 2)).clamp(min=1)
            if self.bootstrapped:
                own = self.bootstrapped * marked[:, None, None]
                target = (1.0 - own) * target + own * p
            hits, misses = target * counted, (1.0 - target) * counted
            misses = misses * torch.where(marked, self.elsewhere, self.nowhere)[:, None, None]
            if self.weigh == "share":
                hits = hits * _average_shares(channel, cells)
        hit = -((1.0 - p) ** self.gamma) * logsigmoid(logit)
        miss = -(p**self.gamma) * logsigmoid(-logit)
        positive = (hit * hits).sum(dim=(1, 2)) / area
        negative = (miss * misses).sum(dim=(1, 2))
        dropped = int(self.trimmed * int(marked.sum()))
        if dropped:
            doubtful = torch.where(marked, positive.detach(), -torch.inf).topk(dropped).indices
            trusted = torch.ones_like(positive).index_fill(0, doubtful, 0.0)
            positive, negative = positive * trusted, negative * trusted
        images = int(marked.sum())
        value = (positive + negative).sum() / max(1, images)
        parts = {
            "marked_cells": float(positive.detach().sum()) / max(1, images),
            "other_cells": float(negative.detach().sum()) / max(1, images),
        }
        return Term(value, images, 0.0, parts)

    def _set_targets(self, marks: Tensor, cells: Tensor, marked: Tensor) -> tuple[Tensor, Tensor]:
        """How far each cell counts as marked, 0 to 1, and whether it counts, 0 or 1: both [b, h, w]."""
        # where nothing is known (a picture with a finding that nobody marked) all is covered, and nothing marked
        touched = _compute_cover(marks, cells)
        cover = touched * marked[:, None, None]
        best = cover.amax(dim=(1, 2), keepdim=True)
        inside = (cover >= torch.minimum(best, torch.full_like(best, self.covered))) & (cover > 0)
        target, counted = inside.to(cells.dtype), inside | (touched == 0)
        if self.soft:
            target = _soften(target, self.soft)
            counted = counted | marked[:, None, None]
        if self.ring:
            side = 2 * self.ring + 1
            near = max_pool2d((touched > 0).to(cells.dtype)[:, None], side, 1, self.ring)[:, 0] > 0
            counted = counted & (inside | ~near)
        return target, counted.to(cells.dtype)


def _soften(target: Tensor, sd: float) -> Tensor:
    """Marked cells [b, h, w] under a Gaussian, scaled so that the most marked cell of each image keeps 1."""
    reach = math.ceil(3.0 * sd)
    at = torch.arange(-reach, reach + 1, dtype=target.dtype, device=target.device)
    kernel = torch.exp(-0.5 * (at / sd) ** 2)
    kernel = kernel / kernel.sum()
    soft = conv2d(target[:, None], kernel.view(1, 1, -1, 1), padding=(reach, 0))
    soft = conv2d(soft, kernel.view(1, 1, 1, -1), padding=(0, reach))[:, 0]
    most = soft.amax(dim=(1, 2), keepdim=True)
    return torch.where(most > 0, soft / most.clamp(min=torch.finfo(soft.dtype).tiny), soft)


def _average_shares(marks: Tensor, cells: Tensor) -> Tensor:
    """The mean of marks [b, *s] over the part of each cell that is not 0: [b, h, w]."""
    shape = (cells.shape[1], cells.shape[2])
    total = adaptive_avg_pool2d(marks.to(cells.dtype)[:, None], shape)[:, 0]
    return total / _compute_cover(marks, cells).clamp(min=torch.finfo(cells.dtype).eps)


def _compute_cover(marks: Tensor, cells: Tensor) -> Tensor:
    """Share of each cell that is not 0, [b, h, w] for marks [b, *s].

    Images without a mark, most of a batch, are not pooled: as numbers they take four times the memory of their bytes.
    """
    cover = torch.zeros_like(cells)
    some = marks.flatten(1).any(dim=1).bool()
    if bool(some.any()):
        numbers = marks[some].ne(0).to(cells.dtype)
        cover[some] = adaptive_avg_pool2d(numbers[:, None], (cells.shape[1], cells.shape[2]))[:, 0]
    return cover
