"""The protocol that boxes best on validation maps, and the oracle that nobody has in practice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from sightline.errors import GeometryError, count_noun
from sightline.explainers.localisation.boxes import (
    Floats,
    FoundBoxes,
    check_maps,
    compute_overlaps,
    find_boxes_of_maps,
)
from sightline.explainers.localisation.protocols import MapBoxes

LEVELS_TRIED = tuple(range(20, 241, 20))
Regions = Literal["largest", "peak", "hull", "each"]
REGIONS_TRIED: tuple[Regions, ...] = ("largest", "peak", "hull")
SCALES_TRIED: tuple[Literal["range", "maximum"], ...] = ("range", "maximum")


def list_candidates(like: MapBoxes | None = None) -> tuple[MapBoxes, ...]:
    """Protocols to choose among: the given one first, then one level at a time, on both scales, by kind of region.

    A protocol that boxes `each` component stays so, since one box a map would lose findings; the other fields are kept.
    """
    like = like or MapBoxes()
    kinds: tuple[Regions, ...] = ("each",) if like.regions == "each" else REGIONS_TRIED
    tried = [
        replace(like, scale=scale, keep="above", low=float(low), regions=kind)
        for kind in kinds
        for scale in SCALES_TRIED
        for low in LEVELS_TRIED
    ]
    return (like, *(other for other in tried if other != like))


# Jimenez-Sanchez 2018, section III: a box counts at each of these when its overlap is greater
PRINTED_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def tune(
    maps: ArrayLike,
    truths: Sequence[ArrayLike] | ArrayLike,
    among: Sequence[MapBoxes] | None = None,
    by: Literal["iou", "printed"] = "iou",
) -> MapBoxes:
    """The candidate whose best-scored box overlaps the truth most, on average over maps; of equals the first.

    Give it validation maps only: what is chosen here must not have seen the maps it is measured on. A map without a box
    counts as no overlap, a map with several true boxes by the one its box overlaps most.

    Args:
        maps: [n, h, w], each of the class whose box is asked for.
        truths: for each map its true boxes [4] or [t, 4], in map cells.
        among: protocols to choose among; `list_candidates()` when None.
        by: mean intersection over union, or the printed mAP (share above .1, .25, .5, .75 and .9, averaged).

    Raises:
        GeometryError: no map, no candidate, another number of truths than maps, or a map without a true box.
    """
    array = check_maps(maps)
    known = _check_truths(truths, len(array))
    among = list_candidates() if among is None else among
    if not among:
        raise GeometryError("Tuning needs candidates; got none.")
    worth = []
    for candidate in among:
        best = find_boxes_of_maps(array, candidate).best(len(array))
        overlaps = np.array([_compute_overlap(box, true) for box, true in zip(best, known, strict=True)])
        worth.append(overlaps.mean() if by == "iou" else np.mean([overlaps > level for level in PRINTED_LEVELS]))
    return among[int(np.argmax(worth))]


def choose_oracle_boxes(maps: ArrayLike, truths: Sequence[ArrayLike] | ArrayLike, protocol: MapBoxes) -> FoundBoxes:
    """Of every map the box that overlaps its truth most: an upper bound on choosing, no method.

    Raises:
        GeometryError: as `tune`.
    """
    array = check_maps(maps)
    known = _check_truths(truths, len(array))
    found = find_boxes_of_maps(array, protocol)
    overlaps = np.array(
        [_compute_overlap(box, known[i]) for i, box in zip(found.map_index, found.corners, strict=True)]
    )
    # stable, and boxes stand best first
    order = np.lexsort((-overlaps, found.map_index))
    heads = order[np.unique(found.map_index[order], return_index=True)[1]]
    return FoundBoxes(found.map_index[heads], found.corners[heads], found.scores[heads])


def _check_truths(truths: Sequence[ArrayLike] | ArrayLike, count: int) -> list[Floats]:
    known = [np.atleast_2d(np.asarray(true, dtype=np.float64)) for true in truths]  # type: ignore[union-attr]
    if count == 0 or len(known) != count:
        raise GeometryError(
            f"Expected the true boxes of each of at least one map; got {len(known)} for {count_noun(count, 'map')}."
        )
    for i, true in enumerate(known):
        if true.ndim != 2 or true.shape[1] != 4 or len(true) == 0 or not np.isfinite(true).all():
            raise GeometryError(f"Map {i} needs true boxes [t, 4] that are numbers; got {true.shape}.")
    return known


def _compute_overlap(box: Floats, true: Floats) -> float:
    if np.isnan(box).any():
        return 0.0
    return float(compute_overlaps(np.broadcast_to(box, true.shape), true).max())
