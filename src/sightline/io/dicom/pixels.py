"""Stored DICOM pixels through permissively licensed decoders, exactly as stored or not at all."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import generate_fragments, get_frame, parse_basic_offsets
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_j2k_parameters

from sightline.errors import UnreadableFile, count_noun
from sightline.io.picture import require_sane_size

NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
# pydicom decodes the one kind with GPL packages only, so libjpeg-turbo (through imagecodecs) does it here
DEEP_JPEG = frozenset({uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})
ENDS_WITH_MARK = DEEP_JPEG | {uid.JPEGBaseline8Bit, uid.JPEGLSLossless, uid.JPEGLSNearLossless}
BY_PYDICOM = frozenset(
    {
        uid.RLELossless,
        uid.JPEGBaseline8Bit,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
    }
)
JPEG_2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K})
BY_PYDICOM |= JPEG_2000
LOSSLESS = NATIVE | {
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
}
# lossy codecs overshoot the stored range by a little; this share of it is more than that
OVERSHOOT = 1 / 16
# with which a JPEG 2000 file begins, and with a JPEG and a bare JPEG 2000 stream all that pixels may begin with
JP2_START = b"\0\0\0\x0cjP  "
START_MARKS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", JP2_START)
# segments with which a JPEG of any process, and a JPEG-LS, state their size
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
# some writers round the pixel data up
MAX_TRAILING_BYTES = 1024


def decode_pixels(header: Any, file: Path, *, frame: int | None = None) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Decode the one frame of a grey image, or one of several.

    Args:
        header: the pydicom Dataset, read with its pixels.
        file: named in errors.
        frame: which of several, from 0; None where there must be one.

    Returns:
        index: uint16 [H, W] below 2 ** BitsStored, the bit pattern of every pixel.
        values: int64 [2 ** BitsStored], the stored value that each pattern means (negative when signed).

    Raises:
        UnreadableFile: no pixels, several frames, colour, an unknown codec, a truncated stream or an absurd size.
    """
    _require_pixels(header, file)
    rows, columns = _read_whole_number(header, "Rows", file), _read_whole_number(header, "Columns", file)
    require_sane_size(file, rows, columns)
    _require_grey(header, file, several=frame is not None)
    bits, allocated, shift = _read_bits(header, file)
    signed = _read_whole_number(header, "PixelRepresentation", file, 0) == 1
    syntax = header.file_meta.TransferSyntaxUID
    try:
        array = _decode(header, file, syntax, frame or 0)
    except UnreadableFile:
        raise
    except BaseException as error:  # decoders meet foreign bytes and raise whatever they like
        # those in Rust panic, which Python does not count among its exceptions
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UnreadableFile(
            f"{file}: the pixels ({syntax.name}) do not decode; they are truncated or damaged "
            f"({' '.join(str(error).split())[:200]}).",
            "Export or copy the file again.",
        ) from None
    if array.shape != (rows, columns):
        raise UnreadableFile(
            f"{file}: the header states {rows} x {columns} pixels, the pixel data hold {array.shape}.",
            "Export the image again from its source.",
        )
    patterns = np.arange(2**bits, dtype=np.int64)
    values = np.where(patterns >= 2 ** (bits - 1), patterns - 2**bits, patterns) if signed else patterns
    if syntax in NATIVE:
        index = _extract_stored_bits(header, file, array, (bits, allocated, shift), signed=signed)
    else:
        index = _check_decoded_bits(file, array, bits, signed=signed, lossy=syntax not in LOSSLESS) & (2**bits - 1)
    return index.astype(np.uint16), values


