"""Heatmap generators inside training: decoder, explainer and gaze compared with each other (Watanabe 2022)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import (
    adaptive_avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    interpolate,
    one_hot,
)
from torchvision.transforms.v2.functional import gaussian_blur

from sightline.errors import GeometryError, RecipeError
from sightline.structures.evidence import Batch
from sightline.structures.protocols import Explainer, Means, Term

Sets = Literal["classifier", "decoder", "set1", "set2", "set3"]


@dataclass(frozen=True)
class HeatmapMatch:
    """gamma L_cls + (1 - gamma) L_seg, with D the decoder's logits, H the explainer's map and E the gaze.

    L_seg is: `decoder` BCE(D, E) (the published baseline); `set1` BCE(H, E), of which the decoder learns nothing;
    `set2` BCE between D and H, without gaze; `set3` w BCE(D, E) + (1 - w) BCE(H, E). `classifier` has no L_seg, and its
    gamma is 1. The paper leaves much open; each choice is an option.

    H is smoothed on its own grid, brought to the grid of D (means over cells), scaled, and made logits, in this order.

    Attributes:
        match: which of them are compared.
        heatmap: the explainer that makes H for each image's own class.
        gamma: share of the classification loss (0.41731 as published).
        w: set 3's share of the decoder.
        labels: independent classes (`sigmoid`, as published) or exclusive ones (`softmax`).
        to_logits: how H becomes logits: `logit` of H clamped to eps..1 - eps, or `raw`: H itself, the literal reading,
            with which no pixel can have a probability below one half.
        eps: of the clamp.
        scale: H is scaled per image to 0..1 (`min_max`, minimum and maximum detached), or not (`none`).
        flow: set 2's gradient goes `to_decoder`, H being the target; or to `both`, half of the loss each.
        target: gaze as it is (`linear`), or as a viridis picture read as grey (`viridis_gray`), which never reaches 0
            or 1, as in the published code.
        grid: side of the grid on which maps are compared; None: that of D, or of the gaze if there is no D.
        smooth_px: standard deviation of a Gaussian over H, in cells of H (pixels of the image, for image gradients),
            or None.

    Example:
        >>> import torch
        >>> from sightline.structures.evidence import Batch
        >>> mark, guided = torch.ones(1, 1, 4, 4), torch.tensor([[False, True]])
        >>> batch = Batch(torch.zeros(1, 1, 4, 4), torch.tensor([1]), mark, guided, frames=(), case_ids=("a",))
        >>> out = {"logits": torch.zeros(1, 2), "decoder": torch.full((1, 1, 4, 4), 5.0)}
        >>> sorted(HeatmapMatch("decoder")(out, batch, torch.ones(2), ()).parts)
        ['classification', 'decoder_error', 'map_error']
    """

    takes_shares: ClassVar[bool] = True
    needs_boxes: ClassVar[bool] = False

    match: Sets = "set3"
    heatmap: Explainer | None = None
    gamma: float = 0.41731
    w: float = 0.5
    labels: Literal["sigmoid", "softmax"] = "sigmoid"
    to_logits: Literal["logit", "raw"] = "logit"
    eps: float = 1e-4
    scale: Literal["min_max", "none"] = "min_max"
    flow: Literal["to_decoder", "both"] = "to_decoder"
    target: Encoding = "linear"
    grid: int | None = None
    smooth_px: float | None = None

    def __post_init__(self) -> None:
        """Refuse invalid shares, and sets without an explainer."""
        if not (0.0 <= self.gamma <= 1.0 and 0.0 <= self.w <= 1.0 and 0.0 < self.eps < 0.5):
            raise RecipeError(
                f"HeatmapMatch needs gamma and w in 0..1 and eps in (0, 0.5); got {self.gamma}, {self.w}, {self.eps}."
            )
        if self.match.startswith("set") and self.heatmap is None:
            raise RecipeError(f"{self.match} compares an explainer's map.", "Name a heatmap, e.g. input_gradient.")
        if self.heatmap is not None and "create_graph" not in inspect.signature(self.heatmap).parameters:
            raise RecipeError(
                f"heatmap {type(self.heatmap).__name__} is no explainer that can be trained through.",
                "Name one, e.g. input_gradient.",
            )
        if self.grid is not None and self.grid < 1:
            raise RecipeError(f"grid must be 1 or more; got {self.grid}.")
        if self.smooth_px is not None and not self.smooth_px > 0.0:
            raise RecipeError(f"smooth_px must be above 0; got {self.smooth_px}.", "Use null for no smoothing.")

    @property
    def needs_regions(self) -> bool:
        """Whether gaze is used: not in the classifier, nor in set 2."""
        return self.match in ("decoder", "set1", "set3")

    @property
    def explainer(self) -> Explainer | None:
        """The explainer that the training calls."""
        return self.heatmap if self.match.startswith("set") else None

    @property
    def independent(self) -> bool:
        """Whether classes are independent (sigmoid)."""
        return self.labels == "sigmoid"

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """Compute the loss, in float32 or wider whatever the precision of the network.

        Args:
            out: `logits` [b, k]; `decoder` [b, 1, *s] and `explained` [b, 1, *m] where the set wants them.
            batch: labels; targets [b, 1 or k, *s] and guided [b, k]; without gaze only the classification counts.
            class_weights: [k], of the classification loss.
            history: not used.

        Raises:
            GeometryError: a map that the set needs is missing or has another shape.
        """
        with torch.autocast(out["logits"].device.type, enabled=False):
            classes = self._classify(_widen(out["logits"]), batch.labels, class_weights)
            if self.match == "classifier":
                return Term(classes, len(batch), parts={"classification": float(classes.detach())})
            maps, parts, means = self._match_maps(out, batch)
            value = self.gamma * classes + (1.0 - self.gamma) * maps
        parts = {"classification": float(classes.detach()), "map_error": float(maps.detach()), **parts}
        of_maps = tuple(((1.0 - self.gamma) * mean, count) for mean, count in means["map_error"])
        return Term(
            value,
            len(batch),
            parts=parts,
            means=((self.gamma * parts["classification"], len(batch)), *of_maps),
            means_of_parts=means,
        )

    def _classify(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        if self.labels == "softmax":
            return (cross_entropy(logits, labels, reduction="none") * weights[labels]).mean()
        truth = one_hot(labels, logits.shape[1]).to(logits.dtype)
        return (binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1) * weights[labels]).mean()

    def _match_maps(self, out: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, float], dict[str, Means]]:
        """L_seg over the images for which it is defined, its parts, and what they are means of."""
        painted = self._require_output(out, "decoder", self.match != "set1")
        explained = self._require_output(out, "explained", self.match != "decoder")
        size = self._choose_size(batch, painted, explained)
        shown = None if painted is None else resize_to_grid(_widen(painted), size)
        heat = None if explained is None else resize_to_grid(smooth_heatmaps(_widen(explained), self.smooth_px), size)
        everyone = torch.ones(len(batch), dtype=torch.bool, device=out["logits"].device)
        alive, parts = everyone, {}
        if heat is not None:
            alive = is_not_constant(heat) if self.scale == "min_max" else heat.detach().flatten(1).ne(0.0).any(1)
            parts["dead_maps"] = float((~alive).float().mean())
            heat = normalise_min_max(heat) if self.scale == "min_max" else heat
        nothing = _widen(out["logits"]).sum() * 0.0
        if self.match == "set2":
            assert shown is not None and heat is not None
            error = self._match_each_other(shown, heat, alive)
            return error, parts, {"map_error": ((float(error.detach()), int(alive.sum())),)}
        if batch.targets is None:
            return nothing, parts, {"map_error": ()}
        marks, guided = (tensor.to(everyone.device) for tensor in self._select_gaze(batch.targets, batch))
        if not bool(guided.any()):
            return nothing, parts, {"map_error": ()}
        gaze = resize_to_grid(encode_target(marks.to(nothing.dtype), self.target), size)
        losses: list[tuple[float, Tensor]] = []
        means: dict[str, Means] = {}
        if shown is not None:
            losses.append((self.w if self.match == "set3" else 1.0, _compute_bce(shown, gaze, guided)))
            parts["decoder_error"] = float(losses[-1][1].detach())
            means["decoder_error"] = ((parts["decoder_error"], int(guided.sum())),)
        if heat is not None:
            error = _compute_bce(self._convert_to_logits(heat), gaze, guided & alive)
            losses.append((1.0 - self.w if self.match == "set3" else 1.0, error))
            parts["heatmap_error"] = float(error.detach())
            means["heatmap_error"] = ((parts["heatmap_error"], int((guided & alive).sum())),)
        each = zip(losses, list(means.values()), strict=True)
        means["map_error"] = tuple((weight * mean, count) for (weight, _), ((mean, count),) in each)
        return sum((weight * loss for weight, loss in losses), nothing), parts, means

    def _match_each_other(self, shown: Tensor, heat: Tensor, alive: Tensor) -> Tensor:
        """Set 2: D against H, and where both learn H against D, each time with the other one as it is."""
        to_decoder = _compute_bce(shown, heat.detach().clamp(0.0, 1.0), alive)
        if self.flow == "to_decoder":
            return to_decoder
        return 0.5 * to_decoder + 0.5 * _compute_bce(
            self._convert_to_logits(heat), torch.sigmoid(shown.detach()), alive
        )

    def _require_output(self, out: Mapping[str, Tensor], name: str, wanted: bool) -> Tensor | None:
        if not wanted:
            return None
        if name not in out:
            what = {"decoder": "a network with a decoder", "explained": "the explainer's map"}[name]
            raise GeometryError(f"{self.match} needs {what}.", "Use the model unet with decoder true.")
        maps = out[name]
        if maps.ndim != 4 or maps.shape[1] != 1:
            raise GeometryError(f"{self.match} compares maps [b, 1, h, w]; {name} is {list(maps.shape)}.")
        return maps

    def _select_gaze(self, targets: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Targets [b, 1, *s] and which images have one, [b]; where every class has its own, those of the image's."""
        if targets.shape[1] == 1:
            return targets, batch.guided.any(dim=1)
        own = torch.arange(len(batch), device=targets.device)
        return targets[own, batch.labels][:, None], batch.guided[own.to(batch.guided.device), batch.labels]

    def _choose_size(self, batch: Batch, painted: Tensor | None, explained: Tensor | None) -> tuple[int, int]:
        if self.grid is not None:
            return self.grid, self.grid
        source = next(t for t in (painted, batch.targets, explained) if t is not None)
        return int(source.shape[-2]), int(source.shape[-1])

    def _convert_to_logits(self, heat: Tensor) -> Tensor:
        return heat if self.to_logits == "raw" else torch.logit(heat, eps=self.eps)


