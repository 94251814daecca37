"""The DICOMweb door: STOW with every fault a client can make, and QIDO and WADO of results with dicomweb-client."""

import io
import random
import resource

import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from sqlalchemy import select
from starlette.testclient import TestClient
from support.nodes import TOKEN, image, job_states, running, settings, store, wait_for
from support.pacs import free_port

from sightline.errors import SightlineError
from sightline.web.node.configuration import DicomWebListener
from sightline.web.node.database import Store, objects
from sightline.web.node.intake.acceptance import Intake
from sightline.web.node.intake.dicomweb import build_app, read_tokens
from sightline.web.node.spool import NAME, Spool

TYPE = 'multipart/related; type="application/dicom"; boundary=XX'


class Door:
    """The application of a STOW door with a spool and a database behind it."""

    def __init__(self, folder, **words):
        tokens = folder / "tokens"
        tokens.write_text(f"# who\nmodality {TOKEN}\nother another-token-of-enough-letters\n")
        self.spool, self.store = Spool(folder / "keep"), Store(folder / "keep" / "node.sqlite")
        self.received, self.refused = [], []
        app = build_app(
            DicomWebListener(tokens=tokens, plain=True, **words),
            Intake(self.store, self.spool),
            lambda accepted, origin: self.received.append((accepted, origin)),
            lambda reason, caller: self.refused.append(reason),
        )
        self.client = TestClient(app, raise_server_exceptions=False)

    def stow(self, body, content_type=TYPE, token=TOKEN, path="/studies", **headers):
        headers |= {"Content-Type": content_type} | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.client.post(path, content=body, headers=headers)

    def rows(self):
        with self.store.look() as db:
            return list(db.execute(select(objects)).mappings())


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


def part(dataset, kind="application/dicom"):
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return f"--XX\r\nContent-Type: {kind}\r\n\r\n".encode() + stream.getvalue() + b"\r\n"


def body(*datasets):
    return b"".join(part(one) for one in datasets) + b"--XX--\r\n"


def test_objects_are_in_the_spool_when_they_are_acknowledged(door):
    sent = [image(1), image(2)]
    answer = door.stow(body(*sent))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/dicom+json"
    said = pydicom.Dataset.from_json(answer.text)
    assert [str(one.ReferencedSOPInstanceUID) for one in said.ReferencedSOPSequence] == [
        str(one.SOPInstanceUID) for one in sent
    ]
    kept = [pydicom.dcmread(door.spool.path(row["sha256"])) for row in door.rows()]
    assert kept == sent
    assert {origin.protocol for _, origin in door.received} == {"stow"}
    assert list(door.spool.incoming.iterdir()) == []


def test_both_doors_give_the_same_object_the_same_name(tmp_path, door):
    from sightline.web.node.intake.acceptance import Origin

    assert door.stow(body(image(1))).status_code == 200
    file = door.spool.incoming / "x.dcm"
    image(1).save_as(file, enforce_file_format=True)
    assert Intake(door.store, door.spool).accept(file, Origin("MOD", "127.0.0.1", "dimse")).result == "duplicate"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"token": None}, 401),
        ({"token": "wrong-token-of-enough-letters"}, 401),
        ({"token": ""}, 401),
        ({"content_type": "application/dicom"}, 415),
        ({"content_type": 'multipart/related; type="application/dicom+json"; boundary=XX'}, 415),
        ({"content_type": "multipart/related"}, 400),
        ({"content_type": "multipart/related; boundary=" + "x" * 71}, 400),
        ({"content_type": 'multipart/related; type="application/dicom"; boundary=YY'}, 400),
        ({"content_type": ""}, 415),
    ],
)
def test_faults_of_the_request(door, change, status):
    assert door.stow(body(image(1)), **change).status_code == status
    assert door.rows() == [] and list(door.spool.incoming.iterdir()) == []


