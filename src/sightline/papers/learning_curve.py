"""FracAtlas: what guidance gives at 75, 150, 300, 600 and all training images, beside equal twins without it.

A table of ours. Every row is the same network on the same pictures for the same number of steps, which is the same
time: only what is asked of its one fracture map differs. The first five stages of MobileNetV2 are frozen and compute in
bfloat16, so that what they say of a picture is computed once for all rows, seeds and sizes (`--features`).
"""

from __future__ import annotations

from dataclasses import replace

from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.evaluation.tables.table import Row, Table
from sightline.losses.cell_focal import CellFocal
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.necks import Fusion
from sightline.models.pooling import LogSumExpPool, MaxPool, MeanPool, SoftmaxPool, TopPool
from sightline.papers.liao2022 import Profile
from sightline.training.optimization import AdamW, CosineDecay, LayerRates
from sightline.training.recipe import Recipe

Pooling = MeanPool | SoftmaxPool | MaxPool | LogSumExpPool | TopPool

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


def unguided(pool: Pooling | None = None, steps: int = STEPS) -> Recipe:
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
        average=0.99,
        precision="bf16-mixed",
        validate="end",
    )


def guided(share: float = 1.0, loss: CellFocal | None = None, steps: int = STEPS) -> Recipe:
    """The same, every cell of the fracture map guided by the boxes; pictures whose mark is hidden give their label.

    Args:
        share: share of the boxes used, by whole patients.
        loss: of the cells.
        steps: of the training.
    """
    return replace(
        unguided(SoftmaxPool(), steps),
        title="guided",
        guidance=loss or CellFocal(),
        weight=1.0,
        regions=RegionChoice(style="box", role="finding", classes="tagged", share=share, unmarked="unknown"),
    )


def table(profile: Profile = "recommended") -> Table:
    """All twins and guided rows at 300 images; the others beside the mean twin at the other sizes."""
    rows: list[Row] = []
    for size in SIZES:
        at = "all images" if size is None else f"{size} images"
        base = f"unguided mean, {at}"
        for words, pool in POOLS.items():
            name = f"unguided {words}, {at}"
            reference = None if name == base else base
            rows.append(Row(name, unguided(pool), reference, train_images=size, group="unguided", weight_label=at))
        longer = {
            "unguided mean": unguided(MeanPool(), STEPS * LONGER),
            "guided all marks": guided(steps=STEPS * LONGER),
        }
        for words, recipe in longer.items():
            name, group = f"{words} {LONGER} x longer, {at}", words.split()[0]
            rows.append(Row(name, recipe, base, train_images=size, group=group, weight_label=at))
        for share, words in SHARES:
            recipe = guided(share)
            rows.append(Row(f"guided {words}, {at}", recipe, base, train_images=size, group="guided", weight_label=at))
        for wrong in WRONG:
            for loss, words in ((CellFocal(), ""), (CellFocal(trimmed=0.3), " trimmed")):
                rows.append(
                    Row(
                        f"wrong {wrong:.0%} of marks{words}, {at}",
                        guided(loss=loss),
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