def _widen(tensor: Tensor) -> Tensor:
    """In float32 or wider."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _compute_bce(logits: Tensor, target: Tensor, which: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over pixels and over the images that count; exactly 0 without any."""
    # what does not count takes no part at all: a dead map's gradient is nothing, not nothing times something
    if not bool(which.any()):
        return (logits * 0.0).sum()
    return binary_cross_entropy_with_logits(logits[which], target[which].to(logits.dtype))


Encoding = Literal["linear", "viridis_gray"]


def resize_to_grid(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [b, 1, h, w] on another grid: means over cells, or bilinear where the grid is finer."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    if maps.shape[-2] >= size[0] and maps.shape[-1] >= size[1]:
        return adaptive_avg_pool2d(maps, size)
    return interpolate(maps, size=size, mode="bilinear", align_corners=False)


def smooth_heatmaps(maps: Tensor, sigma_px: float | None) -> Tensor:
    """Maps [b, 1, h, w] smoothed by a Gaussian of this standard deviation in cells of their grid; None: unchanged.

    The kernel reaches three standard deviations, at most the map's side, with mirrored edges.
    """
    if sigma_px is None:
        return maps
    # torchvision mirrors at the edges, which needs less than half a kernel's width there
    reach = [max(0, min(round(3.0 * sigma_px), side - 1)) for side in (maps.shape[-1], maps.shape[-2])]
    return gaussian_blur(maps, kernel_size=[2 * r + 1 for r in reach], sigma=[sigma_px, sigma_px])


def normalise_min_max(maps: Tensor) -> Tensor:
    """Maps [b, 1, h, w] each from 0 to 1. Gradients flow through the values, not through minimum and maximum.

    A constant map becomes 0; see `is_not_constant`.
    """
    low = maps.detach().flatten(1).amin(1).view(-1, 1, 1, 1)
    high = maps.detach().flatten(1).amax(1).view(-1, 1, 1, 1)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    return (maps - low) / span


def is_not_constant(maps: Tensor) -> Tensor:
    """Which maps [b, 1, h, w] are not constant: bool [b]. A map of NaN counts too, so that it is noticed."""
    flat = maps.detach().flatten(1)
    return ~(flat.amax(1) <= flat.amin(1))


def encode_target(gaze: Tensor, how: Encoding) -> Tensor:
    """Gaze in 0..1 as the target of a binary cross-entropy.

    `viridis_gray` is a map saved in matplotlib's colours and read as grey, as in the code behind Watanabe 2022: it
    runs from 0.118 to 0.845, so the target never reaches 0.
    """
    if how == "linear":
        return gaze
    # matplotlib's own step: 256 colours over 0..1
    steps = (gaze * 256).floor().long().clamp(0, 255)
    return torch.tensor(_compute_viridis_gray(), dtype=gaze.dtype, device=gaze.device)[steps]


@cache
def _compute_viridis_gray() -> tuple[float, ...]:
    """Luminance of matplotlib's viridis at its 256 steps, rounded to 8 bits as Pillow does (ITU-R 601), in 0..1."""
    # only who asks for its colours pays for importing it
    from matplotlib import colormaps

    colours = colormaps["viridis"](range(256), bytes=True)[:, :3].astype(int)
    red, green, blue = colours.T
    return tuple(int(v) / 255 for v in (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)
