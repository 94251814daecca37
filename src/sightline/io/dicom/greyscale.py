"""From stored DICOM pixel values to what is shown, in the order of the standard (DICOM PS3.4, section N.2).

    stored value -> modality LUT or slope and intercept -> VOI LUT or window -> polarity -> display

A stored value has at most 16 bits, so the whole path is worked out once per possible value and becomes a table.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import UnreadableFile, count_noun
from sightline.structures.frame import FloatArray

Window = tuple[float, float, str]
# digital X-ray, mammography and intra-oral X-ray image storage - for processing
FOR_PROCESSING = tuple(f"1.2.840.10008.5.1.4.1.1.1.{kind}.1" for kind in (1, 2, 3))


def build_display_table(
    header: Any, file: Path, stored: NDArray[np.int64], present: NDArray[np.bool_]
) -> tuple[NDArray[np.uint16], str]:
    """What every possible stored value is shown as.

    Args:
        header: the pydicom Dataset.
        file: named in errors.
        stored: [n] possible stored values.
        present: [n], True where the picture has pixels of that value.

    Returns:
        uint16 [n], 0 black to 65535 white; and in words which VOI step was taken. Padding is black.

    Raises:
        UnreadableFile: the header states a grey-scale step that cannot be carried out.
    """
    values = compute_modality_values(header, file, stored)
    padding = _find_padding(header, file, stored)
    shown, how = _apply_voi(header, file, values, present & ~padding)
    if is_negative(header, file, stored):
        shown = 1.0 - shown
        how += ", inverted"
    shown = np.where(padding, 0.0, shown)
    return np.rint(shown * 65535.0).astype(np.uint16), how


def is_negative(header: Any, file: Path, stored: NDArray[np.int64]) -> bool:
    """Whether what possible stored values give has to be inverted, so that brighter is denser.

    DX objects state both MONOCHROME1 and INVERSE for one and the same inversion (PS3.3, C.8.11.3.1.2). An image FOR
    PROCESSING says with the sign of its intensity relationship whether greater values are more X-rays, which is less
    dense (PS3.3, C.8.11.3.1.2); how it would be presented is not decided yet.
    """
    sign = read_numbers(header, "PixelIntensityRelationshipSign", file)
    if is_for_processing(header) and sign and sign[0] in (1.0, -1.0):
        low, high = compute_modality_values(header, file, np.array([stored.min(), stored.max()]))
        return (sign[0] > 0) == bool(high >= low)
    inverse = header.get("PresentationLUTShape") == "INVERSE"
    return bool(header.get("PhotometricInterpretation") == "MONOCHROME1" or inverse)


def is_for_processing(header: Any) -> bool:
    """Whether an image says that it is raw, made for computations and not for eyes: in words, or by its class."""
    intent = str(header.get("PresentationIntentType") or "").strip().upper()
    return intent == "FOR PROCESSING" or (not intent and str(header.get("SOPClassUID") or "") in FOR_PROCESSING)


def collect_remarks(header: Any, file: Path) -> tuple[str, ...]:
    """What a person should know of how a picture is shown: raw values, or a choice among several windows."""
    remarks = []
    if is_for_processing(header):
        sign = read_numbers(header, "PixelIntensityRelationshipSign", file)
        heeded = f"the sign of its intensity relationship, {sign[0]:+g}, was heeded" if sign else "no sign is stated"
        remarks.append(f"FOR PROCESSING: raw detector values, which look unlike what is read; {heeded}")
    luts, windows = header.get("VOILUTSequence") or (), _list_windows(header, file)
    if len(luts) > 1:
        remarks.append(f"{len(luts)} VOI LUTs are stated; the first was taken")
    elif not luts and len(windows) > 1:
        pairs = ", ".join(f"{c:g}/{w:g}" for c, w, _ in windows)
        remarks.append(f"{len(windows)} windows are stated ({pairs}); the first was taken")
    return tuple(remarks)


def compute_modality_values(header: Any, file: Path, stored: NDArray[np.int64]) -> FloatArray:
    """Stored values to modality values: the modality LUT, else slope and intercept (PS3.3, C.11.1)."""
    sequence = header.get("ModalityLUTSequence")
    if sequence:
        data, first, _ = read_lut(header, file, sequence[0], "modality LUT", signed=bool(stored.min() < 0))
        return data[np.clip(stored - first, 0, len(data) - 1)]
    slope = read_numbers(header, "RescaleSlope", file)
    intercept = read_numbers(header, "RescaleIntercept", file)
    a, b = slope[0] if slope else 1.0, intercept[0] if intercept else 0.0
    if a == 0.0 or not (math.isfinite(a) and math.isfinite(b)):
        raise UnreadableFile(
            f"{file}: RescaleSlope {a} and RescaleIntercept {b} map every pixel to one value or to none.",
            "Export the image again from its source.",
        )
    return stored.astype(np.float64) * a + b


def apply_window(values: FloatArray, centre: float, width: float, function: str) -> FloatArray:
    """Values through a window to 0..1 (PS3.3, C.11.2.1.2 and C.11.2.1.3); `function` as in VOI LUT Function."""
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)
        return 1.0 / (1.0 + np.exp(exponent))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width <= 1.0:
        return np.where(values <= centre - 0.5, 0.0, 1.0)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def read_numbers(header: Any, keyword: str, file: Path) -> tuple[float, ...]:
    """The numbers of an element, empty when it is absent or empty.

    Raises:
        UnreadableFile: the element is there but holds no numbers.
    """
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return ()
        if isinstance(value, (str, bytes)):
            value = [value] if isinstance(value, bytes) else value.split("\\")  # of a type that is no number's
        return tuple(float(x) for x in (value if hasattr(value, "__iter__") else (value,)))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UnreadableFile(
            f"{file}: {keyword} holds no number ({error}).", "Export the image again from its source."
        ) from None


def _apply_voi(header: Any, file: Path, values: FloatArray, real: NDArray[np.bool_]) -> tuple[FloatArray, str]:
    sequence = header.get("VOILUTSequence")
    if sequence:
        data, first, top = read_lut(header, file, sequence[0], "VOI LUT", signed=bool(values.min() < 0))
        index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(data) - 1)
        return data[index] / top, "VOI LUT"
    window = _read_window(header, file)
    if window is not None:
        centre, width, function = window
        return apply_window(values, centre, width, function), f"window {centre:g}/{width:g} {function}"
    if not real.any():
        return np.zeros_like(values), "full range of no pixels"
    low, high = float(values[real].min()), float(values[real].max())
    if low == high:
        return np.zeros_like(values), f"constant {low:g}"
    return np.clip((values - low) / (high - low), 0.0, 1.0), f"full range {low:g} to {high:g}"


def _read_window(header: Any, file: Path) -> Window | None:
    """The first window that is one, or None."""
    return next(iter(_list_windows(header, file)), None)


def _list_windows(header: Any, file: Path) -> list[Window]:
    """The windows that are stated, without those of no width (0 stands in files for 'not set')."""
    centres, widths = read_numbers(header, "WindowCenter", file), read_numbers(header, "WindowWidth", file)
    if not centres or not widths:
        return []
    function = str(header.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnreadableFile(
            f"{file}: VOILUTFunction is {function!r}; LINEAR, LINEAR_EXACT or SIGMOID was expected.",
            "Export the image with a standard window.",
        )
    pairs = zip(centres, widths, strict=False)
    return [(centre, width, function) for centre, width in pairs if is_window(centre, width, function)]


def is_window(centre: float, width: float, function: str) -> bool:
    """Whether numbers are a window: a width of 1 and more of LINEAR, above 0 of others (PS3.3, C.11.2.1.2 and 3)."""
    whole = math.isfinite(centre) and math.isfinite(width)
    return whole and width > 0.0 and (width >= 1.0 or function in ("LINEAR_EXACT", "SIGMOID"))


def _find_padding(header: Any, file: Path, stored: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where a stored value means 'no pixel'."""
    ends = find_padding_range(header, file, stored)
    if ends is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    return (stored >= ends[0]) & (stored <= ends[1])