def _extract_stored_bits(
    header: Any, file: Path, array: NDArray[Any], bits: tuple[int, int, int], *, signed: bool
) -> NDArray[np.int64]:
    """The stored bits of uncompressed pixels; what stands beside them must be overlays or repeat the sign."""
    stored, allocated, shift = bits
    raw = array.astype(np.int64) & (2**allocated - 1)
    mask = 2**stored - 1
    index: NDArray[np.int64] = (raw >> shift) & mask
    beside = raw & ~np.int64(mask << shift)
    if not beside.any():
        return index
    above = (2**allocated - 1) & ~(2 ** (stored + shift) - 1)
    if signed and np.array_equal(beside, np.where(index >= 2 ** (stored - 1), above, 0)):
        return index
    overlays = 0
    for group in range(0x6000, 0x6020, 2):
        place = header.get((group, 0x0102))
        if place is not None and header.get((group, 0x3000)) is None:
            overlays |= 1 << int(place.value or 0)
    strange = beside & ~np.int64(overlays)
    # what all pixels have alike cannot be part of their values
    if strange.min() != strange.max():
        raise UnreadableFile(
            f"{file}: the header states {stored} bits a pixel (high bit {stored + shift - 1}), but "
            f"{np.count_nonzero(strange) / strange.size:.0%} of the pixels hold bits beside these (values to "
            f"{int(raw.max())}); cut off, they would wrap round.",
            "Export the image again from its source: BitsStored, HighBit or PixelRepresentation is wrong.",
        )
    return index


def _check_decoded_bits(file: Path, array: NDArray[Any], bits: int, *, signed: bool, lossy: bool) -> NDArray[np.int64]:
    """Decoded values that fit the stored bits: as they are, or as patterns whose sign the codec did not know."""
    values = array.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if signed and high >= 2**15:
        # sixteen bits that a codec took for numbers from 0
        values = np.where(values >= 2**15, values - 2**16, values)
        low, high = int(values.min()), int(values.max())
    half = 2 ** (bits - 1)
    room = int(OVERSHOOT * 2**bits) if lossy else 0
    if signed and low >= 0 and half + room <= high < 2 * half + room:
        least, most = 0, 2 * half - 1  # patterns: the upper half means the negative numbers
    else:
        least, most = compute_stored_range(bits, signed=signed)
    if low < least - room or high > most + room:
        raise UnreadableFile(
            f"{file}: the header states {bits} {'signed ' if signed else ''}bits a pixel, from {least} to {most}; the "
            f"compressed pixels reach from {low} to {high}.",
            "Export the image again from its source: BitsStored or PixelRepresentation is wrong.",
        )
    # lossy codecs overshoot: a value beyond the stored bits must stay white, not wrap round to black
    return np.clip(values, least, most)


def compute_stored_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """The least and the largest number that so many bits hold."""
    below = 2 ** (bits - 1) if signed else 0
    return -below, 2**bits - 1 - below


def require_syntax(header: Any, file: Path) -> None:
    """Refuse files that do not say how they are encoded, or say so in a way no decoder here knows.

    Raises:
        UnreadableFile: the transfer syntax is absent or unknown.
    """
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    if not syntax or not isinstance(syntax, uid.UID):
        raise UnreadableFile(
            f"{file}: the file does not state its transfer syntax (0002,0010), so its bytes cannot be interpreted.",
            "Export the image again as a DICOM file with complete meta information.",
        )
    if syntax not in NATIVE | DEEP_JPEG | BY_PYDICOM:
        raise UnreadableFile(
            f"{file}: no decoder for the transfer syntax {syntax.name} ({syntax}).",
            "Export the image uncompressed, or as JPEG 2000, JPEG-LS, RLE or JPEG lossless.",
        )


def _require_pixels(header: Any, file: Path) -> None:
    if "PixelData" in header and len(header.PixelData or b"") > 0:
        return
    if "FloatPixelData" in header or "DoubleFloatPixelData" in header:
        raise UnreadableFile(
            f"{file}: the pixels are floating-point numbers (a computed map), not a radiograph.",
            "Give the radiograph that the map was computed from.",
        )
    # a copy that ends early may hold no more of its class than the file meta information
    named = header.get("SOPClassUID") or getattr(header.file_meta, "MediaStorageSOPClassUID", None)
    kind = " ".join(getattr(named, "name", "").split())[:100] or "an object without a class"
    if "Rows" in header or "PixelData" in header or len(header) == 0 or "Image Storage" in kind:
        raise UnreadableFile(
            f"{file}: the file ends before its pixels; it is truncated or a header without its image.",
            "Export or copy the file again.",
        )
    raise UnreadableFile(
        f"{file}: not an image but {kind} (modality {header.get('Modality') or 'not stated'}).",
        "Leave the file out; give the radiographs of the study.",
    )


