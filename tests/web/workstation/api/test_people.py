"""Signing in: the same answer and time for unknown names, growing pauses, sessions that end."""

import statistics
import time

import pytest
from sqlalchemy import text, update
from starlette.testclient import TestClient
from support.workstation import BASE, HEADERS, PASSWORD, open_studio

from sightline.web.workstation.accounts.passwords import PasswordRefused, Pauses, check_password, hash_password
from sightline.web.workstation.api.app import create_app
from sightline.web.workstation.store.tables import session


def sign_in(client, name, password):
    return client.post("/api/v1/session", json={"name": name, "password": password})


def test_wrong_password_and_unknown_name_get_the_same_answer_in_the_same_time(real_hashes, studio):
    client = studio.client(None)
    times = {}
    answers = set()
    for name in ("ada", "nobody"):
        for _ in range(3):
            studio.desk.pauses = Pauses()
            before = time.perf_counter()
            answer = sign_in(client, name, "wrong password here")
            times.setdefault(name, []).append(time.perf_counter() - before)
            answers.add((answer.status_code, answer.text))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401
    # a shared machine: the medians, not each, and far less than a hash takes
    assert abs(statistics.median(times["ada"]) - statistics.median(times["nobody"])) < 0.15


def test_after_five_failures_there_is_a_pause_that_doubles(studio):
    client = studio.client(None)
    for _ in range(5):
        assert sign_in(client, "ada", "wrong password here").status_code == 401
    answer = sign_in(client, "ada", PASSWORD.format("ada"))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["retry_after_s"] >= 1


def test_pauses_double_up_to_five_minutes_and_end_with_success():
    pauses = Pauses()
    waits = []
    for _ in range(16):
        pauses.record_failure("a", "b")
        waits.append(pauses.wait_s("a"))
    assert waits[3] <= 0
    assert [round(w) for w in waits[4:9]] == [1, 2, 4, 8, 16]
    assert max(waits) <= 300
    pauses.record_success("a")
    assert pauses.wait_s("a") <= 0
    assert pauses.wait_s("b") > 0


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(studio):
    answer = sign_in(studio.client(None), "ada", PASSWORD.format("ada"))
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "max-age" not in cookie


def test_with_tls_the_cookie_cannot_be_set_by_another_host(tmp_path):
    studio = open_studio(tmp_path, secure=True)
    studio.add("ada")
    client = TestClient(create_app(studio.desk), base_url=BASE, headers=HEADERS)
    cookie = sign_in(client, "ada", PASSWORD.format("ada")).headers["set-cookie"]
    assert cookie.startswith("__Host-sightline=")
    assert "Secure" in cookie
    studio.desk.close()


@pytest.mark.parametrize("values", [{"ends_at": 1.0}, {"seen_at": 1.0}])
def test_a_session_ends_by_age_and_by_rest(studio, values):
    client = studio.client("ada")
    assert client.get("/api/v1/me").status_code == 200
    with studio.desk.database.writing() as connection:
        connection.execute(update(session).values(**values))
    assert client.get("/api/v1/me").status_code == 401


def test_signing_out_and_a_new_password_end_sessions(studio):
    first, second = studio.client("ada"), TestClient(create_app(studio.desk), base_url=BASE, headers=HEADERS)
    sign_in(second, "ada", PASSWORD.format("ada"))
    body = {"old": PASSWORD.format("ada"), "new": "another set of words"}
    assert second.post("/api/v1/me/password", json=body).status_code == 204
    assert first.get("/api/v1/me").status_code == 401
    assert second.get("/api/v1/me").status_code == 200
    assert second.delete("/api/v1/session").status_code == 204
    assert second.get("/api/v1/me").status_code == 401
    assert sign_in(second, "ada", "another set of words").status_code == 200


def test_a_disabled_reader_is_out_at_once(studio):
    client = studio.client("ada")
    lead = studio.client("lea")
    assert lead.patch(f"/api/v1/readers/{studio.ids['ada']}", json={"disabled": True}).status_code == 200
    assert client.get("/api/v1/me").status_code == 401
    assert sign_in(client, "ada", PASSWORD.format("ada")).status_code == 401
    last = lead.patch(f"/api/v1/readers/{studio.ids['lea']}", json={"role": "reader"})
    assert last.status_code == 422
    assert "only lead" in last.json()["message"]


def test_no_secret_is_stored_or_audited(studio):
    sign_in(studio.client(None), "SECRETNAME", "SECRETPASSWORD")
    token = studio.client("ada").cookies["sightline"]
    with studio.desk.database.reading() as connection:
        everything = str(connection.execute(text("SELECT * FROM audit")).all())
        everything += str(connection.execute(text("SELECT * FROM session")).all())
        everything += str(connection.execute(text("SELECT * FROM reader")).all())
    for secret in (token, PASSWORD.format("ada"), "SECRETPASSWORD", "SECRETNAME", "P00"):
        assert secret not in everything


@pytest.mark.parametrize(
    "bad", ["short", "aaaaaaaaaaaaa", "passwordpassword", "123123123123123", "1qaz2wsx3edc4rfv", "x" * 2000]
)
def test_weak_passwords_are_refused(bad):
    with pytest.raises(PasswordRefused):
        hash_password(bad)


def test_a_weaker_hash_is_renewed(real_hashes):
    from argon2 import PasswordHasher

    old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("four words of old")
    right, new = check_password(old, "four words of old")
    assert right
    assert new is not None
    assert check_password(new, "four words of old") == (True, None)
    assert check_password(old, "four words of new") == (False, None)


def test_alone_the_address_works_once_and_the_next_one_is_printed(tmp_path, capsys):
    studio = open_studio(tmp_path, alone=True)
    client = TestClient(create_app(studio.desk), base_url=BASE, headers=HEADERS, follow_redirects=False)
    token = studio.desk.token
    assert client.get("/", params={"token": token}).status_code == 303
    assert client.get("/api/v1/me").json()["alone"] is True
    assert len(client.get("/api/v1/worklist").json()["rows"]) == 4
    other = TestClient(create_app(studio.desk), base_url=BASE, headers=HEADERS, follow_redirects=False)
    other.get("/", params={"token": token})
    assert other.get("/api/v1/me").status_code == 401
    assert f"/?token={studio.desk.token}" in capsys.readouterr().out
    assert other.post("/api/v1/session", json={"token": studio.desk.token}).status_code == 200
    studio.desk.close()
