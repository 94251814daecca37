"""How far readers agree, as tables: for the page, as csv and as one html file."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection

from sightline.errors import RunError, count_noun
from sightline.metrics.agreement.masks import dice
from sightline.metrics.agreement.report import AgreementRow, Reading, build_agreement_table, compute_study_dice
from sightline.web.workstation.exchange.cohort_export import AGREEMENT_COLUMNS, build_agreement_row
from sightline.web.workstation.exchange.readings import build_readings, list_finished_reads
from sightline.web.workstation.marks.clock import RULE
from sightline.web.workstation.reading.outcomes import LETTERS
from sightline.web.workstation.service import Workstation


def pseudonymise(readings: Sequence[Reading], *, names: bool) -> tuple[list[Reading], list[str]]:
    """Readings under letters instead of names, and the readers as they are called then."""
    known = sorted({one.reader for one in readings})
    letters = {name: LETTERS[i % 26] + ("" if i < 26 else str(i // 26)) for i, name in enumerate(known)}
    if names:
        return list(readings), known
    return [replace(one, reader=letters[one.reader]) for one in readings], [letters[name] for name in known]


def build_agreement_json(
    desk: Workstation, connection: Connection, task_id: str, *, names: bool, hidden: set[str],
    titles: Mapping[str, str], replicates: int = 500,
) -> dict[str, Any]:  # fmt: skip
    """Agreement of a task as the page gets it; studies that whoever asks has yet to read are left out.

    Args:
        desk: the workstation.
        connection: to its store.
        task_id: of the task.
        names: readers by their names, else by letters.
        hidden: studies that are left out.
        titles: of studies, by key.
        replicates: of the bootstrap.
    """
    finished = list_finished_reads(connection, task_id=task_id)
    reads = [one for one in finished if one.row["study"] not in hidden]
    left_out = {one.row["study"] for one in finished} & hidden
    readings, readers = pseudonymise(build_readings(desk, connection, reads), names=names)
    table = build_agreement_table(readings, desk.classes, replicates=replicates) if readings else []
    by_dice = compute_study_dice(readings)
    labels: dict[str, list[str | None]] = {}
    for one in readings:
        if one.number == 1:
            labels.setdefault(one.study, []).append(one.label)
    studies = [
        {
            "study": key, "title": titles.get(key, ""), "dice": by_dice.get(key), "labels": given,
            "disagreement": measure_disagreement(by_dice.get(key), given),
        }
        for key, given in labels.items()
        if len(given) > 1
    ]  # fmt: skip
    studies.sort(key=lambda row: -float(row["disagreement"]))  # type: ignore[arg-type]
    rows = [
        {
            "pair": row.pair, "of": row.what, "name": row.estimate.name, "class": None, "value": row.estimate.value,
            "low": row.estimate.low, "high": row.estimate.high, "n": dict(row.estimate.n),
            "method": row.estimate.method, "why": row.estimate.why,
        }
        for row in table
    ]  # fmt: skip
    return {
        "task": task_id, "readers": readers, "estimates": rows, "studies": studies, "hidden": len(left_out),
        "rule": RULE, "matrix": {"measure": "Dice", "values": _build_matrix(readings, readers)},
    }  # fmt: skip


def measure_disagreement(overlap: float | None, labels: Sequence[str | None]) -> float:
    """How much readers differ on a study, 0 to 2: 1 minus Dice, plus the share of pairs with other labels."""
    pairs = list(itertools.combinations([label for label in labels if label is not None], 2))
    other = sum(a != b for a, b in pairs) / len(pairs) if pairs else 0.0
    return (0.0 if overlap is None else 1.0 - overlap) + other


def _build_matrix(readings: Sequence[Reading], readers: Sequence[str]) -> list[list[float | None]]:
    """Mean Dice of each pair of readers; on the diagonal that of a reader's first and second pass."""
    by_key = {(one.reader, one.number, one.study): one for one in readings}
    studies = sorted({one.study for one in readings})

    def average(first: tuple[str, int], second: tuple[str, int]) -> float | None:
        values = []
        for s in studies:
            a, b = by_key.get((*first, s)), by_key.get((*second, s))
            if a is not None and b is not None:
                values += [dice(a.masks[key], b.masks[key]) for key in a.masks.keys() & b.masks.keys()]
        return float(np.mean(values)) if values else None

    return [[average((a, 1), (b, 2 if a == b else 1)) for b in readers] for a in readers]


def write_agreement(desk: Workstation, out: Path, *, names: bool) -> int:
    """Write agreement.csv and report.html of all tasks; how many numbers.

    Raises:
        RunError: nobody has finished a read.
    """
    with desk.database.reading() as connection:
        reads = list_finished_reads(connection)
        if not reads:
            raise RunError("No read is finished.", "Submit studies first.")
        tasks = list(dict.fromkeys((one.row["task"], one.row["task_name"]) for one in reads))
        tables: list[tuple[str, list[AgreementRow], int]] = []
        for task_id, name in tasks:
            own = [one for one in reads if one.row["task"] == task_id]
            readings, _ = pseudonymise(build_readings(desk, connection, own), names=names)
            tables.append((name, build_agreement_table(readings, desk.classes), len(own)))
    out.mkdir(parents=True, exist_ok=True)
    with (out / "agreement.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("task", *AGREEMENT_COLUMNS), lineterminator="\r\n")
        writer.writeheader()
        for name, table, _ in tables:
            writer.writerows({"task": name, **build_agreement_row(row)} for row in table)
    _write_html(desk, out, tables)
    return sum(len(table) for _, table, _ in tables)


def _write_html(desk: Workstation, out: Path, tables: Sequence[tuple[str, list[AgreementRow], int]]) -> None:
    from sightline.plots.html_report import ReportTable, Section, write_report

    sections = []
    for name, table, count in tables:
        rows = tuple(
            (
                row.pair, row.what, row.estimate.name, row.estimate.text(),
                " ".join(f"{key} {n}" for key, n in row.estimate.n.items()), row.estimate.why,
            )
            for row in table
        )  # fmt: skip
        columns = ("readers", "of", "measure", "value (95 % interval over patients)", "n", "why")
        notes = (
            "Between readers the first pass counts; within a reader the first against the second.",
            "Two empty masks agree fully (Dice 1) and are counted apart; one empty mask counts 0.",
        )
        shown = ReportTable(
            f"Agreement in the task {name!r}: {count_noun(count, 'finished read')}", columns, rows, notes=notes
        )
        sections.append(Section(name, (), (shown,)))
    finished = sum(count for _, _, count in tables)
    write_report(
        out / "report.html", title=f"Agreement of readers on {desk.cohort.name}",
        summary=f"{count_noun(finished, 'finished read')} in {count_noun(len(tables), 'task')}. "
        "Each number has its interval over patients.",
        sections=sections, how_to_read=HOW_TO_READ,
        provenance={"cohort": f"{desk.cohort.name} {desk.row['cohort_fingerprint']}", "clock": RULE},
    )  # fmt: skip


HOW_TO_READ = (
    ("Kappa and alpha", "1 is full agreement, 0 is what chance alone would give."),
    ("Dice", "Twice the shared area over the sum of both: 1 is the same mask, 0 is no shared pixel."),
    ("Rim distance", "How far the rims of two marks lie apart: in mm where every pixel size is known, else in pixels."),
    ("STAPLE", "Each reader's share of what is inside (sensitivity) and outside (specificity) of the likeliest mask."),
    ("ICC", "Share of the spread of numbers that lies between what was rated, not between readers."),
)
