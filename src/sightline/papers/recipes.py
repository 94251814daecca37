"""What can be trained and which tables can be run, by name, and how a person changes them from the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sightline.errors import RecipeError
from sightline.lab.recipe import Recipe, read_recipe
from sightline.lab.table import Row, Table
from sightline.models.class_maps import ClassMapModel
from sightline.papers import demo_recipes, fracatlas, liao2022
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.liao2022 import Profile
from sightline.region import Role, Style

RECIPES: dict[str, tuple[str, Callable[[], Recipe]]] = {
    "unguided": ("class map with mean pooling, no guidance (Liao 2022, baseline)", liao2022.base_recipe),
    "attended": (
        "softmax pooling alone (Liao 2022, lambda = 0)",
        lambda: liao2022.attended(liao2022.base_recipe()),
    ),
    "guided": (
        "softmax pooling, class maps guided by focus regions (Liao 2022, equation 6, lambda = 0.1)",
        lambda: liao2022.guided(liao2022.base_recipe(), 0.1, "mask"),
    ),
    "l1": ("L1 penalty on the class maps", lambda: liao2022.normed(liao2022.base_recipe(), 1, 1e-8)),
    "l2": ("L2 penalty on the class maps", lambda: liao2022.normed(liao2022.base_recipe(), 2, 1e-8)),
    "residual": (
        "residual attention module",
        lambda: liao2022.with_attention(liao2022.base_recipe(), "residual attention"),
    ),
    "self": ("self-attention module", lambda: liao2022.with_attention(liao2022.base_recipe(), "self attention")),
    "pyramid": (
        "pyramid attention module",
        lambda: liao2022.with_attention(liao2022.base_recipe(), "pyramid attention"),
    ),
    "small-unguided": (
        "a ResNet of 0.4 million weights at 192 px for CPUs and a first try, unguided",
        demo_recipes.unguided,
    ),
    "small-guided": ("the same, guided by focus regions", demo_recipes.guided),
    "fracture-unguided": ("high-resolution class maps for small findings, unguided", fracatlas.unguided),
    "fracture-guided": ("the same, the fracture map guided by the fractures' boxes", fracatlas.guided),
}

TABLES: dict[str, Callable[[Profile], Table]] = {
    "liao2022/table3": liao2022.table3,
    "liao2022/table4": liao2022.table4,
    "liao2022/supplement1": liao2022.supplement1,
    "liao2022/supplement2": liao2022.supplement2,
    "liao2022/cub200": liao2022.cub200,
    "liao2022/fracatlas": fracatlas.table,
}


@dataclass(frozen=True)
class Changes:
    """What a person changed on the command line; None keeps the recipe's own."""

    epochs: int | None = None
    steps: int | None = None
    size: int | None = None
    batch_size: int | None = None
    weight: float | None = None
    style: Style | None = None
    role: Role | None = None
    backbone: str | None = None
    weights: str | None = None
    rate: float | None = None
    select: str | None = None
    precision: str | None = None
    seed: int | None = None


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or from a recipe.json or a run folder.

    Raises:
        RecipeError: no such recipe.
    """
    if name in RECIPES:
        return RECIPES[name][1]()
    path = Path(name)
    if path.is_dir() and (path / "recipe.json").is_file():
        return read_recipe(path / "recipe.json", CATALOGUE)
    if path.suffix == ".json":
        return read_recipe(path, CATALOGUE)
    raise RecipeError(f"There is no recipe {name!r}.", f"Known: {', '.join(RECIPES)}; or name a recipe.json.")


def find_table(name: str, profile: Profile, changes: Changes, rows: tuple[str, ...] = ()) -> Table:
    """A table by name, with a person's changes in every row; `rows` keeps rows that contain one of the words.

    Raises:
        RecipeError: no such table, or no row left.
    """
    if name not in TABLES:
        raise RecipeError(f"There is no table {name!r}.", f"Known: {', '.join(TABLES)}.")
    table = TABLES[name](profile)
    kept = table.rows
    if rows:
        named = {row.name for row in table.rows if any(word in row.name for word in rows)}
        named |= {row.reference for row in table.rows if row.name in named and row.reference is not None}
        kept = tuple(row for row in table.rows if row.name in named)
        if not kept:
            raise RecipeError(
                f"No row of {name} contains {' or '.join(rows)}.", f"Rows: {', '.join(r.name for r in table.rows)}."
            )
    return replace(table, rows=tuple(_changed_row(row, changes) for row in kept))


def _changed_row(row: Row, changes: Changes) -> Row:
    size = None
    if changes.size is not None:
        # sizes keep their ratio: --size 128 makes 512 into 128 and 768 into 192
        size = max(16, round(row.recipe.view.size * changes.size / 512))
    return replace(row, recipe=changed(row.recipe, replace(changes, size=size)))


def changed(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with a person's changes."""
    new = recipe
    if changes.size is not None:
        new = replace(new, view=replace(new.view, size=changes.size))
    if changes.backbone is not None or changes.weights is not None:
        if not isinstance(new.model, ClassMapModel):
            raise RecipeError("This recipe's network has no backbone to change.")
        backbone = new.model.backbone
        if changes.backbone is not None:
            backbone = replace(backbone, name=changes.backbone, mean=None, std=None, options={})
        if changes.weights is not None:
            backbone = replace(backbone, weights=None if changes.weights == "none" else changes.weights)
        new = replace(new, model=replace(new.model, backbone=backbone))
    if changes.style is not None:
        new = replace(new, regions=replace(new.regions, style=changes.style))
    if changes.role is not None:
        new = replace(new, regions=replace(new.regions, role=changes.role))
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


def listing() -> str:
    """Recipes and tables, a line each."""
    width = max(len(name) for name in (*RECIPES, *TABLES))
    lines = ["Recipes (sightline train NAME ...):"]
    lines += [f"  {name:<{width}}  {about}" for name, (about, _) in RECIPES.items()]
    lines += ["", "Tables (sightline table NAME ...):"]
    for name, make in TABLES.items():
        table = make("recommended")
        lines.append(f"  {name:<{width}}  {table.title}; {len(table.rows)} rows")
    return "\n".join(lines)
