"""Evidence capsules tampered with in every way that came to mind, and whether `sightline verify` sees it.

A capsule is that of a table of two rows, two trainings each, on drawn wrists; it takes seconds to train, because what
its networks say does not matter here. A forger changes its files and, where it says so, mends the checksums.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sightline.evaluation.evidence.capsule import CONTENTS, write_capsule
from sightline.evaluation.evidence.verification import verify_capsule

Files = dict[str, bytes]
Random = np.random.Generator
REPLICATES = 60


class SmallCapsule:
    """A capsule of a small table; a context that removes its files at the end."""

    def __enter__(self) -> SmallCapsule:
        from sightline.data.phantoms.radiographs.cohort import write_radiographs
        from sightline.evaluation.tables.report import write_table
        from sightline.evaluation.tables.run_table import run_table
        from sightline.evaluation.tables.table import Row, Table
        from sightline.papers.catalogue import CATALOGUE
        from sightline.papers.overrides import Changes, apply_changes
        from sightline.papers.recipes import find_recipe
        from sightline.training.engine import Engine

        self._place = TemporaryDirectory()
        place = Path(self._place.name)
        self.catalogue = CATALOGUE
        small = Changes(steps=2, size=48, batch_size=4, backbone="test_resnet", weights="none")
        unguided, guided = (apply_changes(find_recipe(f"small-{name}"), small) for name in ("unguided", "guided"))
        rows = (Row("unguided", unguided), Row("guided", guided, reference="unguided"))
        cohort = write_radiographs(place / "cohort", studies=48, size_px=160)
        engine = Engine(device="cpu", quiet=True)
        table = run_table(
            Table("small", "A table", rows), cohort, place / "table", CATALOGUE, seeds=(0, 1), engine=engine
        )
        write_table(table, place / "table", replicates=REPLICATES)
        self.capsule = write_capsule(place / "table", place / "whole.capsule")
        with zipfile.ZipFile(self.capsule.path) as file:
            self.files: Files = {name: file.read(name) for name in file.namelist()}
        whole = verify_capsule(self.capsule.path, CATALOGUE, published=self.capsule.digest)
        if not whole.holds:
            raise RuntimeError(f"the capsule itself does not hold: {whole.problems}")
        return self

    def __exit__(self, *_: object) -> None:
        self._place.cleanup()

    def holds_after(self, forge: Callable[[Files, Random], bool], random: Random, *, published: bool) -> bool:
        """Whether the verdict is still good after a forgery, which says whether checksums are to be mended."""
        files, mended = dict(self.files), False
        while files == self.files:
            mended = forge(files, random)
        if mended:
            sums = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files) if name != CONTENTS}
            files[CONTENTS] = json.dumps({"format": 1, "files": sums}, indent=1).encode() + b"\n"
        path = Path(self._place.name) / "forged.capsule"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(name, data)
        return verify_capsule(path, self.catalogue, published=self.capsule.digest if published else None).holds


def careless(files: Files, random: Random) -> bool:
    """A byte changed, a file taken out, put in or exchanged; checksums as they were."""
    name = pick(random, sorted(files))
    what = int(random.integers(4))
    if what == 0:
        data = bytearray(files[name])
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        files[name] = bytes(data)
    elif what == 1:
        del files[name]
    elif what == 2:
        files[f"{name}.bak"] = files[name]
    else:
        files[name] = files[pick(random, sorted(files))]
    return False


def number_moves(files: Files, random: Random) -> bool:
    """Something that a number rests on, checksums mended."""
    FORGERIES[int(random.integers(len(FORGERIES)))](files, random)
    return True


def any_value(files: Files, random: Random) -> bool:
    """One cell of any table, or one value of any file of settings, checksums mended."""
    name = pick(random, sorted(set(files) - {CONTENTS}))
    if name.endswith(".csv"):
        rows = rows_of(files[name])
        row = rows[1 + int(random.integers(len(rows) - 1))] if len(rows) > 1 else rows[0]
        place = int(random.integers(len(row)))
        row[place] = str(changed(number_or_text(row[place]), random))
        files[name] = text_of(rows)
    else:
        data = json.loads(files[name])
        inside, key = pick(random, leaves(data))
        inside[key] = changed(inside[key], random)
        files[name] = json.dumps(data).encode()
    return True


KINDS: dict[str, tuple[Callable[[Files, Random], bool], str, bool]] = {
    "a byte changed, a file taken out, added or exchanged; checksums left; no digest published": (
        careless,
        "all",
        False,
    ),
    "what a number rests on is changed and every checksum mended; no digest published": (number_moves, "all", False),
    "any value of any file is changed and every checksum mended; digest published": (any_value, "all", True),
    "the same, no digest published (no promise: many values move no number)": (any_value, "none", False),
}


def pick(random: Random, of: list) -> object:
    return of[int(random.integers(len(of)))]


def rows_of(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode())))


def text_of(rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def leaves(data: object) -> list[tuple]:
    """Every (container, key) whose value is no container."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found = []
    for key, value in items:
        found += leaves(value) if isinstance(value, (dict, list)) else [(data, key)]
    return found


def number_or_text(cell: str) -> object:
    try:
        return float(cell)
    except ValueError:
        return cell


def changed(value: object, random: Random) -> object:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + pick(random, [1, -1, 0.01, 10])
    return f"{value}x" if random.random() < 0.5 else str(value)[:-1]


