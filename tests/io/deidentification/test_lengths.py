"""Bytes behind the last value of pixels, tables and waveforms are cut; more than padding is held back."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian
from support.dicom_sources import radiograph

from sightline.errors import UnreadableFile
from sightline.io.deidentification.folder import Wishes, deidentify_folder
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.lengths import cut_surplus

NAME = b"Mustermann^Erika"


def item(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def test_bytes_after_the_last_pixel_are_cut_and_are_no_overlay(tmp_path):
    data = radiograph()
    before = data.PixelData
    data.PixelData = before + NAME
    data.ExtendedOffsetTable = NAME
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    outcome = deidentify_folder(
        tmp_path / "a.dcm", tmp_path / "out", tmp_path / "home", SiteKey(bytes(32)), Wishes(search=False)
    )
    assert outcome.written == 1
    (path,) = (tmp_path / "out").rglob("*.dcm")
    assert NAME not in path.read_bytes() and before in path.read_bytes()
    assert "16 bytes after the last value of PixelData cut" in (tmp_path / "out" / "report.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"BitsAllocated": 8}, 15),
        ({"BitsAllocated": 1, "NumberOfFrames": 3}, 6),
        ({"BitsAllocated": 16, "NumberOfFrames": 2}, 60),
        ({"BitsAllocated": 8, "SamplesPerPixel": 3}, 45),
        ({"BitsAllocated": 8, "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"}, 30),
    ],
)
def test_the_length_of_pixels_is_that_of_rows_columns_samples_frames_and_bits(changes, size):
    left = b"\x01" * size + b"\0" * (size % 2)
    data = radiograph(Rows=3, Columns=5, **changes, PixelData=left)
    assert cut_surplus(data) == [] and data.PixelData == left
    for surplus in (b"\x01" * (size % 2), NAME):
        data.PixelData = b"\x01" * size + surplus
        assert bool(cut_surplus(data)) == bool(surplus) and data.PixelData == left


def test_the_last_pixel_of_odd_words_of_big_endian_stays():
    data = radiograph(Rows=1, Columns=3, BitsAllocated=8, PixelData=b"\x02\x01M\x03" + NAME)
    data.file_meta.TransferSyntaxUID, data["PixelData"].VR = ExplicitVRBigEndian, "OW"
    cut_surplus(data)
    assert data.PixelData == b"\x02\x01\0\x03"


def test_more_than_padding_is_a_wrong_header():
    data = radiograph(PixelData=bytes(2 * 40 * 48 * 2))
    with pytest.raises(UnreadableFile, match="explains 3840 bytes of PixelData, and 3840 more"):
        cut_surplus(data)
    data = radiograph(PixelData=None)
    data.FloatPixelData = bytes(40 * 48 * 4) + NAME
    assert cut_surplus(data) and len(data.FloatPixelData) == 40 * 48 * 4


@pytest.mark.parametrize(("bits", "size"), [(8, 4), (8, 8), (16, 8)])
def test_tables_and_waveforms_end_where_they_say(bits, size):
    data = radiograph()
    data.RedPaletteColorLookupTableDescriptor = [4, 0, bits]
    data.RedPaletteColorLookupTableData = bytes(size) + (NAME if size == 8 else b"Jo")
    table = item(LUTDescriptor=[4, 0, bits])
    table.add_new("LUTData", "US", [1, 2, 3, 4, 77, 78])
    data.ModalityLUTSequence = [table]
    wave = item(NumberOfWaveformChannels=2, NumberOfWaveformSamples=3, WaveformBitsAllocated=16)
    wave.add_new("WaveformData", "OW", bytes(12) + NAME)
    data.WaveformSequence = [wave]
    inside = item(PixelData=NAME)
    data.RequestAttributesSequence = [inside]
    notes = cut_surplus(data)
    if size == 4:
        assert data.RedPaletteColorLookupTableData == bytes(4)
    assert len(data.RedPaletteColorLookupTableData) == size
    assert list(table.LUTData) == [1, 2, 3, 4] and wave.WaveformData == bytes(12) and "PixelData" not in inside
    assert len(notes) == 4 and cut_surplus(data) == []
    assert np.array_equal(data.pixel_array, radiograph().pixel_array)
