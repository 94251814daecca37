"""One set of boxes or points out of several readers', with each reader's sensitivity, false marks and shift.

Marks of one picture are joined into objects: two marks belong together when they are near enough, and every pair of an
object is (complete linkage), at most one mark a reader. A reader's sensitivity is counted against the *others*: the
objects that more than half of them found. Shifts are constant offsets of a reader from the consensus (a calibration
error, a habit of drawing too low), estimated together with the objects' places; they add up to zero over readers, for
nothing tells a shift that all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sightline.errors import GeometryError
from sightline.metrics.estimate import FloatArray


@dataclass(frozen=True, eq=False)
class Object:
    """Something that readers marked.

    Attributes:
        numbers: its consensus: corners of a box (start, stop) or a point, readers' shifts taken off.
        members: position of each reader's mark, by reader.
        support: share of the readers who marked it.
    """

    numbers: FloatArray
    members: Mapping[str, int]
    support: float


@dataclass(frozen=True, eq=False)
class ReaderQuality:
    """How a reader marks, held against the others.

    Attributes:
        sensitivity: share of the objects which more than half of the others found; NaN without such objects.
        references: how many objects that is.
        false_marks: marks a picture that fewer than half of the others have.
        shift: [axes], the reader's offset from the consensus, in pixels.
    """

    sensitivity: float
    references: int
    false_marks: float
    shift: FloatArray


def compute_box_likeness(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of boxes [n, 2 d] and [m, 2 d]: [n, m]."""
    d = a.shape[1] // 2
    low = np.maximum(a[:, None, :d], b[None, :, :d])
    high = np.minimum(a[:, None, d:], b[None, :, d:])
    both = np.prod(np.clip(high - low, 0.0, None), axis=2)
    size_a, size_b = (np.prod(x[:, d:] - x[:, :d], axis=1) for x in (a, b))
    return np.asarray(both / (size_a[:, None] + size_b[None, :] - both))


def compute_point_likeness(a: FloatArray, b: FloatArray) -> FloatArray:
    """Minus the distance of points [n, d] and [m, d]: [n, m]."""
    return -np.asarray(np.linalg.norm(a[:, None, :] - b[None, :, :], axis=2))


def join_marks(marks: Mapping[str, ArrayLike], *, boxes: bool, near: float) -> list[dict[str, int]]:
    """Which marks of one picture are one object: for each object the position of each reader's mark.

    Args:
        marks: [n, 2 d] boxes (start, stop) or [n, d] points of each reader.
        boxes: whether they are boxes.
        near: the least intersection over union, or the greatest distance, at which two marks are one object.
    """
    names = list(marks)
    arrays = {name: np.asarray(marks[name], dtype=np.float64) for name in names}
    owner = [(name, i) for name in names for i in range(len(arrays[name]))]
    if not owner:
        return []
    numbers = np.array([arrays[name][i] for name, i in owner])
    if not np.isfinite(numbers).all():
        raise GeometryError("Marks to join need finite coordinates.")
    like = compute_box_likeness(numbers, numbers) if boxes else compute_point_likeness(numbers, numbers)
    least = near if boxes else -near
    groups = [[i] for i in range(len(owner))]
    while True:
        best, pair = least, None
        for x in range(len(groups)):
            for y in range(x + 1, len(groups)):
                same_reader = {owner[i][0] for i in groups[x]} & {owner[i][0] for i in groups[y]}
                worst = float(like[np.ix_(groups[x], groups[y])].min())
                if not same_reader and worst >= best and (pair is None or worst > best):
                    best, pair = worst, (x, y)
        if pair is None:
            break
        groups[pair[0]] += groups.pop(pair[1])
    return [{owner[i][0]: owner[i][1] for i in group} for group in groups]


def find_consensus(
    pictures: Sequence[Mapping[str, ArrayLike]], *, boxes: bool = True, near: float = 0.3, rounds: int = 50
) -> tuple[list[list[Object]], dict[str, ReaderQuality]]:
    """Objects of several pictures, and how each reader marks.

    Args:
        pictures: for each picture, marks of each reader who read it (an empty array where a reader found nothing).
        boxes: boxes, else points.
        near: as of `join_marks`.
        rounds: of estimating places and shifts by turns, until nothing moves.

    Returns:
        The objects of each picture; quality by reader.

    Raises:
        GeometryError: no picture, or one that nobody read.
    """
    if not pictures or any(not picture for picture in pictures):
        raise GeometryError("A consensus needs pictures, each read by somebody.")
    readers = list(dict.fromkeys(name for picture in pictures for name in picture))
    groups = [join_marks(picture, boxes=boxes, near=near) for picture in pictures]
    arrays = [{name: np.asarray(marks, dtype=np.float64) for name, marks in p.items()} for p in pictures]
    width = next((a.shape[1] for p in arrays for a in p.values() if a.size), 4 if boxes else 2)
    axes = width // 2 if boxes else width
    shifts = _solve_shifts(readers, groups, arrays, (axes, 2 if boxes else 1), rounds)
    objects = []
    for picture, found in zip(arrays, groups, strict=True):
        made = []
        for members in found:
            places = [picture[name][i] - np.tile(shifts[name], 2 if boxes else 1) for name, i in members.items()]
            made.append(Object(np.mean(places, axis=0), members, len(members) / len(picture)))
        objects.append(made)
    return objects, {name: _measure_quality(name, arrays, groups, shifts[name]) for name in readers}


def _solve_shifts(
    readers: Sequence[str], groups: Sequence[Sequence[Mapping[str, int]]], arrays: Sequence[Mapping[str, FloatArray]],
    form: tuple[int, int], rounds: int,
) -> dict[str, FloatArray]:  # fmt: skip
    """Offsets by alternating least squares: places given shifts, shifts given places."""
    axes, corners = form
    centres = [
        {name: picture[name][i].reshape(corners, axes).mean(axis=0) for name, i in members.items()}
        for picture, found in zip(arrays, groups, strict=True)
        for members in found
        if len(members) > 1
    ]
    shifts = {name: np.zeros(axes) for name in readers}
    for _ in range(rounds):
        off: dict[str, list[FloatArray]] = {name: [] for name in readers}
        for each in centres:
            middle = np.mean([place - shifts[name] for name, place in each.items()], axis=0)
            for name, place in each.items():
                off[name].append(place - middle)
        new = {name: np.mean(o, axis=0) if o else np.zeros(axes) for name, o in off.items()}
        mean = np.mean(list(new.values()), axis=0)
        new = {name: shift - mean for name, shift in new.items()}
        moved = max(float(np.abs(new[name] - shifts[name]).max()) for name in readers)
        shifts = new
        if moved < 1e-12:
            break
    return shifts


def _measure_quality(
    name: str,
    arrays: Sequence[Mapping[str, FloatArray]],
    groups: Sequence[Sequence[Mapping[str, int]]],
    shift: FloatArray,
) -> ReaderQuality:
    references = found = false = pictures = 0
    for picture, objects in zip(arrays, groups, strict=True):
        others = len(picture) - 1
        if name not in picture or others == 0:
            continue
        pictures += 1
        for members in objects:
            by_others = len(members) - (name in members)
            agreed = 2 * by_others > others
            references += agreed
            found += agreed and name in members
            # half of the others is neither: it proves the reader neither right nor wrong
            false += 2 * by_others < others and name in members
    sensitivity = found / references if references else float("nan")
    return ReaderQuality(sensitivity, references, false / pictures if pictures else float("nan"), shift)
