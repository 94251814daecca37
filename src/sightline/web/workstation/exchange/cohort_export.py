"""Marks as a cohort in our layout, with the readings beside it: what a training takes, and what each mark cost."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from sightline.errors import LayoutError
from sightline.io.files import write_new_folder, write_text
from sightline.metrics.agreement.report import AgreementRow, build_agreement_table
from sightline.metrics.agreement.staple import RULES as MERGE_RULES
from sightline.structures.case import PROPOSED_BY, Case, Cohort
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Region
from sightline.web.workstation.exchange.reader_study import write_study
from sightline.web.workstation.exchange.readings import (
    FinishedRead,
    build_readings,
    find_shape,
    group_images_by_study,
    list_finished_reads,
    merge_marks,
)
from sightline.web.workstation.marks.clock import RULE
from sightline.web.workstation.marks.regions import build_region
from sightline.web.workstation.reading.outcomes import find_latest_outcomes, list_outcome_marks
from sightline.web.workstation.service import Workstation
from sightline.web.workstation.store.audit import format_canonical
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.log import read_ops
from sightline.web.workstation.store.tables import audit, outcome, proposal, study

# whose marks an export holds: by these rules one merged mark of all readers, else each reader's or one reader's own
MERGING = ("consensus", *MERGE_RULES)
RULES = ("each", *MERGING)
READS_COLUMNS = (
    "read", "task", "reader", "study", "pass", "state", "wall_s", "active_s", "first_mark_s", "marking_s", "looking_s",
    "clock_unsure", "marks", "nothing", "label", "confidence", "quality", "source", "warm_up", "random_draw", "aid",
    "submitted_at",
)  # fmt: skip


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        images: in the cohort.
        marked: images with marks.
        marks: regions written.
        reads: rows of reads.csv.
        left_out: `(what, why)` of everything that was not written.
    """

    images: int
    marked: int
    marks: int
    reads: int
    left_out: tuple[tuple[str, str], ...]


def merge_regions_by_image(
    desk: Workstation, connection: Connection, reads: Sequence[FinishedRead], whose: str
) -> dict[str, list[Region]]:
    """The regions of each image, as a rule makes them of several readers' marks.

    `each` keeps every reader's marks under their name; a reader's name keeps theirs alone. `union`, `intersection`,
    `majority` and `staple` make one mask a role and class; a reader who marked nothing there counts as an empty mask.
    `consensus` takes the adjudicated outcome where there is one, else STAPLE. The first pass counts.

    Raises:
        LayoutError: no reader of this name.
    """
    first = [one for one in reads if int(one.row["pass"]) == 1]
    names = {one.reader for one in first}
    if whose not in RULES and whose not in names:
        raise LayoutError(f"There is no finished read of {whose!r}.", f"Known: {', '.join([*RULES, *sorted(names)])}.")
    images = group_images_by_study(connection)
    made: dict[str, list[Region]] = {}
    outcomes = find_latest_outcomes(connection, of="marks") if whose == "consensus" else {}
    by_study: dict[str, list[FinishedRead]] = {}
    for one in first:
        by_study.setdefault(one.row["study"], []).append(one)
    for study_key, rows in images.items():
        last = outcomes.get(study_key)
        decided = None if last is None else list_outcome_marks(connection, last)
        for row in rows:
            if decided is not None:
                made[row["key"]] = [build_region(mark, "consensus") for mark in decided if mark["image"] == row["key"]]
                continue
            there = [one for one in by_study.get(study_key, []) if whose in RULES or one.reader == whose]
            if whose not in MERGING:
                regions = [build_region(mark, one.reader) for one in there for mark in one.marks_on(row["key"])]
            else:
                shape, marks = find_shape(desk, row), [one.marks_on(row["key"]) for one in there]
                rule = "staple" if whose == "consensus" else whose
                regions = [] if shape is None else [*merge_marks(marks, shape, rule, whose)]
            if there:
                made[row["key"]] = regions
    return made


