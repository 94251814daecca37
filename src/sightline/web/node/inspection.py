"""What a person does to a node from outside: look at its configuration, its queue and one object's way, and mend.

All of it works on the database of a node that runs or does not run; every change is journalled like the node's own.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import func, select, update

from sightline.errors import SightlineError, count_noun
from sightline.inference.gate.gate_file import Gate
from sightline.inference.gate.header import read_header_facts
from sightline.io.dicom.limits import require_bounds
from sightline.web.node.configuration import Configuration
from sightline.web.node.database import (
    REOPENED,
    Change,
    NodeStoreError,
    Store,
    jobs,
    journal,
    objects,
    outbox,
    results,
    select_oldest_job,
    select_superseded_jobs,
    studies,
)
from sightline.web.node.intake.acceptance import NODE_BOUNDS
from sightline.web.node.jobs.planning import choose_images

# letters that a person may mend: what nobody sends, and what can no longer be sent
_LETTERS = select(
    outbox.c.id, outbox.c.destination, outbox.c.state, results.c.study_uid, results.c.sop_uid, results.c.kind
).join(results, outbox.c.result == results.c.id)
_LETTERS = _LETTERS.where(
    outbox.c.state.in_(("dead", "not_taken")) | ((outbox.c.state == "due") & (results.c.state == "cleaned"))
)


def open_store(configuration: Configuration) -> Store:
    """The database of a node.

    Raises:
        NodeStoreError: the node has never run.
    """
    path = configuration.keep / "node.sqlite"
    if not path.is_file():
        raise NodeStoreError(f"{path} does not exist: this node has never run.", "sightline serve NODE.yaml")
    return Store(path)


def describe_configuration(configuration: Configuration, gates: dict[str, Gate]) -> Iterator[str]:
    """Lines that say what a node would do."""
    listener = configuration.dicom
    how = "TLS" if listener.tls else "plain"
    yield f"{configuration.name}: {listener.aet} at {listener.address}:{listener.port}, {how}"
    for caller, networks in listener.callers.items():
        yield f"  takes from {caller} at {', '.join(networks)}"
    if configuration.dicomweb is not None:
        yield f"  STOW at {configuration.dicomweb.address}:{configuration.dicomweb.port}"
    for index, rule in enumerate(configuration.rules):
        name = configuration.rule_name(index)
        when = {word: value for word, value in rule.when.model_dump().items() if value is not None}
        to = "nobody (silent)" if configuration.silent else ", ".join(rule.send.to) or "nobody"
        yield f"rule {name}: {json.dumps(when)} -> {rule.run}; {', '.join(rule.send.objects)} to {to}"
        gate = gates[name]
        checks = ", ".join(
            word if made else f"NO {word} check"
            for word, made in (("layout", gate.layout), ("features", gate.features))
        )
        yield f"  gate: {json.dumps(gate.header.to_plain())}, {len(gate.picture)} picture limits, {checks}"


def foretell(configuration: Configuration, gates: dict[str, Gate], inputs: Iterable[Path]) -> Iterator[str]:
    """Lines that say what the node would do with files, by study; nothing is stored, judged or sent.

    The picture, layout and features checks look at pixels in a child process; here only rules and headers are asked.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(file for one in inputs for file in ([one] if one.is_file() else one.rglob("*"))):
        if not file.is_file():
            continue
        try:
            require_bounds(file, NODE_BOUNDS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(file, stop_before_pixels=True)
                row = {"sha256": str(file), "caller": "", "facts": json.dumps(read_header_facts(header))}
                found.setdefault(str(header.get("StudyInstanceUID") or ""), []).append(row)
        except SightlineError as error:
            yield f"{file}: not taken: {error.message}"
        except Exception as error:  # foreign bytes
            yield f"{file}: not taken: no DICOM object ({type(error).__name__})"
    for study, rows in found.items():
        yield f"study {study or '(no UID: not taken)'}, {count_noun(len(rows), 'object')}"
        for index, rule in enumerate(configuration.rules):
            name = configuration.rule_name(index)
            # who will send these files is not known here
            when = rule.when.model_copy(update={"caller": None})
            chosen, left_out = choose_images(rows, when, gates[name])
            for image in chosen:
                yield f"  {image['sha256']}: rule {name} judges it"
            for one in left_out:
                yield f"  {one.sha256}: rule {name} does not: {one.check}: {one.reason}"


def summarise(store: Store) -> Iterator[str]:
    """Lines on the queue: counts by state, what waits longest, what a person must look at."""
    with store.look() as db:
        for title, column in (("objects", objects.c.state), ("studies", studies.c.state), ("jobs", jobs.c.state)):
            counts = db.execute(select(column, func.count()).group_by(column)).all()
            yield f"{title}: " + (", ".join(f"{count} {state}" for state, count in counts) or "none")
        columns = (outbox.c.destination, outbox.c.state)
        for destination, state, count in db.execute(select(*columns, func.count()).group_by(*columns)):
            yield f"to {destination}: {count} {state}"
        oldest = db.execute(select_oldest_job()).scalar()
        if oldest is not None:
            yield f"oldest job that is not done: {max(0.0, store.clock() - oldest):.0f} s"
        for job in db.execute(select(jobs).where(jobs.c.state == "failed").limit(50)):
            tried = count_noun(job.tries, "try", "tries")
            yield f"to be tried again: job {job.id}, study {job.study_uid}, after {tried}: {job.reason}"
        for job in db.execute(select(jobs).where(jobs.c.state == "dead").limit(50)):
            yield f"dead job {job.id}, study {job.study_uid}: {job.reason}"
        for study in db.execute(select(studies).where(studies.c.state == "held").limit(50)):
            yield f"held study {study.study_uid}: {study.reason}"
        query = select(outbox, results.c.sop_uid).join(results, outbox.c.result == results.c.id)
        for row in db.execute(query.where(outbox.c.state == "dead").limit(50)):
            tried = count_noun(row.attempts, "attempt")
            yield f"dead letter {row.sop_uid} to {row.destination} after {tried}: {row.error}"


def tell_way(store: Store, what: str) -> Iterator[str]:
    """Lines on the way of one study, object (UID) or job (number): its jobs, refusals, results, and the journal.

    Raises:
        NodeStoreError: the node knows nothing of it.
    """
    with store.look() as db:
        study = what
        if what.isdigit():
            study = db.execute(select(jobs.c.study_uid).where(jobs.c.id == int(what))).scalar() or what
        for table in (objects, results):
            study = db.execute(select(table.c.study_uid).where(table.c.sop_uid == what)).scalar() or study
        seen = [study, *db.execute(select(objects.c.sop_uid).where(objects.c.study_uid == study)).scalars()]
        seen += db.execute(select(results.c.sop_uid).where(results.c.study_uid == study)).scalars()
        rows = db.execute(select(journal).where(journal.c.subject.in_({what, *seen})).order_by(journal.c.seq)).all()
        if not rows:
            raise NodeStoreError(
                f"The node knows nothing of {what}.", "Give a study or SOP instance UID, or a job's number."
            )
        for one in db.execute(select(studies).where(studies.c.study_uid == study)):
            yield f"study {study}: {one.state}" + (f": {one.reason}" if one.reason else "")
        for job in db.execute(select(jobs).where(jobs.c.study_uid == study).order_by(jobs.c.id)):
            why = f": {job.door}: {job.reason}" if job.door else f": {job.reason}" if job.reason else ""
            yield f"job {job.id}, rule {job.rule}: {job.state} after {count_noun(job.tries, 'try', 'tries')}{why}"
            names = {row.sha256: row.sop_uid for row in db.execute(select(objects).where(objects.c.study_uid == study))}
            for one in json.loads(job.left_out):
                yield f"  not judged {names.get(one['sha256'], one['sha256'])}: {one['door']}: {one['reason']}"
        query = select(outbox, results.c.kind).join(results, outbox.c.result == results.c.id)
        for row in db.execute(query.where(results.c.study_uid == study).order_by(outbox.c.id)):
            tried = count_noun(row.attempts, "attempt")
            yield f"{row.kind} to {row.destination}: {row.state} after {tried} {row.error}".rstrip()
    for row in rows:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.at))
        yield f"{at} {row.what} {row.subject} {row.detail}"


