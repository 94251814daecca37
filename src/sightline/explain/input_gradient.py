"""The gradient of a class score with respect to the image, under one of the rules for activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from sightline.errors import RunError
from sightline.evidence import Batch
from sightline.explain.layer_gradients import class_indices, images_of, score_gradients
from sightline.explain.lean_layers import leanly, leanly_if_possible
from sightline.explain.quiet_pass import exact, in_precision, quiet_pass
from sightline.explain.quiet_pass import uncompiled as uncompiled
from sightline.explain.rules import Rewired, Rule, rewire
from sightline.explain.unreached import holds, unreached

Reduce = Literal["positive_mean", "absolute_sum", "absolute_mean", "signed_sum"]


@dataclass(frozen=True)
class InputGradient:
    """d z_c / d image: plain (Simonyan 2014), guided (Springenberg 2015) or deconvolution (Zeiler and Fergus 2014).

    What Watanabe 2022 calls heatmap generators. With `create_graph` the map is differentiable with respect to the
    weights, and a loss on it trains them (their sets 1 to 3).

    Attributes:
        rule: how gradients pass activations (`rules.rewire`).
        reduce: from the channels of the image to one map: the mean of what speaks for the class (`positive_mean`), the
            sum or mean of absolute values, or the sum with its sign.
        gates: whether activations inside squeeze gates follow the rule too.
        deconvolution_slope: whether deconvolution keeps the slope of smooth activations.
        batch_norm: in this pass, normalisation uses its running statistics (`eval`), so that a gradient is one image's
            own, or does what the model's mode says (`as_is`): in training an image's gradient then holds parts of
            others', and the running statistics move once more.
        dropout: in this pass everything else is in evaluation mode (`off`), or in the mode the model is in (`as_is`).
    """

    rule: Rule = "vanilla"
    reduce: Reduce = "positive_mean"
    gates: Literal["plain", "rewired"] = "plain"
    deconvolution_slope: bool = False
    batch_norm: Literal["eval", "as_is"] = "eval"
    dropout: Literal["off", "as_is"] = "off"

    def __call__(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> Tensor:
        """Maps [b, n, *s] on the image's own grid, in float32 or wider. Gradients stored on weights stay as they are.

        Raises:
            GeometryError: no such class, or logits that do not depend on the image.
            RunError: weights in 16 bits, a scripted model, or activations that the rule does not reach.
        """
        maps, rewired = self.explained(model, batch, classes, create_graph=create_graph)
        refuse_unreached(self.rule, rewired.escaped)
        return maps

    def explained(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Rewired]:
        """The maps, and what the rule met on the way; activations it did not reach are told, not refused."""
        gradients, rewired = self.gradients(model, batch, classes, create_graph=create_graph)
        with exact(gradients.device, create_graph):
            return reduced(gradients, self.reduce), rewired

    def gradients(
        self, model: nn.Module, batch: Batch | Tensor, classes: Sequence[int] | Tensor, *, create_graph: bool = False
    ) -> tuple[Tensor, Rewired]:
        """The gradients before channels are joined, [b, n, c, *s], and what the rule met."""
        images = images_of(batch)
        still, off = self.batch_norm == "eval", self.dropout == "off"
        with quiet_pass(model, images.device, batch_norm=still, dropout=off, weights=create_graph) as network:
            x = in_precision(images, network, full=True).requires_grad_()

            def run(lean: bool) -> tuple[Tensor, Rewired]:
                with (
                    rewire(self.rule, gates=self.gates, deconvolution_slope=self.deconvolution_slope) as rewired,
                    leanly(rewired) if lean else nullcontext(),
                ):
                    # a decoder is not on the way from image to score
                    return getattr(network, "classify", network)(x).logits, rewired

            logits, rewired = leanly_if_possible(run)
            if self.rule != "vanilla":
                rewired.escaped = unreached(logits, rewired.gates)
            refuse_reentrant(logits)
            chosen = logits.gather(1, class_indices(classes, logits))
            gradients = score_gradients(chosen, x, "the image", create_graph=create_graph)
            # what the map's own gradient passes later follows no rule
            rewired.ruling = False
            return gradients.transpose(0, 1), rewired


def refuse_unreached(rule: Rule, escaped: Counter[str]) -> None:
    """Refuse a map of which only a part followed the rule.

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
    """Refuse checkpoints of the old kind, which torch cannot differentiate with respect to the image alone.

    Raises:
        RunError: the graph holds one.
    """
    if holds(logits, "CheckpointFunction"):
        raise RunError(
            "A part of this network is checkpointed with use_reentrant=True: its gradients cannot be asked for alone.",
            "Checkpoint with use_reentrant=False, or explain without checkpoints.",
        )


def reduced(gradients: Tensor, how: Reduce) -> Tensor:
    """One map [b, n, *s] of gradients [b, n, c, *s]."""
    if how == "positive_mean":
        return gradients.clamp(min=0.0).mean(dim=2)
    if how == "absolute_sum":
        return gradients.abs().sum(dim=2)
    return gradients.abs().mean(dim=2) if how == "absolute_mean" else gradients.sum(dim=2)