def build_cohort(
    desk: Workstation, connection: Connection, reads: Sequence[FinishedRead], whose: str
) -> tuple[Cohort, list[tuple[str, str]]]:
    """The cohort with the readers' marks in place of the marks it had; gaze stays.

    Pictures that are gone or were changed since they were marked are left out, with the reason.
    """
    regions = merge_regions_by_image(desk, connection, reads, whose)
    by_id = {row["image_id"]: row for rows in group_images_by_study(connection).values() for row in rows}
    labels = _vote_labels(connection, reads, whose)
    cases: list[Case] = []
    left_out: list[tuple[str, str]] = []
    for case in desk.cohort:
        row = by_id[case.case_id]
        if not case.image.is_file():
            left_out.append((case.case_id, "the picture is gone"))
            continue
        if desk.compare_with_first_look(row)[1] and row["key"] in regions:
            left_out.append((case.case_id, "the picture was changed since it was first opened here"))
            continue
        kept = tuple(region for region in case.regions if isinstance(region, Gaze))
        label = labels.get(case.study_id, case.label) if desk.unlabelled else case.label
        shape = case.shape or find_shape(desk, row)
        cases.append(replace(case, regions=kept + tuple(regions.get(row["key"], [])), label=label, shape=shape))
    about = dict(desk.cohort.about) | {"marks": f"workstation, readers: {whose}", "marks from": desk.row["id"]}
    assisted = sorted({one.row["task_name"] for one in reads if one.source == "assisted"})
    if assisted:
        about["marks from proposals"] = f"tasks {', '.join(assisted)}: no test of the run that proposed them"
    about.pop(PROPOSED_BY, None)
    if weights := find_proposing_weights(connection, [one for one in reads if whose in RULES or one.reader == whose]):
        about[PROPOSED_BY] = " ".join(weights)
    classes = desk.cohort.classes
    if desk.unlabelled and all(case.label != classes[0] for case in cases):
        classes = classes[1:]
    return replace(desk.cohort, cases=tuple(cases), classes=classes, about=about), left_out


def find_proposing_weights(connection: Connection, reads: Sequence[FinishedRead]) -> list[str]:
    """SHA-256 of the weights of runs whose proposals became marks in reads, accepted or edited."""
    taken = {one for each in reads for one, outcome in each.fold.proposals.items() if outcome != "rejected"}
    rows = connection.execute(select(proposal.c.id, proposal.c.weights))
    return sorted({str(weights) for key, weights in rows if key in taken})


def _vote_labels(connection: Connection, reads: Sequence[FinishedRead], whose: str) -> dict[str, str]:
    """Labels of studies, from those whose marks are taken: one reader's own, else the vote of all.

    By `consensus` a label that was decided on stands before the vote. Of as many votes, the first one submitted counts.
    """
    votes: dict[str, Counter[str]] = {}
    for one in sorted(reads, key=lambda one: str(one.row["submitted_at"])):
        counts = int(one.row["pass"]) == 1 and (whose in RULES or one.reader == whose)
        if counts and one.fold.answers.label is not None:
            votes.setdefault(one.row["study_id"], Counter())[one.fold.answers.label] += 1
    labels = {study_id: counts.most_common(1)[0][0] for study_id, counts in votes.items()}
    if whose == "consensus":
        names = dict(connection.execute(select(study.c.key, study.c.study_id)).tuples().all())
        decided = find_latest_outcomes(connection, of="label")
        labels |= {names[key]: str(row["label"]) for key, row in decided.items()}
    return labels


def export_folder(desk: Workstation, destination: Path, whose: str = "each") -> ExportSummary:
    """Write the cohort and, beside its tables, `readings/`.

    Args:
        desk: the workstation.
        destination: a new or empty folder.
        whose: each, consensus, union, intersection, majority, staple, or a reader's name.

    Raises:
        LayoutError: a folder that holds something, or no reader of this name.
    """
    from sightline.data.datasets.folder.writer import write_cohort

    with desk.database.reading() as connection:
        reads = list_finished_reads(connection)
        cohort, left_out = build_cohort(desk, connection, reads, whose)
        everything = list_finished_reads(connection, warm_up=True)
        with write_new_folder(destination) as partial:
            write_cohort(cohort, partial)
            write_readings(desk, connection, everything, partial / "readings")
            lines = [{"what": what, "why": why} for what, why in left_out]
            _write_table(partial / "readings" / "left_out.csv", ("what", "why"), lines)
    marks = [sum(not isinstance(r, Gaze) for r in case.regions) for case in cohort]
    return ExportSummary(len(cohort), sum(n > 0 for n in marks), sum(marks), len(everything), tuple(left_out))


