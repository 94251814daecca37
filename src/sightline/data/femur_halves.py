"""Pictures of two femurs cut into two pictures of one (Jimenez-Sanchez 2018, section III)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.errors import CohortError, count_noun
from sightline.io.files import make_file_name, mark_whole, require_empty
from sightline.io.image import read_image
from sightline.structures.case import Case, Cohort, is_normal
from sightline.structures.gaze import Gaze
from sightline.structures.rasterize import Points
from sightline.structures.regions import Box, Mask, Polygon, Region, Scribble

# the fact by which a source says that a picture shows both femurs where no two boxes do
FEMURS = "femurs"


@dataclass(frozen=True)
class _Half:
    """One side of a picture: its columns from `start` to `stop`, and the box of its femur where it has one."""

    side: str
    start: int
    stop: int
    box: Box | None

    @property
    def label(self) -> str | None:
        """The class that the box speaks for."""
        return None if self.box is None else self.box.tag.label


def halve(cohort: Cohort, destination: Path) -> Cohort:
    """Write a cohort in which every picture of two femurs is two pictures of one; the others are as they were.

    An anteroposterior picture (its view says AP, or nothing) shows two femurs when exactly two boxes of one role lie on
    it, one in its left and one in its right half, without a column in common; or when its fact `femurs` is 2. It is
    cut midway between the boxes, or in its middle where not both are marked. The patient's right is on the picture's
    left, as radiographs are hung: the halves are called ID-R and ID-L, carry the fact `side`, and each is a study of
    its own of the same patient, because the mean of a broken and a sound femur means nothing. Marks are cut and moved.

    The label of a half is what its own box's tag names. Without a tag it is normal where the picture is, or where the
    other half's tag names the picture's label: the one finding that is known lies over there. It is the picture's
    label where the other half's tag says normal, or where only this half is marked. Else nothing says which femur is
    broken: refused, not guessed.

    Args:
        cohort: any cohort.
        destination: a new or empty folder.

    Returns:
        The new cohort, called `NAME-halves`; splits and patients are kept.

    Raises:
        CohortError: nothing to cut, labels that cannot be told apart, no normal class where one is needed.
        LayoutError: a destination with content.
    """
    destination = Path(destination)
    # every label is settled before anything is written
    plans = [_plan(case, cohort.classes) for case in cohort]
    cut = sum(plan is not None for plan in plans)
    if cut == 0:
        raise CohortError(
            f"No picture of {cohort.name!r} shows two femurs.",
            f"Mark each femur with a box, or give such pictures the fact {FEMURS} = 2.",
        )
    require_empty(destination)
    cases: list[Case] = []
    for case, plan in zip(cohort, plans, strict=True):
        cases += [case] if plan is None else _cut_case(case, plan, destination / "images")
    halved = f"{count_noun(cut, 'picture of two femurs was', 'pictures of two femurs were')} cut into {2 * cut} of one"
    about = {**cohort.about, "halved": halved}
    write_cohort(Cohort(f"{cohort.name}-halves", cohort.classes, tuple(cases), destination, about), destination)
    mark_whole(destination)
    return read_cohort(destination)


def _plan(case: Case, classes: Sequence[str]) -> list[tuple[_Half, str]] | None:
    """The two halves of a picture with their labels, or None where it stays whole."""
    if case.view and "AP" not in re.split(r"\W+", case.view.upper()):
        return None
    boxes = _find_two_boxes(case)
    if boxes is None and case.facts.get(FEMURS) != "2":
        return None
    columns = case.shape[1] if case.shape else read_image(case.image).frame.shape[1]
    found = _sort_by_side(case, boxes, columns)
    if found is None:
        return None
    right, left = found
    middle = columns // 2
    if right is not None and left is not None:
        middle = round((right.stop[1] + left.start[1]) / 2.0)
    halves = (_Half("R", 0, middle, right), _Half("L", middle, columns, left))
    return [(half, _choose_label(case, half, other, classes)) for half, other in (halves, halves[::-1])]


def _find_two_boxes(case: Case) -> list[Box] | None:
    """The two boxes of one role that a picture has; findings first."""
    for role in ("finding", "focus"):
        boxes = [r for r in case.regions if isinstance(r, Box) and len(r.start) == 2 and r.tag.role == role]
        if len(boxes) == 2:
            return boxes
    return None


def _sort_by_side(case: Case, boxes: Sequence[Box] | None, columns: int) -> tuple[Box | None, Box | None] | None:
    """The box of the femur in the picture's left half and in its right half; None where they show one femur."""
    if boxes is None:
        boxes = [r for r in case.regions if isinstance(r, Box) and r.tag.role == "finding"]
        if len(boxes) > 1:
            raise CohortError(
                f"{case.case_id!r} shows two femurs, but has {count_noun(len(boxes), 'finding box', 'finding boxes')}.",
                "Mark each femur with one box at most.",
            )
    left_of_middle = [box for box in boxes if box.start[1] + box.stop[1] < columns]
    right_of_middle = [box for box in boxes if box.start[1] + box.stop[1] >= columns]
    if len(left_of_middle) > 1 or len(right_of_middle) > 1:
        return None
    first, second = next(iter(left_of_middle), None), next(iter(right_of_middle), None)
    if first is not None and second is not None and first.stop[1] > second.start[1]:
        return None
    return first, second


