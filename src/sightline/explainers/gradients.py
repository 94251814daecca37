"""The gradient of a class score with respect to the image, with a backpropagation rule for activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sightline.errors import RecipeError, RunError
from sightline.explainers.backprop_rules.coverage import find_unruled, has_step
from sightline.explainers.backprop_rules.rules import Rule, RuleRecord, rewire
from sightline.explainers.bn_folding.mode import bn_folding_mode, try_bn_folding
from sightline.explainers.cam import weigh_channels
from sightline.explainers.frozen_eval import cast_to_precision, exact_arithmetic, frozen_eval
from sightline.explainers.layer_gradients import (
    catch_output,
    compute_score_gradients,
    expand_class_indices,
    get_images,
    take_last,
)
from sightline.structures.evidence import Batch, get_logits
from sightline.structures.protocols import Explainer, find_scorer

Reduce = Literal["positive_mean", "absolute_sum", "absolute_mean", "signed_sum", "square_sum"]


@dataclass(frozen=True)
class InputGradient:
    """d z_c / d image: plain (Simonyan 2014), guided (Springenberg 2015) or deconvolution (Zeiler and Fergus 2014).

    Watanabe 2022 calls these heatmap generators. With `create_graph` the map is differentiable with respect to the
    weights, so a loss on the map trains them (their sets 1 to 3).

    Attributes:
        rule: how gradients pass activations (`rules.rewire`).
        reduce: how the image's channels become one map: the mean of the positive parts (`positive_mean`), the sum or
            mean of absolute values, the signed sum, or the sum of squares.
        gates: whether activations inside squeeze-and-excitation gates follow the rule too.
        deconvolution_slope: whether deconvolution keeps the slope of smooth activations.
        batch_norm: `eval`: normalisation uses its running statistics in this pass, so that a gradient depends on one
            image only; `as_is`: it follows the model's mode. In training mode an image's gradient then depends on the
            other images, and the running statistics are updated once more.
        dropout: `off`: everything else is in evaluation mode in this pass; `as_is`: it follows the model's mode.
        score: what is differentiated: the class's `logit`, or the sum of the `log_probabilities` of all classes, which
            is the same for each class (Ross 2017, equation 1, right for the right reasons).

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(4, 2),
        ... )
        >>> InputGradient(rule="guided")(network, torch.rand(3, 1, 8, 8), classes=[1]).shape
        torch.Size([3, 1, 8, 8])
    """

    rule: Rule = "vanilla"
    reduce: Reduce = "positive_mean"
    gates: Literal["plain", "rewired"] = "plain"
    deconvolution_slope: bool = False
    batch_norm: Literal["eval", "as_is"] = "eval"
    dropout: Literal["off", "as_is"] = "off"
    score: Literal["logit", "log_probabilities"] = field(default="logit", metadata={"since": "0.2"})

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's own grid, in float32 or wider. Stored gradients are not changed.

        Raises:
            GeometryError: no such class, or logits that do not depend on the image.
            RunError: weights in 16 bits, a scripted model, or activations that the rule cannot reach.
        """
        maps, rewired = self.explain_by_rule(model, batch, classes, create_graph=create_graph)
        refuse_unreached(self.rule, rewired.escaped)
        return maps

    def explain_by_rule(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, RuleRecord]:
        """The maps, and a record of the activations met; unreached activations are reported, not refused."""
        gradients, rewired = self.gradients(model, batch, classes, create_graph=create_graph)
        with exact_arithmetic(gradients.device, create_graph):
            return reduce_channels(gradients, self.reduce), rewired

    def gradients(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, RuleRecord]:
        """The gradients before channels are reduced, [b, n, c, *s], and a record of the activations met."""
        images = get_images(batch)
        still, off = self.batch_norm == "eval", self.dropout == "off"
        with frozen_eval(model, images.device, batch_norm=still, dropout=off, weights=create_graph) as network:
            x = cast_to_precision(images, network, full=True).requires_grad_()

            def run(lean: bool) -> tuple[Tensor, RuleRecord]:
                with (
                    rewire(self.rule, gates=self.gates, deconvolution_slope=self.deconvolution_slope) as rewired,
                    bn_folding_mode(rewired) if lean else nullcontext(),
                ):
                    # a decoder is not on the way from image to score
                    return get_logits(find_scorer(network)(x)), rewired

            logits, rewired = try_bn_folding(run)
            if self.rule != "vanilla":
                rewired.escaped = find_unruled(logits, rewired.gates)
            refuse_reentrant(logits)
            chosen = logits.gather(1, expand_class_indices(classes, logits))
            n = chosen.shape[1]
            if self.score == "log_probabilities":
                chosen = logits.log_softmax(dim=1).sum(dim=1, keepdim=True)
            gradients = compute_score_gradients(chosen, x, "the image", create_graph=create_graph)
            gradients = gradients.expand(n, *gradients.shape[1:])
            # what the map's own gradient passes later follows no rule
            rewired.ruling = False
            return gradients.transpose(0, 1), rewired


def refuse_unreached(rule: Rule, escaped: Counter[str]) -> None:
    """Refuse a map if some activations did not follow the rule.

    Raises:
        RunError: activations that the rule did not reach.
    """
    if escaped:
        what = ", ".join(f"{n} {kind}" for kind, n in sorted(escaped.items()))
        raise RunError(
            f"The rule {rule} does not reach every activation of this network: {what}.",
            "Use torch's own activations, unscripted and without checkpoints, or the rule vanilla.",
        )


