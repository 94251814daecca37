"""A finished table in one file, so that a stranger can compute every number of it again: the evidence capsule.

It is a zip of text: predictions, scores of maps and boxes, cases with patients and splits, recipes, commands, seeds and
a digest of the code. No picture, no map, no weight, no folder of the machine it was made on: files of initial weights
are named by their content, paths in commands by their last part. `contents.json` holds a checksum of every file; the
capsule's own digest is that of `contents.json`, to be printed beside the numbers where they are published.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sightline.errors import RunError
from sightline.evaluation.result import WINDOWS, EvaluationFiles, read_evaluated_cohort
from sightline.evaluation.tables.provenance import CASES, SOURCES, read_cases, read_sources
from sightline.inference.network_output import Maps
from sightline.metrics.calibration.record import FILE as CALIBRATION
from sightline.metrics.predictions import Predictions
from sightline.structures.identifiers import BY_CONTENT
from sightline.training.recipe import name_weights_by_content
from sightline.training.run import digest_identity

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
        RunError: no finished table, a run of it is missing, or its predictions are of other cases than the table's.
    """
    parts = dict(sorted(_iterate_parts(table)))
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    contents = json.dumps({"format": FORMAT, "files": sums}, indent=1).encode() + b"\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in ((CONTENTS, contents), *parts.items()):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                file.writestr(entry, data)
        partial.replace(out)
    except (OSError, KeyboardInterrupt):
        partial.unlink(missing_ok=True)
        raise
    return Capsule(out, hashlib.sha256(contents).hexdigest(), len(parts), out.stat().st_size)


def require_capsule_file(path: Path) -> None:
    """Refuse a path at which no file is.

    Raises:
        RunError: naming it.
    """
    if not path.is_file():
        found = " (it is a folder)" if path.is_dir() else ""
        raise RunError(f"There is no capsule {path}{found}.", "Name a file that `sightline capsule` wrote.")


def unpack_capsule(path: Path, folder: Path) -> Capsule:
    """Unpack a capsule whose files are all there and as their checksums say.

    Args:
        path: the capsule.
        folder: where to; nothing is written outside it.

    Raises:
        RunError: no capsule, a file that is missing, strange, doubled or changed.
    """
    require_capsule_file(path)
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
            twice = [name for name in names if not _is_plain_name(name)]
            if twice or len({name.casefold() for name in names}) != len(names):
                what = twice[0] if twice else "a file whose name differs in capital letters alone"
                raise RunError(f"{path}: {what} would be another file elsewhere.", _CAUGHT)
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


def _is_plain_name(name: str) -> bool:
    """Whether a name means one file on every system: no way up, no second spelling, no drive."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and not set(name) & set("\\:\0")


_CAUGHT = "Do not trust these numbers; ask for the capsule that was published with them."


def _iterate_parts(table: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file that a capsule takes up."""
    sources = read_sources(table)
    _require_same_cases(table, sources)
    papers = _Papers(table / "runs", sources["rows"])
    tests: dict[str, dict[str, None]] = {}
    for row in sources["rows"]:
        for run in row["runs"]:
            tests.setdefault(run, {}).update(dict.fromkeys(row["tests"]))
        row["runs"] = [papers.name_of(run) for run in row["runs"]]
    for each in (sources, sources.get("environment", {})):
        each["command"] = strip_folders(str(each.get("command", "")))
    yield SOURCES, _format_json(sources)
    for name in (CASES, TABLE, *(each["file"] for each in sources["untrained"])):
        yield name, _read_bytes(table / name)
    for run, of_run in tests.items():
        yield from papers.of(run)
        yield from _strip_scores(table / "runs" / run, f"runs/{papers.name_of(run)}", list(of_run))


def _require_same_cases(table: Path, sources: Mapping[str, Any]) -> None:
    """Refuse predictions that are no longer those of the table: of cases that it does not test on, or (by their stamps)
    of another cohort than those of the other rows.

    Raises:
        RunError: naming the file.
    """
    remedy = "Run the same table command again: it evaluates its own test cases anew."
    tested = {case.case_id for case in read_cases(table / CASES, sources).split("test")}
    stamps: dict[str, tuple[str, Path]] = {}
    for row in sources["rows"]:
        for run, test in ((run, test) for run in row["runs"] for test in row["tests"]):
            folder = table / "runs" / run / "predictions"
            path = EvaluationFiles(folder, test).predictions
            if test == "test" and path.is_file():
                strange = [case for case in Predictions.read(path).case_ids if case not in tested]
                if strange:
                    raise RunError(f"{path} holds {strange[0]}, which the table does not test on.", remedy)
            # rows of one task and of the same sources were tested on the very same cases
            task = _to_plain(table / "runs" / run / "recipe.json").get("task")
            of, stamp = json.dumps([test, row.get("tested_on"), task]), read_evaluated_cohort(folder, test)
            if stamp is None:
                continue  # taken from a capsule
            first, where = stamps.setdefault(of, (stamp, path))
            if stamp != first:
                raise RunError(f"{path} and {where} are predictions of different cohorts.", remedy)


