"""Overlays in bits of the pixels that no value uses: their group is removed, so these bits are cleared too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import ExplicitVRBigEndian

from sightline.errors import UnreadableFile, count_noun
from sightline.io.dicom.pixels import NATIVE

_GROUPS = range(0x6000, 0x6100, 2)


@dataclass(frozen=True)
class _Words:
    """Uncompressed pixels as the words that stand in the file, and which of their bits hold values."""

    raw: NDArray[np.unsignedinteger]
    rest: bytes
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def mask(self) -> np.unsignedinteger:
        """The stored bits of a word."""
        return self.raw.dtype.type((2**self.stored - 1) << (self.high + 1 - self.stored))

    def erase(self) -> NDArray[np.unsignedinteger]:
        """The same values; bits above them repeat the sign, all others are 0."""
        kind = self.raw.dtype.type
        kept = self.raw & self.mask
        if self.signed:
            above = (2**self.allocated - 1) & ~(2 ** (self.high + 1) - 1)
            kept |= np.where((kept >> kind(self.high)) & kind(1), kind(above), kind(0))
        return kept.astype(self.raw.dtype)


def erase_overlay_bits(dataset: Dataset) -> list[str]:
    """Clear what stands beside the stored bits of every frame where a group 60xx says that an overlay does.

    Returns:
        Notes.

    Raises:
        UnreadableFile: the pixels are compressed, or in words of a size that no image has.
    """
    beside = _list_overlays_beside(dataset)
    if not beside:
        return []
    words = _read_words(dataset)
    if words is None:
        raise UnreadableFile(
            f"{count_noun(len(beside), 'overlay')} in unused bits of the pixels (bit {', '.join(map(str, beside))}), "
            "which cannot be cleared: the pixels are compressed, or their words are not of 8, 16 or 32 bits.",
            "Export the image uncompressed, or without its overlays.",
        )
    dataset["PixelData"].value = words.erase().tobytes() + words.rest
    return [f"{count_noun(len(beside), 'overlay')} in unused bits of the pixels cleared"]


def has_strange_bits(dataset: Dataset) -> bool:
    """Whether bits beside the stored ones differ between pixels though no overlay is said to stand there."""
    words = None if _list_overlays_beside(dataset) else _read_words(dataset)
    if words is None or words.raw.size == 0:
        return False
    beside = words.raw ^ words.erase()
    # a sign that is not repeated is no drawing, nor is what all pixels have alike
    alike = words.raw & ~words.mask
    return bool(beside.any() and alike.min() != alike.max())


def _list_overlays_beside(dataset: Dataset) -> list[int]:
    """The bits of overlays that have no data of their own and do not stand among the stored bits."""
    allocated, stored, high = _read_bits(dataset)
    if "PixelData" not in dataset or stored >= allocated:
        return []
    found = []
    for group in _GROUPS:
        place = dataset.get((group, 0x0102))
        if place is not None and dataset.get((group, 0x3000)) is None:
            bit = int(place.value or 0)
            if not high - stored < bit <= high:
                found.append(bit)
    return found


def _read_bits(dataset: Dataset) -> tuple[int, int, int]:
    allocated = int(dataset.get("BitsAllocated") or 0)
    stored = int(dataset.get("BitsStored") or allocated)
    high = dataset.get("HighBit")
    return allocated, stored, int(stored - 1 if high is None or high == "" else high)


def _read_words(dataset: Dataset) -> _Words | None:
    """None where there are none: compressed pixels, or bits that do not fit into bytes."""
    allocated, stored, high = _read_bits(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    fits = allocated in (8, 16, 32) and 0 < stored < allocated and stored - 1 <= high < allocated
    if "PixelData" not in dataset or syntax not in NATIVE or not fits:
        return None
    order, size = ">" if syntax == ExplicitVRBigEndian else "<", allocated // 8
    data = bytes(dataset.PixelData or b"")
    # bytes after the last pixel are no pixels; they are cut elsewhere
    whole = min(len(data), get_expected_length(dataset)) // size * size
    raw = np.frombuffer(data[:whole], f"{order}u{size}")
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    return _Words(raw, data[whole:], allocated, stored, high, signed)
