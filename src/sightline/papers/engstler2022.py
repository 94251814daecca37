"""Engstler et al. 2022, Interpretable Vertebral Fracture Diagnosis: a 3D U-Net's encoder on patches along the spine.

Claim: trained on enough CTs, its units respond to what clinicians can name. Table 1 is the classifier, trained and
tested on VerSe, on VerSe and the authors' own CTs, or trained on both and tested on VerSe; tables 2 and 3 dissect it.

Profiles: `paper` follows the text (batch norm as every library means it, dropout 0.3, augmentations that run, patience
50); `official_code` what the released code does (batch statistics also at test time, no dropout, no augmentation,
patience 40); `recommended` is the paper's, with batches augmented by a shift too. The input is 64 voxels wide in all of
them: the released configuration, app and unit levels agree on that, and only the text says 96.
"""

from __future__ import annotations

from dataclasses import replace

from sightline.cohorts.regions import RegionChoice
from sightline.cohorts.volume_view import VolumeView
from sightline.guidance.spatial_nll import SpatialNLL
from sightline.lab.optimise import Adam, AdamW
from sightline.lab.recipe import Recipe
from sightline.lab.schedules import CosineDecay, Steady
from sightline.lab.table import Row, Table
from sightline.models.pools import SoftmaxPool
from sightline.models.volume_unet import VolumeUNet
from sightline.papers.engstler2022_published import TABLE1
from sightline.papers.liao2022 import Profile

SIZE = 64
# what the paper does not say: how long to train at most
EPOCHS = 400
# sources: VerSe'19 and VerSe'20, and with them whatever else the cohort holds
VERSE, ALL = ("verse",), ("verse", "not verse")
SMALL_WIDTH, SMALL_SIZE, SMALL_EPOCHS = 8, 48, 12


def base_recipe(profile: Profile = "recommended") -> Recipe:
    """The published network and training: Adam 1e-3, batches of 16, classes in balance, the epoch of the best F1."""
    code = profile == "official_code"
    return Recipe(
        title="3D U-Net",
        model=VolumeUNet(size=SIZE, norm="batch_always" if code else "batch", dropout=0.0 if code else 0.3),
        view=VolumeView(
            size=SIZE,
            augment="none" if code else "published",
            shift_mm=4.0 if profile == "recommended" else 0.0,
        ),
        optimiser=Adam(),
        schedule=Steady(1e-3, patience=40 if code else 50),
        epochs=EPOCHS,
        batch_size=16,
        reweight="undersample",
        select="f1",
    )


def with_maps() -> Recipe:
    """Ours: class maps, pooled where they are high, in place of the head of convolutions."""
    model = VolumeUNet(size=SIZE, head="maps", pool=SoftmaxPool())
    return replace(base_recipe(), title="3D class map", model=model)


def guided(recipe: Recipe | None = None) -> Recipe:
    """Ours: the fracture's map is trained to look at the deformed bone (Liao 2022, equation 6, in 3D)."""
    return replace(
        recipe or with_maps(),
        title="3D class map, guided",
        guidance=SpatialNLL(resolution="map"),
        weight=0.1,
        regions=RegionChoice("mask", role="finding", classes="tagged"),
    )


def on_vertebra() -> Recipe:
    """Ours: both maps are trained to look at the vertebra in the middle, fractured or not."""
    choice = RegionChoice("mask", role="focus", classes="all")
    return replace(guided(), title="3D class map, guided by the vertebra", regions=choice)


def small(recipe: Recipe) -> Recipe:
    """A quarter of the channels, cubes of 48 voxels and a short training with the last weights, for CPUs."""
    assert isinstance(recipe.model, VolumeUNet)
    return replace(
        recipe,
        title=f"small {recipe.title}",
        model=replace(recipe.model, width=SMALL_WIDTH, size=SMALL_SIZE),
        view=replace(recipe.view, size=SMALL_SIZE),
        optimiser=AdamW(weight_decay=0.02),
        schedule=CosineDecay(2e-3, warm_up=0.06),
        epochs=SMALL_EPOCHS,
        select="last",
    )


def table1(profile: Profile = "recommended") -> Table:
    """Table 1: trained and tested on VerSe, trained on all and tested on VerSe, and all for all."""
    recipe = base_recipe(profile)
    rows = (
        Row("VerSe -> VerSe", recipe, published=TABLE1["VerSe -> VerSe"], trained_on=VERSE, tested_on=VERSE),
        Row(
            "all -> VerSe",
            recipe,
            "VerSe -> VerSe",
            published=TABLE1["all -> VerSe"],
            trained_on=ALL,
            tested_on=VERSE,
        ),
        Row("all -> all", recipe, published=TABLE1["all -> all"], trained_on=ALL),
    )
    return Table(
        "engstler2022/table1",
        "Vertebral fractures, trained and tested on VerSe and on more",
        rows,
        "The printed column Acc. is very likely recall and stands beside ours. Five trainings; percent.",
        metrics=("image-wise F1 of fractured", "image-wise AUC"),
        leading=("image-wise AUC",),
        size=SIZE,
    )


def table2(profile: Profile = "recommended") -> Table:
    """Table 2: the ten units that go most with fractures, with galleries and experts' names."""
    return Table(
        "engstler2022/table2",
        "The units of a 3D U-Net that go most with vertebral fractures",
        (Row("all", base_recipe(profile)),),
        "Trained on all of the cohort's sources; the first training is dissected.",
        metrics=("image-wise F1 of fractured", "image-wise AUC"),
        size=SIZE,
        units="ranking",
    )


def table3(profile: Profile = "recommended") -> Table:
    """Table 3: one case that was called right, and the units that respond most to it."""
    title = "One fractured vertebra and the units that respond most to it"
    return replace(table2(profile), name="engstler2022/table3", title=title, units="case")


def units(profile: Profile = "recommended") -> Table:
    """Tables 2 and 3 of the small network: for CPUs, and for the phantom."""
    title = "The units of a small 3D U-Net that go most with vertebral fractures, and one case"
    rows = (Row("class maps", small(with_maps())),)
    return replace(table2(profile), name="spine/units", title=title, rows=rows, size=SMALL_SIZE, units="case")


def phantom(profile: Profile = "recommended") -> Table:
    """Small networks on the phantom spine: the published head, class maps, and class maps that are guided (ours)."""
    head, maps = "convolutions", "class maps"
    rows = (
        Row(head, small(base_recipe(profile))),
        Row(maps, small(with_maps()), head),
        Row("class maps, guided by the deformed bone", small(guided()), maps),
        Row("class maps, guided by the vertebra", small(on_vertebra()), maps),
    )
    return Table(
        "spine/phantom",
        "Phantom spine: the published head, class maps, and maps that are told where to look",
        rows,
        metrics=("image-wise F1 of fractured", "image-wise AUC"),
        leading=("image-wise AUC",),
        size=SMALL_SIZE,
    )