def _require_grey(header: Any, file: Path, *, several: bool) -> None:
    frames = _read_whole_number(header, "NumberOfFrames", file, 1)
    if frames > 1 and not several:
        raise UnreadableFile(
            f"{file}: the image has {count_noun(frames, 'frame')}; a radiograph has one.",
            "Export the frame you need as one image.",
        )
    photometric = str(header.get("PhotometricInterpretation") or "")
    samples = _read_whole_number(header, "SamplesPerPixel", file, 1)
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        raise UnreadableFile(
            f"{file}: the photometric interpretation is {photometric or 'not stated'} with "
            f"{count_noun(samples, 'sample')} a pixel; "
            "MONOCHROME1 or MONOCHROME2 with one was expected.",
            "Give the grey original, not a colour copy or screenshot.",
        )


def _read_bits(header: Any, file: Path) -> tuple[int, int, int]:
    """Bits stored, bits allocated, and how far the stored bits stand above bit 0."""
    allocated = _read_whole_number(header, "BitsAllocated", file)
    stored = _read_whole_number(header, "BitsStored", file, allocated)
    high = _read_whole_number(header, "HighBit", file, stored - 1)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise UnreadableFile(
            f"{file}: {allocated} bits allocated, {stored} stored, high bit {high}; "
            "8 or 16 allocated with the stored bits inside them were expected.",
            "Export the image again with 8 or 16 bits.",
        )
    native = header.file_meta.TransferSyntaxUID in NATIVE
    return stored, allocated, high + 1 - stored if native else 0


def has_end_mark(frame: bytes) -> bool:
    """Whether a JPEG or JPEG 2000 stream is whole; its end mark may be followed by a padding byte or two."""
    return b"\xff\xd9" in frame[-16:]


def _decode(header: Any, file: Path, syntax: uid.UID, number: int) -> NDArray[Any]:
    if syntax not in NATIVE:
        _require_stated_frames(header, file, syntax)
    if syntax in ENDS_WITH_MARK | JPEG_2000:
        frames = _read_whole_number(header, "NumberOfFrames", file, 1)
        frame = get_frame(header.PixelData, number, number_of_frames=frames)
        _require_size_of_stream(header, frame, file)
    if syntax in ENDS_WITH_MARK:
        # a JPEG decoder fills what is missing with grey
        if not has_end_mark(frame):
            raise UnreadableFile(
                f"{file}: the JPEG stream ends before its end mark; the file is truncated.",
                "Export or copy the file again.",
            )
        if syntax in DEEP_JPEG:
            import imagecodecs

            decoded: NDArray[Any] = imagecodecs.jpeg8_decode(frame)
            return decoded
    if syntax in NATIVE:
        _require_no_more(header, file)
    elif syntax in JPEG_2000:
        _require_sound_boxes(frame, file)
        if (
            get_j2k_parameters(frame).get("is_signed")
            and _read_whole_number(header, "PixelRepresentation", file, 0) == 0
        ):
            raise UnreadableFile(
                f"{file}: the JPEG 2000 stream holds numbers with a sign, the header states PixelRepresentation 0: "
                "numbers from 0.",
                "Export the image again from its source: PixelRepresentation is wrong.",
            )
    for keyword in ("SamplesPerPixel", "PixelRepresentation"):
        # pydicom asks for them, and what is not stated is no damage
        _read_whole_number(header, keyword, file)
    # the options keep pydicom from rounding off unused bits: overlays, shifts and overshoot are told apart here
    array, _ = get_decoder(syntax).as_array(header, raw=True, index=number, correct_unused_bits=False)
    native: NDArray[Any] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native


