"""One page about a period of a node: what came, what was refused and why, what was sent, what moved, what was right.

Where answers come back (a csv of study and label from the reports), what the node said is held against them: also in a
silent mode that has sent nothing. The page loads nothing, and names no patient.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sqlalchemy import func, select

from sightline import __version__
from sightline.errors import LayoutError, count_noun
from sightline.inference.gate.gate_file import Gate, read_weights_digest
from sightline.io.tables import read_table
from sightline.plots.html_report import ReportTable, Section, write_report
from sightline.structures.case import is_normal
from sightline.web.node.configuration import Configuration
from sightline.web.node.database import Store, jobs, objects, outbox, readings, results, studies
from sightline.web.node.jobs.planning import DELETED, NO_RULE
from sightline.web.node.monitoring.drift_watch import watch_rule

READ = (
    ("refused", "no finding is given; check and reason say why"),
    (
        "PSI, KS, tails",
        "how far a window of 200 images is from the reference; beyond its limit by chance in few windows",
    ),
    ("alarm", "the same measure beyond its limit in two windows in a row"),
)


def write_period_report(
    configuration: Configuration,
    store: Store,
    gates: Mapping[str, Gate],
    path: Path,
    days: float,
    answers: Path | None = None,
) -> tuple[str, ...]:
    """Write the page; returns what a person should know of the answers, with the studies that it is about.

    Args:
        configuration: NODE.yaml.
        store: the node's database.
        gates: of each rule's run.
        path: file to write.
        days: length of the period, which ends now.
        answers: csv with the columns study and label.

    Raises:
        LayoutError: answers without these columns.
        RunError: the page cannot be written.
    """
    until = store.clock()
    since = until - days * 86400.0
    answers_read = read_answers(answers) if answers is not None else {}
    names = [configuration.rule_name(i) for i in range(len(configuration.rules))]
    sections = [
        Section(
            "What came and what became of it", tables=(_tabulate_received(store, since), _tabulate_jobs(store, since))
        ),
        Section("What was refused, and why", tables=(_tabulate_refused(store, since), _tabulate_untaken(store, since))),
        Section("What was sent", tables=(_tabulate_sent(store, since),)),
        *(_build_drift_section(store, name, gates[name]) for name in names),
    ]
    notes: tuple[str, ...] = ()
    if answers is not None:
        calls_of = {name: _collect_calls(store, name, since) for name in names}
        omissions = _find_omissions(store, calls_of.values(), answers_read)
        notes = tuple(one.describe(examples=True) for one in omissions)
        right = tuple(_tabulate_right_calls(name, calls, answers_read) for name, calls in calls_of.items())
        sections.append(Section("What was right", tuple(one.describe() for one in omissions), right))
    count, dead, waiting = _count(store, since)
    silent = " The node is silent: it sends nothing." if configuration.silent else ""
    write_report(
        path,
        title=f"{configuration.name}, {_format_day(since)} to {_format_day(until)}",
        summary=f"{count_noun(count, 'study', 'studies')} judged, {dead} given up, "
        f"{waiting} waiting or to be tried again.{silent} "
        "Research, not for diagnosis.",
        sections=sections,
        provenance={
            "sightline": __version__,
            **{f"weights of {n}": read_weights_digest(r.run) for n, r in zip(names, configuration.rules, strict=True)},
            "answers": "none" if answers is None else count_noun(len(answers_read), "study", "studies"),
        },
        how_to_read=READ,
    )
    return notes


def read_answers(path: Path) -> dict[str, str]:
    """Label by study UID, of a csv with the columns study and label.

    Raises:
        LayoutError: no such file or columns, a study twice or without a label.
    """
    rows = read_table(path, ("study", "label"), key="study")
    if not rows:
        raise LayoutError(f"{path} has no row below its header.", "Give a csv with the columns study,label.")
    return {row["study"]: row.need("label") for row in rows}


def format_wilson(hits: int, of: int) -> str:
    """A share with its 95 % interval (Wilson 1927) and its counts, as text.

    Example:
        >>> wilson(9, 10), format_wilson(0, 0)
        ('0.90 (0.60 to 0.98), 9 of 10', 'none')
    """
    if not of:
        return "none"
    low, high = binomtest(hits, of).proportion_ci(0.95, "wilson")
    return f"{hits / of:.2f} ({low:.2f} to {high:.2f}), {hits} of {of}"


def _tabulate_received(store: Store, since: float) -> ReportTable:
    columns = (objects.c.caller, objects.c.door, objects.c.state)
    with store.look() as db:
        query = select(*columns, func.count(), func.sum(objects.c.bytes)).where(objects.c.received > since)
        rows = db.execute(query.group_by(*columns).order_by(*columns)).all()
    cells = tuple((row[0], row[1], row[2], str(row[3]), f"{row[4] / 1e6:.1f}") for row in rows)
    return ReportTable(
        "Objects by caller", ("caller", "protocol", "state", "objects", "MB"), cells, notes=_note_if_empty(cells)
    )


def _tabulate_jobs(store: Store, since: float) -> ReportTable:
    with store.look() as db:
        rows = db.execute(select(jobs).where(jobs.c.created > since)).mappings().all()
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["rule"], row["state"]].append(dict(row))
    cells = []
    for (rule, state), found in sorted(groups.items()):
        waits = [row["ended"] - row["received"] for row in found if row["ended"]]
        quantiles = [f"{q:.1f}" for q in np.quantile(waits, (0.5, 0.95))] if waits else ["", ""]
        cells.append((rule, state, str(len(found)), *quantiles))
    columns = ("rule", "state", "jobs", "median s from the last image", "95 %")
    return ReportTable("Jobs by rule", columns, tuple(cells), notes=_note_if_empty(cells))


def _tabulate_refused(store: Store, since: float) -> ReportTable:
    """Images by rule, check and reason; numbers in a reason are taken out, so that alike reasons stand together."""
    counts: Counter[tuple[str, str, str]] = Counter()
    with store.look() as db:
        for rule, left_out in db.execute(select(jobs.c.rule, jobs.c.left_out).where(jobs.c.created > since)):
            for one in json.loads(left_out):
                # an earlier report has the finding
                if one["door"] == DELETED:
                    continue
                counts[rule, one["door"], one["reason"].split(", in training")[0].rstrip("0123456789.e+- ")] += 1
    cells = tuple((*key, str(count)) for key, count in counts.most_common(50))
    return ReportTable(
        "Images without a finding", ("rule", "check", "reason", "images"), cells, notes=_note_if_empty(cells)
    )


def _tabulate_untaken(store: Store, since: float) -> ReportTable:
    """Studies that no rule takes: no job is about them, so nothing else on the page would say that they came."""
    query = select(studies.c.reason).where(studies.c.ended > since, studies.c.reason.startswith(NO_RULE))
    with store.look() as db:
        counts = Counter(reason.removeprefix(NO_RULE).lstrip("; ") for (reason,) in db.execute(query))
    cells = tuple((reason, str(count)) for reason, count in counts.most_common(50))
    return ReportTable("Studies that no rule takes", ("why", "studies"), cells, notes=_note_if_empty(cells))


def _tabulate_sent(store: Store, since: float) -> ReportTable:
    columns = (outbox.c.destination, results.c.kind, outbox.c.state)
    with store.look() as db:
        query = select(*columns, func.count(), func.max(outbox.c.attempts), func.max(outbox.c.sent - outbox.c.created))
        query = query.join(results, outbox.c.result == results.c.id).where(outbox.c.created > since)
        rows = db.execute(query.group_by(*columns).order_by(*columns)).all()
    cells = tuple((r[0], r[1], r[2], str(r[3]), str(r[4]), "" if r[5] is None else f"{r[5]:.0f}") for r in rows)
    heads = ("destination", "kind", "state", "objects", "most attempts", "longest s")
    return ReportTable("Results by destination", heads, cells, notes=_note_if_empty(cells))


def _build_drift_section(store: Store, rule: str, gate: Gate) -> Section:
    tables = []
    for watched in watch_rule(store, rule, gate, most_windows=4):
        if not watched.windows:
            continue
        newest = watched.windows[-1][1]
        cells = tuple(
            (one.measure, one.statistic, f"{one.value:.3f}", f"{one.limit:.3f}", "beyond" if one.beyond else "")
            for one in newest
        )
        moved = ", ".join(watched.moved) or "none"
        tables.append(
            ReportTable(
                f"Newest of {count_noun(len(watched.windows), 'window')} against {watched.against}",
                ("measure", "statistic", "value", "limit", "now"),
                cells,
                strong=tuple((i, 4) for i, one in enumerate(newest) if one.beyond),
                notes=(f"n = {max((one.n for one in newest), default=0)} images; alarms: {moved}.",),
            )
        )
    why = () if tables else ("Not yet: a window has 200 images, and this site's own reference its first 1,000.",)
    return Section(f"What has moved: {rule}", why, tuple(tables))


@dataclass(frozen=True)
class _Calls:
    """What a rule's run said of each study: the largest share of each class, and the classes called of its images."""

    shares: Mapping[str, Mapping[str, float]]
    called: Mapping[str, set[str]]


