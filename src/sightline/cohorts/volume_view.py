"""From a patch of a CT to the network's input cube."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.case import Case
from sightline.cohorts.volume_augment import Placement, draw_placement, draw_tone
from sightline.errors import GeometryError, RecipeError
from sightline.frame import Frame


@dataclass(frozen=True)
class VolumeView:
    """How a patch is framed for the network: the middle of it, in training augmented.

    Patches are larger than what is shown, so that turns and shifts bring no border into sight: the patch is augmented
    first and cropped then.

    Attributes:
        size: side of the cube in voxels.
        window_hu: Hounsfield units that become 0 and 1.
        augment: `none`, or `published`: what Engstler 2022 means to do (`volume_augment`).
        shift_mm: in training the cube moves up to this far along every axis, within the patch; in whole voxels of the
            1 mm that patches have.
    """

    size: int = 64
    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    augment: Literal["none", "published"] = "published"
    shift_mm: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes, windows and shifts that mean nothing."""
        low, high = self.window_hu
        if self.size < 8:
            raise RecipeError(f"VolumeView.size must be at least 8 voxels; got {self.size}.", "Try 64.")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise RecipeError(
                f"VolumeView.window_hu is two Hounsfield values, low < high; got {self.window_hu}.",
                "Try (-1000, 1000).",
            )
        if not (math.isfinite(self.shift_mm) and self.shift_mm >= 0.0):
            raise RecipeError(f"VolumeView.shift_mm must be 0 or more; got {self.shift_mm}.", "Try 4.")

    def around(self, case: Case) -> None:
        """Volumes are cut around the vertebra already."""

    def test(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], Frame]:
        """The middle of a patch.

        Args:
            values: Hounsfield units [i, j, k].

        Returns:
            float32 [1, s, s, s] in 0..1, and its frame; source coordinates are the patch's voxels.

        Raises:
            GeometryError: no volume, or one smaller than `size`.
        """
        placement = Placement(self._middle(values))
        return placement.cut(values, self.window_hu)[None], placement.frame

    def training(self, values: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[np.float32], Frame]:
        """The same, shifted and augmented as `rng` draws it: equal generators give equal cubes.

        The frame holds all of the geometry but the elastic part, which moves voxels by about one.
        """
        middle = self._middle(values)
        room = [min(int(self.shift_mm), (n - self.size) // 2) for n in values.shape]
        shift = [int(rng.integers(-most, most + 1)) for most in room] if any(room) else [0, 0, 0]
        shifted = middle.crop(shift, middle.shape)
        if self.augment == "none":
            placement = Placement(shifted)
            return placement.cut(values, self.window_hu)[None], placement.frame
        placement = draw_placement(shifted, rng)
        cube = draw_tone(placement.cut(values, self.window_hu), rng)
        return cube[None], placement.frame

    def _middle(self, values: NDArray[Any]) -> Frame:
        if values.ndim != 3:
            raise GeometryError(f"A patch has three axes; got {values.ndim} ({values.shape}).", "Cut patches anew.")
        if min(values.shape) < self.size:
            raise GeometryError(
                f"The patch has {' x '.join(map(str, values.shape))} voxels; the view shows {self.size} a side.",
                f"Cut larger patches, or give the view and the network a size of at most {min(values.shape)}.",
            )
        return Frame.of_image(values.shape).crop([(n - self.size) // 2 for n in values.shape], (self.size,) * 3)
