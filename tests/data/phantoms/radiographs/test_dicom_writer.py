"""Phantoms as DICOM files: no error for dciodvfy, and orientation and side as they are drawn."""

import numpy as np
import pydicom
import pytest
from support.dicom_tools import dciodvfy

from sightline.data.phantoms.radiographs.dicom_writer import REGIONS, RadiographHeader, write_dicom


def write(path, **changes):
    words = {"view": "PA", "side": "R", "body_part": "WRIST", "pixel_mm": 0.2, **changes}
    inverted = words.pop("inverted", False)
    header = RadiographHeader(seed=0, patient_id="P1", study_id="S1", case_id="S1-1", number=1, **words)
    write_dicom(np.linspace(0, 1, 40 * 30).reshape(40, 30), path, header=header, inverted=inverted)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("body_part", sorted(REGIONS))
@pytest.mark.parametrize("side", ["L", "R", ""])
def test_no_error(body_part, side, inverted, tmp_path):
    made = write(tmp_path / "a.dcm", body_part=body_part, side=side, inverted=inverted)
    assert dciodvfy(tmp_path / "a.dcm").errors == ()
    assert made.ImageLaterality == (side or "U") and "Laterality" not in made
    assert list(made.PatientOrientation) == (["L", "H"] if body_part == "WRIST" else ["L", "F"])


@pytest.mark.parametrize("view", ["PA", "oblique", "supinated oblique", "PA ulnar deviation", "AP"])
def test_no_error_in_any_view(view, tmp_path):
    write(tmp_path / "a.dcm", view=view)
    assert dciodvfy(tmp_path / "a.dcm").errors == ()
