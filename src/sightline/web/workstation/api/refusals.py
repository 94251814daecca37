"""Every error as `{message, remedy}` with its status; never a trace, never a path of the server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sightline.errors import SightlineError, UnreadableFile
from sightline.web.workstation.accounts.passwords import PasswordRefused
from sightline.web.workstation.accounts.readers import AccountRefused
from sightline.web.workstation.api.guard import TooLong, describe_too_long
from sightline.web.workstation.marks.operations import OperationRefused
from sightline.web.workstation.reading.outcomes import OutcomeRefused
from sightline.web.workstation.reading.tasks import TaskRefused
from sightline.web.workstation.reading.worklist import QuestionRefused
from sightline.web.workstation.service import NotFound
from sightline.web.workstation.store.log import LogConflict

_log = logging.getLogger("sightline.workstation")


class RefusedRequest(SightlineError):
    """A request that is refused.

    Attributes:
        status: as of HTTP.
        headers: to send with it.
        more: what else the answer says.
    """

    def __init__(
        self, status: int, message: str, remedy: str = "", *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(message, remedy)
        self.status, self.headers, self.more = status, dict(headers or {}), more


def describe_refusal(error: SightlineError) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, what else the answer says, and headers of an error."""
    if isinstance(error, RefusedRequest):
        return error.status, error.more, error.headers
    if isinstance(error, OperationRefused):
        return error.status, {"field": error.field, "op": error.op}, {}
    if isinstance(error, TaskRefused):
        return error.status, {"field": error.field}, {}
    if isinstance(error, OutcomeRefused):
        return error.status, {"field": error.field}, {}
    if isinstance(error, LogConflict):
        more = {"conflicts": error.conflicts} | ({"state": error.state} if error.state else {})
        return 409, more, {}
    if isinstance(error, NotFound):
        return 404, {}, {}
    if isinstance(error, QuestionRefused):
        return 422, {"field": error.field}, {}
    if isinstance(error, PasswordRefused):
        return 422, {"field": "new"}, {}
    if isinstance(error, AccountRefused):
        return 422, {}, {}
    return (422 if isinstance(error, UnreadableFile) else 409), {}, {}


def register(app: FastAPI) -> None:
    """Make an application answer all errors in this one way."""

    @app.exception_handler(SightlineError)
    def on_ours(request: Request, error: SightlineError) -> JSONResponse:
        status, more, headers = describe_refusal(error)
        body = {"message": error.message, "remedy": error.remedy, **more}
        return JSONResponse(body, status_code=status, headers=headers)

    @app.exception_handler(RequestValidationError)
    def on_form(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        if first["type"] == "json_invalid":
            return JSONResponse({"message": "The request is no JSON.", "remedy": "Load the page again."}, 400)
        body = {"message": f"{field or 'The request'}: {first['msg']}.", "remedy": "Fix this field.", "field": field}
        return JSONResponse(body, 422)

    @app.exception_handler(HTTPException)
    def on_http(request: Request, error: HTTPException) -> JSONResponse:
        words = {404: "There is nothing here.", 405: "This method is not known here."}
        body = {"message": words.get(error.status_code, str(error.detail)), "remedy": "Go back to the worklist."}
        return JSONResponse(body, error.status_code)

    @app.exception_handler(ClientDisconnect)
    def on_gone(request: Request, error: ClientDisconnect) -> Response:
        # a tab was closed in the middle of a request: nobody reads the answer, what it held is kept in the browser
        return Response(status_code=499)

    @app.exception_handler(TooLong)
    def on_length(request: Request, error: TooLong) -> JSONResponse:
        return JSONResponse(dict(zip(("message", "remedy"), describe_too_long(*error.args), strict=True)), 413)

    @app.exception_handler(DBAPIError)
    def on_store(request: Request, error: DBAPIError) -> JSONResponse:
        # the statement and its values are not logged: they may hold what a reader wrote
        _log.error("store: %s", type(error.orig).__name__)
        body = {"message": "The store did not take this.", "remedy": "It is tried again; nothing is lost."}
        return JSONResponse(body, 503, headers={"Retry-After": "2"})

    @app.exception_handler(Exception)
    def on_bug(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s: %s", request.method, request.url.path, type(error).__name__, exc_info=error)
        body = {"message": "The server made a mistake.", "remedy": "Tell whoever runs it to look at its log."}
        return JSONResponse(body, 500)
