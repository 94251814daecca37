"""What gaze gives on the phantom chest: small networks from random weights, with the controls (tables of ours).

Three hundred and sixty studies and no pretrained weights: the network has to find out by itself where an opacity may
lie. Gaze is used as Zhu 2022 does (GG-CAM), as Watanabe 2022 does (a decoder, and gradients of the image), and as a
region in the manner of Liao 2022, whose softmax pooling looks where it is told.
"""

from __future__ import annotations

from dataclasses import replace

from sightline.cohorts.gaze_choice import GazeChoice
from sightline.cohorts.transforms import View
from sightline.explain.input_gradient import InputGradient
from sightline.guidance.gaze_guided import GazeGuided
from sightline.guidance.heatmap_match import HeatmapMatch
from sightline.guidance.spatial_nll import SpatialNLL
from sightline.lab.optimise import AdamW
from sightline.lab.recipe import Recipe
from sightline.lab.schedules import CosineDecay
from sightline.lab.table import Row, Table
from sightline.models.backbones import Backbone
from sightline.models.cam_layer import CamLayer
from sightline.models.class_maps import ClassMapModel
from sightline.models.pools import SoftmaxPool
from sightline.models.unet import UNet
from sightline.papers.liao2022 import Profile

SIZE, UNET_SIZE = 192, 128
# from this share of the density's maximum on, gaze counts as a region
ABOVE = 0.3


def base_recipe() -> Recipe:
    """A ResNet of 0.4 million weights with GG-CAM's layer, no gaze. It never mirrors: the heart is on the left."""
    return Recipe(
        title="no gaze",
        model=CamLayer(Backbone(name="test_resnet", output_stride=16)),
        view=View(size=SIZE, crop_area=(0.8, 1.0), flip_chance=0.0, rotation_deg=8.0, contrast=0.2, brightness=0.1),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(3e-3, warm_up=0.06),
        epochs=15,
        batch_size=16,
        average=0.98,
    )


def gg_cam(choice: GazeChoice | None = None) -> Recipe:
    """The true class's map against gaze (Zhu 2022, equations 9 and 10), at a fixed weight of 20."""
    loss = GazeGuided(weights="fixed", weight=20.0)
    return replace(base_recipe(), title="GG-CAM", objective=loss, regions=choice or GazeChoice())


def attended() -> Recipe:
    """Softmax pooling, no gaze."""
    model = ClassMapModel(Backbone(name="test_resnet", output_stride=16), pool=SoftmaxPool())
    return replace(base_recipe(), title="softmax pooling", model=model)


def as_region(choice: GazeChoice | None = None) -> Recipe:
    """Softmax pooling whose true class's map is guided by what was looked at for long (Liao 2022, equation 6)."""
    return replace(
        attended(),
        title="gaze as a region",
        guidance=SpatialNLL(resolution="map"),
        weight=0.3,
        regions=choice or GazeChoice(above=ABOVE),
    )


def table(profile: Profile = "recommended") -> Table:
    """No gaze, gaze, another image's gaze and the picture's middle, each under GG-CAM and as a region."""
    none, mean, region = "no gaze", "GG-CAM", "gaze as a region"
    rows = [
        Row(none, base_recipe(), group="mean pooling"),
        Row(mean, gg_cam(), none, group="mean pooling"),
        Row("GG-CAM, shuffled gaze", gg_cam(GazeChoice(control="shuffled")), mean, group="mean pooling"),
        Row("softmax pooling", attended(), none, group="softmax pooling"),
        Row(region, as_region(), "softmax pooling", group="softmax pooling"),
        Row(
            "shuffled gaze as a region",
            as_region(GazeChoice(control="shuffled", above=ABOVE)),
            region,
            group="softmax pooling",
        ),
        Row(
            "middle as a region", as_region(GazeChoice(control="centre", above=ABOVE)), region, group="softmax pooling"
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


def unets(profile: Profile = "recommended") -> Table:
    """Watanabe 2022's rows on the phantom: no decoder, the U-Net, and sets 1 and 3 under two rules."""
    backbone = Backbone(name="test_resnet")
    model = UNet(encoder=backbone, widths=(64, 48, 32, 16, 16), dropout=0.2)
    recipe = replace(
        base_recipe(),
        title="U-Net",
        model=model,
        view=replace(base_recipe().view, size=UNET_SIZE),
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
