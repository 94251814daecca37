"""Agreement of readers, adjudication, outcomes, exports."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection, select, update

from sightline.errors import SightlineError, quote_command
from sightline.metrics.agreement.report import compute_study_dice
from sightline.metrics.agreement.staple import RULES as MERGE_RULES
from sightline.web.workstation.accounts.readers import Person
from sightline.web.workstation.api.images import build_images_json
from sightline.web.workstation.api.people import Desk, Signed, require
from sightline.web.workstation.api.refusals import RefusedRequest
from sightline.web.workstation.exchange.agreement_report import build_agreement_json, measure_disagreement
from sightline.web.workstation.exchange.coco import export_coco
from sightline.web.workstation.exchange.cohort_export import RULES, export_folder
from sightline.web.workstation.exchange.dicom import export_dicom
from sightline.web.workstation.exchange.readings import (
    FinishedRead,
    build_readings,
    find_shape,
    list_finished_reads,
    merge_marks,
)
from sightline.web.workstation.marks.fold import Fold
from sightline.web.workstation.marks.operations import MarkContext, check_mark
from sightline.web.workstation.marks.regions import build_mark
from sightline.web.workstation.reading.blinding import (
    list_hidden_studies,
    may_see_study,
    select_hidden_studies,
    select_seen_studies,
)
from sightline.web.workstation.reading.outcomes import (
    build_outcome_json,
    check_decision,
    check_merge,
    decide,
    find_latest_outcome,
    find_latest_outcomes,
    letter_reads,
)
from sightline.web.workstation.reading.worklist import choose_title
from sightline.web.workstation.service import NotFound, Workstation, is_volume_row
from sightline.web.workstation.store.audit import format_now, write_audit
from sightline.web.workstation.store.database import read_all_rows, read_first_row
from sightline.web.workstation.store.log import read_fold, reopen
from sightline.web.workstation.store.tables import export, study, task

router = APIRouter()


class Merge(BaseModel):
    """A merge to look at."""

    task: str
    image: str
    how: str


class ReturnedStudy(BaseModel):
    """A study that goes back to its reader."""

    task: str
    letter: str = Field(max_length=1)
    comment: str = Field("", max_length=10_000)


class Decision(BaseModel):
    """What was decided of a study."""

    task: str
    study: str
    how: str
    letter: str | None = Field(None, max_length=1)
    marks: list[dict[str, Any]] = Field(default_factory=list, max_length=1000)
    nothing: bool = False
    label: str | None = None
    comment: str = Field("", max_length=10_000)


class NewExport(BaseModel):
    """What to export."""

    save_as: str = Field("folder", alias="as")
    readers: str = Field("each", max_length=200)


def list_titles(connection: Connection, spec: dict[str, Any] | None = None) -> dict[str, str]:
    """What studies are called outside a queue: their id where ids are shown, else their place in the cohort."""
    rows = connection.execute(select(study.c.key, study.c.study_id, study.c.ordinal))
    shows = bool(spec and spec["shows_ids"])
    return {key: choose_title(ordinal, study_id, shows_ids=shows) for key, study_id, ordinal in rows}


def read_task_spec(connection: Connection, task_id: str) -> dict[str, Any]:
    """The spec of a task.

    Raises:
        NotThere: there is none.
    """
    row = read_first_row(connection, select(task.c.spec).where(task.c.id == task_id))
    if row is None:
        raise NotFound("There is no such task.", "Look at the list of tasks.")
    spec: dict[str, Any] = json.loads(row["spec"])
    return spec


@router.get("/agreement")
def get_agreement(person: Signed, desk: Desk, task: str, names: int = 0) -> dict[str, Any]:
    """How far readers agree in a task; studies that the lead has yet to read are left out."""
    require(person, "agreement")
    with desk.database.reading() as connection:
        spec = read_task_spec(connection, task)
        hidden = list_hidden_studies(connection, person)
        found = build_agreement_json(
            desk, connection, task, names=bool(names), hidden=hidden, titles=list_titles(connection, spec)
        )
    with desk.database.writing() as connection:
        write_audit(connection, person.id, "agreement", task, {"names": bool(names)})
    return found


@router.get("/adjudicate")
def get_adjudications(person: Signed, desk: Desk, task: str) -> dict[str, Any]:
    """Studies that several readers have read, the largest disagreement first; how many wait for one's own reads."""
    require(person, "adjudicate")
    with desk.database.reading() as connection:
        spec = read_task_spec(connection, task)
        hidden = list_hidden_studies(connection, person)
        titles, done = list_titles(connection, spec), find_latest_outcomes(connection, task)
        own: dict[str, list[FinishedRead]] = {}
        for one in list_finished_reads(connection, task_id=task):
            if int(one.row["pass"]) == 1:
                own.setdefault(one.row["study"], []).append(one)
        every = {key: there for key, there in own.items() if len(there) > 1}
        several = {key: there for key, there in every.items() if key not in hidden}
        overlap = {key: _compute_overlap(desk, connection, there) for key, there in several.items()}
    rows = [
        {
            "study": key, "title": titles[key], "state": "done" if key in done else "open", "readers": len(there),
            "disagreement": measure_disagreement(overlap[key], [one.fold.answers.label for one in there]),
        }
        for key, there in several.items()
    ]  # fmt: skip
    return {"rows": sorted(rows, key=lambda row: -float(str(row["disagreement"]))), "hidden": len(every) - len(several)}


