"""The database: journal that cannot be changed, changes that are whole or not there."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.exc import OperationalError

from sightline.web.node.database import NodeStoreError, Store, journal, studies


def fill(store, count=3):
    for number in range(count):
        with store.change() as change:
            values = {
                "study_uid": f"1.{number}",
                "first": 0.0,
                "last": 0.0,
                "state": "open",
                "complete": 0,
                "reason": "",
            }
            change.connection.execute(insert(studies).values(**values))
            change.note("received", f"1.{number}", who="MÜLLER")


def test_a_change_that_fails_leaves_nothing(tmp_path):
    store = Store(tmp_path / "node.sqlite")
    fill(store, 1)
    with pytest.raises(RuntimeError), store.change() as change:
        change.note("lost", "x")
        raise RuntimeError
    assert store.verify_journal() == 1
    with store.look() as db:
        assert [row.what for row in db.execute(select(journal))] == ["received"]


def test_the_journal_is_append_only_and_a_change_behind_its_back_is_found(tmp_path):
    store = Store(tmp_path / "node.sqlite")
    fill(store)
    raw = sqlite3.connect(tmp_path / "node.sqlite")
    for statement in ("UPDATE journal SET what = 'x'", "DELETE FROM journal"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.rollback()
    assert store.verify_journal() == 3
    raw.execute("DROP TRIGGER journal_no_update")
    raw.execute("UPDATE journal SET detail = '{}' WHERE seq = 2")
    raw.commit()
    with pytest.raises(NodeStoreError, match="row 2"):
        store.verify_journal()
    raw.execute("DROP TRIGGER journal_no_delete")
    raw.execute("DELETE FROM journal WHERE seq = 2")
    raw.commit()
    with pytest.raises(NodeStoreError, match="row 3"):
        store.verify_journal()


def test_two_processes_keep_one_chain(tmp_path):
    """`node retry` writes while the node runs: each takes the last hash inside its own transaction."""
    one, other = Store(tmp_path / "node.sqlite"), Store(tmp_path / "node.sqlite")
    for number in range(10):
        with (one, other)[number % 2].change() as change:
            change.note("x", str(number))
    assert one.verify_journal() == 10


def test_a_file_of_another_version_or_none_is_refused(tmp_path):
    store = Store(tmp_path / "node.sqlite")
    store.close()
    raw = sqlite3.connect(tmp_path / "node.sqlite")
    raw.execute("PRAGMA user_version = 99")
    raw.commit()
    with pytest.raises(NodeStoreError, match="another version"):
        Store(tmp_path / "node.sqlite")
    (tmp_path / "bad.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(NodeStoreError, match="no database"):
        Store(tmp_path / "bad.sqlite")


def test_what_is_committed_is_synced(tmp_path):
    store = Store(tmp_path / "node.sqlite")
    with store.look() as db:
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert (tmp_path / "node.sqlite").stat().st_mode & 0o077 == 0


def test_what_waits_at_a_time_is_committed_together_and_a_part_that_fails_goes_alone(tmp_path):
    store = Store(tmp_path / "node.sqlite")
    commits = []
    event.listen(store._write, "commit", commits.append)
    synced = tmp_path / "synced"
    synced.mkdir()

    def part(number):
        def work(change):
            change.note("received", f"1.{number}")
            change.folders.add(synced)
            if number == 3:
                raise ValueError("no object")
            return number

        return work

    with ThreadPoolExecutor(8) as pool:
        # while somebody else writes, all of them come to wait
        with store.change() as change:
            found = [pool.submit(store.change_together, part(number)) for number in range(8)]
            while len(store._waiting) < 8:
                time.sleep(0.001)
            change.note("other", "x")
        assert [one.result(120) for one in found if one is not found[3]] == [0, 1, 2, 4, 5, 6, 7]
        with pytest.raises(ValueError, match="no object"):
            found[3].result(120)
    assert len(commits) == 2
    assert store.verify_journal() == 8
    with store.look() as db:
        subjects = set(db.execute(select(journal.c.subject)).scalars())
    assert subjects == {"x", *(f"1.{number}" for number in range(8) if number != 3)}


def test_nobody_is_told_of_success_when_the_shared_transaction_was_not_committed(tmp_path):
    store = Store(tmp_path / "node.sqlite")

    def work(change):
        change.note("received", "1.1")
        change.folders.add(tmp_path / "gone")  # its names cannot be made durable

    with pytest.raises(FileNotFoundError):
        store.change_together(work)
    assert store.verify_journal() == 0

    def broken(change):
        change.connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    with ThreadPoolExecutor(2) as pool, store.change():
        found = [pool.submit(store.change_together, one) for one in (broken, lambda change: change.note("x", "1"))]
        while len(store._waiting) < 2:
            time.sleep(0.001)
    for one in found:
        with pytest.raises(OperationalError):
            one.result(120)
    assert store.verify_journal() == 0
