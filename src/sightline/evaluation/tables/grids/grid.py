"""A researcher's own table, from a YAML file: rows by recipe and changed fields, references, seeds, what to report.

    title: How much does the weight matter?
    seeds: 3
    report: [image-wise AUC, pointing game (finding)]
    rows:
      - name: unguided
        recipe: fracture-unguided
      - name: guided 0.3
        recipe: fracture-guided
        change: {weight: 0.3, view.size: 256, guidance.resolution: map}
        reference: unguided
        train_images: 300

A field is named as `recipe.json` nests it, with points between; a part is exchanged by its `kind`. Nothing in the file
is executed: it can say what a recipe can say.
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from sightline.data.targets.mark_errors import MarkError
from sightline.data.targets.region_choice import RegionChoice
from sightline.data.views.image_view import MOST_PIXELS
from sightline.errors import LayoutError, RecipeError
from sightline.evaluation.suggestions import require_strategy
from sightline.evaluation.tables.engines.suggested_marks import Asking
from sightline.evaluation.tables.table import Row, Table
from sightline.io.yaml_files import read_yaml
from sightline.training.recipe import Recipe
from sightline.training.serialization import (
    FIX_FIELD,
    Catalogue,
    build_from_plain,
    find_current_field,
    mention_former_word,
    to_plain,
)

TABLE_WORDS = ("title", "caption", "seeds", "report", "size", "rows")
ROW_WORDS = (
    "name", "recipe", "change", "reference", "train_images", "train_per_class", "wrong_marks", "wrong_kind",
    "trained_on", "tested_on", "group", "teacher", "suggest",
)  # fmt: skip
_NAME = "Name a table, or a YAML file that describes one."
MOST_SEEDS, MOST_CASES, LONGEST_NAME = 1000, 10**9, 200
# what every training of a table or a search is given, whatever its recipe says
_SET_BY_TABLE = {
    "seed": "Trainings have the seeds 0, 1, 2 and so on: say with --seeds, or `seeds:` of a table, how many.",
    "title": "Trainings are called by their row: change its `name`.",
}


def read_grid(path: Path, find: Callable[[str], Recipe], catalogue: Catalogue) -> Table:
    """The table that a YAML file describes.

    Args:
        path: the file.
        find: a recipe by name, file or run folder.
        catalogue: words of recipes.

    Raises:
        RecipeError: no such file, no YAML, a word that is none (with the one that was probably meant), a field that the
            recipe does not have, two rows of one name, or a reference that does not stand above its row.

    Example:
        >>> read_grid(Path("my.yaml"), find_recipe, CATALOGUE).rows[0].name  # doctest: +SKIP
        'unguided'
    """
    data = _load(path)
    _refuse_other_words(data, TABLE_WORDS, str(path))
    rows = data.get("rows")
    if not isinstance(rows, list) or not rows:
        raise RecipeError(f"{path} lists no rows.", "Write `rows:` and below it a list, each with a name and a recipe.")
    made: list[Row] = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if not isinstance(row, Mapping):
            raise RecipeError(f"{where} is {reprlib.repr(row)}.", "Give each row a name and a recipe.")
        made.append(_build_row(row, made, where, find, catalogue))
    report = _parse_texts(data.get("report", ()), f"{path}: report")
    table = Table(
        name=path.stem,
        title=_parse_text(data.get("title", path.stem), f"{path}: title"),
        rows=tuple(made),
        caption=_parse_text(data.get("caption", ""), f"{path}: caption"),
        size=_parse_number(data.get("size", 512), f"{path}: size", int, least=16, most=MOST_PIXELS),
        seeds=_parse_number(data["seeds"], f"{path}: seeds", int, least=1, most=MOST_SEEDS)
        if "seeds" in data
        else None,
    )
    return replace(table, metrics=report, leading=report, named_in=str(path)) if report else table


def _load(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise RecipeError(f"{path} does not exist.", _NAME)
    try:
        data = read_yaml(path, _NAME).data
    except LayoutError as error:
        raise RecipeError(error.message, error.remedy) from None
    if not isinstance(data, Mapping):
        raise RecipeError(f"{path} describes no table.", f"Write {', '.join(TABLE_WORDS)} at its top level.")
    return data


def _build_row(
    data: Mapping[str, Any], above: Sequence[Row], where: str, find: Callable[[str], Recipe], catalogue: Catalogue
) -> Row:
    _refuse_other_words(data, ROW_WORDS, where)
    for word in ("name", "recipe"):
        if not isinstance(data.get(word), str) or not data[word].strip():
            raise RecipeError(f"{where} has no {word}.", f"Write `{word}:` and a text.")
    name = data["name"].strip()
    if not name.isprintable() or len(name) > LONGEST_NAME:
        raise RecipeError(
            f"{where}: the name {reprlib.repr(name)} is no line of up to {LONGEST_NAME} characters.", "Shorten it."
        )
    names = {row.name for row in above}
    if name in names:
        raise RecipeError(f"{where}: there is a row {name!r} already.", "Give every row a name of its own.")
    reference = data.get("reference")
    if reference is not None and (not isinstance(reference, str) or reference not in names):
        raise RecipeError(
            f"{where}: the reference {reprlib.repr(reference)} is no row above {name!r}.",
            f"Rows above: {', '.join(row.name for row in above) or 'none'}.",
        )
    change = data.get("change", {})
    if not isinstance(change, Mapping):
        raise RecipeError(f"{where}: change is {reprlib.repr(change)}.", "Write fields and values, e.g. {weight: 0.3}.")
    with _name_place(where):
        found = find(data["recipe"])
    recipe = change_recipe(found, change, catalogue, where)
    numbers: dict[str, Any] = {
        word: _parse_number(data[word], f"{where}: {word}", int, least=1, most=MOST_CASES)
        for word in ("train_images", "train_per_class")
        if word in data
    }
    if "wrong_marks" in data:
        numbers["wrong_marks"] = _parse_number(data["wrong_marks"], f"{where}: wrong_marks", float, least=0, most=1)
        if isinstance(recipe.regions, RegionChoice) and recipe.regions.style != "box":
            raise RecipeError(
                f"{where}: wrong marks are boxes, and the recipe is guided by the style {recipe.regions.style!r}.",
                "Add `regions.style: box` to its changes.",
            )
    if "wrong_kind" in data:
        numbers["wrong_kind"] = _parse_choice(data["wrong_kind"], get_args(MarkError), f"{where}: wrong_kind")
    sources: dict[str, Any] = {
        w: _parse_texts(data[w], f"{where}: {w}") for w in ("trained_on", "tested_on") if w in data
    }
    teaching = _parse_teaching(data, above, where)
    if "wrong_kind" in data and "wrong_marks" not in data:
        raise RecipeError(f"{where}: wrong_kind says how marks are wrong, and not how many.", "Add `wrong_marks: 0.3`.")
    group = _parse_text(data.get("group", ""), f"{where}: group")
    return Row(name, recipe, reference, group=group, **numbers, **sources, **teaching)


def _parse_teaching(data: Mapping[str, Any], above: Sequence[Row], where: str) -> dict[str, Any]:
    """The row whose run makes the marks, or says with `suggest` which ones experts make besides."""
    teacher, suggest = data.get("teacher"), data.get("suggest")
    if teacher is None and suggest is None:
        return {}
    if not isinstance(teacher, str) or teacher not in {row.name for row in above}:
        raise RecipeError(
            f"{where}: the teacher {reprlib.repr(teacher)} is no row above it.",
            f"Rows above: {', '.join(row.name for row in above) or 'none'}.",
        )
    if suggest is None:
        return {"teacher": teacher}
    if not isinstance(suggest, Mapping):
        raise RecipeError(
            f"{where}: suggest is {reprlib.repr(suggest)}.", "Write for example {strategy: uncertainty, n: 50}."
        )
    _refuse_other_words(suggest, ("strategy", "n"), f"{where}: suggest")
    n = _parse_number(suggest.get("n", Asking.n), f"{where}: suggest: n", int, least=1, most=MOST_CASES)
    strategy = str(suggest.get("strategy", Asking.strategy))
    require_strategy(strategy)
    return {"teacher": teacher, "teaching": Asking(strategy, n)}


def change_recipe(recipe: Recipe, change: Mapping[str, Any], catalogue: Catalogue, where: str = "change") -> Recipe:
    """A recipe with some of its fields changed, named as `recipe.json` nests them: `model.backbone.name`.

    Args:
        recipe: what is changed.
        change: values by dotted name; a value that is a mapping with a `kind` exchanges a whole part.
        catalogue: words of recipes.
        where: how errors name the place.

    Raises:
        RecipeError: a field that is not there, one that is set anyway, or a value that it cannot have.
    """
    plain = to_plain(recipe, catalogue)
    for dotted, value in change.items():
        if dotted in _SET_BY_TABLE:
            raise RecipeError(f"{where}: {dotted} would be written over.", _SET_BY_TABLE[dotted])
        *path, last = str(dotted).split(".")
        inside = plain
        for depth, former in enumerate(path):
            word = find_current_field(inside.get("kind", ""), former)
            inner = inside.get(word)
            if not isinstance(inner, dict):
                so_far = ".".join(path[: depth + 1])
                raise RecipeError(
                    f"{where}: the recipe has no part {so_far!r} to change {last!r} in.",
                    _suggest_nearest(word, [k for k, v in inside.items() if isinstance(v, dict)]),
                )
            inside = inner
        former, last = last, find_current_field(inside.get("kind", ""), last)
        if former != last:
            mention_former_word(former, last)
        known = [f for f in _list_fields(inside, catalogue) if f != "kind"]
        if known and last not in known:
            raise RecipeError(f"{where}: the recipe has no field {dotted!r}.", _suggest_nearest(last, known))
        inside[last] = value
    with _name_place(where):
        made = build_from_plain(plain, catalogue)
    assert isinstance(made, Recipe)
    return made


@contextmanager
def _name_place(where: str) -> Iterator[None]:
    """A recipe's error with the place in the table before it."""
    try:
        yield
    except RecipeError as error:
        remedy = "Fix it in `change`." if error.remedy == FIX_FIELD else error.remedy
        raise RecipeError(f"{where}: {error.message.removeprefix('recipe.')}", remedy) from None


