"""Writing our own layout: pictures and masks first, tables beside the old ones, renamed together at the end."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.datasets.folder.format import (
    FACT,
    HEAD,
    IMAGE_COLUMNS,
    LAYOUT,
    STUDY_COLUMNS,
    VERSION,
    describe_region,
    encode_gaze,
    save_gaze,
)
from sightline.data.datasets.folder.origin import RECORD, build_record, list_unnamed, name_origin, require_repeat
from sightline.errors import LayoutError, count_noun
from sightline.io.files import (
    AGAIN,
    BEGUN,
    LEFTOVERS,
    LOCK_NAME,
    LONGEST,
    drop_leftovers,
    make_file_name,
    mark_whole,
    rewrite_folder,
)
from sightline.io.tables import find_path_inside, read_table
from sightline.structures.case import Case, Cohort
from sightline.structures.gaze import Gaze
from sightline.structures.identifiers import clean_text
from sightline.structures.regions import Mask

TABLES = ("studies.csv", "images.csv", "regions.json", HEAD)
# rows of studies and of images, and the names of the images' facts
Rows = tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]
# records of how patches lie in their CTs: written beside them before the tables
RECORDS = "spines"
STAGED = ".new"


def write_cohort(cohort: Cohort, destination: Path, copy_images: bool = True, origin: str = "") -> None:
    """Write a cohort so that `folder.read` gives it back equal (paths of pictures and masks apart).

    Pictures and masks that already lie under `destination` stay where they are; others are copied into `images/` and
    `regions/mask/`, gaze is written to `regions/gaze/`. Tables are staged and renamed when all are complete, HEAD
    last. A finished cohort is written anew beside its files and exchanged at the end: a writer that fails or dies
    leaves the old cohort, or a folder that `read` refuses, never a mixture.

    Args:
        cohort: what to write.
        destination: a new or empty folder, one that holds nothing but the cohort's own pictures, or a cohort folder
            of the same name that was written from the same and not changed since: it is replaced, and what the cohort
            no longer names is removed. A cohort whose pictures all lie there is written over its own tables.
        copy_images: False refuses pictures that do not lie under `destination` yet.
        origin: what the cohort comes from (`name_origin`); by default the folder it was read from.

    Raises:
        LayoutError: a foreign folder, another cohort or one that was changed, a missing picture, or something the
            layout cannot hold.
    """
    destination = Path(destination)
    kept = {case.image: inside for case in cohort if (inside := _make_relative(destination, case.image))}
    in_place = bool(kept) and all(case.image in kept for case in cohort)
    if not origin and cohort.root is not None and not in_place:
        origin = name_origin(Path(cohort.root))
    masks = [(case, region) for case in cohort for region in case.regions if isinstance(region, Mask)]
    _refuse_foreign(destination, kept, masks)
    if (destination / HEAD).exists():
        # who made the copy of a finished folder has asked the folder itself
        alone = in_place or destination.name == AGAIN
        require_repeat(destination, None if alone else origin, cohort.name)
    rows = _build_rows(cohort)
    for case in cohort:
        if not case.image.is_file():
            raise LayoutError(f"{case.image}, the picture of {case.case_id!r}, is missing.", "Restore the picture.")
        if not copy_images and case.image not in kept:
            raise LayoutError(f"{case.image} does not lie under {destination}.", "Let the writer copy the pictures.")

    paths = kept | _choose_new_image_paths(cohort, kept)
    if (destination / HEAD).exists():
        with rewrite_folder(destination, HEAD) as place:
            _write_files(cohort, destination, place, paths, rows, origin)
        return
    destination.mkdir(parents=True, exist_ok=True)
    drop_leftovers(destination)
    (destination / BEGUN).touch()  # what is left of a command that is stopped is ours: it may be written again
    _write_files(cohort, destination, destination, paths, rows, origin)
    mark_whole(destination)


def _write_files(cohort: Cohort, home: Path, place: Path, paths: Mapping[Path, str], rows: Rows, origin: str) -> None:
    """Write pictures, regions, tables and, of a known origin, its record into `place`: `home`, or a copy of it."""
    studies, images, facts = rows
    for image, relative in paths.items():
        if _make_relative(home, image) is None:
            _write_whole(place / relative, partial(shutil.copyfile, image))
    records = _write_regions(cohort, home, place)
    image_rows = [row | {"path": paths[case.image]} for case, row in zip(cohort, images, strict=True)]
    own = [c for c in ("grid", "grid_mm", "label", "split") if any(row.get(c) for row in image_rows)]
    _stage_table(place / "studies.csv", STUDY_COLUMNS, studies)
    _stage_table(place / "images.csv", [*IMAGE_COLUMNS, *own, *[FACT + name for name in facts]], image_rows)
    _stage_text(place / "regions.json", "[\n" + ",\n".join(_format_json(r) for r in records) + "\n]\n")
    _require_read_back(place, studies, image_rows)
    head = {"layout": LAYOUT, "version": VERSION, "name": cohort.name, "classes": list(cohort.classes)}
    _stage_text(place / HEAD, json.dumps(head | {"about": dict(cohort.about)}, indent=2) + "\n")
    written = [*paths.values(), *(record["path"] for record in records if "path" in record)]
    if origin:
        files = {name: place / name for name in written} | {name: place / (name + STAGED) for name in TABLES}
        _stage_text(place / RECORD, build_record(origin, files))
    if (place / HEAD).exists() and any(_make_relative(home, image) is None for image in paths):
        for former in list_unnamed(place, written):
            former.unlink()
    (place / HEAD).unlink(missing_ok=True)
    for name in (RECORD, *TABLES) if origin else TABLES:
        (place / (name + STAGED)).replace(place / name)


def _require_read_back(
    destination: Path, studies: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse to finish what would not be read as it was written; the tables that were there before stay."""
    for table, key, rows in (("studies.csv", "study_id", studies), ("images.csv", "image_id", images)):
        staged = destination / (table + STAGED)
        read = read_table(staged, (key,), key=key)
        for row, wanted in zip(read, rows, strict=False):
            for column in (key, "patient_id", "label", "path"):
                text = str(wanted.get(column) or "")
                if column in row.cells and row[column] != text:
                    raise LayoutError(
                        f"{column} {text!r} would be read back as {row[column]!r} from {table}.", "Name it otherwise."
                    )
        if len(read) != len(rows):
            raise LayoutError(
                f"{count_noun(len(rows), 'row')} of {table} would be read back as {len(read)}.", "Report this."
            )
    for image in images:
        path = find_path_inside(destination, image["path"])
        if path is None or not path.is_file():
            raise LayoutError(f"{image['path']!r} would not be found again.", "Rename the picture.")


