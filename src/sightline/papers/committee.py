"""A committee of finished runs: the recipe of what is put together, so that it is served like any other run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sightline.cohorts.transforms import View
from sightline.errors import RecipeError
from sightline.lab.recipe import Recipe
from sightline.models.class_maps import ClassMapModel
from sightline.models.committee import Committee
from sightline.models.global_pooling import GlobalPooling
from sightline.models.multi_scale import MultiScale
from sightline.models.volume_backbone import VolumeBackbone
from sightline.models.volume_unet import VolumeUNet


def committee_recipe(recipes: Sequence[Recipe], *, mirrored: bool = False, smooth: float = 0.0) -> Recipe:
    """The recipe of a committee; what only training needs (augmentation, losses, schedule) is the first member's.

    Args:
        recipes: of the runs that judge together, for example the seeds of one table row.
        mirrored: let every member also judge the mirror image.
        smooth: standard deviation in cells that the mean map is smoothed with.

    Raises:
        RecipeError: no member; a network that says no class maps or class scores of the whole image; or members that
            are shown different images, or tell different classes apart.
    """
    if not recipes:
        raise RecipeError("A committee needs at least one member.", "Name one or more run folders.")
    first = recipes[0]
    members = []
    for recipe in recipes:
        if not isinstance(recipe.model, ClassMapModel | GlobalPooling | MultiScale | VolumeUNet | VolumeBackbone):
            raise RecipeError(
                f"{recipe.title} ({type(recipe.model).__name__}) cannot sit on a committee: its evidence lies in a "
                "window of its own, or it says only a box.",
                "Use runs of class map, global pooling or volume networks.",
            )
        if recipe.task != first.task:
            raise RecipeError(
                f"{first.title} and {recipe.title} tell different classes apart.", "Use runs of one task."
            )
        if _shown(recipe) != _shown(first):
            raise RecipeError(
                f"{first.title} and {recipe.title} are shown different images: {_shown(first)} and {_shown(recipe)}.",
                "Use runs of one size, crop and tone.",
            )
        members.append(recipe.model)
    return replace(first, title=f"committee of {len(members)}", model=Committee(tuple(members), mirrored, smooth))


def _shown(recipe: Recipe) -> dict[str, object]:
    """What decides which image a network sees when it is asked (and not while it is trained)."""
    view = recipe.view
    if isinstance(view, View):
        return {"size": view.size, "equalise": view.equalise, "crop": view.crop}
    return {"size": view.size, "window_hu": view.window_hu}
