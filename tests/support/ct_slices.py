"""CT slices as DICOM files, written one by one."""

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def write_slice(path, hu, position, *, cosines=AXIAL, slope=1, intercept=-1024, spacing=(0.5, 0.75), **elements):
    """One CT slice whose stored values are (hu - intercept) / slope."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.StudyInstanceUID, data.SeriesInstanceUID = "CT", "1.2", "1.2.3"
    data.ImageType, data.SeriesDescription = ["ORIGINAL", "PRIMARY", "AXIAL"], "spine"
    data.ImagePositionPatient, data.ImageOrientationPatient = list(position), [*cosines[0], *cosines[1]]
    data.PixelSpacing, data.SliceThickness = list(spacing), 9
    data.RescaleSlope, data.RescaleIntercept = slope, intercept
    data.Rows, data.Columns = hu.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = np.rint((hu - intercept) / slope).astype(np.uint16).tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
