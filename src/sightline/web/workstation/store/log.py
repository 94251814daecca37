"""Adding operations and events to the log: all of a batch or none of it, each once, however often it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, false, func, or_, select, update

from sightline.errors import SightlineError
from sightline.web.workstation.marks.fold import Fold, fold_operations, require_submittable
from sightline.web.workstation.marks.operations import MarkContext, OperationRefused, check_operation
from sightline.web.workstation.store.audit import START, digest_op, format_canonical, format_now, write_audit
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.tables import event, op, read

EVENT_KINDS = (
    "open", "ready", "first_mark", "input", "hidden", "shown", "blur", "focus", "idle", "wake", "pen_down", "pen_up",
    "submit", "close",
)  # fmt: skip
_SENT = ("id", "client", "n", "kind", "image", "body", "at_ms", "mono_ms")


class LogConflict(SightlineError):
    """An operation that says something else than one that is stored, or a closed read.

    Attributes:
        conflicts: `{"id", "server"}` of each operation at odds.
        state: of the read, where it is closed.
    """

    def __init__(self, message: str, remedy: str, conflicts: Sequence[Mapping[str, Any]] = (), state: str = "") -> None:
        super().__init__(message, remedy)
        self.conflicts, self.state = list(conflicts), state


@dataclass(frozen=True)
class SentBatch:
    """When a batch left the browser, by the browser's clocks and by ours; None where the page has been loaded anew.

    Attributes:
        received_ms: our time when it came.
        mono_ms: the page's `performance.now()` when it went.
        at_ms: the computer's time when it went.
    """

    received_ms: float
    mono_ms: float | None
    at_ms: float | None

    def server_ms(self, mono_ms: float, at_ms: float) -> float:
        """When something happened by our clock: as long before the batch came as it was before the batch went."""
        if self.mono_ms is not None and self.mono_ms >= mono_ms:
            return self.received_ms - (self.mono_ms - mono_ms)
        if self.at_ms is not None and self.at_ms >= at_ms:
            return self.received_ms - (self.at_ms - at_ms)
        return self.received_ms


@dataclass(frozen=True)
class SubmissionRules:
    """What a submission must hold.

    Attributes:
        label: a class for the study.
        confidence: how sure the reader is.
        marks: a mark, or that there is nothing to mark.
    """

    label: bool = False
    confidence: bool = False
    marks: bool = True


def build_op_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A stored operation as the page gets it."""
    sent = {name: row[name] for name in _SENT} | {"body": json.loads(row["body"])}
    return sent | {"server_seq": row["server_seq"], "received_at": row["received_at"]}


def read_ops(connection: Connection, read_id: str, after: int = 0) -> list[dict[str, Any]]:
    """The operations of a read, in order."""
    found = select(op).where(op.c.read == read_id, op.c.server_seq > after).order_by(op.c.server_seq)
    return [build_op_row(row) for row in read_all_rows(connection, found)]


def read_fold(connection: Connection, read_id: str) -> Fold:
    """The state of a read."""
    return fold_operations(read_ops(connection, read_id))


