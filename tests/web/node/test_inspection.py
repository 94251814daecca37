"""What `node retry` and `node drop` do to letters whose file is gone, to jobs that are past, and to held studies."""

import pytest
from sqlalchemy import insert
from support.nodes import StillNode, image

from sightline.web.node.database import jobs, outbox, results, studies
from sightline.web.node.inspection import drop, list_lost, retry


class Bench(StillNode):
    """A node's database and planner on a clock of the test's own, and letters."""

    def add_letter(self, number, state, file):
        with self.store.change() as change:
            job = {"id": number, "study_uid": f"1.{number}", "rule": "wrist", "inputs": "[]", "state": "done"}
            change.connection.execute(insert(jobs).values(**job, received=0.0, created=0.0))
            row = {"id": number, "job": number, "sha256": f"{number:064d}", "sop_uid": f"2.{number}", "state": file}
            row |= {"sop_class": "1.2", "series_uid": "1.4", "study_uid": f"1.{number}", "patient_id": "P"}
            change.connection.execute(insert(results).values(**row, kind="findings"))
            letter = {"result": number, "destination": "pacs", "state": state, "due": 0.0, "created": 0.0}
            change.connection.execute(insert(outbox).values(**letter))

    def states(self, table):
        return [row.state for row in self.read(table)]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_letter_whose_file_was_cleaned_stays_and_is_said(bench):
    for number, state, file in ((1, "not_taken", "cleaned"), (2, "not_taken", "kept"), (3, "due", "cleaned")):
        bench.add_letter(number, state, file)
    stay, again = list_lost(bench.store, "all")
    assert "findings 2.1 to pacs stays not_taken: its file was cleaned" in stay and "2.3 to pacs stays due" in again
    assert list(list_lost(bench.store, "1.2")) == []
    assert retry(bench.store, "all") == 1
    assert bench.states(outbox) == ["not_taken", "due", "due"]
    # what waits for a destination is not a person's to give up, what can never be sent is
    assert drop(bench.store, "pacs") == 2
    assert bench.states(outbox) == ["dropped", "due", "dropped"]


def test_a_study_held_for_late_images_is_judged_after_a_retry(bench):
    for number in range(4):
        bench.receive(image(number))
    assert (bench.states(studies), len(bench.read(jobs))) == (["held"], 3)
    assert retry(bench.store, "all") == 1
    for number in (4, 5, 6):
        bench.receive(image(number))
        assert (bench.states(studies), len(bench.read(jobs))) == (["settled"], number)
    # the day's count began anew with the retry, and holds it once more
    bench.receive(image(7))
    assert (bench.states(studies), len(bench.read(jobs))) == (["held"], 6)


def test_a_dead_job_that_a_later_one_stands_for_stays_and_is_said(bench):
    bench.receive(image(1), job="dead")
    bench.receive(image(2), job=None)
    assert bench.states(jobs) == ["dead", "waiting"]
    for what in ("all", "1", "1.2.826.1.1"):
        (line,) = list_lost(bench.store, what)
        assert "job 1 stays dead: a later job of study 1.2.826.1.1" in line
        assert retry(bench.store, what) == 0 and bench.states(jobs) == ["dead", "waiting"]
    # both dead: the later one is tried again; and the first one, once the later one was given up
    bench.set(jobs, state="dead")
    assert retry(bench.store, "all") == 1 and bench.states(jobs) == ["dead", "waiting"]
    bench.set(jobs, state="dead")
    assert drop(bench.store, "2") == 1 and list(list_lost(bench.store, "all")) == []
    assert retry(bench.store, "all") == 1 and bench.states(jobs) == ["waiting", "dropped"]
