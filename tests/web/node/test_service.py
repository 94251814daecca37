"""A node in this process: images in, results out once, late images, poison, silence, cleaning, Orthanc."""

import json
import subprocess
import time
import urllib.error
import urllib.request

import pydicom
import pytest
from sqlalchemy import select
from support.nodes import Archive, NodeProcess, image, job_states, running, settings, store, wait_for, write_settings
from support.pacs import free_port, orthanc, request

from sightline.errors import SightlineError
from sightline.web.node import service
from sightline.web.node.configuration import read_configuration
from sightline.web.node.database import jobs, objects, outbox, studies
from sightline.web.node.delivery.commitment import AnsweredLetter
from sightline.web.node.inspection import describe_configuration, drop, foretell, retry, summarise, tell_way
from sightline.web.node.service import Node, read_gates


@pytest.fixture
def archive():
    made = Archive()
    yield made
    made.close()


class Clock:
    """A time that the test turns."""

    now = 1_800_000_000.0

    def __call__(self):
        return self.now


# what the planted judge does with a pixel value: it kills its process, takes memory without end, or time
POISONS = {"SIGKILL": 7, "memory": 8, "SIGXCPU": 9}


def rule(folder, to=("pacs",), **send):
    when = {"modality": ["DX"], "body_part": ["WRIST"]}
    send = {"to": list(to), "objects": ["findings", "picture"]} | send
    return {"when": when, "run": str(folder / "wrist"), "send": send}


def rows(node, table):
    with node.store.look() as db:
        return [dict(row) for row in db.execute(select(table).order_by(table.c.id)).mappings()]


def study_states(node):
    with node.store.look() as db:
        return {row.study_uid: (row.state, row.reason) for row in db.execute(select(studies))}


def metrics(node):
    return urllib.request.urlopen(f"http://127.0.0.1:{node.configuration.metrics.port}/metrics").read().decode()


def test_a_study_is_judged_once_and_its_results_are_sent_once(tmp_path, archive):
    clock = Clock()
    words = {"destinations": {"pacs": archive.destination()}, "rules": [rule(tmp_path)], "settle_s": 1.5}
    with running(tmp_path, clock=clock, **words) as node:
        assert store(node.scp.port, image(1), image(2)) == [0, 0]
        assert job_states(node) == []
        clock.now += 2.0
        wait_for(lambda: len(archive.objects) == 2)
        assert job_states(node) == ["done"]
        (job,) = rows(node, jobs)
        assert len(json.loads(job["inputs"])) == 2
        for sent in archive.objects.values():
            assert (sent.PatientID, sent.StudyInstanceUID) == ("P1", "1.2.826.1.1")
        wait_for(lambda: [row["state"] for row in rows(node, outbox)] == ["sent"] * 2)
        assert sorted(archive.tries) == sorted(archive.objects)
        # the same images once more: nothing new
        assert store(node.scp.port, image(1)) == [0]
        # a late image: a new job over all of them, that knows the one before
        assert store(node.scp.port, image(3)) == [0]
        clock.now += 2.0
        wait_for(lambda: job_states(node) == ["done", "done"])
        late = rows(node, jobs)[1]
        assert late["predecessor"] == job["id"] and len(json.loads(late["inputs"])) == 3
        wait_for(lambda: len(archive.objects) == 4)
        assert node.store.verify_journal() > 10
        # what comes back from the PACS is taken and not judged
        back = next(iter(archive.objects.values()))
        back.file_meta = pydicom.dcmread(next(node.spool.results.iterdir())).file_meta
        back.file_meta.MediaStorageSOPClassUID = back.SOPClassUID
        back.file_meta.MediaStorageSOPInstanceUID = back.SOPInstanceUID
        assert store(node.scp.port, back) == [0]
        assert [row["state"] for row in rows(node, objects)] == ["kept", "kept", "kept", "own"]
        way = "\n".join(tell_way(node.store, "1.2.826.1.1"))
        assert "job done" in way and "findings to pacs: sent after 1 attempt" in way
        assert "2 done" in "\n".join(summarise(node.store))


