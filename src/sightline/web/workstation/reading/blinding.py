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

from sqlalchemy import Connection, Select, or_, select

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
    this = read.c.study == study_key
    if connection.execute(select_hidden_studies(connection, person).where(this).limit(1)).first() is not None:
        return False
    return (
        person.role in ("lead", "adjudicator")
        or connection.execute(_select_own(person).where(this)).first() is not None
    )


def select_seen_studies(connection: Connection, person: Person) -> Select[Any]:
    """Those of the studies dealt to a person that `may_see_study` lets them see, as a question within another."""
    return _select_own(person).where(read.c.study.not_in(select_hidden_studies(connection, person)))


def select_hidden_studies(connection: Connection, person: Person) -> Select[Any]:
    """The others of the studies dealt to a person."""
    hides = read.c.state != "submitted"
    if person.role == "reader":
        # another task of the same study must not show what one that says never hides
        specs = connection.execute(select(task.c.id, task.c.spec))
        hides = or_(hides, read.c.task.in_([key for key, spec in specs if json.loads(spec)["reveal"] == "never"]))
    return _select_own(person).where(hides)


def _select_own(person: Person) -> Select[Any]:
    return select(read.c.study).where(read.c.reader == person.id)


def list_seen_tasks(connection: Connection, person: Person, study_key: str) -> set[str] | None:
    """Tasks whose reads of a study a person may see, once they may see the study; None: of all tasks."""
    if person.role != "reader":
        return None
    own = (read.c.study == study_key, read.c.reader == person.id, read.c.state == "submitted")
    return set(connection.execute(select(read.c.task).where(*own)).scalars())


def list_hidden_studies(connection: Connection, person: Person) -> set[str]:
    """Studies of which a lead or adjudicator has reads of their own that are not submitted."""
    return set(connection.execute(select_hidden_studies(connection, person)).scalars())


def may_show_proposals(spec: Mapping[str, Any]) -> bool:
    """Whether a task shows what a run proposes before the read is submitted."""
    return bool(spec["reveal"] == "assisted")
