"""Storage commitment both ways: we ask the PACS whether it keeps what we sent, and answer those who ask us.

What a destination with `commit: true` has not committed is never cleaned here. An object it says it does not have is
sent again, after the pauses of failed attempts, until it is given up; a question that is not answered within an hour,
or before the node ended, is asked again. A PACS that is down is asked after these pauses, one that takes no questions
every hour; the journal holds only what was asked.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import select, update

from sightline.errors import SightlineError
from sightline.web.node.configuration import Destination, DicomDestination
from sightline.web.node.database import Store, objects, outbox, results
from sightline.web.node.delivery.dispatch import compute_pause, schedule_retry
from sightline.web.node.delivery.senders import KindsNotAccepted, associate

LOG = logging.getLogger("sightline.node")
ASK_AGAIN_S = 3600.0
AFTER_SENDING_S = 1.0
MOST_AT_ONCE = 200
NO_SUCH_INSTANCE = 0x0112
_CHANCE = random.Random()


@dataclass(frozen=True)
class AnsweredLetter:
    """What a destination's answer meant for one object.

    Attributes:
        destination: by name.
        kind: of the object.
        state: `committed`; `due`, it is sent again; `dead`, it was given up.
    """

    destination: str
    kind: str
    state: str


class CommitmentQuestions:
    """Asks one destination about what was sent to it; while it cannot be asked, it is left alone for growing pauses.

    Args:
        name: of the destination.
        destination: as NODE.yaml says.
        calling: our AE title.
        store: the node's database.
    """

    def __init__(self, name: str, destination: DicomDestination, calling: str, store: Store) -> None:
        self.name, self.destination, self.calling, self.store = name, destination, calling, store
        self._failures, self._failed, self._pause_s = 0, 0.0, 0.0

    def ask(self) -> int:
        """Ask about what nobody has answered for; how many objects were asked about."""
        now = self.store.clock()
        if self._failed <= now < self._failed + self._pause_s:
            return 0
        query = select(outbox.c.id, results.c.sop_class, results.c.sop_uid)
        query = query.join(results, outbox.c.result == results.c.id)
        # what lies after now was written before the clock was set back
        settled = (outbox.c.sent <= now - AFTER_SENDING_S) | (outbox.c.sent > now)
        unasked = outbox.c.asked.is_(None) | (outbox.c.asked < now - ASK_AGAIN_S) | (outbox.c.asked > now)
        query = query.where(outbox.c.destination == self.name, outbox.c.state == "sent", settled, unasked)
        with self.store.look() as db:
            rows = db.execute(query.limit(MOST_AT_ONCE)).all()
        if not rows:
            return 0
        try:
            association = associate(self.destination, self.calling, [build_context(StorageCommitmentPushModel)])
        except SightlineError as error:
            self._failures, self._failed = self._failures + 1, now
            # who answers and takes no questions will not take them in a few seconds either
            refused = isinstance(error, KindsNotAccepted)
            self._pause_s = ASK_AGAIN_S if refused else compute_pause(self._failures, _CHANCE)
            LOG.warning("commitment not asked", extra={"destination": self.name, "reason": error.message})
            return 0
        self._failures, self._pause_s = 0, 0.0
        try:
            self._send_question(association, rows)
        finally:
            if association.is_established:
                association.release()
        return len(rows)

    def _send_question(self, association: Association, rows: Sequence[Any]) -> None:
        transaction = str(generate_uid())
        # written down before it is asked: the answer may come on another association, at once
        with self.store.change() as change:
            asked = update(outbox).where(outbox.c.id.in_([row.id for row in rows]))
            change.connection.execute(asked.values(asked=change.now, transaction=transaction))
            change.note("commitment asked", transaction, to=self.name, objects=len(rows))
        request = Dataset()
        request.TransactionUID = transaction
        request.ReferencedSOPSequence = [_build_reference(row.sop_class, row.sop_uid) for row in rows]
        try:
            status, _ = association.send_n_action(
                request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        except (ValueError, RuntimeError):  # the association was cut meanwhile
            status = Dataset()
        if status.get("Status") != 0x0000:
            LOG.warning("commitment refused", extra={"destination": self.name})


def resume_questions(store: Store) -> int:
    """After a start: what was asked and not answered when the node ended is asked again; how many objects.

    The answer may have come while nobody listened, and no PACS gives it twice.
    """
    with store.change() as change:
        unanswered = update(outbox).where(outbox.c.state == "sent", outbox.c.asked.is_not(None)).values(asked=None)
        return int(change.connection.execute(unanswered).rowcount)


def take_answer(
    store: Store, transaction: str, committed: Sequence[str], failed: Sequence[str]
) -> list[AnsweredLetter]:
    """Take a destination's answer: committed objects may be cleaned, failed ones are sent again after a pause."""
    answered: list[AnsweredLetter] = []
    kept, missing = set(committed), set(failed)
    with store.change() as change:
        query = select(outbox, results.c.sop_uid, results.c.kind).join(results, outbox.c.result == results.c.id)
        query = query.where(outbox.c.transaction == transaction, outbox.c.state == "sent").order_by(outbox.c.id)
        for row in change.connection.execute(query).all():
            values: dict[str, Any] = {}
            about: dict[str, Any] = {"transaction": transaction}
            if row.sop_uid in missing:
                values = schedule_retry(row.attempts, row.created, change.now, _CHANCE)
                values |= {"asked": None, "transaction": None, "error": "not committed"}
                what = f"send {values['state']}"
                about |= {"to": row.destination, "attempts": row.attempts, "reason": "not committed"}
            elif row.sop_uid in kept:
                values = {"state": "committed", "error": ""}
                what = "committed"
            else:
                continue
            change.connection.execute(update(outbox).where(outbox.c.id == row.id).values(**values))
            change.note(what, row.sop_uid, **about)
            answered.append(AnsweredLetter(row.destination, row.kind, str(values["state"])))
    return answered


