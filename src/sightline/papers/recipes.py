"""What can be trained and which tables can be run, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

from sightline.errors import RecipeError, count_noun
from sightline.evaluation.tables.grids.grid import read_grid
from sightline.evaluation.tables.table import Row, Table
from sightline.papers import demo as demo_recipes
from sightline.papers import engstler2022, jimenez2018, liao2022, watanabe2022, zhu2022
from sightline.papers import phantom_tables as gaze_phantom
from sightline.papers import phantom_tables as transformers
from sightline.papers.catalogue import CATALOGUE
from sightline.papers.fracatlas import learning_curve, localisers, marks
from sightline.papers.liao2022 import Profile
from sightline.papers.overrides import Changes, apply_changes, resize_recipe
from sightline.training.recipe import Recipe, read_recipe
from sightline.training.serialization import mention_former_word

RECIPES: dict[str, tuple[str, Callable[[], Recipe]]] = {
    "unguided": ("class map with mean pooling, no guidance (Liao 2022, baseline)", liao2022.build_base_recipe),
    "attended": (
        "softmax pooling alone (Liao 2022, lambda = 0)",
        lambda: liao2022.set_softmax_pooling(liao2022.build_base_recipe()),
    ),
    "guided": (
        "softmax pooling, class maps guided by focus regions (Liao 2022, equation 6, lambda = 0.1)",
        lambda: liao2022.build_guided_recipe(liao2022.build_base_recipe(), 0.1, "mask"),
    ),
    "l1": ("L1 penalty on the class maps", lambda: liao2022.add_norm_penalty(liao2022.build_base_recipe(), 1, 1e-8)),
    "l2": ("L2 penalty on the class maps", lambda: liao2022.add_norm_penalty(liao2022.build_base_recipe(), 2, 1e-8)),
    "residual": (
        "residual attention module",
        lambda: liao2022.add_attention(liao2022.build_base_recipe(), "residual attention"),
    ),
    "self": ("self-attention module", lambda: liao2022.add_attention(liao2022.build_base_recipe(), "self attention")),
    "pyramid": (
        "pyramid attention module",
        lambda: liao2022.add_attention(liao2022.build_base_recipe(), "pyramid attention"),
    ),
    "small-unguided": (
        "a ResNet of 0.4 million weights at 192 px for CPUs and a first try, unguided",
        demo_recipes.build_unguided_recipe,
    ),
    "small-guided": ("the same, guided by focus regions", demo_recipes.build_guided_recipe),
    "fracture-unguided": ("high-resolution class maps for small findings, unguided", localisers.build_unguided_recipe),
    "fracture-guided": ("the same, the fracture map guided by the fractures' boxes", localisers.build_guided_recipe),
    "fracture-patches": (
        "each cell of the fracture map classified by itself, guided by boxes on patches: finds most fractures",
        localisers.build_focal_recipe,
    ),
    "fracture-labels": (
        "image labels alone, the highest cells of a fine map decide: points best of the recipes without marks",
        localisers.build_label_recipe,
    ),
    "lbm": ("the whole image (Jimenez-Sanchez 2018, lower bound)", jimenez2018.build_base_recipe),
    "ubm": (
        "the expert's crop (Jimenez-Sanchez 2018, upper bound)",
        lambda: jimenez2018.build_upper_bound(jimenez2018.build_base_recipe()),
    ),
    "box-regression": (
        "a box learned from experts' boxes (Jimenez-Sanchez 2018, equation 3)",
        lambda: jimenez2018.build_supervised_localiser(jimenez2018.build_base_recipe()),
    ),
    "a-stn": (
        "spatial transformer of three parameters (Jimenez-Sanchez 2018)",
        lambda: jimenez2018.build_transformer(jimenez2018.build_base_recipe(), "similarity"),
    ),
    "aff-stn": (
        "spatial transformer of six parameters",
        lambda: jimenez2018.build_transformer(jimenez2018.build_base_recipe(), "affine"),
    ),
    "clamped-stn": (
        "the earlier spatial transformer, bounded by a sigmoid",
        lambda: jimenez2018.build_transformer(jimenez2018.build_base_recipe(), "similarity", clamped=True),
    ),
    "sampled-window-stn": (
        "a-STN that learns from sampled windows (after Williams 1992, Mnih 2014)",
        lambda: transformers.build_sampled_window_recipe(jimenez2018.build_base_recipe()),
    ),
    "self-transfer": (
        "self-transfer learning, alpha 0.6 (Jimenez-Sanchez 2018, equation 6)",
        lambda: jimenez2018.build_self_transfer(jimenez2018.build_base_recipe(), 0.6),
    ),
    "global-pooling": (
        "transition layer and average pooling (Jimenez-Sanchez 2018, section II-C3)",
        lambda: jimenez2018.build_global_pooling(jimenez2018.build_base_recipe(), "AVG"),
    ),
    "cam-layer": ("class activation map layer alone, no gaze (Zhu 2022, equations 4 to 6)", zhu2022.build_base_recipe),
    "gg-cam": ("the true class's map guided by gaze (Zhu 2022, equation 11)", zhu2022.build_guided_recipe),
    "gaze-unet": ("U-Net whose decoder is held against gaze (Watanabe 2022, baseline)", watanabe2022.build_base_recipe),
    "gaze-set3": (
        "the same, and guided back-propagation held against gaze (Watanabe 2022, set 3)",
        lambda: watanabe2022.add_explainer("set3", "guided"),
    ),
    "spine": ("encoder of a 3D U-Net on patches of a CT (Engstler 2022)", engstler2022.build_base_recipe),
    "spine-small": (
        "a quarter of its channels, cubes of 48 voxels, a short training: for CPUs",
        lambda: engstler2022.shrink_recipe(engstler2022.build_base_recipe()),
    ),
    "spine-maps": ("3D class maps in place of its head", engstler2022.build_map_recipe),
    "spine-guided": ("3D class maps guided by the marked bone", engstler2022.build_guided_recipe),
}

TABLES: dict[str, Callable[[Profile], Table]] = {
    "liao2022/table3": liao2022.build_table3,
    "liao2022/table4": liao2022.build_table4,
    "liao2022/supplement1": liao2022.build_supplement1,
    "liao2022/supplement2": liao2022.build_supplement2,
    "liao2022/cub200": liao2022.build_cub200_table,
    "liao2022/fracatlas": localisers.build_guidance_table,
    "gaze/phantom": gaze_phantom.build_gaze_table,
    "gaze/unets": gaze_phantom.build_unet_table,
    "jimenez2018/table2": jimenez2018.build_table2,
    "jimenez2018/table3": jimenez2018.build_table3,
    "jimenez2018/table5": jimenez2018.build_table5,
    "jimenez2018/figure4": jimenez2018.build_figure4,
    "femur/transformers": transformers.build_transformer_table,
    "localisers/fracatlas": localisers.build_localiser_table,
    "fracatlas/curve": learning_curve.build_table,
    "fracatlas/map_to_answer": learning_curve.build_map_to_answer_table,
    "fracatlas/suggest": marks.build_suggestion_table,
    "fracatlas/wrong_marks": marks.build_wrong_marks_table,
    "zhu2022/table2": zhu2022.build_table2,
    "zhu2022/table3": zhu2022.build_table3,
    "zhu2022/ablations": zhu2022.build_ablation_table,
    "watanabe2022/table1": watanabe2022.build_table1,
    "watanabe2022/table2": watanabe2022.build_table2,
    "watanabe2022/table3": watanabe2022.build_table3,
    "watanabe2022/table4": watanabe2022.build_table4,
    "watanabe2022/weights": watanabe2022.build_weight_table,
    "engstler2022/table1": engstler2022.build_table1,
    "engstler2022/table2": engstler2022.build_table2,
    "engstler2022/table3": engstler2022.build_table3,
    "spine/phantom": engstler2022.build_phantom_table,
    "spine/units": engstler2022.build_unit_table,
}


# names of earlier versions
FORMER_NAMES = {"trying-stn": "sampled-window-stn"}


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or from a recipe.json or a run folder.

    Raises:
        RecipeError: no such recipe.
    """
    if name in FORMER_NAMES:
        mention_former_word(name, FORMER_NAMES[name])
        name = FORMER_NAMES[name]
    if name in RECIPES:
        return RECIPES[name][1]()
    path = Path(name)
    if path.is_dir() and (path / "recipe.json").is_file():
        return read_recipe(path / "recipe.json", CATALOGUE)
    if path.suffix == ".json":
        return read_recipe(path, CATALOGUE)
    raise RecipeError(f"There is no recipe {name!r}.", f"Known: {', '.join(RECIPES)}; or name a recipe.json.")


