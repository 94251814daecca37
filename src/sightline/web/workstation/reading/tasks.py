"""Tasks: what readers are asked, with which tools, and what they may see when."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from sightline.errors import SightlineError
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import read_all_rows, read_first_row
from sightline.web.workstation.store.log import SubmissionRules
from sightline.web.workstation.store.tables import read, task

KINDS = ("mark", "adjudicate", "compare", "name units", "watch gaze")
TOOLS = ("scribble", "box", "polygon", "brush")
ROLES = ("focus", "finding", "organ")
REVEALS = ("never", "after submit", "assisted")
ORDERS = ("given", "random", "active", "listed")
FLAGS = ("not_this_body_part", "cut_off", "artefact", "other")


class TaskRefused(SightlineError):
    """A task that cannot be made or changed.

    Attributes:
        field: which part of it.
        status: as of HTTP.
    """

    def __init__(self, message: str, remedy: str = "", *, field: str = "", status: int = 422) -> None:
        super().__init__(message, remedy)
        self.field, self.status = field, status


def build_spec(given: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """A whole task from what was given of it, checked.

    Args:
        given: any of tools, roles, classes, ask, reveal, shows_ids, study_mode, days_between.
        classes: of the cohort.

    Raises:
        TaskRefused: with the field at fault.
    """
    spec = {
        "tools": list(given.get("tools", TOOLS)),
        "roles": list(given.get("roles", ROLES)),
        "classes": list(given.get("classes", classes)),
        "ask": {"label": False, "confidence": False, "quality": list(FLAGS), **dict(given.get("ask", {}))},
        "reveal": given.get("reveal", "after submit"),
        "shows_ids": bool(given.get("shows_ids", False)),
        "study_mode": bool(given.get("study_mode", False)),
        "days_between": given.get("days_between", 0),
    }
    for name, known in (("tools", TOOLS), ("roles", ROLES), ("classes", classes)):
        strange = [one for one in spec[name] if one not in known]
        if strange or (name != "tools" and not spec[name]):
            raise TaskRefused(f"{name} holds {strange[:1] or 'nothing'}.", f"Known: {', '.join(known)}.", field=name)
    if spec["reveal"] not in REVEALS:
        raise TaskRefused(f"reveal is {spec['reveal']!r}.", f"Known: {', '.join(REVEALS)}.", field="reveal")
    ask = spec["ask"]
    only = set(ask) <= {"label", "confidence", "quality"}
    if not only or not all(isinstance(ask[name], bool) for name in ("label", "confidence")):
        raise TaskRefused("ask has label and confidence (true or false) and quality.", "", field="ask")
    if not isinstance(ask["quality"], list) or not all(isinstance(f, str) and 0 < len(f) <= 40 for f in ask["quality"]):
        raise TaskRefused("quality is a list of short words.", "", field="ask")
    days = spec["days_between"]
    if not isinstance(days, (int, float)) or not 0 <= days <= 3650:
        raise TaskRefused("days_between lies from 0 to 3650.", "", field="days_between")
    return spec


def add_task(connection: Connection, name: str, kind: str, spec: Mapping[str, Any], *, who: str) -> str:
    """Make a task; its id.

    Raises:
        TaskRefused: no name, a name that is taken, or an unknown kind.
    """
    name = name.strip()
    if not 0 < len(name) <= 200:
        raise TaskRefused("A task has a name of at most 200 characters.", "", field="name")
    if kind not in KINDS:
        raise TaskRefused(f"{kind!r} is no kind of task.", f"Known: {', '.join(KINDS)}.", field="kind")
    if connection.execute(select(task.c.id).where(task.c.name == name)).first() is not None:
        raise TaskRefused(f"There is a task {name!r} already.", "Choose another name.", field="name", status=409)
    task_id = str(uuid.uuid4())
    connection.execute(
        task.insert().values(
            id=task_id, name=name, kind=kind, spec=json.dumps(spec), order="given", seed=0, passes=1,
            made_at=format_now(), version=1,
        )
    )  # fmt: skip
    write_audit(connection, who, "add task", task_id, {"kind": kind, "reveal": spec["reveal"]})
    return task_id


def change_task(connection: Connection, task_id: str, version: int, changes: Mapping[str, Any], *, who: str) -> None:
    """Change a task that nobody has begun; its name at any time.

    Raises:
        TaskRefused: 404, 412 where somebody else changed it, 409 where reads were begun.
    """
    row = read_first_row(connection, select(task).where(task.c.id == task_id).with_for_update())
    if row is None:
        raise TaskRefused("There is no such task.", "Look at the list of tasks.", status=404)
    if row["version"] != version:
        raise TaskRefused("Somebody else changed this task.", "Load it again.", status=412)
    begun = connection.execute(select(read.c.id).where(read.c.task == task_id, read.c.started_at.isnot(None)).limit(1))
    if set(changes) - {"name"} and begun.first() is not None:
        raise TaskRefused("Readers have begun this task: it stays as it is.", "Make another task.", status=409)
    old = json.loads(row["spec"])
    spec = build_spec({**old, **{k: v for k, v in changes.items() if k in old}}, changes.get("known", old["classes"]))
    name = str(changes.get("name", row["name"])).strip()[:200] or row["name"]
    connection.execute(
        update(task).where(task.c.id == task_id).values(spec=json.dumps(spec), name=name, version=version + 1)
    )
    write_audit(connection, who, "change task", task_id, {"changed": sorted(set(changes) - {"known"})})


def list_task_rows(connection: Connection, *, reader_id: str | None = None) -> list[dict[str, Any]]:
    """Tasks as the page gets them; of one reader: those with reads of theirs."""
    found = select(task).order_by(task.c.made_at)
    if reader_id is not None:
        found = found.where(task.c.id.in_(select(read.c.task).where(read.c.reader == reader_id)))
    return [build_task_json(connection, row) for row in read_all_rows(connection, found)]


def build_task_json(connection: Connection, row: Mapping[str, Any]) -> dict[str, Any]:
    """One task as the page gets it."""
    readers = connection.execute(
        select(func.count(func.distinct(read.c.reader))).where(read.c.task == row["id"])
    ).scalar()
    own = {name: row[name] for name in ("id", "name", "kind", "order", "passes")}
    return own | json.loads(row["spec"]) | {"readers": readers, "etag": f'"{row["version"]}"'}


def build_question(spec: Mapping[str, Any]) -> SubmissionRules:
    """What a submission under a task must hold."""
    return SubmissionRules(spec["ask"]["label"], spec["ask"]["confidence"], bool(spec["tools"]))