def write_readings(
    desk: Workstation, connection: Connection, reads: Sequence[FinishedRead], folder: Path
) -> list[AgreementRow]:
    """`reads.csv`, `strokes.jsonl`, `agreement.csv`, `outcomes.csv`, `audit.jsonl`; gives the rows of agreement."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / "reads.csv", READS_COLUMNS, [read_row(one) for one in reads])
    write_text(folder / "clock_rule.txt", RULE + "\n")
    image_ids = {row["key"]: row["image_id"] for rows in group_images_by_study(connection).values() for row in rows}
    lines = []
    for one in reads:
        for stored in read_ops(connection, one.row["id"]):
            mark = stored["body"].get("mark")
            strokes = mark.get("strokes") if isinstance(mark, dict) else stored["body"].get("set", {}).get("strokes")
            if strokes:
                own = {"read": one.row["id"], "reader": one.reader, "image_id": image_ids[stored["image"]]}
                mark_id = mark["id"] if isinstance(mark, dict) else mark
                lines.append(format_canonical(own | {"mark": mark_id, "at_ms": stored["at_ms"], "strokes": strokes}))
    write_text(folder / "strokes.jsonl", "".join(line + "\n" for line in lines))
    counted = [one for one in reads if not one.row["warm_up"]]
    table = build_agreement_table(build_readings(desk, connection, counted), desk.cohort.classes) if counted else []
    _write_table(folder / "agreement.csv", AGREEMENT_COLUMNS, [build_agreement_row(row) for row in table])
    aided = [one for one in counted if one.row["aid"] is not None]
    if aided:
        truths = {case.study_id: case.label for case in desk.cohort}
        write_study(aided, truths, desk.classes, folder / "reader_study")
    names = ("id", "task", "study", "from_read", "how", "label", "by", "at", "comment", "replaces", "marks")
    decided = read_all_rows(connection, select(outcome).order_by(outcome.c.seq))
    _write_table(folder / "outcomes.csv", names, decided)
    chain = read_all_rows(connection, select(audit).order_by(audit.c.seq))
    write_text(folder / "audit.jsonl", "".join(format_canonical(row) + "\n" for row in chain))
    return table


def read_row(one: FinishedRead) -> dict[str, Any]:
    """A read as a row of reads.csv."""
    answers, row = one.fold.answers, one.row
    aid = None if row["aid"] is None else json.loads(row["aid"])
    return {
        "read": row["id"], "task": row["task_name"], "reader": one.reader, "study": row["study_id"],
        "pass": row["pass"], "state": row["state"], "wall_s": one.time.wall_s, "active_s": one.time.active_s,
        "first_mark_s": one.time.first_mark_s, "marking_s": one.time.marking_s, "looking_s": one.time.looking_s,
        "clock_unsure": int(one.time.unsure), "marks": len(one.fold.live), "nothing": int(answers.nothing),
        "label": answers.label, "confidence": answers.confidence, "quality": " ".join(answers.quality),
        "source": one.source, "warm_up": int(row["warm_up"]), "random_draw": int(row["random_draw"]),
        "aid": None if aid is None else aid["condition"], "submitted_at": row["submitted_at"],
    }  # fmt: skip


AGREEMENT_COLUMNS = ("pair", "of", "measure", "value", "low", "high", "n", "method", "why")


def build_agreement_row(row: AgreementRow) -> dict[str, Any]:
    """A number of agreement as a row of agreement.csv."""
    own = row.estimate
    counts = " ".join(f"{name}={count}" for name, count in own.n.items())
    return {
        "pair": row.pair, "of": row.what, "measure": own.name, "value": own.value, "low": own.low, "high": own.high,
        "n": counts, "method": own.method, "why": own.why,
    }  # fmt: skip


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows({name: _guard_cell(row.get(name)) for name in columns} for row in rows)


def _guard_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: what readers wrote is text."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
