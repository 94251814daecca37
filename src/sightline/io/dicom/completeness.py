"""Whether a DICOM file was copied to its end: parsers take half a file for a whole one, and this does not."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_expected_length

from sightline.errors import UnreadableFile, count_noun
from sightline.io.dicom.limits import DEFLATED
from sightline.io.dicom.pixels import ENDS_WITH_MARK, JPEG_2000, has_end_mark

# pixels, of numbers with and without a fraction, spectra, and where pixels are fetched from
_CONTENT = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "SpectroscopyData", "PixelDataProviderURL")
_REMEDY = "Copy or export the file again."


def read_whole_dataset(file: Path) -> Dataset:
    """The pydicom Dataset of a file that is there to its end.

    What pydicom itself raises is for `translate_parser_errors`.

    Raises:
        UnreadableFile: an empty file, one that ends within an element, or pixels of which a part is missing.
    """
    size = file.stat().st_size
    if size == 0:
        raise UnreadableFile(f"{file}: the file is empty.", _REMEDY)
    with warnings.catch_warnings():
        # pydicom passes over a sequence or compressed pixels without an end, and says so in a warning alone
        warnings.filterwarnings("error", message="End of file reached")
        try:
            dataset = pydicom.dcmread(file)
        except UserWarning:
            raise _refuse(file, "it ends within a sequence or within compressed pixels") from None
    if dataset.file_meta.get("TransferSyntaxUID") != DEFLATED:
        _require_last_element(dataset, file, size)
    _require_pixels_to_the_end(dataset, file)
    return dataset


def _refuse(file: Path, what: str) -> UnreadableFile:
    return UnreadableFile(f"{file}: the file is truncated: {what}.", _REMEDY)


def _require_last_element(dataset: Dataset, file: Path, size: int) -> None:
    """Refuse a file that ends before its last element does, or within the head of another."""
    tags = sorted(dataset.keys())
    elements = map(dataset.get_item, tags)  # as read: to ask for a value would parse it
    raw = [element for element in elements if isinstance(element, RawDataElement) and element.length != 0xFFFFFFFF]
    last = max(raw, key=lambda element: element.value_tell, default=None)
    if last is not None and last.value_tell + last.length > size:
        missing = last.value_tell + last.length - size
        raise _refuse(file, f"the last {count_noun(missing, 'byte')} of element {last.tag} are missing")
    # an element begins with eight bytes; some writers fill up with zeros
    with file.open("rb") as stream:
        stream.seek(max(0, size - 8))
        tail = stream.read()
    rest = 0 if last is None or last.tag != tags[-1] else size - last.value_tell - last.length
    if 0 < rest < 8 and tail[-rest:].strip(b"\0"):
        raise _refuse(file, f"it ends with {count_noun(rest, 'byte')} within the head of an element")


def _require_pixels_to_the_end(dataset: Dataset, file: Path) -> None:
    """Refuse a picture without pixels, with fewer than its header states, or whose JPEG streams do not end."""
    if "Rows" in dataset and "Columns" in dataset and not any(word in dataset for word in _CONTENT):
        raise _refuse(file, f"the header states {dataset.Rows} x {dataset.Columns} pixels, and none follow")
    if "PixelData" not in dataset:
        return
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax == DEFLATED:
        expected, got = get_expected_length(dataset), len(dataset.PixelData)
        if got < expected:
            raise _refuse(file, f"the header states {count_noun(expected, 'byte')} of pixels, and {got} follow")
        return
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    found = 0
    if syntax in ENDS_WITH_MARK | JPEG_2000:
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
            found += 1
            if not has_end_mark(frame):
                raise _refuse(file, f"the compressed stream of frame {found} of {frames} has no end")
        if found < frames:
            raise _refuse(file, f"the header states {frames} frames, and {found} follow")
