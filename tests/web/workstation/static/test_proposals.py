"""In a real browser: proposals of a run are accepted, edited and rejected by key."""

import json
import sqlite3
import uuid

import pytest

from tests.support.workstation_page import running, sign_in, until

pytestmark = pytest.mark.slow  # a workstation of its own for each


def propose(keep, images):
    """Proposals of a run, as the queue of maps stores them; their ids."""
    rows = []
    for number, image in enumerate(images):
        mark = {
            "kind": "box",
            "start": [20.0, 30.0 + number],
            "stop": [90.0, 120.0],
            "role": "finding",
            "label": "fracture",
        }
        rows.append((str(uuid.uuid4()), "r" * 16, "w" * 64, image, json.dumps(mark), 0.9 - 0.1 * number, "box", "2026"))
    with sqlite3.connect(keep / "workstation.db", timeout=30) as store:
        store.executemany("insert into proposal values (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return [row[0] for row in rows]


def test_proposals_are_accepted_edited_and_rejected(chromium, tmp_path):
    tasks = {"assisted": {"readers": ["ada"], "reveal": "assisted"}, "plain": {"readers": ["ben"]}}
    with running(tmp_path, {"ada": "reader", "ben": "reader"}, tasks) as station:
        ada, ben = sign_in(chromium, station, "ada"), sign_in(chromium, station, "ben")
        read = ada.api("/worklist?limit=200")["rows"][0]["read"]
        images = [one["key"] for one in ada.api(f"/reads/{read}")["study"]["images"]]
        ids = propose(tmp_path / "keep", [images[0], images[0], images[1]])
        ada.open_read(0)
        ada.key("a")
        ada.saved()
        (mark,) = ada.marks(read)
        assert (mark["source"], mark["from"], mark["start"]) == ("accepted", ids[0], [20.0, 30.0])
        ada.key("ArrowDown")
        until(lambda: ada.marks(read)[0]["source"] == "edited", "edited")
        assert ada.marks(read)[0]["start"] == [21.0, 30.0]
        ada.page.locator(".view").first.focus()
        ada.key("r")
        ada.saved()
        decided = [(op["kind"], op["body"]["proposal"]) for op in ada.ops(read) if op["kind"] in ("accept", "reject")]
        assert decided == [("accept", ids[0]), ("reject", ids[1])]
        # nobody is shown any of it where the task is not an assisted one
        other = ben.open_read(0)["read"]
        assert ben.api(f"/reads/{other}")["proposals"] == [] and ben.page.locator(".proposals").count() == 0
        ben.key("a")
        assert ben.marks(other) == []
        assert ada.faults == ben.faults == []
