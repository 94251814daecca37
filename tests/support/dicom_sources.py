"""DICOM images to make results of: a sound computed radiograph of any size, and what hospitals' headers do to it."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, CTImageStorage, ExplicitVRLittleEndian

CHARACTER_SETS = {
    "ISO_IR 100": ("ISO_IR 100", "Müller^Jörg"),
    "ISO_IR 192": ("ISO_IR 192", "Łukasz^Żółć"),
    "IR 87": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    "IR 149": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "GB18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "empty": ("", "Smith^John"),
    "none": (None, "Smith^John"),
}
BROKEN = {
    "PatientName": "Name\x01with^control",
    "PatientID": "I" * 70,
    "PatientBirthDate": "1979-04-08",
    "PatientSex": "W",
    "StudyDate": "00000000",
    "StudyTime": "18:50:59",
    "StudyID": "a study id of more than sixteen letters",
    "AccessionNumber": "an accession number of more than sixteen",
    "ReferringPhysicianName": "R" * 70,
}


def radiograph(rows=40, columns=48, *, seed=0, **changes):
    """A computed radiograph in memory with values of 12 bits; `changes` set elements, None deletes them."""
    rng = np.random.default_rng(seed)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{seed + 1}.3"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"1.2.826.0.1.{seed + 1}.1", f"1.2.826.0.1.{seed + 1}.2"
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Smith^John", "P1", "19500101", "M"
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "120000", "S1", "A1"
    data.ReferringPhysicianName = ""
    data.Modality, data.Manufacturer, data.BodyPartExamined, data.ViewPosition = "CR", "maker", "WRIST", "PA"
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.ImageType, data.PatientOrientation, data.Laterality = ["ORIGINAL", "PRIMARY"], ["L", "F"], "R"
    data.ContentDate, data.ContentTime = "20200101", "120000"
    data.PixelSpacing = [0.2, 0.25]
    data.Rows, data.Columns = rows, columns
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 16, 12, 11, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.WindowCenter, data.WindowWidth = "2000", "3000"
    data.PixelData = rng.integers(0, 4096, (rows, columns)).astype(np.uint16).tobytes()
    for keyword, value in changes.items():
        if value is None:
            del data[keyword]
        else:
            setattr(data, keyword, value)
    return data


def ct_series(slices=6, rows=20, columns=24, *, step=2.0, seed=0):
    """The slices of a CT series from foot to head, sound as a scanner writes them."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(slices):
        data = radiograph(rows, columns, seed=seed)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{seed + 1}.3.{number + 1}"
        data.Modality, data.BodyPartExamined = "CT", "LSPINE"
        del data.ViewPosition, data.PatientOrientation, data.Laterality
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.FrameOfReferenceUID, data.PositionReferenceIndicator = f"1.2.826.0.1.{seed + 1}.4", ""
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-12.0, -10.0, step * number]
        data.PixelSpacing, data.SliceThickness = [1.0, 1.0], step
        data.KVP, data.AcquisitionNumber, data.InstanceNumber = "120", 1, number + 1
        data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = "1", "0", "HU"
        data.WindowCenter, data.WindowWidth = "300", "1500"
        values = rng.normal(40, 30, (rows, columns))
        values[:3], values[8:14, 8:16] = -1000, 400
        data.PixelData = values.astype(np.int16).tobytes()
        made.append(data)
    return made


def whole_result(source, *, labels=("fracture",), maker=None, codes=None, picture=True):
    """A result with everything in it, made of a source the same way every time."""
    from datetime import datetime

    from sightline.io.dicom_results.codes import CodeTable
    from sightline.io.dicom_results.results import (
        FindingResult,
        FoundBox,
        FoundMap,
        FoundRegion,
        ImageResult,
        Maker,
        StudyResult,
    )

    rows, columns = source.shape
    rng = np.random.default_rng(5)
    said, boxes, regions = [], [], []
    for n, label in enumerate(labels):
        mask = rng.random((rows, columns)) < 0.3
        mask[0, 0] = True
        said.append(FindingResult(label, 0.81234 / (n + 1), n == 0))
        boxes.append(FoundBox(label, (rows * 0.251, columns * 0.123, rows * 0.777, columns * 0.5678), 0.7))
        regions.append(FoundRegion(label, mask, 0.8))
    cells = FoundMap(labels[0], rng.normal(size=(5, 7)).astype(np.float32), np.diag([rows / 5, columns / 7, 1.0]))
    drawn = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8) if picture else None
    image = ImageResult(source, tuple(said), tuple(boxes), tuple(regions), cells, drawn)
    maker = maker or Maker("small-guided", "0123abcd", "f" * 64, "0.1.0", ("operating point=0.5", "engine=torch"))
    return StudyResult((image,), maker, datetime(2026, 1, 2, 3, 4, 5), codes or CodeTable())
