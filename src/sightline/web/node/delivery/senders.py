"""One attempt to hand one object to one destination, by C-STORE or STOW, and what its answer means.

Success, warnings (0xB000 and others) and duplicates (0x0111) count as sent: a destination that has the object already
is what is wanted. An abstract syntax that is refused means that this kind of object is not taken there, and is not
tried again. Everything else is a failure of this attempt.
"""

from __future__ import annotations

import re
import socket
import ssl
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from sightline.errors import SightlineError
from sightline.web.node.configuration import DicomDestination, DicomWebDestination
from sightline.web.node.intake.storage_scp import LEAST_TLS, load_tls

Outcome = Literal["sent", "not taken", "failed"]
DUPLICATE = 0x0111
CONNECT_S = 10.0
# what the answer of a PACS to a C-STORE means; the first line that fits (docs/dicom_conformance.md is written from it)
STATUSES: tuple[tuple[int, int, Outcome, str], ...] = (
    (0x0000, 0xFFFF, "sent", "success"),
    (DUPLICATE, 0xFFFF, "sent", "duplicate SOP instance"),
    (0xB000, 0xF000, "sent", "warning"),
    (0x0001, 0xFFFF, "sent", "warning"),
    (0x0107, 0xFFFF, "sent", "attribute list error"),
    (0x0116, 0xFFFF, "sent", "attribute value out of range"),
    (0x0122, 0xFFFF, "not taken", "SOP class not supported"),
    (0x0000, 0x0000, "failed", "any other"),
)


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended: the outcome, and a short reason without names."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Parcel:
    """An object that is to be sent: its file, and what the file must say of itself."""

    file: Path
    sop_class: str
    sop_uid: str
    study_uid: str
    patient_id: str


class DestinationUnreachable(SightlineError):
    """A destination that could not be talked to at all; no object was sent."""


class KindsNotAccepted(DestinationUnreachable):
    """A PACS that answered and takes none of the kinds that were offered."""


class Sender(Protocol):
    """Talks to one destination."""

    def connect(self, parcels: Sequence[Parcel]) -> Any:
        """A context manager whose value is called with one parcel after the other and gives an Attempt each.

        Raises:
            Unreachable: on entering.
        """


def require_own_study(parcel: Parcel) -> Any:
    """The object, read again from its stored bytes, whose study and patient are still those of the images.

    Raises:
        SightlineError: it is another study's or patient's, or damaged; it must never be sent.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(parcel.file)
            stated = (str(dataset.SOPInstanceUID), str(dataset.StudyInstanceUID), str(dataset.get("PatientID") or ""))
    except Exception as error:  # a file that was damaged on the disk raises what its bytes provoke
        raise SightlineError(f"the stored result does not read ({type(error).__name__})") from None
    if (stated[0], stated[1], stated[2][:256]) != (parcel.sop_uid, parcel.study_uid, parcel.patient_id):
        raise SightlineError("the stored result names another study or patient")
    return dataset


class StoreScu:
    """C-STORE to a PACS.

    Args:
        destination: as NODE.yaml says.
        calling: our AE title.
    """

    def __init__(self, destination: DicomDestination, calling: str) -> None:
        self.destination, self.calling = destination, calling

    @contextmanager
    def connect(self, parcels: Sequence[Parcel]) -> Iterator[Any]:
        """One association for all of the parcels' SOP classes; a file that does not read fails alone."""
        kinds: set[tuple[str, str]] = set()
        unread: dict[Path, Attempt] = {}
        for parcel in parcels:
            try:
                kinds.add((parcel.sop_class, _read_syntax(parcel.file)))
            except Exception as error:  # a file that was damaged on the disk raises what its bytes provoke
                unread[parcel.file] = Attempt("failed", f"the stored result does not read ({type(error).__name__})")
        if not kinds:
            yield lambda parcel: unread[parcel.file]
            return
        # the one transfer syntax that every PACS has to take (PS3.5, 10.1); some take no other
        kinds |= {(kind, ImplicitVRLittleEndian) for kind, syntax in kinds if syntax == ExplicitVRLittleEndian}
        try:
            association = associate(self.destination, self.calling, [build_context(*kind) for kind in sorted(kinds)])
        except KindsNotAccepted as error:
            refusal = Attempt("not taken", error.message)
            yield lambda parcel: unread.get(parcel.file, refusal)
            return
        refused = {str(context.abstract_syntax) for context in association.rejected_contexts}
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}

        def send(parcel: Parcel) -> Attempt:
            if parcel.file in unread:
                return unread[parcel.file]
            if parcel.sop_class in refused - accepted:
                return Attempt("not taken", f"{UID(parcel.sop_class).name} refused, or each of its transfer syntaxes")
            if not association.is_established:
                return Attempt("failed", "the association was cut")
            dataset = require_own_study(parcel)
            try:
                answer = association.send_c_store(dataset)
            except (RuntimeError, ValueError, AttributeError) as error:
                return Attempt("failed", f"not sent ({type(error).__name__})")
            return read_status(answer.get("Status"))

        try:
            yield send
        finally:
            if association.is_established:
                association.release()


