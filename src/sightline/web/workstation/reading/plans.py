"""Plans: who reads which study when. A plan deals reads; a read belongs to its reader and holds up nobody."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from sightline.web.workstation.reading.tasks import ORDERS, TaskRefused
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import read_first_row
from sightline.web.workstation.store.tables import read, reader, study, task

RANDOM_EVERY = 5
_MOST_PASSES = 20


@dataclass(frozen=True)
class Plan:
    """How studies are dealt.

    Attributes:
        readers: ids of accounts.
        passes: how often each reader reads each study.
        order: as the cohort lists them, at random by seed and reader, by what is worth most (`active`), or as `listed`.
        seed: of random orders.
        warm_up: studies read first that do not count; they come again later.
        studies: keys to deal; None deals all.
        worth: of each study, for the active order; a study without one is worth nothing.
        listed: keys in the order in which they are dealt, each with whether it was drawn at random; others are not.
    """

    readers: Sequence[str]
    passes: int = 1
    order: str = "given"
    seed: int = 0
    warm_up: int = 0
    studies: Sequence[str] | None = None
    worth: Mapping[str, float] | None = None
    listed: Sequence[tuple[str, bool]] | None = None


def order_studies(
    keys: Sequence[str], order: str, seed: int, who: str, number: int, worth: Mapping[str, float] | None = None
) -> list[tuple[str, bool]]:
    """Studies in a reader's order, each with whether it was drawn at random inside the active order.

    In the active order every fifth study is drawn at random among those that are left, so that what the order is worth
    can be measured against it.

    Args:
        keys: of the studies, as the cohort lists them.
        order: given, random or active.
        seed: of the plan.
        who: id of the reader.
        number: of the pass.
        worth: of each study, for the active order.
    """
    if order == "given":
        return [(key, False) for key in keys]
    dice = random.Random(hashlib.sha256(f"{seed}:{who}:{number}".encode()).digest())
    shuffled = dice.sample(list(keys), len(keys))
    if order == "random":
        return [(key, False) for key in shuffled]
    # the same order for every reader but for the random draws; ties as shuffled by the seed alone
    ties = random.Random(hashlib.sha256(f"{seed}:ties".encode()).digest()).sample(list(keys), len(keys))
    left = sorted(ties, key=lambda key: -(worth or {}).get(key, 0.0))
    dealt: list[tuple[str, bool]] = []
    while left:
        at_random = len(dealt) % RANDOM_EVERY == RANDOM_EVERY - 1
        dealt.append((left.pop(dice.randrange(len(left)) if at_random else 0), at_random))
    return dealt


def deal(connection: Connection, task_id: str, plan: Plan, *, who: str) -> int:
    """Deal reads of a task; how many are new. Reads that were dealt before stay as they are.

    Args:
        connection: of a writing transaction.
        task_id: of the task.
        plan: how.
        who: the lead.

    Raises:
        TaskRefused: no such task, reader or study, or numbers that mean nothing.
    """
    row = read_first_row(connection, select(task).where(task.c.id == task_id))
    if row is None:
        raise TaskRefused("There is no such task.", "Look at the list of tasks.", field="task", status=404)
    if plan.order not in ORDERS:
        raise TaskRefused(f"order is {plan.order!r}.", f"Known: {', '.join(ORDERS)}.", field="order")
    if not 1 <= plan.passes <= _MOST_PASSES or plan.warm_up < 0 or not plan.readers:
        raise TaskRefused(
            f"A plan has readers, 1 to {_MOST_PASSES} passes and a warm-up of 0 or more.", "", field="passes"
        )
    accounts = set(connection.execute(select(reader.c.id).where(reader.c.disabled_at.is_(None))).scalars())
    if not set(plan.readers) <= accounts:
        raise TaskRefused(
            "A reader of the plan does not exist, or is disabled.", "Look at the readers.", field="readers"
        )
    keys = list(connection.execute(select(study.c.key).order_by(study.c.ordinal)).scalars())
    if plan.studies is not None:
        chosen = set(plan.studies)
        if not chosen <= set(keys):
            raise TaskRefused("A study of the plan does not exist.", "Look at the studies.", field="studies")
        keys = [key for key in keys if key in chosen]
    if (plan.order == "listed") != (plan.listed is not None):
        raise TaskRefused(
            "The order `listed` and a list of studies go together.",
            "Use the command line: sightline reads plan KEEP --order listed --studies FILE.", field="order",
        )  # fmt: skip
    if plan.listed is not None and not {key for key, _ in plan.listed} <= set(keys):
        raise TaskRefused("A study of the list does not exist.", "Look at the studies.", field="studies")
    made = sum(_deal_to(connection, task_id, plan, one, keys) for one in plan.readers)
    passes = max(int(row["passes"]), plan.passes)
    connection.execute(update(task).where(task.c.id == task_id).values(order=plan.order, seed=plan.seed, passes=passes))
    detail = {
        "readers": len(plan.readers),
        "passes": plan.passes,
        "order": plan.order,
        "seed": plan.seed,
        "reads": made,
    }
    write_audit(connection, who, "plan", task_id, detail)
    return made


def _deal_to(connection: Connection, task_id: str, plan: Plan, who: str, keys: Sequence[str]) -> int:
    there = select(read.c.study, read.c["pass"]).where(read.c.task == task_id, read.c.reader == who)
    dealt = {(key, number) for key, number in connection.execute(there)}
    last = connection.execute(
        select(func.max(read.c.ordinal)).where(read.c.task == task_id, read.c.reader == who)
    ).scalar()
    ordinal, rows, now = 0 if last is None else int(last) + 1, [], format_now()
    wanted: list[tuple[str, int, bool]] = []
    if plan.warm_up:
        listed = {key for key, _ in plan.listed} if plan.listed is not None else set(keys)
        first = order_studies([key for key in keys if key in listed], "random", plan.seed, "warm up", 0)[: plan.warm_up]
        wanted += [(key, 0, False) for key, _ in first]
    for number in range(1, plan.passes + 1):
        # a list is the same for every reader and pass
        ordered = plan.listed
        if ordered is None:
            ordered = order_studies(keys, plan.order, plan.seed, who, number, plan.worth)
        wanted += [(key, number, drawn) for key, drawn in ordered]
    for key, number, drawn in wanted:
        if (key, number) not in dealt:
            rows.append(build_read(task_id, key, who, number, ordinal, now, drawn=drawn))
            ordinal += 1
    for start in range(0, len(rows), 500):
        connection.execute(read.insert(), rows[start : start + 500])
    return len(rows)


def build_read(
    task_id: str, study_key: str, who: str, number: int, ordinal: int, now: str, *,
    drawn: bool = False, aid: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The row of a read that nobody has begun; pass 0 is a warm-up."""
    return {
        "id": str(uuid.uuid4()), "task": task_id, "study": study_key, "reader": who, "pass": number,
        "ordinal": ordinal, "state": "open", "warm_up": number == 0, "random_draw": drawn,
        "aid": None if aid is None else json.dumps(aid), "not_before": None, "planned_at": now, "started_at": None,
        "submitted_at": None, "touched_at": None, "marks": 0, "last_seq": 0, "view": "{}", "comment": None,
    }  # fmt: skip
