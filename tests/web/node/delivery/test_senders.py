"""Sending to a PACS behind a bad network, and to one that lies; and what must never be sent."""

import io
import socket
import ssl
import threading
from contextlib import contextmanager, suppress

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from support.certificates import write_certificates
from support.nodes import Archive, image
from support.pacs import orthanc
from support.proxy import Proxy

from sightline.errors import SightlineError
from sightline.web.node.configuration import DicomDestination, DicomWebDestination, Tls
from sightline.web.node.delivery.senders import (
    DestinationUnreachable,
    Parcel,
    StoreScu,
    StowClient,
    read_stow_answer,
    require_own_study,
)


@pytest.fixture
def parcel(tmp_path):
    dataset = image(1, size=(64, 64))
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    uids = (str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), str(dataset.StudyInstanceUID))
    return Parcel(tmp_path / "x.dcm", *uids, "P1")


@pytest.fixture
def archive():
    made = Archive()
    yield made
    made.close()


def attempt(sender, parcel):
    """Outcome of one attempt; a destination that cannot be talked to is a failure too."""
    try:
        with sender.connect([parcel]) as send:
            return send(parcel).outcome
    except DestinationUnreachable:
        return "failed"


def scu(place, timeout_s=60.0, **words):
    return StoreScu(DicomDestination(**place.destination("ARCHIVE") | {"timeout_s": timeout_s} | words), "SIGHTLINE")


