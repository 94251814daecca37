"""VerSe's centroid files: where each vertebra's body is, in the voxels of its CT.

`[{"direction": ["P", "I", "R"]}, {"label": 16, "X": 79.1, "Y": 40.9, "Z": 32.3}, ...]`: X, Y and Z are voxel indices
along the three axes of `direction` (each letter names where the index grows to), with centres at whole numbers.

The challenge's own copy (`..._iso-ctd.json`) has no direction: its coordinates are millimetres in a 1 mm volume whose
axes start at the front, at the head and on the left ("ASL"), that is, they grow to P, I and R.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import ArrayLike

from sightline.data.spine.vertebrae import LEVELS, NOT_VERTEBRAE, RANKS, Vertebra
from sightline.errors import GeometryError, LayoutError, count_noun
from sightline.io.tables import parse_number, read_json, refuse_underscores
from sightline.structures.frame import FloatArray

Direction = tuple[str, str, str]
CHALLENGE_DIRECTION: Direction = ("P", "I", "R")
# a centre this far beyond the volume's edge is still that of a vertebra cut by it
BEYOND_MM = 2.0


@dataclass(frozen=True)
class Centroids:
    """The content of one centroid file.

    Attributes:
        path: the file.
        direction: where each coordinate grows to.
        in_mm: whether coordinates are millimetres (the challenge's copy), else voxel indices.
        points: (X, Y, Z) as in the file by label, in its order.
        skipped: labels whose coordinates are NaN: named, but not placed by the annotators.
    """

    path: Path
    direction: Direction
    in_mm: bool
    points: Mapping[int, tuple[float, float, float]]
    skipped: tuple[int, ...] = ()


def read_centroids(path: Path) -> Centroids:
    """Read a centroid file of either kind; sacrum and coccyx are passed over.

    Raises:
        LayoutError: no JSON list, a direction that is none, a label twice or none of VerSe's, coordinates that are no
            numbers, or no vertebra at all.
    """
    path = Path(path)
    document = read_json(path)
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise LayoutError(
            f"{path}: a list of centroids was expected; got {type(document).__name__}.", "Give a VerSe centroid file."
        )
    directions = [entry["direction"] for entry in document if "direction" in entry]
    if len(directions) > 1:
        raise LayoutError(
            f"{path}: {count_noun(len(directions), 'direction is', 'directions are')} stated.",
            "Keep the one that holds.",
        )
    direction = _parse_direction(directions[0], path) if directions else CHALLENGE_DIRECTION
    points: dict[int, tuple[float, float, float]] = {}
    skipped: list[int] = []
    for number, entry in enumerate(document, start=1):
        if "label" not in entry:
            if "direction" not in entry:
                raise LayoutError(
                    f"{path}: entry {number} has neither label nor direction: {reprlib.repr(entry)}.", "Remove it."
                )
            continue
        label = _parse_label(entry["label"], number, path)
        if label in NOT_VERTEBRAE:
            continue
        if label in points or label in skipped:
            raise LayoutError(
                f"{path}: label {label} ({LEVELS[label]}) stands there twice (entry {number}).",
                "Keep one entry for each vertebra.",
            )
        x, y, z = (_parse_coordinate(entry, axis, number, path) for axis in "XYZ")
        if any(map(math.isnan, (x, y, z))):
            skipped.append(label)
        else:
            points[label] = (x, y, z)
    if not points:
        raise LayoutError(
            f"{path}: no vertebra has a centroid ({count_noun(len(document), 'entry', 'entries')}, "
            f"{len(skipped)} of them without numbers).",
            "Leave this series out, or annotate its vertebrae.",
        )
    return Centroids(path, direction, not directions, points, tuple(skipped))


def place_vertebrae(
    centroids: Centroids, shape: Sequence[int], orientation: Direction, spacing_mm: Sequence[float]
) -> tuple[Vertebra, ...]:
    """The vertebrae from head to foot (T13 between T12 and L1), placed in a CT's own array.

    Args:
        centroids: as read.
        shape: of the CT.
        orientation: where each of the CT's indices grows to, as `Volume.orientation`.
        spacing_mm: of the CT.

    Raises:
        GeometryError: a centroid lies outside the CT, or the spine runs upside down in it.
    """
    labels = sorted(centroids.points, key=RANKS.__getitem__)
    points = np.array([centroids.points[label] for label in labels])
    moves = ornt_transform(axcodes2ornt(centroids.direction), axcodes2ornt(orientation))[:, 0].astype(int)
    # axis a of the file is axis moves[a] of the CT
    if centroids.in_mm:
        points = points / np.asarray(spacing_mm, dtype=np.float64)[moves]
    places = reorient_points(points, np.asarray(shape)[moves].tolist(), centroids.direction, orientation) + 0.5
    beyond = BEYOND_MM / np.asarray(spacing_mm)
    outside = ((places < -beyond) | (places > np.asarray(shape) + beyond)).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise GeometryError(
            f"{centroids.path}: {int(outside.sum())} of {len(labels)} centroids lie outside the CT, e.g. "
            f"{LEVELS[labels[first]]} at {np.round(places[first], 1).tolist()} in an array of shape "
            f"{tuple(int(n) for n in shape)} ({''.join(orientation)}).",
            "Give the centroid file of this CT; a resampled CT needs centroids of its own.",
        )
    _require_head_first(centroids, places, orientation)
    return tuple(Vertebra(label, (x, y, z)) for label, (x, y, z) in zip(labels, places.tolist(), strict=True))


def reorient_points(points: ArrayLike, shape: Sequence[int], start: Direction, end: Direction) -> FloatArray:
    """Voxel indices along one set of axes as indices along another, flips and swaps only.

    Args:
        points: [n, 3], whole numbers at voxel centres, along `start`.
        shape: voxels along the axes of `start`.
        start: where each index grows to.
        end: the same for the result.
    """
    turned = np.array(points, dtype=np.float64).reshape(-1, 3)
    result = np.empty_like(turned)
    for axis, (onto, sign) in enumerate(ornt_transform(axcodes2ornt(start), axcodes2ornt(end))):
        # the last voxel becomes the first: n - 1 - x, not n - x
        result[:, int(onto)] = turned[:, axis] if sign > 0 else shape[axis] - 1 - turned[:, axis]
    return result


def write_centroids(path: Path, vertebrae: Iterable[Vertebra], orientation: Direction) -> None:
    """Write a centroid file in the axes of the CT itself; it appears complete or not at all.

    Args:
        path: `..._seg-subreg_ctd.json`.
        vertebrae: centres in the CT's array (frame coordinates).
        orientation: where each of the CT's indices grows to.
    """
    entries: list[dict[str, Any]] = [{"direction": list(orientation)}]
    for vertebra in sorted(vertebrae, key=lambda one: RANKS[one.label]):
        x, y, z = (round(c - 0.5, 4) for c in vertebra.centre)
        entries.append({"label": vertebra.label, "X": x, "Y": y, "Z": z})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(entries), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _parse_direction(value: Any, path: Path) -> Direction:
    letters = value if isinstance(value, list) else []
    axes = [{"R": "R", "L": "R", "A": "A", "P": "A", "S": "S", "I": "S"}.get(str(letter)) for letter in letters]
    if sorted(map(str, axes)) != ["A", "R", "S"]:
        raise LayoutError(
            f"{path}: the direction is {reprlib.repr(value)}; three letters, one each of L or R, A or P, I or S "
            "were expected.",
            'Write e.g. ["P", "I", "R"].',
        )
    return letters[0], letters[1], letters[2]


def _parse_label(value: Any, number: int, path: Path) -> int:
    try:
        label = int(refuse_underscores(value) if isinstance(value, str) else value)
        if isinstance(value, bool) or label != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise LayoutError(
            f"{path}: the label of entry {number} is {reprlib.repr(value)}, no whole number.", "Fix it."
        ) from None
    if label not in LEVELS and label not in NOT_VERTEBRAE:
        raise LayoutError(
            f"{path}: entry {number} has the label {label}; VerSe's are 1 to 25 (C1 to L6) and 28 (T13).",
            "Translate the labels to VerSe's scheme.",
        )
    return label


def _parse_coordinate(entry: Mapping[str, Any], axis: str, number: int, path: Path) -> float:
    value = entry.get(axis, "absent")
    try:
        number_of = math.nan if value is None else parse_number(value)
    except (TypeError, ValueError, OverflowError):
        number_of = math.inf
    if math.isinf(number_of):
        raise LayoutError(
            f"{path}: {axis} of entry {number} is {reprlib.repr(value)}; a number was expected.", "Fix it."
        )
    return number_of


def _require_head_first(centroids: Centroids, places: FloatArray, orientation: Direction) -> None:
    """Refuse a file whose vertebrae run from foot to head: its direction and the CT's orientation contradict."""
    axis, letter = next((a, letter) for a, letter in enumerate(orientation) if letter in "IS")
    down = (places[-1, axis] - places[0, axis]) * (1 if letter == "I" else -1)
    if len(places) > 1 and down <= 0:
        raise GeometryError(
            f"{centroids.path}: the vertebrae run from foot to head in the CT ({''.join(orientation)}; the file says "
            f"{'nothing of its direction' if centroids.in_mm else ''.join(centroids.direction)}).",
            "Check the orientation of the CT and the direction of the centroid file; one of them is wrong.",
        )
