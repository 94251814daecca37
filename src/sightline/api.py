"""The functions of `import sightline as sl`, for notebooks. Nothing heavy is imported until a function runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sightline.errors import RecipeError, require_folder, require_numbers, require_texts

if TYPE_CHECKING:
    from sightline.dissection.results import Dissection
    from sightline.evaluation.measure import EvaluationReport
    from sightline.evaluation.tables.table import TableResult
    from sightline.inference.in_memory import ExplainedMap, Image, PredictionList
    from sightline.inference.network_output import NetworkOutput
    from sightline.structures.case import Cohort
    from sightline.training.engine import Engine
    from sightline.training.recipe import Recipe
    from sightline.training.run import Run

Split = Literal["test", "val", "train", "all"]


def read_cohort(folder: str | Path) -> Cohort:
    """Read a cohort in our folder layout.

    Raises:
        LayoutError: a table, picture or mark is missing or wrong; the message names it.

    Example:
        >>> read_cohort(cohort_folder).classes
        ('no fracture', 'fracture')
    """
    from sightline.data.datasets.folder import reader

    return reader.read_cohort(require_folder(folder, "cohort"))


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
        for name, value in options.items()
    }
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


def list_tables() -> list[str]:
    """Names of the built-in tables: the papers' and our own.

    Example:
        >>> "liao2022/table3" in list_tables()
        True
    """
    from sightline.papers.recipes import TABLES

    return list(TABLES)


def load_recipe(name: str | Path, **changes: Any) -> Recipe:
    """Load a recipe by name, or from a recipe.json or a run folder, with fields changed as on the command line.

    Args:
        name: see `list_recipes`.
        changes: options of `sightline train`: epochs, steps, size, batch_size, weight, style, role, backbone, weights,
            rate, select, precision, seed.

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
    return apply_changes(find_recipe(str(name)), Changes(**changes))


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

    engine = _build_engine(options)
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(recipe, **options)
    elif not isinstance(recipe, Recipe):
        raise RecipeError(f"A recipe was expected; got a {type(recipe).__name__}.", "Give a name of list_recipes.")
    elif options:
        _refuse({k: v for k, v in options.items() if k not in Changes.__dataclass_fields__})
        recipe = apply_changes(recipe, Changes(**options))
    cases = _open_cohort(cohort)
    require_regions(recipe, recipe.see(cases))
    choose = partial(choose_boxes, cohort=cases, catalogue=CATALOGUE, engine=engine)
    run = choose(train_run(recipe, cases, require_folder(folder, "run folder"), CATALOGUE, engine, conclude=choose))
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
    from sightline.papers.catalogue import CATALOGUE
    from sightline.training.run import open_run

    return open_run(require_folder(folder, "run"), CATALOGUE)


