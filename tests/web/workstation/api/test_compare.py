"""Maps of a run, as stored, a gaze, units with names; a run's opinion is hidden until one's own read is submitted."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support.cohorts import make_cohort, tiny_recipe
from support.workstation import box, open_studio

from sightline.data.views.frames import find_case_frame
from sightline.dissection.dissect import DissectionOptions, dissect
from sightline.inference.predict import predict
from sightline.papers.catalogue import CATALOGUE
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze
from sightline.training.engine import Engine
from sightline.training.train import train

ENGINE = Engine(device="cpu", quiet=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, its dissection and its cohort."""
    place = tmp_path_factory.mktemp("trained")
    cohort = make_cohort(place / "cohort", patients=8)
    torch.manual_seed(0)
    run = train(replace(tiny_recipe(), epochs=1), cohort, place / "run", CATALOGUE, ENGINE)
    dissect(run, cohort, place / "units", options=DissectionOptions(split="all", top=0.05, units=2), engine=ENGINE)
    return run, cohort, place


@pytest.fixture
def shown(trained, tmp_path):
    """A workstation on it, maps computed."""
    run, cohort, place = trained
    studio = open_studio(tmp_path, cohort, runs=(Path(run.folder), place / "no run"), dissection=place / "units")
    for name, role in (("ada", "reader"), ("lea", "lead")):
        studio.add(name, role)
    studio.plan("mark", ["ada"])
    studio.desk.maps.start()
    end = time.monotonic() + 240
    while any(r.state in ("waiting", "computing") for r in studio.desk.maps.runs) and time.monotonic() < end:
        time.sleep(0.2)
    yield studio, run
    studio.desk.close()


@pytest.mark.slow
def test_maps_are_those_of_the_run_and_hidden_until_submission(shown):
    studio, run = shown
    states = {r.title: (r.state, r.message) for r in studio.desk.maps.runs}
    assert states["tiny"] == ("ready", None)
    failed = next(r for r in studio.desk.maps.runs if r.title != "tiny")
    assert failed.state == "failed"
    assert "run" in (failed.message or "")
    key = studio.desk.maps.runs[0].key
    client, row = studio.client("ada"), studio.reads("ada")[0]
    image = client.get(f"/api/v1/reads/{row['read']}").json()["study"]["images"][0]["key"]
    for path in (f"images/{image}/maps", f"images/{image}/maps/{key}/0", f"compare/{row['study']}"):
        assert client.get(f"/api/v1/{path}").status_code == 404
    studio.finish("ada", row["read"], [box((5.0, 6.0), (20.0, 22.0))])
    found = client.get(f"/api/v1/images/{image}/maps").json()["maps"]
    assert [m["run"] for m in found] == [key]
    case = studio.desk.cohort[0]
    said = predict(run.network(), replace(studio.desk.cohort, cases=(case,)), run.recipe.view)
    for index in (0, 1):
        answer = client.get(f"/api/v1/images/{image}/maps/{key}/{index}")
        cells = np.frombuffer(answer.content, "<f4").reshape([int(n) for n in answer.headers["x-shape"].split(",")])
        wanted = said.maps.maps[0, index]
        assert np.abs(cells - wanted).max() <= np.abs(wanted).max() * 2e-3 + 1e-4
        assert (cells == cells.astype(np.float16)).all()
        affine = [float(x) for x in answer.headers["x-frame"].split(",")]
        frame = said.maps.frame(0, find_case_frame(case, run.recipe.view))
        assert affine == pytest.approx(frame.to_source[:-1].ravel().tolist())
    compared = client.get(f"/api/v1/compare/{row['study']}").json()
    assert [m["who"] for m in compared["marks"]] == ["me"]
    p = compared["runs"][0]["probabilities"]
    assert sum(p) == pytest.approx(1.0)
    numbers = compared["runs"][0]["images"][image]["numbers"]
    assert {n["class"] for n in numbers} == set(run.classes)
    area = 15.0 * 16.0 / (40 * 48)
    assert numbers[0]["energy_chance"] == pytest.approx(area, abs=0.02)
    assert 0.0 <= numbers[0]["energy"] <= 1.0
    view = client.get(f"/api/v1/images/{image}/view", params={"run": key})
    assert view.headers["x-shape"] == "1,48,48"


@pytest.mark.slow
def test_units_are_named_apart_and_go_into_concepts_by_its_rules(trained, tmp_path):
    studio = open_studio(tmp_path, trained[1], dissection=trained[2] / "units")
    for name, role in (("ada", "reader"), ("lea", "lead")):
        studio.add(name, role)
    ada, lea = studio.client("ada"), studio.client("lea")
    units = ada.get("/api/v1/units").json()["units"]
    assert len(units) == 2
    unit = units[0]["unit"]
    assert ada.get(units[0]["gallery"]).headers["content-type"] == "image/png"
    assert ada.post(f"/api/v1/units/{unit}/names", json={"text": 'cortex: "thin"'}).status_code == 201
    assert lea.get("/api/v1/units").json()["units"][0]["names"] == []
    lea.post(f"/api/v1/units/{unit}/names", json={"text": "mixed"})
    assert {n["text"] for n in lea.get("/api/v1/units").json()["units"][0]["names"]} == {'cortex: "thin"', "mixed"}
    assert ada.post("/api/v1/units/concepts").status_code == 403
    assert lea.post("/api/v1/units/concepts").json()["written"] == 1
    path = trained[2] / "units" / "concepts.yaml"
    said = yaml.safe_load(path.read_text())["units"][unit]
    assert said["text"] == 'cortex: "thin" / mixed'
    assert said["author"] == "Ada, Lea"
    before = path.read_text()
    ada.post(f"/api/v1/units/{unit}/names", json={"text": "something else"})
    assert lea.post("/api/v1/units/concepts").json() == {"written": 0, "kept": 1}
    assert path.read_text() == before
    studio.desk.close()


def test_a_gaze_is_given_sample_by_sample_and_its_density_is_the_librarys(gazed_cohort, tmp_path):
    studio = open_studio(tmp_path, gazed_cohort)
    studio.add("lea", "lead")
    client = studio.client("lea")
    rows = client.get("/api/v1/studies", params={"limit": 3}).json()
    assert rows["rows"][0]["has_gaze"]
    assert rows["next"] == 2
    image = rows["rows"][0]["images"][0]
    whole = client.get(f"/api/v1/studies/{rows['rows'][0]['study']}").json()
    assert [(one["key"], one["has_gaze"]) for one in whole["images"]] == [(image, True)]
    gaze = next(r for r in gazed_cohort[0].regions if isinstance(r, Gaze))
    found = client.get(f"/api/v1/gaze/{image}").json()["recordings"][0]
    assert found["samples"] == np.column_stack(gaze.numbers).tolist()
    answer = client.get(f"/api/v1/gaze/{image}/density", params={"sigma_px": 3.0, "rows": 24, "columns": 20, "to": 0.3})
    density = np.frombuffer(answer.content, "<f4").reshape(24, 20)
    wanted = gaze.between(0.0, 0.3).density(Frame.of_image((48, 40)).resize((24, 20)), 3.0)
    assert (density == wanted).all()
    assert client.get(f"/api/v1/gaze/{image}/density", params={"degrees": 1.0}).status_code == 422
    assert client.get("/api/v1/units").status_code == 404
    assert client.get("/api/v1/results").json() == {"tables": [], "reports": []}
    studio.desk.close()
