"""Ten and thirty readers at once: how long a save takes when each saves once a second and fetches pictures.

The readers are threads of one process on the same machine as the server, which takes its part of the processors too.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

# a reader fetches a picture every so many saves
PICTURE_EVERY = 5


class Client:
    """A reader's browser as the server sees it: one connection, one cookie."""

    def __init__(self, address: str, cookie: str) -> None:
        self.address, self.host = address, urlsplit(address).netloc
        self.cookie = cookie
        self.connection = HTTPConnection(self.host, timeout=120)

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """An answer's body.

        Raises:
            AssertionError: the server refused.
        """
        headers = {
            "X-Sightline": "1", "Origin": self.address, "Content-Type": "application/json", "Cookie": self.cookie,
            "Accept-Encoding": "identity",
        }  # fmt: skip
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, f"/api/v1{path}", data, headers)
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise AssertionError((method, path, answer.status, said[:300]))
        return said


def sign_in(address: str, name: str, password: str) -> str:
    """The cookie of somebody who signed in."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=120)
    headers = {"X-Sightline": "1", "Origin": address, "Content-Type": "application/json"}
    connection.request("POST", "/api/v1/session", json.dumps({"name": name, "password": password}), headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise AssertionError((name, answer.status))
    return str(answer.headers["Set-Cookie"]).split(";")[0]


def box_op(client: str, n: int, image: str) -> dict[str, Any]:
    """An operation as the page makes it: a box."""
    mark = {
        "id": str(uuid.uuid4()), "kind": "box", "role": "focus", "label": None, "name": "", "source": "drawn",
        "start": [10.0 + n % 50, 12.0], "stop": [90.0 + n % 50, 80.0],
    }  # fmt: skip
    at = {"at_ms": time.time() * 1000.0, "mono_ms": 1000.0 * n}
    body = {"id": str(uuid.uuid4()), "client": client, "n": n, "kind": "add", "image": image, "body": {"mark": mark}}
    return body | at


def p95(values: list[float]) -> float:
    """The value that 95 % do not exceed."""
    return sorted(values)[int(0.95 * (len(values) - 1))]


def load(address: str, cookies: list[str], seconds: float) -> dict[str, float]:
    """Every reader saves once a second for so long; p95 in seconds of saves and of pictures, and how many there were.

    Raises:
        AssertionError: the server refused something, or an operation is not there once.
    """
    saves: list[float] = []
    pictures: list[float] = []
    faults: list[BaseException] = []
    sent: dict[str, list[str]] = {}
    lock, ready = threading.Lock(), threading.Barrier(len(cookies))

    def work(number: int, cookie: str) -> None:
        try:
            client, own = Client(address, cookie), str(uuid.uuid4())
            row = json.loads(client.ask("GET", "/worklist?limit=1"))["rows"][0]["read"]
            image = json.loads(client.ask("GET", f"/reads/{row}"))["study"]["images"][0]["key"]
            ready.wait(120)
            begun = time.perf_counter() + number / len(cookies)  # readers do not all save in the same moment
            for n in range(1, max(2, int(seconds)) + 1):
                time.sleep(max(0.0, begun + n - time.perf_counter()))
                op = box_op(own, n, image)
                body = {"ops": [op], "sent_mono_ms": op["mono_ms"], "sent_at_ms": op["at_ms"]}
                at = time.perf_counter()
                client.ask("POST", f"/reads/{row}/ops", body)
                took = time.perf_counter() - at
                fetched = None
                if n % PICTURE_EVERY == 0:
                    at = time.perf_counter()
                    client.ask("GET", f"/images/{image}/pixels")
                    fetched = time.perf_counter() - at
                with lock:
                    saves.append(took)
                    sent.setdefault(row, []).append(op["id"])
                    pictures.extend([] if fetched is None else [fetched])
            ops = json.loads(client.ask("GET", f"/reads/{row}/ops?after=0"))["ops"]
            there = [op["id"] for op in ops if op["client"] == own]
            if sorted(there) != sorted(sent[row]):
                raise AssertionError(f"{len(sent[row])} operations were acknowledged, {len(there)} are there.")
        except BaseException as fault:
            faults.append(fault)
            ready.abort()

    threads = [threading.Thread(target=work, args=(number, cookie)) for number, cookie in enumerate(cookies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return {"save": p95(saves), "picture": p95(pictures) if pictures else 0.0, "saves": float(len(saves))}
