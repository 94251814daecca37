"""Child processes and what their answers may do: bounds of the kernel, results of another patient, equal results."""

import sys
import textwrap
import time

import pydicom
import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import OperationalError
from support.nodes import CHILD, image, settings, wait_for, write_settings

from sightline.web.node.configuration import read_configuration
from sightline.web.node.database import TWO_PATIENTS, Store, jobs, objects, outbox, results, studies
from sightline.web.node.delivery.dispatch import DeliveryEvents, Dispatcher
from sightline.web.node.inspection import drop, retry
from sightline.web.node.intake.acceptance import Intake, Origin
from sightline.web.node.jobs import child_process, worker
from sightline.web.node.jobs.child_process import Child, ChildDied, ChildNotReady
from sightline.web.node.jobs.worker import MOST_INTERRUPTIONS, RETRY_S, Worker, WorkEvents, resume_jobs
from sightline.web.node.spool import Spool


def child_of(folder, body, memory=2**31, cpu_s=20.0):
    """A child process whose judge is `body`."""
    path = folder / "child.py"
    code = "from pathlib import Path\nfrom sightline.web.node.jobs.child import Answer, main\n\n\ndef judge(request):\n"
    path.write_text(code + textwrap.indent(textwrap.dedent(body), "    ") + "\n\nmain(judge)\n")
    return Child((sys.executable, str(path)), memory, cpu_s)


def request(folder):
    return {
        "run": str(folder), "engine": "torch", "images": {}, "left_out": [], "objects": [], "out": str(folder),
        "received": 0.0, "codes": None, "predecessor": [],
    }  # fmt: skip


def test_a_child_is_bound_and_goes_on(tmp_path):
    child = child_of(
        tmp_path,
        """
        import os, resource, socket
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=2)
            reach = "connected"
        except OSError as error:
            reach = type(error).__name__
        words = {"memory": resource.getrlimit(resource.RLIMIT_AS)[0], "nice": os.nice(0), "reach": reach}
        print("words on standard output disturb nobody")
        return Answer((), (), {"x": words})
        """,
    )
    try:
        for _ in range(2):
            words = child.ask(request(tmp_path))["readings"]["x"]
        assert words["memory"] == 2**31 and words["nice"] >= 5
        assert words["reach"] != "connected"
        pid = child._process.pid
        child.ask(request(tmp_path))
        assert child._process.pid == pid
    finally:
        child.stop()


def test_a_child_says_when_it_has_opened_its_runs_and_what_kept_it(tmp_path):
    code = """
        import time
        from pathlib import Path
        from sightline.web.node.jobs.child import Answer, main

        def prepare(runs):
            while not Path("may_go").exists():
                time.sleep(0.01)
            raise RuntimeError("no weights")

        main(lambda request: Answer((), (), {}), prepare)
        """
    (tmp_path / "child.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n" + textwrap.dedent(code))
    child = Child((sys.executable, str(tmp_path / "child.py")), 2**31, 20.0)
    try:
        assert child.look() is None
        child.wake()
        assert child.look() is None
        (tmp_path / "may_go").touch()
        wait_for(lambda: child.look() is not None)
        assert "no weights" in child.look()
        # it goes on: a job says why again
        assert child.ask(request(tmp_path))["results"] == []
    finally:
        child.stop()


def test_each_job_has_its_own_seconds(tmp_path):
    child = child_of(
        tmp_path,
        """
        import time
        end = time.process_time() + (30.0 if request.codes else 0.3)
        while time.process_time() < end:
            pass
        return Answer((), (), {})
        """,
        cpu_s=1.0,
    )
    try:
        for _ in range(5):
            assert "error" not in child.ask(request(tmp_path))
        # a machine that is very busy does not give it its second of processor time within ten
        with pytest.raises(ChildDied, match=r"SIGXCPU|no answer"):
            child.ask(request(tmp_path) | {"codes": "x"})
        # the next job has a new process
        assert "error" not in child.ask(request(tmp_path))
    finally:
        child.stop()


def test_an_error_of_the_judge_is_an_answer(tmp_path):
    child = child_of(tmp_path, "raise ValueError('bad\\npixels')")
    try:
        assert child.ask(request(tmp_path))["error"] == "ValueError: bad pixels"
    finally:
        child.stop()


