"""DICOMweb: STOW in, and QIDO and WADO of the node's own results. It is no archive: sources are the PACS's."""

from __future__ import annotations

import hmac
import json
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydicom.dataset import Dataset
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from sightline.errors import SightlineError, UnreadableFile
from sightline.web.node.configuration import DicomWebListener
from sightline.web.node.database import results, studies
from sightline.web.node.intake.acceptance import UID_TEXT, AcceptedObject, Intake, Origin, UnstorableObject
from sightline.web.node.intake.multipart import BodyError, PartWriter, read_boundary
from sightline.web.node.spool import SpoolFull

JSON = "application/dicom+json"
STUDY_WORDS = (
    "SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "PatientName", "PatientID", "StudyInstanceUID",
    "StudyID", "StudyDescription",
)  # fmt: skip
SERIES_WORDS = ("Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
INSTANCE_WORDS = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "NumberOfFrames")
LEAST_TOKEN = 16
QIDO_LIMIT, QIDO_MOST = 200, 1000
PARTS = 'multipart/related; type="application/dicom"'
_BYTES = 'multipart/related; type="application/octet-stream"'
_S, _E, _I = "/studies/{study}", "/series/{series}", "/instances/{instance}"
# method, path, service, what is taken, what is answered: docs/dicom_conformance.md is written from it, and a test
# compares it with the routes below
ENDPOINTS = (
    ("POST", "/studies", "STOW-RS", f"{PARTS}; objects of any study", JSON),
    ("POST", _S, "STOW-RS", f"{PARTS}; objects of this study", JSON),
    ("POST", f"{_S}/complete", "own", "nothing: no more images of the study will come", "nothing"),
    ("GET", "/studies", "QIDO-RS", "query words", f"{JSON}, study level"),
    ("GET", f"{_S}/series", "QIDO-RS", "query words", f"{JSON}, series level"),
    ("GET", "/series", "QIDO-RS", "query words", f"{JSON}, series level"),
    ("GET", "/instances", "QIDO-RS", "query words", f"{JSON}, instance level"),
    ("GET", f"{_S}/instances", "QIDO-RS", "query words", f"{JSON}, instance level"),
    ("GET", f"{_S}{_E}/instances", "QIDO-RS", "query words", f"{JSON}, instance level"),
    *(
        one
        for path in (_S, f"{_S}{_E}", f"{_S}{_E}{_I}")
        for one in (
            ("GET", path, "WADO-RS", "", f"{PARTS}, in the stored transfer syntax"),
            ("GET", f"{path}/metadata", "WADO-RS", "", f"{JSON}, without pixels"),
        )
    ),
    (
        "GET",
        f"{_S}{_E}{_I}/frames/{{frame}}",
        "WADO-RS",
        "one frame's number",
        f"{_BYTES}, uncompressed whole bytes only",
    ),
)
HTTP_STATUSES = {
    200: "all stored (STOW), found (QIDO, WADO)",
    202: "some stored; the answer names the failed ones with their reasons",
    204: "no match (QIDO); taken (complete)",
    400: "a broken multipart, no UID, or limit or offset that are no numbers",
    401: "no bearer token, or an unknown one",
    404: "no result of this node, no such frame, no open study of that UID",
    406: "a frame that is compressed or not of whole bytes: retrieve the instance",
    409: "none stored; the answer names each with its reason",
    413: "more bytes or parts than allowed",
    415: "another type than " + PARTS,
    503: "disk low or storing failed; Retry-After 60 s",
}


