"""A picture as it is shown, and the list of files that are none."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.errors import SightlineError, UnreadableFile, count_noun
from sightline.structures.frame import Frame
from sightline.structures.pictures.raster import require_sane_size as require_sane_size

# stands in every page, so that none is taken for a radiograph later
SOFTWARE = "sightline"

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, ready for display: brighter is denser, 0 is black and the dtype's maximum is white.

    Attributes:
        pixels: uint8 or uint16 [H, W], or uint8 [H, W, 3] for true colour.
        frame: the image's own frame; its spacing in mm where the file states it.
        facts: what the file says of itself, as text (`modality`, `view_position`, `grey_scale`, ...).
    """

    pixels: Pixels
    frame: Frame
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reject:
    """A file that was left out, why, and what to do about it."""

    file: Path
    reason: str
    remedy: str


def has_dicom_mark(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of a DICOM file."""
    return head[128:132] == b"DICM"


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """Write rejects as a CSV with the columns file, reason, remedy (the header stands also when there are none)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # names from other systems may hold bytes that are no text
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "reason", "remedy"])
        table.writerows([str(reject.file), reject.reason, reject.remedy] for reject in rejects)


def join_reasons(rejects: Sequence[Reject], most: int = 20) -> str:
    """Why files were left out, one after the other."""
    more = f" And {len(rejects) - most} more." if len(rejects) > most else ""
    return "".join(f" ({n}) {reject.reason}" for n, reject in enumerate(rejects[:most], start=1)) + more


@contextmanager
def mention_rejects(rejects: Sequence[Reject]) -> Iterator[None]:
    """An error within the block says what was left out before it, too: that may be why."""
    try:
        yield
    except SightlineError as error:
        if rejects:
            error.message += f" {count_noun(len(rejects), 'file or row', 'files or rows')} left out:"
            error.message += join_reasons(rejects, 5)
        raise


def require_content(picture: Picture, file: Path) -> None:
    """Refuse a picture whose pixels all look the same: there is nothing to see, and so nothing to predict.

    Raises:
        UnreadableFile: one value throughout, e.g. a blank exposure, or a window beside all stored values.
    """
    if bool((picture.pixels == picture.pixels[0, 0]).all()):
        how = picture.facts.get("grey_scale", "")
        raise UnreadableFile(
            f"{file}: every pixel looks the same{f' ({how})' if how else ''}; a radiograph was expected.",
            "Leave a blank exposure out; if a viewer shows more, export the image again without its window.",
        )


def stretch_to_uint16(values: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Map minimum..maximum of integers to 0..65535 (linear, rounded); a constant picture becomes 0."""
    low, high = int(values.min()), int(values.max())
    if low == high:
        return np.zeros(values.shape, dtype=np.uint16)
    steps = high - low
    if steps <= 65535:
        # a table costs one look-up a pixel where arithmetic would cost several passes in double precision
        table = np.rint(np.arange(steps + 1) * (65535.0 / steps)).astype(np.uint16)
    stretched = np.empty(values.shape, dtype=np.uint16)
    # some rows at a time: of 200 million pixels a whole copy in double precision would take 1.6 GB
    many = max(1, (1 << 22) // max(1, values[0].size))
    for start in range(0, len(values), many):
        part = values[start : start + many]
        if steps <= 65535:
            stretched[start : start + many] = table[part - values.dtype.type(low)]
        else:
            stretched[start : start + many] = np.rint((part.astype(np.float64) - low) * (65535.0 / steps))
    return stretched


def resample_to_pixels(
    values: NDArray[np.float32], to_pixels: NDArray[np.float64], shape: tuple[int, int], *, smooth: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A map on a grid of pixels between the cells' centres, and which pixels it covers.

    Args:
        values: float32 [mh, mw].
        to_pixels: [3, 3], from cells to pixels, (row, column) from the corner.
        shape: rows and columns of the grid.
        smooth: bicubic instead of bilinear, within the map's own range.
    """
    inverse = np.linalg.inv(np.asarray(to_pixels, dtype=np.float64))
    # Pillow wants columns before rows; it counts from the corner as well
    affine = (inverse[1, 1], inverse[1, 0], inverse[1, 2], inverse[0, 1], inverse[0, 0], inverse[0, 2])
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    size = (shape[1], shape[0])
    low, high = float(values.min()), float(values.max())
    cells = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    resampled = np.asarray(cells.transform(size, Image.Transform.AFFINE, affine, how), dtype=np.float32)
    ones = Image.new("L", cells.size, 255)
    covered = np.asarray(ones.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.NEAREST)) > 0
    return np.where(covered, np.clip(resampled, low, high), np.float32(low)), covered
