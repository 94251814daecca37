"""What runs looked at beside what readers marked, gaze, units and results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, HTMLResponse
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from sqlalchemy import Connection, select

from sightline.structures.case import is_normal
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.web.workstation.accounts.readers import Person
from sightline.web.workstation.api.guard import REPORT_CSP
from sightline.web.workstation.api.images import build_images_json
from sightline.web.workstation.api.people import Desk, Signed, require
from sightline.web.workstation.api.refusals import RefusedRequest
from sightline.web.workstation.exchange.readings import draw_mask, find_shape, list_finished_reads
from sightline.web.workstation.pictures.maps import build_map_json, read_map
from sightline.web.workstation.pictures.scores import score_class_map
from sightline.web.workstation.reading.blinding import list_seen_tasks, may_see_study
from sightline.web.workstation.reading.outcomes import LETTERS
from sightline.web.workstation.reading.units import build_units_json, name_unit, write_concepts
from sightline.web.workstation.reading.worklist import choose_title, find_title_in_queue
from sightline.web.workstation.service import NotFound, Workstation
from sightline.web.workstation.store.audit import write_audit
from sightline.web.workstation.store.database import read_all_rows, read_first_row
from sightline.web.workstation.store.tables import image, map_

router = APIRouter()


class UnitName(BaseModel):
    """What an expert calls a unit."""

    text: str = Field(max_length=500)


def _require_seen(connection: Connection, person: Person, study_key: str) -> None:
    if not may_see_study(connection, person, study_key):
        raise NotFound("There is nothing to see of this study yet.", "Submit your own read of it first.")


def _require_seen_image(desk: Workstation, connection: Connection, person: Person, key: str) -> dict[str, Any]:
    row = dict(desk.image_row(connection, key))
    _require_seen(connection, person, row["study"])
    return row


def _choose_title(desk: Workstation, connection: Connection, person: Person, row: Mapping[str, Any]) -> str:
    """What a study is called: by readers as their queue calls it, by others as the list of studies does."""
    own = find_title_in_queue(connection, person.id, row["key"]) if person.role == "reader" else None
    return own or choose_title(row["ordinal"], row["study_id"], shows_ids=desk.alone)


def build_raw_response(array: NDArray[Any], headers: dict[str, str]) -> Response:
    """Numbers as they are, little endian."""
    kind = array.dtype.kind + str(array.dtype.itemsize)
    more = {"X-Shape": ",".join(str(n) for n in array.shape), "X-Dtype": kind, "Cache-Control": "private, no-cache"}
    body = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return Response(body, media_type="application/octet-stream", headers={**more, **headers})


@router.get("/images/{key}/maps")
def get_maps(key: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """Which maps there are of an image."""
    require(person, "compare")
    with desk.database.reading() as connection:
        _require_seen_image(desk, connection, person, key)
        rows = read_all_rows(connection, select(map_).where(map_.c.image == key))
    return {"maps": [build_map_json(row) for row in rows if json.loads(row["shape"])]}


@router.get("/images/{key}/maps/{run}/{label}")
def get_map(key: str, run: str, label: int, person: Signed, desk: Desk) -> Response:
    """One class's map, the numbers as stored."""
    require(person, "compare")
    with desk.database.reading() as connection:
        _require_seen_image(desk, connection, person, key)
        row = read_first_row(connection, select(map_).where(map_.c.image == key, map_.c.run == run))
    cells = None if row is None or not json.loads(row["shape"]) else read_map(desk.options.keep, row, label)
    if row is None or cells is None:
        raise NotFound("There is no such map.", "Look at the list of maps.")
    affine = json.loads(row["frame"])["affine"]
    return build_raw_response(cells, {"X-Frame": ",".join(repr(x) for x in affine)})


