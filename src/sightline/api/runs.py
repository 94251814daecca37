"""From data to maps: cohorts, recipes, trainings, and what a run says of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.api.arguments import (
    build_engine,
    make_options_plain,
    open_cohort_of,
    open_run_of,
    refuse_options,
    require_place,
)
from sightline.errors import RecipeError, require_folder, require_texts

if TYPE_CHECKING:
    from sightline.inference.in_memory import ExplainedMap, Image, PredictionList
    from sightline.inference.network_output import NetworkOutput
    from sightline.structures.case import Cohort
    from sightline.training.recipe import Recipe
    from sightline.training.run import Run


def read_cohort(folder: str | Path) -> Cohort:
    """Read a cohort in our folder layout.

    Raises:
        LayoutError: a table, picture or mark is missing or wrong; the message names it.

    Example:
        >>> read_cohort(cohort_folder).classes
        ('no fracture', 'fracture')
    """
    return open_cohort_of(folder)


def import_cohort(layout: str, source: str | Path, destination: str | Path, **options: Any) -> Cohort:
    """Import a data set into our folder layout, as `sightline cohort import` does.

    Args:
        layout: `fracatlas`, `dicom`, `pictures`, `verse`, ... (`sightline cohort import --help` lists them).
        source: folder of the data set.
        destination: folder to write; files that could not be read are listed in its rejects.csv.
        options: fields of the layout's `Options`, e.g. `labels="truth.csv"`.

    Raises:
        LayoutError: unknown layout or option, or a source that does not follow the layout.

    Example:
        >>> import_cohort("folder", cohort_folder, destination).name
        'tiny'
    """
    from dataclasses import fields

    from sightline.data.datasets.folder import reader
    from sightline.data.datasets.layouts import find_layout, import_layout
    from sightline.errors import LayoutError

    known = [field.name for field in fields(find_layout(layout).options)]
    if strange := sorted(set(options) - set(known)):
        has = f"It has {', '.join(known)}." if known else "It has none."
        raise LayoutError(f"The layout {layout} has no option {strange[0]!r}.", has)
    paths = ("labels", "groups", "images", "id_list", "gradings", "columns", "annotations")
    given = {
        name: require_folder(value, name) if name in paths and value is not None else value
        for name, value in make_options_plain(options).items()
    }
    several = [name for name in ("classes", "group_by", "priority") if given.get(name) is not None]
    given |= {name: require_texts(name, given[name]) for name in several}
    chosen = find_layout(layout).options(**given)
    out = require_folder(destination, "folder to write")
    import_layout(layout, require_folder(source, "data set"), out, chosen)
    return reader.read_cohort(out)


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package.

    Example:
        >>> "small-guided" in list_recipes()
        True
    """
    from sightline.papers.recipes import RECIPES

    return list(RECIPES)


def load_recipe(name: str | Path, **changes: Any) -> Recipe:
    """Load a recipe by name, or from a recipe.json or a run folder, with fields changed as on the command line.

    Args:
        name: see `list_recipes`.
        changes: options of `sightline train`: epochs, steps, size, batch_size, weight, style, role, readers, backbone,
            weights, rate, select, precision, seed. Other fields: `dataclasses.replace(recipe, join_views="mean")`.

    Raises:
        RecipeError: unknown recipe or option.

    Example:
        >>> load_recipe("small-guided", epochs=2).epochs
        2
    """
    from sightline.papers.overrides import Changes, apply_changes
    from sightline.papers.recipes import find_recipe

    known = list(Changes.__dataclass_fields__)
    if strange := sorted(set(changes) - set(known)):
        raise RecipeError(f"A recipe has no option {strange[0]!r}.", f"Change one of {', '.join(known)}.")
    return apply_changes(find_recipe(str(name)), Changes(**make_options_plain(changes)))


