"""Spatial negative log-likelihood of the marked pixels under a class map (Liao 2022, eq. 4 and 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d, interpolate

from sightline.errors import GeometryError, RecipeError
from sightline.structures.protocols import Term


@dataclass(frozen=True)
class SpatialNLL:
    """Mean of -log p over marked pixels and guided classes, p = softmax over pixels of the enlarged class map.

    Equation 6 sums the binary cross-entropy only where S is not 0, which is exactly this. With logsumexp it stays
    differentiable where the mark is improbable. Its minimum is log|S|.

    Attributes:
        resolution: `input` enlarges the map to the targets' grid (eq. 4); `map` reduces the targets to the map's
            (released code), which is cheaper for many classes.
        average: `image` takes N of eq. 6 per image, then the mean over images with a mark; `batch` pools all marked
            pixels of the batch (released code), so larger marks weigh more.
        shrink: how `map` downsamples targets.
        interpolation: how `input` enlarges maps.
        floor_probability: clamp p from below (released code: 1e-10), which removes the gradient there; None: no clamp.
        classes: indices of the classes to guide; None: every class that has a mark (`guided`).
        labelled_only: guide only the class of each image's label; the call then needs `labels`.
        weigh: `marked`: every pixel whose target is not 0 has the same weight; `share`: its weight is its target, 0 to
            1, the share of readers who marked it (`region_choice` with `readers` soft). The term is then the
            cross-entropy of p against the normalised targets, and its minimum is their entropy.

    Example:
        >>> import torch
        >>> maps, mark = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> maps[0, 1, 1, 1], mark[0, 0, 1, 1] = 3.0, 1.0
        >>> guided = torch.tensor([[False, True]])
        >>> near = SpatialNLL(resolution="map")(maps, mark, guided).value
        >>> bool(near < SpatialNLL(resolution="map")(-maps, mark, guided).value)
        True
    """

    needs_regions: ClassVar[bool] = True

    resolution: Literal["input", "map"] = "input"
    average: Literal["image", "batch"] = "image"
    shrink: Shrink = "any_hit"
    interpolation: Interpolation = "bicubic"
    floor_probability: float | None = None
    classes: tuple[int, ...] | None = None
    labelled_only: bool = False
    weigh: Literal["marked", "share"] = field(default="marked", metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        _require_one_of("resolution", self.resolution, ("input", "map"))
        _require_one_of("average", self.average, ("image", "batch"))
        _require_one_of("shrink", self.shrink, ("any_hit", "nearest"))
        _require_one_of("interpolation", self.interpolation, ("bicubic", "bilinear"))
        _require_one_of("weigh", self.weigh, ("marked", "share"))
        if self.floor_probability is not None and not 0 < self.floor_probability < 1:
            raise RecipeError(f"floor_probability lies between 0 and 1; got {self.floor_probability}.")

    @property
    def takes_shares(self) -> bool:
        """Whether targets between 0 and 1 are used as weights."""
        return self.weigh == "share"

    def __call__(self, maps: Tensor, targets: Tensor, guided: Tensor, labels: Tensor | None = None) -> Term:
        """Compute the loss.

        Args:
            maps: class maps with bias, [b, k, *m], any floating type; computed in at least float32.
            targets: [b, k or 1, *s], not 0 where marked; one channel if all classes share it.
            guided: bool [b, k], which classes of which images have a mark. The others get no gradient.
            labels: int64 [b], needed for `labelled_only`.

        Returns:
            Term: `.value` is the loss (0, with a graph, if nothing is guided), `.floor` its minimum, the mean log|S|.

        Raises:
            GeometryError: shapes do not fit.
            RecipeError: unknown class indices.
        """
        check_shapes(maps, targets, guided)
        active = guided.to(maps.device) & self._select_maps(maps, labels)
        # only images with something to say are computed; an index also cuts all others out of the graph
        rows = active.any(dim=1).nonzero().squeeze(1)
        active, marks = active[rows], targets[rows.to(targets.device)].to(maps.device)
        if self.weigh == "marked":
            marks = marks.ne(0)
        with torch.autocast(maps.device.type, enabled=False):
            return self._compute_term(maps.index_select(0, rows), marks, active)

    def _compute_term(self, maps: Tensor, marks: Tensor, active: Tensor) -> Term:
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        with torch.no_grad():
            targets = marks.to(maps.dtype)
            if self.resolution == "map":
                targets = reduce_marks(targets, tuple(maps.shape[2:]), self.shrink)
            area = targets.flatten(2).sum(-1).expand(active.shape) * active
            weight, images = self._weigh_maps(area)
            # never by nothing; of marks the area is 1 or more, of shares it may be less
            area = _replace_zeros(area)
            least_nll = area.log()
            if self.weigh == "share":
                least_nll = least_nll - torch.xlogy(targets, targets).flatten(2).sum(-1).expand(active.shape) / area
            floor = (weight * least_nll).sum()
        value = (weight * self._average_nll(maps, targets, area)).sum()
        counted, least = torch.stack([images, floor]).tolist()
        return Term(value, int(counted), least)

    def _weigh_maps(self, area: Tensor) -> tuple[Tensor, Tensor]:
        """Weight of each class map [b, k] given its marked area, and the number of images that count."""
        per_image = area.sum(dim=1, keepdim=True)
        images = (per_image > 0).sum().to(area.dtype)
        if self.average == "batch":
            return area / _replace_zeros(area.sum()), images
        return area / _replace_zeros(per_image) / images.clamp(min=1), images

    def _average_nll(self, maps: Tensor, targets: Tensor, area: Tensor) -> Tensor:
        """Mean of -log p over each map's marked pixels: [b, k]."""
        size = tuple(maps.shape[2:])
        pixels = maps if self.resolution == "map" else resize_maps(maps, tuple(targets.shape[2:]), self.interpolation)
        normaliser = torch.logsumexp(pixels.flatten(2), dim=-1)
        if self.floor_probability is None:
            # sum over marks of (g(M) - logsumexp): the first part is linear in M, so it is summed on the map grid
            with torch.no_grad():
                pull = targets if self.resolution == "map" else gather_back(targets, size, self.interpolation)
            return normaliser - (maps * pull).flatten(2).sum(-1) / area
        log_p = (pixels.flatten(2) - normaliser[..., None]).clamp(min=math.log(self.floor_probability))
        return -(log_p * targets.flatten(2)).sum(-1) / area

    def _select_maps(self, maps: Tensor, labels: Tensor | None) -> Tensor:
        k = maps.shape[1]
        chosen = torch.ones(maps.shape[:2], dtype=torch.bool, device=maps.device)
        if self.classes is not None:
            if any(not 0 <= c < k for c in self.classes):
                raise RecipeError(f"Guidance names classes {self.classes}, but there are {k}.", "Count from 0.")
            chosen[:, [c for c in range(k) if c not in self.classes]] = False
        if self.labelled_only:
            if labels is None:
                raise RecipeError("labelled_only guides the labelled class, but no labels were given.")
            chosen &= torch.arange(k, device=maps.device) == labels.to(maps.device)[:, None]
        return chosen


