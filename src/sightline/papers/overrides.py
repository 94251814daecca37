"""How a person changes a recipe from the command line: sizes, backbones, regions, rates and lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import MOST_PIXELS
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RecipeError
from sightline.losses.spatial_nll import SpatialNLL
from sightline.models.backbones import AlexNet, Backbone
from sightline.structures.regions import Style
from sightline.structures.tag import Role
from sightline.training.recipe import MOST, Recipe

SELECT = ("last", "auc", "f1", "loss")
# of numbers for which 2 would be refused, or odd
_EXAMPLES = {"size": 512, "weight": 0.1, "rate": 0.01, "readers": "'majority'", "precision": "'32-true'"}


@dataclass(frozen=True)
class Changes:
    """Changes to a recipe, as on the command line; None keeps the recipe's value."""

    epochs: int | None = None
    steps: int | None = None
    size: int | None = None
    batch_size: int | None = None
    weight: float | None = None
    style: Style | None = None
    role: Role | None = None
    readers: str | None = None
    backbone: str | None = None
    weights: str | None = None
    rate: float | None = None
    select: str | None = None
    precision: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no number, and words that a recipe does not know."""
        for name in ("epochs", "steps", "size", "batch_size", "seed"):
            _require(name, getattr(self, name), int, "a whole number")
        for name in ("weight", "rate"):
            _require(name, getattr(self, name), (int, float), "a number")
        for name in ("readers", "precision"):
            _require(name, getattr(self, name), str, "a text")
        for name in ("backbone", "weights"):
            value = getattr(self, name)
            if isinstance(value, Path):
                object.__setattr__(self, name, str(value))
            elif not isinstance(value, str | None):
                raise RecipeError(f"{name} is {value!r}; expected a text.", "Give a name, or the path of a file.")
        if self.rate is not None and not 0.0 < self.rate <= MOST:
            raise RecipeError(
                f"rate must be above 0, and at most {MOST:.0e}; got {self.rate}.",
                "A rate of 0 learns nothing, a huge one overflows: try --rate 0.01.",
            )
        if self.size is not None and not 1 <= self.size <= MOST_PIXELS:
            raise RecipeError(
                f"size must be 1 pixel or more, and at most {MOST_PIXELS}; got {self.size}.", "Try --size 512."
            )
        for name, known in (("style", get_args(Style)), ("role", get_args(Role)), ("select", SELECT)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise RecipeError(f"There is no {name} {value!r}.", f"Known: {', '.join(known)}.")


def _require(name: str, value: Any, kind: type | tuple[type, ...], words: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise RecipeError(
            f"{name} is {value!r}; expected {words}.", f"Give for example {name}={_EXAMPLES.get(name, 2)}."
        )


def resize_recipe(recipe: Recipe, factor: float, *, least: int = 1) -> Recipe:
    """The recipe with every size in pixels of view and network times a factor, but none below the least."""

    def scale_pixels(pixels: int) -> int:
        return max(least, round(pixels * factor))

    if isinstance(recipe.view, VolumeView):
        # cubes are halved several times on the way
        side = max(16, 8 * round(recipe.view.size * factor / 8))
        volumes = replace(recipe.view, size=side)
        return replace(recipe, view=volumes, model=_change_each_part(recipe.model, lambda part: _size_part(part, side)))
    view = replace(recipe.view, size=scale_pixels(recipe.view.size))
    if view.patches is not None:
        view = replace(view, patches=replace(view.patches, size=scale_pixels(view.patches.size)))
    return replace(
        recipe, view=view, model=_change_each_part(recipe.model, lambda part: _resize_part(part, scale_pixels))
    )


def _size_part(part: Any, side: int) -> Any:
    return replace(part, size=side) if isinstance(getattr(part, "size", None), int) else part


def _resize_part(part: Any, times: Callable[[int], int]) -> Any:
    sizes = {
        name: times(getattr(part, name))
        for name in ("localiser_px", "roi_px", "input_px")
        if isinstance(getattr(part, name, None), int)
    }
    return replace(part, **sizes) if sizes else part


def _change_each_part(part: Any, change: Callable[[Any], Any]) -> Any:
    """A config with a change made to each of its nested configs, those of an ensemble too, and to itself."""
    inner: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            inner[field.name] = _change_each_part(value, change)
        elif field.name == "members":
            inner[field.name] = tuple(_change_each_part(member, change) for member in value)
    return change(replace(part, **inner) if inner else part)


def _replace_backbone(part: Any, name: str | None, weights: str | None) -> Any:
    """Feature networks exchanged: a named backbone also takes AlexNet's place."""
    if isinstance(part, AlexNet):
        if name is None:
            return _set_alexnet_weights(part, weights)
        part = Backbone(name=name)
    if not isinstance(part, Backbone):
        return part
    if name is not None:
        part = replace(part, name=name, mean=None, std=None, options={})
    if weights is not None:
        part = replace(part, weights=None if weights == "none" else weights)
    return part


def _set_alexnet_weights(part: AlexNet, weights: str | None) -> AlexNet:
    """Weights that are given are a backbone's, unless they are none, or a folder or file of AlexNet's too."""
    if weights == "none":
        return replace(part, weights=None)
    place = Path(weights or "").expanduser()
    of_alexnet = any(place.glob("alexnet*.safetensors")) if place.is_dir() else place.name.startswith("alexnet")
    return replace(part, weights=weights) if weights is not None and of_alexnet else part


def apply_changes(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with a person's changes."""
    new = recipe
    if changes.size is not None:
        new = resize_recipe(new, changes.size / new.view.size)
    if changes.backbone is not None or changes.weights is not None:
        model = _change_each_part(new.model, lambda part: _replace_backbone(part, changes.backbone, changes.weights))
        if model == new.model and changes.backbone not in (None, *_list_backbones(new.model)):
            raise RecipeError("This recipe's network has no backbone to change.")
        new = replace(new, model=model)
    regions = new.regions
    asked = (changes.style, changes.role, changes.readers)
    if any(value is not None for value in asked) and isinstance(regions, GazeChoice):
        raise RecipeError(
            "This recipe is guided by gaze, which has no style, no role, and a reader of its own word.",
            "Leave them out.",
        )
    if changes.style is not None and isinstance(regions, RegionChoice):
        regions = replace(regions, style=changes.style)
    if changes.role is not None and isinstance(regions, RegionChoice):
        regions = replace(regions, role=changes.role)
    if changes.readers is not None and isinstance(regions, RegionChoice):
        regions = replace(regions, readers=changes.readers)
        if changes.readers == "soft" and isinstance(new.guidance, SpatialNLL):
            # what makes shares count; the loss would be refused otherwise
            new = replace(new, guidance=replace(new.guidance, weigh="share"))
    new = replace(new, regions=regions)
    if changes.rate is not None:
        if not hasattr(new.schedule, "start"):
            raise RecipeError("This recipe's schedule has no first rate to change.")
        new = replace(new, schedule=replace(new.schedule, start=changes.rate))  # type: ignore[type-var]
    plain = {
        name: value
        for name in ("epochs", "steps", "batch_size", "weight", "select", "precision", "seed")
        if (value := getattr(changes, name)) is not None
    }
    return replace(new, **plain)


def _list_backbones(model: Any) -> list[str]:
    """Names of the feature networks of a config."""
    found: list[str] = []

    def look(part: Any) -> Any:
        if isinstance(part, Backbone):
            found.append(part.name)
        return part

    _change_each_part(model, look)
    return found
