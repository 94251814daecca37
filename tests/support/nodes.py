"""Nodes for tests: a folder with a run and its gate, NODE.yaml, images, a node in this process or in one of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation, Verification

from sightline.inference.gate.gate_file import Gate, write_gate
from sightline.inference.gate.header import HeaderLimits
from sightline.web.node.configuration import read_configuration
from sightline.web.node.database import Store, jobs
from sightline.web.node.delivery.cleaning import Cleaner
from sightline.web.node.intake.acceptance import Intake, Origin
from sightline.web.node.jobs.planning import Planner
from sightline.web.node.service import Node, read_gates
from sightline.web.node.spool import Spool
from support.pacs import free_port

CHILD = (sys.executable, str(Path(__file__).parent / "judge_child.py"))
DX = str(DigitalXRayImageStorageForPresentation)
TOKEN = "a-token-of-enough-letters"


def make_run(folder):
    """A folder that passes for a run of wrists: weights that nobody loads, and a gate for them."""
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    write_gate(folder, Gate(HeaderLimits(modality=("CR", "DX"), body_part=("WRIST", "")), {}))
    return folder


def settings(folder, **words):
    """Words of a NODE.yaml whose ports are free; `words` replace whole sections."""
    tokens = folder / "tokens"
    if not tokens.exists():
        tokens.write_text(f"modality {TOKEN}\n")
        tokens.chmod(0o600)
    run = folder / "wrist"
    if not run.exists():
        make_run(run)
    plain = {
        "name": "test",
        "keep": str(folder / "keep"),
        "dicom": {
            "aet": "SIGHTLINE",
            "port": free_port(),
            "plain": True,
            "callers": {"MOD": ["127.0.0.1"], "ORTHANC": ["127.0.0.1"]},
        },
        "metrics": {"port": free_port()},
        "rules": [
            {"when": {"body_part": ["WRIST", ""]}, "run": str(run), "send": {"objects": ["findings", "picture"]}}
        ],
        "settle_s": 0.0,
        "workers": 1,
        "least_free": 1,
        "least_free_share": 0.0,
    }
    return plain | words


def write_settings(folder, plain):
    """NODE.yaml of words."""
    path = folder / "NODE.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


class StillNode:
    """A node's database, intake, planner and cleaner on a clock of the test's own; nothing in it goes by itself."""

    def __init__(self, folder, **words):
        self.now = 1_800_000_000.0
        self.configuration = read_configuration(write_settings(folder, settings(folder, **words)))
        self.spool = Spool(folder / "keep")
        self.store = Store(folder / "keep" / "node.sqlite", lambda: self.now)
        self.intake = Intake(self.store, self.spool)
        self.planner = Planner(self.configuration, self.store, read_gates(self.configuration))
        self.cleaner = Cleaner(self.configuration, self.store, self.spool)

    def accept(self, dataset):
        """An object comes in; what became of it."""
        file = self.spool.incoming / "x.dcm"
        dataset.save_as(file, enforce_file_format=True)
        return self.intake.accept(file, Origin("MOD", "127.0.0.1", "dimse"))

    def receive(self, *datasets, job="done"):
        """Objects come in and are planned; every job is then in the state `job`."""
        for one in datasets:
            self.accept(one)
        self.now += 10.0
        self.planner.settle()
        if job is not None:
            self.set(jobs, state=job, ended=self.now)

    def clean(self, days=8.0):
        """Days pass and the cleaner comes; how many files it removed."""
        self.now += days * 86400.0
        return self.cleaner.clean()

    def set(self, table, **values):
        """The same values in every row of a table."""
        with self.store.change() as change:
            change.connection.execute(table.update().values(**values))

    def read(self, table):
        """Rows of a table in the order of their keys."""
        with self.store.look() as db:
            return db.execute(table.select().order_by(*table.primary_key)).all()


@contextmanager
def running(folder, clock=time.time, child=CHILD, **words):
    """A node in this process."""
    node = Node(
        read_configuration(write_settings(folder, settings(folder, **words))), child=child, clock=clock, pace_s=0.02
    )
    node.start()
    try:
        yield node
    finally:
        node.stop()


class NodeProcess:
    """A node in a process of its own, which tests may kill; what forks it stays, so that a new start is quick."""

    def __init__(self, config, log):
        self.config, self.log = config, log
        self.pid, self._nursery = None, None

    def start(self):
        """Start it and wait until it serves."""
        if self._nursery is None:
            folders = (Path(__file__).parents[2] / "src", Path(__file__).parents[1])
            self._nursery = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "node_process.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
            )  # fmt: skip
        self._nursery.stdin.write(f"{self.config}\t{self.log}\n")
        self._nursery.stdin.flush()
        # the two write as they come, the node after its parent or before it
        said = [self._hear(), self._hear()]
        assert "ready" in said, (said, self.log.read_text()[-3000:])
        self.pid = int(min(said).removeprefix("pid "))
        return self

    @property
    def running(self):
        """Whether it was started and not ended."""
        return self.pid is not None

    def kill(self):
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._ended() == -signal.SIGKILL

    def stop(self):
        """SIGTERM, and the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        status = self._ended()
        self.close()
        return status

    def close(self):
        """End the node, and what forks nodes."""
        if self.running:
            self.kill()
        if self._nursery is not None:
            self._nursery.stdin.close()
            self._nursery.wait(timeout=90)
            self._nursery.stdout.close()
            self._nursery = None

    def _hear(self):
        return self._nursery.stdout.readline().strip()

    def _ended(self):
        said = self._hear()
        self.pid = None
        return int(said.removeprefix("ended "))


