"""Questions of commitment: how often a PACS that cannot answer is asked, and what the journal holds of it."""

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlalchemy import func, insert, select
from support.pacs import free_port

from sightline.web.node.configuration import DicomDestination
from sightline.web.node.database import Store, jobs, journal, outbox, results
from sightline.web.node.delivery import commitment
from sightline.web.node.delivery.commitment import ASK_AGAIN_S, CommitmentQuestions
from sightline.web.node.delivery.senders import associate


class Bench:
    """A database with one object that a PACS was sent, on a clock of the test's own."""

    def __init__(self, folder):
        self.now = 1_800_000_000.0
        self.store = Store(folder / "node.sqlite", clock=lambda: self.now)
        self.port, self.seen = free_port(), []
        with self.store.change() as change:
            job = {"id": 1, "study_uid": "1.2", "rule": "r", "inputs": "[]", "state": "done"}
            change.connection.execute(insert(jobs).values(**job, received=0.0, created=0.0))
            row = {"job": 1, "sha256": "0" * 64, "sop_uid": "1.3", "sop_class": "1.2.3", "state": "kept", "kind": "map"}
            change.connection.execute(insert(results).values(**row, series_uid="1", study_uid="1", patient_id="P"))
            row = {"result": 1, "destination": "pacs", "state": "sent", "sent": self.now - 60.0, "created": self.now}
            change.connection.execute(insert(outbox).values(**row, due=0.0))
        place = {"kind": "dicom", "aet": "PACS", "address": "127.0.0.1", "port": self.port, "commit": True}
        self.questions = CommitmentQuestions("pacs", DicomDestination(**place), "SIGHTLINE", self.store)

    def answer(self, *classes):
        """A PACS that takes these classes and notes who calls."""
        entity = AE("PACS")
        for one in classes:
            entity.add_supported_context(one)
        handlers = [
            (evt.EVT_REQUESTED, lambda event: self.seen.append("called")),
            (evt.EVT_N_ACTION, lambda event: (self.seen.append("asked"), (0x0000, None))[1]),
        ]
        return entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def ask_for(self, seconds, step):
        """So many seconds of the node's loop; how often a PACS was called, and rows of the journal."""
        before = self.count_journal()
        for _ in range(int(seconds / step)):
            self.now += step
            self.questions.ask()
        return len(self.seen), self.count_journal() - before

    def count_journal(self):
        with self.store.look() as db:
            return db.execute(select(func.count()).select_from(journal)).scalar()


def test_a_pacs_that_is_down_is_left_alone_for_growing_pauses(tmp_path, monkeypatch):
    bench, tries = Bench(tmp_path), []
    monkeypatch.setattr(commitment, "associate", lambda *words: (tries.append(bench.now), associate(*words))[1])
    assert bench.ask_for(600, 1.0) == (0, 0)
    # 5, 10, ... 320 s, less or more a fifth
    assert 6 <= len(tries) <= 8
    # the clock is set back: no pause is longer for it
    bench.now -= 7200.0
    bench.questions.ask()
    assert tries[-1] == bench.now
    server = bench.answer(StorageCommitmentPushModel)
    try:
        assert bench.ask_for(800, 100.0) == (2, 1) and bench.seen == ["called", "asked"]
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("classes", "journalled"), [(("1.2.840.10008.1.1",), 0), ((StorageCommitmentPushModel,), 1)], ids=["not", "taken"]
)
def test_who_takes_no_questions_or_does_not_answer_is_asked_again_after_an_hour(tmp_path, classes, journalled):
    bench = Bench(tmp_path)
    server = bench.answer(*classes)
    try:
        once = 1 + journalled
        assert bench.ask_for(ASK_AGAIN_S, 60.0) == (once, journalled)
        assert bench.ask_for(120.0, 60.0) == (2 * once, journalled)
    finally:
        server.shutdown()
