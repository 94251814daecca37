"""Bombs: refused in little time and memory; real files pass."""

import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from support.paths import DATA

from sightline.errors import UnreadableFile
from sightline.io.dicom.limits import Bounds, require_bounds

CR = "1.2.840.10008.5.1.4.1.1.1"


def head(syntax):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = CR, "1.2.3", syntax
    stream = io.BytesIO()
    stream.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(stream, meta)
    return stream.getvalue()


def element(tag, vr, value):
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"UN", b"SQ"):
        return start + b"\0\0" + struct.pack("<L", len(value)) + value
    return start + struct.pack("<H", len(value)) + value


def deflated(rows, columns, stated, real):
    """A deflated file that states rows x columns and holds `real` zeros of `stated` bytes of pixels."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = [element(0x00280010 + i, b"US", struct.pack("<H", x)) for i, x in enumerate((rows, columns))]
    pixels = struct.pack("<HH", 0x7FE0, 0x0010) + b"OW\0\0" + struct.pack("<L", stated)
    out = packer.compress(b"".join(size) + pixels) + packer.flush(zlib.Z_FULL_FLUSH)
    # zeros behind a full flush are the same bytes each time: packed once
    whole, rest = divmod(real, 10_000_000)
    out += (packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)) * whole if whole else b""
    return head(DeflatedExplicitVRLittleEndian) + out + packer.compress(bytes(rest)) + packer.flush()


def many(count):
    one = b"".join(element(0x00110000 + i, b"LO", b"ab") for i in range(0x1000, 0x1000 + 50_000))
    return head(ExplicitVRLittleEndian) + one * (count // 50_000)


def test_a_deflate_bomb_costs_neither_time_nor_memory(tmp_path):
    """2 GB of zeros in 2 MB, through the general reader, in a process of its own whose memory is measured."""
    path = tmp_path / "bomb.dcm"
    path.write_bytes(deflated(100, 100, 2_000_000_000, 2_000_000_000))
    assert path.stat().st_size < 2_100_000
    code = (
        "import re, sys, time\n"
        "from pathlib import Path\n"
        "from sightline.errors import UnreadableFile\n"
        "from sightline.io.image import read_image\n"
        "start = time.process_time()\n"
        "try:\n    read_image(Path(sys.argv[1]))\n"
        "except UnreadableFile as error:\n    print('refused' if 'deflated' in str(error) else error)\n"
        "held = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        "print(time.process_time() - start, int(held[1]) / 1e3)\n"
    )
    said = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "refused"
    assert float(said[1]) <= 2.0
    assert float(said[2]) <= 600.0


def test_400_000_elements_are_refused_at_once(tmp_path):
    path = tmp_path / "many.dcm"
    path.write_bytes(many(400_000))
    start = time.process_time()
    with pytest.raises(UnreadableFile, match="20,000 elements"):
        require_bounds(path)
    assert time.process_time() - start <= 0.5


ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
SEQUENCE = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0" + b"\xff" * 4 + ITEM
PRIVATE = struct.pack("<HH", 0x0011, 0x1010)


@pytest.mark.parametrize(
    ("syntax", "first", "level"),
    [
        (ExplicitVRLittleEndian, b"", SEQUENCE),
        # unknown and private, of elements that say their kind, and of elements that do not
        (ExplicitVRLittleEndian, b"", PRIVATE + b"UN\0\0" + b"\xff" * 4 + ITEM),
        (ExplicitVRLittleEndian, PRIVATE + b"UN\0\0" + b"\xff" * 4 + ITEM, PRIVATE + b"\xff" * 4 + ITEM),
        # encoded otherwise than the syntax says: the parser goes by the looks
        (ImplicitVRLittleEndian, b"", SEQUENCE),
        (ExplicitVRLittleEndian, b"", PRIVATE + b"\xff" * 4 + ITEM),
    ],
)
def test_deep_sequences_are_refused(tmp_path, syntax, first, level):
    path = tmp_path / "deep.dcm"
    path.write_bytes(head(syntax) + first + level * 20_000)
    with pytest.raises(UnreadableFile, match="32 deep"):
        require_bounds(path)
    path.write_bytes(head(syntax) + first + level * (31 if first else 32))
    require_bounds(path)


@pytest.mark.parametrize("behind", [False, True])
def test_a_second_study_uid_is_refused_wherever_it_stands(tmp_path, behind):
    uid, other = (element(0x0020000D, b"UI", text) for text in (b"1.2.3.45", b"1.2.3.46"))
    pixels = element(0x7FE00010, b"OW", bytes(64))
    path = tmp_path / "twice.dcm"
    # padding is no element, and a sequence may name other studies
    named = element(0x00081110, b"SQ", element(0xFFFEE000, b"", b"")[:4] + struct.pack("<L", len(other)) + other)
    path.write_bytes(head(ExplicitVRLittleEndian) + named + uid + pixels + bytes(400_000))
    require_bounds(path)
    path.write_bytes(head(ExplicitVRLittleEndian) + uid + (pixels + other if behind else other + pixels))
    with pytest.raises(UnreadableFile, match=r"Study Instance UID \(0020,000D\) stands twice"):
        require_bounds(path)


def test_uncompressed_pixels_of_no_length_are_refused_as_such(tmp_path):
    path = tmp_path / "endless.dcm"
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"abcd" + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    uid, pixels = element(0x0020000D, b"UI", b"1.2.3.45"), struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0" + b"\xff" * 4
    path.write_bytes(head(ExplicitVRLittleEndian) + uid + pixels + item)
    with pytest.raises(UnreadableFile, match="uncompressed pixel data of undefined length"):
        require_bounds(path)
    path.write_bytes(head(JPEG2000Lossless) + uid + pixels + item)
    require_bounds(path)
    path.write_bytes(head(JPEG2000Lossless) + uid + pixels + item + uid)
    with pytest.raises(UnreadableFile, match="stands twice"):
        require_bounds(path)


def test_too_much_before_the_pixels_is_refused(tmp_path):
    path = tmp_path / "long.dcm"
    path.write_bytes(
        head(ExplicitVRLittleEndian) + element(0x00111001, b"UN", bytes(2000)) + element(0x00280010, b"US", b"ab")
    )
    require_bounds(path)
    with pytest.raises(UnreadableFile, match="before the pixels"):
        require_bounds(path, Bounds(before_pixels=1000))


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("undefined", [False, True])
def test_elements_are_counted_as_pydicom_counts_them(tmp_path, syntax, undefined):
    """Nested sequences in each encoding: the bound at the true number passes, one below is refused."""

    def nest(depth):
        item = pydicom.Dataset()
        item.CodeValue, item.CodeMeaning = "A", "word"
        if depth:
            item.ConceptCodeSequence = Sequence([nest(depth - 1), nest(depth - 1)])
            item["ConceptCodeSequence"].is_undefined_length = undefined
            for one in item.ConceptCodeSequence:
                one.is_undefined_length_sequence_item = undefined
        return item

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = CR, "1.2.3", syntax
    encoding = {"is_implicit_VR": syntax.is_implicit_VR, "is_little_endian": syntax.is_little_endian}
    data = FileDataset("", nest(3), file_meta=meta, preamble=b"\0" * 128, **encoding)
    data.Rows = data.Columns = 4
    data.BitsAllocated = 16
    data.PixelData = np.zeros((4, 4), np.uint16).tobytes()
    data["PixelData"].VR = "OW"
    path = tmp_path / "nested.dcm"
    data.save_as(path, enforce_file_format=True)

    def count(dataset):
        """Elements, and items, which the scan counts too, as it counts their delimiters."""
        total = 0
        for one in dataset:
            if one.tag == 0x7FE00010:
                continue
            total += 1
            if one.VR == "SQ":
                total += sum(1 + undefined + count(item) for item in one.value) + undefined
        return total

    true = count(data)
    # an odd number of deflated bytes is padded with a zero, and the pixel data themselves are one
    require_bounds(path, Bounds(elements=true + 1))
    with pytest.raises(UnreadableFile, match="elements"):
        require_bounds(path, Bounds(elements=true - 1))


def test_an_enhanced_ct_may_have_more_elements_a_frame(tmp_path):
    path = tmp_path / "frames.dcm"
    frames = element(0x00280008, b"IS", b"400 ")
    path.write_bytes(head(ExplicitVRLittleEndian) + frames + many(50_000)[len(head(ExplicitVRLittleEndian)) :])
    require_bounds(path)
    with pytest.raises(UnreadableFile, match="elements"):
        require_bounds(path, Bounds(elements_a_frame=0))


def test_a_whole_deflated_image_passes(tmp_path):
    path = tmp_path / "whole.dcm"
    path.write_bytes(deflated(4000, 4000, 32_000_000, 32_000_000))
    require_bounds(path)
    path.write_bytes(deflated(100, 100, 32_000_000, 32_000_000))
    with pytest.raises(UnreadableFile, match="deflated"):
        require_bounds(path)


def test_files_of_others_pass(tmp_path):
    for content in (b"", b"text", bytes(200), head(ExplicitVRLittleEndian), head(ExplicitVRLittleEndian)[:150]):
        path = tmp_path / "file"
        path.write_bytes(content)
        require_bounds(path)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not here")
def test_real_files_pass():
    files = sorted((DATA / "dicom").rglob("*.dcm")) + sorted((DATA / "spine_ct").rglob("*.dcm"))
    assert files
    for file in files:
        require_bounds(file)
