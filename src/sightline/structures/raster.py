"""What one picture file holds: one page, upright, opaque, every bit of it. Pictures and masks are read here alike.

PNG, JPEG and TIFF are known by content. Palettes become colours, what is see-through shows black (a light box switched
off), EXIF and TIFF orientations are applied, 16 bits stay 16 bits in colour too, and white-is-zero becomes
black-is-zero.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sightline.errors import UnreadableFile

# the largest digital radiographs (stitched spines, mammograms) have about 30 Mpx
MAX_PIXELS = 200_000_000
# what is turned into other forms while it is read: 12 bytes a pixel and more; with 16 bits a colour 40 and more
MAX_COLOUR_PIXELS, MAX_DEEP_COLOUR_PIXELS = 50_000_000, 16_000_000
# Pillow's format classes are called directly, because Image.open compares sizes with a limit of its own
_SIGNATURES: tuple[tuple[bytes, str, Callable[..., ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", PngImageFile),
    (b"\xff\xd8\xff", "JPEG", JpegImageFile),
    *((mark, "TIFF", TiffImageFile) for mark in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")),
)
_BROKEN = (
    *(OSError, ValueError, SyntaxError, KeyError, IndexError, TypeError, EOFError, RuntimeError, OverflowError),
    *(struct.error, zlib.error),
)
_ORIENTATION = 274
# compressions of TIFF whose pixels are not those that were saved: JPEG, old and new, and JPEG 2000
_LOSSY_TIFF = (6, 7, 33003, 33005, 34712)


@dataclass(frozen=True, eq=False)
class Raster:
    """One picture file, decoded.

    Attributes:
        values: [H, W] or [H, W, 3], in the file's own type; colours that are all grey are [H, W].
        kind: `PNG`, `JPEG` or `TIFF`.
        mode: Pillow's word for how the pixels are stored.
        lossy: the values need not be those that were saved.
        indices: [H, W], the numbers that were saved where the values are none of them: entries of a palette, grey of
            less than eight bits.
        aspect: height of a pixel over its width; 1 where the file does not say.
        software: what made the file, as a PNG says.
    """

    values: NDArray[Any]
    kind: str
    mode: str
    lossy: bool
    indices: NDArray[np.uint8] | None = None
    aspect: float = 1.0
    software: str = ""


def read_raster(path: Path) -> Raster:
    """Read a PNG, JPEG or TIFF file.

    Raises:
        UnreadableFile: missing, of another type, truncated, of several pages, or of an absurd size.
    """
    data = _bytes_of(path)
    found = picture_kind(data[:16])
    if found is None:
        raise UnreadableFile(
            f"{path}: the content is {'empty' if not data else 'neither PNG, JPEG nor TIFF'}.",
            "Save the picture in one of these formats.",
        )
    name, opener = found
    try:
        orientation, data = _taken_orientation(data) if name == "TIFF" else (1, data)
        with opener(BytesIO(data), str(path)) as image:
            plain = image.mode in ("1", "L") or image.mode.startswith("I;16")
            require_sane_size(path, image.height, image.width, MAX_PIXELS if plain else MAX_COLOUR_PIXELS)
            pages = int(getattr(image, "n_frames", 1))
            if pages > 1:
                raise UnreadableFile(
                    f"{path}: the {name} holds {pages} pictures; one was expected.",
                    "Save the page that is meant as a file of its own.",
                )
            if name == "JPEG":
                _require_end_of_jpeg(path, data)
            if name == "PNG":
                _require_intact_png(path, data)
            if name == "TIFF" and image.mode == "L" and _tag(image, 339) in (2, (2,)):
                raise UnreadableFile(
                    f"{path}: the TIFF holds signed 8-bit numbers, which have no display range.",
                    "Save the picture with unsigned 8 bits or with 16 bits.",
                )
            if name != "TIFF":
                orientation = _exif_orientation(image)
            deep = _deep_colour(path, image, name, data)
            image.load()
            indices = _saved_numbers(image, _grey_bits(name, image, data))
            values = _opaque(image, _png_depth(name, data)) if deep is None else deep
            if name == "TIFF" and image.mode.startswith("I") and _tag(image, 262) == 0:
                # white is zero; Pillow turns fewer bits over itself
                values = ~values if values.dtype.kind == "u" else values.max() + values.min() - values
            lossy = name == "JPEG" or (name == "TIFF" and _tag(image, 259) in _LOSSY_TIFF)
            software = image.info.get("Software") if name == "PNG" else None
            return Raster(
                _turned(values, orientation),
                name,
                image.mode,
                lossy,
                None if indices is None else _turned(indices, orientation),
                _aspect(image, orientation),
                software if isinstance(software, str) else "",
            )
    except _BROKEN as error:
        if "pixel mode" in str(error) and (page := _deep_grey(path, data)) is not None:
            aspect = 1.0 / page.aspect if orientation >= 5 else page.aspect
            return replace(page, values=_turned(page.values, orientation), aspect=aspect)
        raise _damaged(path, name, error) from None


def raster_frame(path: Path) -> tuple[int, int, float]:
    """Rows, columns and the pixels' height over their width, as `read_raster` would give them, from the header alone.

    Raises:
        UnreadableFile: as `read_raster`, as far as the header goes.
    """
    data = _bytes_of(path)
    found = picture_kind(data[:16])
    if found is None:
        raise UnreadableFile(f"{path}: the content is neither PNG, JPEG nor TIFF.", "Save the picture as one of these.")
    name, opener = found
    try:
        orientation, data = _taken_orientation(data) if name == "TIFF" else (1, data)
        with opener(BytesIO(data), str(path)) as image:
            require_sane_size(path, image.height, image.width)
            orientation = orientation if name == "TIFF" else _exif_orientation(image)
            rows, columns = image.height, image.width
            aspect = _aspect(image, orientation)
            return (columns, rows, aspect) if orientation >= 5 else (rows, columns, aspect)
    except _BROKEN as error:
        if "pixel mode" in str(error):  # what is this rare is read whole, or refused
            whole = read_raster(path)
            return whole.values.shape[0], whole.values.shape[1], whole.aspect
        raise _damaged(path, name, error) from None


def picture_kind(head: bytes) -> tuple[str, Callable[..., ImageFile.ImageFile]] | None:
    """The name of a format and what opens it, by the first bytes of a file; None where it is none of ours."""
    for mark, name, opener in _SIGNATURES:
        if head.startswith(mark):
            return name, opener
    return None


def require_sane_size(file: Path, rows: int, columns: int, most: int = MAX_PIXELS) -> None:
    """Refuse empty and absurd sizes before memory is spent on them.

    Raises:
        UnreadableFile: a side is below 1, or the area is above `most` pixels.
    """
    if rows < 1 or columns < 1:
        raise UnreadableFile(
            f"{file}: the size is stated as {rows} x {columns} pixels; at least 1 x 1 was expected.",
            "Export the image again from its source.",
        )
    if rows * columns > most:
        raise UnreadableFile(
            f"{file}: the size is stated as {rows} x {columns} = {rows * columns / 1e6:.0f} million pixels; "
            f"at most {most / 1e6:.0f} million are read{'' if most == MAX_PIXELS else ' where it is not plain grey'}.",
            "If the size is right, reduce the image first; if not, the header is broken: export it again.",
        )


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be opened ({error.strerror}).", "Check path and permissions.") from None


def _damaged(path: Path, name: str, error: BaseException) -> UnreadableFile:
    words = (str(error).splitlines() or [type(error).__name__])[0][:160]
    if "pixel mode" in words or "Missing dimensions" in words:
        # whole, and of a kind that Pillow does not know
        return UnreadableFile(
            f"{path}: how the {name} stores its pixels (bits, sign, white as zero, alpha) is not read here.",
            "Save it as PNG with 8 or 16 bits.",
        )
    return UnreadableFile(
        f"{path}: the {name} does not decode ({words}); it is truncated or damaged.", "Export or copy the file again."
    )


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


def _png_depth(name: str, data: bytes) -> int:
    """Bits of a sample of a PNG (its header comes first); 8 elsewhere."""
    return data[24] if name == "PNG" and len(data) > 24 else 8


def _grey_bits(name: str, image: Image.Image, data: bytes) -> int:
    """Bits of a grey sample as it was saved; 8 where it is no grey, or has more."""
    bits: object = _png_depth(name, data) if name == "PNG" else _tag(image, 258)
    bits = bits[0] if isinstance(bits, tuple) and len(bits) == 1 else bits
    return bits if isinstance(bits, int) and bits < 8 and image.mode in ("L", "1") else 8


def _saved_numbers(image: Image.Image, bits: int) -> NDArray[np.uint8] | None:
    if image.mode == "P":
        return np.asarray(image)
    if bits == 8:
        return None
    # Pillow spreads fewer bits over eight
    return np.asarray(image.convert("L")) // np.uint8(255 // (2**bits - 1))


def _opaque(image: Image.Image, depth: int) -> NDArray[Any]:
    """The pixels with palettes resolved and what is see-through black: [H, W] where all is grey, else [H, W, 3]."""
    mode, clear = image.mode, image.info.get("transparency")
    if mode == "F" or mode.startswith("I") or mode in ("L", "1"):
        grey: NDArray[Any] = np.asarray(image.convert("L") if mode == "1" else image)
        grey = grey.astype(grey.dtype.newbyteorder("="), copy=False)
        if mode == "I" and _tag(image, 258) in (32, (32,)) and _tag(image, 339) in (None, 1, (1,)):
            grey = grey.view(np.uint32)  # Pillow has no type for 32 bits without a sign
        if isinstance(clear, int) and mode != "F":
            # the see-through grey is said in the file's own bits, of which Pillow has made eight (of one bit itself)
            level = clear * 255 // (2**depth - 1) if 1 < depth < 8 else clear
            grey = np.where(grey == level, grey.dtype.type(0), grey)
        return grey
    if clear is not None or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layer = (image.convert("LA") if mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    return _grey_if_grey(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))


def _grey_if_grey(colour: NDArray[Any]) -> NDArray[Any]:
    first = colour[..., 0]
    if (first == colour[..., 1]).all() and (first == colour[..., 2]).all():
        return np.ascontiguousarray(first)
    return colour


def _deep_colour(path: Path, image: Image.Image, name: str, data: bytes) -> NDArray[Any] | None:
    """16 bits of several samples a pixel, of which Pillow would keep eight; None where there is no such thing."""
    if name == "PNG" and _png_depth(name, data) == 16 and image.mode not in ("I;16", "I"):
        import imagecodecs

        require_sane_size(path, image.height, image.width, MAX_DEEP_COLOUR_PIXELS)
        samples: NDArray[Any] = imagecodecs.png_decode(data)
        colours = 1 if samples.shape[-1] == 2 else 3
        alpha = samples[..., -1] if samples.shape[-1] in (2, 4) else None
        clear = image.info.get("transparency")
        if alpha is None and isinstance(clear, tuple):
            alpha = np.where((samples[..., :3] == np.array(clear)).all(axis=-1), 0, 65535).astype(np.uint16)
        return _laid_on_black(samples[..., :colours], alpha)
    bits = _tag(image, 258) if name == "TIFF" else None
    if isinstance(bits, tuple) and len(bits) > 1 and set(bits) == {16} and _tag(image, 262) in (1, 2):
        import tifffile

        require_sane_size(path, image.height, image.width, MAX_DEEP_COLOUR_PIXELS)
        with tifffile.TiffFile(BytesIO(data)) as file:
            samples = file.pages[0].asarray()
        if samples.dtype != np.uint16 or samples.ndim != 3:
            raise UnreadableFile(
                f"{path}: the TIFF holds {samples.dtype} numbers of shape {samples.shape}; grey or colour with 8 or "
                "16 bits was expected.",
                "Save the picture with unsigned 8 or 16 bits.",
            )
        if samples.shape[0] == len(bits) and _tag(image, 284) in (2, (2,)):
            samples = np.moveaxis(samples, 0, -1)
        colours = 3 if _tag(image, 262) == 2 else 1
        more = _tag(image, 338)
        more = more if isinstance(more, tuple) else (more,)
        see_through = samples.shape[-1] > colours and more[0] in (1, 2)
        # 1: the colours are multiplied by it already, which is how they look on black
        return _laid_on_black(samples[..., :colours], samples[..., colours] if see_through and more[0] == 2 else None)
    return None


def _deep_grey(path: Path, data: bytes) -> Raster | None:
    """A grey 16-bit TIFF that Pillow does not know: white as zero in big-endian order, or alpha; None for others."""
    import tifffile

    try:
        with tifffile.TiffFile(BytesIO(data)) as file:
            page, white = file.pages.first, file.pages.first.photometric == 0
            more = tuple(int(kind) for kind in page.extrasamples)
            known = page.dtype == np.uint16 and page.photometric in (0, 1) and page.samplesperpixel == 1 + len(more)
            # of white as zero, alpha that is multiplied in already could mean two things
            if not known or len(file.pages) > 1 or len(more) > 1 or (white and more == (1,)):
                return None
            require_sane_size(path, page.imagelength, page.imagewidth, MAX_DEEP_COLOUR_PIXELS)
            planes = page.asarray().reshape(page.shape)
            if more and page.planarconfig == 2:
                planes = np.moveaxis(planes, 0, -1)
            across, down = (page.tags[tag].value if tag in page.tags else (1, 1) for tag in (282, 283))
            aspect = _sane_aspect(across[0] * down[1], across[1] * down[0])
    except (*_BROKEN, tifffile.TiffFileError):
        return None
    planes = planes.reshape(*planes.shape[:2], -1)
    grey = ~planes[..., :1] if white else planes[..., :1]
    values = _laid_on_black(grey, planes[..., 1] if more == (2,) else None)
    return Raster(values, "TIFF", "LA;16" if more else "I;16", int(page.compression) in _LOSSY_TIFF, aspect=aspect)


def _laid_on_black(colour: NDArray[Any], alpha: NDArray[Any] | None) -> NDArray[Any]:
    if alpha is not None:
        share = alpha[..., None].astype(np.float64) / np.iinfo(alpha.dtype).max
        colour = np.rint(colour * share).astype(colour.dtype)
    return np.ascontiguousarray(colour[..., 0]) if colour.shape[-1] == 1 else _grey_if_grey(colour)


def _exif_orientation(image: Image.Image) -> int:
    """The orientation that EXIF data say; damaged ones say nothing."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _taken_orientation(data: bytes) -> tuple[int, bytes]:
    """A TIFF's orientation, and its bytes without one: Pillow scrambles uncompressed pictures that it turns."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    try:
        at = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)[0]
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        at += 8 if big else 2
        for entry in range(at, at + min(count, 4096) * (20 if big else 12), 20 if big else 12):
            tag, kind = struct.unpack_from(order + "HH", data, entry)
            if tag == _ORIENTATION and kind in (3, 4):  # some write a long number
                place, form = entry + (12 if big else 8), order + ("H" if kind == 3 else "L")
                value = struct.unpack_from(form, data, place)[0]
                plain = data[:place] + struct.pack(form, 1) + data[place + struct.calcsize(form) :]
                return (value if 1 <= value <= 8 else 1), plain
    except struct.error:
        pass  # damaged: opening it says so
    return 1, data


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The pixels upright, from how EXIF 2.3 numbers the eight ways in which they may be stored."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)


def _aspect(image: Image.Image, orientation: int) -> float:
    """Height of an upright pixel over its width, where the file states both; absurd ones count as not stated."""
    across, down = image.info.get("aspect") or image.info.get("jfif_density") or (1, 1)
    if isinstance(image, TiffImageFile):
        across, down = _tag(image, 282) or 1, _tag(image, 283) or 1
    elif isinstance(image, PngImageFile) and "dpi" in image.info:
        across, down = image.info["dpi"]
    aspect = _sane_aspect(across, down)
    return 1.0 / aspect if orientation >= 5 else aspect


def _sane_aspect(across: Any, down: Any) -> float:
    try:
        # pixels a length: more of them are smaller ones
        aspect = float(across) / float(down)
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0
    return 1.0 if not 0.1 <= aspect <= 10.0 or abs(aspect - 1.0) < 0.01 else aspect


def _tag(image: Image.Image, tag: int) -> object:
    return image.tag_v2.get(tag) if isinstance(image, TiffImageFile) else None
