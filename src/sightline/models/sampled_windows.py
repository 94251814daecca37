"""A spatial transformer that learns from sampled windows, without the gradient through the crop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.models.backbones import AlexNet, Backbone
from sightline.models.box_regression import require_sizes, resize_square
from sightline.models.cam_classifiers import ClassMapModel, GlobalPooling
from sightline.models.spatial_transformer import crop_windows, place_evidence
from sightline.structures.evidence import Evidence, build_window


@dataclass(frozen=True)
class WindowSampling:
    """Windows sampled around the predicted one, plus one random crop.

    The gradient of sampled pixels says which way brightness falls, not where the bone is. What a window is worth can be
    sampled: the classifier judges several, and the localisation network learns from which were better (the score
    function of Williams 1992; for places to look at, Mnih et al. 2014, Recurrent Models of Visual Attention).
    The loss that does so is `SampledWindowLoss`.

    The classifier itself trains on one of them, and on the random crop, so that it knows every place and scale
    before the localisation network asks. None of it happens in evaluation.

    Attributes:
        windows: sampled per image, in pairs on both sides of the predicted one (antithetic), so an even number.
        zoom_sd: standard deviation of the natural logarithm of their scale.
        shift_sd: standard deviation of their centre along each axis, as a share of the side of the predicted
            window: a closer look is varied in smaller steps.
        roam: least scale of the random crop; its logarithm is uniform from there to 0, its centre uniform where
            the window lies inside the image. 1 is always the whole image.
    """

    windows: int = 4
    zoom_sd: float = 0.25
    shift_sd: float = 0.12
    roam: float = 0.35

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing is sampled."""
        if self.windows < 2 or self.windows % 2:
            raise RecipeError(f"Windows are sampled in pairs; got {self.windows}.", "Try 4.")
        if not (0.0 < self.zoom_sd < math.inf and 0.0 < self.shift_sd < math.inf and 0.0 < self.roam <= 1.0):
            raise RecipeError(
                f"window_sampling needs zoom_sd > 0, shift_sd > 0 and 0 < roam <= 1; got {self.zoom_sd}, "
                f"{self.shift_sd}, {self.roam}."
            )

    def sample(self, parameters: Tensor) -> Tensor:
        """Windows [t, b, 3] as (log scale, centre row, centre column) around the predicted [b, 3]; detached."""
        half = torch.randn(self.windows // 2, *parameters.shape, device=parameters.device, dtype=parameters.dtype)
        return parameters.detach() + self._compute_spread(parameters) * torch.cat([half, -half])

    def log_density(self, tried: Tensor, parameters: Tensor) -> Tensor:
        """Logarithm of the density of windows [t, b, 3] given the predicted one [b, 3], but for a constant: [b, t].

        Differentiable in the predicted window, their middle; that their spread follows it is left out.
        """
        return -0.5 * ((tried - parameters) / self._compute_spread(parameters)).square().sum(dim=-1).T

    def sample_roaming(self, parameters: Tensor) -> Tensor:
        """One random crop an image, [b, 3] in the same terms."""
        chance = torch.rand(len(parameters), 3, device=parameters.device, dtype=parameters.dtype)
        log_scale = math.log(self.roam) * chance[:, :1]
        return torch.cat([log_scale, 0.5 + (chance[:, 1:] - 0.5) * (1.0 - log_scale.exp())], dim=1)

    def _compute_spread(self, parameters: Tensor) -> Tensor:
        side = parameters.detach()[:, :1].exp()
        return torch.cat([torch.full_like(side, self.zoom_sd), self.shift_sd * side, self.shift_sd * side], dim=1)


class HeatmapRegressionHead(nn.Module):
    """Features [b, c, h, w] to (log scale, centre row, centre column) [b, 3], fractions of the image.

    The centre is the expectation of a softmax over cells (Levine et al. 2016, spatial softmax; Nibali et al. 2018,
    DSNT), so that it is always inside and every cell pulls at it; the scale is linear in the mean of the features.
    Starts at the whole image: all cells alike, log scale 0.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        """A hidden layer; the last ones zero."""
        super().__init__()
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.heat = nn.Conv2d(hidden, 1, 1)
        self.log_scale = nn.Linear(hidden, 1)
        for last in (self.heat, self.log_scale):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Log scale and centre, [b, 3]."""
        seen = self.hidden(features).relu()
        rows, columns = seen.shape[2:]
        share = self.heat(seen).flatten(2).softmax(dim=2).view(-1, rows, columns)
        row = (share.sum(dim=2) * _compute_middles(rows, share)).sum(dim=1)
        column = (share.sum(dim=1) * _compute_middles(columns, share)).sum(dim=1)
        log_scale = self.log_scale(seen.mean(dim=(2, 3)))
        return torch.cat([log_scale, row[:, None], column[:, None]], dim=1)


def _compute_middles(cells: int, like: Tensor) -> Tensor:
    return (torch.arange(cells, device=like.device, dtype=like.dtype) + 0.5) / cells


@dataclass(frozen=True)
class SampledWindowTransformer:
    """Scale and shifts as in a-STN (`SpatialTransformer`), learned from the classes alone, but not from the warp.

    The window's centre is the mean of a heat map, its scale an exponential (`HeatmapRegressionHead`), and it starts
    at the whole image. What moves it are sampled windows (`WindowSampling`, with the objective `SampledWindowLoss`).

    Attributes:
        classifier: what sees the window.
        localiser: feature network of the localisation network; four stages leave it cells at stride 16.
        sampling: how windows are sampled; None: learn from the gradient of the warp, with the cross-entropy.
        localiser_px: side that the localisation network sees the image at; None: as it is.
        roi_px: side that the window is sampled at; None: that of the image.
        hidden: channels of the localisation network's hidden layer.
    """

    classifier: ClassMapModel | GlobalPooling = field(default_factory=ClassMapModel)
    localiser: Backbone | AlexNet = field(default_factory=AlexNet)
    sampling: WindowSampling | None = field(default_factory=WindowSampling)
    localiser_px: int | None = None
    roi_px: int | None = None
    hidden: int = 64

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        require_sizes(localiser_px=self.localiser_px, roi_px=self.roi_px, hidden=self.hidden)

    def without_weights(self) -> SampledWindowTransformer:
        """The same architecture with nothing to load."""
        return replace(self, classifier=self.classifier.without_weights(), localiser=self.localiser.without_weights())

    def build(self, n_classes: int) -> SampledWindowNetwork:
        """The network."""
        return SampledWindowNetwork(self, n_classes)


class LocalisationNetwork(nn.Module):
    """The localisation network: images to (log scale, centre row, centre column) [b, 3]; the whole image at first."""

    def __init__(self, config: SampledWindowTransformer) -> None:
        """Random but for the features' own weights and the last layers' zeros."""
        super().__init__()
        self.input_px = config.localiser_px
        self.trunk = config.localiser.build()
        self.head = HeatmapRegressionHead(self.trunk.channels_out, config.hidden)

    def forward(self, images: Tensor) -> Tensor:
        """Predicted windows of images, [b, 3]."""
        features = self.trunk(resize_square(images, self.input_px))
        with torch.autocast(features.device.type, enabled=False):
            parameters: Tensor = self.head(features.float())
        return parameters


class SampledWindowNetwork(nn.Module):
    """`forward(images [b, c, h, w] in [0, 1])` gives the classifier's Evidence, its window, and `box` [b, 4].

    In training its logits are of a sampled window, and `roaming_logits`, `tried_logits` and `tried_log_density` are
    added for the loss. Submodules are `localiser` and `classifier`.
    """

    def __init__(self, config: SampledWindowTransformer, n_classes: int) -> None:
        """Both networks, random but for their own weights."""
        super().__init__()
        self.roi_px = config.roi_px
        self.sampling = config.sampling
        self.localiser = LocalisationNetwork(config)
        self.classifier = config.classifier.build(n_classes)

    def forward(self, images: Tensor) -> Evidence:
        """Look, then classify."""
        parameters = self.localiser(images)
        if self.training and self.sampling is not None:
            return self._sample(images, parameters, self.sampling)
        return place_evidence(self.classifier(self._look_through(images, parameters)), build_square_windows(parameters))

    def _look_through(self, images: Tensor, parameters: Tensor) -> Tensor:
        size = (self.roi_px, self.roi_px) if self.roi_px else (images.shape[2], images.shape[3])
        return crop_windows(images, build_square_windows(parameters), size)

    def _sample(self, images: Tensor, parameters: Tensor, sampling: WindowSampling) -> Evidence:
        tried = sampling.sample(parameters)
        with torch.no_grad():
            # judged as at test time: by running statistics, so that a window's loss is not its batch's
            self.classifier.eval()
            judged = [self.classifier(self._look_through(images, window)).logits for window in tried]
            self.classifier.train()
        shown = torch.cat(
            [self._look_through(images, tried[0]), self._look_through(images, sampling.sample_roaming(parameters))]
        )
        logits, roaming = self.classifier(shown).logits.chunk(2)
        extras = {
            "roaming_logits": roaming,
            "tried_logits": torch.stack(judged, dim=1),
            "tried_log_density": sampling.log_density(tried, parameters),
        }
        return place_evidence(Evidence(logits, None, extras), build_square_windows(parameters))


def build_square_windows(parameters: Tensor) -> Tensor:
    """Windows [b, 2, 3] of (log scale, centre row, centre column) [b, 3]."""
    scale = parameters[:, :1].exp()
    return build_window(torch.cat([parameters[:, 1:], scale, scale], dim=1))
