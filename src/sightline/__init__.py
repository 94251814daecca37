"""Train, check and serve radiology classifiers that look where experts look.

Example:
    >>> import sightline as sl
    >>> sl.load_recipe("small-guided").epochs > 0
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sightline import explainers as explainers
    from sightline import losses as losses
    from sightline.api.results import compare as compare
    from sightline.api.results import dissect as dissect
    from sightline.api.results import evaluate as evaluate
    from sightline.api.results import list_tables as list_tables
    from sightline.api.results import run_table as run_table
    from sightline.api.runs import explain as explain
    from sightline.api.runs import import_cohort as import_cohort
    from sightline.api.runs import list_recipes as list_recipes
    from sightline.api.runs import load_recipe as load_recipe
    from sightline.api.runs import load_run as load_run
    from sightline.api.runs import predict as predict
    from sightline.api.runs import read_cohort as read_cohort
    from sightline.api.runs import train as train
    from sightline.errors import SightlineError as SightlineError
    from sightline.structures.case import Case as Case
    from sightline.structures.case import Cohort as Cohort
    from sightline.structures.evidence import Evidence as Evidence
    from sightline.structures.frame import Frame as Frame
    from sightline.structures.gaze import Gaze as Gaze
    from sightline.structures.regions import Box as Box
    from sightline.structures.regions import Mask as Mask
    from sightline.structures.regions import Polygon as Polygon
    from sightline.structures.regions import Scribble as Scribble
    from sightline.structures.tag import Tag as Tag
    from sightline.training.recipe import Recipe as Recipe
    from sightline.training.run import Run as Run

# where each public name lives; it is imported on first use, so that `import sightline` costs nothing
_RUNS = (
    "read_cohort",
    "import_cohort",
    "load_recipe",
    "list_recipes",
    "train",
    "load_run",
    "predict",
    "explain",
)
_RESULTS = ("evaluate", "compare", "dissect", "list_tables", "run_table")
_PLACES = {
    **dict.fromkeys(_RUNS, "sightline.api.runs"),
    **dict.fromkeys(_RESULTS, "sightline.api.results"),
    "Frame": "sightline.structures.frame",
    "Box": "sightline.structures.regions",
    "Polygon": "sightline.structures.regions",
    "Scribble": "sightline.structures.regions",
    "Mask": "sightline.structures.regions",
    "Tag": "sightline.structures.tag",
    "Gaze": "sightline.structures.gaze",
    "Case": "sightline.structures.case",
    "Cohort": "sightline.structures.case",
    "Evidence": "sightline.structures.evidence",
    "Recipe": "sightline.training.recipe",
    "Run": "sightline.training.run",
    "SightlineError": "sightline.errors",
}
_ROOMS = ("losses", "explainers")

__all__ = ["__version__", *_PLACES, *_ROOMS]  # a table of names, held by a test


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name in _ROOMS:
        return import_module(f"sightline.{name}")
    raise AttributeError(f"module 'sightline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
