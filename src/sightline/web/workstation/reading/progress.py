"""How far readers are with a task, and what their studies cost them."""

from __future__ import annotations

import statistics
from typing import Any

from sqlalchemy import Connection, select

from sightline.web.workstation.marks.clock import RULE
from sightline.web.workstation.reading.tasks import TaskRefused
from sightline.web.workstation.reading.times import read_times
from sightline.web.workstation.reading.worklist import STATES
from sightline.web.workstation.store.database import read_all_rows, read_first_row
from sightline.web.workstation.store.tables import read, reader, task


def measure_progress(connection: Connection, task_id: str) -> dict[str, Any]:
    """One row a reader: counts by state, and the median and quartiles of active seconds a study.

    Warm-up reads are counted apart and have no part in times; so have reads whose clock is unsure.

    Raises:
        TaskRefused: there is no such task.
    """
    if read_first_row(connection, select(task.c.id).where(task.c.id == task_id)) is None:
        raise TaskRefused("There is no such task.", "Look at the list of tasks.", status=404)
    found = select(read, reader.c.name).join(reader, reader.c.id == read.c.reader).where(read.c.task == task_id)
    reads = read_all_rows(connection, found.order_by(reader.c.name))
    times = read_times(connection, [row["id"] for row in reads if row["state"] == "submitted" and not row["warm_up"]])
    rows = []
    for name in dict.fromkeys(row["name"] for row in reads):
        own = [row for row in reads if row["name"] == name]
        counted = [row for row in own if not row["warm_up"]]
        clocks = [times[row["id"]] for row in counted if row["id"] in times]
        # an imported read, or one whose page never said that its picture was there, has no clock
        active = sorted(clock.active_s for clock in clocks if clock.wall_s is not None and not clock.unsure)
        states = {state: sum(row["state"] == state for row in counted) for state in STATES}
        rows.append(
            {
                "reader": name, **states, "warm_up": len(own) - len(counted), "reader_id": own[0]["reader"],
                "active_s_median": statistics.median(active) if active else None,
                "active_s_iqr": _compute_quartiles(active), "unsure": sum(clock.unsure for clock in clocks),
                "timed": len(active),
            }
        )  # fmt: skip
    return {"rows": rows, "rule": RULE, "command": "sightline reads list KEEP"}


def _compute_quartiles(values: list[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]
