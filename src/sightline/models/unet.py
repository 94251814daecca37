"""A U-Net that classifies: logits from the deepest features, one map from the decoder (Watanabe 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from sightline.errors import RecipeError, count_noun
from sightline.models.backbones import Backbone, Trunk
from sightline.models.cam_classifiers import ClassMaps
from sightline.structures.evidence import Evidence


@dataclass(frozen=True)
class UNet:
    """An encoder with a classifier on it, and the decoder of segmentation-models-pytorch.

    The published encoder is EfficientNet-b0 up to its 320 channels: `efficientnet_b0` cut after five stages. It has no
    ReLU, for which guided back-propagation and deconvolution are defined; with `resnet34` both are what their papers
    say.

    Attributes:
        encoder: the feature network.
        decoder: whether there is a decoder; without, the row "no segmentation".
        widths: channels of the decoder's blocks, from coarse to fine; as many as the encoder has strides.
        dropout: share of the pooled features dropped before the classifier.
    """

    encoder: Backbone = field(default_factory=lambda: Backbone("efficientnet_b0", stages=5))
    decoder: bool = True
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse shares and widths that are none."""
        if not 0.0 <= self.dropout < 1.0 or not self.widths or min(self.widths) < 1:
            raise RecipeError(f"A U-Net needs 0 <= dropout < 1 and widths >= 1; got {self.dropout} and {self.widths}.")

    def without_weights(self) -> UNet:
        """The same architecture with nothing to load."""
        return replace(self, encoder=self.encoder.without_weights())

    def build(self, n_classes: int) -> UNetNetwork:
        """The network.

        Raises:
            RecipeError: an encoder whose stages timm does not show, or another number of strides than widths.
        """
        if n_classes < 1:
            raise RecipeError(f"A classifier needs at least one class; got {n_classes}.")
        return UNetNetwork(self, n_classes)


class UNetNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])`: logits, class maps of the encoder, and `decoder` [b, 1, h, w].

    The class maps are the classifier applied to every cell of the deepest features, so that their mean is the logit
    (at inference; dropout acts on the pooled features). The decoder's map is a logit a pixel. Submodules are `trunk`,
    `attention` (the deepest features, for Grad-CAM), `head`, `decoder` and `paint`.
    """

    def __init__(self, config: UNet, n_classes: int) -> None:
        """Random decoder and classifier on the encoder's weights."""
        super().__init__()
        self.trunk = config.encoder.build()
        self.attention = nn.Identity()
        self.head = ClassMaps(self.trunk.channels_out, n_classes)
        self.dropout = nn.Dropout(config.dropout)
        self.decoder: UnetDecoder | None = None
        self.chosen: tuple[int, ...] = ()
        if config.decoder:
            self.chosen, channels = _find_strides(self.trunk)
            if len(config.widths) != len(channels) + 1:
                raise RecipeError(
                    f"The encoder {config.encoder.name!r} halves the image {len(channels) + 1} times, but the decoder "
                    f"has {count_noun(len(config.widths), 'width')}.",
                    "Give one width a stride.",
                )
            every = [self.trunk.channels, *channels, self.trunk.channels_out]
            self.decoder = UnetDecoder(every, config.widths, len(config.widths))
            self.paint = nn.Conv2d(config.widths[-1], 1, 3, padding=1)

    def forward(self, images: Tensor) -> Evidence:
        """Evidence with `decoder` among its extras, where there is one."""
        if self.decoder is None:
            return self.classify(images)
        deepest, stages = self.trunk.levels(images)
        deepest = self.attention(deepest)
        painted = self.paint(self.decoder([images, *(stages[i] for i in self.chosen), deepest]))
        logits, maps = self._classify(deepest)
        return Evidence(logits, maps, {"decoder": painted})

    def classify(self, images: Tensor) -> Evidence:
        """Evidence without the decoder: all that logits depend on, and all that a gradient of them has to run."""
        return Evidence(*self._classify(self.attention(self.trunk(images))))

    def _classify(self, deepest: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.head(deepest)
        with torch.autocast(deepest.device.type, enabled=False):
            pooled = deepest.to(self.head.linear.weight.dtype).flatten(2).mean(-1)
            return self.head.linear(self.dropout(pooled)), maps


@torch.no_grad()
def _find_strides(trunk: Trunk) -> tuple[tuple[int, ...], list[int]]:
    """The deepest stage at each stride finer than the last, fine to coarse: positions and channels."""
    size, training = 128, trunk.training
    _, stages = trunk.eval().levels(torch.zeros(1, trunk.channels, size, size))
    trunk.train(training)
    at: dict[int, int] = {}
    for index, stage in enumerate(stages):
        stride = size // int(stage.shape[-1])
        if stride < trunk.stride:
            at[stride] = index
    chosen = tuple(at[stride] for stride in sorted(at))
    return chosen, [int(stages[i].shape[1]) for i in chosen]