class Bench:
    """A worker with one study of two patients' worth of trouble, and no node around it."""

    def __init__(self, folder, child=CHILD, **words):
        plain = settings(folder, **words)
        plain["destinations"] = {"pacs": {"kind": "dicom", "aet": "A", "address": "127.0.0.1", "port": 104}}
        plain["rules"][0]["send"]["to"] = ["pacs"]
        self.configuration = read_configuration(write_settings(folder, plain))
        self.spool, self.store = Spool(folder / "keep"), Store(folder / "keep" / "node.sqlite")
        self.heard = []
        told = WorkEvents(
            *(lambda *a, word=word: self.heard.append((word, *a)) for word in ("judged", "refused", "failed"))
        )
        self.worker = Worker(self.configuration, self.store, self.spool, told, child)
        file = self.spool.incoming / "x.dcm"
        image(1).save_as(file, enforce_file_format=True)
        self.sha256 = Intake(self.store, self.spool).accept(file, Origin("MOD", "127.0.0.1", "dimse")).sha256

    def add_job(self, **words):
        row = {"study_uid": "1.2.826.1.1", "rule": "wrist", "inputs": f'["{self.sha256}"]', "state": "waiting"}
        row |= {"received": 1.7e9, "created": 1.7e9, "left_out": "[]"} | words
        with self.store.change() as change:
            return change.connection.execute(insert(jobs).values(**row)).inserted_primary_key[0]

    def rows(self, table):
        with self.store.look() as db:
            return [dict(row) for row in db.execute(select(table).order_by(table.c.id)).mappings()]


def hold(bench):
    with bench.store.change() as change:
        values = {"study_uid": "1.2.826.1.1", "first": 0.0, "last": 0.0, "state": "held", "reason": TWO_PATIENTS}
        change.connection.execute(delete(studies))
        change.connection.execute(insert(studies).values(**values, complete=0))


def test_nothing_of_a_study_of_two_patients_is_judged_kept_or_sent(tmp_path):
    bench = Bench(tmp_path)
    try:
        number = bench.add_job()
        # the second patient's image arrives while the first one's is judged
        asked = bench.worker.child.ask
        bench.worker.child.ask = lambda request: (asked(request), hold(bench))[0]
        assert bench.worker.work_once()
        (job,) = bench.rows(jobs)
        assert (job["state"], job["tries"]) == ("waiting", 0) and not bench.rows(results) and not bench.rows(outbox)
        assert not bench.worker.work_once()
        # a person gives the study up: the job goes with it
        assert drop(bench.store, "1.2.826.1.1") == 1
        assert [job["state"] for job in bench.rows(jobs)] == ["dropped"] and not bench.worker.work_once()
        # given up while it is judged: nothing of it is kept either
        with bench.store.change() as change:
            change.connection.execute(update(jobs).where(jobs.c.id == number).values(state="waiting"))

        def dropped(request):
            answer = asked(request)
            hold(bench)
            drop(bench.store, "1.2.826.1.1")
            return answer

        bench.worker.child.ask = dropped
        assert bench.worker.work_once()
        assert [job["state"] for job in bench.rows(jobs)] == ["dropped"] and not bench.rows(results)
    finally:
        bench.worker.child.stop()


def test_letters_of_a_study_of_two_patients_stay_until_a_person_has_looked(tmp_path):
    bench = Bench(tmp_path)
    try:
        bench.add_job()
        assert bench.worker.work_once() and [row["state"] for row in bench.rows(outbox)] == ["due", "due"]
        unheard = DeliveryEvents(*(lambda *_: None for _ in range(4)))
        sender = Dispatcher("pacs", None, bench.store, bench.spool, unheard)
        assert len(sender._list_due(10)) == 2
        hold(bench)
        assert sender._list_due(10) == []
        assert retry(bench.store, "1.2.826.1.1") == 1 and len(sender._list_due(10)) == 2
        hold(bench)
        assert drop(bench.store, "1.2.826.1.1") == 1
        assert [row["state"] for row in bench.rows(outbox)] == ["dropped", "dropped"] and sender._list_due(10) == []
    finally:
        bench.worker.child.stop()


