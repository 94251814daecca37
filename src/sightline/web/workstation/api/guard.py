"""What stands before every request: known hosts, our own origin, bounded bodies, room on the disk, strict headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
# a report is a file of its own, shown without scripts in a frame of ours
REPORT_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"
_HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
# the longest mark that the page can make fits into the second
ORDINARY_BYTES, MARK_BYTES = 1024 * 1024, 8 * 1024 * 1024
LEAST_FREE_BYTES = 200 * 1024 * 1024
_SAFE = ("GET", "HEAD")


class Guard:
    """ASGI middleware that refuses before anything is read.

    Args:
        app: what it guards.
        hosts: names by which the server may be asked (DNS rebinding).
        origins: where requests that change something may come from.
        free_bytes: room left on the store's disk.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: tuple[str, ...], origins: tuple[str, ...], free_bytes: Callable[[], int]
    ) -> None:
        self.app, self.free_bytes = app, free_bytes
        self.hosts = tuple(host.lower() for host in hosts)
        self.origins = tuple(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._find_refusal(scope, headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        limit = MARK_BYTES if scope["path"].endswith("/ops") or scope["path"].endswith("/outcomes") else ORDINARY_BYTES
        if headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")) > limit:
            await _refuse(send, 413, *describe_too_long(limit))
            return
        await self.app(scope, _bound_body(receive, limit), _add_headers(send))

    def _find_refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str] | None:
        if headers.get("host", "").lower() not in self.hosts:
            return 400, "The server is not known by this name.", "Open the address that it printed."
        if scope["method"] in _SAFE:
            return None
        if scope["method"] not in ("POST", "PUT", "PATCH", "DELETE"):
            return 405, "This method is not known here.", ""
        if headers.get("origin", "").lower() not in self.origins:
            return 403, "The request does not come from this page.", "Use the workstation's own page."
        if "x-sightline" not in headers:
            return 403, "The request does not come from this page.", "Send the header X-Sightline."
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if has_body and kind != "application/json":
            return 415, "JSON was expected.", "Send Content-Type: application/json."
        if scope["method"] != "DELETE" and self.free_bytes() < LEAST_FREE_BYTES:
            return (
                503,
                "The disk of the server is nearly full: nothing is stored.",
                "Make room, then it goes on by itself.",
            )
        return None


class TooLong(Exception):
    """A body that grew beyond its limit, in bytes, while it was read."""


def describe_too_long(limit: int) -> tuple[str, str]:
    """What is said of a request of more bytes than may be, and what to do."""
    return f"The request is longer than {limit >> 20} MiB.", "Send less at once: a long mark as several."


def _bound_body(receive: Receive, limit: int) -> Receive:
    total = 0

    async def receive_bounded() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise TooLong(limit)
        return message

    return receive_bounded


def _add_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in there]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, message: str, remedy: str) -> None:
    body = json.dumps({"message": message, "remedy": remedy}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"30"))
    sending = _add_headers(send)
    await sending({"type": "http.response.start", "status": status, "headers": headers})
    await sending({"type": "http.response.body", "body": body})
