"""PNG, JPEG, TIFF and DICOM files as pictures; the type is known by content, never by the name alone.

16-bit pictures state no display range, so the range from their darkest to their brightest pixel is stretched to
the whole of uint16. 8-bit pictures are passed as they are. EXIF orientation is applied, as every viewer does:
regions drawn on screen are in oriented pixels, and so is the frame.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sightline.errors import UnreadableFile
from sightline.io.dicom.radiograph import DICOM_SUFFIXES, has_dicom_mark, read_dicom, read_header
from sightline.io.picture import Picture, Pixels, Reject, require_sane_size, stretch_to_uint16, write_rejects
from sightline.structures.frame import Frame

__all__ = ["Picture", "Reject", "find_images", "read_image", "write_rejects"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
# pictures and volumes that are not read here: they are listed, so that they are rejected aloud and not passed over
_OTHER_SUFFIXES: tuple[str, ...] = (
    ".bmp",
    ".gif",
    ".webp",
    ".jp2",
    ".j2k",
    ".jls",
    ".jxl",
    ".heic",
    ".avif",
    ".pgm",
    ".ppm",
    ".nii",
)
_OTHER_SUFFIXES += (".gz", ".mha", ".nrrd")
# Pillow's format classes are called directly, because Image.open compares sizes with a limit of its own
_SIGNATURES: tuple[tuple[bytes, str, Callable[..., ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", PngImageFile),
    (b"\xff\xd8\xff", "JPEG", JpegImageFile),
    (b"II*\x00", "TIFF", TiffImageFile),
    (b"MM\x00*", "TIFF", TiffImageFile),
    (b"II+\x00", "TIFF", TiffImageFile),
    (b"MM\x00+", "TIFF", TiffImageFile),
)
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    KeyError,
    IndexError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
)


def read_image(path: Path) -> Picture:
    """Read a PNG, JPEG, TIFF or DICOM file.

    Args:
        path: the file; its type is taken from its content.

    Returns:
        Grey pictures as [H, W] (also when stored as equal red, green and blue), true colour as uint8 [H, W, 3].

    Raises:
        UnreadableFile: missing, of another type, truncated, of several pages, or of an absurd size.
    """
    path = Path(path)
    head = _head(path)
    if has_dicom_mark(head) or (path.suffix.lower() in DICOM_SUFFIXES and _signature(head) is None):
        return read_dicom(path)
    found = _signature(head)
    if found is None:
        raise UnreadableFile(
            f"{path}: the content is {'empty' if not head else 'neither PNG, JPEG, TIFF nor DICOM'}.",
            "Give a radiograph in one of these formats.",
        )
    name, opener = found
    try:
        data = path.read_bytes()
        with opener(BytesIO(data), str(path)) as image:
            require_sane_size(path, image.height, image.width)
            pages = int(getattr(image, "n_frames", 1))
            if pages > 1:
                raise UnreadableFile(
                    f"{path}: the {name} holds {pages} pictures; one was expected.",
                    "Save the page with the radiograph as a file of its own.",
                )
            if name == "JPEG":
                _require_end_of_jpeg(path, data)
            if name == "PNG":
                _require_intact_png(path, data)
            facts = {"format": name, "mode": image.mode}
            software = image.info.get("Software")
            if name == "PNG" and isinstance(software, str):
                facts["software"] = software
            if name == "TIFF" and image.mode == "L" and _tiff_tag(image, 339) in (2, (2,)):
                raise UnreadableFile(
                    f"{path}: the TIFF holds signed 8-bit numbers, which have no display range.",
                    "Save the picture with unsigned 8 bits or with 16 bits.",
                )
            white_is_zero = name == "TIFF" and image.mode.startswith("I") and _tiff_tag(image, 262) == 0
            image.load()
            pixels = _as_display(path, _upright(image, name), white_is_zero)
    except _BROKEN as error:
        raise UnreadableFile(
            f"{path}: the {name} does not decode ({_first_line(error)}); it is truncated or damaged.",
            "Export or copy the file again.",
        ) from None
    return Picture(pixels, Frame.of_image(pixels.shape[:2]), facts)


def read_size(path: Path) -> tuple[int, int]:
    """(rows, columns) of a picture from its header alone, as `read_image` would give it.

    Raises:
        UnreadableFile: as `read_image`, or a DICOM file that does not state its size.
    """
    path = Path(path)
    head = _head(path)
    if has_dicom_mark(head) or (path.suffix.lower() in DICOM_SUFFIXES and _signature(head) is None):
        shape = read_header(path).shape
        if shape is None:
            raise UnreadableFile(f"{path}: the DICOM file does not state rows and columns.", "Export it again.")
        return shape
    found = _signature(head)
    if found is None:
        return read_image(path).frame.shape[0], read_image(path).frame.shape[1]
    name, opener = found
    try:
        with path.open("rb") as file, opener(BytesIO(file.read()), str(path)) as image:
            upright = _upright(image, name) if image.getexif().get(274, 1) != 1 else image
            return upright.height, upright.width
    except _BROKEN as error:
        raise UnreadableFile(
            f"{path}: the {name} does not decode ({_first_line(error)}).", "Export it again."
        ) from None


def find_images(path: Path) -> list[Path]:
    """Files that may be images: the file itself, or all in a folder and below it, sorted by path.

    A file counts by its suffix or by its content, so broken images, dangling links and pictures of other formats are
    listed too (reading them says what is wrong). Hidden files and folders and DICOMDIR indices are skipped, and links
    to folders are not followed (they may lead round in circles).

    Raises:
        UnreadableFile: nothing stands at the path, or a folder in it may not be read.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UnreadableFile(f"{path}: no such file or folder.", "Check the path.")
    found: list[Path] = []
    for folder, inner, names in os.walk(path, onerror=_refuse_closed_folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += (file for name in names if _may_be_image(file := Path(folder, name)))
    return sorted(found)


def _refuse_closed_folder(error: OSError) -> None:
    raise UnreadableFile(
        f"{error.filename}: the folder cannot be read ({error.strerror}).", "Check its permissions, or leave it out."
    )


def _may_be_image(file: Path) -> bool:
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
        return False
    known = file.suffix.lower() in PICTURE_SUFFIXES + DICOM_SUFFIXES + _OTHER_SUFFIXES
    if not file.is_file():
        return known and file.is_symlink()
    if known:
        return True
    try:
        head = _head(file)
    except UnreadableFile:
        return False
    return has_dicom_mark(head) or _signature(head) is not None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(132)
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be opened ({error.strerror}).", "Check path and permissions.") from None


def _signature(head: bytes) -> tuple[str, Callable[..., ImageFile.ImageFile]] | None:
    for mark, name, opener in _SIGNATURES:
        if head.startswith(mark):
            return name, opener
    return None


def _require_end_of_jpeg(path: Path, data: bytes) -> None:
    """Refuse a JPEG without its end mark: decoders fill what is missing with grey and say nothing.

    Bytes after the end mark (zeros, in 27 files of FracAtlas) do no harm and are ignored.
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


def _require_intact_png(path: Path, data: bytes) -> None:
    """Refuse a PNG with a chunk cut or changed: Pillow does not compare the checksums of pixel chunks."""
    position, kind = 8, b""
    while kind != b"IEND" and position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        checksum = zlib.crc32(memoryview(data)[position + 4 : end])
        if end + 4 > len(data) or checksum != int.from_bytes(data[end : end + 4], "big"):
            break
        position = end + 4
    else:
        if kind == b"IEND":
            return
    raise UnreadableFile(
        f"{path}: the PNG is truncated or damaged after {position} of its {len(data)} bytes.",
        "Export or copy the file again.",
    )


def _upright(image: Image.Image, name: str) -> Image.Image:
    """The picture turned as its EXIF orientation says; damaged EXIF data say nothing."""
    if name == "TIFF":  # Pillow turns these itself while loading
        return image
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:
        return image


def _as_display(path: Path, image: Image.Image, white_is_zero: bool) -> Pixels:
    mode = image.mode
    if mode.startswith("I"):
        stored: Any = np.asarray(image)
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        pixels = stretch_to_uint16(stored)
        return ~pixels if white_is_zero else pixels
    if mode == "F":
        raise UnreadableFile(
            f"{path}: the pixels are floating-point numbers without a display range; 8 or 16 bits were expected.",
            "Save the picture with 16 bits.",
        )
    if mode == "L":
        return np.asarray(image)
    if mode == "1":
        return np.asarray(image.convert("L"))
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        # what is see-through shows the black of a light box switched off
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    if image.mode != "RGB":
        image = image.convert("RGB")
    red, green, blue = image.split()
    grey = np.asarray(red)
    if grey.tobytes() == green.tobytes() == blue.tobytes():
        return grey
    return np.asarray(image)


def _tiff_tag(image: Image.Image, tag: int) -> object:
    return getattr(image, "tag_v2", {}).get(tag)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