def _refuse_foreign(destination: Path, kept: Mapping[Path, str], masks: Sequence[tuple[Case, Mask]]) -> None:
    if not destination.exists():
        return
    if not destination.is_dir():
        raise LayoutError(f"{destination} is a file, not a folder.", "Choose another destination.")
    if any((destination / name).exists() for name in (HEAD, BEGUN, HEAD + STAGED)):
        return  # a finished cohort, or an earlier write of ours that was stopped
    ours = {RECORDS} | {path.split("/")[0] for path in kept.values()} | {name + STAGED for name in TABLES}
    for _, mask in masks:
        if isinstance(mask.source, Path) and (relative := _make_relative(destination, mask.source)):
            ours.add(relative.split("/")[0])
    foreign = sorted(
        entry.name for entry in destination.iterdir() if entry.name not in (*ours, LOCK_NAME, BEGUN, *LEFTOVERS)
    )
    if foreign:
        raise LayoutError(
            f"{destination} holds files that are no cohort of ours, e.g. {foreign[:3]}.",
            "Choose a new or empty folder; nothing was written.",
        )


def _make_relative(folder: Path, path: Path) -> str | None:
    """`path` relative to `folder` with forward slashes, or None where it lies elsewhere."""
    for a, b in ((folder.absolute(), path.absolute()), (folder.resolve(), path.resolve())):
        if b.is_relative_to(a) and ".." not in b.parts:
            return b.relative_to(a).as_posix()
    return None


