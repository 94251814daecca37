"""The gate's first check: words of hospitals, and every reason that a header can give."""

import math

import pydicom
import pytest

from sightline.errors import RunError
from sightline.inference.gate.header import (
    HeaderLimits,
    check_header,
    normalise_body_part,
    normalise_view,
    read_header_facts,
    read_patient_age,
)

WRIST = HeaderLimits(("CR", "DX"), ("WRIST",), ("PA", "LAT"), ("L", "R"), (16.0, float("inf")))


def facts(**changed):
    data = pydicom.Dataset()
    data.SOPClassUID, data.Modality, data.BodyPartExamined, data.ViewPosition = "1.2", "DX", "WRIST", "PA"
    data.ImageLaterality, data.PatientAge, data.Rows, data.Columns = "L", "040Y", 10, 10
    for name, value in changed.items():
        setattr(data, name, value)
    return read_header_facts(data)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("WRIST", "WRIST"), ("Wrist", "WRIST"), ("HANDGELENK", "WRIST"), ("Handgelenk links", "WRIST"),
        ("LEFT WRIST", "WRIST"), ("WRIST_RT", "WRIST"), ("Hand", "HAND"), ("Thorax", "CHEST"), ("C-SPINE", "CSPINE"),
        ("HWS", "CSPINE"), ("Hüfte re", "HIP"),
        ("", ""), ("SOMETHING ELSE", "SOMETHINGELSE"), ("HAND WRIST", "HANDWRIST"),
    ],
)  # fmt: skip
def test_body_parts_of_different_hospitals(text, part):
    assert normalise_body_part(text) == part


def test_views_of_different_hospitals():
    assert [normalise_view(text) for text in ("PA", "pa ", "Lateral", "LL", "D.P.", "AP", "", "RLO")] == [
        "PA", "PA", "LAT", "LAT", "PA", "AP", "", "RLO",
    ]  # fmt: skip


def test_a_fitting_image_passes():
    assert check_header(facts(), WRIST) == ""
    assert check_header(facts(), HeaderLimits()) == ""


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"Modality": "CT"}, "modality is CT"),
        ({"Modality": ""}, "modality is not stated"),
        ({"BodyPartExamined": "FEMUR"}, "body part is FEMUR"),
        ({"BodyPartExamined": ""}, "body part is not stated"),
        ({"ViewPosition": "AP"}, "view is AP"),
        ({"ViewPosition": ""}, "view is not stated"),
        ({"ImageLaterality": "B"}, "laterality is B"),
        ({"PatientAge": "015Y"}, "age is 15"),
        ({"PatientAge": ""}, "age is not stated"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"Rows": None}, "no image"),
        ({"Manufacturer": "sightline"}, "a result of sightline"),
        ({"SeriesDescription": "AI RESEARCH: FRACTURE, PICTURE"}, "a result of sightline"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(changed, word):
    assert word in check_header(facts(**changed), WRIST)


def test_an_empty_word_takes_images_that_do_not_say():
    limits = HeaderLimits(body_part=("WRIST", ""), view=("",))
    assert check_header(facts(BodyPartExamined="", ViewPosition=""), limits) == ""
    assert check_header(facts(BodyPartExamined="FOOT", ViewPosition=""), limits) != ""


@pytest.mark.parametrize("ages", [(math.nan, 90), (18, math.nan), (-1, 90), (90, 18), (math.inf, math.inf)])
def test_ages_of_nobody_are_refused(ages):
    with pytest.raises(RunError, match="hold no patient"):
        HeaderLimits(age=ages)


def test_ages():
    data = pydicom.Dataset()
    data.PatientAge = "018M"
    assert read_patient_age(data) == 1.5
    del data.PatientAge
    data.PatientBirthDate, data.StudyDate = "20100301", "20260228"
    assert read_patient_age(data) == 15.0
    data.StudyDate = "20260301"
    assert read_patient_age(data) == 16.0
    data.PatientBirthDate = "0000"
    assert read_patient_age(data) is None


def test_limits_survive_json():
    import json

    plain = json.loads(json.dumps(WRIST.to_plain(), allow_nan=False))
    assert HeaderLimits.from_plain(plain) == WRIST
    with pytest.raises(TypeError):
        HeaderLimits.from_plain({"bodypart": ["X"]})
