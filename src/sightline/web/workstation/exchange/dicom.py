"""Marks as DICOM: for each reader of an image a segmentation and a structured report, under a pseudonym.

Only images that are DICOM files have the UIDs to refer to. Beside the objects lie `objects.csv` (which file is of which
image and reader), `readers.csv` (who a pseudonym is; it stays with the lead) and `left_out.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from sightline.errors import GeometryError, LayoutError, SightlineError
from sightline.io.files import write_new_folder
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Mask, Polygon, Region
from sightline.web.workstation.exchange.cohort_export import MERGING, RULES, merge_regions_by_image
from sightline.web.workstation.exchange.readings import FinishedRead, group_images_by_study, list_finished_reads
from sightline.web.workstation.service import Workstation
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.tables import reader

_TOLD = "a report refers to an image by the UIDs of its DICOM file"


def export_dicom(desk: Workstation, destination: Path, whose: str = "each") -> tuple[int, int]:
    """Write a folder of objects for each image; how many objects, and how many lines were left out.

    Args:
        desk: the workstation.
        destination: a new or empty folder.
        whose: each, consensus, union, intersection, majority, staple, or a reader's name.

    Raises:
        LayoutError: a folder that holds something, no reader of this name, or no image of the cohort is DICOM.
    """
    from sightline.io.dicom_results.marks import ReaderMark, write_marks_as_dicom

    with desk.database.reading() as connection:
        reads = list_finished_reads(connection)
        marked = merge_regions_by_image(desk, connection, reads, whose)
        images = [row for rows in group_images_by_study(connection).values() for row in rows]
        accounts = [row["name"] for row in read_all_rows(connection, select(reader.c.name).order_by(reader.c.made_at))]
    pseudonyms = {name: f"R{number}" for number, name in enumerate(accounts, 1)}
    sources = {row["key"]: desk.case_of(row).image for row in images}
    if not any(_is_dicom(path) for path in sources.values()):
        raise LayoutError(
            f"No image of {desk.cohort.name!r} is a DICOM file; {_TOLD}.", "Export --as folder, or --as coco."
        )
    objects: list[tuple[str, ...]] = []
    left_out: list[tuple[str, str, str]] = []
    with write_new_folder(destination) as partial:
        for row in images:
            regions = [region for region in marked.get(row["key"], []) if not isinstance(region, Gaze)]
            if not regions:
                continue
            path = sources[row["key"]]
            if not _is_dicom(path):
                left_out.append((row["image_id"], "", f"no DICOM file: {_TOLD}"))
                continue
            if desk.compare_with_first_look(row)[1]:
                left_out.append((row["image_id"], "", "the picture was changed since it was first opened here"))
                continue
            own = _select_reads(reads, row["study"], whose)
            fits = []
            for region in regions:
                if _is_inside(region, desk.case_of(row).shape):
                    sure = _find_confidence(own, region, whose)
                    fits.append(ReaderMark(_rename_reader(region, pseudonyms), sure))
                else:
                    left_out.append((row["image_id"], region.tag.reader, "a mark reaches outside of the image"))
            folder = partial / row["key"]
            try:
                written = write_marks_as_dicom(path, fits, folder, made=_find_time(own)) if fits else []
            except (SightlineError, OSError) as error:
                why = error.message if isinstance(error, SightlineError) else type(error).__name__
                left_out.append((row["image_id"], "", why.replace(str(path), path.name)))
                continue
            objects += [(f"{row['key']}/{one.name}", row["image_id"], one.name.split("_")[0]) for one in written]
        _write(partial / "objects.csv", ("file", "image_id", "kind"), objects)
        _write(partial / "readers.csv", ("pseudonym", "reader"), [(p, name) for name, p in pseudonyms.items()])
        _write(partial / "left_out.csv", ("image_id", "reader", "why"), left_out)
    return len(objects), len(left_out)


def _is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM: the letters DICM after 128 bytes."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def _select_reads(reads: Sequence[FinishedRead], study_key: str, whose: str) -> list[FinishedRead]:
    return [
        one
        for one in reads
        if one.row["study"] == study_key and int(one.row["pass"]) == 1 and (whose in RULES or one.reader == whose)
    ]


def _rename_reader(region: Region, pseudonyms: Mapping[str, str]) -> Region:
    """The region under its reader's pseudonym; what a rule made of several keeps the rule's name."""
    return replace(region, tag=replace(region.tag, reader=pseudonyms.get(region.tag.reader, region.tag.reader)))


def _find_confidence(reads: Sequence[FinishedRead], region: Region, whose: str) -> float | None:
    """How sure the reader of a mark was of the class it speaks for; nobody's where several were merged."""
    if whose in MERGING:
        return None
    for one in reads:
        answers = one.fold.answers
        if one.reader == region.tag.reader and answers.confidence is not None and answers.label == region.tag.label:
            return float(answers.confidence) / 100.0
    return None


def _find_time(reads: Sequence[FinishedRead]) -> datetime:
    """When the last of the reads was submitted, UTC."""
    times = [datetime.fromisoformat(str(one.row["submitted_at"])) for one in reads]
    return max(times).astimezone(UTC).replace(tzinfo=None)


def _is_inside(region: Region, shape: Sequence[int] | None) -> bool:
    if shape is None or isinstance(region, Mask):
        return True
    points: list[Any] = [region.start, region.stop] if isinstance(region, Box) else []
    if not points:
        lines = region.parts if isinstance(region, Polygon) else region.lines  # type: ignore[union-attr]
        points = [point for line in lines for point in line]
    if len(points[0]) != len(shape):
        raise GeometryError(f"A mark of {len(points[0])} axes does not fit an image of {len(shape)}.")
    return all(0.0 <= x <= n for point in points for x, n in zip(point, shape, strict=True))


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
