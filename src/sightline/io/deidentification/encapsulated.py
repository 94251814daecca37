"""Compressed pixels without what is not picture: every frame is parsed and put into a new sequence of fragments.

Offset tables are made anew, so that they fit the shorter frames, and nothing is left between fragments. What this
program cannot parse (films, codecs that it does not know) is held back: nobody would have read it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import RLELossless

from sightline.errors import UnreadableFile, count_noun
from sightline.io.deidentification.codestreams import CleanedStream, clean_jpeg, clean_jpeg_2000
from sightline.io.dicom.pixels import ENDS_WITH_MARK, JPEG_2000

_RLE_HEAD, _RLE_MOST = 64, 15
# by the first byte of a run, its pixels and its bytes: that many others as they are, one other repeated, or nothing
_RUNS = (*range(1, 129), 0, *range(128, 1, -1))
_STEPS = (*range(2, 130), 1, *[2] * 127)
OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def clean_compressed(dataset: Dataset) -> list[str]:
    """Take comments, camera data and bytes after the end out of compressed pixels; they decode to the same values.

    Returns:
        Notes.

    Raises:
        UnreadableFile: a codec whose streams cannot be parsed here, or a stream that does not follow its codec.
    """
    clean = _choose_cleaner(dataset)
    stated = max(1, int(dataset.get("NumberOfFrames") or 1))
    offsets, lengths = (dataset.get(keyword) for keyword in OFFSET_TABLES)
    extended = (offsets, lengths) if offsets and lengths else None
    try:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=stated, extended_offsets=extended))
    except (ValueError, struct.error) as error:
        raise UnreadableFile(
            f"The fragments of the compressed pixels cannot be told apart ({error}).",
            "Export the image again from its source.",
        ) from None
    if len(frames) != stated:
        raise UnreadableFile(
            f"The header states {count_noun(stated, 'frame')}, the compressed pixels hold {len(frames)}: nobody would "
            "see the others.",
            "Export the image again from its source.",
        )
    cleaned = [clean(bytes(frame)) for frame in frames]
    streams = [one.data for one in cleaned]
    if extended:
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            streams
        )
    else:
        for keyword in OFFSET_TABLES:
            dataset.pop(keyword, None)
        has_table = dataset.PixelData[4:8] != b"\0\0\0\0"
        dataset.PixelData = encapsulate(streams, has_bot=has_table)
    dataset["PixelData"].is_undefined_length = True
    return _note(sum(one.segments for one in cleaned), sum(one.surplus for one in cleaned))


def _choose_cleaner(dataset: Dataset) -> Callable[[bytes], CleanedStream]:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in ENDS_WITH_MARK:
        return clean_jpeg
    if syntax in JPEG_2000:
        return clean_jpeg_2000
    if syntax == RLELossless:
        pixels = int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
        bits = int(dataset.get("SamplesPerPixel") or 1) * int(dataset.get("BitsAllocated") or 8)
        return lambda frame: clean_rle(frame, pixels, bits // 8)
    raise UnreadableFile(
        f"The pixels are compressed as {syntax.name}, and what such a stream holds beside the picture is not known.",
        "Export the image uncompressed, or as JPEG, JPEG-LS, JPEG 2000 or RLE.",
    )


def clean_rle(frame: bytes, pixels: int, segments: int) -> CleanedStream:
    """A frame of RLE whose segments end with the last pixel, one after the other.

    Args:
        frame: with its head of 64 bytes.
        pixels: of a segment, each of one byte.
        segments: bytes of a pixel, each in a segment of its own.

    Raises:
        UnreadableFile: the segments do not hold the pixels that the header states.
    """
    if len(frame) < _RLE_HEAD or not 0 < segments <= _RLE_MOST:
        raise _refuse_rle(f"a head of {_RLE_HEAD} bytes and 1 to {_RLE_MOST} segments were expected")
    count, *offsets = struct.unpack("<16L", frame[:_RLE_HEAD])
    starts = offsets[: min(count, _RLE_MOST)]
    if count != segments:
        raise _refuse_rle(f"a frame has {count_noun(count, 'segment')}, the header explains {segments}")
    if not all(a < b for a, b in zip([_RLE_HEAD - 1, *starts], [*starts, len(frame)], strict=True)):
        raise _refuse_rle("its segments do not follow each other")
    given = [frame[a:b] for a, b in zip(starts, [*starts[1:], len(frame)], strict=True)]
    bodies = [_cut_runs(segment, pixels) for segment in given]
    places = [_RLE_HEAD]
    for body in bodies[:-1]:
        places.append(places[-1] + len(body))
    head = struct.pack("<16L", count, *places, *[0] * (_RLE_MOST - count))
    # what was cut; padding says nothing
    surplus = len(frame[_RLE_HEAD : starts[0]].rstrip(b"\0"))
    surplus += sum(max(0, len(a.rstrip(b"\0")) - len(b)) for a, b in zip(given, bodies, strict=True))
    return CleanedStream(head + b"".join(bodies), 0, surplus)


def _cut_runs(segment: bytes, pixels: int) -> bytes:
    """Runs up to the last pixel, and a byte where their number is odd."""
    start = position = 0
    left = pixels
    try:
        while left > 0:
            start, code = position, segment[position]
            left -= _RUNS[code]
            position += _STEPS[code]
    except IndexError:
        raise _refuse_rle(f"a segment ends {count_noun(left, 'pixel')} early") from None
    if position > len(segment):
        raise _refuse_rle("a run does not end")
    runs = segment[:position]
    if left < 0:
        # of a run beyond the last pixel only what is pixels stays; a single one is written as itself
        count, content = _RUNS[segment[start]] + left, segment[start + 1 : position]
        head = count - 1 if len(content) > 1 or count == 1 else 257 - count
        runs = segment[:start] + bytes((head,)) + content[:count]
    return runs + b"\0" * (len(runs) % 2)


def _note(segments: int, surplus: int) -> list[str]:
    notes = []
    if segments:
        notes.append(
            f"{count_noun(segments, 'part')} of compressed pixels that {'is' if segments == 1 else 'are'} no picture "
            "(comments, camera data) taken out"
        )
    if surplus:
        notes.append(f"{count_noun(surplus, 'byte')} after the end of compressed pixels cut")
    return notes


def _refuse_rle(what: str) -> UnreadableFile:
    return UnreadableFile(
        f"What stands beside the picture cannot be taken out of RLE pixels: {what}.",
        "Export the image uncompressed, or again from its source.",
    )