def _compute_overlap(desk: Workstation, connection: Connection, reads: list[FinishedRead]) -> float | None:
    """Mean Dice of a study's readers, worked out once for what they have submitted."""
    key = tuple((one.row["id"], one.row["last_seq"]) for one in reads)
    if key not in desk.overlaps:
        found = compute_study_dice(build_readings(desk, connection, reads))
        desk.overlaps[key] = next(iter(found.values()), None)
    return desk.overlaps[key]


def _letter_reads(desk: Workstation, connection: Connection, person: Person, task_id: str, key: str) -> dict[str, str]:
    """Reads of a study by letter, for whoever may see them."""
    require(person, "adjudicate")
    read_task_spec(connection, task_id)
    desk.study_row(connection, key)
    if not may_see_study(connection, person, key):
        raise NotFound("There is no such study.", "Submit your own read of it first.")
    return letter_reads(connection, task_id, key, desk.row["salt"])


@router.get("/adjudicate/{key}")
def get_adjudication(key: str, person: Signed, desk: Desk, task: str) -> dict[str, Any]:
    """Marks of a study without names, in an order that differs from study to study."""
    with desk.database.reading() as connection:
        letters = _letter_reads(desk, connection, person, task, key)
        folds = {letter: read_fold(connection, read_id) for letter, read_id in letters.items()}
        images = desk.images_of(connection, key)
        outcome = build_outcome_json(connection, find_latest_outcome(connection, task, key), letters)
    with desk.database.writing() as connection:
        write_audit(connection, person.id, "reveal", key, {"to": "adjudicator", "task": task})
    marks = [
        {
            "letter": letter, "marks": fold.live, "label": fold.answers.label, "confidence": fold.answers.confidence,
            "nothing": fold.answers.nothing, "quality": list(fold.answers.quality), "comment": fold.answers.comment,
        }
        for letter, fold in folds.items()
    ]  # fmt: skip
    return {"images": build_images_json(desk, images), "marks": marks, "outcome": outcome}


@router.post("/adjudicate/{key}/merge")
def post_merge(key: str, given: Merge, person: Signed, desk: Desk) -> dict[str, list[dict[str, Any]]]:
    """A mask a role and class of all readers' marks on an image, to look at; nothing is stored."""
    if given.how not in MERGE_RULES:
        raise RefusedRequest(422, "There is no such merge.", f"Known: {', '.join(MERGE_RULES)}.", field="how")
    with desk.database.reading() as connection:
        letters = _letter_reads(desk, connection, person, given.task, key)
        row = desk.image_row(connection, given.image)
        shape = find_shape(desk, row)
        if row["study"] != key or shape is None:
            raise RefusedRequest(404, "There is no such picture in this study.", "Load it again.")
        own = [read_fold(connection, read_id).live for read_id in letters.values()]
        check_merge([mark for marks in own for mark in marks], _find_volumes(desk, connection, key))
    on_it = [[mark for mark in marks if mark["image"] == given.image] for marks in own]
    merged = merge_marks(on_it, shape, given.how, given.how)
    return {"marks": [build_mark(mask, str(uuid.uuid4()), "merged") for mask in merged]}


