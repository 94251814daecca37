"""Times of reads, from their events."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, select

from sightline.web.workstation.marks.clock import RULE, ReadTime, read_time
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.tables import event, op


def read_times(connection: Connection, read_ids: Iterable[str]) -> dict[str, ReadTime]:
    """Times of reads, by their ids."""
    wanted = list(read_ids)
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    submissions: dict[str, list[float]] = defaultdict(list)
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        for row in read_all_rows(connection, select(event).where(event.c.read.in_(part))):
            events[row["read"]].append({**row, "body": json.loads(row["body"])})
        ends = select(op.c.read, op.c.server_ms).where(op.c.read.in_(part), op.c.kind == "submit")
        for read_id, at in connection.execute(ends.order_by(op.c.server_seq)):
            submissions[read_id].append(float(at))
    return {read_id: read_time(events[read_id], submissions[read_id]) for read_id in wanted}


def build_clock_json(connection: Connection, read_id: str) -> dict[str, Any]:
    """Times of one read, with the rule they are counted by."""
    return asdict(read_times(connection, [read_id])[read_id]) | {"rule": RULE}
