"""What stands in a JPEG or JPEG 2000 stream beside the picture: comments, camera data, thumbnails. Nothing is decoded.

Only what a decoder needs is copied: segments are kept by a list, so that a kind that nobody thought of does not pass.
The compressed pixels themselves stay as they are, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sightline.errors import UnreadableFile

_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
# frames of every process, Huffman and arithmetic tables, scans, quantisation, lines, restarts, hierarchy; of JPEG-LS
# its frame and its parameters
_JPEG_KEPT = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xE0), 0xF7, 0xF8}) - {0xC8}
_JPEG_CUT = frozenset({*range(0xE0, 0xF0), 0xFE})
# application segments that decide colours: their marker, how they begin, the bytes that are known, and what is hidden
# behind those (a thumbnail's size after JFIF)
_COLOURS = ((0xE0, b"JFIF\0", 14, 2), (0xEE, b"Adobe", 12, 0), (0xE8, b"mrfx", 5, 0))
# the next marker after compressed bytes: not a stuffed byte, not a restart
_AFTER_JPEG = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_AFTER_JPEG_LS = re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]")

_SOC, _COMMENT, _TILE, _TILE_DATA = b"\xff\x4f", 0x64, 0x90, 0x93
# of JPEG 2000 its sizes, coding, quantisation, lengths, packet headers and registration; profiles and capabilities;
# of its second part the transforms of components
_J2K_KEPT = frozenset({*range(0x50, 0x54), *range(0x55, 0x5A), *range(0x5C, 0x62), 0x63, *range(0x70, 0x7A)})
_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_JP2_KEPT = (b"jP  ", b"ftyp", b"jp2h", b"jp2c")
_JP2_HEADER_KEPT = (b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef", b"res ")


@dataclass
class CleanedStream:
    """One stream without what is not picture.

    Attributes:
        data: of the stream, to its end mark.
        segments: how many were cut out, cut short or overwritten.
        surplus: bytes after the end mark, padding not counted.
    """

    data: bytes = b""
    segments: int = 0
    surplus: int = 0


def clean_jpeg(stream: bytes) -> CleanedStream:
    """A JPEG or JPEG-LS stream without comments and application segments, those excepted that decide colours.

    Raises:
        UnreadableFile: the stream does not follow its segments to the end mark.
    """
    if not stream.startswith(_START):
        raise _refuse("does not begin with the start mark of JPEG")
    kept, position, segments = [_START], 2, 0
    after = _AFTER_JPEG
    while True:
        code, position = _read_marker(stream, position)
        if code == _END[1]:
            return CleanedStream(b"".join((*kept, _END)), segments, _count_surplus(stream[position:]))
        stop = position + _read_length(stream, position)
        body = stream[position:stop]
        if code in _JPEG_KEPT:
            kept.append(bytes((0xFF, code)) + body)
        elif code in _JPEG_CUT:
            colours = _keep_colours(code, body[2:])
            segments += colours != body[2:]
            if colours:
                kept.append(bytes((0xFF, code)) + (len(colours) + 2).to_bytes(2, "big") + colours)
        else:
            raise _refuse(f"has a segment of an unknown kind ({code:02X}) at byte {position}")
        if code == 0xF7:
            after = _AFTER_JPEG_LS
        position = stop
        if code == _SCAN:
            found = after.search(stream, position)
            if found is None:
                raise _refuse("has no end mark")
            # more bytes of ones before a marker may belong to the picture
            kept.append(stream[position : found.end() - 2])
            position = found.end() - 2


def clean_jpeg_2000(stream: bytes) -> CleanedStream:
    """A JPEG 2000 stream without comments, and without the boxes around it that say nothing about the picture.

    Raises:
        UnreadableFile: the stream does not follow its segments to the end mark.
    """
    if not stream.startswith(_JP2_SIGNATURE):
        return _clean_codestream(stream)
    cleaned = CleanedStream()
    made, found = [], False
    for kind, body in _split_boxes(stream):
        if kind == b"jp2c" and not found:
            inner = _clean_codestream(body)
            cleaned.segments += inner.segments
            cleaned.surplus += inner.surplus
            made.append(_make_box(kind, inner.data))
            found = True
            continue
        if kind not in _JP2_KEPT or kind == b"jp2c":
            cleaned.segments += 1
            continue
        if kind == b"jp2h":
            boxes = _split_boxes(body)
            cleaned.segments += sum(name not in _JP2_HEADER_KEPT for name, _ in boxes)
            body = b"".join(_make_box(name, inside) for name, inside in boxes if name in _JP2_HEADER_KEPT)
        made.append(_make_box(kind, body))
    if not found:
        raise _refuse("has boxes of JPEG 2000 without a picture in them")
    cleaned.data = b"".join(made)
    return cleaned


def _clean_codestream(data: bytes) -> CleanedStream:
    """Comments of the main header are cut; those of a tile are overwritten, since tables state how long tiles are."""
    if not data.startswith(_SOC):
        raise _refuse("does not begin with the start mark of JPEG 2000")
    kept, position, segments = [_SOC], 2, 0
    while data[position : position + 2] != _END:
        code, inside = _read_marker(data, position)
        if code == _TILE:
            tile, blanked = _blank_tile_comments(data, position)
            kept.append(tile)
            segments += blanked
            position += len(tile)
            continue
        stop = inside + _read_length(data, inside)
        if code == _COMMENT:
            segments += 1
        elif code in _J2K_KEPT:
            kept.append(data[position:stop])
        else:
            raise _refuse(f"has a segment of an unknown kind ({code:02X}) at byte {position}")
        position = stop
    return CleanedStream(b"".join((*kept, _END)), segments, _count_surplus(data[position + 2 :]))


def _blank_tile_comments(data: bytes, start: int) -> tuple[bytes, int]:
    """A part of a tile as long as it was, and how many comments in its header were overwritten."""
    stated = int.from_bytes(data[start + 6 : start + 10], "big")
    position, comments = start + 2 + _read_length(data, start + 2), []
    while data[position : position + 2] != bytes((0xFF, _TILE_DATA)):
        code, inside = _read_marker(data, position)
        stop = inside + _read_length(data, inside)
        if code == _COMMENT:
            comments.append((inside + 2 - start, stop - start))
        elif code not in _J2K_KEPT:
            raise _refuse(f"has a segment of an unknown kind ({code:02X}) at byte {position}")
        position = stop
    # a length of 0 is that of the last part: to the end mark, which cannot stand among packets
    end = start + stated if stated else data.find(_END, position)
    if not position < end <= len(data):
        raise _refuse(f"has a tile at byte {start} that does not end")
    tile = bytearray(data[start:end])
    for first, last in comments:
        tile[first:last] = bytes(last - first)
    return bytes(tile), len(comments)


def _read_marker(data: bytes, position: int) -> tuple[int, int]:
    """The kind of the segment at a place, and where its length stands; bytes that fill up before it are passed over."""
    if data[position : position + 1] != b"\xff":
        raise _refuse(f"has no segment at byte {position} of {len(data)}")
    while data[position : position + 1] == b"\xff":
        position += 1
    if position >= len(data):
        raise _refuse("has no end mark")
    return data[position], position + 1


def _read_length(data: bytes, position: int) -> int:
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise _refuse(f"has a segment at byte {position} whose length ({length}) is none")
    return length


def _keep_colours(code: int, content: bytes) -> bytes:
    for kind, head, known, hidden in _COLOURS:
        if code == kind and content.startswith(head) and len(content) >= known:
            return content[: known - hidden] + bytes(hidden)
    return b""


def _split_boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes of a JP2 file, or of one of its boxes, by kind and content."""
    boxes, position = [], 0
    # a byte that makes the length even is no box
    while data[position:].strip(b"\0"):
        length, kind, head = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif length == 0:
            length = len(data) - position
        if length < head or position + length > len(data):
            raise _refuse(f"has a box at byte {position} whose length ({length}) is none")
        boxes.append((kind, data[position + head : position + length]))
        position += length
    return boxes


def _make_box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def _count_surplus(rest: bytes) -> int:
    """Bytes that say something; padding does not."""
    return len(rest.rstrip(b"\0"))


def _refuse(what: str) -> UnreadableFile:
    return UnreadableFile(
        f"What stands beside the picture cannot be taken out of the compressed pixels: a stream {what}.",
        "Export the image uncompressed, or again from its source.",
    )
