"""CT series of a tree as volumes: against SimpleITK's series reader, with labels, splits and every refusal named."""

import numpy as np
import pytest
import SimpleITK as sitk
from support.ct_slices import write_slice

from sightline.cli.cohorts import run_import
from sightline.data.datasets.ct_series import Options
from sightline.data.datasets.folder import writer
from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.datasets.layouts import read_layout
from sightline.errors import LayoutError, SightlineError
from sightline.io.nifti import read_volume

HU = np.random.default_rng(0).integers(-1000, 1500, (6, 4, 5))  # slice, row, column
TURN = np.deg2rad(20)
OBLIQUE = ((1.0, 0.0, 0.0), (0.0, np.cos(TURN), np.sin(TURN)))


def series(folder, number=1, hu=HU, *, leave=(), cosines=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), **elements):
    """Slices whose names say nothing of their order; three numbers share a study, two a patient."""
    normal = np.cross(*cosines)
    words = {"SeriesInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.3.{number}", "PatientID": f"P{number // 2}"}
    for n, pixels in enumerate(hu):
        if n not in leave:
            place = np.round(np.array([-30.0, -20.0, 10.0]) + 2.5 * n * normal, 9)
            file = folder / f"{number}-{(n * 7) % 31:04d}"
            write_slice(file, pixels, place, cosines=np.round(cosines, 9), **{**words, **elements})


