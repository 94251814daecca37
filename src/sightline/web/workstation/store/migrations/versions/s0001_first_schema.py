"""Schema 1: the first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sightline.web.workstation.store.tables import guard_statements

revision = "1"
down_revision = None
branch_labels = None
depends_on = None

_ADD_ONLY = ("op", "event", "outcome", "unit_name", "audit")


def upgrade() -> None:
    """Make the tables, and the triggers that let rows of the log be added only."""
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("who", sa.String(length=36), nullable=False),
        sa.Column("what", sa.String(length=40), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("before", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "export",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.Column("by", sa.String(length=36), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "reader",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("display", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.Column("disabled_at", sa.String(length=32), nullable=True),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "study",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("split", sa.String(length=8), nullable=True),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("study_id"),
    )
    op.create_table(
        "task",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("order", sa.String(length=16), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("passes", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "unit_name",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("weights", sa.String(length=64), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("unit", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=36), nullable=False),
        sa.Column("date", sa.String(length=10), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "workstation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("schema", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.Column("cohort_name", sa.Text(), nullable=False),
        sa.Column("cohort_path", sa.Text(), nullable=False),
        sa.Column("cohort_fingerprint", sa.String(length=32), nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "image",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("study", sa.String(length=32), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column("side", sa.String(length=8), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=True),
        sa.Column("columns", sa.Integer(), nullable=True),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("spacing", sa.Text(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"],
            ["study.key"],
        ),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("image_id"),
    )
    op.create_index(op.f("ix_image_study"), "image", ["study"], unique=False)
    op.create_table(
        "outcome",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("task", sa.String(length=36), nullable=False),
        sa.Column("study", sa.String(length=32), nullable=False),
        sa.Column("from_read", sa.String(length=36), nullable=True),
        sa.Column("how", sa.String(length=16), nullable=False),
        sa.Column("marks", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("by", sa.String(length=36), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("replaces", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(
            ["study"],
            ["study.key"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["task.id"],
        ),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("outcome_study", "outcome", ["task", "study"], unique=False)
    op.create_table(
        "read",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("task", sa.String(length=36), nullable=False),
        sa.Column("study", sa.String(length=32), nullable=False),
        sa.Column("reader", sa.String(length=36), nullable=False),
        sa.Column("pass", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("warm_up", sa.Boolean(), nullable=False),
        sa.Column("random_draw", sa.Boolean(), nullable=False),
        sa.Column("aid", sa.Text(), nullable=True),
        sa.Column("not_before", sa.String(length=32), nullable=True),
        sa.Column("planned_at", sa.String(length=32), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=True),
        sa.Column("submitted_at", sa.String(length=32), nullable=True),
        sa.Column("touched_at", sa.String(length=32), nullable=True),
        sa.Column("marks", sa.Integer(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("view", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["reader"],
            ["reader.id"],
        ),
        sa.ForeignKeyConstraint(
            ["study"],
            ["study.key"],
        ),
        sa.ForeignKeyConstraint(
            ["task"],
            ["task.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("task", "study", "reader", "pass"),
    )
    op.create_index("read_queue", "read", ["reader", "task", "ordinal"], unique=False)
    op.create_index("read_study", "read", ["study", "task"], unique=False)
    op.create_table(
        "session",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("reader", sa.String(length=36), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("ends_at", sa.Float(), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("agent", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(
            ["reader"],
            ["reader.id"],
        ),
        sa.PrimaryKeyConstraint("token_sha256"),
    )
    op.create_table(
        "event",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("read", sa.String(length=36), nullable=False),
        sa.Column("client", sa.String(length=36), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("mono_ms", sa.Float(), nullable=False),
        sa.Column("at_ms", sa.Float(), nullable=False),
        sa.Column("server_ms", sa.Float(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["read"],
            ["read.id"],
        ),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("client", "n"),
        sqlite_autoincrement=True,
    )
    op.create_index("event_read", "event", ["read", "client", "n"], unique=False)
    op.create_table(
        "map",
        sa.Column("run", sa.String(length=32), nullable=False),
        sa.Column("image", sa.String(length=32), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("classes", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("frame", sa.Text(), nullable=False),
        sa.Column("ranges", sa.Text(), nullable=False),
        sa.Column("probabilities", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"],
            ["image.key"],
        ),
        sa.PrimaryKeyConstraint("run", "image"),
    )
    op.create_table(
        "op",
        sa.Column(
            "server_seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("read", sa.String(length=36), nullable=False),
        sa.Column("client", sa.String(length=36), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("image", sa.String(length=32), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.Float(), nullable=False),
        sa.Column("mono_ms", sa.Float(), nullable=False),
        sa.Column("received_at", sa.String(length=32), nullable=False),
        sa.Column("server_ms", sa.Float(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("before", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["read"],
            ["read.id"],
        ),
        sa.PrimaryKeyConstraint("server_seq"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("read", "client", "n"),
        sqlite_autoincrement=True,
    )
    op.create_index("op_read", "op", ["read", "server_seq"], unique=False)
    op.create_table(
        "proposal",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run", sa.String(length=32), nullable=False),
        sa.Column("weights", sa.String(length=64), nullable=False),
        sa.Column("image", sa.String(length=32), nullable=False),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"],
            ["image.key"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_proposal_image"), "proposal", ["image"], unique=False)
    for statement in guard_statements(op.get_bind().dialect.name, _ADD_ONLY):
        # a colon in a statement is no parameter here
        op.get_bind().exec_driver_sql(statement.replace("%", "%%") if "plpgsql" in statement else statement)
