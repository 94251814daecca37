"""What a reader is shown of a network: proposals in assisted tasks, advice in a reader study; nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from sightline.web.workstation.reading.blinding import may_show_proposals
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.tables import image, proposal


def build_proposals_json(
    connection: Connection, row: Mapping[str, Any], spec: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Proposals for a read's study; none unless its task is an assisted one."""
    if not may_show_proposals(spec):
        return []
    found = select(proposal).join(image, image.c.key == proposal.c.image).where(image.c.study == row["study"])
    rows = read_all_rows(connection, found.order_by(proposal.c.score.desc(), proposal.c.id))
    return [
        {
            "id": one["id"],
            "image": one["image"],
            "mark": json.loads(one["mark"]),
            "score": one["score"],
            "how": one["how"],
        }
        for one in rows
    ]


def build_aid_json(connection: Connection, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The advice of a reader study; whether it is wrong on purpose stays in the store."""
    if row["aid"] is None:
        return None
    aid = json.loads(row["aid"])
    if aid["condition"] == "unaided":
        return None
    return {name: aid[name] for name in ("condition", "run", "label", "probabilities") if name in aid}
