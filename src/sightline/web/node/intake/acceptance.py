"""The one way in for an object, by whichever listener: checked, hashed, synced, committed, acknowledged.

A listener answers success only when `Intake.accept` has returned: the bytes lie in the spool under their hash, file
and folder are synced, and the row and its journal entry are committed.
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydicom
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError

from sightline.errors import SightlineError, UnreadableFile
from sightline.inference.gate.header import read_header_facts
from sightline.io.dicom.limits import Bounds, find_dataset, require_bounds
from sightline.io.dicom.patient import NamedPatient, count_patients, read_named_patient
from sightline.web.node.database import (
    TWO_PATIENTS,
    Change,
    Store,
    is_study_image,
    jobs,
    objects,
    outbox,
    results,
    studies,
)
from sightline.web.node.spool import Spool

LOG = logging.getLogger("sightline.node")
# at most 64 characters, components of digits between single dots; leading zeros are wrong, but common
UID_TEXT = re.compile(r"(?=.{2,64}\Z)[0-9]+(\.[0-9]+)*")
# what a hospital's radiograph needs at most; the general reader allows Enhanced CTs more
NODE_BOUNDS = Bounds(elements_a_frame=0)
MOST_META_BYTES = 1024 * 1024
_TAGS = [
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID",
    "PatientName", "AccessionNumber", "PatientAge", "PatientBirthDate", "StudyDate", "Modality", "BodyPartExamined",
    "ViewPosition", "PresentationIntentType", "PhotometricInterpretation", "ImageType", "Manufacturer",
    "ManufacturerModelName", "StudyPriorityID", "ImageLaterality", "Laterality", "SeriesDescription", "NumberOfFrames",
    "Rows", "Columns", "IssuerOfPatientID",
]  # fmt: skip
# built once: each object needs all of them, and building costs as much as running
_BY_BYTES = select(objects).where(objects.c.sha256 == bindparam("given"))
_SAME_UID = select(objects.c.id).where(objects.c.sop_uid == bindparam("given"), objects.c.state != "altered").limit(1)
_EARLIER = select(objects.c.id).where(objects.c.sop_uid == bindparam("given"), objects.c.id < bindparam("row")).limit(1)
# also of images that were cleaned: whose study it is does not change when its files go
_PATIENTS = select(objects.c.patient_id, objects.c.accession, objects.c.facts).distinct()
_PATIENTS = _PATIENTS.where(objects.c.study_uid == bindparam("given"), is_study_image("kept", "cleaned"))
_STUDY_STATE = select(studies.c.state).where(studies.c.study_uid == bindparam("given"))
_TOUCH_STUDY = update(studies).where(studies.c.study_uid == bindparam("given"))
_TOUCH_STUDY = _TOUCH_STUDY.values({name: bindparam(name) for name in ("last", "state", "ended")})
# what of a study is still to be planned, judged or sent
_PENDING = (
    _STUDY_STATE.where(studies.c.state != "settled"),
    select(jobs.c.id).where(
        jobs.c.study_uid == bindparam("given"), jobs.c.state.in_(("waiting", "running", "failed", "dead"))
    ),
    select(outbox.c.id)
    .join(results, outbox.c.result == results.c.id)
    .where(results.c.study_uid == bindparam("given"), outbox.c.state.in_(("due", "dead"))),
)
_ADD_STUDY, _ADD_OBJECT = insert(studies), insert(objects)
State = Literal["kept", "altered", "own"]
Result = Literal["stored", "duplicate", "altered", "own"]


class UnstorableObject(SightlineError):
    """An object that cannot be stored: its UIDs are absent, are none, or contradict what was announced."""


@dataclass(frozen=True)
class Origin:
    """Who sent an object: calling AE title or name of the token, address, and the protocol (`dimse` or `stow`)."""

    caller: str
    address: str
    protocol: Literal["dimse", "stow"]


@dataclass(frozen=True)
class AcceptedObject:
    """What became of an object that is safe now.

    Attributes:
        result: `stored`; `duplicate`, the same bytes were there; `altered`, other bytes of a known UID, kept apart and
            not judged; `own`, a result of sightline that came back.
        sop_class, sop_uid, study_uid: of the object.
        sha256: its name in the spool.
        bytes: its size.
    """

    result: Result
    sop_class: str
    sop_uid: str
    study_uid: str
    sha256: str
    bytes: int


class Intake:
    """Takes complete files from the listeners.

    Args:
        store: the node's database.
        spool: the node's files.
    """

    def __init__(self, store: Store, spool: Spool) -> None:
        self.store, self.spool = store, spool

    def accept(self, file: Path, origin: Origin, announced: tuple[str, str] | None = None) -> AcceptedObject:
        """Take a file that lies in `spool.incoming`; it is moved or removed, whatever happens.

        Args:
            file: DICOM Part 10.
            origin: who sent it.
            announced: SOP class and instance UID by which a C-STORE announced it.

        Raises:
            UnreadableFile: it does not parse, or passes a bound.
            UnstorableObject: UIDs absent, impossible, or others than announced.
        """
        try:
            return self._accept(file, origin, announced)
        except (SightlineError, OSError, DBAPIError):
            raise
        except Exception as error:  # foreign bytes must never look like a fault of the listener
            LOG.exception("an object was not taken")
            raise UnreadableFile(f"the object does not read ({type(error).__name__})") from None

    def _accept(self, file: Path, origin: Origin, announced: tuple[str, str] | None) -> AcceptedObject:
        given = file
        try:
            header, syntax = self._read(file, announced)
            file = self._rewrite_meta(file, header, syntax)
            size, sha256 = file.stat().st_size, self.spool.hash_file(file)
            row = _build_row(header, syntax, sha256, size, origin)
            # what several associations send at a time is committed together
            result = self.store.change_together(lambda change: self._record(change, file, row))
            return AcceptedObject(result, row["sop_class"], row["sop_uid"], row["study_uid"], sha256, size)
        finally:
            file.unlink(missing_ok=True)
            given.unlink(missing_ok=True)

    def _read(self, file: Path, announced: tuple[str, str] | None) -> tuple[Any, str]:
        require_bounds(file, NODE_BOUNDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
                syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
                texts = {name: str(header.get(name) or "") for name in _TAGS[1:5]}
        except Exception as error:  # foreign bytes: the parser raises what they provoke
            raise UnreadableFile(f"no DICOM object ({' '.join(str(error).split())[:120]})") from None
        for name, value in (*texts.items(), ("TransferSyntaxUID", syntax)):
            if not UID_TEXT.fullmatch(value):
                raise UnstorableObject(f"{name} is absent or no UID", "Send objects whose UIDs are whole.")
        if announced is not None and (texts["SOPClassUID"], texts["SOPInstanceUID"]) != announced:
            raise UnstorableObject("the object's SOP class or UID is not the announced one", "Fix the sender.")
        return header, syntax

    def _rewrite_meta(self, file: Path, header: Any, syntax: str) -> Path:
        """The same data set under a file meta group made here, so that every listener gives the same bytes and hash."""
        meta = create_file_meta(
            sop_class_uid=UID(str(header.SOPClassUID)),
            sop_instance_uid=UID(str(header.SOPInstanceUID)),
            transfer_syntax=UID(syntax),
        )
        head = io.BytesIO()
        head.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(head, meta)
        with file.open("rb") as old:
            if old.read(head.tell()) == head.getvalue():
                return file
            # file meta information is small; its length element may be missing
            old.seek(0)
            old.seek(find_dataset(old.read(MOST_META_BYTES))[0])
            with tempfile.NamedTemporaryFile(dir=self.spool.incoming, suffix=".dcm", delete=False) as fresh:
                fresh.write(head.getvalue())
                shutil.copyfileobj(old, fresh, 1024 * 1024)
        file.unlink()
        return Path(fresh.name)

    def _record(self, change: Change, file: Path, row: dict[str, Any]) -> Result:
        db = change.connection
        sha256, sop_uid = row["sha256"], row["sop_uid"]
        known = db.execute(_BY_BYTES, {"given": sha256}).mappings().first()
        if known is not None:
            # the row was committed once; bring the bytes back where they were cleaned in the meantime
            if known["state"] == "cleaned" or not self.spool.path(sha256).exists():
                earlier = db.execute(_EARLIER, {"given": sop_uid, "row": known["id"]}).first()
                values = {"state": self._place(change, file, row, earlier is not None), "received": change.now}
                db.execute(update(objects).where(objects.c.id == known["id"]).values(**values))
            change.note("received again", sop_uid, sha256=sha256, caller=row["caller"])
            return "duplicate"
        twin = db.execute(_SAME_UID, {"given": sop_uid}).first()
        state = self._place(change, file, row, twin is not None)
        db.execute(_ADD_OBJECT, {**row, "received": change.now, "state": state})
        result: Result = "stored" if state == "kept" else state
        change.note("received" if result == "stored" else result, sop_uid, sha256=sha256, caller=row["caller"])
        return result

    def _place(self, change: Change, file: Path, row: dict[str, Any], known_uid: bool) -> State:
        """Move a file into the spool; what it is there. Only what is kept for judging makes its study open again."""
        change.folders.add(self.spool.adopt(file, row["sha256"]))
        own = json.loads(row["facts"])["own"]
        if known_uid:
            # an image that came again under another patient: what is still to be sent would be the former one's
            given = {"given": row["study_uid"]}
            if not own and any(change.connection.execute(query, given).first() for query in _PENDING):
                self._compare_study(change, row)
            return "altered"
        if own:
            return "own"
        self._compare_study(change, row)
        self._touch(change, row["study_uid"])
        return "kept"

    def _touch(self, change: Change, study_uid: str) -> None:
        """A new image starts the study's quiet time again; what a person must look at stays held."""
        db = change.connection
        state = db.execute(_STUDY_STATE, {"given": study_uid}).scalar()
        if state is None:
            values = {"study_uid": study_uid, "first": change.now, "last": change.now, "state": "open", "complete": 0}
            db.execute(_ADD_STUDY, {**values, "reason": ""})
        else:
            values = {"last": change.now, "state": "held" if state == "held" else "open", "ended": None}
            db.execute(_TOUCH_STUDY, {"given": study_uid, **values})

    def _compare_study(self, change: Change, row: dict[str, Any]) -> None:
        """Two patients in one study are for a person to look at; a new accession number is only written down."""
        db = change.connection
        found = db.execute(_PATIENTS, {"given": row["study_uid"]}).mappings().all()
        others = [dict(one) for one in found if not json.loads(one["facts"])["own"]]
        if count_patients(map(_read_patient, (*others, row)))[0] > 1:
            self._touch(change, row["study_uid"])
            values = {"state": "held", "reason": TWO_PATIENTS}
            db.execute(update(studies).where(studies.c.study_uid == row["study_uid"]).values(**values))
            change.note("held", row["study_uid"], reason=values["reason"])
        elif any(one["accession"] != row["accession"] for one in others):
            change.note("accession changed", row["study_uid"])


def _build_row(header: Any, syntax: str, sha256: str, size: int, origin: Origin) -> dict[str, Any]:
    """What the database keeps of an object, but for when it came and what became of it."""
    patient = read_named_patient(header).pseudonymise(str(header.StudyInstanceUID))
    facts = read_header_facts(header) | {"issuer": patient.issuer, "person": patient.person}
    return {
        "sha256": sha256,
        "sop_uid": str(header.SOPInstanceUID),
        "sop_class": str(header.SOPClassUID),
        "syntax": syntax,
        "study_uid": str(header.StudyInstanceUID),
        "series_uid": str(header.SeriesInstanceUID),
        "patient_id": str(header.get("PatientID") or "")[:256],
        "accession": str(header.get("AccessionNumber") or "")[:256],
        "facts": json.dumps(facts, sort_keys=True),
        "bytes": size,
        "caller": origin.caller,
        "door": origin.protocol,
    }


def _read_patient(row: Mapping[str, Any]) -> NamedPatient:
    """Whom the image of a row names; rows of before issuers and names were compared say no more than the id."""
    facts = json.loads(row["facts"])
    return NamedPatient(row["patient_id"], facts.get("issuer", ""), facts.get("person"))