def associate(destination: DicomDestination, calling: str, contexts: Sequence[Any], **roles: Any) -> Association:
    """An established association.

    Raises:
        Unreachable: no connection, wrong TLS, rejected, aborted; in words.
    """
    entity = AE(calling)
    entity.connection_timeout = min(CONNECT_S, destination.timeout_s)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout_s
    context = tls = None
    if destination.tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = LEAST_TLS
        context.check_hostname = False  # hospital certificates name AE titles; the CA is what is trusted
        load_tls(context, destination.tls)
        tls = (context, None)
    association = entity.associate(
        destination.address,
        destination.port,
        contexts=list(contexts),
        ae_title=destination.aet,
        tls_args=tls,  # type: ignore[arg-type]
        **roles,
    )
    if association.is_established:
        return association
    if association.rejected_contexts:
        raise KindsNotAccepted(
            "no abstract syntax of these objects is taken", "Ask the PACS which SOP classes it takes."
        )
    if association.is_rejected:
        raise DestinationUnreachable("association rejected", "Compare AE titles on both sides.")
    raise _explain_failure(destination, context)


def _explain_failure(destination: DicomDestination, context: ssl.SSLContext | None) -> DestinationUnreachable:
    """What is in the way of an association: it is connected once more, for the library says only that it failed."""
    try:
        place, wait_s = (destination.address, destination.port), min(CONNECT_S, destination.timeout_s)
        with socket.create_connection(place, timeout=wait_s) as plain:
            if context is not None:
                context.wrap_socket(plain).close()
    except ssl.SSLCertVerificationError as error:
        return DestinationUnreachable(
            f"TLS: the destination's certificate is not trusted ({error.verify_message})",
            "Give the CA that signed it as `clients` of the destination's `tls`.",
        )
    except (ssl.SSLError, ConnectionResetError) as error:
        why = error.reason if isinstance(error, ssl.SSLError) and error.reason else "it closed the connection"
        return DestinationUnreachable(
            f"TLS: no handshake ({why})",
            "Is it a port of TLS 1.2 or newer, and does the destination trust the node's certificate?",
        )
    except OSError as error:
        return DestinationUnreachable(
            f"no connection ({error.strerror or error})", "Is the destination up, are its address and port these?"
        )
    asks = "Does it trust the node's certificate" if context is not None else "Does its port expect TLS"
    return DestinationUnreachable(
        "connected, and the association was aborted", f"{asks}, and is its AE title this one?"
    )


def read_status(status: int | None) -> Attempt:
    """What the status of a C-STORE means; None where no answer came."""
    if status is None:
        return Attempt("failed", "no answer")
    outcome = next(outcome for code, mask, outcome, _ in STATUSES if status & mask == code)
    return Attempt(outcome, "" if status == 0 else f"status 0x{status:04X}")


class StowClient:
    """STOW to an archive.

    Args:
        destination: as NODE.yaml says.
    """

    def __init__(self, destination: DicomWebDestination) -> None:
        self.destination = destination

    @contextmanager
    def connect(self, parcels: Sequence[Parcel]) -> Iterator[Any]:
        """One HTTP session; each parcel is a request of its own, so that each has an answer of its own."""
        with requests.Session() as session:
            session.trust_env = False
            # of two prefixes requests takes the longer: each must be one that it mounts itself
            for prefix in ("https://", "http://"):
                session.mount(prefix, _BoundedAdapter(self.destination.timeout_s))
            session.verify = str(self.destination.authority) if self.destination.authority else True
            try:
                token = self.destination.read_token()
            except OSError:
                raise DestinationUnreachable("its token cannot be read", "Fix the file's rights.") from None
            if token:
                session.headers["Authorization"] = f"Bearer {token}"
            client = DICOMwebClient(self.destination.url, session=session)
            client.set_http_retry_params(retry=False)

            def send(parcel: Parcel) -> Attempt:
                dataset = require_own_study(parcel)
                try:
                    return read_stow_answer(client.store_instances([dataset]), parcel.sop_uid)
                except requests.exceptions.HTTPError as error:
                    return _read_http_error(error, parcel.sop_uid)
                except requests.exceptions.ReadTimeout:
                    return Attempt("failed", "no answer")
                except requests.exceptions.RequestException as error:
                    return Attempt("failed", type(error).__name__)
                except (ValueError, KeyError, AttributeError, TypeError) as error:
                    return Attempt("failed", f"an answer that does not read ({type(error).__name__})")

            yield send


class _BoundedAdapter(requests.adapters.HTTPAdapter):
    """Gives every request a time limit; dicomweb-client sets none."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__()

    def send(self, request: Any, *args: Any, **named: Any) -> Any:
        """As `requests` does, within the limit."""
        named["timeout"] = self._timeout_s
        return super().send(request, *args, **named)


def read_stow_answer(answer: Any, sop_uid: str) -> Attempt:
    """What a STOW response data set says of one instance (PS3.18, 10.5.3)."""
    for item in answer.get("FailedSOPSequence") or []:
        if str(item.get("ReferencedSOPInstanceUID")) == sop_uid:
            return read_status(int(item.get("FailureReason") or 0x0110))
    for item in answer.get("ReferencedSOPSequence") or []:
        if str(item.get("ReferencedSOPInstanceUID")) == sop_uid:
            return Attempt("sent")
    return Attempt("failed", "the answer does not name the object")


def _read_http_error(error: requests.exceptions.HTTPError, sop_uid: str) -> Attempt:
    """409 comes with the same answer as 200; some archives say duplicate that way."""
    response = error.response
    code = 0 if response is None else response.status_code
    if response is not None and code == 409 and re.search("json", response.headers.get("Content-Type", "")):
        try:
            return read_stow_answer(pydicom.Dataset.from_json(response.text), sop_uid)
        except Exception:  # foreign text: whatever it provokes, the attempt has failed
            return Attempt("failed", "HTTP 409")
    return Attempt("failed", f"HTTP {code}")


def _read_syntax(file: Path) -> str:
    meta = pydicom.filereader.read_file_meta_info(file)
    return str(meta.TransferSyntaxUID)
