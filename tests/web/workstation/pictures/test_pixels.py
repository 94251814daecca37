"""Stored numbers of a DICOM file and what the page must know to show them."""

import numpy as np
from PIL import Image
from support.dicom_sources import radiograph

from sightline.io.image import read_image
from sightline.web.workstation.pictures.pixels import read_display_pixels, read_stored_pixels


def test_padding_is_told_as_the_range_that_is_shown_black(tmp_path):
    values = np.array([[5, 6, 7, 8], [100, 2000, 3000, 4000]], dtype=np.uint16)
    source = radiograph(2, 4, PixelData=values.tobytes())
    source.save_as(tmp_path / "none.dcm", enforce_file_format=True)
    source.PixelPaddingValue, source.PixelPaddingRangeLimit = 7, 6
    source.PhotometricInterpretation = "MONOCHROME1"
    source.save_as(tmp_path / "range.dcm", enforce_file_format=True)
    assert read_stored_pixels(tmp_path / "none.dcm")[1]["greyscale"]["padding"] is None
    stored, facts = read_stored_pixels(tmp_path / "range.dcm")
    block = facts["greyscale"]
    assert np.array_equal(stored, values)
    assert tuple(block["padding"]) == (6, 7)
    # black although the picture is inverted, as `read_image` shows them; their neighbours are white
    shown = dict(zip(sorted({int(v) for v in values.ravel()}), block["table"], strict=False))
    assert (shown[6], shown[7]) == (0, 0)
    assert shown[5] > 60_000 and shown[8] > 60_000


def test_the_shape_of_a_pixel_is_told(tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "tall.png", dpi=(200, 100))
    assert read_display_pixels(tmp_path / "tall.png")[1]["aspect"] == 2.0


def test_what_a_shutter_hides_is_dark_here_as_well(tmp_path):
    values = np.arange(200, 296, dtype=np.uint16).reshape(8, 12)
    source = radiograph(8, 12, PixelData=values.tobytes())
    for keyword in ("WindowCenter", "WindowWidth"):
        if keyword in source:
            delattr(source, keyword)
    source.save_as(tmp_path / "open.dcm", enforce_file_format=True)
    source.ShutterShape = "RECTANGULAR"
    source.ShutterLeftVerticalEdge, source.ShutterRightVerticalEdge = 3, 12
    source.ShutterUpperHorizontalEdge, source.ShutterLowerHorizontalEdge = 2, 8
    source.save_as(tmp_path / "shut.dcm", enforce_file_format=True)
    stored, facts = read_stored_pixels(tmp_path / "shut.dcm")
    assert np.array_equal(stored[1:, 2:], values[1:, 2:])
    assert set(stored[0]) == set(stored[:, 0]) == {values[1, 2]}
    table, low = facts["greyscale"]["table"], facts["greyscale"]["low"]
    assert np.array_equal(np.take(table, stored.astype(int) - low), read_image(tmp_path / "shut.dcm").pixels)
    assert np.array_equal(read_stored_pixels(tmp_path / "open.dcm")[0], values)