def retry(store: Store, what: str) -> int:
    """Give dead jobs, dead letters and held studies another chance; how many there were.

    Letters whose file was cleaned, and dead jobs that a later one stands for, stay as they are (`list_lost`).

    Args:
        store: the node's database.
        what: `all`, a study UID, a job's number or a destination.
    """
    return _mend(store, what, job="waiting", letter="due", study=REOPENED)


def drop(store: Store, what: str) -> int:
    """Give dead jobs, dead letters and held studies up, so that they are cleaned; how many there were.

    Args:
        store: the node's database.
        what: as for `retry`.
    """
    return _mend(store, what, job="dropped", letter="dropped", study="settled")


def list_lost(store: Store, what: str) -> Iterator[str]:
    """Lines on what `retry` leaves as it is: letters with nothing to send any more, jobs whose report would be older.

    Args:
        store: the node's database.
        what: as for `retry`.
    """
    with store.look() as db:
        dead = select(jobs).where(jobs.c.state == "dead", jobs.c.id.in_(select_superseded_jobs()))
        for row in db.execute(dead.order_by(jobs.c.id)):
            if what in ("all", str(row.id), row.study_uid):
                yield (
                    f"job {row.id} stays dead: a later job of study {row.study_uid} stands for it and its report would "
                    f"follow that one's; give it up with `sightline node drop NODE.yaml {row.id}`"
                )
        for row in db.execute(_LETTERS.where(results.c.state == "cleaned").order_by(outbox.c.id)):
            if _is_meant(row, what):
                yield (
                    f"{row.kind} {row.sop_uid} to {row.destination} stays {row.state}: its file was cleaned and cannot "
                    "be sent; give it up with `sightline node drop`"
                )


