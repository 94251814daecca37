"""FracAtlas: what guidance gives on real radiographs whose fractures are marked (a table of ours, not the paper's)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sightline.data.hard_negatives import HardNegatives
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.data.views.patches import Patches
from sightline.evaluation.tables.engines.self_training import Teaching
from sightline.evaluation.tables.table import Row, Table
from sightline.losses.box_distance import BoxDistance
from sightline.losses.cell_focal import CellFocal
from sightline.losses.normal_contrast import NormalContrast
from sightline.losses.self_transfer import SelfTransferLoss
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.backbones import Backbone
from sightline.models.box_regression import BoxRegression
from sightline.models.cam_classifiers import ClassMapModel, GlobalPooling, Transition
from sightline.models.ensembles import MultiScale
from sightline.models.necks import Fusion
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, SoftmaxPool, TopPool
from sightline.models.self_transfer import SelfTransfer
from sightline.models.spatial_transformer import SpatialTransformer
from sightline.papers.combined import build_ensemble_recipe
from sightline.papers.liao2022 import Profile
from sightline.training.optimization import AdamW, CosineDecay, LayerRates
from sightline.training.recipe import Recipe


def build_unguided_recipe() -> Recipe:
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
        ema_decay=0.99,
    )


def build_softmax_recipe() -> Recipe:
    """Softmax pooling alone."""
    return replace(build_unguided_recipe(), title="softmax pooling", model=replace(_get_model(), pool=SoftmaxPool()))


def build_guided_recipe(weight: float = 0.3) -> Recipe:
    """The fracture map of fractured images guided by the fractures' boxes."""
    return replace(
        build_softmax_recipe(),
        title=f"guided {weight:g}",
        guidance=SpatialNLL(resolution="map"),
        weight=weight,
        regions=RegionChoice(style="box", role="finding", classes="tagged"),
    )


def _get_model() -> ClassMapModel:
    model = build_unguided_recipe().model
    assert isinstance(model, ClassMapModel)
    return model


def build_guidance_table(profile: Profile = "recommended") -> Table:
    """Unguided, softmax pooling alone, and guided at several weights."""
    rows = [
        Row("unguided", build_unguided_recipe(), group="baseline"),
        Row("softmax pooling", build_softmax_recipe(), "unguided", group="pooling"),
    ]
    rows += [
        Row(f"guided {w:g}", build_guided_recipe(w), "unguided", group="box", weight_label=f"{w:g}")
        for w in (0.1, 0.3, 1.0)
    ]
    return Table(
        "liao2022/fracatlas",
        "FracAtlas: fracture or not, guided by the fractures' boxes",
        tuple(rows),
        "The fracture map of fractured training images is guided; images without a fracture guide nothing.",
    )


# epochs of the row that asks whether the others were trained for long enough
LONGER = 12


def build_weak_recipe() -> Recipe:
    """Image labels alone: cells that see little of the picture, and the mean of the highest 2% of them.

    The network ends at stride 16 (MobileNetV2's fourth stage), so that what a cell says has to stand near it; with one
    map for both classes, all evidence is in the map that is looked at.
    """
    backbone = Backbone(name="mobilenetv2_100", weights="imagenet", frozen_stages=3, stages=4)
    return Recipe(
        title="top 2%",
        model=ClassMapModel(backbone=backbone, pool=TopPool(0.02), fusion=Fusion(stride=8, channels=64), one_map=True),
        view=View(size=640, crop_area=(0.7, 1.0), rotation_deg=15.0, contrast=0.2, brightness=0.08),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(1e-3, warm_up=0.06),
        rates=LayerRates({"trunk.": 0.5}),
        epochs=4,
        batch_size=16,
        ema_decay=0.99,
    )


def build_label_recipe() -> Recipe:
    """The same on a backbone with more features at its cells: of all recipes with image labels alone the one that
    points best here (docs/results/localisers.md).
    """
    recipe = build_weak_recipe()
    assert isinstance(recipe.model, ClassMapModel)
    lite = replace(recipe.model.backbone, name="tf_efficientnet_lite2")
    return replace(recipe, title="image labels", model=replace(recipe.model, backbone=lite))