def of_predictions(edit: Callable[[list[list[str]], Random], None]) -> Callable[[Files, Random], None]:
    """A forgery of the rows of one table of predictions."""

    def forge(files: Files, random: Random) -> None:
        name = pick(random, sorted(name for name in files if name.endswith("predictions/test.csv")))
        head, *rows = rows_of(files[name])
        edit(rows, random)
        files[name] = text_of([head, *rows])

    return forge


def of_cases(edit: Callable[[list[list[str]], Random], None]) -> Callable[[Files, Random], None]:
    """A forgery of the cases of the cohort."""

    def forge(files: Files, random: Random) -> None:
        head, *rows = rows_of(files["cases.csv"])
        edit(rows, random)
        files["cases.csv"] = text_of([head, *rows])

    return forge


def of_json(name: str, edit: Callable[[object, Random], None]) -> Callable[[Files, Random], None]:
    """A forgery of a file of settings, or of one of those that end so."""

    def forge(files: Files, random: Random) -> None:
        path = pick(random, sorted(path for path in files if path.endswith(name)))
        data = json.loads(files[path])
        edit(data, random)
        files[path] = json.dumps(data).encode()

    return forge


def other_label(row: list[str], place: int, rows: list[list[str]]) -> None:
    row[place] = next(other[place] for other in rows if other[place] != row[place])


def lift_a_hard_case(rows, random):
    """The positive case that the network trusts least becomes its surest."""
    last = max(row[4] for row in rows)
    row = min((row for row in rows if row[4] == last), key=lambda row: float(row[6]))
    row[5:] = ["0.0001", "0.9999"]


def swap_two_labels(rows, random):
    a = pick(random, rows)
    b = next(row for row in rows if row[4] != a[4])
    a[4], b[4] = b[4], a[4]


def exchange_ids(rows, random):
    a = pick(random, rows)
    b = next(row for row in rows if row[4] != a[4])
    a[:3], b[:3] = b[:3], a[:3]


def another_split(rows, random):
    row = pick(random, rows)
    row[4] = pick(random, sorted({"train", "val", "test"} - {row[4]}))


def a_printed_number(lines, random):
    line = pick(random, [line for line in lines if line["mean"] is not None])
    key = pick(random, [k for k in ("mean", "low", "high", "difference", "p_paired", "p_holm") if line[k] is not None])
    line[key] += pick(random, [0.001, -0.001, 0.05])


def numbers_rounded(lines, random):
    for line in lines:
        line["mean"] = None if line["mean"] is None else round(line["mean"], 3)
        line["low"] = None if line["low"] is None else round(line["low"], 2)


def rows_of_sources(edit: Callable[[list, Random], None]) -> Callable[[Files, Random], None]:
    return of_json("sources.json", lambda data, random: edit(data["rows"], random))


def exchange_runs(rows, random):
    rows[0]["runs"], rows[1]["runs"] = rows[1]["runs"], rows[0]["runs"]


def exchange_files(ending: str) -> Callable[[Files, Random], None]:
    def forge(files: Files, random: Random) -> None:
        names = sorted(name for name in files if name.endswith(ending))
        a = pick(random, names)
        b = pick(random, [name for name in names if name != a])
        files[a], files[b] = files[b], files[a]

    return forge


def a_map_score(files, random):
    name = pick(random, sorted(name for name in files if name.endswith("map_scores.csv")))
    head, *rows = rows_of(files[name])
    column = head.index("energy")
    pick(random, [row for row in rows if row[column]])[column] = "0.99"
    files[name] = text_of([head, *rows])


FORGERIES = (
    of_predictions(lift_a_hard_case),
    of_predictions(swap_two_labels),
    of_predictions(exchange_ids),
    of_predictions(lambda rows, random: other_label(pick(random, rows), 4, rows)),
    of_predictions(lambda rows, random: other_label(pick(random, rows), 2, rows)),
    of_predictions(lambda rows, random: other_label(pick(random, rows), 1, rows)),
    of_predictions(lambda rows, random: rows.pop(int(random.integers(len(rows))))),
    of_predictions(lambda rows, random: rows.append(list(pick(random, rows)))),
    of_predictions(lambda rows, random: random.shuffle(rows)),
    of_cases(another_split),
    of_cases(lambda rows, random: rows.append(list(pick(random, rows)))),
    of_cases(lambda rows, random: rows.remove(pick(random, [row for row in rows if row[4] == "test"]))),
    of_cases(lambda rows, random: other_label(pick(random, [row for row in rows if row[4] == "test"]), 3, rows)),
    of_json("table.json", a_printed_number),
    of_json("table.json", numbers_rounded),
    of_json("table.json", lambda lines, random: lines.pop(int(random.integers(len(lines))))),
    of_json("table.json", lambda lines, random: lines.append({**pick(random, lines), "row": "better"})),
    of_json("sources.json", lambda data, random: data.update(seeds=[0, 7])),
    of_json("sources.json", lambda data, random: data.update(replicates=data["replicates"] - 20)),
    rows_of_sources(exchange_runs),
    rows_of_sources(lambda rows, random: rows.pop()),
    rows_of_sources(lambda rows, random: pick(random, rows)["runs"].pop()),
    rows_of_sources(lambda rows, random: rows[0].update(runs=rows[0]["runs"][:1] * 2)),
    of_json("recipe.json", lambda data, random: data.update(epochs=data["epochs"] + 1)),
    of_json("recipe.json", lambda data, random: data.update(seed=data["seed"] + 7)),
    of_json("cohort.json", lambda data, random: data.update(fingerprint="0" * 16)),
    exchange_files("recipe.json"),
    exchange_files("predictions/test.csv"),
    a_map_score,
)
