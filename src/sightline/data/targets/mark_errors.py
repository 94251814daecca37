"""Marks made wrong on purpose, as readers err: to measure how many wrong marks a training bears."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from sightline.errors import CohortError
from sightline.io.image import read_image
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box

MarkError = Literal["elsewhere", "shifted", "enlarged", "redrawn", "missing"]
# of a box's side: how far a shifted one lies, how much longer an enlarged one's sides are, and the standard deviation
# of each edge of a redrawn one
SHIFT, ENLARGEMENT, REDRAWN_SD = 0.5, 2.0, 0.15


def spoil_marks(
    cohort: Cohort,
    share: float,
    seed: int = 0,
    splits: Sequence[str] = ("train",),
    kind: MarkError = "elsewhere",
) -> Cohort:
    """The cohort with the boxes of some marked training images made wrong.

    A wrong box keeps its tag, lies within the picture, and is at least a pixel wide. Outlines and masks stay as they
    are, so train with boxes (`region_choice` with `style` box): they count as described by the wrong box, which knows
    where it was (`Box.meant`).

    Args:
        cohort: cases with splits; findings marked by boxes.
        share: share of the marked images whose boxes are all made wrong; those of a smaller share are among those of a
            larger one.
        seed: another number takes others.
        splits: what counts as training.
        kind: what is wrong with them. `elsewhere`: of the same size in another place that it does not touch (unless it
            fills the picture), as after a mix-up; `shifted`: by half its height and half its width, so that a quarter
            of it still covers the finding; `enlarged`: twice as high and wide; `redrawn`: each edge moved by a normal
            deviate of 15% of the box's side, as by another reader; `missing`: none of the image's marks is left, its
            outlines included, and the label stays.

    Raises:
        CohortError: a share that is none, another kind, or no box.
    """
    if not 0.0 <= share <= 1.0:
        raise CohortError(f"The share of wrong marks lies from 0 to 1; got {share}.", "Try 0.3.")
    if kind not in get_args(MarkError):
        raise CohortError(f"{kind!r} is no kind of wrong mark.", f"There are: {', '.join(get_args(MarkError))}.")
    marked = [c.case_id for c in cohort.split(*splits) if any(isinstance(r, Box) for r in c.regions)]
    if share == 0.0:
        return cohort
    if not marked:
        raise CohortError(f"Cohort {cohort.name!r} has no box to make wrong.", "Mark findings by boxes.")
    ids = sorted(marked)
    order = np.random.default_rng([seed, len(ids), 30]).permutation(len(ids))
    chosen = {ids[i] for i in order[: math.ceil(share * len(ids))]}
    change = _CHANGES.get(kind)

    def spoil_case(case: Case) -> Case:
        if case.case_id not in chosen:
            return case
        if change is None:
            roles = {r.tag.role for r in case.regions if isinstance(r, Box)}
            return replace(case, regions=tuple(r for r in case.regions if r.tag.role not in roles))
        rng = np.random.default_rng([seed, *case.case_id.encode()])
        shape = case.shape or read_image(case.image).frame.shape
        return replace(case, regions=tuple(change(r, shape, rng) if isinstance(r, Box) else r for r in case.regions))

    return replace(cohort, cases=tuple(spoil_case(case) for case in cohort))


def _move_elsewhere(box: Box, shape: Sequence[int], rng: np.random.Generator) -> Box:
    """The box elsewhere in a picture; after many tries, where it is farthest from its old place among those tried."""
    size = np.array(box.stop) - np.array(box.start)
    old = (np.array(box.start) + np.array(box.stop)) / 2.0
    room = np.maximum(np.array(shape, dtype=float) - size, 0.0)
    tries = rng.uniform(0.0, 1.0, (50, 2)) * room + size / 2.0
    clear = [t for t in tries if (np.abs(t - old) >= size).any()]
    centre = clear[0] if clear else max(tries, key=lambda t: float(np.abs(t - old).sum()))
    return _replace_corners(box, centre - size / 2.0, centre + size / 2.0)


def _move_beside(box: Box, shape: Sequence[int], rng: np.random.Generator) -> Box:
    """Towards one of four corners; where the picture ends before, the other way."""
    size, sides = np.array(box.stop) - np.array(box.start), np.array(shape, dtype=float)
    by = SHIFT * size * rng.choice((-1.0, 1.0), 2)
    beyond = (np.array(box.start) + by < 0) | (np.array(box.stop) + by > sides)
    by = np.where(beyond, -by, by)
    return _cut_to_picture(box, np.array(box.start) + by, np.array(box.stop) + by, sides)


def _enlarge(box: Box, shape: Sequence[int], rng: np.random.Generator) -> Box:
    grown = (ENLARGEMENT - 1.0) / 2.0 * (np.array(box.stop) - np.array(box.start))
    return _cut_to_picture(box, np.array(box.start) - grown, np.array(box.stop) + grown, np.array(shape, dtype=float))


def _draw_again(box: Box, shape: Sequence[int], rng: np.random.Generator) -> Box:
    size = np.array(box.stop) - np.array(box.start)
    moved = rng.normal(0.0, REDRAWN_SD, (2, 2)) * size
    edges = np.sort(np.stack([np.array(box.start) + moved[0], np.array(box.stop) + moved[1]]), axis=0)
    return _cut_to_picture(box, edges[0], edges[1], np.array(shape, dtype=float))


def _cut_to_picture(box: Box, start: np.ndarray, stop: np.ndarray, sides: np.ndarray) -> Box:
    """What of the box lies in the picture, at least a pixel wide."""
    start = np.clip(start, 0.0, np.maximum(sides - 1.0, 0.0))
    return _replace_corners(box, start, np.minimum(np.maximum(stop, start + 1.0), sides))


def _replace_corners(box: Box, start: np.ndarray, stop: np.ndarray) -> Box:
    # rounded: another machine's last digit is not another cohort
    (top, left), (bottom, right) = np.round(start, 1).tolist(), np.round(stop, 1).tolist()
    return replace(box, start=(top, left), stop=(bottom, right), meant=box.meant or box)


_CHANGES: dict[str, Callable[[Box, Sequence[int], np.random.Generator], Box]] = {
    "elsewhere": _move_elsewhere,
    "shifted": _move_beside,
    "enlarged": _enlarge,
    "redrawn": _draw_again,
}
