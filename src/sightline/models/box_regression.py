"""A network that says one box: supervised localisation (Jimenez-Sanchez 2018, section II-B)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.errors import RecipeError
from sightline.models.backbones import AlexNet, Backbone
from sightline.structures.evidence import Evidence


@dataclass(frozen=True)
class BoxRegression:
    """Features, kept on a coarse grid so that places survive, then two linear layers to the numbers of a box.

    The outputs are not bounded, as printed. They start at the middle of the image with half its side.

    Attributes:
        trunk: the feature network; AlexNet as printed, or any backbone.
        square: say centre and one side, as printed (t_r, t_c, s); else height and width apart.
        grid: cells a side that features are averaged to. AlexNet's own is 6; a mean over all would lose the place.
        hidden: units of the layer between.
        dropout: share dropped before each linear layer.
        input_px: side that the image is reduced to first, or None.
    """

    trunk: Backbone | AlexNet = field(default_factory=AlexNet)
    square: bool = True
    grid: int = 6
    hidden: int = 256
    dropout: float = 0.0
    input_px: int | None = None

    # says places, no classes
    classifies = False

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        require_sizes(input_px=self.input_px)
        if self.grid < 1 or self.hidden < 1 or not 0.0 <= self.dropout < 1.0:
            raise RecipeError(
                f"Box regression needs grid >= 1, hidden >= 1 and 0 <= dropout < 1; got {self.grid}, {self.hidden}, "
                f"{self.dropout}."
            )

    def without_weights(self) -> BoxRegression:
        """The same architecture with nothing to load."""
        return replace(self, trunk=self.trunk.without_weights())

    def build(self, n_classes: int) -> BoxNetwork:
        """The network; classes only give the shape of the logits, which say nothing."""
        return BoxNetwork(self, n_classes)


class BoxNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives Evidence with `box` [b, 4] and logits of zeros."""

    def __init__(self, config: BoxRegression, n_classes: int) -> None:
        """Random head; its last layer starts at the box in the middle."""
        super().__init__()
        self.n_classes = n_classes
        self.input_px = config.input_px
        self.trunk = config.trunk.build()
        self.head = build_regression_head(
            self.trunk.channels_out, config.grid, config.hidden, config.dropout, 3 if config.square else 4
        )
        with torch.no_grad():
            self.head[-1].bias.fill_(0.5)  # type: ignore[operator]

    def forward(self, images: Tensor) -> Evidence:
        """The box: centre row, centre column, height and width, fractions of the image."""
        features = self.trunk(resize_square(images, self.input_px))
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.float())
        box = torch.cat([logits, logits[:, 2:]], dim=1) if logits.shape[1] == 3 else logits
        return Evidence(logits=logits.new_zeros(len(logits), self.n_classes), extras={"box": box})


def require_sizes(**sizes: int | None) -> None:
    """Refuse sides and widths below 1; None is none of its own.

    Raises:
        RecipeError: naming the field.
    """
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise RecipeError(f"{name} must be 1 or more; got {size}.", "Try 64, or null where none is needed.")


def build_regression_head(channels: int, grid: int, hidden: int, dropout: float, outputs: int) -> nn.Sequential:
    """Cells averaged to grid x grid, flattened, a hidden layer, and a last layer that starts at zero."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(grid),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels * grid * grid, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        last,
    )


def resize_square(images: Tensor, side: int | None) -> Tensor:
    """Images [b, c, h, w] resized to a square (bilinear, smoothed where reduced); as they are for None."""
    if side is None or tuple(images.shape[2:]) == (side, side):
        return images
    return resize_images(images, (side, side))


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [b, c, h, w] resized to rows and columns (bilinear, smoothed where reduced), in their own precision."""
    wide = convert_to_full_precision(images)
    return functional.interpolate(wide, size=size, mode="bilinear", align_corners=False, antialias=True).to(
        images.dtype
    )


def convert_to_full_precision(images: Tensor) -> Tensor:
    """Images as float32, or float64 where they are: in mixed precision they may come in half of it, which torch does
    not smooth on CPUs, and in which places are pixels off.
    """
    return images if images.dtype == torch.float64 else images.float()
