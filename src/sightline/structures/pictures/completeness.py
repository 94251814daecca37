"""Whether all of a PNG or a JPEG is there: decoders fill what is missing with black or grey, without a word."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.errors import UnreadableFile, count_noun

# samples a pixel, by the colour type of a PNG
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# the seven passes of an interlaced PNG: first row and column, steps of both
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_LAST_FILTER = 4
# so much of the pixels is held at a time
_PIECE = 1 << 20

# bytes of pixels: the first and the one behind the last of a pass, and from one row to the next
Span = tuple[int, int, int]


def require_end_of_jpeg(path: Path, data: bytes) -> None:
    """Refuse a JPEG without its end mark, whose rest decoders fill with grey; bytes after it do no harm.

    Raises:
        UnreadableFile: there is no end mark.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        # a segment is 0xFF, its kind, and a big-endian length that counts itself; 0xFF alone is padding
        if data[position + 1] == 0xFF:
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    # thumbnails in the header have end marks of their own, so only what follows the first scan counts
    if data.rfind(b"\xff\xd9", position) < 0:
        raise UnreadableFile(
            f"{path}: the JPEG ends before its end mark; the file is truncated.", "Export or copy the file again."
        )


def require_intact_png(path: Path, data: bytes) -> None:
    """Refuse a PNG with a chunk or a pixel cut or changed, of which Pillow would leave the rest black.

    Checked are the checksums of all chunks, that the pixels inflate to their end and its checksum, that they are as
    many as the header says, and that each row says a filter that exists. What follows the last pixel is passed over,
    as browsers do.

    Raises:
        UnreadableFile: something of it is missing or changed.
    """
    position, kind = 8, b""
    pixels: list[memoryview] = []
    view = memoryview(data)
    while kind != b"IEND" and position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if end + 4 > len(data) or zlib.crc32(view[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            break
        if kind == b"IDAT":
            pixels.append(view[position + 8 : end])
        position = end + 4
    else:
        if kind == b"IEND":
            _require_all_rows(path, _list_spans(path, data), pixels)
            return
    raise _build_error(path, f"after {position} of its {count_noun(len(data), 'byte')}")


def _list_spans(path: Path, data: bytes) -> list[Span]:
    """Where the rows of each pass lie in the pixels of a PNG once they are inflated; a plain one has one pass."""
    columns, rows = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[12:16] != b"IHDR" or data[25] not in _SAMPLES:
        raise _build_error(path, "in its header")
    bits = data[24] * _SAMPLES[data[25]]
    spans: list[Span] = []
    at = 0
    for row, column, down, across in _PASSES if data[28] else ((0, 0, 1, 1),):
        high, wide = -(-(rows - row) // down), -(-(columns - column) // across)
        if high > 0 and wide > 0:
            stride = 1 + (wide * bits + 7) // 8  # each row begins with its filter
            spans.append((at, at + high * stride, stride))
            at += high * stride
    return spans


def _require_all_rows(path: Path, spans: Sequence[Span], pixels: Sequence[memoryview]) -> None:
    stream, at, size = zlib.decompressobj(), 0, spans[-1][1] if spans else 0
    try:
        for piece in _inflate(stream, pixels):
            for first, last, stride in spans:
                # the first row of the pass that begins in this piece
                start = first + -(-max(0, at - first) // stride) * stride
                if max(piece[start - at : max(0, last - at) : stride], default=0) > _LAST_FILTER:
                    raise _build_error(path, "in its pixels: a row says a filter that does not exist")
            at += len(piece)
            if at > size:
                return
    except zlib.error as error:
        raise _build_error(path, f"in its pixels ({error})") from None
    if at < size:
        raise _build_error(path, f"after {at} of the {count_noun(size, 'byte')} of its pixels")
    if not stream.eof:
        raise _build_error(path, "at the end of its pixels, whose checksum is missing")


def _inflate(stream: zlib._Decompress, pixels: Sequence[memoryview]) -> Iterator[bytes]:
    """What compressed pieces hold, a little at a time: they may hold a thousand times as much."""
    for compressed in pixels:
        for start in range(0, len(compressed), _PIECE // 16):
            # what is not inflated yet is copied each time, so little is given at a time, too
            rest: bytes | memoryview = compressed[start : start + _PIECE // 16]
            while rest and not stream.eof:
                yield stream.decompress(rest, _PIECE)
                rest = stream.unconsumed_tail


def _build_error(path: Path, where: str) -> UnreadableFile:
    return UnreadableFile(f"{path}: the PNG is truncated or damaged {where}.", "Export or copy the file again.")
