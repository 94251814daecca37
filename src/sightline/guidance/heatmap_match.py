"""Heatmap generators inside training: decoder, explainer and gaze held against each other (Watanabe 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits, cross_entropy, one_hot

from sightline.errors import GeometryError, RecipeError
from sightline.evidence import Batch
from sightline.guidance.term import Term

Sets = Literal["classifier", "decoder", "set1", "set2", "set3"]


class Explains(Protocol):
    """An explainer's settings: maps [b, n, *m] of a model, differentiable on request."""

    def __call__(self, model: Any, batch: Any, classes: Any, *, create_graph: bool = False) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class HeatmapMatch:
    """gamma L_cls + (1 - gamma) L_seg, with D the decoder's logits, H the explainer's map and E the gaze.

    L_seg is: `decoder` BCE(D, E) (the published baseline); `set1` BCE(H, E), of which the decoder learns nothing;
    `set2` BCE between D and H, without gaze; `set3` w BCE(D, E) + (1 - w) BCE(H, E). `classifier` has no L_seg. The
    paper leaves much open; each choice is an option with the default of the spec (4.5).

    Attributes:
        match: what is held against what.
        heatmap: the explainer of the sets; it explains each image's own class.
        gamma: share of the classification loss (0.41731 as published).
        w: set 3's share of the decoder.
        labels: each class by itself (`sigmoid`, as published) or against the others (`softmax`).
        to_logits: how H becomes logits: `logit` of H clamped to eps..1 - eps, or `raw`, H itself as a literal reading
            has it, with which no map can say "nothing here".
        eps: of the clamp.
        scale: H is scaled per image to 0..1 (`min_max`, minimum and maximum detached), or left (`none`).
        flow: set 2's gradient goes `to_decoder`, H being the target; or to `both`.
        target: gaze as it is (`linear`), or as a picture in matplotlib's colours read as grey (`viridis_gray`), which
            never reaches 0 or 1: what the published code has.
        grid: side of the grid on which maps are compared, or None for that of the gaze.
    """

    needs_boxes: ClassVar[bool] = False

    match: Sets = "set3"
    heatmap: Explains | None = None
    gamma: float = 0.41731
    w: float = 0.5
    labels: Literal["sigmoid", "softmax"] = "sigmoid"
    to_logits: Literal["logit", "raw"] = "logit"
    eps: float = 1e-4
    scale: Literal["min_max", "none"] = "min_max"
    flow: Literal["to_decoder", "both"] = "to_decoder"
    target: Literal["linear", "viridis_gray"] = "linear"
    grid: int | None = None

    def __post_init__(self) -> None:
        """Refuse shares that are none, and sets without an explainer."""
        if not (0.0 <= self.gamma <= 1.0 and 0.0 <= self.w <= 1.0 and 0.0 < self.eps < 0.5):
            raise RecipeError(
                f"HeatmapMatch needs gamma and w in 0..1 and eps in (0, 0.5); got {self.gamma}, {self.w}, {self.eps}."
            )
        if self.match.startswith("set") and self.heatmap is None:
            raise RecipeError(f"{self.match} compares an explainer's map.", "Name a heatmap, e.g. input_gradient.")
        if self.grid is not None and self.grid < 1:
            raise RecipeError(f"grid must be 1 or more; got {self.grid}.")

    @property
    def needs_regions(self) -> bool:
        """Whether gaze takes part: not in the classifier, nor in set 2."""
        return self.match in ("decoder", "set1", "set3")

    @property
    def explainer(self) -> Explains | None:
        """The explainer the lab calls."""
        return self.heatmap if self.match.startswith("set") else None

    @property
    def independent(self) -> bool:
        """Whether classes are judged each by itself."""
        return self.labels == "sigmoid"

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """The term.

        Args:
            out: `logits` [b, k]; `decoder` [b, 1, *s] and `explained` [b, 1, *m] where the set wants them.
            batch: labels; targets [b, 1, *s] and guided [b, k]: images without gaze count for the classes alone.
            class_weights: [k], of the classification loss.
            history: not used.

        Raises:
            GeometryError: a map that the set wants is not there.
        """
        with torch.autocast(out["logits"].device.type, enabled=False):
            classes = self._classes(out["logits"].float(), batch.labels, class_weights)
            if self.match == "classifier":
                return Term(classes, len(batch), parts={"classification": float(classes.detach())})
            maps, parts = self._maps(out, batch)
            value = self.gamma * classes + (1.0 - self.gamma) * maps
        parts = {"classification": float(classes.detach()), "map_error": float(maps.detach()), **parts}
        return Term(value, len(batch), parts=parts)

    def _classes(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        if self.labels == "softmax":
            return (cross_entropy(logits, labels, reduction="none") * weights[labels]).mean()
        truth = one_hot(labels, logits.shape[1]).float()
        return (binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1) * weights[labels]).mean()

    def _maps(self, out: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """L_seg over the images it is defined on, and its parts."""
        parts: dict[str, float] = {}
        painted = self._wanted(out, "decoder", self.match != "set1")
        explained = self._wanted(out, "explained", self.match != "decoder")
        size = self._size(batch, painted, explained)
        asked = torch.ones(len(batch), dtype=torch.bool, device=out["logits"].device)
        gaze = None
        if self.needs_regions:
            asked = batch.guided.any(dim=1).to(asked.device)
            if batch.targets is not None and bool(asked.any()):
                gaze = encoded(adaptive_avg_pool2d(batch.targets.to(asked.device).float(), size), self.target)
        shown = heat = None
        if explained is not None:
            heat = on_grid(explained.float(), size)
            alive = heat.flatten(1).detach().amax(1) > heat.flatten(1).detach().amin(1)
            parts["dead_maps"] = float((~alive & asked).sum()) / max(1, int(asked.sum()))
            heat = self._as_logits(heat)
        if painted is not None:
            shown = on_grid(painted.float(), size)
        losses: list[tuple[float, Tensor]] = []
        if self.match == "set2":
            assert shown is not None and heat is not None
            losses.append((1.0, _bce(shown, torch.sigmoid(heat).detach(), asked & alive)))
            if self.flow == "both":
                losses = [(0.5, losses[0][1]), (0.5, _bce(heat, torch.sigmoid(shown).detach(), asked & alive))]
        elif gaze is not None:
            if shown is not None:
                losses.append((self.w if self.match == "set3" else 1.0, _bce(shown, gaze, asked)))
                parts["decoder_error"] = float(losses[-1][1].detach())
            if heat is not None:
                losses.append((1.0 - self.w if self.match == "set3" else 1.0, _bce(heat, gaze, asked & alive)))
                parts["heatmap_error"] = float(losses[-1][1].detach())
        nothing = out["logits"].sum() * 0.0
        return sum((weight * loss for weight, loss in losses), nothing), parts

    def _wanted(self, out: Mapping[str, Tensor], name: str, wanted: bool) -> Tensor | None:
        if not wanted:
            return None
        if name not in out:
            what = {"decoder": "a network with a decoder", "explained": "the explainer's map"}[name]
            raise GeometryError(f"{self.match} needs {what}.", "Use the model unet with decoder true.")
        return out[name]

    def _size(self, batch: Batch, painted: Tensor | None, explained: Tensor | None) -> tuple[int, int]:
        if self.grid is not None:
            return self.grid, self.grid
        source = next(t for t in (painted, batch.targets, explained, batch.images) if t is not None)
        return int(source.shape[-2]), int(source.shape[-1])

    def _as_logits(self, heat: Tensor) -> Tensor:
        if self.scale == "min_max":
            low = heat.flatten(1).amin(1).detach().view(-1, 1, 1, 1)
            high = heat.flatten(1).amax(1).detach().view(-1, 1, 1, 1)
            # an all-zero map has no scale: it stays zero, and is counted as dead
            heat = torch.where(high > low, (heat - low) / (high - low).clamp(min=1e-30), torch.zeros_like(heat))
        if self.to_logits == "raw":
            return heat
        inside = heat.clamp(self.eps, 1.0 - self.eps)
        return torch.log(inside) - torch.log1p(-inside)


def on_grid(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [b, 1, h, w] on another grid: means over cells, or bilinear where the grid is finer."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    if maps.shape[-2] >= size[0] and maps.shape[-1] >= size[1]:
        return adaptive_avg_pool2d(maps, size)
    return torch.nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def encoded(gaze: Tensor, how: Literal["linear", "viridis_gray"]) -> Tensor:
    """Gaze in 0..1 as the target of a binary cross-entropy.

    `viridis_gray` is what remains of a map saved in matplotlib's colours and read as grey: from 0.118 to 0.845.
    """
    if how == "linear":
        return gaze
    return torch.as_tensor(_viridis_gray(), device=gaze.device)[(gaze * 255).round().long().clamp(0, 255)]


@cache
def _viridis_gray() -> NDArray[np.float32]:
    """Luminance of matplotlib's viridis at 256 steps, as Pillow reads its 8-bit colours: float32 [256] in 0..1."""
    from matplotlib import colormaps

    colours = (colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8).astype(np.float64)
    grey: NDArray[np.float32] = (np.floor(colours @ [0.299, 0.587, 0.114]) / 255).astype(np.float32)
    return grey


def _bce(logits: Tensor, target: Tensor, which: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over pixels and over the images that count; exactly 0 without any."""
    losses = binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)
    if not bool(which.any()):
        return (losses * 0.0).sum()
    return losses[which].mean()
