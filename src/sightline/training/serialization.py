"""Frozen dataclasses to plain JSON data and back, through one explicit catalogue.

A recipe names its parts by the catalogue's words; opening a stranger's run builds dataclasses from checked fields and
executes nothing else: no import by name, no pickle.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from sightline.data.targets.gaze_choice import GazeChoice
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.crops import Crop, RegionJitter
from sightline.data.views.image_view import View
from sightline.data.views.patches import Patches
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RecipeError
from sightline.explainers.localisation.protocols import MapBoxes

Catalogue = Mapping[str, type[Any]]
# what the network sees and is guided by, and how boxes are read off its maps: all that an exported run is made of
INPUT_WORDS: Catalogue = {
    "view": View,
    "volume_view": VolumeView,
    "patches": Patches,
    "crop": Crop,
    "region_jitter": RegionJitter,
    "region_choice": RegionChoice,
    "gaze_choice": GazeChoice,
    "map_boxes": MapBoxes,
}
# Words of earlier versions: recipes that use them open, and identities are still made of them, so that no finished run
# becomes a stranger. Kinds, fields by the kind that has them, and what titles of recipes begin with.
FORMER_KINDS = {
    "committee": "ensemble",
    "tried_windows": "sampled_window_loss",
    "tries": "window_sampling",
    "trying_transformer": "sampled_window_transformer",
}
FORMER_FIELDS = {("sampled_window_transformer", "tries"): "sampling", ("recipe", "average"): "ema_decay"}
FORMER_TITLE, CURRENT_TITLE = "committee of ", "ensemble of "
# of a value that its field cannot have; who builds a recipe from something else than its file says where that is
FIX_FIELD = "Fix the field in recipe.json."


def find_current_kind(kind: Any) -> Any:
    """Today's word for a kind; a word of an earlier version is mentioned on stderr, once."""
    if isinstance(kind, str) and kind in FORMER_KINDS:
        mention_former_word(kind, FORMER_KINDS[kind])
        return FORMER_KINDS[kind]
    return kind


def find_current_field(kind: str, field: str) -> str:
    """Today's word for a field of a kind."""
    return FORMER_FIELDS.get((kind, field), field)


@functools.cache
def mention_former_word(former: str, current: str) -> None:
    """One line on stderr; the same one is not printed twice."""
    print(f"sightline: {former} is called {current} now.", file=sys.stderr)


