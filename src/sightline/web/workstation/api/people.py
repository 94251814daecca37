"""Signing in and out, and what a person's page needs first."""

from __future__ import annotations

import hmac
import json
import math
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import delete, select, update

from sightline import __version__
from sightline.web.workstation.accounts.passwords import check_password, hash_password
from sightline.web.workstation.accounts.readers import (
    Person,
    end_sessions,
    person_of,
    person_of_row,
    reader_named,
    start_session,
)
from sightline.web.workstation.api.refusals import Refused
from sightline.web.workstation.reading.tasks import task_rows
from sightline.web.workstation.service import Workstation
from sightline.web.workstation.store.audit import canonical, write_audit
from sightline.web.workstation.store.database import one_row
from sightline.web.workstation.store.tables import reader, session

router = APIRouter()


def workstation_of(request: Request) -> Workstation:
    """The workstation that the application serves."""
    found: Workstation = request.app.state.workstation
    return found


Desk = Annotated[Workstation, Depends(workstation_of)]


def cookie_name(desk: Workstation) -> str:
    """With TLS a cookie that no other host or path can set."""
    return "__Host-sightline" if desk.options.secure else "sightline"


def signed_in(request: Request, desk: Desk) -> Person:
    """Who asks.

    Raises:
        Refused: 401 without a session, or with one that is over.
    """
    token = request.cookies.get(cookie_name(desk))
    person = person_of(desk.database, token) if token else None
    if person is None:
        raise Refused(401, "You are not signed in, or your session is over.", "Sign in; nothing is lost.")
    return person


Signed = Annotated[Person, Depends(signed_in)]


def require(person: Person, what: str) -> None:
    """Refuse what a role does not allow.

    Raises:
        Refused: 403.
    """
    if what not in person.may:
        raise Refused(403, "Your role does not allow this.", "Ask a lead.")


class SignIn(BaseModel):
    """Name and password, or the token of `--alone`."""

    name: str = Field("", max_length=200)
    password: str = Field("", max_length=2000)
    token: str = Field("", max_length=200)


class NewPassword(BaseModel):
    """The old password and a new one."""

    old: str = Field(max_length=2000)
    new: str = Field(max_length=2000)


@router.get("/session")
def get_session(request: Request, desk: Desk) -> dict[str, Any]:
    """Whether one is signed in, and how to sign in."""
    token = request.cookies.get(cookie_name(desk))
    there = token is not None and person_of(desk.database, token) is not None
    return {"signed_in": there, "alone": desk.alone, "secure": desk.options.secure, "version": __version__}


@router.post("/session")
def post_session(given: SignIn, request: Request, desk: Desk) -> JSONResponse:
    """Sign in."""
    address = request.client.host if request.client else ""
    account = f"account {given.name.strip().casefold()}"
    keys = (account, f"address {address}")
    wait = desk.pauses.wait_s(*keys)
    if wait > 0:
        seconds = math.ceil(wait)
        more = {"retry_after_s": seconds}
        raise Refused(429, "Too many tries.", f"Wait {seconds} s.", headers={"Retry-After": str(seconds)}, **more)
    if given.token:
        return _with_token(given.token, request, desk, keys)
    with desk.database.reading() as connection:
        row = reader_named(connection, given.name)
    open_row = row if row is not None and row["disabled_at"] is None and row["hash"] else None
    right, new_hash = check_password(None if open_row is None else open_row["hash"], given.password)
    if not right or open_row is None:
        desk.pauses.failed(*keys)
        with desk.database.writing() as connection:
            who = row["id"] if row is not None else "unknown"
            write_audit(connection, who, "sign in failed", "session", {})
        raise Refused(401, "Name or password is wrong.", "Try again, or ask a lead for a new password.")
    desk.pauses.succeeded(account)
    if new_hash is not None:
        with desk.database.writing() as connection:
            connection.execute(update(reader).where(reader.c.id == open_row["id"]).values(hash=new_hash))
    return _started(person_of_row(open_row), request, desk)


def _with_token(token: str, request: Request, desk: Workstation, keys: tuple[str, ...]) -> JSONResponse:
    if not sign_in_alone(token, desk):
        desk.pauses.failed(*keys)
        raise Refused(401, "The address was used already, or is of an earlier start.", "Open the address printed last.")
    return _started(desk.alone_person(), request, desk)


