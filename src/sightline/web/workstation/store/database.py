"""Opening the store: SQLite beside the cohort or PostgreSQL by its address, upgraded first and copied before.

SQLite runs with a write-ahead log and `synchronous=FULL`: what was acknowledged is on the disk. Writers begin with
`BEGIN IMMEDIATE`, so that two of them wait for each other instead of failing half way.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Executable, create_engine, event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from sightline.errors import SightlineError

FILE = "workstation.db"
_NETWORK_SHARES = ("nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph")


class StoreError(SightlineError):
    """A store that cannot be opened: newer, foreign, on a network share, or not writable."""


class Database:
    """The store's engine, and the one way to write to it.

    Args:
        keep: folder of the store; holds the SQLite file, pixels and maps.
        address: a database URL (`postgresql+psycopg://...`), or None for SQLite in `keep`.

    Raises:
        StoreError: of a newer version, not writable, on a network share, or not reachable.
    """

    def __init__(self, keep: Path, address: str | None = None) -> None:
        self.keep = keep
        self.sqlite = address is None or address.startswith("sqlite")
        if self.sqlite:
            require_local_disk(keep)
        # pixels and exports lie there whatever database holds the marks
        _require_writable(keep)
        url = address or f"sqlite:///{keep / FILE}"
        if url.startswith("postgresql://"):
            url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        more: dict[str, Any] = {"connect_args": {"timeout": 30.0, "check_same_thread": False}} if self.sqlite else {}
        try:
            self.engine: Engine = create_engine(url, pool_size=16, max_overflow=32, **more)
        except (SQLAlchemyError, ImportError) as error:
            raise StoreError(
                f"The database address is not understood ({_get_first_line(error)}).",
                "Give --database postgresql://USER@HOST/NAME; for PostgreSQL install the package psycopg.",
            ) from None
        self._writing = threading.Lock()
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        try:
            upgrade(self.engine, keep if self.sqlite else None)
        except OperationalError as error:
            raise StoreError(
                f"The database cannot be reached ({_get_first_line(error)}).",
                "Check that it runs and the address is right.",
            ) from None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the store."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it is stored, or nothing."""
        if not self.sqlite:
            with self.engine.begin() as connection:
                yield connection
            return
        # one writer at a time in this process; others (another process) wait at BEGIN IMMEDIATE
        writer = self.engine.connect
        with self._writing, writer().execution_options(sightline_write=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


def _prepare_sqlite(connection: Any, record: object) -> None:
    # transactions are begun by us, so that writers can take the lock at once
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("sightline_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def find_steps_folder() -> str:
    """Where the packaged migrations lie."""
    return str(resources.files("sightline.web.workstation.store") / "migrations")


def upgrade(engine: Engine, keep: Path | None, steps: str | None = None) -> None:
    """Bring a store to the newest schema; a SQLite file of an earlier one is copied first.

    Args:
        engine: of the store.
        keep: folder of the SQLite file, or None for a database that has its own backups.
        steps: folder of migrations, for tests.

    Raises:
        StoreError: the store is of a newer sightline.
    """
    config = Config()
    config.set_main_option("script_location", steps or find_steps_folder())
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    known = {step.revision for step in script.walk_revisions()}
    with engine.connect() as connection:
        now = MigrationContext.configure(connection).get_current_revision()
    if now == head:
        return
    if now is not None and now not in known:
        raise StoreError(
            f"The store is of schema {now}; this sightline knows schemas up to {head}.",
            "Use the sightline that wrote it, or a newer one.",
        )
    if keep is not None and now is not None:
        _copy_sqlite(keep / FILE, keep / f"{FILE}.schema-{now}")
    with engine.connect().execution_options(sightline_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            # two servers that start at once upgrade one after the other
            connection.execute(text("SELECT pg_advisory_xact_lock(7415)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _copy_sqlite(source: Path, target: Path) -> None:
    """A whole copy of a database that may have a write-ahead log beside it."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    reader, writer = sqlite3.connect(source), sqlite3.connect(partial)
    try:
        reader.backup(writer)
    finally:
        reader.close()
        writer.close()
    partial.replace(target)


def require_local_disk(keep: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Refuse a folder on a network share: SQLite's write-ahead log needs memory that two computers cannot share.

    Raises:
        StoreError: the folder lies on one.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # not Linux: nothing is known
    place, best, kind = keep.absolute().resolve(), "", ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if place.is_relative_to(point) and len(point) > len(best):
            best, kind = point, fields[2]
    if kind in _NETWORK_SHARES:
        raise StoreError(
            f"{keep} lies on a network share ({kind} at {best}), where the store could be damaged.",
            "Choose a folder on a local disk with --keep, or use --database with PostgreSQL.",
        )


def _require_writable(keep: Path) -> None:
    try:
        keep.mkdir(parents=True, exist_ok=True)
        trial = keep / ".write-test"
        trial.write_bytes(b"ok")
        trial.unlink()
    except OSError as error:
        raise StoreError(
            f"{keep} cannot be written to ({error.strerror}).", "Choose another folder with --keep, or make room."
        ) from None
    if not os.access(keep, os.W_OK):
        raise StoreError(f"{keep} cannot be written to.", "Choose another folder with --keep.")


def measure_free_bytes(keep: Path) -> int:
    """Room left on the disk of the store."""
    return shutil.disk_usage(keep).free


def _get_first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def read_all_rows(connection: Connection, statement: Executable) -> list[dict[str, Any]]:
    """The rows of a question, by name of column."""
    return [dict(row) for row in connection.execute(statement).mappings()]


def read_first_row(connection: Connection, statement: Executable) -> dict[str, Any] | None:
    """The first row of a question, or None."""
    row = connection.execute(statement).mappings().first()
    return None if row is None else dict(row)


def read_one_row(connection: Connection, statement: Executable) -> dict[str, Any]:
    """The one row of a question."""
    return dict(connection.execute(statement).mappings().one())


@contextmanager
def open_database(keep: Path, address: str | None = None) -> Iterator[Database]:
    """A store that exists, for a command; closed at the end.

    Raises:
        StoreError: there is none in this folder.
    """
    if address is None and not (keep / FILE).is_file():
        raise StoreError(
            f"{keep} holds no marks.", "Open the workstation on the cohort once; marks lie in COHORT.workstation."
        )
    store = Database(keep, address)
    try:
        yield store
    finally:
        store.close()
