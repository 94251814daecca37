"""Orthanc as a PACS for tests: a process with a folder and ports of its own, killed at the end."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.dicom_tools import require_program

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
USER = "test:test"


@dataclass(frozen=True)
class Pacs:
    """A running Orthanc: `url` of its REST API, `web` of its DICOMweb, `port` and `aet` for DIMSE."""

    url: str
    web: str
    port: int
    aet: str

    def get(self, path):
        """The bytes of a REST answer."""
        with urllib.request.urlopen(request(f"{self.url}{path}"), timeout=20) as answer:
            return answer.read()

    def json(self, path):
        """A REST answer as objects."""
        return json.loads(self.get(path))

    def instance(self, uid):
        """The file of a SOPInstanceUID as it is stored."""
        body = json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": str(uid)}}).encode()
        with urllib.request.urlopen(request(f"{self.url}/tools/find", body), timeout=20) as answer:
            found = json.loads(answer.read())
        assert len(found) == 1, (uid, found)
        return self.get(f"/instances/{found[0]}/file")


def request(url, body=None):
    """A request with the test's user."""
    import base64

    made = urllib.request.Request(url, data=body)
    made.add_header("Authorization", "Basic " + base64.b64encode(USER.encode()).decode())
    return made


def free_port():
    """A port that nobody listens on just now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def orthanc(folder, *, modalities=None, **settings):
    """Start Orthanc in a folder; it is killed when the block ends, whatever happens in it.

    Args:
        folder: of its own; must be empty.
        modalities: DICOM peers, name to [AET, address, port].
        settings: of Orthanc's configuration, besides.
    """
    program = require_program("Orthanc")
    if not Path(PLUGIN).is_file():
        require_program("orthanc-dicomweb")
    folder = Path(folder)
    http, dicom = free_port(), free_port()
    (folder / "db").mkdir(parents=True)
    name, password = USER.split(":")
    config = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": True,
        "UnknownSopClassAccepted": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {name: password},
        "DicomModalities": modalities or {},
        "OverwriteInstances": False,
        "Plugins": [PLUGIN],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": f"127.0.0.1:{http}"},
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            pacs = Pacs(f"http://127.0.0.1:{http}", f"http://127.0.0.1:{http}/dicom-web", dicom, "ORTHANC")
            for _ in range(300):
                if process.poll() is not None:
                    raise AssertionError((folder / "log").read_text()[-2000:])
                try:
                    pacs.json("/system")
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                raise AssertionError("Orthanc did not answer within 15 s")
            yield pacs
        finally:
            process.kill()
            process.wait(timeout=20)
            shutil.rmtree(folder / "db", ignore_errors=True)


@pytest.fixture(scope="session")
def pacs(tmp_path_factory):
    """One Orthanc for the tests of a process."""
    with orthanc(tmp_path_factory.mktemp("orthanc") / "pacs") as running:
        yield running
