"""A tiny cohort in our layout, and a recipe of a tenth of a second a step."""

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
