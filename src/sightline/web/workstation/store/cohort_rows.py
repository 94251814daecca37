"""The cohort's studies and images as rows of the store, under keys that say nothing of a patient."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from sightline.structures.case import Case, Cohort
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import Database, StoreError, read_first_row
from sightline.web.workstation.store.tables import SCHEMA, image, study, workstation


def make_key(salt: str, kind: str, name: str) -> str:
    """The opaque key of a study or image: HMAC-SHA256 of its id under the store's salt, 24 characters.

    Example:
        >>> len(make_key("00", "study", "S1"))
        24
    """
    return hmac.new(bytes.fromhex(salt), f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()[:24]


def take_cohort(database: Database, cohort: Cohort, *, adopt: bool = False) -> Mapping[str, Any]:
    """Write a cohort's studies and images into a new store, or check that a store is this cohort's.

    Args:
        database: the store.
        cohort: as read from its folder.
        adopt: take over a cohort to which studies were added; what was there must be there still.

    Returns:
        The row of the workstation.

    Raises:
        StoreError: the store is of another cohort, or of other content of this one.
    """
    fingerprint, path = cohort.fingerprint(), str((cohort.root or Path()).absolute())
    with database.writing() as connection:
        row = read_first_row(connection, select(workstation))
        if row is None:
            row = {
                "id": str(uuid.uuid4()), "schema": SCHEMA, "made_at": format_now(), "cohort_name": cohort.name,
                "cohort_path": path, "cohort_fingerprint": fingerprint, "salt": secrets.token_hex(32),
            }  # fmt: skip
            connection.execute(workstation.insert().values(**row))
            _insert(connection, cohort, row["salt"], known=set(), first=0)
            write_audit(connection, "server", "store made", row["id"], {"cohort": fingerprint})
            return row
        if row["cohort_fingerprint"] == fingerprint:
            if row["cohort_path"] != path:
                connection.execute(update(workstation).values(cohort_path=path))
            return dict(row) | {"cohort_path": path}
        if row["cohort_name"] != cohort.name or not adopt:
            raise StoreError(
                f"The store in {database.keep} holds marks of the cohort {row['cohort_name']!r} with the fingerprint "
                f"{row['cohort_fingerprint']}; {path} is {cohort.name!r} with {fingerprint}.",
                "Choose another folder with --keep, or, where studies were only added, start once with --adopt.",
            )
        _adopt(connection, cohort, row)
        connection.execute(update(workstation).values(cohort_fingerprint=fingerprint, cohort_path=path))
        write_audit(connection, "server", "cohort adopted", row["id"], {"cohort": fingerprint})
        return dict(row) | {"cohort_fingerprint": fingerprint, "cohort_path": path}


def _adopt(connection: Connection, cohort: Cohort, row: Mapping[str, Any]) -> None:
    known = set(connection.execute(select(study.c.study_id)).scalars())
    images = dict(connection.execute(select(image.c.image_id, study.c.study_id).join(study)).tuples().all())
    here = {case.case_id: case.study_id for case in cohort}
    lost = sorted(name for name, of in images.items() if here.get(name) != of)
    grown = sorted(case.study_id for case in cohort if case.study_id in known and case.case_id not in images)
    if lost or grown:
        what = f"image {lost[0]!r} is gone" if lost else f"study {grown[0]!r} has other images"
        raise StoreError(
            f"The cohort cannot be adopted: {what}, and marks may lie on it.", "Only whole studies can be added."
        )
    _insert(connection, cohort, row["salt"], known=known, first=len(known))


def _insert(connection: Connection, cohort: Cohort, salt: str, *, known: set[str], first: int) -> None:
    studies: dict[str, dict[str, Any]] = {}
    images: list[dict[str, Any]] = []
    for case in cohort:
        if case.study_id in known:
            continue
        row = studies.get(case.study_id)
        if row is None:
            row = studies[case.study_id] = {
                "key": make_key(salt, "study", case.study_id), "study_id": case.study_id, "patient_id": case.patient_id,
                "ordinal": first + len(studies), "label": case.label, "split": case.split,
            }  # fmt: skip
        images.append(_build_image_row(case, salt, row["key"], len(images), cohort.root))
    for table, rows in ((study, list(studies.values())), (image, images)):
        for start in range(0, len(rows), 500):
            connection.execute(table.insert(), rows[start : start + 500])


def _build_image_row(case: Case, salt: str, study_key: str, ordinal: int, root: Path | None) -> dict[str, Any]:
    path = case.image.absolute()
    base = (root or Path()).absolute()
    relative = path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
    shape = list(case.shape or ())
    return {
        "key": make_key(salt, "image", case.case_id), "image_id": case.case_id, "study": study_key, "ordinal": ordinal,
        "path": relative, "view": _name_view(case), "side": _find_side(case),
        "rows": shape[0] if len(shape) == 2 else None,
        "columns": shape[1] if len(shape) == 2 else None, "shape": json.dumps(shape),
        "spacing": json.dumps(list(case.spacing_mm)) if case.spacing_mm else None, "sha256": None,
        "facts": json.dumps(dict(case.facts)),
    }  # fmt: skip


def _name_view(case: Case) -> str:
    """The projection; of a patch of a CT, whose view says how it was cut, the level of its vertebra."""
    return case.view if len(case.shape or ()) != 3 else case.facts.get("level", "")


def _find_side(case: Case) -> str:
    """L, R or nothing, from what the cohort says of the side."""
    for name in ("laterality", "side"):
        text = case.facts.get(name, "").strip().upper()
        if text[:1] in ("L", "R"):
            return text[:1]
    return ""
