"""Opening a store: upgraded after a copy, refused with words where it cannot be."""

import sqlite3

import pytest
from sqlalchemy import create_engine, inspect
from support.workstation import open_studio, small_cohort

from sightline.web.workstation.store import database
from sightline.web.workstation.store.database import Database, StoreError, require_local_disk, upgrade
from sightline.web.workstation.store.tables import SCHEMA, metadata

NEXT = """
revision = "2"
down_revision = "1"
def upgrade():
    from alembic import op
    op.get_bind().exec_driver_sql("CREATE TABLE later (x INTEGER)")
"""


def test_the_migrations_make_the_tables_of_the_code(tmp_path):
    made = Database(tmp_path / "keep")
    found = inspect(made.engine)
    for table in metadata.sorted_tables:
        columns = {c["name"]: (str(c["type"]), c["nullable"]) for c in found.get_columns(table.name)}
        wanted = {c.name: (str(c.type.compile(made.engine.dialect)), c.nullable) for c in table.columns}
        assert columns == wanted, table.name
    assert {t.name for t in metadata.sorted_tables} | {"alembic_version"} == set(found.get_table_names())
    made.close()


def test_sqlite_writes_through(tmp_path):
    made = Database(tmp_path / "keep")
    with made.reading() as connection:
        for pragma, wanted in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == wanted
    made.close()


def test_an_earlier_schema_is_copied_then_upgraded_and_keeps_its_rows(tmp_path):
    """The packaged steps, and one more behind them: what the next release will do to a store of today."""
    studio = open_studio(tmp_path)
    studio.add("ada")
    studio.desk.close()
    keep = tmp_path / "keep"
    import shutil

    steps = tmp_path / "steps"
    shutil.copytree(database.find_steps_folder(), steps)
    (steps / "versions" / "s0002_later.py").write_text(NEXT)
    engine = create_engine(f"sqlite:///{keep / database.FILE}")
    upgrade(engine, keep, str(steps))
    assert inspect(engine).has_table("later")
    copy = sqlite3.connect(keep / f"{database.FILE}.schema-{SCHEMA}")
    assert copy.execute("SELECT name FROM reader").fetchall() == [("ada",)]
    assert copy.execute("SELECT count(*) FROM sqlite_master WHERE name = 'later'").fetchone() == (0,)
    copy.close()
    engine.dispose()
    # this sightline now meets a newer store
    with pytest.raises(StoreError, match="schema 2; this sightline knows schemas up to 1"):
        Database(keep)


def test_a_network_share_is_refused_and_a_local_disk_is_not(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/share nfs4 rw 0 0\n")
    with pytest.raises(StoreError, match="nfs4"):
        require_local_disk(tmp_path / "share" / "keep", mounts)
    require_local_disk(tmp_path / "keep", mounts)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "keep").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        Database(tmp_path / "keep")


def test_another_cohort_is_refused_and_added_studies_are_adopted(tmp_path):
    open_studio(tmp_path, small_cohort(tmp_path / "cohort", studies=3)).desk.close()
    grown = small_cohort(tmp_path / "cohort", studies=4)
    with pytest.raises(StoreError, match="fingerprint"):
        open_studio(tmp_path, grown)
    studio = open_studio(tmp_path, grown, adopt=True)
    with studio.desk.database.reading() as connection:
        assert studio.desk.counts(connection)["studies"] == 4
    studio.desk.close()
    shrunk = small_cohort(tmp_path / "other", studies=2)
    with pytest.raises(StoreError, match="is gone"):
        open_studio(tmp_path, shrunk, adopt=True)
