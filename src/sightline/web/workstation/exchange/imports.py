"""Marks of elsewhere as finished reads of a reader: a cohort in our layout, or COCO."""

from __future__ import annotations

import csv
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, update

from sightline.errors import LayoutError
from sightline.structures.gaze import Gaze
from sightline.web.workstation.accounts.readers import add_reader, find_reader
from sightline.web.workstation.exchange.coco import read_coco_marks
from sightline.web.workstation.exchange.readings import find_shape, group_images_by_study
from sightline.web.workstation.marks.operations import MarkContext, OperationRefused, check_mark
from sightline.web.workstation.marks.regions import build_mark
from sightline.web.workstation.reading.plans import build_read
from sightline.web.workstation.reading.tasks import add_task, build_spec
from sightline.web.workstation.service import Workstation
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import read_first_row
from sightline.web.workstation.store.log import SentBatch, SubmissionRules, append_ops
from sightline.web.workstation.store.tables import read, task

IMPORTED = "Imported"
_BATCH = 100


def import_marks(
    desk: Workstation, source: Path, how: str, reader_name: str, *, role: str = "focus", task_name: str = IMPORTED
) -> tuple[int, list[tuple[str, str]]]:
    """Bring marks in, one finished read a study that has any; how many marks came in, and what did not: which, why.

    A study that the reader has an imported read of already is refused, so that nothing is brought in twice.

    Args:
        desk: the workstation.
        source: a cohort folder, or a COCO document.
        how: folder or coco.
        reader_name: whose marks they become; an account that nobody can sign in with is made where there is none.
        role: of marks that state none.
        task_name: task that the reads belong to, made where there is none; agreement compares readers of a task.

    Raises:
        LayoutError: not readable as what it was said to be.
    """
    if not source.exists():
        raise LayoutError(f"{source} does not exist.", "Give the folder or file to import.")
    with desk.database.reading() as connection:
        images = group_images_by_study(connection)
    rows = {row["key"]: row for each in images.values() for row in each}
    shapes = {key: find_shape(desk, row) for key, row in rows.items()}
    around = MarkContext(shapes, desk.cohort.classes, ("focus", "finding", "organ"), ())
    names = _map_names(rows)
    if how == "folder":
        marks, rejects = _read_folder_marks(source, names, around)
    elif how == "coco":
        document = source if source.is_file() else source / "annotations.json"
        marks, rejects = read_coco_marks(document, names, around, role)
    else:
        raise LayoutError(f"{how!r} is no way to import.", "Known: folder, coco.")
    studies: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for key, own in marks.items():
        studies.setdefault(rows[key]["study"], []).extend((key, mark) for mark in own)
    with desk.database.writing() as connection:
        count = _store(connection, desk, studies, around, (reader_name, task_name), rejects)
        write_audit(connection, "server", "import", reader_name, {"how": how, "marks": count, "rejects": len(rejects)})
    return count, rejects


def _map_names(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    names: dict[str, str] = {}
    short: dict[str, set[str]] = {}
    for key, row in rows.items():
        names[row["image_id"]] = names[row["path"]] = key
        short.setdefault(Path(row["path"]).name, set()).add(key)
    return {name: next(iter(keys)) for name, keys in short.items() if len(keys) == 1} | names


def _read_folder_marks(
    source: Path, names: Mapping[str, str], around: MarkContext
) -> tuple[dict[str, list[dict[str, Any]]], list[tuple[str, str]]]:
    from sightline.data.datasets.folder.reader import read_cohort

    marks: dict[str, list[dict[str, Any]]] = {}
    rejects: list[tuple[str, str]] = []
    for case in read_cohort(source):
        for n, region in enumerate(case.regions):
            name = f"{case.case_id}, region {n}"
            if isinstance(region, Gaze):
                rejects.append((name, "gaze is no mark"))
                continue
            key = names.get(case.case_id)
            if key is None:
                rejects.append((name, "its image is not in this cohort"))
                continue
            mark = build_mark(region, str(uuid.uuid4()))
            mark["label"] = mark["label"] if mark["label"] in around.classes else None
            try:
                check_mark(mark, around, around.shapes[key])
            except OperationRefused as error:
                rejects.append((name, error.message))
                continue
            marks.setdefault(key, []).append(mark)
    return marks, rejects


def _store(
    connection: Connection, desk: Workstation, studies: Mapping[str, list[tuple[str, dict[str, Any]]]],
    around: MarkContext, names: tuple[str, str], rejects: list[tuple[str, str]],
) -> int:  # fmt: skip
    """Marks as finished reads of a reader and task, both by name; how many came in."""
    reader_name, task_name = names
    row = find_reader(connection, reader_name)
    if row is None:
        who = add_reader(connection, reader_name, display="", role="reader", password=None, who="server")
    else:
        who = row["id"]
    there = read_first_row(connection, select(task.c.id).where(task.c.name == task_name))
    spec = build_spec({"ask": {"label": False, "confidence": False}}, desk.cohort.classes)
    task_id = there["id"] if there else add_task(connection, task_name, "mark", spec, who="server")
    done = select(read.c.study).where(read.c.task == task_id, read.c.reader == who)
    known = set(connection.execute(done).scalars())
    last = connection.execute(
        select(func.max(read.c.ordinal)).where(read.c.task == task_id, read.c.reader == who)
    ).scalar()
    ordinal, count, now = 0 if last is None else last + 1, 0, format_now()
    for study_key, own in studies.items():
        if study_key in known:
            rejects.append((study_key, f"{reader_name} has a read of this study in the task already"))
            continue
        fresh = build_read(task_id, study_key, who, 1, ordinal, now)
        connection.execute(read.insert().values(**fresh))
        ordinal += 1
        client, at = str(uuid.uuid4()), time.time() * 1000.0
        bodies: list[tuple[str, str | None, dict[str, Any]]] = [("add", key, {"mark": mark}) for key, mark in own]
        bodies.append(("submit", None, {}))
        times = {"client": client, "at_ms": at, "mono_ms": 0.0}
        ops = [
            {"id": str(uuid.uuid4()), "n": n, "kind": kind, "image": key, "body": body, **times}
            for n, (kind, key, body) in enumerate(bodies)
        ]
        for start in range(0, len(ops), _BATCH):
            state = read_first_row(connection, select(read).where(read.c.id == fresh["id"]))
            assert state is not None
            append_ops(
                connection,
                state,
                ops[start : start + _BATCH],
                around,
                SentBatch(at, None, at),
                asked=SubmissionRules(),
                who=who,
            )
        connection.execute(update(read).where(read.c.id == fresh["id"]).values(touched_at=now))
        count += len(own)
    return count


def write_rejected(path: Path, rejects: list[tuple[str, str]]) -> None:
    """One line for each thing that could not be used."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("what", "why"))
        rows.writerows(rejects)
