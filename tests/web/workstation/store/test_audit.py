"""The chain shows what was changed or taken out, wherever it was."""

import sqlite3

import pytest
from support.workstation import box

from sightline.web.workstation.store.audit import verify


@pytest.fixture
def raw(studio):
    for row in studio.reads("ada")[:2]:
        assert studio.finish("ada", row["read"], [box(), box()]).status_code == 200
    connection = sqlite3.connect(studio.desk.options.keep / "workstation.db")
    for table in ("op", "audit"):
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER {table}_no_{verb}")
    yield connection
    connection.close()


def broken(studio):
    with studio.desk.database.reading() as connection:
        return verify(connection)


def test_a_store_that_nobody_touched_is_whole(studio, raw):
    rows, found = broken(studio)
    assert found is None
    assert rows == raw.execute("SELECT (SELECT count(*) FROM op) + (SELECT count(*) FROM audit)").fetchone()[0]


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE op SET body = replace(body, '2.0', '2.5') WHERE server_seq = 2", "operations"),
        ("UPDATE op SET received_at = '2020' WHERE server_seq = 1", "operations"),
        ("DELETE FROM op WHERE server_seq = 2", "operations"),
        ("DELETE FROM op WHERE kind = 'submit'", "audit"),
        ("UPDATE audit SET who = 'x' WHERE seq = 3", "audit"),
        ("DELETE FROM audit WHERE seq = 3", "audit"),
    ],
)
def test_each_tampering_is_found(studio, raw, statement, where):
    raw.execute(statement)
    raw.commit()
    _, found = broken(studio)
    assert found is not None
    assert found.where.startswith(where)
