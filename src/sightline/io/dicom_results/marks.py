"""What readers marked on an image, as a segmentation and a structured report of each reader.

Boxes, polygons and scribbles become coordinates of the report (as they were drawn), polygons and masks segments of the
segmentation (one a mark, one pixel a pixel). The observer of a report is the reader, by pseudonym.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sightline import __version__
from sightline.errors import GeometryError, count_noun
from sightline.io.dicom_results.codes import BOUNDED_BY, CodeTable
from sightline.io.dicom_results.header import SourceImage, build_source_image
from sightline.io.dicom_results.identity import SERIES_FROM, digest_pixels, list_result_words, make_uid, shorten
from sightline.io.dicom_results.objects import write_objects
from sightline.io.dicom_results.regions import build_code_sequence, make_tracking, write_regions
from sightline.io.dicom_results.reports import build_certainty, build_image_region, write_report
from sightline.io.dicom_results.results import KINDS, FoundRegion, Maker, StudyResult
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon, Region, Scribble

MARKED = "RESEARCH MARKS"
_WHOLE = 1000


@dataclass(frozen=True, eq=False)
class ReaderMark:
    """One mark of one reader.

    Attributes:
        region: in pixels of the image; its tag says the finding (`label`) and who drew it (`reader`, a pseudonym).
        confidence: 0 to 1 as the reader said it, or None.
    """

    region: Region
    confidence: float | None = None

    @property
    def label(self) -> str:
        """What the mark speaks for."""
        return self.region.tag.label or self.region.tag.role


def write_marks_as_dicom(
    source: Path | Dataset,
    marks: Sequence[ReaderMark],
    folder: Path,
    *,
    made: datetime,
    codes: CodeTable | None = None,
) -> list[Path]:
    """Write what readers marked on one DICOM image; the same marks give the same UIDs and bytes.

    Args:
        source: the image, or its file.
        marks: of any number of readers.
        folder: to write.
        made: when the marks were made; written as the content's time.
        codes: what findings are called.

    Raises:
        UnreadableFile: the image has no UIDs or no size.
        GeometryError: a mark of another image's size, or outside of it.

    Example:
        ```python
        write_marks_as_dicom(Path("wrist.dcm"), [ReaderMark(Box((10, 20), (40, 60), tag))], Path("out"), made=now)
        ```
    """
    dataset = pydicom.dcmread(source) if isinstance(source, Path) else source
    image = build_source_image(dataset, source if isinstance(source, Path) else "the image")
    return write_objects(make_marks(image, marks, made, codes or CodeTable()), folder)


def make_marks(source: SourceImage, marks: Sequence[ReaderMark], made: datetime, codes: CodeTable) -> list[Dataset]:
    """The objects of all readers, each reader's report before their segmentation."""
    readers: dict[str, list[ReaderMark]] = defaultdict(list)
    for mark in marks:
        readers[mark.region.tag.reader].append(mark)
    objects: list[Dataset] = []
    for number, reader in enumerate(sorted(readers), 1):
        objects += _make_reader_objects(source, reader, readers[reader], made, codes, number)
    return objects