def train(recipe: Recipe | str | Path, cohort: Cohort | str | Path, folder: str | Path, **options: Any) -> Run:
    """Train a recipe into a run folder. The same call resumes an interrupted training and opens a finished one.

    Args:
        recipe: a recipe, its name, or a recipe.json.
        cohort: a cohort, or its folder.
        folder: run folder to write.
        options: `seed` and other changes to the recipe (`load_recipe`), and fields of the engine: device, devices,
            workers, quiet.

    Raises:
        RecipeError: the cohort lacks what the recipe needs.
        RunError: the folder holds another run.

    Example:
        >>> run = train("small-guided", cohort_folder, destination, steps=2, size=32, weights="none", quiet=True)
        >>> run.done
        True
    """
    from sightline.evaluation.evaluate import choose_boxes
    from sightline.papers.catalogue import CATALOGUE
    from sightline.papers.overrides import Changes, apply_changes
    from sightline.training.model_card import write_model_card
    from sightline.training.preconditions import require_regions
    from sightline.training.recipe import Recipe
    from sightline.training.train import train as train_run

    engine = build_engine(options)
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe, **options)
    elif not isinstance(recipe, Recipe):
        raise RecipeError(f"A recipe was expected; got a {type(recipe).__name__}.", "Give a name of list_recipes.")
    elif options:
        refuse_options({k: v for k, v in options.items() if k not in Changes.__dataclass_fields__})
        recipe = apply_changes(recipe, Changes(**options))
    cases, place = open_cohort_of(cohort), require_place(folder, "run folder")
    require_regions(recipe, recipe.see(cases))
    choose = partial(choose_boxes, cohort=cases, catalogue=CATALOGUE, engine=engine)
    run = choose(train_run(recipe, cases, place, CATALOGUE, engine, conclude=choose))
    write_model_card(run)
    return run


def load_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises:
        RunError: the folder holds no run, or a damaged one.

    Example:
        >>> load_run(run_folder).classes
        ('no fracture', 'fracture')
    """
    return open_run_of(folder)


def predict(
    run: Run | str | Path, inputs: Image | Cohort | Sequence[Image], **options: Any
) -> PredictionList | NetworkOutput:
    """Predict arrays, files, folders or a cohort, in memory; nothing is written.

    Probabilities are calibrated if `sightline calibrate` fitted them, as in all commands.

    Args:
        run: a finished run, or its folder.
        inputs: an array of integers [rows, columns] or [rows, columns, 3] (brighter is denser; read as a PNG of the
            same numbers is), a file, a folder, several of these, or a `Cohort`.
        options: fields of the engine: device, workers, quiet.

    Returns:
        A list of predictions, each with `.probabilities`, `.boxes` and `.map`; `.to_frame()` of the list is a table.
        For a cohort: the network's output on all its cases (`NetworkOutput`), which has `.to_frame()` too.

    Raises:
        SightlineError: an input cannot be read, or is not what the run predicts (a CT for a radiograph network).

    Example:
        >>> one = predict(run_folder, np.arange(40 * 48, dtype=np.uint16).reshape(40, 48))[0]
        >>> sorted(one.probabilities)
        ['fracture', 'no fracture']
    """
    from sightline.inference.in_memory import predict_pictures
    from sightline.inference.predict import predict as predict_cohort
    from sightline.inference.predict import settle_output
    from sightline.structures.case import Cohort

    run, engine = open_run_of(run), build_engine(options)
    refuse_options(options)
    if isinstance(inputs, Cohort):
        output = predict_cohort(
            run.network(),
            run.recipe.see(inputs),
            run.recipe.view,
            batch_size=max(16, run.recipe.batch_size),
            device=engine.find_device(),
            workers=engine.workers,
            quiet=engine.quiet,
            independent=run.recipe.independent,
        )
        return settle_output(run, output)
    several: Any = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return predict_pictures(run, several, engine)


def explain(
    run: Run | str | Path, image: Image, method: str = "grad_cam", target: str | None = None, **options: Any
) -> ExplainedMap:
    """Explain the prediction for a picture: a map of where the network looked, with its place in the picture.

    Args:
        run: a finished run, or its folder.
        image: a file or an array, as in `predict`.
        method: cam, grad_cam, grad_cam_pp, gradient, guided, deconvolution, guided_grad_cam or smooth_grad.
        target: the class that is explained; the predicted one when None.
        options: fields of the engine.

    Returns:
        The map: `.values`, `.frame`, `.peak`, `.overlay()` (PNG bytes that a notebook shows).

    Raises:
        RecipeError: unknown method or class.

    Example:
        >>> explain(run_folder, np.arange(40 * 48, dtype=np.uint16).reshape(40, 48), "cam").values.ndim
        2
    """
    from sightline.inference.in_memory import explain_picture

    engine = build_engine(options)
    refuse_options(options)
    return explain_picture(open_run_of(run), image, method, target, engine)
