"""What a cohort folder was written from, and whether it is still as it was written: what may be replaced, and what not.

`written.json` holds a digest of the source (a path may name people) and a fingerprint of every file of the cohort. A
repeat from the same source may replace the folder as long as nobody changed it: what is lost can be had again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from sightline.data.datasets.folder.format import read_head
from sightline.errors import LayoutError, SightlineError, count_noun
from sightline.io.files import fingerprint_file, read_json
from sightline.io.tables import read_table

RECORD = "written.json"
REMEDY = "Choose another folder, or remove this one; nothing was written."


def name_origin(folder: Path, layout: str = "") -> str:
    """A text for where a cohort comes from: the same for the same folder, however its path is written."""
    return f"{layout} {os.path.realpath(folder)}"


def build_record(origin: str, files: Mapping[str, Path]) -> str:
    """The text of the record.

    Args:
        origin: what the cohort is written from, see `name_origin`.
        files: where each file of the cohort lies now, by its path in the finished folder.
    """
    found = {relative: fingerprint_file(path) for relative, path in sorted(files.items())}
    return json.dumps({"from": _digest_origin(origin), "files": found}, indent=0) + "\n"


def require_repeat(folder: Path, origin: str | None, name: str | None = None) -> None:
    """Refuse to replace a finished cohort folder unless it was written from the same, and not changed since.

    Args:
        folder: the finished folder.
        origin: what it would be written from now; None where only the name is to be the same.
        name: the name of the cohort that would be written, where it is known.

    Raises:
        LayoutError: another cohort, one of which nothing says what it was written from, or one that was changed.
    """
    there = read_head(folder)["name"]
    images = _count_images(folder)
    holds = f"{there!r}" + ("" if images is None else f" ({count_noun(images, 'image')})")
    record = _read_record(folder)
    if name not in (None, there) or (origin is not None and record and record[0] != _digest_origin(origin)):
        raise LayoutError(f"{folder} already holds another cohort {holds}.", REMEDY)
    if origin is None:
        return
    if record is None:
        raise LayoutError(f"{folder} already holds a cohort {holds}, and no record says what wrote it.", REMEDY)
    # a picture that is gone comes back; a table that is gone was taken away for a reason
    changed = [
        relative
        for relative, mark in record[1].items()
        if ((folder / relative).is_file() or "/" not in relative) and fingerprint_file(folder / relative) != mark
    ]
    if changed:
        others = f" and {count_noun(len(changed) - 1, 'other file')}" if changed[1:] else ""
        # the tables, which people edit, before pictures
        first = min(changed, key=lambda relative: (relative.count("/"), relative))
        raise LayoutError(
            f"{folder} already holds a cohort {holds}, of which {first}{others} changed since it was written.",
            "Choose another folder; or remove this one, if the changes may be lost. Nothing was written.",
        )


def list_unnamed(folder: Path, names: Iterable[str]) -> list[Path]:
    """Files that the record of an earlier write lists, and that are not among those that the cohort names now."""
    record = _read_record(folder)
    # where upper and lower case are the same, another spelling is the same file
    kept = {name.casefold() for name in names}
    files = () if record is None else record[1]
    return [path for name in files if name.casefold() not in kept and (path := folder / name).is_file()]


def _digest_origin(origin: str) -> str:
    return hashlib.sha256(os.fsencode(origin)).hexdigest()[:24]


def _read_record(folder: Path) -> tuple[str, dict[str, str]] | None:
    """What the cohort was written from, and the fingerprint of each file; None where no record reads."""
    if not (folder / RECORD).is_file():
        return None
    try:
        record = read_json(folder / RECORD)
    except SightlineError:
        return None
    origin, files = record.get("from"), record.get("files")
    if not isinstance(origin, str) or not isinstance(files, dict):
        return None
    inside = {str(name): str(mark) for name, mark in files.items() if ".." not in Path(str(name)).parts}
    return origin, {name: mark for name, mark in inside.items() if not Path(name).is_absolute()}


def _count_images(folder: Path) -> int | None:
    try:
        return len(read_table(folder / "images.csv", ("image_id",)))
    except LayoutError:
        return None
