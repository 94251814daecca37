"""From runs to numbers: evaluations, comparisons, dissected units and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.api.arguments import (
    Split,
    build_engine,
    open_cohort_of,
    open_run_of,
    open_runs_of,
    refuse_options,
    require_place,
)
from sightline.errors import (
    RecipeError,
    make_plain,
    require_numbers,
    require_texts,
    require_whole_number,
)

if TYPE_CHECKING:
    from sightline.dissection.results import Dissection
    from sightline.evaluation.evidence.comparison import MethodComparison
    from sightline.evaluation.measure import EvaluationReport
    from sightline.evaluation.tables.table import TableResult
    from sightline.structures.case import Cohort
    from sightline.training.run import Run


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
    from sightline.evaluation.result import describe_replaced, name_evaluation_folder
    from sightline.io.files import hold_folder

    run, whole, engine = open_run_of(run), open_cohort_of(cohort), build_engine(options)
    images = require_whole_number("faithfulness_images", options.pop("faithfulness_images", 24))
    refuse_options(options)
    replicates = require_whole_number("replicates", replicates)
    shares = require_numbers("prevalences", prevalences)
    methods = require_texts("faithfulness", faithfulness)
    cases = run.recipe.see(whole.part(split))
    out = name_evaluation_folder(run.folder, whole.name, split)
    with hold_folder(out):
        replaced = describe_replaced(out, split, cases)
        report = measure_run(
            run, cases, split, out, name=whole.name, engine=engine,
            replicates=replicates, prevalences=shares, explainers=methods or None, images=images,
        )  # fmt: skip
    for line in filter(None, (replaced, *report.known)):
        print(line, file=sys.stderr)
    return report


def compare(
    runs: Run | str | Path | Sequence[Run | str | Path],
    others: Run | str | Path | Sequence[Run | str | Path],
    cohort: Cohort | str | Path,
    split: Split = "test",
    *,
    margin: float | None = None,
    positive: str | None = None,
    replicates: int = 2000,
    together: Sequence[int] = (1, 1),
    **options: Any,
) -> MethodComparison:
    """Compare two methods on the same cases, as `sightline compare` does: paired differences with intervals.

    Args:
        runs: the trainings of the first method, finished runs or their folders.
        others: those of the second.
        cohort: a cohort with the runs' classes, or its folder.
        split: the cases to compare on.
        margin: the largest acceptable loss, stated before seeing the results; reports non-inferiority.
        positive: the positive class; None: the last one.
        replicates: bootstrap samples and swaps.
        together: so many runs of each method are one ensemble (mean of their probabilities).
        options: fields of the engine.

    Returns:
        Differences of the first less the second: `.leading` (by the test to quote), `.maps`, `.others`, `.markdown()`.

    Raises:
        RunError: a run that is named twice, or too few for ensembles of so many.
        CohortError: the classes differ.

    Example:
        >>> found = compare(run_folder, other_folder, cohort_folder, replicates=99, quiet=True)
        >>> "AUC" in found.leading[0].name
        True
    """
    from sightline.evaluation.evidence.comparison import compare_runs

    engine = build_engine(options)
    refuse_options(options)
    replicates = require_whole_number("replicates", replicates, least=1)
    if margin is not None:
        require_numbers("margin", margin)
    sizes = require_numbers("together", together, whole=True)
    if len(sizes) != 2:
        raise RecipeError(f"together is {together!r}; expected two numbers.", "Write together=(2, 1), for example.")
    return compare_runs(
        open_runs_of(runs),
        open_runs_of(others),
        open_cohort_of(cohort).part(split),
        name=split,
        margin=margin,
        positive=positive,
        replicates=replicates,
        engine=engine,
        together=(int(sizes[0]), int(sizes[1])),
    )


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

    engine = build_engine(options)
    chosen = {name: options.pop(name) for name in vars(DissectionOptions()) if name in options}
    refuse_options(options)
    where = require_place(out, "folder to write")
    return dissect_run(open_run_of(run), open_cohort_of(cohort), where, DissectionOptions(**chosen), engine=engine)


def list_tables() -> list[str]:
    """Names of the built-in tables: the papers' and our own.

    Example:
        >>> "liao2022/table3" in list_tables()
        True
    """
    from sightline.papers.recipes import TABLES

    return list(TABLES)


def run_table(
    name: str | Path,
    cohort: Cohort | str | Path,
    folder: str | Path,
    *,
    seeds: int | Sequence[int] | None = None,
    **options: Any,
) -> TableResult:
    """Train and evaluate every row of a table with every seed and write report.html; finished runs are reused.

    Args:
        name: see `list_tables`, or a YAML file that describes a table.
        cohort: a cohort with splits, or its folder.
        folder: where runs and the report are written.
        seeds: trainings per row (with seeds 0, 1, ...), or their seeds; None: as many as the YAML file says, else 3
            (`sightline table` then trains 5).
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

    engine = build_engine(options)
    rows, without, capsules = (require_texts(key, options.pop(key, ())) for key in ("rows", "without", "capsules"))
    profile, store = options.pop("profile", "recommended"), options.pop("store", None)
    runs_on = LocalEngine(options.pop("parallel", 1), None if store is None else RunStore(str(store)))
    refuse_options({k: v for k, v in options.items() if k not in Changes.__dataclass_fields__})
    table = find_table(str(name), profile, Changes(**options), rows, without)
    where: dict[str, Any] = {"engine": engine, "runs_on": runs_on, "capsules": [Path(path) for path in capsules]}
    seeds = make_plain(table.seeds or 3 if seeds is None else seeds)
    seeds = range(seeds) if isinstance(seeds, int) else require_numbers("seeds", seeds, whole=True)
    out = require_place(folder, "folder to write")
    result = run(table, open_cohort_of(cohort), out, CATALOGUE, seeds=seeds, **where)
    write_table(result, out)
    return result
