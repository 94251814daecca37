"""A table is a list of rows, each a recipe; `run_table.py` trains every row with several seeds alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sightline.data.split import limit_per_class, select_sources
from sightline.data.subset import draw_nested_subset
from sightline.errors import SightlineError
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.engines.self_training import Teaching
from sightline.evaluation.tables.engines.suggested_marks import Asking
from sightline.metrics.boxes.table import BoxScores
from sightline.structures.case import Cohort
from sightline.training.recipe import Recipe

if TYPE_CHECKING:
    from sightline.data.targets.mark_errors import MarkError


@dataclass(frozen=True)
class PublishedValue:
    """A value as a paper prints it: mean and standard deviation over its runs, in percent or as it stands.

    Attributes:
        mean: the value.
        std: standard deviation over runs, or None.
        low: lower end of a printed interval, or None.
        high: upper end.
        p: printed p-value of a comparison, or None.
    """

    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    def __str__(self) -> str:
        """The value, and deviation, interval and p where they are printed."""
        text = f"{self.mean:g}" if self.std is None else f"{self.mean:g} ± {self.std:g}"
        if self.low is not None and self.high is not None:
            text += f" ({self.low:g} to {self.high:g})"
        return text if self.p is None else f"{text}, p = {self.p:.4g}"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: unique in the table.
        recipe: the recipe to train; its seed is replaced.
        reference: name of the row it is compared with, or None.
        published: value printed by the paper, by metric name and then split.
        parts: for a row that is assembled instead of trained: submodule of its network -> name of the earlier row
            whose run of the same seed gives the weights.
        teacher: name of an earlier row whose run of the same seed marks the training cases in place of experts
            (`tables/engines/self_training.py`), or chooses those that experts mark besides
            (`tables/engines/suggested_marks.py`), or None.
        teaching: how it marks them, or how it chooses.
        train_per_class: train on this many images of each class, drawn once per seed; None for all.
        train_images: train on about this many images, whole groups, nested over sizes (`draw_nested_subset`); the seed
            draws them; None for all.
        seed_offset: added to the seed of the training and not to that which draws its cases: a second training of one
            recipe on the same cases, for an ensemble.
        wrong_marks: share of the marked training images whose boxes are made wrong (`spoil_marks`).
        wrong_kind: in which way.
        trained_on: sources (`select_sources`) whose cases it is trained and selected on; none named: all.
        tested_on: sources whose cases it is tested on.
        group: the rows it is drawn with in the figures: method, style.
        weight_label: position on the figure's axis.
    """

    name: str
    recipe: Recipe
    reference: str | None = None
    published: Mapping[str, PublishedValue] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    teacher: str | None = None
    teaching: Teaching | Asking = field(default_factory=Teaching)
    train_per_class: int | None = None
    train_images: int | None = None
    seed_offset: int = 0
    wrong_marks: float = 0.0
    wrong_kind: MarkError = "elsewhere"
    trained_on: tuple[str, ...] = ()
    tested_on: tuple[str, ...] = ()
    group: str = ""
    weight_label: str = ""

    def training_cases(self, cohort: Cohort, seed: int) -> Cohort:
        """The cohort whose cases one training of this row sees, for training and for selection."""
        from sightline.data.targets.mark_errors import spoil_marks

        seen = select_sources(self.recipe.see(cohort), self.trained_on)
        few = limit_per_class(seen, self.train_per_class, self.recipe.train_on, seed)
        part = draw_nested_subset(few, self.train_images, seed, self.recipe.train_on)
        return spoil_marks(part, self.wrong_marks, seed, self.recipe.train_on, self.wrong_kind)

    @property
    def needs(self) -> tuple[str, ...]:
        """Rows whose runs have to be there before this one's."""
        return (*self.parts.values(), *([self.teacher] if self.teacher is not None else []))


@dataclass(frozen=True)
class Figure:
    """A figure of a paper: what several rows look at on the same test image, an image a class.

    Attributes:
        title: what it is called.
        rows: names of rows, a column each; those that did not run are left out.
        classes: an image of each of these; empty: of every class.
        gaze: a column for where the readers looked.
    """

    title: str
    rows: tuple[str, ...]
    classes: tuple[str, ...] = ()
    gaze: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a paper, or one of our own.

    Attributes:
        name: `paper/table`.
        title: what it shows.
        rows: its rows, references before the rows compared with them.
        caption: how to read it; deviations from the paper.
        metrics: metrics shown, in order.
        leading: metrics by which figures and the summary compare rows: the first one that the rows have.
        size: input size of its plain rows; another size scales the sizes of all rows in proportion.
        as_printed: also write the statistics of the papers about gaze (`as_printed.md`).
        seeds: default number of trainings per row; None leaves it to the caller.
        units: also dissect the first row's first training: the `ranking` of its units, or that and one `case`.
        figures: pictures of chosen rows side by side, in addition to those of every table.
        top: share of a unit's activations above its threshold in that dissection.
        named_in: the file in which a person named the metrics; empty for tables that come with the package. An unknown
            metric there is refused before anything is trained.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    caption: str = ""
    metrics: tuple[str, ...] = ("image-wise accuracy", "study-wise accuracy")
    leading: tuple[str, ...] = ()
    size: int = 512
    as_printed: bool = False
    units: Literal["", "ranking", "case"] = ""
    top: float = 0.005
    figures: tuple[Figure, ...] = ()
    seeds: int | None = None
    named_in: str = ""


@dataclass(frozen=True)
class RowResult:
    """The result of a row: one evaluation per seed and test cohort, or the reason why it did not run."""

    row: Row
    evaluations: Mapping[str, tuple[Evaluation, ...]] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    why_not: SightlineError | None = None


@dataclass(frozen=True)
class TableResult:
    """All rows of a table on a cohort.

    Attributes:
        table: the table.
        cohort: cases with splits.
        seeds: seeds of the trainings.
        rows: results of the rows.
        untrained: boxes of the baselines without a network, by (test, task) and name, if saved; None: from the cohort.
    """

    table: Table
    cohort: Cohort
    seeds: tuple[int, ...]
    rows: tuple[RowResult, ...]
    untrained: Mapping[tuple[str, str], Mapping[str, BoxScores]] | None = None

    def of(self, name: str) -> RowResult:
        """The result of a row."""
        return next(result for result in self.rows if result.row.name == name)