def refuse_reentrant(logits: Tensor) -> None:
    """Refuse reentrant checkpointing, which torch cannot differentiate with respect to the image alone.

    Raises:
        RunError: the graph contains one.
    """
    if has_step(logits, "CheckpointFunction"):
        raise RunError(
            "A part of this network is checkpointed with use_reentrant=True: its gradients cannot be asked for alone.",
            "Checkpoint with use_reentrant=False, or explain without checkpoints.",
        )


def reduce_channels(gradients: Tensor, how: Reduce) -> Tensor:
    """One map [b, n, *s] of gradients [b, n, c, *s]."""
    if how == "positive_mean":
        return gradients.clamp(min=0.0).mean(dim=2)
    if how == "square_sum":
        return gradients.square().sum(dim=2)
    if how == "absolute_sum":
        return gradients.abs().sum(dim=2)
    return gradients.abs().mean(dim=2) if how == "absolute_mean" else gradients.sum(dim=2)


@dataclass(frozen=True)
class GuidedGradCAM:
    """The product of Grad-CAM, enlarged to the image, and the image's gradient under a rule.

    Attributes:
        layer: the layer for Grad-CAM.
        rule: the backpropagation rule for the gradient.
        reduce: how the channels of the product become one map.
        enlarge: how Grad-CAM is enlarged; `nearest` as in Captum, `linear` as in the paper.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(4, 2),
        ... )
        >>> GuidedGradCAM(layer="1")(network, torch.rand(3, 1, 8, 8), classes=[1]).shape
        torch.Size([3, 1, 8, 8])
    """

    layer: str = "attention"
    rule: Rule = "guided"
    reduce: Reduce = "positive_mean"
    enlarge: str = "linear"

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's grid.

        Raises:
            RecipeError, GeometryError, RunError: as `GradCAM` and `InputGradient`.
        """
        images = get_images(batch)
        with frozen_eval(model, images.device, weights=create_graph) as network:
            x = cast_to_precision(images, network, full=True).requires_grad_()

            # one pass serves both: the layer's gradient follows no rule, the image's does
            def run(lean: bool) -> tuple[Tensor, tuple[list[Tensor], RuleRecord]]:
                with (
                    catch_output(network, self.layer) as caught,
                    rewire(self.rule) as rewired,
                    bn_folding_mode(rewired) if lean else nullcontext(),
                ):
                    return get_logits(network(x)), (caught, rewired)

            # with weights in the graph, a gradient with respect to the layer alone must not pass them by
            logits, (caught, rewired) = run(False) if create_graph else try_bn_folding(run)
            if self.rule != "vanilla":
                refuse_unreached(self.rule, find_unruled(logits, rewired.gates))
            refuse_reentrant(logits)
            activation, name = take_last(caught, self.layer), f"layer {self.layer!r}"
            chosen = logits.gather(1, expand_class_indices(classes, logits))
            rewired.ruling = False
            by_layer = compute_score_gradients(chosen, activation, name, create_graph=create_graph, keep=True)
            rewired.ruling = True
            fine = compute_score_gradients(chosen, x, "the image", create_graph=create_graph).transpose(0, 1)
            rewired.ruling = False
        size = fine.shape[3:]
        linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        with exact_arithmetic(x.device, create_graph):
            coarse = weigh_channels(activation, by_layer).relu()
            if self.enlarge == "nearest":
                weights = interpolate(coarse, size=size, mode="nearest")
            else:
                weights = interpolate(coarse, size=size, mode=linear, align_corners=False)
            return reduce_channels(fine * weights.unsqueeze(2), self.reduce)


@dataclass(frozen=True)
class SmoothGrad:
    """Averages any explainer over Gaussian noise.

    Attributes:
        explainer: whose maps are averaged.
        samples: number of noisy copies.
        noise: standard deviation of the noise, as a share of each image's range of values.
        seed: of the noise, which is the same for every image, so that a map does not depend on the image's place in the
            batch; torch's own generators are left alone.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(4, 2),
        ... )
        >>> SmoothGrad(InputGradient(), samples=4)(network, torch.rand(3, 1, 8, 8), classes=[1]).shape
        torch.Size([3, 1, 8, 8])
    """

    explainer: Explainer = field(default_factory=InputGradient)
    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse invalid settings."""
        if self.samples < 1 or self.noise < 0.0:
            raise RecipeError(f"SmoothGrad needs samples >= 1 and noise >= 0; got {self.samples}, {self.noise}.")

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *m], the mean of the explainer's maps over the samples."""
        images = get_images(batch)
        generator = torch.Generator().manual_seed(self.seed)
        spread = images.flatten(1).amax(1) - images.flatten(1).amin(1)
        scale = (self.noise * spread).view(-1, *[1] * (images.ndim - 1))
        total: Tensor | None = None
        for _ in range(self.samples):
            noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float32).to(images)
            noisy = images + scale * noise
            given = replace(batch, images=noisy) if isinstance(batch, Batch) else noisy
            maps = self.explainer(model, given, classes, create_graph=create_graph)
            with exact_arithmetic(images.device, create_graph):
                total = maps / self.samples if total is None else total + maps / self.samples
        assert total is not None
        return total