def _require_size_of_stream(header: Any, frame: bytes, file: Path) -> None:
    """Refuse a stream of another size or of more samples than the header states: its pixels are laid out by that."""
    stated = tuple(_read_whole_number(header, w, file, 1) for w in ("Rows", "Columns", "SamplesPerPixel"))
    size = read_stream_size(frame)
    if size is not None and size != stated:
        words = "{} x {} pixels of {}"
        raise UnreadableFile(
            f"{file}: the header states {words.format(*stated)} sample, the compressed stream {words.format(*size)}; "
            "the same was expected of both.",
            "Export the image again from its source.",
        )


def read_stream_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and samples a pixel as a JPEG, JPEG-LS or JPEG 2000 stream states them; None where it does not."""
    at = frame.find(START_MARKS[1]) if frame.startswith(START_MARKS[1:]) else -1
    if at >= 0:  # the far corner, and from where the picture begins
        columns, rows, left, top = (int.from_bytes(frame[at + n : at + n + 4], "big") for n in (8, 12, 16, 20))
        return rows - top, columns - left, int.from_bytes(frame[at + 40 : at + 42], "big")
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != 0xDA:
        if frame[at + 1] in _JPEG_FRAMES:
            rows, columns = int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
            return (rows, columns, frame[at + 9]) if rows and columns else None  # a size that comes later
        # 0xFF alone is padding
        at += 1 if frame[at + 1] == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _require_sound_boxes(frame: bytes, file: Path) -> None:
    """Refuse a JPEG 2000 file inside the pixel data one of whose boxes has no length: pydicom would look for ever."""
    position = 12
    while frame.startswith(JP2_START) and frame[position + 4 : position + 8] not in (b"jp2c", b""):
        length = int.from_bytes(frame[position : position + 4], "big")
        if length < 8:
            raise UnreadableFile(
                f"{file}: the boxes of the JPEG 2000 data are damaged at byte {position}.",
                "Export or copy the file again.",
            )
        position += length


def _require_stated_frames(header: Any, file: Path, syntax: uid.UID) -> None:
    """Refuse compressed pixels that hold several frames where the header states none, or one: decoders take the first.

    One frame may be cut into several fragments; then only the first of them has a start mark.
    """
    if _read_whole_number(header, "NumberOfFrames", file, 1) > 1:
        return
    stream = BytesIO(header.PixelData)
    offsets = parse_basic_offsets(stream)
    starts = [fragment.startswith(START_MARKS) for fragment in generate_fragments(stream)]
    # RLE has one fragment a frame
    frames = max(len(offsets), len(starts) if syntax == uid.RLELossless else sum(starts[1:]) + 1)
    if frames > 1:
        raise UnreadableFile(
            f"{file}: the pixels hold {count_noun(frames, 'frame')}, and the header states one; a radiograph has one.",
            "Export the frame you need as one image.",
        )


def _require_no_more(header: Any, file: Path) -> None:
    """Refuse uncompressed pixel data that go on: the size in the header is then not that of the picture."""
    frames = max(1, _read_whole_number(header, "NumberOfFrames", file, 1))
    size = (
        _read_whole_number(header, "Rows", file)
        * _read_whole_number(header, "Columns", file)
        * _read_whole_number(header, "BitsAllocated", file)
        // 8
    )
    surplus = len(header.PixelData) - size * frames
    if surplus > max(MAX_TRAILING_BYTES, size // 100):
        raise UnreadableFile(
            f"{file}: the header explains {size * frames} bytes of pixels, and {surplus} more follow; rows, columns, "
            "bits or the number of frames are wrong.",
            "Export the image again from its source.",
        )


def _read_whole_number(header: Any, keyword: str, file: Path, default: int | None = None) -> int:
    try:
        value = header.get(keyword)
        if value is None or value == "":
            if default is None:
                raise UnreadableFile(
                    f"{file}: the header does not state {keyword}.", "Export the image again from its source."
                )
            return default
        return int(value)
    except (TypeError, ValueError) as error:
        raise UnreadableFile(
            f"{file}: {keyword} holds no whole number ({error}).", "Export the image again from its source."
        ) from None