def test_what_no_rule_takes_and_what_the_gate_refuses_gets_no_finding(tmp_path, archive):
    words = {"destinations": {"pacs": archive.destination()}}
    words["rules"] = [rule(tmp_path), rule(tmp_path) | {"name": "feet", "when": {"body_part": ["FOOT", "CHEST"]}}]
    with running(tmp_path, **words) as node:
        kinds = {
            "1.1": {},
            "1.2": {"BodyPartExamined": "CHEST"},  # a rule takes it, the gate of its run (wrists) does not
            "1.3": {"BodyPartExamined": "SKULL"},  # no rule takes it
            "1.4": {"BodyPartExamined": "Handgelenk links"},
            "1.5": {"PresentationIntentType": "FOR PROCESSING"},
            "1.6": {"NumberOfFrames": 2},
            "1.7": {"BodyPartExamined": ""},  # wrist or none is what the run may be asked; the rule says wrist
        }
        for study, attributes in kinds.items():
            assert store(node.scp.port, image(1, study=study, **attributes)) == [0]
        assert store(node.scp.port, image(1, study="1.8", value=0)) == [0]  # the child's picture check
        wait_for(lambda: sorted(job_states(node)) == ["done", "done", "refused", "refused"])
        told = {row["study_uid"]: (row["state"], row["door"]) for row in rows(node, jobs)}
        assert told == {
            "1.1": ("done", ""),
            "1.2": ("refused", "header"),
            "1.4": ("done", ""),
            "1.8": ("refused", "picture"),
        }
        wait_for(lambda: len(archive.objects) == 4)
        assert {str(one.StudyInstanceUID) for one in archive.objects.values()} == {"1.1", "1.4"}
        wait_for(lambda: study_states(node)["1.3"][0] == "settled")
        reason = study_states(node)["1.3"][1]
        assert reason.startswith("no rule takes any image of it; rule wrist: the body part is SKULL"), reason
        wait_for(lambda: 'sightline_refused_images_total{check="picture",rule="wrist"} 1.0' in metrics(node))
        wait_for(lambda: 'sightline_refused_images_total{check="header",rule="feet"} 1.0' in metrics(node))


# taking memory and time without end is refused by test_judge.py and test_worker.py too
@pytest.mark.parametrize("poisons", [("SIGKILL",), pytest.param(POISONS, marks=pytest.mark.slow)], ids=["one", "all"])
def test_a_poison_study_dies_after_its_tries_and_holds_nobody_up(tmp_path, archive, poisons):
    words = {"destinations": {"pacs": archive.destination()}, "rules": [rule(tmp_path)], "job_cpu_s": 1.0, "tries": 2}
    clock = Clock()
    with running(tmp_path, clock=clock, **words, job_memory="2 GiB") as node:
        for number, poison in enumerate(poisons, 1):
            assert store(node.scp.port, image(1, study=f"1.{number}", value=POISONS[poison])) == [0]
        assert store(node.scp.port, image(1, study="1.4")) == [0]
        wait_for(lambda: job_states(node) == ["failed"] * len(poisons) + ["done"])
        clock.now += 10.0  # the pause before the next try
        wait_for(lambda: job_states(node) == ["dead"] * len(poisons) + ["done"])
        for poison, row in zip(poisons, rows(node, jobs), strict=False):
            # a machine that is very busy does not give it its second of processor time within ten
            assert poison in row["reason"] or (poison == "SIGXCPU" and "no answer" in row["reason"])
        assert [row["tries"] for row in rows(node, jobs)] == [2] * len(poisons) + [1]
        assert node.unready == ""
        # a person gives one up and another one more chance
        assert drop(node.store, "1.1") == 1 and retry(node.store, f"1.{len(poisons)}") == (len(poisons) > 1)
        assert job_states(node)[0] == "dropped"


def test_silent_judges_and_sends_nothing(tmp_path, archive):
    words = {"destinations": {"pacs": archive.destination()}, "rules": [rule(tmp_path)], "silent": True}
    with running(tmp_path, **words) as node:
        assert store(node.scp.port, image(1)) == [0]
        wait_for(lambda: job_states(node) == ["done"])
        assert rows(node, outbox) == [] and archive.tries == []
        assert len(list(node.spool.results.iterdir())) == 2


def test_late_images_are_held_for_a_person_after_three_jobs_a_day(tmp_path):
    with running(tmp_path, rules=[rule(tmp_path, to=())]) as node:
        for number in range(4):
            assert store(node.scp.port, image(number)) == [0]
            wait_for(lambda n=number: len(job_states(node)) == min(n + 1, 3) and set(job_states(node)) == {"done"})
            wait_for(lambda: "open" not in str(study_states(node)))
        wait_for(lambda: study_states(node)["1.2.826.1.1"][0] == "held")
        assert len(job_states(node)) == 3


