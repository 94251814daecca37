"""What a recipe's regions or gaze come to on an image grid: the targets of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.data.lru_cache import LRUCache
from sightline.data.targets.gaze_choice import GazeChoice, GazeTargets
from sightline.data.targets.region_choice import RegionChoice, draw_targets
from sightline.structures.case import Cohort, is_normal
from sightline.structures.frame import Frame
from sightline.structures.regions import Mask, Region, is_volume

# in a target: neither marked nor known to be free of what is marked
UNKNOWN = 255


class RegionTargets:
    """Regions of a cohort, 0 or 1 on image grids.

    Args:
        cohort: the cases.
        choice: which regions, and which classes they guide.
        budget_bytes: memory for regions made into masks, and for masks of pictures read from files.
    """

    def __init__(self, cohort: Cohort, choice: RegionChoice, budget_bytes: int) -> None:
        self.cohort = cohort
        self.choice = choice
        self.shared = choice.classes != "own" and not _may_name_classes(cohort, choice)
        self._guiding = choice.patients(cohort)
        self._picked = LRUCache[int, tuple[Region, ...]](budget_bytes, _count_bytes)

    def draw(
        self, index: int, source: Frame, frame: Frame, *, hidden: bool = False
    ) -> tuple[NDArray[np.uint8 | np.float32], NDArray[np.bool_]]:
        """Target uint8 [k or 1, h, w], and which classes it guides [k].

        Args:
            index: position in the cohort.
            source: frame of the source picture.
            frame: grid to draw on.
            hidden: the marks are there and not shown (`dropout`): nothing is guided, and nothing said of any cell.
        """
        case = self.cohort[index]
        picked: tuple[Region, ...] = ()
        if self._guiding is None or case.patient_id in self._guiding:
            picked = self._picked.get(index, lambda: _read_files(self.choice.pick(case, source.shape)))
        target, guided = draw_targets(picked, self.choice, case, self.cohort.classes, frame, shared=self.shared)
        if hidden and guided.any():
            guided[:] = False
            target[:] = 0 if self.choice.soft else UNKNOWN
        if self.choice.unmarked == "unknown" and not guided.any() and not is_normal(case.label) and not picked:
            target[:] = UNKNOWN
        return target, guided


def build_targets(cohort: Cohort, choice: RegionChoice | GazeChoice, budget_bytes: int) -> RegionTargets | GazeTargets:
    """What draws a choice's targets."""
    if isinstance(choice, GazeChoice):
        return GazeTargets(cohort, choice)
    return RegionTargets(cohort, choice, budget_bytes)


def _read_files(regions: Sequence[Region]) -> tuple[Region, ...]:
    """Masks of pictures as arrays: a file is read once, not in every epoch. Those of volumes are read as they come."""
    return tuple(
        replace(r, source=r.pixels(), value=None)
        if isinstance(r, Mask) and isinstance(r.source, Path) and not is_volume(r.source)
        else r
        for r in regions
    )


def _count_bytes(regions: Sequence[Region]) -> int:
    """Memory of masks that are held as arrays; other regions are small."""
    return sum(r.source.nbytes for r in regions if isinstance(r, Mask) and isinstance(r.source, np.ndarray))


def _may_name_classes(cohort: Cohort, regions: RegionChoice) -> bool:
    if regions.classes != "tagged":
        return False
    return any(r.tag.label is not None for case in cohort for r in case.regions if r.tag.role == regions.role)
