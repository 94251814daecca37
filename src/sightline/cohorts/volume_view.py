"""From a patch of a CT to the network's input cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.case import Case
from sightline.errors import GeometryError, RecipeError
from sightline.frame import Frame


@dataclass(frozen=True)
class VolumeView:
    """How a patch is framed for the network.

    Attributes:
        size: side of the cube in voxels.
        window_hu: Hounsfield units that become 0 and 1.
        augment: `none`, or `published`: what Engstler 2022 means to do.
    """

    size: int = 64
    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    augment: Literal["none", "published"] = "published"

    def __post_init__(self) -> None:
        """Refuse sizes and windows that mean nothing."""
        if self.size < 8 or self.window_hu[0] >= self.window_hu[1]:
            raise RecipeError(f"A volume view needs size >= 8 and a window; got {self.size}, {self.window_hu}.")

    def around(self, case: Case) -> None:
        """Volumes are cut around the vertebra already."""

    def test(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], Frame]:
        """The middle of the patch: float32 [1, s, s, s] in 0..1, and its frame."""
        if min(values.shape) < self.size:
            raise GeometryError(f"The patch is {values.shape} voxels; the view shows {self.size}.", "Cut larger ones.")
        frame = Frame.of_image(values.shape)
        start = [(n - self.size) // 2 for n in values.shape]
        frame = frame.crop(start, (self.size,) * 3)
        cut = values[tuple(slice(a, a + self.size) for a in start)].astype(np.float32)
        low, high = self.window_hu
        return np.clip((cut - low) / (high - low), 0.0, 1.0)[None], frame

    def training(self, values: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[np.float32], Frame]:
        """The same until augmentations are there."""
        return self.test(values)
