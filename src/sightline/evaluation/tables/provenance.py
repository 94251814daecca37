"""What the numbers of a finished table were made from, in files that a capsule takes up: runs, cases, settings.

`sources.json` names the runs of each row and how numbers were computed, `cases.csv` the cases with patients and splits,
`untrained/` the boxes of rows that no training is needed for. No pictures.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import LayoutError, RunError
from sightline.evaluation.result import read_capsule_digest, read_evaluation
from sightline.evaluation.tables.summary import collect_untrained_boxes
from sightline.evaluation.tables.table import Row, RowResult, Table, TableResult
from sightline.io.files import make_safe_name, read_run_csv, write_text
from sightline.metrics.boxes.table import BoxScores
from sightline.structures.case import Case, Cohort
from sightline.training.recipe import read_recipe
from sightline.training.run import compute_code_digest, describe_environment
from sightline.training.serialization import Catalogue

SOURCES = "sources.json"
CASES = "cases.csv"
UNTRAINED = "untrained"
TRAINING_TIME = "training_time.csv"
MOST_REPLICATES = 100_000
_HEAD = ("case_id", "study_id", "patient_id", "label", "split")


def write_training_time(result: TableResult, out: Path) -> None:
    """Write what each row's trainings cost on this machine: seconds of processor, in steps and reading, without tests.

    `ratio` is the row's mean over that of the row it is compared with: equal twins stand near 1. Rows whose trainings
    do not say it (of an earlier version, or put together from other runs) are left empty.
    """
    spent = {
        row.row.name: [cost for folder in row.folders if (cost := _read_processor_time(folder))] for row in result.rows
    }
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(("row", "trainings", "images", "cpu_seconds", "least", "most", "reference", "ratio"))
    for row in result.rows:
        costs, reference = spent[row.row.name], row.row.reference or ""
        if not costs:
            lines.writerow((row.row.name, 0, "", "", "", "", reference, ""))
            continue
        seconds, images = zip(*costs, strict=True)
        beside = [cpu for cpu, _ in spent.get(reference, [])]
        ratio = round(float(np.mean(seconds) / np.mean(beside)), 3) if beside else ""
        cells = (
            round(float(np.mean(images))),
            *(round(float(v), 1) for v in (np.mean(seconds), min(seconds), max(seconds))),
        )
        lines.writerow((row.row.name, len(costs), *cells, reference, ratio))
    write_text(out / TRAINING_TIME, table.getvalue())


def _read_processor_time(folder: Path) -> tuple[float, int] | None:
    """Seconds of processor and images of a training; None where its history does not say it."""
    epochs = read_run_csv(folder / "history.csv")
    if not epochs or not all(epoch.get("cpu_seconds") for epoch in epochs):
        return None
    return sum(float(epoch["cpu_seconds"]) for epoch in epochs), sum(int(epoch["images"]) for epoch in epochs)


def write_sources(result: TableResult, out: Path, replicates: int) -> None:
    """Write what the table's numbers can be computed again from, beside the runs' own files."""
    machine = describe_environment()
    rows = [
        {
            "name": row.row.name,
            "reference": row.row.reference,
            "runs": [folder.name for folder in row.folders],
            "tests": list(row.evaluations),
            "why_not": None if row.why_not is None else str(row.why_not),
            "trained_on": list(row.row.trained_on),
            "tested_on": list(row.row.tested_on),
            **({"taken": taken} if (taken := _name_capsules(row.folders)) else {}),
            **({"seed_offset": row.row.seed_offset} if row.row.seed_offset else {}),
            **({"teacher": row.row.teacher, "teaching": row.row.teaching.notation()} if row.row.teacher else {}),
        }
        for row in result.rows
    ]
    boxes = []
    for number, ((test, task), tables) in enumerate(collect_untrained_boxes(result).items()):
        for name, scores in tables.items():
            file = f"{UNTRAINED}/{number:02d}-{make_safe_name(name.lower().replace(' ', '-'))}.csv"
            scores.write(out / file)
            boxes.append({"test": test, "task": task, "name": name, "file": file})
    fields = {
        "table": result.table.name,
        "title": result.table.title,
        "metrics": list(result.table.metrics),
        "seeds": list(result.seeds),
        "replicates": replicates,
        "cohort": {"name": result.cohort.name, "fingerprint": result.cohort.fingerprint(),
                   "classes": list(result.cohort.classes), "about": dict(result.cohort.about)},
        "rows": rows,
        "untrained": boxes,
        "command": machine["command"],
        "code": compute_code_digest(),
        "environment": machine,
    }  # fmt: skip
    write_text(out / CASES, format_cases(result.cohort))
    # last: its presence says that the table is complete
    write_text(out / SOURCES, json.dumps(fields, indent=1) + "\n")


def _name_capsules(runs: Sequence[Path]) -> dict[str, str]:
    """Digests of capsules by the name of the run that came from each."""
    return {run.name: digest for run in runs if (digest := read_capsule_digest(run)) is not None}


def format_cases(cohort: Cohort) -> str:
    """Cases with study, patient, label and split, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEAD)
    for case in cohort:
        writer.writerow([case.case_id, case.study_id, case.patient_id, case.label, case.split or ""])
    return text.getvalue()