def test_cleaning_waits_for_the_promise_of_the_pacs(tmp_path, archive):
    clock = Clock()
    words = {"destinations": {"pacs": archive.destination(commit=True)}, "rules": [rule(tmp_path)]}
    with running(tmp_path, clock=clock, **words) as node:
        assert store(node.scp.port, image(1, study="1.1"), image(1, study="1.2", BodyPartExamined="SKULL")) == [0, 0]
        wait_for(lambda: job_states(node) == ["done"] and len(archive.objects) == 2)
        wait_for(lambda: "open" not in str(study_states(node)))
        wait_for(lambda: [row["state"] for row in rows(node, outbox)] == ["sent"] * 2)
        clock.now += 2 * 86400
        assert node.cleaner.clean() == 1  # the skull that nobody judged
        clock.now += 20 * 86400
        assert node.cleaner.clean() == 0  # sent, not committed: this archive knows no commitment
        with node.store.change() as change:
            change.connection.execute(outbox.update().values(state="committed"))
        assert node.cleaner.clean() == 3
        assert list(node.spool.objects.iterdir()) == [] and list(node.spool.results.iterdir()) == []
        # a study that comes again after it was cleaned is a study again
        assert store(node.scp.port, image(1, study="1.1")) == [0]
        assert len(list(node.spool.objects.iterdir())) == 1


def test_a_run_without_gate_or_with_other_weights_is_not_served(tmp_path):
    path = write_settings(tmp_path, settings(tmp_path))
    (tmp_path / "wrist" / "weights.safetensors").write_bytes(b"wEights")
    with pytest.raises(SightlineError, match="other weights"):
        Node(read_configuration(path), child=())
    (tmp_path / "wrist" / "gate.json").unlink()
    with pytest.raises(SightlineError, match=r"has no gate\.json"):
        Node(read_configuration(path), child=())


def test_while_serving_a_run_is_exchanged_is_seen_and_metrics_name_nobody(tmp_path):
    with running(tmp_path, rules=[rule(tmp_path, to=())]) as node:
        assert store(node.scp.port, image(1, BodyPartExamined="SKULL")) == [0]
        ready = f"http://127.0.0.1:{node.configuration.metrics.port}/readyz"
        assert urllib.request.urlopen(ready).status == 200
        (tmp_path / "wrist" / "weights.safetensors").write_bytes(b"wEights")
        node._check_runs()
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(ready)
        text = metrics(node)
        assert 'sightline_received_objects_total{caller="MOD"' in text
        assert not any(word in text for word in ("Planted", "P1", "1.2.826"))


def test_days_of_a_certificate_fall_and_what_a_pacs_promises_is_counted(tmp_path, monkeypatch):
    words = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=x"]
    files = ["-keyout", str(tmp_path / "node.key"), "-out", str(tmp_path / "node.pem")]
    subprocess.run(["openssl", "req", *words, *files], check=True, capture_output=True)
    plain = settings(tmp_path)
    (tmp_path / "node.key").chmod(0o600)
    plain["dicom"] |= {"plain": False, "tls": {"certificate": "node.pem", "key": "node.key"}}
    node = Node(read_configuration(write_settings(tmp_path, plain)), child=())
    read = node.metrics.registry.get_sample_value
    node._check_tls()
    days = read("sightline_certificate_days_left", {"listener": "dicom"})
    assert 1.9 < days <= 2.0
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400.0)
    assert 0.9 < read("sightline_certificate_days_left", {"listener": "dicom"}) <= 1.0
    answers = [AnsweredLetter("pacs", "findings", state) for state in ("committed", "due", "dead")]
    monkeypatch.setattr(service, "take_answer", lambda *_: answers)
    node._build_scp_events().commit_answered("1.9", [], [])
    for name, labels in (
        ("committed_objects", {}),
        ("failed_sends", {"kind": "findings"}),
        ("dead_objects", {"kind": "findings"}),
    ):
        assert read(f"sightline_{name}_total", {"destination": "pacs"} | labels) == 1.0


