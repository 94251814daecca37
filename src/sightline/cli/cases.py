"""Commands on the cases of a cohort: how many of each class are tested on, and where readers looked, and when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from sightline.cli.options import hold_folder, require_other_folder
from sightline.errors import CohortError, count_noun


@dataclass(frozen=True)
class CohortSplit:
    """Split a cohort again by whole patients: by shares, or with given numbers of test images per class."""

    source: Annotated[Positional[Path], arg(metavar="SOURCE")]
    """Cohort folder in our layout."""
    destination: Annotated[Positional[Path], arg(metavar="DESTINATION")]
    """Folder to write."""
    test_counts: tuple[str, ...] = ()
    """Test images of each class, e.g. normal=60 A=55 B=60; default: by shares."""
    task: Literal["present", "type", "group"] | None = None
    """Count the classes of a task: present (fracture or not), type (A, B, normal), group (A1 to B3); default: none."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of train, val and test; with --test-counts only of train and val."""
    fresh_test: bool = False
    """Draw validation and test from patients that no test has seen; the present test patients join training."""
    seed: int = 0
    """Seed of the split."""

    @hold_folder(lambda command: command.destination)
    def run(self) -> int:
        """Split and write."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.data.datasets.folder.writer import write_cohort
        from sightline.data.split import draw_fresh_test, split_by_counts, split_cohort
        from sightline.data.task import Task

        require_other_folder(self.source, self.destination)
        cohort = read_cohort(self.source)
        if self.test_counts and self.fresh_test:
            raise CohortError("A fresh test is drawn by shares, not by counts.", "Drop --test-counts or --fresh-test.")
        if self.test_counts:
            train, val, _ = self.fractions
            if train <= 0.0 or val < 0.0:
                raise CohortError(f"Shares of train and val must be positive; got {train:g} and {val:g}.")
            task = None if self.task is None else Task(self.task)
            counts = _parse_counts(self.test_counts)
            cohort = split_by_counts(cohort, counts, task=task, validation=val / (train + val), seed=self.seed)
        elif self.fresh_test:
            cohort = draw_fresh_test(cohort, self.fractions, self.seed)
        else:
            cohort = split_cohort(cohort, self.fractions, self.seed)
        write_cohort(cohort, self.destination)
        for split in ("train", "val", "test"):
            of = cohort.split(split)
            print(
                f"{split}: {count_noun(len(of), 'image')}, "
                f"{', '.join(f'{n} {name}' for name, n in of.counts().items())}"
            )
        return 0


def _parse_counts(words: tuple[str, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        name, found, number = word.rpartition("=")
        if not found or not name or not number.isdecimal() or name in counts:
            raise CohortError(f"--test-counts: {word!r} is no class and number.", "Write for example normal=60 A=55.")
        counts[name] = int(number)
    return counts


@dataclass(frozen=True)
class CohortGaze:
    """Draw the readers' gaze, in parts of their time and in total: one picture per case."""

    cohort: Annotated[Positional[Path], arg(metavar="COHORT")]
    """Cohort folder in our layout."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder to write."""
    cases: tuple[str, ...] = ()
    """Ids of the cases to draw; default: the first ones with gaze."""
    parts: int = 5
    """Number of equal parts of the reading time."""
    seconds: float | None = None
    """Length of a part in seconds, instead of a number of parts."""
    most: int = 12
    """Largest number of cases."""

    @hold_folder(lambda command: command.out)
    def run(self) -> int:
        """Draw."""
        from sightline.data.datasets.folder.reader import read_cohort
        from sightline.inference.explanations import draw_gaze_over_time

        cohort = read_cohort(self.cohort)
        if self.cases:
            known = {case.case_id for case in cohort}
            strange = [name for name in self.cases if name not in known]
            if strange:
                raise CohortError(f"{self.cohort} has no case {', '.join(strange)}.", "Ids stand in images.csv.")
            cohort = cohort.where(lambda case: case.case_id in self.cases)
        drawn = draw_gaze_over_time(cohort, self.out, parts=self.parts, seconds=self.seconds, most=self.most)
        print(f"{count_noun(len(drawn), 'picture')} in {self.out}")
        return 0
