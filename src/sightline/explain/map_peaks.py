"""The greatest value of a map within components of it: of all components, or quickly of a few."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.explain.row_runs import Packed, Runs, crests_of, pack, runs_at

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def peaks_of_all(maps: NDArray[Any], kept: Packed, runs: Runs, number: int) -> Floats:
    """The greatest value within each of `number` components, float64 [number].

    Args:
        maps: [n, h, w], finite.
        kept: what is kept of them: one or several pictures a map, one after the other.
        runs: of `kept`.
        number: of components.
    """
    levels = kept.count // len(maps)
    rising = pack(_rising(maps), len(maps), kept.shape).repeated(levels)
    picture, row, column, component = crests_of(kept, rising, runs)
    peaks = np.full(number, -np.inf)
    np.maximum.at(peaks, component, maps[picture // levels, row, column].astype(np.float64))
    return peaks


def peaks_of_few(
    maps: NDArray[Any], kept: Packed, runs: Runs, number: int, chosen: Ints, top: Ints, *, by_picture: bool
) -> Floats:
    """As `peaks_of_all` for some of the components; what stands for the others means nothing.

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
    run = runs_at(kept, runs, picture, cell // width, cell % width)
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


def _rising(maps: NDArray[Any]) -> Iterator[NDArray[np.bool_]]:
    """Where each map is at least as great as in the column before."""
    rising = np.ones(maps.shape[1:], dtype=np.bool_)
    for field in maps:
        np.greater_equal(field[:, 1:], field[:, :-1], out=rising[:, 1:])
        yield rising