class _Papers:
    """The papers of runs as a capsule shows them.

    A run of an earlier version is named by where its file of initial weights lay. In the capsule that file is named by
    what it holds now, or by its name alone where it is gone, and so the run has another name: that of its recipe as
    shown. `trained_as` in its `cohort.json` keeps the name that the owner's folder has.
    """

    def __init__(self, runs: Path, rows: list[dict[str, Any]]) -> None:
        self.runs = runs
        self._names: dict[str, str] = {}
        runs_of = {row["name"]: row["runs"] for row in rows}
        self._teachers = {
            run: (teacher, row.get("teaching"))
            for row in rows
            if row.get("teacher") is not None
            for run, teacher in zip(row["runs"], runs_of.get(row["teacher"], ()), strict=False)
        }

    def name_of(self, run: str) -> str:
        """What a run is called in the capsule."""
        if run not in self._names:
            shown, facts = self._read_recipe(run), self._read_facts(run)
            same = shown == (recipe := _to_plain(self.runs / run / "recipe.json"))
            parts = self._find_parts(facts)
            same = same and parts == facts.get("parts")
            made = digest_identity(json.dumps(recipe), str(facts["fingerprint"]), facts.get("parts"))
            if made != run:
                raise RunError(
                    f"{self.runs / run} is not made of its recipe and cohort (they make {made}).",
                    "If a row with a teacher wrote it in an earlier version, run the same table command again; else "
                    "its files were edited: restore them.",
                )
            self._names[run] = run if same else digest_identity(json.dumps(shown), str(facts["fingerprint"]), parts)
        return self._names[run]

    def of(self, run: str) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each."""
        folder, name = self.runs / run, self.name_of(run)
        for file in _OF_RUN:
            if not (folder / file).is_file():
                continue
            data = _read_bytes(folder / file)
            if file == "environment.json":
                data = _format_json(_strip_places(_to_plain(folder / file)), indent=2)
            elif name != run and file == "recipe.json":
                data = _format_json(self._read_recipe(run), indent=2)
            elif file == "cohort.json":
                data = self._show_facts(run, data)
            elif file == CALIBRATION:
                record = _to_plain(folder / file)
                about = {
                    **record.get("about", {}),
                    "command": strip_folders(record.get("about", {}).get("command", "")),
                }
                data = _format_json({**record, "run": name, "about": about})
            yield f"runs/{name}/{file}", data

    def _read_recipe(self, run: str) -> Any:
        return _name_run(name_weights_by_content(_to_plain(self.runs / run / "recipe.json")))

    def _read_facts(self, run: str) -> dict[str, Any]:
        """What the run says of its cohort; of a taught run of an earlier version, with the teacher in its name."""
        facts = _to_plain(self.runs / run / "cohort.json")
        if facts.get("run_identity") == run or run not in self._teachers:
            return facts
        teacher, how = self._teachers[run]
        parts = {**facts.get("parts", {}), "teacher": f"{teacher} {how}"}
        before = str(self._read_facts(teacher)["fingerprint"])
        recipe = _to_plain(self.runs / run / "recipe.json")
        if digest_identity(json.dumps(recipe), before, parts) != run:
            return facts
        marks = {"fingerprint": before, "fingerprint_with_marks": facts["fingerprint"]}
        return {**facts, **marks, "run_identity": run, "parts": parts}

    def _show_facts(self, run: str, data: bytes) -> bytes:
        """`cohort.json` as the capsule has it: the owner's bytes where nothing is to be said otherwise."""
        name, facts = self.name_of(run), self._read_facts(run)
        if name != run:
            parts = self._find_parts(facts)
            facts = {**facts, "run_identity": name, **({"parts": parts} if parts else {}), "trained_as": run}
        return data if facts == _to_plain(self.runs / run / "cohort.json") else _format_json(facts)

    def _find_parts(self, facts: dict[str, Any]) -> dict[str, str] | None:
        """Identities of what a run is made of, which may have other names as well; a teacher's is followed by how."""
        if facts.get("parts") is None:
            return None
        found = {}
        for part, words in facts["parts"].items():
            run, gap, how = str(words).partition(" ")
            found[part] = f"{self.name_of(run) if (self.runs / run).is_dir() else run}{gap}{how}"
        return found


