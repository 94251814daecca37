"""AlexNet's convolutions as a trunk (Krizhevsky 2012): the localisation network of Jimenez-Sanchez 2018, Table I."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import alexnet

from sightline.errors import GeometryError, RecipeError, UnreadableFile

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AlexNet:
    """torchvision's AlexNet without its classifier: 256 channels, 32 image pixels a cell.

    Attributes:
        weights: None for random ones, or a .safetensors file of torchvision's AlexNet. Loaded without pickle.
    """

    weights: str | None = None

    def without_weights(self) -> AlexNet:
        """The same with random weights."""
        return replace(self, weights=None)

    def build(self) -> AlexNetTrunk:
        """The network.

        Raises:
            RecipeError: weights that are not AlexNet's.
            UnreadableFile: a weights file that is none.
        """
        trunk = AlexNetTrunk()
        if self.weights is not None:
            _load(trunk.net, self.weights)
        return trunk


class AlexNetTrunk(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives features [b, 256, h', w']; images of at least 63 px."""

    channels = 3
    channels_out = 256
    stride = 32
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        """Random weights, drawn as torchvision draws them."""
        super().__init__()
        self.net = alexnet(weights=None).features
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to what the weights expect; one grey channel becomes three."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise GeometryError(f"Images must be [b, 1 or 3, h, w] for AlexNet; got {tuple(images.shape)}.")
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Features [b, 256, h', w'].

        Raises:
            GeometryError: images too small for its five reductions.
        """
        if min(images.shape[2:]) < 63:
            raise GeometryError(f"AlexNet needs images of at least 63 px; got {tuple(images.shape[2:])}.")
        features: Tensor = self.net(self.normalise(images))
        return features


def _load(net: nn.Module, place: str) -> None:
    try:
        stored = load_file(place)
    except (OSError, SafetensorError) as error:
        raise UnreadableFile(f"{place} is no readable safetensors file: {error}.", "Fetch it again.") from error
    own = {key.removeprefix("features."): value for key, value in stored.items() if key.startswith("features.")}
    wanted = net.state_dict()
    if own.keys() != wanted.keys() or any(own[key].shape != wanted[key].shape for key in wanted):
        raise RecipeError(f"Weights {place} are not those of torchvision's AlexNet.", "Give its own file, or null.")
    net.load_state_dict(own)
