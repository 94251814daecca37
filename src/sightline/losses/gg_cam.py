"""GG-CAM: cross-entropy plus the error between the true class's map and a radiologist's gaze (Zhu 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, interpolate

from sightline.errors import GeometryError, RecipeError
from sightline.structures.evidence import Batch
from sightline.structures.protocols import Term


@dataclass(frozen=True)
class GazeGuided:
    """L = L_sm / (2 s_sm^2) + L_ce / s_ce^2 + ln(1 + s_sm) + ln(1 + s_ce), L_sm = mean (sigmoid(a Omega) - Psi)^2.

    Psi is the density of gaze, reduced to the map's grid and scaled to a maximum of 1; Omega the map of each guided
    class (equations 9 to 11). Images without gaze only have the cross-entropy.

    Attributes:
        weights: of the two terms: `learned` as s_sm and s_ce (equation 11), or `fixed`: L_ce + weight * L_sm.
        weight: for `fixed`.
        sigma_map: initial s_sm. The paper starts at 1e-9 and less, which is a curriculum: gaze first, classes last.
        sigma_ce: initial s_ce.
        rescale: divide the gradient of the network's weights by the larger of the two loss weights and 1, which hardly
            affects Adam; s_sm and s_ce are float64 and get the gradient as printed. Without it, at 1.4e-11, the squared
            gradients in Adam's state overflow float32 and the parameter never changes again. The value of the loss is
            equation 11 either way.
        gain: initial a.
        learn_gain: whether a is learned.
        squash: the sigmoid of equation 10; False compares the map itself, as the released code in effect does.
        sample: how gaze is reduced to the map's grid: the mean over each cell (`area`), or one `point` per cell as in
            the released code.
        guide: guide the maps that the recipe's gaze names (`given`), or that of each image's `predicted` class.

    Example:
        >>> import torch
        >>> from sightline.structures.evidence import Batch
        >>> mark, guided = torch.ones(1, 1, 4, 4), torch.tensor([[False, True]])
        >>> batch = Batch(torch.zeros(1, 1, 4, 4), torch.tensor([1]), mark, guided, frames=(), case_ids=("a",))
        >>> out = {"logits": torch.zeros(1, 2), "maps": torch.zeros(1, 2, 4, 4)}
        >>> loss = GazeGuided().build()  # its three numbers are parameters: give them to the optimiser too
        >>> len(list(loss.parameters())), bool(loss(out, batch, torch.ones(2), ()).value > 0)
        (3, True)
    """

    needs_boxes: ClassVar[bool] = False
    needs_regions: ClassVar[bool] = True
    takes_shares: ClassVar[bool] = True
    explainer: ClassVar[None] = None
    independent: ClassVar[bool] = False

    weights: Literal["learned", "fixed"] = "learned"
    weight: float = 1.0
    sigma_map: float = 1.0
    sigma_ce: float = 1.0
    rescale: bool = True
    gain: float = 1.0
    learn_gain: bool = True
    squash: bool = True
    sample: Literal["area", "point"] = "area"
    guide: Literal["given", "predicted"] = "given"

    def __post_init__(self) -> None:
        """Refuse invalid numbers."""
        if not (self.sigma_map > 0.0 and self.sigma_ce > 0.0 and self.gain > 0.0 and self.weight >= 0.0):
            raise RecipeError(
                f"GazeGuided needs positive sigma_map, sigma_ce and gain, and weight >= 0; got {self.sigma_map}, "
                f"{self.sigma_ce}, {self.gain} and {self.weight}."
            )

    def build(self) -> GazeGuidedLoss:
        """Build the loss module with a, s_sm and s_ce as parameters."""
        return GazeGuidedLoss(self)

    def __call__(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """Compute the loss at the initial values of a, s_sm and s_ce."""
        return self.build().to(out["logits"].device)(out, batch, class_weights, history)


class GazeGuidedLoss(nn.Module):
    """The loss as a module; `log_gain`, `log_sigma_map` and `log_sigma_ce` are parameters if they are learned."""

    log_gain: Tensor
    log_sigma_map: Tensor
    log_sigma_ce: Tensor

    def __init__(self, config: GazeGuided) -> None:
        """Create the parameters at their initial values."""
        super().__init__()
        self.config = config
        for name, value, learned in (
            ("log_gain", config.gain, config.learn_gain and config.squash),
            ("log_sigma_map", config.sigma_map, config.weights == "learned"),
            ("log_sigma_ce", config.sigma_ce, config.weights == "learned"),
        ):
            number = torch.tensor(math.log(value), dtype=torch.float64 if config.rescale else torch.float32)
            if learned:
                self.register_parameter(name, nn.Parameter(number))
            else:
                self.register_buffer(name, number)

    def forward(
        self, out: Mapping[str, Tensor], batch: Batch, class_weights: Tensor, history: Sequence[Mapping[str, Any]]
    ) -> Term:
        """Compute the loss.

        Args:
            out: `logits` [b, k] and `maps` [b, k, h, w].
            batch: labels, targets [b, 1 or k, *s] in 0..1, and guided [b, k].
            class_weights: [k], of the cross-entropy.
            history: not used.

        Raises:
            GeometryError: no maps, or gaze of another number of images.
        """
        with torch.autocast(out["logits"].device.type, enabled=False):
            losses = cross_entropy(out["logits"].float(), batch.labels, reduction="none")
            classification = (losses * class_weights[batch.labels]).mean().double()
            error, maps = self.map_error(out, batch)
            value = self._combine(classification, error, maps)
            of_images, of_maps = (float(share.detach()) for share in self._split_value(classification, error))
        parts = {"cross_entropy": float(classification.detach()), "map_error": float(error.detach())}
        means = {"map_error": ((parts["map_error"], maps),)}
        parts |= {name: math.exp(float(logarithm.detach())) for name, logarithm in self._report_numbers().items()}
        return Term(
            value,
            len(batch),
            parts=parts,
            means=((of_images, len(batch)), (of_maps, maps)),
            means_of_parts=means,
        )

    def map_error(self, out: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, int]:
        """L_sm, the mean over guided maps and their cells (equation 9), and the number of guided maps."""
        maps = out.get("maps")
        if maps is None or maps.ndim != 4:
            raise GeometryError("GazeGuided needs class maps of two axes.", "Use cam_layer or class_map_model.")
        nothing = maps.sum().double() * 0.0
        if batch.targets is None:
            return nothing, 0
        guided = batch.guided.to(maps.device)
        if self.config.guide == "predicted":
            named = torch.nn.functional.one_hot(out["logits"].argmax(dim=1), maps.shape[1]).bool()
            guided = guided.any(dim=1, keepdim=True) & named
        if not bool(guided.any()):
            return nothing, 0
        gaze = self.gaze_on_map(batch.targets.to(maps.device).float(), maps.shape[-2:])
        omega = maps.float()
        if self.config.squash:
            omega = torch.sigmoid(self.log_gain.exp().float() * omega)
        errors = ((omega - gaze) ** 2).flatten(2).mean(dim=-1)
        return errors[guided].mean().double(), int(guided.sum())

    def gaze_on_map(self, targets: Tensor, shape: Sequence[int]) -> Tensor:
        """Psi: targets [b, 1 or k, *s] on the map's grid, the maximum of each of them 1 (algorithm 1, step 5)."""
        size = (int(shape[0]), int(shape[1]))
        if self.config.sample == "area":
            gaze = adaptive_avg_pool2d(targets, size)
        else:
            gaze = interpolate(targets, size=size, mode="nearest")
        top = gaze.amax(dim=(2, 3), keepdim=True)
        return torch.where(top > 0.0, gaze / top.clamp(min=1e-12), torch.zeros_like(gaze))

    def _split_value(self, classification: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """What all images say in the value, and what guided maps say."""
        if self.config.weights == "fixed":
            return classification, self.config.weight * error
        for_ce, for_map = self._compute_weights()
        of_images, of_maps = self._compute_penalties()
        return for_ce * classification + of_images, for_map * error + of_maps

    def _compute_weights(self) -> tuple[Tensor, Tensor]:
        """What the uncertainties make of the classification and of the map error (equation 11)."""
        return torch.exp(-2.0 * self.log_sigma_ce), 0.5 * torch.exp(-2.0 * self.log_sigma_map)

    def _compute_penalties(self) -> tuple[Tensor, Tensor]:
        """What keeps the uncertainties of classification and of maps small (equation 11)."""
        return torch.log1p(self.log_sigma_ce.exp()), torch.log1p(self.log_sigma_map.exp())

    def _combine(self, classification: Tensor, error: Tensor, maps: int) -> Tensor:
        if self.config.weights == "fixed":
            return classification + self.config.weight * error
        for_ce, for_map = self._compute_weights()
        of_images, of_maps = self._compute_penalties()
        # a batch without gaze says nothing about how much gaze should weigh
        for_map, penalty = (for_map, of_images + of_maps) if maps else (for_ce * 0.0, of_images)
        printed = for_ce * classification + for_map * error + penalty
        if not self.config.rescale:
            return printed
        scale = torch.maximum(for_ce, for_map).detach().clamp(min=1.0)
        for_network = (for_ce.detach() * classification + for_map.detach() * error) / scale
        for_sigmas = for_ce * classification.detach() + for_map * error.detach() + penalty
        learns = for_network + for_sigmas
        # what is reported, watched and selected by is equation 11; the rescaled sum gives the gradient alone
        return printed.detach() + (learns - learns.detach())

    def _report_numbers(self) -> dict[str, Tensor]:
        """Logarithms of what takes part."""
        numbers = {"gain": self.log_gain} if self.config.squash else {}
        if self.config.weights == "learned":
            numbers |= {"sigma_map": self.log_sigma_map, "sigma_ce": self.log_sigma_ce}
        return numbers