def build_patch_recipe(share: float = 1.0) -> Recipe:
    """Guided by boxes on patches: half a megapixel is never computed to learn what lies on a percent of it.

    Args:
        share: share of the boxes used, by whole patients.
    """
    backbone = Backbone(name="mobilenetv2_100", weights="imagenet", frozen_stages=2)
    return Recipe(
        title="patches",
        model=ClassMapModel(backbone=backbone, pool=SoftmaxPool(), fusion=Fusion(stride=8, channels=96)),
        view=View(
            size=768,
            patches=Patches(size=256, zoom=(0.7, 1.4), around=0.8, per_picture=3),
            rotation_deg=25.0,
            contrast=0.25,
            brightness=0.1,
        ),
        guidance=SpatialNLL(resolution="map"),
        weight=1.0,
        regions=RegionChoice(style="box", role="finding", classes="tagged", share=share),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(1.5e-3, warm_up=0.06),
        rates=LayerRates({"trunk.": 0.5}),
        epochs=3,
        batch_size=16,
        # whatever share of the pictures is marked, patches with and without a fracture are equally frequent
        reweight="oversample",
        ema_decay=0.99,
    )


def build_focal_recipe(share: float = 1.0) -> Recipe:
    """Guided on patches, every cell for itself: the sum of all cells says what is no fracture, and none competes.

    Args:
        share: share of the boxes used, by whole patients.
    """
    recipe = build_patch_recipe(share)
    assert isinstance(recipe.model, ClassMapModel)
    return replace(
        recipe, title="cell focal", model=replace(recipe.model, one_map=True), guidance=CellFocal(), epochs=4
    )


def build_focal_twin() -> Recipe:
    """The same network on patches of the same pictures, as many and as long, told the picture's label alone.

    A patch is told what its picture shows, also where the fracture lies elsewhere: what a network can learn from
    patches without a mark. It costs what `build_focal_recipe` costs but for the loss of the cells.
    """
    recipe = build_focal_recipe()
    patches = Patches(size=256, zoom=(0.7, 1.4), around=0.0, per_picture=3, labels="picture")
    view = replace(recipe.picture_view, patches=patches)
    return replace(recipe, title="patches, image labels", view=view, guidance=None, weight=0.0)


def build_focal_twin_on_whole(pool: MeanPool | LogSumExpPool | TopPool) -> Recipe:
    """The same network on the whole pictures, image labels alone, for as many pixels as the focal one sees.

    Four epochs of three patches of 256 px are 12 / 9 pictures of 768 px each; this one has two.
    """
    recipe = build_focal_recipe()
    assert isinstance(recipe.model, ClassMapModel)
    view = replace(recipe.picture_view, patches=None, crop_area=(0.7, 1.0))
    return replace(
        recipe,
        title="whole, image labels",
        model=replace(recipe.model, pool=pool),
        view=view,
        guidance=None,
        weight=0.0,
        epochs=2,
    )


def build_student_recipe() -> Recipe:
    """On patches whose marks are another network's: those of fractured pictures lie around a mark.

    What lies elsewhere in a fractured picture may be the fracture itself, so it counts for little; what is no fracture
    is learned from pictures without one. The spatial likelihood, under which cells compete, would hold it against the
    map that it finds the fracture beside a mark that is wrong.
    """
    recipe = build_patch_recipe()
    assert isinstance(recipe.model, ClassMapModel)
    return replace(
        recipe,
        title="student",
        model=replace(recipe.model, one_map=True),
        view=replace(recipe.picture_view, patches=Patches(size=256, zoom=(0.7, 1.4), around=1.0, per_picture=3)),
        guidance=CellFocal(elsewhere=0.1),
    )


def _build_first_wing(share: float) -> Recipe:
    recipe = build_guided_recipe(1.0)
    return replace(recipe, regions=replace(recipe.regions, share=share))


