"""Pixels as `read_image` gives them to the network, packed once and kept on disk within bounds."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import SightlineError, UnreadableFile
from sightline.io.image import read_image

MOST_BYTES = 2 * 1024**3
# a larger picture is refused before it is packed: 200 megapixels of 16 bits
MOST_PIXELS = 200_000_000


@dataclass(frozen=True)
class PackedPixels:
    """Pixels ready to be sent.

    Attributes:
        data: gzip of the numbers, little endian, in C order.
        shape: of the array.
        dtype: u1, u2 or i2.
        etag: of the content.
        more: what else is said of them.
    """

    data: bytes
    shape: tuple[int, ...]
    dtype: str
    etag: str
    more: dict[str, Any]

    def unpack_bytes(self) -> bytes:
        """The numbers themselves."""
        return gzip.decompress(self.data)


class PixelCache:
    """Packed pixels on disk, the oldest thrown away when there are too many.

    Args:
        folder: where they lie.
        most_bytes: at most so many.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], tuple[NDArray[Any], dict[str, Any]]]) -> PackedPixels:
        """The packed array of a name, made where it is not there yet; two who ask at once wait for one making.

        Args:
            name: of the content, safe as a file name; another content has another name.
            make: gives the array and what else is said of it.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            found = self._read(name)
            if found is None:
                found = self._write(name, *make())
        with self._lock:
            self._locks.pop(name, None)
        return found

    def _read(self, name: str) -> PackedPixels | None:
        path = self.folder / name
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline())
                data = file.read()
            os.utime(path)
        except (OSError, ValueError, OverflowError, RecursionError):
            return None
        if len(data) != head["bytes"]:
            return None
        return PackedPixels(data, tuple(head["shape"]), head["dtype"], head["etag"], head["more"])

    def _write(self, name: str, array: NDArray[Any], more: dict[str, Any]) -> PackedPixels:
        kind = array.dtype.kind + str(array.dtype.itemsize)
        raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        # level 1: radiographs hardly get smaller with more, and the first look must not wait
        data = gzip.compress(raw, 1, mtime=0)
        etag = f'"{hashlib.sha256(name.encode()).hexdigest()[:32]}"'
        packed = PackedPixels(data, array.shape, kind, etag, more)
        head = {"shape": list(array.shape), "dtype": kind, "etag": etag, "more": more, "bytes": len(data)}
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{name}.{threading.get_ident()}"
        # a disk that is full keeps no copy, and the picture is shown all the same
        with suppress(OSError):
            partial.write_bytes(json.dumps(head).encode() + b"\n" + data)
            partial.replace(self.folder / name)
            self._drop_oldest()
        partial.unlink(missing_ok=True)
        return packed

    def _drop_oldest(self) -> None:
        files = []
        for path in self.folder.iterdir():
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def digest_file(path: Path) -> str:
    """The digest of a file.

    Raises:
        UnreadableFile: it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        # no path of the server leaves it
        raise UnreadableFile(
            f"The picture cannot be opened ({error.strerror}).", "Ask the lead to restore it."
        ) from None


def read_display_pixels(path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """What the network is given: uint8 or uint16 [H, W], or uint8 [H, W, 3]; and what the file says of it.

    Raises:
        UnreadableFile: the file does not decode, or is too large to be shown.
    """
    picture = read_image(path)
    if picture.pixels.size > MOST_PIXELS:
        raise UnreadableFile("The picture is larger than 200 megapixels.", "Export it at a smaller size.")
    facts = {name: text for name, text in picture.facts.items() if name in _SAID}
    spacing = picture.frame.spacing_mm
    more = {"facts": facts, "spacing_mm": None if spacing is None else list(spacing), "aspect": picture.frame.aspect}
    return picture.pixels, more


# what may be said of a file: nothing that names a patient or an examination
_SAID = (
    "format", "mode", "modality", "body_part", "view_position", "laterality", "grey_scale", "photometric",
    "transfer_syntax", "lossy_compression", "burned_in_annotation", "spacing_source", "presentation_intent",
)  # fmt: skip


def read_stored_pixels(path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """Modality values of a DICOM radiograph, and the steps that lead from them to what is shown.

    Returns:
        The stored numbers (uint16 or int16 [H, W]) and a `greyscale` block: slope, intercept, whether it is inverted,
        the function and windows the file names, padding, and the table that gives the displayed value of each number
        where the file has look-up tables of its own.

    Raises:
        UnreadableFile: not a DICOM file, or one that does not decode.
    """
    from sightline.io.dicom.greyscale import build_display_table, find_padding_range, is_negative, read_numbers
    from sightline.io.dicom.pixel_size import read_aspect_ratio
    from sightline.io.dicom.pixels import decode_pixels
    from sightline.io.dicom.radiograph import open_dataset, translate_parser_errors
    from sightline.io.dicom.shutter import find_shutter
    from sightline.io.picture import has_dicom_mark

    with path.open("rb") as file:
        if not has_dicom_mark(file.read(132)):
            raise UnreadableFile("The picture is no DICOM file: it has no other values than those shown.", "")
    with translate_parser_errors(path):
        header = open_dataset(path, pixels=True)
        index, values = decode_pixels(header, path)
        shown, _ = find_shutter(header, path, index.shape, read_aspect_ratio(header, path))
        present = np.bincount(index.ravel() if shown is None else index[shown], minlength=len(values)) > 0
        table, how = build_display_table(header, path, values, present)
        if shown is not None:
            # what a shutter hides takes the darkest value that is shown, and stays dark in other windows
            (there,) = np.nonzero(present)
            index = np.where(shown, index, there[table[there].argmin()])
        stored = values[index]
        low, high = int(stored.min()), int(stored.max())
        kind = np.int16 if low < 0 else np.uint16
        centres, widths = read_numbers(header, "WindowCenter", path), read_numbers(header, "WindowWidth", path)
        names = header.get("WindowCenterWidthExplanation") or ""
        names = [names] if isinstance(names, str) else list(names)
        windows = [
            {"name": names[i].strip() if i < len(names) else "", "centre": c, "width": w}
            for i, (c, w) in enumerate(zip(centres, widths, strict=False))
        ]
        slope, intercept = read_numbers(header, "RescaleSlope", path), read_numbers(header, "RescaleIntercept", path)
        has_tables = bool(header.get("ModalityLUTSequence") or header.get("VOILUTSequence"))
        block = {
            "slope": slope[0] if slope else 1.0, "intercept": intercept[0] if intercept else 0.0,
            "invert": is_negative(header, path, values),
            "function": str(header.get("VOILUTFunction") or "LINEAR").lower(),
            "windows": windows, "low": low, "high": high, "how": how, "has_tables": has_tables,
            "first": int(values.min()), "padding": find_padding_range(header, path, values),
        }  # fmt: skip
        # the table that read_image used, by stored value from `low` on: what reset returns to, to the last digit
        order = np.argsort(values, kind="stable")
        chosen = order[(values[order] >= low) & (values[order] <= high)]
        block["table"] = [int(v) for v in table[chosen]]
    return stored.astype(kind), {"greyscale": block}


def pack_checked(
    make: Callable[[], tuple[NDArray[Any], dict[str, Any]]], name: str
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Run `make`; errors lose the path of the server, which is of no use to a reader.

    Args:
        make: reads a picture.
        name: what the picture is called instead.
    """
    try:
        return make()
    except SightlineError as error:
        message = error.message.split(": ", 1)[-1] if "/" in error.message.split(": ", 1)[0] else error.message
        raise UnreadableFile(f"{name}: {message}", error.remedy) from None