def test_faults_of_the_body(door):
    whole = body(image(1))
    assert door.stow(b"").status_code == 400
    assert door.stow(whole[: len(whole) // 2]).status_code == 400
    assert door.stow(whole[:-10]).status_code == 400
    assert door.stow(b"--XX--\r\n").status_code == 400
    assert door.rows() == [] and list(door.spool.incoming.iterdir()) == []
    text = b"--XX\r\nContent-Type: application/dicom\r\n\r\nno dicom\r\n--XX--\r\n"
    answer = door.stow(text)
    assert answer.status_code == 409
    assert pydicom.Dataset.from_json(answer.text).FailedSOPSequence[0].FailureReason in (0xA900, 0xC000)
    both = part(image(1)) + text
    assert door.stow(both).status_code == 202
    assert len(door.rows()) == 1


def test_too_long_and_too_many(tmp_path):
    door = Door(tmp_path, most_bytes=20_000, most_parts=3)
    assert door.stow(body(*(image(n) for n in range(3)))).status_code == 200
    assert door.stow(body(*(image(n) for n in range(4)))).status_code == 413
    assert door.stow(body(image(9, size=(200, 200)))).status_code == 413

    def endless():
        for _ in range(100):
            yield b"--XX\r\n" + bytes(1000)

    assert door.stow(endless()).status_code == 413
    assert door.stow(b"--XX\r\n\r\nx\r\n" * 10_000 + b"--XX--").status_code == 413
    assert list(door.spool.incoming.iterdir()) == []


def test_another_study_than_the_path_says(door):
    assert door.stow(body(image(1)), path="/studies/1.2.826.1.1").status_code == 200
    assert door.stow(body(image(2)), path="/studies/1.9").status_code == 409


def test_a_full_disk_is_503(door):
    door.spool.least_free = 10**18
    answer = door.stow(body(image(1)))
    assert answer.status_code == 503 and answer.headers["Retry-After"]


def test_a_study_may_be_named_complete(door):
    assert door.stow(body(image(1))).status_code == 200
    allowed = {"Authorization": f"Bearer {TOKEN}"}
    assert door.client.post("/studies/1.2.826.1.1/complete").status_code == 401
    assert door.client.post("/studies/1.2.826.1.1/complete", headers=allowed).status_code == 204
    assert door.client.post("/studies/1.2.3/complete", headers=allowed).status_code == 404


def test_tokens(tmp_path):
    path = tmp_path / "tokens"
    for text in ("", "# nobody\n", "short 123\n", "no token at all here\n"):
        path.write_text(text)
        with pytest.raises(SightlineError):
            read_tokens(path)


def fuzz(door, count, seed):
    """Bodies and headers with every kind of damage; statuses by number."""
    chance = random.Random(seed)
    whole = body(image(1), image(2, size=(40, 40)))
    found = {}
    for _ in range(count):
        data, kind = bytearray(whole), TYPE
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(data)) if data else 0
            what = chance.randrange(9)
            if what == 0:
                data[at : at + chance.randrange(1, 400)] = b""
            elif what == 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 400))
            elif what == 2 and data:
                data[at] ^= 1 << chance.randrange(8)
            elif what == 3:
                data[at:at] = b"\r\n--XX"
            elif what == 4:
                data = data[:at]
            elif what == 5:
                data[at:at] = b"--XX--\r\n"
            elif what == 6:
                kind = kind[: chance.randrange(len(kind) or 1)] + chance.choice(["", '"', ";", "=", "\t", "boundary="])
            elif what == 7:
                data[:0] = b"--XX\r\n" + bytes(chance.randrange(32, 127) for _ in range(80)) + b": x\r\n"
            else:
                data += b"--XX\r\nContent-Type: " + chance.randbytes(8).hex().encode() + b"\r\n\r\n"
        path = "/studies" + chance.choice(["", "/1.2.826.1.1", "/../x", "/%00", "/" + "9" * 500])
        status = door.stow(bytes(data), content_type=kind, path=path).status_code
        found[status] = found.get(status, 0) + 1
    return found


def test_damaged_bodies_are_never_a_fault_of_ours(door):
    found = fuzz(door, 100, seed=1)
    assert all(status < 500 for status in found), found
    assert len(found) >= 3  # the damage is of several kinds
    assert list(door.spool.incoming.iterdir()) == []
    assert all(NAME.fullmatch(path.stem) for path in door.spool.objects.iterdir())


@pytest.mark.slow
def test_a_thousand_damaged_bodies_cost_no_memory(door):
    fuzz(door, 50, seed=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fuzz(door, 1000, seed=3)
    assert all(status < 500 for status in found), found
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_results_are_found_and_retrieved_with_dicomweb_client(tmp_path):
    port = free_port()
    words = settings(tmp_path)
    web = {"port": port, "plain": True, "tokens": str(tmp_path / "tokens")}
    with running(tmp_path, dicomweb=web, rules=words["rules"]) as node:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        client = DICOMwebClient(f"http://127.0.0.1:{port}", session=session)
        client.store_instances([image(1)])
        wait_for(lambda: job_states(node) == ["done"])
        (study,) = client.search_for_studies()
        assert study["0020000D"]["Value"] == ["1.2.826.1.1"]
        assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
        found = client.search_for_instances()
        # two results; the image itself is not for asking here
        assert len(found) == 2
        for one in found:
            uids = [one[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")]
            dataset = client.retrieve_instance(*uids)
            assert dataset.SOPInstanceUID == uids[2] and dataset.PatientID == "P1"
            assert client.retrieve_instance_metadata(*uids)["00080018"]["Value"] == [uids[2]]
            if "PixelData" in dataset:
                (frame,) = client.retrieve_instance_frames(*uids, frame_numbers=[1])
                assert frame == dataset.PixelData
        assert len(client.retrieve_study("1.2.826.1.1")) == 2
        assert len(client.search_for_series("1.2.826.1.1")) == 2
        with pytest.raises(requests.exceptions.HTTPError):
            client.retrieve_study("1.2.3")
        for path in ("/studies", "/studies/1.2.826.1.1", "/instances", "/studies/1.2.826.1.1/metadata"):
            assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=10).status_code == 401
        assert store(node.scp.port, image(1)) == [0]
