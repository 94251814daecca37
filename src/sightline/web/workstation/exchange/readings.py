"""Finished reads out of the store: who marked what, in how long, from which source."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from sightline.metrics.agreement.report import Reading
from sightline.metrics.agreement.staple import RULES, Rule, merge_masks
from sightline.structures.frame import Frame
from sightline.structures.regions import Mask
from sightline.structures.tag import Tag
from sightline.web.workstation.marks.clock import ReadTime
from sightline.web.workstation.marks.fold import Fold
from sightline.web.workstation.marks.regions import build_region
from sightline.web.workstation.reading.times import read_times
from sightline.web.workstation.service import Workstation
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.log import read_fold
from sightline.web.workstation.store.tables import image, read, reader, study, task


class CroppedMasks(Mapping[str, NDArray[np.bool_]]):
    """Masks of whole pictures, of which only the marked part is kept.

    Three readers of 300 studies of two films of 4 megapixels have 7 GB of masks, nearly all of it False.
    """

    def __init__(self) -> None:
        self._parts: dict[str, tuple[tuple[int, ...], tuple[slice, ...], NDArray[np.bool_]]] = {}

    def keep(self, key: str, mask: NDArray[np.bool_]) -> None:
        """Take a mask over."""
        found = [
            np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)
        ]
        part = tuple(slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0) for at in found)
        self._parts[key] = (mask.shape, part, mask[part].copy())

    def __getitem__(self, key: str) -> NDArray[np.bool_]:
        """The whole mask."""
        shape, part, inside = self._parts[key]
        mask = np.zeros(shape, dtype=bool)
        mask[part] = inside
        return mask

    def __contains__(self, key: object) -> bool:
        """Without drawing it."""
        return key in self._parts

    def __iter__(self) -> Iterator[str]:
        """Keys of the pictures."""
        return iter(self._parts)

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._parts)


@dataclass(frozen=True, eq=False)
class FinishedRead:
    """One submitted read.

    Attributes:
        row: of the table `read`, with study_id, patient_id, the reader's name and the task's name.
        fold: marks and answers.
        time: what it cost.
        spec: of its task.
    """

    row: Mapping[str, Any]
    fold: Fold
    time: ReadTime
    spec: Mapping[str, Any]

    @property
    def reader(self) -> str:
        """The reader's name."""
        return str(self.row["reader_name"])

    @property
    def source(self) -> str:
        """`drawn`, or `assisted` where a mark came of a proposal."""
        own = {mark.get("source", "drawn") for mark in self.fold.live}
        return "assisted" if own & {"accepted", "edited"} else "drawn"

    def marks_on(self, image_key: str) -> list[dict[str, Any]]:
        """The marks on one image."""
        return [mark for mark in self.fold.live if mark["image"] == image_key]


def list_finished_reads(
    connection: Connection, *, task_id: str | None = None, studies: Iterable[str] | None = None, warm_up: bool = False
) -> list[FinishedRead]:
    """Submitted reads in the order of cohort, reader and pass; warm-up reads only where asked for."""
    columns = (
        read, reader.c.name.label("reader_name"), study.c.study_id, study.c.patient_id, task.c.spec,
        task.c.name.label("task_name"), study.c.ordinal.label("study_ordinal"),
    )  # fmt: skip
    found = select(*columns).join(reader, reader.c.id == read.c.reader).join(study, study.c.key == read.c.study)
    found = found.join(task, task.c.id == read.c.task).where(read.c.state == "submitted")
    if task_id is not None:
        found = found.where(read.c.task == task_id)
    if not warm_up:
        found = found.where(read.c.warm_up.is_(False))
    rows = read_all_rows(connection, found.order_by(study.c.ordinal, reader.c.name, read.c["pass"], read.c.id))
    if studies is not None:
        wanted = set(studies)
        rows = [row for row in rows if row["study"] in wanted]
    times = read_times(connection, [row["id"] for row in rows])
    return [
        FinishedRead(row, read_fold(connection, row["id"]), times[row["id"]], json.loads(row["spec"])) for row in rows
    ]


def group_images_by_study(
    connection: Connection, studies: Iterable[str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The image rows of each study."""
    found: dict[str, list[dict[str, Any]]] = {}
    wanted = None if studies is None else set(studies)
    for row in read_all_rows(connection, select(image).order_by(image.c.ordinal)):
        if wanted is None or row["study"] in wanted:
            found.setdefault(row["study"], []).append(row)
    return found


def find_shape(desk: Workstation, row: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The size of an image: as the cohort or its first opening said, else from the file; None where it is gone."""
    stated = tuple(json.loads(row["shape"]))
    if stated:
        return stated
    from sightline.errors import SightlineError
    from sightline.io.image import read_size

    try:
        return read_size(desk.case_of(row).image)
    except SightlineError:
        return None


def draw_mask(marks: Sequence[Mapping[str, Any]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The union of marks on an image's own grid: a pixel counts where a mark touches it."""
    frame, union = Frame.of_image(shape), np.zeros(shape, dtype=bool)
    for mark in marks:
        union |= build_region(mark).draw(frame) > 0
    return union


def merge_marks(
    readers: Sequence[Sequence[Mapping[str, Any]]], shape: tuple[int, ...], rule: str, name: str
) -> list[Mask]:
    """What a rule makes of several readers' marks on an image: a mask a role and class, where one is left.

    Args:
        readers: the marks of each; a reader without any there counts as an empty mask.
        shape: of the image.
        rule: union, intersection, majority or staple.
        name: whose the masks are called.
    """
    rules: dict[str, Rule] = {one: one for one in RULES}
    merged: list[Mask] = []
    for role, label in dict.fromkeys((mark["role"], mark["label"]) for own in readers for mark in own):
        kept = [[mark for mark in own if (mark["role"], mark["label"]) == (role, label)] for own in readers]
        pixels = merge_masks(np.stack([draw_mask(own, shape) for own in kept]), rules[rule])
        if pixels.any():
            merged.append(Mask(pixels, Tag(role, label, name)))
    return merged


def build_readings(
    desk: Workstation, connection: Connection, reads: Sequence[FinishedRead], *, role: str | None = None,
    label: str | None = None,
) -> list[Reading]:  # fmt: skip
    """Reads as the metrics of agreement take them.

    Args:
        desk: the workstation.
        connection: to its store.
        reads: finished ones.
        role: of the marks that count; None: all.
        label: class of the marks that count; None: all.
    """
    images = group_images_by_study(connection, {one.row["study"] for one in reads})
    shapes = {row["key"]: find_shape(desk, row) for rows in images.values() for row in rows}
    made = []
    for one in reads:
        rows = [row for row in images[one.row["study"]] if shapes[row["key"]] is not None]
        unusable = bool(one.fold.answers.quality) and not one.fold.live and not one.fold.answers.nothing
        masks = CroppedMasks()
        spacing: dict[str, tuple[float, ...] | None] = {}
        for row in [] if unusable else rows:
            marks = [m for m in one.marks_on(row["key"]) if role in (None, m["role"]) and label in (None, m["label"])]
            masks.keep(row["key"], draw_mask(marks, shapes[row["key"]] or ()))
            spacing[row["key"]] = None if row["spacing"] is None else tuple(json.loads(row["spacing"]))
        answers = one.fold.answers
        made.append(
            Reading(
                one.reader, int(one.row["pass"]), one.row["study"], one.row["patient_id"], answers.label,
                answers.confidence, masks, spacing,
            )
        )  # fmt: skip
    return made