def _replace_zeros(area: Tensor) -> Tensor:
    return torch.where(area > 0, area, torch.ones_like(area))


def check_shapes(maps: Tensor, targets: Tensor, guided: Tensor) -> None:
    """Refuse tensors whose shapes do not fit."""
    b, k = maps.shape[:2]
    if targets.ndim != maps.ndim or targets.shape[0] != b or targets.shape[1] not in (1, k):
        raise GeometryError(
            f"Targets must be [{b}, 1 or {k}, *s] for maps {_list_size(maps)}; got {_list_size(targets)}."
        )
    if tuple(guided.shape) != (b, k) or guided.dtype != torch.bool:
        raise GeometryError(f"guided must be bool [{b}, {k}]; got {guided.dtype} {_list_size(guided)}.")
    if any(s < m for s, m in zip(targets.shape[2:], maps.shape[2:], strict=True)):
        raise GeometryError(f"Targets {_list_size(targets)} are coarser than the maps {_list_size(maps)} they guide.")


def _list_size(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise RecipeError(f"{name} is one of {', '.join(allowed)}; got {value!r}.")


# Field values only: nothing in the code asks for a profile by name.
PROFILES: Mapping[str, SpatialNLL] = {
    # eq. 6 is written for one image, so its N is that image's
    "paper": SpatialNLL(resolution="input", average="image", interpolation="bicubic"),
    "official_code": SpatialNLL(resolution="map", average="batch", shrink="nearest", floor_probability=1e-10),
    "recommended": SpatialNLL(resolution="input", average="image", shrink="any_hit", interpolation="bicubic"),
}

Interpolation = Literal["bicubic", "bilinear"]
Shrink = Literal["any_hit", "nearest"]


@lru_cache(maxsize=64)
def build_interpolation_matrix(
    old: int, new: int, mode: Interpolation, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A [new, old] such that A x is torch's interpolation of x along one axis (corners not aligned).

    As matrices, interpolation is deterministic on every device, differentiable any number of times, and has a simple
    adjoint.
    """
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(old, dtype=torch.float64)[None, None]
        matrix = interpolate(identity, size=(new, old), mode=mode, align_corners=False)[0, 0]
        return matrix.to(dtype=dtype, device=device)


def resize_maps(maps: Tensor, size: tuple[int, ...], mode: Interpolation) -> Tensor:
    """Maps [b, k, *m] on a grid of `size`."""
    for axis, new in enumerate(size, start=2):
        maps = _apply_along(
            maps, build_interpolation_matrix(maps.shape[axis], new, mode, maps.dtype, maps.device), axis
        )
    return maps


def gather_back(targets: Tensor, size: tuple[int, ...], mode: Interpolation) -> Tensor:
    """The adjoint of `resize_maps`: sum(enlarge(m) * s) == sum(m * gather_back(s))."""
    for axis, old in enumerate(size, start=2):
        matrix = build_interpolation_matrix(old, targets.shape[axis], mode, targets.dtype, targets.device)
        targets = _apply_along(targets, matrix.T, axis)
    return targets


def reduce_marks(targets: Tensor, size: tuple[int, ...], how: Shrink) -> Tensor:
    """Marks [b, k, *s] (0 or 1, floating) on a coarser grid.

    `any_hit` sets every cell that contains a marked pixel, so no mark is lost; `nearest` uses one pixel per cell, like
    the code released with Liao 2022, and loses a one-pixel line at stride 32 in 31 rows of 32.
    """
    if tuple(targets.shape[2:]) == size:
        return targets
    if how == "nearest":
        return interpolate(targets, size=size, mode="nearest")
    pools = {1: adaptive_max_pool1d, 2: adaptive_max_pool2d, 3: adaptive_max_pool3d}
    pooled: Tensor = pools[len(size)](targets, size)
    return pooled


def _apply_along(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if axis == tensor.ndim - 1:
        return tensor @ matrix.T
    if axis == tensor.ndim - 2:
        return matrix @ tensor
    return torch.movedim(torch.movedim(tensor, axis, -1) @ matrix.T, -1, axis)