def test_the_same_job_again_has_the_same_bytes_and_is_sent_once(tmp_path):
    bench = Bench(tmp_path)
    try:
        for _ in range(2):
            bench.add_job()
            assert bench.worker.work_once()
        assert [job["state"] for job in bench.rows(jobs)] == ["done", "done"]
        assert len(bench.rows(results)) == 2 == len(bench.rows(outbox))
        for row in bench.rows(results):
            assert str(pydicom.dcmread(bench.spool.path(row["sha256"], result=True)).ContentDate) == "20231114"
        assert not bench.worker.work_once()
        assert list(bench.spool.work.iterdir()) == []
    finally:
        bench.worker.child.stop()


def test_a_result_of_another_patient_is_never_kept(tmp_path):
    """The judge's words are not believed: study and patient are read from the file it wrote."""
    bench = Bench(tmp_path)
    body = """
    import pydicom
    data = pydicom.dcmread(next(iter(request.images.values())))
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.99"
    data.PatientID = "P2"
    data.save_as(request.out / "findings_01.dcm", enforce_file_format=True)
    return Answer(((request.out / "findings_01.dcm", "findings"),), (), {})
    """
    bench.worker.child = child_of(tmp_path, body)
    try:
        bench.add_job()
        bench.worker.work_once()
        (job,) = bench.rows(jobs)
        assert job["state"] == "failed" and "another study or patient" in job["reason"]
        assert bench.rows(results) == [] and bench.rows(outbox) == []
        bench.worker.child.stop()
        outside = 'return Answer(((Path("/etc/hostname"), "findings"),), (), {})'
        bench.worker.child = child_of(tmp_path, outside)
        bench.store.clock = lambda: time.time() + 3600
        bench.worker.work_once()
        assert "outside its folder" in bench.rows(jobs)[0]["reason"]
    finally:
        bench.worker.child.stop()


