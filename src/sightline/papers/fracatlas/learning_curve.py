"""FracAtlas: what guidance gives at 75, 150, 300, 600 and all training images, beside equal twins without it.

And at 300 images, what may carry a map that looks right to an answer that is right (`map_to_answer`).
Tables of ours.
Every row is the same network on the same pictures for the same number of steps, which is the same time: only what is
asked of its one fracture map differs. The first five stages of MobileNetV2 are frozen and compute in bfloat16, so that
what they say of a picture is computed once for all rows, seeds and sizes (`--features`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sightline.data.hard_negatives import HardNegatives
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.evaluation.tables.engines.self_training import Teaching
from sightline.evaluation.tables.table import Row, Table
from sightline.explainers.cam import GradCAM
from sightline.explainers.gradients import InputGradient
from sightline.losses.attribution_priors import AttributionPrior, MapEnergy
from sightline.losses.cell_focal import CellFocal
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.ensembles import MultiScale
from sightline.models.necks import Fusion, Pylon
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, NoisyOrPool, Pooling, SoftmaxPool, TopPool
from sightline.models.spatial_transformer import SecondLook
from sightline.papers.combined import build_ensemble_recipe
from sightline.papers.liao2022 import Profile
from sightline.training.optimization import AdamW, CosineDecay, LayerRates, WeightRelease
from sightline.training.recipe import Recipe

# added to the seed of a network that is trained a second time on the same images
AGAIN = 100
# training images; None: all
SIZES = (300, 150, 75, 600, None)
STEPS = 96
# the rows that ask whether the others were trained for long enough
LONGER = 3
POOLS: dict[str, Pooling] = {
    "mean": MeanPool(),
    "softmax": SoftmaxPool(),
    "top 2%": TopPool(0.02),
    "LSE": LogSumExpPool(r=4.0),
}
SHARES = ((1.0, "all marks"), (0.2, "20% of marks"), (0.05, "5% of marks"))
WRONG = (0.1, 0.3)
# more than any reader's: where guidance stops paying
MOSTLY_WRONG = (0.6, 0.9)
# the size at which ways from map to answer are compared
FEW = 300
# weights that make both terms alike at first on 16 pictures of FracAtlas (Ross 2017, section 3)
RIGHT_REASONS_CAM = 0.005
RIGHT_REASONS_IMAGE = 3.0
# the energy loss is 1 at most, and its gradient small where the mark is
ENERGY = 10.0


def build_unguided_recipe(pool: Pooling | None = None, steps: int = STEPS) -> Recipe:
    """Image labels alone: one fracture map at stride 8 of pictures at 512 px, pooled."""
    backbone = Backbone(name="mobilenetv2_100", weights="imagenet", frozen_stages=5, stages=5, frozen_precision="bf16")
    return Recipe(
        title="unguided",
        model=ClassMapModel(
            backbone=backbone, pool=pool or MeanPool(), fusion=Fusion(stride=8, channels=64), one_map=True
        ),
        view=View(size=512, crop_area=(0.7, 1.0), rotation_deg=20.0, contrast=0.25, brightness=0.1, draws=3),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(1e-3, warm_up=0.08),
        rates=LayerRates({"trunk.": 0.5}),
        epochs=1000,
        steps=steps,
        batch_size=16,
        reweight="oversample",
        ema_decay=0.99,
        precision="bf16-mixed",
        validate="end",
    )


def build_guided_recipe(share: float = 1.0, loss: CellFocal | None = None, steps: int = STEPS) -> Recipe:
    """The same, every cell of the fracture map guided by the boxes; pictures whose mark is hidden give their label.

    Args:
        share: share of the boxes used, by whole patients.
        loss: of the cells.
        steps: of the training.
    """
    return replace(
        build_unguided_recipe(SoftmaxPool(), steps),
        title="guided",
        guidance=loss or CellFocal(),
        weight=1.0,
        regions=RegionChoice(style="box", role="finding", classes="tagged", share=share, unmarked="unknown"),
    )


def build_table(profile: Profile = "recommended") -> Table:
    """Twins, guided rows, pairs that judge together, few and wrong marks, at every size of the training set."""
    rows: list[Row] = []
    for size in SIZES:
        at = "all images" if size is None else f"{size} images"
        base, long_base = f"unguided mean, {at}", f"unguided mean {LONGER} x longer, {at}"
        for words, pool in POOLS.items():
            name = f"unguided {words}, {at}"
            reference = None if name == base else base
            rows.append(
                Row(name, build_unguided_recipe(pool), reference, train_images=size, group="unguided", weight_label=at)
            )
        longer = {
            "unguided mean": build_unguided_recipe(MeanPool(), STEPS * LONGER),
            "guided all marks": build_guided_recipe(steps=STEPS * LONGER),
        }
        for words, recipe in longer.items():
            name, group = f"{words} {LONGER} x longer, {at}", words.split()[0]
            # the fair twin of a longer training is as long
            twin = base if words == "unguided mean" else long_base
            rows.append(Row(name, recipe, twin, train_images=size, group=group, weight_label=at))
        name, recipe = f"guided 20% of marks longer, {at}", build_guided_recipe(0.2, steps=STEPS * LONGER)
        rows.append(Row(name, recipe, long_base, train_images=size, group="guided", weight_label=at))
        rows += _build_pairs(size, at)
        for share, words in SHARES:
            recipe = build_guided_recipe(share)
            rows.append(Row(f"guided {words}, {at}", recipe, base, train_images=size, group="guided", weight_label=at))
        for wrong in WRONG + MOSTLY_WRONG:
            plain, trimmed = (CellFocal(), ""), (CellFocal(trimmed=0.3), " trimmed")
            for loss, words in (plain, trimmed) if wrong in WRONG else (plain,):
                rows.append(
                    Row(
                        f"wrong {wrong:.0%} of marks{words}, {at}",
                        build_guided_recipe(loss=loss),
                        base,
                        train_images=size,
                        wrong_marks=wrong,
                        group="wrong marks",
                        weight_label=at,
                    )
                )
    return Table(
        "fracatlas/curve",
        "FracAtlas: guided and unguided twins at few and many training images",
        tuple(rows),
        f"Every training has {STEPS} steps of 16 pictures ({LONGER} times as many where a row says so), whatever the "
        "size of its training set; training sets of one seed are nested and hold whole groups.",
        metrics=("image-wise AUC", "pointing game (finding)", "image-wise accuracy"),
        leading=("image-wise AUC", "pointing game (finding)"),
        size=512,
    )


def _build_pairs(size: int | None, at: str) -> list[Row]:
    """Two finished networks judge together: the unguided one beside a second unguided one, or beside the guided one.

    The fair twin of a guided and an unguided network is two unguided ones: of the same images, for as many steps, with
    other chance in training, or with the guided network's pooling. The pair with a guided one shows its map.
    """
    steps = STEPS * LONGER
    mean, softmax = build_unguided_recipe(MeanPool(), steps), build_unguided_recipe(SoftmaxPool(), steps)
    first = f"unguided mean {LONGER} x longer, {at}"
    members = (
        Row(f"unguided mean again, {at}", mean, first, seed_offset=AGAIN),
        Row(f"unguided softmax longer, {at}", softmax, first),
    )
    twin = f"two networks: unguided mean twice, {at}"
    pairs = [
        (twin, f"unguided mean again, {at}", mean, first, ()),
        (f"two networks: unguided, mean and softmax, {at}", f"unguided softmax longer, {at}", softmax, twin, ()),
        (
            f"two networks: unguided and guided, {at}",
            f"guided all marks {LONGER} x longer, {at}",
            build_guided_recipe(steps=steps),
            twin,
            (0,),
        ),
    ]
    rows = [replace(row, train_images=size, group="unguided", weight_label=at) for row in members]
    rows += [
        Row(
            name,
            build_ensemble_recipe([recipe, mean], maps_of=maps_of),
            reference,
            parts={"members.0": second, "members.1": first},
            train_images=size,
            group="two networks",
            weight_label=at,
        )
        for name, second, recipe, reference, maps_of in pairs
    ]
    return rows


def _get_model(recipe: Recipe) -> ClassMapModel:
    assert isinstance(recipe.model, ClassMapModel)
    return recipe.model


def _change_model(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, model=replace(_get_model(recipe), **changes))


def _choose_regions(**changes: Any) -> Recipe:
    recipe = build_guided_recipe()
    assert isinstance(recipe.regions, RegionChoice)
    return replace(recipe, regions=replace(recipe.regions, **changes))


def _add_attribution(prior: AttributionPrior) -> Recipe:
    """An explainer's map is held to the boxes, in place of the fracture map; softmax pooling as in the guided rows."""
    return replace(build_guided_recipe(), title="attribution", guidance=None, weight=0.0, objective=prior)


