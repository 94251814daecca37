"""The outbox of one destination: which object is tried when, the growing pauses, and the breaker.

One C-STORE an object and attempt: a failure puts that object off, never the study over again. Five failures in a row
open the destination's breaker; then one object a minute is tried until one is taken. Destinations know nothing of each
other: each has its own thread and its own rows.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from sightline.errors import SightlineError
from sightline.web.node.database import Store, outbox, results, select_contradictory_studies
from sightline.web.node.delivery.senders import Attempt, DestinationUnreachable, Parcel, Sender
from sightline.web.node.spool import Spool

LOG = logging.getLogger("sightline.node")
FIRST_PAUSE_S, LONGEST_PAUSE_S, JITTER = 5.0, 600.0, 0.2
GIVE_UP_S = 48 * 3600.0
BREAKER_FAILURES, BREAKER_PAUSE_S = 5, 60.0
AT_ONCE = 20


def compute_pause(attempts: int, chance: random.Random) -> float:
    """Seconds until the next attempt after so many failed ones: 5 s, doubled to at most 10 min, 20 % jitter.

    Example:
        >>> round(compute_pause(1, random.Random(0)), 1), compute_pause(40, random.Random(0)) <= 720
        (5.7, True)
    """
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 30))
    return pause * chance.uniform(1.0 - JITTER, 1.0 + JITTER)


def schedule_retry(attempts: int, created: float, now: float, chance: random.Random) -> dict[str, Any]:
    """What becomes of a letter after so many failed attempts: `due` after a pause, or `dead` 48 hours after its making.

    Example:
        >>> schedule_retry(1, 0.0, 49 * 3600.0, random.Random(0))
        {'state': 'dead'}
    """
    if now - created > GIVE_UP_S:
        return {"state": "dead"}
    return {"state": "due", "due": now + compute_pause(attempts, chance)}


class Breaker:
    """Opens after failures in a row; while it is open, one object a minute is tried."""

    def __init__(self) -> None:
        self.failures = 0
        self._next = 0.0

    @property
    def open(self) -> bool:
        """Whether the destination is taken for dead."""
        return self.failures >= BREAKER_FAILURES

    def allows(self, now: float) -> int:
        """How many objects may be tried now."""
        if not self.open:
            return AT_ONCE
        # a moment that lies further ahead than the pause is of before the clock was set back
        return 0 if self._next - BREAKER_PAUSE_S <= now < self._next else 1

    def record(self, failed: bool, now: float) -> None:
        """Take note of an attempt."""
        self.failures = self.failures + 1 if failed else 0
        self._next = now + BREAKER_PAUSE_S


@dataclass(frozen=True)
class DeliveryEvents:
    """What a dispatcher tells the rest of the node.

    Attributes:
        sent: destination, kind, seconds since the result was made.
        failed: destination, kind.
        dead: destination, kind.
        not_taken: destination, kind.
    """

    sent: Callable[[str, str, float], None]
    failed: Callable[[str, str], None]
    dead: Callable[[str, str], None]
    not_taken: Callable[[str, str], None]


class Dispatcher:
    """Empties the outbox of one destination.

    Args:
        name: of the destination.
        sender: talks to it.
        store: the node's database.
        spool: the node's files.
        events: what is told.
        seed: of the jitter; None for the system's.
    """

    def __init__(
        self, name: str, sender: Sender, store: Store, spool: Spool, events: DeliveryEvents, seed: int | None = None
    ) -> None:
        self.name, self.sender, self.store, self.spool, self.events = name, sender, store, spool, events
        self.breaker = Breaker()
        self._chance = random.Random(seed)

    def send_due(self) -> int:
        """Try what is due now; how many objects were tried."""
        most = self.breaker.allows(self.store.clock())
        rows = self._list_due(most) if most else []
        if not rows:
            return 0
        parcels = {row["id"]: self._build_parcel(row) for row in rows}
        tried = 0
        try:
            with self.sender.connect(list(parcels.values())) as send:
                for row in rows:
                    tried += 1
                    attempt = self._attempt(send, parcels[row["id"]])
                    self._record(row, attempt)
                    if attempt.outcome == "failed" and (attempt.reason == "no answer" or self.breaker.open):
                        break  # what hangs or fails again and again gets no further object now
        except DestinationUnreachable as error:
            # nothing was sent; the first row carries the failure, and the breaker keeps the others from a storm
            tried += 1
            self._record(
                rows[0], Attempt("failed", f"{error.message}. {error.remedy}" if error.remedy else error.message)
            )
        return tried

    def _attempt(self, send: Callable[[Parcel], Attempt], parcel: Parcel) -> Attempt:
        try:
            return send(parcel)
        except DestinationUnreachable:
            raise
        except SightlineError as error:
            LOG.error("a stored result must not be sent", extra={"destination": self.name})
            return Attempt("failed", error.message)
        except OSError as error:
            return Attempt("failed", type(error).__name__)

    def _list_due(self, most: int) -> list[Mapping[str, Any]]:
        query = select(
            outbox, results.c.sha256, results.c.sop_uid, results.c.sop_class, results.c.study_uid,
            results.c.patient_id, results.c.kind,
        )  # fmt: skip
        query = query.join(results, outbox.c.result == results.c.id)
        query = query.where(outbox.c.destination == self.name, outbox.c.state == "due", results.c.state == "kept")
        query = query.where(results.c.study_uid.not_in(select_contradictory_studies()))
        now = self.store.clock()
        # no pause is as long as the other: the clock was set back since
        query = query.where((outbox.c.due <= now) | (outbox.c.due > now + (1.0 + JITTER) * LONGEST_PAUSE_S))
        query = query.order_by(outbox.c.due, outbox.c.id).limit(most)
        with self.store.look() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    def _build_parcel(self, row: Mapping[str, Any]) -> Parcel:
        file = self.spool.path(row["sha256"], result=True)
        return Parcel(file, row["sop_class"], row["sop_uid"], row["study_uid"], row["patient_id"])

    def _record(self, row: Mapping[str, Any], attempt: Attempt) -> None:
        now = self.store.clock()
        attempts = row["attempts"] + 1
        values: dict[str, Any] = {"attempts": attempts, "error": attempt.reason[:200]}
        failed = attempt.outcome == "failed"
        if attempt.outcome == "sent":
            values |= {"state": "sent", "sent": now}
        elif attempt.outcome == "not taken":
            values |= {"state": "not_taken"}
        else:
            values |= schedule_retry(attempts, row["created"], now, self._chance)
        state = str(values["state"])
        with self.store.change() as change:
            change.connection.execute(update(outbox).where(outbox.c.id == row["id"]).values(**values))
            change.note(f"send {state}", row["sop_uid"], to=self.name, attempts=attempts, reason=attempt.reason[:200])
        self.breaker.record(failed, now)
        if attempt.outcome == "sent":
            self.events.sent(self.name, row["kind"], now - row["created"])
        elif state == "not_taken":
            self.events.not_taken(self.name, row["kind"])
        elif state == "dead":
            self.events.dead(self.name, row["kind"])
        else:
            LOG.warning(
                "not sent", extra={"destination": self.name, "kind": row["kind"], "reason": attempt.reason[:200]}
            )
            self.events.failed(self.name, row["kind"])
