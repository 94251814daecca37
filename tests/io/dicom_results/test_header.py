"""Results of images whose headers, or whose classes, say less than highdicom asks for."""

import pydicom
import pytest
from pydicom import uid
from support.dicom_sources import radiograph, whole_result
from support.dicom_tools import dciodvfy

from sightline.errors import UnreadableFile
from sightline.io.dicom_results.header import build_source_image
from sightline.io.dicom_results.objects import make_objects, write_objects

ANGIOGRAPHY = uid.XRayAngiographicImageStorage
LESS = [
    {"SOPClassUID": ANGIOGRAPHY},
    {"SOPClassUID": uid.EnhancedXAImageStorage, "NumberOfFrames": "1"},
    {"Modality": None, "SamplesPerPixel": None},
    {"Modality": "no term", "RescaleSlope": "2", "ImagerPixelSpacing": "0.2"},
    {"RescaleIntercept": "-5", "ImagerPixelSpacing": ["0", "0"], "PatientOrientation": "L"},
]


def judge(dataset, folder):
    objects = make_objects(whole_result(build_source_image(dataset)))
    paths = write_objects(objects, folder)
    assert len(paths) == 6
    for path in paths:
        assert dciodvfy(path).errors == (), path.name
    return [pydicom.dcmread(path) for path in paths]


@pytest.mark.parametrize("changes", LESS)
def test_whatever_a_header_leaves_out_results_are_written(changes, tmp_path):
    with pydicom.config.disable_value_validation():
        dataset = radiograph(**changes)
        objects = judge(dataset, tmp_path)
    referred = [
        str(item.ReferencedSOPClassUID)
        for made in objects
        for item in made.iterall()
        for item in (item.value if item.VR == "SQ" else ())
        if item.get("ReferencedSOPInstanceUID") == dataset.SOPInstanceUID
    ]
    assert set(referred) == {dataset.SOPClassUID} and len(referred) >= 6
    notes = " ".join(build_source_image(dataset).notes)
    assert ("ImagerPixelSpacing" in notes) == ("ImagerPixelSpacing" in changes)
    assert ("RescaleIntercept is not stated by the source; 0 was taken" in notes) == ("RescaleSlope" in changes)


@pytest.mark.parametrize("changes", [{"PresentationLUTShape": "INVERSE"}, {"PhotometricInterpretation": "MONOCHROME1"}])
def test_a_presentation_state_inverts_as_the_reader_does(changes):
    objects = make_objects(whole_result(build_source_image(radiograph(**changes))))
    (state,) = [made for made in objects if made.Modality == "PR"]
    assert state.PresentationLUTShape == "INVERSE"


def test_a_header_that_no_result_can_be_made_from_is_refused_in_words():
    source = build_source_image(radiograph(SamplesPerPixel=3))
    with pytest.raises(UnreadableFile, match="No results can be written as DICOM for study"):
        make_objects(whole_result(source))
