"""Marks out of the store as SEG and SR of DICOM images, sound for dciodvfy, equal when read back."""

import csv
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from support.dicom_sources import radiograph
from support.dicom_tools import dciodvfy
from support.workstation import box, open_studio, small_cohort

from sightline.errors import LayoutError
from sightline.structures.case import Cohort
from sightline.web.workstation.exchange.dicom import export_dicom
from sightline.web.workstation.marks.regions import encode_runs


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stop(*given):
    raise KeyboardInterrupt


@pytest.fixture
def dicom_studio(tmp_path):
    """Four studies of two views; the first view of the first two is a DICOM file."""
    cohort = small_cohort(tmp_path / "cohort")
    cases = list(cohort.cases)
    for study in range(2):
        path = tmp_path / "cohort" / f"{study}.dcm"
        radiograph(seed=study).save_as(path, enforce_file_format=True)
        cases[2 * study] = replace(cases[2 * study], image=path)
    studio = open_studio(tmp_path, Cohort("dicom", cohort.classes, tuple(cases), tmp_path / "cohort"))
    for name in ("ada", "ben"):
        studio.add(name)
    studio.plan("first", ["ada", "ben"], ask={"label": True, "confidence": True})
    yield studio
    studio.desk.close()


def test_each_readers_marks_are_objects_that_dciodvfy_takes(dicom_studio, tmp_path):
    mask = np.zeros((40, 48), bool)
    mask[5:20, 6:21] = True
    size, counts = encode_runs(mask)
    area = {k: v for k, v in box().items() if k not in ("start", "stop")} | {"size": size, "counts": counts}
    for name, mark in (("ada", box((2.5, 3.0), (10.0, 12.25), label="fracture")), ("ben", area | {"kind": "mask"})):
        first, second, third, _ = dicom_studio.reads(name)
        assert dicom_studio.finish(name, first["read"], [mark], label="fracture", confidence=80).status_code == 200
        outside = box((-2.0, 3.0), (10.0, 12.0))
        dicom_studio.finish(name, second["read"], [outside] if name == "ada" else [], label="fracture", confidence=5)
        dicom_studio.finish(name, third["read"], [box()], label="fracture", confidence=5)
    count, left = export_dicom(dicom_studio.desk, tmp_path / "out")
    found = rows_of(tmp_path / "out" / "objects.csv")
    assert [row["kind"] for row in found] == ["sr", "seg"] and count == 2
    assert {row["image_id"] for row in found} == {"S00-0"}
    why = [(row["image_id"], row["why"].split(":")[0]) for row in rows_of(tmp_path / "out" / "left_out.csv")]
    assert why == [("S01-0", "a mark reaches outside of the image"), ("S02-0", "no DICOM file")] and left == 2
    for row in found:
        assert dciodvfy(tmp_path / "out" / row["file"]).errors == (), row
    report, segmentation = (pydicom.dcmread(tmp_path / "out" / row["file"]) for row in found)
    (group,) = hd.sr.Comprehensive3DSR.from_dataset(report).content.get_planar_roi_measurement_groups()
    corners = np.array(group.roi.value)
    assert np.allclose((corners.min(axis=0), corners.max(axis=0)), ((3.0, 2.5), (12.25, 10.0)), atol=1e-3)
    assert group.get_measurements()[0].value == pytest.approx(80.0)
    # the mark of no class has no confidence of one
    assert np.array_equal(np.squeeze(segmentation.pixel_array).astype(bool), mask)
    # readers by pseudonym, in the order in which their accounts were made; names stand in one table alone
    assert [(r["pseudonym"], r["reader"]) for r in rows_of(tmp_path / "out" / "readers.csv")] == [
        ("R1", "ada"),
        ("R2", "ben"),
    ]
    assert [e.value for e in report.iterall() if e.keyword == "PersonName"] == ["R1^"]
    assert all(b"ada" not in (tmp_path / "out" / row["file"]).read_bytes() for row in found)
    with pytest.raises(LayoutError, match="not an empty folder"):
        export_dicom(dicom_studio.desk, tmp_path / "out")
    # what was stopped on the way leaves nothing, and is written again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sightline.web.workstation.exchange.dicom._find_time", stop)
        with pytest.raises(KeyboardInterrupt):
            export_dicom(dicom_studio.desk, tmp_path / "stopped")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("stopped")]
    assert export_dicom(dicom_studio.desk, tmp_path / "stopped") == (count, left)
    # merged by a rule: masks, cut to the image, nobody's confidence
    export_dicom(dicom_studio.desk, tmp_path / "union", "union")
    merged = rows_of(tmp_path / "union" / "objects.csv")
    assert [(row["kind"], row["image_id"]) for row in merged] == [("seg", "S00-0"), ("seg", "S01-0")]


def test_a_cohort_without_dicom_is_refused_in_words(studio, tmp_path):
    with pytest.raises(LayoutError, match="UIDs of its DICOM file"):
        export_dicom(studio.desk, tmp_path / "out")