def list_ways_to_answer() -> dict[str, tuple[str, Recipe]]:
    """What may change how a guided map answers, by name, each with the group it is drawn with.

    All but two kinds learn from kept features: *right reasons, image* differentiates the image itself, through all
    stages, and takes many times as long a step; a *second look* is at pixels of a larger picture.
    """
    heads: dict[str, Pooling] = {
        "mean": MeanPool(),
        "maximum": MaxPool(),
        "LSE": LogSumExpPool(r=4.0),
        "top 2%": TopPool(0.02),
        "top 0.1%": TopPool(0.001),
        "noisy or": NoisyOrPool(),
    }
    reasons = InputGradient(score="log_probabilities", reduce="square_sum")
    ways = {
        f"head: {words}": ("head", _change_model(build_guided_recipe(), pool=pool)) for words, pool in heads.items()
    }
    ways |= {
        # Shen 2021 (GMIC): one layer on what the place and what the picture says
        "head: map and picture joined": ("head", _change_model(build_guided_recipe(), joined=True)),
        "head: map and picture joined, mean": (
            "head",
            _change_model(build_guided_recipe(), joined=True, pool=MeanPool()),
        ),
        # Liao 2022, equation 6: cells compete
        "loss: spatial likelihood": ("loss", replace(build_guided_recipe(), guidance=SpatialNLL(resolution="map"))),
        # Rao 2023 on class maps (where negative maps have a gradient too) and on Grad-CAM as published
        "loss: energy": ("loss", replace(build_guided_recipe(), guidance=MapEnergy("softplus"), weight=ENERGY)),
        "loss: energy of Grad-CAM": ("loss", _add_attribution(AttributionPrior(GradCAM(), "energy", weight=ENERGY))),
        # Ross 2017; Schramowski 2020 as Rao 2023 scales it
        "loss: right reasons, Grad-CAM": (
            "loss",
            _add_attribution(AttributionPrior(GradCAM(), "outside", weight=RIGHT_REASONS_CAM, scale="max")),
        ),
        "loss: right reasons, image": (
            "loss",
            _add_attribution(AttributionPrior(reasons, "outside", weight=RIGHT_REASONS_IMAGE, squared=False)),
        ),
        "weight 0.3": ("weight", replace(build_guided_recipe(), weight=0.3)),
        "weight 4": ("weight", replace(build_guided_recipe(), weight=4.0)),
        "weight 4, then released": (
            "weight",
            replace(build_guided_recipe(), weight=4.0, release=WeightRelease(0.5, 0.25)),
        ),
        "weight 1, then released": ("weight", replace(build_guided_recipe(), release=WeightRelease(0.5, 0.25))),
        "mark dropout 30%": ("marks", _choose_regions(dropout=0.3)),
        "mark dropout 60%": ("marks", _choose_regions(dropout=0.6)),
        "marks widened by 20 px": ("marks", _choose_regions(margin_px=20.0)),
        "marks widened by 60 px": ("marks", _choose_regions(margin_px=60.0)),
        # style: the fracture's outline, or a stroke through it, in place of its box
        "marks: outlines": ("marks", _choose_regions(style="mask")),
        "marks: scribbles": ("marks", _choose_regions(style="scribble")),
        # Shen 2021 (GMIC): the crop around the peak, at the resolution of pictures of 1024 px
        "second look, own weights": ("second look", _add_second_look(build_guided_recipe(), own=True)),
        "second look, shared weights": ("second look", _add_second_look(build_guided_recipe(), own=False)),
        # half of the normal pictures' draws go to the quarter that the network takes for fractured
        "hard negatives": ("pictures", replace(build_guided_recipe(), mining=HardNegatives())),
        "hard negatives, by peak": ("pictures", replace(build_guided_recipe(), mining=HardNegatives(by="peak"))),
        # Lee 2015: the marks reach the encoder at stride 32 too
        "guided at two depths": ("depth", _change_model(build_guided_recipe(), deep_maps=True)),
        # which classes: normal pictures say nothing; both maps held to the mark (Liao 2022, section IV-C)
        "classes: marked pictures alone": (
            "classes",
            replace(build_guided_recipe(), guidance=CellFocal(nowhere=0.0)),
        ),
        "classes: both maps, spatial likelihood": ("classes", _build_two_map_recipe()),
        "stride 16": ("network", _change_model(build_guided_recipe(), fusion=Fusion(stride=16, channels=64))),
        "EfficientNet-Lite0": ("network", _change_model(build_guided_recipe(), backbone=_build_lite_backbone())),
        "EfficientNet-Lite2": ("network", _change_model(build_guided_recipe(), backbone=_build_lite_backbone(2))),
        # Preechakul 2022, at the stride of the other rows
        "PYLON": ("network", _change_model(build_guided_recipe(), fusion=Pylon(stride=8), pool=MaxPool())),
    }
    return ways


