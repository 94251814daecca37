"""FracAtlas: what guidance gives on real radiographs whose fractures are marked (a table of ours, not the paper's)."""

from __future__ import annotations

from dataclasses import replace

from sightline.cohorts.regions import RegionChoice
from sightline.cohorts.transforms import View
from sightline.guidance.spatial_nll import SpatialNLL
from sightline.lab.optimise import AdamW, LayerRates
from sightline.lab.recipe import Recipe
from sightline.lab.schedules import CosineDecay
from sightline.lab.table import Row, Table
from sightline.models.backbones import Backbone
from sightline.models.class_maps import ClassMapModel
from sightline.models.fusion import Fusion
from sightline.models.pools import MeanPool, SoftmaxPool
from sightline.papers.liao2022 import Profile


def unguided() -> Recipe:
    """MobileNetV2 with class maps at stride 8 (a light feature pyramid), its first three stages frozen."""
    backbone = Backbone(name="mobilenetv2_100", weights="imagenet", frozen_stages=3)
    return Recipe(
        title="unguided",
        model=ClassMapModel(backbone=backbone, pool=MeanPool(), fusion=Fusion(stride=8, channels=64)),
        view=View(size=384, crop_area=(0.7, 1.0), rotation_deg=20.0, contrast=0.2, brightness=0.08),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(1e-3, warm_up=0.08),
        rates=LayerRates({"trunk.": 0.5}),
        epochs=3,
        batch_size=16,
        average=0.99,
    )


def attended() -> Recipe:
    """Softmax pooling alone."""
    return replace(unguided(), title="softmax pooling", model=replace(_model(), pool=SoftmaxPool()))


def guided(weight: float = 0.3) -> Recipe:
    """The fracture map of fractured images guided by the fractures' boxes."""
    return replace(
        attended(),
        title=f"guided {weight:g}",
        guidance=SpatialNLL(resolution="map"),
        weight=weight,
        regions=RegionChoice(style="box", role="finding", classes="tagged"),
    )


def _model() -> ClassMapModel:
    model = unguided().model
    assert isinstance(model, ClassMapModel)
    return model


def table(profile: Profile = "recommended") -> Table:
    """Unguided, softmax pooling alone, and guided at several weights."""
    rows = [
        Row("unguided", unguided(), group="baseline"),
        Row("softmax pooling", attended(), "unguided", group="pooling"),
    ]
    rows += [Row(f"guided {w:g}", guided(w), "unguided", group="box", weight_label=f"{w:g}") for w in (0.1, 0.3, 1.0)]
    return Table(
        "liao2022/fracatlas",
        "FracAtlas: fracture or not, guided by the fractures' boxes",
        tuple(rows),
        "The fracture map of fractured training images is guided; images without a fracture guide nothing.",
    )
