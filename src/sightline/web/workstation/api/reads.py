"""The worklist, and one read: its study, its operations, its events."""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import func, select, update
from starlette.concurrency import run_in_threadpool

from sightline.web.workstation.api.images import build_images_json
from sightline.web.workstation.api.people import Desk, Signed, require
from sightline.web.workstation.api.refusals import RefusedRequest
from sightline.web.workstation.marks.fold import fold_operations
from sightline.web.workstation.reading.aids import build_aid_json, build_proposals_json
from sightline.web.workstation.reading.blinding import select_seen_studies
from sightline.web.workstation.reading.hanging import plan_hanging
from sightline.web.workstation.reading.tasks import build_question, build_task_json
from sightline.web.workstation.reading.times import build_clock_json
from sightline.web.workstation.reading.worklist import (
    Question,
    choose_title,
    find_next_read,
    find_previous_read,
    find_waiting_day,
    read_page,
)
from sightline.web.workstation.store.audit import format_canonical, format_now, write_audit
from sightline.web.workstation.store.database import read_first_row, read_one_row
from sightline.web.workstation.store.log import SentBatch, append_events, append_ops, read_ops
from sightline.web.workstation.store.tables import image, read, task

router = APIRouter()
MOST_OPS, MOST_EVENTS = 100, 500


