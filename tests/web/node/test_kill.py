"""SIGKILL at random moments of each step: nothing acknowledged is lost, each result arrives once."""

import json
import os
import random
import sqlite3
import threading
import time

import pytest
from support.nodes import Archive, NodeProcess, image, settings, store, wait_for, write_settings
from support.pacs import free_port, orthanc

from sightline.web.node.database import Store

# the longest pause in seconds before the kill, once the step is seen to be under way
LONGEST = {"receiving": 0.12, "settling": 0.3, "judging": 0.3, "writing": 0.005, "sending": 0.1, "committing": 0.1}
STEPS = tuple(LONGEST)
KILLS = int(os.environ.get("SIGHTLINE_KILLS", "100"))


class Hospital:
    """A node in a process, a PACS that lives on, and a modality that sends a study until it is acknowledged."""

    def __init__(self, folder, destination, seed, **words):
        rule = {"when": {}, "run": str(folder / "wrist"), "send": {"to": ["pacs"], "objects": ["findings", "picture"]}}
        plain = settings(folder, destinations={"pacs": destination}, rules=[rule], settle_s=0.3, **words)
        self.port, self.keep = plain["dicom"]["port"], folder / "keep"
        self.node = NodeProcess(write_settings(folder, plain), folder / "log")
        self.chance = random.Random(seed)
        self.studies, self.acknowledged = 0, []

    def ask(self, question, *values):
        """The node's database, looked at from outside while the node runs."""
        try:
            database = sqlite3.connect(f"file:{self.keep}/node.sqlite?mode=ro", uri=True, timeout=5)
            try:
                return database.execute(question, values).fetchall()
            finally:
                database.close()
        except sqlite3.OperationalError:
            return []

    def send_study(self, study):
        """Send until everything is acknowledged; images that were acknowledged are written down one by one."""
        left = [image(n, study=study, patient=f"P{study.rpartition('.')[2]}") for n in range(2)]
        until = time.monotonic() + 120
        while left and time.monotonic() < until:
            try:
                if store(self.port, left[0]) == [0x0000]:
                    self.acknowledged.append((study, str(left.pop(0).SOPInstanceUID)))
            except (AssertionError, OSError, RuntimeError):
                time.sleep(0.05)
        assert not left

    def kill_while(self, step):
        """One kill at a random moment of a step, then a new start; whether the step was under way when it came.

        A step that was over before anybody looked is killed behind: no hit, yet the same is asked of the node.
        """
        self.studies += 1
        study = f"1.2.826.7.{self.studies}"
        sender = threading.Thread(target=self.send_study, args=(study,))
        sender.start()
        if step != "receiving":
            wait_for(lambda: self.under_way(step, study) or self.done(study), 300, step)
        time.sleep(self.chance.uniform(0.0, LONGEST[step]))
        self.node.kill()
        hit = self.under_way(step, study)
        self.node.start()
        sender.join(120)
        assert not sender.is_alive()
        return hit

    def under_way(self, step, study):
        """Whether a study is in a step, by what lies on the disk."""
        if step == "receiving":
            return sum(one == study for one, _ in self.acknowledged) < 2
        if step == "writing":
            # the child has written results, and no row says so yet
            running = self.ask("SELECT id FROM jobs WHERE study_uid = ? AND state = 'running'", study)
            return any(any(self.keep.glob(f"work/{job}-*/*.dcm")) for (job,) in running)
        question = {
            "settling": "SELECT 1 FROM studies WHERE study_uid = ? AND state = 'open'",
            "judging": "SELECT 1 FROM jobs WHERE study_uid = ? AND state = 'running'",
            "sending": "SELECT 1 FROM outbox JOIN results r ON result = r.id WHERE r.study_uid = ?"
            " AND outbox.state = 'due'",
            "committing": "SELECT 1 FROM outbox JOIN results r ON result = r.id WHERE r.study_uid = ?"
            " AND outbox.state = 'sent'",
        }
        return bool(self.ask(question[step], study))

    def done(self, study):
        """Whether everything of a study was sent."""
        states = self.ask(
            "SELECT outbox.state FROM outbox JOIN results r ON result = r.id WHERE r.study_uid = ?", study
        )
        return bool(states) and all(state in ("sent", "committed") for (state,) in states)

    def finish(self, commit):
        """Wait until all is done, and look at the whole."""
        done = "committed" if commit else "sent"
        wait_for(
            lambda: (
                self.ask("SELECT 1 FROM jobs WHERE state NOT IN ('done')") == []
                and self.ask("SELECT count(DISTINCT study_uid) FROM jobs") == [(self.studies,)]
                and self.ask("SELECT 1 FROM studies WHERE state != 'settled'") == []
                and self.ask(f"SELECT 1 FROM outbox WHERE state != '{done}'") == []
            ),
            900,
            "everything done",
        )
        assert self.node.stop() == 0
        kept = {uid for (uid,) in self.ask("SELECT sop_uid FROM objects WHERE state = 'kept'")}
        assert {uid for _, uid in self.acknowledged} <= kept
        for sha256, state in self.ask("SELECT sha256, state FROM objects"):
            assert state == "kept" and (self.keep / "objects" / f"{sha256}.dcm").is_file()
        newest = self.ask(
            "SELECT study_uid, inputs FROM jobs WHERE id IN (SELECT max(id) FROM jobs GROUP BY study_uid)"
        )
        assert all(len(json.loads(inputs)) == 2 for _, inputs in newest) and len(newest) == self.studies
        store_ = Store(self.keep / "node.sqlite")
        assert store_.verify_journal() > 0
        store_.close()
        return [uid for (uid,) in self.ask("SELECT sop_uid FROM results")]


def test_killed_while_receiving_judging_and_sending(tmp_path):
    archive = Archive()
    hospital = Hospital(tmp_path, archive.destination(), seed=1)
    try:
        hospital.node.start()
        for step in ("receiving", "judging", "sending"):
            hospital.kill_while(step)
        results = hospital.finish(commit=False)
        # each result is there, and nothing else; what was sent twice was answered as a duplicate
        assert sorted(archive.objects) == sorted(results)
        assert len(set(results)) == len(results)
    finally:
        hospital.node.close()
        archive.close()


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_hundred_kills_in_each_step(tmp_path, step, monkeypatch):
    """A hundred kills and a hundred studies a step; says how many of the kills came while the step was under way."""
    if step == "judging":
        monkeypatch.setenv("SIGHTLINE_TEST_JUDGE", "slow")
    port = free_port()
    with orthanc(tmp_path / "orthanc", modalities={"SIGHTLINE": ["SIGHTLINE", "127.0.0.1", port]}) as pacs:
        destination = {"kind": "dicom", "aet": "ORTHANC", "address": "127.0.0.1", "port": pacs.port, "commit": True}
        dicom = settings(tmp_path)["dicom"] | {"port": port}
        hospital = Hospital(tmp_path, destination, seed=STEPS.index(step), dicom=dicom)
        try:
            hospital.node.start()
            hits = sum(hospital.kill_while(step) for _ in range(KILLS))
            results = hospital.finish(commit=True)
            print(f"{step}: {hits} of {KILLS} kills under way, {len(results)} results of {hospital.studies} studies")
            assert hits >= KILLS / 5
            held = [pacs.json(f"/instances/{one}/simplified-tags")["SOPInstanceUID"] for one in pacs.json("/instances")]
            assert sorted(held) == sorted(results)
        finally:
            hospital.node.close()
