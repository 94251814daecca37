"""SmoothGrad: the mean of an explainer's maps over noisy copies of the image (Smilkov 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sightline.errors import RecipeError
from sightline.evidence import Batch
from sightline.explain.cam import Explainer
from sightline.explain.input_gradient import InputGradient
from sightline.explain.layer_gradients import images_of
from sightline.explain.quiet_pass import exact


@dataclass(frozen=True)
class SmoothGrad:
    """Averages any explainer over Gaussian noise.

    Attributes:
        explainer: whose maps.
        samples: noisy copies.
        noise: standard deviation of the noise, as a share of each image's range of values.
        seed: of the noise; torch's own generators are left alone.
    """

    explainer: Explainer = field(default_factory=InputGradient)
    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.samples < 1 or self.noise < 0.0:
            raise RecipeError(f"SmoothGrad needs samples >= 1 and noise >= 0; got {self.samples}, {self.noise}.")

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m], the mean over the samples; as the explainer's otherwise."""
        images = images_of(batch)
        generator = torch.Generator().manual_seed(self.seed)
        spread = images.flatten(1).amax(1) - images.flatten(1).amin(1)
        scale = (self.noise * spread).view(-1, *[1] * (images.ndim - 1))
        total: Tensor | None = None
        for _ in range(self.samples):
            noise = torch.randn(images.shape, generator=generator, dtype=torch.float32).to(images)
            noisy = images + scale * noise
            given = replace(batch, images=noisy) if isinstance(batch, Batch) else noisy
            maps = self.explainer(model, given, classes, create_graph=create_graph)
            with exact(images.device, create_graph):
                total = maps / self.samples if total is None else total + maps / self.samples
        assert total is not None
        return total
