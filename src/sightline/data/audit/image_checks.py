"""One pass over the images of a cohort: size, grey statistics and a fingerprint that near-duplicates share.

Of volumes only exact copies share it: the vertebrae of one spine, and those of other spines, look too much alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.errors import SightlineError
from sightline.structures.regions import is_volume

HASH_SIDE = 16  # 16 x 16 differences: 256 bits
MAX_DISTANCE = 8
MIN_CORRELATION = 0.9
STRIP = 0.04  # share of the shorter side that counts as border
CORNER = 0.15
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
    """

    shape: tuple[int, ...]
    differences: NDArray[np.bool_]
    thumbnail: NDArray[np.float32]
    measures: dict[str, tuple[float, ...]]


def look_at(path: Path) -> ImageSummary | str:
    """Read one picture or volume; the error's text where it does not decode."""
    if is_volume(path):
        return _look_at_volume(path)
    from PIL import Image

    from sightline.io.image import read_image

    try:
        pixels = read_image(path).pixels
    except SightlineError as error:
        return error.message
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
            "border strip": _border(grey),
            "corners": _corners(grey),
            "grey level": (float(grey.mean()), float(grey.std())),
            "bytes per pixel": (path.stat().st_size / (height * width),),
        },
    )


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
    )


def look_at_all(
    paths: Sequence[Path], processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[ImageSummary | str]:
    """`look_at` for many files, in order.

    Args:
        paths: picture files.
        processes: 1 reads in this process.
        progress: called with (done, all) after each picture.
    """
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            return _counted(pool.map(look_at, paths, chunksize=16), len(paths), progress)
    return _counted(map(look_at, paths), len(paths), progress)


def _counted(
    looks: Iterable[ImageSummary | str], total: int, progress: Callable[[int, int], None] | None
) -> list[ImageSummary | str]:
    found = []
    for look in looks:
        found.append(look)
        if progress is not None:
            progress(len(found), total)
    return found


def near_duplicates(looks: Sequence[ImageSummary], block: int = 2048) -> list[tuple[int, int, int]]:
    """Pairs of pictures that show the same, as (first, second, distance), first < second.

    Two pictures are near-duplicates when at most 8 of their 256 brightness differences disagree and their 16 x 16
    reductions correlate by 0.9 or more (the second keeps empty pictures and bare collimation frames apart).
    """
    if len(looks) < 2:
        return []
    signs = np.stack([look.differences for look in looks]).astype(np.float32) * 2.0 - 1.0
    thumbnails = np.stack([look.thumbnail for look in looks])
    constant = ~np.asarray(thumbnails.any(axis=1))
    pairs = []
    for start in range(0, len(looks), block):
        rows = slice(start, start + block)
        distance = (signs.shape[1] - signs[rows] @ signs.T) / 2.0
        alike = thumbnails[rows] @ thumbnails.T >= MIN_CORRELATION
        alike |= constant[rows, None] & constant[None, :]
        for i, j in np.argwhere((distance <= MAX_DISTANCE + 0.5) & alike):
            if start + i < j:
                pairs.append((int(start + i), int(j), round(float(distance[i, j]))))
    return pairs


def _border(grey: NDArray[np.float32]) -> tuple[float, ...]:
    """Mean and deviation of the strip around the picture, then the mean of its top, bottom, left and right."""
    n = max(1, round(STRIP * min(grey.shape)))
    sides = (grey[:n], grey[-n:], grey[:, :n], grey[:, -n:])
    strip = np.concatenate([side.ravel() for side in sides])
    return (float(strip.mean()), float(strip.std()), *(float(side.mean()) for side in sides))


def _corners(grey: NDArray[np.float32]) -> tuple[float, ...]:
    """Mean and maximum of the four corner blocks, where side markers and burnt-in text stand."""
    h, w = (max(1, round(CORNER * n)) for n in grey.shape)
    blocks = (grey[:h, :w], grey[:h, -w:], grey[-h:, :w], grey[-h:, -w:])
    return tuple(float(value) for block in blocks for value in (block.mean(), block.max()))