def _is_meant(letter: Any, what: str) -> bool:
    return what in ("all", letter.destination, letter.study_uid, letter.sop_uid)


def _mend(store: Store, what: str, *, job: str, letter: str, study: str) -> int:
    every = what == "all"
    count = 0
    with store.change() as change:
        db = change.connection
        dead = select(jobs).where(jobs.c.state == "dead")
        if job == "waiting":
            dead = dead.where(jobs.c.id.not_in(select_superseded_jobs()))
        for row in db.execute(dead).all():
            if every or what in (str(row.id), row.study_uid):
                values = {"state": job, "tries": 0, "interruptions": 0, "due": 0.0, "ended": change.now}
                db.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
                count += _note(change, f"job {job}", row.study_uid, job=row.id)
        for row in db.execute(_LETTERS if letter == "dropped" else _LETTERS.where(results.c.state == "kept")).all():
            if _is_meant(row, what):
                values = {"state": letter, "due": change.now, "created": change.now}
                db.execute(update(outbox).where(outbox.c.id == row.id).values(**values))
                count += _note(change, f"send {letter}", row.sop_uid, to=row.destination)
        for row in db.execute(select(studies).where(studies.c.state == "held")).all():
            if every or what == row.study_uid:
                values = {"state": study, "reason": "", "last": change.now, "ended": change.now}
                db.execute(update(studies).where(studies.c.study_uid == row.study_uid).values(**values))
                count += _note(change, study, row.study_uid)
                if job == "dropped":
                    _give_up(change, row.study_uid)
    return count


def _give_up(change: Change, study: str) -> None:
    """What a dropped study still has to be judged or sent is given up with it."""
    db = change.connection
    begun = update(jobs).where(jobs.c.study_uid == study, jobs.c.state.in_(("waiting", "running", "failed")))
    db.execute(begun.values(state="dropped", ended=change.now))
    of_study = select(results.c.id).where(results.c.study_uid == study)
    db.execute(update(outbox).where(outbox.c.state == "due", outbox.c.result.in_(of_study)).values(state="dropped"))


def _note(change: Change, what: str, subject: str, **detail: object) -> int:
    change.note(what, subject, by="a person", **detail)
    return 1
