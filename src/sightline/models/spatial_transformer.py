"""Networks that choose where to look: spatial transformers (Jaderberg 2015), cascades, a second look at the peak."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.errors import GeometryError, RecipeError, count_noun
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.box_regression import (
    BoxRegression,
    build_regression_head,
    convert_to_full_precision,
    require_sizes,
    resize_square,
)
from sightline.models.cam_classifiers import ClassMapModel, GlobalPooling
from sightline.structures.evidence import Evidence, bound_window, build_window


@dataclass(frozen=True)
class SpatialTransformer:
    """A localisation network says a window, the window is sampled, and a classifier sees that (Jimenez-Sanchez 2018).

    Trained by the class alone. It starts at the identity, so at first the classifier sees the whole image (the LBM).
    Parameters are not bounded; the paper holds them by a small learning rate of `localiser.` (LayerRates).

    Attributes:
        classifier: what sees the window.
        localiser: feature network of the localisation network.
        parameters: `similarity`: s, t_r, t_c, which in spite of its name does not turn (a-STN); `affine`: six
            (aff-STN).
        clamped: the earlier variant (Kazi 2017): a sigmoid bounds the scale to 0..1 and the shifts to -1..1, so that
            their gradient vanishes where they would leave these ranges. It starts at scale 0.98.
        localiser_px: side that the localisation network sees the image at; None: as it is, as printed.
        roi_px: side that the window is sampled at; None: that of the image, as printed. With an image larger than
            both, the window shows more detail than the whole image could.
        hidden: units of the localisation network's hidden layer.
        square_box: say, of a window that may be turned or sheared, the square of its area about its middle ("we
            approximate the predicted bounding box to the corresponding square"); else the upright box that holds it.
    """

    classifier: ClassMapModel | GlobalPooling = field(default_factory=ClassMapModel)
    localiser: Backbone | AlexNet = field(default_factory=AlexNet)
    parameters: Literal["similarity", "affine"] = "similarity"
    clamped: bool = False
    localiser_px: int | None = None
    roi_px: int | None = None
    hidden: int = 64
    square_box: bool = field(default=False, metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        require_sizes(localiser_px=self.localiser_px, roi_px=self.roi_px, hidden=self.hidden)
        if self.clamped and self.parameters == "affine":
            raise RecipeError("The clamped variant has three parameters.", "Use parameters='similarity'.")

    def without_weights(self) -> SpatialTransformer:
        """The same architecture with nothing to load."""
        return replace(self, classifier=self.classifier.without_weights(), localiser=self.localiser.without_weights())

    def build(self, n_classes: int) -> TransformerNetwork:
        """The network."""
        return TransformerNetwork(self, n_classes)


class WindowRegression(nn.Module):
    """The localisation network: images to windows [b, 2, 3] in fractions; exactly the identity at first."""

    def __init__(self, config: SpatialTransformer) -> None:
        """Last layer zero, so that only its bias speaks: the identity."""
        super().__init__()
        self.input_px = config.localiser_px
        self.clamped = config.clamped
        self.affine = config.parameters == "affine"
        self.trunk = config.localiser.build()
        self.head = build_regression_head(self.trunk.channels_out, 6, config.hidden, 0.0, 6 if self.affine else 3)

    def forward(self, images: Tensor) -> Tensor:
        """Windows [b, 2, 3] in fractions of the image."""
        features = self.trunk(resize_square(images, self.input_px))
        with torch.autocast(features.device.type, enabled=False):
            parameters: Tensor = self.head(features.float())
        if self.affine:
            # torch's theta in (row, column) and -1..1, as a difference from the identity
            theta = parameters.view(-1, 2, 3) + torch.eye(2, 3, device=parameters.device)
        else:
            scale, shift = self._split_similarity(parameters)
            theta = torch.cat([torch.diag_embed(scale.expand(-1, 2)), shift.unsqueeze(-1)], dim=2)
        linear = theta[:, :, :2]
        # t = 2 fraction - 1 on both sides
        offset = (theta[:, :, 2] + 1.0 - linear.sum(dim=2)) / 2.0
        return torch.cat([linear, offset.unsqueeze(-1)], dim=2)

    def _split_similarity(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Scale [b, 1] and shifts [b, 2] of the unit square from -1 to 1."""
        if not self.clamped:
            return parameters[:, :1] + 1.0, parameters[:, 1:]
        # sigmoid(4) = 0.98: nearly the whole image, where the sigmoid still has a gradient
        return torch.sigmoid(parameters[:, :1] + 4.0), 2.0 * torch.sigmoid(parameters[:, 1:]) - 1.0


class TransformerNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives the classifier's Evidence, its window, and `box` [b, 4].

    Submodules are `localiser` and `classifier`.
    """

    def __init__(self, config: SpatialTransformer, n_classes: int) -> None:
        """Both networks, random but for their own weights."""
        super().__init__()
        self.roi_px = config.roi_px
        self.square_box = config.square_box
        self.localiser = WindowRegression(config)
        self.classifier = config.classifier.build(n_classes)

    def forward(self, images: Tensor) -> Evidence:
        """Look, then classify; the box is the upright one around the (perhaps turned) window, or the square of it."""
        window = self.localiser(images)
        size = (self.roi_px, self.roi_px) if self.roi_px else (images.shape[2], images.shape[3])
        seen: Evidence = self.classifier(crop_windows(images, window, size))
        evidence = place_evidence(seen, window)
        if not self.square_box:
            return evidence
        box = compute_square(window, images.shape[2] / images.shape[3])
        return Evidence(evidence.logits, evidence.maps, {**evidence.extras, "box": box}, window)


def compute_square(window: Tensor, rows_per_column: float = 1.0) -> Tensor:
    """The upright squares [b, 4] (centre row, centre column, height, width) of the area and middle of windows.

    Args:
        window: [b, 2, 3] in fractions of the image.
        rows_per_column: height of the image over its width; a square of pixels is one of fractions only at 1.
    """
    linear = window[:, :, :2]
    centre = window[:, :, 2] + linear.sum(dim=2) / 2.0
    side = torch.linalg.det(linear.float()).abs().sqrt().to(window.dtype)[:, None]
    stretch = rows_per_column**0.5
    return torch.cat([centre, side / stretch, side * stretch], dim=1)


def place_evidence(seen: Evidence, window: Tensor) -> Evidence:
    """The evidence of a window's picture, with the window and its box."""
    boxes = bound_window(window)
    return Evidence(seen.logits, seen.maps, {**seen.extras, "box": boxes}, window)


def crop_windows(images: Tensor, window: Tensor, size: tuple[int, int]) -> Tensor:
    """The windows of images on a grid of `size`, bilinear, zero outside (Jaderberg 2015; Jimenez-Sanchez 2018, eq. 4).

    Differentiable in both. The identity window gives the image resized (half-pixel centres, no smoothing).

    Args:
        images: [b, c, h, w].
        window: [b, 2, 3], affine from fractions of the grid to fractions of the image (`Evidence.window`).
        size: rows and columns to sample.

    Raises:
        GeometryError: shapes that do not belong together.
    """
    if images.ndim != 4 or window.shape != (len(images), 2, 3):
        raise GeometryError(
            f"Windows [b, 2, 3] of images [b, c, h, w] are needed; got {tuple(window.shape)} and {tuple(images.shape)}."
        )
    with torch.autocast(images.device.type, enabled=False):
        grid = functional.affine_grid(
            _convert_to_torch(window.float() if window.dtype != torch.float64 else window),
            [len(images), 1, *size],
            align_corners=False,
        )
        wide = convert_to_full_precision(images)
        seen = functional.grid_sample(
            wide, grid.to(wide.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
        )
        return seen.to(images.dtype)


def _convert_to_torch(window: Tensor) -> Tensor:
    """Torch's theta, between -1 and 1 and (x, y), of a window between 0 and 1 and (row, column)."""
    linear = window[:, :, :2]
    # fraction = (t + 1) / 2 on both sides: t_out = linear t_in + (linear 1 + 2 shift - 1)
    shift = linear.sum(dim=2) + 2.0 * window[:, :, 2] - 1.0
    theta = torch.cat([linear, shift.unsqueeze(-1)], dim=2)
    return theta[:, [1, 0]][:, :, [1, 0, 2]]


LEAST_SIDE = 0.05


@dataclass(frozen=True)
class Cascade:
    """Sup+UBM (Jimenez-Sanchez 2018, section II-B): the predicted box is cut out and classified.

    Its weights are those of two trained runs (`sightline.training.assemble`): `localiser.` and `classifier.` hold
    exactly what the two configs build.

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
        """Refuse margins that eat the box, and a square without pixels."""
        require_sizes(roi_px=self.roi_px)
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
        window = build_window(self._widen_to_square(box, images.shape[2] / images.shape[3]))
        size = (self.roi_px, self.roi_px) if self.roi_px else (images.shape[2], images.shape[3])
        seen: Evidence = self.classifier(crop_windows(images, window, size))
        evidence = place_evidence(seen, window)
        # the box is what the localiser said, without the margin
        return Evidence(evidence.logits, evidence.maps, {**evidence.extras, "box": box}, window)

    def _widen_to_square(self, box: Tensor, rows_per_column: float) -> Tensor:
        """The square about a box [b, 4], widened; a box with no sense left becomes a small one, inside the image."""
        # fractions of rows and columns are the same length only in a square image
        height, width = box[:, 2] * rows_per_column, box[:, 3]
        side = (torch.maximum(height, width) * (1.0 + 2.0 * self.margin)).clamp(LEAST_SIDE, 2.0)
        centre = box[:, :2].clamp(0.0, 1.0)
        return torch.stack([centre[:, 0], centre[:, 1], side / rows_per_column, side], dim=1)


@dataclass(frozen=True)
class SecondLook:
    """A network that looks again: the picture reduced, then the crop around its map's peak at the view's resolution.

    Both answer: the logit is the mean of the two (a product of experts), so both learn from the label, and guidance
    is of the whole picture's map. The idea of Shen 2021 (GMIC), with one crop, whose place has no gradient there
    either; GMIC crops several and joins features.

    Attributes:
        whole: sees the picture and says where to look.
        crop: sees the crop; None: the network that saw the picture, with the same weights.
        localiser_px: side that the picture is first seen at; None: that of the view.
        roi_px: side of the square crop, in pixels of the view: as it is, not resized.
        column: class whose map says where.
    """

    whole: ClassMapModel = field(default_factory=ClassMapModel)
    crop: ClassMapModel | None = None
    localiser_px: int | None = None
    roi_px: int = 256
    column: int = 1

    def __post_init__(self) -> None:
        """Refuse crops and classes that are none."""
        require_sizes(localiser_px=self.localiser_px)
        if self.whole.deep_maps or (self.crop is not None and self.crop.deep_maps):
            raise RecipeError("A second look guides one depth of the whole picture's maps.", "Set deep_maps to false.")
        if self.roi_px < 32 or self.column < 0:
            raise RecipeError(
                f"A second look needs roi_px of 32 or more and a column of 0 or more; got {self.roi_px}, {self.column}."
            )

    def without_weights(self) -> SecondLook:
        """The same architecture with nothing to load."""
        crop = None if self.crop is None else self.crop.without_weights()
        return replace(self, whole=self.whole.without_weights(), crop=crop)

    def build(self, n_classes: int) -> SecondLookNetwork:
        """The network."""
        if self.column >= n_classes:
            raise RecipeError(
                f"column {self.column} is none of {count_noun(n_classes, 'class', 'classes')}.",
                "Name the finding's position.",
            )
        return SecondLookNetwork(self, n_classes)


class SecondLookNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])`: the mean of both answers, and the whole picture's maps.

    Extras: `attention`, each cell's share of the whole picture's part of the logit; `look` [b, 4], the crop (centre
    row, centre column, height, width as fractions of the image); `whole_logits` and `crop_logits`. Submodules are
    `whole` and, with weights of its own, `crop`.
    """

    def __init__(self, config: SecondLook, n_classes: int) -> None:
        """One network, or two."""
        super().__init__()
        self.localiser_px = config.localiser_px
        self.roi_px = config.roi_px
        self.column = config.column
        self.whole = config.whole.build(n_classes)
        self.crop: nn.Module | None = None if config.crop is None else config.crop.build(n_classes)

    def forward(self, images: Tensor) -> Evidence:
        """Look, cut out, look again."""
        first: Evidence = self.whole(resize_square(images, self.localiser_px))
        assert first.maps is not None
        rows, columns = images.shape[2:]
        side = min(self.roi_px, rows, columns)
        window = _place_window(_find_peak(first.maps[:, self.column].detach()), side, (rows, columns))
        seen = self.whole if self.crop is None else self.crop
        second: Evidence = seen(crop_windows(images, window.to(images.device), (side, side)))
        extras = {
            "attention": first.extras["attention"] / 2.0,
            "look": bound_window(window),
            "whole_logits": first.logits,
            "crop_logits": second.logits,
        }
        return Evidence((first.logits + second.logits) / 2.0, first.maps, extras)


def _find_peak(maps: Tensor) -> Tensor:
    """Middle of the (first) highest cell of maps [b, h, w], as fractions [b, 2] of rows and columns."""
    rows, columns = maps.shape[1:]
    best = maps.flatten(1).argmax(dim=1)
    cells = torch.stack([torch.div(best, columns, rounding_mode="floor"), best % columns], dim=1)
    return (cells.float() + 0.5) / torch.tensor([rows, columns], device=maps.device, dtype=torch.float32)


def _place_window(middle: Tensor, side: int, shape: tuple[int, int]) -> Tensor:
    """Windows [b, 2, 3] of squares of `side` whole pixels about middles [b, 2], moved to lie inside the image."""
    size = torch.tensor(shape, device=middle.device, dtype=torch.float32)
    start = (middle * size - side / 2.0).round().clamp(min=0.0).minimum(size - side)
    return torch.cat([torch.diag_embed((side / size).expand(len(middle), 2)), (start / size)[:, :, None]], dim=2)
