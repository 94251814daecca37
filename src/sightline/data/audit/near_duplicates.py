"""Pairs of pictures that show the same, found without holding every picture against every other.

Two pictures are near-duplicates when at most 8 of their 256 brightness differences disagree and their 16 x 16
reductions correlate by 0.9 or more (the second keeps empty pictures and bare collimation frames apart). Of nine bands
of bits at least one is then the same in both, so only pictures that share a band are compared (a pigeonhole; banding
as in Rajaraman and Ullman 2011, Mining of Massive Datasets, 3.4). Nothing is missed. Pictures that are equal in
everything count through one of them, so a thousand copies cost as much as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 8
MIN_CORRELATION = 0.9
BANDS = MAX_DISTANCE + 1
BLOCK = 2048
EXAMPLES = 10
# a pair in a block of all pairs costs about a third of one that is picked out of a bucket
DENSE_SHARE = 0.3
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class AlikePair:
    """Two pictures that show the same, each for all that are equal to it in looks, label and split.

    Attributes:
        first: position of the first picture.
        second: position of the other.
        alike: number of pictures that the two stand for, both included.
    """

    first: int
    second: int
    alike: int = 2


@dataclass
class DuplicatePairs:
    """The near-duplicates of one kind.

    Attributes:
        count: number of pairs of pictures.
        listed: number of pairs where equal pictures count once.
        examples: the first ten of those, by position.
        members: bool [n], which pictures belong to a pair.
    """

    count: int
    listed: int
    examples: list[AlikePair]
    members: NDArray[np.bool_]


def find_near_pairs(
    differences: NDArray[np.bool_], thumbnails: NDArray[np.float32], dense_share: float = DENSE_SHARE
) -> Iterator[tuple[Indices, Indices]]:
    """Every pair of near-duplicates once, in pieces, in no particular order.

    Args:
        differences: bool [n, 256], brightness differences.
        thumbnails: float32 [n, 256] with mean 0 and norm 1, all 0 for a constant picture.
        dense_share: where the bands leave more than this share of all pairs, blocks of all pairs are compared.

    Yields:
        Positions of first and second pictures, first < second.
    """
    n = len(differences)
    if n < 2:
        return
    constant = ~np.asarray(thumbnails.any(axis=1))
    columns = np.random.default_rng(0).permutation(differences.shape[1])
    bands = [
        differences[:, band].astype(np.int64) @ (1 << np.arange(len(band))) for band in np.array_split(columns, BANDS)
    ]
    orders = [np.argsort(keys, kind="stable") for keys in bands]
    candidates = 0.0
    for keys in bands:
        sizes = np.unique(keys, return_counts=True)[1].astype(np.float64)
        candidates += float((sizes * (sizes - 1) / 2).sum())
    if candidates > dense_share * n * (n - 1) / 2 and n > 64:
        yield from _find_dense_pairs(differences, thumbnails, constant)
        return
    packed = np.packbits(differences, axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)
    for number, (keys, order) in enumerate(zip(bands, orders, strict=True)):
        # step by step down each bucket: the pairs that are 1, 2, 3, ... places apart in the order of the band
        left = np.arange(n - 1)
        for step in range(1, n):
            left = left[left + step < n]
            left = left[keys[order[left]] == keys[order[left + step]]]
            if not len(left):
                break
            for part in np.array_split(left, 1 + len(left) // (1 << 18)):
                i, j = order[part], order[part + step]
                i, j = np.minimum(i, j), np.maximum(i, j)
                for before in bands[:number]:  # a pair is told by the first band it shares
                    fresh = before[i] != before[j]
                    i, j = i[fresh], j[fresh]
                near = np.bitwise_count(packed[i] ^ packed[j]).sum(axis=1) <= MAX_DISTANCE
                i, j = i[near], j[near]
                alike = np.einsum("nc,nc->n", thumbnails[i], thumbnails[j]) >= MIN_CORRELATION
                alike |= constant[i] & constant[j]
                if alike.any():
                    yield i[alike], j[alike]


def _find_dense_pairs(
    differences: NDArray[np.bool_], thumbnails: NDArray[np.float32], constant: NDArray[np.bool_]
) -> Iterator[tuple[Indices, Indices]]:
    """All pairs in blocks: where nearly all pictures share a band there is nothing to save."""
    n, bits = differences.shape
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        signs = differences[rows].astype(np.float32) * 2.0 - 1.0
        for other in range(start, n, BLOCK):
            columns = slice(other, other + BLOCK)
            distance = (bits - signs @ (differences[columns].astype(np.float32) * 2.0 - 1.0).T) / 2.0
            alike = thumbnails[rows] @ thumbnails[columns].T >= MIN_CORRELATION
            alike |= constant[rows, None] & constant[None, columns]
            alike &= distance <= MAX_DISTANCE + 0.5
            i, j = np.nonzero(np.triu(alike, 1) if start == other else alike)
            if len(i):
                yield i + start, j + other


def find_duplicates(
    differences: NDArray[np.bool_], thumbnails: NDArray[np.float32], labels: Sequence[int], splits: Sequence[int]
) -> dict[str, DuplicatePairs]:
    """Near-duplicates by what is wrong with them; a pair may be wrong in two ways.

    Args:
        differences: bool [n, 256].
        thumbnails: float32 [n, 256].
        labels: a number for the label of each picture.
        splits: a number for the split of each, -1 for none.

    Returns:
        `labels`: pairs with different labels; `splits`: in different splits; `within`: neither.
    """
    n = len(differences)
    of_label, of_split = np.asarray(labels, dtype=np.int64), np.asarray(splits, dtype=np.int64)
    groups: dict[tuple[bytes, int, int], list[int]] = {}
    for position in range(n):
        looks = blake2b(differences[position].tobytes() + thumbnails[position].tobytes(), digest_size=16).digest()
        key = (looks, int(of_label[position]), int(of_split[position]))
        groups.setdefault(key, []).append(position)
    members = list(groups.values())
    first = np.array([group[0] for group in members], dtype=np.int64)
    size = np.array([len(group) for group in members], dtype=np.int64)
    found = {
        kind: DuplicatePairs(0, 0, [], np.zeros(len(members), dtype=bool)) for kind in ("labels", "splits", "within")
    }
    copies = found["within"]
    for group in members:
        if len(group) > 1:
            copies.count += len(group) * (len(group) - 1) // 2
            copies.listed += 1
            copies.examples.append(AlikePair(group[0], group[1], len(group)))
    copies.members |= size > 1
    copies.examples = _keep_first_of(copies.examples)
    label, split = of_label[first], of_split[first]
    for i, j in find_near_pairs(differences[first], thumbnails[first]):
        opposite = label[i] != label[j]
        across = (split[i] != split[j]) & (split[i] >= 0) & (split[j] >= 0)
        for kind, which in (("labels", opposite), ("splits", across), ("within", ~opposite & ~across)):
            if which.any():
                _add(found[kind], i[which], j[which], first, size)
    for pairs in found.values():
        grown = np.zeros(n, dtype=bool)
        for number in np.flatnonzero(pairs.members):
            grown[members[number]] = True
        pairs.members = grown
    return found


def _add(pairs: DuplicatePairs, i: Indices, j: Indices, first: Indices, size: Indices) -> None:
    pairs.count += int((size[i] * size[j]).sum())
    pairs.listed += len(i)
    pairs.members[i] = pairs.members[j] = True
    a, b = first[i], first[j]
    key = a * np.int64(1 << 31) + b
    order = np.argsort(key) if len(key) <= EXAMPLES else np.argpartition(key, EXAMPLES)[:EXAMPLES]
    new = [AlikePair(int(a[k]), int(b[k]), int(size[i[k]] + size[j[k]])) for k in order]
    pairs.examples = _keep_first_of(pairs.examples + new)


def _keep_first_of(pairs: list[AlikePair]) -> list[AlikePair]:
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))[:EXAMPLES]