def predict(
    run: Run | str | Path, inputs: Image | Cohort | Sequence[Image], **options: Any
) -> PredictionList | NetworkOutput:
    """Predict arrays, files, folders or a cohort, in memory; nothing is written.

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
    from sightline.inference.predict import join_output
    from sightline.inference.predict import predict as predict_cohort
    from sightline.structures.case import Cohort

    run, engine = _open_run(run), _build_engine(options)
    _refuse(options)
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
        return join_output(output, run.recipe.join_views)
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

    engine = _build_engine(options)
    _refuse(options)
    return explain_picture(_open_run(run), image, method, target, engine)


def evaluate(
    run: Run | str | Path,
    cohort: Cohort | str | Path,
    split: Split = "test",
    *,
    replicates: int = 2000,
    prevalences: float | Sequence[float] = (),
    faithfulness: Sequence[str] | str = (),
    **options: Any,
) -> EvaluationReport:
    """Evaluate a run on a cohort, as `sightline evaluate` does, without its pictures.

    Predictions, `metrics.json` and `metrics.md` are saved in the run folder. On another cohort than the run's own, each
    number stands beside that of its own test, if that was evaluated before.

    Args:
        run: a finished run, or its folder.
        cohort: a cohort with the run's classes, or its folder; it may come from another hospital.
        split: the cases to evaluate on.
        replicates: bootstrap samples over patients.
        prevalences: PPV and NPV are computed at these, if `sightline calibrate` chose operating points.
        faithfulness: explainers (`explain`'s methods) whose maps are tested by deletion, insertion and ROAD.
        options: fields of the engine, and `faithfulness_images` (24): the number of images in that test.

    Returns:
        The numbers of `sightline evaluate`: `.summary()`, `.to_frame()`, `.changes`, `report["AUC, image-wise"]`.

    Raises:
        CohortError: the classes differ from the run's, or the split is empty.
        RecipeError: unknown explainer.

    Example:
        >>> "AUC" in evaluate(run_folder, cohort_folder, replicates=200, quiet=True).summary()
        True
    """
    from sightline.evaluation.measure import measure_run
    from sightline.evaluation.result import describe_replaced
    from sightline.io.files import hold_folder, make_safe_name

    run, whole, engine = _open_run(run), _open_cohort(cohort), _build_engine(options)
    images = options.pop("faithfulness_images", 24)
    _refuse(options)
    require_numbers("replicates", replicates, whole=True)
    shares = require_numbers("prevalences", prevalences)
    methods = (faithfulness,) if isinstance(faithfulness, str) else tuple(faithfulness)
    cases = run.recipe.see(whole.part(split))
    out = run.folder / "evaluation" / make_safe_name(f"{whole.name}-{split}")
    with hold_folder(out):
        replaced = describe_replaced(out, split, cases)
        report = measure_run(
            run, cases, split, out, name=whole.name, engine=engine,
            replicates=replicates, prevalences=shares, explainers=methods or None, images=images,
        )  # fmt: skip
    for line in filter(None, (replaced, *report.known)):
        print(line, file=sys.stderr)
    return report


def dissect(run: Run | str | Path, cohort: Cohort | str | Path, out: str | Path, **options: Any) -> Dissection:
    """Find what the units of a layer respond to; a report and galleries are written to a folder.

    Args:
        run: a finished run, or its folder.
        cohort: a cohort with the run's classes, or its folder.
        out: folder to write; activations that are already there are reused.
        options: layer, split, top, over, positive, units, by (as `sightline dissect`), and fields of the engine.

    Example:
        >>> len(dissect(run_folder, cohort_folder, destination, units=2, top=0.05, quiet=True).units) > 0
        True
    """
    from sightline.dissection.dissect import DissectionOptions
    from sightline.dissection.dissect import dissect as dissect_run

    engine = _build_engine(options)
    chosen = {name: options.pop(name) for name in vars(DissectionOptions()) if name in options}
    _refuse(options)
    where = require_folder(out, "folder to write")
    return dissect_run(_open_run(run), _open_cohort(cohort), where, DissectionOptions(**chosen), engine=engine)


def run_table(
    name: str | Path,
    cohort: Cohort | str | Path,
    folder: str | Path,
    *,
    seeds: int | Sequence[int] = 3,
    **options: Any,
) -> TableResult:
    """Train and evaluate every row of a table with every seed and write report.html; finished runs are reused.

    Args:
        name: see `list_tables`, or a YAML file that describes a table.
        cohort: a cohort with splits, or its folder.
        folder: where runs and the report are written.
        seeds: trainings per row (with seeds 0, 1, ...), or their seeds.
        options: rows (words in their names), without (names of rows), capsules (of earlier tables, whose trainings
            are not run again), profile, changes to every row (`load_recipe`), parallel, store (URL of an object store
            in which runs are kept as well), and fields of the engine.

    Raises:
        RecipeError: unknown table, or no row matches.

    Example:
        >>> small = {"steps": 2, "size": 48, "weights": "none", "quiet": True}
        >>> result = sl.run_table(
        ...     "liao2022/fracatlas", cohort_folder, destination, seeds=[0], rows=["unguided"], **small
        ... )
        >>> [row.row.name for row in result.rows]
        ['unguided']
    """
    from sightline.evaluation.tables.engines.local import LocalEngine
    from sightline.evaluation.tables.engines.run_store import RunStore
    from sightline.evaluation.tables.report import write_table
    from sightline.evaluation.tables.run_table import run_table as run
    from sightline.papers.catalogue import CATALOGUE
    from sightline.papers.overrides import Changes
    from sightline.papers.recipes import find_table

    engine = _build_engine(options)
    rows, without, capsules = (require_texts(key, options.pop(key, ())) for key in ("rows", "without", "capsules"))
    profile, store = options.pop("profile", "recommended"), options.pop("store", None)
    runs_on = LocalEngine(options.pop("parallel", 1), None if store is None else RunStore(str(store)))
    _refuse({k: v for k, v in options.items() if k not in Changes.__dataclass_fields__})
    table = find_table(str(name), profile, Changes(**options), rows, without)
    where: dict[str, Any] = {"engine": engine, "runs_on": runs_on, "capsules": [Path(path) for path in capsules]}
    seeds = range(seeds) if isinstance(seeds, int) else require_numbers("seeds", seeds, whole=True)
    out = require_folder(folder, "folder to write")
    result = run(table, _open_cohort(cohort), out, CATALOGUE, seeds=seeds, **where)
    write_table(result, out)
    return result


def _build_engine(options: dict[str, Any]) -> Engine:
    """The engine that options ask for; its fields are taken out of them."""
    from sightline.training.engine import Engine

    names = [name for name in Engine.__dataclass_fields__ if name in options]
    if options.get("features") is not None:
        options["features"] = require_folder(options["features"], "folder of features")
    return Engine(**{name: options.pop(name) for name in names})


def _refuse(options: dict[str, Any]) -> None:
    if options:
        raise RecipeError(f"There is no option {sorted(options)[0]!r} here.", "Its help lists the options.")


def _open_run(run: Run | str | Path) -> Run:
    from sightline.training.run import Run

    return run if isinstance(run, Run) else load_run(run)


def _open_cohort(cohort: Cohort | str | Path) -> Cohort:
    from sightline.structures.case import Cohort

    return cohort if isinstance(cohort, Cohort) else read_cohort(cohort)
