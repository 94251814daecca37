"""The outbox: pauses, breaker, 48 hours, and what each answer means, on a clock of the test's own."""

import random
from contextlib import contextmanager

import pytest
from sqlalchemy import insert, select, update

from sightline.web.node.database import Store, jobs, journal, outbox, results
from sightline.web.node.delivery.commitment import take_answer
from sightline.web.node.delivery.dispatch import BREAKER_FAILURES, DeliveryEvents, Dispatcher, compute_pause
from sightline.web.node.delivery.senders import Attempt, DestinationUnreachable, read_status
from sightline.web.node.spool import Spool


class Destination:
    """A sender whose answers a test chooses; counts attempts an object."""

    def __init__(self):
        self.answer, self.sent, self.connections = Attempt("sent"), [], 0

    @contextmanager
    def connect(self, parcels):
        self.connections += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        yield self.send

    def send(self, parcel):
        self.sent.append(parcel.sop_uid)
        return self.answer(parcel) if callable(self.answer) else self.answer


class Bench:
    def __init__(self, tmp_path, count=3, names=("pacs",)):
        self.now = 1_800_000_000.0
        self.store = Store(tmp_path / "node.sqlite", clock=lambda: self.now)
        self.heard = []
        told = DeliveryEvents(
            *(lambda *a, word=word: self.heard.append((word, *a)) for word in ("sent", "failed", "dead", "not taken"))
        )
        self.destinations = {name: Destination() for name in names}
        spool = Spool(tmp_path / "keep")
        self.dispatchers = {
            name: Dispatcher(name, sender, self.store, spool, told, seed=0)
            for name, sender in self.destinations.items()
        }
        with self.store.change() as change:
            job = {
                "id": 1,
                "study_uid": "1.2",
                "rule": "r",
                "inputs": "[]",
                "state": "done",
                "received": 0.0,
                "created": 0.0,
            }
            change.connection.execute(insert(jobs).values(**job))
            for n in range(count):
                row = {
                    "id": n + 1,
                    "job": 1,
                    "sha256": f"{n:064d}",
                    "sop_uid": f"1.{n}",
                    "sop_class": "1.2.3",
                    "state": "kept",
                }
                row |= {"series_uid": "1.4", "study_uid": "1.2", "patient_id": "P", "kind": "findings"}
                change.connection.execute(insert(results).values(**row))
                for name in names:
                    row = {"result": n + 1, "destination": name, "state": "due", "due": self.now, "created": self.now}
                    change.connection.execute(insert(outbox).values(**row))

    def states(self, name="pacs"):
        with self.store.look() as db:
            query = select(outbox.c.state).where(outbox.c.destination == name).order_by(outbox.c.id)
            return list(db.execute(query).scalars())

    def set(self, table, **values):
        with self.store.change() as change:
            change.connection.execute(update(table).values(**values))

    def pass_time(self, seconds, step=1.0):
        for _ in range(int(seconds / step)):
            self.now += step
            for dispatcher in self.dispatchers.values():
                dispatcher.send_due()


def test_pauses_double_to_ten_minutes_with_a_fifth_of_jitter():
    chance = random.Random(1)
    for attempts, middle in ((1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (60, 600)):
        pauses = [compute_pause(attempts, chance) for _ in range(300)]
        assert 0.8 * middle <= min(pauses) < 0.84 * middle
        assert 1.16 * middle < max(pauses) <= 1.2 * middle


def test_what_is_sent_is_sent_once(tmp_path):
    bench = Bench(tmp_path)
    bench.pass_time(20)
    assert bench.states() == ["sent"] * 3
    assert bench.destinations["pacs"].sent == ["1.0", "1.1", "1.2"]
    assert bench.destinations["pacs"].connections == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, "sent"), (0x0111, "sent"), (0xB000, "sent"), (0xB006, "sent"), (0x0107, "sent"), (0xA700, "failed"),
        (0xA900, "failed"), (0xC000, "failed"), (0x0110, "failed"), (None, "failed"), (0x0122, "not taken"),
    ],
)  # fmt: skip
def test_what_a_status_means(status, outcome):
    assert read_status(status).outcome == outcome


def test_a_kind_that_is_not_taken_is_not_tried_again_and_the_others_go(tmp_path):
    bench = Bench(tmp_path)
    bench.destinations["pacs"].answer = lambda p: Attempt("not taken" if p.sop_uid == "1.1" else "sent")
    bench.pass_time(2000, 10)
    assert bench.states() == ["sent", "not_taken", "sent"]
    assert len(bench.destinations["pacs"].sent) == 3
    assert ("not taken", "pacs", "findings") in bench.heard