def _choose_label(case: Case, half: _Half, other: _Half, classes: Sequence[str]) -> str:
    """The class of a half; see `halve`."""
    if half.label is not None:
        if half.label not in classes:
            raise CohortError(
                f"A box of {case.case_id!r} is labelled {half.label!r}, not one of the classes {list(classes)}.",
                "Add the class or mend the box's label.",
            )
        return half.label
    other_is_sound = other.label is not None and is_normal(other.label)
    if is_normal(case.label) or other_is_sound or (half.box is not None and other.box is None):
        return case.label
    if other.label != case.label and (half.box is None) == (other.box is None):
        raise CohortError(
            f"{case.case_id!r} ({case.label}) shows two femurs, and nothing says which of them is {case.label!r}.",
            "Give each femur's box the class of that femur.",
        )
    normal = next((name for name in classes if is_normal(name)), None)
    if normal is None:
        raise CohortError(
            f"One femur of {case.case_id!r} is sound, but none of the classes {list(classes)} is a normal one.",
            "Add a class called 'normal'.",
        )
    return normal


def _cut_case(case: Case, plan: Sequence[tuple[_Half, str]], images: Path) -> list[Case]:
    """Write the two pictures and describe them."""
    picture = read_image(case.image)
    images.mkdir(parents=True, exist_ok=True)
    cases = []
    for half, label in plan:
        case_id = f"{case.case_id}-{half.side}"
        pixels = np.ascontiguousarray(picture.pixels[:, half.start : half.stop])
        path = images / f"{make_file_name(case_id)}.png"
        Image.fromarray(pixels).save(path)
        spacing = picture.frame.spacing_mm
        cases.append(
            replace(
                case,
                case_id=case_id,
                study_id=f"{case.study_id}-{half.side}",
                image=path,
                label=label,
                regions=tuple(cut for r in case.regions if (cut := cut_region(r, half.start, half.stop)) is not None),
                shape=(pixels.shape[0], pixels.shape[1]),
                spacing_mm=case.spacing_mm or (None if spacing is None else (spacing[0], spacing[1])),
                facts={**{name: text for name, text in case.facts.items() if name != FEMURS}, "side": half.side},
            )
        )
    return cases


def cut_region(region: Region, start: int, stop: int) -> Region | None:
    """A region on the part of its picture from column `start` to column `stop`; None where nothing of it lies there.

    Args:
        region: a two-axis region, in pixels of the whole picture.
        start: first column of the part.
        stop: one past its last column.
    """
    if isinstance(region, Mask):
        pixels = region.pixels()[:, start:stop].copy()
        return replace(region, source=pixels) if pixels.any() else None
    if isinstance(region, Gaze):
        # what was looked at beside the part still casts its density into it
        return replace(region, places=region.places - np.array([0.0, float(start)]))
    if isinstance(region, Box):
        low, high = max(region.start[1], start), min(region.stop[1], stop)
        if low >= high:
            return None
        return replace(region, start=(region.start[0], low - start), stop=(region.stop[0], high - start))
    if isinstance(region, Polygon):
        parts = tuple(cut for part in region.parts if len(cut := _cut_ring(part, start, stop)) >= 3)
        return replace(region, parts=parts) if parts else None
    lines = tuple(piece for line in region.lines for piece in _cut_line(line, start, stop))
    return Scribble(lines, region.stroke_px, region.tag) if lines else None


def _cut_ring(ring: Points, start: int, stop: int) -> Points:
    """A ring clipped at two columns (Sutherland and Hodgman 1974); empty where no area is left."""
    for edge, sign in ((float(start), 1.0), (float(stop), -1.0)):
        kept: list[tuple[float, float]] = []
        for a, b in pairwise([*ring, *ring[:1]]):
            inside_a, inside_b = sign * (a[1] - edge) >= 0.0, sign * (b[1] - edge) >= 0.0
            if inside_a:
                kept.append(a)
            if inside_a != inside_b:
                kept.append(_cross_column(a, b, edge))
        ring = tuple(kept)
    if max((p[1] for p in ring), default=0.0) <= min((p[1] for p in ring), default=0.0):
        return ()
    return tuple((row, column - start) for row, column in ring)


def _cut_line(line: Points, start: int, stop: int) -> list[Points]:
    """The pieces of a polyline between two columns."""
    pieces: list[list[tuple[float, float]]] = [[]]
    if len(line) == 1:
        return [((line[0][0], line[0][1] - start),)] if start <= line[0][1] <= stop else []
    for a, b in pairwise(line):
        # the share of the segment that lies between the columns
        span = b[1] - a[1]
        if span == 0.0:
            low, high = (0.0, 1.0) if start <= a[1] <= stop else (1.0, 0.0)
        else:
            ends = sorted(((start - a[1]) / span, (stop - a[1]) / span))
            low, high = max(0.0, ends[0]), min(1.0, ends[1])
        if low >= high:
            pieces.append([])
            continue
        first, last = (tuple(p + t * (q - p) for p, q in zip(a, b, strict=True)) for t in (low, high))
        if low > 0.0 or not pieces[-1]:
            pieces.append([(first[0], first[1])])
        pieces[-1].append((last[0], last[1]))
        if high < 1.0:
            pieces.append([])
    return [tuple((row, column - start) for row, column in piece) for piece in pieces if piece]


def _cross_column(a: tuple[float, float], b: tuple[float, float], column: float) -> tuple[float, float]:
    """Where a segment crosses a column."""
    return a[0] + (column - a[1]) / (b[1] - a[1]) * (b[0] - a[0]), column