@router.post("/adjudicate/{key}/return")
def post_return(key: str, given: ReturnedStudy, person: Signed, desk: Desk) -> dict[str, str]:
    """Give a study back to its reader, with a comment."""
    with desk.database.writing() as connection:
        letters = _letter_reads(desk, connection, person, given.task, key)
        if given.letter not in letters:
            raise RefusedRequest(404, "There is no such letter in this study.", "Load it again.")
        reopen(connection, letters[given.letter], who=person.id, comment=given.comment, op_id=str(uuid.uuid4()))
    return {"state": "returned"}


@router.post("/outcomes", status_code=201)
def post_outcome(
    given: Decision, person: Signed, desk: Desk, if_match: Annotated[str | None, Header()] = None
) -> dict[str, Any]:
    """Store what was decided of a study; the readers' marks stay as they are."""
    with desk.database.writing() as connection:
        letters = _letter_reads(desk, connection, person, given.task, given.study)
        spec = read_task_spec(connection, given.task)
        if given.letter is not None and given.letter not in letters:
            raise RefusedRequest(404, "There is no such letter in this study.", "Load it again.")
        if given.label is not None and given.label not in spec["classes"]:
            raise RefusedRequest(
                422, "There is no such class.", f"Classes: {', '.join(spec['classes'])}.", field="label"
            )
        folds = {letter: read_fold(connection, read_id) for letter, read_id in letters.items()}
        marks = _take(folds, given.letter) if given.how == "take" else given.marks
        if given.how != "take":
            _check_marks(marks, desk.build_mark_context(connection, given.study, spec))
        everybody = [mark for fold in folds.values() for mark in fold.live]
        volumes = _find_volumes(desk, connection, given.study)
        check_decision(given.how, marks, everybody, volumes, nothing=given.nothing)
        row = decide(
            connection, given.task, given.study, how=given.how, from_read=letters.get(given.letter or ""),
            marks=marks, label=given.label, comment=given.comment, if_match=if_match, who=person.id,
        )  # fmt: skip
        found = build_outcome_json(connection, row, letters)
    assert found is not None
    return found


def _find_volumes(desk: Workstation, connection: Connection, key: str) -> set[str]:
    return {row["key"] for row in desk.images_of(connection, key) if is_volume_row(row["shape"], row["path"])}


def _take(folds: dict[str, Fold], letter: str | None) -> list[dict[str, Any]]:
    """The marks of one reader as they are now; how they were drawn stays with the read."""
    if letter is None:
        raise RefusedRequest(422, "Say whose marks are taken.", "Choose a letter.", field="letter")
    return [{name: value for name, value in mark.items() if name != "strokes"} for mark in folds[letter].live]


def _check_marks(marks: list[dict[str, Any]], around: MarkContext) -> None:
    for mark in marks:
        key = mark.get("image")
        if not isinstance(key, str) or key not in around.shapes:
            raise RefusedRequest(404, "There is no such picture in this study.", "Load it again.", field="image")
        check_mark({k: v for k, v in mark.items() if k not in ("image", "removed")}, around, around.shapes[key])


@router.get("/exports")
def get_exports(person: Signed, desk: Desk) -> dict[str, Any]:
    """All exports, the newest first."""
    require(person, "export")
    with desk.database.reading() as connection:
        rows = read_all_rows(connection, select(export).order_by(export.c.made_at.desc()).limit(100))
    return {"rows": [_export_json(row) for row in rows]}


