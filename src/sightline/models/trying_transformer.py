"""A spatial transformer that learns where to look from windows it tries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sightline.evidence import Evidence, window_of_box
from sightline.models.alexnet import AlexNet
from sightline.models.backbones import Backbone
from sightline.models.box_regression import reduced
from sightline.models.class_maps import ClassMapModel
from sightline.models.global_pooling import GlobalPooling
from sightline.models.heat_places import HeatPlaces
from sightline.models.transformer import within
from sightline.models.tries import Tries
from sightline.models.warp import crop_windows


@dataclass(frozen=True)
class TryingTransformer:
    """Scale and shifts as in a-STN (`SpatialTransformer`), learned from the classes alone, but not from the warp.

    The window's centre is the mean of a heat map, its scale an exponential (`HeatPlaces`), and it starts at the whole
    image. What moves it are windows that are tried (`Tries`, with the objective `TriedWindows`).

    Attributes:
        classifier: what sees the window.
        localiser: feature network of the localisation network; four stages leave it cells at stride 16.
        tries: how windows are tried; None: learn from the gradient of the warp, with the cross-entropy.
        localiser_px: side that the localisation network sees the image at; None: as it is.
        roi_px: side that the window is sampled at; None: that of the image.
        hidden: channels of the localisation network's hidden layer.
    """

    classifier: ClassMapModel | GlobalPooling = field(default_factory=ClassMapModel)
    localiser: Backbone | AlexNet = field(default_factory=AlexNet)
    tries: Tries | None = field(default_factory=Tries)
    localiser_px: int | None = None
    roi_px: int | None = None
    hidden: int = 64

    def without_weights(self) -> TryingTransformer:
        """The same architecture with nothing to load."""
        return replace(self, classifier=self.classifier.without_weights(), localiser=self.localiser.without_weights())

    def build(self, n_classes: int) -> TryingNetwork:
        """The network."""
        return TryingNetwork(self, n_classes)


class PlaceNetwork(nn.Module):
    """The localisation network: images to (log scale, centre row, centre column) [b, 3]; the whole image at first."""

    def __init__(self, config: TryingTransformer) -> None:
        """Random but for the features' own weights and the last layers' zeros."""
        super().__init__()
        self.input_px = config.localiser_px
        self.trunk = config.localiser.build()
        self.head = HeatPlaces(self.trunk.channels_out, config.hidden)

    def forward(self, images: Tensor) -> Tensor:
        """What is said of images, [b, 3]."""
        features = self.trunk(reduced(images, self.input_px))
        with torch.autocast(features.device.type, enabled=False):
            said: Tensor = self.head(features.float())
        return said


class TryingNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives the classifier's Evidence, its window, and `box` [b, 4].

    In training its logits are of a tried window, and `roaming_logits`, `tried_logits` and `tried_log_density` are
    added for the loss. Submodules are `localiser` and `classifier`.
    """

    def __init__(self, config: TryingTransformer, n_classes: int) -> None:
        """Both networks, random but for their own weights."""
        super().__init__()
        self.roi_px = config.roi_px
        self.tries = config.tries
        self.localiser = PlaceNetwork(config)
        self.classifier = config.classifier.build(n_classes)

    def forward(self, images: Tensor) -> Evidence:
        """Look, then classify."""
        said = self.localiser(images)
        if self.training and self.tries is not None:
            return self._try(images, said, self.tries)
        return within(self.classifier(self._seen(images, said)), square_windows(said))

    def _seen(self, images: Tensor, said: Tensor) -> Tensor:
        size = (self.roi_px, self.roi_px) if self.roi_px else (images.shape[2], images.shape[3])
        return crop_windows(images, square_windows(said), size)

    def _try(self, images: Tensor, said: Tensor, tries: Tries) -> Evidence:
        tried = tries.around(said)
        with torch.no_grad():
            # judged as at test time: by running statistics, so that a window's loss is not its batch's
            self.classifier.eval()
            judged = [self.classifier(self._seen(images, window)).logits for window in tried]
            self.classifier.train()
        shown = torch.cat([self._seen(images, tried[0]), self._seen(images, tries.roaming(said))])
        logits, roaming = self.classifier(shown).logits.chunk(2)
        extras = {
            "roaming_logits": roaming,
            "tried_logits": torch.stack(judged, dim=1),
            "tried_log_density": tries.log_density(tried, said),
        }
        return within(Evidence(logits, None, extras), square_windows(said))


def square_windows(said: Tensor) -> Tensor:
    """Windows [b, 2, 3] of (log scale, centre row, centre column) [b, 3]."""
    scale = said[:, :1].exp()
    return window_of_box(torch.cat([said[:, 1:], scale, scale], dim=1))
