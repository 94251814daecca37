"""What a notebook may hand over: a run or its folder, a cohort or its folder, fields of the engine among options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sightline.errors import RecipeError, make_plain, require_folder

if TYPE_CHECKING:
    from sightline.structures.case import Cohort
    from sightline.training.engine import Engine
    from sightline.training.run import Run

Split = Literal["test", "val", "train", "all"]


def build_engine(options: dict[str, Any]) -> Engine:
    """The engine that options ask for; its fields are taken out of them."""
    from sightline.training.engine import Engine

    options.update(make_options_plain(options))
    names = [name for name in Engine.__dataclass_fields__ if name in options]
    if options.get("features") is not None:
        options["features"] = require_folder(options["features"], "folder of features")
    return Engine(**{name: options.pop(name) for name in names})


def make_options_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with numbers of other libraries as Python's own."""
    return {name: make_plain(value) for name, value in options.items()}


def refuse_options(options: dict[str, Any]) -> None:
    """Refuse what nothing has taken.

    Raises:
        RecipeError: there is such an option.
    """
    if options:
        raise RecipeError(f"There is no option {sorted(options)[0]!r} here.", "Its help lists the options.")


def require_place(folder: object, what: str) -> Path:
    """A folder to write results into, outside of any cohort.

    Raises:
        SightlineError: no path, or one among the files of a cohort.
    """
    from sightline.io.files import require_place_for_results

    place = require_folder(folder, what)
    require_place_for_results(place)
    return place


def open_run_of(run: Run | str | Path) -> Run:
    """A finished run, or that in a folder.

    Raises:
        RunError: the folder holds no run, or a damaged one.
    """
    from sightline.papers.catalogue import CATALOGUE
    from sightline.training.run import Run, open_run

    return run if isinstance(run, Run) else open_run(require_folder(run, "run"), CATALOGUE)


def open_runs_of(runs: Run | str | Path | Sequence[Run | str | Path]) -> list[Run]:
    """One run or several, each finished or in a folder.

    Raises:
        RunError: a folder holds no run, or a damaged one.
    """
    several = runs if isinstance(runs, Iterable) and not isinstance(runs, str) else [runs]
    return [open_run_of(run) for run in several]


def open_cohort_of(cohort: Cohort | str | Path) -> Cohort:
    """A cohort, or that in a folder.

    Raises:
        LayoutError: the folder holds none, or a damaged one.
    """
    from sightline.data.datasets.folder.reader import read_cohort
    from sightline.structures.case import Cohort

    return cohort if isinstance(cohort, Cohort) else read_cohort(require_folder(cohort, "cohort"))