@router.get("/exports/{export_id}")
def get_export(export_id: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """How far an export is."""
    require(person, "export")
    with desk.database.reading() as connection:
        row = read_first_row(connection, select(export).where(export.c.id == export_id))
    if row is None:
        raise NotFound("There is no such export.", "Look at the list of exports.")
    return _export_json(row)


def _export_json(row: dict[str, Any]) -> dict[str, Any]:
    how = json.loads(row["how"])
    asked = ("--as", how["as"], "--readers", how["readers"])
    command = quote_command("sightline", "marks", "export", "KEEP", "DEST", *asked)
    return {"id": row["id"], "made_at": row["made_at"], "state": row["state"], "command": command, **how} | json.loads(
        row["result"]
    )


@router.post("/exports", status_code=202)
def post_export(given: NewExport, person: Signed, desk: Desk) -> dict[str, str]:
    """Begin an export; it lies in the folder of marks, and can be fetched as zip.

    A lead who has studies to read yet would see what others said of them: refused here, allowed on the command line.
    """
    require(person, "export")
    if given.save_as not in ("folder", "coco", "dicom"):
        raise RefusedRequest(422, "There is no such form.", "Known: folder, coco, dicom.", field="as")
    with desk.database.writing() as connection:
        if not desk.alone and list_hidden_studies(connection, person):
            raise RefusedRequest(
                409, "You have studies to read yet, and an export holds what others said of them.",
                "Submit them, or let somebody export on the command line.",
            )  # fmt: skip
        export_id = str(uuid.uuid4())
        how = json.dumps({"as": given.save_as, "readers": given.readers})
        row = {
            "id": export_id,
            "made_at": format_now(),
            "by": person.id,
            "how": how,
            "state": "running",
            "result": "{}",
        }
        connection.execute(export.insert().values(**row))
        known = given.readers if given.readers in RULES else "one reader"
        write_audit(connection, person.id, "export", export_id, {"as": given.save_as, "readers": known})
    threading.Thread(target=_export, args=(desk, export_id, given.save_as, given.readers), daemon=True).start()
    return {"id": export_id, "state": "running"}


def _export(desk: Workstation, export_id: str, save_as: str, whose: str) -> None:
    folder = desk.options.keep / "exports" / export_id
    result: dict[str, Any]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if save_as in ("coco", "dicom"):
            count, left = (export_coco if save_as == "coco" else export_dicom)(desk, folder, whose)
            result = {"counts": {"annotations" if save_as == "coco" else "objects": count}, "left_out": left}
        else:
            done = export_folder(desk, folder, whose)
            result = {"counts": {"images": done.images, "marks": done.marks}, "left_out": len(done.left_out)}
        shutil.make_archive(str(folder), "zip", folder)
        state, result = "done", result | {"path_name": f"exports/{export_id}"}
    except SightlineError as error:
        state, result = "failed", {"message": error.message, "remedy": error.remedy}
    except OSError as error:
        state, result = "failed", {"message": f"The disk did not take it ({error.strerror}).", "remedy": "Make room."}
    with desk.database.writing() as connection:
        values = {"state": state, "result": json.dumps(result)}
        connection.execute(update(export).where(export.c.id == export_id).values(**values))


@router.get("/exports/{export_id}/archive")
def get_archive(export_id: str, person: Signed, desk: Desk) -> FileResponse:
    """A finished export as zip."""
    require(person, "export")
    with desk.database.writing() as connection:
        row = read_first_row(connection, select(export).where(export.c.id == export_id))
        if row is None or row["state"] != "done":
            raise NotFound("There is no such finished export.", "Look at the list of exports.")
        if not desk.alone and list_hidden_studies(connection, person):
            raise RefusedRequest(409, "You have studies to read yet.", "Submit them first.")
        write_audit(connection, person.id, "fetch export", export_id, {})
    path: Path = desk.options.keep / "exports" / f"{row['id']}.zip"
    return FileResponse(path, media_type="application/zip", filename=f"marks-{row['made_at'][:10]}.zip")


@router.get("/studies")
def get_studies(
    person: Signed, desk: Desk, q: Annotated[str, Query(max_length=100)] = "", after: int = -1,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:  # fmt: skip
    """Studies that a person may compare or replay: all without open reads of one's own; a reader: of those read."""
    require(person, "compare")
    with desk.database.reading() as connection:
        found = select(study).where(study.c.ordinal > after).order_by(study.c.ordinal)
        if person.role == "reader":
            found = found.where(study.c.key.in_(select_seen_studies(connection, person)))
        else:
            found = found.where(study.c.key.not_in(select_hidden_studies(connection, person)))
        if q.strip().isdecimal():
            found = found.where(study.c.ordinal == int(q) - 1)
        rows = read_all_rows(connection, found.limit(limit + 1))
        images = {row["key"]: desk.images_of(connection, row["key"]) for row in rows[:limit]}
    titles = [choose_title(row["ordinal"], row["study_id"], shows_ids=desk.alone) for row in rows[:limit]]
    shown = [
        {
            "study": row["key"], "title": title, "views": [one["view"] for one in images[row["key"]]],
            "images": [one["key"] for one in images[row["key"]]],
            "has_gaze": any(desk.has_gaze(one) for one in images[row["key"]]),
        }
        for row, title in zip(rows[:limit], titles, strict=True)
    ]  # fmt: skip
    return {"rows": shown, "next": rows[limit - 1]["ordinal"] if len(rows) > limit else None}
