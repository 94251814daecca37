"""Trains recipes on N devices: `python device_training.py COHORT OUT N`; Fabric starts the other processes."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import View
from sightline.explainers.gradients import InputGradient
from sightline.losses.attribution_priors import AttributionPrior
from sightline.losses.cell_focal import CellFocal
from sightline.losses.gg_cam import GazeGuided
from sightline.models.backbones import Backbone
from sightline.models.cam_classifiers import ClassMapModel
from sightline.models.necks import PyramidAttention
from sightline.papers.catalogue import CATALOGUE
from sightline.training.engine import Engine
from sightline.training.train import train
from support.cohorts import tiny_recipe
from support.objectives import Explained, Learned

WORDS = {**CATALOGUE, "learned": Learned, "explained": Explained}
# batches of five on two devices: three images and two, of which other numbers are marked
MARKS = RegionChoice("box", "finding", "all")
BARE = {"guidance": None, "weight": 0.0, "steps": 6, "batch_size": 5}
RECIPES = {
    "guided": tiny_recipe(steps=6, batch_size=5, regions=MARKS, select="loss"),
    "trimmed": tiny_recipe(steps=6, batch_size=5, regions=MARKS, guidance=CellFocal(trimmed=0.4)),
    "learned": tiny_recipe(objective=Learned(), **BARE),
    # the same in float64: what is left of the difference is not rounding
    "learned in float64": tiny_recipe(objective=Learned(), precision="64-true", **BARE),
    "explained": tiny_recipe(objective=Explained(), **BARE),
    # five studies of two views: six images and four
    "joined in float64": tiny_recipe(precision="64-true", join_views="maximum", steps=6, batch_size=5, regions=MARKS),
    # batches without a mark, whose loss knows nothing of the weight of gaze
    "gaze in float64": tiny_recipe(
        objective=GazeGuided(), precision="64-true", regions=MARKS, **{**BARE, "batch_size": 2}
    ),
    # a network with a part that has no output
    "idle in float64": tiny_recipe(
        precision="64-true",
        model=ClassMapModel(backbone=Backbone(name="test_resnet"), attention=PyramidAttention()),
        view=View(size=64),
        **BARE,
    ),
    "prior in float64": tiny_recipe(
        precision="64-true",
        objective=AttributionPrior(InputGradient(score="log_probabilities", reduce="square_sum"), "outside", 0.1),
        regions=MARKS,
        **BARE,
    ),
}


def main(cohort: Path, out: Path, devices: int) -> None:
    """Train all of them."""
    torch.set_num_threads(1)
    for name, recipe in RECIPES.items():
        try:
            train(recipe, read_cohort(cohort), out / name, WORDS, Engine("cpu", devices, quiet=True))
        except Exception as error:
            error.add_note(f"in {name}")
            raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
