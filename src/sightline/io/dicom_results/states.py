"""Boxes and words as a greyscale presentation state: what an older PACS lays over the image."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from sightline.io.dicom.greyscale import is_negative, read_lut
from sightline.io.dicom.pixel_size import read_aspect_ratio
from sightline.io.dicom.pixels import compute_stored_range
from sightline.io.dicom.shutter import SHUTTER, find_shutter
from sightline.io.dicom_results.header import SourceImage
from sightline.io.dicom_results.identity import NOT_FOR_DIAGNOSIS, RESEARCH, finish, make_uid, shorten
from sightline.io.dicom_results.regions import (
    describe_contributing_equipment,
    describe_equipment,
    make_tracking,
    number_labels,
)
from sightline.io.dicom_results.results import FindingResult, FoundBox, Maker

PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
# height of the line of words at the image's foot
_LINE_SHARE = 0.03


def write_state(
    source: SourceImage,
    findings: Sequence[FindingResult],
    boxes: Sequence[FoundBox],
    maker: Maker,
    made: datetime,
    words: Sequence[str],
    series: tuple[str, int, str],
    *,
    number: int = 1,
) -> Dataset:
    """A presentation state of a projection: the boxes, and a line that says what made them.

    Coordinates are in PIXEL units: from the corner of the first pixel, as frames here count (PS3.3, C.10.5.1.2).

    Args:
        source: the image; its window is taken over.
        findings: findings with probabilities, for the words.
        boxes: to draw; there may be none.
        maker: what found them.
        made: time that is written.
        words: of the result, for UIDs.
        series: UID, number and description of the series.
        number: of the instance in its series.
    """
    header = source.copy_as_single_frame()
    # highdicom takes tables that start at 0 alone, none whose entries were read as numbers, and states wrong bits
    tables = {
        keyword: header.pop(keyword).value for keyword in ("ModalityLUTSequence", "VOILUTSequence") if keyword in header
    }
    rows, columns = source.shape
    layer = hd.pr.GraphicLayer("AI_RESEARCH", order=1, description=NOT_FOR_DIAGNOSIS)
    graphics, texts = [], []
    for n, box in zip(number_labels([box.label for box in boxes]), boxes, strict=True):
        top, left, bottom, right = (
            min(max(float(x), 0.0), float(most))
            for x, most in zip(box.corners, (rows, columns, rows, columns), strict=True)
        )
        name, uid = make_tracking(box.label, n, (*words, source.uid))
        line = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
        graphics.append(hd.pr.GraphicObject("POLYLINE", line, units="PIXEL", tracking_id=name, tracking_uid=uid))
        score = "" if box.score is None else f" {box.score:.0%}"
        texts.append(
            hd.pr.TextObject(
                shorten(f"{box.label}{score}", 1024),
                units="PIXEL",
                anchor_point=(left, top),
                anchor_point_visible=False,
            )
        )
    found = ", ".join(
        f"{one.label} {one.probability:.0%}" if one.probability is not None else one.label for one in findings
    )
    caption = shorten(f"{RESEARCH}. {NOT_FOR_DIAGNOSIS} {found}", 1024)
    foot = (0.0, max(0.0, rows - max(2.0, _LINE_SHARE * rows)), float(columns), float(rows))
    texts.append(hd.pr.TextObject(caption, units="PIXEL", bounding_box=foot, text_justification="LEFT"))
    annotation = hd.pr.GraphicAnnotation([header], layer, graphic_objects=graphics or None, text_objects=texts)
    # as the reader takes it: of a raw image by the sign of its values
    bits, signed = int(source.header.get("BitsStored") or 16), source.header.get("PixelRepresentation") == 1
    stored = np.array(compute_stored_range(bits, signed=signed), dtype=np.int64)
    inverse = is_negative(source.header, Path(f"image {source.uid}"), stored)
    made_of = ("states", source.uid, *words)
    dataset = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[header],
        series_instance_uid=series[0],
        series_number=series[1],
        series_description=series[2],
        sop_instance_uid=make_uid(*made_of),
        instance_number=number,
        content_label="AI_RESEARCH",
        content_description=NOT_FOR_DIAGNOSIS,
        content_creator_name=None,
        graphic_annotations=[annotation],
        graphic_layers=[layer],
        # a presentation state says polarity itself: the image's photometric interpretation no longer counts
        presentation_lut_transformation=hd.PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if inverse else "IDENTITY"
        ),
        contributing_equipment=describe_contributing_equipment(maker),
        **describe_equipment(maker),
    )
    _add_tables(dataset, source, tables)
    _add_shutter(dataset, source)
    area = dataset.DisplayedAreaSelectionSequence[0]
    # an area has to have a width and a height, also that of an image of one row
    area.DisplayedAreaBottomRightHandCorner = [max(columns, 2), max(rows, 2)]
    return finish(dataset, source, made, made_of)


def _add_tables(dataset: Dataset, source: SourceImage, tables: dict[str, Sequence[Dataset]]) -> None:
    """The image's own look-up tables, the first of each kind, so that the state shows it as it was judged."""
    signed = source.header.get("PixelRepresentation") == 1
    window, below = "WindowCenter" in source.header, float(source.header.get("RescaleIntercept") or 0) < 0
    if "ModalityLUTSequence" in tables:
        for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
            if keyword in dataset:
                delattr(dataset, keyword)
        # a window or a table counts in the values that come out; without one, they are shown from black to white
        full = not window and "VOILUTSequence" not in tables
        made = _copy_table(source, tables["ModalityLUTSequence"][0], signed=signed, full=full)
        made.ModalityLUTType = str(tables["ModalityLUTSequence"][0].get("ModalityLUTType") or "US")
        dataset.ModalityLUTSequence = [made]
    if "VOILUTSequence" in tables:
        negative = "ModalityLUTSequence" not in tables and (signed or below)
        item = Dataset()
        item.VOILUTSequence = [_copy_table(source, tables["VOILUTSequence"][0], signed=negative, full=True)]
        dataset.SoftcopyVOILUTSequence = [item]


def _add_shutter(dataset: Dataset, source: SourceImage) -> None:
    """The image's own shutter, where the reader heeds it: a state that says none would open it (PS3.4, N.2)."""
    where = Path(f"image {source.uid}")
    if find_shutter(source.header, where, source.shape, read_aspect_ratio(source.header, where))[0] is None:
        return
    for keyword in SHUTTER:
        if keyword in source.header:
            setattr(dataset, keyword, source.header.get(keyword))
    dataset.ShutterPresentationValue = 0


def _copy_table(source: SourceImage, table: Dataset, *, signed: bool, full: bool) -> Dataset:
    """A look-up table as the reader takes it, in 16 bits: a state may have none of 9 to 15 (PS3.3, C.11.1 and C.11.8).

    Args:
        source: the image.
        table: an item of its sequence.
        signed: what it maps may be negative.
        full: its white becomes that of 16 bits.
    """
    entries, first, white = read_lut(source.header, Path(f"image {source.uid}"), table, "look-up table", signed=signed)
    words = np.rint(entries * (65535.0 / white)) if full else entries
    count = len(entries) % 65536
    made = Dataset()
    if first < 0:
        made.add_new("LUTDescriptor", "SS", [count - 65536 if count > 32767 else count, first, 16])
    else:
        made.add_new("LUTDescriptor", "US", [count, first, 16])
    if table.get("LUTExplanation"):
        made.LUTExplanation = shorten(str(table.LUTExplanation), 64)
    made.add_new("LUTData", "OW", words.astype("<u2").tobytes())
    return made
