"""A reader study's numbers and its file for iMRMC."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from sightline.errors import RunError
from sightline.io.files import write_text
from sightline.metrics.agreement.automation_bias import AdvisedAnswer, measure_automation_bias
from sightline.metrics.estimate import Estimate
from sightline.metrics.readers.study import ReaderStudy
from sightline.web.workstation.exchange.readings import FinishedRead, list_finished_reads
from sightline.web.workstation.reading.commands import is_cohort_there, read_classes
from sightline.web.workstation.reading.reader_study import CONDITIONS
from sightline.web.workstation.store.database import open_database
from sightline.web.workstation.store.tables import study as study_table


def pair_advised_answers(reads: Sequence[FinishedRead], truths: dict[str, str]) -> list[AdvisedAnswer]:
    """Pairs of an unaided and an aided answer of the same reader to the same study.

    Args:
        reads: finished reads of one reader study.
        truths: class of each study, by its id.
    """
    by_key: dict[tuple[str, str, str], tuple[FinishedRead, dict[str, Any]]] = {}
    for one in reads:
        if one.row["aid"] is not None and one.fold.answers.label is not None:
            aid = json.loads(one.row["aid"])
            by_key[(one.reader, one.row["study"], aid["condition"])] = (one, aid)
    pairs = []
    for (reader, study, condition), (one, aid) in by_key.items():
        before = by_key.get((reader, study, CONDITIONS[0]))
        if condition == CONDITIONS[0] or before is None:
            continue
        first = before[0]
        seconds = [None if x.time.unsure or not x.time.active_s else x.time.active_s for x in (first, one)]
        pairs.append(
            AdvisedAnswer(
                reader, one.row["patient_id"], truths[one.row["study_id"]], aid["label"], str(first.fold.answers.label),
                str(one.fold.answers.label), condition, seconds[0], seconds[1],
            )
        )  # fmt: skip
    return pairs


def measure_bias(
    reads: Sequence[FinishedRead], truths: dict[str, str], *, replicates: int = 2000
) -> dict[str, list[Estimate]]:
    """Automation bias and its companions for each aided condition."""
    pairs = pair_advised_answers(reads, truths)
    aided = [name for name in CONDITIONS[1:] if any(pair.condition == name for pair in pairs)]
    return {
        name: measure_automation_bias([pair for pair in pairs if pair.condition == name], replicates=replicates)
        for name in aided
    }


def format_imrmc(reads: Sequence[FinishedRead], truths: dict[str, str], positive: str) -> str:
    """The input of iMRMC (Gallas et al., version 4): truth rows of reader -1, then reader, case, modality, score.

    The score is the confidence of the answer, negative where the answer is not the positive class.

    Args:
        reads: finished reads of one reader study.
        truths: class of each study, by its id.
        positive: the class that is looked for.
    """
    scored = list_ratings(reads, positive)
    cases = sorted({case for _, case, _, _ in scored})
    sick = sum(truths[case] == positive for case in cases)
    out = io.StringIO()
    out.write("Reader study of the workstation: unaided, with answer, with answer and map\n")
    out.write(f"NR: {len({reader for reader, *_ in scored})}\nN0: {len(cases) - sick}\nN1: {sick}\n")
    out.write(f"NM: {len(CONDITIONS)}\nBEGIN DATA:\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(("-1", case, 0, int(truths[case] == positive)) for case in cases)
    writer.writerows((reader, case, condition, f"{score:g}") for reader, case, condition, score in scored)
    return out.getvalue()


def list_ratings(reads: Sequence[FinishedRead], positive: str) -> list[tuple[str, str, str, float]]:
    """Reader, study, condition and score of each answered read of a reader study, in the order of the reads.

    The score is the confidence of the answer (50 where none was asked for), negative where the answer is not the
    positive class.
    """
    rows = []
    for one in reads:
        if one.row["aid"] is None or one.fold.answers.label is None:
            continue
        sure = 50.0 if one.fold.answers.confidence is None else float(one.fold.answers.confidence)
        score = sure if one.fold.answers.label == positive else -sure
        condition = json.loads(one.row["aid"])["condition"].replace(" ", "_")
        rows.append((one.reader, str(one.row["study_id"]), condition, score))
    return rows


def read_stored_study(
    keep: Path, database: str | None = None, *, task: str | None = None, positive: str | None = None
) -> tuple[ReaderStudy, tuple[str, ...]]:
    """A reader study out of a workstation's store, and what was left out of it, in sentences.

    A study counts where every reader who has finished reads has answered it in every condition that was read; the
    analysis of readers and cases needs them crossed. Warm-up reads do not count.

    Args:
        keep: folder of the store.
        database: a database URL.
        task: name of the task; None: the only reader study.
        positive: class that is looked for; None: the cohort's last.

    Raises:
        StoreError: no store in this folder.
        RunError: no reader study, several, an unknown class, or no study that all have finished.
    """
    with open_database(keep, database) as store, store.reading() as connection:
        reads = [one for one in list_finished_reads(connection) if one.row["aid"] is not None]
        classes, ordered = read_classes(connection), is_cohort_there(connection)
        truths = {
            str(name): str(label)
            for name, label in connection.execute(select(study_table.c.study_id, study_table.c.label))
        }
    names = sorted({str(one.row["task_name"]) for one in reads})
    chosen = task if task is not None else names[0] if len(names) == 1 else None
    if chosen not in names:
        there = f"finished reads of {', '.join(names)}" if names else "no finished read of a reader study"
        raise RunError(f"{keep} holds {there}.", "Name one by --task; `sightline reads plan --study-mode` deals one.")
    if positive is None and not ordered:
        raise RunError(
            f"{keep} belongs to a cohort whose folder is gone: which class is looked for is not known.",
            f"Name it by --positive: one of {', '.join(classes)}.",
        )
    wanted = classes[-1] if positive is None else positive
    if wanted not in classes:
        raise RunError(f"There is no class {wanted!r}.", f"Name one of {', '.join(classes)}.")
    rows = list_ratings([one for one in reads if one.row["task_name"] == chosen], wanted)
    cells, answered = {(row[0], row[2]) for row in rows}, defaultdict(set)
    for reader, case, condition, _ in rows:
        answered[case].add((reader, condition))
    whole = {case for case, has in answered.items() if has == cells}
    if not whole:
        raise RunError(
            f"No study of {chosen!r} was read by every reader in every condition yet.", "Let the readers finish first."
        )
    notes = []
    if len(whole) < len(answered):
        notes.append(f"{len(answered) - len(whole)} of {len(answered)} studies left out: not every reader has read "
                     "them in every condition.")  # fmt: skip
    truth = {case: label == wanted for case, label in truths.items() if case in whole}
    return ReaderStudy.from_calls([row for row in rows if row[1] in whole], truth), tuple(notes)


def write_study(
    reads: Sequence[FinishedRead], truths: dict[str, str], classes: Sequence[str], folder: Path
) -> dict[str, list[Estimate]]:
    """Write `reader_study.json` and one `POSITIVE.imrmc` a class but the first; gives the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    found = measure_bias(reads, truths)
    written = {name: [estimate.to_dict() for estimate in each] for name, each in found.items()}
    write_text(folder / "reader_study.json", json.dumps(written, indent=2) + "\n")
    for n, positive in enumerate(classes[1:], start=1):
        write_text(folder / f"class_{n}.imrmc", format_imrmc(reads, truths, positive))
    return found