def read_cases(path: Path, sources: Mapping[str, Any]) -> Cohort:
    """The cases of a table, without pictures.

    Raises:
        LayoutError: no table of cases.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = list(csv.reader(file))
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path}: no table of cases ({error}).") from None
    if tuple(head) != _HEAD or any(len(row) != len(_HEAD) for row in rows):
        raise LayoutError(f"{path}: expected columns {','.join(_HEAD)}; got {','.join(head)}.")
    about = sources["cohort"]
    cases = tuple(
        Case(case, study, patient, Path(case), label, split=split or None)  # type: ignore[arg-type]
        for case, study, patient, label, split in rows
    )
    return Cohort(str(about["name"]), tuple(about["classes"]), cases, None, dict(about["about"]))


def read_result(folder: Path, catalogue: Catalogue) -> TableResult:
    """A finished table from its saved files alone: no picture is read, no network is run.

    Raises:
        RunError: the folder holds no finished table, or one of an earlier version.
        LayoutError: a table that does not read.
    """
    sources = read_sources(folder)
    cohort = read_cases(folder / CASES, sources)
    rows: list[Row] = []
    results: list[RowResult] = []
    every = [folder / "runs" / name for fields in sources["rows"] for name in fields["runs"]]
    if not every:
        raise RunError(f"{folder} holds a table none of whose rows ran.", "There is no number to compute again.")
    for fields in sources["rows"]:
        folders = tuple(folder / "runs" / name for name in fields["runs"])
        why = None if fields["why_not"] is None else RunError(fields["why_not"])
        # a row that did not run has no recipe on disk, and needs none: its one line says why
        recipe = read_recipe((folders or every)[0] / "recipe.json", catalogue)
        trained, tested = (tuple(fields[side]) for side in ("trained_on", "tested_on"))
        offset = fields.get("seed_offset", 0)
        row = Row(
            fields["name"], recipe, fields["reference"], trained_on=trained, tested_on=tested, seed_offset=offset
        )  # fmt: skip
        ran = folders if why is None else ()
        evaluations = {test: tuple(read_evaluation(run, test) for run in ran) for test in fields["tests"]}
        rows.append(row)
        results.append(RowResult(row, evaluations if ran else {}, folders, why))
    kept: dict[tuple[str, str], dict[str, BoxScores]] = {}
    for each in sources["untrained"]:
        kept.setdefault((each["test"], each["task"]), {})[each["name"]] = BoxScores.read(folder / each["file"])
    table = Table(sources["table"], sources["title"], tuple(rows), metrics=tuple(sources["metrics"]))
    return TableResult(table, cohort, tuple(sources["seeds"]), tuple(results), kept)


def read_sources(folder: Path) -> dict[str, Any]:
    """`sources.json` of a finished table.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        fields = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
        _require_sources(fields)
    except FileNotFoundError:
        raise RunError(
            f"{folder} holds no finished table with its sources ({SOURCES}).",
            "Run the same table command again: finished rows are reused, and what is missing is written.",
        ) from None
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise RunError(f"{folder / SOURCES} is damaged ({error}).", "Run the same table command again.") from None
    return fields


def _require_sources(fields: Any) -> None:
    """Refuse what cannot be a table's sources; names of runs, tests and files lead nowhere outside its folder.

    Raises:
        ValueError: what was got and what was expected.
    """
    if not isinstance(fields, dict) or not {"rows", "cohort", "replicates", "seeds", "untrained"} <= set(fields):
        raise ValueError("fields are missing")
    replicates, seeds = fields["replicates"], fields["seeds"]
    if type(replicates) is not int or not 0 < replicates <= MOST_REPLICATES:
        raise ValueError(
            f"replicates is {str(replicates)[:40]!r}; a whole number from 1 to {MOST_REPLICATES:,} was expected"
        )
    if not isinstance(seeds, list) or not seeds:
        raise ValueError("seeds is no list of whole numbers")
    for seed in seeds:
        _require_seed("a seed", seed)
    for part, words in (("rows", ("name",)), ("untrained", ("name", "file"))):
        if not isinstance(fields[part], list):
            raise ValueError(f"{part} is no list")
        for entry in fields[part]:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(word), str) for word in words):
                raise ValueError(f"an entry of {part} is no object with {' and '.join(words)} in words")
            _require_seed("seed_offset", entry.get("seed_offset", 0))
            names = entry["file"].split("/") if part == "untrained" else []
            for word in ("runs", "tests") if part == "rows" else ():
                if not isinstance(entry.get(word), list) or not all(isinstance(name, str) for name in entry[word]):
                    raise ValueError(f"the row {entry['name'][:40]!r} has no list of {word}")
                names += entry[word]
            if strange := [name for name in names if name in ("", ".", "..") or set(name) & set("/\\:\0")]:
                raise ValueError(f"{strange[0][:40]!r} in {part} is no name of a file")


def _require_seed(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{name} is {str(value)[:40]!r}; a whole number from 0 was expected")
