"""Names of units: two experts apart, then side by side; into concepts.yaml by its own rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from sightline.errors import SightlineError
from sightline.web.workstation.accounts.readers import Person
from sightline.web.workstation.service import NotFound
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.tables import reader, unit_name

if TYPE_CHECKING:
    from sightline.dissection.results import Dissection


# what is shown of a name, by the column it comes from
_SHOWN = {"text": "text", "author": "name", "date": "date"}


def _require(dissection: Dissection | None) -> Dissection:
    if dissection is None:
        raise NotFound("No dissection is open.", "Start the workstation with --dissection DIR.")
    return dissection


def build_units_json(dissection: Dissection | None, connection: Connection, person: Person) -> dict[str, Any]:
    """The units with a gallery, first ranks first; others' names of a unit only after one's own.

    Raises:
        NotThere: no dissection is open.
    """
    found = _require(dissection)
    names = _list_names(connection, found)
    units = []
    for row in found.ranked:
        if found.gallery(row.unit) is None:
            continue
        own = names.get(row.unit, [])
        named = any(one["author"] == person.id for one in own)
        shown = [one for one in own if named or one["author"] == person.id]
        numbers = {"c": row.c, "contrast": row.contrast, "p": row.p, "auc": row.auc, "threshold": row.threshold}
        units.append(
            {
                "unit": row.unit, "rank": row.rank, "numbers": numbers, "standing": row.standing, "dead": row.dead,
                "gallery": f"/api/v1/units/{row.unit}/gallery",
                "names": [
                    {name: one[key] for name, key in _SHOWN.items()} | {"mine": one["author"] == person.id}
                    for one in shown
                ],
            }
        )  # fmt: skip
    return {"layer": found.layer, "weights": found.about["weights"], "positive": found.positive, "units": units}


def _list_names(connection: Connection, dissection: Dissection) -> dict[int, list[dict[str, Any]]]:
    """The last name that each expert gave each unit of these weights and this layer."""
    own = (unit_name.c.weights == dissection.about["weights"], unit_name.c.layer == dissection.layer)
    asked = select(unit_name, reader.c.display.label("name")).join(reader, reader.c.id == unit_name.c.author)
    last: dict[tuple[int, str], dict[str, Any]] = {}
    for row in read_all_rows(connection, asked.where(*own).order_by(unit_name.c.seq)):
        last[(row["unit"], row["author"])] = row
    found: dict[int, list[dict[str, Any]]] = {}
    for (unit, _), row in last.items():
        found.setdefault(unit, []).append(row)
    return found


def name_unit(dissection: Dissection | None, connection: Connection, person: Person, unit: int, text: str) -> None:
    """Store what an expert calls a unit.

    Raises:
        NotThere: no dissection, or no such unit.
    """
    found = _require(dissection)
    if found.gallery(unit) is None:
        raise NotFound("This unit is not shown.", "Name one that has a gallery.")
    words = " ".join(text.split())
    now = datetime.now(UTC)
    connection.execute(
        unit_name.insert().values(
            weights=found.about["weights"], layer=found.layer, unit=unit, text=words, author=person.id,
            date=now.date().isoformat(), at=format_now(),
        )
    )  # fmt: skip
    write_audit(connection, person.id, "name unit", str(unit), {"layer": found.layer})


def write_concepts(dissection: Dissection | None, connection: Connection, person: Person) -> dict[str, int]:
    """Fill empty places of concepts.yaml with the names given here; a place that says something is never changed.

    Where experts differ, all their names stand in one place, with all their authors.

    Raises:
        SightlineError: the file is malformed, or of another network.
    """
    from sightline.dissection.concepts import keep_concepts, read_concepts

    found = _require(dissection)
    path = Path(found.folder) / "concepts.yaml"
    shown = [(row.unit, row.standing) for row in found.ranked if found.gallery(row.unit) is not None]
    keep_concepts(
        path, run=found.about["run"], weights=found.about["weights"], layer=found.layer, units=shown
    )  # fmt: skip
    there, names = read_concepts(path), _list_names(connection, found)
    text, written = path.read_text(encoding="utf-8"), 0
    for unit, own in names.items():
        named = [one for one in own if one["text"]]
        place = there.units.get(unit)
        if not named or place is None or place.text or place.author or place.date:
            continue
        words = " / ".join(dict.fromkeys(one["text"] for one in named))
        authors, date = ", ".join(dict.fromkeys(one["name"] for one in named)), max(one["date"] for one in named)
        filled = _fill_name(text, unit, {"text": words, "author": authors, "date": date})
        if filled is not None:
            text, written = filled, written + 1
    trial = path.with_name(path.name + ".trial")
    trial.write_text(text, encoding="utf-8")
    try:
        after = read_concepts(trial).units
        changed = [unit for unit, one in there.units.items() if one.text and after.get(unit) != one]
        if changed:
            raise SightlineError(f"concepts.yaml says something of unit {changed[0]} that would change.", "")
        trial.replace(path)
    finally:
        trial.unlink(missing_ok=True)
    write_audit(connection, person.id, "write concepts", found.layer, {"written": written})
    return {"written": written, "kept": sum(bool(one.text) for one in there.units.values())}


def _fill_name(text: str, unit: int, words: dict[str, str]) -> str | None:
    """The file with the empty place of a unit filled, line by line; None where the place is not as it was written."""
    lines = text.splitlines(keepends=True)
    for n, line in enumerate(lines):
        if not line.startswith(f"  {unit}:"):
            continue
        for name, value in words.items():
            spot = next((i for i in range(n + 1, min(n + 4, len(lines))) if lines[i].strip() == f'{name}: ""'), None)
            if spot is None:
                return None
            # JSON's strings are YAML's double-quoted ones
            lines[spot] = f"    {name}: {json.dumps(value, ensure_ascii=False)}\n"
        return "".join(lines)
    return None