def _choose_new_image_paths(cohort: Cohort, kept: Mapping[Path, str]) -> dict[Path, str]:
    """images/NAME where the name is unique, else images/CASE_ID/NAME: file names are part of the fingerprint."""
    new = {case.image: case for case in cohort if case.image not in kept}
    taken = {path.casefold() for path in kept.values()}
    names = Counter(image.name.casefold() for image in new)
    paths = {}
    for image, case in new.items():
        name = image.name if _survives_table(image.name) else make_file_name(image.name)
        path = f"images/{name}"
        if names[image.name.casefold()] > 1 or path.casefold() in taken:
            path = f"images/{make_file_name(case.case_id)}/{name}"
        number = 2
        while path.casefold() in taken:
            path, number = f"images/{make_file_name(case.case_id)}/{number}/{name}", number + 1
        taken.add(path.casefold())
        paths[image] = path
    return paths


def _survives_table(name: str) -> bool:
    """Whether a file's name comes back from a table as it is, and fits beside a mark that it is being written."""
    return clean_text(name) == name and name.isprintable() and "\\" not in name and len(name.encode()) <= LONGEST


def _iterate_studies(cohort: Cohort) -> Iterator[tuple[str, list[Case]]]:
    """Study ids in the order of their first case, each with its cases."""
    studies: dict[str, list[Case]] = {}
    for case in cohort:
        studies.setdefault(case.study_id, []).append(case)
    yield from studies.items()


def _build_rows(cohort: Cohort) -> Rows:
    studies: list[dict[str, Any]] = []
    per_image: dict[str, dict[str, str]] = {}
    for study_id, cases in _iterate_studies(cohort):
        patients = sorted({case.patient_id for case in cases})
        if len(patients) > 1:
            raise LayoutError(f"Study {study_id!r} belongs to several patients: {patients}.", "Give it one patient.")
        row = {"study_id": study_id, "patient_id": patients[0], "label": cases[0].label, "split": cases[0].split or ""}
        for column in ("label", "split"):
            # a study whose images differ leaves its cell empty and every image states its own
            if len({getattr(case, column) for case in cases}) > 1:
                row[column] = ""
                for case in cases:
                    per_image.setdefault(case.case_id, {})[column] = getattr(case, column) or ""
        if not study_id or not patients[0]:
            raise LayoutError(f"Study {study_id!r} of patient {patients[0]!r} has an empty id.", "Name both.")
        studies.append(row)
    facts = sorted({name for case in cohort for name, text in case.facts.items() if text})
    images = []
    for case in cohort:
        if not case.case_id:
            raise LayoutError(f"The case of {case.image} has an empty id.", "Name it.")
        own: dict[str, Any] = {"image_id": case.case_id, "study_id": case.study_id, "view": case.view}
        if len(case.shape or case.spacing_mm or (0, 0)) == 2:
            height, width = case.shape or ("", "")
            down, across = case.spacing_mm or ("", "")
            own |= {"width": width, "height": height, "row_spacing_mm": down, "col_spacing_mm": across}
        else:
            own |= {"grid": _join_sizes(case.shape), "grid_mm": _join_sizes(case.spacing_mm)}
        own |= {FACT + name: text for name, text in case.facts.items()} | per_image.get(case.case_id, {})
        images.append(own)
    return studies, images, facts


def _join_sizes(sizes: Sequence[float] | None) -> str:
    """Sizes along the axes of a volume in one cell; every digit is kept."""
    return " ".join(str(size) for size in sizes or ())


