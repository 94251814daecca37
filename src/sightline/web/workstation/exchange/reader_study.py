"""A reader study's numbers and its file for iMRMC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.io.files import write_text
from sightline.metrics.agreement.automation_bias import AdvisedAnswer, automation_bias
from sightline.metrics.estimate import Estimate
from sightline.web.workstation.exchange.readings import FinishedRead
from sightline.web.workstation.reading.reader_study import CONDITIONS


def advised_answers(reads: Sequence[FinishedRead], truths: dict[str, str]) -> list[AdvisedAnswer]:
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


def bias_of_conditions(
    reads: Sequence[FinishedRead], truths: dict[str, str], *, replicates: int = 2000
) -> dict[str, list[Estimate]]:
    """Automation bias and its companions for each aided condition."""
    pairs = advised_answers(reads, truths)
    aided = [name for name in CONDITIONS[1:] if any(pair.condition == name for pair in pairs)]
    return {
        name: automation_bias([pair for pair in pairs if pair.condition == name], replicates=replicates)
        for name in aided
    }


def imrmc_text(reads: Sequence[FinishedRead], truths: dict[str, str], positive: str) -> str:
    """The input of iMRMC (Gallas et al., version 4): truth rows of reader -1, then reader, case, modality, score.

    The score is the confidence of the answer, negative where the answer is not the positive class.

    Args:
        reads: finished reads of one reader study.
        truths: class of each study, by its id.
        positive: the class that is looked for.
    """
    scored = [one for one in reads if one.row["aid"] is not None and one.fold.answers.label is not None]
    cases = sorted({one.row["study_id"] for one in scored})
    readers = sorted({one.reader for one in scored})
    sick = sum(truths[case] == positive for case in cases)
    head = [
        "Reader study of the workstation: unaided, with answer, with answer and map",
        f"NR: {len(readers)}", f"N0: {len(cases) - sick}", f"N1: {sick}", f"NM: {len(CONDITIONS)}", "BEGIN DATA:",
    ]  # fmt: skip
    lines = [f"-1,{case},0,{int(truths[case] == positive)}" for case in cases]
    for one in scored:
        sure = 50.0 if one.fold.answers.confidence is None else one.fold.answers.confidence
        score = sure if one.fold.answers.label == positive else -sure
        condition = json.loads(one.row["aid"])["condition"].replace(" ", "_")
        lines.append(f"{one.reader},{one.row['study_id']},{condition},{score:g}")
    return "\n".join([*head, *lines]) + "\n"


def write_study(
    reads: Sequence[FinishedRead], truths: dict[str, str], classes: Sequence[str], folder: Path
) -> dict[str, list[Estimate]]:
    """Write `reader_study.json` and one `POSITIVE.imrmc` a class but the first; gives the numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    found = bias_of_conditions(reads, truths)
    written = {name: [estimate.to_dict() for estimate in each] for name, each in found.items()}
    write_text(folder / "reader_study.json", json.dumps(written, indent=2) + "\n")
    for n, positive in enumerate(classes[1:], start=1):
        write_text(folder / f"class_{n}.imrmc", imrmc_text(reads, truths, positive))
    return found
