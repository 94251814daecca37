"""Norms of class maps: regularisation without marks (the L1 and L2 rows of Liao 2022, Tables III and IV)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sightline.errors import RecipeError
from sightline.losses.spatial_nll import Interpolation, check_shapes, resize_maps
from sightline.structures.protocols import Term


@dataclass(frozen=True)
class MapNorm:
    """Sum over pixels, classes and images of |x| or x^2, of all images, marked or not.

    The paper applies it to the spatial softmax of equation 4. There the L1 norm is the number of class maps, whatever
    the network does: its gradient is zero, so that row equals the row without guidance. `cam` penalises the class map
    itself. The sum is not averaged: the paper's weights near 1e-8 only make sense for a sum.

    Attributes:
        norm: 1 for |x|, 2 for x^2.
        penalty_on: `cam` or `softmax`.
        resolution: `input` enlarges the map to the targets' grid first; `map` does not.
        interpolation: how `input` enlarges maps.

    Example:
        >>> import torch
        >>> maps, mark = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> maps[0, 1, 1, 1], mark[0, 0, 1, 1] = 3.0, 1.0
        >>> guided = torch.tensor([[False, True]])
        >>> MapNorm(norm=1, resolution="map")(maps, mark, guided).value
        tensor(3.)
    """

    # the same on every image, with or without a mark
    needs_regions: ClassVar[bool] = False

    norm: Literal[1, 2] = 2
    penalty_on: Literal["softmax", "cam"] = "cam"
    resolution: Literal["input", "map"] = "input"
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if self.norm not in (1, 2):
            raise RecipeError(f"norm is 1 or 2; got {self.norm}.")
        if self.penalty_on not in ("softmax", "cam"):
            raise RecipeError(f"penalty_on is softmax or cam; got {self.penalty_on!r}.")
        if self.resolution not in ("input", "map"):
            raise RecipeError(f"resolution is input or map; got {self.resolution!r}.")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise RecipeError(f"interpolation is bicubic or bilinear; got {self.interpolation!r}.")

    def __call__(self, maps: Tensor, targets: Tensor, guided: Tensor, labels: Tensor | None = None) -> Term:
        """Compute the loss for maps [b, k, *m]; of `targets` [b, 1 or k, *s] only the grid is used.

        Raises:
            GeometryError: shapes that do not fit.
        """
        check_shapes(maps, targets, guided)
        b, k = maps.shape[:2]
        with torch.autocast(maps.device.type, enabled=False):
            values = maps.to(torch.promote_types(maps.dtype, torch.float32))
            if self.resolution == "input":
                values = resize_maps(values, tuple(targets.shape[2:]), self.interpolation)
            flat = values.flatten(2)
            if self.penalty_on == "softmax":
                flat = torch.softmax(flat, dim=-1)
            value = flat.abs().sum() if self.norm == 1 else flat.square().sum()
        least = 0.0 if self.penalty_on == "cam" else b * k * float(flat.shape[-1]) ** (1 - self.norm)
        return Term(value, b, least)


# Field values only: nothing in the code asks for a profile by name.
L1_PROFILES: Mapping[str, MapNorm] = {
    "paper": MapNorm(norm=1, penalty_on="softmax"),
    "recommended": MapNorm(norm=1, penalty_on="cam"),
}
L2_PROFILES: Mapping[str, MapNorm] = {
    "paper": MapNorm(norm=2, penalty_on="softmax"),
    "recommended": MapNorm(norm=2, penalty_on="cam"),
}