def find_table(
    name: str, profile: Profile, changes: Changes, rows: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> Table:
    """A table by name or from a YAML file, with a person's changes in every row.

    Args:
        name: of a table, or a YAML file.
        profile: which to follow where a paper and its code differ.
        changes: of every row's recipe.
        rows: keeps rows so named, or that contain the word, and what they are compared with, made of or taught by.
        without: names of rows to leave out all the same; a row compared with one of them is compared with what that
            one is compared with.

    Raises:
        RecipeError: no such table or row, no row left, or a row left out whose run another one needs.
    """
    if profile not in get_args(Profile):
        raise RecipeError(f"There is no profile {profile!r}.", f"Known: {', '.join(get_args(Profile))}.")
    if name not in TABLES and Path(name).suffix not in (".yaml", ".yml"):
        raise RecipeError(f"There is no table {name!r}.", f"Known: {', '.join(TABLES)}; or name a YAML file.")
    table = TABLES[name](profile) if name in TABLES else read_grid(Path(name), find_recipe, CATALOGUE)
    names = [row.name for row in table.rows]
    kept = table.rows
    if rows:
        # a row's whole name is that row alone, also where others begin with it
        named = {name for word in rows for name in ([word] if word in names else [n for n in names if word in n])}
        # with what they are compared with, put together from and taught by, each of which may need others
        more = named
        while more:
            chosen = [row for row in table.rows if row.name in more]
            more = {name for row in chosen for name in (*row.needs, row.reference) if name is not None} - named
            named = named | more
        kept = tuple(row for row in table.rows if row.name in named)
        if not kept:
            raise RecipeError(f"No row of {name} contains {' or '.join(rows)}.", f"Rows: {', '.join(names)}.")
    if unknown := [row for row in without if row not in names]:
        raise RecipeError(f"{name} has no row {unknown[0]!r} to leave out.", f"Rows: {', '.join(names)}.")
    kept = _leave_out(kept, frozenset(without))
    return replace(table, rows=tuple(_change_row(row, changes, table) for row in kept))


def _leave_out(rows: tuple[Row, ...], without: frozenset[str]) -> tuple[Row, ...]:
    """The rows without some; what was compared with one of them is compared with what that one was compared with."""
    kept = [row for row in rows if row.name not in without]
    if not kept:
        raise RecipeError("No row is left.", "Leave out fewer rows.")
    for row in kept:
        if missing := sorted(without.intersection(row.needs)):
            raise RecipeError(f"{row.name} is made of or taught by {missing[0]}.", "Leave out both, or neither.")
    compared_with = {row.name: row.reference for row in rows}

    def find_reference(name: str | None) -> str | None:
        while name is not None and name in without:
            name = compared_with[name]
        return name

    return tuple(replace(row, reference=find_reference(row.reference)) for row in kept)


def _change_row(row: Row, changes: Changes, table: Table) -> Row:
    recipe = row.recipe
    if changes.size is not None:
        # sizes keep their ratio: of a table at 512, --size 128 makes 512 into 128 and 768 into 192
        recipe = resize_recipe(recipe, changes.size / table.size, least=16)
    epochs = changes.epochs
    if epochs is not None:
        # and so do lengths of training
        epochs = max(1, round(epochs * recipe.epochs / table.rows[0].recipe.epochs))
    return replace(row, recipe=apply_changes(recipe, replace(changes, size=None, epochs=epochs)))


def list_names() -> str:
    """Recipes and tables, a line each."""
    width = max(len(name) for name in (*RECIPES, *TABLES))
    lines = ["Recipes (sightline train NAME ...):"]
    lines += [f"  {name:<{width}}  {about}" for name, (about, _) in RECIPES.items()]
    lines += ["", "Tables (sightline table NAME ...):"]
    for name, make in TABLES.items():
        table = make("recommended")
        lines.append(f"  {name:<{width}}  {table.title}; {count_noun(len(table.rows), 'row')}")
    return "\n".join(lines)