@dataclass(frozen=True)
class _Omission:
    """What the tables of right calls leave out, or count in a way that has to be known."""

    count: int
    what: str
    examples: Sequence[str]

    def describe(self, examples: bool = False) -> str:
        """A sentence; with examples for the person at the machine, without them for a page that is passed on."""
        named = f", e.g. {', '.join(map(repr, self.examples[:3]))}" if examples and self.examples else ""
        return f"{self.what.format(self.count)}{named}."


def _collect_calls(store: Store, rule: str, since: float) -> _Calls:
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    called: dict[str, set[str]] = defaultdict(set)
    with store.look() as db:
        query = select(jobs.c.study_uid, readings.c.measures).join(jobs, readings.c.job == jobs.c.id)
        for study, text in db.execute(query.where(readings.c.rule == rule, readings.c.at > since)):
            measures = json.loads(text)
            called[study] |= {measures["predicted"]} if "predicted" in measures else set()
            for name, value in measures.items():
                if name.startswith("p("):
                    shares[study][name[2:-1]] = max(value, shares[study].get(name[2:-1], 0.0))
    return _Calls(shares, called)


def _find_omissions(store: Store, calls: Iterable[_Calls], answers: Mapping[str, str]) -> list[_Omission]:
    """Answers that meet no judged study, judged studies that meet no answer, and labels that are no class."""
    judged, classes = set[str](), set[str]()
    for one in calls:
        judged |= set(one.shares)
        classes |= {name for share in one.shares.values() for name in share}
    with store.look() as db:
        known = {row[0] for row in db.execute(select(objects.c.study_uid).distinct())}
    strange = [study for study in answers if study not in judged and study not in known]
    unjudged = [study for study in answers if study not in judged and study in known]
    unanswered = sorted(judged - set(answers))
    foreign = [label for study, label in answers.items() if study in judged and label not in classes]
    found = (
        _Omission(
            len(strange),
            f"{{}} of {count_noun(len(answers), 'answer')} are about studies that this node does not know",
            strange,
        ),
        _Omission(
            len(unjudged),
            f"{{}} of {count_noun(len(answers), 'answer')} are about studies without a prediction "
            "in this period (refused, waiting, or judged before it)",
            unjudged,
        ),
        _Omission(
            len(unanswered),
            f"{{}} of {count_noun(len(judged), 'judged study', 'judged studies')} have no answer",
            unanswered,
        ),
        _Omission(
            len(foreign),
            "{} answers of judged studies are no class of any run and count as without each finding",
            list(dict.fromkeys(foreign)),
        ),
    )
    return [one for one in found if one.count]


