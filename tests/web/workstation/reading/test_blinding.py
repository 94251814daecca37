"""Every endpoint is asked as every role: nothing of what another said, or a network, before one's own submission."""

import json

import pytest
from support.workstation import box

from sightline.web.workstation.api.app import create_app
from sightline.web.workstation.reading.outcomes import letter_reads

# words that stand in the other reader's work and nowhere else
SECRETS = ("1234.5625", "SECRET comment", "1234.6875")


@pytest.fixture
def seen(studio):
    """Ben has read everything; ada has read nothing; a task of the lead's own is open too."""
    studio.plan("joint", ["ada", "ben", "lea"], ask={"label": True})
    mark = box((1.5, 2.0), (20.0, 30.0))
    mark["name"] = "1234.5625"
    for row in studio.reads("ben"):
        own = {**mark, "id": box()["id"]}
        answer = studio.finish("ben", row["read"], [own], label="fracture", extra=[("comment", {"text": SECRETS[1]})])
        assert answer.status_code == 200
    return studio


def addresses(studio):
    """Every GET address of the application, filled with what is there."""
    routes = create_app(studio.desk).openapi()["paths"]
    client = studio.client("ada")
    read = studio.reads("ada")[0]
    bens = studio.reads("ben")[0]
    study, image = read["study"], client.get(f"/api/v1/reads/{read['read']}").json()["study"]["images"][0]["key"]
    fills = {
        "read_id": [read["read"], bens["read"]], "key": [image, study], "reader_id": [studio.ids["ben"]],
        "export_id": ["x"], "task_id": [studio.tasks["joint"]], "image": [image], "run": ["x"], "cls": ["0"],
        "unit": ["0"], "run_key": ["x"], "label": ["0"],
    }  # fmt: skip
    made = []
    for path, methods in routes.items():
        if "get" not in methods:
            continue
        paths = [path]
        for name, values in fills.items():
            marked = "{" + name + "}"
            paths = [p.replace(marked, v) for p in paths for v in (values if marked in p else values[:1])]
        made += paths
    query = {"task": studio.tasks["joint"], "reader": studio.ids["ben"], "axis": 0, "index": 0, "names": 1}
    return made, query, bens["read"], study


def test_no_address_gives_another_readers_work_before_submission(seen):
    paths, query, _, _ = addresses(seen)
    assert len(paths) > 25, paths
    assert not [path for path in paths if "{" in path]
    for name in ("ada", "lea", "vic", None):
        client = seen.client(name)
        for path in paths:
            answer = client.get(path, params=query)
            assert answer.status_code < 500, (name, path, answer.text[:200])
            for secret in SECRETS:
                assert secret not in answer.text, (name, path)
            if name is None and path.startswith("/api/v1") and not path.endswith(("/session", "openapi.json")):
                assert answer.status_code == 401, path


def test_anothers_read_is_not_there_for_any_method(seen):
    _, _, bens, _ = addresses(seen)
    client = seen.client("ada")
    base = f"/api/v1/reads/{bens}"
    for answer in (
        client.get(base), client.get(f"{base}/ops"), client.get(f"{base}/clock"),
        client.put(f"{base}/view", json={"a": 1}),
        client.post(f"{base}/ops", json={"ops": [], "sent_mono_ms": 1, "sent_at_ms": 1}),
        client.post(f"{base}/events", json={"events": [], "sent_mono_ms": 1, "sent_at_ms": 1}),
    ):  # fmt: skip
        assert answer.status_code == 404, answer.text
    assert client.post(f"{base}/reopen", json={"comment": ""}).status_code == 403


def test_a_role_gets_what_it_may_and_nothing_else(seen):
    task = seen.tasks["joint"]
    asked = {
        "/api/v1/agreement": {"lea"}, "/api/v1/adjudicate": {"lea", "ada2"}, "/api/v1/readers": {"lea"},
        "/api/v1/audit": {"lea"}, "/api/v1/exports": {"lea"}, "/api/v1/progress": {"lea"},
        "/api/v1/worklist": {"ada", "ben", "lea", "ada2"}, "/api/v1/studies": {"ada", "ben", "lea", "ada2"},
    }  # fmt: skip
    for path, allowed in asked.items():
        for name in ("ada", "ben", "lea", "ada2", "vic"):
            status = seen.client(name).get(path, params={"task": task}).status_code
            assert status == (200 if name in allowed else 403), (path, name)


