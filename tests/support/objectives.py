"""Objectives that reach outside the network's forward pass: one learns a weight, one looks through an explainer."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.structures.protocols import Term


class LearnedWeight(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(start))

    def forward(self, out, batch, class_weights, history):
        scale = self.log_scale.exp()
        loss = cross_entropy(out["logits"], batch.labels)
        return Term(
            loss * scale + scale**2,
            len(batch),
            parts={"cross_entropy": float(loss.detach()), "scale": float(scale.detach())},
        )


@dataclass(frozen=True)
class Learned:
    start: float = 0.5
    needs_boxes: ClassVar[bool] = False
    needs_regions: ClassVar[bool] = False
    explainer: ClassVar[None] = None
    independent: ClassVar[bool] = False

    def build(self):
        return LearnedWeight(self.start)

    def __call__(self, out, batch, class_weights, history):
        raise AssertionError("the built module is called instead")


@dataclass(frozen=True)
class Explained:
    """Sigmoids, and the image's own map pressed towards nothing."""

    weight: float = 1.0
    explainer: GradCAM | InputGradient = field(default_factory=lambda: GradCAM("trunk", relu=False))
    needs_boxes: ClassVar[bool] = False
    needs_regions: ClassVar[bool] = False
    independent: ClassVar[bool] = True

    def __call__(self, out, batch, class_weights, history):
        truth = one_hot(batch.labels, out["logits"].shape[1]).float()
        loss = binary_cross_entropy_with_logits(out["logits"], truth)
        size = (out["explained"] ** 2).mean()
        return Term(loss + self.weight * size, len(batch), parts={"map_size": float(size.detach())})
