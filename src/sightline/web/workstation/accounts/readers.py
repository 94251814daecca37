"""Accounts: who may come in, and as what; and their sessions, kept as digests."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from sightline.errors import SightlineError
from sightline.web.workstation.accounts.passwords import hash_password
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import Database, read_all_rows, read_first_row
from sightline.web.workstation.store.tables import reader, session

ROLES = ("reader", "adjudicator", "lead", "viewer")
IDLE_S, WHOLE_S = 60 * 60.0, 12 * 60 * 60.0
ALONE = "alone"
_MAY: Mapping[str, tuple[str, ...]] = {
    "reader": ("mark", "compare", "gaze", "units", "results"),
    "adjudicator": ("mark", "compare", "gaze", "units", "results", "adjudicate"),
    "lead": (
        "mark", "compare", "gaze", "units", "results", "adjudicate", "agreement", "readers", "plan", "export",
    ),
    "viewer": ("results",),
}  # fmt: skip


class AccountRefused(SightlineError):
    """An account that cannot be made or changed."""


@dataclass(frozen=True)
class Person:
    """Who asks.

    Attributes:
        id: of the account.
        name: as typed to sign in.
        display: as shown.
        role: reader, adjudicator, lead or viewer.
        settings: language, theme, keys.
        session: digest of the session's token; empty outside a request.
    """

    id: str
    name: str
    display: str
    role: str
    settings: Mapping[str, Any]
    session: str = ""

    @property
    def may(self) -> tuple[str, ...]:
        """What the role allows."""
        return _MAY[self.role]


def add_reader(connection: Connection, name: str, *, display: str, role: str, password: str | None, who: str) -> str:
    """Make an account; its id.

    Args:
        connection: of a writing transaction.
        name: to sign in with.
        display: as shown; the name where empty.
        role: of ROLES.
        password: None makes one that nobody can sign in with.
        who: made it.

    Raises:
        AccountRefused: a name that is taken or no name, or an unknown role.
    """
    name = unicodedata.normalize("NFC", name).strip()
    if not re.fullmatch(r"[\w.@-][\w.@ -]{0,78}[\w.@-]|[\w.@-]", name):
        raise AccountRefused(f"{name[:80]!r} is no name to sign in with.", "Use letters, digits and . _ - @ within 80.")
    if len(display) > 200:
        raise AccountRefused("A shown name has at most 200 characters.", "Shorten it.")
    if role not in ROLES:
        raise AccountRefused(f"{role!r} is no role.", f"Roles: {', '.join(ROLES)}.")
    taken = connection.execute(select(reader.c.name)).scalars()
    if name.casefold() in {one.casefold() for one in taken}:
        raise AccountRefused(f"There is a reader {name!r} already.", "Choose another name.")
    reader_id = str(uuid.uuid4())
    hashed = "" if password is None else hash_password(password)
    row = {"id": reader_id, "name": name, "display": display or name, "role": role, "hash": hashed}
    connection.execute(reader.insert().values(**row, made_at=format_now(), settings="{}"))
    write_audit(connection, who, "add reader", reader_id, {"role": role})
    return reader_id


def change_reader(connection: Connection, reader_id: str, *, who: str, changes: Mapping[str, Any]) -> None:
    """Change role, shown name, password, or whether the account is open; new passwords end its sessions.

    Args:
        connection: of a writing transaction.
        reader_id: of the account.
        who: does it.
        changes: `role`, `display`, `password`, `disabled`.

    Raises:
        AccountRefused: no such account, an unknown role, or the last lead would go.
    """
    row = read_first_row(connection, select(reader).where(reader.c.id == reader_id))
    if row is None:
        raise AccountRefused("There is no such reader.", "Look at the list of readers.")
    values: dict[str, Any] = {}
    if "role" in changes:
        if changes["role"] not in ROLES:
            raise AccountRefused(f"{changes['role']!r} is no role.", f"Roles: {', '.join(ROLES)}.")
        values["role"] = changes["role"]
    if "display" in changes:
        values["display"] = str(changes["display"])[:200] or row["name"]
    if changes.get("password") is not None:
        values["hash"] = hash_password(str(changes["password"]))
    if "disabled" in changes:
        values["disabled_at"] = format_now() if changes["disabled"] else None
    loses_lead = row["role"] == "lead" and (values.get("role", "lead") != "lead" or values.get("disabled_at"))
    if loses_lead:
        open_leads = select(reader.c.id).where(reader.c.role == "lead", reader.c.disabled_at.is_(None))
        if set(connection.execute(open_leads).scalars()) <= {reader_id}:
            raise AccountRefused("This is the only lead.", "Make another lead first.")
    if values:
        connection.execute(update(reader).where(reader.c.id == reader_id).values(**values))
    if "hash" in values or values.get("disabled_at"):
        end_sessions(connection, reader_id)
    shown = {name: value for name, value in values.items() if name in ("role",)} | {"changed": sorted(values)}
    write_audit(connection, who, "change reader", reader_id, shown)


def find_reader(connection: Connection, name: str) -> Mapping[str, Any] | None:
    """The account of a name, however its letters are written."""
    folded = unicodedata.normalize("NFC", name).strip().casefold()
    for row in read_all_rows(connection, select(reader)):
        if row["name"].casefold() == folded:
            return row
    return None


def start_session(connection: Connection, reader_id: str, *, address: str, agent: str) -> str:
    """A new session's token: 256 random bits, of which only the digest is kept."""
    token, now = secrets.token_urlsafe(32), time.time()
    connection.execute(delete(session).where((session.c.ends_at < now) | (session.c.seen_at < now - IDLE_S)))
    connection.execute(
        session.insert().values(
            token_sha256=digest_token(token), reader=reader_id, made_at=now, seen_at=now, ends_at=now + WHOLE_S,
            address=address[:64], agent=agent[:200],
        )
    )  # fmt: skip
    return token


def find_person(database: Database, token: str) -> Person | None:
    """Who a session belongs to, or None where it is over; keeps it alive."""
    now, digested = time.time(), digest_token(token)
    with database.reading() as connection:
        found = (
            select(reader, session.c.seen_at, session.c.ends_at)
            .join(session, session.c.reader == reader.c.id)
            .where(session.c.token_sha256 == digested)
        )
        row = read_first_row(connection, found)
    if row is None or row["ends_at"] < now or row["seen_at"] < now - IDLE_S or row["disabled_at"] is not None:
        return None
    if row["seen_at"] < now - 60.0:
        with database.writing() as connection:
            connection.execute(update(session).where(session.c.token_sha256 == digested).values(seen_at=now))
    return build_person(row, digested)


def build_person(row: Mapping[str, Any], session_digest: str = "") -> Person:
    """An account's row as who asks."""
    settings = json.loads(row["settings"])
    return Person(row["id"], row["name"], row["display"], row["role"], settings, session_digest)


def end_sessions(connection: Connection, reader_id: str, *, but: str = "") -> None:
    """End all sessions of an account, but perhaps the one that asks."""
    connection.execute(delete(session).where(session.c.reader == reader_id, session.c.token_sha256 != but))


def digest_token(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def has_accounts(database: Database) -> bool:
    """Whether anybody can sign in."""
    with database.reading() as connection:
        return connection.execute(select(reader.c.id).where(reader.c.hash != "").limit(1)).first() is not None


def list_readers(connection: Connection) -> list[dict[str, Any]]:
    """All accounts, in the order they were made."""
    return read_all_rows(connection, select(reader).order_by(reader.c.made_at))
