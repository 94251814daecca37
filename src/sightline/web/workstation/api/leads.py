"""What a lead does: readers, tasks, plans, progress, the audit chain; and reopening a read."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import select

from sightline.errors import quote_command
from sightline.web.workstation.accounts.readers import AccountRefused, add_reader, change_reader, find_reader
from sightline.web.workstation.api.people import Desk, Signed, require
from sightline.web.workstation.api.refusals import RefusedRequest
from sightline.web.workstation.reading.plans import Plan, deal
from sightline.web.workstation.reading.progress import measure_progress
from sightline.web.workstation.reading.tasks import add_task, build_spec, build_task_json, change_task, list_task_rows
from sightline.web.workstation.reading.worth import compute_worth
from sightline.web.workstation.store.audit import verify, write_audit
from sightline.web.workstation.store.database import read_all_rows, read_first_row, read_one_row
from sightline.web.workstation.store.log import reopen
from sightline.web.workstation.store.tables import audit, read, reader, task

router = APIRouter()


class NewReader(BaseModel):
    """An account to be made."""

    name: str = Field(max_length=200)
    display: str = Field("", max_length=200)
    role: str = "reader"
    password: str = Field(max_length=2000)


class ReaderChanges(BaseModel):
    """What changes about an account; what is left out stays."""

    display: str | None = Field(None, max_length=200)
    role: str | None = None
    password: str | None = Field(None, max_length=2000)
    disabled: bool | None = None


class NewTask(BaseModel):
    """A task to be made."""

    name: str = Field(max_length=400)
    kind: str = "mark"
    tools: list[str] | None = None
    roles: list[str] | None = None
    classes: list[str] | None = None
    ask: dict[str, Any] | None = None
    reveal: str | None = None
    shows_ids: bool | None = None
    study_mode: bool | None = None
    days_between: float | None = None


class NewPlan(BaseModel):
    """A plan that deals reads."""

    task: str
    readers: list[str] = Field(max_length=200)
    passes: int = 1
    order: str = "random"
    seed: int = 0
    warm_up: int = 0
    studies: list[str] | None = None
    days_between: float | None = None


class Comment(BaseModel):
    """Words to a reader."""

    comment: str = Field("", max_length=10_000)


@router.get("/readers")
def get_readers(person: Signed, desk: Desk) -> dict[str, Any]:
    """All accounts."""
    require(person, "readers")
    with desk.database.reading() as connection:
        rows = read_all_rows(connection, select(reader).order_by(reader.c.made_at))
    names = ("id", "name", "display", "role", "made_at", "disabled_at")
    command = quote_command("sightline", "readers", "list", desk.options.keep.name)
    return {"rows": [{name: row[name] for name in names} for row in rows], "command": command}


@router.post("/readers", status_code=201)
def post_reader(given: NewReader, person: Signed, desk: Desk) -> dict[str, str]:
    """Make an account."""
    require(person, "readers")
    with desk.database.writing() as connection:
        made = add_reader(
            connection, given.name, display=given.display, role=given.role, password=given.password, who=person.id
        )
    return {"id": made}


@router.patch("/readers/{reader_id}")
def patch_reader(reader_id: str, given: ReaderChanges, person: Signed, desk: Desk) -> dict[str, str]:
    """Change an account; a new password or disabling ends its sessions."""
    require(person, "readers")
    changes = {name: value for name, value in given.model_dump().items() if value is not None}
    with desk.database.writing() as connection:
        change_reader(connection, reader_id, who=person.id, changes=changes)
    return {"id": reader_id}


@router.get("/tasks")
def get_tasks(person: Signed, desk: Desk) -> dict[str, Any]:
    """All tasks for a lead or adjudicator, one's own for others."""
    everything = "plan" in person.may or "adjudicate" in person.may
    with desk.database.reading() as connection:
        return {"rows": list_task_rows(connection, reader_id=None if everything else person.id)}


@router.post("/tasks", status_code=201)
def post_task(given: NewTask, person: Signed, desk: Desk) -> dict[str, Any]:
    """Make a task."""
    require(person, "plan")
    stated = {name: value for name, value in given.model_dump(exclude={"name", "kind"}).items() if value is not None}
    spec = build_spec(stated, desk.classes)
    with desk.database.writing() as connection:
        made = add_task(connection, given.name, given.kind, spec, who=person.id)
        return build_task_json(connection, read_one_row(connection, select(task).where(task.c.id == made)))