def sign_in_alone(token: str, desk: Workstation) -> bool:
    """Whether a token is the one that was printed; it is used up then, and the next one is printed."""
    if desk.token is None or not hmac.compare_digest(token.encode(), desk.token.encode()):
        return False
    fresh = desk.renew_token()
    if desk.options.origins:
        print(f"Signed in. To open it once more: {desk.options.origins[0]}/?token={fresh}", flush=True)
    return True


def _started(person: Person, request: Request, desk: Workstation) -> JSONResponse:
    token = new_session(person, request, desk)
    response = JSONResponse(me_json(desk, person))
    set_cookie(response, desk, token)
    return response


def new_session(person: Person, request: Request, desk: Workstation) -> str:
    """Start a session; its token."""
    address = request.client.host if request.client else ""
    with desk.database.writing() as connection:
        agent = request.headers.get("user-agent", "")
        token = start_session(connection, person.id, address=address, agent=agent)
        write_audit(connection, person.id, "sign in", "session", {})
    return token


def set_cookie(response: Response, desk: Workstation, token: str) -> None:
    """The session's cookie: not for scripts, not for other sites."""
    response.set_cookie(
        cookie_name(desk), token, httponly=True, secure=desk.options.secure, samesite="strict", path="/"
    )


@router.delete("/session", status_code=204)
def delete_session(request: Request, person: Signed, desk: Desk) -> Response:
    """Sign out: all sessions of the account end."""
    with desk.database.writing() as connection:
        end_sessions(connection, person.id)
        write_audit(connection, person.id, "sign out", "session", {})
    response = Response(status_code=204)
    response.delete_cookie(cookie_name(desk), path="/", secure=desk.options.secure, httponly=True, samesite="strict")
    return response


@router.get("/me")
def get_me(person: Signed, desk: Desk) -> dict[str, Any]:
    """What the page needs first."""
    return me_json(desk, person)


def me_json(desk: Workstation, person: Person) -> dict[str, Any]:
    """Reader, settings, rights, cohort, tasks, runs."""
    with desk.database.reading() as connection:
        everything = "plan" in person.may or "adjudicate" in person.may
        tasks = task_rows(connection, reader_id=None if everything else person.id)
        counts = desk.counts(connection)
    cohort = {"name": desk.cohort.name, "classes": list(desk.classes), **counts}
    return {
        "reader": {"id": person.id, "name": person.name, "display": person.display, "role": person.role},
        "alone": desk.alone, "settings": dict(person.settings), "may": list(person.may), "cohort": cohort,
        "tasks": tasks, "runs": desk.runs_json(), "dissection": desk.dissection_json(), "version": __version__,
        "schema": desk.row["schema"],
    }  # fmt: skip


@router.patch("/me/settings")
async def patch_settings(request: Request, person: Signed, desk: Desk) -> dict[str, Any]:
    """Merge settings at the top level; null takes one away."""
    try:
        given = json.loads(await request.body())
        if not isinstance(given, dict):
            raise ValueError
        merged = {k: v for k, v in {**person.settings, **given}.items() if v is not None}
        text = canonical(merged)
    except (ValueError, OverflowError, RecursionError):
        raise Refused(400, "An object of settings was expected.", "Send JSON.") from None
    if len(text) > 65_536:
        raise Refused(413, "The settings are too long.", "Keep them below 64 kB.")
    with desk.database.writing() as connection:
        connection.execute(update(reader).where(reader.c.id == person.id).values(settings=text))
    return {"settings": merged}


@router.post("/me/password", status_code=204)
def post_password(given: NewPassword, person: Signed, desk: Desk) -> Response:
    """Change one's password; other sessions end."""
    with desk.database.reading() as connection:
        row = one_row(connection, select(reader).where(reader.c.id == person.id))
    wait = desk.pauses.wait_s(f"account {person.name.casefold()}")
    right = wait <= 0 and check_password(row["hash"] or None, given.old)[0]
    if not right:
        desk.pauses.failed(f"account {person.name.casefold()}")
        raise Refused(422, "The old password is wrong.", "Type it again.", field="old")
    hashed = hash_password(given.new)
    with desk.database.writing() as connection:
        connection.execute(update(reader).where(reader.c.id == person.id).values(hash=hashed))
        connection.execute(
            delete(session).where(session.c.reader == person.id, session.c.token_sha256 != person.session)
        )
        write_audit(connection, person.id, "change password", person.id, {})
    return Response(status_code=204)
