"""Operations are stored once, together, or not at all; and nothing that was stored changes."""

import json
import sqlite3
import threading
import uuid

import pytest
from sqlalchemy import text
from support.workstation import Page, box, scribble

from sightline.web.workstation.store.log import SentBatch


@pytest.fixture
def read(studio):
    row = studio.reads("ada")[0]
    got = studio.client("ada").get(f"/api/v1/reads/{row['read']}").json()
    return got["id"], [i["key"] for i in got["study"]["images"]], Page(), studio.client("ada")


def stored(studio):
    with studio.desk.database.reading() as connection:
        return connection.execute(text("SELECT count(*) FROM op")).scalar()


def test_an_operation_sent_again_is_acknowledged_and_stored_once(studio, read):
    read_id, images, page, client = read
    ops = [page.op("add", images[0], {"mark": box()}), page.op("add", images[1], {"mark": scribble()})]
    for _ in range(3):
        answer = page.send(client, read_id, ops)
        assert answer.status_code == 200
        assert answer.json()["saved"] == [op["id"] for op in ops]
    assert stored(studio) == 2
    # a part of a batch that is known, and one that is new
    more = page.op("comment", None, {"text": "x"})
    assert page.send(client, read_id, [ops[1], more]).status_code == 200
    assert stored(studio) == 3


def test_the_same_id_with_another_content_is_a_conflict_that_shows_what_is_stored(studio, read):
    read_id, images, page, client = read
    op = page.op("add", images[0], {"mark": box()})
    page.send(client, read_id, [op])
    other = {**op, "body": {"mark": box()}}
    answer = page.send(client, read_id, [other])
    assert answer.status_code == 409
    assert answer.json()["conflicts"][0]["server"]["body"] == op["body"]
    # the number of a client taken by another id is a conflict too
    taken = {**op, "id": str(uuid.uuid4())}
    assert page.send(client, read_id, [taken]).status_code == 409
    assert stored(studio) == 1


def test_a_batch_with_one_bad_operation_stores_nothing_and_names_it(studio, read):
    read_id, images, page, client = read
    bad = page.op("add", images[0], {"mark": box(stop=(2.0, 3.0))})
    answer = page.send(client, read_id, [page.op("add", images[0], {"mark": box()}), bad])
    assert answer.status_code == 422
    assert answer.json()["op"] == bad["id"]
    assert answer.json()["field"] == "stop"
    assert answer.json()["remedy"] == ""
    assert stored(studio) == 0


def test_what_is_read_back_equals_what_was_sent_to_the_last_digit(studio, read):
    read_id, images, page, client = read
    line = [[0.1 + 0.2, 1e-17], [33.333333333333336, 47.9999999999]]
    mark = scribble(lines=[line], stroke_px=0.30000000000000004)
    ops = [page.op("add", images[0], {"mark": mark}), page.op("comment", None, {"text": "\u202eä <img onerror> 😀"})]
    page.send(client, read_id, ops)
    got = client.get(f"/api/v1/reads/{read_id}").json()
    assert [{k: v for k, v in one.items() if k not in ("server_seq", "received_at")} for one in got["ops"]] == ops
    assert got["state_of_marks"]["marks"] == [{**mark, "image": images[0], "removed": False}]


def test_a_submitted_read_is_closed_until_it_is_reopened_and_both_versions_stay(studio, read):
    read_id, images, page, client = read
    page.send(client, read_id, [page.op("add", images[0], {"mark": box()}), page.op("submit", None, {})])
    late = page.send(client, read_id, [page.op("comment", None, {"text": "late"})])
    assert late.status_code == 409
    assert late.json()["state"] == "submitted"
    answer = studio.client("lea").post(f"/api/v1/reads/{read_id}/reopen", json={"comment": "look again"})
    assert answer.json() == {"state": "returned"}
    got = client.get(f"/api/v1/reads/{read_id}").json()
    assert got["returned"]["comment"] == "look again"
    assert [op["kind"] for op in got["ops"]] == ["add", "submit", "reopen"]
    assert page.send(client, read_id, [page.op("comment", None, {"text": "now"})]).json()["state"] == "returned"
    assert page.send(client, read_id, [page.op("submit", None, {})]).json()["state"] == "submitted"


@pytest.mark.parametrize("table", ["op", "event", "audit", "outcome", "unit_name"])
def test_the_database_refuses_to_change_or_delete_rows_of_the_log(studio, read, table):
    read_id, images, page, client = read
    page.send(client, read_id, [page.op("add", images[0], {"mark": box()})])
    names = "outcome (id, task, study, how, marks, by, at, comment) VALUES ('1', "
    columns = "event (read, client, n, kind, mono_ms, at_ms, server_ms, body)"
    filled = {
        "event": f"{columns} VALUES ('{read_id}','c',1,'open',0,0,0,'{{}}')",
        "outcome": names + "(SELECT id FROM task), (SELECT key FROM study), 'take', '[]', 'x', 'now', '')",
        "unit_name": "unit_name (weights, layer, unit, text, author, date, at) VALUES ('w','l',1,'t','a','d','x')",
    }
    raw = sqlite3.connect(studio.desk.options.keep / "workstation.db")
    if table in filled:
        raw.execute(f"INSERT INTO {filled[table]}")
        raw.commit()
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET rowid = rowid + 1"):
        with pytest.raises(sqlite3.IntegrityError, match="added to only"):
            raw.execute(statement)
    raw.close()


def test_ten_threads_add_to_one_read_and_nothing_is_lost_or_doubled(studio, read):
    read_id, images, _, client = read
    sent, failures = [], []

    def work():
        page = Page()
        for _ in range(5):
            op = page.op("add", images[0], {"mark": box()})
            answer = page.send(client, read_id, [op])
            (sent if answer.status_code == 200 else failures).append(op["id"])

    threads = [threading.Thread(target=work) for _ in range(10)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert failures == []
    got = client.get(f"/api/v1/reads/{read_id}/ops").json()
    assert sorted(op["id"] for op in got["ops"]) == sorted(sent)
    assert [op["server_seq"] for op in got["ops"]] == sorted(op["server_seq"] for op in got["ops"])


def test_times_are_told_by_the_clock_of_the_server():
    sent = SentBatch(received_ms=10_000.0, mono_ms=500.0, at_ms=99_000.0)
    assert sent.server_ms(300.0, 0.0) == 9_800.0
    # sent again by a later page load: by the computer's clock
    later = SentBatch(10_000.0, None, 99_000.0)
    assert later.server_ms(300.0, 98_000.0) == 9_000.0
    # a clock that was set back says nothing
    assert later.server_ms(300.0, 100_000.0) == 10_000.0


def test_nan_is_refused_with_words(studio, read):
    read_id, images, page, client = read
    op = page.op("add", images[0], {"mark": box()})
    raw = json.dumps({"ops": [op], "sent_mono_ms": None, "sent_at_ms": 0}).replace("[2.0, 3.0]", "[NaN, 3.0]")
    answer = client.post(f"/api/v1/reads/{read_id}/ops", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "finite" in answer.json()["message"]
    assert stored(studio) == 0
