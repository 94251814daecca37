"""Results of images whose headers, or whose classes, say less than highdicom asks for."""

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from support.dicom_sources import radiograph, whole_result
from support.dicom_tools import dciodvfy, dcmpschk

from sightline.errors import UnreadableFile
from sightline.io.dicom.radiograph import read_dicom
from sightline.io.dicom_results.header import build_source_image, require_one_study
from sightline.io.dicom_results.objects import make_objects, write_objects

ANGIOGRAPHY = uid.XRayAngiographicImageStorage
LESS = [
    {"SOPClassUID": ANGIOGRAPHY},
    {"SOPClassUID": uid.EnhancedXAImageStorage, "NumberOfFrames": "1"},
    {"Modality": None, "SamplesPerPixel": None},
    {"Modality": "no term", "RescaleSlope": "2", "ImagerPixelSpacing": "0.2"},
    {"RescaleIntercept": "-5", "ImagerPixelSpacing": ["0", "0"], "PatientOrientation": "L"},
    {"ImagerPixelSpacing": ["1e9", "1e9"]},
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


@pytest.mark.parametrize(("sign", "signed"), [(1, 0), (-1, 0), (1, 1), (-1, 1)])
def test_a_presentation_state_of_a_raw_image_heeds_its_sign(sign, signed, tmp_path):
    raw = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationshipSign": sign}
    image = radiograph(**raw, PixelRepresentation=signed, PhotometricInterpretation="MONOCHROME2")
    (state,) = [made for made in make_objects(whole_result(build_source_image(image))) if made.Modality == "PR"]
    assert state.PresentationLUTShape == ("INVERSE" if sign > 0 else "IDENTITY")
    image.save_as(tmp_path / "raw.dcm", enforce_file_format=True)
    assert ("inverted" in read_dicom(tmp_path / "raw.dcm").facts["grey_scale"]) == (sign > 0)


@pytest.mark.parametrize(("centres", "widths"), [(["0", "2000"], ["0", "900"]), (["2000", "1"], "900")])
def test_a_presentation_state_has_the_window_that_the_reader_takes(centres, widths):
    image = radiograph(WindowCenter=centres, WindowWidth=widths)
    (state,) = [m for m in make_objects(whole_result(build_source_image(image))) if m.Modality == "PR"]
    (voi,) = state.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (2000, 900)


@pytest.mark.parametrize(
    ("function", "width", "kept"),
    [("LINEAR", "0.5", False), ("LINEAR_EXACT", "0.5", True), ("SIGMOID", "0.5", True), ("SIGMOID", "0", False)],
)
def test_results_and_reader_take_the_same_windows(function, width, kept):
    image = radiograph(WindowCenter="2000", WindowWidth=width, VOILUTFunction=function)
    header = build_source_image(image).header
    assert ("WindowWidth" in header, header.get("VOILUTFunction")) == ((True, function) if kept else (False, None))


def test_a_presentation_state_has_the_shutter_that_the_reader_heeds():
    image = radiograph(ShutterShape="CIRCULAR", CenterOfCircularShutter=[8, 8], RadiusOfCircularShutter=6)
    (state,) = [m for m in make_objects(whole_result(build_source_image(image))) if m.Modality == "PR"]
    assert (state.ShutterShape, state.RadiusOfCircularShutter, state.ShutterPresentationValue) == ("CIRCULAR", 6, 0)
    image.RadiusOfCircularShutter = 600
    (state,) = [m for m in make_objects(whole_result(build_source_image(image))) if m.Modality == "PR"]
    assert "ShutterShape" not in state


def make_table(first, entries, *, as_words):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, 10])
    data = np.asarray(entries, dtype="<u2")
    item.add_new("LUTData", "OW" if as_words else "US", data.tobytes() if as_words else data.tolist())
    return item


@pytest.mark.parametrize(("first", "as_words"), [(0, True), (0, False), (-2048, True)])
def test_a_presentation_state_shows_a_table_of_ten_bits_from_black_to_white(first, as_words, tmp_path):
    rising = np.round(np.linspace(0, 1, 4096) ** 0.5 * 1023)
    tables = [make_table(first, rising, as_words=as_words), make_table(first, rising[::-1], as_words=as_words)]
    image = radiograph(VOILUTSequence=tables, PixelRepresentation=int(first < 0))
    (state,) = [made for made in judge(image, tmp_path) if made.Modality == "PR"]
    (made,) = state.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert list(made.LUTDescriptor) == [4096, first, 16]
    np.testing.assert_array_equal(np.frombuffer(made.LUTData, "<u2"), np.rint(rising * 65535 / 1023))
    assert dcmpschk(next(tmp_path.glob("states*")))


def test_a_modality_table_stands_as_it_is_where_a_window_counts_in_its_values():
    falling = make_table(0, np.arange(4096)[::-1], as_words=True)
    for changes, white in (({}, 4095), ({"WindowCenter": None, "WindowWidth": None}, 65535)):
        source = build_source_image(radiograph(ModalityLUTSequence=[falling], **changes))
        (state,) = [made for made in make_objects(whole_result(source)) if made.Modality == "PR"]
        words = np.frombuffer(state.ModalityLUTSequence[0].LUTData, "<u2")
        assert (words[0], words[-1]) == (white, 0) and "RescaleSlope" not in state


def test_a_header_that_no_result_can_be_made_from_is_refused_in_words():
    source = build_source_image(radiograph(SamplesPerPixel=3))
    with pytest.raises(UnreadableFile, match="No results can be written as DICOM for study"):
        make_objects(whole_result(source))


def test_images_of_two_patients_make_no_result():
    def require(*changes):
        study = {"StudyInstanceUID": "1.2.9"}
        require_one_study([build_source_image(radiograph(seed=n, **study | one)) for n, one in enumerate(changes)])

    require({"PatientName": "Smith^John"}, {"PatientName": "Smith-Roe^John"})
    require({"PatientID": "", "PatientName": "SMITH^John^^^"}, {"PatientID": "", "PatientName": "Smith^John"})
    for first, second, words in (
        ({"PatientID": "P1"}, {"PatientID": "P2"}, "2 patients (PatientID)"),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, "2 patients (IssuerOfPatientID)"),
        ({"PatientID": ""}, {"PatientID": "", "PatientName": "Roe^J"}, "as PatientID is empty"),
        ({"PatientID": ""}, {"PatientID": "", "PatientBirthDate": "19600101"}, "as PatientID is empty"),
    ):
        with pytest.raises(UnreadableFile) as caught:
            require(first, second)
        assert words in caught.value.message
