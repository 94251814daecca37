"""A line of a table: one metric of one row on one test cohort, as text and as files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from sightline.errors import SightlineError, count_noun
from sightline.evaluation.result import Evaluation
from sightline.evaluation.tables.table import RowResult
from sightline.io.files import write_text
from sightline.metrics.boxes.report import BOX_NAMES
from sightline.metrics.classification.report import format_counts
from sightline.metrics.estimate import Comparison, Estimate, format_p_text
from sightline.metrics.maps.gaze import LOWER_IS_BETTER
from sightline.metrics.maps.gaze import NAMES as GAZE_NAMES
from sightline.metrics.statistics.comparison import welch

LESS_IS_BETTER = (
    *(GAZE_NAMES[measure] for measure in LOWER_IS_BETTER), BOX_NAMES["distance_px"], BOX_NAMES["distance_mm"],
)  # fmt: skip
# how `why` says that a difference is not of all cases, or that there is none
_LEFT_OUT, _COMPARED_ON, _NOT_COMPARED = " left out: ", "compared on ", "not compared: "


def is_less_better(metric: str) -> bool:
    """Whether less of a metric is better; the map that a metric is about stands after its comma.

    Example:
        >>> is_less_better("KL from gaze, class map"), is_less_better("study-wise AUC")
        (True, False)
    """
    return metric.partition(", ")[0] in LESS_IS_BETTER


@dataclass(frozen=True)
class Line:
    """One metric of one row on one test cohort.

    Attributes:
        row: row name.
        test: `test` or `external`.
        metric: e.g. `study-wise AUC`.
        values: one per seed.
        mean: over seeds.
        std: over seeds, ddof 1; None with one seed.
        low: lower end of the 95% interval.
        high: upper end.
        chance: chance level, for map scores.
        n: what was counted.
        method: how the interval was made.
        reference: row compared with.
        difference: mean minus the reference's.
        difference_low: lower end of its paired 95% interval.
        difference_high: upper end.
        p_paired: test by swapped patients, and trainings, two-sided (`paired_tests.run_swap_test`).
        p_holm: the same after Holm's correction over the table's rows for this metric.
        p_welch: Welch's t over seeds, as the paper computes it.
        published: what the paper prints, or empty.
        why: what is missing and why, and what the comparison leaves out.
    """

    row: str
    test: str
    metric: str
    values: tuple[float, ...] = ()
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    n: str = ""
    method: str = ""
    reference: str = ""
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_paired: float | None = None
    p_holm: float | None = None
    p_welch: float | None = None
    published: str = ""
    why: str = ""

    def value_text(self, *, percent: bool = False) -> str:
        """Mean ± standard deviation over seeds."""
        if self.mean is None:
            return "undefined"
        spread = "" if self.std is None else f" ± {_format_number(self.std, percent)}"
        return f"{_format_number(self.mean, percent)}{spread}"

    def interval_text(self, *, percent: bool = False) -> str:
        """The 95% interval."""
        return _format_interval(self.low, self.high, percent)

    def difference_value_text(self, *, percent: bool = False) -> str:
        """Difference from the reference, signed."""
        return "–" if self.difference is None else _format_number(self.difference, percent, "+")

    def difference_interval_text(self, *, percent: bool = False) -> str:
        """The paired 95% interval of the difference."""
        return _format_interval(self.difference_low, self.difference_high, percent, "+")

    def chance_text(self, *, percent: bool = False) -> str:
        """The chance level."""
        return "–" if self.chance is None else _format_number(self.chance, percent)

    def text(self) -> str:
        """Mean ± deviation with the interval in brackets."""
        between = "" if self.low is None else f" ({self.interval_text()})"
        return f"{self.value_text()}{between}"

    def difference_text(self) -> str:
        """Difference with its interval and p."""
        between = "" if self.difference_low is None else f" ({self.difference_interval_text()})"
        p = "" if self.p_paired is None else f", {format_p_text(self.p_paired)}"
        p += "" if self.p_holm is None else f" ({format_p_text(self.p_holm)} after Holm's correction)"
        return f"{self.difference_value_text()}{between}{p}"

    @property
    def differs(self) -> bool:
        """Whether the row is told apart from its reference: p after Holm's correction is below 0.05.

        Sentences, bold numbers, stars and filled points all go by this, never by the interval alone.
        """
        return self.p_holm is not None and self.p_holm < 0.05

    @property
    def merit(self) -> float:
        """The mean, turned so that more is better; below everything where there is none."""
        if self.mean is None:
            return -math.inf
        return -self.mean if is_less_better(self.metric) else self.mean

    @property
    def verdict(self) -> str:
        """What the difference says of the row, in the words before its reference's name."""
        if not self.differs or self.difference is None:
            return "not shown to differ from"
        return "better than" if (self.difference < 0) == is_less_better(self.metric) else "worse than"

    @property
    def compared_cases(self) -> str:
        """On which cases it is compared, or why it is not; empty where these are the cases of its own numbers."""
        words = (_LEFT_OUT, _COMPARED_ON, _NOT_COMPARED)
        return "; ".join(part for part in self.why.split("; ") if any(word in part for word in words))


