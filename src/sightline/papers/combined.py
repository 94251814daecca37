"""A trained localiser before a classifier that was trained on experts' crops: the recipe of what is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sightline.data.views.frames import describe_shown
from sightline.errors import RecipeError
from sightline.models.box_regression import BoxRegression
from sightline.models.cam_classifiers import ClassMapModel, GlobalPooling
from sightline.models.ensembles import Ensemble, MultiScale
from sightline.models.spatial_transformer import Cascade
from sightline.models.volume_networks import VolumeBackbone, VolumeUNet
from sightline.structures.case import SPLITS
from sightline.structures.protocols import tell_judging
from sightline.training.recipe import Recipe


def build_cascade_recipe(localiser: Recipe, classifier: Recipe, size: int | None = None) -> Recipe:
    """The recipe of a cascade (Sup+UBM of Jimenez-Sanchez 2018, section II-B); its parts' weights are their runs'.

    It was trained on every split that a part was trained on; the rest is the classifier's.

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
    return _join_training(replace(classifier, title="cascade", model=model, view=view), [classifier, localiser])


def build_ensemble_recipe(
    recipes: Sequence[Recipe], *, mirrored: bool = False, smooth: float = 0.0, maps_of: Sequence[int] = ()
) -> Recipe:
    """The recipe of an ensemble; what only training needs (augmentation, losses, schedule) is the first member's.

    It was trained on every split that a member was trained on, and its epoch chosen on validation if a member's was.

    Args:
        recipes: of the runs that judge together, for example the seeds of one table row.
        mirrored: let every member also judge the mirror image.
        smooth: standard deviation in cells that the mean map is smoothed with.
        maps_of: runs whose maps are shown, by their place from 0; empty: the mean map of all.

    Raises:
        RecipeError: no member; a network that says no class maps or class scores of the whole image; or members that
            are shown different images, tell different classes apart, judge classes against each other and each by
            itself, or join the views of a study in different ways.
    """
    if not recipes:
        raise RecipeError("An ensemble needs at least one member.", "Name one or more run folders.")
    first = recipes[0]
    members = []
    for recipe in recipes:
        if not isinstance(recipe.model, ClassMapModel | GlobalPooling | MultiScale | VolumeUNet | VolumeBackbone):
            raise RecipeError(
                f"{recipe.title} ({type(recipe.model).__name__}) cannot join an ensemble: its evidence lies in a "
                "window of its own, or it says only a box.",
                "Use runs of class map, global pooling or volume networks.",
            )
        if recipe.task != first.task:
            raise RecipeError(
                f"{first.title} and {recipe.title} tell different classes apart.", "Use runs of one task."
            )
        if recipe.independent != first.independent:
            ours, others = (tell_judging(one.independent) for one in (first, recipe))
            raise RecipeError(
                f"{first.title} judges {ours}, {recipe.title} {others}: their probabilities have no common mean.",
                "Use runs that are all of one kind.",
            )
        shown, shown_first = describe_shown(recipe.view), describe_shown(first.view)
        if shown != shown_first:
            raise RecipeError(
                f"{first.title} and {recipe.title} are shown different images: {shown_first} and {shown}.",
                "Use runs of one size, crop and tone.",
            )
        if recipe.join_views != first.join_views:
            raise RecipeError(
                f"{first.title} and {recipe.title} join the views of a study in different ways: {first.join_views} and "
                f"{recipe.join_views}.",
                "Use runs of one join_views.",
            )
        members.append(recipe.model)
    model = Ensemble(tuple(members), mirrored, smooth, tuple(maps_of), first.independent)
    return _join_training(replace(first, title=f"ensemble of {len(members)}", model=model), recipes)


def _join_training(recipe: Recipe, parts: Sequence[Recipe]) -> Recipe:
    """The recipe with the splits that any of its parts was trained on, or its epoch chosen on.

    Parts that differ in neither leave it as it is.
    """
    trained = {split for part in parts for split in part.train_on}
    if trained != set(recipe.train_on):
        recipe = replace(recipe, select="last", train_on=tuple(split for split in SPLITS if split in trained))
    chosen = next((part for part in parts if part.select != "last"), None)
    if chosen is None or "val" in trained:
        return recipe
    return replace(recipe, select=chosen.select, validate=chosen.validate)