def _tabulate_right_calls(rule: str, calls: _Calls, answers: Mapping[str, str]) -> ReportTable:
    """What the run said of each study (its surest image of a class) against the reports."""
    shares, called = calls.shares, calls.called
    cells = []
    for name in sorted({name for one in shares.values() for name in one if not is_normal(name)}):
        judged = [study for study in shares if study in answers]
        ill = [study for study in judged if answers[study] == name]
        well = [study for study in judged if answers[study] != name]
        hits, quiet = sum(name in called[s] for s in ill), sum(name not in called[s] for s in well)
        cells.append(
            (
                name,
                format_wilson(hits, len(ill)),
                format_wilson(quiet, len(well)),
                *_compare_calibration(judged, ill, shares, name),
            )
        )
    heads = ("finding", "sensitivity (95 %)", "specificity (95 %)", "mean probability", "share in the reports (95 %)")
    return ReportTable(f"{rule} against the reports", heads, tuple(cells), notes=_note_if_empty(cells))


def _compare_calibration(
    judged: Sequence[str], ill: Sequence[str], shares: Mapping[str, Mapping[str, float]], name: str
) -> tuple[str, str]:
    mean = f"{np.mean([shares[study].get(name, 0.0) for study in judged]):.2f}" if judged else "none"
    return mean, format_wilson(len(ill), len(judged))


def _count(store: Store, since: float) -> tuple[int, int, int]:
    with store.look() as db:
        query = select(jobs.c.state, func.count()).where(jobs.c.created > since).group_by(jobs.c.state)
        counts = {row[0]: row[1] for row in db.execute(query)}
    waiting = sum(counts.get(state, 0) for state in ("waiting", "running", "failed"))
    return counts.get("done", 0), counts.get("dead", 0), waiting


def _note_if_empty(cells: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What stands below a table without rows, so that nobody takes it for one that did not load."""
    return () if cells else ("None in this period.",)


def _format_day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))
