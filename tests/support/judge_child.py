"""A child process for tests of the node: it judges nothing, and writes results that are whole enough to be stored.

Words in the environment make it misbehave: `SIGHTLINE_TEST_JUDGE` is `slow` or empty; a picture whose pixels are all
7 kills the process, all 8 takes memory without end, all 9 takes time without end.
"""

import hashlib
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
from sightline.web.node.jobs.child import Answer, main

CLASSES = {"findings": "1.2.840.10008.5.1.4.1.1.88.34", "picture": "1.2.840.10008.5.1.4.1.1.7"}


def uid(*words):
    return f"2.25.{int.from_bytes(hashlib.sha256(' '.join(words).encode()).digest()[:16], 'big')}"


def judge(request):
    images = {name: pydicom.dcmread(file) for name, file in request.images.items()}
    first = next(iter(images.values()))
    pixels = set(first.PixelData[:64])
    if pixels == {7}:
        os.kill(os.getpid(), signal.SIGKILL)
    if pixels == {8}:
        held = []
        while True:
            held.append(bytes(64 * 2**20))
    while pixels == {9}:
        pass
    if os.environ.get("SIGHTLINE_TEST_JUDGE") == "slow":
        time.sleep(0.3)
    refused = tuple(
        {"sha256": name, "door": "picture", "reason": "too dark"}
        for name, one in images.items()
        if set(one.PixelData) == {0}
    )
    judged = [name for name in images if name not in {one["sha256"] for one in refused}]
    results = [(write(request, first, kind, sorted(judged)), kind) for kind in request.objects if judged]
    return Answer(tuple(results), refused, {name: {"p(fracture)": 0.25, "device": "Phantom 1"} for name in judged})


def write(request, source, kind, judged):
    made = datetime.fromtimestamp(request.received, UTC)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CLASSES[kind]
    meta.MediaStorageSOPInstanceUID = uid("result", kind, *judged)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = source.StudyInstanceUID, uid("series", kind, *judged)
    data.PatientID, data.PatientName = source.PatientID, source.PatientName
    data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = data.StudyID = ""
    data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Manufacturer, data.SeriesDescription = "sightline", f"AI RESEARCH: TEST, {kind.upper()}"
    data.ContentDate, data.ContentTime = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    data.InstanceNumber, data.SeriesNumber = 1, 9001
    data.Modality = "SR" if kind == "findings" else "OT"
    if kind == "picture":
        data.Rows = data.Columns = 8
        data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 8, 8, 7
        data.PixelRepresentation, data.PhotometricInterpretation = 0, "MONOCHROME2"
        data.PixelData = bytes(64)
    path = request.out / f"{kind}.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


if __name__ == "__main__":
    main(judge)