@pytest.mark.parametrize(
    "answer",
    [
        Attempt("failed", "status 0xA700"),
        pytest.param(Attempt("failed", "no answer"), marks=pytest.mark.slow),
        pytest.param(DestinationUnreachable("x"), marks=pytest.mark.slow),
    ],
)
def test_two_hours_away_and_back_without_a_storm(tmp_path, answer):
    """Each object is tried as often as its pauses allow, the breaker one a minute; afterwards everything arrives."""
    bench = Bench(tmp_path, count=10, names=("pacs", "vna"))
    bench.destinations["pacs"].answer = answer
    bench.pass_time(7200, 4)
    dead = bench.destinations["pacs"]
    # the plan: BREAKER_FAILURES attempts, then one a minute
    assert max(len(dead.sent), dead.connections) <= BREAKER_FAILURES + 7200 / 60 + 1
    for uid in set(dead.sent):
        assert dead.sent.count(uid) <= 7 + 7200 / 480  # 5, 10, ... 320 s, then every ten minutes less jitter
    assert bench.dispatchers["pacs"].breaker.open
    # the other destination heard nothing of it
    assert bench.states("vna") == ["sent"] * 10
    assert bench.destinations["vna"].connections == 1
    dead.answer = Attempt("sent")
    bench.pass_time(800, 4)
    assert bench.states() == ["sent"] * 10
    assert not bench.dispatchers["pacs"].breaker.open


def test_after_48_hours_an_object_is_dead_and_said_so(tmp_path):
    bench = Bench(tmp_path, count=1)
    bench.destinations["pacs"].answer = Attempt("failed", "status 0xC000")
    bench.pass_time(48 * 3600 + 1300, 300)
    assert bench.states() == ["dead"]
    assert ("dead", "pacs", "findings") in bench.heard
    tried = len(bench.destinations["pacs"].sent)
    bench.pass_time(4000, 300)
    assert len(bench.destinations["pacs"].sent) == tried


def test_a_letter_whose_file_was_cleaned_is_not_tried_and_holds_nobody_up(tmp_path):
    bench = Bench(tmp_path)
    with bench.store.change() as change:
        change.connection.execute(update(results).where(results.c.id == 1).values(state="cleaned"))
    bench.pass_time(20)
    assert bench.states() == ["due", "sent", "sent"] and bench.destinations["pacs"].sent == ["1.1", "1.2"]


def test_what_a_pacs_does_not_commit_is_sent_again_after_pauses_and_given_up(tmp_path):
    bench = Bench(tmp_path, count=1)

    def answer(*named):
        bench.set(outbox, transaction="1.9")
        return [(one.destination, one.kind, one.state) for one in take_answer(bench.store, "1.9", *named)]

    for _ in range(150):
        bench.pass_time(4, 4)
        if bench.states() == ["sent"]:
            assert answer([], ["1.0", "1.7"]) == [("pacs", "findings", "due")]
    # 5, 10, ... 320 s, less or more a fifth
    assert 6 <= len(bench.destinations["pacs"].sent) <= 8
    bench.pass_time(800, 100)
    assert bench.states() == ["sent"]
    bench.now += 48 * 3600
    assert answer([], ["1.0"]) == [("pacs", "findings", "dead")] and bench.states() == ["dead"]
    bench.pass_time(4000, 1000)
    assert bench.states() == ["dead"]
    bench.set(outbox, state="sent")
    assert answer(["1.0"], []) == [("pacs", "findings", "committed")]
    with bench.store.look() as db:
        said = db.execute(select(journal.c.what, journal.c.detail).order_by(journal.c.seq.desc()).limit(2)).all()
    assert [one.what for one in said] == ["committed", "send dead"] and "not committed" in said[1].detail


def test_a_clock_that_is_set_back_holds_nothing_up(tmp_path):
    bench = Bench(tmp_path, count=BREAKER_FAILURES + 1)
    bench.destinations["pacs"].answer = Attempt("failed", "status 0xA700")
    bench.pass_time(2)
    assert bench.dispatchers["pacs"].breaker.open
    bench.now -= 86400.0
    bench.destinations["pacs"].answer = Attempt("sent")
    bench.pass_time(4)
    assert bench.states() == ["sent"] * (BREAKER_FAILURES + 1)


def test_every_attempt_is_in_the_journal(tmp_path):
    bench = Bench(tmp_path, count=1)
    bench.destinations["pacs"].answer = Attempt("failed", "status 0xA700")
    bench.pass_time(30)
    bench.destinations["pacs"].answer = Attempt("sent")
    bench.pass_time(60)
    assert bench.store.verify_journal() == len(bench.destinations["pacs"].sent)
