"""A row of a table on one test cohort, beside the row it is compared with: from numbers per training to lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from sightline.lab.evaluation import Evaluation
from sightline.lab.table import RowResult
from sightline.lab.table_line import Line
from sightline.measure.classification import FloatArray
from sightline.measure.comparison import welch
from sightline.measure.estimate import Comparison, Estimate
from sightline.measure.summary import counts_text

T = TypeVar("T")


class Columns(Protocol):
    """Scores of one training, one a map, in columns."""

    def column(self, name: str) -> FloatArray:
        """One score of every map [n], NaN where it is not defined."""


@dataclass(frozen=True)
class RowOnTest:
    """A row on one test cohort.

    Attributes:
        row: the row's result.
        test: `test` or `external`.
        reference: the row it is compared with, or None.
        replicates: bootstrap samples.
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

    def compared(self, line: Line, paired: Comparison, their_values: Sequence[float]) -> Line:
        """The line with its difference from the reference, over patients and seeds, and over seeds alone."""
        assert self.reference is not None
        seeds = welch(line.values, their_values)
        return replace(
            line,
            reference=self.reference.row.name,
            difference=paired.difference,
            difference_low=paired.low,
            difference_high=paired.high,
            p_paired=paired.p_value,
            p_welch=seeds.p_value,
            why="; ".join(w for w in (line.why, paired.why, seeds.why) if w),
        )


def measured(line: Line, estimate: Estimate, chance: float | None = None) -> Line:
    """The line with an interval, or with the reason why there is none."""
    return replace(
        line,
        low=estimate.low,
        high=estimate.high,
        chance=chance,
        n=counts_text(estimate.n),
        method=estimate.method,
        why=estimate.why or line.why,
    )


def defined_means(tables: Sequence[Columns], column: str) -> list[float]:
    """A score's mean over maps for each training; a training none of whose maps has the score is left out."""
    columns = [table.column(column) for table in tables]
    return [float(np.nanmean(c)) for c in columns if np.isfinite(c).any()]
