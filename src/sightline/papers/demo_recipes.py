"""Recipes small enough for a CPU and a fresh clone without weights: what the demo and a first try use."""

from __future__ import annotations

from dataclasses import replace

from sightline.cohorts.transforms import View
from sightline.lab.optimise import AdamW
from sightline.lab.recipe import Recipe
from sightline.lab.schedules import CosineDecay
from sightline.models.backbones import Backbone
from sightline.models.class_maps import ClassMapModel
from sightline.models.pools import MeanPool
from sightline.papers import liao2022


def unguided() -> Recipe:
    """A ResNet of 0.4 million weights, from random ones, at 192 px with output stride 16, mean pooling."""
    return Recipe(
        title="unguided",
        model=ClassMapModel(backbone=Backbone(name="test_resnet", output_stride=16), pool=MeanPool()),
        view=View(size=192, crop_area=(0.8, 1.0), rotation_deg=15.0, contrast=0.2, brightness=0.1),
        optimiser=AdamW(weight_decay=1e-2),
        schedule=CosineDecay(3e-3),
        epochs=12,
        batch_size=16,
    )


def guided(weight: float = 1.0) -> Recipe:
    """The same with softmax pooling, guided by the bone's mask."""
    return replace(liao2022.guided(unguided(), weight, "mask"), title=f"guided {weight:g}")