def append_ops(
    connection: Connection,
    read_row: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    around: MarkContext,
    sent: SentBatch,
    *,
    asked: SubmissionRules,
    who: str,
) -> tuple[list[str], int, str]:
    """Add a batch of operations in the caller's transaction.

    Args:
        connection: of a writing transaction.
        read_row: the read they belong to.
        ops: as the browser made them.
        around: what they are checked against.
        sent: when they went and came.
        asked: what a submission must hold.
        who: id of the reader.

    Returns:
        Ids that are stored now, the last server_seq of the read, and its state.

    Raises:
        OperationRefused: one cannot be stored; then none of them is.
        LogConflict: an id says something else already, or the read is closed.
    """
    read_id = read_row["id"]
    # with PostgreSQL two windows of one read wait here; SQLite has one writer anyway
    locked = select(read.c.state, read.c.last_seq, read.c.started_at).where(read.c.id == read_id).with_for_update()
    state, last_seq, started_at = connection.execute(locked).one()
    new, conflicts = _split_known(connection, read_id, ops)
    if conflicts:
        raise LogConflict(
            "An operation of this id is stored with another content.", "Keep both and look at them.", conflicts
        )
    if not new:
        return [one["id"] for one in ops], last_seq, state
    if state == "submitted":
        raise LogConflict("The read is submitted and closed.", "A lead can open it again.", state=state)
    rows = read_all_rows(connection, select(op).where(op.c.read == read_id).order_by(op.c.server_seq))
    fold = fold_operations(build_op_row(row) for row in rows)
    before, count, received = (rows[-1]["sha256"] if rows else START), len(rows), format_now()
    for one in new:
        try:
            if fold.submitted:
                raise OperationRefused("The read is submitted.", "A lead can open it again.", field="kind", status=409)
            check_operation(one, around)
            if one["kind"] == "submit":
                require_submittable(fold, label=asked.label, confidence=asked.confidence, marks=asked.marks)
            fold.apply(one)
            before, last_seq = _insert(connection, read_id, one, before, received, sent)
        except OperationRefused as error:
            error.op = str(one.get("id"))
            raise
        count += 1
        if one["kind"] == "submit":
            write_audit(connection, who, "submit", read_id, {"operations": count, "last": before})
    state = "submitted" if fold.submitted else "returned" if state == "returned" else "started"
    values = {
        "state": state, "last_seq": last_seq, "touched_at": received, "marks": len(fold.live),
        "started_at": started_at or received, "submitted_at": received if fold.submitted else None,
    }  # fmt: skip
    connection.execute(update(read).where(read.c.id == read_id).values(**values))
    return [one["id"] for one in ops], last_seq, state


def _split_known(
    connection: Connection, read_id: str, ops: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[dict[str, Any]]]:
    """The operations that are not stored yet, and those that contradict what is."""
    named = [one for one in ops if isinstance(one, Mapping) and isinstance(one.get("id"), str)]
    if len(named) < len(ops):
        raise OperationRefused("An operation has an id.", "", field="id")
    ids = [one["id"] for one in named]
    places = [(one.get("client"), one.get("n")) for one in named]
    whole = [(c, n) for c, n in places if isinstance(c, str) and isinstance(n, int) and 0 <= n < 2**31]
    same_place = or_(false(), *(and_(op.c.read == read_id, op.c.client == c, op.c.n == n) for c, n in whole))
    found = read_all_rows(connection, select(op).where(or_(op.c.id.in_(ids), same_place)))
    by_id = {row["id"]: row for row in found}
    by_place = {(row["client"], row["n"]): row for row in found if row["read"] == read_id}
    new: list[Mapping[str, Any]] = []
    conflicts = []
    seen: dict[str, str] = {}
    for one, place in zip(named, places, strict=True):
        stored = by_id.get(one["id"]) or by_place.get(place)
        if stored is not None:
            if stored["read"] != read_id:
                # somebody else's operation: say nothing of what it holds
                raise OperationRefused("The id of an operation is taken.", "Make a new id.", field="id", status=409)
            if _format_content(build_op_row(stored)) != _format_content(one):
                conflicts.append({"id": one["id"], "server": build_op_row(stored)})
        elif one["id"] in seen:
            if seen[one["id"]] != _format_content(one):
                raise OperationRefused("Two operations of a batch have one id.", "Make a new id.", field="id")
        else:
            seen[one["id"]] = _format_content(one)
            new.append(one)
    return new, conflicts


def _format_content(one: Mapping[str, Any]) -> str:
    try:
        sent: dict[str, Any] = {name: one.get(name) for name in _SENT}
        # 3 and 3.0 are one number to a browser
        return format_canonical(sent | {name: float(sent[name]) for name in ("at_ms", "mono_ms")})
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise OperationRefused("An operation holds something that is no finite number.", "", field="body") from None


def _insert(
    connection: Connection, read_id: str, one: Mapping[str, Any], before: str, received: str, sent: SentBatch
) -> tuple[str, int]:
    row = {name: one.get(name) for name in _SENT}
    row |= {"read": read_id, "body": format_canonical(one["body"]), "received_at": received}
    row["server_ms"] = sent.server_ms(float(one["mono_ms"]), float(one["at_ms"]))
    row["at_ms"], row["mono_ms"] = float(one["at_ms"]), float(one["mono_ms"])
    sha = digest_op(before, row)
    done = connection.execute(op.insert().values(**row, before=before, sha256=sha))
    assert done.inserted_primary_key is not None
    return sha, int(done.inserted_primary_key[0])


