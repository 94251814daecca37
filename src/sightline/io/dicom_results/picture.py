"""A picture with marks and words burnt in, as a secondary capture: what every PACS can show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

from sightline.errors import GeometryError
from sightline.io.dicom_results.codes import CodedConcept
from sightline.io.dicom_results.header import SourceImage
from sightline.io.dicom_results.identity import MANUFACTURER, NOT_FOR_DIAGNOSIS, finish, make_uid, shorten
from sightline.io.dicom_results.regions import build_code_sequence, describe_contributing_equipment, describe_equipment
from sightline.io.dicom_results.results import Maker

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
Syntax = Literal["plain", "rle", "jpegls"]
SYNTAXES = {"plain": uid.ExplicitVRLittleEndian, "rle": uid.RLELossless, "jpegls": uid.JPEGLSLossless}
SOURCE_IMAGE = CodedConcept("121322", "DCM", "Source image for image processing operation")


def write_picture(
    source: SourceImage,
    pixels: NDArray[np.uint8],
    maker: Maker,
    made: datetime,
    words: Sequence[str],
    series: tuple[str, int, str],
    *,
    number: int = 1,
    syntax: Syntax = "plain",
) -> Dataset:
    """A secondary capture of a picture that was drawn.

    Args:
        source: the image that it shows.
        pixels: uint8 [h, w, 3], with the words burnt in.
        maker: what made it.
        made: time that is written.
        words: of the result, for UIDs.
        series: UID, number and description of the series.
        number: of the instance in its series.
        syntax: how pixels are encoded, all without loss.

    Raises:
        GeometryError: no colour picture of 8 bits.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise GeometryError(f"A secondary capture is uint8 [h, w, 3]; got {pixels.dtype} {pixels.shape}.")
    header = source.copy()
    made_of = ("picture", source.uid, *words, *([syntax] if syntax != "plain" else []))
    named = describe_equipment(maker)
    orientation = header.get("PatientOrientation")
    dataset = hd.sc.SCImage.from_ref_dataset(
        header,
        pixel_array=np.ascontiguousarray(pixels),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=series[0],
        series_number=series[1],
        series_description=series[2],
        sop_instance_uid=make_uid(*made_of),
        instance_number=number,
        manufacturer=named.pop("manufacturer"),
        # highdicom wants both; what the source says, or nothing, is written below
        patient_orientation=("L", "F"),
        laterality="L",
        transfer_syntax_uid=SYNTAXES[syntax],
        contributing_equipment=describe_contributing_equipment(maker),
        specific_character_set=header.SpecificCharacterSet,
        **named,
    )
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = shorten(f"{NOT_FOR_DIAGNOSIS} Drawn by {MANUFACTURER}, run {maker.run}.", 1024)
    orientation_value: Any = list(orientation) if orientation is not None and len(orientation) == 2 else ""
    dataset.PatientOrientation = orientation_value
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [build_code_sequence(SOURCE_IMAGE)]
    dataset.SourceImageSequence = [reference]
    return finish(dataset, source, made, made_of)
