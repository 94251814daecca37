"""The audit chain: each row carries the digest of the one before it, so that a row changed or taken out shows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, text

from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.tables import audit, op, read

START = "0" * 64
# audit rows whose detail states how many operations a read had and the digest of the last
_SEALS = ("submit", "reopen")


def format_now() -> str:
    """The time in UTC as ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_canonical(value: Any) -> str:
    """JSON of one form: sorted names, no blanks; equal values give equal text.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_row(before: str, *fields: Any) -> str:
    """The digest of a row and all before it."""
    return hashlib.sha256(format_canonical([before, *fields]).encode()).hexdigest()


def write_audit(connection: Connection, who: str, what: str, thing: str, detail: Mapping[str, Any]) -> None:
    """Add a row to the chain, in the caller's transaction.

    Args:
        connection: of a writing transaction.
        who: id of the reader, or `server`.
        what: e.g. `sign in`, `submit`, `export`.
        thing: id of what it was done to; never a patient's id or name.
        detail: numbers and choices; never a password, name or comment.
    """
    if connection.dialect.name == "postgresql":
        # the chain has one end: two writers must not both take it
        connection.execute(text("SELECT pg_advisory_xact_lock(7416)"))
    last = connection.execute(select(audit.c.sha256).order_by(audit.c.seq.desc()).limit(1)).scalar()
    at, before, written = format_now(), last or START, format_canonical(detail)
    row = {"at": at, "who": who, "what": what, "object": thing, "detail": written, "before": before}
    connection.execute(audit.insert().values(**row, sha256=digest_row(before, at, who, what, thing, written)))


def digest_op(before: str, row: Mapping[str, Any]) -> str:
    """The digest of a stored operation."""
    names = ("read", "id", "client", "n", "kind", "image", "body", "at_ms", "mono_ms", "received_at", "server_ms")
    # databases give whole numbers back as they please
    values = [float(row[name]) if name.endswith("_ms") else row[name] for name in names]
    if not all(math.isfinite(v) for v in values if isinstance(v, float)):
        raise ValueError("a time is no number")
    return digest_row(before, *values)


@dataclass(frozen=True)
class BrokenRow:
    """The first row that does not fit.

    Attributes:
        where: `audit`, or `operations of read ID`.
        row: its number.
        why: in words.
    """

    where: str
    row: int
    why: str


def verify(connection: Connection) -> tuple[int, BrokenRow | None]:
    """Walk every chain; how many rows were looked at, and the first that is broken.

    The audit chain says how many operations a read had at each submission, so that operations cut off the end of a
    submitted read are missed too.
    """
    before, count = START, 0
    sealed: dict[str, tuple[int, str, int]] = {}
    for row in read_all_rows(connection, select(audit).order_by(audit.c.seq)):
        count += 1
        if row["before"] != before:
            return count, BrokenRow("audit", row["seq"], "the row before it is missing or was changed")
        own = digest_row(before, row["at"], row["who"], row["what"], row["object"], row["detail"])
        if own != row["sha256"]:
            return count, BrokenRow("audit", row["seq"], "its content was changed")
        before = own
        if row["what"] in _SEALS:
            detail = json.loads(row["detail"])
            sealed[row["object"]] = (int(detail["operations"]), str(detail["last"]), row["seq"])
    for (read_id,) in connection.execute(select(read.c.id).order_by(read.c.id)).all():
        before, n, digests = START, 0, []
        rows = read_all_rows(connection, select(op).where(op.c.read == read_id).order_by(op.c.server_seq))
        for row in rows:
            count, n = count + 1, n + 1
            where = f"operations of read {read_id}"
            if row["before"] != before:
                return count, BrokenRow(where, row["server_seq"], "the operation before it is missing or was changed")
            before = digest_op(before, row)
            digests.append(before)
            if before != row["sha256"]:
                return count, BrokenRow(where, row["server_seq"], "its content was changed")
        if read_id in sealed:
            held, last, seq = sealed[read_id]
            if n < held or digests[held - 1] != last:
                return count, BrokenRow(
                    "audit", seq, f"read {read_id} had {held} operations then; they are not all there"
                )
    return count, None
