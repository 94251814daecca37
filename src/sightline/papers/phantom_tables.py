"""Does a transformer find the femoral head? A table of ours beside Table II of Jimenez-Sanchez et al. 2018.

Their transformers stay at the whole image (Table V prints one localisation for all of them), and so do ours. The row
`a-STN, tries` learns from sampled windows; the rows beside it take its head of places or its longer training alone.
"""

from __future__ import annotations

from dataclasses import replace

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.data.views.image_view import View
from sightline.evaluation.tables.table import Row, Table
from sightline.explainers.gradients import InputGradient
from sightline.losses.gg_cam import GazeGuided
from sightline.losses.heatmap_matching import HeatmapMatch
from sightline.losses.sampled_windows import SampledWindowLoss
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import CamLayer, ClassMapModel, GlobalPooling
from sightline.models.pooling import SoftmaxPool
from sightline.models.sampled_windows import SampledWindowTransformer, WindowSampling
from sightline.models.unet import UNet
from sightline.papers import jimenez2018
from sightline.papers.liao2022 import Profile
from sightline.training.optimization import AdamW, CosineDecay, LayerRates
from sightline.training.recipe import Recipe

# epochs for one of the plain rows: two networks learn, one after the other has begun
LONGER = 2
ALONE = 3


def build_sampled_window_recipe(recipe: Recipe, *, sampled: bool = True) -> Recipe:
    """a-STN with a head of places, which learns from sampled windows, or from the warp as a-STN does.

    Args:
        recipe: that of the whole image.
        sampled: whether windows are sampled.
    """
    classifier = recipe.model
    assert isinstance(classifier, ClassMapModel | GlobalPooling)
    model = SampledWindowTransformer(
        classifier,
        # stride 16: 14 x 14 places at 224 px
        Backbone("resnet50", weights="imagenet", stages=4),
        WindowSampling() if sampled else None,
        localiser_px=jimenez2018.SIZE,
        roi_px=jimenez2018.SIZE,
    )
    return replace(
        recipe,
        title="a-STN, tries" if sampled else "a-STN, places",
        model=model,
        objective=SampledWindowLoss(after=ALONE) if sampled else None,
        view=replace(recipe.picture_view, size=jimenez2018.LARGER),
        rates=LayerRates({"localiser.": 0.3, "localiser.head.": 1.0}),
        epochs=LONGER * recipe.epochs,
    )


def build_transformer_table(profile: Profile = "recommended") -> Table:
    """Whole image, a-STN as in Table II and for longer, a head of places, sampled windows, and the expert's crop."""
    base = jimenez2018.set_task(jimenez2018.build_base_recipe(profile), "3c")
    stn = jimenez2018.build_transformer(base, "similarity", profile)
    longer = replace(stn, title="a-STN, longer", epochs=LONGER * stn.epochs)
    upper = jimenez2018.set_task(jimenez2018.build_upper_bound(jimenez2018.build_base_recipe(profile), profile), "3c")
    reference = "3c LBM"
    rows = (
        Row(reference, base, group="whole image"),
        Row("3c a-STN", stn, reference, group="transformer"),
        Row("3c a-STN, longer", longer, reference, group="transformer"),
        Row("3c a-STN, places", build_sampled_window_recipe(base, sampled=False), reference, group="transformer"),
        Row("3c a-STN, tries", build_sampled_window_recipe(base), reference, group="transformer"),
        Row("3c UBM", upper, reference, group="expert crop"),
    )
    return Table(
        "femur/transformers",
        "Transformers that move: windows sampled in place of the warp's gradient",
        rows,
        "Rows of our own beside Table II. Boxes are the windows themselves; whole image and centre prior are the "
        "reference rows, and the printed displacement says whether a window moved.",
        jimenez2018.METRICS,
        leading=("image-wise F1 weighted by support", "image-wise F1 of fracture"),
        size=jimenez2018.SIZE,
    )


SIZE, UNET_SIZE = 192, 128
# from this share of the density's maximum on, gaze counts as a region
ABOVE = 0.3


def build_base_recipe() -> Recipe:
    """A ResNet of 0.4 million weights with GG-CAM's layer, no gaze. It never mirrors: the heart is on the left."""
    return Recipe(
        title="no gaze",
        model=CamLayer(Backbone(name="test_resnet", output_stride=16)),
        view=View(size=SIZE, crop_area=(0.8, 1.0), flip_chance=0.0, rotation_deg=8.0, contrast=0.2, brightness=0.1),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(3e-3, warm_up=0.06),
        epochs=15,
        batch_size=16,
        ema_decay=0.98,
    )


