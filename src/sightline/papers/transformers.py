"""Does a transformer find the femoral head? A table of ours beside Table II of Jimenez-Sanchez et al. 2018.

Their transformers stay at the whole image (Table V prints one localisation for all of them), and so do ours. The row
`a-STN, tries` learns from windows it tries; the rows beside it take its head of places or its longer training alone.
"""

from __future__ import annotations

from dataclasses import replace

from sightline.guidance.tried_windows import TriedWindows
from sightline.lab.optimise import LayerRates
from sightline.lab.recipe import Recipe
from sightline.lab.table import Row, Table
from sightline.models.backbones import Backbone
from sightline.models.class_maps import ClassMapModel
from sightline.models.global_pooling import GlobalPooling
from sightline.models.tries import Tries
from sightline.models.trying_transformer import TryingTransformer
from sightline.papers import jimenez2018
from sightline.papers.liao2022 import Profile

# epochs for one of the plain rows: two networks learn, one after the other has begun
LONGER = 2
ALONE = 3


def trying(recipe: Recipe, *, tries: bool = True) -> Recipe:
    """a-STN with a head of places, which learns from windows it tries, or from the warp as a-STN does.

    Args:
        recipe: that of the whole image.
        tries: whether windows are tried.
    """
    classifier = recipe.model
    assert isinstance(classifier, ClassMapModel | GlobalPooling)
    model = TryingTransformer(
        classifier,
        # stride 16: 14 x 14 places at 224 px
        Backbone("resnet50", weights="imagenet", stages=4),
        Tries() if tries else None,
        localiser_px=jimenez2018.SIZE,
        roi_px=jimenez2018.SIZE,
    )
    return replace(
        recipe,
        title="a-STN, tries" if tries else "a-STN, places",
        model=model,
        objective=TriedWindows(after=ALONE) if tries else None,
        view=replace(recipe.picture_view, size=jimenez2018.LARGER),
        rates=LayerRates({"localiser.": 0.3, "localiser.head.": 1.0}),
        epochs=LONGER * recipe.epochs,
    )


def table(profile: Profile = "recommended") -> Table:
    """Whole image, a-STN as in Table II and for longer, a head of places, tried windows, and the expert's crop."""
    base = jimenez2018.for_task(jimenez2018.base_recipe(profile), "3c")
    stn = jimenez2018.transformer(base, "similarity", profile)
    longer = replace(stn, title="a-STN, longer", epochs=LONGER * stn.epochs)
    upper = jimenez2018.for_task(jimenez2018.upper_bound(jimenez2018.base_recipe(profile), profile), "3c")
    reference = "3c LBM"
    rows = (
        Row(reference, base, group="whole image"),
        Row("3c a-STN", stn, reference, group="transformer"),
        Row("3c a-STN, longer", longer, reference, group="transformer"),
        Row("3c a-STN, places", trying(base, tries=False), reference, group="transformer"),
        Row("3c a-STN, tries", trying(base), reference, group="transformer"),
        Row("3c UBM", upper, reference, group="expert crop"),
    )
    return Table(
        "femur/transformers",
        "Transformers that move: windows tried in place of the warp's gradient",
        rows,
        "Rows of our own beside Table II. Boxes are the windows themselves; whole image and centre prior are the "
        "reference rows, and the printed displacement says whether a window moved.",
        jimenez2018.METRICS,
        leading=("image-wise F1 weighted by support", "image-wise F1 of fracture"),
        size=jimenez2018.SIZE,
    )
