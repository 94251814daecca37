"""Windows that a transformer tries while it trains: how its localisation network learns without the warp's gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sightline.errors import RecipeError


@dataclass(frozen=True)
class Tries:
    """Windows drawn around the one that is said, and one that roams over the picture.

    The gradient of sampled pixels says which way brightness falls, not where the bone is. What a window is worth can be
    tried: the classifier judges several, and the localisation network learns from which were better (the score
    function of Williams 1992; for places to look at, Mnih et al. 2014, Recurrent Models of Visual Attention).
    The loss that does so is `TriedWindows`.

    The classifier itself trains on one of them, and on a window that roams, so that it knows every place and scale
    before the localisation network asks. None of it happens in evaluation.

    Attributes:
        windows: tried per image, in pairs to both sides of what is said (antithetic), so an even number.
        zoom_sd: standard deviation of the natural logarithm of their scale.
        shift_sd: standard deviation of their centre along each axis, as a share of the side of the window that is
            said: a closer look is tried in smaller steps.
        roam: least scale of the window that roams; its logarithm is uniform from there to 0, its centre uniform where
            the window lies inside the image. 1 is always the whole image.
    """

    windows: int = 4
    zoom_sd: float = 0.25
    shift_sd: float = 0.12
    roam: float = 0.35

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing is tried."""
        if self.windows < 2 or self.windows % 2:
            raise RecipeError(f"Windows are tried in pairs; got {self.windows}.", "Try 4.")
        if not (0.0 < self.zoom_sd < math.inf and 0.0 < self.shift_sd < math.inf and 0.0 < self.roam <= 1.0):
            raise RecipeError(
                f"Tries need zoom_sd > 0, shift_sd > 0 and 0 < roam <= 1; got {self.zoom_sd}, {self.shift_sd}, "
                f"{self.roam}."
            )

    def around(self, said: Tensor) -> Tensor:
        """Windows tried, [t, b, 3] as (log scale, centre row, centre column), around what is said, [b, 3]; detached."""
        half = torch.randn(self.windows // 2, *said.shape, device=said.device, dtype=said.dtype)
        return said.detach() + self._spread(said) * torch.cat([half, -half])

    def log_density(self, tried: Tensor, said: Tensor) -> Tensor:
        """Logarithm of the density of tried windows [t, b, 3] given what is said [b, 3], but for a constant: [b, t].

        Differentiable in what is said as the middle of the windows; that their spread follows it is left out.
        """
        return -0.5 * ((tried - said) / self._spread(said)).square().sum(dim=-1).T

    def roaming(self, said: Tensor) -> Tensor:
        """One window an image that roams, [b, 3] in the same terms."""
        chance = torch.rand(len(said), 3, device=said.device, dtype=said.dtype)
        log_scale = math.log(self.roam) * chance[:, :1]
        return torch.cat([log_scale, 0.5 + (chance[:, 1:] - 0.5) * (1.0 - log_scale.exp())], dim=1)

    def _spread(self, said: Tensor) -> Tensor:
        side = said.detach()[:, :1].exp()
        return torch.cat([torch.full_like(side, self.zoom_sd), self.shift_sd * side, self.shift_sd * side], dim=1)
