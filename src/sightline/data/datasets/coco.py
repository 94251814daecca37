"""Detection data in the COCO format (Lin et al. 2014, arXiv:1405.0312): one JSON document and a folder of images.

An image's label is the category it has an annotation of, or `normal` without any. Boxes, polygons and run-length
masks become Regions with role `finding` that speak for their category. COCO's x, y from the corner of the first pixel
are our column, row. Marks are of the picture as it is shown, upright; a stated size that is not the shown one is
refused where it leaves open what the marks are of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.data.split import assign_groups, read_groups, split_cohort
from sightline.errors import GeometryError, LayoutError, UnreadableFile, count_noun
from sightline.io.image import find_images, read_size
from sightline.io.tables import find_path_inside, parse_number, read_json
from sightline.structures.case import Case, Cohort, describe_unknown_patients
from sightline.structures.identifiers import name_files, normalise_form
from sightline.structures.pictures.raster import MAX_PIXELS
from sightline.structures.regions import Box, Mask, Polygon, Region, bound_region
from sightline.structures.tag import Tag

# (rows, columns) as stated and as shown, and the marks
Resized = tuple[tuple[int, int], tuple[int, int], Sequence[Region]]


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    annotations: Path | None = None
    """The JSON document; by default the only one in the source or in its folder `annotations`."""
    images: Path | None = None
    """Folder that `file_name` is relative to; by default `images` in the source where it exists, else the source."""
    groups: Path | None = None
    """csv with `file_name` and the columns that join images of one patient; by default `groups.csv` in the source."""
    group_by: tuple[str, ...] | None = None
    """Columns of that table that join images; by default those called patient_id, patient, subject, group, ..."""
    priority: tuple[str, ...] | None = None
    """Categories, first wins, for images that show several; without it such images are refused."""
    normal: str = "normal"
    """Class of images without annotations; it comes first among the classes."""
    fractions: tuple[float, float, float] | None = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified."""
    seed: int = 0
    """Seed of the split."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """Read a COCO detection data set as a classification cohort.

    Args:
        source: folder of the data set.
        options: see `Options`; its defaults when left out.

    Raises:
        LayoutError: missing files or fields, annotations of unknown images or categories, several labels.
    """
    source, options = Path(source), options or Options()
    images = options.images
    path = options.annotations or _find_only_document(source)
    images = images or (source / "images" if (source / "images").is_dir() else source)
    document = read_json(path)
    records = read_image_records(document, path)
    marks = group_annotations_by_image(document, path)
    unknown = sorted(marks.keys() - {record["file_name"] for record in records})
    if unknown:
        raise LayoutError(f"{path}: annotations of images it does not list: {unknown[:5]}.", "Remove them.")
    names = read_categories(document, path)
    if options.normal in names.values():
        raise LayoutError(
            f"{path}: {options.normal!r} is a category and the class of images without one.",
            "Name another class with --normal, or rename the category.",
        )
    order = (
        [normalise_form(name) for name in options.priority] if options.priority is not None else list(names.values())
    )
    missing = sorted(set(names.values()) - set(order))
    if missing:
        raise LayoutError(f"{path}: the priority {order} leaves out the categories {missing}.", "Name all of them.")

    path_of = options.groups or source / "groups.csv"
    table = read_groups(path_of, "file_name", options.group_by) if options.groups or path_of.is_file() else None
    group = assign_groups(table, [record["file_name"] for record in records], path_of)
    cases, several = [], []
    files: dict[Path, str] = {}
    resized: dict[str, Resized] = {}
    ids = name_files(record["file_name"] for record in records)
    for record in records:
        name = record["file_name"]
        image = find_path_inside(images, name)
        if image is None or not image.is_file():
            raise LayoutError(f"{path}: image {name!r} is not a file under {images}.", "Point --images at its folder.")
        if files.setdefault(image, name) != name:
            raise LayoutError(f"{path}: images {files[image]!r} and {name!r} are one file.", "Remove one of them.")
        found: list[str] = []
        regions: list[Region] = []
        for mark in marks.get(name, []):
            found.append(find_category(mark, names, path, name))
            role: Literal["finding", "ignore"] = "ignore" if is_crowd(mark, path) else "finding"
            regions += build_regions_of_annotation(mark, found[-1], path, role=role)
        if len(set(found)) > 1:
            several.append(name)
        label = min(found, key=order.index, default=options.normal)
        stated = (record["height"], record["width"])
        shape = _measure_shown(image) or stated
        if shape != stated:
            resized[name] = (stated, shape, regions)
        case_id = ids[name]
        patient = ids.get(group[name], group[name])
        cases.append(Case(case_id, case_id, patient, image, label, tuple(regions), shape=shape))
    if several and options.priority is None:
        raise LayoutError(
            f"{path}: {count_noun(len(several), 'image shows', 'images show')} several categories, "
            f"e.g. {several[:3]}; a case has one label.",
            "Pass --priority and the categories, in the order in which they win.",
        )
    about = {"layout": "COCO", "annotations": path.name, **_settle_sizes(resized, path)}
    about |= _describe_unlisted(images, set(files))
    about["patients"] = (
        path_of.name if table is not None else describe_unknown_patients(len(cases), len(cases), "groups.csv")
    )
    classes = (options.normal, *dict.fromkeys(names.values()))
    cohort = Cohort(source.resolve().name, classes, tuple(cases), source, about)
    return cohort if options.fractions is None else split_cohort(cohort, options.fractions, options.seed)


def _describe_unlisted(images: Path, listed: Collection[Path]) -> dict[str, str]:
    """What `about` says of pictures that the document does not list: those of a tool that drops what is unmarked."""
    known = {file.resolve() for file in listed}
    names = [file.relative_to(images).as_posix() for file in find_images(images) if file.resolve() not in known]
    if not names:
        return {}
    few = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    what = count_noun(len(names), "picture is", "pictures are")
    some = "some tools do not list pictures without marks, the normal ones"
    return {"warning": f"{what} not listed in the document and left out ({some}): {few}"}


def _measure_shown(image: Path) -> tuple[int, int] | None:
    try:
        return read_size(image)
    except UnreadableFile:
        return None  # the audit reports pictures that do not decode


def _settle_sizes(resized: Mapping[str, Resized], path: Path) -> dict[str, str]:
    """What `about` says of pictures that are shown in another size than stated.

    Raises:
        LayoutError: marks that may be of another picture than the one that is shown.
    """
    marked = {name: one for name, one in resized.items() if one[2]}
    turned = {name: one for name, one in marked.items() if one[0] == one[1][::-1]}
    for some, what, remedy in (
        ({name: one for name, one in marked.items() if name not in turned}, "not of the size that is stated",
         "Restore the pictures that were marked, or export the document again for these."),
        (turned, "stated in the size of the file before it is turned upright, and marks may be of either",
         "If they were marked upright, swap width and height in the document; if on their side, remove the EXIF "
         "orientation of the files."),
    ):  # fmt: skip
        if some and not (some is turned and _are_marked_upright(turned.values())):
            listed = [f"{n!r} (stated {a[1]} x {a[0]}, shown {b[1]} x {b[0]})" for n, (a, b, _) in some.items()]
            count = count_noun(len(some), "marked picture is", "marked pictures are")
            raise LayoutError(f"{path}: {count} {what}: {', '.join(listed[:3])}.", remedy)
    about = {}
    if turned:
        about["stored on their side"] = f"{', '.join(turned)}: stated sizes swapped, as their marks fit upright alone"
    if len(marked) < len(resized):
        plain = [name for name in resized if name not in marked]
        about["sizes"] = f"of {count_noun(len(plain), 'picture')} without marks not as stated: {', '.join(plain[:5])}"
    return about


def _are_marked_upright(turned: Collection[Resized]) -> bool:
    """Whether all marks fit the pictures as shown, and some reach beyond the stated size."""
    upright = all(_are_inside(shown, regions) for _, shown, regions in turned)
    return upright and not all(_are_inside(stated, regions) for stated, _, regions in turned)


def _are_inside(size: tuple[int, int], regions: Sequence[Region]) -> bool:
    masks = all(region.pixels().shape == size for region in regions if isinstance(region, Mask))
    ends = [bound_region(region)[2:] for region in regions if not isinstance(region, Mask)]
    return masks and all(row <= size[0] + 1 and column <= size[1] + 1 for row, column in ends)


def _find_only_document(source: Path) -> Path:
    if source.is_file():
        raise LayoutError(
            f"{source} is a file; the folder of the data set was expected.",
            "Give the folder, and the file by --annotations FILE.",
        )
    found = [*sorted(source.glob("*.json")), *sorted((source / "annotations").glob("*.json"))]
    if len(found) != 1:
        names = [path.name for path in found]
        raise LayoutError(
            f"{source} holds {len(found)} JSON documents {names}, expected one.",
            "Name the one that is meant: --annotations FILE.",
        )
    return found[0]


def read_image_records(document: Any, path: Path) -> list[dict[str, Any]]:
    """The checked `images` of a COCO document: id, file_name, width, height.

    Raises:
        LayoutError: no such list, a missing or wrong field, a repeated id or file name.
    """
    records = _require_list(document, "images", path)
    seen: set[Any] = set()
    for number, record in enumerate(records):
        for field, kind in (("id", (int, str)), ("file_name", str), ("width", int), ("height", int)):
            if not isinstance(record, dict) or not isinstance(record.get(field), kind):
                raise LayoutError(f"{path}: image {number} (from 0) lacks a proper {field!r}.", "Export it again.")
        if min(record["width"], record["height"]) < 1:
            raise LayoutError(f"{path}: image {record['file_name']!r} has no size.", "Fix width and height.")
        for key in (("id", record["id"]), ("file_name", record["file_name"])):
            if key in seen:
                raise LayoutError(f"{path}: image {number} (from 0) repeats the {key[0]} {key[1]!r}.", "Remove one.")
            seen.add(key)
    return records


def group_annotations_by_image(document: Any, path: Path) -> dict[str, list[dict[str, Any]]]:
    """File name -> its annotations.

    Raises:
        LayoutError: annotations of an image that the document does not list, or two with one id.
    """
    names = {record["id"]: record["file_name"] for record in read_image_records(document, path)}
    marks: dict[str, list[dict[str, Any]]] = {}
    seen: dict[int | str, int] = {}
    for number, mark in enumerate(_require_list(document, "annotations", path)):
        image_id = mark.get("image_id") if isinstance(mark, dict) else None
        if not isinstance(image_id, int | str) or image_id not in names:
            raise LayoutError(
                f"{path}: annotation {number} (from 0) is of image {image_id!r}, which `images` does not list.",
                "Add the image or remove the annotation.",
            )
        own = mark.get("id")
        if isinstance(own, int | str) and seen.setdefault(own, number) != number:
            raise LayoutError(
                f"{path}: annotations {seen[own]} and {number} (from 0) have the same id {own!r}; what is there twice "
                "would be counted twice.",
                "Remove the copy, or give every annotation an id of its own.",
            )
        marks.setdefault(names[image_id], []).append(mark)
    return marks


def build_regions_of_annotation(
    mark: dict[str, Any], label: str, path: Path, *, role: Literal["finding", "ignore"] = "finding"
) -> list[Region]:
    """Box and polygon (or mask) of one annotation, speaking for `label`.

    Of a crowd (`iscrowd`), which is to be ignored, the outline alone where there is one.

    Raises:
        LayoutError: coordinates that are no box or no polygon, naming the annotation.
    """
    tag = Tag(role, label)
    regions: list[Region] = []
    try:
        if mark.get("bbox") and not (role == "ignore" and mark.get("segmentation")):
            if not isinstance(mark["bbox"], list) or len(mark["bbox"]) != 4:
                raise ValueError(f"its bbox is {mark['bbox']!r:.60}, expected four numbers: x, y, width, height")
            x, y, width, height = (parse_number(v) for v in mark["bbox"])
            regions.append(Box((y, x), (y + height, x + width), tag))
        shape = mark.get("segmentation")
        if isinstance(shape, dict):
            regions.append(Mask(decode(shape), tag))
        elif shape:
            regions.append(Polygon(tuple(_build_ring(part) for part in shape), tag))
        if not regions:
            raise ValueError("it has neither bbox nor segmentation")
    except (KeyError, TypeError, ValueError, OverflowError, GeometryError) as error:
        why = error.message if isinstance(error, GeometryError) else str(error)
        raise LayoutError(
            f"{path}: annotation {mark.get('id')} is no region: {why.rstrip('.')}.", "Fix or remove it."
        ) from None
    return regions


def find_category(mark: Mapping[str, Any], names: Mapping[Any, str], path: Path, image: str = "") -> str:
    """The name of an annotation's category.

    Args:
        mark: the annotation.
        names: of the categories, by id, as `read_categories` gives them.
        path: of the document.
        image: file name of its image, for the message.

    Raises:
        LayoutError: no category has its `category_id`.
    """
    own = mark.get("category_id")
    if isinstance(own, int | str) and own in names:
        return names[own]
    known = ", ".join(map(repr, list(names)[:10])) + (", ..." if len(names) > 10 else "")
    raise LayoutError(
        f"{path}: annotation {mark.get('id')!r}{f' of image {image!r}' if image else ''} has the category_id {own!r}, "
        f"which no category has; known: {known}.",
        "Correct its category_id, or add the category to `categories`.",
    )


def is_crowd(mark: Mapping[str, Any], path: Path) -> bool:
    """Whether an annotation outlines a crowd (`iscrowd`), which is to be ignored.

    Raises:
        LayoutError: `iscrowd` is neither 0 nor 1.
    """
    crowd = mark.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise LayoutError(
            f"{path}: annotation {mark.get('id')}: iscrowd is {crowd!r:.60}, expected 0 or 1.", "Correct it."
        )
    return bool(crowd)


def _build_ring(flat: list[float]) -> tuple[tuple[float, float], ...]:
    if not isinstance(flat, list):
        raise ValueError("a segmentation is a list of rings, and a ring a list of numbers: x, y, x, y")
    if len(flat) % 2:
        raise ValueError(f"a polygon has {count_noun(len(flat), 'number')}, expected pairs of x and y")
    return tuple((parse_number(y), parse_number(x)) for x, y in zip(flat[::2], flat[1::2], strict=True))


def read_categories(document: Any, path: Path) -> dict[Any, str]:
    """The names of the `categories` of a COCO document by their ids.

    Raises:
        LayoutError: no such list, a category without id or name, or two that share one.
    """
    names: dict[Any, str] = {}
    for number, record in enumerate(_require_list(document, "categories", path)):
        if (
            not isinstance(record, dict)
            or not isinstance(record.get("id"), int | str)
            or not isinstance(record.get("name"), str)
        ):
            raise LayoutError(f"{path}: category {number} (from 0) lacks id or name.", "Export the document again.")
        if record["id"] in names:
            raise LayoutError(
                f"{path}: categories {names[record['id']]!r} and {record['name']!r} have the same id {record['id']!r}.",
                "Give every category an id of its own, and mend the annotations.",
            )
        name = normalise_form(record["name"])
        if not name:
            raise LayoutError(f"{path}: category {record['id']!r} has an empty name.", "Name the class.")
        if name in names.values():
            twice = next(key for key, other in names.items() if other == name)
            raise LayoutError(
                f"{path}: the categories {twice!r} and {record['id']!r} are both called {name!r}.",
                "Give them two names; if they are one class, give all annotations one category_id.",
            )
        names[record["id"]] = name
    return names


def _require_list(document: Any, name: str, path: Path) -> list[Any]:
    if not isinstance(document, dict) or not isinstance(document.get(name), list):
        raise LayoutError(f"{path} has no list {name!r}: it is no COCO detection document.", "Export it again.")
    found: list[Any] = document[name]
    return found


def decode(record: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask [h, w] of `{"size": [h, w], "counts": list or text}`.

    Raises:
        KeyError, TypeError, ValueError: fields that are missing, or runs that do not fill the size.
    """
    height, width = (_require_whole(n) for n in record["size"])
    counts = record["counts"]
    runs = _inflate(counts) if isinstance(counts, str) else [_require_whole(n) for n in counts]
    if height * width > MAX_PIXELS:
        raise ValueError(f"its size is stated as {height} x {width}; at most {MAX_PIXELS / 1e6:.0f} million are read")
    if height < 1 or width < 1 or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"run lengths add up to {sum(runs)}, expected {height} x {width}")
    values = np.zeros(len(runs), dtype=bool)
    values[1::2] = True  # the first run is outside
    return np.repeat(values, runs).reshape((height, width), order="F")


def _require_whole(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int | float) or not float(number).is_integer():
        raise ValueError(f"{number!r:.60} is no whole number")
    return int(number)


def _inflate(text: str) -> Sequence[int]:
    """Runs from text: five bits a character from '0' on, lowest first, bit 32 says that more follow.

    The last character carries the sign; from the fourth run on each is the difference from the run two before.
    """
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position == len(text):
                raise ValueError("compressed run lengths end inside a number")
            code = ord(text[position]) - 48
            if not 0 <= code < 64:
                raise ValueError(f"compressed run lengths hold the character {text[position]!r}")
            value |= (code & 0x1F) << shift
            more, shift, position = bool(code & 0x20), shift + 5, position + 1
            if not more and code & 0x10:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