@router.patch("/tasks/{task_id}")
def patch_task(
    task_id: str, given: dict[str, Any], person: Signed, desk: Desk, if_match: Annotated[str | None, Header()] = None
) -> dict[str, Any]:
    """Change a task that nobody has begun."""
    require(person, "plan")
    if if_match is None:
        raise RefusedRequest(428, "Say which version of the task you change.", "Send If-Match with its etag.")
    version = if_match.strip().strip('"')
    if not version.isdecimal():
        raise RefusedRequest(412, "Somebody else changed this task.", "Load it again.")
    with desk.database.writing() as connection:
        known = {**given, "known": list(desk.classes)}
        change_task(connection, task_id, int(version), known, who=person.id)
        return build_task_json(connection, read_one_row(connection, select(task).where(task.c.id == task_id)))


@router.post("/plans")
def post_plan(given: NewPlan, person: Signed, desk: Desk) -> dict[str, int]:
    """Deal reads."""
    require(person, "plan")
    with desk.database.writing() as connection:
        ids = []
        for name in given.readers:
            row = find_reader(connection, name)
            if row is None:
                raise AccountRefused(f"There is no reader {name[:80]!r}.", "Look at the list of readers.")
            ids.append(row["id"])
        worth = compute_worth(connection) if given.order == "active" else None
        plan = Plan(ids, given.passes, given.order, given.seed, given.warm_up, given.studies, worth)
        if given.days_between:
            row = read_one_row(connection, select(task).where(task.c.id == given.task))
            changes = {"days_between": given.days_between, "known": list(desk.classes)}
            change_task(connection, given.task, row["version"], changes, who=person.id)
        return {"reads": deal(connection, given.task, plan, who=person.id)}


@router.get("/progress")
def get_progress(task: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """How far each reader is, and how long a study takes them."""
    require(person, "plan")
    with desk.database.reading() as connection:
        return measure_progress(connection, task)


@router.post("/reads/{read_id}/reopen")
def post_reopen(read_id: str, given: Comment, person: Signed, desk: Desk) -> dict[str, str]:
    """Open a submitted read again, with a comment to its reader."""
    require(person, "adjudicate")
    with desk.database.writing() as connection:
        if read_first_row(connection, select(read.c.id).where(read.c.id == read_id)) is None:
            raise RefusedRequest(404, "There is no such read.", "Look at the list of reads.")
        reopen(connection, read_id, who=person.id, comment=given.comment, op_id=str(uuid.uuid4()))
    return {"state": "returned"}


@router.get("/reads")
def get_reads(person: Signed, desk: Desk, task: str, reader: str, state: str | None = None) -> dict[str, Any]:
    """The reads of one reader, for a lead: what to open again; no marks, no answers."""
    require(person, "plan")
    with desk.database.reading() as connection:
        found = select(read).where(read.c.task == task, read.c.reader == reader).order_by(read.c.ordinal).limit(1000)
        rows = read_all_rows(connection, found if state is None else found.where(read.c.state == state))
    names = ("id", "study", "pass", "ordinal", "state", "warm_up", "random_draw", "started_at", "submitted_at")
    return {"rows": [{name: row[name] for name in names} for row in rows]}


@router.get("/audit")
def get_audit(
    person: Signed, desk: Desk, after: int = 0, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> dict[str, Any]:
    """The audit chain, the newest first; `after` is the seq of the last row one has."""
    require(person, "readers")
    found = select(audit).order_by(audit.c.seq.desc()).limit(limit + 1)
    with desk.database.reading() as connection:
        rows = read_all_rows(connection, found if after <= 0 else found.where(audit.c.seq < after))
    names = ("seq", "at", "who", "what", "object", "detail")
    shown = [{name: row[name] for name in names} for row in rows[:limit]]
    return {"rows": shown, "next": shown[-1]["seq"] if len(rows) > limit else None}


@router.post("/verify")
def post_verify(person: Signed, desk: Desk) -> dict[str, Any]:
    """Walk every chain."""
    require(person, "readers")
    with desk.database.reading() as connection:
        rows, broken = verify(connection)
    with desk.database.writing() as connection:
        write_audit(connection, person.id, "verify", "store", {"rows": rows, "broken": broken is not None})
    found = None if broken is None else {"where": broken.where, "row": broken.row, "why": broken.why}
    command = quote_command("sightline", "marks", "verify", desk.options.keep.name)
    return {"rows": rows, "broken": found, "command": command}


@router.delete("/readers/{reader_id}", status_code=405)
def delete_reader(reader_id: str, person: Signed) -> Response:
    """Accounts are never deleted: their reads stay theirs."""
    raise RefusedRequest(405, "Accounts are not deleted: their marks stay theirs.", "Disable the account.")
