"""What was decided of a study that readers disagree on. Originals stay; a new decision replaces none, it follows it."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, select

from sightline.errors import SightlineError
from sightline.metrics.agreement.staple import RULES
from sightline.web.workstation.marks.fold import fold_operations
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.log import read_ops
from sightline.web.workstation.store.tables import outcome, read, task

HOW = ("take", *RULES, "drawn")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class OutcomeRefused(SightlineError):
    """A decision that cannot be stored.

    Attributes:
        status: as of HTTP.
        field: which part of it.
    """

    def __init__(self, message: str, remedy: str = "", *, status: int = 422, field: str = "") -> None:
        super().__init__(message, remedy)
        self.status, self.field = status, field


def letter_reads(connection: Connection, task_id: str, study_key: str, seed: str) -> dict[str, str]:
    """Submitted reads of a study (first passes) by letters, in an order that differs from study to study.

    Args:
        connection: to the store.
        task_id: of the task.
        study_key: of the study.
        seed: of the workstation: the order cannot be guessed from outside.
    """
    own = (read.c.task == task_id, read.c.study == study_key, read.c.state == "submitted", read.c["pass"] == 1)
    ids = sorted(connection.execute(select(read.c.id).where(*own)).scalars())
    random.Random(hashlib.sha256(f"{seed}:{task_id}:{study_key}".encode()).digest()).shuffle(ids)
    return dict(zip(LETTERS, ids, strict=False))


def find_latest_outcomes(
    connection: Connection, task_id: str | None = None, *, of: Literal["all", "marks", "label"] = "all"
) -> dict[str, dict[str, Any]]:
    """The last decision of each study.

    Args:
        connection: to the store.
        task_id: of one task; None: of all.
        of: `marks`, those of tasks in which marks are made (that there are none is a decision, too); `label`, those
            with a label. A label that was decided on elsewhere takes no mark away, and the other way round.
    """
    found = select(outcome).order_by(outcome.c.seq)
    if task_id is not None:
        found = found.where(outcome.c.task == task_id)
    if of == "label":
        found = found.where(outcome.c.label.isnot(None))
    rows = read_all_rows(connection, found)
    if of == "marks":
        specs = connection.execute(select(task.c.id, task.c.spec)).tuples()
        marking = {own for own, spec in specs if json.loads(spec)["tools"]}
        rows = [row for row in rows if row["task"] in marking]
    return {row["study"]: row for row in rows}


def find_latest_outcome(connection: Connection, task_id: str, study_key: str) -> dict[str, Any] | None:
    """The last decision of one study in one task, or None."""
    own = (outcome.c.task == task_id, outcome.c.study == study_key)
    rows = read_all_rows(connection, select(outcome).where(*own).order_by(outcome.c.seq.desc()).limit(1))
    return rows[0] if rows else None


def list_outcome_marks(connection: Connection, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The marks that were decided on, each with its image."""
    marks: list[dict[str, Any]] = json.loads(row["marks"])
    if row["how"] != "take" or marks:
        return marks
    # older stores say only whose read was taken: its marks are those it had when that was decided
    return fold_operations(
        one for one in read_ops(connection, row["from_read"]) if one["received_at"] <= row["at"]
    ).live


def build_outcome_json(
    connection: Connection, row: Mapping[str, Any] | None, letters: Mapping[str, str]
) -> dict[str, Any] | None:
    """A decision as the page gets it; `letter` says whose marks were taken, where that read is still submitted."""
    if row is None:
        return None
    own = {name: row[name] for name in ("id", "how", "label", "at", "comment", "replaces")}
    letter = next((letter for letter, read_id in letters.items() if read_id == row["from_read"]), None)
    return own | {"marks": list_outcome_marks(connection, row), "letter": letter, "etag": f'"{row["id"]}"'}


def check_merge(readers: Sequence[Mapping[str, Any]], volumes: Collection[str]) -> None:
    """Refuse to merge what is not on pictures alone.

    Args:
        readers: all readers' marks of a study.
        volumes: keys of its volumes.

    Raises:
        OutcomeRefused: of marks on a volume.
    """
    if any(mark["image"] in volumes for mark in readers):
        raise OutcomeRefused(
            "Marks on a volume cannot be merged.", "Take one reader's marks, or send the study back.", field="how"
        )


def check_decision(
    how: str, marks: Sequence[Mapping[str, Any]], readers: Sequence[Mapping[str, Any]], volumes: Collection[str],
    *, nothing: bool,
) -> None:  # fmt: skip
    """Refuse a merge or a drawing that would take readers' marks away without anybody having said so.

    Args:
        how: of HOW.
        marks: that are decided on.
        readers: all readers' marks.
        volumes: keys of the study's volumes.
        nothing: it was said that there is nothing to mark.

    Raises:
        OutcomeRefused: of a merge of volumes, one that left nothing, or a drawing of nothing.
    """
    if how in RULES:
        check_merge(readers, volumes)
    if how in RULES and readers and not marks:
        raise OutcomeRefused(
            "Nothing is left of the readers' marks.",
            "Take one reader's marks, draw new ones, or draw anew and say that there is nothing.",
            field="marks",
        )
    if how == "drawn" and nothing == bool(marks):
        raise OutcomeRefused(
            "A new drawing has marks, or says that there is nothing.", "Draw, or say that there is nothing.",
            field="nothing",
        )  # fmt: skip


def decide(
    connection: Connection, task_id: str, study_key: str, *, how: str, from_read: str | None,
    marks: Sequence[Mapping[str, Any]], label: str | None, comment: str, if_match: str | None, who: str,
) -> dict[str, Any]:  # fmt: skip
    """Store a decision behind the last one.

    Args:
        connection: of a writing transaction.
        task_id: of the task.
        study_key: of the study.
        how: of HOW.
        from_read: the read that was taken, or None.
        marks: with the image of each.
        label: of the study, or None.
        comment: of whoever decides.
        if_match: etag of the decision this one follows; `*` where there is none.
        who: decides.

    Raises:
        OutcomeRefused: 428 without `if_match`, 412 where somebody decided meanwhile.
    """
    if how not in HOW:
        raise OutcomeRefused(f"{how!r} is no way to decide.", f"Known: {', '.join(HOW)}.", field="how")
    last = find_latest_outcome(connection, task_id, study_key)
    if if_match is None:
        raise OutcomeRefused("Say which decision this one follows.", "Send If-Match.", status=428)
    if (last is None) != (if_match.strip() == "*") or (last is not None and if_match.strip().strip('"') != last["id"]):
        raise OutcomeRefused("Somebody else decided this study meanwhile.", "Load it again.", status=412)
    row = {
        "id": str(uuid.uuid4()), "task": task_id, "study": study_key, "from_read": from_read, "how": how,
        "marks": json.dumps(list(marks), allow_nan=False), "label": label, "by": who, "at": format_now(),
        "comment": comment[:10_000], "replaces": None if last is None else last["id"],
    }  # fmt: skip
    connection.execute(outcome.insert().values(**row))
    detail = {"task": task_id, "how": how, "marks": len(marks), "replaces": row["replaces"]}
    write_audit(connection, who, "outcome", study_key, detail)
    return row