def _build_two_map_recipe() -> Recipe:
    recipe = replace(_change_model(build_guided_recipe(), one_map=False), guidance=SpatialNLL(resolution="map"))
    assert isinstance(recipe.regions, RegionChoice)
    return replace(recipe, regions=replace(recipe.regions, classes="all"))


def _add_second_look(recipe: Recipe, *, own: bool) -> Recipe:
    """The picture at 512 px, and 256 px around its peak of the picture at 1024 px."""
    assert isinstance(recipe.model, ClassMapModel)
    model = SecondLook(recipe.model, recipe.model if own else None, localiser_px=512, roi_px=256)
    rates = LayerRates({"whole.trunk.": 0.5, "crop.trunk.": 0.5} if own else {"whole.trunk.": 0.5})
    return replace(recipe, model=model, view=replace(recipe.picture_view, size=1024), rates=rates)


def _build_lite_backbone(size: int = 0) -> Backbone:
    return Backbone(
        f"tf_efficientnet_lite{size}", weights="imagenet", frozen_stages=5, stages=5, frozen_precision="bf16"
    )


def build_map_to_answer_table(profile: Profile = "recommended") -> Table:
    """At 300 images: the guided network and its unguided twin, and everything that may carry map to answer."""
    base = "guided"
    rows = [
        Row("unguided", build_unguided_recipe(), None, train_images=FEW, group="unguided"),
        Row(base, build_guided_recipe(), "unguided", train_images=FEW, group="guided"),
    ]
    rows += [
        Row(name, recipe, base, train_images=FEW, group=group)
        for name, (group, recipe) in list_ways_to_answer().items()
    ]
    # Lee 2013, Bency 2016: peaks of a network that was shown a fifth of the marks, believed where it is surest
    few, mixed = "guided, 20% of marks", "self-trained marks mixed in"
    rows += [
        Row(few, build_guided_recipe(0.2), base, train_images=FEW, group="marks"),
        Row(
            mixed,
            build_guided_recipe(loss=CellFocal(elsewhere=0.1)),
            base,
            teacher=few,
            teaching=Teaching(0.5),
            train_images=FEW,
            group="marks",
        ),
        # not trained: the guided network at three sizes of the picture
        Row(
            "test-time scales",
            replace(build_guided_recipe(), model=MultiScale(_get_model(build_guided_recipe()))),
            base,
            parts={"network": base},
            train_images=FEW,
            group="pictures",
        ),
    ]
    twins = {
        "unguided, EfficientNet-Lite0": _change_model(build_unguided_recipe(), backbone=_build_lite_backbone()),
        "unguided, second look": _add_second_look(build_unguided_recipe(), own=True),
        "unguided, hard negatives": replace(build_unguided_recipe(), mining=HardNegatives()),
        # as published: image labels alone
        "unguided, PYLON": _change_model(build_unguided_recipe(MaxPool()), fusion=Pylon(stride=8)),
    }
    rows += [Row(name, recipe, "unguided", train_images=FEW, group="unguided") for name, recipe in twins.items()]
    return Table(
        "fracatlas/map_to_answer",
        "FracAtlas: from a map that looks right to an answer that is right",
        tuple(rows),
        f"{FEW} training images, {STEPS} steps of 16 pictures. Each row changes one thing of the guided row, with "
        "which it is compared; which row is taken is decided on validation.",
        metrics=("image-wise AUC", "pointing game (finding)", "image-wise accuracy"),
        leading=("image-wise AUC", "pointing game (finding)"),
        size=512,
    )