class CommitmentAnswers:
    """Answers those who ask whether we keep what they sent, on an association of ours, as the standard has it.

    Args:
        store: the node's database.
        destinations: by name; only who is one of them, by AE title, can be answered.
        calling: our AE title.
        present: whether the file of a SHA-256 is in the spool.
    """

    def __init__(
        self, store: Store, destinations: Mapping[str, Destination], calling: str, present: Callable[[str], bool]
    ) -> None:
        self.store, self.calling, self.present = store, calling, present
        self._peers = {one.aet: one for one in destinations.values() if isinstance(one, DicomDestination)}
        self._asked: queue.Queue[tuple[str, list[tuple[str, str]], str] | None] = queue.Queue(maxsize=1000)
        self._thread = threading.Thread(target=self._answer_requests, name="commitment answers", daemon=True)

    def start(self) -> None:
        """Answer from a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what is asked already, then end."""
        self._asked.put(None)
        self._thread.join(10.0)

    def ask(self, transaction: str, pairs: list[tuple[str, str]], caller: str) -> bool:
        """Take a question; False where it cannot be answered."""
        if caller not in self._peers or not transaction or not pairs:
            return False
        try:
            self._asked.put_nowait((transaction, pairs, caller))
        except queue.Full:
            return False
        return True

    def report(self, transaction: str, pairs: Sequence[tuple[str, str]]) -> tuple[int, Dataset]:
        """Event type (1 all kept, 2 some not) and the report."""
        kept = set()
        query = select(objects.c.sop_uid, objects.c.sop_class, objects.c.sha256)
        query = query.where(objects.c.state.in_(("kept", "own")))
        with self.store.look() as db:
            # a statement takes only so many values, and a question may name any number
            for start in range(0, len(pairs), MOST_AT_ONCE):
                uids = [uid for _, uid in pairs[start : start + MOST_AT_ONCE]]
                rows = db.execute(query.where(objects.c.sop_uid.in_(uids)))
                kept |= {(row.sop_class, row.sop_uid) for row in rows if self.present(row.sha256)}
        report = Dataset()
        report.TransactionUID = transaction
        report.ReferencedSOPSequence = [_build_reference(*pair) for pair in pairs if pair in kept]
        missing = [_build_reference(*pair) for pair in pairs if pair not in kept]
        if missing:
            for item in missing:
                item.FailureReason = NO_SUCH_INSTANCE
            report.FailedSOPSequence = missing
        return (2 if missing else 1), report

    def _answer_requests(self) -> None:
        while (asked := self._asked.get()) is not None:
            try:
                self._answer(*asked)
            except Exception:  # whatever was asked: the next who asks gets an answer
                LOG.exception("a commitment answer failed", extra={"destination": asked[2]})

    def _answer(self, transaction: str, pairs: list[tuple[str, str]], caller: str) -> None:
        kind, report = self.report(transaction, pairs)
        try:
            association = associate(
                self._peers[caller],
                self.calling,
                [build_context(StorageCommitmentPushModel)],
                ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
            )
        except SightlineError:
            LOG.warning("commitment answer not delivered", extra={"destination": caller})
            return
        try:
            association.send_n_event_report(
                report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
        except (ValueError, RuntimeError):
            LOG.warning("commitment answer not taken", extra={"destination": caller})
        finally:
            if association.is_established:
                association.release()


def _build_reference(sop_class: str, sop_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
    return item
