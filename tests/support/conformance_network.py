# ruff: noqa: E501
"""The network part of docs/dicom_conformance.md: what the node proposes and takes, from its own tables and defaults."""

import tempfile
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from sightline.io.dicom.pixels import BY_PYDICOM, DEEP_JPEG, NATIVE
from sightline.web.node.configuration import MIB, DicomDestination, DicomListener, DicomWebDestination, DicomWebListener
from sightline.web.node.delivery import commitment, dispatch, senders
from sightline.web.node.intake import dicomweb, storage_scp

DECODED = NATIVE | BY_PYDICOM | DEEP_JPEG
WHERE = {"sent": "done", "not taken": "this object is not tried there again", "failed": "tried again"}


def rows(head, lines):
    """A table of markdown."""
    body = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body, ""]


def default(words, name):
    """The default of a word of NODE.yaml, as the page writes it."""
    value = words.model_fields[name].default
    if name.endswith("_s"):
        return f"{value:g} s"
    if "bytes" in name:
        return f"{value // MIB} MiB"
    return str(value)


def routes():
    """Method and path of every route of the DICOMweb application."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        tokens.write_text(f"page {'x' * dicomweb.LEAST_TOKEN}\n")
        app = dicomweb.build_app(DicomWebListener(tokens=tokens, plain=True), None, None, None)
    return {(method, route.path) for route in app.routes for method in route.methods}


def by_number(uid):
    return tuple(map(int, uid.split(".")))


def _services(kinds):
    classes = sorted(set(kinds.values()), key=by_number)
    commit, echo = StorageCommitmentPushModel, Verification
    return [
        *rows(
            ("SOP class", "UID", "SCU", "SCP"),
            [
                *(
                    (UID(uid).name, f"`{uid}`", "yes: results to `destinations`", "yes: as every storage class")
                    for uid in classes
                ),
                (f"{len(storage_scp.STORAGE_CLASSES)} storage classes", "[below](#storage-classes-taken)", "no", "yes"),
                (
                    UID(commit).name,
                    f"`{commit}`",
                    "yes, with `commit: true`",
                    "yes, for callers that are a destination, too",
                ),
                (UID(echo).name, f"`{echo}`", "no", "yes"),
            ],
        ),
        "Query/Retrieve (C-FIND, C-MOVE, C-GET), worklist, MPPS, printing and media are not supported.",
        "",
    ]


def _entity():
    entity = AE("X")
    rejected = ", ".join(map(str, storage_scp.CALLER_UNKNOWN))
    share = f"1/{storage_scp.SHARE_OF_ONE_ADDRESS} of them"
    return [
        "### Application entity and associations",
        "",
        "One AE title, `dicom.aet` (1 to 16 characters), as SCP and as calling title of the SCU. Called titles: `destinations.NAME.aet`.",
        "As SCP the called title must be its own and the calling title one of `callers`, from one of its addresses; else the",
        f"association is rejected (result, source, reason {rejected}) or, from an unknown address, the connection closed.",
        "",
        *rows(
            ("limit", "SCP: default (word)", "SCU: default (word)"),
            [
                ("port", f"{default(DicomListener, 'port')} (`dicom.port`)", "none (`port`)"),
                ("associations at a time", f"{default(DicomListener, 'most_associations')} (`most_associations`), one address at most {share}", "one per destination for objects, one for each question of commitment"),
                ("objects on an association", "any number", f"at most {dispatch.AT_ONCE}"),
                ("maximum PDU offered", f"{storage_scp.PDU_BYTES} bytes; longer ones are read up to {storage_scp.MOST_PDU_BYTES} bytes", f"{entity.maximum_pdu_size} bytes"),
                ("object", f"{default(DicomListener, 'most_bytes')} (`most_bytes`)", ""),
                ("per caller and minute", f"{default(DicomListener, 'most_objects_a_minute')} objects, {default(DicomListener, 'most_bytes_a_minute')} (`most_objects_a_minute`, `most_bytes_a_minute`)", ""),
                ("asynchronous operations", "none", "none"),
                ("connection", "", f"{senders.CONNECT_S:g} s, or `timeout_s` if less"),
                ("negotiation, TLS handshake", f"{default(DicomListener, 'negotiate_s')} (`negotiate_s`)", f"{default(DicomDestination, 'timeout_s')} (`timeout_s`)"),
                ("silence, one answer", f"{default(DicomListener, 'idle_s')} (`idle_s`)", f"{default(DicomDestination, 'timeout_s')} (`timeout_s`)"),
            ],
        ),
        f"Implementation class UID in associations: `{entity.implementation_class_uid}` (that of pynetdicom, whose version name goes with it).",
        "",
        "### Storage as SCP",
        "",
        "Success is returned once the object is safely on disk, also for an identical object sent again and for results that come back.",
        "",
        *rows(("status", "when"), [(f"0x{code:04X}", words) for code, words in storage_scp.STORE_STATUSES.items()]),
        "Every transfer syntax of this table is accepted and stored unchanged. Images whose transfer syntax is not decoded are refused by the job.",
        "",
        *rows(
            ("transfer syntax", "UID", "decoded"),
            [(UID(uid).name, f"`{uid}`", "yes" if uid in DECODED else "no") for uid in sorted(storage_scp.STORAGE_SYNTAXES, key=by_number)],
        ),
    ]  # fmt: skip


def _sending():
    return [
        "### Storage as SCU",
        "",
        "One presentation context for each SOP class and the transfer syntax in which the object is stored (see *What is written*), and a second one with Implicit VR Little Endian where that is Explicit VR Little Endian: it is used where the PACS takes no other. Pixels are never transcoded.",
        "A SOP class whose contexts the PACS rejects, all of them, counts as *not taken*.",
        "",
        *rows(
            ("answer of the PACS", "meaning", "counts as"),
            [
                *(
                    (f"0x{code:04X}" if mask == 0xFFFF else f"0x{code >> 12:X}xxx" if mask else "none, or other", words, f"{outcome}: {WHERE[outcome]}")
                    for code, mask, outcome, words in senders.STATUSES
                ),
            ],
        ),
        f"A failed object is sent again after {dispatch.FIRST_PAUSE_S:g} s, doubled up to {dispatch.LONGEST_PAUSE_S:g} s (jitter {dispatch.JITTER:.0%}), for {dispatch.GIVE_UP_S / 3600:g} h;",
        f"after {dispatch.BREAKER_FAILURES} failures in a row one object every {dispatch.BREAKER_PAUSE_S:g} s until one is taken.",
        "",
        "### Storage commitment",
        "",
        "Push model only.",
        "",
        *rows(
            ("role", "what happens"),
            [
                ("SCU", f"N-ACTION {commitment.AFTER_SENDING_S:g} s after sending at the earliest, at most {commitment.MOST_AT_ONCE} objects a transaction, association released at once; the N-EVENT-REPORT is taken on an association that the PACS opens to the listener (its AE title in `callers`, role selection accepted)"),
                ("SCU, unanswered", f"requested again after {commitment.ASK_AGAIN_S / 60:g} min, and after a restart"),
                ("SCU, no association", f"requested again after the pauses of a failed object, without an end; if the PACS rejects the abstract syntax, after {commitment.ASK_AGAIN_S / 60:g} min"),
                ("SCU, object in the failed list", "sent again after the pauses of a failed object, and given up as one"),
                ("SCP", f"N-ACTION answered 0x0000, or 0x{storage_scp.NO_PEER:04X} if the caller is no destination; N-EVENT-REPORT (event 1 all, 2 some) on an association of the node's own with the role SCP"),
                ("SCP, object not kept", f"failure reason 0x{commitment.NO_SUCH_INSTANCE:04X}; an object is kept until it is cleaned (`keep_days`), so the node is no archive"),
            ],
        ),
    ]  # fmt: skip


def _security():
    least = storage_scp.LEAST_TLS.name.replace("TLSv", "TLS ").replace("_", ".")
    return [
        "### TLS",
        "",
        *rows(
            ("where", "what is required"),
            [
                ("C-STORE listener", f"{least} or newer; with `tls.clients` a client certificate of that CA"),
                ("DICOMweb listener", "as uvicorn and Python's `ssl` set it; with `tls.clients` a client certificate of that CA; and a bearer token"),
                ("C-STORE destination", f"{least} or newer; own certificate shown; the PACS's must be signed by `tls.clients`, which must be given; host names are not compared"),
                ("DICOMweb destination", "https with the system's or `authority`'s CA, host name compared"),
                ("without TLS", "only loopback and private addresses; listeners also need `plain: true`"),
            ],
        ),
        "Cipher suites are those of Python's `ssl`. Profiles of PS3.15 (BCP 195 among them) are not claimed.",
        "",
    ]  # fmt: skip


def _dicomweb():
    words = (("study", dicomweb.STUDY_WORDS), ("series", dicomweb.SERIES_WORDS), ("instance", dicomweb.INSTANCE_WORDS))
    return [
        "## DICOMweb",
        "",
        f"As origin server on port {default(DicomWebListener, 'port')} (`dicomweb.port`), every request with `Authorization: Bearer TOKEN`. STOW takes images; QIDO and WADO give",
        "the node's own results only. `Accept` is ignored: responses have the one type below. Not supported: rendered, thumbnail, bulkdata, UPS, delete.",
        "",
        *rows(("method", "path", "service", "takes", "answers"), [(m, f"`{path}`", service, takes, f"{gives}") for m, path, service, takes, gives in dicomweb.ENDPOINTS]),
        f"A body: at most {default(DicomWebListener, 'most_bytes')} (`most_bytes`) and {default(DicomWebListener, 'most_parts')} parts (`most_parts`), each of type `application/dicom`.",
        "Failure reasons: 0xC000 cannot be parsed or exceeds a limit; 0xA900 another type, invalid UIDs, or a study other than the path's.",
        f"QIDO: equality of the words below by keyword, `limit` ({dicomweb.QIDO_LIMIT}, at most {dicomweb.QIDO_MOST}) and `offset`; no wildcards, ranges, `includefield` or fuzzy matching; other words are ignored.",
        "",
        *rows(("level", "adds"), [(level, ", ".join(names)) for level, names in words]),
        *rows(("HTTP status", "when"), dicomweb.HTTP_STATUSES.items()),
        f"As user agent: STOW-RS to `destinations` of kind dicomweb, one object a request, {default(DicomWebDestination, 'timeout_s')} (`timeout_s`), bearer token from `token_file` or `token_env`.",
        "",
    ]  # fmt: skip


def network(kinds):
    """Lines of the network part.

    Args:
        kinds: SOP class of each kind of result.
    """
    return [
        "## Network",
        "",
        "The node (`sightline serve`, [node.md](node.md)). Words in brackets are settings in NODE.yaml.",
        "",
        *_services(kinds),
        *_entity(),
        *_sending(),
        *_security(),
        *_dicomweb(),
    ]


def taken_classes():
    """Lines of the last table: every storage class that the listener takes."""
    return [
        "## Storage classes taken",
        "",
        "Accepted and stored. Objects that no rule of the node accepts are counted and deleted without a prediction.",
        "",
        *rows(("SOP class", "UID"), [(UID(uid).name, f"`{uid}`") for uid in sorted(storage_scp.STORAGE_CLASSES, key=by_number)]),
    ]  # fmt: skip