def _format_number(value: float, percent: bool, sign: str = "") -> str:
    return f"{value * 100.0:{sign}.1f}" if percent else f"{value:{sign}.3f}"


def _format_interval(low: float | None, high: float | None, percent: bool, sign: str = "") -> str:
    if low is None or high is None:
        return "–"
    return f"{_format_number(low, percent, sign)} to {_format_number(high, percent, sign)}"


def find_line(lines: Sequence[Line], row: str, test: str, metric: str) -> Line | None:
    """The line of a row, a test cohort and a metric, or None."""
    return next((x for x in lines if x.row == row and x.test == test and x.metric == metric), None)


def write_lines(lines: Sequence[Line], folder: Path) -> None:
    """`table.csv` and `table.json`: every metric of every row, one line each."""
    write_text(folder / "table.json", json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    partial = folder / "table.csv.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Line.__dataclass_fields__))
        writer.writeheader()
        for line in lines:
            writer.writerow({**asdict(line), "values": " ".join(repr(v) for v in line.values)})
    partial.replace(folder / "table.csv")


def read_lines(path: Path) -> list[Line]:
    """Lines from table.json."""
    return [Line(**{**row, "values": tuple(row["values"])}) for row in json.loads(path.read_text(encoding="utf-8"))]


T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Pair(Generic[T]):
    """The tables of a row and of its reference, one a training, over what stands in all of them.

    Attributes:
        ours: of the row.
        theirs: of its reference; none where there is nothing to compare with.
        left_out: what does not stand in all of them, in words.
        why: why the two cannot be compared.
    """

    ours: Sequence[T]
    theirs: Sequence[T]
    left_out: str = ""
    why: str = ""

    def convert(self, change: Callable[[T], S]) -> Pair[S]:
        """The same of what is made of each table."""
        return Pair([change(t) for t in self.ours], [change(t) for t in self.theirs], self.left_out, self.why)


def pair_tables(
    ours: Sequence[T],
    theirs: Sequence[T],
    keys: Callable[[T], Sequence[Hashable]],
    select: Callable[[T, Sequence[int]], T],
    noun: str = "image",
) -> Pair[T]:
    """Both rows' tables over the cases, or maps, that stand in all of them, in the order of the first.

    Args:
        ours: tables of a row, one a training.
        theirs: of its reference.
        keys: what tells the rows of a table apart.
        select: the rows of a table at some positions.
        noun: what a row is.
    """
    if not ours or not theirs:
        return Pair(ours, theirs)
    stand = [{key: i for i, key in enumerate(keys(table))} for table in (*ours, *theirs)]
    shared = [key for key in stand[0] if all(key in places for places in stand)]
    if not shared:
        return Pair(ours, (), why=f"no {noun} is in both rows")
    alone = len(set().union(*stand)) - len(shared)
    made = [
        table if list(places) == shared else select(table, [places[key] for key in shared])
        for table, places in zip((*ours, *theirs), stand, strict=True)
    ]
    words = f"{count_noun(alone, noun)}{_LEFT_OUT}not in both rows" if alone else ""
    return Pair(made[: len(ours)], made[len(ours) :], words)


@dataclass(frozen=True)
class RowOnTest:
    """A row on one test cohort.

    Attributes:
        row: the row's result.
        test: `test` or `external`.
        reference: the row it is compared with, or None.
        replicates: number of swaps of the paired test.
    """

    row: RowResult
    test: str
    reference: RowResult | None = None
    replicates: int = 2000

    def ours(self, of: Callable[[Evaluation], T | None]) -> list[T]:
        """Something of each training's evaluation, where it has it."""
        return [found for e in self.row.evaluations[self.test] if (found := of(e)) is not None]

    def theirs(self, of: Callable[[Evaluation], T | None]) -> list[T]:
        """The same of the reference's trainings."""
        if self.reference is None:
            return []
        return [found for e in self.reference.evaluations[self.test] if (found := of(e)) is not None]

    def line(self, metric: str, values: Sequence[float]) -> Line:
        """A line of one value a training; it says so where a value is not defined."""
        row = self.row.row
        if not values or any(math.isnan(v) for v in values):
            return Line(row.name, self.test, metric, why="not defined on these cases")
        published = row.published.get(f"{metric}, {self.test}")
        return Line(
            row=row.name,
            test=self.test,
            metric=metric,
            values=tuple(values),
            mean=float(np.mean(values)),
            std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            published="" if published is None else str(published),
        )

    def compare_line(
        self,
        line: Line,
        pair: Pair[T],
        compare: Callable[[Sequence[T], Sequence[T]], Comparison],
        measure: Callable[[Sequence[T]], Sequence[float]],
    ) -> Line:
        """The line with its difference from the reference, over patients and seeds, and over seeds alone.

        Both are of the same cases: those with the number in all trainings of both rows. A comparison that cannot be
        made says why, and the row's own numbers stay.

        Args:
            line: of the row alone.
            pair: tables of both rows.
            compare: the paired comparison of two rows' tables.
            measure: the number of each of some tables, over what has it in all of them.
        """
        if self.reference is None or not (pair.theirs or pair.why):
            return line
        line = replace(line, reference=self.reference.row.name)
        if pair.why:
            return _add_reasons(line, f"{_NOT_COMPARED}{pair.why}")
        try:
            paired = compare(pair.ours, pair.theirs)
            if paired.difference is None:
                return _add_reasons(line, pair.left_out, f"{_NOT_COMPARED}{paired.why}")
            values = measure([*pair.ours, *pair.theirs])
            seeds = welch(values[: len(pair.ours)], values[len(pair.ours) :])
        except SightlineError as error:
            # one comparison is not worth the table
            return _add_reasons(line, _NOT_COMPARED + error.message.replace("; ", ", "))
        of = {name: n for name, n in paired.n.items() if not name.startswith("seeds")}
        fewer = pair.left_out or _LEFT_OUT in paired.why
        compared = replace(
            line,
            difference=paired.difference,
            difference_low=paired.low,
            difference_high=paired.high,
            p_paired=paired.p_value,
            p_welch=seeds.p_value,
        )
        on = f"{_COMPARED_ON}{format_counts(of)}" if fewer else ""
        return _add_reasons(compared, pair.left_out, paired.why, seeds.why, on)


def _add_reasons(line: Line, *reasons: str) -> Line:
    return replace(line, why="; ".join(word for word in (line.why, *reasons) if word))


def add_interval(line: Line, estimate: Estimate, chance: float | None = None) -> Line:
    """The line with an interval, or with the reason why there is none."""
    return replace(
        line,
        low=estimate.low,
        high=estimate.high,
        chance=chance,
        n=format_counts(estimate.n),
        method=estimate.method,
        why=estimate.why or line.why,
    )
