"""The node's memory: objects, jobs, results, outbox and journal in one SQLite file.

WAL and `synchronous=FULL`: what is committed is on disk. Every change is one transaction that also appends to the
journal, whose rows are chained by hashes and which the database itself refuses to change. PostgreSQL needs no more
than another engine; nothing here is SQLite's own but the pragmas and the two triggers.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DatabaseError, DBAPIError

from sightline.errors import SightlineError
from sightline.web.node.spool import sync_folder

VERSION = 1
metadata = MetaData()

# state: kept, altered (other bytes of a known UID), own (a result of ours), cleaned (the file is gone)
objects = Table(
    "objects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("sop_uid", String(64), nullable=False, index=True),
    Column("sop_class", String(64), nullable=False),
    Column("syntax", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("series_uid", String(64), nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("accession", Text, nullable=False),
    Column("facts", Text, nullable=False),  # json of what rules and gate look at
    Column("bytes", Integer, nullable=False),
    Column("caller", Text, nullable=False),
    Column("door", String(8), nullable=False),  # protocol: dimse or stow
    Column("received", Float, nullable=False),
    Column("state", String(10), nullable=False),
)
# state: open, settled, held (a person must look)
studies = Table(
    "studies",
    metadata,
    Column("study_uid", String(64), primary_key=True),
    Column("first", Float, nullable=False),
    Column("last", Float, nullable=False),
    Column("complete", Integer, nullable=False, default=0),
    Column("state", String(10), nullable=False, index=True),
    Column("reason", Text, nullable=False, default=""),
    Column("ended", Float),
)
# state: waiting, running, done, refused, failed (to be tried again), dead, dropped
jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("rule", Text, nullable=False),
    Column("inputs", Text, nullable=False),  # json: sha256 of the images, in order
    Column("left_out", Text, nullable=False, default="[]"),  # json: images that no check let in, with reasons
    Column("state", String(10), nullable=False, index=True),
    Column("priority", Integer, nullable=False, default=0),
    Column("tries", Integer, nullable=False, default=0),
    Column("interruptions", Integer, nullable=False, default=0),  # times the node itself ended meanwhile
    Column("door", Text, nullable=False, default=""),  # check of the gate that refused
    Column("reason", Text, nullable=False, default=""),
    Column("predecessor", Integer),
    Column("received", Float, nullable=False),  # of the newest image: the content date of the results
    Column("created", Float, nullable=False),
    Column("due", Float, nullable=False, default=0.0),
    Column("started", Float),
    Column("ended", Float),
)
results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", ForeignKey("jobs.id"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("sop_uid", String(64), nullable=False, unique=True),
    Column("sop_class", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),
    Column("patient_id", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(10), nullable=False),  # kept, cleaned
)
# state: due, sent, committed, not_taken (that kind is not for this destination), dead, dropped
outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result", ForeignKey("results.id"), nullable=False, index=True),
    Column("destination", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("due", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("sent", Float),
    Column("asked", Float),  # when commitment was asked for
    Column("transaction", String(64)),
    Column("error", Text, nullable=False, default=""),
    Index("outbox_once", "result", "destination", unique=True),
    Index("outbox_due", "destination", "state", "due"),
)
# one row an image and job: what drift and the comparison of a silent mode are made of; no name in it
readings = Table(
    "readings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", ForeignKey("jobs.id"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("rule", Text, nullable=False),
    Column("at", Float, nullable=False, index=True),
    Column("measures", Text, nullable=False),  # json: name -> number or word
)
journal = Table(
    "journal",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("what", String(24), nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("detail", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)
_APPEND_ONLY = (
    "CREATE TRIGGER IF NOT EXISTS journal_no_update BEFORE UPDATE ON journal "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "CREATE TRIGGER IF NOT EXISTS journal_no_delete BEFORE DELETE ON journal "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
)


class NodeStoreError(SightlineError):
    """The node's database cannot be used: of another version, damaged, or its journal does not hold."""


_LAST_HASH = select(journal.c.hash).order_by(journal.c.seq.desc()).limit(1)
_ADD_TO_JOURNAL = insert(journal)
T = TypeVar("T")


class Change:
    """One transaction under way: statements, and the journal rows that say what they do.

    Attributes:
        connection: takes the statements.
        now: seconds since 1970, the same for all of the transaction.
        folders: folders in which files were moved; their names are made durable before the commit, once each.
    """

    def __init__(self, connection: Connection, now: float) -> None:
        self.connection, self.now = connection, now
        self.folders: set[Path] = set()
        self._hash = str(connection.execute(_LAST_HASH).scalar() or "")

    def note(self, what: str, subject: str, **detail: object) -> None:
        """Append a journal row."""
        row = {"at": self.now, "what": what, "subject": subject, "detail": _format_canonical(detail)}
        self._hash = hash_row(self._hash, row)
        self.connection.execute(_ADD_TO_JOURNAL, {**row, "hash": self._hash})

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part that is taken back alone where it fails; the rest of the transaction goes on."""
        before = self._hash
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            self._hash = before
            raise

    def sync_folders(self) -> None:
        """Make the names of moved files durable: whoever reads the row must find the file."""
        for folder in self.folders:
            sync_folder(folder)


@dataclass
class _Waiting:
    """One caller's part of a transaction that several share."""

    work: Callable[[Change], Any]
    result: Any = None
    error: BaseException | None = None
    ended: bool = False


