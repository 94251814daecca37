"""What a person may know of a study. Asked by every endpoint that gives marks, answers, proposals or maps.

Until a person has submitted every read of a study that was dealt to them, they get nothing of it but their own work:
no marks or answers of others, none of their own earlier pass, no outcome, and nothing of a network (but in an assisted
task, whose proposals are its point). This holds for leads and adjudicators who read, too. Afterwards a reader gets
what was said in the tasks they read the study in, unless one of these says never.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from sightline.web.workstation.accounts.readers import Person
from sightline.web.workstation.store.tables import read, task


def may_see_study(connection: Connection, person: Person, study_key: str) -> bool:
    """Whether a person may see what others, or a network, said of a study.

    Args:
        connection: to the store.
        person: who asks.
        study_key: of the study.
    """
    if person.role == "viewer":
        return False
    mine = select(read.c.state, task.c.spec).join(task, task.c.id == read.c.task)
    rows = connection.execute(mine.where(read.c.study == study_key, read.c.reader == person.id)).all()
    if any(state != "submitted" for state, _ in rows):
        return False
    if person.role in ("lead", "adjudicator"):
        return True
    # another task of the same study must not show what one that says never hides
    return bool(rows) and all(json.loads(spec)["reveal"] != "never" for _, spec in rows)


def list_seen_tasks(connection: Connection, person: Person, study_key: str) -> set[str] | None:
    """Tasks whose reads of a study a person may see, once they may see the study; None: of all tasks."""
    if person.role != "reader":
        return None
    own = (read.c.study == study_key, read.c.reader == person.id, read.c.state == "submitted")
    return set(connection.execute(select(read.c.task).where(*own)).scalars())


def list_hidden_studies(connection: Connection, person: Person) -> set[str]:
    """Studies of which a lead or adjudicator has reads of their own that are not submitted."""
    waiting = select(read.c.study).where(read.c.reader == person.id, read.c.state != "submitted")
    return set(connection.execute(waiting).scalars())


def may_show_proposals(spec: Mapping[str, Any]) -> bool:
    """Whether a task shows what a run proposes before the read is submitted."""
    return bool(spec["reveal"] == "assisted")