@router.get("/worklist")
def get_worklist(
    person: Signed, desk: Desk,
    task: str | None = None, state: str | None = None,
    q: Annotated[str, Query(max_length=200)] = "", sort: str = "queue",
    after: Annotated[str | None, Query(max_length=400)] = None, limit: int = 50, seen: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A page of one's own queue; `seen`: of the studies whose other reads one may see, each once."""
    require(person, "mark")
    with desk.database.reading() as connection:
        those = select_seen_studies(connection, person) if seen else None
        question = Question(task or None, state or None, q, those, sort, after or None, limit)
        return read_page(connection, person.id, question)


@router.get("/worklist/next")
def get_next(person: Signed, desk: Desk, task: str | None = None, after: str | None = None) -> dict[str, Any]:
    """The next read to do, and its pictures to fetch ahead; where there is none, the day that the rest waits for."""
    require(person, "mark")
    with desk.database.reading() as connection:
        row = desk.own_read(connection, after, person) if after else None
        found = find_next_read(connection, person.id, task or None, row)
        waits = None if found else find_waiting_day(connection, person.id, task or None)
        return {"read": found, "images": _list_images_of_read(connection, found), "waits": waits}


def _list_images_of_read(connection: Any, read_id: str | None) -> list[str]:
    if read_id is None:
        return []
    keys = select(image.c.key).join(read, read.c.study == image.c.study).where(read.c.id == read_id)
    return list(connection.execute(keys.order_by(image.c.ordinal)).scalars())


@router.get("/reads/{read_id}")
def get_read(read_id: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """All that is needed to go on with a read."""
    require(person, "mark")
    with desk.database.reading() as connection:
        row = desk.own_read(connection, read_id, person)
        if row["not_before"] is not None and row["not_before"] > format_now():
            raise RefusedRequest(409, f"This study waits until {row['not_before'][:10]}.", "Read others meanwhile.")
        spec = json.loads(row["spec"])
        task_row = read_one_row(connection, select(task).where(task.c.id == row["task"]))
        images = desk.images_of(connection, row["study"])
        ops = read_ops(connection, read_id)
        following = find_next_read(connection, person.id, row["task"], row)
        own = {
            "id": read_id, "task": build_task_json(connection, task_row), "state": row["state"], "pass": row["pass"],
            "ordinal": row["ordinal"], "warm_up": row["warm_up"], "started_at": row["started_at"],
            "submitted_at": row["submitted_at"],
            "of": connection.execute(
                select(func.count()).where(read.c.reader == person.id, read.c.task == row["task"])
            ).scalar(),
            "returned": _find_return(ops),
            "ops": ops, "server_seq": row["last_seq"], "state_of_marks": fold_operations(ops).to_json(),
            "view": json.loads(row["view"]),
            "next": following and {"read": following, "images": _list_images_of_read(connection, following)},
            "previous": find_previous_read(connection, row),
            "aid": build_aid_json(connection, row), "proposals": build_proposals_json(connection, row, spec),
        }  # fmt: skip
    pictures = build_images_json(desk, images)
    title = choose_title(row["ordinal"], row["study_id"], shows_ids=spec["shows_ids"])
    study = {"key": row["study"], "title": title, "label_hint": None, "images": pictures}
    if row["started_at"] is None:
        with desk.database.writing() as connection:
            write_audit(connection, person.id, "open", read_id, {})
    return own | {"study": study, "hanging": plan_hanging(pictures), "read_only": _read_only(row, pictures)}


def _find_return(ops: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The comment with which a read came back, while it is open again."""
    for one in reversed(ops):
        if one["kind"] == "submit":
            return None
        if one["kind"] == "reopen":
            return {"comment": one["body"]["comment"], "at": one["received_at"]}
    return None


def _read_only(row: Any, pictures: list[dict[str, Any]]) -> dict[str, str] | None:
    if row["state"] == "submitted":
        return {"message": "This read is submitted.", "remedy": "A lead can open it again."}
    if any(picture["changed"] for picture in pictures):
        return {
            "message": "A picture of this study is another file than when it was first opened here.",
            "remedy": "Marks are kept and cannot be changed until the lead has decided.",
        }
    return None


@router.post("/reads/{read_id}/ops")
async def post_ops(read_id: str, request: Request, person: Signed, desk: Desk) -> dict[str, Any]:
    """Store a batch of operations: all of it, or nothing."""
    require(person, "mark")
    given, sent = await _read_batch(request, "ops", MOST_OPS)
    return await run_in_threadpool(_store_ops, read_id, given, sent, person, desk)


def _store_ops(read_id: str, given: list[Any], sent: SentBatch, person: Signed, desk: Desk) -> dict[str, Any]:
    with desk.database.reading() as connection:
        row = desk.own_read(connection, read_id, person)
        spec = json.loads(row["spec"])
        around = desk.build_mark_context(connection, row["study"], spec)
        images = desk.images_of(connection, row["study"])
    if any(picture["changed"] for picture in build_images_json(desk, images)):
        raise RefusedRequest(409, "A picture of this study was changed on the disk.", "Ask the lead.", state="changed")
    with desk.database.writing() as connection:
        saved, last, state = append_ops(connection, row, given, around, sent, asked=build_question(spec), who=person.id)
        if state == "submitted" and row["state"] != "submitted":
            _postpone_later_passes(connection, row, spec)
    return {"saved": saved, "server_seq": last, "state": state}


def _postpone_later_passes(connection: Any, row: Any, spec: dict[str, Any]) -> None:
    """The same reader's later reads of the study wait for so many days."""
    days = float(spec["days_between"])
    if days <= 0:
        return
    until = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() + days * 86_400))
    same = (read.c.task == row["task"], read.c.study == row["study"], read.c.reader == row["reader"])
    later = (read.c["pass"] > row["pass"], read.c.state == "open")
    connection.execute(update(read).where(*same, *later).values(not_before=until))


async def _read_batch(request: Request, name: str, most: int) -> tuple[list[Any], SentBatch]:
    received = time.time() * 1000.0
    body = await request.body()
    try:
        given = json.loads(body)
        items = given[name]
        mono, at = given.get("sent_mono_ms"), given.get("sent_at_ms")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RefusedRequest(400, f"An object with {name} was expected.", "Load the page again.") from None
    if not isinstance(items, list):
        raise RefusedRequest(400, f"{name} must be a list.", "Load the page again.")
    if len(items) > most:
        raise RefusedRequest(413, f"At most {most} at once; got {len(items)}.", "Send them in parts.")
    times = [float(x) if isinstance(x, (int, float)) and math.isfinite(x) else None for x in (mono, at)]
    return items, SentBatch(received, times[0], times[1])


@router.get("/reads/{read_id}/ops")
def get_ops(read_id: str, person: Signed, desk: Desk, after: int = 0) -> dict[str, Any]:
    """Operations behind a place in the log."""
    require(person, "mark")
    with desk.database.reading() as connection:
        row = desk.own_read(connection, read_id, person)
        return {"ops": read_ops(connection, read_id, after), "server_seq": row["last_seq"], "state": row["state"]}


@router.put("/reads/{read_id}/view", status_code=204)
async def put_view(read_id: str, request: Request, person: Signed, desk: Desk) -> Response:
    """How the page shows the study: kept so that it opens again as it was left."""
    require(person, "mark")
    try:
        given = json.loads(await request.body())
        text = format_canonical(given) if isinstance(given, dict) else ""
    except (ValueError, RecursionError):
        text = ""
    if not text:
        raise RefusedRequest(400, "An object was expected.", "Load the page again.")
    if len(text) > 32_768:
        raise RefusedRequest(413, "The state of the view is too long.", "Keep it below 32 kB.")
    await run_in_threadpool(_store_view, read_id, text, person, desk)
    return Response(status_code=204)


def _store_view(read_id: str, text: str, person: Signed, desk: Desk) -> None:
    with desk.database.writing() as connection:
        desk.own_read(connection, read_id, person)
        connection.execute(update(read).where(read.c.id == read_id).values(view=text))


@router.post("/reads/{read_id}/events")
async def post_events(read_id: str, request: Request, person: Signed, desk: Desk) -> dict[str, int]:
    """Store what the clock needs."""
    require(person, "mark")
    given, sent = await _read_batch(request, "events", MOST_EVENTS)
    return await run_in_threadpool(_store_events, read_id, given, sent, person, desk)


def _store_events(read_id: str, given: list[Any], sent: SentBatch, person: Signed, desk: Desk) -> dict[str, int]:
    with desk.database.writing() as connection:
        desk.own_read(connection, read_id, person)
        saved, highest = append_events(connection, read_id, given, sent)
    return {"saved": saved, "highest": highest}


@router.get("/reads/{read_id}/clock")
def get_clock(read_id: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """Times of one's own read after submission, or of anybody's for the lead."""
    with desk.database.reading() as connection:
        row = read_first_row(connection, select(read).where(read.c.id == read_id))
        mine = row is not None and row["reader"] == person.id
        if row is None or not (mine or "plan" in person.may):
            raise RefusedRequest(404, "There is no such read.", "Go back to the worklist.")
        if row["state"] != "submitted":
            raise RefusedRequest(409, "The read is not submitted yet.", "Times are given after that.")
        return build_clock_json(connection, read_id)
