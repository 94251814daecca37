"""A localiser that was trained on boxes, and a classifier that was trained on experts' crops, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.evidence import Evidence, window_of_box
from sightline.models.box_regression import BoxRegression
from sightline.models.class_maps import ClassMapModel
from sightline.models.global_pooling import GlobalPooling
from sightline.models.transformer import within
from sightline.models.warp import crop_windows

LEAST_SIDE = 0.05


@dataclass(frozen=True)
class Cascade:
    """Sup+UBM (Jimenez-Sanchez 2018, section II-B): the predicted box is cut out and classified.

    Its weights are those of two trained runs (`sightline.lab.assemble`): `localiser.` and `classifier.` hold exactly
    what the two configs build.

    Attributes:
        localiser: says the box.
        classifier: sees the square around it.
        margin: added on each side, as a share of the box's longer side, as the classifier's own crops had it.
        roi_px: side that the square is sampled at; None: that of the image.
    """

    localiser: BoxRegression = field(default_factory=BoxRegression)
    classifier: ClassMapModel | GlobalPooling = field(default_factory=ClassMapModel)
    margin: float = 0.0
    roi_px: int | None = None

    def __post_init__(self) -> None:
        """Refuse margins that eat the box."""
        if not self.margin > -0.5:
            raise RecipeError(f"A margin is a share of the box above -0.5; got {self.margin}.")

    def without_weights(self) -> Cascade:
        """The same architecture with nothing to load."""
        return replace(self, localiser=self.localiser.without_weights(), classifier=self.classifier.without_weights())

    def build(self, n_classes: int) -> CascadeNetwork:
        """The network."""
        return CascadeNetwork(self, n_classes)


class CascadeNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives the classifier's Evidence, its window, and the said `box`."""

    def __init__(self, config: Cascade, n_classes: int) -> None:
        """Both networks as their configs build them."""
        super().__init__()
        self.margin = config.margin
        self.roi_px = config.roi_px
        self.localiser = config.localiser.build(n_classes)
        self.classifier = config.classifier.build(n_classes)

    def forward(self, images: Tensor) -> Evidence:
        """Say the box, cut the square out, classify it."""
        box = self.localiser(images).extras["box"]
        window = window_of_box(self._square(box, images.shape[2] / images.shape[3]))
        size = (self.roi_px, self.roi_px) if self.roi_px else (images.shape[2], images.shape[3])
        seen: Evidence = self.classifier(crop_windows(images, window, size))
        said = within(seen, window)
        # the box is what the localiser said, without the margin
        return Evidence(said.logits, said.maps, {**said.extras, "box": box}, window)

    def _square(self, box: Tensor, rows_per_column: float) -> Tensor:
        """The square about a box [b, 4], widened; a box with no sense left becomes a small one, inside the image."""
        # fractions of rows and columns are the same length only in a square image
        height, width = box[:, 2] * rows_per_column, box[:, 3]
        side = (torch.maximum(height, width) * (1.0 + 2.0 * self.margin)).clamp(LEAST_SIDE, 2.0)
        centre = box[:, :2].clamp(0.0, 1.0)
        return torch.stack([centre[:, 0], centre[:, 1], side / rows_per_column, side], dim=1)
