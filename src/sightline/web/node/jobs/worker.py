"""The parent's side of a job: a child process is asked, its answer is checked and made durable in one transaction."""

from __future__ import annotations

import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError

from sightline.errors import SightlineError, count_noun
from sightline.web.node.configuration import Configuration, Rule
from sightline.web.node.database import (
    Change,
    Store,
    jobs,
    objects,
    outbox,
    readings,
    require_inserted_id,
    results,
    select_contradictory_studies,
    select_following_jobs,
    select_superseded_jobs,
    studies,
)
from sightline.web.node.jobs.child_process import Child, ChildDied, ChildNotReady
from sightline.web.node.spool import Spool

LOG = logging.getLogger("sightline.node")
RETRY_S = 5.0
MOST_INTERRUPTIONS = 20
STARTING = "the process that judges is starting"
# before a child process that ended at its start, or did not get ready, is started again
RESTART_S = 30.0


@dataclass(frozen=True)
class WorkEvents:
    """What a worker tells the rest of the node.

    Attributes:
        judged: rule, seconds.
        refused: rule, check, reason.
        failed: rule, whether that was the last try.
    """

    judged: Callable[[str, float], None]
    refused: Callable[[str, str, str], None]
    failed: Callable[[str, bool], None]


class Worker:
    """Takes jobs, one at a time.

    Args:
        configuration: NODE.yaml.
        store: the node's database.
        spool: the node's files.
        events: what is told.
        command: what starts the child process.
        ahead: start it at the first look for work, not with the first study.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        spool: Spool,
        events: WorkEvents,
        command: Sequence[str],
        *,
        ahead: bool = False,
    ) -> None:
        self.configuration, self.store, self.spool, self.events = configuration, store, spool, events
        self._start_at = 0.0 if ahead else None
        # taken, and neither ended nor put back: the database could not be written
        self._taken: Mapping[str, Any] | None = None
        # why it cannot judge yet; a child that is only started with the first study is not waited for
        self.trouble = STARTING if ahead else ""
        runs = {
            (str(rule.run), str(rule.codes) if rule.codes else None, configuration.engine): None
            for rule in configuration.rules
        }
        self.child = Child(command, configuration.job_memory, configuration.job_cpu_s, tuple(runs))

    def work_once(self) -> bool:
        """Do the next job that is due; False when there is none."""
        if self._taken is not None:
            self._put_back(self._taken, "the database could not be written")
        # no job is spent on a child that has just failed to start
        pausing = self._start_at is not None and not self._is_start_due()
        job = None if pausing else self._take()
        if job is None:
            # not in `start`: the child ends with the thread that started it
            if self._is_start_due() or (not pausing and self._is_study_settling()):
                self._start_at = None
                self.child.wake()
            elif not self.trouble:
                self.child.stop_if_idle()
            self._look_at_child()
            return False
        self._taken = job
        try:
            self._judge(job)
        except (OSError, DBAPIError) as error:
            # a full disk or a locked database is no fault of the study
            self._put_back(job, type(error).__name__)
        self._taken = None
        return True

    def _judge(self, job: Mapping[str, Any]) -> None:
        scratch: Path | None = None
        try:
            rule = self.configuration.rule_of(job["rule"])
            if rule is None:
                self._end(job, "dead", reason=f"NODE.yaml has no rule {job['rule']} any more")
                return
            scratch = self.spool.scratch_folder(job["id"])
            answer = self.child.ask(self._build_request(job, rule, scratch))
            self.trouble = self.child.trouble
            if "error" in answer:
                raise SightlineError(str(answer["error"]))
            self._keep(job, rule, scratch, answer)
        except ChildNotReady as error:
            self._put_off(job, error.message)
        except SightlineError as error:
            self._fail(job, error.message)
        except (OSError, DBAPIError):
            raise
        except Exception as error:  # an answer that is none: the job must end, whatever it provokes
            LOG.exception("a job failed", extra={"job": job["id"]})
            self._fail(job, f"the child process's answer does not read ({type(error).__name__})")
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _put_off(self, job: Mapping[str, Any], reason: str) -> None:
        """A job whose child never got ready waits again: no fault of the study. One that never will must end, too."""
        self.trouble, self._start_at = reason, time.monotonic() + RESTART_S
        times = job["interruptions"] + 1
        if times < MOST_INTERRUPTIONS:
            self._put_back(job, reason, interruptions=times)
            return
        self._end(job, "dead", f"the process that judges was not ready {count_noun(times, 'time')}: {reason}")
        self.events.failed(job["rule"], True)

    def _put_back(self, job: Mapping[str, Any], reason: str, **values: int) -> None:
        """A job that this machine interrupted waits again, and its try is given back; repeated until it is written."""
        with self.store.change() as change:
            back = {"state": "waiting", "tries": max(0, job["tries"] - 1), "due": change.now + RETRY_S}
            running = update(jobs).where(jobs.c.id == job["id"], jobs.c.state == "running")
            if change.connection.execute(running.values(**back, **values)).rowcount:
                change.note("job waiting", job["study_uid"], job=job["id"], reason=reason)
        self._taken = None
        LOG.warning("job put back", extra={"job": job["id"], "reason": reason})

    def _is_start_due(self) -> bool:
        return self._start_at is not None and time.monotonic() >= self._start_at

    def _look_at_child(self) -> None:
        """Say whether it can judge; one that ended at its start is started again, after a pause."""
        if not self.trouble or self._start_at is not None:
            return
        try:
            found = self.child.look()
        except ChildDied as error:
            self.trouble, self._start_at = error.message, time.monotonic() + RESTART_S
            return
        self.trouble = STARTING if found is None else found

    def _take(self) -> Mapping[str, Any] | None:
        """The next job, marked as running. A try is counted before it begins: what kills the node counts too."""
        with self.store.look() as db:
            if db.execute(self._find_due()).first() is None:
                return None
        with self.store.change() as change:
            job = change.connection.execute(self._find_due()).mappings().first()
            if job is None:
                return None
            later = select_superseded_jobs().where(jobs.c.id == job["id"])
            if change.connection.execute(later).first() is not None:
                # it was interrupted or failed meanwhile; its report would reach the PACS after the later one's
                values = {"state": "dropped", "reason": "a later job of the study stands for it", "ended": change.now}
                change.connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(**values))
                change.note("job dropped", job["study_uid"], job=job["id"], reason=values["reason"])
                return None
            values = {"state": "running", "tries": job["tries"] + 1, "started": change.now}
            change.connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(**values))
            change.note("job running", job["study_uid"], job=job["id"], tries=values["tries"])
            return {**job, **values}

    def _is_study_settling(self) -> bool:
        with self.store.look() as db:
            return db.execute(select(studies.c.study_uid).where(studies.c.state == "open").limit(1)).first() is not None

    def _find_due(self) -> Any:
        now = self.store.clock()
        # no pause is as long: the clock was set back since
        never = jobs.c.due > now + RETRY_S * 2**self.configuration.tries
        query = select(jobs).where(jobs.c.state.in_(("waiting", "failed")), (jobs.c.due <= now) | never)
        query = query.where(jobs.c.study_uid.not_in(select_contradictory_studies()))
        # another worker is at it: the later report refers to the earlier one, and must be the last to leave
        query = query.where(jobs.c.id.not_in(select_following_jobs()))
        # what was running when the node ended goes behind the others: should it be what ended it, they are not held up
        return query.order_by(jobs.c.priority.desc(), jobs.c.interruptions, jobs.c.id).limit(1)

    def _build_request(self, job: Mapping[str, Any], rule: Rule, scratch: Path) -> dict[str, Any]:
        inputs = json.loads(job["inputs"])
        return {
            "run": str(rule.run),
            "engine": self.configuration.engine,
            "images": {sha256: str(self.spool.path(sha256)) for sha256 in inputs},
            "left_out": json.loads(job["left_out"]),
            "objects": list(rule.send.objects),
            "out": str(scratch),
            "received": job["received"],
            "codes": str(rule.codes) if rule.codes else None,
            "predecessor": self._read_findings(job["predecessor"]),
        }

    def _read_findings(self, job: int | None) -> list[list[str]]:
        if job is None:
            return []
        with self.store.look() as db:
            columns = (results.c.sop_class, results.c.sop_uid, results.c.study_uid, results.c.series_uid)
            query = select(*columns).where(results.c.job == job, results.c.kind == "findings")
            return [list(row) for row in db.execute(query)]

    def _keep(self, job: Mapping[str, Any], rule: Rule, scratch: Path, answer: Mapping[str, Any]) -> None:
        """Results, outbox and the job's end in one transaction: after it a crash sends them once more, never again."""
        rows = []
        for file, kind in answer["results"]:
            path = Path(file)
            if path.resolve().parent != scratch.resolve():
                raise SightlineError("The child process named a file outside its folder.")
            if not path.is_file():
                raise SightlineError("The child process named a file that it did not write.")
            rows.append((path, kind, self._check_result(path, job), self.spool.hash_file(path)))
        refused = answer["refused"]
        judged = len(json.loads(job["inputs"])) - len({one["sha256"] for one in refused})
        with self.store.change() as change:
            if not self._is_wanted(change, job):
                return
            for path, kind, header, sha256 in rows:
                self._insert_result(change, job, rule, (path, kind, header, sha256))
            for sha256, measures in answer["readings"].items():
                values = {"job": job["id"], "sha256": sha256, "rule": job["rule"], "at": change.now}
                change.connection.execute(insert(readings).values(**values, measures=json.dumps(measures)))
            left_out = [*json.loads(job["left_out"]), *refused]
            values = {"state": "done" if judged else "refused", "ended": change.now, "left_out": json.dumps(left_out)}
            if not judged and refused:
                values |= {"door": refused[0]["door"], "reason": refused[0]["reason"]}
            change.connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(**values))
            change.note(f"job {values['state']}", job["study_uid"], job=job["id"], results=[row[3] for row in rows])
        for one in refused:
            self.events.refused(job["rule"], one["door"], one["reason"])
        if judged:
            self.events.judged(job["rule"], float(answer.get("seconds", 0.0)))

    def _is_wanted(self, change: Change, job: Mapping[str, Any]) -> bool:
        """Whether a finished job's results may be kept: not those of a job given up, or of a study now held."""
        db = change.connection
        state = db.execute(select(jobs.c.state).where(jobs.c.id == job["id"])).scalar()
        held = select_contradictory_studies().where(studies.c.study_uid == job["study_uid"])
        if state == "running" and db.execute(held).first() is None:
            return True
        if state == "running":
            values = {"state": "waiting", "tries": job["tries"] - 1}
            db.execute(update(jobs).where(jobs.c.id == job["id"]).values(**values))
        change.note("results not kept", job["study_uid"], job=job["id"])
        return False

    def _insert_result(
        self, change: Change, job: Mapping[str, Any], rule: Rule, row: tuple[Path, str, Any, str]
    ) -> None:
        path, kind, header, sha256 = row
        db = change.connection
        sop_uid = str(header.SOPInstanceUID)
        known = db.execute(select(results).where(results.c.sop_uid == sop_uid)).mappings().first()
        if known is not None and known["sha256"] != sha256:
            # the first one may be on its way already; two contents under one UID must never leave
            change.note("result differs", sop_uid, job=job["id"], first=known["sha256"], second=sha256)
            return
        change.folders.add(self.spool.adopt(path, sha256, result=True))
        if known is not None:
            db.execute(update(results).where(results.c.id == known["id"]).values(state="kept"))
            number = known["id"]
        else:
            values = {
                "job": job["id"],
                "sha256": sha256,
                "sop_uid": sop_uid,
                "sop_class": str(header.SOPClassUID),
                "series_uid": str(header.SeriesInstanceUID),
                "study_uid": str(header.StudyInstanceUID),
                "patient_id": str(header.get("PatientID") or "")[:256],
                "kind": kind,
                "state": "kept",
            }
            number = require_inserted_id(db.execute(insert(results).values(**values)))
        if self.configuration.silent:
            return
        for destination in rule.send.to:
            query = select(outbox.c.id).where(outbox.c.result == number, outbox.c.destination == destination)
            if db.execute(query).first() is None:
                values = {"result": number, "destination": destination, "state": "due", "attempts": 0}
                db.execute(insert(outbox).values(**values, due=change.now, created=change.now, error=""))

    def _check_result(self, path: Path, job: Mapping[str, Any]) -> Any:
        """The header of a result whose study and patient are those of the images; see also `delivery.senders`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True)
        with self.store.look() as db:
            inputs = [*json.loads(job["inputs"]), *(one["sha256"] for one in json.loads(job["left_out"]))]
            query = select(objects.c.patient_id).where(objects.c.sha256.in_(inputs)).distinct()
            patients = set(db.execute(query).scalars())
        found = (str(header.StudyInstanceUID), str(header.get("PatientID") or "")[:256])
        if found[0] != job["study_uid"] or patients != {found[1]}:
            raise SightlineError("A result names another study or patient than its images; nothing of it is sent.")
        return header

    def _fail(self, job: Mapping[str, Any], reason: str) -> None:
        last = job["tries"] >= self.configuration.tries
        self._end(job, "dead" if last else "failed", reason=reason)
        self.events.failed(job["rule"], last)

    def _end(self, job: Mapping[str, Any], state: str, reason: str) -> None:
        # paths would name run folders, and messages of parsers may quote headers: the database may hold them, logs not
        with self.store.change() as change:
            due = change.now + RETRY_S * 2 ** (job["tries"] - 1)
            values = {"state": state, "reason": reason[:1000], "ended": change.now, "due": due}
            # a job that a person gave up meanwhile stays given up
            running = update(jobs).where(jobs.c.id == job["id"], jobs.c.state == "running")
            change.connection.execute(running.values(**values))
            change.note(f"job {state}", job["study_uid"], job=job["id"], tries=job["tries"], reason=reason[:1000])
        LOG.warning("job " + state, extra={"job": job["id"], "tries": job["tries"]})


def resume_jobs(store: Store) -> int:
    """After a start: jobs that were running when the node ended are due again; how many there were.

    The try is given back, because a machine that is switched off is no fault of a study; one that ends the node again
    and again is `dead` after MOST_INTERRUPTIONS.
    """
    with store.change() as change:
        found = change.connection.execute(select(jobs).where(jobs.c.state == "running")).mappings().all()
        for job in found:
            times = job["interruptions"] + 1
            state = "dead" if times >= MOST_INTERRUPTIONS else "waiting"
            values = {"state": state, "interruptions": times, "tries": max(0, job["tries"] - 1), "due": 0.0}
            reason = "" if state == "waiting" else f"the node ended {count_noun(times, 'time')} while it was judged"
            change.connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(**values, reason=reason))
            change.note(f"job {state}", job["study_uid"], job=job["id"], interruptions=times)
    return len(found)
