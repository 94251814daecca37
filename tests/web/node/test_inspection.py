"""What `node retry` and `node drop` do to letters whose file is gone, and to studies held for late images."""

import pytest
from sqlalchemy import insert, select, update
from support.nodes import image, settings, write_settings

from sightline.web.node.configuration import read_configuration
from sightline.web.node.database import Store, jobs, outbox, results, studies
from sightline.web.node.inspection import drop, list_lost_letters, retry
from sightline.web.node.intake.acceptance import Intake, Origin
from sightline.web.node.jobs.planning import Planner
from sightline.web.node.service import read_gates
from sightline.web.node.spool import Spool


class Bench:
    """A node's database and planner on a clock of the test's own."""

    def __init__(self, folder):
        self.now = 1_800_000_000.0
        configuration = read_configuration(write_settings(folder, settings(folder)))
        self.spool, self.store = Spool(folder / "keep"), Store(folder / "keep" / "node.sqlite", lambda: self.now)
        self.planner = Planner(configuration, self.store, read_gates(configuration))

    def add_letter(self, number, state, file):
        with self.store.change() as change:
            job = {"id": number, "study_uid": f"1.{number}", "rule": "wrist", "inputs": "[]", "state": "done"}
            change.connection.execute(insert(jobs).values(**job, received=0.0, created=0.0))
            row = {"id": number, "job": number, "sha256": f"{number:064d}", "sop_uid": f"2.{number}", "state": file}
            row |= {"sop_class": "1.2", "series_uid": "1.4", "study_uid": f"1.{number}", "patient_id": "P"}
            change.connection.execute(insert(results).values(**row, kind="findings"))
            letter = {"result": number, "destination": "pacs", "state": state, "due": 0.0, "created": 0.0}
            change.connection.execute(insert(outbox).values(**letter))

    def receive(self, number):
        """An image of the study, planned, and judged at once."""
        file = self.spool.incoming / "x.dcm"
        image(number).save_as(file, enforce_file_format=True)
        Intake(self.store, self.spool).accept(file, Origin("MOD", "127.0.0.1", "dimse"))
        self.now += 10.0
        self.planner.settle()
        with self.store.change() as change:
            change.connection.execute(update(jobs).values(state="done"))

    def read(self, column):
        with self.store.look() as db:
            return list(db.execute(select(column).order_by(*column.table.primary_key)).scalars())


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_letter_whose_file_was_cleaned_stays_and_is_said(bench):
    for number, state, file in ((1, "not_taken", "cleaned"), (2, "not_taken", "kept"), (3, "due", "cleaned")):
        bench.add_letter(number, state, file)
    stay, again = list_lost_letters(bench.store, "all")
    assert "findings 2.1 to pacs stays not_taken: its file was cleaned" in stay and "2.3 to pacs stays due" in again
    assert list(list_lost_letters(bench.store, "1.2")) == []
    assert retry(bench.store, "all") == 1
    assert bench.read(outbox.c.state) == ["not_taken", "due", "due"]
    # what waits for a destination is not a person's to give up, what can never be sent is
    assert drop(bench.store, "pacs") == 2
    assert bench.read(outbox.c.state) == ["dropped", "due", "dropped"]


def test_a_study_held_for_late_images_is_judged_after_a_retry(bench):
    for number in range(4):
        bench.receive(number)
    assert (bench.read(studies.c.state), len(bench.read(jobs.c.id))) == (["held"], 3)
    assert retry(bench.store, "all") == 1
    for number in (4, 5, 6):
        bench.receive(number)
        assert (bench.read(studies.c.state), len(bench.read(jobs.c.id))) == (["settled"], number)
    # the day's count began anew with the retry, and holds it once more
    bench.receive(7)
    assert (bench.read(studies.c.state), len(bench.read(jobs.c.id))) == (["held"], 6)