def _list_fields(part: Mapping[str, Any], catalogue: Catalogue) -> list[str]:
    """Names of the fields of a part in plain data; of a mapping without a kind, none: its keys are free."""
    kind = part.get("kind")
    return list(catalogue[kind].__dataclass_fields__) if isinstance(kind, str) and kind in catalogue else []


def _refuse_other_words(data: Mapping[Any, Any], words: Sequence[str], where: str) -> None:
    for word in data:
        if word not in words:
            raise RecipeError(f"{where}: {word!r} is no word of a table.", _suggest_nearest(str(word), words))


def _suggest_nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."


def _parse_number(value: Any, where: str, kind: type, *, least: float, most: float) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    fraction = kind is float and isinstance(value, float) and math.isfinite(value)
    if not (whole or fraction) or not least <= value <= most:
        kinds = "number" if kind is float else "whole number"
        raise RecipeError(f"{where} is {reprlib.repr(value)}.", f"Write a {kinds} from {least:g} on, up to {most:,}.")
    return kind(value)


def _parse_text(value: Any, where: str) -> str:
    if value is None or isinstance(value, Mapping | list | set | bytes):
        raise RecipeError(f"{where} is {reprlib.repr(value)}.", "Write a text, in quotes where it holds signs.")
    return str(value)


def _parse_choice(value: Any, words: Sequence[str], where: str) -> str:
    if value not in words:
        raise RecipeError(f"{where} is {reprlib.repr(value)}.", f"There are: {', '.join(words)}.")
    return str(value)


def _parse_texts(value: Any, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise RecipeError(f"{where} is {reprlib.repr(value)}.", "Write a list of texts: [image-wise AUC].")
    return tuple(texts)
