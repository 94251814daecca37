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
    build_person,
    end_sessions,
    find_person,
    find_reader,
    start_session,
)
from sightline.web.workstation.api.refusals import RefusedRequest
from sightline.web.workstation.reading.tasks import list_task_rows
from sightline.web.workstation.service import Workstation
from sightline.web.workstation.store.audit import format_canonical, write_audit
from sightline.web.workstation.store.database import read_one_row
from sightline.web.workstation.store.tables import reader, session

router = APIRouter()


def get_workstation(request: Request) -> Workstation:
    """The workstation that the application serves."""
    found: Workstation = request.app.state.workstation
    return found


Desk = Annotated[Workstation, Depends(get_workstation)]


def choose_cookie_name(desk: Workstation) -> str:
    """With TLS a cookie that no other host or path can set."""
    return "__Host-sightline" if desk.options.secure else "sightline"


def require_person(request: Request, desk: Desk) -> Person:
    """Who asks.

    Raises:
        Refused: 401 without a session, or with one that is over.
    """
    token = request.cookies.get(choose_cookie_name(desk))
    person = find_person(desk.database, token) if token else None
    if person is None:
        raise RefusedRequest(401, "You are not signed in, or your session is over.", "Sign in; nothing is lost.")
    return person


Signed = Annotated[Person, Depends(require_person)]


def require(person: Person, what: str) -> None:
    """Refuse what a role does not allow.

    Raises:
        Refused: 403.
    """
    if what not in person.may:
        raise RefusedRequest(403, "Your role does not allow this.", "Ask a lead.")


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
    token = request.cookies.get(choose_cookie_name(desk))
    there = token is not None and find_person(desk.database, token) is not None
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
        raise RefusedRequest(
            429, "Too many tries.", f"Wait {seconds} s.", headers={"Retry-After": str(seconds)}, **more
        )
    if given.token:
        return _set_token_cookie(given.token, request, desk, keys)
    with desk.database.reading() as connection:
        row = find_reader(connection, given.name)
    open_row = row if row is not None and row["disabled_at"] is None and row["hash"] else None
    right, new_hash = check_password(None if open_row is None else open_row["hash"], given.password)
    if not right or open_row is None:
        desk.pauses.record_failure(*keys)
        with desk.database.writing() as connection:
            who = row["id"] if row is not None else "unknown"
            write_audit(connection, who, "sign in failed", "session", {})
        raise RefusedRequest(401, "Name or password is wrong.", "Try again, or ask a lead for a new password.")
    desk.pauses.record_success(account)
    if new_hash is not None:
        with desk.database.writing() as connection:
            connection.execute(update(reader).where(reader.c.id == open_row["id"]).values(hash=new_hash))
    return _start_signed_in(build_person(open_row), request, desk)


def _set_token_cookie(token: str, request: Request, desk: Workstation, keys: tuple[str, ...]) -> JSONResponse:
    if not sign_in_alone(token, desk):
        desk.pauses.record_failure(*keys)
        raise RefusedRequest(
            401, "The address was used already, or is of an earlier start.", "Open the address printed last."
        )
    return _start_signed_in(desk.alone_person(), request, desk)


def sign_in_alone(token: str, desk: Workstation) -> bool:
    """Whether a token is the one that was printed; it is used up then, and the next one is printed."""
    if desk.token is None or not hmac.compare_digest(token.encode(), desk.token.encode()):
        return False
    fresh = desk.renew_token()
    if desk.options.origins:
        print(f"Signed in. To open it once more: {desk.options.origins[0]}/?token={fresh}", flush=True)
    return True


def _start_signed_in(person: Person, request: Request, desk: Workstation) -> JSONResponse:
    token = start_new_session(person, request, desk)
    response = JSONResponse(build_me_json(desk, person))
    set_cookie(response, desk, token)
    return response


def start_new_session(person: Person, request: Request, desk: Workstation) -> str:
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
        choose_cookie_name(desk), token, httponly=True, secure=desk.options.secure, samesite="strict", path="/"
    )


@router.delete("/session", status_code=204)
def delete_session(request: Request, person: Signed, desk: Desk) -> Response:
    """Sign out: all sessions of the account end."""
    with desk.database.writing() as connection:
        end_sessions(connection, person.id)
        write_audit(connection, person.id, "sign out", "session", {})
    response = Response(status_code=204)
    response.delete_cookie(
        choose_cookie_name(desk), path="/", secure=desk.options.secure, httponly=True, samesite="strict"
    )
    return response


@router.get("/me")
def get_me(person: Signed, desk: Desk) -> dict[str, Any]:
    """What the page needs first."""
    return build_me_json(desk, person)


def build_me_json(desk: Workstation, person: Person) -> dict[str, Any]:
    """Reader, settings, rights, cohort, tasks, runs."""
    with desk.database.reading() as connection:
        everything = "plan" in person.may or "adjudicate" in person.may
        tasks = list_task_rows(connection, reader_id=None if everything else person.id)
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
        text = format_canonical(merged)
    except (ValueError, OverflowError, RecursionError):
        raise RefusedRequest(400, "An object of settings was expected.", "Send JSON.") from None
    if len(text) > 65_536:
        raise RefusedRequest(413, "The settings are too long.", "Keep them below 64 kB.")
    with desk.database.writing() as connection:
        connection.execute(update(reader).where(reader.c.id == person.id).values(settings=text))
    return {"settings": merged}


@router.post("/me/password", status_code=204)
def post_password(given: NewPassword, person: Signed, desk: Desk) -> Response:
    """Change one's password; other sessions end."""
    with desk.database.reading() as connection:
        row = read_one_row(connection, select(reader).where(reader.c.id == person.id))
    wait = desk.pauses.wait_s(f"account {person.name.casefold()}")
    right = wait <= 0 and check_password(row["hash"] or None, given.old)[0]
    if not right:
        desk.pauses.record_failure(f"account {person.name.casefold()}")
        raise RefusedRequest(422, "The old password is wrong.", "Type it again.", field="old")
    hashed = hash_password(given.new)
    with desk.database.writing() as connection:
        connection.execute(update(reader).where(reader.c.id == person.id).values(hash=hashed))
        connection.execute(
            delete(session).where(session.c.reader == person.id, session.c.token_sha256 != person.session)
        )
        write_audit(connection, person.id, "change password", person.id, {})
    return Response(status_code=204)
