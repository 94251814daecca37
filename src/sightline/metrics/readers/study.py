"""Who rated which case how: a fully crossed multi-reader multi-case study, and its iMRMC file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.errors import LayoutError, RunError, count_noun

TRUTH = "truth"
_BEGIN = "BEGIN DATA:"


@dataclass(frozen=True, eq=False)
class ReaderStudy:
    """Ratings of every case by every reader in every modality (fully crossed).

    Attributes:
        modalities: t names, e.g. `alone`, `with AI`.
        readers: r names.
        cases: n names; a case is what readers read once in each modality (a study).
        positive: bool [n], what is true of each case.
        ratings: float64 [t, r, n]; a larger rating means surer that the case is positive.

    Raises:
        RunError: shapes that do not fit, a rating that is no number, fewer than two cases of either truth.

    Example:
        >>> study = ReaderStudy(("a",), ("x",), ("1", "2", "3", "4"), [1, 1, 0, 0], [[[3, 2, 2, 1]]])
        >>> study.ratings.shape
        (1, 1, 4)
    """

    modalities: tuple[str, ...]
    readers: tuple[str, ...]
    cases: tuple[str, ...]
    positive: NDArray[np.bool_]
    ratings: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check shapes and values, and freeze the arrays."""
        for name in ("modalities", "readers", "cases"):
            names = tuple(str(x) for x in getattr(self, name))
            object.__setattr__(self, name, names)
            if len(set(names)) != len(names) or not names:
                raise RunError(f"A reader study needs different {name}, at least one; got {list(names)[:5]}.")
        positive = np.array(self.positive, dtype=bool)
        ratings = np.array(self.ratings, dtype=np.float64)
        expected = (len(self.modalities), len(self.readers), len(self.cases))
        if ratings.shape != expected or positive.shape != expected[2:]:
            raise RunError(
                f"A reader study of {expected[0]} modalities, {expected[1]} readers and {expected[2]} cases has "
                f"ratings of shape {ratings.shape} and truth of shape {positive.shape}."
            )
        if not np.isfinite(ratings).all():
            raise RunError(
                f"A reader study has {int((~np.isfinite(ratings)).sum())} missing or infinite ratings.",
                "Every reader rates every case in every modality; leave out the readers or cases that are incomplete.",
            )
        if min(positive.sum(), (~positive).sum()) < 2:
            raise RunError(
                f"A reader study needs two positive and two negative cases; got {int(positive.sum())} positive of "
                f"{positive.size}.",
                "How far cases differ is not known from one: add cases of the side that lacks them.",
            )
        for array in (positive, ratings):
            array.setflags(write=False)
        object.__setattr__(self, "positive", positive)
        object.__setattr__(self, "ratings", ratings)

    def counts(self) -> dict[str, int]:
        """Numbers of readers, cases and positive cases."""
        return {"readers": len(self.readers), "cases": len(self.cases), "positive": int(self.positive.sum())}

    def apply_threshold(self, threshold: float) -> ReaderStudy:
        """The same study with yes-or-no calls: 1 from the threshold on, else 0.

        Raises:
            RunError: a threshold that is no number.
        """
        if not np.isfinite(threshold):
            raise RunError(f"The threshold of calls is {threshold}.", "State the rating from which a case is called.")
        calls = (self.ratings >= threshold).astype(np.float64)
        return ReaderStudy(self.modalities, self.readers, self.cases, self.positive, calls)

    @classmethod
    def from_calls(cls, rows: Sequence[tuple[str, str, str, float]], truth: dict[str, bool]) -> ReaderStudy:
        """A study from single ratings.

        Args:
            rows: (reader, case, modality, rating), in any order.
            truth: what is true of each case.

        Raises:
            RunError: a rating twice, a rating missing, a case without truth.
        """
        found: dict[tuple[str, str, str], float] = {}
        for reader, case, modality, rating in rows:
            if (modality, reader, case) in found:
                raise RunError(
                    f"Reader {reader!r} rated case {case!r} in modality {modality!r} twice.",
                    "Keep one rating of each case by each reader in each modality.",
                )
            if case not in truth:
                raise RunError(f"Case {case!r} is rated but its truth is not given.", "Add its row of truth.")
            found[modality, reader, case] = rating
        if not found:
            raise RunError("A reader study has no rating.")
        modalities, readers = (tuple(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
        rated = {key[2] for key in found}
        cases = tuple(case for case in truth if case in rated)
        missing = [(m, r, c) for m in modalities for r in readers for c in cases if (m, r, c) not in found]
        if missing:
            m, r, c = missing[0]
            raise RunError(
                f"{count_noun(len(missing), 'rating is', 'ratings are')} missing, "
                f"e.g. of reader {r!r}, case {c!r}, modality {m!r}.",
                "The analysis needs a fully crossed study: leave out readers or cases that are incomplete.",
            )
        ratings = np.array([[[found[m, r, c] for c in cases] for r in readers] for m in modalities])
        return cls(modalities, readers, cases, np.array([truth[c] for c in cases]), ratings)

    def write(self, path: Path, about: str = "reader study") -> None:
        """Write an iMRMC file (Gallas 2006; readerID, caseID, modalityID, score; reader -1 says the truth)."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        positive = int(self.positive.sum())
        out.write(f"{about}\n\nNR: {len(self.readers)}\nN0: {len(self.cases) - positive}\nN1: {positive}\n")
        out.write(f"NM: {len(self.modalities)}\n\n{_BEGIN}\n")
        for case, true in zip(self.cases, self.positive, strict=True):
            writer.writerow(["-1", case, TRUTH, int(true)])
        for m, modality in enumerate(self.modalities):
            for r, reader in enumerate(self.readers):
                for c, case in enumerate(self.cases):
                    writer.writerow([reader, case, modality, f"{self.ratings[m, r, c]:.17g}"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(out.getvalue(), encoding="utf-8")

    @classmethod
    def parse(cls, text: str, path: Path) -> ReaderStudy:
        """Parse the text of an iMRMC file; spaces in names do not count, as in iMRMC.

        Args:
            text: what the file holds.
            path: the file, as errors name it.

        Raises:
            LayoutError: no `BEGIN DATA:`, or a row that does not parse; the message names the line.
            RunError: ratings that are missing or stand twice.
        """
        lines = text.splitlines()
        start = next((i for i, line in enumerate(lines) if line.strip().upper() == _BEGIN), None)
        if start is None:
            raise LayoutError(f"{path}: no line {_BEGIN!r}.", "Give a file in iMRMC's format.")
        truth: dict[str, bool] = {}
        rows: list[tuple[str, str, str, float]] = []
        for number, cells in enumerate(csv.reader(lines[start + 1 :]), start=start + 2):
            if not any(cell.strip() for cell in cells):
                continue
            while len(cells) > 4 and not cells[-1].strip():
                cells.pop()  # lines that end in a comma
            if len(cells) != 4:
                raise LayoutError(
                    f"{path}, line {number}: {count_noun(len(cells), 'field')}; expected reader, "
                    "case, modality, score.",
                    "Write numbers with a point, names without commas, and no further column (weights are not read).",
                )
            reader, case, modality = ("".join(cell.split()) for cell in cells[:3])
            try:
                score = float(cells[3])
            except ValueError:
                raise LayoutError(f"{path}, line {number}: score {cells[3]!r} is no number.") from None
            if reader == "-1":
                if case in truth or score not in (0.0, 1.0):
                    raise LayoutError(f"{path}, line {number}: the truth of case {case!r} is {score} or stands twice.")
                truth[case] = bool(score)
            else:
                rows.append((reader, case, modality, score))
        try:
            return cls.from_calls(rows, truth)
        except RunError as error:
            raise LayoutError(f"{path}: {error.message}", error.remedy) from None
