"""A finished table in one file, so that a stranger can compute every number of it again: the evidence capsule.

It is a zip of text: predictions, scores of maps and boxes, cases with patients and splits, recipes, commands, seeds and
a digest of the code. No picture, no map, no weight. `contents.json` holds a checksum of every file; the capsule's own
digest is that of `contents.json`, to be printed beside the numbers where they are published.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

import numpy as np

from sightline.errors import RunError
from sightline.evaluation.result import EvaluationFiles
from sightline.evaluation.tables.provenance import CASES, SOURCES, WINDOWS, read_sources
from sightline.inference.network_output import Maps
from sightline.metrics.calibration.record import FILE as CALIBRATION

CONTENTS = "contents.json"
TABLE = "table.json"
FORMAT = 1
MOST_BYTES = 2_000_000_000
_OF_RUN = ("recipe.json", "cohort.json", "environment.json", "history.csv", "boxes.json", CALIBRATION)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Capsule:
    """What a capsule holds.

    Attributes:
        path: the file.
        digest: of its contents, 64 hex digits.
        files: number of files in it.
        bytes: size of the file.
    """

    path: Path
    digest: str
    files: int
    bytes: int


def write_capsule(table: Path, out: Path) -> Capsule:
    """Put a finished table's folder into a capsule; the same folder gives the same bytes.

    Args:
        table: what `sightline table` wrote.
        out: the file.

    Raises:
        RunError: no finished table, or a run of it is missing.
    """
    parts = dict(sorted(_parts(table)))
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    contents = json.dumps({"format": FORMAT, "files": sums}, indent=1).encode() + b"\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in ((CONTENTS, contents), *parts.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, data)
    partial.replace(out)
    return Capsule(out, hashlib.sha256(contents).hexdigest(), len(parts), out.stat().st_size)


def unpack_capsule(path: Path, folder: Path) -> Capsule:
    """Unpack a capsule whose files are all there and as their checksums say.

    Args:
        path: the capsule.
        folder: where to; nothing is written outside it.

    Raises:
        RunError: no capsule, a file that is missing, strange, doubled or changed.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            if len(set(names)) != len(names):
                raise RunError(f"{path}: a file stands twice in the capsule.", _CAUGHT)
            if sum(entry.file_size for entry in file.infolist()) > MOST_BYTES:
                raise RunError(f"{path} unpacks to more than {MOST_BYTES:,} bytes.", _CAUGHT)
            contents = file.read(CONTENTS)
            listed = json.loads(contents)
            if not isinstance(listed, dict) or listed.get("format") != FORMAT or not isinstance(listed["files"], dict):
                raise RunError(f"{path} is no capsule of format {FORMAT}.", "Use the version that wrote it.")
            sums: dict[str, str] = listed["files"]
            different = sorted({*sums, CONTENTS} ^ set(names))
            if different:
                raise RunError(f"{path}: {different[0]} is missing in the capsule or in its contents.", _CAUGHT)
            for name, wanted in sums.items():
                data = file.read(name)
                if hashlib.sha256(data).hexdigest() != wanted:
                    raise RunError(f"{path}: {name} is not what the capsule's contents say.", _CAUGHT)
                target = (folder / name).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise RunError(f"{path}: {name} would lie outside the capsule.", _CAUGHT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    except (OSError, BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise RunError(f"{path} is no capsule, or a damaged one ({error}).", "Fetch the file again.") from None
    except zipfile.zlib.error as error:  # type: ignore[attr-defined]
        raise RunError(f"{path} is damaged ({error}).", "Fetch the file again.") from None
    return Capsule(path, hashlib.sha256(contents).hexdigest(), len(sums), path.stat().st_size)


_CAUGHT = "Do not trust these numbers; ask for the capsule that was published with them."


def _parts(table: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file that a capsule takes up."""
    sources = read_sources(table)
    for name in (SOURCES, CASES, TABLE, *(each["file"] for each in sources["untrained"])):
        yield name, _bytes(table / name)
    seen = set()
    for row in sources["rows"]:
        for run in row["runs"]:
            if run not in seen:
                seen.add(run)
                yield from _of_run(table / "runs" / run, f"runs/{run}", row["tests"])


def _of_run(folder: Path, name: str, tests: list[str]) -> Iterator[tuple[str, bytes]]:
    for file in _OF_RUN:
        if (folder / file).is_file():
            yield f"{name}/{file}", _bytes(folder / file)
    for test in tests:
        files = EvaluationFiles(folder / "predictions", test)
        yield f"{name}/predictions/{files.predictions.name}", _bytes(files.predictions)
        for path in (files.map_scores, files.box_scores, files.printed_box_scores, files.gaze_scores):
            if path.is_file():
                yield f"{name}/predictions/{path.name}", _bytes(path)
        if files.maps.is_file() and (windows := Maps.read(files.maps).windows) is not None:
            text = StringIO()
            np.savetxt(text, windows.reshape(len(windows), -1), fmt="%.17g", delimiter=",")
            yield f"{name}/predictions/{test}_{WINDOWS}", text.getvalue().encode()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}): the table is not whole.", "Run the same table command again."
        ) from None


def temporary_folder(path: Path) -> TemporaryDirectory[str]:
    """A temporary folder for `unpack_capsule`, named after the capsule."""
    return TemporaryDirectory(prefix=f"{path.stem[:20]}-")