def _write_regions(cohort: Cohort, home: Path, place: Path) -> list[dict[str, Any]]:
    masks = [r for case in cohort for r in case.regions if isinstance(r, Mask)]
    kept = {m.source: p for m in masks if isinstance(m.source, Path) and (p := _make_relative(home, m.source))}
    taken = {path.casefold() for path in kept.values()}
    records = []
    for case in cohort:
        for region in case.regions:
            relative = ""
            if isinstance(region, Mask):
                relative = kept.get(region.source, "") if isinstance(region.source, Path) else ""
                if not relative:
                    suffix = "png" if region.pixels().ndim == 2 else "nii.gz"
                    relative = _choose_new_path("regions/mask", case.case_id, region.tag.label, suffix, taken)
                    _write_whole(place / relative, partial(_save_mask, case, region))
                    # what was written is this mask alone: 1 is inside, whatever number it had
                    region = replace(region, value=None)
            if isinstance(region, Gaze):
                # a file that is there stays as it is: the old tables may still name it
                fits = partial(_may_write, place, encode_gaze(region))
                relative = _choose_new_path("regions/gaze", case.case_id, region.tag.reader, "npy", taken, fits)
                if not (place / relative).exists():
                    _write_whole(place / relative, partial(save_gaze, region))
            records.append(describe_region(case.case_id, region, relative))
    return records


def _save_mask(case: Case, mask: Mask, path: Path) -> None:
    pixels = mask.pixels()
    if pixels.ndim == 3:
        from sightline.io.nifti import read_volume, write_volume

        # in place with the volume it lies on; the temporary name says nothing of the format
        written = path.with_name(path.name + ".nii.gz")
        write_volume(written, pixels.astype(np.uint8), read_volume(case.image).affine)
        written.replace(path)
        return
    from PIL import Image

    Image.fromarray(mask.pixels().astype(np.uint8) * np.uint8(255)).save(path, format="PNG")


def _may_write(destination: Path, content: bytes, relative: str) -> bool:
    """Whether a file does not exist, or holds just this."""
    path = destination / relative
    return not path.exists() or (path.is_file() and path.read_bytes() == content)


def _choose_new_path(
    folder: str, case_id: str, word: str | None, suffix: str, taken: set[str], fits: Callable[[str], bool] | None = None
) -> str:
    stem = make_file_name(case_id) + (f"__{make_file_name(word)}" if word else "")
    path, number = f"{folder}/{stem}.{suffix}", 2
    while path.casefold() in taken or (fits is not None and not fits(path)):
        path, number = f"{folder}/{stem}__{number}.{suffix}", number + 1
    taken.add(path.casefold())
    return path


def _write_whole(path: Path, make: Callable[[Path], object]) -> None:
    """Make a file under a temporary name and rename it: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a short name: that of the file may be as long as names can be
    temporary = path.with_name(
        f".{blake2b(path.name.encode(errors='backslashreplace'), digest_size=8).hexdigest()}{STAGED}"
    )
    make(temporary)
    temporary.replace(path)


def _stage_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.with_name(path.name + STAGED).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({name: _clean_cell(value) for name, value in row.items()} for row in rows)
        file.flush()
        os.fsync(file.fileno())


def _clean_cell(value: Any) -> Any:
    """What a cell can hold: facts are whatever a source wrote, zero bytes and half letters among them."""
    if not isinstance(value, str) or (value.isascii() and value.isprintable()):
        return value
    return value.replace("\0", "").encode("utf-8", errors="backslashreplace").decode("utf-8")


def _stage_text(path: Path, text: str) -> None:
    with path.with_name(path.name + STAGED).open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _format_json(record: Mapping[str, Any]) -> str:
    # numpy scalars become the Python number of the same value
    return json.dumps(record, allow_nan=False, default=lambda value: value.item())
