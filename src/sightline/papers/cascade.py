"""A trained localiser before a classifier that was trained on experts' crops: the recipe of what is put together."""

from __future__ import annotations

from dataclasses import replace

from sightline.errors import RecipeError
from sightline.lab.recipe import Recipe
from sightline.models.box_regression import BoxRegression
from sightline.models.cascade import Cascade
from sightline.models.class_maps import ClassMapModel
from sightline.models.global_pooling import GlobalPooling


def cascade_recipe(localiser: Recipe, classifier: Recipe, size: int | None = None) -> Recipe:
    """The recipe of a cascade (Sup+UBM of Jimenez-Sanchez 2018, section II-B); its parts' weights are their runs'.

    Args:
        localiser: of a run that regresses boxes.
        classifier: of a run that was trained on crops around boxes.
        size: side of the image that the box is cut from; twice the classifier's when None, so that a box of half the
            image is seen as sharply as the classifier is used to.

    Raises:
        RecipeError: a localiser that says no boxes, a classifier that is none, or views that differ in tone.
    """
    if not isinstance(localiser.model, BoxRegression):
        raise RecipeError("The localiser must be a box regression.", "Train one: sightline train box-regression.")
    if not isinstance(classifier.model, ClassMapModel | GlobalPooling):
        raise RecipeError(
            "The classifier must be a class map or global pooling network.", "Train one: sightline train ubm."
        )
    if classifier.picture_view.crop is None:
        raise RecipeError(
            "The classifier was trained on whole pictures, not on crops.", "Train one: sightline train ubm."
        )
    if localiser.picture_view.equalise != classifier.picture_view.equalise:
        raise RecipeError("One of the two sees equalised pictures and the other does not.", "Train both alike.")
    model = Cascade(
        localiser=replace(localiser.model, input_px=localiser.picture_view.size),
        classifier=classifier.model,
        margin=classifier.picture_view.crop.margin,
        roi_px=classifier.picture_view.size,
    )
    view = replace(localiser.picture_view, size=size or 2 * classifier.picture_view.size, crop=None)
    return replace(classifier, title="cascade", model=model, view=view)