def image(number=0, *, study="1.2.826.1.1", patient="P1", size=(16, 16), value=None, **attributes):
    """A DX of a wrist; UIDs follow from study and number."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DX
    meta.MediaStorageSOPInstanceUID = f"{study}.9.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = DX, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = study, f"{study}.8.{number}"
    data.PatientID, data.PatientName, data.AccessionNumber = patient, "Planted^Name", "A1"
    data.PatientBirthDate, data.PatientSex, data.StudyDate, data.StudyTime, data.StudyID = (
        "19700101",
        "F",
        "20260101",
        "",
        "",
    )
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "WRIST", "PA"
    data.PresentationIntentType, data.Manufacturer, data.ManufacturerModelName = "FOR PRESENTATION", "Maker", "Model"
    data.InstanceNumber, data.SeriesNumber = number, 1
    data.Rows, data.Columns = size
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 16, 12, 11, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 4095, size, dtype=np.uint16)
    data.PixelData = pixels.tobytes() if value is None else bytes([value]) * (2 * size[0] * size[1])
    for name, word in attributes.items():
        setattr(data, name, word)
    return data


def store(port, *datasets, calling="MOD", called="SIGHTLINE", **named):
    """C-STORE; the status of each object."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    for syntax in {str(one.file_meta.TransferSyntaxUID) for one in datasets}:
        for sop_class in {str(one.SOPClassUID) for one in datasets}:
            entity.add_requested_context(sop_class, syntax)
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, ae_title=called, **named)
    assert association.is_established, "no association"
    statuses = [association.send_c_store(one).get("Status") for one in datasets]
    association.release()
    return statuses


class Archive:
    """A PACS of pynetdicom in this process: keeps what comes, or answers what a test wants."""

    def __init__(self, aet="ARCHIVE", port=None, syntax=ExplicitVRLittleEndian, **start):
        self.objects, self.tries, self.answer = {}, [], None
        self.port = port or free_port()
        entity = AE(aet)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), syntax)
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)], **start
        )

    def _store(self, event):
        uid = str(event.request.AffectedSOPInstanceUID)
        self.tries.append(uid)
        if self.answer is not None:
            return self.answer(uid) if callable(self.answer) else self.answer
        if uid in self.objects:
            return 0x0111
        self.objects[uid] = event.dataset
        return 0x0000

    def destination(self, aet="ARCHIVE", **words):
        return {"kind": "dicom", "aet": aet, "address": "127.0.0.1", "port": self.port, **words}

    def close(self):
        self._server.shutdown()


def wait_for(found, seconds=120.0, what=""):
    """Wait until `found()` is true, and give it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what or found}")


def job_states(node_or_store):
    """States of all jobs in order."""
    store_ = getattr(node_or_store, "store", node_or_store)
    with store_.look() as db:
        return [row.state for row in db.execute(jobs.select().order_by(jobs.c.id))]


def read_logs(path):
    """Records of a log of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
