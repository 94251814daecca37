"""One pass over the images of a cohort: size, grey statistics, misplaced marks, and what near-duplicates share.

Of volumes only exact copies share it: the vertebrae of one spine, and those of other spines, look too much alike.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_start_method
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.data.audit.region_checks import find_fault, find_repeated_regions
from sightline.errors import CohortError, SightlineError
from sightline.io.progress import open_process_pool
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import is_volume

HASH_SIDE = 16  # 16 x 16 differences: 256 bits
CHUNK = 16  # pictures that a process takes at a time
STRIP = 0.04  # share of the shorter side that counts as border
CORNER = 0.15
VOLUME = "volume"
PADDING_HU = -1024  # what patches are padded with, and the air outside a scan


@dataclass(frozen=True, eq=False)
class ImageSummary:
    """What one reading of a picture leaves.

    Attributes:
        shape: (rows, columns) as decoded, or the three axes of a volume.
        differences: bool [256], whether brightness rises from each cell of a 16 x 17 reduction to its right neighbour;
            of a volume the bits of a digest of its numbers.
        thumbnail: float32 [256], 16 x 16 reduction with mean 0 and norm 1 (all 0 for a constant picture).
        measures: named acquisition facts, groups of numbers: size, border strip, corners, grey level, compression.
        storage: how the file stores its pixels, which is often the mark of the place that wrote it.
    """

    shape: tuple[int, ...]
    differences: NDArray[np.bool_]
    thumbnail: NDArray[np.float32]
    measures: dict[str, tuple[float, ...]]
    storage: str


def look_at(path: Path) -> ImageSummary | str:
    """Read one picture or volume; the error's text where it does not decode."""
    if is_volume(path):
        return _look_at_volume(path)
    from PIL import Image

    from sightline.io.image import read_image

    try:
        read = read_image(path)
    except SightlineError as error:
        return error.message
    pixels = read.pixels
    grey = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if grey.ndim == 3:
        grey = grey.mean(axis=-1)
    picture = Image.fromarray(grey)
    cells = np.asarray(picture.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    small = np.asarray(picture.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX)).ravel()
    small = small - small.mean()
    norm = float(np.linalg.norm(small))
    height, width = grey.shape
    return ImageSummary(
        shape=(height, width),
        # a tenth of an 8-bit step: rounding alone is no rise
        differences=(cells[:, 1:] > cells[:, :-1] + 4e-4).ravel(),
        thumbnail=(small / norm if norm > 1e-3 else np.zeros_like(small)).astype(np.float32),
        measures={
            "size": (float(height), float(width), width / height, float(height * width)),
            "border strip": _measure_border(grey),
            "corners": _measure_corners(grey),
            "grey level": (float(grey.mean()), float(grey.std())),
            "bytes per pixel": (path.stat().st_size / (height * width),),
        },
        storage=_describe_storage(path, read.facts),
    )


def name_storage(path: Path) -> str:
    """How a file stores its pixels: format and mode, of a JPEG its table, of DICOM its maker and transfer syntax.

    Files of one place are usually written by one program; another way of storing is often another place.

    Raises:
        UnreadableFile: the picture does not decode.

    Example:
        >>> name_storage(picture)  # doctest: +SKIP
        'JPEG, RGB, steps 4 2 2 4 5 9'
    """
    from sightline.io.image import read_image

    return VOLUME if is_volume(path) else _describe_storage(path, read_image(path).facts)


def _describe_storage(path: Path, facts: Mapping[str, str]) -> str:
    from PIL.JpegImagePlugin import JpegImageFile

    if "transfer_syntax" in facts:
        return f"DICOM, {facts.get('manufacturer') or 'no maker'}, {facts['transfer_syntax']}"
    words = [facts.get("format", "picture"), facts.get("mode", "")]
    if words[0] == "JPEG":
        with JpegImageFile(path) as picture:
            table = next(iter(picture.quantization.values()), [])
        words.append(f"steps {' '.join(map(str, table[:6]))}")
    return ", ".join(filter(None, words))


def _look_at_volume(path: Path) -> ImageSummary | str:
    from sightline.io.nifti import read_volume

    try:
        volume = read_volume(path)
    except SightlineError as error:
        return error.message
    values = np.ascontiguousarray(volume.values)
    digest = np.frombuffer(hashlib.sha256(values.tobytes()).digest(), dtype=np.uint8)
    flat = values.astype(np.float32)
    cells = np.array([part.mean() for part in np.array_split(flat.mean(axis=-1).ravel(), HASH_SIDE**2)])
    cells = cells - cells.mean()
    norm = float(np.linalg.norm(cells))
    inside = flat[values > PADDING_HU]
    grey = (float(inside.mean()), float(inside.std())) if inside.size else (0.0, 0.0)
    return ImageSummary(
        shape=values.shape,
        differences=np.unpackbits(digest).astype(bool),
        thumbnail=(cells / norm if norm > 1e-3 else np.zeros_like(cells)).astype(np.float32),
        measures={
            "size": (*map(float, values.shape), *volume.spacing_mm),
            "Hounsfield units": grey,
            "padding": (1.0 - inside.size / values.size,),
            "noise": (float(np.median(np.abs(np.diff(flat, axis=-1)))),),
        },
        storage=VOLUME,
    )


