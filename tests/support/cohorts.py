"""Tiny cohorts in our layout, and a recipe of a tenth of a second a step."""

from dataclasses import replace

import numpy as np
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.pooling import SoftmaxPool
from sightline.structures.case import Case, Cohort
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Mask, Scribble
from sightline.structures.tag import Tag
from sightline.training.optimization import LinearDecay
from sightline.training.recipe import Recipe


def make_cohort(place, patients=18, size=(40, 48), seed=0):
    """Bright squares (fracture) or none on noise; focus regions in three styles, a finding box; 2 views a study."""
    rng = np.random.default_rng(seed)
    (place / "images").mkdir(parents=True)
    (place / "regions" / "mask").mkdir(parents=True)
    cases = []
    for p in range(patients):
        label = ("no fracture", "fracture")[p % 2]
        split = "test" if p % 6 >= 4 else "val" if p % 6 >= 2 and p < 6 else "train"
        for v in range(2):
            name = f"P{p:02d}-{v}"
            pixels = rng.integers(20, 90, size).astype(np.uint8)
            row, col = (int(x) for x in rng.integers(8, 24, 2))
            mask = np.zeros(size, dtype=np.uint8)
            mask[row - 4 : row + 12, col - 4 : col + 12] = 255
            pixels[mask > 0] += 40
            regions = [
                Mask(place / "regions" / "mask" / f"{name}.png", Tag("focus")),
                Box((row - 4.0, col - 4.0), (row + 12.0, col + 12.0), Tag("focus")),
                Scribble((((row - 3.0, col + 4.0), (row + 11.0, col + 4.0)),), 2.0, Tag("focus")),
            ]
            if label == "fracture":
                pixels[row : row + 6, col : col + 6] = 250
                regions.append(Box((row, col), (row + 6.0, col + 6.0), Tag("finding", "fracture")))
            image = place / "images" / f"{name}.png"
            Image.fromarray(pixels).save(image)
            Image.fromarray(mask).save(regions[0].source)
            cases.append(
                Case(name, f"S{p:02d}", f"P{p:02d}", image, label, tuple(regions), split, "PA", size, (0.2, 0.2))
            )
    cohort = Cohort("tiny", ("no fracture", "fracture"), tuple(cases), place)
    write_cohort(cohort, place)
    return read_cohort(place)


def make_gazed_cohort(place):
    """30 little chests of as many patients: a wide or a small bright spot or none, and a reader who looked there."""
    (place / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    classes, size, cases = ("Normal", "CHF", "pneumonia"), (48, 40), []
    for p in range(30):
        row, column = rng.uniform((10, 8), (38, 32))
        radius = (0.0, 9.0, 4.0)[p % 3]
        rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
        spot = 150.0 * ((rows - row) ** 2 + (columns - column) ** 2 < radius**2)
        image = place / "images" / f"P{p:02d}.png"
        Image.fromarray((rng.uniform(10, 80, size) + spot).astype(np.uint8)).save(image)
        # whoever sees nothing looks everywhere; every tenth reading was not recorded
        seen = rng.uniform((0, 0), size, (40, 2)) if p % 3 == 0 else rng.normal((row, column), 2.0, (40, 2))
        gaze = Gaze(seen, np.arange(40) / 60, np.full(40, 1 / 60), spread_px=4.0, tag=Tag("gaze", None, "reader"))
        split = ("train", "train", "train", "val", "test")[p // 3 % 5]
        cases.append(
            Case(f"P{p:02d}", f"S{p:02d}", f"P{p:02d}", image, classes[p % 3], () if p % 10 == 9 else (gaze,), split,
                 "AP", size)
        )  # fmt: skip
    write_cohort(Cohort("gazed", classes, tuple(cases), place), place)
    return read_cohort(place)


def tiny_recipe(**changes):
    """A network of a tenth of a second a step, guided by masks, on the CPU."""
    recipe = Recipe(
        title="tiny",
        model=ClassMapModel(backbone=Backbone(name="test_resnet"), pool=SoftmaxPool()),
        view=View(size=48, rotation_deg=10.0, contrast=0.1, brightness=0.1),
        guidance=SpatialNLL(),
        weight=0.1,
        regions=RegionChoice("mask", "focus", "all"),
        schedule=LinearDecay(1e-2, 1e-4),
        epochs=3,
        batch_size=6,
    )
    return replace(recipe, **changes)
