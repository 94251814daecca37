"""The pixels of a file: boxes filled in them, and the pictures of them that are searched for words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels, pixel_array
from pydicom.uid import ExplicitVRLittleEndian

from sightline.errors import LayoutError, SightlineError, UnreadableFile, count_noun
from sightline.io.dicom.pixels import decode_pixels
from sightline.io.dicom.radiograph import read_dicom

Box = tuple[int, int, int, int]


def list_pictures(dataset: Dataset, file: Path, boxes: Sequence[Box], notes: list[str]) -> list[NDArray[Any]]:
    """The picture as it is shown, and the stored values over their whole range: what leaves is more than what is shown.

    Of several frames the first, the middle one and the last, and the brightest and the darkest value of each pixel.

    Args:
        dataset: with the pixels that leave.
        file: as it came.
        boxes: that were filled.
        notes: told where nothing decodes.
    """
    pictures = []
    if _is_grey(dataset) and _count_frames(dataset) == 1:
        try:
            shown = read_dicom(file).pixels
            for top, left, bottom, right in boxes:
                shown[top:bottom, left:right] = 0
            pictures.append(shown)
        except Exception:  # a grey-scale step that cannot be carried out: the stored values may still be read
            pass
    try:
        pictures += _list_stored(dataset, file)
    except Exception:
        notes.append("the pixels do not decode, so they were not searched for words")
    return pictures


def _list_stored(dataset: Dataset, file: Path) -> list[NDArray[Any]]:
    """Chosen frames and projections of all, brighter is brighter."""
    frames = _count_frames(dataset)
    pictures, high, low = [], None, None
    for number, frame in enumerate(_iterate_frames(dataset, file)):
        if number in (0, frames // 2, frames - 1):
            pictures.append(frame)
        high = frame if high is None else np.maximum(high, frame)
        low = frame if low is None else np.minimum(low, frame)
    if high is not None and low is not None and frames > 1:
        pictures += [high, low]
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    return [picture.max() - picture if inverted else picture for picture in pictures]


def _iterate_frames(dataset: Dataset, file: Path) -> Iterator[NDArray[Any]]:
    try:
        index, values = decode_pixels(dataset, file, frame=0)
    except SightlineError:  # colour, or bits that are of no radiograph
        yield from iter_pixels(dataset)
        return
    yield values[index].astype(np.int32)
    for number in range(1, _count_frames(dataset)):
        index, values = decode_pixels(dataset, file, frame=number)
        yield values[index].astype(np.int32)


def _is_grey(dataset: Dataset) -> bool:
    return int(dataset.get("SamplesPerPixel") or 1) == 1


def _count_frames(dataset: Dataset) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def blank_boxes(dataset: Dataset, file: Path, boxes: Sequence[Box], notes: list[str]) -> None:
    """Fill boxes with what is shown darkest of the least stored values; the pixels are then stored uncompressed.

    Raises:
        LayoutError: a box that is none, or no box that meets the picture.
        UnreadableFile: the pixels do not decode.
    """
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    for top, left, bottom, right in boxes:
        if not (0 <= top < bottom and 0 <= left < right):
            raise LayoutError(f"{top} {left} {bottom} {right} is no box.", "Give row, column, row, column.")
    meeting = [box for box in boxes if box[0] < rows and box[1] < columns]
    if not meeting:
        raise LayoutError(
            f"no box to fill meets the picture of {rows} x {columns} pixels, so nothing in it is hidden.",
            "Give a box for pictures of this size, or clean the file without --blank.",
        )
    values = _read_values(dataset, file)
    colour = not _is_grey(dataset)
    for top, left, bottom, right in meeting:
        place: list[Any] = [slice(None)] * values.ndim
        axis = values.ndim - (3 if colour else 2)
        place[axis], place[axis + 1] = slice(top, bottom), slice(left, right)
        values[tuple(place)] = values.min()
    if colour:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    dataset["PixelData"].VR = "OW" if int(dataset.BitsAllocated) > 8 else "OB"
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    notes.append(f"{count_noun(len(meeting), 'box of the picture was', 'boxes of the picture were')} filled")
    if cut := sum(box[2] > rows or box[3] > columns for box in meeting):
        notes.append(f"{cut} of them cut at the edge of the picture ({rows} x {columns} pixels)")
    if missed := len(boxes) - len(meeting):
        notes.append(f"{count_noun(missed, 'box does', 'boxes do')} not meet the picture and filled nothing")


def _read_values(dataset: Dataset, file: Path) -> NDArray[Any]:
    try:
        if _is_grey(dataset) and _count_frames(dataset) == 1:
            index, meaning = decode_pixels(dataset, file)
            values = meaning[index].astype(np.int32 if meaning.min() < 0 else np.uint32)
            dataset.HighBit = int(dataset.BitsStored) - 1
            return values.astype(("i" if meaning.min() < 0 else "u") + str(int(dataset.BitsAllocated) // 8))
        return np.array(pixel_array(dataset))
    except SightlineError:
        raise
    except Exception:
        raise UnreadableFile("The pixels do not decode, so no box can be filled.", "Leave the file out.") from None
