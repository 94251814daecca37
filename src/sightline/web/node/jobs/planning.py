"""From quiet studies to jobs: which rule takes which images, and what the header check of each run's gate says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update

from sightline.errors import count_noun
from sightline.inference.gate.gate_file import Gate
from sightline.inference.gate.header import HeaderLimits, check_header
from sightline.web.node.configuration import Configuration, RuleConditions
from sightline.web.node.database import (
    REOPENED,
    Change,
    Store,
    is_study_image,
    jobs,
    journal,
    objects,
    require_inserted_id,
    studies,
)

DAY_S = 24 * 3600.0
# what is said of a study that no rule takes, and letters of why
NO_RULE = "no rule takes any image of it"
MOST_WHY = 500
# the check of an image whose file was cleaned before a late one of its study came, and what a report says of it
DELETED = "deleted"
_GONE = "an earlier image of the study, whose file was deleted here before this one came; see the earlier report"


@dataclass(frozen=True)
class OmittedImage:
    """An image that a job does not judge.

    Attributes:
        sha256: its name in the spool.
        check: `rule`, `header`, `picture`, `layout` or `features`; or `deleted`.
        reason: in words for a person.
    """

    sha256: str
    check: str
    reason: str

    def plain(self) -> dict[str, str]:
        """As it stands in the database."""
        return {"sha256": self.sha256, "door": self.check, "reason": self.reason}


def find_rule_mismatch(facts: Mapping[str, Any], caller: str, when: RuleConditions) -> str:
    """Why a rule does not take an image, or an empty text where it does."""
    if when.caller is not None and caller not in when.caller:
        return f"the caller is {caller}, not {', '.join(when.caller)}"
    limits = HeaderLimits(
        modality=when.modality,
        body_part=when.body_part,
        view=when.view,
        laterality=when.laterality,
        age=None if when.age is None else when.age_range(),
    )
    return check_header(facts, limits)


def choose_images(
    images: Sequence[Mapping[str, Any]], when: RuleConditions, gate: Gate
) -> tuple[list[Mapping[str, Any]], list[OmittedImage]]:
    """The images of a study that a rule takes and the header check lets in, and the others with their reasons.

    Args:
        images: rows of `objects`.
        when: the rule's condition.
        gate: of the rule's run.
    """
    chosen, left_out = [], []
    for row in images:
        facts = json.loads(row["facts"])
        reason, check = find_rule_mismatch(facts, row["caller"], when), "rule"
        if not reason:
            reason, check = check_header(facts, gate.header), "header"
        if reason:
            left_out.append(OmittedImage(row["sha256"], check, reason))
        else:
            chosen.append(row)
    return chosen, left_out


class Planner:
    """Makes jobs of studies that have been quiet for `settle_s`, or were named complete.

    Args:
        configuration: NODE.yaml.
        store: the node's database.
        gates: of each rule's run, by the rule's name.
    """

    def __init__(self, configuration: Configuration, store: Store, gates: Mapping[str, Gate]) -> None:
        self.configuration, self.store, self.gates = configuration, store, gates

    def settle(self, most: int = 50) -> list[tuple[str, str, str]]:
        """Plan the studies that are due; (rule, check, reason) of each refusal, `("", "rule", ...)` where none fits."""
        self._take_future_as_now()
        until = self.store.clock() - self.configuration.settle_s
        due = (studies.c.last <= until) | (studies.c.complete == 1)
        with self.store.look() as db:
            query = select(studies.c.study_uid).where(studies.c.state == "open", due).order_by(studies.c.last)
            quiet = db.execute(query.limit(most)).scalars().all()
        refused: list[tuple[str, str, str]] = []
        for study_uid in quiet:
            with self.store.change() as change:
                refused += self._plan(change, study_uid)
        return refused

    def _take_future_as_now(self) -> None:
        """Studies that came before the clock was set back (NTP, a resumed machine) begin their quiet time now."""

        def is_ahead(now: float) -> Any:
            return (studies.c.state == "open") & (studies.c.last > now)

        with self.store.look() as db:
            if db.execute(select(studies.c.study_uid).where(is_ahead(self.store.clock())).limit(1)).first() is None:
                return
        with self.store.change() as change:
            # what came between the two looks is no later than this transaction
            ahead = update(studies).where(is_ahead(change.now)).values(last=change.now)
            if count := change.connection.execute(ahead).rowcount:
                change.note("clock was set back", "studies", count=count)

    def _plan(self, change: Change, study_uid: str) -> list[tuple[str, str, str]]:
        db = change.connection
        query = select(objects).where(objects.c.study_uid == study_uid, is_study_image("kept", "cleaned"))
        rows = [dict(row) for row in db.execute(query.order_by(objects.c.id)).mappings()]
        images = [row for row in rows if row["state"] == "kept"]
        cleaned = [row for row in rows if row["state"] == "cleaned"]
        refused: list[tuple[str, str, str]] = []
        state, reason = "settled", ""
        fitting, why = 0, []
        for index, rule in enumerate(self.configuration.rules):
            name = self.configuration.rule_name(index)
            chosen, left_out = choose_images(images, rule.when, self.gates[name])
            if not chosen and not any(one.check == "header" for one in left_out):
                why += [f"rule {name}: {left_out[0].reason}"] if left_out else []
                continue
            fitting += 1
            last = self._find_last_job(change, study_uid, name)
            gone = [row["sha256"] for row in choose_images(cleaned, rule.when, self.gates[name])[0]]
            if last is not None and last["state"] != "dropped" and _has_judged(last, chosen, gone):
                continue
            if self._count_jobs_today(change, study_uid, name) >= self.configuration.most_jobs_a_day:
                state, reason = (
                    "held",
                    f"images came late more than {count_noun(self.configuration.most_jobs_a_day, 'time')} a day",
                )
                continue
            left_out += [OmittedImage(sha256, DELETED, _GONE) for sha256 in gone if chosen]
            values = self._build_job_values(change, images, chosen, left_out)
            values["priority"] = rule.priority + _compute_urgency(chosen)
            if not chosen:
                first = next(one for one in left_out if one.check == "header")
                values |= {"state": "refused", "door": "header", "reason": first.reason, "ended": change.now}
                refused.append((name, "header", first.reason))
            if last is not None and last["state"] in ("waiting", "failed"):
                # nothing was judged yet: the same job goes on with all of the images
                db.execute(update(jobs).where(jobs.c.id == last["id"]).values(**values))
                number = last["id"]
            else:
                before = None if last is None or last["state"] == "dropped" else last["id"]
                new = insert(jobs).values(study_uid=study_uid, rule=name, predecessor=before, **values)
                number = require_inserted_id(db.execute(new))
            if chosen and gone:
                # a report that does not say what the earlier one says does not take its place
                db.execute(update(jobs).where(jobs.c.id == number).values(predecessor=None))
            change.note(f"job {values['state']}", study_uid, job=number, rule=name, check=values["door"])
        if not fitting:
            refused.append(("", "rule", NO_RULE))
            # for a person who looks: why each rule leaves its first image out
            reason = "; ".join([NO_RULE, *why])[:MOST_WHY]
        values = {"state": state, "reason": reason, "complete": 0, "ended": change.now}
        db.execute(update(studies).where(studies.c.study_uid == study_uid).values(**values))
        change.note(state, study_uid, reason=reason)
        return refused

    def _build_job_values(
        self, change: Change, images: Sequence[Any], chosen: Sequence[Any], left_out: Sequence[OmittedImage]
    ) -> dict[str, Any]:
        return {
            "inputs": json.dumps([row["sha256"] for row in chosen]),
            "left_out": json.dumps([one.plain() for one in left_out]),
            "state": "waiting",
            "door": "",
            "reason": "",
            "received": max(row["received"] for row in (chosen or images)),
            "created": change.now,
            "due": 0.0,
        }

    def _find_last_job(self, change: Change, study_uid: str, rule: str) -> Mapping[str, Any] | None:
        query = select(jobs).where(jobs.c.study_uid == study_uid, jobs.c.rule == rule).order_by(jobs.c.id.desc())
        found = change.connection.execute(query.limit(1)).mappings().first()
        return None if found is None else dict(found)

    def _count_jobs_today(self, change: Change, study_uid: str, rule: str) -> int:
        db = change.connection
        # a person who looked at the study and had it tried again: the count starts anew
        query = select(func.max(journal.c.at)).where(journal.c.subject == study_uid, journal.c.what == REOPENED)
        since = max(change.now - DAY_S, db.execute(query).scalar() or 0.0)
        query = select(func.count()).select_from(jobs)
        query = query.where(jobs.c.study_uid == study_uid, jobs.c.rule == rule)
        query = query.where(jobs.c.created > since, jobs.c.state != "waiting")
        return int(db.execute(query).scalar_one())


def _has_judged(job: Mapping[str, Any], chosen: Sequence[Mapping[str, Any]], gone: Sequence[str]) -> bool:
    """Whether a job is about these images: about all of them, and about nothing else but what was cleaned since."""
    inputs, now = set(json.loads(job["inputs"])), {row["sha256"] for row in chosen}
    return now <= inputs and inputs - now <= set(gone)


def _compute_urgency(images: Sequence[Mapping[str, Any]]) -> int:
    """STAT and HIGH of StudyPriorityID before everything else."""
    words = {str(json.loads(row["facts"]).get("priority", "")).upper() for row in images}
    return 100 if words & {"STAT", "HIGH"} else 0
