"""A phantom as a digital radiography (DX) DICOM object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from sightline.structures.frame import FloatArray

DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
BLACK, WHITE = 240, 3700
REGIONS = {"WRIST": ("74670003", "Wrist joint"), "HIP": ("29836001", "Hip"), "CHEST": ("816094009", "Chest")}


@dataclass(frozen=True)
class RadiographHeader:
    """What the header of a phantom's radiograph says.

    Attributes:
        seed: of the phantom; with the ids it makes the UIDs, so that the same phantom has the same UIDs.
        patient_id: PatientID.
        study_id: StudyID.
        case_id: names the image.
        number: instance number within the study.
        view: as the phantom calls it.
        side: `L`, `R` or empty.
        body_part: a key of `REGIONS`.
        pixel_mm: side of a pixel.
    """

    seed: int
    patient_id: str
    study_id: str
    case_id: str
    number: int
    view: str
    side: str
    body_part: str
    pixel_mm: float


def write_dicom(picture: FloatArray, path: Path, *, header: RadiographHeader, inverted: bool) -> None:
    """Write grey values 0 to 1 [H, W] as 12 bits in 16, with a window that shows them as they were drawn.

    `inverted` stores as MONOCHROME1 (low is bright), else as MONOCHROME2.
    """
    stored = np.rint(BLACK + np.clip(picture, 0.0, 1.0) * (WHITE - BLACK)).astype(np.uint16)
    if inverted:
        stored = (4095 - stored).astype(np.uint16)
    low, high = int(4095 - WHITE if inverted else BLACK), int(4095 - BLACK if inverted else WHITE)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DX_FOR_PRESENTATION
    meta.MediaStorageSOPInstanceUID = _make_uid("image", header.seed, header.case_id)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = DX_FOR_PRESENTATION
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = _make_uid("study", header.seed, header.study_id)
    data.SeriesInstanceUID = _make_uid("series", header.seed, header.case_id)
    data.PatientID, data.PatientName = header.patient_id, f"Phantom^{header.patient_id}"
    data.PatientBirthDate, data.PatientSex = "", ""
    data.StudyDate, data.StudyTime, data.StudyID = "20200101", "120000", header.study_id
    data.AccessionNumber, data.ReferringPhysicianName = "", ""
    data.Modality, data.Manufacturer, data.PresentationIntentType = "DX", "sightline phantom", "FOR PRESENTATION"
    data.SeriesNumber, data.InstanceNumber = header.number, header.number
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.ContentDate, data.ContentTime = "20200101", "120000"
    data.BodyPartExamined, data.ViewPosition, data.SeriesDescription = (
        header.body_part,
        choose_view_code(header.view),
        header.view,
    )
    # unpaired where there is no side; rows run to the patient's left, columns to the feet, or of a hand that is held
    # up from the fingers to the elbow
    data.ImageLaterality = header.side or "U"
    data.PatientOrientation = ["L", "H" if header.body_part == "WRIST" else "F"]
    data.AnatomicRegionSequence = [_build_region(header.body_part)]
    data.DetectorType, data.PositionerType, data.AcquisitionContextSequence = "", "", []
    data.ImagerPixelSpacing = [f"{header.pixel_mm:.6g}", f"{header.pixel_mm:.6g}"]
    data.Rows, data.Columns = picture.shape
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 1, 16, 12, 11, 0
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1 if inverted else 1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
    data.LossyImageCompression, data.BurnedInAnnotation = "00", "YES"
    # PS3.3 C.11.2.1.2: value c - 0.5 lies in the window's middle, its ends are (w - 1) / 2 away
    data.WindowWidth, data.WindowCenter = str(high - low + 1), str((low + high + 1) / 2.0)
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)


def choose_view_code(view: str) -> str:
    """The code of a view for ViewPosition (PS3.3 C.8.11.5 terms where there is one)."""
    if "oblique" in view:
        return "RLO" if "supinated" in view else "LLO"
    return view.split()[0]


def _build_region(body_part: str) -> Dataset:
    """The anatomic region of a body part (PS3.16, annex L)."""
    region = Dataset()
    region.CodeValue, region.CodeMeaning = REGIONS[body_part]
    region.CodingSchemeDesignator = "SCT"
    return region


def _make_uid(*parts: object) -> str:
    return str(generate_uid(entropy_srcs=["sightline phantom", *map(str, parts)]))