@router.get("/compare/{key}")
def get_compare(key: str, person: Signed, desk: Desk, task: str | None = None) -> dict[str, Any]:
    """A study's marks, and what each run said and looked at, with numbers beside chance."""
    require(person, "compare")
    with desk.database.reading() as connection:
        row = desk.study_row(connection, key)
        _require_seen(connection, person, key)
        title = _choose_title(desk, connection, person, row)
        images = [dict(one) for one in desk.images_of(connection, key)]
        seen = list_seen_tasks(connection, person, key)
        reads = list_finished_reads(connection, task_id=task or None, studies=[key])
        reads = [one for one in reads if seen is None or one.row["task"] in seen]
        rows = read_all_rows(
            connection, select(map_).join(image, image.c.key == map_.c.image).where(image.c.study == key)
        )
    own = person.role == "reader"
    marks = [
        {
            "who": "me" if one.row["reader"] == person.id else LETTERS[n % 26],
            "read": one.row["id"] if one.row["reader"] == person.id or not own else None,
            "marks": one.fold.live, "label": one.fold.answers.label,
        }
        for n, one in enumerate(reads)
    ]  # fmt: skip
    live = [mark for one in reads for mark in one.fold.live]
    with desk.database.writing() as connection:
        write_audit(connection, person.id, "reveal", key, {"to": person.role, "runs": len({r["run"] for r in rows})})
    runs = [_run_json(desk, run_key, rows, images, live) for run_key in dict.fromkeys(one["run"] for one in rows)]
    return {"study": key, "title": title, "images": build_images_json(desk, images), "marks": marks, "runs": runs}


def _run_json(
    desk: Workstation,
    run_key: str,
    rows: list[dict[str, Any]],
    images: list[dict[str, Any]],
    marks: list[dict[str, Any]],
) -> dict[str, Any]:
    own = [row for row in rows if row["run"] == run_key]
    each = [json.loads(row["probabilities"]) for row in own]
    p = [sum(column) / len(each) for column in zip(*each, strict=True)]
    names, state = json.loads(own[0]["classes"]), desk.maps.run_of(run_key)
    found = {}
    for row in own:
        if not json.loads(row["shape"]):
            continue
        image_row = next(one for one in images if one["key"] == row["image"])
        shape = find_shape(desk, image_row)
        entry = build_map_json(row) | {"numbers": []}
        for role in ("focus", "finding"):
            there = [m for m in marks if m["image"] == row["image"] and m["role"] == role]
            if not there or shape is None or len(shape) != 2:
                continue
            inside = draw_mask(there, shape)
            for one in entry["classes"]:
                cells = read_map(desk.options.keep, row, one["index"])
                if cells is not None:
                    score = score_class_map(cells, entry["frame"], inside)
                    entry["numbers"].append({"class": one["name"], "role": role, "style": "mask", **score})
        found[row["image"]] = entry
    title = run_key if state is None else state.title
    top = max(range(len(p)), key=p.__getitem__)
    findings = [index for index, name in enumerate(names) if not is_normal(name)] or list(range(len(p)))
    return {
        "key": run_key, "title": title, "classes": names, "label": names[top], "probabilities": p, "images": found,
        "finding": max(findings, key=p.__getitem__),
    }  # fmt: skip


@router.get("/images/{key}/view")
def get_view(key: str, run: str, person: Signed, desk: Desk) -> Response:
    """The picture as a run's network saw it: padded, resized, equalised, with its frame."""
    require(person, "compare")
    with desk.database.reading() as connection:
        row = desk.image_row(connection, key)
    state = desk.maps.run_of(run)
    if state is None:
        raise NotFound("There is no such run.", "Look at the list of runs.")
    planes, frame = desk.network_view(state, row)
    scaled = np.rint(np.clip(planes, 0.0, 1.0) * 65535.0).astype(np.uint16)
    affine = np.asarray(frame.to_source)[:-1].ravel()
    return build_raw_response(scaled, {"X-Frame": ",".join(repr(float(x)) for x in affine), "X-Range": "0,1"})


def _read_recordings(desk: Workstation, row: dict[str, Any]) -> list[Gaze]:
    return [region for region in desk.case_of(row).regions if isinstance(region, Gaze)]


