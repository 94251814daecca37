"""CUB-200-2011 (Wah et al. 2011) in its published layout, as Liao et al. 2022 and their released code use it.

    images.txt                id path                 images/NNN.class_name/NAME.jpg
    train_test_split.txt      id is_training          the official split
    classes.txt, image_class_labels.txt               class names, class per image
    parts/part_locs.txt       id part x y visible     x, y in pixels of the original image

The focus region is the union of discs of 50 px radius around the visible parts, shared by all classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.errors import LayoutError, count_noun
from sightline.io.tables import find_path_inside, read_text
from sightline.structures.case import Case, Cohort
from sightline.structures.rasterize import Points
from sightline.structures.regions import Polygon
from sightline.structures.tag import Tag

RADIUS_PX, MOST_RADIUS_PX = 50.0, 10_000.0
PER_CLASS = (5, 10, 15, 20)


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    per_class: int | None = None
    """Training images a class, drawn by a seeded permutation (5, 10, 15 or 20 in Liao et al. 2022); without it all."""
    seed: int = 0
    """Seed of the permutation; for one seed a smaller draw is part of a larger one."""
    radius_px: float = RADIUS_PX
    """Radius of the discs around parts, in pixels of the original image."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """Read CUB-200-2011 with few or all training images a class; the official test set stays whole.

    Args:
        source: folder CUB_200_2011 as unpacked.
        options: see `Options`; its defaults when left out.

    Raises:
        LayoutError: a missing file, a malformed line, a class with too few training images.
    """
    source, options = Path(source), options or Options()
    if not 0.0 < options.radius_px <= MOST_RADIUS_PX:
        raise LayoutError(
            f"radius_px must be above 0, and at most {MOST_RADIUS_PX:g}; got {options.radius_px}.",
            f"Leave it out: {RADIUS_PX:g} px, as Liao et al. 2022.",
        )
    classes = _read_pairs(source / "classes.txt")
    class_of = _read_pairs(source / "image_class_labels.txt")
    flags = _read_pairs(source / "train_test_split.txt")
    training = {i: _flag(flag, i, source) for i, flag in flags.items()}
    paths = _read_pairs(source / "images.txt")
    for name, table in (("image_class_labels.txt", class_of), ("train_test_split.txt", training)):
        if table.keys() != paths.keys():
            strange = sorted(table.keys() ^ paths.keys())
            raise LayoutError(f"{source}: images.txt and {name} differ on ids {strange[:5]}.", "Unpack it again.")
    parts = _read_parts(source / "parts" / "part_locs.txt", paths)
    kept = _draw(class_of, training, classes, options.per_class, options.seed)
    cases = []
    for image_id, relative in paths.items():
        if image_id not in kept:
            continue
        image = find_path_inside(source / "images", relative)
        if image is None or not image.is_file():
            raise LayoutError(f"{source / 'images.txt'}: {relative!r} is not under images/.", "Unpack it again.")
        name = Path(relative).stem
        discs = tuple(_build_disc(row, column, options.radius_px) for row, column in parts.get(image_id, []))
        regions = (Polygon(discs, Tag("focus")),) if discs else ()
        split = "train" if training[image_id] else "test"
        # photographs come without any grouping: each is its own study and patient
        cases.append(Case(name, name, name, image, classes[class_of[image_id]], regions, split))  # type: ignore[arg-type]
    about = {
        "layout": "CUB-200-2011",
        "source": "Wah et al. 2011, Caltech technical report CNS-TR-2011-001",
        "split": f"official; {options.per_class or 'all'} training images a class, seed {options.seed}",
        "regions": f"discs of {options.radius_px:g} px at visible parts",
        "patients": "every photograph counts as its own patient",
    }
    names = tuple(classes.values())
    return Cohort("CUB-200-2011", names, tuple(cases), source, about)


def _draw(
    class_of: dict[str, str], training: dict[str, bool], classes: dict[str, str], per_class: int | None, seed: int
) -> set[str]:
    """Ids of the test images and of the drawn training images."""
    kept = {i for i, flag in training.items() if not flag}
    members: dict[str, list[str]] = {c: [] for c in classes}
    for i, c in class_of.items():
        if c not in classes:
            raise LayoutError(f"Image {i} has class {c}, unknown to classes.txt.", "Unpack the data set again.")
        if training[i]:
            members[c].append(i)
    random = np.random.default_rng(seed)
    for c in classes:
        order = random.permutation(len(members[c]))
        if per_class is not None and not 1 <= per_class <= len(order):
            raise LayoutError(
                f"per_class is {per_class}, but class {classes[c]!r} has {count_noun(len(order), 'training image')}.",
                f"Liao et al. 2022 use {list(PER_CLASS)}.",
            )
        kept |= {members[c][k] for k in order[:per_class]}
    return kept


def _flag(text: str, image_id: str, source: Path) -> bool:
    if text not in ("0", "1"):
        raise LayoutError(
            f"{source / 'train_test_split.txt'}: image {image_id} is {text!r}, not 0 or 1.", "Unpack it again."
        )
    return text == "1"


def _read_parts(path: Path, known: dict[str, str]) -> dict[str, list[tuple[float, float]]]:
    parts: dict[str, list[tuple[float, float]]] = {}
    named: set[str] = set()
    for number, (image_id, _, x, y, visible) in enumerate(_iterate_lines(path, 5), start=1):
        if image_id not in known:
            raise LayoutError(f"{path}: line {number} is of image {image_id}, not in images.txt.", "Unpack it again.")
        named.add(image_id)
        try:
            row, column = float(y), float(x)
        except ValueError:
            row = column = math.nan
        if visible not in ("0", "1") or not (math.isfinite(row) and math.isfinite(column)):
            raise LayoutError(f"{path}: line {number} is no part location.", "Unpack the data set again.")
        if visible == "1":
            # the file counts pixels; the centre of pixel (i, j) lies at (i + 0.5, j + 0.5)
            parts.setdefault(image_id, []).append((row + 0.5, column + 0.5))
    lost = sorted(known.keys() - named)
    if lost:  # also images without a visible part have their lines
        raise LayoutError(
            f"{path} has no line of {count_noun(len(lost), 'image')}, e.g. {lost[:3]}.", "Unpack the data set again."
        )
    return parts


def _build_disc(row: float, column: float, radius_px: float, sides: int = 64) -> Points:
    turns = [2.0 * math.pi * k / sides for k in range(sides)]
    return tuple((row + radius_px * math.sin(t), column + radius_px * math.cos(t)) for t in turns)


def _read_pairs(path: Path) -> dict[str, str]:
    """What the second field of each line says of the id in its first."""
    found: dict[str, str] = {}
    for number, (own, text) in enumerate(_iterate_lines(path, 2), start=1):
        if own in found:
            raise LayoutError(f"{path}: line {number} repeats the id {own!r}.", "Unpack the data set again.")
        found[own] = text
    return found


def _iterate_lines(path: Path, fields: int) -> Iterator[list[str]]:
    """The space-separated fields of each line.

    Raises:
        LayoutError: a missing file, or a line with another number of fields.
    """
    lines = read_text(path, "Point at the unpacked folder CUB_200_2011.").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = line.split()
        if len(found) != fields:
            raise LayoutError(
                f"{path}: line {number} has {count_noun(len(found), 'field')}, expected {fields}.", "Unpack it again."
            )
        yield found
