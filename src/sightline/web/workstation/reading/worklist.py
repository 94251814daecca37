"""A reader's queue, a page at a time: by keyset, so that page 200 costs as much as page 1."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from sightline.errors import SightlineError
from sightline.web.workstation.store.audit import format_now
from sightline.web.workstation.store.database import read_all_rows, read_first_row
from sightline.web.workstation.store.tables import image, read, study, task

STATES = ("open", "started", "submitted", "returned")
SORTS = ("queue", "touched", "title")
MOST_ROWS = 200


class QuestionRefused(SightlineError):
    """A page of a list that cannot be given.

    Attributes:
        field: which part of the question.
    """

    def __init__(self, message: str, remedy: str = "", *, field: str = "") -> None:
        super().__init__(message, remedy)
        self.field = field


@dataclass(frozen=True)
class Question:
    """What part of a queue is asked for.

    Attributes:
        task: id, or None for all tasks.
        state: of STATES, or None.
        search: part of a title or view.
        seen: a selection of studies; of each of them the first read of the queue, and of no other. None: all reads.
        sort: of SORTS.
        after: cursor of the last page.
        limit: rows.
    """

    task: str | None = None
    state: str | None = None
    search: str = ""
    seen: Select[Any] | None = None
    sort: str = "queue"
    after: str | None = None
    limit: int = 50


def choose_title(ordinal: int, study_id: str, *, shows_ids: bool) -> str:
    """What a study is called: its id, or its place in the queue where ids are hidden."""
    return study_id if shows_ids else f"Study {ordinal + 1}"


def read_page(connection: Connection, reader_id: str, question: Question) -> dict[str, Any]:
    """A page of a reader's own queue.

    Raises:
        QuestionRefused: an unknown state or sort, or a cursor that is none.
    """
    if question.state is not None and question.state not in STATES:
        raise QuestionRefused("There is no such state.", f"Known: {', '.join(STATES)}.", field="state")
    if question.sort not in SORTS:
        raise QuestionRefused("There is no such order.", f"Known: {', '.join(SORTS)}.", field="sort")
    if not 1 <= question.limit <= MOST_ROWS:
        raise QuestionRefused(f"A page has 1 to {MOST_ROWS} rows.", "", field="limit")
    ids = _find_tasks_that_show_ids(connection)
    columns = (read, study.c.study_id, study.c.ordinal.label("study_ordinal"))
    found = select(*columns).join(study, study.c.key == read.c.study).where(read.c.reader == reader_id)
    if question.task is not None:
        found = found.where(read.c.task == question.task)
    if question.state is not None:
        found = found.where(read.c.state == question.state)
    if question.seen is not None:
        found = found.where(read.c.study.in_(question.seen), ~_follow_in_queue())
    if question.search:
        found = found.where(_match_search(question.search, ids))
    found = _select_after(found, question)
    rows = read_all_rows(connection, found.limit(question.limit + 1))
    more, rows = len(rows) > question.limit, rows[: question.limit]
    views = _list_views(connection, {row["study"] for row in rows})
    asks = _find_label_tasks(connection)
    return {
        "rows": [_build_row_json(row, views, ids, asks) for row in rows],
        "next": _encode_cursor(rows[-1], question.sort) if more else None,
        "counts": count_reads(connection, reader_id, question.task),
    }


def find_title_in_queue(connection: Connection, reader_id: str, study_key: str) -> str | None:
    """What a study is called in a reader's queue, where it is first; None where it was not dealt to them."""
    columns = (read.c.ordinal, read.c.task, study.c.study_id)
    found = select(*columns).join(study, study.c.key == read.c.study)
    found = found.where(read.c.reader == reader_id, read.c.study == study_key).order_by(read.c.task, read.c.ordinal)
    row = read_first_row(connection, found.limit(1))
    if row is None:
        return None
    shows_ids = row["task"] in _find_tasks_that_show_ids(connection)
    return choose_title(row["ordinal"], row["study_id"], shows_ids=shows_ids)


def _follow_in_queue() -> ColumnElement[bool]:
    """Whether the same reader's queue has the study at an earlier place too."""
    other = read.alias()
    same = and_(other.c.reader == read.c.reader, other.c.study == read.c.study)
    before = or_(other.c.task < read.c.task, and_(other.c.task == read.c.task, other.c.ordinal < read.c.ordinal))
    return select(other.c.id).where(same, before).exists()


def count_reads(connection: Connection, reader_id: str, task_id: str | None) -> dict[str, int]:
    """How many reads of a queue are in each state."""
    counted = select(read.c.state, func.count()).where(read.c.reader == reader_id).group_by(read.c.state)
    if task_id is not None:
        counted = counted.where(read.c.task == task_id)
    counts = dict.fromkeys(STATES, 0) | dict(connection.execute(counted).tuples().all())
    return {"all": sum(counts.values()), **counts}


def find_next_read(
    connection: Connection, reader_id: str, task_id: str | None, after: Mapping[str, Any] | None
) -> str | None:
    """The next read of a queue that waits to be done, behind `after`, else from the start; None when all are done."""
    waiting = (
        select(read.c.id)
        .where(read.c.reader == reader_id, read.c.state != "submitted")
        .where(or_(read.c.not_before.is_(None), read.c.not_before <= format_now()))
        .order_by(read.c.task, read.c.ordinal)
        .limit(1)
    )
    if task_id is not None:
        waiting = waiting.where(read.c.task == task_id)
    if after is not None:
        behind = or_(read.c.task > after["task"], and_(read.c.task == after["task"], read.c.ordinal > after["ordinal"]))
        found = connection.execute(waiting.where(behind, read.c.id != after["id"])).scalar()
        if found is not None:
            return str(found)
        waiting = waiting.where(read.c.id != after["id"])
    found = connection.execute(waiting).scalar()
    return None if found is None else str(found)