def _build_lse_recipe() -> Recipe:
    recipe = build_softmax_recipe()
    assert isinstance(recipe.model, ClassMapModel)
    return replace(recipe, title="LSE pooling", model=replace(recipe.model, pool=LogSumExpPool(r=4.0)))


def _build_box_recipe() -> Recipe:
    """The one box is the largest; a picture with several fractures is told of one of them."""
    return replace(
        build_unguided_recipe(),
        title="box regression",
        model=BoxRegression(trunk=_build_frozen_backbone(), square=False),
        objective=BoxDistance(units="fraction"),
        regions=RegionChoice(style="box", role="finding"),
        epochs=8,
    )


def _build_transformer_recipe() -> Recipe:
    """a-STN: 224 px of the window of a picture at 448 px."""
    base = build_unguided_recipe()
    classifier = ClassMapModel(backbone=_build_frozen_backbone(), pool=MeanPool())
    model = SpatialTransformer(classifier, _build_frozen_backbone(), "similarity", localiser_px=224, roi_px=224)
    rates = LayerRates({"localiser.": 0.1})
    return replace(base, title="a-STN", model=model, view=replace(base.view, size=448), rates=rates)


def _build_self_transfer_recipe() -> Recipe:
    model = SelfTransfer(backbone=_build_frozen_backbone())
    return replace(build_unguided_recipe(), title="self-transfer", model=model, objective=SelfTransferLoss(0.3))


def _build_global_pooling_recipe() -> Recipe:
    model = GlobalPooling(_build_frozen_backbone(), Transition(256), MaxPool())
    return replace(build_unguided_recipe(), title="max pooling", model=model)


def _build_frozen_backbone() -> Backbone:
    return Backbone(name="mobilenetv2_100", weights="imagenet", frozen_stages=3)


# networks of image labels that differ, and so may err at different places
KINDS = ("top 2%", "top 2%, EfficientNet-Lite2", "top 2%, hard negatives")


def _build_weak_rows(base: str) -> list[Row]:
    """What else may point with image labels alone: finer features, fewer cells, normal pictures that look fractured."""
    weak = build_weak_recipe()
    assert isinstance(weak.model, ClassMapModel)
    recipes = {
        "top 2%, EfficientNet-Lite2": build_label_recipe(),
        # half of the normal pictures' draws go to those in which it points most surely at what is no fracture
        "top 2%, hard negatives": replace(weak, mining=HardNegatives(by="peak")),
        # about the cells that a fracture of median size covers
        "top 0.5%": replace(weak, model=replace(weak.model, pool=TopPool(0.005))),
    }
    rows = [Row(name, recipe, base, group="image labels") for name, recipe in recipes.items()]
    student = Row("top 2%, EfficientNet-Lite2, self-trained", build_student_recipe(), base, group="image labels")
    return [*rows, replace(student, teacher="top 2%, EfficientNet-Lite2", teaching=Teaching(0.5))]


def _build_ensemble_rows(rows: Mapping[str, Row], base: str) -> list[Row]:
    """Rows that are not trained: finished ones judge together, also of the mirror image, and their maps are smoothed.

    The width of one and a half cells was chosen on validation, once for all three.
    """
    return [
        Row(
            f"{words}, committee",
            build_ensemble_recipe([rows[name].recipe for name in members], mirrored=True, smooth=1.5),
            base,
            parts={f"members.{place}": name for place, name in enumerate(members)},
            group="committee",
            weight_label=rows[members[0]].weight_label,
        )
        for words, members in (
            ("image labels", ("top 2%",)),
            ("image labels of several kinds", KINDS),
            ("5% boxes", ("guided, 5% boxes",)),
            ("all boxes", ("cell focal, all boxes, longer", "cell focal, all boxes", "patches, all boxes")),
        )
    ]


