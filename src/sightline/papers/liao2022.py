"""Liao et al. 2022, CNN attention guidance for improved orthopedics radiographic fracture classification.

Claim: a class map that is trained to lie on the region a human marked classifies better, with a scribble as good as a
mask. Every row of Tables III and IV, of supplements I and II and of the CUB-200 table of the released code, by name,
with the printed value beside it, and one table of ours for data sets whose findings are marked (FracAtlas).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sightline.cohorts.regions import RegionChoice
from sightline.cohorts.transforms import View
from sightline.guidance.map_norm import L1_PROFILES, L2_PROFILES, MapNorm
from sightline.guidance.spatial_nll import PROFILES
from sightline.lab.optimise import Sgd
from sightline.lab.recipe import Recipe
from sightline.lab.schedules import LinearDecay, StepDecay
from sightline.lab.table import Published, Row, Table
from sightline.models.attention import PyramidAttention, ResidualAttention, SelfAttention
from sightline.models.backbones import Backbone
from sightline.models.class_maps import ClassMapModel
from sightline.models.pools import MeanPool, SoftmaxPool
from sightline.papers.liao2022_published import CUB200, SUPPLEMENT1, SUPPLEMENT2, TABLE3_S512, TABLE3_S768, TABLE4
from sightline.region import Style

Profile = Literal["paper", "official_code", "recommended"]
STYLES: dict[str, Style] = {"scribble": "scribble", "bbox": "box", "segm": "mask"}
ATTENTIONS: dict[str, ResidualAttention | SelfAttention | PyramidAttention] = {
    "residual attention": ResidualAttention(),
    "self attention": SelfAttention(),
    "pyramid attention": PyramidAttention(),
}


def base_recipe(profile: Profile = "recommended", size: int = 512, backbone: str = "resnet50") -> Recipe:
    """The recipe all rows share (section V): ResNet-50, SGD, 100 epochs, 1e-3 to 1e-5, last epoch, train + val."""
    return Recipe(
        title="unguided",
        model=ClassMapModel(backbone=Backbone(name=backbone, weights="imagenet"), pool=MeanPool()),
        view=View(size=size, crop_area=(0.8, 1.0), flip_chance=0.5, rotation_deg=30.0),
        optimiser=Sgd(momentum=0.9, weight_decay=5e-4),
        schedule=LinearDecay(1e-3, 1e-5),
        epochs=100,
        batch_size=16 if size < 768 else 8,
        train_on=("train", "val"),
    )


def attended(recipe: Recipe) -> Recipe:
    """Softmax pooling instead of the mean: the row with lambda = 0, which is not the baseline (equation 5)."""
    return replace(recipe, title="softmax pooling", model=replace(_model(recipe), pool=SoftmaxPool()))


def guided(recipe: Recipe, weight: float, style: Style = "mask", profile: Profile = "recommended") -> Recipe:
    """Softmax pooling with the guidance of equation 6."""
    if weight == 0.0:
        return attended(recipe)
    return replace(
        attended(recipe),
        title=f"guided {weight:g} {style}",
        guidance=PROFILES[profile],
        weight=weight,
        regions=RegionChoice(style=style, role="focus", classes="all"),
    )


def normed(recipe: Recipe, norm: Literal[1, 2], weight: float, profile: Profile = "recommended") -> Recipe:
    """L1 or L2 penalty in place of the guidance; on the softmax, as printed, the L1 row has no gradient at all."""
    penalty = (L1_PROFILES if norm == 1 else L2_PROFILES).get(profile, MapNorm(norm=norm))
    return replace(attended(recipe), title=f"L{norm} {weight:g}", guidance=penalty, weight=weight)


def with_attention(recipe: Recipe, name: str) -> Recipe:
    """An attention module between backbone and class maps."""
    return replace(recipe, title=name, model=replace(_model(recipe), attention=ATTENTIONS[name]))


def _model(recipe: Recipe) -> ClassMapModel:
    assert isinstance(recipe.model, ClassMapModel)
    return recipe.model


def _rows(
    base: Recipe,
    published: dict[str, dict[str, Published]],
    *,
    prefix: str = "",
    profile: Profile,
    l1: float | None,
    l2: float | None,
    weights: tuple[float, ...],
    attentions: bool = True,
    pooling_row: bool = True,
) -> list[Row]:
    """Baseline, penalties, attention modules, lambda = 0 and lambda x style."""
    reference = f"{prefix}baseline"
    made: list[tuple[str, Recipe, str, str]] = [("baseline", replace(base, title="unguided"), "baseline", "")]
    if l1 is not None:
        made.append((f"L1 {l1:g}", normed(base, 1, l1, profile), "penalty", ""))
    if l2 is not None:
        made.append((f"L2 {l2:g}", normed(base, 2, l2, profile), "penalty", ""))
    if attentions:
        made += [(name, with_attention(base, name), "attention module", "") for name in ATTENTIONS]
    if pooling_row:
        made.append(("guided 0", attended(base), "softmax pooling", "0"))
    for weight in weights:
        for word, style in STYLES.items():
            made.append((f"guided {weight:g} {word}", guided(base, weight, style, profile), word, f"{weight:g}"))
    return [
        Row(
            name=prefix + name,
            recipe=recipe,
            reference=None if prefix + name == reference else reference,
            published=published.get(name, {}),
            group=group,
            weight_label=label,
        )
        for name, recipe, group, label in made
    ]


def table3(profile: Profile = "recommended") -> Table:
    """Table III: scaphoid, two input sizes, nineteen rows each."""
    rows: list[Row] = []
    for size, published in ((512, TABLE3_S512), (768, TABLE3_S768)):
        rows += _rows(
            base_recipe(profile, size), published, prefix=f"s-{size} ", profile=profile, l1=1e-8, l2=1e-8,
            weights=(0.01, 0.1, 1.0, 5.0),
        )  # fmt: skip
    return Table(
        "liao2022/table3",
        "Table III: focus regions on one bone, two input sizes",
        tuple(rows),
        "Printed values are the paper's scaphoid data (closed). `guided 0` changes only the pooling.",
    )


def table4(profile: Profile = "recommended") -> Table:
    """Table IV: ankle, class re-weighting, test and external test."""
    base = replace(base_recipe(profile), reweight="inverse_frequency")
    rows = _rows(base, TABLE4, profile=profile, l1=1e-9, l2=1e-8, weights=(0.1, 0.5, 1.0))
    return Table(
        "liao2022/table4",
        "Table IV: class re-weighting, test and external test",
        tuple(rows),
        "Printed values are the paper's ankle data (closed); the printed external cells at 0.5 are shifted in the "
        "text and left out. Give --external for a second hospital.",
    )


def supplement1(profile: Profile = "recommended") -> Table:
    """Supplement I: ResNet-101."""
    base = base_recipe(profile, backbone="resnet101")
    ankle = replace(base, reweight="inverse_frequency")
    rows = _rows(
        base, SUPPLEMENT1, prefix="scaphoid ", profile=profile, l1=None, l2=None, weights=(0.01, 0.1, 1.0, 5.0),
        attentions=False, pooling_row=False,
    ) + _rows(
        ankle, SUPPLEMENT1, prefix="ankle ", profile=profile, l1=None, l2=None, weights=(0.1, 0.5, 1.0),
        attentions=False, pooling_row=False,
    )  # fmt: skip
    return Table(
        "liao2022/supplement1",
        "Supplement I: ResNet-101",
        tuple(rows),
        "The supplement's values are not printed in the paper's text.",
    )


def supplement2(profile: Profile = "recommended") -> Table:
    """Supplement II: attention modules with guidance."""
    rows: list[Row] = []
    for task, weight, reweight in (("scaphoid", 1.0, False), ("ankle", 0.5, True)):
        base = base_recipe(profile)
        if reweight:
            base = replace(base, reweight="inverse_frequency")
        for name in ATTENTIONS:
            reference = f"{task} {name}"
            rows.append(Row(reference, with_attention(base, name), group=name))
            for word, style in STYLES.items():
                recipe = with_attention(guided(base, weight, style, profile), name)
                row = f"{task} {name} guided {weight:g} {word}"
                rows.append(
                    Row(row, recipe, reference, SUPPLEMENT2.get(row, {}), group=name, weight_label=f"{weight:g}")
                )
    return Table(
        "liao2022/supplement2",
        "Supplement II: attention modules with guidance",
        tuple(rows),
        "Each module is compared with itself, unguided. The supplement's values are not printed in the paper's text.",
    )


def cub200(profile: Profile = "recommended") -> Table:
    """The released code's table: CUB-200-2011, few images a class, discs of 50 px at the visible parts."""
    base = replace(
        base_recipe(profile, 448),
        view=View(size=448, crop_area=(0.08, 1.0), flip_chance=0.5, rotation_deg=0.0),
        optimiser=Sgd(momentum=0.9, weight_decay=1e-4),
        schedule=StepDecay(1e-3, 0.1, 30),
        epochs=95,
        batch_size=32,
        train_on=("train",),
    )
    rows: list[Row] = []
    for n in (5, 10, 15, 20):
        names = {"original": base, "guided 0": attended(base)}
        names |= {f"guided {w:g}": guided(base, w, "mask", profile) for w in (0.001, 0.01, 0.1)}
        for name, recipe in names.items():
            key = f"n={n} {name}"
            rows.append(
                Row(key, recipe, None if name == "original" else f"n={n} original", CUB200.get(key, {}),
                    train_per_class=n, group=f"n={n}", weight_label="" if name == "original" else name.split(" ")[1])
            )  # fmt: skip
    return Table(
        "liao2022/cub200",
        "CUB-200-2011 with few images a class",
        tuple(rows),
        "Top-1 accuracy. The released table has no `guided 0`: its gain mixes the pooling and the guidance.",
        metrics=("image-wise accuracy",),
    )