@contextmanager
def port_of(context):
    """A port that shakes hands as the context does, or is plain, and then closes whatever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with suppress(OSError):
                while True:
                    made, _ = listener.accept()
                    with made, suppress(OSError):
                        made.settimeout(5.0)
                        (context.wrap_socket(made, server_side=True) if context else made).close()

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def test_what_is_in_the_way_of_an_association_is_said(tmp_path, archive, parcel):
    keys, other = write_certificates(tmp_path / "keys"), write_certificates(tmp_path / "other")
    ours = Tls(certificate=keys / "client.pem", key=keys / "client.key", clients=keys / "ca.pem")
    place = archive.destination("ARCHIVE") | {"timeout_s": 5.0}

    def ask(port, tls=None):
        sender = StoreScu(DicomDestination(**place | {"port": port, "tls": tls}), "SIGHTLINE")
        with pytest.raises(DestinationUnreachable) as caught, sender.connect([parcel]):
            pass
        return f"{caught.value.message} {caught.value.remedy}"

    def serve(folder):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        return context

    with port_of(serve(other)) as port:
        assert "certificate is not trusted" in ask(port, ours)
        assert "Does its port expect TLS" in ask(port)
    with port_of(serve(keys)) as port:
        assert "Does it trust the node's certificate" in ask(port, ours)
    with port_of(None) as port:
        assert "TLS: no handshake" in ask(port, ours)
    assert "no connection (Connection refused)" in ask(port)


@pytest.mark.parametrize("mood", ["away", "cut", "hang"])
def test_a_bad_network_is_a_failure_and_a_good_one_afterwards_delivers(archive, parcel, mood):
    proxy = Proxy(archive.port, mood)
    try:
        assert attempt(scu(proxy, timeout_s=1.0), parcel) == "failed"
        assert archive.objects == {}
        proxy.mood = "slow"
        assert attempt(scu(proxy), parcel) == "sent"
        assert list(archive.objects) == [parcel.sop_uid]
        # and once more: the archive says duplicate, which is what is wanted
        assert attempt(scu(proxy), parcel) == "sent"
        assert len(archive.objects) == 1
    finally:
        proxy.close()


@pytest.mark.parametrize("status", [0xA700, 0xC000, 0x0110])
def test_a_pacs_that_refuses_is_asked_once_an_attempt(archive, parcel, status):
    archive.answer = status
    assert attempt(scu(archive), parcel) == "failed"
    assert archive.tries == [parcel.sop_uid]


def test_wrong_titles_and_kinds_that_are_not_taken(archive, parcel):
    assert attempt(scu(archive, aet="OTHER"), parcel) in ("sent", "failed")
    strange = Parcel(parcel.file, "1.2.840.10008.5.1.4.1.1.999", *(parcel.sop_uid, parcel.study_uid, parcel.patient_id))
    assert attempt(scu(archive), strange) == "not taken"


def test_a_pacs_that_takes_the_default_transfer_syntax_alone_gets_the_results(parcel):
    """Every sender has to offer it (PS3.5, 10.1); without it each result would count as of a kind that is not taken."""
    archive = Archive(syntax=ImplicitVRLittleEndian)
    try:
        assert attempt(scu(archive), parcel) == "sent"
    finally:
        archive.close()
    (arrived,), stored = archive.objects.values(), pydicom.dcmread(parcel.file)
    assert {element.tag: element.value for element in arrived} == {element.tag: element.value for element in stored}


def test_a_result_not_of_its_patient_is_never_sent(archive, parcel):
    for changed in (
        Parcel(parcel.file, parcel.sop_class, parcel.sop_uid, parcel.study_uid, "P2"),
        Parcel(parcel.file, parcel.sop_class, parcel.sop_uid, "1.2.3", "P1"),
        Parcel(parcel.file, parcel.sop_class, "1.2.3", parcel.study_uid, "P1"),
    ):
        with pytest.raises(SightlineError, match="another study or patient"):
            attempt(scu(archive), changed)
    parcel.file.write_bytes(parcel.file.read_bytes()[:300])
    with pytest.raises(SightlineError):
        require_own_study(parcel)
    assert archive.tries == []


def test_a_file_that_is_gone_or_damaged_fails_alone(archive, parcel, tmp_path):
    kinds = (parcel.sop_class, "1.2.3", parcel.study_uid, "P1")
    (tmp_path / "damaged.dcm").write_bytes(b"no DICOM")
    bad = [Parcel(tmp_path / name, *kinds) for name in ("gone.dcm", "damaged.dcm")]
    with scu(archive).connect([*bad, parcel]) as send:
        assert [send(one).outcome for one in (*bad, parcel)] == ["failed", "failed", "sent"]
    # nothing to offer: no association
    with scu(archive, port=1).connect(bad) as send:
        assert "does not read (FileNotFoundError)" in send(bad[0]).reason
    assert archive.tries == [parcel.sop_uid]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_stow_server_that_hangs_is_a_failure_within_its_limit(parcel, scheme):
    proxy = Proxy(1, "hang")
    place = f"{scheme}://127.0.0.1:{proxy.port}/dicom-web"
    client = StowClient(DicomWebDestination(kind="dicomweb", url=place, timeout_s=0.5))
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(attempt(client, parcel)), daemon=True)
    thread.start()
    thread.join(20.0)
    proxy.close()
    assert outcomes == ["failed"] and proxy.connections == 1


def test_what_stow_answers_mean():
    def answer(**words):
        item = pydicom.Dataset()
        item.ReferencedSOPInstanceUID = "1.2"
        if "reason" in words:
            item.FailureReason = words["reason"]
        whole = pydicom.Dataset()
        setattr(whole, words["name"], [item])
        return whole

    assert read_stow_answer(answer(name="ReferencedSOPSequence"), "1.2").outcome == "sent"
    assert read_stow_answer(answer(name="FailedSOPSequence", reason=0x0111), "1.2").outcome == "sent"
    assert read_stow_answer(answer(name="FailedSOPSequence", reason=0xA700), "1.2").outcome == "failed"
    assert read_stow_answer(answer(name="ReferencedSOPSequence"), "1.3").outcome == "failed"


def test_stow_to_orthanc_twice_is_one_object(tmp_path, parcel):
    with orthanc(tmp_path / "pacs", AuthenticationEnabled=False) as pacs:
        client = StowClient(DicomWebDestination(kind="dicomweb", url=pacs.web))
        assert attempt(client, parcel) == "sent"
        assert attempt(client, parcel) == "sent"
        assert len(pacs.json("/instances")) == 1
        back = pydicom.dcmread(io.BytesIO(pacs.instance(parcel.sop_uid)))
        assert back.PixelData == pydicom.dcmread(parcel.file).PixelData
    assert attempt(StowClient(DicomWebDestination(kind="dicomweb", url=pacs.web, timeout_s=1.0)), parcel) == "failed"