def replace_title(recipe: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """Plain data of a recipe whose title is `old` and a number; other titles are a person's own and stay."""
    title = recipe.get("title")
    if isinstance(title, str) and title.startswith(old) and title.removeprefix(old).isdecimal():
        return {**recipe, "title": new + title.removeprefix(old)}
    return dict(recipe)


def restore_former_words(data: Any) -> Any:
    """Plain data in the words that identities are made of.

    Example:
        >>> restore_former_words({"kind": "sampled_window_transformer", "sampling": None})
        {'kind': 'trying_transformer', 'tries': None}
    """
    if isinstance(data, list):
        return [restore_former_words(one) for one in data]
    if not isinstance(data, Mapping):
        return data
    kind = data.get("kind")
    if kind == "recipe":
        data = replace_title(data, CURRENT_TITLE, FORMER_TITLE)
    fields = {new: old for (owner, old), new in FORMER_FIELDS.items() if owner == kind}
    written = {fields.get(name, name): restore_former_words(value) for name, value in data.items()}
    kinds = {new: old for old, new in FORMER_KINDS.items()}
    return {**written, "kind": kinds[kind]} if isinstance(kind, str) and kind in kinds else written


def to_plain(value: Any, catalogue: Catalogue) -> Any:
    """Plain data of a value: dataclasses become dicts with a `kind`, tuples lists.

    Raises:
        RecipeError: a dataclass that the catalogue does not list, or a value that JSON cannot hold.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        words = {cls: word for word, cls in catalogue.items()}
        if type(value) not in words:
            raise RecipeError(f"{type(value).__name__} is not in the catalogue.", "Add it to papers/catalogue.py.")
        fields = {
            f.name: to_plain(getattr(value, f.name), catalogue)
            for f in dataclasses.fields(value)
            # a field that came later is left out where it changes nothing: recipes, and identities, stay as they were
            if f.init and not ("since" in f.metadata and getattr(value, f.name) == f.default)
        }
        return {"kind": words[type(value)], **fields}
    if isinstance(value, (tuple, list)):
        return [to_plain(v, catalogue) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v, catalogue) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise RecipeError(f"A {type(value).__name__} cannot be written to a recipe.", "Use numbers, text and dataclasses.")


def build_from_plain(data: Any, catalogue: Catalogue, where: str = "recipe") -> Any:
    """The value of plain data; every field is checked against its declared type.

    Raises:
        RecipeError: unknown kind or field, or a value of the wrong type, with the place it stands at.
    """
    if isinstance(data, Mapping):
        kind = find_current_kind(data.get("kind"))
        if kind is None:
            return {str(k): build_from_plain(v, catalogue, f"{where}.{k}") for k, v in data.items()}
        if not isinstance(kind, str) or kind not in catalogue:
            raise RecipeError(f"{where}: kind {kind!r} is unknown.", f"Known kinds: {', '.join(sorted(catalogue))}.")
        cls = catalogue[kind]
        hints = _read_hints(cls)
        known = {f.name: f for f in dataclasses.fields(cls) if f.init}
        data = {find_current_field(kind, str(name)): value for name, value in data.items()}
        if kind == "recipe":
            data = replace_title(data, FORMER_TITLE, CURRENT_TITLE)
        strange = sorted(set(data) - set(known) - {"kind"})
        if strange:
            raise RecipeError(
                f"{where}: {kind} has no field {', '.join(strange)}.", f"Its fields are {', '.join(known)}."
            )
        values = {}
        for name in known:
            if name in data:
                place = f"{where}.{name}"
                values[name] = _fit(build_from_plain(data[name], catalogue, place), hints[name], place)
        try:
            return cls(**values)
        except TypeError as error:
            raise RecipeError(f"{where}: {error}.", "Give every field that has no default.") from None
    if isinstance(data, list):
        return tuple(build_from_plain(v, catalogue, f"{where}[{i}]") for i, v in enumerate(data))
    return data


# declared types are text until they are evaluated, which takes longer than all the rest
_HINTS: dict[type, dict[str, Any]] = {}


def _read_hints(cls: type) -> dict[str, Any]:
    """The declared types of a class, by field."""
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _fit(value: Any, hint: Any, where: str) -> Any:
    """The value as its declared type, or a RecipeError. Protocols accept any dataclass that has what they ask for."""
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            try:
                return _fit(value, option, where)
            except RecipeError:
                continue
        raise _build_error(value, hint, where)
    if origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise _build_error(value, f"one of {', '.join(map(repr, typing.get_args(hint)))}", where)
    if origin is tuple:
        return _fit_tuple(value, hint, where)
    if origin in (Mapping, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if isinstance(value, Mapping):
            return value
        raise _build_error(value, hint, where)
    if hint is type(None):
        if value is None:
            return None
        raise _build_error(value, "null", where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _build_error(value, "a number that a float holds", where) from None
    if hint in (int, float, str, bool):
        if type(value) is hint:
            return value
        raise _build_error(value, hint.__name__, where)
    if getattr(hint, "_is_protocol", False):
        if dataclasses.is_dataclass(value) and all(hasattr(value, name) for name in _list_asked(hint)):
            return value
        raise _build_error(value, f"a part that can serve as {hint.__name__}", where)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _build_error(value, hint, where)


def _fit_tuple(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    options = typing.get_args(hint)
    if not isinstance(value, tuple):
        raise _build_error(value, "a list", where)
    if len(options) == 2 and options[1] is Ellipsis:
        return tuple(_fit(v, options[0], f"{where}[{i}]") for i, v in enumerate(value))
    if len(options) != len(value):
        raise _build_error(value, f"a list of {len(options)}", where)
    return tuple(_fit(v, o, f"{where}[{i}]") for i, (v, o) in enumerate(zip(value, options, strict=True)))


def _list_asked(protocol: type) -> list[str]:
    """Names that a protocol asks its parts to have."""
    own = [name for name in vars(protocol) if name == "__call__" or not name.startswith("_")]
    return [*own, *(name for name in vars(protocol).get("__annotations__", {}) if name not in own)]


def _build_error(value: Any, wanted: object, where: str) -> RecipeError:
    return RecipeError(f"{where} is {value!r:.200}; expected {wanted}.", FIX_FIELD)