def find_waiting_day(connection: Connection, reader_id: str, task_id: str | None) -> str | None:
    """The first day on which a read that must not be done yet may be; None where none waits for one."""
    found = select(func.min(read.c.not_before)).where(read.c.reader == reader_id, read.c.state != "submitted")
    found = found.where(read.c.not_before > format_now())
    if task_id is not None:
        found = found.where(read.c.task == task_id)
    day = connection.execute(found).scalar()
    return None if day is None else str(day)[:10]


def find_previous_read(connection: Connection, row: Mapping[str, Any]) -> str | None:
    """The read before one in its queue."""
    found = select(read.c.id).where(
        read.c.reader == row["reader"], read.c.task == row["task"], read.c.ordinal < row["ordinal"]
    )
    before = connection.execute(found.order_by(read.c.ordinal.desc()).limit(1)).scalar()
    return None if before is None else str(before)


def _select_after(found: Select[Any], question: Question) -> Select[Any]:
    cursor = None if question.after is None else _read_cursor(question.after)
    if question.sort == "touched":
        touched = func.coalesce(read.c.touched_at, "")
        if cursor is not None:
            found = found.where(or_(touched < cursor[0], and_(touched == cursor[0], read.c.id > cursor[1])))
        return found.order_by(touched.desc(), read.c.id)
    if question.sort == "title":
        # by what readers see: ids where they are shown, else the place in the queue, which says no more
        if cursor is not None:
            found = found.where(
                or_(read.c.ordinal > cursor[0], and_(read.c.ordinal == cursor[0], read.c.id > cursor[1]))
            )
        return found.order_by(read.c.ordinal, read.c.id)
    if cursor is not None:
        found = found.where(or_(read.c.task > cursor[0], and_(read.c.task == cursor[0], read.c.ordinal > cursor[1])))
    return found.order_by(read.c.task, read.c.ordinal)


def _encode_cursor(row: Mapping[str, Any], sort: str) -> str:
    place: Sequence[Any] = (row["task"], row["ordinal"])
    if sort == "touched":
        place = (row["touched_at"] or "", row["id"])
    if sort == "title":
        place = (row["ordinal"], row["id"])
    return base64.urlsafe_b64encode(json.dumps([sort, *place]).encode()).decode()


def _read_cursor(text: str) -> list[Any]:
    try:
        sort, first, second = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (ValueError, TypeError, binascii.Error, OverflowError, RecursionError):
        raise QuestionRefused("The cursor is not known here.", "Start from the first page.", field="after") from None
    kinds = {"queue": (str, int), "touched": (str, str), "title": (int, str)}
    if (
        not isinstance(sort, str)
        or sort not in kinds
        or not isinstance(first, kinds[sort][0])
        or not isinstance(second, kinds[sort][1])
    ):
        raise QuestionRefused("The cursor is not known here.", "Start from the first page.", field="after")
    return [first, second]


def _match_search(search: str, ids: set[str]) -> Any:
    escaped = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    like = f"%{escaped}%"
    by_view = read.c.study.in_(select(image.c.study).where(image.c.view.ilike(like, escape="\\")))
    by_id = and_(read.c.task.in_(ids), study.c.study_id.ilike(like, escape="\\"))
    words = search.casefold().split()
    number = words[-1] if words and words[-1].isdecimal() and len(words[-1]) < 9 else None
    if number is None:
        return or_(by_view, by_id)
    return or_(by_view, by_id, and_(read.c.task.notin_(ids), read.c.ordinal == int(number) - 1))


def _find_tasks_that_show_ids(connection: Connection) -> set[str]:
    return {key for key, spec in connection.execute(select(task.c.id, task.c.spec)) if json.loads(spec)["shows_ids"]}


def _find_label_tasks(connection: Connection) -> set[str]:
    return {key for key, spec in connection.execute(select(task.c.id, task.c.spec)) if json.loads(spec)["ask"]["label"]}


def _list_views(connection: Connection, studies: set[str]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {key: [] for key in studies}
    rows = select(image.c.study, image.c.view, image.c.side).where(image.c.study.in_(studies)).order_by(image.c.ordinal)
    for row in read_all_rows(connection, rows):
        found[row["study"]].append(row)
    return found


def _build_row_json(
    row: Mapping[str, Any], views: Mapping[str, Sequence[Mapping[str, Any]]], ids: set[str], asks: set[str]
) -> dict[str, Any]:
    images = views[row["study"]]
    return {
        "read": row["id"], "study": row["study"], "task": row["task"],
        "title": choose_title(row["ordinal"], row["study_id"], shows_ids=row["task"] in ids),
        "views": [one["view"] for one in images], "sides": sorted({one["side"] for one in images if one["side"]}),
        "images": len(images), "state": row["state"], "pass": row["pass"], "ordinal": row["ordinal"],
        "warm_up": row["warm_up"], "marks": row["marks"],
        "asks_label": row["task"] in asks, "touched_at": row["touched_at"], "not_before": row["not_before"],
        "unavailable": None,
    }  # fmt: skip
