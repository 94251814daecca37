"""What the command line does with plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from sightline.data.datasets.folder.format import read_head
from sightline.errors import SightlineError
from sightline.io.tables import read_table
from sightline.web.workstation.accounts.readers import AccountRefused, find_reader
from sightline.web.workstation.reading.plans import Plan, deal
from sightline.web.workstation.reading.progress import measure_progress
from sightline.web.workstation.reading.reader_study import deal_study
from sightline.web.workstation.reading.tasks import add_task, build_spec
from sightline.web.workstation.reading.worth import compute_worth
from sightline.web.workstation.store.database import open_database, read_all_rows, read_first_row, read_one_row
from sightline.web.workstation.store.tables import study, task, workstation

WHO = "command line"


def plan_reads(
    keep: Path,
    database: str | None,
    name: str,
    spec: Mapping[str, Any],
    plan: Plan,
    aids: tuple[float, str | None] | None,
    listed: Path | None = None,
) -> int:
    """Deal reads of a task, which is made where there is none; how many.

    Args:
        keep: folder of the store.
        database: a database URL.
        name: of the task.
        spec: of the task, where it is made.
        plan: how to deal; its readers are names.
        aids: for a reader study: share of wrong advice and the run; None for another task.
        listed: csv with a column study_id, for the order `listed`; where `chosen_by` says random, the read is flagged.

    Raises:
        SightlineError: an unknown reader, or numbers that mean nothing.
    """
    with open_database(keep, database) as store, store.writing() as connection:
        ids = []
        for one in plan.readers:
            row = find_reader(connection, one)
            if row is None:
                raise AccountRefused(f"There is no reader {one!r}.", "Look at `sightline readers list`.")
            ids.append(row["id"])
        classes = read_classes(connection)
        there = read_first_row(connection, select(task.c.id).where(task.c.name == name))
        task_id = there["id"] if there else add_task(connection, name, "mark", build_spec(spec, classes), who=WHO)
        if aids is not None:
            return deal_study(connection, task_id, ids, wrong_share=aids[0], run=aids[1], seed=plan.seed, who=WHO)
        worth = compute_worth(connection) if plan.order == "active" else None
        if plan.order == "active" and not worth:
            raise SightlineError(
                "The active order needs a run's opinion of the studies.", "Open the workstation with --run RUN first."
            )
        order = None if listed is None else read_listed_studies(connection, listed)
        return deal(connection, task_id, replace(plan, readers=ids, worth=worth, listed=order), who=WHO)


def read_listed_studies(connection: Any, path: Path) -> list[tuple[str, bool]]:
    """Keys of the studies that a csv lists (`cohort suggest` writes one), and whether each was drawn at random.

    A study with several listed pictures stands where the first of them does.

    Args:
        connection: to the store.
        path: csv with a column study_id; `chosen_by`, where it has one, says `random` of those drawn at random.

    Raises:
        SightlineError: no study is listed, or one that the store does not know.
    """
    rows = read_table(path, ["study_id"])
    keys = dict(connection.execute(select(study.c.study_id, study.c.key)).tuples().all())
    strange = sorted({row["study_id"] for row in rows} - set(keys))
    if strange or not rows:
        named = f"studies that are not here, e.g. {strange[:3]}" if strange else "no study"
        raise SightlineError(f"{path} lists {named}.", "List study_id as the cohort of this store has them.")
    order: dict[str, bool] = {}
    for row in rows:
        order.setdefault(keys[row["study_id"]], row["chosen_by"] == "random")
    return list(order.items())


def list_reads(keep: Path, database: str | None) -> list[str]:
    """A line a task and reader: reads done and left, and the median of active seconds a study."""
    with open_database(keep, database) as store, store.reading() as connection:
        lines = ["task\treader\tsubmitted\tleft\twarm-up\tmedian active s\tunsure clocks"]
        for row in read_all_rows(connection, select(task).order_by(task.c.made_at)):
            for one in measure_progress(connection, row["id"])["rows"]:
                left = one["open"] + one["started"] + one["returned"]
                median = "" if one["active_s_median"] is None else f"{one['active_s_median']:.1f}"
                cells = (row["name"], one["reader"], one["submitted"], left, one["warm_up"], median, one["unsure"])
                lines.append("\t".join(str(cell) for cell in cells))
    return lines


def is_cohort_there(connection: Connection) -> bool:
    """Whether the folder of the store's cohort is where it was."""
    return (Path(read_one_row(connection, select(workstation))["cohort_path"]) / "cohort.json").is_file()


def read_classes(connection: Connection) -> list[str]:
    """The classes of the cohort, from its folder; where it was moved, those of its studies."""
    row = read_one_row(connection, select(workstation))
    folder = Path(row["cohort_path"])
    if (folder / "cohort.json").is_file():
        found: list[str] = read_head(folder)["classes"]
        return found
    return sorted(set(connection.execute(select(study.c.label)).scalars()))
