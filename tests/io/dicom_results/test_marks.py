"""Readers' marks as DICOM: as they were drawn, under their pseudonyms, the same bytes again."""

from datetime import datetime

import highdicom as hd
import numpy as np
import pydicom
import pytest
from support.dicom_sources import radiograph
from support.dicom_tools import dciodvfy

from sightline.errors import GeometryError
from sightline.io.dicom_results.marks import ReaderMark, write_marks_as_dicom
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Mask, Polygon, Scribble
from sightline.structures.tag import Tag

MADE = datetime(2026, 1, 2, 3, 4, 5)


def marks(shape=(40, 48)):
    mask = np.zeros(shape, dtype=bool)
    mask[3:9, 20:33] = True
    first, second = Tag("finding", "fracture", "R1"), Tag("finding", "cyst", "R2")
    two_parts = (((1.0, 1.5), (1.0, 9.0), (8.25, 5.0)), ((20.0, 20.0), (20.0, 30.0), (30.0, 25.0)))
    return [
        ReaderMark(Box((2.125, 3.0), (10.0, 20.75), first), 0.9),
        ReaderMark(Polygon(two_parts, first)),
        ReaderMark(Mask(mask, second), 0.25),
        ReaderMark(Scribble((((5.0, 5.0), (6.5, 9.0), (12.0, 11.0)),), 2.0, second)),
    ]


def test_marks_are_as_they_were_drawn(tmp_path):
    paths = write_marks_as_dicom(radiograph(), marks(), tmp_path, made=MADE)
    made = [pydicom.dcmread(path) for path in paths]
    assert [one.Modality for one in made] == ["SR", "SEG", "SR", "SEG"]
    for path in paths:
        assert dciodvfy(path).errors == (), path.name
    first, polygons, second, masks = made
    groups = hd.sr.Comprehensive3DSR.from_dataset(first).content.get_planar_roi_measurement_groups()
    assert len(groups) == 3
    assert np.allclose(groups[0].roi.value[0], (3.0, 2.125), atol=1e-3)
    assert groups[0].get_measurements()[0].value == pytest.approx(90.0)
    assert groups[1].tracking_uid == groups[2].tracking_uid != groups[0].tracking_uid
    (line,) = hd.sr.Comprehensive3DSR.from_dataset(second).content.get_planar_roi_measurement_groups()
    assert np.allclose(line.roi.value, [(5, 5), (9, 6.5), (11, 12)], atol=1e-3)
    observers = [e.value for e in second.iterall() if e.keyword == "PersonName"]
    assert observers == ["R2^"]
    frame = Frame.of_image((40, 48))
    assert np.array_equal(np.squeeze(masks.pixel_array).astype(bool), marks()[2].region.pixels())
    assert np.array_equal(np.squeeze(polygons.pixel_array).astype(bool), marks()[1].region.draw(frame))
    assert polygons.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"


def test_the_same_marks_have_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_marks_as_dicom(radiograph(), marks(), tmp_path / name, made=MADE)
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    other = write_marks_as_dicom(radiograph(), marks()[:1], tmp_path / "c", made=MADE)
    assert {path.name for path in other}.isdisjoint(first)


def test_a_file_is_a_source_too(tmp_path):
    radiograph().save_as(tmp_path / "image.dcm", enforce_file_format=True)
    paths = write_marks_as_dicom(tmp_path / "image.dcm", marks(), tmp_path / "out", made=MADE)
    assert len(paths) == 4


@pytest.mark.parametrize(
    "mark",
    [
        ReaderMark(Box((2, 3), (10, 49), Tag("finding"))),
        ReaderMark(Mask(np.ones((4, 4), bool), Tag("finding"))),
        ReaderMark(Box((2, 3), (10, 20), Tag("finding")), 1.5),
    ],
)
def test_marks_of_another_image_are_refused(mark, tmp_path):
    with pytest.raises(GeometryError):
        write_marks_as_dicom(radiograph(), [mark], tmp_path / "out", made=MADE)
    assert not (tmp_path / "out").exists()
