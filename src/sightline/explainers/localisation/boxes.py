"""Boxes of many maps at once: what a protocol keeps of them, boxed, scored and thinned.

Coordinates are map cells, (row, column) with the origin at the corner of cell (0, 0); boxes are float64 [m, 4] corners:
row_start, column_start, row_stop, column_stop. A map that is flat has no box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.explainers.localisation.connected_components import (
    Components,
    PackedPictures,
    Runs,
    find_components,
    find_crests,
    find_runs_at,
    pack_pictures,
)
from sightline.explainers.localisation.protocols import LEVELS, MapBoxes

Floats = NDArray[np.float64]
# cells of maps whose components are found together: few enough for a processor's caches
TOGETHER_PX = 2**21


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes of some maps: by map, the best first.

    Attributes:
        map_index: int64 [m], which map.
        corners: float64 [m, 4], in map cells.
        scores: float64 [m], the greatest value inside what was boxed, as a share of the map's scale: 1 is the map's
            maximum. It ranks the boxes of one map; across pictures multiply it by the probability of the map's class.
    """

    map_index: NDArray[np.int64]
    corners: Floats
    scores: Floats

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.map_index)

    def best(self, count: int) -> Floats:
        """The best box of each of `count` maps: float64 [count, 4], NaN rows where nothing was found."""
        corners = np.full((count, 4), np.nan)
        # written from the last to the first, so that the first of a map stays
        corners[self.map_index[::-1]] = self.corners[::-1]
        return corners

    def of_map(self, index: int) -> FoundBoxes:
        """The boxes of one map."""
        mine = self.map_index == index
        return FoundBoxes(self.map_index[mine], self.corners[mine], self.scores[mine])