def read_tokens(path: Path) -> dict[str, str]:
    """Tokens by name: a line each, `NAME TOKEN`.

    Raises:
        SightlineError: a line that is none, a token that is too short, or no token at all.
    """
    tokens = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or len(words[1]) < LEAST_TOKEN:
            raise SightlineError(
                f"{path}, line {number}: no NAME TOKEN with a token of at least {LEAST_TOKEN} characters.",
                "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        tokens[words[0]] = words[1]
    if not tokens:
        raise SightlineError(
            f"{path} holds no token: nobody could use the DICOMweb listener.", "Write NAME TOKEN lines."
        )
    return tokens


def build_app(
    listener: DicomWebListener,
    intake: Intake,
    received: Callable[[AcceptedObject, Origin], None],
    refused: Callable[[str, str], None],
) -> FastAPI:
    """The application.

    Args:
        listener: as NODE.yaml says.
        intake: where objects go.
        received: told of each object.
        refused: told of each refusal: reason word, caller.

    Raises:
        SightlineError: the tokens do not read.
    """
    tokens = read_tokens(listener.tokens)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def name_caller(request: Request) -> str:
        word, _, given = request.headers.get("Authorization", "").partition(" ")
        # every token is compared, so that time says nothing about which one was near
        right = [name for name, token in tokens.items() if hmac.compare_digest(given.encode(), token.encode())]
        if word.lower() != "bearer" or not right:
            refused("no token", "")
            raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        return right[0]

    @app.post("/studies")
    @app.post("/studies/{study}")
    async def store(request: Request, study: str = "") -> Response:
        caller = name_caller(request)
        origin = Origin(caller, request.client.host if request.client else "", "stow")
        writer: PartWriter | None = None
        try:
            length = request.headers.get("Content-Length", "0")
            if length.isdigit() and int(length) > listener.most_bytes:
                raise BodyError(413, f"a body of more than {listener.most_bytes} bytes")
            boundary = read_boundary(request.headers.get("Content-Type", ""))
            intake.spool.require_room()
            writer = PartWriter(boundary, intake.spool.incoming, listener.most_bytes, listener.most_parts)
            async for piece in request.stream():
                await to_thread.run_sync(writer.write, piece)
            parts = writer.finish()
            answer, status = await to_thread.run_sync(_store_parts, intake, parts, origin, study, received, refused)
        except BodyError as error:
            refused("bad body", caller)
            raise HTTPException(error.status, error.message) from None
        except (SpoolFull, OSError, DBAPIError):
            refused("disk low", caller)
            raise HTTPException(503, "no room; try later", {"Retry-After": "60"}) from None
        finally:
            if writer is not None:
                writer.close()
        return Response(json.dumps(answer.to_json_dict()), status, media_type=JSON)

    @app.post("/studies/{study}/complete")
    def complete(request: Request, study: str) -> Response:
        """No more images of a study will come: it need not settle."""
        name_caller(request)
        with intake.store.change() as change:
            query = update(studies).where(studies.c.study_uid == study, studies.c.state == "open").values(complete=1)
            if not change.connection.execute(query).rowcount:
                raise HTTPException(404, "no open study of that UID")
            change.note("named complete", study)
        return Response(status_code=204)

    _add_queries(app, intake, name_caller)
    return app


def _store_parts(
    intake: Intake,
    parts: list[Any],
    origin: Origin,
    study: str,
    received: Callable[[AcceptedObject, Origin], None],
    refused: Callable[[str, str], None],
) -> tuple[Dataset, int]:
    """The answer of PS3.18 10.5.3 and its HTTP status: 200 all, 202 some, 409 none stored."""
    stored, failed = [], []
    for part in parts:
        if part.media_type not in ("application/dicom", ""):
            failed.append(_build_failure(0xA900))
            refused("wrong type", origin.caller)
            continue
        try:
            accepted = intake.accept(part.file, origin)
        except (UnreadableFile, UnstorableObject) as error:
            failed.append(_build_failure(0xC000 if isinstance(error, UnreadableFile) else 0xA900))
            refused("unreadable" if isinstance(error, UnreadableFile) else "unstorable", origin.caller)
            continue
        if study and accepted.study_uid != study:
            # it is safe in its own study; the sender named another one
            failed.append(_build_failure(0xA900, accepted))
            refused("another study", origin.caller)
            continue
        received(accepted, origin)
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = accepted.sop_class, accepted.sop_uid
        stored.append(item)
    answer = Dataset()
    if stored:
        answer.ReferencedSOPSequence = stored
    if failed:
        answer.FailedSOPSequence = failed
    return answer, 200 if not failed else 202 if stored else 409


def _build_failure(reason: int, accepted: AcceptedObject | None = None) -> Dataset:
    item = Dataset()
    item.FailureReason = reason
    if accepted is not None:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = accepted.sop_class, accepted.sop_uid
    return item


def _add_queries(app: FastAPI, intake: Intake, caller_of: Callable[[Request], str]) -> None:
    """QIDO and WADO of results; everything else is not found."""

    def find_rows(**uids: str) -> list[Any]:
        if not all(UID_TEXT.fullmatch(uid) for uid in uids.values()):
            raise HTTPException(400, "no UID")
        query = select(results).where(results.c.state == "kept").order_by(results.c.id)
        for column, uid in uids.items():
            query = query.where(results.c[column] == uid)
        with intake.store.look() as db:
            return list(db.execute(query).mappings().all())

    def read(row: Any, *, pixels: bool = False) -> Dataset:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(intake.spool.path(row["sha256"], result=True), stop_before_pixels=not pixels)

    def search(request: Request, level: tuple[str, ...], key: str, **uids: str) -> Response:
        caller_of(request)
        asked = request.query_params
        try:
            offset, limit = int(asked.get("offset", 0)), min(int(asked.get("limit", QIDO_LIMIT)), QIDO_MOST)
        except ValueError:
            raise HTTPException(400, "limit and offset are numbers") from None
        wanted = {word: asked[word] for word in (*STUDY_WORDS, *SERIES_WORDS, *INSTANCE_WORDS) if word in asked}
        found: dict[str, Dataset] = {}
        for row in find_rows(**uids):
            header = read(row)
            if all(str(header.get(word) or "") == value for word, value in wanted.items()):
                picked = Dataset()
                for word in level:
                    if word in header:
                        picked[word] = header[word]
                found.setdefault(str(header[key].value), picked)
        page = list(found.values())[max(0, offset) : max(0, offset) + max(0, limit)]
        if not page:
            return Response(status_code=204)
        return Response(json.dumps([one.to_json_dict() for one in page]), media_type=JSON)

    def retrieve(request: Request, metadata: bool, **uids: str) -> Response:
        caller_of(request)
        found = find_rows(**uids)
        if not found:
            raise HTTPException(404, "no result of this node")
        if metadata:
            return Response(json.dumps([read(row).to_json_dict() for row in found]), media_type=JSON)
        boundary = uuid.uuid4().hex
        return StreamingResponse(
            _iterate_multipart([intake.spool.path(row["sha256"], result=True) for row in found], boundary),
            media_type=f"{PARTS}; boundary={boundary}",
        )

    study_level, series_level = STUDY_WORDS, (*STUDY_WORDS, *SERIES_WORDS)
    instance_level = (*series_level, *INSTANCE_WORDS)

    @app.get("/studies")
    def get_studies(request: Request) -> Response:
        return search(request, study_level, "StudyInstanceUID")

    @app.get("/studies/{study}/series")
    def get_series(request: Request, study: str) -> Response:
        return search(request, series_level, "SeriesInstanceUID", study_uid=study)

    @app.get("/series")
    def get_all_series(request: Request) -> Response:
        return search(request, series_level, "SeriesInstanceUID")

    @app.get("/instances")
    def get_all_instances(request: Request) -> Response:
        return search(request, instance_level, "SOPInstanceUID")

    @app.get("/studies/{study}/instances")
    def get_instances(request: Request, study: str) -> Response:
        return search(request, instance_level, "SOPInstanceUID", study_uid=study)

    @app.get("/studies/{study}/series/{series}/instances")
    def get_series_instances(request: Request, study: str, series: str) -> Response:
        return search(request, instance_level, "SOPInstanceUID", study_uid=study, series_uid=series)

    @app.get("/studies/{study}")
    @app.get("/studies/{study}/metadata")
    def get_study(request: Request, study: str) -> Response:
        return retrieve(request, request.url.path.endswith("/metadata"), study_uid=study)

    @app.get("/studies/{study}/series/{series}")
    @app.get("/studies/{study}/series/{series}/metadata")
    def get_one_series(request: Request, study: str, series: str) -> Response:
        return retrieve(request, request.url.path.endswith("/metadata"), study_uid=study, series_uid=series)

    @app.get("/studies/{study}/series/{series}/instances/{instance}")
    @app.get("/studies/{study}/series/{series}/instances/{instance}/metadata")
    def get_one_instance(request: Request, study: str, series: str, instance: str) -> Response:
        metadata = request.url.path.endswith("/metadata")
        return retrieve(request, metadata, study_uid=study, series_uid=series, sop_uid=instance)

    @app.get("/studies/{study}/series/{series}/instances/{instance}/frames/{frame}")
    def get_frames(request: Request, study: str, series: str, instance: str, frame: int) -> Response:
        caller_of(request)
        found = find_rows(study_uid=study, series_uid=series, sop_uid=instance)
        dataset = read(found[0], pixels=True) if found else Dataset()
        frames = int(dataset.get("NumberOfFrames") or 1)
        if "PixelData" not in dataset or not 1 <= frame <= frames:
            raise HTTPException(404, "no such frame")
        if dataset.file_meta.TransferSyntaxUID.is_compressed or dataset.BitsAllocated % 8:
            raise HTTPException(406, "retrieve the whole instance")
        size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        pixels = dataset.PixelData[(frame - 1) * size : frame * size]
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        return Response(
            head + pixels + f"\r\n--{boundary}--\r\n".encode(),
            media_type=f"{_BYTES}; boundary={boundary}",
        )


def _iterate_multipart(files: list[Path], boundary: str) -> Iterator[bytes]:
    for file in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with file.open("rb") as stream:
            while piece := stream.read(256 * 1024):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
