"""Who may ask, from where, how much; and what every answer carries."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fastapi import FastAPI, Request
from support.workstation import BASE, HEADERS, Page, box, open_studio, scribble, small_cohort

from sightline.web.workstation.api import app as application
from sightline.web.workstation.api.guard import LEAST_FREE_BYTES, MARK_BYTES
from sightline.web.workstation.api.refusals import register
from sightline.web.workstation.marks.operations import POINTS_AT_MOST


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"X-Sightline": None}, 403),
        ({"Host": "evil.example:8765"}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 200),
    ],
)
def test_a_change_needs_our_page(studio, change, status):
    client = studio.client("ada")
    headers = {**HEADERS, "Content-Type": "application/json"} | change
    client.headers = {k: v for k, v in headers.items() if v is not None}
    answer = client.request("PATCH", "/api/v1/me/settings", content=b'{"theme": "dark"}')
    assert answer.status_code == status
    if status != 200:
        assert set(answer.json()) >= {"message", "remedy"}


def test_reading_needs_a_known_host_too(studio):
    client = studio.client("ada")
    assert client.get("/api/v1/me", headers={"Host": "rebound.example"}).status_code == 400


def test_every_answer_carries_the_headers(studio):
    client = studio.client("ada")
    for answer in (client.get("/"), client.get("/api/v1/me"), client.get("/nothing"), client.post("/api/v1/session")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


def test_long_bodies_are_refused_before_they_are_read(studio):
    client = studio.client("ada")
    answer = client.patch(
        "/api/v1/me/settings",
        content=b'{"a":"' + b"x" * 1_100_000 + b'"}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    read = studio.reads("ada")[0]["read"]
    body = b'{"ops": ["' + b"x" * MARK_BYTES + b'"]}'
    answer = client.post(f"/api/v1/reads/{read}/ops", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["message"]) == (413, "The request is longer than 8 MiB.")

    def pieces():
        for _ in range(20):
            yield b" " * 100_000

    answer = client.patch("/api/v1/me/settings", content=pieces(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["message"]) == (413, "The request is longer than 1 MiB.")


def test_the_longest_scribble_that_may_be_is_taken(tmp_path):
    cohort = small_cohort(tmp_path / "cohort", studies=1)
    large = tuple(replace(case, shape=(60_000, 60_000)) for case in cohort)
    studio = open_studio(tmp_path, replace(cohort, cases=large))
    studio.add("ada")
    studio.plan("first", ["ada"])
    client, read = studio.client("ada"), studio.reads("ada")[0]["read"]
    image = client.get(f"/api/v1/reads/{read}").json()["study"]["images"][0]["key"]
    page, half = Page(), POINTS_AT_MOST // 2
    # as many digits as the page writes, after a hundred days
    strokes = [{"pointer": "mouse", "t0_ms": 0.1, "points": [[-12345.678, -12345.678, 8640000000.1, 0.1234]] * half}]
    mark = scribble() | {"lines": [[[-12345.678, -12345.678]] * half], "strokes": strokes}
    answer = page.send(client, read, [page.op("add", image, {"mark": mark})])
    assert answer.status_code == 200, answer.text
    assert 1024**2 < len(answer.request.content) < MARK_BYTES
    mark["lines"].append([[1.0, 2.0]])
    for kind, body in (
        ("add", {"mark": mark}),
        ("change", {"mark": mark["id"], "set": {"lines": mark["lines"], "strokes": strokes}}),
    ):
        answer = page.send(client, read, [page.op(kind, image, body)])
        assert answer.status_code == 413
        assert "at most 200,000 points in its lines and strokes together; got 200,001" in answer.json()["message"]
    studio.desk.close()


def test_a_full_disk_stores_nothing_and_says_so(studio, monkeypatch):
    read = studio.client("ada").get("/api/v1/worklist").json()["rows"][0]
    image = studio.client("ada").get(f"/api/v1/reads/{read['read']}").json()["study"]["images"][0]["key"]
    monkeypatch.setattr(application, "measure_free_bytes", lambda keep: LEAST_FREE_BYTES - 1)
    client = studio.client("ada")
    page = Page()
    answer = page.send(client, read["read"], [page.op("add", image, {"mark": box()})])
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "30"
    assert client.get(f"/api/v1/reads/{read['read']}/ops").json()["ops"] == []


def test_errors_hold_no_trace_and_no_path(studio, tmp_path, monkeypatch):
    client = studio.client("ada")
    image = client.get(f"/api/v1/reads/{studio.reads('ada')[0]['read']}").json()["study"]["images"][0]["key"]
    for case in studio.desk.cohort:
        case.image.write_bytes(b"no picture")
    texts = [client.get(f"/api/v1/images/{image}/pixels").text]
    monkeypatch.setattr(type(studio.desk), "image_row", lambda *a: 1 / 0)
    broken = client.get(f"/api/v1/images/{image}/pixels")
    assert broken.status_code == 500
    for text in [*texts, broken.text]:
        assert str(tmp_path) not in text
        assert "Traceback" not in text
        assert "ZeroDivision" not in text
        assert "remedy" in text


def test_the_pages_paths_cannot_leave_their_folder(studio):
    client = studio.client("ada")
    for path in ("/static/../api/app.py", "/static/%2e%2e/service.py", "/static/..%2f..%2fservice.py"):
        answer = client.get(path)
        assert answer.status_code in (400, 404), path
        assert "class Workstation" not in answer.text
    assert BASE.startswith("http://127.0.0.1")


def test_a_tab_that_is_closed_in_the_middle_of_a_request_is_no_fault(caplog):
    app = FastAPI()
    register(app)

    @app.post("/events")
    async def events(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/events", "raw_path": b"/events", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "server": ("x", 80), "client": ("y", 1),
        "root_path": "",
    }  # fmt: skip
    # in a thread of its own: a browser test of the same worker may have left a loop running in this one
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, app(scope, receive, send)).result()
    assert sent[0]["status"] == 499
    assert caplog.records == []
