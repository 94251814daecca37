"""The tables of the store, and the triggers that let rows of the log be added only.

SQLite for one computer, PostgreSQL for a department: the same tables. `schema` is the number of the last migration.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = 1
metadata = MetaData()

# a whole number that counts up by itself: SQLite only does so for INTEGER
_COUNTER = BigInteger().with_variant(Integer, "sqlite")

workstation = Table(
    "workstation",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("schema", Integer, nullable=False),
    Column("made_at", String(32), nullable=False),
    Column("cohort_name", Text, nullable=False),
    Column("cohort_path", Text, nullable=False),
    Column("cohort_fingerprint", String(32), nullable=False),
    Column("salt", String(64), nullable=False),
)

reader = Table(
    "reader",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("display", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("hash", Text, nullable=False),
    Column("made_at", String(32), nullable=False),
    Column("disabled_at", String(32)),
    Column("settings", Text, nullable=False, default="{}"),
)

session = Table(
    "session",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("reader", String(36), ForeignKey("reader.id"), nullable=False),
    Column("made_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("ends_at", Float, nullable=False),
    Column("address", String(64), nullable=False),
    Column("agent", String(200), nullable=False),
)

study = Table(
    "study",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("study_id", Text, nullable=False, unique=True),
    Column("patient_id", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("split", String(8)),
)

image = Table(
    "image",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("image_id", Text, nullable=False, unique=True),
    Column("study", String(32), ForeignKey("study.key"), nullable=False, index=True),
    Column("ordinal", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("view", Text, nullable=False),
    Column("side", String(8), nullable=False),
    Column("rows", Integer),
    Column("columns", Integer),
    Column("shape", Text, nullable=False),
    Column("spacing", Text),
    # of the file when it was first opened here; another digest later means that the picture changed
    Column("sha256", String(64)),
    Column("facts", Text, nullable=False),
)

task = Table(
    "task",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("kind", String(24), nullable=False),
    Column("spec", Text, nullable=False),
    Column("order", String(16), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("passes", Integer, nullable=False),
    Column("made_at", String(32), nullable=False),
    Column("version", Integer, nullable=False),
)

read = Table(
    "read",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task", String(36), ForeignKey("task.id"), nullable=False),
    Column("study", String(32), ForeignKey("study.key"), nullable=False),
    Column("reader", String(36), ForeignKey("reader.id"), nullable=False),
    Column("pass", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("warm_up", Boolean, nullable=False),
    Column("random_draw", Boolean, nullable=False),
    # reader study mode: what the reader is shown, and whether the advice is wrong on purpose
    Column("aid", Text),
    Column("not_before", String(32)),
    Column("planned_at", String(32), nullable=False),
    Column("started_at", String(32)),
    Column("submitted_at", String(32)),
    Column("touched_at", String(32)),
    Column("marks", Integer, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("view", Text, nullable=False),
    Column("comment", Text),
    UniqueConstraint("task", "study", "reader", "pass"),
    Index("read_queue", "reader", "task", "ordinal"),
    Index("read_study", "study", "task"),
)

op = Table(
    "op",
    metadata,
    Column("server_seq", _COUNTER, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("read", String(36), ForeignKey("read.id"), nullable=False),
    Column("client", String(36), nullable=False),
    Column("n", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("image", String(32)),
    Column("body", Text, nullable=False),
    Column("at_ms", Float, nullable=False),
    Column("mono_ms", Float, nullable=False),
    Column("received_at", String(32), nullable=False),
    # when it was made by the server's clock, in ms: what wall time is counted from
    Column("server_ms", Float, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("before", String(64), nullable=False),
    UniqueConstraint("read", "client", "n"),
    Index("op_read", "read", "server_seq"),
    sqlite_autoincrement=True,
)

event = Table(
    "event",
    metadata,
    Column("seq", _COUNTER, primary_key=True, autoincrement=True),
    Column("read", String(36), ForeignKey("read.id"), nullable=False),
    Column("client", String(36), nullable=False),
    Column("n", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("mono_ms", Float, nullable=False),
    Column("at_ms", Float, nullable=False),
    Column("server_ms", Float, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("client", "n"),
    Index("event_read", "read", "client", "n"),
    sqlite_autoincrement=True,
)

proposal = Table(
    "proposal",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("run", String(32), nullable=False),
    Column("weights", String(64), nullable=False),
    Column("image", String(32), ForeignKey("image.key"), nullable=False, index=True),
    Column("mark", Text, nullable=False),
    Column("score", Float, nullable=False),
    Column("how", Text, nullable=False),
    Column("made_at", String(32), nullable=False),
)

map_ = Table(
    "map",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("image", String(32), ForeignKey("image.key"), primary_key=True),
    Column("file", Text, nullable=False),
    Column("classes", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("frame", Text, nullable=False),
    Column("ranges", Text, nullable=False),
    Column("probabilities", Text, nullable=False),
)

outcome = Table(
    "outcome",
    metadata,
    Column("seq", _COUNTER, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("task", String(36), ForeignKey("task.id"), nullable=False),
    Column("study", String(32), ForeignKey("study.key"), nullable=False),
    Column("from_read", String(36)),
    Column("how", String(16), nullable=False),
    Column("marks", Text, nullable=False),
    Column("label", Text),
    Column("by", String(36), nullable=False),
    Column("at", String(32), nullable=False),
    Column("comment", Text, nullable=False),
    Column("replaces", String(36)),
    Index("outcome_study", "task", "study"),
    sqlite_autoincrement=True,
)

unit_name = Table(
    "unit_name",
    metadata,
    Column("seq", _COUNTER, primary_key=True, autoincrement=True),
    Column("weights", String(64), nullable=False),
    Column("layer", Text, nullable=False),
    Column("unit", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("author", String(36), nullable=False),
    Column("date", String(10), nullable=False),
    Column("at", String(32), nullable=False),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("seq", _COUNTER, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("who", String(36), nullable=False),
    Column("what", String(40), nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("before", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    sqlite_autoincrement=True,
)

export = Table(
    "export",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("made_at", String(32), nullable=False),
    Column("by", String(36), nullable=False),
    Column("how", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("result", Text, nullable=False),
)

# rows of these are added and never touched again
ADD_ONLY = ("op", "event", "outcome", "unit_name", "audit")


def guard_statements(dialect: str, tables: tuple[str, ...] = ADD_ONLY) -> list[str]:
    """SQL that makes the database refuse to change or delete rows of the log.

    Args:
        dialect: `sqlite` or `postgresql`.
        tables: to guard.
    """
    if dialect == "sqlite":
        return [
            f'CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON "{table}" '
            f"BEGIN SELECT RAISE(ABORT, '{table} is added to only'); END"
            for table in tables
            for verb in ("UPDATE", "DELETE")
        ]
    function = (
        "CREATE OR REPLACE FUNCTION sightline_added_to_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is added to only', TG_TABLE_NAME; END $$"
    )
    return [
        function,
        *(
            f'CREATE TRIGGER {table}_add_only BEFORE UPDATE OR DELETE OR TRUNCATE ON "{table}" '
            "FOR EACH STATEMENT EXECUTE FUNCTION sightline_added_to_only()"
            for table in tables
        ),
    ]