def test_a_full_disk_or_a_locked_database_puts_a_job_back(tmp_path, monkeypatch):
    bench = Bench(tmp_path, tries=1)
    now, locked = [time.time()], OperationalError("BEGIN", {}, Exception("database is locked"))
    bench.store.clock = lambda: now[0]

    def look():
        now[0] += RETRY_S + 0.1
        return [(job["state"], job["tries"]) for job in bench.rows(jobs)]

    def fail(error):
        def raise_it(*_):
            raise error

        return raise_it

    try:
        bench.add_job()
        for place, name, error in (
            (bench.spool, "scratch_folder", OSError(28, "No space left on device")),
            (bench.worker, "_keep", locked),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(place, name, fail(error))
                assert bench.worker.work_once()
            assert look() == [("waiting", 0)]
        # neither the results nor that it waits again can be written: that is made good as soon as it can
        with monkeypatch.context() as patch:
            patch.setattr(bench.worker.child, "ask", lambda _: patch.setattr(bench.store, "change", fail(locked)))
            for _ in range(2):
                with pytest.raises(OperationalError):
                    bench.worker.work_once()
            assert look() == [("running", 1)]
        assert not bench.worker.work_once() and look() == [("waiting", 0)]
        assert bench.worker.work_once() and look() == [("done", 1)] and len(bench.rows(results)) == 2
        assert list(bench.spool.work.iterdir()) == []
        # an answer that is none, or names what was not written, is a failed try
        for answer in ({}, {"results": [["x.dcm", "findings"]], "refused": []}):
            with monkeypatch.context() as patch:
                bench.add_job()
                patch.setattr(bench.worker.child, "ask", lambda request, answer=answer: answer)
                assert bench.worker.work_once() and look()[-1] == ("dead", 1)
    finally:
        bench.worker.child.stop()


def test_a_job_that_ends_the_node_again_and_again_is_dead(tmp_path):
    bench = Bench(tmp_path)
    bench.add_job(state="running", tries=2)
    assert resume_jobs(bench.store) == 1
    (job,) = bench.rows(jobs)
    assert (job["state"], job["tries"], job["interruptions"]) == ("waiting", 1, 1)
    for _ in range(19):
        with bench.store.change() as change:
            change.connection.execute(jobs.update().values(state="running", tries=1))
        resume_jobs(bench.store)
    (job,) = bench.rows(jobs)
    assert job["state"] == "dead" and "ended 20 times" in job["reason"]
    assert bench.rows(objects)[0]["state"] == "kept"


def test_what_ran_when_the_node_ended_goes_behind_the_others(tmp_path):
    bench = Bench(tmp_path)
    first, second = bench.add_job(state="running", tries=1), bench.add_job(study_uid="1.2")
    resume_jobs(bench.store)
    urgent = bench.add_job(study_uid="1.3", priority=1)
    taken = [bench.worker._take()["id"] for _ in range(3)]
    assert taken == [urgent, second, first]


def test_what_was_interrupted_ends_where_a_later_job_has_taken_its_place(tmp_path):
    """Its report, over fewer images, would reach the PACS last."""
    bench = Bench(tmp_path)
    bench.add_job(state="running")
    bench.add_job(state="done")
    resume_jobs(bench.store)
    assert bench.worker._take() is None
    first, _ = bench.rows(jobs)
    assert first["state"] == "dropped" and "a later job" in first["reason"]


def test_a_late_images_job_waits_for_the_one_that_another_worker_judges(tmp_path):
    """It would end first, without its predecessor, and the report over fewer images would be the last one sent."""
    bench = Bench(tmp_path)
    first = bench.add_job(state="running")
    late, other = bench.add_job(priority=1, predecessor=first), bench.add_job(rule="hand")
    assert bench.worker._take()["id"] == other
    assert bench.worker._take() is None
    with bench.store.change() as change:
        change.connection.execute(jobs.update().where(jobs.c.id == first).values(state="done"))
    assert bench.worker._take()["id"] == late


def test_a_child_that_never_gets_ready_costs_no_try_and_ends_its_job_at_last(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "RESTART_S", 0.0)
    bench, now = Bench(tmp_path, child=(sys.executable, "-c", "raise SystemExit(3)"), tries=1), [time.time()]
    bench.store.clock = lambda: now[0]
    bench.add_job()
    assert bench.worker.work_once()
    (job,) = bench.rows(jobs)
    assert (job["state"], job["tries"], job["interruptions"]) == ("waiting", 0, 1)
    assert "at its start (status 3)" in bench.worker.trouble and bench.heard == []
    # while it pauses no job is taken, and no process started
    now[0] += 2 * RETRY_S
    with monkeypatch.context() as patch:
        patch.setattr(bench.worker, "_is_start_due", lambda: False)
        assert not bench.worker.work_once() and bench.worker.child._process is None
    with bench.store.change() as change:
        change.connection.execute(update(jobs).values(interruptions=MOST_INTERRUPTIONS - 1))
    assert bench.worker.work_once()
    (job,) = bench.rows(jobs)
    assert job["state"] == "dead" and "was not ready 20 times" in job["reason"]
    assert bench.heard == [("failed", "wrist", True)]


def test_a_start_is_bound_by_processor_time_and_waited_for_far_longer(tmp_path, monkeypatch):
    code = """
        import resource
        from sightline.web.node.jobs.child import START_CPU_S, main

        def prepare(runs):
            raise RuntimeError(resource.getrlimit(resource.RLIMIT_CPU)[0] - START_CPU_S < 10.0)

        main(lambda request: None, prepare)
        """
    (tmp_path / "child.py").write_text(textwrap.dedent(code))
    starting = Child((sys.executable, str(tmp_path / "child.py")), 2**31, 20.0)
    try:
        starting.wake()
        assert "True" in wait_for(starting.look)
        starting.stop()
        monkeypatch.setattr(child_process, "START_CPU_S", 0.001)
        with pytest.raises(ChildNotReady, match="no answer at its start"):
            starting.ask(request(tmp_path))
    finally:
        starting.stop()


def test_a_pause_from_before_the_clock_was_set_back_is_none(tmp_path):
    bench = Bench(tmp_path)
    soon = bench.add_job(state="failed", tries=2, due=time.time() + 2 * RETRY_S)
    later = bench.add_job(study_uid="1.2", state="failed", tries=2, due=time.time() + 3600.0)
    assert bench.worker._take()["id"] == later and bench.worker._take() is None
    assert [job["id"] for job in bench.rows(jobs) if job["state"] == "failed"] == [soon]