@router.get("/gaze/{key}")
def get_gaze(key: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """Every recording of gaze on an image, sample by sample."""
    require(person, "gaze")
    with desk.database.reading() as connection:
        row = _require_seen_image(desk, connection, person, key)
    made = []
    for n, gaze in enumerate(_read_recordings(desk, row)):
        table = np.column_stack(gaze.numbers)
        made.append(
            {
                "id": str(n), "reader": gaze.tag.reader or LETTERS[n % 26], "kind": gaze.kind,
                "px_per_deg": gaze.px_per_deg, "spread_px": gaze.spread_px, "samples": table.tolist(),
            }
        )  # fmt: skip
    return {"recordings": made}


@router.get("/gaze/{key}/density")
def get_density(
    key: str, person: Signed, desk: Desk, recording: int = 0, sigma_px: float | None = None,
    degrees: float | None = None, start: Annotated[float, Query(alias="from")] = 0.0,
    stop: Annotated[float, Query(alias="to")] = math.inf, rows: Annotated[int, Query(ge=1, le=2048)] = 128,
    columns: Annotated[int, Query(ge=1, le=2048)] = 128,
) -> Response:  # fmt: skip
    """Gaze as a density over the picture, at a spread in pixels or in degrees."""
    require(person, "gaze")
    with desk.database.reading() as connection:
        row = _require_seen_image(desk, connection, person, key)
    found, shape = _read_recordings(desk, row), find_shape(desk, row)
    if not 0 <= recording < len(found) or shape is None:
        raise NotFound("There is no such recording.", "Look at the list of recordings.")
    gaze = found[recording].between(start, stop)
    if degrees is not None:
        if gaze.px_per_deg is None:
            raise RefusedRequest(422, "How many pixels a degree is, is not known.", "Give sigma_px.", field="degrees")
        sigma_px = degrees * gaze.px_per_deg
    if sigma_px is not None and not 0.0 < sigma_px < 1e6:
        raise RefusedRequest(422, "A spread is a positive length.", "Give sigma_px above 0.", field="sigma_px")
    density = gaze.density(Frame.of_image(shape).resize((rows, columns)), sigma_px)
    return build_raw_response(density, {})


@router.get("/units")
def get_units(person: Signed, desk: Desk) -> dict[str, Any]:
    """The units of a network, to be named."""
    require(person, "units")
    with desk.database.reading() as connection:
        return build_units_json(desk.dissection, connection, person)


@router.get("/units/{unit}/gallery")
def get_gallery(unit: int, person: Signed, desk: Desk) -> FileResponse:
    """What a unit responds to most."""
    require(person, "units")
    path = None if desk.dissection is None else desk.dissection.gallery(unit)
    if path is None:
        raise NotFound("This unit has no gallery.", "Look at another.")
    return FileResponse(path, media_type="image/png")


@router.post("/units/{unit}/names", status_code=201)
def post_name(unit: int, given: UnitName, person: Signed, desk: Desk) -> dict[str, Any]:
    """Name a unit; a later name of one's own follows the earlier one."""
    require(person, "units")
    with desk.database.writing() as connection:
        name_unit(desk.dissection, connection, person, unit, given.text)
        found = build_units_json(desk.dissection, connection, person)
    return next(row for row in found["units"] if row["unit"] == unit)


@router.post("/units/concepts")
def post_concepts(person: Signed, desk: Desk) -> dict[str, int]:
    """Write names into concepts.yaml; what stands there is never changed."""
    require(person, "plan")
    with desk.database.writing() as connection:
        return write_concepts(desk.dissection, connection, person)


@router.get("/results")
def get_results(person: Signed, desk: Desk) -> dict[str, Any]:
    """Tables of evaluations and reports of the runs, as their files say."""
    require(person, "results")
    return desk.results_json()


@router.get("/results/{run}/report")
def get_report(run: str, person: Signed, desk: Desk) -> HTMLResponse:
    """A run's report, without scripts, for a frame of its own."""
    require(person, "results")
    path = desk.report_of(run)
    if path is None:
        raise NotFound("There is no such report.", "Evaluate the run with sightline.")
    return HTMLResponse(path.read_text(encoding="utf-8"), headers={"Content-Security-Policy": REPORT_CSP})


@router.get("/studies/{key}")
def get_study(key: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """A study's images, for whoever may see what was said of it."""
    require(person, "compare")
    with desk.database.reading() as connection:
        row = desk.study_row(connection, key)
        _require_seen(connection, person, key)
        title = _choose_title(desk, connection, person, row)
        images = desk.images_of(connection, key)
    return {"study": key, "title": title, "images": build_images_json(desk, images)}