def build_localiser_table(profile: Profile = "recommended") -> Table:
    """The localisers of Jimenez-Sanchez 2018, then image labels alone, then 5%, 20% and all of the boxes.

    Each share of the boxes guides the whole picture as in the first wing, and patches by two losses.
    """
    base = "mean pooling"
    rows = [
        Row(base, build_unguided_recipe(), group="image labels"),
        Row("softmax pooling", build_softmax_recipe(), base, group="image labels"),
        Row("LSE pooling", _build_lse_recipe(), base, group="image labels"),
        Row("self-transfer", _build_self_transfer_recipe(), base, group="Jimenez-Sanchez 2018"),
        Row("a-STN", _build_transformer_recipe(), base, group="Jimenez-Sanchez 2018"),
        Row("max pooling of features", _build_global_pooling_recipe(), base, group="Jimenez-Sanchez 2018"),
        Row("box regression, all boxes", _build_box_recipe(), None, group="Jimenez-Sanchez 2018", weight_label="all"),
        Row("top 2%", build_weak_recipe(), base, group="image labels"),
        Row(
            "top 2%, self-trained",
            build_student_recipe(),
            base,
            teacher="top 2%",
            teaching=Teaching(0.5),
            group="image labels",
        ),
    ]
    # each round marks the pictures anew, by the averaged weights of the round before
    for number, teacher in ((2, "top 2%, self-trained"), (3, "top 2%, self-trained, round 2")):
        rows.append(
            Row(
                f"top 2%, self-trained, round {number}",
                build_student_recipe(),
                base,
                teacher=teacher,
                teaching=Teaching(0.5),
                group="image labels",
            )
        )
    weak = build_weak_recipe()
    assert isinstance(weak.model, ClassMapModel)
    # places that the most similar normal film of the batch has too may not stand out in the map
    contrast = replace(weak, model=replace(weak.model, gives_features=True), objective=NormalContrast())
    rows.append(Row("top 2%, nearest normal film", contrast, base, group="image labels"))
    rows.append(
        Row(
            "top 2%, three scales",
            replace(weak, model=MultiScale(weak.model)),
            base,
            parts={"network": "top 2%"},
            group="image labels",
        )
    )
    rows += _build_weak_rows(base)
    for share, words in ((0.05, "5%"), (0.2, "20%"), (1.0, "all")):
        rows.append(Row(f"guided, {words} boxes", _build_first_wing(share), base, group="guided", weight_label=words))
        rows.append(
            Row(f"patches, {words} boxes", build_patch_recipe(share), base, group="patches", weight_label=words)
        )
        rows.append(
            Row(f"cell focal, {words} boxes", build_focal_recipe(share), base, group="cell focal", weight_label=words)
        )
        if share < 1.0:
            rows.append(
                Row(
                    f"patches, {words} boxes, self-trained",
                    build_student_recipe(),
                    base,
                    teacher=f"patches, {words} boxes",
                    teaching=Teaching(0.5),
                    group="self-trained",
                    weight_label=words,
                )
            )
    longer = replace(build_focal_recipe(), epochs=LONGER)
    rows.append(Row("cell focal, all boxes, longer", longer, base, group="cell focal", weight_label="all"))
    twins = {
        "patches, image labels": build_focal_twin(),
        "whole pictures, mean, image labels": build_focal_twin_on_whole(MeanPool()),
        "whole pictures, LSE, image labels": build_focal_twin_on_whole(LogSumExpPool(r=4.0)),
        "whole pictures, top 2%, image labels": build_focal_twin_on_whole(TopPool(0.02)),
    }
    rows += [Row(name, recipe, base, group="twins of cell focal") for name, recipe in twins.items()]
    rows += _build_ensemble_rows({row.name: row for row in rows}, base)
    return Table(
        "localisers/fracatlas",
        "FracAtlas: finding the fracture with image labels, few boxes and all boxes",
        tuple(rows),
        "Boxes are shared out by whole patients (groups). Self-trained rows learn from the first network's surest "
        "peaks in fractured training pictures and, where there are some, from the boxes it was shown.",
        leading=("pointing game (finding)", "image-wise AUC"),
        size=768,
    )