def _make_reader_objects(
    source: SourceImage, reader: str, marks: list[ReaderMark], made: datetime, codes: CodeTable, number: int
) -> list[Dataset]:
    frame = Frame.of_image(source.shape)
    named = reader or "a reader who is not named"
    maker = Maker("sightline marks", "marks", "", __version__)
    drawn = [(mark, _draw_pixels(mark.region, frame)) for mark in marks]
    described = [
        f"{mark.label} {mark.confidence} {_digest_lines(_list_lines(mark.region))} {digest_pixels(pixels)}"
        for mark, pixels in drawn
    ]
    words = list_result_words([source], ("marks", reader, __version__, *described))
    labels = list(dict.fromkeys(mark.label for mark in marks))
    about = labels[0] if len(labels) == 1 else count_noun(len(labels), "finding")

    def describe_series(kind: str) -> tuple[str, int, str]:
        place = SERIES_FROM + len(KINDS) + ("marks", "regions").index(kind)
        return make_uid("series", kind, *words), place, shorten(f"{MARKED}: {about.upper()}, {kind.upper()}", 64)

    objects: list[Dataset] = []
    groups = [
        group for place, mark in enumerate(marks, 1) for group in _build_groups(source, mark, place, words, codes)
    ]
    result = StudyResult((), maker, made, codes)
    if groups:
        notes = [f"Marks of {named}; not a report on the patient."]
        objects.append(
            write_report(
                [source], groups, result, ("marks", *words), describe_series("marks"), number=number, notes=notes,
                observer=named,
            )
        )  # fmt: skip
    areas = [
        FoundRegion(mark.label, pixels, mark.confidence)
        for mark, pixels in drawn
        if pixels is not None and pixels.any()
    ]
    if areas:
        objects.append(
            write_regions(
                source, areas, maker, codes, made, words, describe_series("regions"), number=number, by_hand=True
            )
        )
    return objects


def _draw_pixels(region: Region, frame: Frame) -> NDArray[np.bool_] | None:
    """Pixels of what has an area of its own drawing; a box is its corners and a scribble its line."""
    if not isinstance(region, (Polygon, Mask)):
        return None
    if isinstance(region, Mask) and region.pixels().shape != frame.shape:
        raise GeometryError(
            f"A mask of {region.pixels().shape} pixels does not fit an image of {frame.shape}.",
            "Give the mask of this image.",
        )
    return np.asarray(region.draw(frame), dtype=bool)


def _list_lines(region: Region) -> list[NDArray[np.float64]]:
    """Lines of (column, row), closed but for scribbles; none of a mask."""
    if isinstance(region, Box):
        (top, left), (bottom, right) = region.start, region.stop
        return [np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], dtype=np.float64)]
    if isinstance(region, Polygon):
        return [np.array([(c, r) for r, c in (*part, part[0])], dtype=np.float64) for part in region.parts]
    if isinstance(region, Scribble):
        return [np.array([(c, r) for r, c in line], dtype=np.float64) for line in region.lines]
    return []


def _digest_lines(lines: list[NDArray[np.float64]]) -> str:
    """Lines as UIDs hold them; those too long to be written out whole, which two marks could share, with a digest."""
    with np.printoptions(
        precision=8, threshold=_WHOLE, edgeitems=3, linewidth=75, suppress=False, floatmode="maxprec", sign="-"
    ):
        text = str(lines)
    long = [line.tobytes().hex() for line in lines if line.size > _WHOLE]
    return text + (f" {make_uid(*long)}" if long else "")


def _build_groups(
    source: SourceImage, mark: ReaderMark, place: int, words: Sequence[str], codes: CodeTable
) -> list[Any]:
    """One group a line: a polygon of two parts is two groups with one tracking identifier."""
    if mark.confidence is not None and not 0.0 <= mark.confidence <= 1.0:
        raise GeometryError(f"A confidence lies between 0 and 1; got {mark.confidence}.")
    limit = (source.shape[1], source.shape[0])
    name, uid = make_tracking(mark.label, place, (*words, source.uid))
    site = codes.site(str(source.header.get("BodyPartExamined") or ""))
    groups = []
    for line in _list_lines(mark.region):
        if (line < 0).any() or (line > limit).any():
            raise GeometryError(
                f"A mark of {mark.label} reaches outside the image of {source.shape} pixels.", "Cut it to the image."
            )
        kind = "POLYLINE" if len(line) > 1 else "POINT"
        groups.append(
            hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=name),
                referenced_region=build_image_region(kind, line, source),
                finding_type=build_code_sequence(codes.finding(mark.label)),
                finding_sites=None if site is None else [hd.sr.FindingSite(build_code_sequence(site))],
                measurements=None if mark.confidence is None else [build_certainty(mark.confidence)],
                geometric_purpose=build_code_sequence(BOUNDED_BY) if isinstance(mark.region, Box) else None,
            )
        )
    return groups