@dataclass(frozen=True, eq=False)
class CohortLook:
    """What one reading of all pictures leaves, in columns: about 2 kB a picture.

    Attributes:
        shapes: of every case, as decoded; None where the picture does not decode.
        unreadable: what is wrong, by position.
        read: positions of the pictures that decode; the rows of what follows.
        differences: bool [n, 256], see `ImageSummary`.
        thumbnails: float32 [n, 256].
        measures: float64 [n, numbers] by name.
        storages: how each of them is stored, see `ImageSummary`.
        region_faults: (position, kind, what) of marks that cannot be where they say.
    """

    shapes: list[tuple[int, ...] | None]
    unreadable: dict[int, str]
    read: NDArray[np.int64]
    differences: NDArray[np.bool_]
    thumbnails: NDArray[np.float32]
    measures: dict[str, NDArray[np.float64]]
    storages: list[str]
    region_faults: list[tuple[int, str, str]]


Look = tuple[ImageSummary | str, list[tuple[str, str]]]


def look_at_cohort(
    cohort: Cohort, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> CohortLook:
    """Read every picture and check every mark once; nothing but the summaries is kept.

    Args:
        cohort: what to read.
        processes: 1 reads in this process.
        progress: called with (done, all) after each picture.

    Raises:
        CohortError: a process that reads was ended from outside, as for want of memory.
    """
    n = len(cohort)
    look = partial(_look_at_case, cohort.classes)
    shapes: list[tuple[int, ...] | None] = [None] * n
    unreadable: dict[int, str] = {}
    faults: list[tuple[int, str, str]] = []
    storages: list[str] = []
    differences = np.zeros((n, HASH_SIDE**2), dtype=bool)
    thumbnails = np.zeros((n, HASH_SIDE**2), dtype=np.float32)
    numbers: dict[tuple[str, int], array[float]] = {}
    for position, (summary, wrong) in enumerate(_iterate_looks(look, cohort, processes)):
        faults += [(position, kind, what) for kind, what in wrong]
        if isinstance(summary, str):
            unreadable[position] = summary
        else:
            shapes[position] = summary.shape
            storages.append(summary.storage)
            differences[position] = summary.differences
            thumbnails[position] = summary.thumbnail
            for name, values in summary.measures.items():
                numbers.setdefault((name, len(values)), array("d")).extend(values)
        if progress is not None:
            progress(position + 1, n)
    read = np.array([i for i in range(n) if i not in unreadable], dtype=np.int64)
    # where pictures and volumes stand in one cohort, only what was measured on both can be compared
    measures = {
        name: np.frombuffer(values).reshape(-1, width)
        for (name, width), values in numbers.items()
        if len(values) == len(read) * width
    }
    return CohortLook(shapes, unreadable, read, differences[read], thumbnails[read], measures, storages, faults)


def _iterate_looks(look: Callable[[Case], Look], cohort: Cohort, processes: int) -> Iterator[Look]:
    if processes < 2 or len(cohort) < 2 * CHUNK:
        yield from map(look, cohort)
        return
    with open_process_pool(processes, get_start_method()) as pool:
        try:
            yield from pool.map(look, cohort, chunksize=CHUNK)
        except BrokenProcessPool:
            raise CohortError(
                f"A process that reads the pictures of {cohort.name!r} was ended from outside, as for want of memory.",
                "Run it again on one core (taskset -c 0), and look for a picture of unusual size.",
            ) from None


def _look_at_case(classes: tuple[str, ...], case: Case) -> Look:
    look = look_at(case.image)
    shape = case.shape if isinstance(look, str) else look.shape
    faults = (find_fault(region, shape, classes, case.label) for region in case.regions)
    repeated = [("region-twice", what) for what in find_repeated_regions(case.regions)]
    return look, [*((kind, what) for kind, what in faults if kind), *repeated]


def _measure_border(grey: NDArray[np.float32]) -> tuple[float, ...]:
    """Mean and deviation of the strip around the picture, then the mean of its top, bottom, left and right."""
    n = max(1, round(STRIP * min(grey.shape)))
    sides = (grey[:n], grey[-n:], grey[:, :n], grey[:, -n:])
    strip = np.concatenate([side.ravel() for side in sides])
    return (float(strip.mean()), float(strip.std()), *(float(side.mean()) for side in sides))


def _measure_corners(grey: NDArray[np.float32]) -> tuple[float, ...]:
    """Mean and maximum of the four corner blocks, where side markers and burnt-in text stand."""
    h, w = (max(1, round(CORNER * n)) for n in grey.shape)
    blocks = (grey[:h, :w], grey[:h, -w:], grey[-h:, :w], grey[-h:, -w:])
    return tuple(float(value) for block in blocks for value in (block.mean(), block.max()))