def by_simpleitk(folder, uid):
    """Values [column, row, slice] and the affine, RAS+, as SimpleITK's series reader has them."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine


def test_two_series_in_one_folder_are_what_simpleitk_reads(tmp_path):
    series(tmp_path / "ct", 1)
    series(tmp_path / "ct", 2, HU[:4], cosines=OBLIQUE, slope=2, intercept=-1000)
    cohort, rejects = read_layout("dicom_ct", tmp_path / "ct", Options(), tmp_path / "cohort")
    assert [case.case_id for case in cohort] == ["1.2.1", "1.2.2"] and rejects == ()
    write_cohort(cohort, tmp_path / "cohort")
    for case in read_cohort(tmp_path / "cohort"):
        values, affine = by_simpleitk(tmp_path / "ct", case.case_id)
        volume = read_volume(case.image)
        assert np.array_equal(volume.values, values)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
        assert case.shape == values.shape and case.label == "unknown" and case.split is None


def test_labels_facts_and_splits(tmp_path):
    for number in range(10):
        series(tmp_path / f"s{number}", number)
    rows = [f"s{number},{'fractured' if number % 4 < 2 else 'intact'},{60 + number}" for number in range(10)]
    (tmp_path / "truth.csv").write_text("\n".join(["folder,label,age", *rows, "gone,intact,1"]))
    options = Options(labels=tmp_path / "truth.csv", fractions=(0.6, 0.2, 0.2))
    cohort, rejects = read_layout("dicom_ct", tmp_path, options, tmp_path / "cohort")
    assert cohort.classes == ("intact", "fractured") and cohort[3].label == "intact"
    assert cohort[3].facts["age"] == "63" and cohort[3].facts["orientation"] == "LPS"
    assert {case.split for case in cohort} == {"train", "val", "test"}
    splits = {case.patient_id: case.split for case in cohort}
    assert all(splits[case.patient_id] == case.split for case in cohort) and len(splits) == 5
    assert [reject.reason for reject in rejects] == ["row 12: folder 'gone' is that of no CT series."]


def test_what_cannot_be_a_volume_is_named_and_the_rest_goes_on(tmp_path):
    series(tmp_path / "good", 1)
    series(tmp_path / "gap", 2, leave=(2,))
    series(tmp_path / "one", 3, HU[:1])
    series(tmp_path / "window", 4, HU.clip(0, 255), intercept=0)
    for n in range(4):  # a gantry tilted by a third of the step
        write_slice(tmp_path / "tilt" / str(n), HU[n], (0, 0.8 * n, 2.5 * n), SeriesInstanceUID="1.2.9")
    (tmp_path / "torn.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "good" / "notes.txt").write_text("no DICOM")
    cohort, rejects = read_layout("dicom_ct", tmp_path, Options(), tmp_path / "cohort")
    assert [case.case_id for case in cohort] == ["1.2.1"]
    reasons = {reject.file.name: reject.reason for reject in rejects}
    assert "1 slice is missing" in reasons["gap"] and "gantry tilted by 17.7 degrees" in reasons["tilt"]
    assert "a series of 1 slice" in reasons["one"] and "grey-scale picture" in reasons["window"]
    assert "torn.dcm" in reasons and len(rejects) == 5
    kept, _ = read_layout("dicom_ct", tmp_path, Options(check_values=False), tmp_path / "again")
    assert [case.case_id for case in kept] == ["1.2.1", "1.2.4"]


def test_a_series_whose_last_slice_was_cut_to_nothing_is_left_out(tmp_path):
    series(tmp_path / "ct" / "whole", 1)
    series(tmp_path / "ct" / "cut", 2)
    last = tmp_path / "ct" / "cut" / f"2-{((len(HU) - 1) * 7) % 31:04d}"
    last.write_bytes(b"")
    cohort, rejects = read_layout("dicom_ct", tmp_path / "ct", Options(), tmp_path / "cohort")
    assert [case.case_id for case in cohort] == ["1.2.1"]
    assert any(f"{last.name} beside its slices cannot be read" in reject.reason for reject in rejects)


def test_a_split_that_fails_leaves_a_folder_that_begins_again(tmp_path, capsys):
    out = tmp_path / "out"
    for number in range(2):
        series(tmp_path / "ct" / f"s{number}", number)
    (tmp_path / "truth.csv").write_text("folder,label\ns0,intact\ns1,fractured\n")
    with pytest.raises(SightlineError):
        run_import("dicom_ct", tmp_path / "ct", out, Options(labels=tmp_path / "truth.csv"))
    assert sorted(path.name for path in out.iterdir()) == [".unfinished", "images"]
    (out / "images" / "of_another_source.nii.gz").touch()
    assert run_import("dicom_ct", tmp_path / "ct", out, Options()) == 0
    assert "left it unfinished; it begins again" in capsys.readouterr().err
    assert not (out / ".unfinished").exists() and len(list((out / "images").iterdir())) == 2
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").touch()
    with pytest.raises(LayoutError, match="not an empty folder"):
        run_import("dicom_ct", tmp_path / "ct", tmp_path / "foreign", Options())
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["mine.txt"]


def read_all(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_cohort_is_untouched_until_another_import_over_it_succeeds(tmp_path, monkeypatch):
    """The split, the name and Ctrl-C: each comes after volumes were written."""
    source, out = tmp_path / "ct", tmp_path / "out"
    for number in range(2):
        series(source / f"s{number}", number)
    run_import("dicom_ct", source, out, Options())
    old = read_all(out)
    for number in range(2):  # the same series with other values
        series(source / f"s{number}", number, HU + 7)
    (tmp_path / "truth.csv").write_text("folder,label\ns0,intact\ns1,fractured\n")
    with pytest.raises(SightlineError):
        run_import("dicom_ct", source, out, Options(labels=tmp_path / "truth.csv"))
    assert read_all(out) == old
    with pytest.raises(LayoutError, match=r"out already holds another cohort 'ct' \(2 images\)"):
        run_import("dicom_ct", source, out, Options(name="other"))
    assert read_all(out) == old

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_cohort", stop)
    with pytest.raises(KeyboardInterrupt):
        run_import("dicom_ct", source, out, Options())
    monkeypatch.undo()
    assert read_all(out) == old
    run_import("dicom_ct", source, out, Options())
    new = read_all(out)
    assert new.keys() == old.keys()
    changed = {name for name in new if new[name] != old[name]}
    assert changed == {"images/1.2.0.nii.gz", "images/1.2.1.nii.gz", "written.json"}
    assert np.array_equal(read_volume(read_cohort(out)[0].image).values, HU.transpose(2, 1, 0) + 7)


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(LayoutError, match="no such folder"):
        read_layout("dicom_ct", tmp_path / "none", Options(), tmp_path / "c")
    assert not (tmp_path / "c").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="no slices of a CT"):
        read_layout("dicom_ct", tmp_path / "empty", Options(), tmp_path / "c")
    series(tmp_path / "ct", 1, HU[:1])
    with pytest.raises(LayoutError, match=r"no series was read\. The first: .*1 slice"):
        read_layout("dicom_ct", tmp_path / "ct", Options(), tmp_path / "c")
    (tmp_path / "t.csv").write_text("name,label\na,b\n")
    with pytest.raises(LayoutError, match=r"one of series_uid, study_uid"):
        read_layout("dicom_ct", tmp_path / "ct", Options(labels=tmp_path / "t.csv"), tmp_path / "c")


def test_one_id_of_two_issuers_is_of_two_patients(tmp_path):
    for number, issuer in enumerate(("Clinic", "practice", "")):
        words = {"PatientID": "7", "IssuerOfPatientID": issuer}
        series(tmp_path / "ct" / f"s{number}", number, HU[:2, :2, :2], StudyInstanceUID=f"1.3.{number}", **words)
    cohort, _ = read_layout("dicom_ct", tmp_path / "ct", Options(check_values=False), tmp_path / "cohort")
    assert [case.patient_id for case in cohort] == ["7^^^clinic", "7^^^practice", "7"]
    assert cohort.about["warning: issuers"].startswith("1 series with a PatientID that several issuers gave")


def test_a_study_of_several_patients_is_left_out_and_the_rest_goes_on(tmp_path):
    for number, patient in enumerate(("A", "B", "C", "")):
        study = "1.3.0" if number < 2 else "1.3.2"
        series(tmp_path / "ct" / f"s{number}", number, PatientID=patient, StudyInstanceUID=study)
    (tmp_path / "ct" / "linked").symlink_to(tmp_path)
    rows = ["patient_id,folder,label", "A,s0,x", "A,.\\s1\\,x", "C,s2/,x", "C,.\\s3,y"]
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    options = Options(labels=tmp_path / "truth.csv", fractions=(1.0, 0.0, 0.0))
    cohort, rejects = read_layout("dicom_ct", tmp_path / "ct", options, tmp_path / "cohort")
    assert [(case.case_id, case.patient_id, case.label) for case in cohort] == [
        ("1.2.2", "C", "x"),
        ("1.2.3", "C", "y"),
    ]
    assert [reject.file.name for reject in rejects] == ["s0", "s1", "linked"]
    assert all("belongs to several patients: ['A', 'B']" in reject.reason for reject in rejects[:2])
    assert "a link to a folder" in rejects[2].reason and "patients" not in cohort.about
