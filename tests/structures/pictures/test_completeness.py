"""PNGs of which a part is missing or changed inside sound chunks, plain and interlaced."""

import struct
import zlib
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from sightline.errors import UnreadableFile
from sightline.io.image import measure_whole_picture, read_image
from sightline.structures.pictures.completeness import require_intact_png

GREY = np.random.default_rng(3).integers(1, 255, (40, 30)).astype(np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in GREY)
# first row and column, and steps of both, of the seven passes: table 8.2 of the PNG specification
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind, body):
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def write_png(path, stream, shape=GREY.shape, *, depth=8, interlaced=0, pieces=1):
    head = struct.pack(">LLBBBBB", shape[1], shape[0], depth, 0, 0, 0, interlaced)
    cuts = np.linspace(0, len(stream), pieces + 1).astype(int)
    pixels = b"".join(chunk(b"IDAT", stream[a:b]) for a, b in pairwise(cuts))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b""))
    return path


WHOLE = zlib.compress(ROWS)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (zlib.compress(ROWS[: 31 * 20]), "after 620 of the 1240 bytes"),
        (zlib.compress(ROWS[: 31 * 20] + b"\x05" + ROWS[31 * 20 + 1 :]), "a filter that does not exist"),
        (WHOLE[:-4], "checksum is missing"),
        (WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]), "incorrect data check"),
        (WHOLE[:600], "after .* of the 1240 bytes"),
        (b"", "after 0 of the 1240 bytes"),
    ],
)
def test_pixels_that_are_short_or_changed_inside_sound_chunks_are_refused(tmp_path, stream, words):
    path = write_png(tmp_path / "a.png", stream)
    for read in (read_image, measure_whole_picture):
        with pytest.raises(UnreadableFile, match=words):
            read(path)


def test_pixels_in_many_chunks_or_with_more_behind_them_are_whole(tmp_path):
    for name, stream, pieces in (("a", WHOLE, 40), ("b", zlib.compress(ROWS * 3), 1), ("c", WHOLE + b"more", 3)):
        path = write_png(tmp_path / f"{name}.png", stream, pieces=pieces)
        assert np.array_equal(read_image(path).pixels, GREY)
        assert measure_whole_picture(path) == GREY.shape


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 1), (8, 8), (21, 30)])
def test_an_interlaced_png_is_whole_with_all_its_passes(tmp_path, shape, depth):
    picture = GREY[: shape[0], : shape[1]] >> (8 - depth)
    passes = [picture[row::down, column::across] for row, column, down, across in ADAM7]
    lines = [line for part in passes if part.size for line in part]
    raw = b"".join(b"\0" + (np.packbits(line) if depth == 1 else line).tobytes() for line in lines)
    path = write_png(tmp_path / "a.png", zlib.compress(raw), shape, depth=depth, interlaced=1)
    assert np.array_equal(read_image(path).pixels, picture * (255 if depth == 1 else 1))
    write_png(path, zlib.compress(raw[:-1]), shape, depth=depth, interlaced=1)
    with pytest.raises(UnreadableFile, match=f"after {len(raw) - 1} of"):
        read_image(path)
    last = len(raw) - len(lines[-1].tobytes() if depth == 8 else np.packbits(lines[-1]).tobytes()) - 1
    write_png(path, zlib.compress(raw[:last] + b"\x07" + raw[last + 1 :]), shape, depth=depth, interlaced=1)
    with pytest.raises(UnreadableFile, match="filter"):
        read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_pixel_has_the_bytes_that_its_header_implies(tmp_path, mode):
    deep = GREY.astype(np.uint16) * 257
    image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(GREY).convert(mode)
    stream = BytesIO()
    image.save(stream, "PNG")
    require_intact_png(tmp_path / "a.png", stream.getvalue())


def test_pixels_without_end_are_not_held(tmp_path):
    # 4 MiB of rows in 4 KiB, of which the header wants 1240 bytes; and a header that wants more than there are
    many = zlib.compress(bytes(1 << 22))
    assert measure_whole_picture(write_png(tmp_path / "a.png", many)) == GREY.shape
    with pytest.raises(UnreadableFile, match="after 4194304 of the"):
        require_intact_png(tmp_path, write_png(tmp_path / "b.png", many, (2100, 2000)).read_bytes())
