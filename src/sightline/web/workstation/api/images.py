"""Pictures and volumes: what is known of them, and their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from sightline.errors import SightlineError
from sightline.web.workstation.api.people import Desk, Signed, require
from sightline.web.workstation.api.refusals import RefusedRequest
from sightline.web.workstation.pictures.pixels import (
    PackedPixels,
    pack_checked,
    read_display_pixels,
    read_stored_pixels,
)
from sightline.web.workstation.pictures.volumes import WINDOWS, read_slices, read_volume_facts
from sightline.web.workstation.service import Workstation, is_volume_row

router = APIRouter()


def build_images_json(desk: Workstation, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the page knows of a study's images before it fetches them."""
    return [build_image_json(desk, row, number) for number, row in enumerate(rows)]


def build_image_json(desk: Workstation, row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One image: its place, size and spacing; whether it can be shown, and whether it was changed."""
    facts, shape = json.loads(row["facts"]), json.loads(row["shape"])
    unavailable = desk.failures.get(row["key"])
    digest, changed = "", False
    try:
        digest, changed = desk.compare_with_first_look(row)
    except SightlineError as error:
        unavailable = {"message": error.message, "remedy": error.remedy}
    source = facts.get("spacing_source", "")
    at = "unknown" if row["spacing"] is None else "detector" if source.startswith("ImagerPixelSpacing") else "image"
    notes = [word for word, applies in _NOTES if applies(facts)]
    return {
        "key": row["key"], "ordinal": number, "kind": "volume" if is_volume_row(row["shape"], row["path"]) else "image",
        "view": row["view"], "side": row["side"], "rows": row["rows"], "columns": row["columns"], "shape": shape,
        "spacing_mm": None if row["spacing"] is None else json.loads(row["spacing"]), "spacing_at": at,
        "etag": digest[:32], "changed": changed, "unavailable": unavailable,
        "has_gaze": desk.has_gaze(row), "notes": notes,
    }  # fmt: skip


_NOTES = (
    ("lossy", lambda facts: facts.get("lossy_compression", "") in ("01", "1", "yes")),
    ("scaled", lambda facts: bool(facts.get("scaled_from"))),
    ("burnt-in text", lambda facts: facts.get("burned_in_annotation", "").upper() == "YES"),
    ("for processing", lambda facts: facts.get("presentation_intent", "").upper() == "FOR PROCESSING"),
)


def read_packed_pixels(
    desk: Workstation, row: Mapping[str, Any], values: Literal["display", "stored"] = "display"
) -> PackedPixels:
    """An image's numbers, from the cache or the file; a failure is remembered, so that the worklist can say it.

    Raises:
        Refused: 422, it cannot be shown.
    """
    case, name = desk.case_of(row), row["view"] or "the picture"
    try:
        if is_volume_row(row["shape"], row["path"]):
            raise RefusedRequest(422, "This is a volume.", "Ask for its slices.")
        digest, _ = desk.compare_with_first_look(row)
        read = read_display_pixels if values == "display" else read_stored_pixels
        suffix = "px3" if values == "display" else "stored2"
        packed = desk.pixels.get(f"{digest}.{suffix}", lambda: pack_checked(lambda: read(case.image), name))
        stated = json.loads(row["shape"])
        if stated and list(packed.shape[:2]) != stated:
            raise RefusedRequest(
                422, f"The picture has {packed.shape[0]} x {packed.shape[1]} pixels; the cohort states {stated}.",
                "Fix the cohort's table, or restore the picture.",
            )  # fmt: skip
    except SightlineError as error:
        if values == "display":
            desk.failures[row["key"]] = {"message": error.message, "remedy": error.remedy}
        raise
    desk.keep_shape(row, packed.shape[:2])
    desk.failures.pop(row["key"], None)
    return packed


@router.get("/images/{key}")
def get_image(key: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """All that is known of an image, its windows among it."""
    _require_pictures(person)
    with desk.database.reading() as connection:
        row = desk.image_row(connection, key)
    if is_volume_row(row["shape"], row["path"]):
        return build_image_json(desk, row, 0) | {"windows": list(WINDOWS), "stored": False, "dtype": "i2", "facts": {}}
    packed = read_packed_pixels(desk, row)
    facts = packed.more["facts"]
    dicom = "transfer_syntax" in facts
    more: dict[str, Any] = {"windows": [], "stored": dicom, "greyscale": None}
    if dicom:
        block = read_packed_pixels(desk, row, "stored").more["greyscale"]
        more |= {"windows": block["windows"], "greyscale": block}
    own = build_image_json(desk, row, 0)
    own |= {"rows": packed.shape[0], "columns": packed.shape[1], "shape": list(packed.shape[:2])}
    if own["spacing_mm"] is None and packed.more["spacing_mm"] is not None:
        at = "detector" if facts.get("spacing_source", "") == "ImagerPixelSpacing" else "image"
        own |= {"spacing_mm": packed.more["spacing_mm"], "spacing_at": at}
    notes = sorted({*own["notes"], *[word for word, applies in _NOTES if applies(facts)]})
    colour = len(packed.shape) == 3
    return own | more | {"dtype": packed.dtype, "colour": colour, "facts": facts, "notes": notes}


@router.get("/images/{key}/pixels")
def get_pixels(
    key: str, request: Request, person: Signed, desk: Desk, values: Literal["display", "stored"] = "display"
) -> Response:
    """An image's numbers: what the network is given, or what the file stores."""
    _require_pictures(person)
    with desk.database.reading() as connection:
        row = desk.image_row(connection, key)
    packed = read_packed_pixels(desk, row, values)
    more = {}
    if values == "display":
        more["X-Aspect"] = str(packed.more["aspect"])
        if packed.more["spacing_mm"]:
            more["X-Spacing"] = ",".join(str(x) for x in packed.more["spacing_mm"])
    return build_numbers_response(request, packed, more)


def build_numbers_response(request: Request, packed: PackedPixels, more: Mapping[str, str] | None = None) -> Response:
    """Raw numbers, packed where the browser can unpack them; 304 where it has them already."""
    headers = {
        "X-Shape": ",".join(str(n) for n in packed.shape), "X-Dtype": packed.dtype, "ETag": packed.etag,
        "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding", **(more or {}),
    }  # fmt: skip
    if packed.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(packed.data, media_type="application/octet-stream", headers=headers)
    return Response(packed.unpack_bytes(), media_type="application/octet-stream", headers=headers)


@router.get("/volumes/{key}")
def get_volume(key: str, person: Signed, desk: Desk) -> dict[str, Any]:
    """Size, spacing and orientation of a volume."""
    _require_pictures(person)
    with desk.database.reading() as connection:
        row = desk.image_row(connection, key)
    if not is_volume_row(row["shape"], row["path"]):
        raise RefusedRequest(404, "This is no volume.", "Ask for its pixels.")
    facts = read_volume_facts(desk.case_of(row).image)
    desk.keep_shape(row, facts["shape"])
    return facts | {"windows": list(WINDOWS)}


@router.get("/volumes/{key}/slices")
def get_slices(
    key: str, request: Request, person: Signed, desk: Desk, axis: int, index: int, count: int = 1
) -> Response:
    """Whole slices across an axis of a volume, int16."""
    _require_pictures(person)
    with desk.database.reading() as connection:
        row = desk.image_row(connection, key)
    if not is_volume_row(row["shape"], row["path"]) or axis not in (0, 1, 2) or not 1 <= count <= 64:
        raise RefusedRequest(
            422, "A volume has slices across the axes 0, 1 and 2, at most 64 at once.", "", field="axis"
        )
    digest, _ = desk.compare_with_first_look(row)
    name = f"{digest}.{axis}.{index}.{count}.sl1"
    packed = desk.pixels.get(name, lambda: (read_slices(desk.case_of(row).image, axis, index, count), {}))
    return build_numbers_response(request, packed)


def _require_pictures(person: Signed) -> None:
    """A viewer sees results, not pictures."""
    if not {"mark", "gaze"} & set(person.may):
        require(person, "mark")
