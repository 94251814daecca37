"""VerSe's CTs of spines, or any in its layout, cut into one patch a vertebra (Sekuboyina et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sightline.data.datasets.verse import reader as verse
from sightline.data.spine.patch_cohort import Bar, write_patch_cohort
from sightline.data.spine.series_patches import Cutting
from sightline.errors import LayoutError
from sightline.io.picture import Reject
from sightline.io.tables import read_json
from sightline.structures.case import Cohort


@dataclass(frozen=True)
class Options:
    """How the layout is read, and how patches are cut."""

    gradings: Path | None = None
    """csv or xlsx with the Genant grade of each vertebra; without it, fractures.csv in the source."""
    columns: Path | None = None
    """json that names the table's columns, e.g. {"label": "level", "grade": "fx-grade"}."""
    positive_if: Literal[1, 2, 3] = 1
    """Grade from which a vertebra counts as fractured."""
    mode: Literal["rigid", "straightened"] = "rigid"
    """Patches as one turned cube, or bent straight along the spine."""
    anti_alias: bool = False
    """Smooth CTs that are finer than the patches' 1 mm before they are sampled."""
    workers: int = 1
    """Processes that cut patches, one CT in memory each."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, unless every series has a published split."""
    seed: int = 0
    """Seed of the split."""


def cut(
    source: Path, destination: Path, options: Options | None = None, progress: Bar | None = None
) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read the spines and cut every graded vertebra into a patch under `destination`.

    Args:
        source: a folder above `rawdata` and `derivatives`, or above several such folders.
        destination: cohort folder; patches that were cut before with the same settings are kept.
        options: see `Options`; its defaults when left out.
        progress: what shows progress.

    Returns:
        The cohort, and what was left out and why.

    Raises:
        LayoutError: no series, or a table of gradings that cannot be read.
        CohortError: no vertebra has a grade, or published splits divide a patient.
    """
    options = options or Options()
    spines, unread = verse.read(source, gradings=options.gradings, columns=_read_column_map(options.columns))
    cohort, uncut = write_patch_cohort(
        spines,
        destination,
        cutting=Cutting(mode=options.mode, anti_alias=options.anti_alias),
        positive_if=options.positive_if,
        workers=options.workers,
        progress=progress,
        seed=options.seed,
        fractions=options.fractions,
        name=source.resolve().name,
    )
    return cohort, (*unread, *uncut)


def _read_column_map(path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    named = read_json(path)
    if not isinstance(named, dict) or not all(isinstance(column, str) for column in named.values()):
        raise LayoutError(
            f"{path}: a map of fields to columns was expected.", 'Write {"label": "level", "grade": "fx-grade"}.'
        )
    return named
