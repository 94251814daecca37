"""The C-STORE listener: who may call is decided before a byte is taken, and nobody can take all of it.

pynetdicom writes each object to a file while it comes. What it leaves to its user is here: callers by AE title and
address, connections an address, TLS handshakes off the accepting thread, lengths of PDUs and objects, slow senders.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer
from sqlalchemy.exc import DBAPIError

from sightline.errors import SightlineError, UnreadableFile
from sightline.web.node.configuration import DicomListener, Tls
from sightline.web.node.intake.acceptance import AcceptedObject, Intake, Origin, UnstorableObject
from sightline.web.node.spool import SpoolFull

LOG = logging.getLogger("sightline.node")
OUT_OF_RESOURCES, WRONG_CLASS, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
# what docs/dicom_conformance.md says of the listener is written from these
STORE_STATUSES = {
    0x0000: "stored: file synced, row committed",
    OUT_OF_RESOURCES: "disk low, storing failed, or more than the caller's share of a minute; try later",
    WRONG_CLASS: "UIDs absent or impossible, or SOP class or instance other than announced",
    CANNOT_UNDERSTAND: "the object does not parse, or passes a bound",
}
STORAGE_CLASSES = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
STORAGE_SYNTAXES = tuple(map(str, ALL_TRANSFER_SYNTAXES))
NO_PEER = 0x0110
CALLER_UNKNOWN = (0x01, 0x01, 0x03)  # rejected permanently, by the service user, calling AE title not recognised
SHARE_OF_ONE_ADDRESS = 2  # an address gets at most one in so many of the associations
LEAST_TLS = ssl.TLSVersion.TLSv1_2
PDU_BYTES = 128 * 1024
# a PDU longer than we asked for is read up to this; pynetdicom would read 4 GiB into memory
MOST_PDU_BYTES = 4 * 1024 * 1024
_ROOM_LOOK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class ScpEvents:
    """What the C-STORE listener tells the rest of the node; each is called from the association's thread.

    Attributes:
        received: an object, its origin.
        refused: reason word, caller.
        rejected: an association, reason word.
        commit_asked: transaction UID, pairs of SOP class and instance, the caller's AE title; says whether it is taken.
        commit_answered: transaction UID, committed instances, failed instances.
    """

    received: Callable[[AcceptedObject, Origin], None]
    refused: Callable[[str, str], None]
    rejected: Callable[[str], None]
    commit_asked: Callable[[str, list[tuple[str, str]], str], bool]
    commit_answered: Callable[[str, list[str], list[str]], None]


class StorageScp:
    """The C-STORE listener.

    Args:
        listener: as NODE.yaml says.
        intake: where objects go.
        events: what is told.
    """

    def __init__(self, listener: DicomListener, intake: Intake, events: ScpEvents) -> None:
        self.listener, self.intake, self.events = listener, intake, events
        self._callers = {
            aet: [ipaddress.ip_network(network, strict=False) for network in networks]
            for aet, networks in listener.callers.items()
        }
        self._pace = _Pace(listener.most_objects_a_minute, listener.most_bytes_a_minute)
        self._server: _Server | None = None
        self._old_folder: str | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1]) if self._server else self.listener.port

    def start(self) -> None:
        """Listen; returns at once.

        Raises:
            SightlineError: the port is taken or the certificate does not load.
        """
        pynetdicom_config.STORE_RECV_CHUNKED_DATASET = True
        pynetdicom_config.LOG_HANDLER_LEVEL = "none"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its lines hold names and UIDs
        # pynetdicom's temporary files belong on the spool's disk, where a rename moves them
        self._old_folder, tempfile.tempdir = tempfile.tempdir, str(self.intake.spool.incoming)
        entity = AE(self.listener.aet)
        entity.maximum_associations = self.listener.most_associations
        entity.maximum_pdu_size = PDU_BYTES
        entity.require_called_aet = True
        entity.acse_timeout = self.listener.negotiate_s
        entity.dimse_timeout = entity.network_timeout = self.listener.idle_s
        for sop_class in STORAGE_CLASSES:
            entity.add_supported_context(sop_class, list(STORAGE_SYNTAXES))
        entity.add_supported_context(Verification)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._bound_connection),
            (evt.EVT_CONN_CLOSE, _remove_half),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda _: 0x0000),
            (evt.EVT_N_ACTION, self._commit_asked),
            (evt.EVT_N_EVENT_REPORT, self._commit_answered),
        ]
        try:
            server: _Server = entity.make_server(  # type: ignore[assignment]
                (self.listener.address, self.listener.port),
                evt_handlers=handlers,
                ssl_context=build_server_tls(self.listener.tls) if self.listener.tls else None,
                server_class=_Server,
                admit=self._admit_address,
            )
        except OSError as error:
            raise SightlineError(
                f"dicom: {self.listener.address}:{self.listener.port} cannot be listened on ({error}).",
                "Choose another port, or stop what holds it.",
            ) from None
        server.contexts = _SharedContexts(server.contexts)
        server.handshake_s, self._server = self.listener.negotiate_s, server
        threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom listener", daemon=True).start()

    def stop(self, patience_s: float = 10.0) -> None:
        """Take no new association, wait for those under way, then cut them."""
        if self._server is None:
            return
        server, self._server = self._server, None
        under_way = server.active_associations
        server.shutdown()
        until = time.monotonic() + patience_s
        for association in under_way:
            association.join(max(0.0, until - time.monotonic()))
            if association.is_alive():
                association.abort()
        tempfile.tempdir = self._old_folder

    def _admit_address(self, address: str, connections: int) -> bool:
        """Whether an address may open one more connection: it belongs to a caller, and leaves room for others."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if not any(ip in network for networks in self._callers.values() for network in networks):
            self.events.rejected("unknown address")
            return False
        if connections >= max(1, self.listener.most_associations // SHARE_OF_ONE_ADDRESS):
            self.events.rejected("too many connections")
            return False
        return True

    def _admit(self, event: evt.Event) -> None:
        requestor: Any = event.assoc.requestor
        networks = self._callers.get(str(requestor.primitive.calling_ae_title).strip())
        if networks is None or not any(ipaddress.ip_address(requestor.address) in network for network in networks):
            self.events.rejected("unknown caller" if networks is None else "address is not the caller's")
            event.assoc.acse.send_reject(*CALLER_UNKNOWN)
            # pynetdicom closes the socket when this returns: before, the answer must have left (1: the peer has closed)
            until = time.monotonic() + 2.0
            while event.assoc.dul.state_machine.current_state not in ("Sta13", "Sta1") and time.monotonic() < until:
                time.sleep(0.005)

    def _bound_connection(self, event: evt.Event) -> None:
        dul: Any = event.assoc.dul
        connection: Any = dul.socket

        def end_waiting() -> None:
            # pynetdicom would go on waiting for the request of a peer that has closed (a monitor's look at the port)
            if dul.state_machine.current_state in ("Sta1", "Sta2"):
                dul.to_user_queue.put(None)

        connection.reader = _BoundedReader(connection.socket, self.listener, self.intake.spool.has_room, end_waiting)
        connection.recv = connection.reader.recv
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _store(self, event: evt.Event) -> Dataset | int:
        file = Path(event.dataset_path)
        caller = str(event.assoc.requestor.ae_title).strip()
        origin = Origin(caller, str(event.assoc.requestor.address), "dimse")
        connection: Any = event.assoc.dul.socket
        connection.reader.start_object()
        try:
            self.intake.spool.require_room()
            if not self._pace.admit(caller, file.stat().st_size):
                raise _RateExceeded(f"more than a minute's share of {caller}")
            request: Any = event.request
            accepted = self.intake.accept(
                file, origin, (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
            )
        except (SpoolFull, _RateExceeded) as error:
            return self._build_refusal(
                OUT_OF_RESOURCES, "disk low" if isinstance(error, SpoolFull) else "too fast", caller
            )
        except UnstorableObject as error:
            return self._build_refusal(WRONG_CLASS, "unstorable", caller, error.message)
        except UnreadableFile as error:
            return self._build_refusal(CANNOT_UNDERSTAND, "unreadable", caller, error.message.removeprefix(f"{file}: "))
        except (OSError, DBAPIError) as error:
            LOG.error("storing failed", extra={"error": type(error).__name__})
            return self._build_refusal(OUT_OF_RESOURCES, "storing failed", caller)
        finally:
            file.unlink(missing_ok=True)
        self.events.received(accepted, origin)
        return 0x0000

    def _build_refusal(self, status: int, reason: str, caller: str, comment: str = "") -> Dataset:
        self.events.refused(reason, caller)
        answer = Dataset()
        answer.Status = status
        answer.ErrorComment = (comment or reason).encode("ascii", "replace").decode()[:64]
        return answer

    def _commit_asked(self, event: evt.Event) -> tuple[int, Dataset | None]:
        asked = event.action_information
        pairs = [
            (str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", "")))
            for item in asked.get("ReferencedSOPSequence") or []
        ]
        transaction = str(asked.get("TransactionUID") or "")
        caller = str(event.assoc.requestor.ae_title).strip()
        # processing failure: nobody knows where to send the answer to
        return (0x0000 if self.events.commit_asked(transaction, pairs, caller) else NO_PEER), None

    def _commit_answered(self, event: evt.Event) -> tuple[int, Dataset | None]:
        information = event.event_information
        lists = [
            [str(item.get("ReferencedSOPInstanceUID", "")) for item in information.get(name) or []]
            for name in ("ReferencedSOPSequence", "FailedSOPSequence")
        ]
        self.events.commit_answered(str(information.get("TransactionUID") or ""), lists[0], lists[1])
        return 0x0000, None


def _remove_half(event: evt.Event) -> None:
    """What was being received when a connection ended: pynetdicom leaves its file behind."""
    message: Any = event.assoc.dimse.message
    half = None if message is None else message._data_set_path
    if half is not None:
        message._data_set_file.close()
        Path(half).unlink(missing_ok=True)


class _SharedContexts(list[PresentationContext]):
    """What is offered to every caller: pynetdicom copies it for each, 200 classes deep, and changes none."""

    def __deepcopy__(self, memo: object) -> _SharedContexts:
        return self


class _RateExceeded(SightlineError):
    """A caller sends more a minute than NODE.yaml allows."""


class _Pace:
    """Objects and bytes of each caller within the last minute."""

    def __init__(self, objects: int, size: int) -> None:
        self.objects, self.size = objects, size
        self._lock = threading.Lock()
        self._sent: Mapping[str, deque[tuple[float, int]]] = defaultdict(deque)

    def admit(self, caller: str, size: int) -> bool:
        """Whether an object fits into the caller's minute; it is counted if it does."""
        now = time.monotonic()
        with self._lock:
            sent = self._sent[caller]
            while sent and sent[0][0] < now - 60.0:
                sent.popleft()
            if len(sent) >= self.objects or sum(one for _, one in sent) + size > self.size:
                return False
            sent.append((now, size))
            return True


class _BoundedReader:
    """Reads a connection for pynetdicom: in large pieces, within bounds of length and time."""

    def __init__(
        self, raw: socket.socket, listener: DicomListener, has_room: Callable[[], bool], closed: Callable[[], None]
    ) -> None:
        self._raw, self._closed = raw, closed
        self._raw.settimeout(listener.idle_s)
        self._idle_s, self._most, self._has_room = listener.idle_s, listener.most_bytes, has_room
        self._object = 0
        self._looked = 0

    def start_object(self) -> None:
        """An object is complete; the next may have the whole bound."""
        self._object = self._looked = 0

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer when the peer closed.

        Raises:
            OSError: a PDU too long or too slow, an object too long, or no room on the disk; the connection is cut.
        """
        if nr_bytes > MOST_PDU_BYTES:
            raise OSError(f"a PDU of {nr_bytes} bytes")
        self._object += nr_bytes
        if self._object > self._most + MOST_PDU_BYTES:
            raise OSError(f"an object of more than {self._most} bytes")
        if self._object - self._looked > _ROOM_LOOK_BYTES:
            self._looked = self._object
            if not self._has_room():
                raise OSError("no room on the disk")
        until = time.monotonic() + self._idle_s
        found = bytearray(nr_bytes)
        view, at = memoryview(found), 0
        while at < nr_bytes:
            count = self._raw.recv_into(view[at:])
            if not count:
                self._closed()
                break
            at += count
            if at < nr_bytes and time.monotonic() > until:
                raise OSError("a PDU too slow")
        view.release()
        del found[at:]
        return found


class _Server(ThreadedAssociationServer):
    """pynetdicom's server with connections counted by address, and handshakes off the accepting thread."""

    daemon_threads = True
    request_queue_size = 128
    handshake_s = 10.0

    def __init__(self, *args: Any, admit: Callable[[str, int], bool], **named: Any) -> None:
        self._admit = admit
        self._pending: Counter[str] = Counter()
        self._pending_lock = threading.Lock()
        super().__init__(*args, **named)

    def shutdown(self) -> None:
        """Stop listening; pynetdicom's own looks for itself in a list that only `start_server` fills."""
        TCPServer.shutdown(self)
        self.server_close()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept only: a client that never speaks TLS must not hold up the others."""
        return self.socket.accept()  # type: ignore[union-attr]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the connection is taken at all."""
        address = str(client_address[0])
        with self._pending_lock:
            pending = self._pending[address]
        established = sum(str(one.requestor.address) == address for one in self.active_associations)
        if not self._admit(address, pending + established):
            return False
        with self._pending_lock:
            self._pending[address] += 1
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands within bounds, then hand over to pynetdicom."""
        try:
            if self.ssl_context is not None:
                request.settimeout(self.handshake_s)
                request = self.ssl_context.wrap_socket(request, server_side=True)
            self.finish_request(request, client_address)
        except (OSError, ValueError):
            self.shutdown_request(request)
        finally:
            with self._pending_lock:
                self._pending[str(client_address[0])] -= 1


def build_server_tls(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer; where `clients` is given, only clients whose certificate it signed.

    Raises:
        SightlineError: certificate, key or CA does not load.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = LEAST_TLS
    load_tls(context, tls)
    if tls.clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_tls(context: ssl.SSLContext, tls: Tls) -> None:
    """Load the files of one end into a context.

    Raises:
        SightlineError: naming the file that does not load.
    """
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.clients is not None:
            context.load_verify_locations(tls.clients)
    except (OSError, ssl.SSLError) as error:
        raise SightlineError(
            f"{tls.certificate}, {tls.key}: do not load as certificate and key ({error}).", "Give PEM files that fit."
        ) from None
