"""Reader study: the same studies unaided, with the network's answer, and with answer and map.

Conditions are counterbalanced: the three orders of a Latin square are dealt by turns over studies and readers, so that
each condition comes first, second and third equally often. The next look at a study waits for the wash-out of its task.
Some advice is wrong on purpose; which, only the store knows.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from sightline.errors import SightlineError
from sightline.web.workstation.reading.plans import build_read
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import read_all_rows
from sightline.web.workstation.store.tables import image, map_, read, study, task

CONDITIONS = ("unaided", "answer", "answer and map")
# each row an order of the three; each condition stands once in each place
SQUARE = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


class StudyRefused(SightlineError):
    """A reader study that cannot be dealt."""


def choose_advice(connection: Connection, run: str | None, seed: int, wrong_share: float) -> dict[str, dict[str, Any]]:
    """What the network says of each study, some of it wrong on purpose.

    The probabilities of a study are the mean over its images. Wrong advice names the likeliest class that is not the
    study's own, with the probabilities of the two exchanged, so that it looks like any other; advice that is wrong by
    itself stays as it is.

    Raises:
        StudyRefused: the run has said nothing yet, or a share outside 0 to 1.
    """
    if not 0.0 <= wrong_share <= 1.0:
        raise StudyRefused(f"The share of wrong advice lies from 0 to 1; got {wrong_share}.", "Give e.g. 0.2.")
    found = select(map_.c.run, map_.c.probabilities, map_.c.classes, image.c.study, study.c.label)
    found = found.join(image, image.c.key == map_.c.image).join(study, study.c.key == image.c.study)
    rows = read_all_rows(connection, found.order_by(study.c.ordinal))
    runs = list(dict.fromkeys(row["run"] for row in rows))
    chosen = run if run is not None else (runs[0] if runs else None)
    rows = [row for row in rows if row["run"] == chosen]
    if not rows:
        raise StudyRefused("No run has predictions for these studies.", "Open the workstation with --run RUN first.")
    each: dict[str, list[list[float]]] = defaultdict(list)
    labels, classes = {}, [str(name) for name in json.loads(rows[0]["classes"])]
    for row in rows:
        each[row["study"]].append(json.loads(row["probabilities"]))
        labels[row["study"]] = row["label"]
    keys = list(each)
    drawn = random.Random(hashlib.sha256(f"{seed}:wrong".encode()).digest()).sample(
        keys, round(wrong_share * len(keys))
    )
    advice = {}
    for key, several in each.items():
        p = [sum(column) / len(several) for column in zip(*several, strict=True)]
        top = max(range(len(p)), key=p.__getitem__)
        on_purpose = key in drawn and classes[top] == labels[key]
        if on_purpose:
            other = max((i for i in range(len(p)) if i != top), key=p.__getitem__)
            p[top], p[other] = p[other], p[top]
            top = other
        advice[key] = {
            "run": chosen, "label": classes[top], "probabilities": p, "wrong_on_purpose": on_purpose,
            "wrong": classes[top] != labels[key],
        }  # fmt: skip
    return advice


def deal_study(
    connection: Connection,
    task_id: str,
    readers: Sequence[str],
    *,
    wrong_share: float,
    run: str | None,
    seed: int,
    who: str,
) -> int:
    """Deal three reads of each study to each reader; how many are new.

    Args:
        connection: of a writing transaction.
        task_id: of the task.
        readers: ids of accounts.
        wrong_share: share of studies with advice that is wrong on purpose.
        run: whose advice; None: the first.
        seed: of orders and of wrong advice.
        who: plans it.

    Raises:
        StudyRefused: nothing to advise with.
    """
    advice = choose_advice(connection, run, seed, wrong_share)
    keys, now, rows = list(advice), format_now(), []
    there = {
        tuple(row)
        for row in connection.execute(select(read.c.reader, read.c.study, read.c["pass"]).where(read.c.task == task_id))
    }
    for position, reader_id in enumerate(readers):
        ordinal = len([1 for one, _, _ in there if one == reader_id])
        for number in (1, 2, 3):
            dice = random.Random(hashlib.sha256(f"{seed}:{reader_id}:{number}".encode()).digest())
            for key in dice.sample(keys, len(keys)):
                condition = CONDITIONS[SQUARE[(keys.index(key) + position) % 3][number - 1]]
                aid = {"condition": condition, **advice[key]}
                if (reader_id, key, number) not in there:
                    rows.append(build_read(task_id, key, reader_id, number, ordinal, now, aid=aid))
                    ordinal += 1
    for start in range(0, len(rows), 500):
        connection.execute(read.insert(), rows[start : start + 500])
    connection.execute(update(task).where(task.c.id == task_id).values(passes=3, order="random", seed=seed))
    wrong = sum(one["wrong_on_purpose"] for one in advice.values())
    detail = {
        "readers": len(readers),
        "studies": len(keys),
        "wrong on purpose": wrong,
        "seed": seed,
        "reads": len(rows),
    }
    write_audit(connection, who, "plan reader study", task_id, detail)
    return len(rows)
