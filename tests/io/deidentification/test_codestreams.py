"""Comments, camera data and thumbnails leave JPEG and JPEG 2000 streams, and the picture stays as it was."""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from sightline.errors import UnreadableFile
from sightline.io.deidentification.codestreams import clean_jpeg, clean_jpeg_2000

NAME = b"Mustermann^Erika"
GREY = (np.add.outer(np.arange(40), np.arange(56)) * 2).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


def segment(code, content):
    return bytes((0xFF, code)) + (len(content) + 2).to_bytes(2, "big") + content


def insert(stream, place, *parts):
    return stream[:place] + b"".join(parts) + stream[place:]


def box(kind, content):
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def encode_by_pillow(pixels, **options):
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


STREAMS = {
    "baseline": encode_by_pillow(GREY),
    "progressive colour": encode_by_pillow(COLOUR, progressive=True),
    "restarts": encode_by_pillow(COLOUR, restart_marker_blocks=2),
    "colour of Adobe": imagecodecs.jpeg8_encode(COLOUR, outcolorspace="RGB"),
    "lossless": imagecodecs.jpeg8_encode(GREY, lossless=True),
    "JPEG-LS": imagecodecs.jpegls_encode(GREY.astype(np.uint16) * 13),
}
DECODERS = {"JPEG-LS": imagecodecs.jpegls_decode}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_jpeg_loses_what_is_no_picture_and_decodes_to_the_same(kind):
    stream, decode = STREAMS[kind], DECODERS.get(kind, imagecodecs.jpeg8_decode)
    exif, comment = segment(0xE1, b"Exif\0\0" + NAME), segment(0xFE, NAME)
    planted = insert(stream, 2, exif, comment, segment(0xE2, NAME), b"\xff\xff" + comment)
    scan = planted.rindex(b"\xff\xda")
    planted = insert(planted, scan, comment) + NAME
    cleaned = clean_jpeg(planted)
    own = clean_jpeg(stream)
    assert NAME not in cleaned.data and cleaned.segments == 5 + own.segments and cleaned.surplus == len(NAME)
    assert cleaned.data == own.data and (own.data == stream or own.segments)
    assert np.array_equal(decode(cleaned.data), decode(planted))


def test_segments_that_decide_colours_keep_what_is_known_of_them():
    thumbnail = segment(0xE0, b"JFIF\0\x01\x02\0\0\1\0\1\2\2" + NAME)
    stream = clean_jpeg(insert(STREAMS["colour of Adobe"], 2, thumbnail)).data
    assert stream[2:20] == segment(0xE0, b"JFIF\0\x01\x02\0\0\1\0\1\0\0")
    assert b"Adobe" in stream and NAME not in stream
    longer = STREAMS["colour of Adobe"].replace(b"\xff\xee\x00\x0eAdobe", b"\xff\xee\x00\x1eAdobe")
    longer = insert(longer, longer.index(b"Adobe") + 12, NAME)
    assert clean_jpeg(longer).data == STREAMS["colour of Adobe"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda s: NAME + s,
        lambda s: s[:-2],
        lambda s: s[:30],
        lambda s: insert(s, 2, NAME),
        lambda s: insert(s, 2, segment(0xC8, NAME)),
        lambda s: insert(s, 2, b"\xff\xfe\xff\xff"),
        lambda s: insert(s, 2, b"\xff\xfe\0\1"),
    ],
)
def test_a_jpeg_that_cannot_be_parsed_is_refused(break_it):
    with pytest.raises(UnreadableFile, match="cannot be taken out"):
        clean_jpeg(break_it(STREAMS["baseline"]))


def encode_2000(**options):
    return imagecodecs.jpeg2k_encode(GREY, codecformat="J2K", reversible=True, **options)


def test_a_codestream_loses_its_comments_and_those_of_tiles_are_overwritten():
    stream = encode_2000()
    size = 4 + int.from_bytes(stream[4:6], "big")
    comment = segment(0x64, b"\0\1" + NAME)
    planted = insert(stream, size, comment)
    tile = planted.index(b"\xff\x90")
    length = int.from_bytes(planted[tile + 6 : tile + 10], "big") + len(comment)
    planted = planted[: tile + 6] + length.to_bytes(4, "big") + insert(planted[tile + 10 :], 2, comment) + NAME
    cleaned = clean_jpeg_2000(planted)
    assert NAME not in cleaned.data and cleaned.surplus == len(NAME)
    assert cleaned.segments == 2 + (b"OpenJPEG" in stream) and b"OpenJPEG" not in cleaned.data
    assert np.array_equal(imagecodecs.jpeg2k_decode(cleaned.data), GREY)
    # the last tile may leave its length open
    tile = planted.index(b"\xff\x90")
    opened = planted[: tile + 6] + b"\0\0\0\0" + planted[tile + 10 :]
    made = clean_jpeg_2000(opened)
    assert NAME not in made.data and np.array_equal(imagecodecs.jpeg2k_decode(made.data), GREY)


def test_boxes_around_a_codestream_that_are_no_picture_go():
    stream = imagecodecs.jpeg2k_encode(COLOUR, codecformat="JP2", reversible=True)
    header, picture = stream.index(b"jp2h") - 4, stream.index(b"jp2c") - 4
    inner = int.from_bytes(stream[header : header + 4], "big")
    xml, uuid = box(b"xml ", NAME), box(b"uuid", bytes(16) + NAME)
    grown = box(b"jp2h", stream[header + 8 : header + inner] + uuid)
    planted = stream[:header] + grown + xml + stream[header + inner : picture]
    planted += box(b"jp2c", stream[picture + 8 :]) + uuid
    cleaned = clean_jpeg_2000(planted)
    assert NAME not in cleaned.data and cleaned.segments >= 3
    assert np.array_equal(imagecodecs.jpeg2k_decode(cleaned.data), imagecodecs.jpeg2k_decode(stream))
    with pytest.raises(UnreadableFile, match="without a picture"):
        clean_jpeg_2000(stream[:picture])


@pytest.mark.parametrize(
    "break_it",
    [
        lambda s: s[:-2],
        lambda s: s[:-40],
        lambda s: NAME + s,
        lambda s: insert(s, 2, NAME),
        lambda s: insert(s, 2, segment(0x68, NAME)),
    ],
)
def test_a_codestream_that_cannot_be_parsed_is_refused(break_it):
    with pytest.raises(UnreadableFile, match="cannot be taken out"):
        clean_jpeg_2000(break_it(encode_2000()))
