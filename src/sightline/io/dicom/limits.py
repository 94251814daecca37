"""Bounds on DICOM files from strangers, checked before a parser sees them: a scan of element lengths.

A file of 2 MB can inflate to 2 GB; 400,000 small elements keep a parser busy for seconds; sequences can be nested
20,000 deep. The scan here walks the lengths alone, in a memory map, and stops at the first bound that is passed. It
also refuses two things that a parser takes in silence: an element that says whose picture it is and stands twice, of
which the last one would count, and uncompressed pixels of no stated length.
Values that run past the end of the file are left for the parser, which refuses them with its own words.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import dictionary_description, dictionary_VR

from sightline.errors import UnreadableFile

MIB = 1024 * 1024
EXPLICIT_BIG, DEFLATED, IMPLICIT = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2"
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_NATIVE = (IMPLICIT, "1.2.840.10008.1.2.1", EXPLICIT_BIG, DEFLATED)
# value representations whose length takes four bytes after two reserved ones (PS3.5, 7.1.2)
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_PIXEL_DATA = 0x7FE00010
# what says whose picture it is: SOP class and instance, patient's name, id and day of birth, study and series
_IDENTIFYING = (0x00080016, 0x00080018, 0x00100010, 0x00100020, 0x00100030, 0x0020000D, 0x0020000E)
_ROWS, _COLUMNS, _SAMPLES, _FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280008


@dataclass(frozen=True)
class Bounds:
    """What a file may ask of a parser.

    Attributes:
        elements: data elements and items, those in sequences counted too.
        elements_a_frame: further ones for each frame that the header states before them (functional groups).
        most_elements: of both together.
        depth: sequences inside each other.
        before_pixels: bytes before the pixel data.
        inflated: bytes of a deflated file beyond those of its pixels.
        most_inflated: of both together.
    """

    elements: int = 20_000
    elements_a_frame: int = 200
    most_elements: int = 200_000
    depth: int = 32
    before_pixels: int = 64 * MIB
    inflated: int = 16 * MIB
    most_inflated: int = 512 * MIB


BOUNDS = Bounds()


def require_bounds(path: Path, bounds: Bounds = BOUNDS) -> None:
    """Refuse a DICOM file (Part 10) that would cost a parser out of proportion, or mislead it; other files pass.

    Raises:
        UnreadableFile: naming the bound that is passed, the element that stands twice, or the pixels of no length.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     require_bounds(Path(file.name))
    """
    with path.open("rb") as file:
        if file.seek(0, 2) < 140:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[128:132] != b"DICM":
                return
            start, syntax = find_dataset(data)
            if syntax == DEFLATED:
                head = _inflate(path, data, start, bounds)
                scan = _Scan(path, head, 0, bounds, implicit=False, big=False)
            else:
                scan = _Scan(path, data, start, bounds, implicit=syntax == IMPLICIT, big=syntax == EXPLICIT_BIG)
            scan.native = syntax in _NATIVE
            scan.walk()


def find_dataset(data: mmap.mmap | bytes) -> tuple[int, str]:
    """Where the data set of a DICOM file (Part 10) starts, and its transfer syntax, by its file meta information."""
    at, syntax = 132, ""
    while at + 8 <= len(data):
        tag = _read_tag(data, at, "<")
        if tag >> 16 != 0x0002:
            break
        vr = bytes(data[at + 4 : at + 6])
        if vr in _LONG:
            length, head = struct.unpack_from("<L", data, at + 8)[0] if at + 12 <= len(data) else 0, 12
        else:
            length, head = struct.unpack_from("<H", data, at + 6)[0], 8
        if tag == 0x00020010:
            syntax = bytes(data[at + head : at + head + min(length, 64)]).decode("ascii", "replace").strip(" \0")
        at += head + length
    return at, syntax


def _inflate(path: Path, data: mmap.mmap, start: int, bounds: Bounds) -> bytes:
    """The first part of a deflated data set; the rest is inflated too, counted and let go of.

    Raises:
        UnreadableFile: more comes out than the pixels that the header states, and the bound beside them.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    head, total, at = bytearray(), 0, start
    limit: int | None = None
    pending = b""
    try:
        while not inflater.eof and (pending or at < len(data)):
            if not pending:
                pending, at = data[at : at + MIB], at + MIB
            piece = inflater.decompress(pending, MIB)
            pending = inflater.unconsumed_tail
            total += len(piece)
            if limit is None:
                head += piece
                if total >= bounds.inflated:
                    limit = _find_inflated_limit(path, bytes(head), bounds)
            if limit is not None and total > limit:
                raise UnreadableFile(
                    f"{path}: {(len(data) - start) / 1e6:.1f} MB of deflated data hold more than {limit / 1e6:.0f} MB, "
                    "which is more than the pixels that the header states.",
                    "Export the image again, uncompressed; a file like this is made to fill a reader's memory.",
                )
    except zlib.error:
        pass  # damaged: the parser says so
    return bytes(head)