def reopen(connection: Connection, read_id: str, *, who: str, comment: str, op_id: str) -> None:
    """Open a submitted read again, as an operation: what was submitted stays in the log.

    Args:
        connection: of a writing transaction.
        read_id: of the read.
        who: id of the lead or adjudicator.
        comment: to its reader.
        op_id: a new uuid.

    Raises:
        LogConflict: the read is not submitted.
    """
    state = connection.execute(select(read.c.state).where(read.c.id == read_id).with_for_update()).scalar_one()
    if state != "submitted":
        raise LogConflict("The read is not submitted.", "Only a submitted read can be opened again.", state=state)
    rows = read_all_rows(connection, select(op).where(op.c.read == read_id).order_by(op.c.server_seq))
    now_ms = datetime.now(UTC).timestamp() * 1000.0
    n = 1 + max((row["n"] for row in rows if row["client"] == who), default=-1)
    one = {
        "id": op_id, "client": who, "n": n, "kind": "reopen", "image": None, "body": {"comment": comment},
        "at_ms": now_ms, "mono_ms": 0.0,
    }  # fmt: skip
    received = format_now()
    sha, seq = _insert(connection, read_id, one, rows[-1]["sha256"], received, SentBatch(now_ms, None, None))
    values = {"state": "returned", "submitted_at": None, "last_seq": seq, "comment": comment, "touched_at": received}
    connection.execute(update(read).where(read.c.id == read_id).values(**values))
    write_audit(connection, who, "reopen", read_id, {"operations": len(rows) + 1, "last": sha})


def append_events(
    connection: Connection, read_id: str, events: Sequence[Mapping[str, Any]], sent: SentBatch
) -> tuple[int, int]:
    """Add what the clock needs; how many of them are stored now, and the highest number of their client.

    Raises:
        OperationRefused: one that is malformed; then none is stored.
    """
    rows = []
    for one in events:
        if not isinstance(one, Mapping):
            raise OperationRefused("An event must be an object.", "", field="events")
        client, n, kind, body = one.get("client"), one.get("n"), one.get("kind"), one.get("body") or {}
        if not isinstance(client, str) or not 1 <= len(client) <= 36 or not isinstance(n, int) or not 0 <= n < 2**31:
            raise OperationRefused("An event names its client and number.", "", field="n")
        if kind not in EVENT_KINDS or not isinstance(body, dict) or len(body) > 20:
            raise OperationRefused(f"{kind!r} is no kind of event.", f"Known: {', '.join(EVENT_KINDS)}.", field="kind")
        try:
            mono, at, text = float(one["mono_ms"]), float(one["at_ms"]), format_canonical(body)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise OperationRefused("An event has its times in milliseconds.", "", field="mono_ms") from None
        if not (abs(mono) < 1e15 and abs(at) < 1e15) or len(text) > 2000:
            raise OperationRefused("An event has finite times and a short body.", "", field="mono_ms")
        rows.append(
            {"read": read_id, "client": client, "n": n, "kind": kind, "mono_ms": mono, "at_ms": at,
             "server_ms": sent.server_ms(mono, at), "body": text}
        )  # fmt: skip
    stored = set()
    clients = {row["client"] for row in rows}
    for client in clients:
        numbers = [row["n"] for row in rows if row["client"] == client]
        found = select(event.c.n, event.c.read).where(event.c.client == client, event.c.n.in_(numbers))
        for n, owner in connection.execute(found):
            if owner != read_id:
                raise OperationRefused("This client belongs to another read.", "Make a new client id.", field="client")
            stored.add((client, n))
    fresh = {(row["client"], row["n"]): row for row in rows if (row["client"], row["n"]) not in stored}
    if fresh:
        connection.execute(event.insert(), list(fresh.values()))
    last = rows[-1]["client"] if rows else ""
    highest = connection.execute(select(func.max(event.c.n)).where(event.c.client == last)).scalar()
    return len(rows), -1 if highest is None else int(highest)
