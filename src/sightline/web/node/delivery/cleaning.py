"""What may leave the node's disk: results that every destination keeps, and the images of studies that are over."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import func, select, update

from sightline.web.node.configuration import Configuration, DicomDestination
from sightline.web.node.database import Change, Store, jobs, objects, outbox, results, studies
from sightline.web.node.spool import Spool

DAY_S = 24 * 3600.0
# a transfer that left its file behind has ended long before this
SCRATCH_S = 6 * 3600.0
_OPEN_JOBS = ("waiting", "running", "failed", "dead")


class Cleaner:
    """Removes files whose time has come; their rows stay.

    Args:
        configuration: NODE.yaml.
        store: the node's database.
        spool: the node's files.
    """

    def __init__(self, configuration: Configuration, store: Store, spool: Spool) -> None:
        self.configuration, self.store, self.spool = configuration, store, spool
        self._commits = {
            name for name, one in configuration.destinations.items() if isinstance(one, DicomDestination) and one.commit
        }

    def clean(self) -> int:
        """Remove what may go; how many files."""
        removed = 0
        with self.store.look() as db:
            long_over = self.store.clock() - DAY_S * min(
                self.configuration.keep_days, self.configuration.keep_refused_days
            )
            query = select(studies.c.study_uid).where(studies.c.state == "settled", studies.c.ended < long_over)
            over = db.execute(query).scalars().all()
        for study_uid in over:
            with self.store.change() as change:
                removed += self._clean_study(change, study_uid)
        removed += self._clean_apart()
        self._clean_scratch()
        return removed

    def _clean_study(self, change: Change, study_uid: str) -> int:
        db = change.connection
        found = db.execute(select(jobs).where(jobs.c.study_uid == study_uid)).mappings().all()
        if any(job["state"] in _OPEN_JOBS for job in found):
            return 0
        done = [job for job in found if job["state"] == "done"]
        days = self.configuration.keep_days if done else self.configuration.keep_refused_days
        ends: list[float] = [job["ended"] for job in found if job["ended"]]
        if max(ends, default=0.0) > change.now - DAY_S * days or self._count_undelivered(change, study_uid):
            return 0
        removed = 0
        query = select(results.c.id, results.c.sha256).where(results.c.study_uid == study_uid)
        query = query.where(results.c.state == "kept")
        for number, sha256 in db.execute(query).all():
            db.execute(update(results).where(results.c.id == number).values(state="cleaned"))
            self.spool.remove(sha256, result=True)
            removed += 1
        removed += self._clean_objects(change, objects.c.study_uid == study_uid)
        values = {"state": "cleaned"}
        db.execute(update(studies).where(studies.c.study_uid == study_uid).values(**values))
        change.note("cleaned", study_uid, files=removed)
        return removed

    def _count_undelivered(self, change: Change, study_uid: str) -> int:
        """Objects of a study's outbox that are not yet safe at their destination."""
        query = select(func.count()).select_from(outbox.join(results, outbox.c.result == results.c.id))
        query = query.where(results.c.study_uid == study_uid)
        promised = (outbox.c.state == "sent") & outbox.c.destination.in_(self._commits)
        unsafe = outbox.c.state.in_(("due", "dead")) | promised
        return int(change.connection.execute(query.where(unsafe)).scalar_one())

    def _clean_objects(self, change: Change, which: Any) -> int:
        query = select(objects.c.id, objects.c.sha256).where(which, objects.c.state == "kept")
        rows = change.connection.execute(query).all()
        for number, sha256 in rows:
            change.connection.execute(update(objects).where(objects.c.id == number).values(state="cleaned"))
            self.spool.remove(sha256)
        return len(rows)

    def _clean_apart(self) -> int:
        """Results of ours that came back, and altered objects, have no study that waits for them."""
        removed = 0
        for state, days in (("own", self.configuration.keep_refused_days), ("altered", self.configuration.keep_days)):
            with self.store.change() as change:
                query = select(objects.c.id, objects.c.sha256).where(objects.c.state == state)
                rows = change.connection.execute(query.where(objects.c.received < change.now - DAY_S * days)).all()
                for number, sha256 in rows:
                    change.connection.execute(update(objects).where(objects.c.id == number).values(state="cleaned"))
                    self.spool.remove(sha256)
                if rows:
                    change.note("cleaned", state, files=len(rows))
                removed += len(rows)
        return removed

    def _clean_scratch(self) -> None:
        for path in self.spool.incoming.iterdir():
            try:
                if path.is_file() and path.stat().st_mtime < time.time() - SCRATCH_S:
                    path.unlink()
            except FileNotFoundError:
                continue
