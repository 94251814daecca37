"""A table of map scores, a row a map of a case: what tables beside regions and beside gaze have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np

from sightline.errors import CohortError, LayoutError, RunError, count_noun
from sightline.metrics.estimate import FloatArray
from sightline.metrics.predictions import read_saved_table, write_rows


class ScoredRow(Protocol):
    """One map of one case with its scores."""

    @property
    def key(self) -> Hashable: ...  # noqa: D102
    @property
    def case_id(self) -> str: ...  # noqa: D102
    @property
    def study_id(self) -> str: ...  # noqa: D102
    @property
    def patient_id(self) -> str: ...  # noqa: D102
    @property
    def score(self) -> Any: ...  # noqa: D102


Row = TypeVar("Row", bound=ScoredRow)


@dataclass(frozen=True)
class ScoreTable(Generic[Row]):
    """The scores of one training over a split.

    Attributes:
        rows: one a map.

    Raises:
        CohortError: no row, or two rows of one key.
    """

    rows: tuple[Row, ...]

    # what it is called, what a split must hold, the columns before the scores, a row's class and its scores'
    words: ClassVar[str]
    needs: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    row: ClassVar[Callable[..., Any]]
    score: ClassVar[type[Any]]

    def __post_init__(self) -> None:
        """Refuse empty tables and repeated rows."""
        if not self.rows:
            raise CohortError(
                f"There are no {self.words}; expected at least one row.", f"Does the split hold {self.needs}?"
            )
        repeated = [key for key, times in Counter(row.key for row in self.rows).items() if times > 1]
        if repeated:
            raise CohortError(
                f"{self.words.capitalize()} repeat {count_noun(len(repeated), 'row')}, e.g. {repeated[0]}."
            )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def where(self, keep: Callable[[Row], bool]) -> Self:
        """The rows for which `keep` is true, e.g. only one class, or only findings."""
        return type(self)(tuple(row for row in self.rows if keep(row)))

    def column(self, name: str) -> FloatArray:
        """One score of every row, [n], NaN where not defined."""
        values = [getattr(row.score, name) for row in self.rows]
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)

    def with_score(self, name: str) -> tuple[Row, ...]:
        """The rows in which a score is defined."""
        return tuple(row for row, value in zip(self.rows, self.column(name), strict=True) if math.isfinite(value))

    def why_none(self) -> str:
        """Why no map has a score: what the first row that says why says."""
        return next((row.score.why for row in self.rows if row.score.why), "no map has this score")

    def counts(self) -> dict[str, int]:
        """Number of maps, images, studies and patients."""
        studies, patients = {row.study_id for row in self.rows}, {row.patient_id for row in self.rows}
        images = {row.case_id for row in self.rows}
        return {"maps": len(self), "images": len(images), "studies": len(studies), "patients": len(patients)}

    def write(self, path: Path) -> None:
        """Write CSV, exact to the last bit; an undefined score is an empty field."""
        names = [field.name for field in fields(self.score)]
        rows = []
        for row in self.rows:
            values = [getattr(row.score, name) for name in names]
            rows.append([*(getattr(row, key) for key in self.keys), *("" if v is None else str(v) for v in values)])
        write_rows(path, [*self.keys, *names], rows)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            UnreadableFile: the file is missing or is no text.
            LayoutError: a column is missing or a row does not parse; the message names the row.
        """
        header, lines = read_saved_table(path, cls.words)
        names, n = [field.name for field in fields(cls.score)], len(cls.keys)
        if header != [*cls.keys, *names] or not lines:
            raise LayoutError(f"{path}: expected rows under {','.join([*cls.keys, *names])}; got {','.join(header)}.")
        rows = []
        for number, line in enumerate(lines, start=2):
            try:
                ids = dict(zip(cls.keys, line, strict=False))
                rows.append(cls.row(**ids, score=cls.parse(dict(zip(names, line[n:], strict=True)))))
            except (ValueError, RunError) as error:
                reason = error.message if isinstance(error, RunError) else error
                raise LayoutError(f"{path}, row {number}: {reason}.", "Evaluate the run again.") from None
        return cls(tuple(rows))

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Any:
        """The scores of a row: whole numbers where the score says so, words in `why`, else a number or nothing."""
        whole = {field.name for field in fields(cls.score) if isinstance(field.default, int)}
        parsed: dict[str, Any] = {}
        for name, text in values.items():
            if name == "why":
                parsed[name] = text
            elif name in whole:
                parsed[name] = int(text)
            else:
                parsed[name] = float(text) if text else None
        return cls.score(**parsed)


def name_measure(column: str) -> str:
    """The measure that a `_chance` or `_centre` column stands beside; of a measure, itself."""
    return column.removesuffix("_chance").removesuffix("_centre")


def describe_left_out(left_out: int) -> str:
    """What a mean over maps is of, with the maps that have no score."""
    return "mean over maps" + (f", {left_out} maps without a score left out" if left_out else "")
