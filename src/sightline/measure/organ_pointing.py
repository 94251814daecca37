"""Does the true class's map point at the organ that class is a disease of? As Zhu 2022 prints it (section 4.4).

The map and the organ are on the map's own grid (the organ's mask is drawn on the map's frame). The paper's text asks
for the maximum inside the mask; its code also accepts a maximum one cell beside it. Organs are large, so a random cell
often points right: no number here stands without its chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import binary_dilation

from sightline.errors import GeometryError
from sightline.measure.estimate import Estimate
from sightline.measure.localisation import MapRow, MapScores
from sightline.measure.map_score import MapScore, score_map

ORGAN = "organ"
NORMAL = "the class has no organ: not counted"


def score_in_organ(
    map: ArrayLike, organ: ArrayLike | None, *, tolerance_cells: int = 0, valid: ArrayLike | None = None
) -> MapScore:
    """Pointing game of a map in an organ; with a tolerance of 0 cells all map scores.

    A tolerance accepts a maximum with an organ cell among its 8 neighbours, which is a maximum in the mask grown by one
    cell; chance and the centred Gaussian are given the same grown mask. Tied maxima count by their share inside.

    Args:
        map: float [h, w], the true class's map.
        organ: bool [h, w]; None where the class has no organ (normals), which is not counted.
        tolerance_cells: 0, as the text has it; 1, as the code has it; or more.
        valid: bool [h, w]: cells that belong to the image; None means all.

    Raises:
        GeometryError: shapes that differ, a map that is not finite, or a negative tolerance.
    """
    if tolerance_cells < 0:
        raise GeometryError(f"A pointing game's tolerance is 0 cells or more; got {tolerance_cells}.")
    if organ is None:
        return MapScore(why=NORMAL)
    region = np.asarray(organ) > 0
    if valid is not None and np.shape(valid) == region.shape:
        region = region & (np.asarray(valid) > 0)
    if tolerance_cells == 0:
        return score_map(map, region, valid)
    grown = binary_dilation(region, structure=np.ones((3,) * region.ndim), iterations=tolerance_cells)
    found = score_map(map, grown, valid)
    if found.pointing is None:
        return found
    return MapScore(
        pointing=found.pointing,
        pointing_chance=found.pointing_chance,
        pointing_centre=found.pointing_centre,
        inside_px=found.inside_px,
        image_px=found.image_px,
        why=f"pointing game alone, with a tolerance of {tolerance_cells} cells",
    )


def organ_row(ids: tuple[str, str, str], label: str, score: MapScore, *, tolerance_cells: int = 0) -> MapRow:
    """One row of `MapScores` for an organ: role `organ`, style `mask` with the tolerance it was scored under.

    Args:
        ids: of case, study and patient.
        label: the case's class, whose map was scored.
        score: by `score_in_organ`.
        tolerance_cells: the tolerance given there.
    """
    style = "mask" if tolerance_cells == 0 else f"mask and {tolerance_cells} cells around"
    return MapRow(*ids, label=label, map_class=label, role=ORGAN, style=style, score=score)


def organ_report(scores: MapScores, *, replicates: int = 2000, seed: int = 0) -> list[Estimate]:
    """Pointing game, its chance, the centred Gaussian and the gain over both, per class and over all classes.

    Rows of another role, and rows that are not counted, are left out; each tolerance stands by itself.
    """
    rows = [row for row in scores.rows if row.role == ORGAN and row.score.pointing is not None]
    report: list[Estimate] = []
    for style in dict.fromkeys(row.style for row in rows):
        of_style = [row for row in rows if row.style == style]
        labels = list(dict.fromkeys(row.label for row in of_style))
        for label in [*labels, None] if len(labels) > 1 else labels:
            kept = [row for row in of_style if label in (None, row.label)]
            report += _estimates(kept, f"{label or 'all classes'}, {style}", replicates, seed)
    if not report:
        why = next((row.score.why for row in scores.rows if row.score.why), "no organ among the rows")
        report = [Estimate("pointing game in the organ", None, n=scores.counts(), method="no interval", why=why)]
    return report


def _estimates(rows: Sequence[MapRow], what: str, replicates: int, seed: int) -> list[Estimate]:
    found = MapScores(tuple(rows)).estimates(replicates=replicates, seed=seed)
    pointing = [estimate for estimate in found if estimate.name.startswith("pointing game")]
    return [replace(e, name=f"{e.name.replace('game', 'game in the organ', 1)}: {what}") for e in pointing]
