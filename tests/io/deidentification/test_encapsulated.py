"""Compressed pixels in files: frames, fragments and offset tables are right without comments; films are held back."""

import struct
from io import BytesIO

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended, generate_fragments, parse_basic_offsets
from pydicom.uid import (
    MPEG4HP41,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.dicom_sources import radiograph

from sightline.errors import UnreadableFile
from sightline.io.deidentification.encapsulated import clean_compressed, clean_rle
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.table import Rules
from sightline.io.deidentification.walk import deidentify

KEY = SiteKey(bytes(range(32)))
NAME = b"Mustermann^Erika"
FRAMES = [np.random.default_rng(n).integers(0, 255, (40, 48), np.uint8) // 9 for n in range(3)]
ENCODERS = {
    JPEGBaseline8Bit: imagecodecs.jpeg8_encode,
    JPEGLosslessSV1: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="J2K", reversible=True),
}


def comment(stream):
    """A comment of odd length after the head of a stream."""
    start = 4 + int.from_bytes(stream[4:6], "big") if stream[:2] == b"\xff\x4f" else 2
    code = b"\xff\x64" if stream[:2] == b"\xff\x4f" else b"\xff\xfe"
    content = b"\0\1" + NAME + b"."
    return stream[:start] + code + (len(content) + 2).to_bytes(2, "big") + content + stream[start:]


def compressed(syntax, frames, **changes):
    data = radiograph(BitsAllocated=8, BitsStored=8, HighBit=7, NumberOfFrames=len(frames), **changes)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    return data


def cleaned(data):
    """Notes, and the copy as another program reads it."""
    done = deidentify(data, Rules(), KEY)
    stream = BytesIO()
    done.dataset.save_as(stream, enforce_file_format=True)
    assert NAME not in stream.getvalue()
    return done.notes, pydicom.dcmread(BytesIO(stream.getvalue()))


def decode(data):
    if data.file_meta.TransferSyntaxUID == JPEGLosslessSV1:
        return np.stack([imagecodecs.jpeg8_decode(one) for one in pydicom.encaps.generate_frames(data.PixelData)])
    return data.pixel_array


@pytest.mark.parametrize("syntax", ENCODERS)
def test_comments_go_and_every_frame_decodes_to_the_same(syntax):
    frames = [comment(ENCODERS[syntax](pixels)) + b"\0" * n + NAME * (n == 1) for n, pixels in enumerate(FRAMES)]
    before = decode(compressed(syntax, [ENCODERS[syntax](pixels) for pixels in FRAMES]))
    notes, made = cleaned(compressed(syntax, frames))
    assert np.array_equal(decode(made), before)
    if syntax != JPEGBaseline8Bit:
        assert np.array_equal(before, FRAMES)
    assert any("parts of compressed pixels that are no picture" in note for note in notes)
    assert any(note.startswith(f"{len(NAME) + 1} bytes after the end") for note in notes)
    value = made.PixelData
    offsets, position = [], 0
    for number, fragment in enumerate(generate_fragments(value)):
        if number:
            assert len(fragment) % 2 == 0
            offsets.append(position)
            position += 8 + len(fragment)
    assert parse_basic_offsets(value) == offsets and len(offsets) == 3


@pytest.mark.parametrize("has_table", [True, False])
def test_several_fragments_a_frame(has_table):
    frames = [comment(ENCODERS[JPEG2000Lossless](pixels)) for pixels in FRAMES]
    data = compressed(JPEG2000Lossless, frames)
    data.PixelData = encapsulate(frames, fragments_per_frame=9, has_bot=has_table)
    _, made = cleaned(data)
    assert np.array_equal(made.pixel_array, FRAMES)
    assert bool(parse_basic_offsets(made.PixelData)) == has_table


def test_an_extended_offset_table_is_made_anew():
    data = compressed(JPEGLSLossless, [])
    data.NumberOfFrames = 3
    frames = [comment(imagecodecs.jpegls_encode(pixels)) for pixels in FRAMES]
    data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    _, made = cleaned(data)
    assert np.array_equal(made.pixel_array, FRAMES)
    lengths = [len(fragment) for fragment in generate_fragments(made.PixelData)][1:]
    assert struct.unpack("<3Q", made.ExtendedOffsetTableLengths) == tuple(lengths)
    starts = tuple(sum(lengths[:n]) + 8 * n for n in range(3))
    assert struct.unpack("<3Q", made.ExtendedOffsetTable) == starts


def rle(**changes):
    data = radiograph(**changes)
    before = data.pixel_array.copy()
    data.compress(RLELossless)
    return data, before


def test_bytes_after_and_between_segments_of_rle_go():
    data, before = rle()
    frame = next(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1))
    head = list(struct.unpack("<16L", frame[:64]))
    first, second = frame[head[1] : head[2]], frame[head[2] :]
    planted = struct.pack("<16L", 2, 80, 80 + len(first) + 16, *[0x4D4D4D4D] * 13)
    planted += NAME + first + NAME + second + NAME
    data.PixelData = encapsulate([planted])
    notes, made = cleaned(data)
    assert np.array_equal(made.pixel_array, before) and notes == ["48 bytes after the end of compressed pixels cut"]
    assert b"MMMM" not in made.PixelData[:80]
    (again,) = pydicom.encaps.generate_frames(made.PixelData, number_of_frames=1)
    assert again == frame


@pytest.mark.parametrize(
    ("runs", "left"),
    [
        (b"\x03abcd", b"\x03abcd\0"),
        (b"\x80\x80\x03abcdNAME", b"\x80\x80\x03abcd\0"),
        (b"\xfea\x02bcd", b"\xfea\x00b"),
        (b"\x02abc\xf0d", b"\x02abc\x00d"),
        (b"\xf0d", b"\xfdd"),
    ],
)
def test_runs_of_rle_end_with_the_last_pixel(runs, left):
    head = struct.pack("<16L", 1, 64, *[0] * 14)
    assert clean_rle(head + runs, 4, 1).data == head + left


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"\0" * 63, "a head of 64 bytes"),
        (struct.pack("<16L", 2, 64, 66, *[0] * 13) + bytes(4), "a frame has 2 segments, the header explains 1"),
        (struct.pack("<16L", 1, 60, *[0] * 14) + bytes(4), "follow each other"),
        (struct.pack("<16L", 1, 64, *[0] * 14) + b"\x01ab", "2 pixels early"),
        (struct.pack("<16L", 1, 64, *[0] * 14) + b"\x03ab", "does not end"),
    ],
)
def test_rle_that_cannot_be_parsed_is_refused(frame, why):
    with pytest.raises(UnreadableFile, match=why):
        clean_rle(frame, 4, 1)


def test_what_cannot_be_parsed_is_held_back():
    film = compressed(MPEG4HP41, [b"\0\0\1\xb3" + NAME])
    with pytest.raises(UnreadableFile, match=r"MPEG-4 .* is not known"):
        clean_compressed(film)
    one = imagecodecs.jpegls_encode(FRAMES[0])
    with pytest.raises(UnreadableFile, match="states 2 frames, the compressed pixels hold 3"):
        more = compressed(JPEGLSLossless, [one] * 3)
        more.NumberOfFrames = 2
        clean_compressed(more)
    with pytest.raises(UnreadableFile, match="cannot be told apart"):
        broken = compressed(JPEGLSLossless, [one])
        broken.PixelData = NAME + broken.PixelData
        clean_compressed(broken)
    with pytest.raises(UnreadableFile, match="no end mark"):
        clean_compressed(compressed(JPEGLSLossless, [one[:-2]]))