def build_gg_cam_recipe(choice: GazeChoice | None = None) -> Recipe:
    """The true class's map against gaze (Zhu 2022, equations 9 and 10), at a fixed weight of 20."""
    loss = GazeGuided(weights="fixed", weight=20.0)
    return replace(build_base_recipe(), title="GG-CAM", objective=loss, regions=choice or GazeChoice())


def build_softmax_recipe() -> Recipe:
    """Softmax pooling, no gaze."""
    model = ClassMapModel(Backbone(name="test_resnet", output_stride=16), pool=SoftmaxPool())
    return replace(build_base_recipe(), title="softmax pooling", model=model)


def build_region_recipe(choice: GazeChoice | None = None) -> Recipe:
    """Softmax pooling whose true class's map is guided by what was looked at for long (Liao 2022, equation 6)."""
    return replace(
        build_softmax_recipe(),
        title="gaze as a region",
        guidance=SpatialNLL(resolution="map"),
        weight=0.3,
        regions=choice or GazeChoice(above=ABOVE),
    )


def build_gaze_table(profile: Profile = "recommended") -> Table:
    """No gaze, gaze, another image's gaze and the picture's middle, each under GG-CAM and as a region."""
    none, mean, region = "no gaze", "GG-CAM", "gaze as a region"
    rows = [
        Row(none, build_base_recipe(), group="mean pooling"),
        Row(mean, build_gg_cam_recipe(), none, group="mean pooling"),
        Row("GG-CAM, shuffled gaze", build_gg_cam_recipe(GazeChoice(control="shuffled")), mean, group="mean pooling"),
        Row("softmax pooling", build_softmax_recipe(), none, group="softmax pooling"),
        Row(region, build_region_recipe(), "softmax pooling", group="softmax pooling"),
        Row(
            "shuffled gaze as a region",
            build_region_recipe(GazeChoice(control="shuffled", above=ABOVE)),
            region,
            group="softmax pooling",
        ),
        Row(
            "middle as a region",
            build_region_recipe(GazeChoice(control="centre", above=ABOVE)),
            region,
            group="softmax pooling",
        ),
    ]
    return Table(
        "gaze/phantom",
        "Phantom chest: what a reader's gaze gives, beside another image's gaze and the middle of the picture",
        tuple(rows),
        "Each control is compared with the gaze it stands in for.",
        leading=("image-wise AUC one-vs-rest", "image-wise AUC Hand & Till"),
        size=SIZE,
        as_printed=True,
    )


def build_unet_table(profile: Profile = "recommended") -> Table:
    """Watanabe 2022's rows on the phantom: no decoder, the U-Net, and sets 1 and 3 under two rules."""
    backbone = Backbone(name="test_resnet")
    model = UNet(encoder=backbone, widths=(64, 48, 32, 16, 16), dropout=0.2)
    recipe = replace(
        build_base_recipe(),
        title="U-Net",
        model=model,
        view=replace(build_base_recipe().view, size=UNET_SIZE),
        # the map of the baseline is measured too, and takes no part in its training
        objective=HeatmapMatch("decoder", InputGradient("guided")),
        regions=GazeChoice(),
        epochs=15,
    )
    rows = [
        Row("U-Net", recipe, group="decoder"),
        Row(
            "no segmentation",
            replace(
                recipe,
                title="no segmentation",
                model=replace(model, decoder=False),
                objective=HeatmapMatch("classifier", InputGradient("guided")),
            ),
            "U-Net",
            group="no decoder",
        ),
    ]
    rows += [
        Row(
            f"set {n} {rule}",
            replace(recipe, title=f"set {n} {rule}", objective=HeatmapMatch(f"set{n}", InputGradient(rule))),  # type: ignore[arg-type]
            "U-Net",
            group=rule,
        )
        for n in (1, 2, 3)
        for rule in ("guided", "deconvolution")
    ]
    return Table(
        "gaze/unets",
        "Phantom chest: a U-Net whose decoder and image gradients are held against gaze",
        tuple(rows),
        "The rows of Watanabe 2022, tables 1 to 4, with a small ReLU encoder from random weights.",
        leading=("image-wise AUC one-vs-rest",),
        size=UNET_SIZE,
        as_printed=True,
    )