def _find_inflated_limit(path: Path, head: bytes, bounds: Bounds) -> int:
    scan = _Scan(path, head, 0, bounds, implicit=False, big=False)
    scan.walk()
    stated = scan.stated.get(_ROWS, 0) * scan.stated.get(_COLUMNS, 0) * 2 * max(1, scan.stated.get(_SAMPLES, 1))
    return min(stated + bounds.inflated, bounds.most_inflated)


class _Scan:
    """One walk over the elements of a data set."""

    def __init__(
        self, path: Path, data: mmap.mmap | bytes, start: int, bounds: Bounds, *, implicit: bool, big: bool
    ) -> None:
        self.path, self.data, self.start, self.bounds = path, data, start, bounds
        self.implicit, self.order = implicit, ">" if big else "<"
        self.stated: dict[int, int] = {}
        self.native = False

    def walk(self) -> None:
        """Walk to the pixel data or the end.

        Raises:
            UnreadableFile: a bound is passed.
        """
        data, end, order = self.data, len(self.data), self.order
        at, count, limit = self.start, 0, self.bounds.elements
        # open sequences and items: where they end (None: at a delimiter), and how what follows is encoded
        open_: list[tuple[int | None, bool]] = []
        named: set[int] = set()
        pixels_bytes = 0
        implicit = self._is_implicit(at, self.implicit)
        while at + 8 <= end:
            while open_ and open_[-1][0] is not None and at >= (open_[-1][0] or 0):
                implicit = open_.pop()[1]
            tag = _read_tag(data, at, order)
            count += 1
            if count > limit:
                limit = self._compute_limit()
                if count > limit:
                    raise self._refuse(f"more than {limit:,} elements")
            if at - self.start - pixels_bytes > self.bounds.before_pixels:
                raise self._refuse(f"more than {self.bounds.before_pixels / MIB:.0f} MiB before the pixels")
            if tag in _PIXELS and not open_:
                after = self._find_end_of_pixels(tag, at, implicit)
                pixels_bytes += after - at
                at = after
                continue
            if pixels_bytes and tag == 0:
                # padding behind the pixels
                return
            if tag in _IDENTIFYING and not open_:
                if tag in named:
                    raise self._refuse_twice(tag)
                named.add(tag)
            if tag in (_ITEM_END, _SEQUENCE_END):
                if open_:
                    implicit = open_.pop()[1]
                at += 8
                continue
            if tag == _ITEM:
                length, at = struct.unpack_from(order + "L", data, at + 4)[0], at + 8
                open_.append((None if length == _UNDEFINED else at + length, implicit))
                self._require_depth(open_)
                # PS3.5 6.2.2 note 2: what is unknown, of undefined length, is a sequence in implicit little endian;
                # the parser goes by how each item looks, and so must this
                implicit = implicit or self._is_implicit(at, implicit)
                continue
            vr, length, at = self._read_element(tag, at, implicit)
            if vr == b"SQ" or length == _UNDEFINED:
                open_.append((None if length == _UNDEFINED else at + length, implicit))
                self._require_depth(open_)
                continue
            if tag in (_ROWS, _COLUMNS, _SAMPLES) and length == 2 and not open_ and at + 2 <= end:
                self.stated[tag] = struct.unpack_from(order + "H", data, at)[0]
            elif tag == _FRAMES and length <= 12 and not open_:
                text = bytes(data[at : at + length]).strip(b" \0")
                self.stated[tag] = int(text) if text.isdigit() else 1
            at += length

    def _find_end_of_pixels(self, tag: int, at: int, implicit: bool) -> int:
        """Where the data set goes on behind its pixels.

        Raises:
            UnreadableFile: uncompressed pixels of undefined length (PS3.5, A.4 allows it to compressed ones alone).
        """
        _, length, at = self._read_element(tag, at, implicit)
        if length != _UNDEFINED:
            return at + length
        if self.native and tag == _PIXEL_DATA:
            raise UnreadableFile(
                f"{self.path}: uncompressed pixel data of undefined length: where they end is not stated.",
                "Export the image again, with the length of its pixel data.",
            )
        while at + 8 <= len(self.data) and _read_tag(self.data, at, self.order) == _ITEM:
            at += 8 + int(struct.unpack_from(self.order + "L", self.data, at + 4)[0])
        # fragments end in a delimiter; anything else is left for the parser
        return at if self.data[at : at + 4] == struct.pack(self.order + "HH", 0xFFFE, 0xE0DD) else len(self.data)

    def _refuse_twice(self, tag: int) -> UnreadableFile:
        return UnreadableFile(
            f"{self.path}: {dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X}) stands twice in the data "
            "set: whose picture it is cannot be told.",
            "Export the image again; an element stands once (PS3.5, 7.1).",
        )

    def _read_element(self, tag: int, at: int, implicit: bool) -> tuple[bytes, int, int]:
        """Value representation, length and place of the value of the element at `at`."""
        data, order = self.data, self.order
        if implicit:
            length = struct.unpack_from("<L", data, at + 4)[0]
            return _find_known_vr(tag), length, at + 8
        vr = bytes(data[at + 4 : at + 6])
        if vr in _LONG:
            if at + 12 > len(data):
                return vr, 0, len(data)
            return vr, struct.unpack_from(order + "L", data, at + 8)[0], at + 12
        return vr, struct.unpack_from(order + "H", data, at + 6)[0], at + 8

    def _is_implicit(self, at: int, stated: bool) -> bool:
        """Whether the element at `at` states no value representation, as pydicom asks, whatever the syntax says."""
        letters = self.data[at + 4 : at + 6]
        return not all(0x40 < one < 0x5B for one in letters) if len(letters) == 2 else stated

    def _compute_limit(self) -> int:
        frames = self.stated.get(_FRAMES, 1)
        asked = self.bounds.elements + (self.bounds.elements_a_frame * frames if frames > 1 else 0)
        return min(asked, self.bounds.most_elements)

    def _require_depth(self, open_: list[tuple[int | None, bool]]) -> None:
        # a sequence and its item are one level
        if len(open_) > 2 * self.bounds.depth:
            raise self._refuse(f"sequences more than {self.bounds.depth} deep")

    def _refuse(self, what: str) -> UnreadableFile:
        return UnreadableFile(
            f"{self.path}: the header has {what}; no radiograph or CT needs as many.",
            "Export the image again; a header like this is made to keep a reader busy, or is damaged.",
        )


def _read_tag(data: mmap.mmap | bytes, at: int, order: str) -> int:
    group, element = struct.unpack_from(order + "HH", data, at)
    return int(group << 16 | element)


def _find_known_vr(tag: int) -> bytes:
    try:
        return dictionary_VR(tag).encode()
    except KeyError:
        return b"UN"