def find_boxes_of_maps(maps: ArrayLike, protocol: MapBoxes) -> FoundBoxes:
    """Boxes of maps [n, h, w], of which equal scores stand larger first.

    Raises:
        GeometryError: another number of axes, no cell, or a value that is not finite.
    """
    array = check_maps(maps)
    n, height, width = array.shape
    together = max(1, TOGETHER_PX // (height * width))
    found = [_find_boxes_of_few(array[begin : begin + together], begin, protocol) for begin in range(0, n, together)]
    if not found:
        return _build_empty()
    return FoundBoxes(
        np.concatenate([f.map_index for f in found]),
        np.concatenate([f.corners for f in found]),
        np.concatenate([f.scores for f in found]),
    )


def check_maps(maps: ArrayLike) -> NDArray[Any]:
    """Maps [n, h, w] as float32 or float64.

    Raises:
        GeometryError: another number of axes, or maps without a cell.
    """
    array = np.asarray(maps)
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise GeometryError(f"Maps must be [n, h, w] with at least one cell; got {array.shape}.")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    return array


def _find_boxes_of_few(maps: NDArray[Any], begin: int, protocol: MapBoxes) -> FoundBoxes:
    """Boxes of maps that are thresholded together; `begin` is the number of the first one."""
    n, height, width = maps.shape
    low, high, top = np.empty(n), np.empty(n), np.zeros(n, dtype=np.int64)
    levels = 2 if protocol.keep == "both" else 1
    kept = pack_pictures(_iterate_kept(maps, protocol, low, high, top), n * levels, (height, width))
    components, runs = find_components(kept)
    candidates = np.flatnonzero(components.area >= protocol.least_share * height * width)
    if len(candidates) == 0:
        return _build_empty()
    if protocol.regions in ("each", "peak"):
        peaks = find_peaks_of_all(maps, kept, runs, len(components))
        chosen = candidates if protocol.regions == "each" else _choose_first_by(peaks, components, candidates)
    else:
        hull = protocol.regions == "hull"
        chosen = candidates if hull else _choose_first_by(components.area, components, candidates)
        peaks = find_peaks_of_few(maps, kept, runs, len(components), chosen, top, by_picture=hull)
    picture, corners, area = components.picture[chosen], components.corners[chosen], components.area[chosen]
    peaks = peaks[chosen]
    if protocol.regions == "hull":
        picture, corners, area, peaks = _join_hulls(picture, corners, area, peaks)
    index = picture // levels
    bottom = np.zeros(n) if protocol.scale == "maximum" else low
    scores = (peaks - bottom[index]) / (high - bottom)[index]
    order = np.lexsort((-area, -scores, index))
    found = FoundBoxes(index[order], corners[order].astype(np.float64), scores[order])
    thinned = _suppress_overlaps(found, protocol)
    return FoundBoxes(thinned.map_index + begin, thinned.corners, thinned.scores)


def _iterate_kept(
    maps: NDArray[Any], protocol: MapBoxes, low: Floats, high: Floats, top: NDArray[np.int64]
) -> Iterator[NDArray[np.bool_]]:
    """What a protocol keeps of each map, one picture after the other.

    Fills in the least and greatest value of every map and its greatest cell. Levels are turned into values of the map,
    which saves scaling it.
    """
    for i, field in enumerate(maps):
        top[i] = field.argmax()
        least, greatest = float(field.min()), float(field.reshape(-1)[top[i]])
        refuse_non_finite(greatest - least)
        low[i], high[i] = least, greatest
        bottom = 0.0 if protocol.scale == "maximum" else least
        span = greatest - bottom
        above = _round_down_to(bottom + protocol.low / LEVELS * span, field.dtype)
        upper = _round_down_to(bottom + protocol.high / LEVELS * span, field.dtype)
        nothing = span <= 0 or greatest == least
        first = np.zeros(field.shape, dtype=np.bool_) if nothing else field > above
        if protocol.keep == "band" and not nothing:
            first &= field <= upper
        yield first
        if protocol.keep == "both":
            yield first if nothing else field > upper


def _choose_first_by(worth: NDArray[Any], components: Components, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """The candidate worth most of each picture, of equals the first in reading order."""
    picture = components.picture[candidates]
    order = np.lexsort((-worth[candidates], picture))
    return candidates[order][_mark_firsts(picture[order])]


def _join_hulls(
    picture: NDArray[np.int64], corners: NDArray[np.int64], area: NDArray[np.int64], peaks: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Floats]:
    """One box around all components of each picture; components come by picture."""
    heads = np.flatnonzero(_mark_firsts(picture))
    start = np.minimum.reduceat(corners[:, :2], heads, axis=0)
    stop = np.maximum.reduceat(corners[:, 2:], heads, axis=0)
    return (
        picture[heads],
        np.concatenate([start, stop], axis=1),
        np.add.reduceat(area, heads),
        np.maximum.reduceat(peaks, heads),
    )


def _suppress_overlaps(found: FoundBoxes, protocol: MapBoxes) -> FoundBoxes:
    """Non-maximum suppression in each map; of what is left the first `most_boxes` of every map."""
    if _mark_firsts(found.map_index).all():
        return found
    alive, kept = np.ones(len(found), dtype=np.bool_), np.zeros(len(found), dtype=np.bool_)
    # a round takes the best box that is left of every map; boxes lie best first, and of equal ones the first counts
    for _ in range(protocol.most_boxes):
        left = np.flatnonzero(alive)
        if len(left) == 0:
            break
        heads = left[_mark_firsts(found.map_index[left])]
        kept[heads], alive[heads] = True, False
        left = np.flatnonzero(alive)
        better = heads[np.searchsorted(found.map_index[heads], found.map_index[left])]
        alive[left[compute_overlaps(found.corners[left], found.corners[better]) > protocol.overlap]] = False
    return FoundBoxes(found.map_index[kept], found.corners[kept], found.scores[kept])


def compute_overlaps(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union of boxes [m, 4] with others [m, 4], row by row."""
    shared = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    intersection = shared.clip(min=0.0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(intersection / (areas - intersection))


def _mark_firsts(sorted_keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True at the first of equal neighbours."""
    heads = np.ones(len(sorted_keys), dtype=np.bool_)
    heads[1:] = sorted_keys[1:] != sorted_keys[:-1]
    return heads


def _round_down_to(value: float, dtype: np.dtype[Any]) -> Any:
    """The greatest number of a type that is not above a value: comparing with it is comparing with the value."""
    rounded = dtype.type(value)
    return np.nextafter(rounded, dtype.type(-math.inf)) if float(rounded) > value else rounded


def refuse_non_finite(span: float) -> None:
    """Refuse a map whose greatest minus least value is no number."""
    if not math.isfinite(span):
        raise GeometryError("A map holds NaN or infinite values; expected finite numbers.", "Check the training.")


def _build_empty() -> FoundBoxes:
    return FoundBoxes(np.zeros(0, dtype=np.int64), np.zeros((0, 4)), np.zeros(0))


Ints = NDArray[np.int64]


def find_peaks_of_all(maps: NDArray[Any], kept: PackedPictures, runs: Runs, number: int) -> Floats:
    """The greatest value within each of `number` components, float64 [number].

    Args:
        maps: [n, h, w], finite.
        kept: what is kept of them: one or several pictures a map, one after the other.
        runs: of `kept`.
        number: of components.
    """
    levels = kept.count // len(maps)
    rising = pack_pictures(_iterate_rising(maps), len(maps), kept.shape).repeat_pictures(levels)
    picture, row, column, component = find_crests(kept, rising, runs)
    peaks = np.full(number, -np.inf)
    np.maximum.at(peaks, component, maps[picture // levels, row, column].astype(np.float64))
    return peaks


def find_peaks_of_few(
    maps: NDArray[Any], kept: PackedPictures, runs: Runs, number: int, chosen: Ints, top: Ints, *, by_picture: bool
) -> Floats:
    """As `find_peaks_of_all` for some of the components; what stands for the others means nothing.

    Args:
        maps: [n, h, w], finite.
        kept: what is kept of them.
        runs: of `kept`.
        number: of components.
        chosen: components asked for.
        top: int64 [n], the greatest cell of each map, counted in reading order.
        by_picture: only the greatest of the chosen components of a picture is wanted.
    """
    levels, (height, width) = kept.count // len(maps), kept.shape
    flat = maps.reshape(-1)
    peaks = np.full(number, -np.inf)
    wanted = np.zeros(number, dtype=np.bool_)
    wanted[chosen] = True
    # most often the component with the greatest cell of its map is among them, and there is nothing to look for
    picture = np.arange(kept.count)
    cell = top[picture // levels]
    run = find_runs_at(kept, runs, picture, cell // width, cell % width)
    held = run >= 0
    holder = runs.component[run[held]]
    peaks[holder] = flat[(picture // levels * height * width + cell)[held]]
    if by_picture:
        done = np.zeros(kept.count, dtype=np.bool_)
        done[picture[held]] = wanted[holder]
        wanted[runs.component[done[runs.picture]]] = False
    wanted[holder] = False
    mine = np.flatnonzero(wanted[runs.component])
    # by level: the pictures of two levels of one map overlap, and runs must follow each other
    for level in range(levels):
        some = mine[runs.picture[mine] % levels == level]
        if len(some) == 0:
            continue
        line = (runs.picture[some] // levels * height + runs.row[some]) * width
        ends = np.stack([line + runs.start[some], line + runs.stop[some]], axis=1).reshape(-1)
        # the last run may end with the last map, where reduceat wants no index
        greatest = np.maximum.reduceat(flat, ends[:-1] if ends[-1] == flat.size else ends)[0::2]
        np.maximum.at(peaks, runs.component[some], greatest.astype(np.float64))
    return peaks


def _iterate_rising(maps: NDArray[Any]) -> Iterator[NDArray[np.bool_]]:
    """Where each map is at least as great as in the column before."""
    rising = np.ones(maps.shape[1:], dtype=np.bool_)
    for field in maps:
        np.greater_equal(field[:, 1:], field[:, :-1], out=rising[:, 1:])
        yield rising
