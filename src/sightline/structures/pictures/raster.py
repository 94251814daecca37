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

from sightline.errors import UnreadableFile, count_noun

# the largest digital radiographs (stitched spines, mammograms) have about 30 Mpx
MAX_PIXELS = 200_000_000
# what is turned into other forms while it is read: 12 bytes a pixel and more; with 16 bits a colour 40 and more
MAX_COLOUR_PIXELS, MAX_DEEP_COLOUR_PIXELS = 50_000_000, 16_000_000


def _refuse_unknown(*_: object) -> ImageFile.ImageFile:
    raise SyntaxError("unknown pixel mode")


# Pillow's classes are called directly: Image.open has a limit of its own. Of large TIFFs they know one order of bytes
_SIGNATURES: tuple[tuple[bytes, str, Callable[..., ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", PngImageFile),
    (b"\xff\xd8\xff", "JPEG", JpegImageFile),
    *((mark, "TIFF", TiffImageFile) for mark in (b"II*\x00", b"MM\x00*", b"II+\x00")),
    (b"MM\x00+", "TIFF", _refuse_unknown),
)
_BROKEN = (
    *(OSError, ValueError, SyntaxError, KeyError, IndexError, TypeError, EOFError, RuntimeError, OverflowError),
    *(struct.error, zlib.error),
)
_ORIENTATION, _PAGE_DEPTH = 274, 32997
_XMP = ("XML:com.adobe.xmp", "xmp")
# compressions of TIFF whose pixels need not be those that were saved: JPEG old, new, XR, XL and 2000; WebP
_LOSSY_TIFF = (6, 7, 22610, 33003, 33005, 34712, 34934, 50001, 50002)
_WEBP = (struct.pack("<HHIH", 259, 3, 1, 50001), struct.pack(">HHIH", 259, 3, 1, 50001))


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
    data = _read_bytes(path)
    found = find_picture_kind(data[:16])
    if found is None:
        raise UnreadableFile(
            f"{path}: the content is {'empty' if not data else 'neither PNG, JPEG nor TIFF'}.",
            "Save the picture in one of these formats.",
        )
    name, opener = found
    try:
        orientation, data = _take_orientation(data) if name == "TIFF" else (1, data)
        with opener(BytesIO(data), str(path)) as image:
            plain = image.mode in ("1", "L") or image.mode.startswith("I;16")
            require_sane_size(path, image.height, image.width, MAX_PIXELS if plain else MAX_COLOUR_PIXELS)
            pages = max(int(getattr(image, "n_frames", 1)), _read_first_number(_read_tag(image, _PAGE_DEPTH)) or 1)
            if pages > 1:
                raise UnreadableFile(
                    f"{path}: the {name} holds {count_noun(pages, 'picture')}; one was expected.",
                    "Save the page that is meant as a file of its own.",
                )
            _require_whole(path, name, data)
            if name == "TIFF" and image.mode == "L" and _read_tag(image, 339) in (2, (2,)):
                raise UnreadableFile(
                    f"{path}: the TIFF holds signed 8-bit numbers, which have no display range.",
                    "Save the picture with unsigned 8 bits or with 16 bits.",
                )
            if name != "TIFF":
                orientation = read_exif_orientation(image, data)
            deep = _read_deep_colour(path, image, name, data)
            image.load()
            indices = _read_saved_numbers(image, _find_grey_bits(name, image, data))
            values = _resolve_alpha(image, _read_png_depth(name, data)) if deep is None else deep
            if name == "TIFF" and image.mode.startswith("I") and _read_tag(image, 262) == 0:
                # white is zero; Pillow turns fewer bits over itself
                values = ~values if values.dtype.kind == "u" else values.max() + values.min() - values
            lossy = name == "JPEG" or (name == "TIFF" and _read_tag(image, 259) in _LOSSY_TIFF)
            software = str(image.info.get("Software") or "") if name == "PNG" else ""
            whole = Raster(values, name, image.mode, lossy, indices, _compute_aspect(image), software)
            return _turn_upright(whole, orientation)
    except _BROKEN as error:
        rare = _read_rare_tiff(path, data) if name == "TIFF" and isinstance(error, SyntaxError) else None
        if rare is not None:
            return _turn_upright(rare, orientation)
        raise _build_damage_error(path, name, error) from None


def measure_whole_png(path: Path) -> tuple[int, int]:
    """Rows and columns of a PNG of which nothing is missing, as `read_raster` would give them.

    Raises:
        UnreadableFile: as `read_raster`.
    """
    data = _read_bytes(path)
    rows, columns, _ = read_raster_frame(path, data)
    _require_whole(path, "PNG", data)
    return rows, columns


def read_raster_frame(path: Path, data: bytes | None = None) -> tuple[int, int, float]:
    """Rows, columns and the pixels' height over their width, as `read_raster` would give them, from the header alone.

    Args:
        path: the file.
        data: its bytes, where they are read already.

    Raises:
        UnreadableFile: as `read_raster`, as far as the header goes.
    """
    data = _read_bytes(path) if data is None else data
    found = find_picture_kind(data[:16])
    if found is None:
        raise UnreadableFile(f"{path}: the content is neither PNG, JPEG nor TIFF.", "Save the picture as one of these.")
    name, opener = found
    try:
        orientation, data = _take_orientation(data) if name == "TIFF" else (1, data)
        with opener(BytesIO(data), str(path)) as image:
            require_sane_size(path, image.height, image.width)
            orientation = orientation if name == "TIFF" else read_exif_orientation(image, data)
            rows, columns = image.height, image.width
            aspect = _compute_aspect(image)
            return (columns, rows, 1.0 / aspect) if orientation >= 5 else (rows, columns, aspect)
    except _BROKEN as error:
        if name == "TIFF" and isinstance(error, SyntaxError):  # what is this rare is read whole, or refused
            whole = read_raster(path)
            return whole.values.shape[0], whole.values.shape[1], whole.aspect
        raise _build_damage_error(path, name, error) from None


def find_picture_kind(head: bytes) -> tuple[str, Callable[..., ImageFile.ImageFile]] | None:
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


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be opened ({error.strerror}).", "Check path and permissions.") from None


def _build_damage_error(path: Path, name: str, error: BaseException) -> UnreadableFile:
    words = (str(error).splitlines() or [type(error).__name__])[0][:160]
    rare = "pixel mode" in words or "-bit layers" in words or (name == "TIFF" and words.isdecimal())
    webp = name == "TIFF" and any(map(path.read_bytes().__contains__, _WEBP))
    if rare or webp:  # whole, and of a kind that Pillow does not know
        what = "compressed as WebP" if webp else "bits, sign, white as zero, alpha or compression"
        words = f"{path}: how the {name} stores its pixels ({what}) is not read here."
        return UnreadableFile(words, "Save it without compression or with LZW, or as PNG with 8 or 16 bits.")
    return UnreadableFile(
        f"{path}: the {name} does not decode ({words}); it is truncated or damaged.", "Export or copy the file again."
    )


def _require_whole(path: Path, name: str, data: bytes) -> None:
    """Refuse a PNG or a JPEG of which something is missing; of a TIFF, decoding says so."""
    # imported with the first picture: what only reads tables does without
    from sightline.structures.pictures.completeness import require_end_of_jpeg, require_intact_png

    if name == "JPEG":
        require_end_of_jpeg(path, data)
    elif name == "PNG":
        require_intact_png(path, data)


def _read_png_depth(name: str, data: bytes) -> int:
    """Bits of a sample of a PNG (its header comes first); 8 elsewhere."""
    return data[24] if name == "PNG" and len(data) > 24 else 8


def _find_grey_bits(name: str, image: Image.Image, data: bytes) -> int:
    """Bits of a grey sample as it was saved; 8 where it is no grey, or has more."""
    bits = _read_png_depth(name, data) if name == "PNG" else _read_first_number(_read_tag(image, 258))
    return bits if bits is not None and bits < 8 and image.mode in ("L", "1") else 8


def _read_saved_numbers(image: Image.Image, bits: int) -> NDArray[np.uint8] | None:
    if image.mode == "P" or bits == 8:
        return np.asarray(image) if image.mode == "P" else None
    # Pillow spreads fewer bits over eight
    return np.asarray(image.convert("L")) // np.uint8(255 // (2**bits - 1))


def _resolve_alpha(image: Image.Image, depth: int) -> NDArray[Any]:
    """The pixels with palettes resolved and what is see-through black: [H, W] where all is grey, else [H, W, 3]."""
    mode, clear = image.mode, image.info.get("transparency")
    if mode == "F" or mode.startswith("I") or mode in ("L", "1"):
        grey: NDArray[Any] = np.asarray(image.convert("L") if mode == "1" else image)
        grey = grey.astype(grey.dtype.newbyteorder("="), copy=False)
        if mode == "I" and _read_tag(image, 258) in (32, (32,)) and _read_tag(image, 339) in (None, 1, (1,)):
            grey = grey.view(np.uint32)  # Pillow has no type for 32 bits without a sign
        if isinstance(clear, int) and mode != "F":
            # the see-through grey is said in the file's own bits, of which Pillow has made eight (of one bit itself)
            level = clear * 255 // (2**depth - 1) if 1 < depth < 8 else clear
            grey = np.where(grey == level, grey.dtype.type(0), grey)
        return grey
    if clear is not None or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layer = (image.convert("LA") if mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    return reduce_to_grey(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))


def reduce_to_grey(colour: NDArray[Any]) -> NDArray[Any]:
    """Colours [h, w, 3] as [h, w] where all of them are grey; else as they are."""
    first = colour[..., 0]
    grey = (first == colour[..., 1]).all() and (first == colour[..., 2]).all()
    return np.ascontiguousarray(first) if grey else colour


def _read_deep_colour(path: Path, image: Image.Image, name: str, data: bytes) -> NDArray[Any] | None:
    """16 bits of several samples a pixel, of which Pillow would keep eight; None where there is no such thing."""
    if name == "PNG" and _read_png_depth(name, data) == 16 and image.mode not in ("I;16", "I"):
        import imagecodecs

        require_sane_size(path, image.height, image.width, MAX_DEEP_COLOUR_PIXELS)
        samples: NDArray[Any] = imagecodecs.png_decode(data)
        colours = 1 if samples.shape[-1] == 2 else 3
        alpha = samples[..., -1] if samples.shape[-1] in (2, 4) else None
        clear = image.info.get("transparency")
        if alpha is None and isinstance(clear, tuple):
            alpha = np.where((samples[..., :3] == np.array(clear)).all(axis=-1), 0, 65535).astype(np.uint16)
        return _blend_on_black(samples[..., :colours], alpha)
    bits = _read_tag(image, 258) if name == "TIFF" else None
    if isinstance(bits, tuple) and len(bits) > 1 and set(bits) == {16} and _read_tag(image, 262) in (1, 2):
        rare = _read_rare_tiff(path, data)
        if rare is None:
            raise _build_damage_error(path, name, SyntaxError("unknown pixel mode"))
        return rare.values
    return None


def _read_rare_tiff(path: Path, data: bytes) -> Raster | None:
    """A TIFF that Pillow does not know or would cut to eight bits, not yet turned; None for what nobody here knows."""
    import tifffile

    try:
        with tifffile.TiffFile(BytesIO(data)) as file:
            page, white = file.pages.first, file.pages.first.photometric == 0
            kind, more = np.dtype(page.dtype or "V1"), [int(extra) for extra in page.extrasamples]
            colours = 3 if page.photometric == 2 else 1
            known = page.photometric in (0, 1, 2) and page.samplesperpixel == colours + len(more) and kind.kind in "uif"
            # of white as zero, a sign could mean two things, and so could alpha that is multiplied in already
            known = known and not (white and (kind.kind != "u" or more[:1] == [1])) and (colours == 3 or len(more) < 2)
            known = known and kind != np.int8 and (kind.kind == "u" or not more)
            if not known or len(file.pages) > 1 or page.imagedepth > 1:
                return None
            plain = page.samplesperpixel == 1 and kind.itemsize <= 2
            most = MAX_PIXELS if plain else MAX_DEEP_COLOUR_PIXELS
            require_sane_size(path, page.imagelength, page.imagewidth, most)
            ends = [start + n for start, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if not ends or max(ends) > len(data) or 0 in page.databytecounts:
                raise OSError("the pixels end early")
            planes = page.asarray().reshape(page.shape)
            if planes.ndim == 3 and page.planarconfig == 2:
                planes = np.moveaxis(planes, 0, -1)
            across, down = (page.tags[tag].value if tag in page.tags else (1, 1) for tag in (282, 283))
            aspect = _limit_aspect(across[0] * down[1], across[1] * down[0])
            lossy, bits = int(page.compression) in _LOSSY_TIFF, int(page.bitspersample)
    except (*_BROKEN, tifffile.TiffFileError):
        return None
    planes = planes.reshape(*planes.shape[:2], -1)
    numbers = None
    if kind == np.uint8 and bits < 8:
        numbers, planes = planes[..., 0], planes * (255.0 / (2**bits - 1))
        planes = np.rint(planes).astype(np.uint8)
    shown = ~planes[..., :colours] if white else planes[..., :colours]
    # alpha of kind 1: the colours are multiplied by it already, which is how they look on black
    values = _blend_on_black(shown, planes[..., colours] if more[:1] == [2] else None)
    return Raster(values, "TIFF", f"{kind.name} x {planes.shape[-1]}", lossy, numbers, aspect)


def _blend_on_black(colour: NDArray[Any], alpha: NDArray[Any] | None) -> NDArray[Any]:
    if alpha is not None:
        share = alpha[..., None].astype(np.float64) / np.iinfo(alpha.dtype).max
        colour = np.rint(colour * share).astype(colour.dtype)
    return np.ascontiguousarray(colour[..., 0]) if colour.shape[-1] == 1 else reduce_to_grey(colour)


def read_exif_orientation(image: Image.Image, data: bytes) -> int:
    """The orientation that EXIF data say, which browsers heed, and not that of XMP; damaged ones say nothing."""
    try:
        if isinstance(image, PngImageFile):
            # Pillow decodes all pixels to look behind them: only where something may be there
            if b"eXIf" not in data and b"Raw profile type exif" not in data:
                return 1
            image.load()
        for key in _XMP:
            image.info.pop(key, None)
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _take_orientation(data: bytes) -> tuple[int, bytes]:
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


def _turn_upright(raster: Raster, orientation: int) -> Raster:
    """The raster turned, from how EXIF 2.3 numbers the eight ways in which it may be stored."""

    def turn(values: NDArray[Any]) -> NDArray[Any]:
        values = values.swapaxes(0, 1) if orientation >= 5 else values
        values = values[::-1] if orientation in (3, 4, 7, 8) else values
        return np.ascontiguousarray(values[:, ::-1] if orientation in (2, 3, 6, 7) else values)

    indices = None if raster.indices is None else turn(raster.indices)
    aspect = 1.0 / raster.aspect if orientation >= 5 else raster.aspect
    return replace(raster, values=turn(raster.values), indices=indices, aspect=aspect)


def _compute_aspect(image: Image.Image) -> float:
    """Height of a stored pixel over its width, where the file states both; absurd ones count as not stated."""
    across, down = image.info.get("aspect") or image.info.get("jfif_density") or (1, 1)
    if isinstance(image, TiffImageFile):
        across, down = _read_tag(image, 282) or 1, _read_tag(image, 283) or 1
    elif isinstance(image, PngImageFile) and "dpi" in image.info:
        across, down = image.info["dpi"]
    return _limit_aspect(across, down)


def _limit_aspect(across: Any, down: Any) -> float:
    try:
        # pixels a length: more of them are smaller ones
        aspect = float(across) / float(down)
    except (TypeError, ValueError, ZeroDivisionError):
        return 1.0
    return 1.0 if not 0.1 <= aspect <= 10.0 or abs(aspect - 1.0) < 0.01 else aspect


def _read_first_number(value: object) -> int | None:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _read_tag(image: Image.Image, tag: int) -> object:
    return image.tag_v2.get(tag) if isinstance(image, TiffImageFile) else None
