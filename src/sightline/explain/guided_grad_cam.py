"""Guided Grad-CAM: where Grad-CAM looks, in the detail of a gradient of the image (Selvaraju 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import interpolate

from sightline.evidence import Batch
from sightline.explain.cam import weighed
from sightline.explain.input_gradient import Reduce, reduced, refuse_reentrant, refuse_unreached
from sightline.explain.layer_gradients import caught_output, class_indices, images_of, last_of, score_gradients
from sightline.explain.lean_layers import leanly, leanly_if_possible
from sightline.explain.quiet_pass import exact, in_precision, quiet_pass
from sightline.explain.rules import Rewired, Rule, rewire
from sightline.explain.unreached import unreached


@dataclass(frozen=True)
class GuidedGradCAM:
    """The product of Grad-CAM, enlarged to the image, and the image's gradient under a rule.

    Attributes:
        layer: of Grad-CAM.
        rule: of the gradient.
        reduce: from the channels of the product to one map.
        enlarge: how Grad-CAM is enlarged; `nearest` as Captum does, `linear` as the paper.
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
        images = images_of(batch)
        with quiet_pass(model, images.device, weights=create_graph) as network:
            x = in_precision(images, network, full=True).requires_grad_()

            # one pass serves both: the layer's gradient follows no rule, the image's does
            def run(lean: bool) -> tuple[Tensor, tuple[list[Tensor], Rewired]]:
                with (
                    caught_output(network, self.layer) as caught,
                    rewire(self.rule) as rewired,
                    leanly(rewired) if lean else nullcontext(),
                ):
                    return network(x).logits, (caught, rewired)

            # with weights in the graph, a gradient with respect to the layer alone must not pass them by
            logits, (caught, rewired) = run(False) if create_graph else leanly_if_possible(run)
            if self.rule != "vanilla":
                refuse_unreached(self.rule, unreached(logits, rewired.gates))
            refuse_reentrant(logits)
            activation, name = last_of(caught, self.layer), f"layer {self.layer!r}"
            chosen = logits.gather(1, class_indices(classes, logits))
            rewired.ruling = False
            by_layer = score_gradients(chosen, activation, name, create_graph=create_graph, keep=True)
            rewired.ruling = True
            fine = score_gradients(chosen, x, "the image", create_graph=create_graph).transpose(0, 1)
            rewired.ruling = False
        size = fine.shape[3:]
        linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        with exact(x.device, create_graph):
            coarse = weighed(activation, by_layer).relu()
            if self.enlarge == "nearest":
                weights = interpolate(coarse, size=size, mode="nearest")
            else:
                weights = interpolate(coarse, size=size, mode=linear, align_corners=False)
            return reduced(fine * weights.unsqueeze(2), self.reduce)