def test_a_port_that_is_taken_and_a_clock_that_is_years_off_are_said(tmp_path):
    with running(tmp_path) as node:
        plain = settings(tmp_path, keep=str(tmp_path / "other"))
        plain["dicom"]["port"] = node.scp.port
        with pytest.raises(SightlineError, match="cannot be listened on"):
            Node(read_configuration(write_settings(tmp_path, plain)), child=()).start()
        with pytest.raises(SightlineError, match="another node"):
            Node(node.configuration, child=())
    with pytest.raises(SightlineError, match="clock"):
        Node(node.configuration, child=(), clock=lambda: 0.0)


def test_check_says_what_the_node_would_do(tmp_path):
    configuration = read_configuration(write_settings(tmp_path, settings(tmp_path, rules=[rule(tmp_path, to=())])))
    folder = tmp_path / "files"
    folder.mkdir()
    image(1).save_as(folder / "a.dcm", enforce_file_format=True)
    image(2, BodyPartExamined="FOOT").save_as(folder / "b.dcm", enforce_file_format=True)
    (folder / "c.txt").write_text("text")
    gates = read_gates(configuration)
    said = "\n".join(foretell(configuration, gates, [folder]))
    assert "a.dcm: rule wrist judges it" in said
    assert "b.dcm: rule wrist does not: rule: the body part is FOOT, not WRIST" in said
    assert "c.txt: not taken" in said
    assert "MOD" in "\n".join(describe_configuration(configuration, gates))
    assert not (tmp_path / "keep").exists()


def test_sigterm_ends_it_whole_and_a_new_start_goes_on(tmp_path, archive):
    words = {"destinations": {"pacs": archive.destination()}, "rules": [rule(tmp_path)], "settle_s": 1.0}
    process = NodeProcess(write_settings(tmp_path, plain := settings(tmp_path, **words)), tmp_path / "log").start()
    assert store(plain["dicom"]["port"], image(1)) == [0]
    assert process.stop() == 0
    process.start()
    wait_for(lambda: len(archive.objects) == 2)
    assert process.stop() == 0
    log = (tmp_path / "log").read_text()
    assert "Planted" not in log and "1.2.826" not in log
    assert all(line.startswith("{") for line in log.splitlines())


def test_orthanc_routes_to_us_and_keeps_what_we_answer(tmp_path):
    """Its Lua sends every image on; results come back to it, are sent on to us again, and go round no further."""
    port = free_port()
    lua = tmp_path / "route.lua"
    lua.write_text("function OnStoredInstance(id, tags, metadata)\n  Delete = SendToModality(id, 'SIGHTLINE')\nend\n")
    peers = {"SIGHTLINE": ["SIGHTLINE", "127.0.0.1", port]}
    with orthanc(tmp_path / "orthanc", modalities=peers, LuaScripts=[str(lua)]) as pacs:
        pacs_words = {"kind": "dicom", "aet": "ORTHANC", "address": "127.0.0.1", "port": pacs.port, "commit": True}
        dicom = settings(tmp_path)["dicom"] | {"port": port}
        words = {"destinations": {"pacs": pacs_words}, "rules": [rule(tmp_path)], "dicom": dicom}
        with running(tmp_path, **words) as node:
            assert store(pacs.port, image(1), called="ORTHANC") == [0]
            wait_for(lambda: job_states(node) == ["done"])
            wait_for(lambda: [row["state"] for row in rows(node, outbox)] == ["committed"] * 2)
            assert len(pacs.json("/instances")) == 3
            assert 'sightline_committed_objects_total{destination="pacs"} 2.0' in metrics(node)
            # the results have been routed to us too
            wait_for(lambda: [row["state"] for row in rows(node, objects)] == ["kept", "own", "own"])
            assert job_states(node) == ["done"]
            # and it may ask us whether we keep the image
            sent = image(1)
            body = {
                "DicomInstances": [[str(sent.SOPClassUID), str(sent.SOPInstanceUID)], [str(sent.SOPClassUID), "1.2.3"]]
            }
            asked = request(f"{pacs.url}/modalities/SIGHTLINE/storage-commitment", json.dumps(body).encode())
            place = json.loads(urllib.request.urlopen(asked).read())["Path"]
            report = wait_for(lambda: (r := pacs.json(place))["Status"] != "Pending" and r)
            assert [one["SOPInstanceUID"] for one in report["Success"]] == [str(sent.SOPInstanceUID)]
            assert [one["SOPInstanceUID"] for one in report["Failures"]] == ["1.2.3"]