def test_the_adjudicator_sees_letters_and_no_names(seen):
    client = seen.client("ada2")
    seen.finish("ada", seen.reads("ada", task=seen.tasks["joint"])[0]["read"], [box()], label="fracture")
    rows = client.get("/api/v1/adjudicate", params={"task": seen.tasks["joint"]}).json()["rows"]
    assert len(rows) == 1
    found = client.get(f"/api/v1/adjudicate/{rows[0]['study']}", params={"task": seen.tasks["joint"]})
    assert sorted(m["letter"] for m in found.json()["marks"]) == ["A", "B"]
    for name in ("ada", "ben", seen.ids["ada"], seen.ids["ben"], "Ben"):
        assert f'"{name}"' not in found.text


def test_letters_differ_from_study_to_study(seen):
    """The order comes from the study's key and a secret: over 24 secrets both readers come first."""
    task = seen.tasks["joint"]
    row = seen.reads("ada", task=task)[0]
    seen.finish("ada", row["read"], [box()], label="fracture")
    with seen.desk.database.reading() as connection:
        firsts = {letter_reads(connection, task, row["study"], f"secret {n}")["A"] for n in range(24)}
        again = {letter_reads(connection, task, row["study"], "secret")["A"] for _ in range(24)}
    assert len(firsts) == 2
    assert len(again) == 1


def test_a_lead_who_has_yet_to_read_learns_nothing_of_those_studies(seen):
    task = seen.tasks["joint"]
    for row in seen.reads("ada", task=task):
        seen.finish("ada", row["read"], [box()], label="fracture")
    lead = seen.client("lea")
    left_out = lead.get("/api/v1/agreement", params={"task": task}).json()
    assert (left_out["studies"], left_out["hidden"]) == ([], 4)
    # where nobody has submitted anything, that is why there is nothing to compare
    later = seen.plan("later", ["ada", "ben"])
    assert lead.get("/api/v1/agreement", params={"task": later}).json()["hidden"] == 0
    assert lead.get("/api/v1/adjudicate", params={"task": task}).json()["rows"] == []
    study = seen.reads("lea")[0]["study"]
    assert lead.get(f"/api/v1/adjudicate/{study}", params={"task": task}).status_code == 404
    assert lead.post("/api/v1/exports", json={"as": "folder"}).status_code == 409
    for row in seen.reads("lea"):
        seen.finish("lea", row["read"], [], label="fracture")
    assert len(lead.get("/api/v1/agreement", params={"task": task}).json()["studies"]) == 4
    assert lead.post("/api/v1/exports", json={"as": "folder"}).status_code == 202


def test_no_other_task_shows_what_a_blind_one_hides(studio):
    studio.add("cyd")
    for task, readers in (("blind", ["ada", "ben"]), ("open", ["ada", "cyd"])):
        studio.plan(task, readers, reveal="never" if task == "blind" else "after submit")
    study = studio.reads("ada")[0]["study"]
    address = f"/api/v1/compare/{study}"
    for name, task in (("ada", "first"), ("ada", "blind"), ("ada", "open"), ("ben", "blind"), ("cyd", "open")):
        row = next(one for one in studio.reads(name, task=studio.tasks[task]) if one["study"] == study)
        assert studio.finish(name, row["read"], [box()]).status_code == 200
    asked = [{}, *({"task": studio.tasks[task]} for task in ("open", "blind"))]
    # who has read the study in other tasks too sees no more of it than before
    assert [studio.client("ada").get(address, params=one).status_code for one in asked] == [404] * 3
    # who has read it in the open one alone sees that one, and the blind one neither by itself nor among all
    counts = [len(studio.client("cyd").get(address, params=one).json()["marks"]) for one in asked]
    assert counts == [2, 2, 0]
    assert len(studio.client("lea").get(address).json()["marks"]) == 5


def test_the_queue_says_nothing_of_others_and_hides_ids(seen):
    text = json.dumps(seen.client("ada").get("/api/v1/worklist").json())
    for word in ("S00", "P00", "ben", seen.ids["ben"]):
        assert word not in text
    counts = seen.client("ada").get("/api/v1/worklist").json()["counts"]
    assert counts["submitted"] == 0
