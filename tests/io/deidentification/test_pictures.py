"""Pixels that leave: overlays in unused bits, boxes that are filled, and which pictures are searched for words."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless
from support.dicom_sources import radiograph

from sightline.errors import LayoutError, UnreadableFile
from sightline.io.deidentification.folder import Wishes, deidentify_folder
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.overlays import erase_overlay_bits, has_strange_bits
from sightline.io.deidentification.pictures import blank_boxes, list_pictures
from sightline.io.deidentification.text import search_pictures
from sightline.io.image import read_image

KEY = SiteKey(bytes(range(32)))
SEEN = Wishes(search=False, pixels_seen=True)


def with_overlay(bit, **changes):
    data = radiograph(**changes)
    data.add_new(0x60000010, "US", data.Rows)
    data.add_new(0x60000102, "US", bit)
    return data


def clean(data, folder, wishes=SEEN):
    data.save_as(folder / "a.dcm", enforce_file_format=True)
    outcome = deidentify_folder(folder / "a.dcm", folder / "out", folder / "home", KEY, wishes)
    return outcome, sorted((folder / "out").rglob("*.dcm")), (folder / "out" / "report.csv").read_text()


def test_an_overlay_in_unused_bits_goes_and_the_copy_is_read(tmp_path):
    data = with_overlay(12)
    before = data.pixel_array.copy()
    words = before.copy()
    words[5:9, 5:30] |= 1 << 12
    data.PixelData = words.tobytes()
    _, (path,), report = clean(data, tmp_path)
    assert np.array_equal(np.frombuffer(pydicom.dcmread(path).PixelData, "<u2").reshape(40, 48), before)
    assert "1 overlay in unused bits of the pixels cleared" in report
    read_image(path)


@pytest.mark.parametrize(
    ("high", "signed", "syntax", "raw", "left"),
    [
        (11, 0, ExplicitVRLittleEndian, [0x1FFF, 0x0001], [0x0FFF, 0x0001]),
        (15, 0, ExplicitVRLittleEndian, [0xFFF3, 0x0011], [0xFFF0, 0x0010]),
        (11, 1, ExplicitVRLittleEndian, [0x1FFF, 0x1001], [0xFFFF, 0x0001]),
        (13, 1, ExplicitVRLittleEndian, [0x2005, 0x4004], [0xE004, 0x0004]),
        (11, 0, ExplicitVRBigEndian, [0x1FFF, 0x0001], [0x0FFF, 0x0001]),
    ],
)
def test_stored_bits_stay_in_every_frame(high, signed, syntax, raw, left):
    bit = 0 if high == 15 else 12 if high == 11 else 14
    data = with_overlay(bit, HighBit=high, PixelRepresentation=signed, NumberOfFrames=2)
    data.file_meta.TransferSyntaxUID = syntax
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    data.PixelData = np.array(raw * 40 * 48, order).tobytes()
    assert erase_overlay_bits(data)
    assert np.array_equal(np.frombuffer(data.PixelData, order), left * 40 * 48)


def test_compressed_overlays_are_held_back_and_others_are_left_alone():
    data = with_overlay(12)
    data.file_meta.TransferSyntaxUID = RLELossless
    with pytest.raises(UnreadableFile, match="cannot be cleared"):
        erase_overlay_bits(data)
    data.add_new(0x60003000, "OW", b"\0\0")  # data of its own: it goes with its group
    assert erase_overlay_bits(data) == []
    assert erase_overlay_bits(with_overlay(0)) == []


def test_bits_that_no_group_explains_are_for_a_person_to_judge(tmp_path):
    data = radiograph()
    assert not has_strange_bits(data)
    values = data.pixel_array.copy()
    data.PixelData = (values | 1 << 14).tobytes()
    assert not has_strange_bits(data)  # alike in all pixels: no drawing
    values[3, 3] |= 1 << 14
    data.PixelData = values.tobytes()
    outcome, paths, _ = clean(data, tmp_path, Wishes(search=False))
    assert paths == [] and "bits beside the stored ones" in outcome.refused[0][1]


def test_what_a_shutter_a_window_and_padding_hide_is_searched(tmp_path):
    stored = np.full((40, 48), 900, np.uint16)
    stored[2:6, 2:30] = 4000
    data = radiograph(PixelData=stored.tobytes(), WindowCenter="400", WindowWidth="300", PixelPaddingValue=4000)
    data.ShutterShape, data.ShutterLeftVerticalEdge, data.ShutterRightVerticalEdge = "RECTANGULAR", 1, 48
    data.ShutterUpperHorizontalEdge, data.ShutterLowerHorizontalEdge = 10, 40
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    shown, whole = list_pictures(pydicom.dcmread(tmp_path / "a.dcm"), tmp_path / "a.dcm", (), [])
    assert (shown[2:6, 2:30] == 0).all() and np.array_equal(whole, stored)


def test_of_several_frames_first_middle_last_and_extremes_are_searched(tmp_path):
    frames = np.stack([np.full((40, 48), 1000 + n, np.uint16) for n in range(7)])
    frames[1, 5, 5], frames[4, 6, 6] = 4000, 2
    data = radiograph(PixelData=frames.tobytes(), NumberOfFrames=7)
    pictures = list_pictures(data, tmp_path / "none.dcm", (), notes := [])
    assert notes == [] and [int(p[0, 0]) for p in pictures] == [1000, 1003, 1006, 1006, 1000]
    assert pictures[3][5, 5] == 4000 and pictures[4][6, 6] == 2


def test_like_pictures_are_searched_once_and_a_place_is_listed_once(monkeypatch):
    from sightline.io.deidentification import text

    searched = []
    monkeypatch.setattr(text, "find_text", lambda p: searched.append(p) or [text.FoundText("JANE", (2, 2, 8, 30))])
    picture = np.random.default_rng(0).integers(0, 4096, (40, 48))
    found = search_pictures([picture, 3 * picture + 7, 4095 - picture, picture**2])
    assert len(searched) == 2 and len(found) == 1 and found[0][1] is picture


def test_only_boxes_that_meet_the_picture_count(tmp_path):
    notes = []
    data = radiograph()
    blank_boxes(data, tmp_path, [(30, 0, 99, 99), (2000, 0, 2100, 400), (0, 0, 4, 4)], notes)
    assert (data.pixel_array[30:] == data.pixel_array.min()).all()
    assert notes[0].startswith("2 boxes") and "1 of them cut at the edge" in notes[1] and "1 box does not" in notes[2]
    with pytest.raises(LayoutError, match="40 x 48"):
        blank_boxes(radiograph(), tmp_path, [(0, 48, 9, 60)], notes)
    outcome, paths, _ = clean(radiograph(), tmp_path, Wishes(blanks=((40, 0, 50, 9),), pixels_seen=True, search=False))
    assert paths == [] and "no box to fill meets" in outcome.refused[0][1]
