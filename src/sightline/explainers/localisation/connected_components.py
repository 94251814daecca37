"""Connected components of many binary pictures at once, from the runs of set pixels in their rows.

A row of a thresholded map is a few runs of set pixels. Pictures are packed to 64 pixels a word, the ends of runs are
found by shifting words, and runs that touch in neighbouring rows are the edges of one sparse graph for all pictures,
whose connected components are those of the pictures (labelling by runs: He, Chao and Suzuki 2008). Work grows with the
number of runs more than with the number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sightline.errors import GeometryError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
_ONE, _SIGN = np.uint64(1), np.uint64(63)


@dataclass(frozen=True)
class Runs:
    """Runs of set pixels in reading order.

    Attributes:
        picture, row: int64 [r], which picture and which of its rows.
        start, stop: int64 [r], first column and the one after the last.
        component: int64 [r], row of `Components`.
        first_px: int64 [r], bit of the first pixel in `PackedPictures`, ascending.
    """

    picture: Ints
    row: Ints
    start: Ints
    stop: Ints
    component: Ints
    first_px: Ints


@dataclass(frozen=True)
class Components:
    """Components (8-connected) in the reading order of their first pixels.

    Attributes:
        picture: int64 [m], which picture.
        corners: int64 [m, 4], row_start, column_start, row_stop, column_stop of the smallest upright box.
        area: int64 [m], set pixels.
    """

    picture: Ints
    corners: Ints
    area: Ints

    def __len__(self) -> int:
        """Number of components."""
        return len(self.picture)


@dataclass(frozen=True)
class PackedPictures:
    """Binary pictures as bits: 64 pixels of a row in a word, the first in the lowest bit.

    Attributes:
        words: uint64 [count * (height + 1) * words of a row]. A row ends with at least one spare bit and a picture
            with a blank row, so that no run goes on in the next row or picture.
        count: number of pictures.
        shape: height and width of each.
    """

    words: Words
    count: int
    shape: tuple[int, int]

    @property
    def stride(self) -> int:
        """Bits of a row."""
        return (self.shape[1] // 64 + 1) * 64

    @cached_property
    def firsts(self) -> Words:
        """Where runs begin: bits set that follow one that is not."""
        before = self.words << _ONE
        before[1:] |= self.words[:-1] >> _SIGN
        return np.asarray(self.words & ~before)

    @cached_property
    def lasts(self) -> Words:
        """Where runs end: bits set that are followed by one that is not."""
        after = self.words >> _ONE
        after[:-1] |= self.words[1:] << _SIGN
        return np.asarray(self.words & ~after)

    def repeat_pictures(self, times: int) -> PackedPictures:
        """Every picture several times, one after the other."""
        words = np.repeat(self.words.reshape(self.count, -1), times, axis=0).reshape(-1)
        return PackedPictures(words, self.count * times, self.shape)


def pack_pictures(pictures: Iterable[Bools], count: int, shape: tuple[int, int]) -> PackedPictures:
    """`count` binary pictures of `shape` as bits.

    Raises:
        GeometryError: another number of pictures, or one of another shape.
    """
    height, width = shape
    bits = np.zeros((count, height + 1, (width // 64 + 1) * 8), dtype=np.uint8)
    filled = 0
    for picture in pictures:
        if picture.shape != shape or filled == count:
            raise GeometryError(f"Expected {count} pictures of {shape} pixels; number {filled + 1} is {picture.shape}.")
        bits[filled, :height, : -(-width // 8)] = np.packbits(picture, axis=1, bitorder="little")
        filled += 1
    if filled != count:
        raise GeometryError(f"Expected {count} pictures; got {filled}.")
    return PackedPictures(bits.reshape(-1).view("<u8"), count, shape)


def find_components(pictures: PackedPictures) -> tuple[Components, Runs]:
    """The components of binary pictures, and the runs they are made of; an empty picture has none."""
    first_px, last_px = _list_set_bits(pictures.firsts), _list_set_bits(pictures.lasts)
    # runs of the next row that a run touches, corners included, follow each other
    low = _count_up_to(pictures.lasts, first_px + (pictures.stride - 2))
    high = _count_up_to(pictures.firsts, last_px + (pictures.stride + 1))
    component, number = _join_runs(low, high)
    picture, row, start = _locate_bits(first_px, pictures)
    runs = Runs(picture, row, start, start + (last_px - first_px) + 1, component, first_px)
    return _gather_components(runs, number), runs


def find_runs_at(pictures: PackedPictures, runs: Runs, picture: Ints, row: Ints, column: Ints) -> Ints:
    """The run that each of some pixels lies in, -1 for a pixel that is not set."""
    bits = (picture * (pictures.shape[0] + 1) + row) * pictures.stride + column
    is_set = pictures.words[bits >> 6] >> (bits & 63).astype(np.uint64) & _ONE
    return np.where(is_set > 0, _count_up_to(pictures.firsts, bits) - 1, -1)


def find_crests(pictures: PackedPictures, rising: PackedPictures, runs: Runs) -> tuple[Ints, Ints, Ints, Ints]:
    """Where a map can be greatest along each run: picture, row, column and component.

    Args:
        pictures: what is kept of each map.
        rising: set where the map is at least as great as in the column before.
        runs: of `pictures`.
    """
    falling = np.bitwise_not(rising.words)
    falls_next: Words = falling >> _ONE
    falls_next[:-1] |= falling[1:] << _SIGN
    crests: Words = pictures.words & (pictures.firsts | rising.words) & (pictures.lasts | falls_next)
    bits = _list_set_bits(crests)
    run = _count_up_to(pictures.firsts, bits) - 1
    column = runs.start[run] + (bits - runs.first_px[run])
    return runs.picture[run], runs.row[run], column, runs.component[run]


def _locate_bits(bits: Ints, pictures: PackedPictures) -> tuple[Ints, Ints, Ints]:
    """Picture, row and column of bits."""
    line = bits // pictures.stride
    picture = line // (pictures.shape[0] + 1)
    return picture, line - picture * (pictures.shape[0] + 1), bits - line * pictures.stride


def _list_set_bits(words: Words) -> Ints:
    """Where bits are set, counted from the lowest bit of the first word: int64, ascending."""
    # from words to bytes to bits, leaving out at each step what is empty
    word = np.flatnonzero(words != 0)
    octets = words[word].view(np.uint8)
    octet = np.flatnonzero(octets != 0)
    bit = np.flatnonzero(np.unpackbits(octets[octet], bitorder="little").view(np.bool_))
    at = octet[bit >> 3]
    return np.asarray((word[at >> 3] << 6) + ((at & 7) << 3) + (bit & 7))


def _count_up_to(words: Words, bits: Ints) -> Ints:
    """How many bits are set up to and including each of some bits."""
    before = np.zeros(len(words), dtype=np.int64)
    np.cumsum(np.bitwise_count(words[:-1]), out=before[1:])
    word = bits >> 6
    below = (_ONE << (bits & 63).astype(np.uint64) << _ONE) - _ONE
    return np.asarray(before[word] + np.bitwise_count(words[word] & below))


def _join_runs(low: Ints, high: Ints) -> tuple[Ints, int]:
    """The component of every run, numbered in reading order, and their number.

    Run i touches the runs of the next row from low[i] to before high[i].
    """
    r = len(low)
    if r == 0:
        return np.zeros(0, dtype=np.int64), 0
    ends = np.zeros(r + 1, dtype=np.int64)
    np.cumsum(high - low, out=ends[1:])
    touched = np.arange(ends[-1]) + np.repeat(low - ends[:-1], high - low)
    index = np.int32 if max(r, int(ends[-1])) < 2**31 else np.int64
    graph = csr_array((np.ones(len(touched), dtype=np.int8), touched.astype(index), ends.astype(index)), shape=(r, r))
    number, label = connected_components(graph, directed=False)
    first = np.full(number, r, dtype=np.int64)
    np.minimum.at(first, label, np.arange(r))
    order = np.argsort(first)
    rank = np.empty(number, dtype=np.int64)
    rank[order] = np.arange(number)
    return rank[label], int(number)


def _gather_components(runs: Runs, number: int) -> Components:
    """Boxes and areas of the components of runs."""
    far = np.iinfo(np.int64).max
    start = np.full((2, number), far, dtype=np.int64)
    stop = np.zeros((2, number), dtype=np.int64)
    np.minimum.at(start[0], runs.component, runs.row)
    np.minimum.at(start[1], runs.component, runs.start)
    np.maximum.at(stop[0], runs.component, runs.row + 1)
    np.maximum.at(stop[1], runs.component, runs.stop)
    picture = np.zeros(number, dtype=np.int64)
    picture[runs.component] = runs.picture
    area = np.zeros(number, dtype=np.int64)
    np.add.at(area, runs.component, runs.stop - runs.start)
    return Components(picture, np.stack([*start, *stop], axis=1), area)
