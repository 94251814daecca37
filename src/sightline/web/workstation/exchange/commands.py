"""What the command line does with marks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from sightline.errors import count_noun
from sightline.web.workstation.exchange.agreement_report import write_agreement
from sightline.web.workstation.exchange.coco import export_coco
from sightline.web.workstation.exchange.cohort_export import export_folder
from sightline.web.workstation.exchange.dicom import export_dicom
from sightline.web.workstation.exchange.imports import import_marks, write_rejected
from sightline.web.workstation.launch import read_studies
from sightline.web.workstation.service import Workstation, WorkstationOptions
from sightline.web.workstation.store.audit import write_audit
from sightline.web.workstation.store.database import open_database, read_one_row
from sightline.web.workstation.store.tables import workstation

WHO = "command line"


@contextmanager
def open_desk(keep: Path, cohort: Path | None, database: str | None) -> Iterator[Workstation]:
    """The workstation of a store, for a command, with the cohort it belongs to.

    Args:
        keep: folder of the store.
        cohort: folder of the cohort, where it was moved.
        database: a database URL.
    """
    with open_database(keep, database) as store, store.reading() as connection:
        place = Path(read_one_row(connection, select(workstation))["cohort_path"])
    desk = Workstation(read_studies(cohort or place), WorkstationOptions(keep, database))
    try:
        yield desk
    finally:
        desk.close()


def export_marks(
    keep: Path, cohort: Path | None, database: str | None, destination: Path, save_as: str, whose: str
) -> str:
    """Export; one line that says what was written."""
    with open_desk(keep, cohort, database) as desk:
        if save_as == "coco":
            count, left = export_coco(desk, destination, whose)
            message = f"{destination}: {count_noun(count, 'annotation')}; {count_noun(left, 'line')} in left_out.csv"
            counts = {"annotations": count, "left out": left}
        elif save_as == "dicom":
            count, left = export_dicom(desk, destination, whose)
            message = (
                f"{destination}: {count_noun(count, 'object')} (SEG and SR), see objects.csv; "
                f"{count_noun(left, 'line')} in left_out.csv"
            )
            counts = {"objects": count, "left out": left}
        else:
            done = export_folder(desk, destination, whose)
            message = (
                f"{destination}: {count_noun(done.images, 'image')}, {done.marked} of them marked "
                f"with {count_noun(done.marks, 'mark')}, "
                f"{count_noun(done.reads, 'read')} in readings/reads.csv; {len(done.left_out)} left out"
            )
            counts = {"images": done.images, "marks": done.marks, "left out": len(done.left_out)}
        with desk.database.writing() as connection:
            write_audit(connection, WHO, "export", save_as, {"readers": whose, **counts})
    return message


def import_into(
    keep: Path, cohort: Path | None, database: str | None, source: Path, how: str, reader: str,
    role_and_task: tuple[str, str],
) -> tuple[str, int]:  # fmt: skip
    """Import; one line that says what came in, and the exit code: 1 where nothing did."""
    role, task_name = role_and_task
    with open_desk(keep, cohort, database) as desk:
        count, rejects = import_marks(desk, source, how, reader, role=role, task_name=task_name)
        place = keep / "rejects.csv"
        write_rejected(place, rejects)
    more = f"; {len(rejects)} could not be used, see {place}" if rejects else ""
    return f"{count_noun(count, 'mark')} came in as finished reads of {reader}{more}", 0 if count else 1


def agree(keep: Path, cohort: Path | None, database: str | None, out: Path, *, names: bool) -> str:
    """Write the report on agreement; one line that says what it holds."""
    with open_desk(keep, cohort, database) as desk:
        count = write_agreement(desk, out, names=names)
    why = "" if count else "; no study was read by two readers of one task, nor twice by one"
    return f"{out}: {count_noun(count, 'number')} in agreement.csv, and report.html{why}"