def _name_run(data: Any) -> Any:
    """Plain data of a recipe without folders in the names of initial weights."""
    if isinstance(data, list):
        return [_name_run(one) for one in data]
    if not isinstance(data, dict):
        return data
    return {
        key: Path(value).name
        if key == "weights" and isinstance(value, str) and not value.startswith(BY_CONTENT)
        else _name_run(value)
        for key, value in data.items()
    }


def strip_folders(command: str) -> str:
    """A command whose absolute paths are cut down to their last part.

    Example:
        >>> strip_folders("sightline table x --cohort /data/ada/cohort --size 768")
        'sightline table x --cohort cohort --size 768'
    """
    start = r"(?<![^\s=])(?:~|[A-Za-z]:)?[/\\]"
    try:
        words = shlex.split(command) if "'" in command or '"' in command else []
    except ValueError:  # of a version that left the quotes out
        words = []
    # a path with blanks in it is one word
    cut = [re.sub(rf"^([^\s=/\\]+=|)({start}.*)$", _keep_last_part, word, flags=re.DOTALL) for word in words]
    return re.sub(rf"(){start}\S*", _keep_last_part, shlex.join(cut) if words else command)


def _keep_last_part(found: re.Match[str]) -> str:
    return found[1] + PurePosixPath(found[0][len(found[1]) :].replace("\\", "/")).name


def _strip_places(environment: dict[str, Any]) -> dict[str, Any]:
    """What a run notes about its machine, without where files lay on it."""
    kept = {key: value for key, value in environment.items() if key != "weights"}
    return {**kept, "command": strip_folders(str(kept.get("command", "")))}


def _to_plain(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}).", "Run the same table command again.") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged (no fields).", "Run the same table command again.")
    return found


def _format_json(data: Any, indent: int = 1) -> bytes:
    return (json.dumps(data, indent=indent) + "\n").encode()


def list_file_names(folder: Path, sources: Mapping[str, Any]) -> Iterator[str]:
    """Names of the files that belong in an unpacked capsule, whether they are there or not.

    Args:
        folder: where it was unpacked to.
        sources: its `sources.json`.
    """
    yield from (SOURCES, CASES, TABLE, *(str(each["file"]) for each in sources["untrained"]))
    for row in sources["rows"]:
        for run in row["runs"]:
            yield from (f"runs/{run}/{file}" for file in _OF_RUN)
            for test in row["tests"]:
                files = EvaluationFiles(folder / "runs" / run / "predictions", test)
                paths = (files.predictions, *_score_files(files), files.predictions.with_name(f"{test}_{WINDOWS}"))
                yield from (path.relative_to(folder).as_posix() for path in paths)


def _score_files(files: EvaluationFiles) -> tuple[Path, ...]:
    return files.map_scores, files.box_scores, files.printed_box_scores, files.gaze_scores


def _strip_scores(folder: Path, name: str, tests: list[str]) -> Iterator[tuple[str, bytes]]:
    for test in tests:
        files = EvaluationFiles(folder / "predictions", test)
        yield f"{name}/predictions/{files.predictions.name}", _read_bytes(files.predictions)
        for path in _score_files(files):
            if path.is_file():
                yield f"{name}/predictions/{path.name}", _read_bytes(path)
        if files.maps.is_file() and (windows := Maps.read(files.maps).windows) is not None:
            text = StringIO()
            np.savetxt(text, windows.reshape(len(windows), -1), fmt="%.17g", delimiter=",")
            yield f"{name}/predictions/{test}_{WINDOWS}", text.getvalue().encode()
        elif (places := folder / "predictions" / f"{test}_{WINDOWS}").is_file():
            # the run came from a capsule itself
            yield f"{name}/predictions/{places.name}", _read_bytes(places)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}): the table is not whole.", "Run the same table command again."
        ) from None


def make_temporary_folder(path: Path) -> TemporaryDirectory[str]:
    """A temporary folder for `unpack_capsule`, named after the capsule."""
    return TemporaryDirectory(prefix=f"{path.stem[:20]}-")