class Store:
    """The database of one node.

    Args:
        path: file of the database; made when absent.
        clock: seconds since 1970; tests give their own.

    Raises:
        NodeStoreError: the file is damaged or was written by another version.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = path, clock
        self._lock, self._waiting_lock = threading.Lock(), threading.Lock()
        self._waiting: list[_Waiting] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write = _open_engine(path, "BEGIN IMMEDIATE")
        self._read = _open_engine(path, "BEGIN")
        try:
            with self._write.begin() as connection:
                found = connection.exec_driver_sql("PRAGMA user_version").scalar()
                if found not in (0, VERSION):
                    raise NodeStoreError(
                        f"{path} was written by another version (its layout is {found}, this one's {VERSION}).",
                        "Empty the queue with the version that wrote it, then start with a new keep folder.",
                    )
                metadata.create_all(connection)
                for statement in _APPEND_ONLY:
                    connection.execute(text(statement))
                connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
        except DatabaseError as error:
            raise NodeStoreError(
                f"{path} is no database of a node ({' '.join(str(error.orig).split())}).", "Restore it from a backup."
            ) from None
        path.chmod(0o600)

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction that writes; committed, with fsync, when the block ends without an error."""
        with self._lock, self._write.begin() as connection:
            change = Change(connection, self.clock())
            yield change
            change.sync_folders()

    def change_together(self, work: Callable[[Change], T]) -> T:
        """Do `work` in a transaction that it shares with whoever else waits just now (group commit).

        Returns when that transaction is committed, with fsync: what several connections receive at a time costs one
        fsync of the database and one of each folder together, instead of one each.

        Args:
            work: gets the transaction; must not be repeated by itself, and is taken back alone where it fails.

        Returns:
            What `work` returned.

        Raises:
            Exception: what `work` raised; or, for each of those who shared it, why the transaction was not committed.
        """
        mine = _Waiting(work)
        with self._waiting_lock:
            self._waiting.append(mine)
        with self._lock:
            # whoever held the lock before may have done this part too
            if not mine.ended:
                with self._waiting_lock:
                    parts, self._waiting = self._waiting, []
                self._commit(parts)
        if mine.error is not None:
            raise mine.error
        return cast(T, mine.result)

    def _commit(self, parts: list[_Waiting]) -> None:
        """One transaction for all parts; whatever happens, each has ended after it."""
        try:
            with self._write.begin() as connection:
                change = Change(connection, self.clock())
                for one in parts:
                    try:
                        with change.part():
                            one.result = one.work(change)
                    except DBAPIError:
                        raise  # the database may have taken back the whole transaction: nobody's part is certain
                    except Exception as error:
                        one.error = error
                change.sync_folders()
        except BaseException as error:
            for one in parts:
                one.error = one.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            for one in parts:
                one.ended = True

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """A connection that reads; it never waits for writers."""
        with self._read.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of the file."""
        self._write.dispose()
        self._read.dispose()

    def verify_journal(self) -> int:
        """Follow the chain from the first row; how many rows hold.

        Raises:
            NodeStoreError: naming the first row that was changed, or after which one is missing.
        """
        last, count = "", 0
        with self.look() as connection:
            for row in connection.execute(select(journal).order_by(journal.c.seq)).mappings():
                if row["seq"] != count + 1 or hash_row(last, dict(row)) != row["hash"]:
                    raise NodeStoreError(
                        f"{self.path}: the journal does not hold at row {row['seq']}: changed or removed afterwards.",
                        "Compare with a backup; what the journal says after this row proves nothing.",
                    )
                last, count = row["hash"], count + 1
        return count


# state of a study that a person has had tried again, and the word of it in the journal, where nothing else says so
REOPENED = "open"
# a study's reason: whose images are whose is for a person to say, and until then nothing of it is judged or sent
TWO_PATIENTS = "two patients in one study"


def select_contradictory_studies() -> Select[tuple[str]]:
    """UIDs of the studies that are held because they name two patients."""
    return select(studies.c.study_uid).where(studies.c.state == "held", studies.c.reason == TWO_PATIENTS)


def select_oldest_job() -> Select[Any]:
    """When the oldest job that has not ended was made: one that waits, is judged, or is to be tried again."""
    return select(func.min(jobs.c.created)).where(jobs.c.state.in_(("waiting", "running", "failed")))


def select_superseded_jobs() -> Select[tuple[int]]:
    """Numbers of the jobs that a later one of the same study and rule, over all of its images, stands for."""
    later = jobs.alias()
    same = (later.c.study_uid == jobs.c.study_uid) & (later.c.rule == jobs.c.rule)
    query = select(jobs.c.id).join(later, same & (later.c.id > jobs.c.id))
    return query.where(later.c.state != "dropped")


def select_following_jobs() -> Select[tuple[int]]:
    """Numbers of the jobs of which an earlier one of the same study and rule is being judged just now."""
    before = jobs.alias()
    same = (before.c.study_uid == jobs.c.study_uid) & (before.c.rule == jobs.c.rule)
    query = select(jobs.c.id).join(before, same & (before.c.id < jobs.c.id))
    return query.where(before.c.state == "running")


_earlier = objects.alias()


def is_study_image(*states: str) -> ColumnElement[bool]:
    """Whether an object is in one of `states` (kept, cleaned) as an image that its study was or is to be judged by.

    What was cleaned may have been other bytes of a known UID, which are none; or (`facts` say so) a result of ours.
    """
    known = select(_earlier.c.id).where(_earlier.c.sop_uid == objects.c.sop_uid, _earlier.c.id < objects.c.id)
    return objects.c.state.in_(states) & ((objects.c.state != "cleaned") | ~known.exists())


def require_inserted_id(result: CursorResult[Any]) -> int:
    """The primary key of the row that an INSERT made."""
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def hash_row(last: str, row: Mapping[str, Any]) -> str:
    """Hash of a journal row and the one before it."""
    words = _format_canonical([last, repr(float(row["at"])), row["what"], row["subject"], row["detail"]])
    return hashlib.sha256(words.encode()).hexdigest()


def _format_canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _open_engine(path: Path, begin: str) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30.0, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN is the one that counts
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