def find_padding_range(header: Any, file: Path, stored: NDArray[np.int64]) -> tuple[int, int] | None:
    """The lowest and the highest stored value that mean 'no pixel' (PS3.3, C.7.5.1.1.2); None where none does.

    Args:
        header: of the file.
        file: for errors.
        stored: values of the file, which say whether they are signed.
    """
    value, limit = read_numbers(header, "PixelPaddingValue", file), read_numbers(header, "PixelPaddingRangeLimit", file)
    if not value:
        return None
    ends = [_convert_to_stored(int(v), stored) for v in (value[0], (limit or value)[0])]
    return min(ends), max(ends)


def _convert_to_stored(value: int, stored: NDArray[np.int64]) -> int:
    """A 16-bit pattern read with the wrong sign, as the stored values have it."""
    if stored.min() < 0 and value > 32767:
        return value - 65536
    return value + 65536 if stored.min() >= 0 and value < 0 else value


def read_lut(header: Any, file: Path, item: Any, name: str, *, signed: bool) -> tuple[FloatArray, int, float]:
    """Entries of a look-up table, the first value it maps, and its white (PS3.3, C.11.1.1 and C.11.2.1.1).

    Args:
        header: the pydicom Dataset that holds the table.
        file: named in errors.
        item: of its sequence.
        name: of the table, in errors.
        signed: the values that it maps may be negative.

    Raises:
        UnreadableFile: no descriptor, no entries, or fewer than it says.
    """
    descriptor = read_numbers(item, "LUTDescriptor", file)
    raw = item.get("LUTData")
    if len(descriptor) != 3 or raw is None:
        raise UnreadableFile(
            f"{file}: the {name} lacks its descriptor or its entries.", "Export the image again from its source."
        )
    count, first, bits = (int(n) for n in descriptor)
    count = 65536 if count == 0 else count % 65536  # a signed descriptor shows counts above 32767 as negative
    if isinstance(raw, (bytes, bytearray)):
        narrow = bits <= 8 and len(raw) in (count, count + 1)
        little = bool(getattr(header, "original_encoding", (None, True))[1] in (True, None))
        entries = np.frombuffer(
            bytes(raw[: len(raw) // 2 * 2]) if not narrow else bytes(raw), _choose_dtype(narrow, little)
        )
    else:
        listed = raw if hasattr(raw, "__iter__") else [raw]
        entries = np.array([int(x) for x in listed], dtype=np.int64) & 0xFFFF
    if len(entries) < count or count < 1:
        raise UnreadableFile(
            f"{file}: the {name} states {count_noun(count, 'entry', 'entries')} and holds {len(entries)}.",
            "Export the image again from its source.",
        )
    data = entries[:count].astype(np.float64)
    if signed and first > 32767:
        first -= 65536
    if not signed and first < 0:
        first += 65536
    return data, first, max(float(2**bits - 1), float(data.max()), 1.0)


def _choose_dtype(narrow: bool, little: bool) -> str:
    if narrow:
        return "u1"
    return "<u2" if little else ">u2"
