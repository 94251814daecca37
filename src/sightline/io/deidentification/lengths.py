"""Bytes behind the last value: elements of numbers are cut to the length that the header states for them.

A name can stand there that no picture shows and no search of texts sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import ExplicitVRBigEndian

from sightline.errors import UnreadableFile, count_noun
from sightline.io.deidentification.encapsulated import OFFSET_TABLES, clean_compressed
from sightline.io.dicom.pixels import MAX_TRAILING_BYTES, NATIVE

_PIXELS = "PixelData"
# pixels with a fraction, and how many bytes each of them has
_FLOATS = {"FloatPixelData": 4, "DoubleFloatPixelData": 8}
_TABLES = ("LUT", *(f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue", "Alpha")))


def cut_surplus(dataset: Dataset) -> list[str]:
    """Cut pixels, tables and waveforms behind their last value, and take out of compressed pixels what is no picture.

    Returns:
        Notes.

    Raises:
        UnreadableFile: compressed pixels that cannot be parsed, or so many bytes more that the header must be wrong.
    """
    notes = _cut_pixels(dataset)
    for depth, item in _iterate_items(dataset):
        if depth:
            # an icon's, which goes with its sequence, are the only pixels that stand in one
            for keyword in (_PIXELS, *_FLOATS):
                if item.pop(keyword, None) is not None:
                    notes.append(f"{keyword} within a sequence was removed")
        for keyword, expected in _list_expected(item):
            notes += _cut_element(item, keyword, expected)
    return notes


def _cut_pixels(dataset: Dataset) -> list[str]:
    if _PIXELS in dataset and dataset.file_meta.TransferSyntaxUID not in NATIVE:
        return clean_compressed(dataset)
    for keyword in OFFSET_TABLES:
        dataset.pop(keyword, None)  # of compressed pixels alone
    sizes = {_PIXELS: get_expected_length(dataset)} if _PIXELS in dataset else {}
    for keyword, size in _FLOATS.items():
        if keyword in dataset:
            count = int(dataset.Rows) * int(dataset.Columns) * max(1, int(dataset.get("NumberOfFrames") or 1))
            sizes[keyword] = size * count * int(dataset.get("SamplesPerPixel") or 1)
    notes = []
    for keyword, expected in sizes.items():
        surplus = len(dataset[keyword].value or b"") - expected
        if surplus > max(MAX_TRAILING_BYTES, expected // 100):
            raise UnreadableFile(
                f"The header explains {count_noun(expected, 'byte')} of {keyword}, and {surplus} more follow, which "
                "nobody would see; rows, columns, bits or the number of frames are wrong.",
                "Export the image again from its source.",
            )
        swapped = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian and dataset[keyword].VR == "OW"
        notes += _cut_element(dataset, keyword, expected, swapped=swapped)
    return notes


def _list_expected(item: Dataset) -> Iterator[tuple[str, int]]:
    """Elements of one item that have a length which others state, and that length in bytes."""
    for table in _TABLES:
        stated, values = item.get(f"{table}Descriptor"), item.get(f"{table}Data")
        if stated is not None and values is not None and len(stated) == 3:
            entries = int(stated[0]) or 65536
            # entries of 8 bits stand one or two a word
            one_byte = int(stated[2]) <= 8 and isinstance(values, bytes) and len(values) < 2 * entries
            yield f"{table}Data", entries if one_byte else 2 * entries
    if "WaveformData" in item:
        words = ("NumberOfWaveformChannels", "NumberOfWaveformSamples", "WaveformBitsAllocated")
        channels, samples, bits = (int(item.get(word) or 0) for word in words)
        yield "WaveformData", channels * samples * bits // 8


def _cut_element(item: Dataset, keyword: str, expected: int, *, swapped: bool = False) -> list[str]:
    """Cut one element, a byte of zero with it where their number is odd."""
    element = item[keyword]
    value: Any = element.value
    if not isinstance(value, bytes | bytearray):
        if isinstance(value, int) or value is None or 2 * len(value) <= expected:
            return []
        # a table as a list of numbers of two bytes each
        element.value = list(value)[: expected // 2]
        return [f"{count_noun(len(value) - expected // 2, 'number')} after the last value of {keyword} cut"]
    cut = bytes(value[:expected]) + b"\0" * (expected % 2)
    if swapped and expected % 2:
        # of two bytes in a word of big endian the second comes first
        cut = bytes(value[: expected - 1]) + b"\0" + bytes(value[expected : expected + 1])
    if len(value) <= expected or value == cut:
        return []
    element.value = cut
    return [f"{count_noun(len(value) - expected, 'byte')} after the last value of {keyword} cut"]


def _iterate_items(dataset: Dataset, depth: int = 0) -> Iterator[tuple[int, Dataset]]:
    yield depth, dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _iterate_items(item, depth + 1)
